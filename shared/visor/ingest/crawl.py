"""Crawl: read a source, find out what changed since the last time, publish that and nothing else.

A pass reads the whole catalogue once. It may take several runs: each stops before its time budget ends, and the next
resumes at the checkpoint. Everything that a pass publishes has the pass's version, which is saved before the first
message leaves; so a run that is killed and repeated publishes the same batches again, by name and content.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

from visor.errors import Conflict, FormatError, QuotaReached, SourceError, VisorError
from visor.ingest.request_budget import RequestBudget, host_of
from visor.ingest.run_record import RunRecord
from visor.ingest.seen_set import Difference, SeenSet
from visor.link_check.state import LinkState
from visor.schema.items import Change, CrawlRun, Item, item_id
from visor.settings import Settings
from visor.sources.contract import Page, Source, checked_page
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore
from visor.storage.publish import publish
from visor.storage.queue import Queue

LOG = logging.getLogger("visor.crawl")
SAVE_EVERY = 5_000
"""Changes published between two saves of the seen-set: a killed run publishes at most these again."""
LOSS_SHARE, LOSS_MIN = 0.5, 20
"""A pass that would delete more than this share of the items, and more than this many, has to be confirmed."""

ACTIONS: dict[Difference, Literal["embed", "update"]] = {"new": "embed", "picture": "embed", "metadata": "update"}
COUNTERS = {"embed": "published", "update": "updated", "delete": "deleted"}


class Crawl:
    """One run over one source.

    Args:
        budget_s: Stop once this many seconds have passed; the next run goes on.
        limit: Stop after this many items, for a try; the pass then stays open.
        changes_max: Stop after this many changes, because no more fit the free tier today.
        requests: Counts the downloads of what is published; stop once a host has had its requests of today.
        confirm_loss: Delete what is gone even if that is most of the catalogue.
        dry_run: Report what would be published, through `on_change`; publish and save nothing.
    """

    def __init__(
        self,
        source: Source,
        *,
        objects: ObjectStore,
        documents: DocumentStore,
        queue: Queue,
        settings: Settings,
        budget_s: float | None = None,
        limit: int | None = None,
        changes_max: int | None = None,
        requests: RequestBudget | None = None,
        confirm_loss: bool = False,
        dry_run: bool = False,
        on_change: Callable[[Change], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.source = source
        self.objects, self.documents, self.queue = objects, documents, queue
        self.settings = settings
        self.budget_s = settings.crawl_budget_s if budget_s is None else budget_s
        self.limit, self.changes_max, self.requests = limit, changes_max, requests
        self.dry_run, self.on_change, self.clock = dry_run, on_change, clock
        self.confirm_loss = confirm_loss
        self.seen = SeenSet.load(objects, source.name)
        self._busy_host = ""
        self._waiting: list[Change] = []
        self._unsaved = 0

    def run(self) -> CrawlRun:
        """Crawl until the catalogue, the budget or the limit ends.

        Returns:
            What the run did; it is also kept in the collection `runs`, when it starts and when it ends.

        Raises:
            SourceError: The catalogue cannot be read; what was read before is published and saved.
            Conflict: Another crawl of this source ran meanwhile; its result stands, this run's save is dropped.
        """
        self._started = self.clock()
        self.record = RunRecord(None if self.dry_run else self.documents, self.source.name, self._started)
        self.record.begin()
        state: Literal["complete", "postponed", "failed"] = "failed"
        code = ""
        try:
            self._begin_pass()
            state = "complete" if self._read() else "postponed"
        except QuotaReached as exc:
            # A signal, not a failure: what was read is saved, and the next run goes on.
            self.record.why.append(f"postponed: {exc}")
            state = "postponed"
        except VisorError as exc:
            self.record.why.append(str(exc))
            code = exc.code
            raise
        except Exception as exc:
            code = type(exc).__name__
            self.record.why.append(f"{code}: {exc}")
            raise
        finally:
            run = self.record.end(state, code=code, ended=self.clock(), listed=len(self.seen))
        return run

    def _begin_pass(self) -> None:
        progress = self.seen.progress
        self._begun_at = progress.checkpoint
        if not progress.open:
            version = max(progress.version + 1, int(self._started * 1000))
            self.seen.advance(number=progress.number + 1, version=version, open=True, partial=False)

    def _read(self) -> bool:
        """Read pages until the pass is complete (True) or has to wait for the next run (False)."""
        try:
            for page in self.source.read(self.seen.progress.checkpoint):
                self._take(page)
                if page.checkpoint is None:
                    self._end_pass(page.next_pass)
                    return True
                self.seen.advance(checkpoint=dict(page.checkpoint))
                if self._unsaved >= SAVE_EVERY:
                    self._save()
                if reason := self._stop_reason():
                    self.record.why.append(f"postponed: {reason}")
                    self._save()
                    return False
        except VisorError:
            self._save()
            raise
        raise SourceError(
            f"Source {self.source.name} ended its pages without ending its pass",
            valid="The last page of a pass has no checkpoint",
            remedy="Correct the source: `visor.testing` checks this",
        )

    def _stop_reason(self) -> str:
        """Why the next run has to go on; empty while this one may."""
        if self.clock() - self._started > self.budget_s:
            return f"the run's {self.budget_s:.0f} s are used up"
        if self.limit and self.record.counts["seen"] >= self.limit:
            return f"its limit of {self.limit} items is reached"
        if self.changes_max is not None and self.record.changes >= self.changes_max:
            return f"no more than {self.changes_max} changes fit what is free today"
        if self._busy_host:
            return f"{self._busy_host} gets no more than VISOR_HOST_REQUESTS_A_DAY requests today"
        return ""

    def _take(self, page: Page) -> None:
        if page.partial or page.failed_more:
            # Rows that failed without a name may be items that are still listed: nothing may be called missing.
            self.seen.advance(partial=True)
        page = checked_page(page)
        self.record.add_page(page)
        for item, difference in zip(page.items, self.seen.see(page.items), strict=True):
            if difference == "none":
                self.record.counts["unchanged"] += 1
            else:
                # A source may have published a new item itself already: embed tells whether it is there.
                known = difference == "new" and getattr(self.source, "notified", False)
                self._publish_later("update" if known else ACTIONS[difference], item)
        listed = [failure.key for failure in page.failed if failure.dropped] + list(page.unchanged)
        self.seen.see_unreadable([item_id(self.source.name, key) for key in listed])
        for key in page.gone:
            item_gone = item_id(self.source.name, key)
            if self.seen.forget(item_gone):
                self._delete_later(item_gone)

    def _end_pass(self, next_pass: Mapping[str, Any] | None) -> None:
        if not self.seen.progress.partial:
            gone = self.seen.missing_twice()
            if len(gone) > max(LOSS_MIN, LOSS_SHARE * len(self.seen)) and not self.confirm_loss:
                # The next pass starts at the beginning and counts again: a catalogue that is back has lost nothing.
                self.seen.advance(open=False, checkpoint=None)
                raise SourceError(
                    f"Source {self.source.name} no longer lists {len(gone)} of {len(self.seen)} items, "
                    "for the second time",
                    valid=f"A crawl by itself deletes at most {LOSS_SHARE:.0%} of a catalogue; "
                    "none of these was deleted",
                    remedy=f"If they are gone for good: visor crawl {self.source.name} --confirm-loss",
                )
            for item in gone:
                self._delete_later(item)
            self._flush()
            self.seen.drop(gone)
        self.seen.advance(open=False, checkpoint=None if next_pass is None else dict(next_pass))
        self._save()

    def _publish_later(self, action: Literal["embed", "update"], item: Item) -> None:
        item = self._links.with_known_links(item)
        if action == "embed" and not self._may_download(item.image_url):
            self._busy_host = host_of(item.image_url)
        self._add(Change(action=action, item=item, version=self.seen.progress.version))

    def _delete_later(self, item: str) -> None:
        self._add(Change.deletion(item, self.source.name, self.seen.progress.version))

    def _add(self, change: Change) -> None:
        self.record.counts[COUNTERS[change.action]] += 1
        if self.on_change:
            self.on_change(change)
        self._waiting.append(change)
        if len(self._waiting) >= self.settings.batch_size:
            self._flush()

    def _may_download(self, url: str) -> bool:
        """Count the download that embed will make; whether that host has room for more today."""
        if self.requests is None or self.dry_run or not url.startswith(("http:", "https:")):
            return True
        return self.requests.reserve(url)

    @cached_property
    def _links(self) -> LinkState:
        """What is known about links: one read, if there is something to publish."""
        try:
            return LinkState.load(self.objects)[0]
        except FormatError as exc:
            # A crawl does not wait for a repair: dead URLs are shown until the link check finds them again.
            LOG.error("Links are not known: %s", exc)
            return LinkState()

    def _flush(self) -> None:
        if self._waiting and not self.dry_run:
            if self._unsaved == 0:
                self._save_version()
            publish(self.queue, self._waiting, run=self.record.run.id, batch_size=self.settings.batch_size)
        self._unsaved += len(self._waiting)
        self._waiting = []

    def _save_version(self) -> None:
        """Fix this pass's version before its first message leaves, so that a repeated run publishes the same."""
        stored = SeenSet.load(self.objects, self.source.name)
        if stored.generation != self.seen.generation:
            raise Conflict(
                f"Another crawl of source {self.source.name} is under way or has ended since this one began",
                valid="One crawl of a source at a time",
                remedy="Nothing: its result stands, and the next crawl goes on from there",
            )
        progress = self.seen.progress
        if stored.progress.version != progress.version:
            stored.progress = progress
            stored.advance(checkpoint=self._begun_at)
            stored.save(self.objects, self.source.name)
            self.seen.generation = stored.generation

    def _save(self) -> None:
        """Publish what waits, then save what was seen: a crash in between publishes again, and loses nothing."""
        self._flush()
        if self.dry_run:
            self.seen.fold()
        else:
            self.seen.save(self.objects, self.source.name)
        self._unsaved = 0
