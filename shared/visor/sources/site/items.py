"""Which items a page of a site holds, and under which keys: each picture once, on the page that it belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from visor.errors import DropItem
from visor.schema.items import Item
from visor.sources.contract import RowErrors
from visor.sources.parse.item import date_of, make_item, resolve_url
from visor.sources.parse.price import PriceReader
from visor.sources.parse.text import TITLE_LENGTH_MAX, plain_text
from visor.sources.site.frontier import Frontier, Shown, Visit
from visor.sources.site.page import SitePage
from visor.sources.site.pictures import Picture
from visor.sources.site.urls import absolute, canonical, is_file, shown

SHARED_MIN = 3
"""Number of pages with the same picture for sharing from which on it counts as that of the whole site."""
EXTRA = ("availability", "brand", "condition", "gtin")
"""Attributes of a product that the page may show."""


class ReadPage(NamedTuple):
    """A page that was read."""

    page: SitePage
    url: str
    visit: Visit
    depth: int
    pictures: list[str]
    """The canonical URLs of all pictures that it shows."""
    shared: str | None
    """The canonical URL of its picture for sharing."""
    listed: list[Picture]
    shown: Mapping[str, Any] | None = None
    """The product that another page shows for this page."""


class _Row(NamedTuple):
    """An image of a page."""

    key: str
    values: Mapping[str, Any]
    """With Google's attribute names."""
    marks: list[str]
    is_new: bool
    """No earlier page showed it, under whatever key."""


class PageItems:
    """Makes the items of one site's pages.

    Args:
        start: The canonical URL of the site's first page.
        takes_all: Plain pictures are also taken from pages that describe some.
    """

    def __init__(
        self,
        source: str,
        start: str,
        prices: PriceReader,
        *,
        takes_all: bool,
        licence: str | None,
        country: str | None,
    ) -> None:
        self._name, self._start, self._prices, self._all = source, start, prices, takes_all
        self._licence, self._country = licence, country

    def of(self, read: ReadPage, shares: Counter[str | None], state: Frontier, errors: RowErrors) -> Iterator[Item]:
        """The items of a page that no earlier page had.

        Args:
            shares: By picture for sharing, how many of the pages that were read with it show it.
        """
        page, own = read.page, canonical(read.url) or read.url
        named = canonical(page.url) or own
        # A page may be another one under a second URL; but pictures that only it shows were never on that other one.
        is_second = named != own and (state.has_seen(named) or not state.see(f"canonical {named}"))
        is_early = is_second and state.has_seen(named) and not state.has_seen(f"read {named}")
        if is_early and state.see(f"doubted {own}"):
            state.doubted.append((read.url, read.depth, read.pictures))
            state.known.pop(own, None)
            return
        state.see(own)
        state.see(f"read {own}")
        key, page_url = (own, read.url) if is_second else (named, page.url)
        rows = list(self._rows(read, key, shares, state)) if "noindex" not in page.robots else []
        if is_second:
            rows = [row for row in rows if row.is_new]
            errors.pass_over(
                "canonical addresses that are wrong" if rows else "pages that are another one by canonical"
            )
        for row in rows:
            read.visit.pictures += row.marks
            try:
                yield self._item(row, page, shown(page_url), errors)
                read.visit.keys.append(row.key)
            except DropItem as exc:
                errors.add(row.key, exc.reason)

    def _rows(self, read: ReadPage, page_key: str, shares: Counter[str | None], state: Frontier) -> Iterator[_Row]:
        """Each image of the page that no earlier page had, with its key."""
        page, keys = read.page, set[str]()
        for at, values in enumerate(page.described):
            own = self._page_of(values, page) if len(page.described) > 1 else None
            if own and self._has_a_page_of_its_own(own, values, read, page_key, state):
                continue
            key = canonical(own) if own else page_key if at == 0 else None
            key = key if key and key not in keys else f"{page_key}#{at}"
            picture = canonical(str(values["image_link"]), page.base_url)
            # Two products may share a picture.
            if picture and (mark := state.see_picture(f"{key} {picture}")):
                keys.add(key)
                bare = state.see_picture(picture)
                yield _Row(key, values, [mark, bare] if bare else [mark], bool(bare))
        counted = shares[read.shared]
        if counted >= SHARED_MIN:
            state.see(f"shared {read.shared}")
        is_start = self._start in (page_key, canonical(read.url))
        is_own = page.shared and not is_start and not state.has_seen(f"shared {read.shared}")
        on_list = read.shown if read.shown and not page.described and not page.robots else {}
        said = {name: value for name, value in on_list.items() if not name.endswith("image_link")}
        shared = [{**page.shared, **said}] if page.shared and is_own else []
        plain = [[{"image_link": one.url, **one._asdict()} for one in some] for some in (read.listed, page.pictures)]
        # The only picture of several pages may be that of the whole site, so it comes last.
        groups: list[Any] = [*plain, shared] if len(shares) == 1 and counted > 1 else [shared, *plain]
        found = bool(page.described)
        for rows in groups:
            if found and (rows is shared or not self._all):
                continue
            for row in rows:
                picture = canonical(str(row["image_link"]), page.base_url)
                if picture and (mark := state.see_picture(picture)):
                    found = True
                    keys.add(key := page_key if rows is shared else picture)
                    yield _Row(key, row, [mark], True)
        if on_list and page_key not in keys and (mark := state.see_picture(f"{page_key} {on_list['image_link']}")):
            yield _Row(page_key, on_list, [mark], True)

    def _has_a_page_of_its_own(
        self, own: str, values: Mapping[str, Any], read: ReadPage, page_key: str, state: Frontier
    ) -> bool:
        """Whether a product of a list has its own page that waits, or had items: that page has more details and larger
        pictures."""
        name, by = canonical(own) or own, canonical(read.url) or read.url
        if name in (page_key, by) or values.get("item_group_id") or not state.has_seen(name):
            return False
        if state.has_seen(f"visited {name}"):
            return state.had_on(name) is not None
        picture = absolute(str(values["image_link"]), read.page.base_url) or ""
        state.shown.setdefault(name, Shown({**values, "image_link": picture, "link": own}, by))
        return True

    def left(self, state: Frontier, errors: RowErrors) -> Iterator[Item]:
        """At the end of a pass: the products that lists show of pages that were not visited."""
        for name, shown_by in state.shown.items():
            own = str(shown_by.row["link"])
            page = SitePage(url=own, base_url=own)
            try:
                yield self._item(_Row(name, shown_by.row, [], True), page, shown(own), errors)
            except DropItem as exc:
                errors.add(name, exc.reason)
            if shown_by.by in state.known:
                state.known[shown_by.by].keys.append(name)

    def _page_of(self, values: Mapping[str, Any], page: SitePage) -> str | None:
        link = absolute(str(values["link"]), page.base_url) if values.get("link") else None
        return link if link and not is_file(link) else None

    def _item(self, row: _Row, page: SitePage, page_url: str, errors: RowErrors) -> Item:
        said = row.values
        money = self._prices.read(row.key, said.get("price"), said.get("currency"), errors, machine=True)
        price_text = {"price_text": str(said.get("price_text") or "")} if money.amount is not None else {}
        return make_item(
            self._name,
            row.key,
            resolve_url(said["image_link"], page.base_url, "picture"),
            page_url=self._page_of(said, page) or page_url,
            title=plain_text(said.get("title"), TITLE_LENGTH_MAX) or page.title,
            description=plain_text(said.get("description")) or None,
            price=money.amount,
            currency=money.currency,
            collection=plain_text(said.get("product_type"), 200) or page.breadcrumb,
            country=self._country,
            date=date_of(row.key, said.get("date"), errors),
            licence=plain_text(said.get("licence"), 200) or self._licence,
            author=plain_text(said.get("author"), 200) or None,
            group=said.get("item_group_id") or None,
            extra={name: plain_text(said.get(name), 200) for name in EXTRA} | price_text | money.extra,
        )
