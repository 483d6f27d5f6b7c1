"""Queries: from a request to pixels, and to the vector that is searched for; those of the last minutes are kept."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field

import msgspec
import numpy as np
from cachetools import TTLCache
from PIL import Image

from visor.errors import BadRequest, OtherModel, UnknownHandle
from visor.free_tier.quota import note_work
from visor.http.client import Fetcher
from visor.http.fetch import FetchOptions
from visor.imaging.colour_signature import colour_signature
from visor.imaging.content import QUERY_INNER_MIN, Emptiness, content_of
from visor.imaging.decode import DecodedImage, decode_image
from visor.imaging.focus import focus
from visor.index.format.looks import LOOK_BYTES, pack_look
from visor.index.format.projection import unit
from visor.index.search.fusion import traits
from visor.index.words.analysis import words_of
from visor.models.description import CLOSER_VIEWS, SAFETY_CLASSES
from visor.models.embedder import Embedder, view_of
from visor.models.moderation import moderate
from visor.near_duplicates.fingerprint import HASH_BYTES
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.near_duplicates.verdict import Aligner, sketch_picture
from visor.schema.items import Label, Safety
from visor.schema.search import PICTURES, Filters, QueryAnswer, Region, SearchRequest, Seen, SeenLabel
from visor.search.heat import regions
from visor.search.links import as_linked, decode_base64, decode_vector, encode_vector
from visor.settings import Settings
from visor.telemetry.traces import span

EXCLUDED_FROM = 4
"""A picture with excluded parts is decoded this many times finer than the model needs: little of it may be left."""
PAUSE_MAX_S = 60.0
"""Longest pause of a host, for everybody, that one visitor's URL may cause."""
SPANS = {"total": "search", "items": "documents"}
"""Stages whose span in a trace has another name."""
SUM_MIN = 0.05
"""Length of a weighted mean of unit vectors below which it has no direction."""
KEPT_S = 600.0
"""How long a query is remembered."""
KEPT_BYTES_MAX = 16_000_000
_ALONE = ", or text, examples or filters, with it or alone"


@dataclass
class Query:
    """What is known of a query once it is a vector."""

    vector: np.ndarray
    """(d,) float32, or (0,) if only words are searched for."""
    hashes: np.ndarray | None = None
    aligner: Aligner | None = None
    labels: tuple[Label, ...] = ()
    safety: Safety | None = None
    size: tuple[int, int] | None = None
    """Width and height of the picture as it came; its pixels are not kept."""
    format: str | None = None
    item: str | None = None
    blank: str | None = None
    """Why there is nothing to compare in the picture, if so."""
    look: np.ndarray | None = None
    """(258,) uint8 of `visor.index.format.looks`; for a link, only if it was answered across the gap."""
    is_across: bool = False
    """It is on the visitors' side of the gap, and is answered across it."""
    closer: Query | None = None
    """The same from a closer view of the middle, if answers across the gap are possible."""
    handle: str | None = None
    """With it the query can be repeated, for some minutes, without its picture."""
    wanted: tuple[Query, ...] = ()
    """If several pictures make the query: those that matches are to be like."""
    judged: np.ndarray | None = None
    """(d,) What confidence is computed from if matches are to be unlike some pictures: the others alone."""
    items: frozenset[str] = frozenset()
    """Ids of the items among several pictures."""
    regions: tuple[Region, ...] | None = None
    """Parts of the whole picture that one may want to search for; None if they were not requested."""

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, without small fields."""
        held = self.vector, self.hashes, self.look
        arrays = sum(one.nbytes for one in held if one is not None)
        return arrays + sum(part.size_bytes for part in (self.aligner, self.closer) if part is not None)

    @property
    def traits(self) -> np.ndarray | None:
        """(d + 1162,) of `fusion.traits`; None if there is no look."""
        return None if self.look is None else traits(self.vector[None], self.look[None])[0]


@dataclass
class Stopwatch:
    """Milliseconds by stage."""

    timing_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            with span(SPANS.get(name, name)):
                yield
        finally:
            elapsed = (time.perf_counter() - start) * 1000
            self.timing_ms[name] = round(self.timing_ms.get(name, 0.0) + elapsed, 2)


class RecentQueries:
    """What was seen in the pictures of the last minutes, so that none is processed twice: queries by the handle of
    their picture and the part that counts. In memory only, for `KEPT_S`. Thread-safe."""

    def __init__(self, *, bytes_max: int = KEPT_BYTES_MAX, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: TTLCache[Hashable, Query] = TTLCache(bytes_max, KEPT_S, clock, lambda query: query.size_bytes)
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._forgets = False

    def handle(self, picture: bytes) -> str:
        """32 hex digits that name the picture. Only who has seen an answer to it knows them; no other process does."""
        return hashlib.blake2b(picture, key=self._secret, digest_size=16).hexdigest()

    def get(self, key: Hashable) -> Query | None:
        with self._lock:
            return self._kept.get(key)

    def put(self, key: Hashable, query: Query) -> None:
        with self._lock:
            if query.size_bytes <= self._kept.maxsize:
                self._kept[key] = query
            self._forget_later()

    def _forget_later(self) -> None:
        """The cache drops old queries when it is used; this drops them when nobody uses it any more."""
        if self._kept and not self._forgets:
            timer = threading.Timer(KEPT_S, self._forget)
            timer.daemon = self._forgets = True
            timer.start()

    def _forget(self) -> None:
        with self._lock:
            self._forgets = False
            self._kept.expire()
            self._forget_later()


class QueryReader:
    """Reads what requests search for. Thread-safe."""

    def __init__(self, embedder: Embedder, fetcher: Fetcher, settings: Settings) -> None:
        self.embedder, self.fetcher, self.settings = embedder, fetcher, settings
        self.side = embedder.description.input_side
        # Pixels take most memory, so decoding has threads of its own: each keeps a heap of that size.
        self.decoding = ThreadPoolExecutor(settings.threads, thread_name_prefix="visor-decode")
        self.recent = RecentQueries()

    def check(self, request: SearchRequest, upload: bytes | None, *, words_alone: bool = False) -> None:
        """Raise `BadRequest` unless exactly one thing is searched for, or several as examples; with `words_alone`, text
        or filters are enough."""
        given = [name for name in PICTURES if getattr(request, name) is not None]
        if upload is not None:
            given.insert(0, "image")
        if words_alone and request.text is not None:
            self._check_text(request, bool(given or request.examples))
        is_asked = words_alone and (request.text is not None or request.filters != Filters())
        if len(given) > 1 or not (given or request.examples or is_asked):
            raise BadRequest(
                f"The request has {' and '.join(given) or 'nothing to search for'}",
                valid=f"Exactly one of {', '.join(PICTURES)}{_ALONE if words_alone else ''}",
                remedy="Send one",
            )
        least = next((name for name in ("min_confidence", "min_similarity", "nearest") if getattr(request, name)), None)
        if least and not (given or request.examples or request.text):
            raise BadRequest(
                f"{least} does not go with filters alone, which have no similarity",
                valid="With a picture or words",
                remedy=f"Leave {least} out, or say what to look for",
            )
        if (request.box or request.exclude) and given not in (["image"], ["url"], ["handle"]):
            raise BadRequest(
                f"A box or excluded parts do not go with {given[0] if given else 'examples or text alone'}",
                valid="With a picture: image, url or handle",
                remedy="Send the picture, leave them out, or apply them before a device looks",
            )

    def _check_text(self, request: SearchRequest, has_picture: bool) -> None:
        if request.metric is not None:
            raise BadRequest(
                "A metric does not go with text",
                valid="Text alone, or with a picture in mode fast or exact",
                remedy="Leave the metric or the text out",
            )
        if not has_picture and not any(words_of(request.text or "")):
            raise BadRequest(
                f"The text {request.text!r:.80} has no word",
                valid="Letters or digits",
                remedy="Send words or a picture",
            )
        if not has_picture and request.min_similarity is not None:
            raise BadRequest(
                "min_similarity does not go with text alone",
                valid="With a picture",
                remedy="Send a picture, or use min_confidence",
            )

    def picture(self, request: SearchRequest, upload: bytes | None, *, side: int | None = None) -> Image.Image:
        """The part that counts of a request's picture.

        Args:
            side: Longest side in pixels of the result; None: about what the model needs.

        Raises:
            BadRequest: It has none.
            ImageError: It cannot be obtained or decoded.
        """
        for name in ("vector", "handle", "seen"):
            if getattr(request, name) is not None:
                remedy = "Send the picture that was searched for"
                raise BadRequest(f"A {name} holds no picture", valid="image, url or item", remedy=remedy)
        data = self._bytes(request, upload, Stopwatch())
        focused = self.decoding.submit(self._focused, data, request, side or self.side).result()[1]
        if side is not None:
            focused.thumbnail((side, side))
        return focused

    def pixels(self, data: bytes) -> Image.Image:
        """An image decoded no larger than the model needs. Raises `ImageError`."""
        limits = {"pixels_max": self.settings.pixels_max, "side_hint": self.side}
        return self.decoding.submit(decode_image, data, **limits).result().pixels

    def query(
        self,
        request: SearchRequest,
        upload: bytes | None,
        watch: Stopwatch,
        *,
        closer: bool = False,
        mean: np.ndarray | None = None,
    ) -> Query:
        """The query of a picture or a vector; also from a `closer` view, if that is wanted.

        Args:
            mean: As for `heat.regions`.

        Raises as `picture`, and:
            UnknownHandle: The query of that picture is not, or no longer, remembered.
        """
        if request.vector is not None:
            vector, look = decode_vector(request.vector, self.embedder.dimension)
            return Query(vector=vector, look=look)
        if request.seen is not None:
            seen = self._seen_elsewhere(request.seen)
            seen.handle = self.recent.handle(msgspec.json.encode(request.seen))
            self.recent.put((seen.handle, None, ()), seen)
            return seen
        data = None if request.handle is not None else self._bytes(request, upload, watch)
        handle = request.handle if data is None else self.recent.handle(data)
        key = handle, request.box, request.exclude
        query = self.recent.get(key)
        if (
            query is not None
            and (query.closer is not None or not closer)
            and (query.regions is not None or not request.regions)
        ):
            return query
        if data is None:
            raise UnknownHandle(
                f"The picture {handle:.40}, or this part of it, is not remembered",
                valid="query.handle of an answer from the last few minutes, with the same box, exclude and regions",
                remedy="Send the picture again",
            )
        note_work("pictures")
        # Its stages are below this span, though in another thread.
        future = self.decoding.submit(copy_context().run, self._seen, data, request, watch, closer)
        query, whole = future.result()
        query.handle = handle
        if request.regions and not (query.safety and query.safety.unsafe):
            with watch.stage("regions"):
                query.regions = regions(self.embedder, whole, mean)
        self.recent.put(key, query)
        return query

    def _seen(self, data: bytes, request: SearchRequest, watch: Stopwatch, closer: bool) -> tuple[Query, Image.Image]:
        """The query, and the whole picture."""
        with watch.stage("decode"):
            image, pixels = self._focused(data, request, self.side)
            hashes = np.frombuffer(perceptual_hash(pixels), np.uint8)
            blank = content_of(pixels).emptiness(QUERY_INNER_MIN)
        with watch.stage("embed"):
            embedded, *more = self.embedder.embed_closer(pixels) if closer else (self.embedder.embed([pixels]),)
            boxes = None, *(view_of(pixels, CLOSER_VIEWS[-1]) for _ in more)
            colours = [colour_signature(pixels, box) for box in boxes]
            looks = [pack_look(one.probabilities[0], c) for one, c in zip((embedded, *more), colours, strict=True)]
            vectors = [as_linked(one.vectors[0]) for one in (embedded, *more)]
        query = Query(
            look=looks[0],
            closer=Query(vector=vectors[1], look=looks[1]) if more else None,
            vector=vectors[0],
            hashes=hashes,
            aligner=Aligner(pixels),
            labels=embedded.labels[0],
            safety=moderate(embedded.safety[0], self.settings.unsafe_query),
            size=(image.width, image.height),
            format=image.format,
            blank=blank and blank.value,
        )
        return query, image.pixels

    def _seen_elsewhere(self, seen: Seen) -> Query:
        """The query made from what a device saw. The model does not run for it.

        Raises:
            OtherModel: It comes from another model than that of the index.
            BadRequest: It is not an output of this model, or the owner does not let devices run it.
        """
        embedder = self.embedder
        if not self.settings.device:
            raise BadRequest(
                "The owner lets only the server embed pictures",
                valid="image, url, vector, item or handle",
                remedy="Send the picture",
            )
        if seen.model != embedder.fingerprint:
            raise OtherModel(
                f"The model {seen.model:.12} processed the picture",
                valid=f"The model of this index: {embedder.fingerprint}",
                remedy="Fetch what GET /v1/model names, and process the picture again",
            )
        hashes = np.frombuffer(decode_base64("seen.hash", seen.hash), np.uint8)
        if len(hashes) != HASH_BYTES:
            raise BadRequest(
                f"seen.hash has {len(hashes)} bytes", valid=f"{HASH_BYTES}: PDQ and the sketch", remedy="Send all"
            )
        classes = SAFETY_CLASSES if embedder.description.sees_safety else ()
        names = [one.name for one in seen.labels]
        _expect("safety", seen.safety, seen.safety is None or {*seen.safety} == {*classes}, valid=", ".join(classes))
        _expect("labels", names, {*names} <= {*embedder.label_names}, valid="label_names of GET /v1/model")
        _expect("blank", seen.blank, seen.blank in (None, *Emptiness), valid=" ".join(Emptiness))
        texts = ("vector", seen.vector), ("closer", seen.closer or seen.vector)
        plain, closer = (decode_vector(text, embedder.dimension, f"seen.{name}") for name, text in texts)
        if plain[1] is None or closer[1] is None:
            raise BadRequest(
                "seen has a vector without a look",
                valid=f"{2 * embedder.dimension + LOOK_BYTES} bytes: the numbers, then labels and colours",
                remedy="Send the look after the vector",
            )
        return Query(
            vector=plain[0],
            look=plain[1],
            closer=Query(vector=closer[0], look=closer[1]),
            hashes=hashes,
            aligner=Aligner(sketch_picture(hashes)),
            labels=tuple(Label(name=one.name, probability=one.probability) for one in seen.labels),
            safety=moderate(seen.safety, self.settings.unsafe_query),
            size=(seen.width, seen.height),
            blank=seen.blank,
            regions=(),
        )

    def _focused(self, data: bytes, request: SearchRequest, side: int) -> tuple[DecodedImage, Image.Image]:
        """The picture, no larger than the part that counts needs to have that side, and that part."""
        if request.box:
            side = round(side / max(min(request.box[2:]), 1e-3))
        if request.exclude:
            side *= EXCLUDED_FROM
        image = decode_image(data, pixels_max=self.settings.pixels_max, side_hint=side)
        return image, focus(image.pixels, request.box, request.exclude)

    def _bytes(self, request: SearchRequest, upload: bytes | None, watch: Stopwatch) -> bytes:
        if upload is not None:
            return upload
        if request.url is not None:
            with watch.stage("fetch"):
                # A visitor waits for the answer: no long queue behind other fetches at the same host.
                options = FetchOptions(slot_wait_s=self.settings.fetch_timeout_s, pause_max_s=PAUSE_MAX_S)
                return self.fetcher.fetch(request.url, options).body
        try:
            return base64.b64decode((request.image or "").partition("base64,")[2] or request.image or "", validate=True)
        except ValueError as exc:
            raise BadRequest(
                f"image is not base64: {exc}", valid="The picture's bytes in base64", remedy="Encode them"
            ) from exc


def combined(queries: Sequence[tuple[Query, float]], origin: np.ndarray) -> Query:
    """One query of several pictures with their weights: the direction of their weighted sum, seen from the origin.

    Args:
        queries: At least one, weights from -1 to 1 and not 0.
        origin: (d,) what all pictures of the catalogue have in common.

    Raises:
        BadRequest: They cancel each other out.
    """
    wanted = [(query, weight) for query, weight in queries if weight > 0]

    def towards(some: Sequence[tuple[Query, float]]) -> np.ndarray:
        moved = np.stack([query.vector for query, _ in some]) - origin
        direction = np.array([weight for _, weight in some], np.float32) @ unit(moved)
        length = float(np.linalg.norm(direction))
        if length < SUM_MIN * sum(abs(weight) for _, weight in some):
            raise BadRequest(
                f"The {len(some)} pictures and their weights cancel each other out",
                valid="Something to be like, or to be unlike",
                remedy="Leave an example out, or give it another weight",
            )
        around: np.ndarray = origin + direction / length * np.linalg.norm(moved, axis=1).mean()
        return as_linked(around)

    return Query(
        vector=towards(queries),
        labels=wanted[0][0].labels if wanted else (),
        safety=queries[0][0].safety,
        wanted=tuple(query for query, _ in wanted),
        judged=towards(wanted) if 0 < len(wanted) < len(queries) else None,
        regions=next((query.regions for query, _ in queries if query.regions), ()),
        items=frozenset(query.item for query, _ in queries if query.item is not None),
    )


def _expect(what: str, found: object, is_known: bool, *, valid: str) -> None:
    """Raise `BadRequest` unless it is something that the model returns for a picture."""
    if not is_known:
        raise BadRequest(
            f"seen.{what} is {found!r:.100}, which the model does not return",
            valid=valid or "None, as the model has no such head",
            remedy="Send what the model returns, or leave it out",
        )


def seen_of(query: Query, model: str) -> Seen:
    """What a device sends for a picture that it processed: all that the server would have computed.

    Args:
        query: Of the picture, as `QueryReader.query` returns it.
        model: Fingerprint of the model that ran.
    """
    assert query.hashes is not None
    assert query.size is not None
    closer = query.closer
    return Seen(
        model=model,
        vector=encode_vector(query.vector, query.look),
        closer=None if closer is None else encode_vector(closer.vector, closer.look),
        hash=base64.b64encode(query.hashes.tobytes()).decode(),
        labels=tuple(SeenLabel(name=one.name, probability=one.probability) for one in query.labels),
        safety=query.safety.probabilities if query.safety is not None else None,
        blank=query.blank,
        width=query.size[0],
        height=query.size[1],
    )


def query_answer(query: Query, *, with_handle: bool, with_vector: bool) -> QueryAnswer:
    # A vector alone does not show that there is nothing to compare, so none is returned to link to.
    is_blank = query.blank is not None or not len(query.vector) or not with_vector
    vector = None if is_blank else encode_vector(query.vector, query.look if query.is_across else None)
    return QueryAnswer(
        vector=vector,
        is_across=query.is_across,
        item=query.item,
        width=query.size[0] if query.size else None,
        height=query.size[1] if query.size else None,
        format=query.format,
        blank=query.blank,
        handle=query.handle if with_handle else None,
    )
