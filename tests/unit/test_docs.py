"""The documents' links lead somewhere, and the map names every folder of the package."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from visor.errors import FormatError, ImageError, SourceError
from visor.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_local_links_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|<img[^>]+src=\"([^\"]+)\"", document.read_text())
    local = [link for pair in links for link in pair if link and "://" not in link]
    missing = [link for link in local if not (document.parent / link).exists()]
    assert not missing


def test_the_map_names_every_part_of_the_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "shared" / "visor"
    parts = [path for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    assert not [path.name for path in parts if f"shared/visor/{path.name})" not in text]


def test_operations_lists_every_setting_and_error() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    listed = set(re.findall(r"^\| `VISOR_(\w+)` \|", text, re.MULTILINE))
    assert listed == {field.name.upper() for field in msgspec.structs.fields(Settings)}
    for field in msgspec.structs.fields(Settings):
        default = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default)
        row = next(line for line in text.splitlines() if line.startswith(f"| `VISOR_{field.name.upper()}` |"))
        assert not default or f"`{default}`" in row or f"`{default.lower()}`" in row
    kept = {
        cls.code for cls in (*ImageError.__subclasses__(), *SourceError.__subclasses__(), *FormatError.__subclasses__())
    }
    assert not [code for code in kept if f"`{code}`" not in text]
