"""Writes a package with a new kind of source, which works and is meant to be changed."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from visor.errors import SettingsError
from visor.sources.registry import kinds

FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "readme.md.txt",
    "visor_source_@kind@.py": "source.py.txt",
    "tests/test_@kind@.py": "test.py.txt",
}
"""File of the new package, and its template."""


def write_source_package(kind: str, folder: Path) -> Path:
    """A package for the source kind `kind` in `folder`/visor-source-KIND.

    Raises:
        SettingsError: The name cannot be used, or the package's folder is not empty.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", kind) or kind in kinds():
        raise SettingsError(
            f"'{kind}' cannot be the name of a new kind of source",
            valid="a-z, 0-9 and _, beginning with a letter, and none of " + ", ".join(kinds()),
        )
    package = folder / f"visor-source-{kind.replace('_', '-')}"
    if package.exists() and any(package.iterdir()):
        raise SettingsError(f"{package} is not empty", remedy="Remove it, or choose another name")
    for name, text in package_files(kind).items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return package


def package_files(kind: str) -> dict[str, str]:
    """Texts of the package's files, by path."""
    words = {
        "@kind@": kind,
        "@dashed@": kind.replace("_", "-"),
        "@Class@": "".join(part.capitalize() for part in kind.split("_")),
    }
    templates = files("visor.sources").joinpath("template")
    texts = {name: templates.joinpath(template).read_text("utf-8") for name, template in FILES.items()}
    for placeholder, word in words.items():
        texts = {name.replace(placeholder, word): text.replace(placeholder, word) for name, text in texts.items()}
    return texts
