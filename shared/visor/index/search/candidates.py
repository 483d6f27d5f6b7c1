"""Candidates: the nearest rows of a snapshot, found fast, exactly or by a metric."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from visor.errors import BadRequest
from visor.index.format.container import Array, rows_in_blocks
from visor.index.format.looks import label_roots
from visor.index.format.projection import Projection, dot, int8_scan, rerank
from visor.index.format.segment import RowBlock
from visor.index.search.fusion import WORDS_MIN, Fusion
from visor.index.search.metrics import STATISTICS_SAMPLES, Metric
from visor.index.search.snapshot import LiveBlock, Snapshot
from visor.index.search.worded import Said

RERANK = 400
"""Rows that a first pass hands to re-ranking at least, over all segments together …"""
RERANK_PER_SEGMENT = 128
"""… and of each segment."""
CELLS_DEPTH = 1024
"""Rows of the nearest cells that a fast scan hands on."""
METRIC_ROWS = 1024
"""Full vectors that a metric goes through at once."""
METRIC_IMAGES_MAX = 200_000
"""Items that a metric goes through: their full vectors are some 1.3 GB to read, and a minute of work."""
PARALLEL_ROWS = 300_000
"""Rows from which segments are scanned side by side."""

Way = Literal["fast", "exact", "metric"]
Scan = Callable[[int], tuple[Array, Array]]
"""The number of a block to its nearest rows (r,) int64 and their similarities (r,) float32, unordered."""
LIKENESS_ROWS = 8192
"""Rows whose likeness is computed at once."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """c rows in falling order of similarity, ties by id: the same order whichever block a row is in.

    blocks: what was searched; allowed: for each the rows that might be given, (n,) bool, or None for all.
    similarities (c,) float32; owners (c,) int64, which of `blocks` each is in; rows (c,) int64, its position there;
    ids (c, 16) uint8.
    """

    blocks: Sequence[LiveBlock]
    allowed: Sequence[Array | None]
    similarities: Array
    owners: Array
    rows: Array
    ids: Array

    def __len__(self) -> int:
        return len(self.rows)

    def id(self, place: int) -> str:
        """32 hex digits."""
        return bytes(self.ids[place]).hex()

    def take(self, places: Array | slice) -> Candidates:
        """Those at the given places, in that order."""
        return replace(
            self,
            similarities=self.similarities[places],
            owners=self.owners[places],
            rows=self.rows[places],
            ids=self.ids[places],
        )

    def without(self, ids: Collection[str]) -> Candidates:
        """All but the given items. Unknown ids are ignored."""
        if not ids:
            return self
        unwanted = {bytes.fromhex(i) for i in ids}
        return self.take(np.array([row.tobytes() not in unwanted for row in self.ids], bool))

    def gather(self, column: Callable[[RowBlock, Array], Array]) -> Array:
        """What `column` returns for rows of one block, for all candidates in their order."""
        mine = [(live.block, np.flatnonzero(self.owners == number)) for number, live in enumerate(self.blocks)]
        mine = [(block, places) for block, places in mine if len(places)]
        parts = [column(block, self.rows[places]) for block, places in mine]
        order = np.concatenate([places for _, places in mine])
        width = min(part.shape[1] for part in parts)
        gathered = np.empty((len(self), width), parts[0].dtype)
        gathered[order] = np.concatenate([part[:, :width] for part in parts])
        return gathered

    def products(self) -> Array:
        """(c,) uint64 of `FacetColumns`."""
        products = np.zeros(len(self), np.uint64)
        for number, live in enumerate(self.blocks):
            mine = self.owners == number
            products[mine] = live.products[self.rows[mine]]
        return products

    def unit_vectors(self) -> Array:
        """In the similarity space, (c, m) float32 of unit length; c at least 1."""
        return self.gather(lambda block, rows: block.vectors.unit(rows))

    def hashes(self) -> Array:
        """(c, h) uint8, cut to the shortest h among them; c at least 1."""
        return self.gather(lambda block, rows: block.hashes[rows])

    def block_rows(self) -> list[tuple[RowBlock, int]]:
        return [(self.blocks[o].block, row) for o, row in zip(self.owners.tolist(), self.rows.tolist(), strict=True)]


def nearest_rows(
    snapshot: Snapshot,
    query: Array,
    projected: Array,
    allowed: Sequence[Array | None],
    want: int,
    *,
    way: Way,
    metric: Metric | None,
    pool: Executor,
    fusion: Fusion | None = None,
    said: Said | None = None,
) -> Candidates:
    """The nearest rows of all blocks.

    Args:
        query: (d,) full vector of length 1.
        projected: (m,) the same in the similarity space, of length 1.
        allowed: For each block the rows that may be given, (n,) bool, or None for all.
        want: How many at most.
        metric: What to rank by, if `way` is metric.
        pool: Scans large segments side by side.
        fusion: Compare across the gap; not with a metric.
        said: Words that also count; not with a metric.
    """

    def scan_of(allowed: Sequence[Array | None]) -> Scan:
        if metric is not None:
            return _metric_scan(snapshot, query, allowed, want, metric)
        if fusion is not None:
            return _fusion_scan(snapshot, fusion, allowed, want, exact=way == "exact")
        return _space_scan(snapshot, projected, allowed, want, exact=way == "exact")

    scan = scan_of(allowed) if said is None else _worded_scan(snapshot, scan_of, allowed, said)
    numbers = range(len(snapshot.blocks))
    is_quick = way == "fast" and fusion is None and said is None and _in_cells(snapshot, allowed)
    parallel = not is_quick and len(numbers) > 1 and sum(len(live) for live in snapshot.blocks) >= PARALLEL_ROWS
    parts = list(pool.map(scan, numbers)) if parallel else [scan(number) for number in numbers]
    rows = np.concatenate([rows for rows, _ in parts])
    scores = np.concatenate([scores for _, scores in parts])
    owners = np.repeat(np.arange(len(parts)), [len(rows) for rows, _ in parts])
    return best_rows(snapshot, allowed, owners, rows, scores, want)


def best_rows(
    snapshot: Snapshot, allowed: Sequence[Array | None], owners: Array, rows: Array, scores: Array, want: int
) -> Candidates:
    """The best of these rows as candidates."""
    best = np.argsort(-scores, kind="stable")
    if len(best) > want:
        # Also those that are as good as the last one: ids decide among them.
        best = best[: np.searchsorted(-scores[best], -scores[best[want - 1]], side="right")]
    rows, scores, owners = rows[best], scores[best], owners[best]
    ids = np.empty((len(rows), 16), np.uint8)
    for number in range(len(snapshot.blocks)):
        mine = owners == number
        ids[mine] = snapshot.blocks[number].block.ids[rows[mine]]
    high, low = ids.view(">u8").T
    order = np.lexsort((low, high, -scores))[:want]
    return Candidates(snapshot.blocks, allowed, scores[order], owners[order], rows[order], ids[order])


def _space_scan(
    snapshot: Snapshot, projected: Array, allowed: Sequence[Array | None], want: int, *, exact: bool
) -> Scan:
    total = sum(len(live) for live in snapshot.blocks)
    found = {} if exact else _cells_scan(snapshot, projected, allowed, max(want, RERANK_PER_SEGMENT))

    def scan(number: int) -> tuple[Array, Array]:
        if number in found:
            return found[number]
        live, mask = snapshot.blocks[number], allowed[number]
        depth = max(want, RERANK_PER_SEGMENT, RERANK * len(live) // total)
        return _scan(live, projected, depth, mask, exact=exact)

    return scan


def _in_cells(snapshot: Snapshot, allowed: Sequence[Array | None]) -> bool:
    """Whether the nearest cells are searched: no filter leaves out any of their rows."""
    numbers = () if snapshot.cells is None else snapshot.cells.numbers
    masks = [(allowed[number], snapshot.blocks[number].alive) for number in numbers]
    return bool(masks) and all(mask is None or mask is alive for mask, alive in masks)


def _cells_scan(
    snapshot: Snapshot, query: Array, allowed: Sequence[Array | None], want: int
) -> dict[int, tuple[Array, Array]]:
    """About the `want` nearest rows of the blocks that lie in cells, by block, and their similarities. Empty if the
    blocks have to be scanned one by one."""
    if snapshot.cells is None or not _in_cells(snapshot, allowed):
        return {}
    lives = [snapshot.blocks[number] for number in snapshot.cells.numbers]
    depth, dead = max(want, CELLS_DEPTH), sum(len(live) - live.count for live in lives)
    owners, rows = snapshot.cells.scan.scan(query, depth + min(dead, depth))
    bounds = np.searchsorted(owners, np.arange(len(lives) + 1))
    parts = [rows[start:stop] for start, stop in pairwise(bounds)]
    parts = [part if live.alive is None else part[live.alive[part]] for live, part in zip(lives, parts, strict=True)]
    bounds = np.cumsum([0, *map(len, parts)])
    if bounds[-1] < min(depth, sum(live.count for live in lives)):
        return {}
    codes = np.concatenate([vectors.codes[part] for vectors, part in zip(snapshot.cells.vectors, parts, strict=True)])
    nearest = np.sort(int8_scan(codes, query, want))
    scores, cuts = rerank(codes, query, nearest), np.searchsorted(nearest, bounds)
    return {
        number: (part[nearest[start:stop] - before], scores[start:stop])
        for number, part, before, (start, stop) in zip(
            snapshot.cells.numbers, parts, bounds[:-1], pairwise(cuts), strict=True
        )
    }


def _scan(live: LiveBlock, query: Array, depth: int, allowed: Array | None, *, exact: bool) -> tuple[Array, Array]:
    block = live.block
    only_dead = allowed is not None and allowed is live.alive and block.vectors.has_fast and not exact
    if only_dead and allowed is not None:
        dead = len(block) - live.count
        rows, scores = block.vectors.scan(query, depth + min(dead, depth), None, exact=False)
        keep = allowed[rows]
        if np.count_nonzero(keep) >= min(depth, live.count):
            return rows[keep], scores[keep]
    return block.vectors.scan(query, depth, allowed, exact=exact)


def _fusion_scan(
    snapshot: Snapshot, fusion: Fusion, allowed: Sequence[Array | None], want: int, *, exact: bool
) -> Scan:
    """The nearest by vector, and those whose words fit, by all that is known of them."""
    by_vector = _space_scan(snapshot, fusion.projected, allowed, want, exact=exact)

    def scan(number: int) -> tuple[Array, Array]:
        live, mask = snapshot.blocks[number], allowed[number]
        words = live.word_sums(fusion.words)
        worded = np.flatnonzero((words > WORDS_MIN) & (True if mask is None else mask))
        worded = worded[np.argsort(-words[worded], kind="stable")[:RERANK]]
        rows = np.union1d(by_vector(number)[0], worded)
        return rows, _fused(snapshot, live, rows, words, fusion)

    return scan


def _worded_scan(
    snapshot: Snapshot,
    scan_of: Callable[[Sequence[Array | None]], Scan],
    allowed: Sequence[Array | None],
    said: Said,
) -> Scan:
    """The nearest of all, the nearest of those with any of the words, and those that match these best, by both."""
    sizes = [len(live) for live in snapshot.blocks]
    masks = said.masks(snapshot.blocks, allowed)
    best = [said.mask(number, size, allowed[number], RERANK) for number, size in enumerate(sizes)]
    scans = [scan_of(allowed), scan_of(masks), scan_of(best)]

    def scan(number: int) -> tuple[Array, Array]:
        found = [one(number) for one in scans]
        rows, first = np.unique(np.concatenate([rows for rows, _ in found]), return_index=True)
        scores = np.concatenate([scores for _, scores in found])[first]
        return rows, scores + said.of_rows(said.added, number, rows)

    return scan


def likeness(
    snapshot: Snapshot,
    live: LiveBlock,
    rows: Array,
    query: Array,
    projected: Array,
    metric: Metric | None,
    fusion: Fusion | None,
) -> Array:
    """How near any rows (r,) int64 of a block, rising, are: (r,) float32, as `nearest_rows` says of the nearest.

    For one row and query the number is the same whatever the other rows are.
    """
    if metric is not None:
        scores = np.empty(len(live), np.float32)
        for start, stop in rows_in_blocks(len(live), METRIC_ROWS):
            if np.searchsorted(rows, start) < np.searchsorted(rows, stop):
                scores[start:stop] = metric.similarities(query, live.block.read_full(start, stop))
        return scores[rows]
    scores = np.empty(len(rows), np.float32)
    words = None if fusion is None else live.word_sums(fusion.words)
    for start, stop in rows_in_blocks(len(rows), LIKENESS_ROWS):
        some = rows[start:stop]
        if fusion is not None and words is not None:
            scores[start:stop] = _fused(snapshot, live, some, words, fusion)
        else:
            scores[start:stop] = dot(live.block.vectors.unit(some), projected)
    return scores


def _fused(snapshot: Snapshot, live: LiveBlock, rows: Array, words: Array, fusion: Fusion) -> Array:
    """`Fusion.similarities` of rows (r,) of a block; words: (n,) of all its rows."""
    looks, coded = live.block.looks[rows], isinstance(snapshot.space, Projection)
    named = live.named(rows, label_roots(looks), fusion.names)
    return fusion.similarities(live.block.vectors.unit(rows), looks, words[rows], named, coded=coded)


def prepare_metric(snapshot: Snapshot, name: str) -> Metric:
    """The metric with the statistics of this snapshot. Raises `BadRequest` for more items than can be gone through."""
    if snapshot.images > METRIC_IMAGES_MAX:
        raise BadRequest(
            f"The metric {name} would go through the full vectors of {snapshot.images:,} items",
            valid=f"At most {METRIC_IMAGES_MAX:,}",
            remedy="Leave the metric out: the mode `exact` goes through any number",
        )
    return Metric(name, _sample(snapshot) if Metric.needs_sample(name) else np.empty((0, 0)))


def _metric_scan(snapshot: Snapshot, query: Array, allowed: Sequence[Array | None], want: int, metric: Metric) -> Scan:
    def scan(number: int) -> tuple[Array, Array]:
        block, mask = snapshot.blocks[number].block, allowed[number]
        scores = np.empty(len(block), np.float32)
        for start, stop in rows_in_blocks(len(block), METRIC_ROWS):
            if mask is None or mask[start:stop].any():
                scores[start:stop] = metric.similarities(query, block.read_full(start, stop))
        rows = np.arange(len(block)) if mask is None else np.flatnonzero(mask)
        if len(rows) > want:
            rows = rows[np.argsort(-scores[rows], kind="stable")[:want]]
        return rows, scores[rows]

    return scan


def full_vectors(snapshot: Snapshot, every: int = 1) -> Iterator[tuple[Array, Array]]:
    """Full vectors (b, d) float16 of the live items with their ids (b, 16) uint8, some rows at a time.

    Args:
        every: Gives one row in so many.
    """
    for live in snapshot.blocks:
        for start, stop in rows_in_blocks(len(live), METRIC_ROWS):
            keep = np.arange(start, stop) % every == 0
            if live.alive is not None:
                keep &= live.alive[start:stop]
            if keep.any():
                yield live.block.read_full(start, stop)[keep], live.block.ids[start:stop][keep]


def _sample(snapshot: Snapshot) -> Array:
    """Full vectors of the index, evenly taken, at most `STATISTICS_SAMPLES`."""
    every = max(1, snapshot.images // STATISTICS_SAMPLES)
    return np.concatenate([vectors for vectors, _ in full_vectors(snapshot, every)])
