"""Crawl: read a source, find out what changed since the last time, publish that and nothing else.

A pass goes once through a catalogue. It may take several runs: each stops before its time budget ends, and the next
goes on from the checkpoint. Everything that a pass publishes has the pass's version, which is saved before the first
message leaves; so a run that is killed and repeated publishes the same batches again, by name and content.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec

from visor.errors import Conflict, FormatError, QuotaReached, SourceError, VisorError
from visor.ingest.request_budget import RequestBudget, host_of
from visor.ingest.seen_set import Difference, SeenSet
from visor.link_check.state import LinkState
from visor.schema.collections import RUNS
from visor.schema.items import Change, CrawlRun, Item, as_document, item_id
from visor.settings import Settings
from visor.sources.contract import Page, Source
from visor.storage.documents import DocumentStore, Put
from visor.storage.objects import ObjectStore
from visor.storage.publish import publish
from visor.storage.queue import Queue

LOG = logging.getLogger("visor.crawl")
SAVE_EVERY = 5_000
"""Changes published between two saves of the seen-set: what a killed run at most publishes again."""
FAILED_SAMPLES = 5
FAILURE_CLASSES_MAX = 20
LOSS_SHARE, LOSS_MIN = 0.5, 20
"""A pass that would delete more than this share of the items, and more than this many, waits for its owner's word."""

ACTIONS: dict[Difference, str] = {"new": "embed", "picture": "embed", "metadata": "update"}


class Crawl:
    """One run over one source.

    Args:
        budget_s: Stop, and let the next run go on, once this many seconds have passed.
        limit: Stop after this many items, for a try; the pass then stays open.
        changes_max: Stop after this many changes, because no more fit what is free today.
        requests: Counts the downloads of what is published; stop once a host has got its requests of today.
        confirm_loss: Delete what is gone even if that is most of the catalogue.
        dry_run: Tell what would be published, through `on_change`, and publish and save nothing.
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
        self.counts = dict.fromkeys(("seen", "published", "updated", "deleted", "unchanged", "failed"), 0)
        self.why: list[str] = []
        self.failures: Counter[str] = Counter()
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
        started = self.clock()
        run = CrawlRun(
            id=f"{self.source.name}-{int(started * 1000)}", source=self.source.name, started_at=_iso(started)
        )
        self.run_id = run.id
        self._record(run)
        state, code = "failed", ""
        try:
            self._begin_pass(started)
            state = "complete" if self._read(started) else "postponed"
        except QuotaReached as exc:
            # A signal, no failure: what was read is saved, and the next run goes on.
            self.why.append(f"postponed: {exc}")
            state = "postponed"
        except VisorError as exc:
            self.why.append(str(exc))
            code = exc.code
            raise
        except Exception as exc:
            self.why.append(f"{type(exc).__name__}: {exc}")
            code = type(exc).__name__
            raise
        finally:
            run = msgspec.structs.replace(
                run,
                state=state,
                ended_at=_iso(self.clock()),
                why=" | ".join(self.why),
                code=code,
                listed=len(self.seen),
                failures=dict(self.failures.most_common(FAILURE_CLASSES_MAX)),
                **self.counts,
            )
            self._record(run)
        return run

    def _begin_pass(self, now: float) -> None:
        progress = self.seen.progress
        self._begun_at = progress.checkpoint
        if progress.open:
            return
        self.seen.progress = msgspec.structs.replace(
            progress,
            number=progress.number + 1,
            version=max(progress.version + 1, int(now * 1000)),
            open=True,
            partial=False,
        )

    def _read(self, started: float) -> bool:
        """Read pages until the pass is complete (True) or has to wait for the next run (False)."""
        try:
            for page in self.source.read(self.seen.progress.checkpoint):
                self._take(page)
                if page.checkpoint is None:
                    self._end_pass(page.next_pass)
                    return True
                self.seen.progress = msgspec.structs.replace(self.seen.progress, checkpoint=_dict(page.checkpoint))
                if self._unsaved >= SAVE_EVERY:
                    self._save()
                if reason := self._has_to_stop(started):
                    self.why.append(reason)
                    self._save()
                    return False
        except VisorError:
            self._save()
            raise
        raise SourceError(
            f"Source {self.source.name} ended its pages without ending its pass",
            valid="The last page of a pass has no checkpoint",
            remedy="Mend the source: `visor.testing` checks this",
        )

    def _has_to_stop(self, started: float) -> str:
        """Why the next run has to go on; empty while this one may."""
        if self.clock() - started > self.budget_s:
            return f"postponed: the run's {self.budget_s:.0f} s are used up"
        if self.limit and self.counts["seen"] >= self.limit:
            return f"postponed: its limit of {self.limit} items is reached"
        changes = self.counts["published"] + self.counts["updated"] + self.counts["deleted"]
        if self.changes_max is not None and changes >= self.changes_max:
            return f"postponed: no more than {self.changes_max} changes fit what is free today"
        if self._busy_host:
            return f"postponed: {self._busy_host} gets no more than VISOR_HOST_REQUESTS_A_DAY requests today"
        return ""

    def _take(self, page: Page) -> None:
        if (page.partial or page.failed_more) and not self.seen.progress.partial:
            # Rows that failed without a name may be items that are still listed: nothing may be called missing.
            self.seen.progress = msgspec.structs.replace(self.seen.progress, partial=True)
        self.counts["seen"] += len(page.items)
        for item, difference in zip(page.items, self.seen.see(page.items), strict=True):
            if difference == "none":
                self.counts["unchanged"] += 1
            else:
                # What a source may have published itself is new to the crawl only: embed tells whether it is.
                known = difference == "new" and getattr(self.source, "notified", False)
                self._publish_later("update" if known else ACTIONS[difference], item)
        dropped = [failure for failure in page.failed if failure.dropped]
        self.counts["failed"] += len(dropped) + page.failed_more
        self.failures.update(failure_class(failure.reason) for failure in page.failed)
        if page.failed_more:
            self.failures["others of a page with very many"] += page.failed_more
        self.why += [f"{f.key}: {f.reason}" for f in page.failed][: max(0, FAILED_SAMPLES - len(self.why))]
        self.seen.see_unreadable([item_id(self.source.name, f.key) for f in dropped])
        self.counts["seen"] += len(page.unchanged)
        self.counts["unchanged"] += len(page.unchanged)
        self.seen.see_unreadable([item_id(self.source.name, key) for key in page.unchanged])
        for key in page.gone:
            gone = item_id(self.source.name, key)
            if self.seen.forget(gone):
                self._publish_later("delete", self._gone(gone))

    def _end_pass(self, next_pass: Mapping[str, Any] | None) -> None:
        if not self.seen.progress.partial:
            gone = self.seen.missing_twice()
            if len(gone) > max(LOSS_MIN, LOSS_SHARE * len(self.seen)) and not self.confirm_loss:
                # The next pass starts at the beginning and counts again: a catalogue that is back has lost nothing.
                self.seen.progress = msgspec.structs.replace(self.seen.progress, open=False, checkpoint=None)
                raise self._great_loss(len(gone))
            for item in gone:
                self._publish_later("delete", self._gone(item))
            self._flush()
            self.seen.drop(gone)
        self.seen.progress = msgspec.structs.replace(self.seen.progress, open=False, checkpoint=_dict(next_pass))
        self._save()

    def _great_loss(self, gone: int) -> SourceError:
        return SourceError(
            f"Source {self.source.name} no longer lists {gone} of {len(self.seen)} items, for the second time",
            valid=f"A crawl by itself deletes at most {LOSS_SHARE:.0%} of a catalogue; none of these was deleted",
            remedy=f"If they are gone for good: visor crawl {self.source.name} --confirm-loss",
        )

    def _publish_later(self, action: Any, item: Item) -> None:
        counter = {"embed": "published", "update": "updated", "delete": "deleted"}[action]
        self.counts[counter] += 1
        if action != "delete":
            item = self._links.with_known_links(item)
        if action == "embed" and not self._may_download(item.image_url):
            self._busy_host = host_of(item.image_url)
        change = Change(action=action, item=item, version=self.seen.progress.version)
        if self.on_change:
            self.on_change(change)
        self._waiting.append(change)
        if len(self._waiting) >= self.settings.batch_size:
            self._flush()

    def _may_download(self, url: str) -> bool:
        """Count the download that embed will make; whether there is room for more of that host today."""
        if self.requests is None or self.dry_run or not url.startswith(("http:", "https:")):
            return True
        return self.requests.reserve(url)

    @cached_property
    def _links(self) -> LinkState:
        """What is known about links: one read, where there is something to publish."""
        try:
            return LinkState.load(self.objects)[0]
        except FormatError as exc:
            # A crawl does not wait for somebody who mends it: dead addresses are then shown until they are found again.
            LOG.error("Links are not known: %s", exc)
            return LinkState()

    def _flush(self) -> None:
        if not self._waiting:
            return
        if not self.dry_run:
            if self._unsaved == 0:
                self._save_version()
            publish(self.queue, self._waiting, run=self.run_id, batch_size=self.settings.batch_size)
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
        if stored.progress.version != self.seen.progress.version:
            progress = self.seen.progress
            stored.progress = msgspec.structs.replace(progress, checkpoint=self._begun_at)
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

    def _gone(self, item: str) -> Item:
        return Item(id=item, source=self.source.name, key="", image_url="")

    def _record(self, run: CrawlRun) -> None:
        if not self.dry_run:
            self.documents.commit([Put(collection=RUNS, key=run.id, data=as_document(run))])


def failure_class(reason: str) -> str:
    """Why a row failed, without what is its own: texts in quotation marks, addresses and numbers."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|https?://\S+", "…", reason)
    return re.sub(r"\d+(?:[.,]\d+)*", "#", text)[:120]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _dict(checkpoint: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if checkpoint is None else dict(checkpoint)
