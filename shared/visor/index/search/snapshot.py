"""What a search reads: blocks of rows, and which of their rows are alive. Immutable; a refresh makes a new one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from visor.index.format.container import Array
from visor.index.format.facets import AttributeKey, FacetColumns
from visor.index.format.fast_scan import CELLS_ROWS_MIN, CellScan, FastScan
from visor.index.format.ids import IdIndex, newest
from visor.index.format.manifest import Manifest
from visor.index.format.pending_deletes import PendingDeletes
from visor.index.format.projection import CodedVectors, FullVectors, Projection, Space
from visor.index.format.segment import RowBlock, common_hashes
from visor.index.format.shard import Shard
from visor.index.search.facet_counts import FacetCounts
from visor.schema.attributes import AttributeType
from visor.schema.search import Filters, Notice


@dataclass(frozen=True, kw_only=True)
class FreshBlock(RowBlock):
    """All shards that are in no segment, with the newest version of each id. sources: shard and row of each."""

    sources: Sequence[tuple[Shard, int]] = field(repr=False)

    def read_full(self, start: int, stop: int) -> Array:
        return np.stack([shard.vectors[row] for shard, row in self.sources[start:stop]])

    @cached_property
    def looks(self) -> Array:
        return np.stack([shard.looks[row] for shard, row in self.sources])


@dataclass(frozen=True)
class LiveBlock:
    """A block and what newer records change in it.

    alive: (n,) bool, or None if all rows are. overlay_rows (u,) int64: rows whose facets are those of
    `overlay` (u rows).
    """

    block: RowBlock
    alive: Array | None
    count: int
    overlay_rows: Array
    overlay: FacetColumns | None

    def __len__(self) -> int:
        """Rows, including dead ones."""
        return len(self.block.versions)

    def allowed(self, filters: Filters, types: Mapping[str, AttributeType]) -> Array | None:
        """(n,) bool of the rows that are alive and pass, or None for all. `types` and errors as `FacetColumns.mask`."""
        if filters == Filters():
            return self.alive
        keep = self.column(lambda columns: columns.mask(filters, types))
        return keep if self.alive is None else keep & self.alive

    def column(self, read: Callable[[FacetColumns], Array]) -> Array:
        """What `read` returns for each row (n,), from the columns as they are now."""
        values = read(self.block.columns)
        if self.overlay is not None:
            values = values.copy()
            values[self.overlay_rows] = read(self.overlay)
        return values

    @cached_property
    def products(self) -> Array:
        """(n,) uint64 of `FacetColumns`."""
        return self.column(lambda columns: columns.products)

    @property
    def declared(self) -> Counter[str]:
        """How many rows have each declaration of attributes, as JSON."""
        found: Counter[str] = Counter()
        for columns, keep in self._parts(self.alive):
            sums = np.bincount(columns.codes["declared"][keep], minlength=len(columns.names["declared"]) + 1)[1:]
            found.update(dict(zip(columns.names["declared"], sums.tolist(), strict=True)))
        return found

    def currencies(self, allowed: Array | None) -> set[str]:
        """The currencies in which allowed rows, (n,) bool or None for all, have prices."""
        found = set[str]()
        for columns, keep in self._parts(allowed):
            used = np.unique(columns.codes["currency"][keep & ~np.isnan(columns.price)])
            found.update(columns.names["currency"][code - 1] for code in used.tolist() if code)
        return found

    def _parts(self, allowed: Array | None) -> list[tuple[FacetColumns, Array]]:
        """The columns of the rows as they are now, and which of them are allowed, (n,) bool."""
        keep = np.ones(len(self.block), bool) if allowed is None else allowed
        if self.overlay is None:
            return [(self.block.columns, keep)]
        changed, keep = keep[self.overlay_rows], keep.copy()
        keep[self.overlay_rows] = False
        return [(self.block.columns, keep), (self.overlay, changed)]

    def word_sums(self, weights: Mapping[str, float]) -> Array:
        """(n,) float64: the sum of the weights of each item's words."""
        return self.column(lambda columns: columns.word_sums(weights))

    def named(self, rows: Array, roots: Array, names: Sequence[Mapping[str, float]]) -> Array:
        """As `FacetColumns.named`, of the words as they are now."""
        found = self.block.columns.named(rows, roots, names)
        if self.overlay is not None:
            _, here, there = np.intersect1d(rows, self.overlay_rows, assume_unique=True, return_indices=True)
            found[here] = self.overlay.named(there, roots[here], names)
        return found

    def counts(self, allowed: Array | None, types: Mapping[str, AttributeType]) -> list[FacetCounts]:
        """Counts over the rows that are allowed, (n,) bool; None: over all."""
        return [FacetCounts.of(columns, keep, types) for columns, keep in self._parts(allowed)]


@dataclass(frozen=True)
class Cells:
    """The fast scans of several blocks as one. numbers: which of the snapshot's blocks its owners are."""

    scan: CellScan
    numbers: tuple[int, ...]
    vectors: tuple[CodedVectors, ...]

    @classmethod
    def of(cls, blocks: Sequence[RowBlock], space: Space) -> Cells | None:
        """None for so few rows that going through them all is as fast."""
        centres = space.centres if isinstance(space, Projection) else None
        found = [
            (number, vectors, vectors.fast, vectors.cells)
            for number, vectors in enumerate(block.vectors for block in blocks)
            if isinstance(vectors, CodedVectors) and vectors.fast is not None and vectors.cells is not None
        ]
        if centres is None or sum(len(cells) for *_, cells in found) < CELLS_ROWS_MIN:
            return None
        scan = CellScan(centres, ((FastScan.read(fast), cells) for _, _, fast, cells in found))
        return cls(scan, tuple(number for number, *_ in found), tuple(vectors for _, vectors, _, _ in found))


def text_of(notices: Iterable[Notice]) -> str | None:
    """The texts of notices; None if there are none."""
    return " ".join(notice.text for notice in notices) or None


@dataclass(frozen=True)
class Snapshot:
    """One consistent state of an index."""

    space: Space
    blocks: tuple[LiveBlock, ...]
    generation: int
    """Generation of the manifest; 0 before the first merge."""
    manifest: Manifest | None = None
    notices: tuple[Notice, ...] = ()
    """What could not be read, and what else to know of answers."""
    images: int = field(default=0)
    fresh: FreshBlock | None = None
    pending: PendingDeletes | None = None
    """What `apply_deletes` made `blocks` from, in addition to the segments."""
    changed: Array = field(default_factory=lambda: np.empty((0, 16), np.uint8))
    """Ids (c, 16) uint8 named by commits that no merge has taken up."""
    rest: int = 0
    """Items that pass a search's filters and are not in `blocks`: an engine has them, and returned only the nearest."""
    stored: Counter[str] | None = None
    """Items by their declaration, if `blocks` do not hold all."""
    catalogue: Snapshot | None = None
    """A sample of all items, if `blocks` do not hold all."""
    cells: Cells | None = None

    @property
    def notice(self) -> str | None:
        return text_of(self.notices)

    def find(self, item_id: str) -> tuple[LiveBlock, int] | None:
        """The live block that has an item, and its row in it; None if there is no such item."""
        try:
            key = np.frombuffer(bytes.fromhex(item_id), np.uint8).reshape(1, 16)
        except ValueError:
            return None
        for live in self.blocks:
            row = int(live.block.index.find(key)[0])
            if row >= 0 and (live.alive is None or live.alive[row]):
                return live, row
        return None

    @cached_property
    def declared(self) -> Mapping[AttributeKey, int]:
        """How many items were written under each declaration of an attribute."""
        found: Counter[AttributeKey] = Counter()
        stored = sum((live.declared for live in self.blocks), Counter[str]()) if self.stored is None else self.stored
        for text, count in stored.items():
            found.update(dict.fromkeys(json.loads(text).items(), count))
        return found

    @cached_property
    def types(self) -> dict[str, AttributeType]:
        """The attributes by name. If one was declared anew with another type, it has the type of most rows; of as many,
        always the same one."""
        return dict(sorted(self.declared, key=lambda key: (self.declared[key], key)))

    @cached_property
    def has_products(self) -> bool:
        return any(live.products.any() for live in self.blocks)

    @cached_property
    def products(self) -> int:
        """How many products there are; an item without one counts as one."""
        parts = [live.products if live.alive is None else live.products[live.alive] for live in self.blocks]
        products = np.concatenate(parts)
        return int(np.count_nonzero(products == 0)) + len(np.unique(products[products > 0]))


def fresh_block(shards: Sequence[Shard], space: Space) -> FreshBlock | None:
    """All fresh shards as one block; None if they hold no row."""
    shards = [shard for shard in shards if len(shard)]
    if not shards:
        return None
    ids = np.concatenate([shard.ids for shard in shards])
    rows = newest(ids, np.concatenate([shard.versions for shard in shards]))
    owner, inside = split_rows(rows, [len(shard) for shard in shards])
    vectors: CodedVectors | FullVectors
    if isinstance(space, Projection):
        vectors = CodedVectors(np.concatenate([space.code(shard.vectors) for shard in shards])[rows])
    else:
        vectors = FullVectors(np.concatenate([space.project(shard.vectors) for shard in shards])[rows])
    return FreshBlock(
        ids=ids[rows],
        versions=np.concatenate([shard.versions for shard in shards])[rows],
        hashes=common_hashes([shard.hashes for shard in shards])[rows],
        columns=FacetColumns.concat([FacetColumns.of(shard.facets) for shard in shards]).take(rows),
        vectors=vectors,
        index=IdIndex.of(ids[rows]),
        group_rows=np.empty(0, np.int64),
        group_leaders=np.empty(0, np.int64),
        sources=[(shards[o], r) for o, r in zip(owner.tolist(), inside.tolist(), strict=True)],
    )


def split_rows(rows: Array, lengths: Sequence[int]) -> tuple[Array, Array]:
    """Rows of several parts counted through, as the number of the part and the row within it, int64 each."""
    starts = np.append(0, np.cumsum(lengths))
    owner = np.searchsorted(starts, rows, side="right") - 1
    return owner, rows - starts[owner]


def superseded(blocks: Sequence[RowBlock]) -> list[Array | None]:
    """For each block, (n,) bool: False for rows of which another block has a newer version; or None if there are none.

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
    owner, inside = split_rows(rows, [len(block) for block in blocks])
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


def apply_deletes(
    blocks: Sequence[RowBlock], base: Sequence[Array | None], fresh: FreshBlock | None, pending: PendingDeletes
) -> tuple[LiveBlock, ...]:
    """Which rows are alive, and whose facets were updated.

    Args:
        blocks: Segments.
        base: What `superseded(blocks)` returns.
        fresh: The shards that are in no segment.
        pending: Tombstones and updates of commits and segments.
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
        hidden, _ = pending.tombstones.concerned(block.index, block.versions)
        if len(hidden):
            _mask(alive, number, block)[hidden] = False
    kept = pending.updates.newest()
    updates, columns = pending.updates.take(kept), pending.update_columns.take(kept)
    live = []
    for block, mask in zip(everything, alive, strict=True):
        rows, places = updates.concerned(block.index, block.versions)
        count = len(block) if mask is None else int(np.count_nonzero(mask))
        overlay = columns.take(places) if len(places) else None
        live.append(LiveBlock(block, None if count == len(block) else mask, count, rows, overlay))
    return tuple(live)


def _mask(alive: list[Array | None], number: int, block: RowBlock) -> Array:
    """The block's mask, made when it is first written to."""
    mask = alive[number]
    if mask is None:
        mask = alive[number] = np.ones(len(block), bool)
    return mask
