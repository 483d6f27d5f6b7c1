"""The HTTP contract of the search function, from which its OpenAPI document is made."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from visor.schema import Item, Label, Record

Fraction = Annotated[float, Meta(ge=0, le=1)]
Box = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Meta(description="x, y, width, height as fractions")]


class PriceRange(Record, frozen=True, kw_only=True):
    """Bounds in the item's own currency, both ends included. Name a `currency` beside it to compare like with like."""

    min: float | None = None
    max: float | None = None


class Filters(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a match must be. Within one list any value will do; the lists must all hold."""

    collection: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    country: tuple[str, ...] = ()
    currency: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    price: PriceRange | None = None
    date_from: str | None = None
    date_to: str | None = None


class SearchRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/search`. Exactly one of `image`, `url`, `vector`, `item` says what to search for.

    The same endpoint takes `multipart/form-data` with a file part `image` and an optional part `request` that holds
    this document without an image.
    """

    image: str | None = None
    """A picture, base64."""
    url: str | None = None
    vector: str | None = None
    """Base64 of little-endian float16, as an answer's `query.vector` gives it."""
    item: str | None = None
    """Id of an indexed item: 'more like this'."""
    box: Box | None = None
    """Search within this part of the picture."""
    exclude: Annotated[tuple[Box, ...], Meta(max_length=64)] = ()
    """Parts of the picture that do not count."""
    k: Annotated[int, Meta(ge=1, le=200)] = 12
    filters: Filters = Filters()
    mode: Literal["fast", "exact"] = "fast"
    metric: str | None = None
    """A SciPy metric, on the full vectors; overrides `mode`."""
    facets: bool = False
    """Also count the facet values over the items that pass the filters."""


class Place(Record, frozen=True, kw_only=True):
    """One address at which the same picture stands."""

    item: str
    title: str = ""
    page_url: str | None = None
    image_url: str | None = None
    price: float | None = None
    currency: str | None = None


class Match(Record, frozen=True, kw_only=True):
    """One result."""

    item: Item
    similarity: float
    """Cosine in the similarity space, or 1 − distance of a named metric where that is bounded; greater is nearer."""
    confidence: Fraction
    """Calibrated probability that this is such a match."""
    verdict: Literal["exact", "edited", "similar"]
    places: tuple[Place, ...] = ()
    labels: tuple[Label, ...] = ()
    indexed_at: str | None = None


class Guess(Record, frozen=True, kw_only=True):
    """The kind that the neighbours' collections suggest."""

    collection: str
    probability: Fraction


class SafetyAnswer(Record, frozen=True, kw_only=True):
    unsafe: bool
    probabilities: dict[str, float]


class QueryAnswer(Record, frozen=True, kw_only=True):
    """What was searched for, to link to it."""

    vector: str | None = None
    item: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None


class IndexAnswer(Record, frozen=True, kw_only=True):
    images: int
    generation: int
    model: str


class FacetValue(Record, frozen=True, kw_only=True):
    value: str
    count: int


class FacetsAnswer(Record, frozen=True, kw_only=True):
    """Counts over the items that pass the filters (`GET /v1/facets` without filters: over all)."""

    images: int
    collection: tuple[FacetValue, ...] = ()
    source: tuple[FacetValue, ...] = ()
    country: tuple[FacetValue, ...] = ()
    currency: tuple[FacetValue, ...] = ()
    label: tuple[FacetValue, ...] = ()
    price_min: float | None = None
    price_max: float | None = None


class SearchAnswer(Record, frozen=True, kw_only=True):
    """The answer of `POST /v1/search`."""

    matches: tuple[Match, ...]
    confidence: Fraction
    """Calibrated probability that the catalogue holds what was asked for."""
    no_confident_match: bool
    mode: Literal["fast", "exact", "metric"]
    """Which way was taken."""
    metric: str | None = None
    guess: Guess | None = None
    labels: tuple[Label, ...] = ()
    safety: SafetyAnswer | None = None
    """An unsafe query is answered without matches."""
    query: QueryAnswer
    index: IndexAnswer
    facets: FacetsAnswer | None = None
    timing_ms: dict[str, float]
    """Milliseconds by stage: fetch, decode, embed, scan, items, total; only stages that ran."""
    notice: str | None = None
    """A sentence when part of the index could not be read and the answer is right without it."""


class Problem(Record, frozen=True, kw_only=True):
    """RFC 9457 problem document (`application/problem+json`)."""

    type: str
    title: str
    status: int
    detail: str
    """What was found, what is valid, what to do."""
    found: str = ""
    valid: str = ""
    remedy: str = ""


class ItemsAnswer(Record, frozen=True, kw_only=True):
    """Some items to start from (`GET /v1/items`)."""

    items: tuple[Item, ...]


class ItemAnswer(Record, frozen=True, kw_only=True):
    """One item (`GET /v1/items/{id}`)."""

    item: Item
    indexed_at: str
    width: int
    height: int
    labels: tuple[Label, ...] = ()


class PushItem(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item that its owner sends (`POST /v1/items`): the JSON body, or a line of `application/x-ndjson`."""

    key: Annotated[str, Meta(min_length=1, max_length=500)]
    """The sender's own stable key; the same key later replaces the item."""
    image_url: Annotated[str, Meta(max_length=2000)] | None = None
    """Required unless `deleted`."""
    page_url: Annotated[str, Meta(max_length=2000)] | None = None
    title: str = ""
    description: str | None = None
    price: float | None = None
    currency: Annotated[str, Meta(pattern="^[A-Za-z]{3}$")] | None = None
    """ISO 4217."""
    collection: str | None = None
    country: str | None = None
    date: str | None = None
    """ISO 8601."""
    licence: str | None = None
    author: str | None = None
    image_etag: str | None = None
    """Anything that changes when the picture at `image_url` does; it is then embedded anew."""
    image_modified: str | None = None
    extra: Annotated[dict[str, str], Meta(max_length=50)] = msgspec.field(default_factory=dict)
    deleted: bool = False
    """The item is gone."""


class PushedItem(Record, frozen=True, kw_only=True):
    """What became of one pushed item."""

    line: int
    """From 1."""
    key: str | None = None
    id: str | None = None
    state: Literal["accepted", "refused"]
    """`accepted`: it is in the queue, and searchable once it is embedded."""
    reason: str | None = None


class PushAnswer(Record, frozen=True, kw_only=True):
    """What became of each pushed item, in their order."""

    accepted: int = 0
    refused: int = 0
    items: tuple[PushedItem, ...] = ()


class HealthAnswer(Record, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"
    images: int
    version: str


class ModelAnswer(Record, frozen=True, kw_only=True):
    """Which model makes the vectors, for the about panel."""

    name: str
    fingerprint: str
    dimension: int
    summary: str
    licences: str


class MeterAnswer(Record, frozen=True, kw_only=True):
    """What was used of one free allowance, in its own unit (bytes, seconds, operations)."""

    resource: str
    service: str
    metric: str
    per: Literal["day", "month"]
    used: float
    limit: float
    """Where Visor stops."""
    free: float
    """What Google gives."""


class ExplainRequest(SearchRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/explain`: a search, and one of its matches. Of the search, what says which picture was
    searched for counts: `image`, `url` or `item`, `box` and `exclude`."""

    match: str
    """Id of the item to compare with."""


class HeatMap(Record, frozen=True, kw_only=True):
    """How much of the likeness sits where: cells over the picture, row by row from its top left; the hottest has 1."""

    width: int
    height: int
    values: tuple[Fraction, ...]


class ExplainAnswer(Record, frozen=True, kw_only=True):
    """Where in two pictures their likeness sits (`POST /v1/explain`). `query` and `item` are the same as grey PNG in
    base64, bright where it is hot."""

    query: str
    item: str
    query_grid: HeatMap
    item_grid: HeatMap


class FeedbackRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/feedback`. Exactly one of `query_item` and `query_vector` says what was
    searched for, as `query` of the answer has them."""

    item: str
    """Id of the item that is no match."""
    query_item: str | None = None
    query_vector: str | None = None
    verdict: Literal["not_a_match"] = "not_a_match"


class FeedbackAnswer(Record, frozen=True, kw_only=True, omit_defaults=False):
    """That the pair is kept, and hidden from now on."""

    kept: bool = True


class Audit(Record, frozen=True, kw_only=True, omit_defaults=False):
    """`fast` answers of this process that were checked against `exact` ones."""

    samples: int
    recall_at_12: Fraction
    """Mean share of the 12 nearest that `fast` finds, over the last 1,000 checks."""


class StatsAnswer(Record, frozen=True, kw_only=True):
    """What the index holds and how this process is doing (`GET /v1/stats`)."""

    images: int
    generation: int
    model: ModelAnswer
    segments: int
    fresh: int
    """Items that are searchable but not yet in a segment."""
    searches: int
    """Answered by this process since it started."""
    stages_ms: dict[str, dict[str, float]]
    """By stage: p50 and p99 over this process's last searches."""
    capabilities: tuple[str, ...] = ()
    """What this server offers beyond searching: explain, feedback."""
    audit: Audit | None = None
    """None before the first check."""
    meters: tuple[MeterAnswer, ...] = ()
    notice: str | None = None
