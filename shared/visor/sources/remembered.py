"""Remembers the sources of an index on this machine: the folders and buckets that it was filled from.

A later process may then read their images, without the argument or the visor.toml that named them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from visor.errors import Conflict, SettingsError
from visor.schema.collections import SOURCES
from visor.schema.items import Record, as_document, as_records, item_id
from visor.storage.documents import Delete, DocumentStore, Put

WHERE = {"folder": "path", "bucket": "url"}
"""For each kind that is remembered, the key that names what is read."""


class Remembered(Record, frozen=True, kw_only=True):
    """One source (collection `sources`)."""

    name: str
    config: dict[str, Any] | None = None
    folders: tuple[str, ...] = ()


def remember(documents: DocumentStore, name: str, config: Mapping[str, Any], folders: Iterable[str] = ()) -> bool:
    """Note what a source reads; returns whether that is new. Sources of other kinds need no permission.

    Args:
        config: The keys of its section. Values that could be secrets are not kept.
        folders: Other folders whose files its items name.

    Raises:
        SettingsError: The index knows that name as another folder or bucket.
    """
    where = WHERE.get(str(config.get("kind")), "")
    own = {key: value for key, value in config.items() if key in ("kind", where) or _is_plain(key, value)}
    if where == "path":
        own["path"] = str(Path(str(own["path"])).expanduser().resolve())
    known = documents.get(SOURCES, [_key(name)])
    before = next((one for _, one in as_records(known.values(), Remembered)), Remembered(name=name))
    earlier = before.config or own
    if where and earlier.get(where) != own[where]:
        raise SettingsError(
            f"The source '{name}' of this index is {earlier.get(where)}, not {own[where]}",
            valid="One name for one place, as items are known by the name of their source",
            remedy=f"Give the new one another name; or, if it has moved for good: visor source forget '{name}'",
        )
    both = tuple(sorted({*before.folders, *folders}))
    after = Remembered(name=name, config=own if where else None, folders=both)
    if after == before or not (where or folders):
        return False
    revision = known[_key(name)].revision if known else 0
    try:
        documents.commit([Put(collection=SOURCES, key=_key(name), data=as_document(after), if_revision=revision)])
    except Conflict:
        return remember(documents, name, config, folders)  # another process has just noted something of it
    return True


def remembered(documents: DocumentStore) -> Iterator[tuple[str, dict[str, Any] | None, list[str]]]:
    """Name, configuration and further folders of each source that the index remembers."""
    for one in _all(documents):
        yield one.name, one.config, list(one.folders)


def forget(documents: DocumentStore, name: str) -> None:
    """Withdraw what the source was allowed to read."""
    documents.commit([Delete(collection=SOURCES, key=_key(name))])


def _all(documents: DocumentStore) -> list[Remembered]:
    return [one for _, one in as_records(documents.query(SOURCES), Remembered)]


def _key(name: str) -> str:
    """A document's key for a source; names of folders may have characters that keys may not."""
    return item_id("source", name)


def _is_plain(key: str, value: Any) -> bool:
    if key == "options" and isinstance(value, Mapping):
        return all(_is_plain("", inner) for inner in value.values())
    return isinstance(value, bool | int) or (isinstance(value, str) and value.startswith(("${", "http")))
