"""The frontier of a site's crawl: which pages wait to be visited, what was seen, and what pages held the last time."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from visor.sources.site.sitemap import Listed
from visor.sources.site.urls import canonical


class Visit(msgspec.Struct, array_like=True):
    """What a page held when it was read, to take it as it is when it has not changed since."""

    etag: str | None = None
    modified: str | None = None
    keys: list[str] = []
    children: list[str] = []
    """Links that were found here first: together they are the tree in which the site was visited."""
    pictures: list[str] = []
    """Marks of the images that were found here first."""


@dataclass(kw_only=True)
class Frontier:
    """The state of one pass. Its size grows with the pages of the site, never with the links between them."""

    began_at: str
    full_at: str | None = None
    """When the last pass that visited every page began."""
    known: dict[str, Visit] = field(default_factory=dict)
    is_open: bool = True
    partial: bool = False
    visited: int = 0
    dead: int = 0
    """Pages in a row that did not answer."""
    waiting: deque[tuple[str, int, bool]] = field(default_factory=deque)
    """URL, depth and whether a sitemap dates it."""
    # In the order in which they came: the state is stored after every few pages, and sorting a set takes long.
    seen: dict[str, None] = field(default_factory=dict)
    pictures: dict[str, None] = field(default_factory=dict)
    listed: dict[str, list[Listed]] = field(default_factory=dict)
    """Pictures that sitemaps list for pages that wait."""
    doubted: list[tuple[str, int, list[str]]] = field(default_factory=list)
    """Pages, with their depth and pictures, whose canonical address was not visited yet."""
    barren: dict[str, int] = field(default_factory=dict)
    """Pages in a row without anything new, by the pattern of their URLs."""

    def add(self, url: str, depth: int, *, dated: bool = False) -> bool:
        """Wait for a page; False if it was seen before, in whatever spelling.

        Args:
            dated: A sitemap says when it changed, so that nothing has to be remembered of it.
        """
        if not self.see(canonical(url) or url):
            return False
        self.waiting.append((url, depth, dated))
        return True

    def put_back(self, url: str, depth: int, dated: bool) -> None:
        """Undo taking a page and counting its visit."""
        self.waiting.appendleft((url, depth, dated))
        self.visited -= 1

    def waiting_since(self, count: int) -> Iterator[str]:
        """The pages that wait behind the first `count`."""
        return (url for url, _, _ in islice(reversed(self.waiting), len(self.waiting) - count))

    def see(self, name: str) -> bool:
        """Whether this is seen for the first time: a page's canonical URL, or what else there is to be told once."""
        return bool(_mark_first(self.seen, name))

    def has_seen(self, name: str) -> bool:
        return _mark(name) in self.seen

    def see_picture(self, picture: str) -> str:
        """A mark of an image that is seen for the first time, else nothing: an image belongs to its first page."""
        return _mark_first(self.pictures, picture)

    def look_again(self) -> None:
        """Wait for the doubted pages that have a picture which no other page had."""
        for url, depth, pictures in self.doubted:
            if not all(map(self.has_seen_picture, pictures)):
                self.waiting.append((url, depth, True))
        self.doubted = []

    def has_seen_picture(self, picture: str) -> bool:
        return _mark(picture) in self.pictures

    def note(self, pattern: str, has_new: bool) -> None:
        """Count pages of one pattern in a row that had nothing new."""
        self.barren[pattern] = 0 if has_new else self.barren.get(pattern, 0) + 1

    def store(self) -> dict[str, Any]:
        """The state as a checkpoint."""
        return {
            **self.closed(),
            "open": True,
            "partial": self.partial,
            "visited": self.visited,
            "waiting": list(self.waiting),
            "seen": list(self.seen),
            "pictures": list(self.pictures),
            "listed": self.listed,
            "doubted": self.doubted,
            "barren": self.barren,
        }

    def closed(self) -> dict[str, Any]:
        """What the next pass needs to know of this one."""
        known = msgspec.to_builtins(self.known)
        return {"began_at": self.began_at, "full_at": self.full_at, "known": known, "open": False}

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Frontier:
        return cls(
            began_at=stored["began_at"],
            full_at=stored["full_at"],
            known=msgspec.convert(stored["known"], dict[str, Visit]),
            is_open=stored["open"],
            partial=stored.get("partial", False),
            visited=stored.get("visited", 0),
            waiting=deque((url, depth, dated) for url, depth, dated in stored.get("waiting", ())),
            seen=dict.fromkeys(stored.get("seen", ())),
            pictures=dict.fromkeys(stored.get("pictures", ())),
            listed=msgspec.convert(stored.get("listed", {}), dict[str, list[Listed]]),
            doubted=[(url, depth, pictures) for url, depth, pictures in stored.get("doubted", ())],
            barren=dict(stored.get("barren", {})),
        )


def _mark_first(seen: dict[str, None], value: str) -> str:
    mark = _mark(value)
    if mark in seen:
        return ""
    seen[mark] = None
    return mark


def _mark(value: str) -> str:
    return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
