"""Reindex: embed every item anew with another model, beside the index that searches go on with, then switch.

The document `index/model` says whose index is searched. A reindex publishes an `embed` change, at its own version, for
each item that another model embedded; embed and compact do the rest as always, under the new model's fingerprint.
When no such item is left and the new index is merged, the document is changed, and running searches follow it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from visor.errors import Conflict
from visor.index.format.current_model import CurrentModel, read_current, write_current
from visor.schema.items import Batch, Change, IndexedItem, Record, is_live
from visor.settings import Settings
from visor.storage.documents import Document, DocumentStore, Where
from visor.storage.queue import Queue

PAGE = 500
"""Item documents read at once."""
OVERLAP_S = 900.0
"""Items may for so long after the start still be embedded with the old model, by deliveries that were under way."""
KEPT_S = 3600.0
"""How long the old index stays after the switch, for searches that have not seen it yet."""


class ReindexReport(Record, frozen=True, kw_only=True):
    """How far a reindex is."""

    current: str
    building: str | None
    published: int = 0
    """Items published since the reindex began."""
    done: bool = False
    """Nothing is left to be embedded anew; the switch follows the next merge."""
    switched: bool = False


class Reindex:
    """One run of a reindex towards `model`. Runs may be stopped and repeated at any time.

    Args:
        model: Fingerprint of the model that the functions embed with now.
    """

    def __init__(
        self,
        documents: DocumentStore,
        queue: Queue,
        settings: Settings,
        model: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.documents, self.queue, self.settings, self.model, self.clock = documents, queue, settings, model, clock

    def publish(self, progress: Callable[[int], None] = lambda published: None) -> ReindexReport:
        """Publish what is not yet published.

        Raises:
            Conflict: Another reindex runs at the same time.
        """
        state, revision = read_current(self.documents)
        if state is None:
            write_current(self.documents, CurrentModel(current=self.model), 0)
            return ReindexReport(current=self.model, building=None, done=True, switched=True)
        if state.current == self.model and state.building is None:
            return ReindexReport(current=self.model, building=None, done=True, switched=True)
        if state.building != self.model:
            until = _iso(self.clock() + OVERLAP_S)
            # Called off: items that only the other model has are embedded back, and its index is dropped in the end.
            previous = state.building if state.current == self.model else state.previous
            state = CurrentModel(current=state.current, building=self.model, until=until, previous=previous)
            revision = self._save(state, revision)
        for page in _pages(self.documents, state.cursor, state.until):
            changes = [change for document in page if (change := self._change(document)) is not None]
            self._send(changes)
            state = msgspec.structs.replace(
                state, cursor=str(page[-1].data["indexed_at"]), published=state.published + len(changes)
            )
            revision = self._save(state, revision)
            progress(state.published)
        return ReindexReport(current=state.current, building=state.building, published=state.published)

    def _save(self, state: CurrentModel, revision: int) -> int:
        if not write_current(self.documents, state, revision):
            raise Conflict(
                "Another reindex wrote how far it is",
                valid="One reindex at a time",
                remedy="Let it end, or run this one again to go on from there",
            )
        return read_current(self.documents)[1]

    def _change(self, document: Document) -> Change | None:
        if not is_live(document.data) or document.data.get("model") == self.model:
            return None
        indexed = msgspec.convert(document.data, IndexedItem)
        return Change(action="embed", item=indexed.item, version=indexed.version)

    def _send(self, changes: list[Change]) -> None:
        by_source: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            by_source[change.item.source].append(change)
        size = self.settings.batch_size
        batches = [
            Batch.of(source, f"reindex-{self.model[:12]}", tuple(all_of[start : start + size]))
            for source, all_of in by_source.items()
            for start in range(0, len(all_of), size)
        ]
        if batches:
            self.queue.publish([msgspec.json.encode(batch) for batch in batches])


def switch_if_done(documents: DocumentStore, model: str, *, clock: Callable[[], float] = time.time) -> ReindexReport:
    """After a merge of `model`'s index: note the first model of an index, or end a reindex that has nothing left.

    Costs one read where no reindex runs.
    """
    state, revision = read_current(documents)
    if state is None:
        write_current(documents, CurrentModel(current=model), 0)
        return ReindexReport(current=model, building=None, done=True, switched=True)
    report = ReindexReport(current=state.current, building=state.building, published=state.published)
    if state.building != model or _is_left(documents, model, state.until):
        return report
    now = clock()
    previous = state.current if state.current != model else state.previous
    after = CurrentModel(current=model, previous=previous, switched=now, published=state.published)
    switched = write_current(documents, after, revision)
    return msgspec.structs.replace(
        report, done=True, switched=switched, current=model if switched else state.current, building=None
    )


def to_drop(documents: DocumentStore, model: str, *, clock: Callable[[], float] = time.time) -> str | None:
    """Fingerprint of the index that nobody searches any more since the switch to `model`, if its time is over."""
    state, revision = read_current(documents)
    if state is None or state.current != model or state.previous is None or clock() - state.switched < KEPT_S:
        return None
    write_current(documents, msgspec.structs.replace(state, previous=None), revision)
    return state.previous


def _is_left(documents: DocumentStore, model: str, until: str) -> bool:
    """Whether an item that was indexed before `until` has a vector of another model only."""
    return any(
        is_live(document.data) and document.data.get("model") != model
        for page in _pages(documents, "", until)
        for document in page
    )


def _pages(documents: DocumentStore, cursor: str, until: str) -> Iterator[list[Document]]:
    """Item documents by the time at which they were indexed, from `cursor` on; a page may repeat the one before."""
    limit = PAGE
    while True:
        page = documents.query(
            "items",
            where=[
                Where(field="indexed_at", op=">=", value=cursor),
                Where(field="indexed_at", op="<", value=until),
            ],
            order_by="indexed_at",
            limit=limit,
        )
        if not page:
            return
        yield page
        if len(page) < limit:
            return
        last = str(page[-1].data["indexed_at"])
        # So many of the same second that the page does not get beyond it: take a longer one.
        limit = limit * 2 if last == cursor else PAGE
        cursor = last


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
