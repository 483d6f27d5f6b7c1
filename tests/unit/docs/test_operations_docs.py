"""docs/operations.md says what the code says: every setting with its type and default, every error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_origin

import msgspec
import pytest

import visor
import visor.bulk.run
import visor.ingest.embed  # both have errors of their own
from visor.errors import VisorError
from visor.settings import PREFIX, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
TYPES = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Path: "path"}


def rows() -> dict[str, tuple[str, str]]:
    found = re.findall(rf"^\| `({PREFIX}\w+)` \| (.+?) \| (.+?) \| .+ \|$", PAGE, re.MULTILINE)
    return {variable: (kind, default) for variable, kind, default in found}


def kind_of(kind: Any) -> str:
    if kind in TYPES:
        return TYPES[kind]
    if get_origin(kind) is tuple:
        return "list, by commas"
    return " or ".join(f"`{choice}`" for choice in kind.__args__)


def default_of(value: Any) -> str:
    text = (
        ",".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )
    return f"`{text}`" if text else "empty"


def test_every_setting_is_listed_with_its_type_and_default() -> None:
    expected = {
        PREFIX + field.name.upper(): (kind_of(field.type), default_of(field.default))
        for field in msgspec.structs.fields(Settings)
    }
    assert rows() == expected


def all_errors(kind: type[VisorError] = VisorError) -> set[type[VisorError]]:
    return {kind}.union(*(all_errors(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize("code", sorted({e.code for e in all_errors() if e.__module__.startswith("visor.")}))
def test_every_error_is_explained(code: str) -> None:
    assert re.search(rf"^\| `{code}` \| .+ \| .+ \|$", PAGE, re.MULTILINE)


def test_no_error_is_explained_that_does_not_exist() -> None:
    section = PAGE[PAGE.index("## Errors") : PAGE.index("## When a part is down")]
    codes = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert codes <= {error.code for error in all_errors()}


def test_every_metric_is_listed() -> None:
    package = Path(visor.__file__).parent
    made = "".join((package / name).read_text(encoding="utf-8") for name in ("web/metrics.py", "telemetry/metrics.py"))
    names = set(re.findall(r'"((?:visor|process)_\w+)"', made))
    assert {name for name in names if f"`{name}" not in PAGE} == set()
