"""Assembly: from settings to the parts of a process. Entry points call it once; nothing else opens a store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from visor.errors import VisorError
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.free_tier.quota import Meter
    from visor.http.client import Fetcher
    from visor.image_readers.readers import Pictures
    from visor.index.merge.merge import MergeReport
    from visor.index.search.searcher import Searcher
    from visor.ingest.bucket_events import Notified
    from visor.ingest.embed import BatchEmbedder
    from visor.ingest.push import Pusher
    from visor.ingest.reindex import ReindexReport
    from visor.ingest.request_budget import RequestBudget
    from visor.link_check.check import LinksReport
    from visor.models.embedder import Embedder
    from visor.schema.items import Change, CrawlRun, IndexedItem, Item
    from visor.search.active_index import ActiveIndex
    from visor.search.service import SearchService
    from visor.sources.config import Configuration
    from visor.sources.contract import Source, SourceContext
    from visor.storage import Stores
    from visor.web.app import SearchApp
    from visor.web.site import Site

LOG = logging.getLogger("visor.app")
LINKS_SHARE = 0.1
"""Of a crawl run's time, what is kept for looking at links however much there is to crawl."""


class Assembly:
    """The parts of one process. Each is imported and made when it is first needed, so that a function starts fast."""

    def __init__(self, settings: Settings, *, embedder: Embedder | None = None) -> None:
        """`embedder` is one that the process has already, to be shared."""
        self.settings = settings
        self._embedder = embedder

    def close(self) -> None:
        """Give back what was opened."""
        for part in ("fetcher", "stores"):
            if part in self.__dict__:
                self.__dict__[part].close()

    def __enter__(self) -> Assembly:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def stores(self) -> Stores:
        from visor.storage import StoresWhenUsed

        return StoresWhenUsed(self.settings)

    @cached_property
    def fetcher(self) -> Fetcher:
        from visor.http.client import Fetcher

        return Fetcher(self.settings)

    @cached_property
    def embedder(self) -> Embedder:
        from visor.models.embedder import load_embedder

        return self._embedder or load_embedder(self.settings)

    @cached_property
    def meter(self) -> Meter:
        from visor.free_tier.quota import Meter

        return Meter(self.stores.documents, self.settings)

    @cached_property
    def fingerprint(self) -> str:
        """Of the model, which is not loaded for it: compact merges vectors and makes none."""
        from visor.models.store import fingerprint_of

        return self._embedder.fingerprint if self._embedder else fingerprint_of(self.settings)

    @property
    def label_words(self) -> list[dict[str, float]]:
        """What the words of the labels' names are worth; empty where the model is not at hand."""
        from visor.errors import ModelError, ModelNotBuilt
        from visor.models.store import label_words, model_directory, read_manifest

        try:
            directory = model_directory(self.settings, self.settings.model)
            return label_words(read_manifest(self._embedder.directory if self._embedder else directory))
        except (ModelError, ModelNotBuilt):
            return []

    @cached_property
    def searcher(self) -> Searcher:
        from visor.index.search.searcher import Searcher

        return Searcher(
            self.stores.objects,
            self.stores.documents,
            model=self.embedder.fingerprint,
            freshness_s=self.settings.freshness_s,
        )

    @cached_property
    def batch_embedder(self) -> BatchEmbedder:
        from visor.ingest.embed import BatchEmbedder

        return BatchEmbedder(
            embedder=self.embedder,
            read_image=self.read_image,
            objects=self.stores.objects,
            documents=self.stores.documents,
            settings=self.settings,
            meter=self.meter,
        )

    @cached_property
    def pusher(self) -> Pusher:
        from visor.ingest.push import Pusher

        return Pusher(
            queue=self.stores.queue, documents=self.stores.documents, settings=self.settings, meter=self.meter
        )

    @cached_property
    def source_context(self) -> SourceContext:
        from visor.sources.contract import SourceContext

        return SourceContext(settings=self.settings, fetcher=self.fetcher, objects=self.stores.objects)

    @cached_property
    def configuration(self) -> Configuration:
        from visor.sources.config import Configuration

        return Configuration.load(self.settings.config)

    def open_source(self, name: str, config: Mapping[str, Any]) -> Source:
        """The source that `config` describes. Raises as `visor.sources.registry.open_source`."""
        from visor.sources.registry import open_source

        return open_source(name, config, self._context_of(name))

    def named_source(self, name: str) -> Source:
        """The source of that name in the owner's visor.toml. Raises as `Configuration.open`."""
        a_day = self.configuration.entry(name).plan.requests_a_day
        return self.configuration.open(name, self._context_of(name, a_day))

    @cached_property
    def request_budget(self) -> RequestBudget:
        from visor.ingest.request_budget import RequestBudget

        return RequestBudget(self.stores.documents, host_a_day=self.settings.host_requests_a_day)

    def _context_of(self, name: str, requests_a_day: int | None = None) -> SourceContext:
        """The surroundings of one source: its requests are counted."""
        from visor.ingest.request_budget import BudgetedFetcher

        fetcher = BudgetedFetcher(self.fetcher, self.request_budget, name, requests_a_day)
        return replace(self.source_context, fetcher=fetcher)

    @cached_property
    def notified(self) -> Notified:
        """What takes a bucket's notifications in."""
        from visor.ingest.bucket_events import Notified
        from visor.sources.bucket.source import BucketSource

        names = [entry.name for entry in self.configuration.entries.values() if entry.plan.kind == "bucket"]
        sources = [self.named_source(name) for name in names]
        return Notified([s for s in sources if isinstance(s, BucketSource)], self.stores.queue)

    def crawl(
        self,
        source: Source,
        *,
        dry_run: bool = False,
        limit: int | None = None,
        budget_s: float | None = None,
        confirm_loss: bool = False,
        on_change: Callable[[Change], None] | None = None,
    ) -> CrawlRun:
        """One crawl run over `source`."""
        from visor.ingest.crawl import Crawl

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
        )
        try:
            run = crawl.run()
        finally:
            self.request_budget.flush()
        self.meter.add("crawl_run")
        self.meter.add("crawl", run.published + run.updated + run.deleted)
        self.meter.flush()
        return run

    def check_links(self, *, limit: int | None = None, budget_s: float | None = None) -> LinksReport:
        """Look at pictures and pages of some items, `settings.links_a_day` over all runs of a day, or `limit` more.

        Frames of videos that no item shows any more are deleted, once a week.
        """
        from visor.ingest.request_budget import BudgetedFetcher
        from visor.link_check.check import LinkCheck
        from visor.link_check.thumbnail_gc import sweep_frames

        check = LinkCheck(
            objects=self.stores.objects,
            documents=self.stores.documents,
            queue=self.stores.queue,
            fetcher=BudgetedFetcher(self.fetcher, self.request_budget, "links"),
            a_day=self.settings.links_a_day,
            limit=limit,
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

    def crawl_due(self) -> list[CrawlRun]:
        """Crawl the sources whose time has come, the longest waiting first, within one budget for all; then the links.

        A source that fails is logged and recorded, and does not keep the others from running.
        """
        from visor.errors import NotConfigured
        from visor.ingest.schedule import due, runs_of

        links_s = self.settings.crawl_budget_s * LINKS_SHARE if self.settings.links_a_day else 0.0
        ends_at = time.monotonic() + self.settings.crawl_budget_s - links_s
        runs = []
        latest = {name: found[0] for name, found in runs_of(self.stores.documents, self.configuration, 1).items()}
        for entry in due(self.configuration, latest, datetime.now(UTC)):
            budget_s = min(ends_at - time.monotonic(), entry.plan.budget_s or self.settings.crawl_budget_s)
            if budget_s <= 0:
                LOG.info("Source %s waits for the next run: the time of this one is used up", entry.name)
                continue
            try:
                source = self.named_source(entry.name)
                runs.append(self.crawl(source, budget_s=budget_s, limit=entry.plan.limit))
            except (VisorError, NotConfigured) as exc:
                LOG.error("Source %s: %s", entry.name, exc, extra={"source": entry.name})
        if self.settings.links_a_day:
            self._check_links_after_crawl(max(links_s, ends_at + links_s - time.monotonic()))
        return runs

    def _check_links_after_crawl(self, budget_s: float) -> None:
        try:
            LOG.info("Links: %s", self.check_links(budget_s=budget_s))
        except VisorError as exc:
            LOG.error("Links: %s", exc)

    def merge(
        self,
        *,
        budget_s: float | None = None,
        relearn: bool = False,
        progress: Callable[[str], None] = lambda line: None,
    ) -> MergeReport:
        """Merge shards and small segments once, and calibrate the confidence of answers. As `visor.index.merge`."""
        from visor.confidence.fit_index import Calibrator
        from visor.index.merge.merge import merge
        from visor.search.feedback import rejected_features
        from visor.search.visitors import VisitorSums

        documents = self.stores.documents
        visitors = VisitorSums(documents, self.fingerprint)
        report = merge(
            self.stores.objects,
            documents,
            model=self.fingerprint,
            budget_s=budget_s,
            relearn=relearn,
            progress=progress,
            calibrate=Calibrator(
                self.stores.objects,
                lambda: rejected_features(documents),
                visitors.fold,
                self.label_words,
            ),
        )
        if report.generation and report.finished:
            self._switch()
        self.meter.add("compact_run")
        self.meter.flush()
        return report

    def _switch(self) -> None:
        """End a reindex if nothing is left of it, and forget the index that it replaced."""
        from visor.index.merge.garbage import drop_model
        from visor.ingest.reindex import switch_if_done, to_drop

        report = switch_if_done(self.stores.documents, self.fingerprint)
        if report.switched and report.published:
            LOG.info("The index of model %s is complete and is searched from now on", report.current)
        elif report.current == self.fingerprint and (old := to_drop(self.stores.documents, self.fingerprint)):
            drop_model(self.stores.objects, self.stores.documents, old)

    def reindex(self, progress: Callable[[int], None] = lambda published: None) -> ReindexReport:
        """Publish every item that another model embedded. Raises as `Reindex.publish`."""
        from visor.ingest.reindex import Reindex

        return Reindex(self.stores.documents, self.stores.queue, self.settings, self.fingerprint).publish(progress)

    def serving(self, picture_address: Callable[[IndexedItem], str] | None = None) -> ActiveIndex:
        """The search service of whichever model's index is current."""
        from visor.models.store import directory_of
        from visor.search.active_index import ActiveIndex

        def other(fingerprint: str) -> SearchService | None:
            directory = directory_of(self.settings, fingerprint)
            if directory is None:
                return None
            from visor.models.embedder import Embedder

            assembly = Assembly(self.settings, embedder=Embedder(directory, threads=self.settings.threads))
            assembly.__dict__.update(stores=self.stores, fetcher=self.fetcher, meter=self.meter)
            return assembly.search_service(picture_address)

        own = self.search_service(picture_address)
        return ActiveIndex(own, self.stores.documents, other, freshness_s=self.settings.freshness_s)

    def search_service(self, picture_address: Callable[[IndexedItem], str] | None = None) -> SearchService:
        from visor.search.service import SearchService

        return SearchService(
            searcher=self.searcher,
            embedder=self.embedder,
            fetcher=self.fetcher,
            documents=self.stores.documents,
            settings=self.settings,
            picture_address=picture_address,
            on_look=lambda: self.meter.add("look"),
            on_learn=lambda: self.meter.add("learn"),
        )

    def search_app(self, picture_address: Callable[[IndexedItem], str] | None = None) -> SearchApp:
        from visor.web.access import Gate
        from visor.web.app import SearchApp

        gate = Gate(self.settings, self.meter)
        return SearchApp(
            self.serving(picture_address),
            self.settings,
            gate,
            pusher=lambda: self.pusher,
            objects=self.stores.objects,
            read_image=self.read_image,
        )

    def site(self, config: Mapping[str, Any]) -> Site:
        """The page and the endpoint at one local address; `config` is what the page's config.json says."""
        from visor.web.site import PAGE, Site, picture_address

        return Site(
            self.search_app(picture_address),
            page=PAGE if PAGE.is_dir() else None,
            config={"endpoint": "", **config},
            read_image=self.read_image,
        )

    @cached_property
    def pictures(self) -> Pictures:
        from visor.image_readers.readers import open_pictures

        # On Google Cloud only crawl has the owner's configuration; the settings name what embed may read.
        local = self.settings.backend == "local"
        return open_pictures(
            self.settings,
            self.fetcher,
            folders=self.configuration.folders() if local else (),
            buckets=self.configuration.buckets() if local else {},
            frames=self.stores.objects,
        )

    def read_image(self, item: Item) -> bytes:
        """The bytes of an item's picture, from its address or, for a folder's item, from its file.

        Raises:
            ImageError: It cannot be had.
        """
        return self.pictures.fetch(item.image_url).body
