"""Crawls sources and checks links, within the time, the sites' request budgets and the free tier's quota."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import msgspec

from visor.errors import SourceError, VisorError
from visor.free_tier.quota import Meter
from visor.http.client import Fetcher
from visor.ingest.crawl import Crawl
from visor.ingest.request_budget import BudgetedFetcher, RequestBudget
from visor.ingest.schedule import due, due_failures, publish_again, runs_of
from visor.ingest.seen_set import SeenSet, object_name
from visor.link_check.check import LinkCheck, LinksReport
from visor.link_check.probe import is_web
from visor.link_check.thumbnail_gc import sweep_frames
from visor.schema.attributes import AttributeType
from visor.schema.collections import ITEMS
from visor.schema.items import Change, CrawlRun, Failure, live_item
from visor.settings import Settings
from visor.sources.config import SourcesFile, is_source_name
from visor.sources.contract import Source
from visor.sources.remembered import forget, remembered
from visor.storage import Stores
from visor.storage.publish import publish
from visor.telemetry.traces import span

LOG = logging.getLogger("visor.crawl")
RUN_AT_MOST = timedelta(hours=1)
"""Longer than a function may run."""
LINKS_SHARE = 0.1
"""Share of a run's time that is kept for checking links, however much there is to crawl."""


def folder_source_name(folder: Path, stores: Stores, configuration: SourcesFile) -> str:
    """The name of the source for a folder that is given without one: the folder's own name, followed by a mark of its
    path if the source of that name reads something else, or the name is not valid for a source.

    Args:
        folder: Resolved.
        configuration: The owner's other sources.
    """
    mark = hashlib.blake2b(os.fsencode(folder), digest_size=3).hexdigest()
    if not is_source_name(folder.name):
        plain = "".join(c for c in folder.name if c.isprintable() and c != "\\").lstrip(".")
        return f"{plain[:50] or 'folder'}-{mark}"
    other = configuration.entries.get(folder.name)
    if other is not None and Path(str(other.own.get("path", ""))).expanduser().resolve() != folder:
        return f"{folder.name}-{mark}"
    seen = SeenSet.load(stores.objects, folder.name)
    root = (seen.progress.checkpoint or {}).get("root")
    if root is None:
        # Nothing was read yet, or an older Visor read it: its pictures show where.
        indexed = stores.documents.get(ITEMS, [*islice(seen.ids(), 20)]).values()
        urls = [live.item.image_url for one in indexed if (live := live_item(one.data))]
        is_ours = all(url.startswith(f"{folder.as_uri()}/") for url in urls)
    else:
        is_ours = root == str(folder)
    return folder.name if is_ours else f"{folder.name}-{mark}"


class Crawler:
    """The crawl runs and link checks of one process."""

    def __init__(
        self,
        *,
        stores: Stores,
        fetcher: Fetcher,
        settings: Settings,
        meter: Meter,
        request_budget: RequestBudget,
        attributes: Mapping[str, AttributeType] | None = None,
    ) -> None:
        """`attributes`: those of items' `extra` that the owner declares; None: each stays as its item has it."""
        self.stores, self.fetcher, self.settings = stores, fetcher, settings
        self.meter, self.request_budget, self.attributes = meter, request_budget, attributes

    def crawl(
        self,
        source: Source,
        *,
        dry_run: bool = False,
        limit: int | None = None,
        budget_s: float | None = None,
        confirm_loss: bool = False,
        on_change: Callable[[Change], object] | None = None,
    ) -> CrawlRun:
        """One crawl run over `source`. Arguments as in `Crawl`."""
        crawl = Crawl(
            source,
            objects=self.stores.objects,
            documents=self.stores.documents,
            queue=self.stores.queue,
            settings=self.settings,
            dry_run=dry_run,
            limit=limit,
            budget_s=budget_s,
            changes_max=self.meter.headroom("embed"),
            requests=self.request_budget,
            on_change=on_change,
            confirm_loss=confirm_loss,
            attributes=self.attributes,
        )
        with span("crawl", source=source.name) as traced:
            try:
                run = crawl.run()
            finally:
                self.request_budget.flush()
            traced.set(run=run.id, state=run.state, seen=run.seen, published=run.published, deleted=run.deleted)
        if run.state == "empty":
            LOG.warning("Source %s is empty: %s", source.name, run.why, extra={"source": source.name})
        self.meter.add("crawl_run")
        self.meter.add("crawl", run.published + run.updated + run.deleted)
        self.meter.flush()
        return run

    def crawl_due(
        self, configuration: SourcesFile, open_source: Callable[[str], Source], *, alone_since: datetime | None = None
    ) -> list[CrawlRun]:
        """Crawl the sources that are due, the longest waiting first, then check links: in `settings.crawl_budget_s`.

        A run that began before `alone_since` (by default an hour ago) and has not recorded its end, ended with its
        process: its source is due.

        A source that fails, in whatever way, is logged and recorded, and does not keep the others from running. Items
        that failed and are due are tried again.
        """
        budget_s, checks_links = self.settings.crawl_budget_s, self.settings.links_a_day > 0
        ends_at = time.monotonic() + budget_s
        links_s = budget_s * LINKS_SHARE if checks_links else 0.0
        now = datetime.now(UTC)
        given_up = (alone_since or now - RUN_AT_MOST).isoformat()
        latest = {
            name: run
            for name, (run, *_) in runs_of(self.stores.documents, configuration, 1).items()
            if run.state != "running" or run.started_at >= given_up
        }
        runs, documents = [], self.stores.documents
        for entry in due(configuration, latest, now):
            left_s = min(ends_at - links_s - time.monotonic(), entry.common.budget_s or budget_s)
            if left_s <= 0:
                LOG.info("Source %s waits for the next run: the time of this one is used up", entry.name)
                continue
            try:
                run = self.crawl(open_source(entry.name), budget_s=left_s, limit=entry.common.limit)
                LOG.info("Source %s is %s", entry.name, run.summary())
                runs.append(run)
            except VisorError as exc:
                said = str(exc) if entry.name in str(exc) else f"Source {entry.name}: {exc}"
                LOG.error("%s", said, extra={"source": entry.name})
            except Exception:
                LOG.exception("Source %s", entry.name, extra={"source": entry.name})
        try:
            LOG.info("%d items that failed are tried again", self.try_again(due_failures(documents, datetime.now(UTC))))
        except VisorError as exc:
            LOG.error("Items that failed are not tried again: %s", exc)
        if checks_links:
            try:
                LOG.info("Links: %s", self.check_links(budget_s=max(links_s, ends_at - time.monotonic())).summary())
            except VisorError as exc:
                LOG.error("Links: %s", exc)
        return runs

    def forget(self, name: str) -> int:
        """Delete a source's items and all records of it. Returns how many items there were.

        Raises:
            SourceError: The index has nothing from such a source.
        """
        objects, documents = self.stores.objects, self.stores.documents
        seen = self.seen(name, remedy="Pushed items are deleted one by one: DELETE /v1/items/ID")
        version = max(seen.progress.version + 1, int(time.time() * 1000))
        changes = [Change.deletion(item, name, version) for item in seen.ids()]
        publish(self.stores.queue, changes, run="forget", batch_size=self.settings.batch_size)
        # Last: after a crash before this, the same is published again.
        forget(documents, name)
        objects.delete(object_name(name))
        return len(changes)

    def seen(self, name: str, remedy: str = "Correct the name") -> SeenSet:
        """What crawls of a source have seen.

        Raises:
            SourceError: The index has nothing from such a source.
        """
        seen = SeenSet.load(self.stores.objects, name)
        if seen.generation == 0 and name not in (known for known, _, _ in remembered(self.stores.documents)):
            crawled = (
                info.name.removeprefix("seen/").removesuffix(".npz") for info in self.stores.objects.list("seen/")
            )
            found, valid = f"The index has nothing from a source '{name}'", ", ".join(crawled)
            raise SourceError(found, valid=f"Sources that were crawled: {valid}", remedy=remedy)
        return seen

    def try_again(self, failures: Iterable[Failure]) -> int:
        """Publish failed items again, as many as hosts and the free tier allow. Returns how many."""
        stores, room = self.stores, self.meter.headroom("embed")
        allowed = [
            f for f in islice(failures, room) if not is_web(f.image_url) or self.request_budget.reserve(f.image_url)
        ]
        self.request_budget.flush()
        size = self.settings.batch_size
        return publish_again(stores.documents, stores.queue, allowed, batch_size=size, now=datetime.now(UTC))

    def check_links(
        self, *, limit: int | None = None, budget_s: float | None = None, trusted: Collection[str] = ()
    ) -> LinksReport:
        """Check the image and page URLs of some items: `settings.links_a_day` over all runs of a day, or `limit` more.

        Once a week, video frames that no item shows any more are deleted.
        """
        check = LinkCheck(
            objects=self.stores.objects,
            documents=self.stores.documents,
            queue=self.stores.queue,
            fetcher=BudgetedFetcher(self.fetcher, self.request_budget, "links"),
            a_day=self.settings.links_a_day,
            limit=limit,
            trusted=trusted,
            room=self.meter.headroom("link"),
            batch_size=self.settings.batch_size,
            budget_s=self.settings.crawl_budget_s if budget_s is None else budget_s,
        )
        try:
            report = check.run()
        finally:
            self.request_budget.flush()
        self.meter.add("link", report.checked)
        self.meter.add("crawl", report.moved + report.replaced + report.marked + report.gone + report.back)
        frames = sweep_frames(self.stores.objects, self.stores.documents, now=time.time())
        return msgspec.structs.replace(report, frames=frames)
