"""Reindex: embed every item again with another model, next to the index that is being searched, then switch.

The document `index/model` names the model whose index is searched. A reindex publishes an `embed` change, at its own
version, for each item that another model embedded; embed and compact do the rest as always, under the new model's
fingerprint. When no such item is left and the new index is merged, the document is replaced, and running searches
follow it. While items cannot be embedded, the old index stays searched, until they can or their owner accepts their
loss.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from visor.errors import Conflict, NothingToCompare, SettingsError
from visor.index.format.current_model import CurrentModel, read_current, write_current
from visor.index.format.manifest import read_commits
from visor.index.merge.garbage import keep_only
from visor.schema.collections import FAILURES, ITEMS
from visor.schema.items import Change, IndexedItem, Record, is_live
from visor.settings import Settings
from visor.storage.documents import Document, DocumentStore, Put, Where
from visor.storage.objects import ObjectStore
from visor.storage.publish import publish
from visor.storage.queue import Queue

LOG = logging.getLogger("visor.reindex")
PAGE = 500
"""Item documents read at once."""
OVERLAP_S = 900.0
"""For this long after the start, deliveries under way may still embed items with the old model."""
KEPT_S = 3600.0
"""How long the old index stays after the switch, for searches that have not seen the switch yet."""


class ReindexReport(Record, frozen=True, kw_only=True):
    """Progress of a reindex."""

    current: str
    building: str | None
    published: int = 0
    """Items published since the reindex began."""
    left: int = 0
    """Items that the new index lacks because of recorded failures. Counted once all are published."""
    done: bool = False
    """Every item is embedded; the switch follows the next merge."""
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

    def publish(
        self, progress: Callable[[int], None] = lambda published: None, *, confirm_loss: bool = False
    ) -> ReindexReport:
        """Publish the items that are not yet published.

        Args:
            confirm_loss: Switch to the new index even if it lacks items that could not be embedded.

        Raises:
            Conflict: Another reindex runs at the same time.
        """
        state, revision = read_current(self.documents)
        if state is None:
            other = next((str(one.data["model"]) for one in _left(self.documents, self.model)), self.model)
            state = CurrentModel(current=other)
            write_current(self.documents, state, 0)
            revision = read_current(self.documents)[1]
        if state.current == self.model and state.building is None:
            return ReindexReport(current=self.model, building=None, done=True, switched=True)
        if state.building != self.model:
            until = self._until()
            # Cancelled: items that only the other model embedded are embedded again here, and its index is dropped.
            previous = state.building if state.current == self.model else state.previous
            state = CurrentModel(current=state.current, building=self.model, until=until, previous=previous)
            revision = self._save(state, revision)
        elif state.cursor and not self.queue.waiting():
            # A process that embedded with another model meanwhile took published items for done, or added items: those
            # that are left are published again.
            state = msgspec.structs.replace(state, cursor="", until=self._until())
        if confirm_loss and not state.loses:
            state = msgspec.structs.replace(state, loses=True)
            revision = self._save(state, revision)
        lacking = lacking_items(self.documents, self.model)
        repeated = state.cursor  # a run before this one published and counted that second, as a whole
        for page in _pages(self.documents, state.cursor, state.until):
            wanted = [(one, change) for one in page if one.key not in lacking and (change := self._change(one))]
            run = f"reindex-{self.model[:12]}"
            publish(self.queue, [change for _, change in wanted], run=run, batch_size=self.settings.batch_size)
            new = sum(one.data["indexed_at"] != repeated for one, _ in wanted)
            cursor = str(page[-1].data["indexed_at"])
            state = msgspec.structs.replace(state, cursor=cursor, published=state.published + new)
            revision = self._save(state, revision)
            progress(state.published)
        left = len(lacking_items(self.documents, self.model))
        return ReindexReport(current=state.current, building=state.building, published=state.published, left=left)

    def _until(self) -> str:
        newest = self.documents.query(ITEMS, order_by="indexed_at", descending=True, limit=1)
        # Items that were indexed while the clock was ahead count, too.
        return max([_iso(self.clock() + OVERLAP_S), *(f"{one.data['indexed_at']}~" for one in newest)])

    def _save(self, state: CurrentModel, revision: int) -> int:
        if not write_current(self.documents, state, revision):
            raise Conflict(
                "Another reindex recorded its progress",
                valid="One reindex at a time",
                remedy="Wait until it ends, or run this one again to continue from there",
            )
        return read_current(self.documents)[1]

    def _change(self, document: Document) -> Change | None:
        if not is_live(document.data) or document.data.get("model") == self.model:
            return None
        indexed = msgspec.convert(document.data, IndexedItem)
        return Change(action="embed", item=indexed.item, version=indexed.version)


def check_model(documents: DocumentStore, model: str, name: str) -> None:
    """Refuse to embed for an index that nobody searches.

    Args:
        model: Fingerprint of the model that would embed.
        name: What it is called.

    Raises:
        SettingsError: The index is of another model, and no reindex to this one has begun.
    """
    state, _ = read_current(documents)
    if state is not None and model not in (state.current, state.building):
        raise SettingsError(
            f"This index is searched with model {state.current[:12]}, and VISOR_MODEL is {name} ({model[:12]})",
            valid="One model for all items: `visor stats` names it",
            remedy="Set VISOR_MODEL to the index's model; or change it for all items: `visor reindex`",
        )


def switch_if_done(documents: DocumentStore, model: str, *, clock: Callable[[], float] = time.time) -> ReindexReport:
    """After a merge of `model`'s index: note the first model of an index, or end a reindex that has nothing left.

    Costs one read if no reindex runs.
    """
    state, revision = read_current(documents)
    if state is None:
        write_current(documents, CurrentModel(current=model), 0)
        return ReindexReport(current=model, building=None, done=True, switched=True)
    report = ReindexReport(current=state.current, building=state.building, published=state.published)
    excused = lacking_items(documents, model) if state.loses else set()
    if state.building != model or any(one.key not in excused for one in _left(documents, model)):
        return report
    now = clock()
    previous = state.current if state.current != model else state.previous
    after = CurrentModel(current=model, previous=previous, switched=now, published=state.published)
    switched = write_current(documents, after, revision)
    return msgspec.structs.replace(
        report, done=True, switched=switched, current=model if switched else state.current, building=None
    )


def finish_reindex(objects: ObjectStore, documents: DocumentStore, model: str) -> None:
    """After a merge of `model`'s index: switch to it if a reindex is complete, and later drop the index it replaced."""
    report = switch_if_done(documents, model)
    if report.switched and report.published:
        LOG.info("The index of model %s is complete and is searched from now on", report.current)
    elif report.current == model and is_old_index_free(documents, model):
        _drop_others(objects, documents, model)


def is_old_index_free(documents: DocumentStore, model: str, *, clock: Callable[[], float] = time.time) -> bool:
    """Whether the index that the switch to `model` replaced may be deleted.

    Never while a reindex runs: documents name each of its models, for vectors that only that index has.
    """
    state, _ = read_current(documents)
    is_served = state is not None and state.current == model and state.building is None
    return state is not None and is_served and state.previous is not None and clock() - state.switched >= KEPT_S


def _drop_others(objects: ObjectStore, documents: DocumentStore, model: str) -> None:
    """Delete every index but that of `model`: the one it replaced, and those whose reindex was never completed."""
    commits = read_commits(documents)
    state, revision = read_current(documents)
    if state is None or not is_old_index_free(documents, model):
        return  # a reindex has begun, and what was read above may belong to it
    # Items that could not be embedded lose their vectors now: another reindex takes them for items of no model.
    lost = documents.get(ITEMS, sorted(lacking_items(documents, model)))
    for one in lost.values():
        data = {**one.data, "model": ""}
        with suppress(Conflict):
            documents.commit([Put(collection=ITEMS, key=one.key, data=data, if_revision=one.revision)])
    keep_only(objects, documents, model, commits)
    write_current(documents, msgspec.structs.replace(state, previous=None), revision)


def _left(documents: DocumentStore, model: str) -> Iterator[Document]:
    """Items that have a vector of another model only, those indexed first first."""
    for page in _pages(documents, "", "~"):
        yield from (one for one in page if is_live(one.data) and one.data.get("model") != model)


def lacking_items(documents: DocumentStore, model: str) -> set[str]:
    """Ids of the items that only another model's index has, and whose embedding failed: embed leaves them out."""
    failures = documents.query(FAILURES)
    # A damaged failure record does not name its item: `visor check` reports it.
    failed = {
        one.key: int(one.data["version"])
        for one in failures
        if "version" in one.data and one.data.get("code") != NothingToCompare.code
    }
    items = documents.get(ITEMS, list(failed)).values()
    return {
        one.key
        for one in items
        if is_live(one.data) and one.data.get("model") != model and one.data["version"] <= failed[one.key]
    }


def _pages(documents: DocumentStore, cursor: str, until: str) -> Iterator[list[Document]]:
    """Item documents by the time at which they were indexed, from `cursor` on: no second is in two pages."""
    limit = PAGE
    while True:
        page = documents.query(
            ITEMS,
            where=[
                Where(field="indexed_at", op=">=", value=cursor),
                Where(field="indexed_at", op="<", value=until),
            ],
            order_by="indexed_at",
            limit=limit,
        )
        if len(page) < limit:
            if page:
                yield page
            return
        cursor = str(page[-1].data["indexed_at"])
        # The last second may go on behind the page: it is read again with the next one.
        whole = [one for one in page if str(one.data["indexed_at"]) < cursor]
        if whole:
            yield whole
        # A whole page of the same second does not move the cursor: read a longer one.
        limit = PAGE if whole else limit * 2


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
