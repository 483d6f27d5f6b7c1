"""The contract of `visor.sources.contract` as checks that every source has to pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from visor.errors import DropItem
from visor.http.client import Fetcher
from visor.schema.items import Item, checked_item, item_id
from visor.settings import Settings
from visor.sources.contract import Page, Source, SourceContext, broken_page

CHECKPOINT_BYTES_MAX = 32_000_000
"""A checkpoint is stored with the seen-set, and rewritten as a whole."""


class BrokenContract(AssertionError):
    """A source or a model breaks the contract."""


@contextmanager
def source_context(
    *, allow_hosts: Sequence[str] = (), slept: list[float] | None = None, **environ: str
) -> Iterator[SourceContext]:
    """A context with a real fetcher, which may reach `allow_hosts` (`127.0.0.1:8000`) beside public addresses.

    Args:
        slept: Collects the seconds that the source would have waited.
        environ: Values of `${NAME}`.
    """
    settings = Settings(allow_hosts=tuple(allow_hosts), fetch_timeout_s=10)
    waits = [] if slept is None else slept
    with Fetcher(settings) as fetcher:
        yield SourceContext(settings=settings, fetcher=fetcher, environ=environ, sleep=waits.append)


def check_source(make: Callable[[], Source], *, pages_min: int = 1) -> list[Item]:
    """Read the source as a crawl does, from its start and from each of its checkpoints.

    The catalogue must not change meanwhile, and should be small: it is read once for each of its pages.

    Args:
        make: Opens the source, as a later run in another process would.
        pages_min: Least number of pages of the catalogue; with 2 or more, resuming is tested too.

    Returns:
        The items of one pass, for further checks.

    Raises:
        BrokenContract: Names the part of the contract that does not hold, and where.
    """
    source = make()
    whole = _read(source, None)
    _check(len(whole) >= pages_min, f"it came in {len(whole)} pages, {pages_min} were expected")
    items = _items(whole)
    for item in items:
        _check_item(item, source.name)
    again = _read(make(), None)
    _check(_items(again) == items, "reading an unchanged catalogue twice gave different items")
    for at, page in enumerate(whole[:-1]):
        rest = _read(make(), _through_json(page.checkpoint))
        expected = _items(whole[at + 1 :])
        _check(
            _items(rest) == expected,
            f"from the checkpoint after page {at + 1} it read {_keys(rest)}, where {_keys(whole[at + 1 :])} were left",
        )
    following = _read(make(), _through_json(whole[-1].next_pass))
    if not any(page.partial for page in following):
        unchanged = {key for page in following for key in page.unchanged}
        seen = unchanged | {item.key for item in _items(following)}
        _check(seen >= {item.key for item in items}, "the next pass, which says that it is complete, misses items")
    return items


def _read(source: Source, checkpoint: Any) -> list[Page]:
    """All pages from a checkpoint on, each checked."""
    pages: list[Page] = []
    try:
        given = source.read(checkpoint)
        _check(isinstance(given, Iterable), f"`read` returned a {type(given).__name__}, not an iterator of pages")
        for page in given:
            _check(not (broken := broken_page(page)), broken)
            pages.append(page)
    except DropItem as drop:
        raise BrokenContract(f"`read` raised DropItem: {drop}. It is for one row: raise it within `page_of`") from drop
    _check_pages(pages)
    return pages


def _check_pages(pages: Sequence[Page]) -> None:
    _check(bool(pages), "it yielded no page: an empty catalogue is one page without a checkpoint")
    for at, page in enumerate(pages, 1):
        is_last = at == len(pages)
        _check(
            (page.checkpoint is None) == is_last,
            f"page {at} of {len(pages)} has {'a' if is_last else 'no'} checkpoint: only the last page has none",
        )
        _check(page.next_pass is None or is_last, f"page {at} has a next_pass, which only the last page may have")
        for failure in page.failed:
            _check(bool(failure.key and failure.reason), f"a failure of page {at} does not say what failed, or why")


def _check_item(item: Item, source: str) -> None:
    where = f"item {item.key!r}"
    try:
        checked_item(item)
    except DropItem as drop:
        raise BrokenContract(f"{where} would be refused: {drop.reason}") from drop
    _check(item.source == source, f"{where} names the source {item.source!r}, not {source!r}")
    _check(bool(item.key), "an item has no key")
    _check(item.id == item_id(source, item.key), f"{where} has another id than visor.schema.items.item_id gives")
    _check(":" in item.image_url, f"{where} has the image_url {item.image_url!r}, which is not absolute")
    _check(item.page_url is None or ":" in item.page_url, f"{where} has a page_url that is not absolute")
    _check(item.price is None or item.price >= 0, f"{where} has the price {item.price}")
    code = item.currency
    _check(code is None or (len(code) == 3 and code.isupper()), f"{where} has the currency {code!r}: ISO 4217 is meant")
    _check(item.price is not None or code is None, f"{where} has a currency without a price")


def _items(pages: Sequence[Page]) -> list[Item]:
    return [item for page in pages for item in page.items]


def _keys(pages: Sequence[Page]) -> str:
    keys = [item.key for item in _items(pages)]
    return f"{len(keys)} items ({', '.join(keys[:5])}{' …' if len(keys) > 5 else ''})"


def _through_json(checkpoint: Any) -> Any:
    """The checkpoint as the next run gets it."""
    try:
        text = json.dumps(checkpoint, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise BrokenContract(f"a checkpoint is not JSON: {exc}") from exc
    _check(len(text) <= CHECKPOINT_BYTES_MAX, f"a checkpoint has {len(text)} bytes; it may have {CHECKPOINT_BYTES_MAX}")
    return json.loads(text)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenContract(otherwise)
