"""Push: an owner's programs send items to be embedded, updated or deleted, without a crawl.

A pushed item is published as an `update` without reading anything: embed, which reads the item's document anyway,
embeds it if it is new or its image changed. So a push costs no Firestore read, is idempotent, and needs no seen-set.
The greatest version wins, and versions are times; embed ensures that a clock that was ahead does not win.
"""

from __future__ import annotations

import threading
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from visor.config_errors import misfit
from visor.errors import DropItem, RequestTooLarge, UnknownItem
from visor.free_tier.quota import Meter
from visor.schema.attributes import AttributeType
from visor.schema.collections import ITEMS
from visor.schema.items import ITEM_ID, PRICE_MAX, Change, Item, checked_item, item_id
from visor.schema.push import PushAnswer, PushedItem, PushItem
from visor.settings import Settings
from visor.sources.config import PUSHED
from visor.sources.parse.text import DESCRIPTION_LENGTH_MAX, TITLE_LENGTH_MAX, country_code, iso_date, plain_text
from visor.storage.documents import DocumentStore
from visor.storage.publish import publish
from visor.storage.queue import Queue

LINES_MAX = 1_000
"""Items in one request: some 16 batches."""
LINE_BYTES_MAX = 65_536
URL_LENGTH_MAX = 2_000
NO_ROOM = "no more fits what is free today; send it again tomorrow"
TEXTS = ("collection", "licence", "author", "group")


class Pusher:
    """Publishes pushed items. Thread-safe; one per process.

    Args:
        clock: Seconds since 1970.
        files: Also take `file:` URLs: for the library, whose caller may read those files anyway.
        attributes: The attributes of items' `extra` that the owner declares.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        documents: DocumentStore,
        settings: Settings,
        meter: Meter,
        clock: Callable[[], float] = time.time,
        files: bool = False,
        attributes: Mapping[str, AttributeType] | None = None,
    ) -> None:
        self.attributes = attributes or {}
        self._schemes = ("http", "https", *(["file"] if files else []))
        self.queue, self.documents, self.settings, self.meter, self.clock = queue, documents, settings, meter, clock
        self._lock = threading.Lock()
        self._version = 0

    def push_lines(self, body: bytes) -> PushAnswer:
        """Publish the items of JSON Lines. A wrong line is refused, and the others are accepted.

        Raises:
            RequestTooLarge: More than `LINES_MAX` items; none was accepted.
            StoreUnavailable: The queue did not answer; some items may have been published. Repeating is safe.
        """
        lines = [(number, line) for number, line in enumerate(body.splitlines(), 1) if line.strip()]
        if len(lines) > LINES_MAX:
            raise RequestTooLarge(
                f"The stream has {len(lines)} items",
                valid=f"At most {LINES_MAX} in one request",
                remedy="Send the rest in another request",
            )
        return self.push_numbered(lines)

    def push_numbered(self, lines: Iterable[tuple[int, bytes]]) -> PushAnswer:
        """As `push_lines`: lines with their numbers, at most `LINES_MAX`."""
        return self._take(_read(lines))

    def push_one(self, pushed: PushItem) -> PushAnswer:
        """Publish one item. Raises as `push_lines`."""
        return self._take([(1, pushed)])

    def delete(self, item: str) -> PushAnswer:
        """Delete a pushed item by its id. An unknown one is deleted too: it may still be in the queue.

        Raises:
            UnknownItem: The item comes from a source, which would bring it back.
        """
        found = self.documents.get(ITEMS, [item]).get(item) if ITEM_ID.match(item) else None
        source = found.data.get("item", {}).get("source", PUSHED) if found else PUSHED
        if source != PUSHED or not ITEM_ID.match(item):
            raise UnknownItem(
                f"No item {item:.64} was pushed: it is of source {source!r}"
                if found
                else f"{item[:64]!r} is not an item's id",
                valid="The id of a pushed item: 32 hexadecimal digits",
                remedy="Take it out of its catalogue, or leave it out in the source's configuration",
            )
        self._publish([Change.deletion(item, PUSHED, self._next_version())])
        return PushAnswer(accepted=1, items=(PushedItem(line=1, id=item, state="accepted"),))

    def _take(self, read: Iterable[tuple[int, PushItem | str]]) -> PushAnswer:
        version = self._next_version()
        answers: dict[int, PushedItem] = {}
        changes: dict[str, tuple[int, Change]] = {}
        for line, pushed in read:
            try:
                change = _change(pushed, version, self._schemes, self.attributes)
            except (ValueError, DropItem) as exc:
                key = pushed.key if isinstance(pushed, PushItem) else None
                answers[line] = PushedItem(line=line, key=key, state="refused", reason=str(exc))
                continue
            if change.item.id in changes:
                earlier, old = changes.pop(change.item.id)
                answers[earlier] = _refused(earlier, old, f"line {line} has the same key, and counts")
            changes[change.item.id] = (line, change)
        room = self.meter.headroom("embed", owner=True)
        taken = list(changes.values())
        for line, change in taken[room:]:
            answers[line] = _refused(line, change, NO_ROOM)
        self._publish([change for _, change in taken[:room]])
        for line, change in taken[:room]:
            answers[line] = PushedItem(line=line, key=change.item.key, id=change.item.id, state="accepted")
        items = tuple(answers[line] for line in sorted(answers))
        accepted = sum(item.state == "accepted" for item in items)
        return PushAnswer(accepted=accepted, refused=len(items) - accepted, items=items)

    def _publish(self, changes: Sequence[Change]) -> None:
        if changes:
            publish(self.queue, changes, run=PUSHED, batch_size=self.settings.batch_size)
            self.meter.add("crawl", len(changes))

    def _next_version(self) -> int:
        with self._lock:
            self._version = max(self._version + 1, int(self.clock() * 1000))
            return self._version


def _read(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, PushItem | str]]:
    """The item of each line, or why it cannot be read. Editors of Windows begin a file with a byte order mark."""
    for number, line in lines:
        if len(line) > LINE_BYTES_MAX:
            yield number, f"it has more than the {LINE_BYTES_MAX} bytes that are taken"
            continue
        try:
            yield number, msgspec.json.decode(line.removeprefix(BOM_UTF8), type=PushItem)
        except msgspec.ValidationError as exc:
            found, valid, _ = misfit(exc, PushItem, line)
            yield number, f"{found}; valid: {valid}"
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            yield number, f"it cannot be read as JSON: {exc}"


def _change(
    pushed: PushItem | str, version: int, schemes: Collection[str], attributes: Mapping[str, AttributeType]
) -> Change:
    """The change to publish for an item. Raises `ValueError` with the reason if it is refused."""
    if isinstance(pushed, str):
        raise ValueError(pushed)
    key = pushed.key.strip()
    if not key:
        raise ValueError("its key is empty")
    identity = item_id(PUSHED, key)
    if pushed.deleted:
        return Change.deletion(identity, PUSHED, version, key=key)
    currency = _currency(pushed.currency)
    texts: dict[str, Any] = {name: plain_text(getattr(pushed, name), TITLE_LENGTH_MAX) or None for name in TEXTS}
    item = Item(
        **texts,
        id=identity,
        source=PUSHED,
        key=key,
        image_url=_checked_url(pushed.image_url, "image_url", schemes),
        page_url=_checked_url(pushed.page_url, "page_url") if pushed.page_url else None,
        title=plain_text(pushed.title, TITLE_LENGTH_MAX),
        description=plain_text(pushed.description, DESCRIPTION_LENGTH_MAX) or None,
        price=_price(pushed.price),
        currency=currency if pushed.price is not None else None,
        country=country_code(pushed.country),
        date=_date(pushed.date),
        image_etag=pushed.image_etag,
        image_modified=pushed.image_modified,
        extra={name: plain_text(value) for name, value in pushed.extra.items()},
    )
    return Change(action="update", item=checked_item(item, attributes), version=version)


def _checked_url(text: str | None, name: str, schemes: Collection[str] = ("http", "https")) -> str:
    if not text:
        raise ValueError(f"{name} is missing")
    try:
        parts = urlsplit(text.strip())
        good = parts.scheme in schemes and bool(parts.hostname or parts.scheme == "file")
    except ValueError:
        good = False
    if not good or len(text) > URL_LENGTH_MAX:
        raise ValueError(f"{name} is not an http(s) URL of at most {URL_LENGTH_MAX} characters: {text!r:.120}")
    return text.strip().replace(" ", "%20")


def _price(price: float | None) -> float | None:
    if price is not None and not 0 <= price <= PRICE_MAX:
        raise ValueError(f"price is {price:g}; valid: a number from 0 to {PRICE_MAX:g}")
    return price


def _currency(text: str | None) -> str | None:
    if not text:
        return None
    from visor.sources.parse.price import currency_code

    code = currency_code(text)
    if code is None:
        raise ValueError(f"currency is not an ISO 4217 code in use: {text!r:.60}; valid: such as EUR")
    return code


def _date(text: str | None) -> str | None:
    date = iso_date(text)
    if text and date is None:
        raise ValueError(f"date is not an ISO 8601 date: {text!r:.60}")
    return date


def _refused(line: int, change: Change, reason: str) -> PushedItem:
    return PushedItem(line=line, key=change.item.key, id=change.item.id, state="refused", reason=reason)
