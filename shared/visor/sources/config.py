"""An owner's `visor.toml`: any number of named sources, each with its kind, its limits and its schedule.

[sources.shop]
kind = "shop_api"        # which source reads it
every = "1d"             # how often; `visor crawl` by hand ignores it
budget_s = 1200          # a run stops after this many seconds and the next one continues
limit = 100_000          # or after this many items
requests_a_day = 5_000   # or after this many requests, until tomorrow
enabled = true
…                        # the keys of the kind

[attributes]             # the names in `extra` that items are filtered and counted by
colour = "keyword"       # or "number", "flag", "date"
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from visor.config_errors import parse_config
from visor.errors import NotConfigured, SettingsError
from visor.owner_file import CONFIGURATION_FILE, NAME, OwnerFile
from visor.schema.attributes import ATTRIBUTES_MAX, TYPES, AttributeType
from visor.schema.items import Record
from visor.schema.search import FACETS
from visor.sources.contract import Source, SourceContext
from visor.sources.registry import kinds, open_source, source_class
from visor.sources.secrets import Secrets

PUSHED = "push"
"""The source of items that their owner pushes; no crawled source may have this name."""
NAME_BYTES_MAX = 200
SOURCE_NAMES = (
    f"Printable text without backslashes or a leading dot, {NAME_BYTES_MAX} bytes at most; not '{PUSHED}', "
    "which is reserved for pushed items (POST /v1/items)"
)

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
    """One source as the file describes it, with `${NAME}` not filled in."""

    name: str
    common: CommonKeys
    own: dict[str, Any]
    """The keys of its kind, `kind` included."""


def is_source_name(name: str) -> bool:
    """Whether a source can have this name: objects are named after it, and pushed items have a reserved name."""
    plain = name.isprintable() and "\\" not in name and all(p and p[0] != "." for p in name.split("/"))
    return name != PUSHED and plain and len(name.encode()) <= NAME_BYTES_MAX


class SourcesFile:
    """A checked `visor.toml`.

    Args:
        text: The file's content.
        path: Its name, for errors.
        is_deployed: It was written for another machine, whose plug-ins are not here: a source that is switched off may
            be of a kind that is not installed.

    Raises:
        SettingsError: It is not valid; names the line and the key, and states valid values.
    """

    def __init__(self, text: str, path: str | Path = CONFIGURATION_FILE, *, is_deployed: bool = False) -> None:
        self._file = OwnerFile(text, path)
        self.path = self._file.path
        self.absent = ""
        """Why it is empty, as the end of a sentence, if there is no such file."""
        self.attributes = self._declared(self._file.document.get("attributes", {}))
        tables = self._file.tables("sources")
        self.entries = {name: self._entry(name, table, is_deployed) for name, table in tables.items()}

    @classmethod
    def load(cls, path: Path, *, is_deployed: bool = False) -> SourcesFile:
        """The sources of a file; none if the file does not exist."""
        found = cls(*OwnerFile.text_of(path), is_deployed=is_deployed)
        if not path.exists():
            found.absent = ": there is no such file"
        return found

    def entry(self, name: str) -> SourceEntry:
        """The source of that name. Raises `SettingsError` if it does not exist."""
        if name not in self.entries:
            what = "Name the file in VISOR_CONFIG, run this in its folder" if self.absent else "Correct the name"
            raise SettingsError(
                f"{self.path} has no source '{name}'{'' if self.entries else ', and no other'}{self.absent}",
                valid=", ".join(self.entries),
                remedy=f"{what}, or add [sources.{name}]" if NAME.match(name) else what,
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
        except NotConfigured as exc:
            raise self._file.error_at(f"sources.{name}", exc.reason, valid=exc.valid, remedy=exc.remedy) from exc
        except SettingsError as exc:
            raise self._file.located(exc, f"sources.{name}") from exc

    def remember(self, name: str, own: dict[str, Any]) -> None:
        """Add a source that the index remembers, unless the file itself has one of that name."""
        self.entries.setdefault(name, SourceEntry(name=name, common=CommonKeys(kind=str(own["kind"])), own=own))

    def folders(self) -> tuple[str, ...]:
        """The folders that its sources of kind `folder` read."""
        return tuple(str(entry.own["path"]) for entry in self.entries.values() if entry.common.kind == "folder")

    def buckets(self) -> dict[str, dict[str, Any]]:
        """The buckets that its sources of kind `bucket` read, with the options to open each with.

        A `${NAME}` that is not set stays: then only that bucket cannot be opened, and the crawl reports why.
        """
        secrets, found = Secrets(os.environ), dict[str, dict[str, Any]]()
        for entry in self.entries.values():
            if entry.common.kind == "bucket":
                options = dict(entry.own.get("options", {}))
                with suppress(SettingsError):
                    options = secrets.expand(options)
                found[str(entry.own["url"])] = options
        return found

    def _declared(self, table: Any) -> dict[str, AttributeType]:
        """The attributes by name, with their types."""
        if not isinstance(table, dict) or len(table) > ATTRIBUTES_MAX:
            found = f"it has {len(table)} keys" if isinstance(table, dict) else "it is not a table"
            raise self._file.error_at(
                "attributes", f"[attributes]: {found}", valid=f"At most {ATTRIBUTES_MAX} attributes"
            )
        for name, type_ in table.items():
            if name in (*FACETS, "price", "date") or not name.strip():
                raise self._file.error_at(
                    f"attributes.{name}",
                    f"{name!r} cannot name an attribute",
                    valid=f"A name in `extra` other than {', '.join(FACETS)}, price and date, which items always have",
                )
            if type_ not in TYPES:
                raise self._file.error_at(
                    f"attributes.{name}", f"attributes.{name} = {type_!r}", valid=f"One of {', '.join(TYPES)}"
                )
        return dict(table)

    def _entry(self, name: str, table: Any, is_deployed: bool) -> SourceEntry:
        where = f"sources.{name}"
        if not is_source_name(name):
            raise self._file.error_at(
                where,
                f"{name!r} cannot name a source",
                valid=SOURCE_NAMES,
            )
        names = set(CommonKeys.__struct_fields__)
        own = {key: value for key, value in table.items() if key not in names or key == "kind"}
        try:
            if "kind" not in table:
                source_class(name, table)
            shared = {key: value for key, value in table.items() if key in names}
            common = parse_config(shared, CommonKeys, where=where, what="every source")
            _seconds(common.every, f"{where}.every")
            if is_deployed and not common.enabled and common.kind not in kinds():
                return SourceEntry(name=name, common=common, own=own)
            # A missing library is reported when the source is opened: the other sources do not need it.
            with suppress(NotConfigured):
                kind, cls, keys = source_class(name, own)
                parse_config(keys, cls.Config, where=where, what=f"a source of kind {kind}")
        except SettingsError as exc:
            raise self._file.located(exc, where) from exc
        return SourceEntry(name=name, common=common, own=own)


def _seconds(text: str, key: str) -> int:
    match = _EVERY.match(text)
    if match is None or int(match[1]) == 0:
        raise SettingsError(f"{key} = {text!r} is not an interval", valid="A number and min, h, d or w: '30min', '1d'")
    return int(match[1]) * _SECONDS[match[2]]
