"""Search: the nearest pictures in one similarity space, fast or exact, or by a SciPy metric on the full vectors."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from visor.errors import BadRequest, StoreUnavailable
from visor.index.format.container import Array, unit
from visor.index.format.facets import FacetCounts
from visor.index.format.ids import id_text
from visor.index.format.manifest import Manifest
from visor.index.format.projection import EMPTY_SPACE, Space, query_vector
from visor.index.search.candidates import (
    RERANK,
    Candidates,
    Way,
    full_vectors,
    group_duplicates,
    nearest_rows,
    prepare_metric,
    worded_rows,
)
from visor.index.search.fusion import Fusion
from visor.index.search.hits import Hit, Hits, NearestRows
from visor.index.search.metrics import Metric, check_metric
from visor.index.search.reader import IndexReader
from visor.index.search.snapshot import FreshBlock, LiveBlock, Snapshot
from visor.index.search.worded import TEXT_WEIGHT, TEXT_WEIGHT_ACROSS, Said, open_words
from visor.index.words.text_index import Words
from visor.schema.search import FacetsAnswer, Filters
from visor.settings import LANGUAGES
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore

NEAREST = 64
"""Nearest rows that an answer carries for confidence."""
WIDENINGS = 6
"""Times that a search asks for four times as many rows before it gives up on filling k with different pictures."""


class Searcher:
    """Searches one model's index and follows its changes. Thread-safe.

    Args:
        objects, documents: The index's stores.
        model: Fingerprint; shards of other models are not looked at.
        freshness_s: Longest time between two looks for new commits.
        clock: Seconds, never going back.
        languages: What words of fresh items are stemmed in.
    """

    def __init__(
        self,
        objects: ObjectStore,
        documents: DocumentStore,
        *,
        model: str,
        freshness_s: float,
        clock: Callable[[], float] = time.monotonic,
        languages: tuple[str, ...] = LANGUAGES,
    ) -> None:
        self.model, self._languages = model, languages
        self._freshness_s, self._clock = freshness_s, clock
        self._reader = IndexReader(objects, documents, model, clock=clock)
        self._snapshot = Snapshot(EMPTY_SPACE, (), 0)
        self._refreshed_at: float | None = None
        self._lock = threading.Lock()
        self._on_change: list[Callable[[Collection[str] | None], None]] = []
        self._metric: tuple[Snapshot, Metric] | None = None
        self._metric_lock = threading.Lock()
        self._words: tuple[Snapshot, Words] | None = None
        self._words_lock = threading.Lock()
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
                news = self._reader.poll()
            except StoreUnavailable:
                if self._refreshed_at is None:
                    raise
                news = None
            if news is not None:
                self._snapshot = news.snapshot
                for changed in self._on_change:
                    changed(news.changed)
            self._refreshed_at = self._clock()
            return True
        finally:
            self._lock.release()

    def on_change(self, call: Callable[[Collection[str] | None], None]) -> None:
        """Call this after every refresh that found something, with the ids of changed items; None: any may have."""
        self._on_change.append(call)

    def __len__(self) -> int:
        return self._snapshot.images

    @property
    def generation(self) -> int:
        """Generation of the manifest that is searched; 0 before the first merge."""
        return self._snapshot.generation

    def sample(self, limit: int) -> list[str]:
        """At most `limit` ids, spread over the index and its blocks; the same ones as long as the index is the same."""
        lives = self._snapshot.blocks
        rows = [np.flatnonzero(live.alive) if live.alive is not None else np.arange(len(live)) for live in lives]
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
        """The manifest that is searched; None before the first merge."""
        return self._snapshot.manifest

    @property
    def space(self) -> Space:
        return self._snapshot.space

    @property
    def segments(self) -> int:
        """Live segments."""
        return len(self.manifest.segments) if self.manifest else 0

    @property
    def fresh(self) -> int:
        """Items that are in no segment yet."""
        return sum(live.count for live in self._snapshot.blocks if isinstance(live.block, FreshBlock))

    @property
    def notice(self) -> str | None:
        """What part of the index could not be read, if any."""
        return self._snapshot.notice

    def search(
        self,
        vector: Array | None,
        *,
        k: int,
        filters: Filters = Filters(),  # noqa: B008 - a frozen record
        mode: Literal["fast", "exact"] = "fast",
        metric: str | None = None,
        leave_out: Collection[str] = (),
        fusion: Fusion | None = None,
        text: str | None = None,
    ) -> Hits:
        """The k nearest different pictures that pass the filters, as many as there are.

        Args:
            vector: (d,) full vector of the index's model; its length does not matter. None: by `text` alone.
            k: At least 1.
            mode: `fast` or `exact`, two ways through one similarity space.
            metric: A SciPy metric on the full vectors; overrides `mode`.
            leave_out: Ids that are no results.
            fusion: How to compare across the gap, instead of by `vector` alone.
            text: Words that count beside the vector; not with a metric.

        Raises:
            BadRequest: k, the vector, the metric or a filter is not valid.
        """
        if k < 1:
            raise BadRequest(f"k is {k}", valid="k is at least 1", remedy="Ask for one result or more")
        if metric is not None:
            check_metric(metric)
        snapshot = self._snapshot
        way: Way = "metric" if metric is not None else mode
        if not snapshot.images:
            return Hits((), way, metric, snapshot.notice)
        allowed = [live.allowed(filters) for live in snapshot.blocks]
        matching = sum(_count(live, mask) for live, mask in zip(snapshot.blocks, allowed, strict=True))
        words = self._opened_words(snapshot) if text is not None or vector is None else Words(())
        asked = words.query(text or "")
        notice = " ".join(filter(None, (snapshot.notice, words.notice))) or None
        if vector is None:
            by_words = partial(worded_rows, snapshot, partial(words.find, asked))
            hits, _, _, _ = _different(by_words, allowed, k, leave_out, 0, matching)
            worded = (replace(hit, similarity=math.nan, text_score=hit.similarity) for hit in hits)
            return Hits(tuple(worded), way, None, notice, None, asked)
        query = query_vector(vector, snapshot.space.dimension)
        unnormalised = snapshot.space.project_unnormalised(query)
        projected = unit(unnormalised[None])[0]
        prepared = self._prepared(snapshot, metric)
        worth = TEXT_WEIGHT_ACROSS if fusion else TEXT_WEIGHT
        said = Said.of(words, asked, len(allowed), worth) if asked.words else None
        nearest = partial(
            nearest_rows,
            snapshot,
            query,
            projected,
            way=way,
            metric=prepared,
            pool=self._pool,
            fusion=fusion,
        )
        least = RERANK if fusion else NEAREST
        hits, shown, vectors, most = _different(partial(nearest, said=said), allowed, k, leave_out, least, matching)
        if fusion or said:
            # What is shown and judged as a copy is the cosine, whatever brought it to its place.
            hits = tuple(replace(hit, similarity=float(vectors[hit.rank] @ projected)) for hit in hits)
        if said:
            scores = [said.of_rows(said.scores, shown.owners[hit.rank], shown.rows[hit.rank, None])[0] for hit in hits]
            hits = tuple(replace(hit, text_score=float(s) or None) for hit, s in zip(hits, scores, strict=True))
        if filters != Filters() or said:
            # What is known of the query does not depend on which items are asked.
            shown = nearest([live.alive for live in snapshot.blocks], most).without(leave_out)
            vectors = shown.unit_vectors() if len(shown) else vectors
            ranks = {id_text(row): rank for rank, row in enumerate(shown.ids)}
            hits = tuple(replace(hit, rank=ranks.get(hit.id, len(ranks))) for hit in hits)
        rows = shown.take(slice(NEAREST)).block_rows()
        around = NearestRows(snapshot, query, unnormalised, rows, vectors[:NEAREST], shown.similarities)
        return Hits(hits, way, metric, notice, around, asked)

    def facets(self, filters: Filters) -> FacetsAnswer:
        """How often each value occurs among the items that pass the filters."""
        parts = [part for live in self._snapshot.blocks for part in live.counts(filters)]
        return FacetCounts.answer(parts)

    def full_vectors(self) -> Iterator[tuple[Array, Array]]:
        """Full vectors (b, d) float16 of all live items with their ids (b, 16) uint8, some rows at a time."""
        return full_vectors(self._snapshot)

    def vector_of(self, item_id: str) -> Array | None:
        """The full vector (d,) float32 of an indexed item; None if there is no such item."""
        place = _find(self._snapshot, item_id)
        if place is None:
            return None
        live, row = place
        vector: Array = live.block.read_full(row, row + 1)[0].astype(np.float32)
        return vector

    def hashes_of(self, item_id: str) -> Array | None:
        """The perceptual hashes (h,) uint8 of an indexed item; None if there is no such item."""
        place = _find(self._snapshot, item_id)
        return None if place is None else place[0].block.hashes[place[1]]

    def complete(self, text: str, limit: int) -> list[str]:
        """Words of the catalogue that the last word of a text begins, the most frequent first."""
        return self._opened_words(self._snapshot).completions(text, limit)

    def _opened_words(self, snapshot: Snapshot) -> Words:
        """What the snapshot says in words, which is opened once. The last one is kept."""
        with self._words_lock:
            if self._words is None or self._words[0] is not snapshot:
                self._words = snapshot, open_words(snapshot, self._languages)
            return self._words[1]

    def _prepared(self, snapshot: Snapshot, name: str | None) -> Metric | None:
        """The metric, with statistics that are taken once a snapshot. The last one is kept."""
        if name is None:
            return None
        with self._metric_lock:
            if self._metric is None or self._metric[0] is not snapshot or self._metric[1].name != name:
                self._metric = None
                self._metric = snapshot, prepare_metric(snapshot, name)
            return self._metric[1]

    def _is_due(self) -> bool:
        return self._refreshed_at is None or self._clock() - self._refreshed_at >= self._freshness_s


__all__ = ["Hit", "Hits", "Searcher"]


def _different(
    nearest: Callable[[Sequence[Array | None], int], Candidates],
    allowed: Sequence[Array | None],
    k: int,
    leave_out: Collection[str],
    least: int,
    matching: int,
) -> tuple[tuple[Hit, ...], Candidates, Array, int]:
    """The first k different pictures.

    Args:
        nearest: Gives so many of the allowed rows at most, the best first.
        least: Rows to ask for at least.
        matching: Rows that there are.

    Returns:
        The hits; the rows they are from with their vectors; how many were asked for.
    """
    want = k + len(leave_out) + min(k, 20)
    for _ in range(WIDENINGS):
        most = max(want, least + len(leave_out))
        found = nearest(allowed, most)
        shown = found.without(leave_out)
        vectors = shown.unit_vectors() if len(shown) else np.empty((0, 0), np.float32)
        hits = group_duplicates(shown.take(slice(want)), vectors[:want], k, leave_out)
        if len(hits) >= k or len(found) < most or len(found) >= matching:
            break
        want *= 4
    return hits, shown, vectors, most


def _count(live: LiveBlock, mask: Array | None) -> int:
    return len(live) if mask is None else int(np.count_nonzero(mask))


def _find(snapshot: Snapshot, item_id: str) -> tuple[LiveBlock, int] | None:
    try:
        key = np.frombuffer(bytes.fromhex(item_id), np.uint8).reshape(1, 16)
    except ValueError:
        return None
    for live in snapshot.blocks:
        row = int(live.block.index.find(key)[0])
        if row >= 0 and (live.alive is None or live.alive[row]):
            return live, row
    return None
