"""Queries: from a request to pixels, and to the vector that is searched for."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageStat

from visor.errors import BadRequest, UnknownHandle
from visor.free_tier.metered import note_work
from visor.http.client import Fetcher
from visor.http.fetch import FetchOptions
from visor.imaging.colour_signature import colour_signature
from visor.imaging.content import QUERY_INNER_MIN, content_of
from visor.imaging.decode import DecodedImage, decode_image
from visor.index.format.container import unit
from visor.index.format.looks import LOOK_BYTES, pack_look, traits
from visor.index.format.projection import query_vector
from visor.index.words.analysis import words_of
from visor.models.embedder import Embedder, moderate
from visor.near_duplicates.alignment import Aligner
from visor.near_duplicates.fingerprint import perceptual_hash
from visor.schema.items import Label, Safety
from visor.schema.search import PICTURES, Box, Filters, QueryAnswer, Region, SearchRequest
from visor.search.heat import regions
from visor.search.recent import RecentQueries
from visor.settings import Settings

EXCLUDED_FROM = 4
"""How many times finer than the model needs it a picture is decoded that parts are left out of: little may be left."""
PAUSE_MAX_S = 60.0
"""Longest pause of a host, for everybody, that one visitor's URL may bring about."""
SUM_MIN = 0.05
"""Length of a weighted mean of unit vectors below which it points nowhere."""
BOX_SIDE_MIN = 8
"""Pixels: a smaller box holds nothing to look at."""


@dataclass
class Query:
    """What is known of a query once it is a vector."""

    vector: np.ndarray
    """(d,) float32, or (0,) where only words were asked for."""
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
    """(258,) uint8 of `visor.index.format.looks`; of a link, only where it was answered across the gap."""
    is_across: bool = False
    """It stands on the visitors' side of the gap, and is answered across it."""
    closer: Query | None = None
    """The same with a closer look at the middle, where answers across the gap are possible."""
    handle: str | None = None
    """By which it can be asked for again, for some minutes, without its picture."""
    wanted: tuple[Query, ...] = ()
    """Where several pictures make the query: those that matches are to be like."""
    judged: np.ndarray | None = None
    """(d,) What confidence is computed of, where some are not to be like: those that are alone."""
    items: frozenset[str] = frozenset()
    """Ids of the items among several pictures."""
    regions: tuple[Region, ...] | None = None
    """What in the whole picture one may want to search for; None where that was not asked."""

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, but for small change."""
        held = self.vector, self.hashes, self.look
        arrays = sum(one.nbytes for one in held if one is not None)
        return arrays + sum(part.size_bytes for part in (self.aligner, self.closer) if part is not None)

    @property
    def traits(self) -> np.ndarray | None:
        """(d + 1162,) of `looks.traits`; None where there is no look."""
        return None if self.look is None else traits(self.vector[None], self.look[None])[0]


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


class QueryReader:
    """Reads what requests search for. Thread-safe."""

    def __init__(self, embedder: Embedder, fetcher: Fetcher, settings: Settings) -> None:
        self.embedder, self.fetcher, self.settings = embedder, fetcher, settings
        self.side = embedder.description.input_side
        # Pixels are what takes memory, and threads of their own keep a heap of that size each.
        self.decoding = ThreadPoolExecutor(settings.threads, thread_name_prefix="visor-decode")
        self.recent: RecentQueries[Query] = RecentQueries()

    def check(self, request: SearchRequest, upload: bytes | None, *, words_alone: bool = False) -> None:
        """Raise `BadRequest` unless exactly one thing is searched for, or several as examples; with `words_alone`, text
        or filters may be it, too."""
        given = [name for name in PICTURES if getattr(request, name) is not None]
        if upload is not None:
            given.insert(0, "image")
        if words_alone and request.text is not None:
            self._check_text(request, bool(given or request.examples))
        is_asked = words_alone and (request.text is not None or request.filters != Filters())
        if len(given) > 1 or not (given or request.examples or is_asked):
            raise BadRequest(
                f"The request has {' and '.join(given) or 'nothing to search for'}",
                valid=f"Exactly one of {', '.join(PICTURES)}; text, examples and filters go with it or stand alone",
                remedy="Send one",
            )
        if (request.box or request.exclude) and given not in (["image"], ["url"], ["handle"]):
            raise BadRequest(
                f"A box or excluded parts do not go with {given[0] if given else 'examples or text alone'}",
                valid="They go with a picture: image, url or handle",
                remedy="Send the picture, or leave them out",
            )

    def _check_text(self, request: SearchRequest, has_picture: bool) -> None:
        if request.metric is not None:
            raise BadRequest(
                "A metric does not go with text",
                valid="Text alone, or beside a picture in mode fast or exact",
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
                valid="It goes with a picture",
                remedy="Send a picture, or use min_confidence",
            )

    def picture(self, request: SearchRequest, upload: bytes | None, *, side: int | None = None) -> Image.Image:
        """What counts of the picture that a request brings.

        Args:
            side: Longest side in pixels of what is given; None: about what the model needs.

        Raises:
            BadRequest: It brings none.
            ImageError: It cannot be had or decoded.
        """
        for name in ("vector", "handle"):
            if getattr(request, name) is not None:
                remedy = "Send the picture that was searched for"
                raise BadRequest(f"A {name} shows nothing", valid="image, url or item", remedy=remedy)
        data = self._bytes(request, upload, Stopwatch())
        focused = self.decoding.submit(self._focused, data, request, side or self.side).result()[1]
        if side is not None:
            focused.thumbnail((side, side))
        return focused

    def pixels(self, data: bytes) -> Image.Image:
        """An image decoded no larger than the model needs. Raises `ImageError`."""
        side = self.embedder.description.input_side
        return (
            self.decoding.submit(decode_image, data, pixels_max=self.settings.pixels_max, side_hint=side)
            .result()
            .pixels
        )

    def query(
        self,
        request: SearchRequest,
        upload: bytes | None,
        watch: Stopwatch,
        *,
        closer: bool = False,
        mean: np.ndarray | None = None,
    ) -> Query:
        """The query of a picture or a vector; with a `closer` look, too, if that is wanted.

        Args:
            mean: As for `heat.regions`.

        Raises as `picture`, and:
            UnknownHandle: It is not, or not any more, known what was seen in that picture.
        """
        if request.vector is not None:
            vector, look = decode_vector(request.vector, self.embedder.dimension)
            return Query(vector=vector, look=look)
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
                f"Nothing is remembered of the picture {handle:.40}, or not of this part of it",
                valid="query.handle of an answer of the last minutes, with the same box and exclude",
                remedy="Send the picture again",
            )
        note_work("pictures")
        query, whole = self.decoding.submit(self._seen, data, request, watch, closer).result()
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
            colours = colour_signature(pixels)
            looks = [pack_look(one.probabilities[0], colours) for one in (embedded, *more)]
            also = None
            if more:
                # As links carry it, so that a link is answered as the picture was.
                vector, look = decode_vector(encode_vector(more[0].vectors[0], looks[1]), self.embedder.dimension)
                also = Query(vector=vector, look=look)
        query = Query(
            look=looks[0],
            closer=also,
            vector=embedded.vectors[0],
            hashes=hashes,
            aligner=Aligner(pixels),
            labels=embedded.labels[0],
            safety=moderate(embedded.safety[0], self.settings.unsafe_query),
            size=(image.width, image.height),
            format=image.format,
            blank=blank and blank.value,
        )
        return query, image.pixels

    def _focused(self, data: bytes, request: SearchRequest, side: int) -> tuple[DecodedImage, Image.Image]:
        """The picture, no larger than what counts of it needs to have that side, and what counts of it."""
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
                f"image is no base64: {exc}", valid="The picture's bytes in base64", remedy="Encode them"
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
        return query_vector(around, len(origin))

    return Query(
        vector=towards(queries),
        labels=wanted[0][0].labels if wanted else (),
        safety=queries[0][0].safety,
        wanted=tuple(query for query, _ in wanted),
        judged=towards(wanted) if 0 < len(wanted) < len(queries) else None,
        regions=next((query.regions for query, _ in queries if query.regions), ()),
        items=frozenset(query.item for query, _ in queries if query.item is not None),
    )


def encode_vector(vector: np.ndarray, look: np.ndarray | None) -> str:
    """What `decode_vector` reads."""
    return base64.b64encode(vector.astype("<f2").tobytes() + (b"" if look is None else look.tobytes())).decode()


def decode_vector(text: str, dimension: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The unit vector, float32 of shape `(dimension,)`, in base64 (also URL-safe) of little-endian float16, and the
    look (258,) uint8 that may follow it.

    Raises:
        BadRequest: It is no base64, of another length, or not finite.
    """
    try:
        data = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except ValueError as exc:
        raise BadRequest(f"vector is no base64: {exc}", valid="Base64 of little-endian float16") from exc
    if len(data) not in (2 * dimension, 2 * dimension + LOOK_BYTES):
        raise BadRequest(
            f"vector has {len(data)} bytes",
            valid=f"This index takes {2 * dimension}: {dimension} numbers of 2 bytes",
            remedy="Take query.vector from an answer of this index; after a change of model search the picture again",
        )
    look = np.frombuffer(data, np.uint8, offset=2 * dimension)
    return query_vector(np.frombuffer(data, "<f2", dimension), dimension), look if len(look) else None


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


def _corners(pixels: Image.Image, box: Box) -> tuple[int, int, int, int]:
    x, y, width, height = box
    columns, rows = pixels.size
    right, bottom = min(x + width, 1.0), min(y + height, 1.0)
    return round(x * columns), round(y * rows), round(right * columns), round(bottom * rows)


def query_answer(query: Query, *, with_handle: bool) -> QueryAnswer:
    # A vector alone does not say that nothing is in the picture, so none is given to link to.
    is_blank = query.blank is not None or not len(query.vector)
    vector = None if is_blank else encode_vector(query.vector, query.look if query.is_across else None)
    return QueryAnswer(
        vector=vector,
        item=query.item,
        width=query.size[0] if query.size else None,
        height=query.size[1] if query.size else None,
        format=query.format,
        blank=query.blank,
        handle=query.handle if with_handle else None,
    )
