"""An owner's `visor.toml` as a whole: its tables of sources, models and attributes, and errors that name its lines."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from visor.errors import SettingsError

CONFIGURATION_FILE = "visor.toml"
TABLES = ("sources", "models", "attributes")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
"""The name of a source or a model."""


class OwnerFile:
    """A valid TOML file with no tables other than those in `TABLES`.

    Args:
        text: The file's content.
        path: Its name, for errors.

    Raises:
        SettingsError: It is not valid; names the line.
    """

    def __init__(self, text: str, path: str | Path = CONFIGURATION_FILE) -> None:
        self.path, self._text = str(path), text
        try:
            self.document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise SettingsError(
                f"{self.path} is not valid TOML: {exc}", valid="https://toml.io", remedy="Correct that line"
            ) from exc
        for key in sorted(self.document.keys() - set(TABLES)):
            found = f"{key} is not a key of {CONFIGURATION_FILE}"
            raise self.error_at(key, found, valid="The keys " + ", ".join(TABLES))

    @staticmethod
    def text_of(path: Path) -> tuple[str, Path]:
        """Text and path of the file at `path`; no text if it does not exist."""
        try:
            return path.read_text("utf-8"), path
        except FileNotFoundError:
            return "", path
        except (OSError, UnicodeDecodeError) as exc:
            why = getattr(exc, "strerror", "it is not UTF-8")
            raise SettingsError(f"{path} cannot be read: {why}", valid="A text in UTF-8", remedy="Make it one") from exc

    def tables(self, kind: str) -> dict[str, dict[str, Any]]:
        """The tables below `[sources]` or `[models]`, by name. Raises `SettingsError` if one is not a table."""
        found, thing = self.document.get(kind, {}), kind.removesuffix("s")
        if not isinstance(found, dict):
            raise self.error_at(kind, f"{kind} is not a table", valid=f"[{kind}.NAME], which starts a {thing}")
        for name, table in found.items():
            where = f"{kind}.{name}"
            if not NAME.match(name):
                valid = "At most 63 of a-z, 0-9, - and _, not - or _ first"
                raise self.error_at(where, f"'{name}' cannot name a {thing}", valid=valid)
            if not isinstance(table, dict):
                raise self.error_at(where, f"{where} is not a table", valid=f"[{where}], which starts a {thing}")
        return found

    def located(self, exc: SettingsError, where: str) -> SettingsError:
        """The error with the line of the deepest key that it names."""
        named = re.search(rf"{re.escape(where)}[\w.-]*", exc.found)
        return self.error_at(named[0].rstrip(".") if named else where, exc.found, valid=exc.valid, remedy=exc.remedy)

    def error_at(self, key: str, found: str, *, valid: str = "", remedy: str = "") -> SettingsError:
        """An error about a dotted key, with its line."""
        return SettingsError(f"{self.path}, line {line_of(self._text, key)}: {found}", valid=valid, remedy=remedy)


def line_of(text: str, key: str) -> int:
    """The line, from 1, of a dotted key in a valid TOML text, or of the nearest table that could hold it.

    tomllib does not report positions, so the text is parsed statement by statement: as many lines as parse on their
    own, below the header of their table.
    """
    lines = text.splitlines()
    header, start = "", 0
    best, best_depth = 1, 0
    for end in range(1, len(lines) + 1):
        statement = "\n".join(lines[start:end])
        is_header = statement.lstrip().startswith("[")
        try:
            value: Any = tomllib.loads(statement if is_header else f"{header}\n{statement}")
        except tomllib.TOMLDecodeError:
            continue
        depth = 0
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                break
            value, depth = value[part], depth + 1
        if depth > best_depth:
            best, best_depth = start + 1, depth
        header, start = statement if is_header else header, end
    return best
