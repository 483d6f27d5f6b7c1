"""Rotation: which items have their links checked next? First problems that are due, then the longest indexed."""

from __future__ import annotations

from datetime import date, timedelta
from typing import NamedTuple

from visor.link_check.state import LinkProblem, LinkState
from visor.schema.collections import ITEMS
from visor.schema.items import IndexedItem, Item, as_records, is_live
from visor.storage.documents import Document, DocumentStore, Where

READ_AT_ONCE = 300
"""Items read from the store at once: those indexed at the same time as the last one are read again each time."""
RECHECK_DAYS_MAX = 30
"""Longest time until a dead URL is probed again."""
GIVEN_UP_DAYS = 180
"""A deleted item whose URLs have not come back for this long is forgotten."""


class LinkCase(NamedTuple):
    """One item to check: as it is shown, or as it was before it was deleted."""

    item: Item
    version: int
    problem: LinkProblem | None
    is_live: bool


class Rotation:
    """The items of one run. Moves the state's cursor, and counts the items that it returns in `state.checked`."""

    def __init__(self, documents: DocumentStore, state: LinkState, today: date) -> None:
        self.documents, self.state, self.today = documents, state, today
        self._read_ahead: list[Document] = []
        self._is_last = self._ended = False
        if state.day != today.isoformat():
            state.day, state.checked = today.isoformat(), 0
        state.round_day = state.round_day or state.day

    def next(self, limit: int, *, left: int) -> list[LinkCase]:
        """At most `limit` items.

        Args:
            left: Items that this run may still check.
        """
        limit = min(limit, left)
        if limit <= 0:
            return []
        today, latest = self.today.isoformat(), (self.today + timedelta(days=RECHECK_DAYS_MAX)).isoformat()
        # A date later than any possible wait comes from a clock that was ahead.
        due = sorted((p.next, item) for item, p in self.state.problems.items() if not today < p.next <= latest)[:limit]
        cases = self._with_problems([item for _, item in due])
        while len(cases) < limit and not self._ended:
            cases += self._indexed_next(limit - len(cases), left)
        self.state.checked += len(cases)
        return cases

    def _with_problems(self, ids: list[str]) -> list[LinkCase]:
        documents = self.documents.get(ITEMS, ids) if ids else {}
        cases = []
        for item in ids:
            document, problem = documents.get(item), self.state.problems[item]
            indexed = live(document)
            deleted_here = document is not None and document.data.get("version") == problem.version
            if indexed is not None and problem.state == "gone" and indexed.version >= problem.version:
                # Its catalogue has brought it back.
                del self.state.problems[item]
                cases.append(LinkCase(indexed.item, indexed.version, None, True))
            elif indexed is not None:
                cases.append(LinkCase(indexed.item, indexed.version, problem, True))
            elif deleted_here and problem.item is not None and problem.age_days(self.today) < GIVEN_UP_DAYS:
                cases.append(LinkCase(problem.item, problem.version, problem, False))
            else:
                del self.state.problems[item]
        return cases

    def _indexed_next(self, limit: int, left: int) -> list[LinkCase]:
        """Items after the cursor. Sets `_ended` if there are no more today."""
        state = self.state
        known = set(state.at_cursor)
        if not self._read_ahead:
            wanted = min(READ_AT_ONCE, left) + len(known)
            documents = self.documents.query(
                ITEMS,
                where=[Where(field="indexed_at", op=">=", value=state.cursor)],
                order_by="indexed_at",
                limit=wanted,
            )
            self._is_last = len(documents) < wanted
            self._read_ahead = [document for document in documents if document.key not in known]
        # No item is checked twice a day: a round that began today ends the day.
        is_last_round = state.round_day == state.day
        new, self._read_ahead = self._read_ahead[:limit], self._read_ahead[limit:]
        if not new:
            self._ended = is_last_round
            if not is_last_round:
                state.round_day, state.cursor, state.at_cursor = state.day, "", []
            return []
        last = str(new[-1].data["indexed_at"])
        held = known if last == state.cursor else set()
        state.cursor = last
        state.at_cursor = sorted(held | {d.key for d in new if d.data["indexed_at"] == last})
        self._ended = self._is_last and not self._read_ahead and is_last_round
        found = [live(document) for document in new if document.key not in state.problems]
        return [LinkCase(indexed.item, indexed.version, None, True) for indexed in found if indexed is not None]


def live(document: Document | None) -> IndexedItem | None:
    """The item of a document; None if it is missing, deleted or damaged."""
    there = [document] if document is not None and is_live(document.data) else []
    return next((indexed for _, indexed in as_records(there, IndexedItem)), None)
