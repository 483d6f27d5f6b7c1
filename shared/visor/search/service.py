"""Search: from a request to the nearest items, and how sure the answer is."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import msgspec
import numpy as np
from PIL import Image

from visor.confidence.across import Across
from visor.confidence.model import ConfidenceEstimator, Judgement
from visor.confidence.words import words_confidence
from visor.errors import BadRequest
from visor.free_tier.quota import Meter, Strangers, note_work, request_usage
from visor.http.client import Fetcher
from visor.index.format.ids import id_text
from visor.index.format.projection import Projection, unit
from visor.index.search.hits import Hit, Hits, NearestRows, Order
from visor.index.search.searcher import Searcher
from visor.index.search.snapshot import text_of
from visor.index.words.query import Met
from visor.models.embedder import Embedder, is_made_by
from visor.near_duplicates.thresholds import COPY_CONFIDENCE
from visor.near_duplicates.verdict import Verdict, classify_matches
from visor.schema.collections import ITEMS
from visor.schema.items import ITEM_ID, FacetRow, IndexedItem, Item, Safety, said_of
from visor.schema.search import (
    GUESS_FROM,
    PICTURES,
    FacetsAnswer,
    FeedbackRequest,
    Filters,
    Guess,
    Highlight,
    IndexAnswer,
    Match,
    Notice,
    SafetyAnswer,
    SearchAnswer,
    SearchRequest,
    Sort,
)
from visor.search.cursor import read_cursor, write_cursor
from visor.search.feedback import Feedback, FeedbackLog, query_key
from visor.search.item_cache import ItemCache, offer_of, offer_sort_key, unknown_item, web_address
from visor.search.query import Query, QueryReader, Stopwatch, combined, query_answer
from visor.search.recall_monitor import RecallMonitor
from visor.search.visitors import VisitorLog
from visor.settings import Settings
from visor.storage.documents import DocumentStore
from visor.telemetry.traces import span

ROUNDED = 5e-7
"""What rounding to the digits of an answer adds to a similarity at most: a match that is shown with the least one asked
for is not left out."""
DOCUMENTS_LOST = Notice(
    code="items_lost",
    text="Similar pictures are indexed, but the documents of their items are lost. `visor check` says what to do.",
)


class SearchService:
    """Answers searches. Thread-safe; one per process."""

    def __init__(
        self,
        *,
        searcher: Searcher,
        embedder: Embedder,
        fetcher: Fetcher,
        documents: DocumentStore,
        settings: Settings,
        picture_address: Callable[[IndexedItem], str] | None = None,
        meter: Meter,
    ) -> None:
        """`picture_address` replaces URLs that a browser cannot open (files of a local folder). `meter` limits how much
        visitors may write."""
        self.searcher, self.embedder = searcher, embedder
        self.documents, self.settings = documents, settings
        self.items = ItemCache(documents)
        searcher.on_change(self.items.invalidate)
        self.picture_address = picture_address or web_address
        self.meter = meter
        self.confidence = ConfidenceEstimator()
        self.feedback = FeedbackLog(documents, freshness_s=settings.freshness_s)
        self.recall_monitor = RecallMonitor(searcher)
        self.queries = QueryReader(embedder, fetcher, settings)
        self.visitors = VisitorLog(documents, embedder.fingerprint, on_write=lambda: self._book("learn"))

    def search(self, request: SearchRequest, upload: bytes | None = None, *, client: str | None = None) -> SearchAnswer:
        """The nearest items to what `request` searches for.

        Args:
            upload: The picture itself, if it came next to the request.
            client: Who sends it, to limit what one client may teach; None: the owner.

        Raises:
            BadRequest: Not exactly one thing to search for, or one that is not valid.
            UnknownItem: The item to start from is not in the index.
            ImageError: The picture cannot be fetched or decoded.
        """
        watch = Stopwatch()
        note_work("searches")
        with watch.stage("total"):
            self.refresh()
            across = self.confidence.across(self.searcher.manifest) if request.metric is None else None
            with span("look"):
                query = self._query(request, upload, watch, across)
            across = across if query.is_across else None
            if query.safety is not None and query.safety.unsafe:
                hits = Hits((), "metric" if request.metric else request.mode, request.metric)
            else:
                with watch.stage("scan"):
                    hits = self._scan(request, query, self._hidden(query).union(request.leave_out), across)
            with watch.stage("confidence"):
                judgement = self._judge(request, query, hits, across)
            with watch.stage("items"):
                known = self._matches(query, hits, judgement.matches, request.sort)
                sure = (match for match in known if match.confidence >= request.min_confidence)
                matches = tuple(islice(sure, request.k))
            self._learn(request, query, matches, judgement.score, client)
            text = None if len(query.vector) else request.text
            facets = self._facets(request.filters, text) if request.facets else None
        notices = (*hits.notices, *self._unsaid(request, hits))
        # A part that was not read may hold their deletions.
        is_read = all(notice.code != "index_partly_read" for notice in hits.notices)
        if hits.hits and not known and is_read and self._is_lost(hits):
            notices = (DOCUMENTS_LOST, *notices)
        # Nearest matches with nothing to compare have none, nor has the answer. Other pages do not show the nearest.
        is_nearest = request.sort == "likeness" and request.after is None
        surest = max((match.confidence for match in matches), default=0.0)
        held = max(judgement.held, surest) if surest > 0 or not is_nearest else 0.0
        confidence = round(held, 4)
        return SearchAnswer(
            matches=matches,
            confidence=confidence,
            no_confident_match=held < judgement.confident,
            mode=hits.mode,
            metric=hits.metric,
            guess=_guess(matches, confidence) if is_nearest else None,
            labels=query.labels,
            safety=_safety_answer(query.safety),
            query=query_answer(
                query, with_handle=request.remember or request.handle is not None, with_vector=request.link
            ),
            index=self.index_answer(),
            facets=facets,
            next=write_cursor(hits.next, request, query.vector),
            total=hits.total,
            regions=(query.regions or ()) if request.regions else (),
            timing_ms=watch.timing_ms,
            notice=text_of(notices),
            notices=notices,
        )

    def _is_lost(self, hits: Hits) -> bool:
        """Whether none of these items is known to be deleted, which the index may not know yet."""
        found = self.documents.get(ITEMS, [hit.id for hit in hits.hits]).values()
        return not any(document.data.get("gone") for document in found)

    def _unsaid(self, request: SearchRequest, hits: Hits) -> Iterator[Notice]:
        """A notice that words with a picture made no difference, if that is so."""
        if request.text is None or hits.nearest is None:
            return
        if not hits.say_as_much and not self.embedder.description.reads_words:
            text = f"No match contains {request.text!r:.80}: only the picture counted."
            yield Notice(code="only_picture", text=text, values={"text": request.text})

    def refresh(self) -> None:
        """Take in new commits, if a poll is due. Raises as `Searcher.refresh`."""
        with request_usage(None):
            self.searcher.refresh()

    def facets(self, filters: Filters, text: str | None = None) -> FacetsAnswer:
        """Counts over the items that pass the filters; with words alone, over those that contain any of them."""
        self.refresh()
        return self._facets(filters, text)

    def _facets(self, filters: Filters, text: str | None) -> FacetsAnswer:
        # To a model that reads words, every picture is more or less like them.
        return self.searcher.facets(filters, None if self.embedder.description.reads_words else text)

    def item(self, item: str) -> IndexedItem:
        """One searchable item.

        Raises:
            UnknownItem: There is none with that id.
        """
        self.refresh()
        return self._shown(self.found(item))

    def sample(self, limit: int) -> list[IndexedItem]:
        """Some items, spread over the index, the same ones as long as the index is the same."""
        self.refresh()
        ids = self.searcher.sample(limit)
        found = self.items.get(ids)
        return [self._shown(found[i]) for i in ids if i in found]

    def index_answer(self) -> IndexAnswer:
        return IndexAnswer(
            images=len(self.searcher), generation=self.searcher.generation, model=self.embedder.fingerprint
        )

    def keep_feedback(self, request: FeedbackRequest, *, by_owner: bool = True) -> None:
        """Record that an item is not a match for a query, or that a query that was held back is harmless.

        Args:
            by_owner: It counts for all at once; otherwise it waits in the owner's inbox.

        Raises:
            QuotaReached: Visitors have sent as much today as they may.
            BadRequest: Not exactly one query, or one that is not valid; an item with
                `harmless`, or none with `not_a_match`.
            UnknownItem: One of the items is not in the index.
            StoreUnavailable: It could not be kept; send it again.
        """
        self.refresh()
        if (request.query_item is None) == (request.query_vector is None):
            raise BadRequest(
                "The feedback names " + ("no query" if request.query_item is None else "two queries"),
                valid="Exactly one of query_item and query_vector",
                remedy="Send what the answer's query has",
            )
        if (request.item is None) != (request.verdict == "harmless"):
            raise BadRequest(
                f"The feedback says {request.verdict} of " + ("no item" if request.item is None else "an item"),
                valid="not_a_match with an item, or harmless without one",
                remedy="Name the item, or leave it out",
            )
        if request.item is not None:
            self.found(request.item)
        asked = SearchRequest(item=request.query_item, vector=request.query_vector, k=1)
        across = self.confidence.across(self.searcher.manifest)
        query = self._query(asked, None, Stopwatch(), across)
        key = query_key(query.vector, query.item)
        if request.item is None:
            self._keep(Feedback(query=key, verdict=request.verdict), by_owner)
            return
        hits = self._scan(asked, query, self.feedback.hidden(key), across if query.is_across else None)
        is_first = bool(hits.hits) and request.item in (hits.hits[0].id, *hits.hits[0].duplicates)
        numbers = self.confidence.features(hits) if is_first and not query.is_across else ()
        self._keep(Feedback(query=key, item=request.item, verdict=request.verdict, features=numbers), by_owner)

    def _keep(self, feedback: Feedback, by_owner: bool) -> None:
        if not by_owner:
            self._book("feedback")
        self.feedback.add(feedback, by_owner=by_owner)

    def _book(self, kind: Strangers) -> None:
        """Count one document of visitors. Raises `QuotaReached` if it is one too many today."""
        self.meter.allow(kind)
        self.meter.use({}, {kind: 1})

    def found(self, item: str) -> IndexedItem:
        """One searchable item as it was indexed. Raises as `item`."""
        indexed = self.items.get([item]).get(item) if ITEM_ID.match(item) else None
        if indexed is None:
            raise unknown_item(item)
        return indexed

    def query_picture(
        self, request: SearchRequest, upload: bytes | None, picture_of: Callable[[Item], Image.Image]
    ) -> Image.Image:
        """The picture that a request searches for.

        Raises:
            BadRequest: It searches for none.
            ImageError: It cannot be obtained or decoded.
        """
        self.queries.check(request, upload)
        if request.item is not None:
            return picture_of(self.found(request.item).item)
        return self.queries.picture(request, upload)

    @property
    def learned_from(self) -> int:
        """Visitors' photos that the index generation knows of."""
        across = self.confidence.calibration(self.searcher.manifest).across
        return round(across.photos) if across is not None else 0

    def common_vector(self) -> np.ndarray | None:
        """The mean full vector (d,) of the catalogue, if the calibration knows it."""
        return self.confidence.common_vector(self.searcher.manifest)

    def _query(self, request: SearchRequest, upload: bytes | None, watch: Stopwatch, across: Across | None) -> Query:
        """The query, with a closer view if it is on the visitors' side of a gap."""
        self.queries.check(request, upload, words_alone=True)
        if request.examples:
            return self._combined_query(request, upload, watch, across)
        if request.item is not None:
            return self._item_query(request.item)
        if upload is None and not any(getattr(request, name) is not None for name in PICTURES):
            return Query(vector=np.empty(0, np.float32))
        query = self.queries.query(request, upload, watch, closer=across is not None, mean=self.common_vector())
        closer = query.closer or query
        if across is None or query.blank or closer.look is None or not across.is_visitor(closer.vector):
            return query
        return replace(query, vector=closer.vector, look=closer.look, is_across=True)

    def _combined_query(
        self, request: SearchRequest, upload: bytes | None, watch: Stopwatch, across: Across | None
    ) -> Query:
        """The query of several pictures; that of the first unsafe one, if there is any."""
        asked: list[tuple[SearchRequest, bytes | None, float]] = [
            (SearchRequest(**{name: getattr(e, name) for name in (*PICTURES, "box")}), None, e.weight)
            for e in request.examples
        ]
        if upload is not None or any(getattr(request, name) is not None for name in PICTURES):
            asked.insert(0, (msgspec.structs.replace(request, examples=()), upload, 1.0))
        is_one = sum(weight != 0 for _, _, weight in asked) == 1
        # Several are compared by the catalogue's own look: what is known of the gap comes from single photos.
        read = [(self._query(a, u, watch, across if is_one else None), weight) for a, u, weight in asked]
        if unsafe := [query for query, _ in read if query.safety is not None and query.safety.unsafe]:
            return unsafe[0]
        shown = [(query, weight) for query, weight in read if query.blank is None and weight]
        if not shown:
            return read[0][0]
        if len(shown) == 1 and shown[0][1] > 0:
            return shown[0][0]
        return combined(shown, self._origin())

    def _origin(self) -> np.ndarray:
        """(d,) float32: what all pictures of the catalogue have in common, as far as the index knows."""
        space = self.searcher.space
        origin = space.origin if isinstance(space, Projection) else self.common_vector()
        return np.zeros(self.embedder.dimension, np.float32) if origin is None else origin

    def _worded(self, request: SearchRequest, query: Query) -> np.ndarray:
        """(d,) the vector to search near: the query, drawn towards pictures of the text if the model reads words; (0,)
        if there is none."""
        if request.text is None or request.metric is not None or not self.embedder.description.reads_words:
            return query.vector
        origin = self._origin()
        wish = origin + self.embedder.embed_wish(request.text)
        return combined([(query, 1.0), (Query(wish), 1.0)], origin).vector if len(query.vector) else wish

    def _item_query(self, item: str) -> Query:
        vector = self.searcher.vector_of(item) if ITEM_ID.match(item) else None
        if vector is None:
            raise unknown_item(item)
        indexed = self.items.get([item]).get(item)
        labels = indexed.labels if indexed else ()
        blank = indexed.blank if indexed else None
        return Query(vector=vector, hashes=self.searcher.hashes_of(item), labels=labels, item=item, blank=blank)

    def _hidden(self, query: Query) -> frozenset[str]:
        """Items that were called no match for this query."""
        if not len(query.vector):
            return frozenset()
        with request_usage(None):
            return self.feedback.hidden(query_key(query.vector, query.item))

    def _scan(self, request: SearchRequest, query: Query, hidden: frozenset[str], across: Across | None) -> Hits:
        fusion = None
        if across is not None and query.traits is not None:
            fusion = across.fusion(query.traits, self.searcher.space, self.embedder.label_words)
        vector = query.vector if fusion is not None else self._worded(request, query)
        judged = query.judged
        if judged is None and len(query.vector) > 0 and vector is not query.vector:
            judged = query.vector
        search = partial(
            self.searcher.search,
            vector if len(vector) else None,
            mode=request.mode,
            metric=request.metric,
            leave_out=hidden | query.items | ({query.item} if query.item is not None else set()),
            fusion=fusion,
            text=request.text,
            judged=judged,
        )
        order = Order(
            sort=request.sort,
            nearest=min(request.nearest, self.settings.k_max),
            after=read_cursor(request, query.vector, self.searcher.generation),
            # Another order would be lost.
            variety=request.variety if request.sort == "likeness" else 0.0,
            by_product=request.group,
            similarity_min=None if request.min_similarity is None else request.min_similarity - ROUNDED,
        )
        least, pictured = request.min_confidence, dict[str, float]()
        if len(query.vector) and (least > 0 or request.sort == "most_changed"):
            near = hits_of(search(k=1).nearest, request.metric)
            sure = self.confidence.judge(near, [label.name for label in query.labels], across).matches
            verdicts = _verdicts(query, near)
            sure = [round(max(one, COPY_CONFIDENCE[verdict]), 4) for one, verdict in zip(sure, verdicts, strict=True)]
            pictured = {hit.id: one for hit, one in zip(near.hits, sure, strict=True)}
            # All items after the nearest are as sure as the last of these.
            is_all = bool(sure) and sure[-1] >= least
            among = None if is_all else [item for item, one in pictured.items() if one >= least]
            copies = {h.id: h.similarity for h, v in zip(near.hits, verdicts, strict=True) if v != "similar"}
            order = replace(order, among=among, copies=copies)
        if request.text and least > 0 and (order.among is not None or not len(query.vector)):
            order = replace(order, sure=partial(_sure, least, pictured if len(query.vector) else None))
        hits = search(k=min(request.k, self.settings.k_max), filters=request.filters, order=order)
        return hits if len(query.vector) else without_likeness(hits)

    def complete(self, text: str, limit: int) -> list[str]:
        """Words of the catalogue that begin with the last word of a text, the most frequent first."""
        self.refresh()
        return self.searcher.complete(text, limit)

    def _judge(self, request: SearchRequest, query: Query, hits: Hits, across: Across | None) -> Judgement:
        is_plain = query.item is None and request.filters == Filters() and across is None and not request.text
        is_sampled = random.random() < self.settings.audit_rate  # noqa: S311 - a sample
        if is_sampled and hits.hits and is_plain and hits.mode == "fast":
            self.recall_monitor.waiting.append(query.vector)
        return self.confidence.judge(hits, [label.name for label in query.labels], across)

    def _learn(
        self, request: SearchRequest, query: Query, matches: Sequence[Match], score: float | None, client: str | None
    ) -> None:
        """Add a photo to what the next merge learns of visitors: whole photos that are not catalogue images."""
        closer = query.closer or query
        is_photo = query.size is not None and query.blank is None and not (request.box or request.exclude)
        is_photo &= request.after is None and not request.examples
        # What a stranger's device claims to have seen may be like no picture.
        is_photo = is_photo and is_made_by(self.embedder.description.parts, closer.vector)
        is_photo = is_photo and bool(matches) and all(match.verdict == "similar" for match in matches)
        if is_photo and (traits := closer.traits) is not None:
            self.visitors.add(traits, score if request.filters == Filters() else None, client=client)

    def _matches(self, query: Query, hits: Hits, confidences: Sequence[float], sort: Sort) -> list[Match]:
        """All hits whose items are known."""
        found = self.items.get([i for hit in hits.hits for i in (hit.id, *hit.duplicates, *hit.product)])
        verdicts = _verdicts(query, hits)
        is_blank = query.blank is not None
        matches = [
            self._match(hit, verdict, max(one, COPY_CONFIDENCE[verdict]), found, is_blank, sort, hits)
            for hit, verdict, one in zip(hits.hits, verdicts, confidences, strict=True)
        ]
        return [match for match in matches if match is not None]

    def _match(
        self,
        hit: Hit,
        verdict: Verdict,
        confidence: float,
        found: dict[str, IndexedItem],
        is_blank: bool,
        sort: Sort,
        among: Hits,
    ) -> Match | None:
        """None if the item was deleted a moment ago and the index does not know yet."""
        places = [found[i] for i in (hit.id, *hit.duplicates) if i in found]
        if not places:
            return None
        text = among.text
        worded = text is not None and hit.text_score is not None
        # The value of an order and the words that matched belong to the hit's own item.
        is_own = worded or sort != "likeness"
        places.sort(key=lambda place: (is_own and place.item.id != hit.id, *offer_sort_key(place)))
        first = self._shown(places[0])
        if is_blank or first.blank is not None:
            verdict, confidence = "similar", 0.0
        highlights: tuple[Highlight, ...] = ()
        if worded and text is not None:
            highlights, met = text.where(said_of(FacetRow.of(first.item, first.labels)))
            is_alone = math.isnan(hit.similarity)
            confidence = float(words_confidence(met, None if is_alone else confidence, among.say_as_much))
        is_pictured = not math.isnan(hit.similarity)
        return Match(
            item=first.item,
            similarity=round(hit.similarity, 6) if is_pictured else None,
            confidence=round(confidence, 4),
            verdict=verdict if is_pictured else None,
            places=tuple(offer_of(self._shown(indexed)) for indexed in places) if len(places) > 1 else (),
            labels=first.labels,
            indexed_at=first.indexed_at,
            text_score=None if hit.text_score is None else round(hit.text_score, 4),
            highlights=highlights,
            product=tuple(offer_of(self._shown(found[i])) for i in hit.product if i in found),
        )

    def _shown(self, indexed: IndexedItem) -> IndexedItem:
        """The item as a browser can show it."""
        address = self.picture_address(indexed)
        if address == indexed.item.image_url:
            return indexed
        item = msgspec.structs.replace(indexed.item, image_url=address)
        return msgspec.structs.replace(indexed, item=item)


def without_likeness(hits: Hits) -> Hits:
    """Hits of words alone: how near a text is to a picture is not how alike two pictures are."""
    return replace(hits, hits=tuple(replace(hit, similarity=math.nan) for hit in hits.hits), nearest=None)


def hits_of(nearest: NearestRows | None, metric: str | None) -> Hits:
    """Each of the nearest rows as a hit of its own; `similarity` as a search returns it."""
    if nearest is None or not nearest.rows:
        return Hits((), "exact", metric, nearest=nearest)
    cosines = nearest.vectors @ unit(nearest.unnormalised[None])[0]
    similarities = nearest.similarities if metric is not None else cosines
    rows = zip(nearest.rows, similarities.tolist(), strict=False)
    hits = [
        Hit(id_text(block.ids[row]), similarity, rank, hash=block.hashes[row].tobytes())
        for rank, ((block, row), similarity) in enumerate(rows)
    ]
    return Hits(tuple(hits), "exact", metric, nearest=nearest)


def _sure(least: float, pictured: Mapping[str, float] | None, ids: np.ndarray, met: Met, as_much: int) -> np.ndarray:
    """Which items, (r,) bool, are at least this sure, by what they say and by how sure each was by the picture; None:
    by words alone. Those that are not named are as sure as the last one."""
    by_picture = None
    if pictured is not None:
        by_picture = np.full(len(ids), [0.0, *pictured.values()][-1])
        for item, one in pictured.items():
            by_picture[(ids == np.frombuffer(bytes.fromhex(item), np.uint8)).all(1)] = one
    return np.round(words_confidence(met, by_picture, as_much), 4) >= least


def _verdicts(query: Query, hits: Hits) -> list[Verdict]:
    """For each hit, the strongest verdict from any of the query's pictures."""
    similarities, hashes = [hit.similarity for hit in hits.hits], [hit.hash for hit in hits.hits]
    found = [
        classify_matches(
            similarities,
            hashes,
            aligner=one.aligner,
            query_hash=None if one.item is None or one.hashes is None else one.hashes.tobytes(),
            metric=hits.metric,
        )
        for one in query.wanted or (query,)
    ]
    return [max(of_hit, key=lambda verdict: COPY_CONFIDENCE[verdict]) for of_hit in zip(*found, strict=True)]


def _guess(matches: Sequence[Match], confidence: float) -> Guess | None:
    """The collection that the nearest matches vote for; None if no match names one.

    Each votes with its odds: one sure match outweighs a page of doubtful ones. One without a collection votes for none.
    """
    votes: dict[str, float] = defaultdict(float)
    for match in matches[:GUESS_FROM]:
        votes[match.item.collection or ""] += match.confidence / (1.001 - match.confidence)
    total, named = sum(votes.values()), [name for name in votes if name]
    if not named or total <= 0:
        return None
    best = max(named, key=lambda name: votes[name])
    return Guess(collection=best, probability=round(votes[best] / total * confidence, 4))


def _safety_answer(safety: Safety | None) -> SafetyAnswer | None:
    return None if safety is None else SafetyAnswer(unsafe=safety.unsafe, probabilities=safety.probabilities)
