"""An owner's `visor.toml`: any number of named sources, each with its kind, its limits and its schedule.

[sources.shop]
kind = "shop_api"        # which source reads it
every = "1d"             # how often; `visor crawl` by hand ignores it
budget_s = 1200          # a run stops here and the next goes on
limit = 100_000          # and here
requests_a_day = 5_000   # and here, until tomorrow
enabled = true
…                        # the keys of the kind
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from visor.errors import NotConfigured, SettingsError
from visor.schema.items import Record
from visor.sources.config_errors import checked
from visor.sources.contract import Source, SourceContext
from visor.sources.registry import check_source, open_source

CONFIGURATION_FILE = "visor.toml"
PUSHED = "push"
"""The source of items that their owner sends; none that is crawled may have its name."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")

_EVERY = re.compile(r"(\d{1,4})\s*(min|h|d|w)\Z")
_SECONDS = {"min": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that sources of every kind have."""

    kind: str
    every: str = "1d"
    budget_s: Annotated[float, Meta(gt=0)] | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None
    requests_a_day: Annotated[int, Meta(ge=10)] | None = None
    """Requests to the catalogue a day (UTC), over all runs."""
    enabled: bool = True

    @property
    def every_s(self) -> int:
        """Seconds between the starts of two passes."""
        return _seconds(self.every, "every")


class Entry(Record, frozen=True, kw_only=True):
    """One source as the file describes it, `${NAME}` not filled in."""

    name: str
    plan: Plan
    own: dict[str, Any]
    """The keys of its kind, `kind` included."""
    line: int


class Configuration:
    """A checked `visor.toml`.

    Args:
        text: The file's content.
        path: Its name, for errors.

    Raises:
        SettingsError: It is not valid; names the line and the key, and says what is.
    """

    def __init__(self, text: str, path: str | Path = CONFIGURATION_FILE) -> None:
        self.path = str(path)
        self._text = text
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise SettingsError(
                f"{self.path} is no TOML: {exc}", valid="https://toml.io", remedy="Correct that line"
            ) from exc
        unknown = sorted(document.keys() - {"sources"})
        if unknown:
            raise self._wrong(unknown[0], f"{unknown[0]} is no key of {CONFIGURATION_FILE}", valid="Keys are sources")
        tables = document.get("sources", {})
        if not isinstance(tables, dict):
            raise self._wrong("sources", "sources is no table", valid="[sources.NAME] starts a source")
        self.entries = {name: self._entry(name, table) for name, table in tables.items()}

    @classmethod
    def load(cls, path: Path) -> Configuration:
        """The configuration in a file; an empty one if there is no such file."""
        try:
            return cls(path.read_text("utf-8"), path)
        except FileNotFoundError:
            return cls("", path)
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{path} cannot be read: {exc}") from exc

    def entry(self, name: str) -> Entry:
        """The source of that name.

        Raises:
            SettingsError: There is none.
        """
        if name not in self.entries:
            raise SettingsError(
                f"{self.path} has no source '{name}'",
                valid="Its sources are " + ", ".join(self.entries) if self.entries else "It has none yet",
                remedy=f"Correct the name, or add [sources.{name}]",
            )
        return self.entries[name]

    def open(self, name: str, context: SourceContext) -> Source:
        """The source of that name, ready to read.

        Raises:
            SettingsError: There is none, its configuration is not valid, or it cannot be used here; names the line.
        """
        entry = self.entry(name)
        try:
            return open_source(name, entry.own, context)
        except SettingsError as exc:
            raise self._located(exc, f"sources.{name}") from exc
        except NotConfigured as exc:
            raise self._wrong(f"sources.{name}", exc.reason) from exc

    def folders(self) -> tuple[str, ...]:
        """The folders whose pictures its sources of kind `folder` read."""
        return tuple(str(entry.own["path"]) for entry in self.entries.values() if entry.plan.kind == "folder")

    def buckets(self) -> dict[str, dict[str, Any]]:
        """The buckets that its sources of kind `bucket` read, with the options to open each with."""
        found = (entry.own for entry in self.entries.values() if entry.plan.kind == "bucket")
        return {str(own["url"]): dict(own.get("options", {})) for own in found}

    def _entry(self, name: str, table: Any) -> Entry:
        where = f"sources.{name}"
        if name == PUSHED:
            raise self._wrong(where, f"'{name}' is the name of what is pushed (POST /v1/items)", valid="Another name")
        if not NAME.match(name):
            raise self._wrong(where, f"'{name}' is no name of a source", valid="a-z, 0-9, - and _, at most 63 of them")
        if not isinstance(table, dict):
            raise self._wrong(where, f"{where} is no table", valid=f"[{where}] starts a source")
        common = {field.encode_name for field in msgspec.structs.fields(Plan)}
        try:
            if "kind" not in table:
                check_source(name, table)
            plan = checked(
                {key: value for key, value in table.items() if key in common}, Plan, where=where, what="every source"
            )
            _seconds(plan.every, f"{where}.every")
            own = {key: value for key, value in table.items() if key not in common or key == "kind"}
            # A kind whose libraries are missing is told when it is opened: the other sources do not need them.
            with suppress(NotConfigured):
                kind, cls, keys = check_source(name, own)
                checked(keys, cls.Config, where=where, what=f"a source of kind {kind}")
        except SettingsError as exc:
            raise self._located(exc, where) from exc
        return Entry(name=name, plan=plan, own=own, line=line_of(self._text, where))

    def _located(self, exc: SettingsError, where: str) -> SettingsError:
        """The error with the line of the deepest key that it names."""
        named = re.search(rf"{re.escape(where)}[\w.-]*", exc.found)
        return self._wrong(named[0].rstrip(".") if named else where, exc.found, valid=exc.valid, remedy=exc.remedy)

    def _wrong(self, key: str, found: str, *, valid: str = "", remedy: str = "") -> SettingsError:
        return SettingsError(f"{self.path}, line {line_of(self._text, key)}: {found}", valid=valid, remedy=remedy)


def _seconds(text: str, key: str) -> int:
    match = _EVERY.match(text)
    if match is None or int(match[1]) == 0:
        raise SettingsError(f"{key} = {text!r} is no time", valid="A number and min, h, d or w: '30min', '6h', '1d'")
    return int(match[1]) * _SECONDS[match[2]]


def line_of(text: str, key: str) -> int:
    """The line, from 1, at which a dotted key stands in a TOML text, or the nearest table that could hold it."""
    wanted = tuple(key.split("."))
    best, best_depth = 1, 0
    for line, path in _keys(text):
        if path == wanted[: len(path)] and len(path) > best_depth:
            best, best_depth = line, len(path)
        elif best_depth == 0 and path[: len(wanted)] == wanted:
            return line
    return best


def _keys(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and full path of each table header and key, texts of several lines left out."""
    table: tuple[str, ...] = ()
    closing = ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        header = re.match(r"\s*\[\[?\s*([^\[\]]+?)\s*\]", line)
        if header:
            table = _parts(header[1])
            yield number, table
            continue
        key = re.match(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""", line)
        if key:
            path = (*table, *_parts(key[1]))
            yield number, path
            # The keys of an inline table stand in the same line.
            yield from ((number, (*path, *_parts(inner))) for inner in re.findall(r"[{,]\s*([\w-]+)\s*=", line))
        for quotes in ('"""', "'''"):
            if line.count(quotes) % 2:
                closing = quotes


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
