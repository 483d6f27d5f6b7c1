"""Ask: one question to one snapshot, by a vector, by words or by both."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from visor.index.format.container import Array
from visor.index.format.projection import CodedVectors, query_vector, unit
from visor.index.search.candidates import RERANK, Candidates, Way, best_rows, likeness, nearest_rows
from visor.index.search.fusion import Fusion
from visor.index.search.hits import Cursor, Hit, Order, Sureness, first_of_product, group_hits, heads_of
from visor.index.search.listing import Listing, Page, rows_of
from visor.index.search.metrics import Metric
from visor.index.search.snapshot import LiveBlock, Snapshot
from visor.index.search.worded import TEXT_WEIGHT, TEXT_WEIGHT_ACROSS, Said
from visor.index.words.query import TextQuery
from visor.index.words.text_index import Words

NEAREST = 64
"""Nearest rows that an answer carries for confidence."""
WITHIN, WITHIN_MAX = 1_000, 4_000
"""Nearest rows of each block among which a later page is searched for, at first and at most."""
WIDENINGS = 6
"""Times that a search requests four times as many rows before it gives up on finding k different pictures."""


@dataclass(frozen=True)
class Ask:
    """One question to one snapshot, and how near each row is to it."""

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
        """The least number of nearest rows that are considered."""
        return RERANK if self.fusion else NEAREST

    @property
    def is_mixed(self) -> bool:
        """True if the order is by another number than the cosine."""
        return self.fusion is not None or (self.text is not None and self.vector is not None)

    @cached_property
    def said(self) -> Said:
        """What all rows say of the text."""
        weight = TEXT_WEIGHT if self.fusion is None else TEXT_WEIGHT_ACROSS
        asked = self.text or self.words.query("")
        return Said.of(self.words, asked, len(self.snapshot.blocks), weight)

    def sure(self, sure: Sureness, among: Collection[str], allowed: Sequence[Array | None]) -> list[Array | None]:
        """For each block the allowed rows that are sure enough by what they say, or are among these ids."""
        met = self.said.met(self.words, self.text or self.words.query(""))
        masks: list[Array | None] = []
        for number, (live, mask) in enumerate(zip(self.snapshot.blocks, allowed, strict=True)):
            keep, rows = rows_of(live, among), self.said.rows[number]
            keep[rows] |= sure(live.block.ids[rows], met[number], self.said.most)
            masks.append(keep if mask is None else keep & mask)
        return masks

    def within(self, allowed: Sequence[Array | None], want: int) -> tuple[list[Array], float] | None:
        """For each block its allowed rows among about the `want` nearest, and all rows with any of the words, (n,)
        bool; and a likeness that no other row reaches. None if that cannot be known without comparing all."""
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
            found = self.words.find(asked, want, allowed=allowed)
            return best_rows(self.snapshot, allowed, found.owners, found.rows, found.scores, want)
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
        """BM25 of the hits; None for those with none of the words."""
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

    def first_page(
        self,
        allowed: Sequence[Array | None],
        k: int,
        order: Order,
        leave_out: Collection[str],
        total: int | None,
    ) -> tuple[Page, tuple[Candidates, Array] | None, int | None, int]:
        """The nearest k, found without going through all; the nearest rows with their vectors, how many pass (if
        known), and how many were requested. None for the rows if too many of the nearest are of too few products.
        """
        rest = self.snapshot.rest
        matching = rest + sum(_count(live, mask) for live, mask in zip(self.snapshot.blocks, allowed, strict=True))
        want = k + len(leave_out) + min(k, 20)
        for _ in range(WIDENINGS):
            most = max(want, self.depth + len(leave_out))
            found = self.nearest(allowed, most)
            near = found.without(leave_out)
            vectors = near.unit_vectors() if len(near) else np.empty((0, 0), np.float32)
            hits, is_more = group_hits(
                near.take(slice(want)), vectors[:want], k, leave_out, by_product=order.by_product
            )
            if is_whole := (not rest and len(found) < most) or len(found) >= matching:
                break
            if len(hits) >= k:
                break
            want *= 4
        else:
            if order.by_product:
                return ((), None), None, None, most
        if is_whole and total is None:
            total = len(first_of_product(near.products())) if order.by_product else len(near)
        if self.is_mixed:
            # The cosine is shown and decides about near-duplicates, whatever number the hit was ranked by.
            hits = tuple(replace(hit, similarity=float(vectors[hit.rank] @ self.projected)) for hit in hits)
        is_more |= not (is_whole and len(near) <= want) and (total is None or total > len(hits))
        known = total
        if order.similarity_min is not None:
            near_enough = tuple(hit for hit in hits if hit.similarity >= order.similarity_min)
            is_more &= len(near_enough) == len(hits)
            hits, known = near_enough, None if is_more else len(near_enough)
        cursor = Cursor(self.snapshot.generation, shown=heads_of(hits)) if is_more else None
        return (hits, cursor), (near, vectors), known, most

    def page(
        self, listing: Callable[..., Listing], allowed: Sequence[Array | None], k: int, order: Order
    ) -> tuple[Page, int | None]:
        """A page of a listing, and how many rows the listing holds in all.

        If the nearest rows suffice for the page, no others are listed; then it is not known how many there are, unless
        all others are too unlike.
        """
        cursor, least = order.after or Cursor(self.snapshot.generation), order.similarity_min
        is_near = order.among is None and not order.variety and (order.sort == "likeness" or least is not None)
        want = WITHIN
        while is_near and want <= min(WITHIN_MAX, self.snapshot.images // 4):
            found = self.within(allowed, want)
            if found is None:
                break
            masks, ceiling = found
            only = {id(live): mask for live, mask in zip(self.snapshot.blocks, masks, strict=True)}
            if least is not None and ceiling < least:
                listed = listing(only=lambda live: only[id(live)])  # noqa: B023 - used at once
                return listed.page(k, cursor, order.variety), listed.total
            if order.sort == "likeness" and least is None:
                page = listing(only=lambda live: only[id(live)]).page(k, cursor, 0.0)  # noqa: B023 - used at once
                if page[1] is not None and page[1].last is not None and page[1].last[1] > ceiling:
                    return page, None
            want *= 4
        listed = listing()
        return listed.page(k, cursor, order.variety), listed.total

    def total(
        self,
        allowed: Sequence[Array | None],
        leave_out: Collection[str],
        by_product: bool,
        *,
        is_all: bool,
    ) -> int | None:
        """Rows that may be given, or products; None if an engine has rows whose products are not counted.

        Args:
            is_all: No filter leaves any out.
        """
        if by_product and self.snapshot.rest:
            return None
        left_out = [place for i in leave_out if (place := self.snapshot.find(i)) is not None]
        if by_product and is_all and not left_out:
            return self.snapshot.products
        if by_product:
            given = [
                live.products[~rows_of(live, leave_out) & (True if mask is None else mask)]
                for live, mask in zip(self.snapshot.blocks, allowed, strict=True)
            ]
            return len(first_of_product(np.concatenate(given)))
        masks = {id(live): mask for live, mask in zip(self.snapshot.blocks, allowed, strict=True)}
        counted = sum(_count(live, mask) for live, mask in zip(self.snapshot.blocks, allowed, strict=True))
        hidden = sum((mask := masks[id(live)]) is None or bool(mask[row]) for live, row in left_out)
        return self.snapshot.rest + counted - hidden


def _count(live: LiveBlock, mask: Array | None) -> int:
    return len(live) if mask is None else int(np.count_nonzero(mask))
