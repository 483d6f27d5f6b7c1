"""Segment builder: segments and shards stream into new segments, sorted by id, newest version of each item only."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from visor.index.format.container import Array
from visor.index.format.facets import FacetColumns
from visor.index.format.fast_scan import PQ_ROWS_MIN, FastScan
from visor.index.format.ids import IdIndex, id_text, newest, sort_order
from visor.index.format.looks import no_looks
from visor.index.format.manifest import SegmentEntry
from visor.index.format.pending_deletes import PendingDeletes, PendingRecords
from visor.index.format.projection import Projection, Space
from visor.index.format.segment import BLOCK_ROWS, FOLDER, Segment, SegmentWriter, common_hashes
from visor.index.format.shard import Shard
from visor.index.words.text_index import pack_words
from visor.near_duplicates.fingerprint import PDQ_BYTES, same_hash_groups
from visor.schema.collections import ITEMS
from visor.schema.items import item_texts, live_item
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore

READ_AT_ONCE = 500
"""Documents that are read at once."""
RowReader = Callable[[Array], Array]
"""Full vectors (len(rows), d) float16 of rows; every call requests greater rows than the one before."""


@dataclass(frozen=True, slots=True)
class KeptRows:
    """The rows that a merge keeps, sorted by id: which input each comes from, and its row there."""

    ids: Array
    versions: Array
    hashes: Array
    columns: FacetColumns
    source: Array
    place: Array

    def __len__(self) -> int:
        return len(self.versions)

    def part(self, start: int, stop: int) -> KeptRows:
        cut = slice(start, stop)
        columns = self.columns.take(np.arange(start, stop))
        return KeptRows(self.ids[cut], self.versions[cut], self.hashes[cut], columns, self.source[cut], self.place[cut])


NO_ROWS = KeptRows(
    np.empty((0, 16), np.uint8),
    np.empty(0, np.int64),
    np.empty((0, PDQ_BYTES), np.uint8),
    FacetColumns.of([]),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
)


def kept_places(
    sources: Sequence[Segment | Shard], others: Sequence[Segment], tombstones: PendingRecords
) -> list[Array]:
    """The rows to keep of each source, ascending: newest versions that no tombstone hides, and of which none of the
    `others`, the live segments that are not rewritten, has a newer one."""
    if not sources:
        return []
    ids = np.concatenate([source.ids for source in sources])
    versions = np.concatenate([source.versions for source in sources])
    keep = newest(ids, versions)
    hidden, _ = tombstones.concerned(IdIndex.of(ids[keep]), versions[keep])
    keep = np.delete(keep, hidden)
    for other in others:
        rows = other.index.find(ids[keep])
        there = rows >= 0
        older = np.zeros(len(keep), bool)
        older[there] = other.versions[rows[there]] > versions[keep][there]
        keep = keep[~older]
    keep.sort()
    starts = np.cumsum([0, *map(len, sources)])
    stretches = pairwise(np.searchsorted(keep, starts))
    return [keep[a:b] - start for (a, b), start in zip(stretches, starts, strict=False)]


def kept_rows(
    sources: Sequence[Segment | Shard],
    places: Sequence[Array],
    updates: PendingDeletes,
    documents: DocumentStore | None = None,
) -> KeptRows:
    """The rows of each source at `places`, with updated facets. `documents` as in `SegmentBuilder`."""
    if not sources:
        return NO_ROWS
    parts = list(zip(sources, places, strict=True))
    ids = np.concatenate([part.ids[rows] for part, rows in parts])
    order = sort_order(ids)
    ids, versions = ids[order], np.concatenate([part.versions[rows] for part, rows in parts])[order]
    columns = [FacetColumns.of(part.facets) if isinstance(part, Shard) else part.worded_columns for part in sources]
    facets = FacetColumns.concat([one.take(rows) for one, rows in zip(columns, places, strict=True)]).take(order)
    facets = _updated(facets, ids, versions, updates)
    if documents is not None:
        facets = _filled(facets, ids, documents)
    hashes = common_hashes([part.hashes[rows] for part, rows in parts])[order]
    source = np.repeat(np.arange(len(parts)), list(map(len, places)))[order]
    return KeptRows(ids, versions, hashes, facets, source, np.concatenate(places)[order])


def still_pending(pending: PendingDeletes, others: Sequence[Segment], now: float, late_s: float) -> PendingDeletes:
    """The part of `pending` that the new segments have to carry: records that are young, that concern a segment not
    rewritten, or that are newer updates than one in such a segment, which would otherwise apply again."""
    kept = []
    for records, is_update in ((pending.tombstones, False), (pending.updates, True)):
        stays = now - records.since < late_s
        for other in others:
            stays[records.concerned(other.index, other.versions)[1]] = True
            if is_update:
                carried = other.pending.updates.take(other.pending.updates.newest())
                stays[records.concerned(IdIndex.of(carried.ids), carried.versions)[1]] = True
        newest_ones = np.zeros(len(records), bool)
        newest_ones[records.newest()] = True
        kept.append(np.flatnonzero(stays & newest_ones))
    return pending.take(*kept)


@dataclass(frozen=True, kw_only=True)
class SegmentBuilder:
    """Writes and stores segments; needs memory for one segment's hot part and a block.

    space: what to code with. folder: for one local file at a time.
    languages: what words are stemmed in. documents: where missing texts of rows are read; None: they stay missing.
    """

    objects: ObjectStore
    model: str
    space: Space
    folder: Path
    languages: Sequence[str]
    documents: DocumentStore | None = None

    def write(
        self,
        rows: KeptRows,
        sources: Sequence[Segment | Shard],
        readers: Sequence[RowReader],
        augmented: Mapping[str, Array],
        pending: PendingDeletes,
        name: str = "",
    ) -> SegmentEntry:
        """Write one segment, under a fresh name unless one is given; raises Conflict if there is one of that name."""
        path, space = self.folder / "segment", self.space
        fast = space.fast if isinstance(space, Projection) and len(rows) >= PQ_ROWS_MIN else None
        about: dict[str, Any] = {"count": len(rows), "dimension": space.dimension, "projection": space.name}
        hot = _hot(rows, pending)
        if any(rows.columns.texts):
            hot["words"], about["words"] = pack_words(rows.columns, self.languages)
        writer = SegmentWriter(
            path=path,
            about={**about, "model": self.model},
            hot=hot,
            cold={**looks_of(rows, sources), **augmented, **rows.columns.text_tensors()},
            count=len(rows),
            dimension=space.dimension,
            space=space,
            fast=None if fast is None else FastScan.read(fast),
        )
        entry = writer.write(full_blocks(rows, readers, space.dimension))
        # Never the same name twice: a discarded name can be deleted at any later time.
        name = name or f"{FOLDER}{int(time.time()):x}-{secrets.token_hex(6)}.seg"
        self.objects.put_file(name, str(path), if_generation=0)
        path.unlink(missing_ok=True)
        return msgspec.structs.replace(entry, name=name)


def segment_reader(segment: Segment, first: int = 0) -> RowReader:
    """Streams a segment's full vectors forward from a row on, checking each block, holding one block."""
    blocks = segment.checked_blocks(first)
    held = [(0, np.empty((0, segment.dimension), np.float16))]

    def read(rows: Array) -> Array:
        out = np.empty((len(rows), segment.dimension), np.float16)
        done = 0
        while done < len(rows):
            start, block = held[0]
            reach = int(np.searchsorted(rows, start + len(block)))
            if reach > done:
                out[done:reach] = block[rows[done:reach] - start]
                done = reach
            if done < len(rows):
                held[0] = next(blocks)
        return out

    return read


def shard_reader(shard: Shard) -> RowReader:
    def read(rows: Array) -> Array:
        taken: Array = shard.vectors[rows]
        return taken

    return read


def full_blocks(rows: KeptRows, readers: Sequence[RowReader], dimension: int) -> Iterator[Array]:
    for start in range(0, len(rows), BLOCK_ROWS):
        source = rows.source[start : start + BLOCK_ROWS]
        place = rows.place[start : start + BLOCK_ROWS]
        block = np.empty((len(source), dimension), np.float16)
        for number in np.unique(source):
            mine = np.flatnonzero(source == number)
            order = np.argsort(place[mine], kind="stable")
            block[mine[order]] = readers[number](place[mine][order])
        yield block


def looks_of(rows: KeptRows, sources: Sequence[Segment | Shard]) -> dict[str, Array]:
    """The tensor of looks; none if no source has any."""
    looks = no_looks(len(rows))
    for number in np.unique(rows.source):
        mine = rows.source == number
        looks[mine] = sources[number].looks[rows.place[mine]]
    return {"looks": looks} if looks.any() else {}


def _hot(rows: KeptRows, pending: PendingDeletes) -> dict[str, Array]:
    group_rows, group_leaders = same_hash_groups(rows.hashes)
    return {
        "ids": rows.ids,
        "versions": rows.versions,
        "hashes": rows.hashes,
        **rows.columns.tensors(),
        "group_rows": group_rows.astype(np.uint32),
        "group_leaders": group_leaders.astype(np.uint32),
        **pending.tensors(),
    }


def _filled(facets: FacetColumns, ids: Array, documents: DocumentStore) -> FacetColumns:
    """The facets of rows with missing texts added; these are empty if the item has no document."""
    texts = facets.texts.copy()
    lacking = [row for row, packed in enumerate(texts) if not packed]
    for start in range(0, len(lacking), READ_AT_ONCE):
        names = {id_text(ids[row]): row for row in lacking[start : start + READ_AT_ONCE]}
        found = documents.get(ITEMS, list(names))
        for name, row in names.items():
            indexed = live_item(found[name].data) if name in found else None
            texts[row] = msgspec.json.encode(item_texts(indexed.item) if indexed else {})
    return replace(facets, texts=texts)


def _updated(facets: FacetColumns, ids: Array, versions: Array, pending: PendingDeletes) -> FacetColumns:
    """The facets of rows, sorted by id, with updates applied."""
    kept = pending.updates.newest()
    rows, places = pending.updates.take(kept).concerned(IdIndex.of(ids), versions)
    if not len(rows):
        return facets
    both = FacetColumns.concat([facets, pending.update_columns.take(kept[places])])
    order = np.arange(len(ids))
    order[rows] = len(ids) + np.arange(len(rows))
    return both.take(order)
