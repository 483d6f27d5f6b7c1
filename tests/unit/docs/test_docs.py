"""The documents' links lead somewhere, and the map names every folder of the package."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import LONGEST

import visor

ROOT = Path(__file__).parents[3]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
LINES_WITHOUT_QUESTION, FILES_MAX = 100, 14
CODE_FOLDERS = (
    "devtools",
    "examples",
    "frontend/src",
    "frontend/test",
    "functions",
    "scripts",
    "shared",
    "terraform",
    "tests",
)
CODE = {".py", ".ts", ".tsx", ".css", ".tf", ".mjs"}
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_local_links_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|<img[^>]+src=\"([^\"]+)\"", document.read_text())
    local = [link for pair in links for link in pair if link and "://" not in link]
    missing = [link for link in local if not (document.parent / link).exists()]
    assert not missing


def test_the_map_names_every_part_of_the_package() -> None:
    package = ROOT / "shared" / "visor"
    parts = [path for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    assert not [path.name for path in parts if f"shared/visor/{path.name})" not in ARCHITECTURE]


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    homes = {
        name: module if module == "visor.errors" else f"{module}.{name}" for name, module in visor._MODULES.items()
    }
    assert {name for name, home in homes.items() if f"::: {home}\n" not in text} == set()


def test_the_map_has_a_question_for_every_long_file() -> None:
    rows = re.findall(r"^\| \[[^]]+\]\(\.\./(shared/visor/[^)]+\.py)\) \| [^|]+\? \|$", ARCHITECTURE, re.MULTILINE)
    package = ROOT / "shared" / "visor"
    long = {path for path in package.rglob("*.py") if len(path.read_text().splitlines()) > LINES_WITHOUT_QUESTION}
    assert {path.relative_to(ROOT).as_posix() for path in long} - set(rows) == set()


def test_no_folder_has_too_many_files_of_code_beside_each_other() -> None:
    files = [path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*")]
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in files if path.suffix in CODE)
    assert {folder: count for folder, count in counts.items() if count > FILES_MAX} == {}


def test_the_longest_files_of_tests_are_there() -> None:
    assert [name for name in LONGEST if not any((ROOT / "tests").rglob(name))] == []
