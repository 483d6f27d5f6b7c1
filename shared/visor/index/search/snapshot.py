"""What a search looks at: blocks of rows, and which of their rows are alive. Immutable; a refresh makes a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from visor.index.format.codes import FastScan, int8_scan, rerank
from visor.index.format.container import Array
from visor.index.format.facets import FacetColumns, FacetCounts, is_empty
from visor.index.format.ids import IdIndex, newest
from visor.index.format.manifest import Manifest
from visor.index.format.projection import Space, decode, unit
from visor.index.format.segment import LateRecords, Segment
from visor.index.format.shard import Shard
from visor.schema.search import Filters
from visor.storage.objects import ObjectStore

EXACT_ROWS = 5_000
"""Rows that a float scan goes through at once."""


@dataclass(frozen=True, slots=True)
class Block:
    """n rows sorted by id, each id once: one segment, or all fresh shards together.

    Arrays as in `Segment`: exactly one of `codes` and `full` is there. `read(start, stop)` gives full vectors, float16.
    """

    name: str
    ids: Array
    versions: Array
    hashes: Array
    columns: FacetColumns
    codes: Array | None
    full: Array | None
    fast: FastScan | None
    read: Callable[[int, int], Array]
    index: IdIndex
    group_rows: Array
    group_leaders: Array
    is_fresh: bool = False

    def __len__(self) -> int:
        return len(self.versions)

    def group_of(self, row: int) -> Array:
        """Other rows (g,) int64 that a merge found to have nearly the hash of this one."""
        if not len(self.group_rows):
            return self.group_rows
        place = int(np.searchsorted(self.group_rows, row))
        if place == len(self.group_rows) or self.group_rows[place] != row:
            return np.empty(0, np.int64)
        members = self.group_rows[self.group_leaders == self.group_leaders[place]]
        others: Array = members[members != row]
        return others

    def unit_vectors(self, rows: Array) -> Array:
        """Rows in the similarity space, (len(rows), m) float32, unit length."""
        if self.codes is not None:
            return decode(self.codes[rows])
        assert self.full is not None
        taken: Array = self.full[rows]
        return taken

    def scan(self, query: Array, want: int, allowed: Array | None, *, exact: bool) -> tuple[Array, Array]:
        """The `want` nearest allowed rows and their similarities, unordered.

        Args:
            query: (m,) float32, unit length.
            want: How many, at most.
            allowed: (n,) bool, or None for all.
            exact: Compare with every row, even where a fast scan is there.
        """
        if self.codes is None:
            return self._scan_full(query, want, allowed)
        rows = None
        if self.fast is not None and not exact and allowed is None:
            rows = self.fast.scan(query, want)
        if rows is None:
            rows = int8_scan(self.codes, query, want, allowed)
        return rows, rerank(self.codes, query, rows)

    def _scan_full(self, query: Array, want: int, allowed: Array | None) -> tuple[Array, Array]:
        assert self.full is not None
        rows = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        parts = [self.full[rows[i : i + EXACT_ROWS]] @ query for i in range(0, len(rows), EXACT_ROWS)]
        scores = np.concatenate(parts) if parts else np.empty(0, np.float32)
        if len(rows) > want:
            best = np.argpartition(-scores, want - 1)[:want]
            rows, scores = rows[best], scores[best]
        return rows, scores


@dataclass(frozen=True, slots=True)
class Live:
    """A block and what newer records say of it.

    alive: (n,) bool, or None if all rows are. overlay_rows (u,) int64: rows whose facets are those of
    `overlay` (u rows).
    """

    block: Block
    alive: Array | None
    count: int
    overlay_rows: Array
    overlay: FacetColumns | None

    def allowed(self, filters: Filters) -> Array | None:
        """(n,) bool of the rows that are alive and pass, or None for all."""
        if is_empty(filters):
            return self.alive
        keep = self.block.columns.mask(filters)
        if self.overlay is not None:
            keep[self.overlay_rows] = self.overlay.mask(filters)
        return keep if self.alive is None else keep & self.alive

    def counts(self, filters: Filters) -> list[FacetCounts]:
        allowed = self.allowed(filters)
        keep = np.ones(len(self.block), bool) if allowed is None else allowed
        if self.overlay is None:
            return [self.block.columns.count(keep)]
        changed = keep[self.overlay_rows]
        keep = keep.copy()
        keep[self.overlay_rows] = False
        return [self.block.columns.count(keep), self.overlay.count(changed)]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent state of an index."""

    space: Space
    lives: tuple[Live, ...]
    generation: int
    """Of the manifest; 0 before the first merge."""
    manifest: Manifest | None = None
    notice: str | None = None
    images: int = field(default=0)


def segment_block(segment: Segment, objects: ObjectStore) -> Block:
    return Block(
        name=segment.entry.name,
        ids=segment.ids,
        versions=segment.versions,
        hashes=segment.hashes,
        columns=segment.columns,
        codes=segment.codes,
        full=segment.full,
        fast=segment.fast,
        read=lambda start, stop: segment.vectors(objects, start, stop),
        index=segment.index,
        group_rows=segment.group_rows,
        group_leaders=segment.group_leaders,
    )


def shards_block(shards: Sequence[Shard], space: Space) -> Block | None:
    """All fresh shards as one block with the newest version of each id; None if they hold no row."""
    shards = [shard for shard in shards if len(shard)]
    if not shards:
        return None
    ids = np.concatenate([shard.ids for shard in shards])
    versions = np.concatenate([shard.versions for shard in shards])
    rows = newest(ids, versions)
    starts = np.append(0, np.cumsum([len(shard) for shard in shards]))
    coded = space.matrix is not None
    codes = np.concatenate([space.code(shard.vectors) for shard in shards])[rows] if coded else None
    full = None if coded else np.concatenate([unit(shard.vectors.astype(np.float32)) for shard in shards])[rows]

    def read(start: int, stop: int) -> Array:
        wanted = rows[start:stop]
        owner = np.searchsorted(starts, wanted, side="right") - 1
        picked = [shards[o].vectors[r - starts[o]] for o, r in zip(owner, wanted, strict=True)]
        return np.stack(picked) if picked else np.empty((0, space.dimension), np.float16)

    return Block(
        name="fresh shards",
        ids=ids[rows],
        versions=versions[rows],
        hashes=common_hashes([shard.hashes for shard in shards])[rows],
        columns=FacetColumns.concat([FacetColumns.of(shard.facets) for shard in shards]).take(rows),
        codes=codes,
        full=full,
        fast=None,
        read=read,
        index=IdIndex.of(ids[rows]),
        group_rows=np.empty(0, np.int64),
        group_leaders=np.empty(0, np.int64),
        is_fresh=True,
    )


def common_hashes(parts: Sequence[Array]) -> Array:
    """Hashes (n, h) uint8 of all parts, cut to the shortest h among them."""
    width = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :width] for part in parts])


def superseded(blocks: Sequence[Block]) -> list[Array | None]:
    """For each block the rows of which another block has a newer version, as (n,) bool of the others, or None.

    Of equal versions the one in the later block stays.
    """
    alive: list[Array | None] = [None] * len(blocks)
    if len(blocks) < 2:
        return alive
    high = np.concatenate([block.index.high for block in blocks])
    ordered = np.sort(high)
    doubled = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(doubled):
        return alive
    rows = np.flatnonzero(np.isin(high, doubled))
    starts = np.append(0, np.cumsum([len(block) for block in blocks]))
    owner = np.searchsorted(starts, rows, side="right") - 1
    inside = rows - starts[owner]
    ids = np.stack([blocks[o].ids[r] for o, r in zip(owner, inside, strict=True)])
    versions = np.array([blocks[o].versions[r] for o, r in zip(owner, inside, strict=True)], np.int64)
    stays = np.zeros(len(rows), bool)
    stays[newest(ids, versions)] = True
    for number, block in enumerate(blocks):
        dead = inside[(owner == number) & ~stays]
        if len(dead):
            mask = np.ones(len(block), bool)
            mask[dead] = False
            alive[number] = mask
    return alive


def resolve(
    blocks: Sequence[Block],
    base: Sequence[Array | None],
    fresh: Block | None,
    tombstones: LateRecords,
    updates: LateRecords,
    update_columns: FacetColumns,
) -> tuple[Live, ...]:
    """Which rows are alive, and whose facets were updated.

    Args:
        blocks: Segments.
        base: What `superseded(blocks)` says.
        fresh: The shards that are in no segment.
        tombstones: Hide every version up to their own.
        updates: Apply to rows of their version or an older one; row i has the facets `update_columns[i]`.
    """
    alive = [None if mask is None else mask.copy() for mask in base]
    everything = list(blocks)
    if fresh is not None:
        fresh_alive = np.ones(len(fresh), bool)
        for number, block in enumerate(blocks):
            rows = block.index.find(fresh.ids)
            there = rows >= 0
            current = np.zeros(len(fresh), bool)
            current[there] = _mask(alive, number, block)[rows[there]]
            newer = there & (fresh.versions >= block.versions[rows])
            _mask(alive, number, block)[rows[newer]] = False
            fresh_alive[current & ~newer] = False
        everything.append(fresh)
        alive.append(fresh_alive)
    for number, block in enumerate(everything):
        rows = block.index.find(tombstones.ids)
        there = rows >= 0
        hidden = rows[there][block.versions[rows[there]] <= tombstones.versions[there]]
        if len(hidden):
            _mask(alive, number, block)[hidden] = False
    kept = newest(updates.ids, updates.versions)
    lives = []
    for block, mask in zip(everything, alive, strict=True):
        rows = block.index.find(updates.ids[kept])
        applies = (rows >= 0) & (updates.versions[kept] >= block.versions[rows] if len(block) else False)
        count = len(block) if mask is None else int(np.count_nonzero(mask))
        overlay = update_columns.take(kept[applies]) if applies.any() else None
        lives.append(Live(block, None if count == len(block) else mask, count, rows[applies], overlay))
    return tuple(lives)


def _mask(alive: list[Array | None], number: int, block: Block) -> Array:
    """The block's mask, made when it is first written to."""
    mask = alive[number]
    if mask is None:
        mask = alive[number] = np.ones(len(block), bool)
    return mask
