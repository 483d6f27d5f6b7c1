"""An owner's `visor.toml`: any number of named sources, each with its kind, its limits and its schedule.

[sources.shop]
kind = "shop_api"        # which source reads it
every = "1d"             # how often; `visor crawl` by hand ignores it
budget_s = 1200          # a run stops after this many seconds and the next one goes on
limit = 100_000          # or after this many items
requests_a_day = 5_000   # or after this many requests, until tomorrow
enabled = true
…                        # the keys of the kind

[attributes]             # what of items' `extra` they are filtered and counted by
colour = "keyword"       # or "number", "flag", "date"
"""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from visor.errors import NotConfigured, SettingsError
from visor.schema.attributes import ATTRIBUTES_MAX, TYPES, AttributeType
from visor.schema.items import Record
from visor.schema.search import FACETS
from visor.sources.config_errors import parse_config
from visor.sources.contract import Source, SourceContext
from visor.sources.registry import open_source, source_class

CONFIGURATION_FILE = "visor.toml"
PUSHED = "push"
"""The source of items that their owner sends; no crawled source may have this name."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")

_EVERY = re.compile(r"(\d{1,4})\s*(min|h|d|w)\Z")
_SECONDS = {"min": 60, "h": 3600, "d": 86_400, "w": 604_800}


class CommonKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


class SourceEntry(Record, frozen=True, kw_only=True):
    """One source as the file describes it, `${NAME}` not filled in."""

    name: str
    common: CommonKeys
    own: dict[str, Any]
    """The keys of its kind, `kind` included."""


class SourcesFile:
    """A checked `visor.toml`.

    Args:
        text: The file's content.
        path: Its name, for errors.

    Raises:
        SettingsError: It is not valid; names the line and the key, and says what is valid.
    """

    def __init__(self, text: str, path: str | Path = CONFIGURATION_FILE) -> None:
        self.path = str(path)
        self._text = text
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise SettingsError(
                f"{self.path} is not valid TOML: {exc}", valid="https://toml.io", remedy="Correct that line"
            ) from exc
        unknown = sorted(document.keys() - {"sources", "attributes"})
        if unknown:
            raise self._error_at(
                unknown[0], f"{unknown[0]} is not a key of {CONFIGURATION_FILE}", valid="Keys are sources, attributes"
            )
        self.attributes = self._declared(document.get("attributes", {}))
        tables = document.get("sources", {})
        if not isinstance(tables, dict):
            raise self._error_at("sources", "sources is not a table", valid="[sources.NAME] starts a source")
        self.entries = {name: self._entry(name, table) for name, table in tables.items()}

    @classmethod
    def load(cls, path: Path) -> SourcesFile:
        """The sources of a file; none if the file does not exist."""
        try:
            return cls(path.read_text("utf-8"), path)
        except FileNotFoundError:
            return cls("", path)
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{path} cannot be read: {exc}") from exc

    def entry(self, name: str) -> SourceEntry:
        """The source of that name. Raises `SettingsError` if it does not exist."""
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
            SettingsError: It does not exist, is configured wrongly, or cannot be used here; names the line.
        """
        entry = self.entry(name)
        try:
            return open_source(name, entry.own, context)
        except SettingsError as exc:
            raise self._located(exc, f"sources.{name}") from exc
        except NotConfigured as exc:
            raise self._error_at(f"sources.{name}", exc.reason) from exc

    def remember(self, name: str, own: dict[str, Any]) -> None:
        """Add a source that the index remembers, unless the file itself has one of that name."""
        self.entries.setdefault(name, SourceEntry(name=name, common=CommonKeys(kind=str(own["kind"])), own=own))

    def folders(self) -> tuple[str, ...]:
        """The folders that its sources of kind `folder` read."""
        return tuple(str(entry.own["path"]) for entry in self.entries.values() if entry.common.kind == "folder")

    def buckets(self) -> dict[str, dict[str, Any]]:
        """The buckets that its sources of kind `bucket` read, with the options to open each with."""
        found = (entry.own for entry in self.entries.values() if entry.common.kind == "bucket")
        return {str(own["url"]): dict(own.get("options", {})) for own in found}

    def _declared(self, table: Any) -> dict[str, AttributeType]:
        """The attributes by name, with their types."""
        if not isinstance(table, dict) or len(table) > ATTRIBUTES_MAX:
            found = f"it has {len(table)} keys" if isinstance(table, dict) else "it is not a table"
            raise self._error_at("attributes", f"[attributes]: {found}", valid=f"At most {ATTRIBUTES_MAX} attributes")
        for name, type_ in table.items():
            if name in (*FACETS, "price", "date") or not name.strip():
                raise self._error_at(
                    f"attributes.{name}",
                    f"{name!r} cannot name an attribute",
                    valid=f"A name in `extra` other than {', '.join(FACETS)}, price and date, which items always have",
                )
            if type_ not in TYPES:
                raise self._error_at(
                    f"attributes.{name}", f"attributes.{name} = {type_!r}", valid=f"One of {', '.join(TYPES)}"
                )
        return dict(table)

    def _entry(self, name: str, table: Any) -> SourceEntry:
        where = f"sources.{name}"
        if name == PUSHED:
            raise self._error_at(where, f"'{name}' is reserved for pushed items (POST /v1/items)", valid="Another name")
        if not NAME.match(name):
            raise self._error_at(
                where, f"'{name}' cannot name a source", valid="At most 63 of a-z, 0-9, - and _, not - or _ first"
            )
        if not isinstance(table, dict):
            raise self._error_at(where, f"{where} is not a table", valid=f"[{where}] starts a source")
        names = set(CommonKeys.__struct_fields__)
        own = {key: value for key, value in table.items() if key not in names or key == "kind"}
        try:
            if "kind" not in table:
                source_class(name, table)
            shared = {key: value for key, value in table.items() if key in names}
            common = parse_config(shared, CommonKeys, where=where, what="every source")
            _seconds(common.every, f"{where}.every")
            # A missing library is reported when the source is opened: the other sources do not need it.
            with suppress(NotConfigured):
                kind, cls, keys = source_class(name, own)
                parse_config(keys, cls.Config, where=where, what=f"a source of kind {kind}")
        except SettingsError as exc:
            raise self._located(exc, where) from exc
        return SourceEntry(name=name, common=common, own=own)

    def _located(self, exc: SettingsError, where: str) -> SettingsError:
        """The error with the line of the deepest key that it names."""
        named = re.search(rf"{re.escape(where)}[\w.-]*", exc.found)
        return self._error_at(named[0].rstrip(".") if named else where, exc.found, valid=exc.valid, remedy=exc.remedy)

    def _error_at(self, key: str, found: str, *, valid: str = "", remedy: str = "") -> SettingsError:
        return SettingsError(f"{self.path}, line {line_of(self._text, key)}: {found}", valid=valid, remedy=remedy)


def _seconds(text: str, key: str) -> int:
    match = _EVERY.match(text)
    if match is None or int(match[1]) == 0:
        raise SettingsError(f"{key} = {text!r} is not an interval", valid="A number and min, h, d or w: '30min', '1d'")
    return int(match[1]) * _SECONDS[match[2]]


def line_of(text: str, key: str) -> int:
    """The line, from 1, at which a dotted key stands in a valid TOML text, or the nearest table that could hold it.

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
