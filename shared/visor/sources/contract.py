"""The contract of a source.

A source reads one kind of catalogue and yields its items page by page. It is stateless: the crawl keeps its
checkpoint, compares its items with those of the last pass, and publishes what changed. A source is a class that is
registered in the entry-point group `visor.sources` under the name of its kind:

    class MySource:
        Config = MyConfig                                   # a SourceConfig: frozen, unknown keys are errors
        def __init__(self, name: str, config: MyConfig, context: SourceContext) -> None: ...
        def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]: ...

The contract of `read`, which `visor.testing.check_source` checks:
- Without a checkpoint it starts a pass at the beginning of the catalogue. With the checkpoint of a page of an earlier
  call, it continues after that page: the pages of a pass that was stopped and resumed at any point hold the same items
  as those of an uninterrupted pass. `next_pass` of a pass's last page starts the pass after it.
- Only the page that ends a pass has no checkpoint. It is yielded last.
- Reading an unchanged catalogue twice yields equal items.
- A row that cannot become an item is in `failed`, with its reason, and never stops the others. If its key is not
  known, or a whole page could not be read, the failure names a `Place`: then no item that was known before the
  failure counts as missing. A URL that was found (a link, a segment) can fail only for itself, so it never ends the
  pass; a configured URL fails the source.
- `SourceUnavailable` is raised if retrying later may help, `SourceError` if somebody has to change something.
  In both cases the pages yielded before count. Any other exception is an error of the plug-in, and counts as a
  `SourceError` that names its line.
- Memory does not grow with the catalogue.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from visor.errors import DropItem
from visor.http.fetch import StreamingFetch
from visor.schema.attributes import AttributeType
from visor.schema.items import PRICE_MAX, Item, Record, checked_item
from visor.settings import Settings
from visor.sources.secrets import Secrets
from visor.storage.objects import ObjectStore

FAILED_SAMPLE_MAX = 100
"""Rows of one page that are kept in `Page.failed`, and as many notes of details that items lack; other rows are
counted in `Page.failed_more`."""

Row = TypeVar("Row")


class Place(str):
    """The place of something that could not be read and whose keys are not known: a URL, `line 17`."""

    __slots__ = ()


class RowFailure(Record, frozen=True, kw_only=True):
    """Why a row of the catalogue did not become an item, or became an incomplete one."""

    key: str
    """The source's own key of the row, or the place of the failure."""
    reason: str
    dropped: bool = True
    """False: the item exists, without the value that the reason names."""
    unread: bool = False
    """`key` is a place. Its items were not read, so this pass does not show that any items are missing."""


class Page(Record, frozen=True, kw_only=True):
    """What a source read in one step: a page of an API, a slice of a feed or a folder."""

    items: tuple[Item, ...] = ()
    checkpoint: Mapping[str, Any] | None = None
    """JSON-able; given to `read`, reading continues after this page. None: this page ends the pass."""
    failed: tuple[RowFailure, ...] = ()
    """A sample of the rows that failed; `failed_more` counts those beyond it."""
    failed_more: int = 0
    passed_over: Mapping[str, int] = {}
    """Counts of pages, rows or images that the source left out on purpose, by reason ('the page says noindex')."""
    gone: tuple[str, ...] = ()
    """Keys that the catalogue itself reports as deleted."""
    unchanged: tuple[str, ...] = ()
    """Keys of items that have not changed, according to a catalogue that does not repeat them (status 304)."""
    partial: bool = False
    """This pass covers only changes, so an item's absence from it means nothing."""
    next_pass: Mapping[str, Any] | None = None
    """On the last page only: the checkpoint that starts the next pass (validators of the responses)."""


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every source's configuration."""


@dataclass(frozen=True, kw_only=True)
class SourceContext:
    """Everything outside itself that a source may use."""

    settings: Settings
    fetcher: StreamingFetch
    items_max: int | None = None
    """How many items this run takes, if not all: if each item costs requests, a page need hold no more."""
    objects: ObjectStore | None = None
    """Where a source may keep images that have no URL (frames of a video)."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    """The values of `${NAME}` in a configuration."""
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
    sleep: Callable[[float], None] = time.sleep

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock()).astimezone()


class Source(Protocol):
    """See the module for the contract."""

    name: str

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]: ...


class SourceKind(Protocol):
    """The interface of the classes that entry points of `visor.sources` name."""

    Config: ClassVar[type[SourceConfig]]

    def __call__(self, name: str, config: Any, context: SourceContext) -> Source: ...


def broken_page(page: object) -> str:
    """What is wrong with the types of something that a source yielded; empty if it is a page."""
    if not isinstance(page, Page):
        return f"it yielded a {type(page).__name__}, not a Page"
    if not isinstance(page.items, tuple | list):
        return f"the items of a page are a {type(page.items).__name__}, not a tuple"
    for item in page.items:
        if not isinstance(item, Item):
            return f"a page holds a {type(item).__name__}, not an Item"
    for name in ("checkpoint", "next_pass"):
        given = getattr(page, name)
        if not isinstance(given, Mapping | None):
            return f"a {name} is a {type(given).__name__}, not a mapping"
    return ""


class RowErrors:
    """Collects the rows of one page that failed: a bounded sample, and how many more there were."""

    def __init__(self) -> None:
        self.sample: list[RowFailure] = []
        self.more = 0
        self.passed_over: Counter[str] = Counter()

    def add(self, key: str, reason: str, *, dropped: bool = True) -> None:
        """Note a failure: of a row under its own key, of anything whose keys are not known under its `Place`."""
        # Notes take no row's place: a row whose key is not kept may be any item, so that none counts as missing.
        if sum(failure.dropped is dropped for failure in self.sample) < FAILED_SAMPLE_MAX:
            unread = dropped and isinstance(key, Place)
            self.sample.append(RowFailure(key=str(key), reason=reason, dropped=dropped, unread=unread))
        elif dropped:
            self.more += 1

    def pass_over(self, reason: str, count: int = 1) -> None:
        """Count something that is left out on purpose, under a reason that names its kind and not the single case."""
        self.passed_over[reason] += count

    def clear(self) -> None:
        """Begin the next page."""
        self.sample, self.more = [], 0
        self.passed_over.clear()

    def page(self, items: Iterable[Item], **fields: Any) -> Page:
        """The page with those items, the rows that failed and the counts of what was passed over."""
        return Page(
            items=tuple(items),
            failed=tuple(self.sample),
            failed_more=self.more,
            passed_over=dict(self.passed_over),
            **fields,
        )


def page_of(
    rows: Iterable[tuple[str, Row]],
    make: Callable[[Row, RowErrors], Item | None],
    *,
    errors: RowErrors | None = None,
    **fields: Any,
) -> Page:
    """The page of those rows: `make` returns the item or None to skip the row silently, or raises `DropItem`.

    Args:
        rows: Each with its own key, or with its `Place` if it has none.
        errors: Failures that are already known.
        fields: The other fields of `Page`: `checkpoint`, `partial`, `next_pass`.
    """
    items: list[Item] = []
    errors = errors or RowErrors()
    for where, row in rows:
        try:
            item = make(row, errors)
        except DropItem as drop:
            errors.add(where, drop.reason)
        else:
            if item is not None:
                items.append(item)
    return errors.page(items, **fields)


def remade(page: Page, make: Callable[[Item, RowErrors], Item | None]) -> Page:
    """The page with each item as `make` returns it; as in `page_of`, an item that it refuses is a row that failed."""
    made = page_of(((str(item.key), item) for item in page.items), make)
    failed, more = page.failed + made.failed, page.failed_more + made.failed_more
    return msgspec.structs.replace(page, items=made.items, failed=failed, failed_more=more)


def checked_page(page: Page, source: str, attributes: Mapping[str, AttributeType] | None = None) -> Page:
    """The page of that source with each item as `checked_item` returns it, and a note of each price that is not
    valid. An item of another source is refused: it would take the place of that source's own."""

    def make(item: Item, errors: RowErrors) -> Item:
        if item.source != source:
            raise DropItem(f"it names the source {item.source!r:.80}, not {source!r}")
        checked = checked_item(item, attributes)
        if item.price is not None and checked.price is None:
            errors.add(item.key, f"its price '{item.price:g}' is not valid; valid: 0 to {PRICE_MAX:g}", dropped=False)
        return checked

    return remade(page, make)


def slices(rows: Iterator[Row], size: int) -> Iterator[tuple[list[Row], bool]]:
    """Slices of at most `size` rows, each with whether it is the last. Without rows there is one empty slice."""
    some = list(islice(rows, size))
    while following := list(islice(rows, size)):
        yield some, False
        some = following
    yield some, True
