"""The records that travel between crawl, embed, compact and search. Frozen, typed, JSON on the wire."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from visor.errors import CorruptObject, DropItem
from visor.schema.attributes import AttributeType
from visor.schema.labels import is_facet
from visor.schema.words import counted, stems

LOG = logging.getLogger("visor.documents")
BATCH_SIZE_MAX = 64
"""Items in one batch, so that a commit stays far below Firestore's 500 writes and a message below 10 MB."""


ITEM_BYTES_MAX = 131_072
"""Limit of an item as JSON: 64 of them stay below what one commit of Firestore accepts."""
NAME_BYTES_MAX = 500
"""Limit of an attribute's name."""
PRICE_MAX = 1e15
SEARCHED = ("brand", "category")
"""Attributes that a text search covers, besides the declared keywords."""
TEXT_BYTES_MAX = 2_000
"""Limit of an item's searchable texts: 64 times this stays far below the 1 MiB of a Firestore document."""

_SURROGATE = re.compile("[\ud800-\udfff]")

ITEM_ID = re.compile(r"[0-9a-f]{32}\Z")


def item_id(source: str, key: str) -> str:
    """The stable id of a source's item: 32 hex digits (128 bits of BLAKE2b over source name and the source's key)."""
    return hashlib.blake2b(f"{source}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all records: immutable and keyword-only; JSON omits fields that have their default."""


RecordType = TypeVar("RecordType", bound=Record)


class Item(Record, frozen=True, kw_only=True):
    """One catalogue entry with one image."""

    id: str
    """`item_id(source, key)`."""
    source: str
    """The name of the source that read it, as the owner named it."""
    key: str
    """The source's own stable key."""
    image_url: str
    page_url: str | None = None
    title: str = ""
    description: str | None = None
    price: float | None = None
    currency: str | None = None
    """ISO 4217."""
    collection: str | None = None
    country: str | None = None
    """ISO 3166-1 alpha-2 where the source knows it."""
    date: str | None = None
    """ISO 8601 date or date-time at which the source published or changed it."""
    licence: str | None = None
    author: str | None = None
    group: str | None = None
    """The source's own key of the product of which this is a picture or variant."""
    image_etag: str | None = None
    """The image's own validators, if the catalogue has them: a change means that the picture changed. With an
    `image_etag`, nothing else means that: the same picture may move, and its URL may be signed anew each time."""
    image_modified: str | None = None
    extra: dict[str, str] = {}
    """Further facts that a source knows and the page may show: availability, brand, seconds into a video …"""
    attributes: dict[str, AttributeType] = {}
    """The fields of `extra` that its owner had declared when it was read, to filter and count by."""

    def image_signature(self) -> bytes:
        """8 bytes that change when the picture has to be embedded anew: its validator, or else its URL, is new."""
        if self.image_etag:
            return _digest("etag", self.image_etag)
        return _digest(self.image_url, None, self.image_modified)

    def metadata_signature(self) -> bytes:
        """8 bytes that change when anything that is shown or filtered by changes."""
        return _digest(msgspec.json.encode(self, order="deterministic").decode())


def is_attribute_name(name: str) -> bool:
    """Whether every store can keep a value of that name in an item's `extra`."""
    return bool(name.strip()) and not name.startswith("__") and len(name.encode(errors="replace")) <= NAME_BYTES_MAX


def checked_item(item: Item, attributes: Mapping[str, AttributeType] | None = None) -> Item:
    """The item as every store, queue and answer accepts it: half an emoji becomes U+FFFD, an invalid price is removed.

    Every published item passes through here once, whoever made it.

    Args:
        attributes: The fields of `extra` that its owner declares; None: those in the item.

    Raises:
        DropItem: A value has another type than its field, an attribute has no usable name, or the item is too large.
    """
    if attributes is not None:
        item = msgspec.structs.replace(item, attributes=dict(attributes))
    try:
        text = msgspec.json.encode(_without_surrogates(msgspec.to_builtins(item)))
        item = msgspec.json.decode(text, type=Item)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise DropItem(f"it cannot be written down: {exc}") from exc
    if len(text) > ITEM_BYTES_MAX:
        raise DropItem(f"its texts have {len(text):,} bytes; at most {ITEM_BYTES_MAX:,} are allowed")
    if not ITEM_ID.match(item.id):
        raise DropItem(f"its id {item.id!r:.80} is not what item_id gives: 32 hexadecimal digits")
    for name in item.extra:
        if not is_attribute_name(name):
            raise DropItem(
                f"it has an attribute called {name!r:.80}; valid are 1 to {NAME_BYTES_MAX} bytes that do not begin "
                "with '__'"
            )
    if item.price is not None and not 0 <= item.price <= PRICE_MAX:
        return msgspec.structs.replace(item, price=None, currency=None)
    return item


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(inner) for inner in value]
    return value


class Change(Record, frozen=True, kw_only=True):
    """What a crawl found out about one item.

    `embed`: new, or its picture changed. `update`: only metadata changed, the vector stays. `delete`: a tombstone.
    """

    action: Literal["embed", "update", "delete"]
    item: Item
    version: int
    """Grows from crawl to crawl for one item (milliseconds since 1970, never decreasing): the newest version wins."""

    @classmethod
    def deletion(cls, item: str, source: str, version: int, *, key: str = "") -> Change:
        """The tombstone of the item with this id."""
        return cls(action="delete", item=Item(id=item, source=source, key=key, image_url=""), version=version)


class Batch(Record, frozen=True, kw_only=True):
    """At most 64 changes of one source in one message."""

    id: str
    source: str
    run: str
    changes: tuple[Change, ...]

    @classmethod
    def of(cls, source: str, run: str, changes: tuple[Change, ...]) -> Batch:
        """A batch with an id made from its content, so that publishing it twice makes the same objects."""
        content = ((c.action, c.item.id, c.version) for c in changes)
        digest = hashlib.blake2b(msgspec.json.encode(sorted(content)), digest_size=16).hexdigest()
        return cls(id=digest, source=source, run=run, changes=changes)

    def cut(self, size: int) -> list[Batch]:
        """Its changes in batches of at most `size`."""
        starts = range(0, len(self.changes), size)
        return [Batch.of(self.source, self.run, self.changes[start : start + size]) for start in starts]


class Label(Record, frozen=True, kw_only=True):
    """One content label of a picture with its probability in [0, 1]."""

    name: str
    probability: float


class Safety(Record, frozen=True, kw_only=True):
    """The safety head's output: probabilities of drawing, hentai, neutral, porn and sexy (sum 1)."""

    probabilities: dict[str, float]
    unsafe: bool


class IndexedItem(Record, frozen=True, kw_only=True):
    """The document of one searchable item (collection `items`, keyed by item id)."""

    item: Item
    version: int
    model: str
    """Fingerprint of the model that made its vector."""
    shard: str
    """Name of the shard object that its vector was first written to."""
    indexed_at: str
    width: int
    height: int
    labels: tuple[Label, ...] = ()
    safety: Safety | None = None
    blank: str | None = None
    """If its picture shows nothing to compare: why, as a sentence."""


def is_live(data: Mapping[str, Any] | None) -> bool:
    """Whether an item with this document is searchable: there is one, and it does not record a deletion."""
    return data is not None and not data.get("gone")


def live_item(data: Mapping[str, Any] | None) -> IndexedItem | None:
    """The item in a document; None if it is not searchable. Raises what `as_record` does."""
    return as_record(data, IndexedItem) if is_live(data) else None


def as_record(data: object, type_: type[RecordType]) -> RecordType:
    """A document as a record of that type.

    Raises:
        CorruptObject: The document does not fit the type.
    """
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as exc:
        raise CorruptObject(
            f"A document is damaged: {exc}",
            valid=f"A {type_.__name__}, as Visor wrote it",
            remedy="Run `visor check --repair`",
        ) from exc


class Failure(Record, frozen=True, kw_only=True):
    """Why an item is not searchable, or why it is not taken for a copy of another (`nothing_to_compare`); collection
    `failures`, keyed by item id."""

    item: str
    source: str
    image_url: str
    version: int
    batch: str
    code: str
    """The `code` of the error class, e.g. `fetch_failed`."""
    reason: str
    """The whole message."""
    retriable: bool
    """The queue will still deliver its batch again."""
    at: str
    model: str = ""
    wanted: Item | None = None
    """The item to embed on another try."""
    certain: bool = False
    """Another try will fail in the same way, unless a setting in `settings` has changed."""
    settings: dict[str, str] = {}
    """The settings that the reason names, with their values at the time."""
    tries: int = 1
    next_at: float | None = None
    """When a scheduled crawl tries again, in seconds since 1970; None: never by itself."""
    again: bool = False
    """It was published once more and has not been embedded since."""

    @property
    def name(self) -> str:
        """The name that its owner knows."""
        return self.wanted.key if self.wanted else self.image_url or self.item


class FacetRow(Record, frozen=True, kw_only=True):
    """The values that one item can be filtered by; `None` where the item has no value."""

    collection: str | None = None
    source: str | None = None
    country: str | None = None
    currency: str | None = None
    price: float | None = None
    date: str | None = None
    labels: tuple[str, ...] = ()
    """Most probable first."""
    facet_labels: tuple[str, ...] | None = None
    """Those of `labels` that the item can be filtered by; None: all of them."""
    words: tuple[str, ...] = ()
    """Stems of the words in its title, collection and category, to compare with the names of a query's labels."""
    texts: dict[str, str] | None = None
    """The texts that a text search covers, by field: title, description and attributes; None in older objects."""
    product: str | None = None
    """16 hex digits, the same for all items of one product."""
    pixels: int = 0
    """Number of pixels in its picture, width times height; 0 if unknown."""
    declared: dict[str, AttributeType] = {}
    """The attributes that were declared when it was read."""
    values: dict[str, str] = {}
    """Its values of these attributes."""

    @classmethod
    def of(cls, item: Item, labels: tuple[Label, ...] = (), size: tuple[int, int] = (0, 0)) -> FacetRow:
        """`size`: width and height of the picture."""
        return cls(
            collection=item.collection,
            source=item.source,
            country=item.country,
            currency=item.currency,
            price=item.price,
            date=item.date,
            labels=tuple(label.name for label in labels),
            words=stems(" ".join((item.title, item.collection or "", item.extra.get("category", "")))),
            facet_labels=tuple(
                label.name for label in labels if is_facet(label.name, label.probability, item.title, item.collection)
            ),
            texts=item_texts(item),
            product=None if item.group is None else _digest(item.source, item.group).hex(),
            pixels=size[0] * size[1],
            declared=item.attributes,
            values={name: item.extra[name] for name in item.attributes if name in item.extra},
        )


def item_texts(item: Item) -> dict[str, str]:
    """The item's texts that a text search covers, by field, without collection and labels: 2,000 bytes at most."""
    named = (*SEARCHED, *(name for name, type_ in item.attributes.items() if type_ == "keyword"))
    extra = {name: item.extra[name] for name in named if item.extra.get(name)}
    texts, left = {}, TEXT_BYTES_MAX
    for name, text in ({"title": item.title} | extra | {"description": item.description or ""}).items():
        kept = text.encode()[:left].decode(errors="ignore")
        left -= len(kept.encode())
        if kept:
            texts[name] = kept
    return texts


def said_of(row: FacetRow) -> dict[str, str]:
    """All of an item's texts that a text search covers, by field; empty if they were not kept."""
    if row.texts is None:
        return {}
    labels = row.labels if row.facet_labels is None else row.facet_labels
    return row.texts | {"collection": row.collection or "", "labels": ", ".join(labels)}


class FacetUpdate(Record, frozen=True, kw_only=True):
    """New facet values for an item that keeps its vector."""

    id: str
    version: int
    facets: FacetRow


class Tombstone(Record, frozen=True, kw_only=True):
    """The record that an item was deleted: hides every version up to and including this one."""

    id: str
    version: int


class ShardCommit(Record, frozen=True, kw_only=True):
    """The document that makes a shard's vectors, updates and tombstones visible (collection `commits`).

    Its key is the shard's object name without folder and extension. The store's clock fills in `committed_at`.
    """

    batch: str
    model: str | None = None
    shard: str | None = None
    """Object name; None if the batch held only updates and tombstones."""
    count: int = 0
    updates: tuple[FacetUpdate, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()
    manifest: int | None = None
    """Set only on the record `manifest`, with which a merge tells running searches to read the manifest again."""
    trace: str = ""
    """W3C `traceparent` of the embed that wrote it, if it was traced."""


RunState = Literal["running", "complete", "empty", "postponed", "failed"]


class CrawlRun(Record, frozen=True, kw_only=True):
    """What one run of a crawl did (collection `runs`)."""

    id: str
    source: str
    started_at: str
    ended_at: str | None = None
    state: RunState = "running"
    """`postponed`: stopped before its time budget ended; the next run goes on from the checkpoint. `empty`: it read the
    whole catalogue and found nothing; `why` has the likeliest cause."""
    seen: int = 0
    published: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: int = 0
    why: str = ""
    code: str = ""
    """Code of the error that a failed run ended with."""
    listed: int = 0
    """Items that the source lists, as far as the crawl knows after this run."""
    failures: dict[str, int] = {}
    """Rows that failed, by reason."""
    lacking: dict[str, int] = {}
    """Details left out of rows that did not fail, such as a price that cannot be read, by reason."""
    passed_over: dict[str, int] = {}
    """Entries that the source left out on purpose, by reason."""

    def summary(self) -> str:
        """One line on what the run did."""
        return (
            f"{self.state}: {counted(self.seen, 'item')} seen, {self.published} to embed, {self.updated} changed, "
            f"{self.deleted} gone, {self.unchanged} unchanged, {self.failed} failed"
        )

    def account(self) -> list[str]:
        """What was left out: one line for each reason, the most frequent first."""
        failed = [(count, f"{count:,} failed: {reason}") for reason, count in self.failures.items()]
        lacking = [(count, f"{counted(count, 'detail')} left out: {reason}") for reason, count in self.lacking.items()]
        left = [(count, f"{count:,} passed over: {reason}") for reason, count in self.passed_over.items()]
        return [line for _, line in sorted(failed + lacking + left, key=lambda one: -one[0])]


def as_document(record: Record) -> dict[str, Any]:
    """A record as plain values that every document store takes."""
    document = _without_surrogates(msgspec.to_builtins(record))
    if not isinstance(document, dict):
        raise TypeError(f"{type(record).__name__} does not become a document")
    return document


def as_records(found: Iterable[Any], type_: type[RecordType]) -> Iterator[tuple[Any, RecordType]]:
    """The stored documents, each with its record of that type.

    A damaged document is left out and logged, so that the others are still read; `visor check` names it.
    """
    for document in found:
        try:
            yield document, as_record(document.data, type_)
        except CorruptObject as exc:
            LOG.warning("Document %s is left out: %s", document.key, exc)


def _digest(*parts: str | None) -> bytes:
    text = "\0".join("" if part is None else part for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
