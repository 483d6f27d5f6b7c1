"""Ask: one question of one snapshot, by a vector, by words or by both."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from visor.index.format.container import Array, unit
from visor.index.format.projection import CodedVectors, query_vector
from visor.index.search.candidates import RERANK, Candidates, Way, likeness, nearest_rows, worded_rows
from visor.index.search.fusion import Fusion
from visor.index.search.hits import Hit
from visor.index.search.listing import Sureness, rows_of
from visor.index.search.metrics import Metric
from visor.index.search.snapshot import LiveBlock, Snapshot
from visor.index.search.worded import TEXT_WEIGHT, TEXT_WEIGHT_ACROSS, Said
from visor.index.words.query import TextQuery
from visor.index.words.text_index import Words

NEAREST = 64
"""Nearest rows that an answer carries for confidence."""


@dataclass(frozen=True)
class Ask:
    """What is asked of one snapshot, and how near to it each row is."""

    snapshot: Snapshot
    vector: Array | None
    """None: words alone."""
    way: Way
    metric: Metric | None
    fusion: Fusion | None
    pool: ThreadPoolExecutor
    words: Words
    text: TextQuery | None

    @cached_property
    def query(self) -> Array:
        assert self.vector is not None
        return query_vector(self.vector, self.snapshot.space.dimension)

    @cached_property
    def unnormalised(self) -> Array:
        return self.snapshot.space.project_unnormalised(self.query)

    @cached_property
    def projected(self) -> Array:
        projected: Array = unit(self.unnormalised[None])[0]
        return projected

    @property
    def depth(self) -> int:
        """Nearest rows that are looked at, at least."""
        return RERANK if self.fusion else NEAREST

    @property
    def is_mixed(self) -> bool:
        """What is ordered by is another number than the cosine."""
        return self.fusion is not None or (self.text is not None and self.vector is not None)

    @cached_property
    def said(self) -> Said:
        """Of all rows that say something."""
        weight = TEXT_WEIGHT if self.fusion is None else TEXT_WEIGHT_ACROSS
        asked = self.text or self.words.query("")
        return Said.of(self.words, asked, len(self.snapshot.blocks), weight)

    def sure(self, sure: Sureness, among: Collection[str], allowed: Sequence[Array | None]) -> list[Array | None]:
        """For each block the rows that are allowed, and are sure enough by what they say or are among these ids."""
        met = self.said.met(self.words, self.text or self.words.query(""))
        masks: list[Array | None] = []
        for number, (live, mask) in enumerate(zip(self.snapshot.blocks, allowed, strict=True)):
            keep, rows = rows_of(live, among), self.said.rows[number]
            keep[rows] |= sure(live.block.ids[rows], met[number], self.said.most)
            masks.append(keep if mask is None else keep & mask)
        return masks

    def within(self, allowed: Sequence[Array | None], want: int) -> tuple[list[Array], float] | None:
        """For each block its allowed rows among about the `want` nearest, with all that say something, (n,) bool; and a
        likeness that no other row reaches. None where that cannot be told without comparing all."""
        if self.vector is None or self.metric is not None or self.fusion is not None:
            return None
        masks, ceiling = [], -math.inf
        for number, (live, mask) in enumerate(zip(self.snapshot.blocks, allowed, strict=True)):
            vectors = live.block.vectors
            if not isinstance(vectors, CodedVectors):
                return None
            rows, bound = vectors.within(self.projected, want, mask)
            masks.append(np.zeros(len(live), bool))
            masks[-1][rows] = True
            if self.text is not None:
                masks[-1][self.said.rows[number]] = True
            ceiling = max(ceiling, bound)
        return masks, ceiling

    def nearest(self, allowed: Sequence[Array | None], want: int) -> Candidates:
        if self.vector is None:
            asked = self.text or self.words.query("")
            return worded_rows(self.snapshot, partial(self.words.find, asked), allowed, want)
        return nearest_rows(
            self.snapshot,
            self.query,
            self.projected,
            allowed,
            want,
            way=self.way,
            metric=self.metric,
            pool=self.pool,
            fusion=self.fusion,
            said=None if self.text is None else self.said,
        )

    def likeness(self, live: LiveBlock, rows: Array) -> Array:
        number = next(number for number, block in enumerate(self.snapshot.blocks) if block is live)
        if self.vector is None:
            return self.said.of_rows(self.said.scores, number, rows)
        near = likeness(self.snapshot, live, rows, self.query, self.projected, self.metric, self.fusion)
        return near if self.text is None else near + self.said.of_rows(self.said.added, number, rows)

    def text_scores(self, hits: Sequence[Hit]) -> list[float | None]:
        """BM25 of the hits; None where nothing is said."""
        if self.vector is None:
            return [hit.similarity for hit in hits]
        places = [self.snapshot.find(hit.id) for hit in hits]
        numbers = {id(live): number for number, live in enumerate(self.snapshot.blocks)}
        return [
            float(self.said.of_rows(self.said.scores, numbers[id(place[0])], np.array([place[1]]))[0]) or None
            if place
            else None
            for place in places
        ]

    def products(self, hits: Sequence[Hit]) -> Array:
        """(len(hits),) uint64 of `FacetColumns`."""
        places = [self.snapshot.find(hit.id) for hit in hits]
        return np.array([place[0].products[place[1]] if place else 0 for place in places], np.uint64)
