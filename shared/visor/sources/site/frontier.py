"""The frontier of a site's crawl: the pages that wait to be visited, those that were seen, and what they held last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from visor.sources.site.pictures import Picture
from visor.sources.site.urls import canonical


class Visit(msgspec.Struct, array_like=True):
    """What a page held when it was read, for reuse if it has not changed since."""

    etag: str | None = None
    modified: str | None = None
    keys: list[str] = []
    children: list[str] = []
    """Links that were found here first: together they form the tree in which the site was visited."""
    pictures: list[str] = []
    """Marks of the images that were found here first."""


class Had(msgspec.Struct, array_like=True):
    """A page on which items were found, as it was."""

    target: str
    """A mark of where it led."""
    products: int
    """How many products it described."""


class Shown(msgspec.Struct, array_like=True):
    """A product on a page other than its own, such as a list."""

    row: dict[str, Any]
    """With Google's attribute names, and absolute URLs."""
    by: str
    """The canonical URL of the page that shows it."""


class Frontier(msgspec.Struct, kw_only=True, omit_defaults=True, rename={"is_open": "open"}):
    """The state of one pass. Its size grows with the pages of the site, never with the links between them."""

    began_at: str
    full_at: str | None = None
    """When the last pass that visited every page began."""
    known: dict[str, Visit] = {}
    had: dict[str, Had] = {}
    """Pages on which items were found when they were last read, by their marks."""
    led: dict[str, int] = {}
    """How many links each page had, if others were found first on it, by the pages' marks."""
    is_open: bool = True
    partial: bool = False
    visited: int = 0
    dead: int = 0
    """Pages in a row that did not answer."""
    waiting: list[tuple[str, int, bool]] = []
    """URL, depth and whether a sitemap gives its date."""
    seen: set[str] = set()
    """Marks of pages, and of anything else that is reported or decided once."""
    pictures: set[str] = set()
    listed: dict[str, list[Picture]] = {}
    """Pictures that sitemaps list for pages that wait."""
    shown: dict[str, Shown] = {}
    """Products that other pages show, by their own pages, as long as these wait."""
    doubted: list[tuple[str, int, list[str]]] = []
    """Pages, with their depth and pictures, whose canonical URL was not visited yet."""
    barren: dict[str, int] = {}
    """Pages in a row without anything new, by the pattern of their URLs."""

    def add(self, url: str, depth: int, *, dated: bool = False) -> bool:
        """Queue a page; False if it was seen before, in whatever spelling.

        Args:
            dated: A sitemap says when it changed, so that nothing about it has to be remembered.
        """
        if not self.see(canonical(url) or url):
            return False
        self.waiting.append((url, depth, dated))
        return True

    def put_back(self, url: str, depth: int, dated: bool) -> None:
        """Undo taking a page and counting its visit."""
        self.waiting.insert(0, (url, depth, dated))
        self.visited -= 1

    def look_again(self) -> None:
        """Queue the doubted pages that have a picture which no other page had."""
        for url, depth, pictures in self.doubted:
            if not all(map(self.has_seen_picture, pictures)):
                self.waiting.append((url, depth, True))
        self.doubted = []

    def see(self, name: str) -> bool:
        """Whether this is seen for the first time: a page's canonical URL, or anything else that is reported once."""
        return bool(_mark_first(self.seen, name))

    def has_seen(self, name: str) -> bool:
        return _mark(name) in self.seen

    def see_picture(self, picture: str) -> str:
        """The mark of an image that is seen for the first time, else nothing: an image belongs to its first page."""
        return _mark_first(self.pictures, picture)

    def has_seen_picture(self, picture: str) -> bool:
        return _mark(picture) in self.pictures

    def had_on(self, name: str) -> Had | None:
        """A page as it was, if items were found on it when it was last read."""
        return self.had.get(_mark(name))

    def note_had(self, name: str, had: Had | None) -> None:
        """Remember a page on which items were found; None: there were none, or the page is gone."""
        if had:
            self.had[_mark(name)] = had
        else:
            self.had.pop(_mark(name), None)

    def led_on(self, name: str) -> int:
        """How many links a page had when it was last read, if others were found on it."""
        return self.led.get(_mark(name), 0)

    def note_led(self, name: str, links: int) -> None:
        """Remember how many links a page has if others were found on it; 0: none were."""
        if links:
            self.led[_mark(name)] = links
        else:
            self.led.pop(_mark(name), None)

    def note(self, pattern: str, has_new: bool) -> None:
        """Count consecutive pages of one pattern that had nothing new."""
        self.barren[pattern] = 0 if has_new else self.barren.get(pattern, 0) + 1

    def store(self) -> dict[str, Any]:
        """The state as a checkpoint."""
        return dict(msgspec.to_builtins(self))

    def closed(self) -> dict[str, Any]:
        """What the next pass needs to know about this one."""
        had = {mark: had for mark, had in self.had.items() if self.partial or mark in self.seen}
        led = {mark: links for mark, links in self.led.items() if self.partial or mark in self.seen}
        closed = Frontier(
            began_at=self.began_at, full_at=self.full_at, known=self.known, had=had, led=led, is_open=False
        )
        return closed.store()

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Frontier:
        return msgspec.convert(stored, cls)


def _mark_first(seen: set[str], value: str) -> str:
    mark = _mark(value)
    if mark in seen:
        return ""
    seen.add(mark)
    return mark


def mark_of_target(url: str) -> str:
    """A mark of where a page leads within its site, by http or https, with `www.` and a slash at its end or without."""
    parts = urlsplit(canonical(url) or url)
    return _mark(f"{parts.path.rstrip('/')}?{parts.query}")


def _mark(value: str) -> str:
    return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
