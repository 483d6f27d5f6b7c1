"""What is known about links: how far the check is, since when which URLs fail, and which URLs replace others.

One object an index, `links.json`: one read and a few writes a day, whatever the size of the catalogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from visor.errors import BadRequest, FetchUnavailable
from visor.schema.items import Change, Item, Record
from visor.storage.objects import ObjectStore
from visor.storage.state_object import load_state

if TYPE_CHECKING:
    from visor.link_check.probe import HostLook, UrlStatus

OBJECT = "links.json"
FORMAT = 1
REPLACEMENTS_MAX = 50_000
PROBLEMS_MAX = 20_000
"""Most problems that are noted, which keeps the object small; these are settled before others are added."""
GONE_DAYS = 2
"""Days on which a URL answered that it is gone, until it is dead …"""
SILENT_DAYS = 14
"""… and days on which it did not answer."""
GOOD_MAX = 3
"""Working URLs remembered per host: they show whether a failure is the host's condition or a URL's own."""
HOSTS_MAX = 1_000
"""Hosts that are remembered: those that were checked last."""
HOSTS_SHOWN = 20
"""Most hosts that an error names."""
COUNTED = ("checked", "moved", "replaced", "marked", "gone", "back")
PICTURE_GONE = "picture_gone"
"""Key in an item's `extra`: since when its image is gone. The item is still found, and shown without its image."""
_HOPS_MAX = 5


class FailingUrl(Record, frozen=True, kw_only=True):
    """A URL that no longer returns what it did."""

    url: str = msgspec.field(name="address")
    code: str
    """`http_404`, `http_410`, or the `code` of an error."""
    since: str
    """ISO 8601 date of the first failure."""
    last: str
    days: int
    """Different days on which it failed."""

    @classmethod
    def after(cls, url: str, status: UrlStatus | None, before: FailingUrl | None, today: str) -> FailingUrl | None:
        """The problem of a URL after a check; None if there is none.

        Args:
            status: What the check found; None if the URL was not probed.
            before: The problem of the item's earlier URL, if any.
        """
        before = before if before is not None and before.url == url else None
        if status is None or status.state in ("there", "moved"):
            return None
        if status.state == "unknown":
            return before
        if before is None:
            return cls(url=url, code=status.code, since=today, last=today, days=1)
        days = before.days + (before.last != today)
        return msgspec.structs.replace(before, code=status.code, last=today, days=days)

    @property
    def is_dead(self) -> bool:
        return self.days >= (SILENT_DAYS if self.code == FetchUnavailable.code else GONE_DAYS)


class LinkProblem(Record, frozen=True, kw_only=True):
    """An item whose image or page fails."""

    source: str
    next: str
    """ISO 8601 date from which it is checked again."""
    state: Literal["suspect", "marked", "gone"] = "suspect"
    """`marked`: shown without its image; `gone`: not shown."""
    picture: FailingUrl | None = None
    page: FailingUrl | None = None
    item: Item | None = None
    """For a gone item: what comes back if its URLs do."""
    version: int = 0
    """For a gone item: the version that deleted it."""

    @property
    def failing(self) -> list[FailingUrl]:
        return [failing for failing in (self.picture, self.page) if failing is not None]

    def age_days(self, today: date) -> int:
        """Days since the first failure."""
        since = min((failing.since for failing in self.failing), default=today.isoformat())
        return (today - date.fromisoformat(since)).days


class HostState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known about the pages or the images of a host as a whole."""

    good: list[str] = []
    """URLs that were there the last time."""
    condition: str = ""
    """The answer that it gives for nearly everything; empty if answers differ."""
    since: str = ""
    """ISO 8601 date."""


class LinkState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """See the module. Changed in place by the one check that runs."""

    format: int = FORMAT
    day: str = ""
    """ISO 8601 date (UTC) of the day that `checked` counts."""
    checked: int = 0
    round_day: str = ""
    """Day on which this round through all items began."""
    cursor: str = ""
    """Items that were indexed before this time were checked in this round …"""
    at_cursor: list[str] = msgspec.field(default_factory=list)
    """… and of those indexed at this time, these."""
    problems: dict[str, LinkProblem] = msgspec.field(default_factory=dict, name="troubles")
    """By item id."""
    replacements: dict[str, str] = msgspec.field(default_factory=dict, name="addresses")
    """URL in a catalogue → where it moved to, or a duplicate of the same image that is still there."""
    hosts: dict[str, HostState] = msgspec.field(default_factory=dict)
    """By `visor.link_check.probe.part_of`."""
    trusted: set[str] = msgspec.field(default_factory=set)
    """Hosts whose answers the owner has declared true for each URL."""
    outbox: list[Change] = msgspec.field(default_factory=list)
    """Changes that the last slice publishes. Kept until then: if a run is killed, the next publishes them."""
    counts: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    """By source: the counts of `COUNTED`, over all runs."""

    @classmethod
    def load(cls, objects: ObjectStore) -> tuple[LinkState, int]:
        """The state and its generation; `(empty, 0)` before the first check.

        Raises:
            CorruptObject, NewerFormat: It cannot be read; the message names it.
        """
        return load_state(objects, OBJECT, cls(), newest_format=FORMAT)

    def save(self, objects: ObjectStore, generation: int) -> int:
        """Replace exactly that generation (0: create). Returns the new one.

        Raises:
            Conflict: Another check has written meanwhile.
        """
        return objects.put(OBJECT, msgspec.json.encode(self), if_generation=generation).generation

    def trust(self, hosts: Collection[str]) -> None:
        """Believe from now on what these hosts answer. Raises `BadRequest` for one that no check has probed."""
        failing = (url.url for problem in self.problems.values() for url in problem.failing)
        known = {part.rpartition(" ")[2] for part in self.hosts} | {urlsplit(url).netloc.lower() for url in failing}
        if strange := sorted({host.lower() for host in hosts} - known - self.trusted):
            raise BadRequest(
                f"No check of links has probed {', '.join(map(repr, strange))}",
                valid=", ".join(sorted(known | self.trusted)[:HOSTS_SHOWN]) or "No host yet",
                remedy="Name the host as `visor links` shows it, which also shows what answers alike",
            )
        self.trusted |= {host.lower() for host in hosts}

    def see_host(self, part: str, look: HostLook, today: str) -> None:
        """Note whether a host answers alike for nearly all its pages or images, and which of them were there."""
        state = self.hosts.pop(part, None) or HostState()
        if look.condition:
            state.since, state.condition = state.since or today, look.condition
        elif look.asked:
            state.since = state.condition = ""
        there = [url for url, status in look.statuses.items() if status.state == "there"]
        state.good = list(dict.fromkeys([*there, *state.good]))[:GOOD_MAX]
        if state.good or state.condition:
            self.hosts[part] = state
        while len(self.hosts) > HOSTS_MAX:
            del self.hosts[next(iter(self.hosts))]

    def count(self, source: str, what: str, number: int = 1) -> None:
        counts = self.counts.setdefault(source, {})
        counts[what] = counts.get(what, 0) + number

    def totals(self) -> dict[str, int]:
        """Each of `COUNTED`, over all sources."""
        return {what: sum(counts.get(what, 0) for counts in self.counts.values()) for what in COUNTED}

    def of_source(self, source: str) -> dict[str, int]:
        """Counts of a source: what was done over all runs, what is suspect now, and what fails now by code."""
        now: Counter[str] = Counter()
        for problem in self.problems.values():
            if problem.source == source:
                now["suspect"] += problem.state == "suspect"
                now.update(failing.code for failing in problem.failing)
        return {**self.counts.get(source, {}), **{name: count for name, count in sorted(now.items()) if count}}

    def set_replacement(self, url: str, by: str) -> bool:
        """Replace `url` with `by` from now on; False if there is no room for it."""
        if len(self.replacements) >= REPLACEMENTS_MAX and url not in self.replacements:
            return False
        self.replacements.pop(by, None)
        self.replacements[url] = by
        return True

    def current(self, url: str) -> str:
        """What replaces a URL, or the URL itself."""
        for _ in range(_HOPS_MAX):
            if url not in self.replacements:
                break
            url = self.replacements[url]
        return url

    def with_known_links(self, item: Item) -> Item:
        """An item as its catalogue lists it, with what is known about its links."""
        picture = self.current(item.image_url)
        page = None if item.page_url is None else self.current(item.page_url)
        problem = self.problems.get(item.id)
        failing = problem.picture if problem is not None and problem.state == "marked" else None
        since = failing.since if failing is not None and failing.url == picture else None
        return with_links(item, picture, page, since)


def with_links(item: Item, picture: str, page: str | None, gone_since: str | None) -> Item:
    """The item with those URLs, marked if its image is gone."""
    extra = {name: value for name, value in item.extra.items() if name != PICTURE_GONE}
    if gone_since is not None:
        extra[PICTURE_GONE] = gone_since
    if (picture, page, extra) == (item.image_url, item.page_url, item.extra):
        return item
    return msgspec.structs.replace(item, image_url=picture, page_url=page, extra=extra)
