"""The request and the answer of a search, with its filters and matches."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from visor.schema.attributes import AttributeType
from visor.schema.items import Item, Label, Record

ItemId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Box = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], Meta(description="x, y, width, height as fractions")]


class PriceRange(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds in the item's own currency, both inclusive. Add a `currency` filter to compare prices of one currency."""

    min: float | None = None
    max: float | None = None


class Condition(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions on one attribute of a match; all that are given must hold.

    Numbers compare as numbers and dates by the day; `flag` attributes are `true` or `false`.
    """

    any: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    """One of these values."""
    none: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    """None of these values; an item without the attribute passes."""
    min: float | str | None = None
    """At least this number, or this ISO 8601 date."""
    max: float | str | None = None
    missing: bool | None = None
    """True: only items without the attribute; false: only items with it."""


class Filters(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions on a match. Within one list any value suffices; all lists must hold."""

    collection: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    country: tuple[str, ...] = ()
    currency: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    price: PriceRange | None = None
    date_from: str | None = None
    date_to: str | None = None
    attributes: Annotated[dict[str, Condition], Meta(max_length=32)] = field(default_factory=dict)
    """By the name of a facet (`collection` … `label`), `price`, `date`, or an attribute declared in `visor.toml`."""


FACETS = ("collection", "source", "country", "currency", "label")
"""Filters that take several values, and whose values are counted."""


TEXT_MAX = 400
"""Characters of a text that is searched for."""
EXAMPLES_MAX = 8
PICTURES = ("image", "url", "vector", "item", "handle", "seen")
"""Fields that name a picture, in a request and in each of its examples."""
Side = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Probability = Annotated[float, Meta(ge=0, le=1.000001)]
"""In [0, 1], with room for a network's float32 rounding."""


class SeenLabel(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    """One of `label_names` of `GET /v1/model`."""
    probability: Probability


class Seen(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sender's own device computed from a picture, with the model that `GET /v1/model` describes. The picture
    itself is not sent; a box or excluded parts were applied before."""

    model: str
    """Fingerprint of the model that was run. Any but the index's is refused (`other_model`)."""
    vector: str
    """Base64 of the vector, little-endian float16, and the 258 bytes of its look."""
    closer: str | None = None
    """The same for closer views of the middle, if `GET /v1/model` requests them (`closer`)."""
    hash: str
    """Base64 of the 140 bytes of its perceptual hash and sketch."""
    labels: Annotated[tuple[SeenLabel, ...], Meta(max_length=5)] = ()
    """The most probable ones, most probable first."""
    safety: Annotated[dict[str, Probability], Meta(max_length=5)] | None = None
    """Probability of each class of the safety head; None without such a head."""
    blank: str | None = None
    """If the picture shows nothing to compare: why, in the words of an answer's `query.blank`."""
    width: Side
    height: Side
    """In pixels, of the original picture."""


Weight = Annotated[float, Meta(ge=-1, le=1)]


class Example(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One picture among several, given as exactly one of `image`, `url`, `vector`, `item`, `handle`, `seen`."""

    image: str | None = None
    """A picture, base64."""
    url: str | None = None
    vector: str | None = None
    item: str | None = None
    handle: str | None = None
    seen: Seen | None = None
    box: Box | None = None
    weight: Weight = 1.0
    """How much it counts relative to the others; below 0, matches should not be like it."""


Sort = Literal["likeness", "price_up", "price_down", "newest", "oldest", "largest", "smallest", "most_changed"]


class SearchRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/search`. At most one of `image`, `url`, `vector`, `item`, `handle`, `seen` names the
    picture to search for; `text`, `examples` and `filters` can be added or used alone. Something must be given.

    The same endpoint takes `multipart/form-data` with a file part `image` and an optional part `request` that holds
    this document without an image.
    """

    image: str | None = None
    """A picture, base64."""
    url: str | None = None
    vector: str | None = None
    """Base64 of little-endian float16, as in an answer's `query.vector`."""
    item: str | None = None
    """Id of an indexed item: 'more like this'."""
    handle: str | None = None
    """A picture that was searched for minutes ago, by its `query.handle` from that answer, with the same `box` and
    `exclude`. If it has been forgotten (`unknown_handle`), send the picture again."""
    seen: Seen | None = None
    """What the sender's own device computed from a picture that it keeps to itself."""
    remember: bool = False
    """Return a `query.handle` for the picture."""
    link: bool = True
    """Return `query.vector`, which is half of an answer's bytes; a device that sent `seen` has it."""
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
    """Ids of unwanted items, such as those that this searcher reported as wrong matches."""
    facets: bool = False
    """Also count the facet values of the items that pass the filters and, with `text` alone, that the text finds."""
    text: Annotated[str, Meta(max_length=TEXT_MAX)] | None = None
    """Words to search for, alone or together with a picture."""
    examples: Annotated[tuple[Example, ...], Meta(max_length=EXAMPLES_MAX)] = ()
    """Further pictures, wanted or not."""
    sort: Sort = "likeness"
    """Order of the matches; `largest` and `smallest` by the pixels of the picture, `most_changed` by least likeness
    among copies of the query. Items without the value come last."""
    nearest: Annotated[int, Meta(ge=0, le=200)] = 0
    """With another order than `likeness`: order only this many of the nearest matches; 0: all that pass."""
    min_confidence: Fraction = 0.0
    """Leave out matches with less confidence."""
    min_similarity: Annotated[float, Meta(ge=-1, le=1)] | None = None
    """Leave out matches with less similarity."""
    after: Annotated[str, Meta(max_length=2000)] | None = None
    """Continue after an earlier answer: its `next`, in an otherwise unchanged request."""
    variety: Fraction = 0.0
    """0: the nearest first. Towards 1: matches less like each other (maximal marginal relevance)."""
    group: bool = True
    """One result per product, with its best picture; false: every picture."""
    regions: bool = False
    """Also suggest parts of the picture to search for, up to four. This takes about as long again as embedding the
    picture, and counts as up to five searches. Not for `item`, `vector`, `seen` or `text`."""


class Place(Record, frozen=True, kw_only=True):
    """One page that shows the same picture."""

    item: str
    title: str = ""
    page_url: str | None = None
    image_url: str | None = None
    price: float | None = None
    currency: str | None = None


class Highlight(Record, frozen=True, kw_only=True):
    """Where an item's text has the words searched for."""

    field: str
    """`title`, `description`, `collection`, `brand`, `labels`, or the name of an attribute."""
    text: str
    """The field's text, cut to the part around the words."""
    spans: tuple[tuple[int, int], ...]
    """Start and end of each word that matched, in characters of `text`."""


class Match(Record, frozen=True, kw_only=True):
    """One result."""

    item: Item
    similarity: float | None
    """Cosine in the similarity space, or for a named metric 1 − distance if that is bounded and 1 / (1 + distance) if
    not; greater is nearer. None for a search by words alone."""
    confidence: Fraction
    """Calibrated probability that this match is right."""
    verdict: Literal["exact", "edited", "similar"] | None
    """How its picture relates to the query's picture; None for a search by words alone."""
    places: tuple[Place, ...] = ()
    labels: tuple[Label, ...] = ()
    indexed_at: str | None = None
    text_score: float | None = None
    """BM25 of the words searched for; None without words, or if none matched."""
    highlights: tuple[Highlight, ...] = ()
    product: tuple[Place, ...] = ()
    """The other items of its product, best first."""


GUESS_FROM = 12
"""Number of matches whose collections vote on the kind."""


class Guess(Record, frozen=True, kw_only=True):
    """The kind that the neighbours' collections suggest."""

    collection: str
    probability: Fraction


class SafetyAnswer(Record, frozen=True, kw_only=True):
    unsafe: bool
    probabilities: dict[str, float]


class QueryAnswer(Record, frozen=True, kw_only=True):
    """The picture that was searched for, so that a link can name it."""

    vector: str | None = None
    is_across: bool = False
    """Whether it was compared by more than its vector: then `vector` is of the closer views, as in `seen.closer`."""
    item: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    blank: str | None = None
    """If the picture shows nothing to compare: why. Then no match is a copy of it or has a confidence, and there is no
    `vector`."""
    handle: str | None = None
    """Names this picture in further searches within minutes, without sending it: other filters, more matches."""


class IndexAnswer(Record, frozen=True, kw_only=True):
    images: int
    generation: int
    model: str


class FacetValue(Record, frozen=True, kw_only=True):
    value: str
    count: int


class AttributeFacet(Record, frozen=True, kw_only=True):
    """Values of one declared attribute among the items that pass."""

    type: AttributeType
    values: tuple[FacetValue, ...] = ()
    min: float | str | None = None
    max: float | str | None = None
    missing: int = 0


class RangeCount(Record, frozen=True, kw_only=True):
    """How many items are in a range: `min` included, `max` only in the last range. Numbers, or ISO 8601 dates."""

    min: float | str
    max: float | str
    count: int


class FacetsAnswer(Record, frozen=True, kw_only=True):
    """Counts over the items that pass the filters; `GET /v1/facets` without filters counts all items."""

    images: int
    collection: tuple[FacetValue, ...] = ()
    source: tuple[FacetValue, ...] = ()
    country: tuple[FacetValue, ...] = ()
    currency: tuple[FacetValue, ...] = ()
    label: tuple[FacetValue, ...] = ()
    price_min: float | None = None
    price_max: float | None = None
    price_ranges: tuple[RangeCount, ...] = ()
    date_ranges: tuple[RangeCount, ...] = ()
    attributes: dict[str, AttributeFacet] = field(default_factory=dict)


class Region(Record, frozen=True, kw_only=True):
    """A part of the query's picture that is worth a search."""

    box: Box
    """Within the whole picture, whatever part of it was searched for."""
    label: str | None = None
    """What the model sees there, if it is fairly sure."""


class Notice(Record, frozen=True, kw_only=True):
    """Something that whoever reads an answer has to know."""

    code: Literal[
        "attribute_partly_known",
        "currencies",
        "index_partly_read",
        "items_lost",
        "listed_first",
        "merged",
        "only_picture",
        "words_unknown",
    ]
    text: str
    """In English; the owner's remedy in it is not for visitors."""
    values: dict[str, str | int] = field(default_factory=dict)
    """What a translation by `code` fills in."""


class SearchAnswer(Record, frozen=True, kw_only=True):
    """The answer of `POST /v1/search`."""

    matches: tuple[Match, ...]
    confidence: Fraction
    """Calibrated probability that the catalogue holds what was searched for."""
    no_confident_match: bool
    mode: Literal["fast", "exact", "metric"]
    """How the search was done."""
    metric: str | None = None
    guess: Guess | None = None
    labels: tuple[Label, ...] = ()
    safety: SafetyAnswer | None = None
    """An unsafe query is answered without matches."""
    query: QueryAnswer
    index: IndexAnswer
    facets: FacetsAnswer | None = None
    next: str | None = None
    """The value to send as `after` for the next matches; None at the end."""
    total: int | None = None
    """How many items can be returned in all, or products if they are grouped; None if unknown. Near-duplicates are one
    match, but are counted one by one."""
    regions: tuple[Region, ...] = ()
    timing_ms: dict[str, float]
    """Milliseconds by stage: fetch, decode, embed, scan, items, total; only stages that ran."""
    notice: str | None = None
    """The texts of `notices`."""
    notices: tuple[Notice, ...] = ()
    """What to know of the answer: part of the index could not be read, prices are of several currencies."""


class SearchesRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/searches`: up to 16 searches at once, each counted as one."""

    searches: Annotated[tuple[SearchRequest, ...], Meta(min_length=1, max_length=16)]


class Picture(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A picture to compare, given as exactly one of `image`, `url`, `item`."""

    image: str | None = None
    url: str | None = None
    item: str | None = None
    box: Box | None = None


class CompareRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/compare`."""

    first: Picture
    second: Picture


class CompareAnswer(Record, frozen=True, kw_only=True):
    """What two pictures have in common (`POST /v1/compare`)."""

    verdict: Literal["exact", "edited", "similar"]
    similarity: float
    confidence: Fraction
    """Calibrated probability that one would be found as a match for the other."""
    first: str
    """The first picture as JPEG in base64, no larger than 800 pixels."""
    second: str
    """The second picture; if they were aligned, laid over the first and of the same size."""
    is_aligned: bool
    difference: str | None = None
    """Grey PNG in base64, bright where the aligned pictures differ."""


class ExplainRequest(SearchRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/explain`: a search, and one of its matches. Only the fields of the search that name
    its picture count: `image`, `url`, `item` or `seen`, `box` and `exclude`."""

    match: str
    """Id of the item to compare with."""


class HeatMap(Record, frozen=True, kw_only=True):
    """How much each cell of a picture adds to the likeness, row by row from its top left; the hottest has 1."""

    width: int
    height: int
    values: tuple[Fraction, ...]


class ExplainAnswer(Record, frozen=True, kw_only=True):
    """Where two pictures are alike (`POST /v1/explain`). `query` and `item` are the heat maps as grey PNG in base64,
    bright where they are hot. For a picture that was `seen` elsewhere there are `shares` in place of `query`."""

    query: str | None = None
    item: str
    query_grid: HeatMap | None = None
    item_grid: HeatMap
    shares: str | None = None
    """Base64 of little-endian float16: how much each number of the vector adds to the likeness, at least 0. The device
    distributes each over the positions of its feature map, by their activation."""


class FeedbackRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON body of `POST /v1/feedback`. Exactly one of `query_item` and `query_vector` names the picture searched
    for, with `item` or `vector` of the answer's `query`."""

    item: str | None = None
    """Id of the item that is not a match; none with `harmless`."""
    query_item: str | None = None
    query_vector: str | None = None
    verdict: Literal["not_a_match", "harmless"] = "not_a_match"
    """`harmless`: the query was held back as unsafe and should not have been. The owner reads the report; nothing
    changes by itself."""


class Audit(Record, frozen=True, kw_only=True, omit_defaults=False):
    """`fast` answers of this process that were checked against `exact` ones."""

    samples: int
    recall_at_12: Fraction
    """Mean share of the 12 nearest that `fast` finds, over the last 1,000 checks."""
