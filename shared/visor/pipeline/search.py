"""Search: from what somebody asks for to the nearest items, and how sure that is."""

from __future__ import annotations

import base64
import dataclasses
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import numpy as np
from PIL import Image, ImageStat

from visor.errors import BadRequest, StoreUnavailable, UnknownItem
from visor.images.align import Probe
from visor.images.decode import DecodedImage, decode
from visor.images.fetch import Fetcher
from visor.images.frames import FRAMES
from visor.images.hash import perceptual_hash
from visor.images.verdict import Verdict
from visor.index.calibration import CONFIDENT, Strangers
from visor.index.search import Hit, Hits, Searcher
from visor.models.run import Embedder
from visor.pipeline.audit import Auditor
from visor.pipeline.feedback import Feedback, FeedbackLog, numbers_of, query_key
from visor.pipeline.link_state import PICTURE_GONE
from visor.pipeline.safety import Thresholds
from visor.pipeline.told import told_apart
from visor.records import ITEM_ID, IndexedItem, Item, Label, Safety
from visor.settings import Settings
from visor.stores.documents import DocumentStore
from visor.web.contract import (
    Box,
    FacetsAnswer,
    FeedbackRequest,
    Filters,
    Guess,
    IndexAnswer,
    Match,
    Place,
    QueryAnswer,
    SafetyAnswer,
    SearchAnswer,
    SearchRequest,
)

ITEMS_REMEMBERED = 5_000
ITEMS_KEPT_S = 3600.0
GUESS_FROM = 12
"""Matches whose collections vote on the kind."""
COPY_CONFIDENCE: dict[Verdict, float] = {"exact": 0.99, "edited": 0.95, "similar": 0.0}
"""What a verdict alone is worth: `visor bench copies` measures how often verdicts are right."""
EXCLUDED_FROM = 4
"""How many times finer than the model needs it a picture is decoded that parts are left out of: little may be left."""
BOX_SIDE_MIN = 8
"""Pixels: a smaller box holds nothing to look at."""


@dataclass
class _Query:
    """What is known of a query once it is a vector."""

    vector: np.ndarray
    hashes: np.ndarray | None = None
    probe: Probe | None = None
    labels: tuple[Label, ...] = ()
    safety: Safety | None = None
    size: tuple[int, int] | None = None
    """Width and height of the picture as it came; its pixels are not kept."""
    format: str | None = None
    item: str | None = None


@dataclass
class Stopwatch:
    """Milliseconds by stage."""

    timing_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - start) * 1000
            self.timing_ms[name] = round(self.timing_ms.get(name, 0.0) + elapsed, 2)


class Items:
    """The documents of items, remembered until the index hears of a change, so that a warm search reads few.

    Every write of an item's document is committed together with a record that running searches poll; what it names is
    forgotten. `keep_s` bounds how long anything is remembered all the same.
    """

    def __init__(
        self, documents: DocumentStore, *, keep_s: float = ITEMS_KEPT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.documents, self.keep_s, self.clock = documents, keep_s, clock
        self._kept: OrderedDict[str, tuple[float, IndexedItem | None]] = OrderedDict()
        self._forgotten = 0
        self._lock = threading.Lock()

    def forget(self, ids: Collection[str] | None) -> None:
        """Read these again when they are asked for; None: all of them."""
        if ids is not None and not ids:
            return
        with self._lock:
            self._forgotten += 1
            if ids is None:
                self._kept.clear()
                return
            for item in ids:
                self._kept.pop(item, None)

    def get(self, ids: Sequence[str]) -> dict[str, IndexedItem]:
        """The searchable ones among `ids`."""
        now = self.clock()
        with self._lock:
            forgotten = self._forgotten
            fresh = {i: self._kept[i][1] for i in ids if i in self._kept and now - self._kept[i][0] < self.keep_s}
        missing = [i for i in dict.fromkeys(ids) if i not in fresh]
        if missing:
            found = self.documents.get("items", missing)
            for item in missing:
                document = found.get(item)
                live = document is not None and not document.data.get("gone")
                fresh[item] = msgspec.convert(document.data, IndexedItem) if document and live else None
            with self._lock:
                # What was read while something changed may be the old version.
                for item in missing if forgotten == self._forgotten else ():
                    self._kept[item] = (now, fresh[item])
                    self._kept.move_to_end(item)
                while len(self._kept) > ITEMS_REMEMBERED:
                    self._kept.popitem(last=False)
        return {i: indexed for i, indexed in fresh.items() if indexed is not None}


class SearchService:
    """Answers searches. Thread-safe; one a process."""

    def __init__(
        self,
        *,
        searcher: Searcher,
        embedder: Embedder,
        fetcher: Fetcher,
        documents: DocumentStore,
        settings: Settings,
        picture_address: Callable[[IndexedItem], str] | None = None,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        """`picture_address` replaces addresses that a browser cannot open (files of a local folder). `on_look` is told
        each look for news, which is paid for besides the items of a page."""
        self.searcher, self.embedder, self.fetcher = searcher, embedder, fetcher
        self.documents, self.settings = documents, settings
        self.items = Items(documents)
        self.thresholds = Thresholds.of(settings)
        self.picture_address = picture_address or web_address
        self.on_look = on_look
        self.strangers = Strangers()
        self.feedback = FeedbackLog(documents, freshness_s=settings.freshness_s)
        self.auditor = Auditor(searcher, rate=settings.audit_rate)
        # Pixels are what takes memory: a small instance has room for one large picture. Threads of their own, because
        # each thread that ever decoded one keeps that much of the heap.
        self.decoding = ThreadPoolExecutor(settings.threads, thread_name_prefix="visor-decode")

    def search(self, request: SearchRequest, upload: bytes | None = None) -> SearchAnswer:
        """The nearest items to what `request` asks for.

        Args:
            upload: The picture itself, where it came beside the request.

        Raises:
            BadRequest: Not exactly one thing to search for, or one that cannot be.
            UnknownItem: The item to start from is not in the index.
            ImageError: The picture cannot be fetched or decoded.
        """
        watch = Stopwatch()
        with watch.stage("total"):
            self.refresh()
            query = self._query(request, upload, watch)
            if query.safety is not None and query.safety.unsafe:
                hits = Hits((), "metric" if request.metric else request.mode, request.metric, np.empty(0, np.float32))
            else:
                with watch.stage("scan"):
                    hits = self._scan(request, query, self._hidden(query))
            with watch.stage("confidence"):
                likely = self._confidence(request, query, hits)
            with watch.stage("items"):
                matches = self._matches(query, hits, likely, request.k)
            facets = self.searcher.facets(request.filters) if request.facets else None
        confidence = matches[0].confidence if matches else 0.0
        return SearchAnswer(
            matches=matches,
            confidence=confidence,
            no_confident_match=confidence < CONFIDENT,
            mode=hits.mode,
            metric=hits.metric,
            guess=_guess(matches, confidence),
            labels=query.labels,
            safety=_safety_answer(query.safety),
            query=_query_answer(query),
            index=self.index_answer(),
            facets=facets,
            timing_ms=watch.timing_ms,
            notice=hits.notice,
        )

    def refresh(self) -> None:
        """Take in what was committed since, if a look is due. Raises as `Searcher.refresh`."""
        if self.searcher.refresh():
            self.on_look()
        self.items.forget(self.searcher.take_changed())

    def facets(self, filters: Filters) -> FacetsAnswer:
        self.refresh()
        return self.searcher.facets(filters)

    def item(self, item: str) -> IndexedItem:
        """One searchable item.

        Raises:
            UnknownItem: There is none of that id.
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

    def reject(self, request: FeedbackRequest) -> None:
        """Keep that an item is no match for a query.

        Raises:
            BadRequest: Not exactly one query, or one that cannot be.
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
        self.found(request.item)
        asked = SearchRequest(item=request.query_item, vector=request.query_vector, k=1)
        query = self._query(asked, None, Stopwatch())
        key = query_key(query.vector, query.item)
        hits = self._scan(asked, query, self.feedback.hidden(key))
        is_first = bool(hits.hits) and request.item in (hits.hits[0].id, *hits.hits[0].duplicates)
        calibration = self.searcher.calibration
        numbers = numbers_of(hits.around, calibration.mean_vector) if is_first and calibration.is_fitted else ()
        self.feedback.add(Feedback(query=key, item=request.item, verdict=request.verdict, features=numbers))

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
            ImageError: It cannot be had or decoded.
        """
        self._check_query(request, upload)
        if request.item is not None:
            return picture_of(self.found(request.item).item)
        if request.vector is not None:
            raise BadRequest(
                "A vector shows nothing", valid="image, url or item", remedy="Send the picture that was searched for"
            )
        data = self._bytes(request, upload, Stopwatch())
        return self.decoding.submit(self._focused, data, request).result()[1]

    def common_vector(self) -> np.ndarray | None:
        """The mean full vector (d,) of the catalogue, where the calibration knows it."""
        calibration = self.searcher.calibration
        return calibration.mean_vector if calibration.is_fitted and calibration.space is None else None

    def _query(self, request: SearchRequest, upload: bytes | None, watch: Stopwatch) -> _Query:
        self._check_query(request, upload)
        if request.vector is not None:
            return _Query(vector=decode_vector(request.vector, self.embedder.dimension))
        if request.item is not None:
            return self._item_query(request.item)
        return self._picture_query(self._bytes(request, upload, watch), request, watch)

    def _check_query(self, request: SearchRequest, upload: bytes | None) -> None:
        given = [name for name in ("image", "url", "vector", "item") if getattr(request, name) is not None]
        if upload is not None:
            given.insert(0, "image")
        if len(given) != 1:
            raise BadRequest(
                f"The request has {' and '.join(given) or 'nothing to search for'}",
                valid="Exactly one of image, url, vector, item",
                remedy="Send one",
            )
        if (request.box or request.exclude) and given[0] in ("vector", "item"):
            raise BadRequest(
                f"A box or excluded parts do not go with {given[0]}",
                valid="They go with a picture: image or url",
                remedy="Send the picture, or leave them out",
            )

    def _item_query(self, item: str) -> _Query:
        vector = self.searcher.vector_of(item) if ITEM_ID.match(item) else None
        if vector is None:
            raise unknown_item(item)
        indexed = self.items.get([item]).get(item)
        labels = indexed.labels if indexed else ()
        return _Query(vector=vector, hashes=self.searcher.hashes_of(item), labels=labels, item=item)

    def _bytes(self, request: SearchRequest, upload: bytes | None, watch: Stopwatch) -> bytes:
        if upload is not None:
            return upload
        if request.url is not None:
            with watch.stage("fetch"):
                # Whoever asks waits: not for four others at the same host as a crawl does.
                return self.fetcher.fetch(request.url, turn_s=self.settings.fetch_timeout_s).body
        try:
            return base64.b64decode((request.image or "").partition("base64,")[2] or request.image or "", validate=True)
        except ValueError as exc:
            raise BadRequest(
                f"image is no base64: {exc}", valid="The picture's bytes in base64", remedy="Encode them"
            ) from exc

    def _picture_query(self, data: bytes, request: SearchRequest, watch: Stopwatch) -> _Query:
        return self.decoding.submit(self._seen, data, request, watch).result()

    def _seen(self, data: bytes, request: SearchRequest, watch: Stopwatch) -> _Query:
        with watch.stage("decode"):
            image, pixels = self._focused(data, request)
            hashes = np.frombuffer(perceptual_hash(pixels), np.uint8)
        with watch.stage("embed"):
            embedded = self.embedder.embed([pixels])
        return _Query(
            vector=embedded.vectors[0],
            hashes=hashes,
            probe=Probe(pixels),
            labels=embedded.labels[0],
            safety=self.thresholds.judge_query(embedded.safety[0]),
            size=(image.width, image.height),
            format=image.format,
        )

    def _focused(self, data: bytes, request: SearchRequest) -> tuple[DecodedImage, Image.Image]:
        """The picture, no larger than what counts of it needs, and what counts of it."""
        side = self.embedder.description.input_side
        if request.box:
            side = round(side / max(min(request.box[2:]), 1e-3))
        if request.exclude:
            side *= EXCLUDED_FROM
        image = decode(data, pixels_max=self.settings.pixels_max, side_hint=side)
        return image, focus(image.pixels, request.box, request.exclude)

    def _hidden(self, query: _Query) -> frozenset[str]:
        """Items that were said to be no match for this query. A search does not wait for a store that is away."""
        try:
            return self.feedback.hidden(query_key(query.vector, query.item))
        except StoreUnavailable:
            return frozenset()

    def _scan(self, request: SearchRequest, query: _Query, hidden: frozenset[str]) -> Hits:
        return self.searcher.search(
            query.vector,
            k=min(request.k, self.settings.k_max),
            filters=request.filters,
            mode=request.mode,
            metric=request.metric,
            query_hash=None if query.hashes is None else bytes(query.hashes),
            leave_out=hidden if query.item is None else hidden | {query.item},
        )

    def _confidence(self, request: SearchRequest, query: _Query, hits: Hits) -> list[float]:
        """Probability of each hit that it is what was asked for; every query teaches a little about strangers."""
        if hits.around is None or not hits.hits:
            return []
        around = dataclasses.replace(hits.around, query_labels=tuple(label.name for label in query.labels))
        calibration = self.searcher.calibration
        places = np.searchsorted(-hits.nearest, [-hit.similarity for hit in hits.hits])
        likely = calibration.matches(around, places.tolist(), self.strangers.far_share)
        if query.item is None and request.filters == Filters():
            # Items of the index, links to answers and filtered queries say nothing about what people ask for in vain.
            if request.vector is None:
                self.strangers.add(calibration.score(around), calibration)
            if request.mode == "fast" and request.metric is None:
                self.auditor.sample(query.vector)
        return likely

    def _matches(self, query: _Query, hits: Hits, likely: Sequence[float], k: int) -> tuple[Match, ...]:
        found = self.items.get([hit.id for hit in hits.hits] + [d for hit in hits.hits for d in hit.duplicates])
        told = told_apart(query.probe, hits, None if query.item is None else query.hashes)
        matches = [
            self._match(hit, verdict, max(probability, COPY_CONFIDENCE[verdict]), found)
            for hit, verdict, probability in zip(hits.hits, told, likely, strict=True)
        ]
        return tuple(match for match in matches if match is not None)[:k]

    def _match(self, hit: Hit, verdict: Verdict, confidence: float, found: dict[str, IndexedItem]) -> Match | None:
        """None where the item was deleted a moment ago and the index has not heard of it."""
        places = [found[i] for i in (hit.id, *hit.duplicates) if i in found]
        if not places:
            return None
        places.sort(key=newest_and_cheapest)
        first = self._shown(places[0])
        return Match(
            item=first.item,
            similarity=round(hit.similarity, 6),
            confidence=round(confidence, 4),
            verdict=verdict,
            places=tuple(_place(self._shown(indexed)) for indexed in places) if len(places) > 1 else (),
            labels=first.labels,
            indexed_at=first.indexed_at,
        )

    def _shown(self, indexed: IndexedItem) -> IndexedItem:
        """The item as a browser can show it."""
        address = self.picture_address(indexed)
        if address == indexed.item.image_url:
            return indexed
        item = msgspec.structs.replace(indexed.item, image_url=address)
        return msgspec.structs.replace(indexed, item=item)


def web_address(indexed: IndexedItem) -> str:
    """The address of an item's picture as a browser can open it; empty where it has none (a private bucket, gone)."""
    url = indexed.item.image_url
    if PICTURE_GONE in indexed.item.extra:
        return ""
    if url.startswith(FRAMES):
        return f"./v1/thumbnails/{url.removeprefix(FRAMES)}"
    return url if url.startswith(("https:", "http:")) else ""


def decode_vector(text: str, dimension: int) -> np.ndarray:
    """The unit vector, float32 of shape `(dimension,)`, in base64 (also URL-safe) of little-endian float16.

    Raises:
        BadRequest: It is no base64, of another length, or not finite.
    """
    try:
        data = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except ValueError as exc:
        raise BadRequest(f"vector is no base64: {exc}", valid="Base64 of little-endian float16") from exc
    if len(data) != 2 * dimension:
        raise BadRequest(
            f"vector has {len(data)} bytes",
            valid=f"This index takes {2 * dimension}: {dimension} numbers of 2 bytes",
            remedy="Take query.vector from an answer of this index; after a change of model search the picture again",
        )
    vector = np.frombuffer(data, "<f2").astype(np.float32)
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm == 0:
        raise BadRequest("vector has no direction: it is zero or not finite", valid="Finite numbers, not all 0")
    return vector / np.float32(norm)


def focus(pixels: Image.Image, box: Box | None, exclude: Sequence[Box]) -> Image.Image:
    """What counts of a picture: the part within `box`, cut down to what `exclude` leaves of it.

    Excluded parts that remain inside are filled with the mean colour of the rest, which says the least to the model.

    Args:
        box, exclude: x, y, width, height as fractions of the sides.

    Raises:
        BadRequest: Fewer than 8 × 8 pixels are left.
    """
    if box is None and not exclude:
        return pixels
    edges = (0, 0, *pixels.size) if box is None else _corners(pixels, box)
    part = pixels.crop(edges)
    rest = Image.new("L", part.size, 255)
    for excluded in exclude:
        x0, y0, x1, y1 = _corners(pixels, excluded)
        rest.paste(0, (x0 - edges[0], y0 - edges[1], x1 - edges[0], y1 - edges[1]))
    left, top, right, bottom = rest.getbbox() or (0, 0, 0, 0)
    if right - left < BOX_SIDE_MIN or bottom - top < BOX_SIDE_MIN:
        raise BadRequest(
            f"Of this picture {right - left} × {bottom - top} pixels are left to search for",
            valid=f"At least {BOX_SIDE_MIN} × {BOX_SIDE_MIN}",
            remedy="Draw a larger box, or paint out less",
        )
    part, rest = part.crop((left, top, right, bottom)), rest.crop((left, top, right, bottom))
    mean = tuple(round(channel) for channel in ImageStat.Stat(part, rest).mean)
    return Image.composite(part, Image.new("RGB", part.size, mean), rest)


def unknown_item(item: str) -> UnknownItem:
    return UnknownItem(
        f"No item {item:.64} is in the index",
        valid="Ids are 32 hexadecimal digits, as answers give them",
        remedy="It may have been deleted: search for its picture",
    )


def _corners(pixels: Image.Image, box: Box) -> tuple[int, int, int, int]:
    x, y, width, height = box
    columns, rows = pixels.size
    right, bottom = min(x + width, 1.0), min(y + height, 1.0)
    return round(x * columns), round(y * rows), round(right * columns), round(bottom * rows)


def _guess(matches: Sequence[Match], confidence: float) -> Guess | None:
    """The collection that the nearest matches vote for; none where nobody names one.

    Each votes with its odds: one sure match outweighs a page of doubtful ones (docs/benchmarks-confidence.md).
    """
    votes: dict[str, float] = defaultdict(float)
    voters = [match for match in matches[:GUESS_FROM] if match.item.collection]
    for match in voters:
        votes[match.item.collection or ""] += match.confidence / (1.001 - match.confidence)
    total = sum(votes.values())
    if total <= 0:
        return None
    best = max(votes, key=lambda name: votes[name])
    return Guess(collection=best, probability=round(votes[best] / total * confidence, 4))


def newest_and_cheapest(indexed: IndexedItem) -> tuple[bool, float, float]:
    """Sorts places; those whose picture is gone come last."""
    date = (indexed.item.date or indexed.indexed_at)[:10].replace("-", "")
    price = indexed.item.price
    is_gone = PICTURE_GONE in indexed.item.extra
    return is_gone, -float(date) if date.isdigit() else 0.0, float("inf") if price is None else price


def _place(indexed: IndexedItem) -> Place:
    item = indexed.item
    return Place(
        item=item.id,
        title=item.title,
        page_url=item.page_url,
        image_url=item.image_url,
        price=item.price,
        currency=item.currency,
    )


def _safety_answer(safety: Safety | None) -> SafetyAnswer | None:
    return None if safety is None else SafetyAnswer(unsafe=safety.unsafe, probabilities=safety.probabilities)


def _query_answer(query: _Query) -> QueryAnswer:
    return QueryAnswer(
        vector=base64.b64encode(query.vector.astype("<f2").tobytes()).decode(),
        item=query.item,
        width=query.size[0] if query.size else None,
        height=query.size[1] if query.size else None,
        format=query.format,
    )
