"""The files of one export: written once, named by their content, and deleted some time after they were last needed."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from visor.errors import CorruptObject, NotFound
from visor.index.format.container import Array, pack
from visor.schema.items import Record
from visor.storage.objects import ObjectStore

DATA = "data/"
CONFIG = "config.json"
MANIFEST, TRASH = DATA + "visor.json", DATA + "trash.json"
GRACE_S = 86_400.0
"""How long a file stays after no manifest names it: for tabs that are open, and for caches of the manifest."""
CHUNK, NETWORK = NAMED = (".vsr", ".tflite")
"""Endings of files that are named by what they were made from and by their bytes."""
PAYS = 0.9
"""A file is compressed if it shrinks to this share of its size."""


class File(Record, frozen=True, kw_only=True):
    """A file below `data/`, and how many bytes a download of it takes."""

    name: str
    bytes: int


class ExportFiles:
    """Not thread-safe.

    Args:
        site: Where the export is.
        now: Seconds since 1970.
        whose: Prefix of the names of its files: all, or those below `data/` if something else writes the page.
    """

    def __init__(self, site: ObjectStore, now: float, whose: str = "") -> None:
        self.site, self._now = site, now
        self._there = {info.name: info.size_bytes for info in site.list(whose)}
        self._by_key = {name[len(DATA) :].partition("-")[0]: name for name in self._there if name.endswith(NAMED)}
        self._needed = {MANIFEST, TRASH}
        self.written: dict[str, int] = {}
        """Bytes of each file that was new."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file if it is missing, has other bytes, or is one of those that change."""
        self._needed.add(name)
        if self._there.get(name) != len(data) or bytes(self.site.get(name)) != data:
            self.site.put(name, data)
            self._there[name] = self.written[name] = len(data)

    def keep(self, name: str, make: Callable[[], bytes]) -> int:
        """Write an immutable file if it is not there. Returns its size in bytes."""
        self._needed.add(name)
        if name not in self._there:
            data = make()
            self.site.put(name, data)
            self._there[name] = self.written[name] = len(data)
        return self._there[name]

    def chunk(
        self,
        kind: str,
        made_of: Iterable[bytes],
        tensors: Callable[[], Mapping[str, Array]],
        *,
        about: Mapping[str, Any] | None = None,
    ) -> File:
        """The chunk of that kind that was made from exactly this; it is made if it is not there."""
        return self.file(_key(kind, made_of), lambda: pack(f"export_{kind}", about or {}, tensors()), CHUNK)

    def network(self, sha256: str, read: Callable[[], bytes]) -> File:
        """The file of a network whose bytes have that checksum; it is read if it is not there."""
        return self.file(_key("network", [sha256.encode()]), read, NETWORK)

    def file(self, key: str, make: Callable[[], bytes], ending: str) -> File:
        """The file that was made from what `key` names; if it is not there, it is made, and gzipped where that pays."""
        name = self._by_key.get(key)
        if name is None:
            data = packed(make())
            name = f"{DATA}{key}-{hashlib.sha256(data).hexdigest()[:16]}{ending}"
            self.keep(name, lambda: data)
            self._by_key[key] = name
        self._needed.add(name)
        return File(name=name.removeprefix(DATA), bytes=self._there[name])

    def content(self, kind: str, tensors: Mapping[str, Array]) -> File:
        """The chunk with these tensors, which is named by them alone."""
        parts = (part for name, array in tensors.items() for part in (name.encode(), array.tobytes()))
        return self.chunk(kind, parts, lambda: tensors)

    def publish(self, manifest: bytes) -> int:
        """Write the manifest if it has changed, then delete files that have not been needed for long. Returns how many
        were deleted. Files outside its own folders, such as those next to the page, belong to others."""
        self.put(MANIFEST, manifest)
        before = self._trash()
        own = {name.partition("/")[0] for name in self._needed if "/" in name}
        unneeded = [name for name in self._there if name not in self._needed and name.partition("/")[0] in own]
        since = {name: before.get(name, self._now) for name in unneeded}
        ripe = [name for name, at in since.items() if self._now - at >= GRACE_S]
        kept = {name: at for name, at in sorted(since.items()) if name not in ripe}
        if kept != before:
            self.put(TRASH, msgspec.json.encode(kept))
        for name in ripe:
            self.site.delete(name)
        return len(ripe)

    def _trash(self) -> dict[str, float]:
        try:
            return msgspec.json.decode(bytes(self.site.get(TRASH)), type=dict[str, float])
        except (NotFound, CorruptObject, msgspec.DecodeError):
            return {}


def _key(kind: str, made_of: Iterable[bytes]) -> str:
    """16 hex digits that identify a file by what it is made from."""
    digest = hashlib.blake2b(kind.encode(), digest_size=8)
    for part in made_of:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def packed(data: bytes) -> bytes:
    """The bytes gzipped, where that pays; equal input gives equal output."""
    small = gzip.compress(data, 6, mtime=0)
    return small if len(small) < PAYS * len(data) else data
