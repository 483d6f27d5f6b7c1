"""Search: the nearest pictures in one similarity space, fast or exact, or by a SciPy metric on the full vectors."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import msgspec
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
from visor.index.search.hits import Hits, NearestRows, Order, with_products
from visor.index.search.listing import Listing
from visor.index.search.metrics import Metric, check_metric
from visor.index.search.reader import IndexReader, News
from visor.index.search.snapshot import FreshBlock, Snapshot
from visor.index.search.worded import TEXT_WEIGHT, Said, open_words
from visor.index.words.query import TextQuery
from visor.index.words.text_index import Words
from visor.schema.search import FacetsAnswer, Filters, Notice
from visor.settings import LANGUAGES
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore


class Question(NamedTuple):
    """The arguments of `Searcher.search`."""

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
        model: Fingerprint; shards of other models are ignored.
        freshness_s: Longest time between two polls for new commits.
        clock: Seconds, never going back.
        languages: Languages in which words of fresh items are stemmed.
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
        """Take in new commits, if the last poll is `freshness_s` ago or `force` is set.

        A search keeps what it holds while the store does not answer. Returns whether it polled.

        Raises:
            FormatError: A part without which answers would be wrong cannot be read; the error names it.
            StoreUnavailable: The store did not answer the first poll.
        """
        if not force and not self._is_due():
            return False
        # While one thread polls, the others go on with what there is, unless there is nothing yet.
        if not self._lock.acquire(blocking=force or self._refreshed_at is None):
            return False
        try:
            if not force and not self._is_due():
                return False
            try:
                news = self._reader.poll()
                if news is not None:
                    # Changes that could not be opened before count, too.
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
        """The snapshot that is searched from now on."""
        check_engine(snapshot.manifest, "segments")
        return snapshot

    def on_change(self, call: Callable[[Collection[str] | None], None]) -> None:
        """Call this after every refresh that found changes, with the ids of changed items; None: any may be."""
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
        """Which part of the index could not be read, if any."""
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
            vector: (d,) full vector of the index's model; its length does not matter. None: search by `text` alone, or
                without one list all that passes.
            k: At least 1.
            mode: `fast` or `exact`, two ways through one similarity space.
            metric: A SciPy metric on the full vectors; overrides `mode`.
            leave_out: Ids that must not be results.
            fusion: How to compare across the gap, instead of by `vector` alone.
            text: Words that count together with the vector; not with a metric.
            order: Which of the items that pass are returned, and in which order.
            judged: (d,) What confidence is computed from, if that is not `vector`.

        Raises:
            BadRequest: k, the vector, the metric or a filter is not valid.
        """
        if k < 1:
            raise BadRequest(f"k is {k}", valid="At least 1", remedy="Ask for one result or more")
        if metric is not None:
            check_metric(metric)
        question = Question(vector, k, filters, mode, metric, leave_out, fusion, text, order, judged)
        if order.nearest and order.sort != "likeness":
            first = replace(order, sort="likeness", after=None, variety=0.0)
            near = self._answer(question._replace(k=order.nearest, order=first))
            ids = {item for hit in near.hits for item in (hit.id, *hit.duplicates, *hit.product)}
            # They pass what `sure` asks for.
            question = question._replace(order=replace(order, among=ids, sure=None))
        return self._answer(question)

    def _answer(self, question: Question) -> Hits:
        return self._answer_from(self._snapshot, question)

    def _answer_from(self, snapshot: Snapshot, question: Question) -> Hits:
        vector, k, filters, mode, metric, leave_out, fusion, text, order, judged = question
        way: Way = "metric" if metric is not None else mode
        if not snapshot.images:
            return Hits((), way, metric, snapshot.notices)
        is_worded = text is not None or vector is None
        words = self._opened_words(snapshot) if is_worded else Words(())
        asked = words.query(text) if text else TextQuery((), ())
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
        notices = *snapshot.notices, *(words.notices if is_worded else ()), *_notices(snapshot, filters, order)
        nearest: tuple[Candidates, Array] | None = None
        total: int | None = None
        most = ask.depth + len(leave_out)
        is_everything = vector is None and text is None
        if order.is_plain and not is_everything and not (ask.is_mixed and order.similarity_min is not None):
            if vector is not None:
                total = ask.total(allowed, leave_out, order.by_product, is_all=is_all)
            page, nearest, total, most = ask.first_page(allowed, k, order, leave_out, total)
        is_listed, say_as_much = nearest is None, int(text is None)
        if nearest is None:
            if vector is None and not is_everything:
                listing.keywords["allowed"] = ask.said.masks(snapshot.blocks, allowed)
            way = "exact" if way == "fast" else way
            page, total = ask.page(listing, allowed, k, order)
            if total is not None and snapshot.rest:
                is_known = order.among is None and order.similarity_min is None and not order.by_product
                total = total + snapshot.rest if is_known else None
            elif total is None:
                total = ask.total(allowed, leave_out, order.by_product, is_all=is_all)
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
            return Hits(hits, way, metric, notices, None, asked, cursor, is_listed, total)
        if nearest is None or is_listed or not is_all or judged is not None or ask.text is not None:
            # The facts about the query do not depend on which items are searched.
            ask = replace(ask, vector=vector if judged is None else judged, text=None)
            shown = ask.nearest([live.alive for live in snapshot.blocks], most).without(leave_out)
            nearest = shown, shown.unit_vectors() if len(shown) else np.empty((0, len(ask.projected)), np.float32)
            ranks = {id_text(row): rank for rank, row in enumerate(shown.ids)}
            hits = tuple(replace(hit, rank=ranks.get(hit.id, len(ranks))) for hit in hits)
        shown, vectors = nearest
        rows = shown.take(slice(NEAREST)).block_rows()
        around = NearestRows(snapshot, ask.query, ask.unnormalised, rows, vectors[:NEAREST], shown.similarities)
        return Hits(hits, way, metric, notices, around, asked, cursor, is_listed, total, say_as_much)

    def facets(self, filters: Filters, text: str | None = None) -> FacetsAnswer:
        """How often each value occurs among the items that pass the filters and have words of the text."""
        snapshot = self._snapshot
        masks = [live.allowed(filters, snapshot.types) for live in snapshot.blocks]
        if text is not None and (asked := (words := self._opened_words(snapshot)).query(text)).words:
            masks = Said.of(words, asked, len(masks), TEXT_WEIGHT).masks(snapshot.blocks, masks)
        lives = zip(snapshot.blocks, masks, strict=True)
        return FacetCounts.answer([part for live, mask in lives for part in live.counts(mask, snapshot.types)])

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
        """Words of the catalogue that begin with the last word of a text, the most frequent first."""
        return self._opened_words(self._snapshot).completions(text, limit)

    def _opened_words(self, snapshot: Snapshot) -> Words:
        """The snapshot's words, opened once. The last one is kept."""
        with self._words_lock:
            if self._words is None or self._words[0] is not snapshot:
                self._words = snapshot, open_words(snapshot, self._languages)
            return self._words[1]

    def _prepared(self, snapshot: Snapshot, name: str | None) -> Metric | None:
        """The metric, with statistics that are computed once per snapshot. The last one is kept."""
        if name is None:
            return None
        with self._metric_lock:
            if self._metric is None or self._metric[0] is not snapshot or self._metric[1].name != name:
                self._metric = None
                self._metric = snapshot, prepare_metric(snapshot, name)
            return self._metric[1]

    def _is_due(self) -> bool:
        return self._refreshed_at is None or self._clock() - self._refreshed_at >= self._freshness_s


def _notices(snapshot: Snapshot, filters: Filters, order: Order) -> Iterator[Notice]:
    """Notices for searches that filter by an attribute which older items lack, compare prices of several currencies, or
    continue in a new generation."""
    if order.after is not None and order.after.generation != snapshot.generation:
        text = "The index was merged since the previous page: a match between the two may be missing or appear twice."
        yield Notice(code="merged", text=text)
    for name in filters.attributes:
        known = snapshot.declared.get((name, snapshot.types[name])) if name in snapshot.types else None
        if known is not None and known < snapshot.images:
            text = (
                f"{name} is known of {known} of {snapshot.images} items: the others were indexed before it was "
                "declared, and say nothing until they are crawled or pushed again."
            )
            values: dict[str, str | int] = {"name": name, "known": known, "images": snapshot.images}
            yield Notice(code="attribute_partly_known", text=text, values=values)
    if order.sort in ("price_up", "price_down") or _bounds_price(filters):
        others = {name: condition for name, condition in filters.attributes.items() if name != "price"}
        among = msgspec.structs.replace(filters, price=None, attributes=others)
        lives = (snapshot.catalogue or snapshot).blocks
        found = set[str]().union(*(live.currencies(live.allowed(among, snapshot.types)) for live in lives))
        if len(found) > 1:
            currencies = ", ".join(sorted(found))
            text = f"Prices in {currencies} are compared as bare numbers: filter by one currency."
            yield Notice(code="currencies", text=text, values={"currencies": currencies})


def _bounds_price(filters: Filters) -> bool:
    bounds = filters.price, filters.attributes.get("price")
    return any(one is not None and (one.min is not None or one.max is not None) for one in bounds)
