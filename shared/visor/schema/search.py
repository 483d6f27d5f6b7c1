"""What a search takes and gives: filters, request, matches, answer."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from visor.schema.items import Item, Label, Record

ItemId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
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


FACETS = ("collection", "source", "country", "currency", "label")
"""Filters that take several values, and whose values are counted."""


class SearchRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/search`. Exactly one of `image`, `url`, `vector`, `item`, `handle` says what to search
    for.

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
    handle: str | None = None
    """A picture that was searched for minutes ago, as an answer's `query.handle` names it, with the same `box` and
    `exclude`. If it is forgotten (`unknown_handle`), send the picture again."""
    box: Box | None = None
    """Search within this part of the picture."""
    exclude: Annotated[tuple[Box, ...], Meta(max_length=64)] = ()
    """Parts of the picture that do not count."""
    k: Annotated[int, Meta(ge=1, le=200)] = 12
    filters: Filters = Filters()
    mode: Literal["fast", "exact"] = "fast"
    metric: str | None = None
    """A SciPy metric, on the full vectors; overrides `mode`."""
    leave_out: Annotated[tuple[ItemId, ...], Meta(max_length=200)] = ()
    """Ids of items that are not wanted, such as those that this searcher said are no match."""
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
    blank: str | None = None
    """Why there is nothing to compare in the picture, where that is so: no match is a copy of it or has a confidence.
    There is no `vector` then."""
    handle: str | None = None
    """To ask about this picture again within minutes without sending it: other filters, more matches."""


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

    item: str | None = None
    """Id of the item that is no match; none with `harmless`."""
    query_item: str | None = None
    query_vector: str | None = None
    verdict: Literal["not_a_match", "harmless"] = "not_a_match"
    """`harmless`: the query was held back as unsafe and should not have been. The owner reads it; nothing changes by
    itself."""


class Audit(Record, frozen=True, kw_only=True, omit_defaults=False):
    """`fast` answers of this process that were checked against `exact` ones."""

    samples: int
    recall_at_12: Fraction
    """Mean share of the 12 nearest that `fast` finds, over the last 1,000 checks."""
