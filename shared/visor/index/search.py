"""Search: the nearest pictures in one similarity space, fast or exact, or by a SciPy metric on the full vectors."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from visor.errors import BadRequest, StoreUnavailable
from visor.index.calibration import Calibration
from visor.index.columns import FacetCounts
from visor.index.container import Array, rows_in_blocks
from visor.index.copies import SAME_SIMILARITY, hash_distances, leaders
from visor.index.hits import DUPLICATES_MAX, Hit, Hits
from visor.index.ids import id_text
from visor.index.manifest import Manifest
from visor.index.metrics import STATISTICS_SAMPLES, Metric, check_metric
from visor.index.snapshot import Live, Snapshot
from visor.index.space import Space, query_vector
from visor.index.state import IndexState
from visor.index.surroundings import Surroundings
from visor.stores.documents import DocumentStore
from visor.stores.objects import ObjectStore
from visor.web.contract import FacetsAnswer, Filters

RERANK = 400
"""Rows that a first pass hands to re-ranking, over all segments together, at least."""
RERANK_PER_SEGMENT = 128
"""… and of each segment at least."""
NEAREST = 64
"""Best similarities that an answer carries for confidence."""
METRIC_ROWS = 1024
"""Full vectors that a metric goes through at once."""
PARALLEL_ROWS = 300_000
"""Rows from which segments are scanned side by side."""
WIDENINGS = 6
"""Times that a search asks for four times as many rows before it gives up on filling k with different pictures."""


class Searcher:
    """Searches one model's index and follows its changes. Thread-safe.

    Args:
        objects, documents: The index's stores.
        model: Fingerprint; shards of other models are not looked at.
        freshness_s: Longest time between two looks for new commits.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        objects: ObjectStore,
        documents: DocumentStore,
        *,
        model: str,
        freshness_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self._freshness_s, self._clock = freshness_s, clock
        self._state = IndexState(objects, documents, model, clock=clock)
        self._snapshot = Snapshot(Space(None, 0), (), 0)
        self._refreshed_at: float | None = None
        self._lock = threading.Lock()
        self._surroundings = Surroundings()
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="scan")

    def refresh(self, force: bool = False) -> bool:
        """Take in what was committed since, if the last look is `freshness_s` ago or `force` is set.

        A search keeps what it holds while the store does not answer. Returns whether it looked.

        Raises:
            FormatError: What cannot be left out without making answers wrong cannot be read; it is named.
            StoreUnavailable: The store did not answer at the first look.
        """
        if not force and not self._is_due():
            return False
        # While one thread looks, the others go on with what there is, unless there is nothing yet.
        if not self._lock.acquire(blocking=force or self._refreshed_at is None):
            return False
        try:
            if not force and not self._is_due():
                return False
            try:
                snapshot = self._state.poll()
            except StoreUnavailable:
                if self._refreshed_at is None:
                    raise
                snapshot = None
            if snapshot is not None:
                self._snapshot = snapshot
            self._refreshed_at = self._clock()
            return True
        finally:
            self._lock.release()

    def take_changed(self) -> set[str] | None:
        """Ids of the items that refreshes found changed since the last call; None if any item may have changed."""
        with self._lock:
            return self._state.take_changed()

    def __len__(self) -> int:
        return self._snapshot.images

    @property
    def generation(self) -> int:
        """Generation of the manifest that is searched; 0 before the first merge."""
        return self._snapshot.generation

    def sample(self, limit: int) -> list[str]:
        """At most `limit` ids, spread over the index and its blocks; the same ones as long as the index is the same."""
        lives = self._snapshot.lives
        rows = [np.flatnonzero(live.alive) if live.alive is not None else np.arange(len(live.block)) for live in lives]
        total = sum(len(r) for r in rows)
        if not total:
            return []
        chosen = np.unique(np.linspace(0, total - 1, min(limit, total)).astype(np.int64))
        starts = np.cumsum([0, *map(len, rows)])
        return [
            id_text(live.block.ids[r[place - start]])
            for live, r, start, end in zip(lives, rows, starts, starts[1:], strict=False)
            for place in chosen
            if start <= place < end
        ]

    @property
    def manifest(self) -> Manifest | None:
        return self._state.manifest

    @property
    def space(self) -> Space:
        return self._snapshot.space

    @property
    def calibration(self) -> Calibration:
        """Fitted to this index at a merge, or the default."""
        return self._surroundings.calibration(self.manifest)

    @property
    def segments(self) -> int:
        """Live segments."""
        return len(self.manifest.segments) if self.manifest else 0

    @property
    def fresh(self) -> int:
        """Items that are in no segment yet."""
        return sum(live.count for live in self._snapshot.lives if live.block.is_fresh)

    @property
    def notice(self) -> str | None:
        """What part of the index could not be read, if any."""
        return self._snapshot.notice

    def search(
        self,
        vector: Array,
        *,
        k: int,
        filters: Filters = Filters(),  # noqa: B008 - a frozen record
        mode: Literal["fast", "exact"] = "fast",
        metric: str | None = None,
        query_hash: bytes | None = None,
        leave_out: Collection[str] = (),
    ) -> Hits:
        """The k nearest different pictures that pass the filters, as many as there are.

        Args:
            vector: (d,) full vector of the index's model; its length does not matter.
            k: At least 1.
            mode: `fast` or `exact`, two ways through one similarity space.
            metric: A SciPy metric on the full vectors; overrides `mode`.
            query_hash: Perceptual hash, PDQ in its first 32 bytes.
            leave_out: Ids that are no results.

        Raises:
            BadRequest: k, the vector, the metric or a filter is not valid.
        """
        if k < 1:
            raise BadRequest(f"k is {k}", valid="k is at least 1", remedy="Ask for one result or more")
        if metric is not None:
            check_metric(metric)
        snapshot = self._snapshot
        way: Literal["fast", "exact", "metric"] = "metric" if metric is not None else mode
        if not snapshot.images:
            return Hits((), way, metric, np.empty(0, np.float32), snapshot.notice)
        query = query_vector(vector, snapshot.space.dimension)
        wanted_hash = None if query_hash is None else np.frombuffer(bytes(query_hash), np.uint8)
        allowed = [live.allowed(filters) for live in snapshot.lives]
        matching = sum(_count(live, mask) for live, mask in zip(snapshot.lives, allowed, strict=True))
        want = k + len(leave_out) + min(k, 20)
        for _ in range(WIDENINGS):
            most = max(want, NEAREST + len(leave_out))
            found = self._candidates(snapshot, query, allowed, most, way, metric)
            hits, nearest = _group(found[:want], k, wanted_hash, frozenset(leave_out))
            if len(hits) >= k or len(found) >= matching:
                break
            want *= 4
        near = [(c.live.block, c.row) for c in found if c.id not in leave_out][:NEAREST]
        around = self._surroundings.around(snapshot, self.calibration, query, near)
        return Hits(hits, way, metric, nearest, snapshot.notice, around)

    def facets(self, filters: Filters) -> FacetsAnswer:
        """How often each value occurs among the items that pass the filters."""
        parts = [part for live in self._snapshot.lives for part in live.counts(filters)]
        return FacetCounts.answer(parts)

    def all_rows(self, *, projected: bool) -> tuple[Array, list[str]]:
        """Vectors of all live items and their ids in that order. For benchmarks: it reads every full vector.

        Args:
            projected: (n, m) float32 in the similarity space; else (n, d) float32, full.
        """
        snapshot = self._snapshot
        parts, ids = [], []
        for live in snapshot.lives:
            for start, stop in rows_in_blocks(len(live.block), METRIC_ROWS):
                keep = np.ones(stop - start, bool) if live.alive is None else live.alive[start:stop]
                full = live.block.read(start, stop)[keep]
                parts.append(snapshot.space.project(full) if projected else full.astype(np.float32))
                ids += [id_text(row) for row in live.block.ids[start:stop][keep]]
        width = snapshot.space.dimensions if projected else snapshot.space.dimension
        return np.concatenate(parts) if parts else np.empty((0, width), np.float32), ids

    def vector_of(self, item_id: str) -> Array | None:
        """The full vector (d,) float32 of an indexed item; None if there is no such item."""
        place = _find(self._snapshot, item_id)
        if place is None:
            return None
        live, row = place
        vector: Array = live.block.read(row, row + 1)[0].astype(np.float32)
        return vector

    def hashes_of(self, item_id: str) -> Array | None:
        """The perceptual hashes (h,) uint8 of an indexed item; None if there is no such item."""
        place = _find(self._snapshot, item_id)
        return None if place is None else place[0].block.hashes[place[1]]

    def _is_due(self) -> bool:
        return self._refreshed_at is None or self._clock() - self._refreshed_at >= self._freshness_s

    def _candidates(
        self,
        snapshot: Snapshot,
        query: Array,
        allowed: list[Array | None],
        want: int,
        way: str,
        metric: str | None,
    ) -> list[_Candidate]:
        """The `want` nearest rows of all blocks in falling order of similarity, ties by id."""
        total = sum(len(live.block) for live in snapshot.lives)
        scan: Callable[[int], tuple[Array, Array]]
        if metric is not None:
            sample = _sample(snapshot) if Metric.needs_sample(metric) else np.empty((0, 0))
            prepared = Metric(metric, sample)

            def scan(number: int) -> tuple[Array, Array]:
                return _metric_scan(snapshot.lives[number], prepared, query, want, allowed[number])
        else:
            projected = snapshot.space.project(query[None])[0]

            def scan(number: int) -> tuple[Array, Array]:
                live, mask = snapshot.lives[number], allowed[number]
                depth = max(want, RERANK_PER_SEGMENT, RERANK * len(live.block) // total)
                return _scan(live, projected, depth, mask, exact=way == "exact")

        numbers = range(len(snapshot.lives))
        parallel = total >= PARALLEL_ROWS and len(numbers) > 1
        parts = list(self._pool.map(scan, numbers)) if parallel else [scan(number) for number in numbers]
        rows = np.concatenate([rows for rows, _ in parts])
        scores = np.concatenate([scores for _, scores in parts])
        owner = np.repeat(np.arange(len(parts)), [len(rows) for rows, _ in parts])
        # By score, ties by id: the same answer whichever block a row lies in.
        best = np.argsort(-scores, kind="stable")[: want + 1]
        found = []
        for i in best.tolist():
            number, row = int(owner[i]), int(rows[i])
            live = snapshot.lives[number]
            found.append(_Candidate(float(scores[i]), live, row, allowed[number], id_text(live.block.ids[row])))
        found.sort(key=lambda c: (-c.similarity, c.id))
        return found[:want]


__all__ = ["Hit", "Hits", "Searcher"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    similarity: float
    live: Live
    row: int
    allowed: Array | None
    id: str


def _scan(live: Live, query: Array, depth: int, allowed: Array | None, *, exact: bool) -> tuple[Array, Array]:
    block = live.block
    only_dead = allowed is not None and allowed is live.alive and block.fast is not None and not exact
    if only_dead and allowed is not None:
        dead = len(block) - live.count
        rows, scores = block.scan(query, depth + min(dead, depth), None, exact=False)
        keep = allowed[rows]
        if np.count_nonzero(keep) >= min(depth, live.count):
            return rows[keep], scores[keep]
    return block.scan(query, depth, allowed, exact=exact)


def _metric_scan(live: Live, metric: Metric, query: Array, want: int, allowed: Array | None) -> tuple[Array, Array]:
    block = live.block
    scores = np.empty(len(block), np.float32)
    for start, stop in rows_in_blocks(len(block), METRIC_ROWS):
        if allowed is None or allowed[start:stop].any():
            scores[start:stop] = metric.similarities(query, block.read(start, stop))
    rows = np.arange(len(block)) if allowed is None else np.flatnonzero(allowed)
    if len(rows) > want:
        rows = rows[np.argpartition(-scores[rows], want - 1)[:want]]
    return rows, scores[rows]


def _sample(snapshot: Snapshot) -> Array:
    """Full vectors of the index, evenly taken, at most `STATISTICS_SAMPLES`."""
    step = max(1, snapshot.images // STATISTICS_SAMPLES)
    return np.concatenate(list(_strided(snapshot, step)))


def _strided(snapshot: Snapshot, step: int) -> Iterator[Array]:
    for live in snapshot.lives:
        for start, stop in rows_in_blocks(len(live.block), METRIC_ROWS):
            keep = np.arange(start, stop) % step == 0
            if live.alive is not None:
                keep &= live.alive[start:stop]
            if keep.any():
                yield live.block.read(start, stop)[keep]


def _count(live: Live, mask: Array | None) -> int:
    return len(live.block) if mask is None else int(np.count_nonzero(mask))


def _find(snapshot: Snapshot, item_id: str) -> tuple[Live, int] | None:
    try:
        key = np.frombuffer(bytes.fromhex(item_id), np.uint8).reshape(1, 16)
    except ValueError:
        return None
    for live in snapshot.lives:
        row = int(live.block.index.find(key)[0])
        if row >= 0 and (live.alive is None or live.alive[row]):
            return live, row
    return None


def _group(
    found: list[_Candidate], k: int, query_hash: Array | None, leave_out: frozenset[str]
) -> tuple[tuple[Hit, ...], Array]:
    """Candidates in rank order as hits, rows of the same picture together."""
    found = [candidate for candidate in found if candidate.id not in leave_out]
    if not found:
        return (), np.empty(0, np.float32)
    width = min(candidate.live.block.hashes.shape[1] for candidate in found)
    hashes = np.stack([candidate.live.block.hashes[candidate.row, :width] for candidate in found])
    vectors = _unit_vectors(found)
    leader = leaders(hashes, vectors)
    distances = hash_distances(hashes, query_hash) if query_hash is not None else None
    hits = []
    members: dict[int, list[int]] = {}
    for row, first in enumerate(leader.tolist()):
        members.setdefault(first, []).append(row)
    for first, rows in islice(members.items(), k):
        places = dict.fromkeys(found[row].id for row in rows)
        places |= dict.fromkeys(i for i in _stored_copies(found[first], vectors[first]) if i not in leave_out)
        del places[found[first].id]
        hits.append(
            Hit(
                id=found[first].id,
                similarity=found[first].similarity,
                hash_distance=None if distances is None else int(distances[first]),
                duplicates=tuple(islice(places, DUPLICATES_MAX)),
                hash=hashes[first].tobytes(),
            )
        )
    return tuple(hits), np.array([c.similarity for c in found[:NEAREST]], np.float32)


def _unit_vectors(found: list[_Candidate]) -> Array:
    """Candidates in the similarity space, (len(found), m) float32."""
    first = found[0].live.block.unit_vectors(np.array([found[0].row]))
    vectors = np.empty((len(found), first.shape[1]), np.float32)
    for block in {id(c.live.block): c.live.block for c in found}.values():
        mine = [i for i, candidate in enumerate(found) if candidate.live.block is block]
        vectors[mine] = block.unit_vectors(np.array([found[i].row for i in mine]))
    return vectors


def _stored_copies(candidate: _Candidate, vector: Array) -> list[str]:
    """Ids of rows that a merge grouped with this one, if they may be shown and their vectors agree."""
    block, allowed = candidate.live.block, candidate.allowed
    rows = block.group_of(candidate.row)
    rows = rows if allowed is None else rows[allowed[rows]]
    if not len(rows):
        return []
    same = block.unit_vectors(rows) @ vector >= SAME_SIMILARITY
    return [id_text(block.ids[row]) for row in rows[same]]
