"""Rewriting: segments and shards stream into new segments, sorted by id, newest version of each item only."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from visor.index.format.codes import PQ_ROWS_MIN, FastScan
from visor.index.format.container import Array
from visor.index.format.facets import FacetColumns
from visor.index.format.ids import IdIndex, newest
from visor.index.format.manifest import SegmentEntry
from visor.index.format.projection import Space
from visor.index.format.segment import BLOCK_ROWS, FOLDER, LateRecords, Segment, SegmentWriter, late_tensors
from visor.index.format.shard import Shard
from visor.index.merge.pending_deletes import Late
from visor.index.search.snapshot import common_hashes
from visor.near_duplicates.hamming import PDQ_BYTES, same_hash_groups
from visor.storage.objects import ObjectStore

Take = Callable[[Array], Array]
"""Full vectors (len(rows), d) float16 of rows; every call asks for greater rows than the one before."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a rewrite keeps, sorted by id: which input each comes from, and where it lies there."""

    ids: Array
    versions: Array
    hashes: Array
    columns: FacetColumns
    source: Array
    place: Array

    def __len__(self) -> int:
        return len(self.versions)

    def part(self, start: int, stop: int) -> Rows:
        cut = slice(start, stop)
        columns = self.columns.take(np.arange(start, stop))
        return Rows(self.ids[cut], self.versions[cut], self.hashes[cut], columns, self.source[cut], self.place[cut])


_NO_ROWS = Rows(
    np.empty((0, 16), np.uint8),
    np.empty(0, np.int64),
    np.empty((0, PDQ_BYTES), np.uint8),
    FacetColumns.of([]),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
)


def gather(segments: Sequence[Segment], shards: Sequence[Shard], others: Sequence[Segment], late: Late) -> Rows:
    """What stays of the inputs: newest versions that no tombstone hides and no other live segment has newer.

    Args:
        segments, shards: Inputs, in this order the sources 0, 1, …
        others: Live segments that are not rewritten.
        late: All tombstones and updates known; updated facets replace the rows' own.
    """
    parts: list[Segment | Shard] = [*segments, *shards]
    if not parts:
        return _NO_ROWS
    ids = np.concatenate([part.ids for part in parts])
    versions = np.concatenate([part.versions for part in parts])
    source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    place = np.concatenate([np.arange(len(part)) for part in parts])
    keep = newest(ids, versions)
    keep = keep[~_hidden(ids[keep], versions[keep], late.tombstones)]
    for other in others:
        rows = other.index.find(ids[keep])
        there = rows >= 0
        older = np.zeros(len(keep), bool)
        older[there] = other.versions[rows[there]] > versions[keep][there]
        keep = keep[~older]
    columns = [part.columns if isinstance(part, Segment) else FacetColumns.of(part.facets) for part in parts]
    facets = FacetColumns.concat(columns).take(keep)
    facets = _updated(facets, ids[keep], versions[keep], late)
    hashes = common_hashes([part.hashes for part in parts])[keep]
    return Rows(ids[keep], versions[keep], hashes, facets, source[keep], place[keep])


def write_segments(
    objects: ObjectStore,
    rows: Rows,
    takes: Sequence[Take],
    *,
    space: Space,
    late: Late,
    segment_rows: int,
    folder: Path,
) -> list[SegmentEntry]:
    """Stream the rows into as many segments as they need and put these; memory for one segment's hot part and a block.

    Args:
        rows: What to write.
        takes: Gives the full vectors of each source.
        space: What to code with.
        late: What the first new segment carries.
        segment_rows: Rows in one segment at most.
        folder: For one local file at a time.
    """
    pieces = max(1, -(-len(rows) // segment_rows))
    bounds = [len(rows) * piece // pieces for piece in range(pieces + 1)]
    entries = []
    for start, stop in pairwise(bounds):
        part = rows.part(start, stop)
        path = folder / "segment"
        with_fast = space.fast is not None and len(part) >= PQ_ROWS_MIN
        writer = SegmentWriter(
            path=path,
            about={"count": len(part), "dimension": space.dimension, "projection": space.name},
            hot=_hot(part, late if start == 0 else Late.none()),
            count=len(part),
            dimension=space.dimension,
            space=space,
            fast=FastScan.read(space.fast) if with_fast and space.fast is not None else None,
        )
        entry = writer.write(_blocks(part, takes, space.dimension))
        # Never the same name twice: a name that was thrown away can be deleted at any later time.
        name = f"{FOLDER}{int(time.time()):x}-{secrets.token_hex(6)}.seg"
        objects.put_file(name, str(path), if_generation=0)
        path.unlink(missing_ok=True)
        entries.append(msgspec.structs.replace(entry, name=name))
    return entries


def segment_take(segment: Segment, objects: ObjectStore) -> Take:
    """Streams a segment's full vectors forward, checking each block, holding one block."""
    blocks = segment.checked_blocks(objects)
    held = [(0, np.empty((0, segment.dimension), np.float16))]

    def take(rows: Array) -> Array:
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

    return take


def shard_take(shard: Shard) -> Take:
    def take(rows: Array) -> Array:
        taken: Array = shard.vectors[rows]
        return taken

    return take


def _blocks(rows: Rows, takes: Sequence[Take], dimension: int) -> Iterator[Array]:
    for start in range(0, len(rows), BLOCK_ROWS):
        source = rows.source[start : start + BLOCK_ROWS]
        place = rows.place[start : start + BLOCK_ROWS]
        block = np.empty((len(source), dimension), np.float16)
        for number in np.unique(source):
            mine = np.flatnonzero(source == number)
            order = np.argsort(place[mine], kind="stable")
            block[mine[order]] = takes[number](place[mine][order])
        yield block


def _hot(rows: Rows, late: Late) -> dict[str, Array]:
    group_rows, group_leaders = same_hash_groups(rows.hashes)
    return {
        "ids": rows.ids,
        "versions": rows.versions,
        "hashes": rows.hashes,
        **rows.columns.tensors(),
        "group_rows": group_rows.astype(np.uint32),
        "group_leaders": group_leaders.astype(np.uint32),
        **late_tensors("tombstone_", late.tombstones),
        **late_tensors("update_", late.updates),
        **late.update_columns.tensors("update_"),
    }


def _hidden(ids: Array, versions: Array, tombstones: LateRecords) -> Array:
    """(n,) bool of rows, sorted by id, that a tombstone hides."""
    hidden = np.zeros(len(ids), bool)
    rows = IdIndex.of(ids).find(tombstones.ids)
    there = rows >= 0
    hit = rows[there][versions[rows[there]] <= tombstones.versions[there]]
    hidden[hit] = True
    return hidden


def _updated(facets: FacetColumns, ids: Array, versions: Array, late: Late) -> FacetColumns:
    kept = newest(late.updates.ids, late.updates.versions)
    if not len(kept) or not len(ids):
        return facets
    rows = IdIndex.of(ids).find(late.updates.ids[kept])
    applies = (rows >= 0) & (late.updates.versions[kept] >= versions[rows])
    if not applies.any():
        return facets
    both = FacetColumns.concat([facets, late.update_columns.take(kept[applies])])
    order = np.arange(len(ids))
    order[rows[applies]] = len(ids) + np.arange(int(applies.sum()))
    return both.take(order)
