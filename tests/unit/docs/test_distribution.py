"""Nothing here tells anybody to install a distribution of a name that is not ours: `visor` belongs to somebody else."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OURS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
COMMANDS = re.compile(r"(?:\bpipx?3?|\buv(?: pip)?|\bpoetry|\bconda)\s+(?:install|add|run|inject)\b([^\n#&|;)]*)")
WITH_EXTRA = re.compile(r"(?<![\w./-])visor\\?\[[a-z{]")
REQUIRED = re.compile(r"""(?:dependencies|requires)\s*=\s*\[[^\]]*["']visor["'\[<>=~! ]""")
PLAIN = re.compile(r"""(?<![\w./@{-])visor(?![\w./-])""")


def texts() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name and name != str(Path(__file__).relative_to(ROOT))]
    found = {}
    for name in names:
        try:
            found[name] = (ROOT / name).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
    return found


def wrong(text: str) -> list[str]:
    """What in a text tells to install `visor`."""
    told = [match[0] for match in COMMANDS.finditer(text) if PLAIN.search(match[1])]
    return told + [match[0] for pattern in (WITH_EXTRA, REQUIRED) for match in pattern.finditer(text)]


def test_the_name_is_ours() -> None:
    assert OURS == "visor-search"


@pytest.mark.slow
def test_no_file_tells_to_install_another_name() -> None:
    assert {name: found for name, text in texts().items() if (found := wrong(text))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "pip install visor",
        "python -m pip install 'visor[site]'",
        "uv pip install --upgrade visor",
        "needs visor[gcp]",
        'dependencies = ["visor"]',
        'dependencies = [\n  "httpx",\n  "visor>=1",\n]',
    ],
)
def test_such_a_line_would_be_found(text: str) -> None:
    assert wrong(text)


@pytest.mark.parametrize("text", ["pip install visor-search", "pip install -e '.[gcp]'", "cd visor && pip install ."])
def test_other_lines_are_not(text: str) -> None:
    assert not wrong(text)
