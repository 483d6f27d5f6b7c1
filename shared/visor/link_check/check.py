"""Link check: are the images and pages of items still there? A few items a day, the longest indexed first.

A URL is dead once it failed (404, 410, no such host, no image any more) on two different days, or did not answer on
`SILENT_DAYS` of them. A dead image is replaced by a duplicate of it that the index knows and that still answers; if
there is none, the item is marked and shown without its image. An item whose page is dead, or that has neither page nor
image, is deleted. Permanent redirects are followed. What fails is checked again, and comes back when its URLs do. All
applies only while a host is otherwise fine: one that answers alike for nearly everything is reported and left alone.

Changes are published like a crawl's, one version above the item's own: whatever its catalogue lists next is newer.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import msgspec

from visor.http.fetch import Prober
from visor.index.format.current_model import read_current
from visor.link_check.duplicate_lookup import find_duplicates
from visor.link_check.probe import UrlStatus, is_web, probe_all, probe_url
from visor.link_check.rotation import RECHECK_DAYS_MAX, LinkCase, Rotation, live
from visor.link_check.state import (
    COUNTED,
    PICTURE_GONE,
    PROBLEMS_MAX,
    FailingUrl,
    LinkProblem,
    LinkState,
    with_links,
)
from visor.schema.collections import ITEMS
from visor.schema.items import Change, Item, Record
from visor.schema.words import counted
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore
from visor.storage.publish import publish
from visor.storage.queue import Queue

LOG = logging.getLogger("visor.links")
SLICE = 50
"""Items checked between two saves."""
DUPLICATES_MAX = 5
"""Duplicates of a dead image that are probed to see whether they are still there."""


class LinksReport(Record, frozen=True, kw_only=True):
    """What one run did, in items."""

    checked: int = 0
    moved: int = 0
    replaced: int = 0
    marked: int = 0
    gone: int = 0
    back: int = 0
    suspect: int = 0
    """Items with a URL that fails and is not dead yet."""
    frames: int = 0
    """Video frames that were deleted because no item showed them any more."""
    hosts: dict[str, str] = msgspec.field(default_factory=dict)
    """'pages of HOST' or 'images of HOST' for which a host answers alike, and how: nothing of them is changed."""
    finished: bool = True
    """The day's items are done, or there are no more. False: the time or the free tier's allowance ended first."""

    def summary(self) -> str:
        """What the run did, as one line of text."""
        return (
            f"{counted(self.checked, 'item')} checked: {self.moved} moved, {self.replaced} images replaced, "
            f"{self.marked} shown without their image, {self.gone} gone, {self.back} back, {self.suspect} suspect"
        )


class LinkCheck:
    """One run.

    Args:
        a_day: Items to check in a day (UTC), over all runs.
        trusted: Hosts whose answers the owner declares true for each URL, now and from now on.
        limit: Check this many instead, whatever was checked today.
        room: Check at most this many in this run: what still fits the free tier.
        budget_s: Start nothing new after this many seconds.
        fetcher: Probes a URL; see `Prober`.
    """

    def __init__(
        self,
        *,
        objects: ObjectStore,
        documents: DocumentStore,
        queue: Queue,
        fetcher: Prober,
        a_day: int,
        batch_size: int,
        trusted: Collection[str] = (),
        limit: int | None = None,
        room: int = sys.maxsize,
        budget_s: float = 600.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.objects, self.documents, self.queue, self.fetcher = objects, documents, queue, fetcher
        self.a_day, self.limit, self.room, self.trusted = a_day, limit, room, trusted
        self.batch_size, self.budget_s = batch_size, budget_s
        self.clock, self.sleep = clock, sleep

    def run(self) -> LinksReport:
        """Check what is left of this day's items.

        Raises:
            BadRequest: No check has probed a host that is to be trusted.
            Conflict: Another check ran meanwhile; its result stands.
        """
        self.state, generation = LinkState.load(self.objects)
        self._today = datetime.fromtimestamp(self.clock(), UTC).date()
        self._ends_at = self.clock() + self.budget_s
        before = self.state.totals()
        self.state.trust(self.trusted)
        self._stopped: set[str] = set()
        # What a killed run decided but did not publish; sending the same messages again does no harm.
        self._publish()
        rotation = Rotation(self.documents, self.state, self._today)
        until = self.a_day if self.limit is None else self.state.checked + self.limit
        fits = self.state.checked + self.room
        finished = False
        while self.clock() < self._ends_at:
            cases = rotation.next(SLICE, left=min(until, fits) - self.state.checked)
            if not cases:
                finished = self.state.checked < fits
                break
            self.state.outbox = self._check(cases)
            generation = self.state.save(self.objects, generation)
            self._publish()
        if self.state.outbox or self.trusted:
            self.state.outbox = []
            self.state.save(self.objects, generation)
        suspect = sum(problem.state == "suspect" for problem in self.state.problems.values())
        after = self.state.totals()
        did = {what: after[what] - before[what] for what in COUNTED}
        hosts = {host: f"{s.condition} since {s.since}" for host, s in self.state.hosts.items() if s.condition}
        return LinksReport(**did, suspect=suspect, hosts=hosts, finished=finished)

    def _publish(self) -> None:
        publish(self.queue, self.state.outbox, run="links", batch_size=self.batch_size)

    def _check(self, cases: Sequence[LinkCase]) -> list[Change]:
        urls = {url: is_picture for case in cases for url, is_picture in _urls(case.item)}
        looks = probe_all(
            self.fetcher,
            {_without_part(url): is_picture for url, is_picture in urls.items()},
            lambda: self.clock() >= self._ends_at,
            self.sleep,
            good={part: state.good for part, state in self.state.hosts.items()},
            stopped=self._stopped,
            trusted=self.state.trusted,
        )
        pages = {url: status for look in looks.values() for url, status in look.statuses.items()}
        statuses = {url: _of_part(url, pages[_without_part(url)]) for url in urls}
        for part, look in looks.items():
            self.state.see_host(part, look, self._today.isoformat())
            if look.condition:
                self._stopped.add(part)
                LOG.warning("Links: %d of %d %s: %s", look.bad, look.asked, part, look.condition)
        failing = [self._failing(case, statuses) for case in cases]
        dead = [case for case, (picture, _) in zip(cases, failing, strict=True) if picture and picture.is_dead]
        duplicates = self._living_duplicates(dead) if dead else {}
        changes = []
        for case, (picture, page) in zip(cases, failing, strict=True):
            self.state.count(case.item.source, "checked")
            change = self._settle(case, picture, page, statuses, duplicates.get(case.item.id))
            changes += [change] if change is not None else []
        return changes

    def _failing(
        self, case: LinkCase, statuses: Mapping[str, UrlStatus]
    ) -> tuple[FailingUrl | None, FailingUrl | None]:
        """The problems of the item's image and of its page after this check."""
        item, today = case.item, self._today.isoformat()
        picture, page = (case.problem.picture, case.problem.page) if case.problem else (None, None)
        page_url = item.page_url or ""
        return (
            FailingUrl.after(item.image_url, statuses.get(item.image_url), picture, today),
            FailingUrl.after(page_url, statuses.get(page_url), page, today),
        )

    def _living_duplicates(self, cases: Sequence[LinkCase]) -> dict[str, str]:
        """Item id → URL of a duplicate of its image that is still there, for the items that have one."""
        current, _ = read_current(self.documents)
        model = current.current if current is not None else None
        duplicates = find_duplicates(self.objects, self.documents, model, [case.item.id for case in cases])
        others = self.documents.get(ITEMS, sorted({other for found in duplicates.values() for other in found}))
        originals = defaultdict(list)
        for original, replacement in self.state.replacements.items():
            originals[replacement].append(original)
        living: dict[str, str] = {}
        for case in cases:
            dead = case.item.image_url
            candidates = originals[dead] + [
                indexed.item.image_url
                for other in duplicates.get(case.item.id, ())
                if (indexed := live(others.get(other))) is not None and PICTURE_GONE not in indexed.item.extra
            ]
            for url in list(dict.fromkeys(c for c in candidates if c != dead and is_web(c)))[:DUPLICATES_MAX]:
                if probe_url(self.fetcher, url, is_picture=True).state in ("there", "moved"):
                    living[case.item.id] = url
                    break
        return living

    def _settle(
        self,
        case: LinkCase,
        picture: FailingUrl | None,
        page: FailingUrl | None,
        statuses: Mapping[str, UrlStatus],
        duplicate: str | None,
    ) -> Change | None:
        """Note what became of an item, and return the change that publishes it."""
        item, source = case.item, case.item.source
        dead_picture, dead_page = picture is not None and picture.is_dead, page is not None and page.is_dead
        if dead_picture and duplicate is not None and self.state.set_replacement(item.image_url, duplicate):
            self.state.count(source, "replaced")
            new_picture, picture, dead_picture = duplicate, None, False
        else:
            new_picture = self._moved(item.image_url, statuses, source)
        new_page = None if item.page_url is None else self._moved(item.page_url, statuses, source)
        is_gone = dead_page or (dead_picture and item.page_url is None)
        since = picture.since if picture is not None and dead_picture and not is_gone else None
        after = with_links(item, new_picture, new_page, since)
        state: Literal["suspect", "marked", "gone"] = "gone" if is_gone else "suspect" if since is None else "marked"
        self._note(case, state, picture, page, after)
        return _change(case, after, is_gone=is_gone)

    def _moved(self, url: str, statuses: Mapping[str, UrlStatus], source: str) -> str:
        status = statuses.get(url)
        if status is None or status.state != "moved" or not self.state.set_replacement(url, status.moved_to):
            return url
        self.state.count(source, "moved")
        return status.moved_to

    def _note(
        self,
        case: LinkCase,
        state: Literal["suspect", "marked", "gone"],
        picture: FailingUrl | None,
        page: FailingUrl | None,
        after: Item,
    ) -> None:
        """Keep the item's problem, or forget it."""
        problems, before = self.state.problems, case.problem.state if case.problem else None
        if state != before and state != "suspect":
            self.state.count(case.item.source, state)
        if before in ("marked", "gone") and state == "suspect":
            self.state.count(case.item.source, "back")
        if picture is None and page is None:
            problems.pop(case.item.id, None)
            return
        if case.item.id not in problems and len(problems) >= PROBLEMS_MAX:
            return
        since = min(failing.since for failing in (picture, page) if failing is not None)
        age = (self._today - date.fromisoformat(since)).days
        wait_days = 1 if state == "suspect" else max(1, min(RECHECK_DAYS_MAX, age))
        is_gone = state == "gone"
        problems[case.item.id] = LinkProblem(
            source=case.item.source,
            next=(self._today + timedelta(days=wait_days)).isoformat(),
            state=state,
            picture=picture,
            page=page,
            item=after if is_gone else None,
            version=case.version + case.is_live if is_gone else 0,
        )


def _change(case: LinkCase, after: Item, *, is_gone: bool) -> Change | None:
    item, version = case.item, case.version + 1
    if is_gone:
        return Change.deletion(item.id, item.source, version, key=item.key) if case.is_live else None
    if case.is_live and after == item:
        return None
    same_picture = case.is_live and after.image_url == item.image_url
    return Change(action="update" if same_picture else "embed", item=after, version=version)


def _without_part(url: str) -> str:
    """The URL without its fragment: what servers see. Moments of a video, say, are one page of it."""
    return url.partition("#")[0]


def _of_part(url: str, status: UrlStatus) -> UrlStatus:
    """The status of a URL, given that of the page: a moved page has its parts still, unless it says where to go."""
    if status.state != "moved" or "#" in status.moved_to:
        return status
    return status._replace(moved_to=status.moved_to + url[len(_without_part(url)) :])


def _urls(item: Item) -> list[tuple[str, bool]]:
    """The URLs of an item that can be probed, and whether each is an image's."""
    both = [(item.image_url, True), *([(item.page_url, False)] if item.page_url else [])]
    return [(url, is_picture) for url, is_picture in both if is_web(url)]
