"""Secrets: values that a configuration takes from the environment (`${NAME}`) and that must not be shown."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, unquote

from visor.errors import SettingsError

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LENGTH_MIN = 4
"""A shorter value (`${STAGE}` = "eu") is not a secret, and hiding it would garble every text."""


class Secrets:
    """Fills in `${NAME}`, and redacts the values in whatever is shown or stored."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ or {}
        self._used: dict[str, str] = {}

    def expand(self, value: Any, where: str = "") -> Any:
        """`value` with every `${NAME}` in its strings filled in, through all lists and tables.

        Raises:
            SettingsError: A variable is not set.
        """
        if isinstance(value, str):
            return _PLACEHOLDER.sub(lambda match: self._value(match[1], where), value)
        if isinstance(value, Mapping):
            return {key: self.expand(part, f"{where}.{key}" if where else str(key)) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.expand(part, f"{where}[{at}]") for at, part in enumerate(value)]
        return value

    def hide(self, text: str) -> str:
        """`text` in which each value that was filled in is its `${NAME}` again, however it is escaped in a URL, in JSON
        or by Python."""
        for name, value in sorted(self._used.items(), key=lambda used: -len(used[1])):
            text = _any_spelling(value).sub("${" + name + "}", text)
        return text

    def name_in(self, text: str) -> str | None:
        """The `NAME` of a value that a text holds, also where it is escaped for a URL (twice, too) or for HTML."""
        spellings = (text, unquote(unquote(text)), html.unescape(text), unquote(html.unescape(text)))
        for name, value in self._used.items():
            if any(_any_spelling(value).search(spelling) for spelling in dict.fromkeys(spellings)):
                return name
        return None

    def __bool__(self) -> bool:
        return bool(self._used)

    def reveal(self, url: str) -> str:
        """A URL that went through `hide`, with its values filled in again."""
        return _PLACEHOLDER.sub(lambda match: quote(self._used.get(match[1], match[0]), safe="${}"), url)

    def _value(self, name: str, where: str) -> str:
        value = self._environ.get(name)
        if value is None:
            raise SettingsError(
                f"{where or 'The configuration'} names the environment variable {name}, which is not set",
                remedy=f"Set {name} where the crawl runs (a secret of the function on Google Cloud)",
            )
        # Files that hold a secret often end with a line end; a header must not.
        value = value.strip("\r\n")
        if len(value) >= _LENGTH_MIN:
            self._used[name] = value
        return value


@cache
def _any_spelling(value: str) -> re.Pattern[str]:
    """Matches a value however its characters are escaped in a URL, in JSON or where Python shows text or bytes."""
    spellings = []
    for character in value:
        escaped = "".join(f"%{byte:02x}" for byte in character.encode())
        plus = r"|\+" if character == " " else ""
        forms = (json.dumps(character), repr(character), ascii(character), repr(character.encode())[1:])
        shown = {form[1:-1] for form in forms} | {f"\\{character}"}
        others = "|".join(map(re.escape, sorted(shown - {character}, key=len, reverse=True)))
        spellings.append(f"(?:{others}|{re.escape(character)}|(?i:{escaped}){plus})")
    return re.compile("".join(spellings))
