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
from typing import Literal, NamedTuple

import numpy as np

from visor.errors import BadRequest, StoreUnavailable
from visor.index.format.container import Array
from visor.index.format.ids import id_text
from visor.index.format.manifest import Manifest, check_engine
from visor.index.format.projection import EMPTY_SPACE, Space
from visor.index.search.ask import NEAREST, Ask
from visor.index.search.candidates import (
    Candidates,
    Way,
    full_vectors,
    prepare_metric,
)
from visor.index.search.facet_counts import FacetCounts
from visor.index.search.fusion import Fusion
from visor.index.search.grouping import first_of_product, group_hits, with_products
from visor.index.search.hits import Cursor, Hit, Hits, NearestRows
from visor.index.search.listing import Listing, Order, Page, heads_of
from visor.index.search.metrics import Metric, check_metric
from visor.index.search.reader import IndexReader, News
from visor.index.search.snapshot import FreshBlock, LiveBlock, Snapshot
from visor.index.search.worded import open_words
from visor.index.words.text_index import Words
from visor.schema.search import FacetsAnswer, Filters
from visor.settings import LANGUAGES
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore

WITHIN, WITHIN_MAX = 1_000, 4_000
"""Nearest rows of each block among which a later page is looked for, at first and at most."""
WIDENINGS = 6
"""Times that a search asks for four times as many rows before it gives up on filling k with different pictures."""


class Question(NamedTuple):
    """What `Searcher.search` is asked."""

    vector: Array | None
    k: int
    filters: Filters
    mode: Literal["fast", "exact"]
    metric: str | None
    leave_out: Collection[str]
    fusion: Fusion | None
    text: str | None
    order: Order
    judged: Array | None


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
        self._news: News | None = None
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
                if news is not None:
                    # What could not be opened before changed, too.
                    self._news = news if self._news is None else News(news.snapshot, None)
                if self._news is not None:
                    self._snapshot = self._opened(self._news.snapshot)
                    news, self._news = self._news, None
                    for changed in self._on_change:
                        changed(news.changed)
            except StoreUnavailable:
                if self._refreshed_at is None:
                    raise
            self._refreshed_at = self._clock()
            return True
        finally:
            self._lock.release()

    def _opened(self, snapshot: Snapshot) -> Snapshot:
        """What is searched from now on."""
        check_engine(snapshot.manifest, "segments")
        return snapshot

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
        order: Order = Order(),  # noqa: B008 - a frozen record
        judged: Array | None = None,
    ) -> Hits:
        """The k nearest different pictures that pass the filters, as many as there are; or the next k of a listing.

        Args:
            vector: (d,) full vector of the index's model; its length does not matter. None: by `text` alone, or
                without one all that passes.
            k: At least 1.
            mode: `fast` or `exact`, two ways through one similarity space.
            metric: A SciPy metric on the full vectors; overrides `mode`.
            leave_out: Ids that are no results.
            fusion: How to compare across the gap, instead of by `vector` alone.
            text: Words that count beside the vector; not with a metric.
            order: What is given of all that passes, and in which order.
            judged: (d,) What confidence is computed of, if that is not `vector`.

        Raises:
            BadRequest: k, the vector, the metric or a filter is not valid.
        """
        if k < 1:
            raise BadRequest(f"k is {k}", valid="k is at least 1", remedy="Ask for one result or more")
        if metric is not None:
            check_metric(metric)
        question = Question(vector, k, filters, mode, metric, leave_out, fusion, text, order, judged)
        return self._answer(question)

    def _answer(self, question: Question) -> Hits:
        return self._answer_from(self._snapshot, question)

    def _answer_from(self, snapshot: Snapshot, question: Question) -> Hits:
        vector, k, filters, mode, metric, leave_out, fusion, text, order, judged = question
        way: Way = "metric" if metric is not None else mode
        if not snapshot.images:
            return Hits((), way, metric, snapshot.notice)
        words = self._opened_words(snapshot) if text is not None or vector is None else Words(())
        asked = words.query(text or "")
        said = asked if asked.words else None
        ask = Ask(snapshot, vector, way, self._prepared(snapshot, metric), fusion, self._pool, words, said)
        allowed = [live.allowed(filters, snapshot.types) for live in snapshot.blocks]
        is_all = filters == Filters() and order.sure is None
        if order.sure is not None:
            allowed = ask.sure(order.sure, order.among or (), allowed)
            order = replace(order, among=None)
        order = order if snapshot.has_products else replace(order, by_product=False)
        listing = partial(
            Listing.of,
            snapshot.blocks,
            allowed=allowed,
            order=order,
            likeness=ask.likeness,
            cosine=replace(ask, metric=None, fusion=None, text=None).likeness if ask.is_mixed else None,
            leave_out=leave_out,
        )
        notice = " ".join(filter(None, (snapshot.notice, words.notice, *_notices(snapshot, filters, order)))) or None
        nearest: tuple[Candidates, Array] | None = None
        total: int | None = None
        most = ask.depth + len(leave_out)
        is_everything = vector is None and text is None
        if order.is_plain and not is_everything and not (ask.is_mixed and order.similarity_min is not None):
            if vector is not None:
                total = _total(snapshot, allowed, leave_out, order.by_product, is_all=is_all)
            page, nearest, total, most = self._first_page(ask, allowed, k, order, leave_out, total)
        is_listed, say_as_much = nearest is None, 1
        if nearest is None:
            if vector is None and not is_everything:
                listing.keywords["allowed"] = ask.said.masks(snapshot.blocks, allowed)
            way = "exact" if way == "fast" else way
            page, total = _page(ask, listing, allowed, k, order)
            if total is not None and snapshot.rest:
                is_known = order.among is None and order.similarity_min is None and not order.by_product
                total = total + snapshot.rest if is_known else None
            elif total is None:
                total = _total(snapshot, allowed, leave_out, order.by_product, is_all=is_all)
        hits, cursor = page
        if order.by_product:
            products = ask.products(hits)
            wanted = np.unique(products[products > 0])
            hits = with_products(hits, products, listing(only=lambda live: np.isin(live.products, wanted)).in_order)
        if ask.text is not None:
            if vector is not None:
                say_as_much = ask.said.most
            hits = tuple(replace(hit, text_score=score) for hit, score in zip(hits, ask.text_scores(hits), strict=True))
        if vector is None:
            hits = tuple(replace(hit, similarity=math.nan) for hit in hits)
            return Hits(hits, way, metric, notice, None, asked, cursor, is_listed, total)
        if nearest is None or is_listed or not is_all or judged is not None or ask.text is not None:
            # What is known of the query does not depend on which items are asked.
            ask = replace(ask, vector=vector if judged is None else judged, text=None)
            shown = ask.nearest([live.alive for live in snapshot.blocks], most).without(leave_out)
            nearest = shown, shown.unit_vectors() if len(shown) else np.empty((0, len(ask.projected)), np.float32)
            ranks = {id_text(row): rank for rank, row in enumerate(shown.ids)}
            hits = tuple(replace(hit, rank=ranks.get(hit.id, len(ranks))) for hit in hits)
        shown, vectors = nearest
        rows = shown.take(slice(NEAREST)).block_rows()
        around = NearestRows(snapshot, ask.query, ask.unnormalised, rows, vectors[:NEAREST], shown.similarities)
        return Hits(hits, way, metric, notice, around, asked, cursor, is_listed, total, say_as_much)

    def _first_page(
        self,
        ask: Ask,
        allowed: Sequence[Array | None],
        k: int,
        order: Order,
        leave_out: Collection[str],
        total: int | None,
    ) -> tuple[Page, tuple[Candidates, Array] | None, int | None, int]:
        """The nearest k, found without going through all; the nearest rows with their vectors, how many pass where that
        is known, and how many were asked for. None for the rows where too many of the nearest are of too few products.
        """
        rest = ask.snapshot.rest
        matching = rest + sum(_count(live, mask) for live, mask in zip(ask.snapshot.blocks, allowed, strict=True))
        want = k + len(leave_out) + min(k, 20)
        for _ in range(WIDENINGS):
            most = max(want, ask.depth + len(leave_out))
            found = ask.nearest(allowed, most)
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
        if ask.is_mixed:
            # What is shown and judged as a copy is the cosine, whatever brought it to its place.
            hits = tuple(replace(hit, similarity=float(vectors[hit.rank] @ ask.projected)) for hit in hits)
        is_more |= not (is_whole and len(near) <= want) and (total is None or total > len(hits))
        known = total
        if order.similarity_min is not None:
            near_enough = tuple(hit for hit in hits if hit.similarity >= order.similarity_min)
            is_more &= len(near_enough) == len(hits)
            hits, known = near_enough, None if is_more else len(near_enough)
        cursor = Cursor(ask.snapshot.generation, shown=heads_of(hits)) if is_more else None
        return (hits, cursor), (near, vectors), known, most

    def facets(self, filters: Filters) -> FacetsAnswer:
        """How often each value occurs among the items that pass the filters."""
        snapshot = self._snapshot
        return FacetCounts.answer([part for live in snapshot.blocks for part in live.counts(filters, snapshot.types)])

    def full_vectors(self) -> Iterator[tuple[Array, Array]]:
        """Full vectors (b, d) float16 of all live items with their ids (b, 16) uint8, some rows at a time."""
        return full_vectors(self._snapshot)

    def vector_of(self, item_id: str) -> Array | None:
        """The full vector (d,) float32 of an indexed item; None if there is no such item."""
        place = self._snapshot.find(item_id)
        if place is None:
            return None
        live, row = place
        vector: Array = live.block.read_full(row, row + 1)[0].astype(np.float32)
        return vector

    def hashes_of(self, item_id: str) -> Array | None:
        """The perceptual hashes (h,) uint8 of an indexed item; None if there is no such item."""
        place = self._snapshot.find(item_id)
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


def _page(
    ask: Ask, listing: Callable[..., Listing], allowed: Sequence[Array | None], k: int, order: Order
) -> tuple[Page, int | None]:
    """A page of a listing, and how many it holds in all. Where it can only be made of the nearest rows, no others are
    listed; then it is not known how many there are, unless all others are too unlike."""
    cursor, least = order.after or Cursor(ask.snapshot.generation), order.similarity_min
    is_near = order.among is None and not order.variety and (order.sort == "likeness" or least is not None)
    want = WITHIN
    while is_near and want <= min(WITHIN_MAX, ask.snapshot.images // 4):
        found = ask.within(allowed, want)
        if found is None:
            break
        masks, ceiling = found
        only = {id(live): mask for live, mask in zip(ask.snapshot.blocks, masks, strict=True)}
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


def _notices(snapshot: Snapshot, filters: Filters, order: Order) -> Iterator[str]:
    """What somebody has to know who filters by what older items do not say, or goes on in a new generation."""
    if order.after is not None and order.after.generation != snapshot.generation:
        yield "The index was merged since the page before: a match at the seam may be missing or come twice."
    for name in filters.attributes:
        known = snapshot.declared.get((name, snapshot.types[name])) if name in snapshot.types else None
        if known is not None and known < snapshot.images:
            yield (
                f"{name} is known of {known} of {snapshot.images} items: the others were indexed before it was "
                "declared, and say nothing until they are crawled or pushed again."
            )


def _total(
    snapshot: Snapshot,
    allowed: Sequence[Array | None],
    leave_out: Collection[str],
    by_product: bool,
    *,
    is_all: bool,
) -> int | None:
    """Rows that may be given, or products; None where an engine has rows whose products nobody counted. `is_all`: no
    filter leaves any out."""
    if by_product and snapshot.rest:
        return None
    left_out = [place for i in leave_out if (place := snapshot.find(i)) is not None]
    if by_product and is_all and not left_out:
        return snapshot.products
    if by_product:
        products = np.concatenate(
            [
                live.products if mask is None else live.products[mask]
                for live, mask in zip(snapshot.blocks, allowed, strict=True)
            ]
        )
        return len(first_of_product(products))
    masks = {id(live): mask for live, mask in zip(snapshot.blocks, allowed, strict=True)}
    counted = sum(_count(live, mask) for live, mask in zip(snapshot.blocks, allowed, strict=True))
    return snapshot.rest + counted - sum((mask := masks[id(live)]) is None or bool(mask[row]) for live, row in left_out)


def _count(live: LiveBlock, mask: Array | None) -> int:
    return len(live) if mask is None else int(np.count_nonzero(mask))
