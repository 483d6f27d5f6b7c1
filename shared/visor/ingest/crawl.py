"""Crawl: read a source, find out what changed since the last time, publish only the changes.

A pass reads the whole catalogue once. It may take several runs: each stops before its time budget ends, and the next
resumes at the checkpoint. Everything that a pass publishes has the pass's version, which is saved before the first
message is sent; so a run that is killed and repeated publishes the same batches again, by name and content.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

import msgspec

from visor.errors import Conflict, FormatError, NotConfigured, QuotaReached, SourceError, VisorError
from visor.http.url_policy import host_of
from visor.ingest.request_budget import RequestBudget
from visor.ingest.run_record import RunRecord
from visor.ingest.seen_set import Difference, SeenSet
from visor.link_check.state import LinkState
from visor.schema.attributes import AttributeType
from visor.schema.items import Change, CrawlRun, Item, RunState, item_id
from visor.schema.words import counted
from visor.settings import Settings
from visor.sources.contract import Page, RowFailure, Source, checked_page
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore
from visor.storage.publish import publish
from visor.storage.queue import Queue

LOG = logging.getLogger("visor.crawl")
SAVE_EVERY = 5_000
"""Changes published between two saves of the seen-set: a killed run publishes at most these again."""
LOSS_SHARE = 0.5
"""The loss of more than this share of the items in a pass, however few they are, has to be confirmed."""

ACTIONS: dict[Difference, Literal["embed", "update"]] = {"new": "embed", "picture": "embed", "metadata": "update"}
LISTED_TWICE = "its key is listed more than once in one pass: the first counts"
COUNTERS = {"embed": "published", "update": "updated", "delete": "deleted"}


class Crawl:
    """One run over one source.

    Args:
        budget_s: Stop once this many seconds have passed; the next run goes on.
        limit: Stop after this many items, for a trial; the pass then stays open, and deletes nothing.
        changes_max: Stop after this many changes, because no more fit the free tier today.
        requests: Counts the downloads that published changes cause; stop once a host has had today's requests.
        confirm_loss: Delete missing items even if they are most of the catalogue.
        dry_run: Report what would be published, through `on_change`; publish and save nothing.
        attributes: The attributes of items' `extra` that the owner declares; if these changed, all items are updated.
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
        on_change: Callable[[Change], object] | None = None,
        attributes: Mapping[str, AttributeType] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.source = source
        self.objects, self.documents, self.queue = objects, documents, queue
        self.settings = settings
        self.budget_s = settings.crawl_budget_s if budget_s is None else budget_s
        self.limit, self.changes_max, self.requests = limit, changes_max, requests
        self.dry_run, self.on_change, self.clock = dry_run, on_change, clock
        self.confirm_loss, self.attributes = confirm_loss, attributes
        self.seen = SeenSet.load(objects, source.name)
        self._busy_host = ""
        self._waiting: list[Change] = []
        self._unsaved = 0

    def run(self) -> CrawlRun:
        """Crawl until the catalogue, the budget or the limit ends.

        Returns:
            What the run did; it is also kept in the collection `runs`, when it starts and when it ends.

        Raises:
            SourceError: The catalogue cannot be read; items that were read before are published and saved.
            Conflict: Another crawl of this source ran meanwhile; its result stands, this run's save is dropped.
        """
        self._started = self.clock()
        self.record = RunRecord(None if self.dry_run else self.documents, self.source.name, self._started)
        self.record.begin()
        state: RunState = "failed"
        code = ""
        try:
            self._begin_pass()
            state = self._read_on()
        except QuotaReached as exc:
            # A signal, not a failure: the state so far is saved, and the next run continues.
            self.record.why.append(f"postponed: {exc}")
            state = "postponed"
        except VisorError as exc:
            if isinstance(exc, SourceError | NotConfigured) and not exc.found.startswith("Source "):
                found = f"Source '{self.source.name}': {exc.found}"
                VisorError.__init__(exc, found, valid=exc.valid, remedy=exc.remedy)
            self.record.why.append(str(exc))
            code = exc.code
            raise
        except Exception as exc:
            code = type(exc).__name__
            self.record.why.append(f"{code}: {exc}")
            raise
        except KeyboardInterrupt:
            code = "interrupted"
            self.record.why.append("It was interrupted: the next run goes on from the checkpoint")
            raise
        finally:
            run = self.record.end(state, code=code, ended=self.clock(), listed=len(self.seen))
        return run

    def _begin_pass(self) -> None:
        progress = self.seen.progress
        self._begun_at, self._resumes = progress.checkpoint, progress.open
        if not progress.open:
            version = max(progress.version + 1, int(self._started * 1000))
            self.seen.advance(number=progress.number + 1, version=version, open=True, partial=False)

    def _read_on(self) -> RunState:
        """`_read`; but if the last run failed at this checkpoint and this one fails there, too, the pass begins again:
        entries before that checkpoint would never be read again."""
        failed_at = self.seen.progress.failed_at
        try:
            return self._read()
        except SourceError as exc:
            stuck = self.seen.progress
            if stuck.checkpoint is None or stuck.failed_at != failed_at:
                raise
            self.record.why.append(f"{exc} The last run failed there too: this one reads from the beginning again")
        self.seen.advance(open=False, checkpoint=None, unread=stuck.unread_now, unread_now={})
        self._begin_pass()
        try:
            return self._read()
        except SourceError:
            if self.seen.progress.checkpoint is None:
                # Not even the first page could be read: the host is down, and the old checkpoint is worth keeping.
                self.seen.progress = stuck
                self._save()
            raise

    def _read(self) -> RunState:
        """Read pages until the pass has ended or has to wait for the next run."""
        try:
            for page in self.source.read(self.seen.progress.checkpoint):
                if self._take(page):
                    if page.checkpoint is None:
                        self._end_pass(page.next_pass)
                        return self._ended_as()
                    self.seen.advance(checkpoint=dict(page.checkpoint))
                if self._unsaved >= SAVE_EVERY:
                    self._save()
                if reason := self._stop_reason():
                    self.record.why.append(f"postponed: {reason}")
                    self._save()
                    return "postponed"
        except VisorError:
            checkpoint = msgspec.json.encode(self.seen.progress.checkpoint, order="deterministic")
            self.seen.advance(failed_at=hashlib.blake2b(checkpoint, digest_size=8).hexdigest())
            self._save()
            raise
        raise SourceError(
            f"Source {self.source.name} ended its pages without ending its pass",
            valid="A last page without a checkpoint",
            remedy="Correct the source: `visor.testing` checks this",
        )

    def _stop_reason(self) -> str:
        """Why this run has to leave the rest to the next one; empty while it may continue."""
        if self.clock() - self._started > self.budget_s:
            return f"the run's {self.budget_s:.0f} s are used up"
        if self.limit and self.record.counts["seen"] >= self.limit:
            return f"its limit of {self.limit} items is reached"
        if self.changes_max is not None and self.record.changes >= self.changes_max:
            return f"no more than {self.changes_max} changes fit what is free today"
        if self._busy_host:
            return f"{self._busy_host} gets no more than VISOR_HOST_REQUESTS_A_DAY requests today"
        return ""

    def _take(self, page: Page) -> bool:
        """Take a page's items up to the limit. Returns whether that is all of them: if not, the next run takes the rest
        of this page."""
        if page.partial or page.failed_more:
            # Rows that failed without a key may be items that are still listed: no item may count as missing.
            self.seen.advance(partial=True)
        page = checked_page(page, self.source.name, self.attributes)
        # If the last run stopped within a page, it took those items of the page that this pass has seen.
        left = tuple(item for item in page.items if not (self._resumes and self.seen.has_seen(item)))
        some = left[: self.limit - self.record.counts["seen"]] if self.limit else left
        page, self._resumes = msgspec.structs.replace(page, items=some), False
        self.seen.note_unread(failure.key for failure in page.failed if failure.unread)
        self.record.add_page(page)
        for item, difference in zip(page.items, self.seen.see(page.items), strict=True):
            if difference == "none":
                self.record.counts["unchanged"] += 1
            elif difference == "other picture":
                self.record.add_failure(
                    RowFailure(key=item.key, reason=f"{LISTED_TWICE}; this one has another picture")
                )
            elif difference == "other metadata":
                self.record.passed_over[LISTED_TWICE] += 1
            else:
                # A source may have published a new item itself already: embed finds out whether it is there.
                known = difference == "new" and getattr(self.source, "notified", False)
                self._publish_later("update" if known else ACTIONS[difference], item)
        listed = [failure.key for failure in page.failed if failure.dropped] + list(page.unchanged)
        self.seen.see_unreadable([item_id(self.source.name, key) for key in listed])
        self.seen.see_gone(item_id(self.source.name, key) for key in page.gone)
        return len(some) == len(left)

    def _end_pass(self, next_pass: Mapping[str, Any] | None) -> None:
        only_changes = self.seen.progress.partial and not self.record.counts["failed"]
        places = len(self.seen.progress.unread_now)
        ending = self.seen.end_pass(loss_share=LOSS_SHARE, confirmed=self.confirm_loss)
        listed = len(self.seen)
        nothing = listed > 0 and ending.seen == 0 and not only_changes
        lost = listed if nothing else max(ending.lost, len(ending.gone))
        if lost > LOSS_SHARE * listed and not self.confirm_loss:
            # The next pass starts at the beginning and counts again: a catalogue that is back has lost nothing.
            self.seen.advance(open=False, checkpoint=None)
            cause = self.record.likeliest_cause()
            raise SourceError(
                f"Source {self.source.name} no longer lists {lost} of {listed} items" + (f": {cause}" if cause else ""),
                valid=f"At most {LOSS_SHARE:.0%} of a catalogue less in one pass",
                remedy="None was deleted. If they are gone for good: "
                f"visor crawl {shlex.quote(self.source.name)} --confirm-loss (confirm_loss=True)",
            )
        if places:
            kept = listed - ending.seen - ending.missing
            stay = f"; kept, though not seen: {counted(kept, 'item')}" if kept else ""
            self.record.why.append(f"{counted(places, 'place')} could not be read{stay}")
        if missing := ending.missing - len(ending.gone):
            self.record.why.append(f"Not seen; deleted if further passes miss them too: {counted(missing, 'item')}")
        for item in ending.gone:
            self._delete_later(item)
        self._flush()
        self.seen.drop(ending.gone)
        self.seen.advance(open=False, checkpoint=None if next_pass is None else dict(next_pass))
        self._save()

    def _ended_as(self) -> RunState:
        if len(self.seen) or self.record.counts["deleted"]:
            return "complete"
        self.record.why.insert(0, f"Nothing was found to index: {self.record.likeliest_cause()}")
        return "empty"

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
        """Count the download that embed will make; returns whether that host may have more today."""
        if self.requests is None or self.dry_run or not url.startswith(("http:", "https:")):
            return True
        return self.requests.reserve(url)

    @cached_property
    def _links(self) -> LinkState:
        """The state of links: one read, if there is something to publish."""
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
        """Publish the waiting changes, then save the seen-set: after a crash in between they are published again, and
        nothing is lost."""
        self._flush()
        if self.dry_run:
            self.seen.fold()
        else:
            self.seen.save(self.objects, self.source.name)
        self._unsaved = 0
