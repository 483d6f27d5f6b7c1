"""Items: the catalogue's entries as a page of results shows them."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence

from visor.errors import CorruptObject, UnknownItem
from visor.image_readers.thumbnails import THUMBNAIL_SCHEME
from visor.link_check.state import PICTURE_GONE
from visor.schema.collections import ITEMS
from visor.schema.items import IndexedItem, live_item
from visor.schema.search import Place
from visor.storage.documents import DocumentStore

LOG = logging.getLogger("visor.search")
ITEMS_REMEMBERED = 5_000
ITEMS_KEPT_S = 3600.0


class ItemCache:
    """The documents of items, remembered until the index hears of a change, so that a warm search reads few.

    Every write of an item's document is committed together with a record that running searches poll; the items it names
    are invalidated. Even so, `ITEMS_KEPT_S` bounds how long anything is remembered.
    """

    def __init__(self, documents: DocumentStore) -> None:
        self.documents = documents
        self._kept: OrderedDict[str, tuple[float, IndexedItem | None]] = OrderedDict()
        self._invalidated = 0
        self._lock = threading.Lock()

    def invalidate(self, ids: Collection[str] | None) -> None:
        """Read these again when they are next needed; None: all of them."""
        if ids is not None and not ids:
            return
        with self._lock:
            self._invalidated += 1
            if ids is None:
                self._kept.clear()
                return
            for item in ids:
                self._kept.pop(item, None)

    def get(self, ids: Sequence[str]) -> dict[str, IndexedItem]:
        """The searchable ones among `ids`."""
        now = time.monotonic()
        with self._lock:
            invalidated = self._invalidated
            fresh = {i: self._kept[i][1] for i in ids if i in self._kept and now - self._kept[i][0] < ITEMS_KEPT_S}
        missing = [i for i in dict.fromkeys(ids) if i not in fresh]
        if missing:
            found = self.documents.get(ITEMS, missing)
            for item in missing:
                try:
                    fresh[item] = live_item(found[item].data if item in found else None)
                except CorruptObject as exc:
                    LOG.error("Item %s is left out: %s", item, exc)
                    fresh[item] = None
            with self._lock:
                # What was read while something changed may be the old version.
                for item in missing if invalidated == self._invalidated else ():
                    self._kept[item] = (now, fresh[item])
                    self._kept.move_to_end(item)
                while len(self._kept) > ITEMS_REMEMBERED:
                    self._kept.popitem(last=False)
        return {i: indexed for i, indexed in fresh.items() if indexed is not None}


def web_address(indexed: IndexedItem) -> str:
    """The URL of an item's picture that a browser can open; empty if it has none (a private bucket, gone)."""
    url = indexed.item.image_url
    if PICTURE_GONE in indexed.item.extra:
        return ""
    if url.startswith(THUMBNAIL_SCHEME):
        return f"./v1/thumbnails/{url.removeprefix(THUMBNAIL_SCHEME)}"
    return url if url.startswith(("https:", "http:")) else ""


def unknown_item(item: str) -> UnknownItem:
    return UnknownItem(
        f"No item {item:.64} is in the index" if item.strip() else "The id of the item is empty",
        valid="32 hexadecimal digits, as answers give them",
        remedy="It may have been deleted: search for its picture",
    )


def offer_sort_key(indexed: IndexedItem) -> tuple[bool, float, float]:
    """Sorts offers; those whose picture is gone come last."""
    date = (indexed.item.date or indexed.indexed_at)[:10].replace("-", "")
    price = indexed.item.price
    is_gone = PICTURE_GONE in indexed.item.extra
    return is_gone, -float(date) if date.isdigit() else 0.0, float("inf") if price is None else price


def offer_of(indexed: IndexedItem) -> Place:
    item = indexed.item
    return Place(
        item=item.id,
        title=item.title,
        page_url=item.page_url,
        image_url=item.image_url,
        price=item.price,
        currency=item.currency,
    )
