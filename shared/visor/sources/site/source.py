"""`site`: any website. It obeys robots.txt, and visits first what sitemaps list, then the links within the site."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Meta
from protego import Protego

from visor.errors import DropItem, FetchFailed, QuotaReached, SettingsError, SourceUnavailable
from visor.http.fetch import Fetched
from visor.http.retry import RetryPolicy
from visor.schema.items import Item
from visor.sources.client import RetryingClient
from visor.sources.contract import Page, RowErrors, SourceConfig, SourceContext
from visor.sources.parse.item import make_item, resolve_url
from visor.sources.parse.price import DecimalSign, PriceReader
from visor.sources.parse.text import TITLE_LENGTH_MAX, iso_date, plain_text
from visor.sources.site.frontier import Frontier, Visit
from visor.sources.site.page import SitePage, read_page
from visor.sources.site.sitemap import locations
from visor.sources.site.urls import canonical, is_trap, pattern, same_site

PAGE_SIZE = 20
"""Pages of the site that are visited for one page of items."""
DEAD_AFTER = 5
"""Unanswered requests in a row, after which the run ends."""
BARREN_AFTER = 40
"""Pages of one pattern in a row without anything new, after which others are skipped: calendars, facets."""
DELAY_MAX_S = 30.0
ROBOT = "Visor"
EXTRA = ("availability", "brand", "condition", "gtin")
"""Attributes of a product that the page may show."""


class SiteConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `site` source."""

    url: str
    """Where to begin; other hosts are not visited."""
    sitemaps: tuple[str, ...] | None = None
    """None: those that robots.txt names, else /sitemap.xml. Empty: none."""
    follow: bool = True
    """Also visit what pages link to."""
    depth: Annotated[int, Meta(ge=0)] = 5
    """Links from the start or a sitemap's page."""
    pages_max: Annotated[int, Meta(ge=1)] = 10_000
    allow: tuple[str, ...] = ()
    """Regular expressions, one of which a page's path and query have to contain; the start page is visited anyway."""
    deny: tuple[str, ...] = ()
    pictures: Literal["described", "all"] = "described"
    """`described`: those that structured data or Open Graph name, or else the plain ones. `all`: both."""
    delay_s: float = 1.0
    """Between two requests; a longer Crawl-delay of robots.txt takes precedence."""
    full_every_days: Annotated[int, Meta(ge=1)] = 30
    """Between two passes that visit every page. The passes in between visit what sitemaps list as new, and ask for
    other pages with their validators."""
    licence: str | None = None
    country: str | None = None
    decimal: DecimalSign | None = None
    """The sign before decimals in prices that are texts."""
    patience: RetryPolicy = RetryPolicy(attempts=2)


class SiteSource:
    """Visits pages in the order in which they are found. The checkpoint is the frontier."""

    Config: ClassVar[type[SourceConfig]] = SiteConfig

    def __init__(self, name: str, config: SiteConfig, context: SourceContext) -> None:
        start = canonical(config.url)
        if start is None:
            raise SettingsError(f"sources.{name}.url = {config.url!r} is not a URL", valid="http://… or https://…")
        self.name = name
        self._config = config
        self._context = context
        self._start = start
        self._prices = PriceReader(config.decimal)
        self._host = urlsplit(start).netloc
        self._allow = [_expression(text, f"sources.{name}.allow") for text in config.allow]
        self._deny = [_expression(text, f"sources.{name}.deny") for text in config.deny]
        self._client = RetryingClient(
            name, context, patience=config.patience, accept="text/html,application/xhtml+xml;q=0.9"
        )
        self._lists = RetryingClient(name, context, patience=config.patience, accept="text/plain,application/xml;q=0.9")
        self._asked = False
        self._used_up: QuotaReached | None = None

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        robots = self._robots()
        state = Frontier.restore(checkpoint) if checkpoint else None
        if state is None or not state.is_open:
            state = self._begin(robots, state)
        delay_s = min(max(self._config.delay_s, float(robots.crawl_delay(ROBOT) or 0)), DELAY_MAX_S)
        while True:
            yielded = self._visit_some(state, robots, delay_s)
            more = bool(state.waiting) and state.visited < self._config.pages_max
            if not more:
                break
            yield msgspec.structs.replace(yielded, checkpoint=state.store(), partial=state.partial)
            if self._used_up is not None:
                raise self._used_up
        # Pages beyond the limit are not missing.
        partial = state.partial or bool(state.waiting)
        yield msgspec.structs.replace(yielded, partial=partial, next_pass=state.closed())

    def _robots(self) -> Protego:
        """The site's robots.txt (RFC 9309). A missing one allows everything; an unavailable one ends the run."""
        try:
            fetched = self._lists.get(urljoin(self._start, "/robots.txt"))
        except FetchFailed:
            return Protego.parse("")
        return Protego.parse(fetched.body[:500_000].decode("utf-8", "replace"))

    def _begin(self, robots: Protego, before: Frontier | None) -> Frontier:
        """A new pass: the start page and what the sitemaps list."""
        now = self._context.now()
        last_full = datetime.fromisoformat(before.full_at) if before and before.full_at else None
        if last_full is None or now - last_full >= timedelta(days=self._config.full_every_days):
            before = None
        began_at = now.isoformat(timespec="seconds")
        state = Frontier(
            began_at=began_at,
            full_at=before.full_at if before else began_at,
            known=before.known if before else {},
        )
        state.add(self._start, 0)
        sitemaps = self._config.sitemaps
        if sitemaps is None:
            sitemaps = tuple(robots.sitemaps) or (urljoin(self._start, "/sitemap.xml"),)
        listed = [urljoin(self._start, url) for url in sitemaps]
        for location in locations(self._lists, listed, self._host):
            if not self._is_wanted(location.url):
                continue
            # Most sitemaps are exact to the day.
            if before and location.lastmod is not None and location.lastmod[:10] < before.began_at[:10]:
                state.partial = True
                continue
            state.add(location.url, 0, dated=location.lastmod is not None)
        return state

    def _visit_some(self, state: Frontier, robots: Protego, delay_s: float) -> Page:
        """Visits the next pages of the site."""
        items: list[Item] = []
        errors = RowErrors()
        gone: list[str] = []
        unchanged: list[str] = []
        visits = 0
        while state.waiting and visits < PAGE_SIZE and state.visited < self._config.pages_max:
            url, depth, dated = state.waiting.popleft()
            if not robots.can_fetch(url, ROBOT) or state.barren.get(pattern(url), 0) >= BARREN_AFTER:
                continue
            visits += 1
            state.visited += 1
            known = state.known.get(url)
            try:
                fetched = self._get(url, known, delay_s)
            except QuotaReached as exc:
                # The visits so far count; the next run begins with this page.
                state.put_back(url, depth, dated)
                self._used_up = exc
                break
            except FetchFailed as exc:
                state.dead = 0
                if exc.status in (404, 410):
                    gone += known.keys if known else [url]
                else:
                    errors.add(url, exc.found)
                continue
            except SourceUnavailable as exc:
                state.dead += 1
                if state.dead >= DEAD_AFTER:
                    raise
                errors.add(url, exc.found)
                continue
            state.dead = 0
            if fetched.not_modified and known is not None:
                unchanged += known.keys
                state.pictures.update(dict.fromkeys(known.pictures))
                self._follow(known.children, depth, state)
                continue
            waiting = len(state.waiting)
            found = self._take(url, fetched, depth, dated, state, errors)
            # A trap links to more of the same; a list links elsewhere.
            leads_on = any(pattern(child) != pattern(url) for child in state.waiting_since(waiting))
            state.note(pattern(url), bool(found) or leads_on)
            items += found
        return errors.page(items, gone=tuple(gone), unchanged=tuple(unchanged))

    def _get(self, url: str, known: Visit | None, delay_s: float) -> Fetched:
        if self._asked and delay_s > 0:
            self._context.sleep(delay_s)
        self._asked = True
        return self._client.get(url, etag=known.etag if known else None, modified=known.modified if known else None)

    def _take(
        self, url: str, fetched: Fetched, depth: int, dated: bool, state: Frontier, errors: RowErrors
    ) -> list[Item]:
        """The items of a page; its links go to the frontier."""
        if (fetched.media_type and "html" not in fetched.media_type) or not same_site(fetched.url, self._host):
            return []
        page = read_page(fetched)
        visit = Visit(etag=fetched.etag, modified=fetched.modified)
        visit.children = self._follow(page.links, depth, state)
        items = []
        # A page may be another one under a second URL.
        is_second = page.url != url and same_site(page.url, self._host) and not state.see(page.url)
        for key, row, picture in () if page.noindex or is_second else self._rows(page, state):
            visit.pictures.append(picture)
            try:
                items.append(self._item(key, row, page, fetched.url, errors))
                visit.keys.append(key)
            except DropItem as exc:
                errors.add(key, exc.reason)
        if (visit.etag or visit.modified) and not dated:
            state.known[url] = visit
        return items

    def _follow(self, links: Iterable[str], depth: int, state: Frontier) -> list[str]:
        """Queue the linked pages; returns those that are new."""
        if not self._config.follow or depth >= self._config.depth:
            return []
        return [url for url in links if self._is_wanted(url) and state.add(url, depth + 1)]

    def _is_wanted(self, url: str) -> bool:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        return (
            same_site(url, self._host)
            and not is_trap(url)
            and (not self._allow or any(expression.search(target) for expression in self._allow))
            and not any(expression.search(target) for expression in self._deny)
        )

    def _rows(self, page: SitePage, state: Frontier) -> Iterator[tuple[str, Mapping[str, Any], str]]:
        """Key, row and mark of each image of the page that no page before it had."""
        found = False
        for at, row in enumerate(page.described):
            picture = canonical(str(row["image_link"]), page.url)
            own = canonical(str(row["link"]), page.url) if row.get("link") and len(page.described) > 1 else None
            key = own or (page.url if at == 0 else f"{page.url}#{at}")
            if picture and (mark := state.see_picture(f"{key} {picture}")):
                found = True
                yield key, row, mark
        # The image that stands for the whole site is that of no page.
        shared = page.shared if not found and page.url != self._start else None
        for row in (shared,) if shared else ():
            picture = canonical(str(row["image_link"]), page.url)
            if picture and (mark := state.see_picture(picture)):
                found = True
                yield page.url, row, mark
        for row in page.pictures if not found or self._config.pictures == "all" else ():
            picture = canonical(str(row["image_link"]), page.url)
            if picture and (mark := state.see_picture(picture)):
                yield picture, row, mark

    def _item(self, key: str, row: Mapping[str, Any], page: SitePage, base_url: str, errors: RowErrors) -> Item:
        money = self._prices.read(key, row.get("price"), None, errors, machine=True)
        return make_item(
            self.name,
            key,
            resolve_url(row["image_link"], base_url, "picture"),
            page_url=(canonical(str(row["link"]), page.url) if row.get("link") else None) or page.url,
            title=plain_text(row.get("title"), TITLE_LENGTH_MAX) or page.title,
            description=plain_text(row.get("description")) or None,
            price=money.amount,
            currency=money.currency,
            collection=plain_text(row.get("product_type"), 200) or page.breadcrumb,
            country=self._config.country,
            date=iso_date(row.get("date")),
            licence=plain_text(row.get("licence"), 200) or self._config.licence,
            author=plain_text(row.get("author"), 200) or None,
            extra={name: plain_text(row.get(name), 200) for name in EXTRA} | money.extra,
        )


def _expression(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as exc:
        raise SettingsError(f"{where} has {text!r}, which is not a regular expression: {exc}") from exc
