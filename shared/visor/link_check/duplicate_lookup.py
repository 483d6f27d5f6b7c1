"""Duplicate lookup: which items show the same image, read from the stored index without opening it.

For functions without a search library and with little memory: ids and hashes are read in blocks, and full vectors only
of the few rows whose hashes agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from visor.errors import NotFound
from visor.index.format.container import Array, Container, rows_in_blocks
from visor.index.format.ids import IdIndex, id_text, ids_to_bytes, sort_order
from visor.index.format.manifest import read_commits, read_manifest
from visor.index.format.shard import read_shard
from visor.near_duplicates.fingerprint import hash_distances
from visor.near_duplicates.thresholds import SAME_BITS, SAME_SIMILARITY
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore

HEAD_BYTES = 65_536
"""First read of a segment: its header is smaller."""
ROWS_AT_ONCE = 16_384
ATTEMPTS = 3
"""A manifest whose objects are gone was replaced while they were being read."""


@dataclass(frozen=True, slots=True)
class _StoredRows:
    """A segment or a shard of n rows. ids (n, 16) uint8; `rows(tensor, start, stop)` reads rows of a tensor."""

    ids: Array
    index: IdIndex
    order: Array
    rows: Callable[[str, int, int], Array]

    @classmethod
    def of(cls, ids: Array, rows: Callable[[str, int, int], Array]) -> _StoredRows:
        order = sort_order(ids)
        return cls(ids, IdIndex.of(ids[order]), order, rows)

    def find(self, ids: Array) -> Iterator[tuple[int, int]]:
        """Position among `ids` (m, 16) and row, for each that is here."""
        found = self.index.find(ids)
        return ((at, int(self.order[row])) for at, row in enumerate(found.tolist()) if row >= 0)


@dataclass(frozen=True, slots=True)
class _Row:
    """The newest row of one item: version, hashes (h,) uint8, vector (d,) float32 of unit length."""

    version: int
    table: _StoredRows
    row: int

    def read(self) -> tuple[Array, Array]:
        hashes = self.table.rows("hashes", self.row, self.row + 1)[0]
        vector = self.table.rows("vectors", self.row, self.row + 1)[0].astype(np.float32)
        return hashes, vector / max(float(np.linalg.norm(vector)), 1e-12)


def find_duplicates(
    objects: ObjectStore, documents: DocumentStore, model: str | None, ids: Collection[str]
) -> dict[str, list[str]]:
    """For each id, the ids of others that show the same picture, most similar first; deleted ones may be among them.

    Args:
        model: Fingerprint of the model whose index is searched; None before the first merge.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _find_duplicates(list(_stored_rows(objects, documents, model)), sorted(set(ids)))
        except NotFound:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _find_duplicates(stored: list[_StoredRows], ids: list[str]) -> dict[str, list[str]]:
    wanted = {item: row.read() for item, row in _newest(stored, ids).items()}
    near: set[str] = set()
    for table in stored if wanted else ():
        for start, stop in rows_in_blocks(len(table.ids), ROWS_AT_ONCE):
            hashes = table.rows("hashes", start, stop)
            for own, _ in wanted.values():
                near.update(
                    id_text(table.ids[start + row])
                    for row in np.flatnonzero(hash_distances(hashes, own) <= SAME_BITS).tolist()
                )
    # A row may be an item's older picture: only its newest counts.
    others = {item: row.read() for item, row in _newest(stored, sorted(near)).items()}
    found: dict[str, list[str]] = {}
    for item, (own, vector) in wanted.items():
        same = [
            (float(vector @ theirs), other)
            for other, (hashes, theirs) in others.items()
            if other != item and int(hash_distances(hashes[None], own)[0]) <= SAME_BITS
        ]
        found[item] = [other for similarity, other in sorted(same, reverse=True) if similarity >= SAME_SIMILARITY]
    return found


def _newest(stored: list[_StoredRows], ids: list[str]) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    wanted = ids_to_bytes(ids)
    for table in stored if ids else ():
        for at, row in table.find(wanted):
            version = int(table.rows("versions", row, row + 1)[0])
            held = rows.get(ids[at])
            if held is None or version >= held.version:
                rows[ids[at]] = _Row(version, table, row)
    return rows


def _stored_rows(objects: ObjectStore, documents: DocumentStore, model: str | None) -> Iterator[_StoredRows]:
    # Before the manifest: a merge deletes the commits that its manifest contains.
    commits = read_commits(documents)
    manifest = read_manifest(objects, model)[0] if model is not None else None
    for entry in manifest.segments if manifest is not None else ():
        if entry.count:
            yield _segment(objects, entry.name)
    for commit in commits:
        is_fresh = manifest is None or not manifest.contains(commit)
        if is_fresh and commit.record.shard is not None and model in (None, commit.record.model):
            yield _shard(objects, commit.record.shard)


def _segment(objects: ObjectStore, name: str) -> _StoredRows:
    head = objects.get(name, start=0, end=HEAD_BYTES)
    length = int.from_bytes(head[:8], "little") + 24
    if length > len(head):
        head = objects.get(name, start=0, end=length)
    container = Container.open(name, head, kind="segment")

    def rows(tensor: str, start: int, stop: int) -> Array:
        spec = container.tensors[tensor]
        width = spec.size_bytes // spec.shape[0]
        view = objects.get(name, start=spec.start + start * width, end=spec.start + stop * width)
        return np.frombuffer(view, spec.dtype).reshape(stop - start, *spec.shape[1:])

    return _StoredRows.of(rows("ids", 0, container.tensors["ids"].shape[0]), rows)


def _shard(objects: ObjectStore, name: str) -> _StoredRows:
    shard = read_shard(objects.get(name), name=name)
    tensors = {"versions": shard.versions, "hashes": shard.hashes, "vectors": shard.vectors}
    return _StoredRows.of(shard.ids, lambda tensor, start, stop: tensors[tensor][start:stop])
