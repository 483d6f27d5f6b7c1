"""`visor search` and `visor compare` in a terminal."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import visor
from visor.cli.main import cli
from visor.cli.search import filters_from_options
from visor.errors import BadRequest, VisorError
from visor.schema.search import Condition, Filters, PriceRange
from visor.schema.words import sureness

Run = Callable[..., Result]


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name, value in {"VISOR_HOME": str(home), "VISOR_INDEX": "small", "VISOR_FRESHNESS_S": "0"}.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(cli, [str(word) for word in words])


def titles(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [match["item"]["title"] for match in json.loads(result.stdout)["matches"]]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["-k", "1"], ["red"]),
        (["-k", "1", "--all"], ["red", "amber", "blue"]),
        (["--filter", "collection=cold"], ["blue"]),
        (["--filter", "collection!=warm"], ["blue"]),
        (["--filter", "price=", "--min-similarity", "0.999"], ["red"]),
        (["--filter", "price=.."], []),
        (["--min-confidence", "0.98"], ["red"]),
        (["--variety", "0.5", "--sort", "largest", "--no-group", "-k", "1"], ["red"]),
    ],
)
@pytest.mark.slow
def test_options_of_a_search(run: Run, folder: Path, options: list[str], found: list[str]) -> None:
    got = titles(run("search", folder / "warm" / "red.png", "--json", *options))
    assert (got[:1], sorted(got)) == (found[:1], sorted(found))


def test_a_search_goes_on_behind_the_last_answer(run: Run, folder: Path) -> None:
    path = folder / "warm" / "red.png"
    first = run("search", path, "-k", 1)
    after = first.stdout.split("--after ")[1].split()[0]
    second = json.loads(run("search", path, "-k", 2, "--after", after, "--json").stdout)
    assert ("red" in first.stdout, {match["item"]["title"] for match in second["matches"]}) == (True, {"amber", "blue"})
    assert "next" not in second


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--text", "red", "--box", "0,0,1,1"], "--box does not go with"),
        (["0" * 32, "--box", "0,0,1,1"], "--box does not go with an item"),
        (["--like", "PICTURE", "--box", "0,0,1,1"], "--box does not go with --like"),
        (["PICTURE", *["--like", "PICTURE"] * 9], "--like and --unlike are given 9 times"),
        (["--text", "red", "--metric", "cosine"], "--metric does not go with --text"),
        (["--text", "red", "--min-similarity", "0.3"], "--min-similarity does not go with text alone"),
        (["--filter", "collection=warm", "--min-confidence", "0.3"], "--min-confidence does not go with"),
        (["PICTURE", "--after", "xyz"], "--after is not a cursor"),
        (["PICTURE", "--filter", "date=soon"], "Correct the date"),
        (["--text", "red " * 200], "--text is"),
    ],
)
def test_what_does_not_fit_is_said_of_the_options(run: Run, folder: Path, words: list[str], says: str) -> None:
    red = str(folder / "warm" / "red.png")
    error = run("search", *[red if word == "PICTURE" else word for word in words]).exception
    assert isinstance(error, BadRequest)
    assert says in str(error)
    assert not re.search(r"\b[a-z]+_[a-z]+\b|`|\bhandle\b|\bthe (request|search)\b", str(error))


@pytest.mark.slow
def test_examples_go_with_a_picture_or_stand_alone(run: Run, folder: Path) -> None:
    red, amber, blue = folder / "warm" / "red.png", folder / "warm" / "amber.png", folder / "cold" / "blue.png"
    both = titles(run("search", red, "--like", blue, "--json"))
    assert set(both[:2]) == {"red", "blue"}
    assert titles(run("search", "--like", amber, "--unlike", blue, "--json"))[0] == "amber"


def test_a_folder_gives_one_line_a_picture(run: Run, folder: Path, tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes((folder / "warm" / "red.png").read_bytes())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.jpg").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    result = run("search", tmp_path, "--json", "-k", 1)
    lines: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [Path(line["image"]).name for line in lines] == ["a.png", "b.png", "c.jpg"]
    assert [line["answer"]["matches"][0]["item"]["title"] for line in lines[:2]] == ["red", "red"]
    assert lines[2]["problem"]["status"] == 422
    assert (result.exit_code, "1 of 3 pictures" in result.stderr) == (1, True)
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    assert "\ufffd.png" in run("search", tmp_path, "--json", "-k", 1).stdout
    (tmp_path / os.fsdecode(b"\xff.png")).rename(tmp_path / "a.png")
    told = run("search", tmp_path, "-k", 1).stdout.splitlines()
    assert [("exact" in line, "not an image" in line) for line in told[:3]] == [(True, False)] * 2 + [(False, True)]


@pytest.mark.parametrize(
    ("words", "said", "unsaid"),
    [
        (["--text", "qqqzzz"], "No item matches.\n0 of 3 items", "The nearest items"),
        (["--text", "red"], "red", "similar"),
        (["--text", "red", "--filter", "collection=cold"], "No item matches.", "nearest"),
        (["--filter", "source!=none"], "red", "nearest"),
        (["--filter", "source!=none", "--sort", "newest"], "red", "%"),
    ],
)
def test_words_or_filters_alone_claim_no_likeness_and_no_nearest_item(
    run: Run, words: list[str], said: str, unsaid: str
) -> None:
    shown = run("search", *words).stdout
    assert (said in shown, unsaid in shown) == (True, False)


@pytest.mark.parametrize(
    ("probability", "said"),
    [(0.0, "<1%"), (0.009, "<1%"), (0.01, "1%"), (0.5, "50%"), (0.99, "99%"), (0.9901, ">99%"), (1.0, ">99%")],
)
def test_nothing_is_said_to_be_certain(probability: float, said: str) -> None:
    assert sureness(probability) == said


def test_an_index_that_cannot_be_read_is_not_called_empty(run: Run, home: Path, folder: Path) -> None:
    manifests = [*(home / "indexes" / "small" / "objects").glob("manifest-*")]
    for manifest in manifests:
        manifest.rename(home / manifest.name)
    told = run("search", folder / "warm" / "red.png")
    for manifest in manifests:
        (home / manifest.name).rename(manifest)
    assert (bool(manifests), "visor check" in told.stderr, "empty" in told.stdout) == (True, True, False)


def test_a_match_that_stands_for_copies_names_them(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcde":
        (tmp_path / name).mkdir()
        shutil.copy(folder / "warm" / "red.png", tmp_path / name / f"{name}.png")
    monkeypatch.setenv("VISOR_INDEX", "copies")
    with visor.open(settings=visor.Settings.read()) as index:
        index.add_folder(tmp_path, name="copies")
    lines = run("search", folder / "warm" / "red.png").stdout.splitlines()
    first, also = lines[0].split()[-1], lines[1].removeprefix("     5 places; also ").split(", ")
    assert (len(lines), also[3:], len({first, *also[:3]})) == (3, ["…"], 4), lines
    assert all((tmp_path / name).is_file() for name in (first, *also[:3]))


def test_what_is_held_back_says_what_to_do(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISOR_UNSAFE_QUERY", "0")
    said = run("search", folder / "warm" / "red.png").stdout
    assert ("its score is 0" in said, "raise VISOR_UNSAFE_QUERY" in said, "--box" in said) == (True, True, True)
    assert "raise VISOR_UNSAFE_QUERY" in run("search", folder / "cold").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["index", ""], "The path is empty"),
        (["search", ""], "The path is empty"),
        (["search", "--like", ""], "The path is empty"),
        (["compare", "", ""], "The path is empty"),
        (["demo", "--source", ""], "'--source': The path is empty"),
        (["export", ""], "'FOLDER': The path is empty"),
        (["backup", ""], "'FILE': The path is empty"),
        (["source", "new", "shop", "--folder", ""], "'--folder': The path is empty"),
    ],
)
def test_an_empty_path_is_refused_and_not_taken_for_the_current_folder(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(folder)
    got = run(*words)
    assert (got.exit_code > 0, said in f"{got.stderr}{got.exception}") == (True, True), got.output
    assert sorted(path.name for path in folder.iterdir()) == ["cold", "warm"]


def test_every_command_takes_its_paths_as_those_that_may_not_be_empty() -> None:
    """Of a path that is empty, click makes the current folder."""
    commands = Path(visor.__file__).parent / "cli"
    assert not [path.name for path in commands.glob("*.py") if "click.Path(" in path.read_text("utf-8")]


def test_a_search_for_nothing_is_told_in_words_of_the_terminal(run: Run) -> None:
    said = str(run("search", "-k", "3").exception)
    assert ("--text WORDS or --filter" in said, "vector" in said, "handle" in said) == (True, False, False)


def test_a_folder_without_pictures_is_refused(run: Run, tmp_path: Path) -> None:
    assert "holds no picture" in str(run("search", tmp_path).exception)


@pytest.mark.slow
def test_two_pictures_are_compared(run: Run, folder: Path, tmp_path: Path) -> None:
    red = folder / "warm" / "red.png"
    part = tmp_path / "part.png"
    with Image.open(red) as image:
        image.crop((20, 10, 320, 240)).save(part)
    over, difference = tmp_path / "over.jpg", tmp_path / "difference.png"
    told = run("compare", red, part, "--overlay", over, "--difference", difference)
    assert told.stdout.startswith("edited")
    assert [Image.open(io.BytesIO(path.read_bytes())).size for path in (over, difference)] == [(320, 240)] * 2
    item = json.loads(run("search", red, "--json").stdout)["matches"][0]["item"]["id"]
    assert json.loads(run("compare", item, red, "--json").stdout)["verdict"] == "exact"
    other = run("compare", red, folder / "cold" / "blue.png", "--overlay", tmp_path / "none.jpg")
    assert ("similar" in other.stdout, "no file" in other.stdout) == (True, True)
    assert not (tmp_path / "none.jpg").exists()


@pytest.mark.parametrize(
    ("texts", "filters"),
    [
        (["collection=a", "collection=b"], Filters(collection=("a", "b"))),
        (["price=..20"], Filters(price=PriceRange(max=20))),
        (["date=2024..2025-03"], Filters(date_from="2024", date_to="2025-03")),
        (["price=5..", "price=..20"], Filters(price=PriceRange(min=5, max=20))),
        (["date=2024..", "date=..2025"], Filters(date_from="2024", date_to="2025")),
        (["size=L", "size=XL"], Filters(attributes={"size": Condition(any=("L", "XL"))})),
        (["size!=L", "size!=S"], Filters(attributes={"size": Condition(none=("L", "S"))})),
        (["weight=1.5..20"], Filters(attributes={"weight": Condition(min="1.5", max="20")})),
        (["weight=-3.."], Filters(attributes={"weight": Condition(min="-3")})),
        (["made=..2024-05-31"], Filters(attributes={"made": Condition(max="2024-05-31")})),
        (["size="], Filters(attributes={"size": Condition(missing=True)})),
        (["size=.."], Filters(attributes={"size": Condition(missing=False)})),
        (["label!=cat"], Filters(attributes={"label": Condition(none=("cat",))})),
        (["name=a..b"], Filters(attributes={"name": Condition(any=("a..b",))})),
        (["url=https://a.example/?b=c"], Filters(attributes={"url": Condition(any=("https://a.example/?b=c",))})),
    ],
)
def test_filters_as_texts(texts: list[str], filters: Filters) -> None:
    assert filters_from_options(tuple(texts)) == filters


@pytest.mark.parametrize(
    "texts",
    [
        *(("collection",), ("=a",), ("!=a",), ("price=cheap",), ("price=nan",)),
        *(("price=5", "price=7"), ("date=2024", "date=2025.."), ("size=1..5", "size=7..9")),
        tuple(f"size!={number}" for number in range(101)),
    ],
)
def test_what_is_no_filter_is_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest, match="--filter"):
        filters_from_options(texts)


def test_an_attribute_that_is_not_declared_is_named(run: Run, folder: Path) -> None:
    failed = run("search", folder / "warm" / "red.png", "--filter", "colour=red").exception
    assert isinstance(failed, VisorError)
    assert "'colour' is not an attribute" in str(failed)


@pytest.mark.slow
def test_attributes_that_are_undeclared_or_rare_are_named(
    run: Run, home: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"red": {"size": "M", "brand": "Acme"}, "amber": {"size": "L", "care": "wash"}, "blue": {"size": "S"}}
    for path in folder.glob("*/*.png"):
        shutil.copy(path, tmp_path)
        (tmp_path / path.with_suffix(".json").name).write_text(json.dumps({"extra": said[path.stem]}))
    config = tmp_path / "visor.toml"
    config.write_text('[attributes]\nsize = "keyword"\nbrand = "keyword"\nmade = "date"\n')
    monkeypatch.setenv("VISOR_CONFIG", str(config))
    monkeypatch.setenv("VISOR_INDEX", "described")
    with visor.open(settings=visor.Settings.read()) as index:
        index.add_folder(tmp_path, name="described")
    assert json.loads(run("stats", "--json").stdout)["attributes"] == {
        "size": {"type": "keyword", "known": 3, "of": 3},
        "brand": {"type": "keyword", "known": 1, "of": 3},
        "made": {"type": "date", "known": 0, "of": 3},
        "care": {"type": None, "known": 1, "of": 3},
    }
    lines = [line for line in run("stats").stdout.splitlines() if line.startswith("attribute ")]
    assert lines == [
        "attribute brand: known of 1 of 3 items (keyword)",
        "attribute made: known of 0 of 3 items (date)",
        "attribute care: known of 1 of 3 items (undeclared; [attributes] in visor.toml makes it a filter)",
    ]
