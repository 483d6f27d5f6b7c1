"""What errors say when they are one line, in a log or a terminal: each part stands where a reader expects it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import visor
from visor.console import progress
from visor.errors import FetchFailed, FetchUnavailable, RequestError, VisorError
from visor.ingest.batch_plan import nothing_to_compare
from visor.schema.words import counted
from visor.web.problems import problem_of

PACKAGE = Path(visor.__file__).parent


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"found": "k is 0"}, "k is 0."),
        ({"found": "k is 0", "valid": "1 to 200"}, "k is 0. Valid: 1 to 200."),
        ({"found": "k is 0", "remedy": "Send another"}, "k is 0. Send another."),
        (
            {"found": "k is 0.", "valid": "1 to 200.", "remedy": "Send another."},
            "k is 0. Valid: 1 to 200. Send another.",
        ),
    ],
)
def test_an_error_in_one_line_says_which_part_is_valid(parts: dict[str, str], line: str) -> None:
    assert str(VisorError(parts.pop("found"), **parts)) == line


def test_what_would_show_something_is_no_stray_fragment() -> None:
    assert "to compare. Valid: An image that shows something. Look at" in str(nothing_to_compare("Nothing to compare."))


def _valid_literals() -> list[tuple[str, str]]:
    """Where an error is made, and how what it says is valid begins."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "valid":
                texts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
                found += [(f"{path.relative_to(PACKAGE)}:{node.value.lineno}", t) for t in texts if isinstance(t, str)]
    return found


def _kinds(kind: type[VisorError]) -> Iterator[type[VisorError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def test_every_refusal_says_what_to_do() -> None:
    refusals, silent = {kind.__name__ for kind in _kinds(RequestError)}, []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "visor.errors"]
        own = refusals & {name.name for one in imports for name in one.names}
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") in own]
        silent += [
            f"{path.relative_to(PACKAGE)}:{call.lineno}"
            for call in calls
            if not {"remedy", None} & {keyword.arg for keyword in call.keywords}
        ]
    assert not silent


@pytest.mark.parametrize("kind", sorted({*_kinds(VisorError)}, key=lambda kind: kind.__name__))
def test_every_problem_over_http_says_what_to_do(kind: type[VisorError]) -> None:
    document = problem_of(kind("Nothing came"))
    assert document.remedy
    assert document.detail == f"Nothing came. {document.remedy}."


def test_what_is_valid_is_said_of_what_is_wanted_not_of_what_was_found() -> None:
    """It stands behind 'Valid:' in a line and 'What works:' on the page: a pronoun there has nothing to stand for,
    and what happened belongs to what was found."""
    literals = _valid_literals()
    assert len(literals) > 200
    of_the_found = re.compile(r"^(It|Its|They|There|The first of them|The answer)\b")
    assert not [(where, text) for where, text in literals if of_the_found.search(text)]


def test_what_is_valid_is_a_thing_and_no_sentence() -> None:
    """'Valid: At most 5 bytes', not 'Valid: At most 5 bytes are read': a verb stands in a relative clause only."""
    verb = re.compile(r"\b(is|are|was|were|has|have|holds|reads|needs?|takes|runs|deletes|does|gives|starts|ships)\b")
    leads_in = re.compile(r"\b(that|which|who|whose|as|if|where|what|when)\b")
    found = []
    for where, text in _valid_literals():
        said = verb.search(text)
        if said and not leads_in.search(text[: said.start()]):
            found.append((where, text))
    assert not found


@pytest.mark.parametrize(
    ("count", "thing", "said"),
    [
        (0, "item", "0 items"),
        (1, "item", "1 item"),
        (2000, "item", "2,000 items"),
        (3, "batch", "3 batches"),
        (2, "query", "2 queries"),
        (2, "day", "2 days"),
    ],
)
def test_things_are_counted_as_people_do(count: int, thing: str, said: str) -> None:
    assert counted(count, thing) == said


def test_no_command_says_one_of_something_in_the_plural() -> None:
    """What a terminal shows of a bare number and a plural is wrong for 1: `counted` says both."""
    plural = re.compile(
        r"\{(?:count|again|len\([^}]*\)|[a-z_.]*\.(?:checked|left|lost|runs|tries|failed|images))(?::,)?\} "
        r"(?:items|images|pictures|places|requests|attempts|runs|times|batches|letters|dead letters)\b"
    )
    found = [
        f"{p.name}: {m[0]}" for p in sorted((PACKAGE / "cli").glob("*.py")) for m in plural.finditer(p.read_text())
    ]
    assert not found


def test_progress_is_never_more_than_all(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Done", 4) as advance:
        for count in (4, 1, 3):
            advance(count)
    assert capsys.readouterr().err.split("\n")[:2] == ["Done: 4 of 4", "Done: 5 of 5"]


def test_a_picture_that_cannot_be_had_now_is_worth_another_try() -> None:
    """It may be an item's, which whoever asks cannot replace."""
    assert (
        problem_of(FetchUnavailable("a.example does not answer")).remedy == "Try again later, or send another picture"
    )
    assert problem_of(FetchFailed("a.example answered 404")).remedy == "Send another picture"
