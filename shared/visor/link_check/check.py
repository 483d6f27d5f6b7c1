"""Links: are the pictures and pages of items still there? A few items a day, the longest indexed first.

An address is dead once it said so (404, 410, no such host, no picture any more) on two different days, or did not
answer on `SILENT_DAYS` of them. A dead picture is replaced by a living copy of it that the index knows, else its item
is marked and shown without it; an item whose page is dead, or that has neither page nor picture, is deleted. Redirects
that are meant to last are followed. What fails is looked at again, and comes back when its addresses do.

Changes are published as a crawl's are, one version above the item's own: whatever its catalogue says next is newer.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

from visor.errors import FetchUnavailable
from visor.index.format.current_model import read_current
from visor.link_check.duplicate_lookup import find_duplicates
from visor.link_check.probe import Look, Prober, is_web, look_at, look_at_all
from visor.link_check.state import PICTURE_GONE, TROUBLES_MAX, Failing, LinkState, Trouble, with_links
from visor.schema.items import Batch, Change, IndexedItem, Item, Record, live_item
from visor.storage.documents import Document, DocumentStore, Where
from visor.storage.objects import ObjectStore
from visor.storage.queue import Queue

SLICE = 50
"""Items looked at between two saves."""
READ_AT_ONCE = 300
"""Items read from the store at once: what a batch indexed at one time as the last is read again with each."""
GONE_DAYS = 2
SILENT_DAYS = 14
AGAIN_DAYS_MAX = 30
"""Longest time until a dead address is asked again."""
GIVEN_UP_DAYS = 180
"""A deleted item whose addresses have not come back for so long is forgotten."""
COPIES_MAX = 5
"""Copies of a dead picture that are asked whether they live."""

Action = Literal["embed", "update", "delete"]


class LinksReport(Record, frozen=True, kw_only=True):
    """What one check of links did, in items."""

    checked: int = 0
    moved: int = 0
    replaced: int = 0
    marked: int = 0
    gone: int = 0
    back: int = 0
    suspect: int = 0
    """Items of which an address fails and is not yet dead."""
    frames: int = 0
    """Frames of videos that were deleted because no item showed them any more."""
    finished: bool = True
    """The day's items are done, or there are no more; False: the time, or what is free, ended first."""


class _Case(NamedTuple):
    """One item to look at: as it is shown, or as it was."""

    item: Item
    version: int
    trouble: Trouble | None
    is_live: bool


class LinkCheck:
    """One run.

    Args:
        a_day: Items to look at in a day (UTC), over all runs.
        limit: Look at so many instead, whatever was looked at today.
        room: Look at no more than so many in this run: what still fits the free tier.
        budget_s: Begin nothing new after so many seconds.
        probe: Asks an address; see `Prober`.
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
        limit: int | None = None,
        room: int = sys.maxsize,
        budget_s: float = 600.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.objects, self.documents, self.queue, self.fetcher = objects, documents, queue, fetcher
        self.a_day, self.limit, self.room = a_day, limit, room
        self.batch_size, self.budget_s = batch_size, budget_s
        self.clock, self.sleep = clock, sleep

    def run(self) -> LinksReport:
        """Look at what is left of this day's items.

        Raises:
            Conflict: Another check ran meanwhile; its result stands.
        """
        self.state, generation = LinkState.load(self.objects)
        before = {what: self._counted(what) for what in ("checked", "moved", "replaced", "marked", "gone", "back")}
        self._ends_at, self._ended = self.clock() + self.budget_s, False
        self._ahead: list[Document] = []
        self._begin_day()
        until = self.a_day if self.limit is None else self.state.checked + self.limit
        fits = self.state.checked + self.room
        finished = False
        while self.clock() < self._ends_at:
            self._left = min(until, fits) - self.state.checked
            cases = self._next(min(SLICE, self._left))
            if not cases:
                finished = self.state.checked < fits
                break
            self._publish(self._judge(cases))
            generation = self.state.save(self.objects, generation)
        suspect = sum(trouble.state == "suspect" for trouble in self.state.troubles.values())
        done = {what: self._counted(what) - count for what, count in before.items()}
        return LinksReport(**done, suspect=suspect, finished=finished)

    def _counted(self, what: str) -> int:
        return sum(counts.get(what, 0) for counts in self.state.counts.values())

    def _begin_day(self) -> None:
        if self.state.day != self._today.isoformat():
            self.state.day, self.state.checked = self._today.isoformat(), 0
        self.state.round_day = self.state.round_day or self.state.day

    @property
    def _today(self) -> date:
        return datetime.fromtimestamp(self.clock(), UTC).date()

    # Which items

    def _next(self, limit: int) -> list[_Case]:
        """The next items to look at: those in trouble whose day has come, then the longest indexed."""
        if limit <= 0:
            return []
        today = self._today.isoformat()
        due = sorted((t.next, item) for item, t in self.state.troubles.items() if t.next <= today)[:limit]
        cases = self._in_trouble([item for _, item in due])
        while len(cases) < limit and not self._ended:
            found, self._ended = self._indexed_next(limit - len(cases))
            cases += found
        self.state.checked += len(cases)
        return cases

    def _in_trouble(self, ids: list[str]) -> list[_Case]:
        documents = self.documents.get("items", ids) if ids else {}
        cases = []
        for item in ids:
            document, trouble = documents.get(item), self.state.troubles[item]
            live = _live(document)
            deleted_here = document is not None and document.data["version"] == trouble.version
            if live is not None and trouble.state == "gone" and live.version >= trouble.version:
                # Its catalogue brought it back.
                del self.state.troubles[item]
                cases.append(_Case(live.item, live.version, None, True))
            elif live is not None:
                cases.append(_Case(live.item, live.version, trouble, True))
            elif deleted_here and trouble.item is not None and self._days_since(trouble) < GIVEN_UP_DAYS:
                cases.append(_Case(trouble.item, trouble.version, trouble, False))
            else:
                del self.state.troubles[item]
        return cases

    def _indexed_next(self, limit: int) -> tuple[list[_Case], bool]:
        """Items after the cursor, and whether there are no more today."""
        known = set(self.state.at_cursor)
        if not self._ahead:
            wanted = min(READ_AT_ONCE, self._left) + len(known)
            documents = self.documents.query(
                "items",
                where=[Where(field="indexed_at", op=">=", value=self.state.cursor)],
                order_by="indexed_at",
                limit=wanted,
            )
            self._is_last = len(documents) < wanted
            self._ahead = [document for document in documents if document.key not in known]
        new, self._ahead = self._ahead[:limit], self._ahead[limit:]
        if not new:
            # No item is looked at twice a day: a round that began today ends the day.
            if self.state.round_day == self.state.day:
                return [], True
            self.state.round_day, self.state.cursor, self.state.at_cursor = self.state.day, "", []
            return [], False
        last = str(new[-1].data["indexed_at"])
        held = known if last == self.state.cursor else set()
        self.state.cursor = last
        self.state.at_cursor = sorted(held | {d.key for d in new if d.data["indexed_at"] == last})
        found = [(document.key, _live(document)) for document in new]
        return [
            _Case(live.item, live.version, None, True)
            for key, live in found
            if live is not None and key not in self.state.troubles
        ], self._is_last and not self._ahead and self.state.round_day == self.state.day

    # What they say

    def _judge(self, cases: list[_Case]) -> list[Change]:
        addresses = {address: is_picture for case in cases for address, is_picture in _addresses(case.item)}
        looks = look_at_all(self.fetcher, addresses, lambda: self.clock() >= self._ends_at, self.sleep)
        judged = [(case, *self._trouble_of(case, looks)) for case in cases]
        copies = self._copies([case for case, picture, _ in judged if self._is_dead(picture)])
        changes = []
        for case, picture, page in judged:
            self.state.count(case.item.source, "checked")
            change = self._settle(case, picture, page, looks, copies.get(case.item.id))
            changes += [change] if change is not None else []
        return changes

    def _trouble_of(self, case: _Case, looks: Mapping[str, Look]) -> tuple[Failing | None, Failing | None]:
        """What is wrong with the item's picture and its page after this look."""
        trouble = case.trouble
        page_url = case.item.page_url or ""
        return (
            self._failing(case.item.image_url, trouble.picture if trouble else None, looks),
            self._failing(page_url, trouble.page if trouble else None, looks),
        )

    def _failing(self, address: str, before: Failing | None, looks: Mapping[str, Look]) -> Failing | None:
        before = before if before is not None and before.address == address else None
        look, today = looks.get(address), self._today.isoformat()
        if look is None or look.state in ("there", "moved"):
            return None
        if look.state == "unknown":
            return before
        if before is None:
            return Failing(address=address, code=look.code, since=today, last=today, days=1)
        if before.last == today:
            return msgspec.structs.replace(before, code=look.code)
        return msgspec.structs.replace(before, code=look.code, last=today, days=before.days + 1)

    def _is_dead(self, failing: Failing | None) -> bool:
        if failing is None:
            return False
        return failing.days >= (SILENT_DAYS if failing.code == FetchUnavailable.code else GONE_DAYS)

    def _copies(self, cases: list[_Case]) -> dict[str, str]:
        """Item id → address of a living copy of its picture, of those that have one."""
        if not cases:
            return {}
        current, _ = read_current(self.documents)
        model = current.current if current is not None else None
        same = find_duplicates(self.objects, self.documents, model, [case.item.id for case in cases])
        others = self.documents.get("items", sorted({other for found in same.values() for other in found}))
        originals = defaultdict(list)
        for catalogue, stand_in in self.state.addresses.items():
            originals[stand_in].append(catalogue)
        living: dict[str, str] = {}
        for case in cases:
            dead = case.item.image_url
            candidates = originals[dead] + [
                live.item.image_url
                for other in same.get(case.item.id, ())
                if (live := _live(others.get(other))) is not None and PICTURE_GONE not in live.item.extra
            ]
            for address in list(dict.fromkeys(c for c in candidates if c != dead and is_web(c)))[:COPIES_MAX]:
                if look_at(self.fetcher, address, is_picture=True).state in ("there", "moved"):
                    living[case.item.id] = address
                    break
        return living

    # What becomes of them

    def _settle(
        self, case: _Case, picture: Failing | None, page: Failing | None, looks: Mapping[str, Look], copy: str | None
    ) -> Change | None:
        item, source = case.item, case.item.source
        dead_picture, dead_page = self._is_dead(picture), self._is_dead(page)
        if dead_picture and copy is not None and self.state.follow(item.image_url, copy):
            self.state.count(source, "replaced")
            new_picture, picture, dead_picture = copy, None, False
        else:
            new_picture = self._moved(item.image_url, looks, source)
        new_page = None if item.page_url is None else self._moved(item.page_url, looks, source)
        is_gone = dead_page or (dead_picture and item.page_url is None)
        since = picture.since if picture is not None and dead_picture and not is_gone else None
        after = with_links(item, new_picture, new_page, since)
        self._note(case, picture, page, after, is_gone=is_gone, is_marked=since is not None)
        return self._change(case, after, is_gone)

    def _moved(self, address: str, looks: Mapping[str, Look], source: str) -> str:
        look = looks.get(address)
        if look is None or look.state != "moved" or not self.state.follow(address, look.address):
            return address
        self.state.count(source, "moved")
        return look.address

    def _note(
        self,
        case: _Case,
        picture: Failing | None,
        page: Failing | None,
        after: Item,
        *,
        is_gone: bool,
        is_marked: bool,
    ) -> None:
        """Keep the item's trouble, or forget it."""
        troubles, before = self.state.troubles, case.trouble.state if case.trouble else None
        state: Literal["suspect", "marked", "gone"] = "gone" if is_gone else "marked" if is_marked else "suspect"
        if state != before and state != "suspect":
            self.state.count(case.item.source, state)
        if before in ("marked", "gone") and state == "suspect":
            self.state.count(case.item.source, "back")
        if picture is None and page is None:
            troubles.pop(case.item.id, None)
            return
        if case.item.id not in troubles and len(troubles) >= TROUBLES_MAX:
            return
        since = min(failing.since for failing in (picture, page) if failing is not None)
        age = (self._today - date.fromisoformat(since)).days
        is_new = is_gone and case.is_live
        troubles[case.item.id] = Trouble(
            source=case.item.source,
            next=self._after(1 if state == "suspect" else max(1, min(AGAIN_DAYS_MAX, age))),
            state=state,
            picture=picture,
            page=page,
            item=after if is_gone else None,
            version=case.version + 1 if is_new else case.version if is_gone else 0,
        )

    def _change(self, case: _Case, after: Item, is_gone: bool) -> Change | None:
        action: Action
        if is_gone:
            if not case.is_live:
                return None
            gone = Item(id=case.item.id, source=case.item.source, key=case.item.key, image_url="")
            return Change(action="delete", item=gone, version=case.version + 1)
        if case.is_live and after == case.item:
            return None
        action = "update" if case.is_live and after.image_url == case.item.image_url else "embed"
        return Change(action=action, item=after, version=case.version + 1)

    def _publish(self, changes: Iterable[Change]) -> None:
        by_source: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            by_source[change.item.source].append(change)
        bodies = [
            msgspec.json.encode(Batch.of(source, "links", tuple(some[at : at + self.batch_size])))
            for source, some in by_source.items()
            for at in range(0, len(some), self.batch_size)
        ]
        if bodies:
            self.queue.publish(bodies)

    def _after(self, days: int) -> str:
        return (self._today + timedelta(days=days)).isoformat()

    def _days_since(self, trouble: Trouble) -> int:
        since = [failing.since for failing in (trouble.picture, trouble.page) if failing is not None]
        return (self._today - date.fromisoformat(min(since))).days if since else 0


def _live(document: Document | None) -> IndexedItem | None:
    return live_item(document.data if document else None)


def _addresses(item: Item) -> list[tuple[str, bool]]:
    """The addresses of an item that can be asked, and whether each is a picture's."""
    both = [(item.image_url, True), *([(item.page_url, False)] if item.page_url else [])]
    return [(address, is_picture) for address, is_picture in both if is_web(address)]
