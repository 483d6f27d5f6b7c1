"""What is known about links: where the check is, which addresses fail since when, and what stands in for which.

One object an index, `links.json`: one read and a few writes a day, whatever the size of the catalogue.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from visor.errors import CorruptObject, NewerFormat, NotFound
from visor.schema.items import Item, Record
from visor.storage.objects import ObjectStore

OBJECT = "links.json"
FORMAT = 1
ADDRESSES_MAX = 50_000
TROUBLES_MAX = 20_000
"""More are not noted, so that the object stays small; those that are, are settled first."""
PICTURE_GONE = "picture_gone"
"""Key in an item's `extra`: the date since which its picture is gone. Such an item is found and shown without it."""
_HOPS_MAX = 5


class Failing(Record, frozen=True, kw_only=True):
    """An address that does not give what it did."""

    address: str
    code: str
    """`http_404`, `http_410`, or the `code` of an error."""
    since: str
    """ISO 8601 date of the first failure."""
    last: str
    days: int
    """Different days on which it failed."""


class Trouble(Record, frozen=True, kw_only=True):
    """An item whose picture or page fails."""

    source: str
    next: str
    """ISO 8601 date from which it is looked at again."""
    state: Literal["suspect", "marked", "gone"] = "suspect"
    """`marked`: shown without its picture; `gone`: not shown."""
    picture: Failing | None = None
    page: Failing | None = None
    item: Item | None = None
    """Of a gone item: what comes back if its addresses do."""
    version: int = 0
    """Of a gone item: the version that deleted it."""


class LinkState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """See the module. Changed in place by the one check that runs."""

    format: int = FORMAT
    day: str = ""
    """ISO 8601 date (UTC) that `checked` counts."""
    checked: int = 0
    round_day: str = ""
    """Day on which this round through all items began."""
    cursor: str = ""
    """Items that were indexed before this time were looked at in this round …"""
    at_cursor: list[str] = msgspec.field(default_factory=list)
    """… and of those indexed at this time, these."""
    troubles: dict[str, Trouble] = msgspec.field(default_factory=dict)
    """By item id."""
    addresses: dict[str, str] = msgspec.field(default_factory=dict)
    """Address in a catalogue → what it moved to, or a living copy of the same picture."""
    counts: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    """By source: `checked`, `moved`, `replaced`, `marked`, `gone`, `back`, since ever."""

    @classmethod
    def load(cls, objects: ObjectStore) -> tuple[LinkState, int]:
        """The state and its generation; `(empty, 0)` before the first check.

        Raises:
            CorruptObject, NewerFormat: It cannot be read; the message names it.
        """
        try:
            view, info = objects.get_with_info(OBJECT)
        except NotFound:
            return cls(), 0
        try:
            state = msgspec.json.decode(view, type=cls)
        except msgspec.DecodeError as exc:
            raise CorruptObject(
                f"{OBJECT} cannot be read: {exc}",
                remedy="Delete it: links are then looked at from the beginning, and nothing else is lost",
            ) from exc
        if state.format > FORMAT:
            raise NewerFormat(
                f"{OBJECT} has format {state.format}", valid=f"This Visor reads up to {FORMAT}", remedy="Update Visor"
            )
        return state, info.generation

    def save(self, objects: ObjectStore, generation: int) -> int:
        """Replace exactly that generation (0: create). Returns the new one.

        Raises:
            Conflict: Another check has written meanwhile.
        """
        return objects.put(OBJECT, msgspec.json.encode(self), if_generation=generation).generation

    def count(self, source: str, what: str, number: int = 1) -> None:
        counts = self.counts.setdefault(source, {})
        counts[what] = counts.get(what, 0) + number

    def of_source(self, source: str) -> dict[str, int]:
        """Counts of a source: what was done since ever, what is suspect, and what fails now by code."""
        now: Counter[str] = Counter()
        for trouble in self.troubles.values():
            if trouble.source == source:
                now["suspect"] += trouble.state == "suspect"
                now.update(failing.code for failing in (trouble.picture, trouble.page) if failing is not None)
        return {**self.counts.get(source, {}), **{name: count for name, count in sorted(now.items()) if count}}

    def follow(self, address: str, to: str) -> bool:
        """Let `to` stand in for `address` from now on; False if there is no room for it."""
        if len(self.addresses) >= ADDRESSES_MAX and address not in self.addresses:
            return False
        self.addresses.pop(to, None)
        self.addresses[address] = to
        return True

    def current(self, address: str) -> str:
        """What stands in for an address, or itself."""
        for _ in range(_HOPS_MAX):
            if address not in self.addresses:
                break
            address = self.addresses[address]
        return address

    def mended(self, item: Item) -> Item:
        """An item as its catalogue lists it, with what is known about its links."""
        picture = self.current(item.image_url)
        page = None if item.page_url is None else self.current(item.page_url)
        trouble = self.troubles.get(item.id)
        failing = trouble.picture if trouble is not None and trouble.state == "marked" else None
        since = failing.since if failing is not None and failing.address == picture else None
        return with_links(item, picture, page, since)


def with_links(item: Item, picture: str, page: str | None, gone_since: str | None) -> Item:
    """The item with those addresses, and marked if its picture is gone."""
    extra = {name: value for name, value in item.extra.items() if name != PICTURE_GONE}
    if gone_since is not None:
        extra[PICTURE_GONE] = gone_since
    if (picture, page, extra) == (item.image_url, item.page_url, item.extra):
        return item
    return msgspec.structs.replace(item, image_url=picture, page_url=page, extra=extra)
