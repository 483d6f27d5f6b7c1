"""Where a crawl of a site is: what waits to be visited, what was seen, and what pages said the last time."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any


@dataclass(kw_only=True)
class Visit:
    """What a page held when it was read, to take it as it is when it has not changed since."""

    etag: str | None = None
    modified: str | None = None
    keys: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    """Links that were found here first: together they are the tree in which the site was visited."""
    pictures: list[str] = field(default_factory=list)
    """Marks of the pictures that were found here first."""


class Frontier:
    """The state of one pass. Its size grows with the pages of the site, never with the links between them."""

    def __init__(
        self, *, began_at: str, full_at: str | None = None, known: dict[str, Visit] | None = None, is_open: bool = True
    ) -> None:
        self.began_at = began_at
        self.full_at = full_at
        self.known = known or {}
        self.is_open = is_open
        self.partial = False
        self.visited = 0
        self.dead = 0
        self.waiting: deque[tuple[str, int, bool]] = deque()
        # In the order in which they came: a state is stored after every few pages, and sorting a set takes long.
        self._seen: dict[str, None] = {}
        self._pictures: dict[str, None] = {}
        self._barren: dict[str, int] = {}

    def add(self, url: str, depth: int, *, dated: bool = False) -> bool:
        """Wait for a page; False if it was seen before.

        Args:
            dated: A sitemap says when it changed, so that nothing has to be remembered of it.
        """
        if not self.see(url):
            return False
        self.waiting.append((url, depth, dated))
        return True

    def take(self) -> tuple[str, int, bool]:
        return self.waiting.popleft()

    def put_back(self, url: str, depth: int, dated: bool) -> None:
        """Undo `take` and the visit that was counted for it."""
        self.waiting.appendleft((url, depth, dated))
        self.visited -= 1

    def waiting_since(self, count: int) -> Iterator[str]:
        """The pages that wait behind the first `count`."""
        return (url for url, _, _ in islice(reversed(self.waiting), len(self.waiting) - count))

    def see(self, url: str) -> bool:
        """Whether this address is seen for the first time."""
        return bool(_mark_first(self._seen, url))

    def see_picture(self, picture: str) -> str:
        """A mark of this picture where it is seen for the first time, else nothing: it belongs to its first page."""
        return _mark_first(self._pictures, picture)

    def see_again(self, visit: Visit) -> None:
        """The pictures of a page that has not changed."""
        self._pictures.update(dict.fromkeys(visit.pictures))

    def is_barren(self, pattern: str, after: int) -> bool:
        return self._barren.get(pattern, 0) >= after

    def note(self, pattern: str, has_new: bool) -> None:
        """Count pages of one pattern in a row that had nothing new."""
        self._barren[pattern] = 0 if has_new else self._barren.get(pattern, 0) + 1

    def store(self) -> dict[str, Any]:
        """The state as a checkpoint."""
        return {
            **self._lasting(),
            "open": True,
            "partial": self.partial,
            "visited": self.visited,
            "waiting": list(self.waiting),
            "seen": list(self._seen),
            "pictures": list(self._pictures),
            "barren": self._barren,
        }

    def closed(self) -> dict[str, Any]:
        """What the next pass is told of this one."""
        return {**self._lasting(), "open": False}

    def _lasting(self) -> dict[str, Any]:
        known = {
            url: [visit.etag, visit.modified, visit.keys, visit.children, visit.pictures]
            for url, visit in self.known.items()
        }
        return {"began_at": self.began_at, "full_at": self.full_at, "known": known}

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Frontier:
        known = {
            url: Visit(etag=etag, modified=modified, keys=list(keys), children=list(children), pictures=list(pictures))
            for url, (etag, modified, keys, children, pictures) in stored["known"].items()
        }
        state = cls(began_at=stored["began_at"], full_at=stored["full_at"], known=known, is_open=stored["open"])
        if state.is_open:
            state.partial = stored["partial"]
            state.visited = stored["visited"]
            state.waiting = deque((url, depth, dated) for url, depth, dated in stored["waiting"])
            state._seen = dict.fromkeys(stored["seen"])
            state._pictures = dict.fromkeys(stored["pictures"])
            state._barren = dict(stored["barren"])
        return state


def _mark_first(seen: dict[str, None], value: str) -> str:
    mark = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    if mark in seen:
        return ""
    seen[mark] = None
    return mark
