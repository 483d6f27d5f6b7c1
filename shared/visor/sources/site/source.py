"""`site`: any website. It obeys robots.txt, and visits first what sitemaps list, then the links within the site."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Meta
from protego import Protego

from visor.errors import FetchFailed, QuotaReached, SettingsError, SourceUnavailable
from visor.http.fetch import Fetched
from visor.http.retry import RetryPolicy
from visor.imaging.sniff import what_instead
from visor.schema.items import Item
from visor.schema.words import counted
from visor.sources.client import RetryingClient
from visor.sources.contract import Page, Place, RowErrors, SourceConfig, SourceContext
from visor.sources.parse.encoding import decoded
from visor.sources.parse.price import DecimalSign, PriceReader
from visor.sources.site.doubt import says_gone, says_not_now
from visor.sources.site.frontier import Frontier, Had, Visit, mark_of_target
from visor.sources.site.items import SHARED_MIN, PageItems, ReadPage
from visor.sources.site.page import SitePage, read_page
from visor.sources.site.sitemap import locations
from visor.sources.site.urls import (
    absolute,
    canonical,
    is_file,
    is_trap,
    may_be_endless,
    pattern,
    same_site,
    shown,
)

PAGE_SIZE = 20
"""Pages of the site that are visited for one `Page` of items."""
DEAD_AFTER = 5
"""Unanswered requests in a row, after which the run ends."""
BARREN_AFTER = 40
"""Pages of one pattern in a row without anything new, after which others are skipped: calendars, facets."""
DELAY_MAX_S = 30.0
ROBOT = "Visor"
_VERSION = re.compile(r"^(\s*user-?\s?agent\s*:\s*[\w-]+)/[^\r\n]*", re.I | re.M)
"""A version after the name of a robot in robots.txt, which does not belong there."""


class SiteConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `site` source."""

    url: str
    """Where to begin; other hosts are not visited."""
    sitemaps: tuple[str, ...] | None = None
    """None: the sitemaps that robots.txt names, else /sitemap.xml. Empty: none."""
    follow: bool = True
    """Also visit the pages to which pages link."""
    depth: Annotated[int, Meta(ge=0)] = 5
    """Links from the start or a sitemap's page."""
    pages_max: Annotated[int, Meta(ge=1)] = 10_000
    """Pages to visit in one pass."""
    allow: tuple[str, ...] = ()
    """Regular expressions, one of which must match in a page's path and query; the start page is visited anyway."""
    deny: tuple[str, ...] = ()
    """Regular expressions, none of which may match there."""
    pictures: Literal["described", "all"] = "described"
    """`described`: the pictures that structured data or Open Graph name, or else the plain ones. `all`: both."""
    delay_s: float = 1.0
    """Seconds between two requests; a longer Crawl-delay of robots.txt takes precedence."""
    full_every_days: Annotated[int, Meta(ge=1)] = 30
    """Time between two passes that visit every page. The passes in between visit pages that sitemaps list as new, and
    request other pages with their validators."""
    licence: str | None = None
    """Of items that name none."""
    country: str | None = None
    """Of all items."""
    decimal: DecimalSign | None = None
    """The sign before decimals in prices that are texts."""
    patience: RetryPolicy = RetryPolicy(attempts=2)


class SiteSource:
    """Visits pages in the order in which they are found. The checkpoint is the frontier."""

    Config: ClassVar[type[SourceConfig]] = SiteConfig

    def __init__(self, name: str, config: SiteConfig, context: SourceContext) -> None:
        start = absolute(config.url)
        if start is None:
            raise SettingsError(f"sources.{name}.url = {config.url!r} is not a URL", valid="http://… or https://…")
        self.name = name
        self._config = config
        self._context = context
        self._start = start
        self._host = urlsplit(start).netloc
        self._allow = [_expression(text, f"sources.{name}.allow") for text in config.allow]
        self._deny = [_expression(text, f"sources.{name}.deny") for text in config.deny]
        self._client = RetryingClient(
            name, context, patience=config.patience, accept="text/html,application/xhtml+xml;q=0.9"
        )
        self._lists = RetryingClient(name, context, patience=config.patience, accept="text/plain,application/xml;q=0.9")
        self._asked = False
        self._items = PageItems(
            name,
            canonical(start) or start,
            PriceReader(config.decimal),
            takes_all=config.pictures == "all",
            licence=config.licence,
            country=config.country,
        )
        self._stop: QuotaReached | SourceUnavailable | None = None
        """The error that ends the run once the pages read so far are yielded."""

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        self._stop, errors = None, RowErrors()
        robots = self._robots()
        state = Frontier.restore(checkpoint) if checkpoint else None
        if state is None or not state.is_open:
            state = self._begin(robots, state, errors)
        delay_s = min(max(self._config.delay_s, float(robots.crawl_delay(ROBOT) or 0)), DELAY_MAX_S)
        while True:
            yielded = self._visit_some(state, robots, delay_s, errors)
            if not state.waiting:
                state.look_again()
            more = bool(state.waiting) and state.visited < self._config.pages_max
            if not more:
                break
            yield msgspec.structs.replace(yielded, checkpoint=state.store(), partial=state.partial)
            if self._stop is not None:
                raise self._stop
            errors = RowErrors()
        # Pages beyond the limit are not missing.
        over = {f"pages beyond pages_max = {self._config.pages_max}": len(state.waiting)} if state.waiting else {}
        passed_over = {**yielded.passed_over, **over}
        partial = state.partial or bool(over)
        errors = RowErrors()
        left = errors.page(self._items.left(state, errors))
        yield msgspec.structs.replace(
            yielded,
            items=yielded.items + left.items,
            failed=yielded.failed + left.failed,
            passed_over=passed_over,
            partial=partial,
            next_pass=state.closed(),
        )

    def _robots(self) -> Protego:
        """The site's robots.txt (RFC 9309). A missing one allows everything; an unavailable one ends the run."""
        try:
            fetched = self._lists.get(urljoin(self._start, "/robots.txt"))
        except FetchFailed:
            return Protego.parse("")
        return Protego.parse(_VERSION.sub(r"\1", decoded(fetched.body[:500_000], fetched.charset)))

    def _begin(self, robots: Protego, before: Frontier | None, errors: RowErrors) -> Frontier:
        """A new pass: the start page and what the sitemaps list."""
        now, had, led = self._context.now(), before.had if before else {}, before.led if before else {}
        last_full = datetime.fromisoformat(before.full_at) if before and before.full_at else None
        if last_full is None or now - last_full >= timedelta(days=self._config.full_every_days):
            before = None
        began_at = now.isoformat(timespec="seconds")
        state = Frontier(
            began_at=began_at,
            full_at=before.full_at if before else began_at,
            known=before.known if before else {},
            had=had,
            led=led,
        )
        state.add(self._start, 0)
        named = self._config.sitemaps if self._config.sitemaps is not None else tuple(robots.sitemaps)
        promised = bool(named) or self._config.sitemaps is not None
        listed = [absolute(url, self._start) or url for url in (named if promised else ("/sitemap.xml",))]
        if not promised:
            # A sitemap that existed before is reported if it is missing, as if it were promised.
            state.see(listed[0])
            promised = state.had_on(listed[0]) is not None
        for location in locations(self._lists, listed, self._host, errors, promised=promised):
            state.note_had(listed[0], Had("", 0))
            if self._is_passed_over(location.url, state, errors):
                continue
            # Most sitemaps are exact to the day.
            if before and location.lastmod is not None and location.lastmod[:10] < before.began_at[:10]:
                state.partial = True
                continue
            if location.images:
                state.listed[canonical(location.url) or ""] = list(location.images)
            state.add(location.url, 0, dated=location.lastmod is not None)
        return state

    def _visit_some(self, state: Frontier, robots: Protego, delay_s: float, errors: RowErrors) -> Page:
        """Visits the next pages of the site."""
        read: list[tuple[str, ReadPage]] = []
        gone: list[str] = []
        unchanged: list[str] = []
        visits = 0
        # Fewer pages would not show which picture is that of the whole site.
        visits_max = min(PAGE_SIZE, max(self._context.items_max or PAGE_SIZE, SHARED_MIN + 1))
        while state.waiting and visits < visits_max and state.visited < self._config.pages_max:
            url, depth, dated = state.waiting.pop(0)
            name = canonical(url) or url
            # A page that is configured or listed by a sitemap is not a trap.
            barren = state.barren.get(pattern(url), 0) if depth else 0
            if not robots.can_fetch(url, ROBOT):
                errors.pass_over("pages that robots.txt disallows")
                continue
            if barren >= BARREN_AFTER:
                errors.pass_over(f"pages like {BARREN_AFTER} others in a row that had nothing new")
                continue
            visits += 1
            state.visited += 1
            known = state.known.get(name)
            try:
                fetched = self._get(url, known, delay_s)
                page = self._page(url, fetched, depth, state, errors)
            except QuotaReached as exc:
                # The visits so far count; the next run begins with this page.
                state.put_back(url, depth, dated)
                self._stop = exc
                break
            except (FetchFailed, SourceUnavailable) as exc:
                state.see(f"visited {name}")
                state.shown.pop(name, None)
                status = exc.status if isinstance(exc, FetchFailed) else None
                is_start = name == canonical(self._start)
                if is_start and not state.waiting:
                    with self._client.required():
                        raise
                if status in (404, 410) and not is_start:
                    gone += known.keys if known else [name]
                    errors.pass_over(f"pages that are gone ({status})")
                    state.known.pop(name, None)
                    state.note_had(name, None)
                    state.dead = 0
                    continue
                errors.add(Place(url), exc.found)
                self._follow(known.children if known else (), url, depth, state, errors)
                state.dead = state.dead + 1 if isinstance(exc, SourceUnavailable) else 0
                if state.dead >= DEAD_AFTER and isinstance(exc, SourceUnavailable):
                    # The next run continues after these pages, so that they cannot stop each run.
                    self._stop = exc
                    break
                continue
            state.dead = 0
            if fetched.not_modified and known is not None:
                state.see(f"visited {name}")
                state.shown.pop(name, None)
                unchanged += known.keys
                state.pictures.update(dict.fromkeys(known.pictures))
                self._follow(known.children, url, depth, state, errors)
            elif not robots.can_fetch(fetched.url, ROBOT):
                # This is about the page that it led to; only the redirect requested that.
                errors.pass_over("pages that robots.txt disallows")
            elif page is None:
                errors.pass_over(f"documents that are not HTML ({fetched.media_type})")
            else:
                one = self._read(url, fetched, page, depth, state, errors)
                read.append((name, one))
                if (fetched.etag or fetched.modified) and not dated:
                    state.known[name] = one.visit
        # Only together do they show which picture is that of the whole site.
        shares: Counter[str | None] = Counter(one.shared for _, one in read if one.shared)
        items: list[Item] = []
        for name, one in read:
            on_list = state.shown.get(name)
            one = one._replace(shown=on_list.row if on_list else None)
            items += self._items.of(one, shares, state, errors)
            if one.visit.keys or not one.page.robots.isdisjoint({"noindex", "noimageindex"}):
                state.shown.pop(name, None)
            had = Had(mark_of_target(one.url), len(one.page.described))
            state.note_had(name, had if one.visit.keys else None)
            state.note_led(name, len(one.page.links) if one.visit.children else 0)
            state.see(f"visited {name}")
        return errors.page(items, gone=tuple(gone), unchanged=tuple(unchanged))

    def _get(self, url: str, known: Visit | None, delay_s: float) -> Fetched:
        if self._asked and delay_s > 0:
            self._context.sleep(delay_s)
        self._asked = True
        fetched = self._client.get(url, etag=known.etag if known else None, modified=known.modified if known else None)
        if not same_site(fetched.url, self._host):
            raise FetchFailed(
                f"{url} leads to another host: {shown(fetched.url)}",
                remedy="If the site has moved there, make that its url",
            )
        if not (known and fetched.not_modified) and not fetched.body.strip():
            raise FetchFailed(f"{url} answers an empty page")
        return fetched

    def _page(self, url: str, fetched: Fetched, depth: int, state: Frontier, errors: RowErrors) -> SitePage | None:
        """The page that was fetched; None if it has not changed, or is not HTML.

        Raises:
            FetchFailed: Items were found on the page before, and the answer now is not that page, or only part of it,
                so this is not evidence that the items are gone.
        """
        had, instead = state.had_on(canonical(url) or url), fetched.media_type
        if fetched.not_modified:
            return None
        if not instead or "html" in instead:
            sniffed = what_instead(fetched.body) if had else None
            instead = "" if sniffed in ("HTML", "SVG", "XML", None) else str(sniffed)
        if instead and had:
            raise FetchFailed(f"{url} had items, and is not HTML now ({instead})")
        if instead:
            return None
        page = read_page(fetched, now=self._context.now().isoformat())
        target, products = mark_of_target(fetched.url), len(page.described)
        is_bare = not (products or page.shared or page.pictures)
        is_first = products or state.see(
            f"shows {page.text} {[picture.url for picture in page.pictures]} {page.shared}"
        )
        led = state.led_on(canonical(url) or url)
        if is_bare and page.instead and 2 * len(page.links) < led:
            raise FetchFailed(f"{url} led to other pages, and now {page.instead}")
        if had is None or (page.robots and not says_not_now(page.title)):
            return page
        is_one = len({row.get("item_group_id") or at for at, row in enumerate(page.described)}) == 1
        if target != had.target and (not is_one or target == mark_of_target(self._start)):
            self._follow([fetched.url], url, depth, state, errors)
            raise FetchFailed(f"{url} had items, and leads to another page now: {shown(fetched.url)}")
        if page.is_broken and products < had.products:
            raise FetchFailed(f"{url} had {counted(had.products, 'product')}, and its JSON-LD is cut off or broken now")
        instead = says_not_now(page.title) if had.products and not products else ""
        if is_bare and canonical(url) not in state.listed:
            instead = "has only scripts" if page.is_scripted and not page.links else page.instead
        if not instead and not is_first and (is_bare or had.products) and not says_gone(page.text):
            instead = "shows what another page shows"
        if instead:
            raise FetchFailed(f"{url} had items, and now {instead}: it may replace the page")
        return page

    def _read(
        self, url: str, fetched: Fetched, page: SitePage, depth: int, state: Frontier, errors: RowErrors
    ) -> ReadPage:
        """Take in a page that was fetched; its links go to the frontier."""
        visit = Visit(etag=fetched.etag, modified=fetched.modified)
        shape, waiting = pattern(url), len(state.waiting)
        visit.children = self._follow(page.links, url, depth, state, errors)
        for reason, count in page.left_out.items():
            errors.pass_over(reason, count)
        for directive in sorted(page.robots):
            errors.pass_over(f"pages that say {directive}")
        shared = canonical(str(page.shared["image_link"]), page.base_url) if page.shared else None
        listed = state.listed.pop(canonical(url) or "", [])
        urls = [row["image_link"] for row in page.described] + [picture.url for picture in page.pictures]
        pictures = [found for url in urls if (found := canonical(url, page.base_url))] + ([shared] if shared else [])
        if not pictures and not listed and not page.robots:
            empty = "pages without pictures and links, as JavaScript makes them" if not page.links else ""
            errors.pass_over(empty or "pages without a picture")
        # A trap links to more of the same, under the same title; a list links elsewhere.
        leads_on = any(pattern(child) != shape for child, _, _ in state.waiting[waiting:])
        is_named = state.see(f"title {shape} " + re.sub(r"\d+", "#", page.title))
        if may_be_endless(shape):
            state.note(shape, leads_on or is_named or not all(map(state.has_seen_picture, pictures)))
        return ReadPage(page, fetched.url, visit, depth, pictures, shared, listed)

    def _follow(self, links: Iterable[str], of: str, depth: int, state: Frontier, errors: RowErrors) -> list[str]:
        """Queue the pages to which a page links; returns those that are new."""
        new: list[str] = []
        for url in links if self._config.follow else ():
            if self._is_passed_over(url, state, errors):
                continue
            if depth < self._config.depth:
                new += [url] if state.add(url, depth + 1) else []
            elif not state.has_seen(canonical(url) or url) and state.see(f"too deep {canonical(url)}"):
                errors.pass_over(f"pages more than depth = {self._config.depth} links away")
                # Pages that a list links to may only have moved down. A trap, such as a calendar, leads to nothing.
                state.partial |= pattern(url).partition("?")[0] != pattern(of).partition("?")[0]
        return new

    def _is_passed_over(self, url: str, state: Frontier, errors: RowErrors) -> bool:
        """Whether a page does not belong to this source; each is counted once, and so is each other host."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        reason, what = "", url
        if not same_site(url, self._host):
            reason, what = "other hosts that pages link to", parts.netloc
        elif is_file(url):
            return True
        elif is_trap(url):
            reason = "pages with addresses like those of crawler traps"
        elif self._allow and not any(expression.search(target) for expression in self._allow):
            reason = "pages that allow does not name"
        elif any(expression.search(target) for expression in self._deny):
            reason = "pages that deny names"
        if reason and state.see(f"passed over {what}"):
            errors.pass_over(reason)
        return bool(reason)


def _expression(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as exc:
        raise SettingsError(f"{where} has {text!r}, which is not a regular expression: {exc}") from exc
