"""App: the composition root, which makes the parts of a process from settings. Nothing else opens a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from visor.settings import Settings
from visor.telemetry.metrics import Metrics
from visor.telemetry.traces import span, start

if TYPE_CHECKING:
    from visor.check.damage import CheckReport
    from visor.export.export import Exporter, ExportReport
    from visor.free_tier.quota import Meter
    from visor.http.client import Fetcher
    from visor.image_readers.readers import ImageReaders
    from visor.index.merge.inputs import Inputs
    from visor.index.merge.merge import Build, MergeReport
    from visor.index.search.searcher import Searcher
    from visor.index.search.snapshot import Snapshot
    from visor.ingest.bucket_events import BucketEventHandler
    from visor.ingest.crawler import Crawler
    from visor.ingest.embed import BatchEmbedder
    from visor.ingest.push import Pusher
    from visor.ingest.reindex import ReindexReport
    from visor.ingest.request_budget import RequestBudget
    from visor.ingest.worker import PushedBatches, Scheduler
    from visor.models.embedder import Embedder
    from visor.schema.items import CrawlRun, Failure, IndexedItem, Item
    from visor.search.active_index import ActiveIndex
    from visor.search.service import SearchService
    from visor.sources.bucket.source import BucketSource
    from visor.sources.config import SourcesFile
    from visor.sources.contract import Source, SourceContext
    from visor.storage import Stores
    from visor.storage.documents import DocumentStore
    from visor.storage.engine import VectorEngine
    from visor.storage.objects import ObjectStore
    from visor.web.api import HttpApi
    from visor.web.metrics import Collector
    from visor.web.schema import StatsAnswer
    from visor.web.site import Site


class App:
    """The parts of one process. Each is imported and made on first use, so that a function starts fast."""

    def __init__(
        self,
        settings: Settings,
        *,
        stores: Stores | None = None,
        fetcher: Fetcher | None = None,
        embedder: Embedder | None = None,
        meter: Meter | None = None,
        searcher: Searcher | None = None,
        request_budget: RequestBudget | None = None,
        engine: VectorEngine | None = None,
        read_image: Callable[[Item], bytes] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Tracing starts here, if the environment enables it. A part that is passed in is used instead of one made
        from the settings; the caller that made it closes it.

        Args:
            read_image: Returns the bytes of an item's image, or raises an `ImageError`. By default they are read from
                the image's URL, file or bucket.
        """
        self.settings = settings
        self.read_image = read_image or self._read_image
        self._stores, self._fetcher, self._embedder = stores, fetcher, embedder
        self._meter, self._searcher, self._request_budget = meter, searcher, request_budget
        self.metrics = metrics or Metrics()
        self._engine = engine
        self._known: list[tuple[str, dict[str, Any] | None, list[str]]] = []
        self._opened = ExitStack()
        start()

    def close(self) -> None:
        """Close what this app opened."""
        self._opened.close()

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def stores(self) -> Stores:
        from visor.storage import LazyStores

        return self._stores or self._opened.enter_context(LazyStores(self.settings))

    @cached_property
    def fetcher(self) -> Fetcher:
        from visor.http.client import Fetcher

        return self._fetcher or self._opened.enter_context(Fetcher(self.settings))

    @cached_property
    def embedder(self) -> Embedder:
        from visor.models.embedder import load_embedder

        return self._embedder or load_embedder(self.settings)

    @cached_property
    def meter(self) -> Meter:
        from visor.free_tier.quota import Meter

        return self._meter or Meter(self.stores.documents, self.settings)

    @cached_property
    def _metered(self) -> tuple[ObjectStore, DocumentStore]:
        """The stores that searches use."""
        from visor.free_tier.quota import metered

        return metered(self.stores.objects, self.stores.documents, self.meter)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the model, which is not loaded for this: compact merges vectors and makes none."""
        from visor.models.store import model_fingerprint

        return self._embedder.fingerprint if self._embedder else model_fingerprint(self.settings)

    @property
    def label_words(self) -> list[dict[str, float]]:
        """The weights of the words in the labels' names; empty if the model is not at hand."""
        from visor.errors import ModelError
        from visor.models.store import label_words, model_directory, read_manifest

        if self._embedder:
            return self._embedder.label_words
        try:
            return label_words(read_manifest(model_directory(self.settings, self.settings.model)))
        except ModelError:  # or it is not built
            return []

    @cached_property
    def engine(self) -> VectorEngine | None:
        """The engine that holds the rows of the index; None: its segments hold them."""
        if self._engine is not None or self.settings.engine == "segments":
            return self._engine
        from visor.storage.engine import open_engine

        return self._opened.enter_context(closing(open_engine(self.settings)))

    @cached_property
    def searcher(self) -> Searcher:
        from visor.index.search.searcher import Searcher

        if self._searcher is not None:  # an empty index is false
            return self._searcher
        options: dict[str, Any] = {
            "model": self.embedder.fingerprint,
            "freshness_s": self.settings.freshness_s,
            "languages": self.settings.languages,
        }
        if self.engine is None:
            return Searcher(*self._metered, **options)
        from visor.index.engine.searcher import EngineSearcher

        return EngineSearcher(*self._metered, engine=self.engine, **options)

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
            metrics=self.metrics,
        )

    @cached_property
    def pushed_batches(self) -> PushedBatches:
        from visor.ingest.worker import PushedBatches

        return PushedBatches(self.batch_embedder, self.stores, self.settings.embed_attempts_max)

    @cached_property
    def pusher(self) -> Pusher:
        return self.open_pusher()

    def open_pusher(self, *, files: bool = False) -> Pusher:
        """`files` as in `Pusher`."""
        from visor.ingest.push import Pusher

        return Pusher(
            queue=self.stores.queue,
            documents=self.stores.documents,
            settings=self.settings,
            meter=self.meter,
            files=files,
            attributes=self.configuration.attributes,
        )

    @cached_property
    def request_budget(self) -> RequestBudget:
        from visor.ingest.request_budget import RequestBudget

        host_a_day = self.settings.host_requests_a_day
        return self._request_budget or RequestBudget(self.stores.documents, host_a_day=host_a_day)

    @cached_property
    def configuration(self) -> SourcesFile:
        """The owner's visor.toml and, on this machine, the sources that the index remembers."""
        from visor.sources.config import SourcesFile

        configuration = SourcesFile.load(self.settings.config, is_deployed=self.settings.backend == "gcp")
        self._known = self._remembered
        for name, own, _ in self._known:
            if own is not None:
                configuration.remember(name, own)
        return configuration

    @property
    def _remembered(self) -> list[tuple[str, dict[str, Any] | None, list[str]]]:
        from visor.sources.remembered import remembered
        from visor.storage import is_there

        here = self.settings.backend == "local" and (self._stores is not None or is_there(self.settings))
        return list(remembered(self.stores.documents)) if here else []

    def remember(self, name: str, config: Mapping[str, Any], folders: Iterable[str] = ()) -> None:
        """Record in the index what a source reads, for later processes. As `visor.sources.remembered.remember`."""
        from visor.sources.remembered import remember

        if self.settings.backend == "local" and remember(self.stores.documents, name, config, folders):
            self._read_anew()

    def _read_anew(self) -> None:
        """Drop the configuration, so that it is read again when it, or a part made from it, is next used."""
        for part in ("configuration", "_readers", "crawler", "pusher", "notified"):
            with suppress(AttributeError):
                delattr(self, part)

    def try_again(self, source: str | None = None) -> int:
        """Publish again all items that failed and may succeed now, of one source or of all; returns how many. On Google
        Cloud scheduled crawls do this; this is for an owner's request."""
        return self.crawler.try_again(self.hopeful(source)) + self.retry_letters(source)

    def crawl(self, source: Source, **options: Any) -> tuple[CrawlRun, int]:
        """Crawl a source, then publish again items that failed before and that the crawl has not published; also
        returns how many these are. `options` as in `Crawler.crawl`."""
        failed = {failure.item: failure for failure in self.hopeful(source.name)}
        run = self.crawler.crawl(source, on_change=lambda change: failed.pop(change.item.id, None), **options)
        return run, self.crawler.try_again(failed.values()) + self.retry_letters(source.name)

    def hopeful(self, source: str | None) -> list[Failure]:
        """The items that failed and may succeed now, of one source or of all."""
        from visor.ingest.schedule import live_failures, may_succeed

        failures = live_failures(self.stores.documents)
        return [f for f in failures if source in (None, f.source) and may_succeed(f, self.settings)]

    def retry_letters(self, source: str | None = None) -> int:
        """Send the dead letters of one source, or all, again. Returns the number of items in them."""
        from visor.errors import CorruptObject
        from visor.storage.publish import decode_batch

        count = 0
        for letter in self.stores.queue.dead_letters():
            with suppress(CorruptObject):
                batch = decode_batch(letter.body)
                if source in (None, batch.source):
                    self.stores.queue.retry(letter)
                    count += len(batch.changes)
        return count

    @cached_property
    def source_context(self) -> SourceContext:
        from visor.sources.contract import SourceContext

        return SourceContext(settings=self.settings, fetcher=self.fetcher, objects=self.stores.objects)

    def open_source(self, name: str, config: Mapping[str, Any], limit: int | None = None) -> Source:
        """The source that `config` describes. `limit` as in `named_source`; raises as
        `visor.sources.registry.open_source`."""
        from visor.sources.registry import open_source

        return open_source(name, config, self._context_of(name, limit))

    def open_folder(self, folder: Path) -> Source:
        """The source of a folder given without a source name: each has its own, even if two have the same name."""
        from visor.ingest.crawler import folder_source_name

        folder = folder.resolve()
        name = folder_source_name(folder, self.stores, self.configuration)
        return self.open_source(name, {"kind": "folder", "path": str(folder)})

    def named_source(self, name: str, limit: int | None = None) -> Source:
        """The source of that name in the owner's visor.toml. Raises as `SourcesFile.open`.

        Args:
            limit: How many items to read; by default as many as visor.toml says.
        """
        common = self.configuration.entry(name).common
        return self.configuration.open(name, self._context_of(name, limit or common.limit, common.requests_a_day))

    def _context_of(self, name: str, items_max: int | None = None, requests_a_day: int | None = None) -> SourceContext:
        """The context of one source, whose requests are counted."""
        from visor.ingest.request_budget import BudgetedFetcher

        fetcher = BudgetedFetcher(self.fetcher, self.request_budget, name, requests_a_day)
        return replace(self.source_context, fetcher=fetcher, items_max=items_max)

    @cached_property
    def notified(self) -> BucketEventHandler:
        """The handler of event notifications from buckets."""
        from visor.ingest.bucket_events import BucketEventHandler

        names = [entry.name for entry in self.configuration.entries.values() if entry.common.kind == "bucket"]
        sources = [cast("BucketSource", self.named_source(name)) for name in names]
        return BucketEventHandler(sources, self.stores.queue, attributes=self.configuration.attributes)

    @cached_property
    def crawler(self) -> Crawler:
        from visor.ingest.crawler import Crawler

        return Crawler(
            stores=self.stores,
            fetcher=self.fetcher,
            settings=self.settings,
            meter=self.meter,
            request_budget=self.request_budget,
            attributes=self.configuration.attributes,
        )

    def crawl_due(self) -> list[CrawlRun]:
        """Crawl the sources that are due, then check links. As `Crawler.crawl_due`."""
        return self.crawler.crawl_due(self.configuration, self.named_source)

    def scheduler(self) -> Scheduler:
        """The scheduler that crawls, embeds and merges next to `site` in one process."""
        from datetime import UTC, datetime

        from visor.ingest.worker import Scheduler

        began = datetime.now(UTC)

        def crawl_due() -> None:
            self._read_anew()
            self.crawler.crawl_due(self.configuration, self.named_source, alone_since=began)

        return Scheduler(
            self.stores.queue, self.batch_embedder, crawl_due=crawl_due, merge=self.merge, check=self.check_model
        )

    def merge(
        self,
        *,
        budget_s: float | None = None,
        relearn: bool = False,
        fill: bool = False,
        progress: Callable[[str], None] = lambda line: None,
        build: Build | None = None,
    ) -> MergeReport:
        """Merge shards and small segments once, and fit the confidence of answers. As `visor.index.merge`; on this
        machine, where reads are free, it always fills in texts."""
        with span("merge") as traced, self.metrics.merge():
            report = self._merged(fill, budget_s=budget_s, relearn=relearn, progress=progress, build=build)
            traced.set(generation=report.generation, images=report.images, commits=report.commits)
        return report

    def _merged(self, fill: bool, **options: Any) -> MergeReport:
        from visor.confidence.fit_index import Calibrator
        from visor.index.merge.merge import merge
        from visor.ingest.reindex import finish_reindex
        from visor.search.feedback import rejected_features, trim_inbox
        from visor.search.visitors import VisitorSums

        objects, documents = self.stores.objects, self.stores.documents
        visitors = VisitorSums(documents, self.fingerprint)
        report = merge(
            objects,
            documents,
            model=self.fingerprint,
            calibrate=Calibrator(objects, lambda: rejected_features(documents), visitors.fold, self.label_words),
            languages=self.settings.languages,
            fill=fill or self.settings.backend == "local",
            engine=self.engine,
            **options,
        )
        if report.generation and report.finished and not report.unreadable:
            finish_reindex(objects, documents, self.fingerprint)
        trim_inbox(documents)
        self.meter.note_images(report.images)
        self.meter.add("compact_run")
        if self.settings.site and report.finished:
            self.publish()
        self.meter.flush()
        return report

    def migrate(self, target: str, progress: Callable[[str], None] = lambda line: None) -> int:
        """Move the index to segments or a vector engine. As `visor.index.engine.moves.migrate`."""
        from visor.index.engine.moves import migrate
        from visor.storage.engine import open_engine

        def engine_of(kind: str) -> VectorEngine:
            if self.engine is not None and self.engine.name == kind:
                return self.engine
            return self._opened.enter_context(closing(open_engine(self.settings, kind)))

        return migrate(self._merge_inputs, target, engine_of, progress, self.settings.languages)

    def unmerged(self) -> int:
        """Number of committed images that no merge has included yet."""
        inputs = self._merge_inputs()
        inputs.load()
        return sum(commit.rows(self.fingerprint) for commit in inputs.pending())

    def _merge_inputs(self) -> Inputs:
        from visor.index.merge.inputs import Inputs

        return Inputs(self.stores.objects, self.stores.documents, self.fingerprint)

    def publish(self) -> ExportReport | None:
        """Write the index to the site's bucket, if that is due. As `Publisher.publish`."""
        import time

        from visor.export.publish import Publisher
        from visor.storage import open_site

        site = self._opened.enter_context(closing(open_site(self.settings)))
        publisher = Publisher(
            site=site,
            documents=self.stores.documents,
            meter=self.meter,
            exporter=lambda snapshot, items: self._exporter(snapshot, items, page=None),
            model=self.fingerprint,
            now=time.time(),
        )
        return publisher.publish(self._indexed())

    def exporter(self, config: Mapping[str, Any], *, originals: bool = False) -> Exporter:
        """The exporter of the index as it is now, as files for a page without a server. Arguments as in `Exporter`.

        Raises:
            ModelNotBuilt, SettingsError: The model or the page is missing, or the index is of another model; also while
                a reindex to this one is under way.
        """
        from visor.errors import SettingsError
        from visor.export.export import page_folder
        from visor.index.format.current_model import is_searched
        from visor.search.item_cache import ItemCache
        from visor.web.site import PAGE

        self.check_model()
        if not is_searched(self.stores.documents, self.fingerprint):
            raise SettingsError(
                f"The reindex to VISOR_MODEL, {self.settings.model}, is not complete: searches use the old index",
                valid="The model of the index that is searched: `visor stats` names it",
                remedy="Run `visor reindex` to its end, or set VISOR_MODEL to that model",
            )
        page, items = page_folder(PAGE), ItemCache(self.stores.documents)
        return self._exporter(
            self._indexed(), items.get, page=page, config=config, read_image=self.read_image, originals=originals
        )

    def _exporter(
        self, snapshot: Snapshot, items: Callable[[Sequence[str]], Mapping[str, IndexedItem]], **options: Any
    ) -> Exporter:
        from visor.export.export import Exporter
        from visor.models.store import model_directory
        from visor.search.feedback import all_feedback

        return Exporter(
            snapshot=snapshot,
            fingerprint=self.fingerprint,
            items=items,
            feedback=all_feedback(self.stores.documents),
            model=model_directory(self.settings, self.settings.model),
            label_words=self.label_words,
            settings=self.settings,
            **options,
        )

    def _indexed(self) -> Snapshot:
        """The index as it is now."""
        from visor.index.search.reader import IndexReader

        news = IndexReader(self.stores.objects, self.stores.documents, self.fingerprint).poll()
        assert news is not None  # the first poll never returns None
        manifest = news.snapshot.manifest
        if manifest is not None and manifest.engine is not None:
            from visor.errors import SettingsError

            raise SettingsError(
                f"An export is made from segments, and this index is in {manifest.engine.name}",
                valid="An index in segments",
                remedy="Move it: `visor engine migrate segments`, with VISOR_ENGINE=segments from then on",
            )
        return news.snapshot

    def check_model(self, *, everywhere: bool = False) -> None:
        """Refuse to embed on this machine for an index of another model, or with invalid settings of an engine.
        Raises as `visor.ingest.reindex.check_model` and `visor.storage.engine.open_engine`.

        Args:
            everywhere: Also for an index on Google Cloud, which the functions embed: they are deployed with a new model
                before its reindex begins.
        """
        from visor.errors import ModelNotBuilt
        from visor.ingest.reindex import check_model

        _ = self.engine
        if everywhere or self.settings.backend == "local":
            with suppress(ModelNotBuilt):  # which embeds nothing
                check_model(self.stores.documents, self.fingerprint, self.settings.model)

    def reindex(
        self, progress: Callable[[int], None] = lambda published: None, *, confirm_loss: bool = False
    ) -> ReindexReport:
        """Publish every item that another model embedded. Arguments and errors as in `Reindex.publish`."""
        from visor.ingest.reindex import Reindex

        reindex = Reindex(self.stores.documents, self.stores.queue, self.settings, self.fingerprint)
        return reindex.publish(progress, confirm_loss=confirm_loss)

    def check(self, *, repair: bool = False) -> CheckReport:
        """Check every object and document of the index, and repair it. Call it first: nothing may have been opened."""
        from visor.check.check import check_index
        from visor.ingest.worker import Worker

        def embed_and_merge() -> None:
            if self.settings.backend == "local":
                Worker(self.stores.queue, self.batch_embedder).drain()
            self.merge()

        return check_index(
            self.settings,
            self.stores,
            self.fingerprint,
            repair=repair,
            embed_and_merge=embed_and_merge,
            engine=lambda: self.engine,
        )

    def search_service(self, picture_address: Callable[[IndexedItem], str] | None = None) -> SearchService:
        """The search service of this process's model. `picture_address` as in `SearchService`."""
        from visor.search.service import SearchService

        return SearchService(
            searcher=self.searcher,
            embedder=self.embedder,
            fetcher=self.fetcher,
            documents=self._metered[1],
            settings=self.settings,
            picture_address=picture_address,
            meter=self.meter,
        )

    def serving(self, picture_address: Callable[[IndexedItem], str] | None = None) -> ActiveIndex:
        """The search service of the model whose index is current."""
        from visor.models.store import find_model_directory
        from visor.search.active_index import ActiveIndex

        def other(fingerprint: str) -> SearchService | None:
            directory = find_model_directory(self.settings, fingerprint)
            if directory is None:
                return None
            from visor.models.embedder import Embedder

            embedder = Embedder(directory, threads=self.settings.threads)
            app = App(
                self.settings,
                embedder=embedder,
                stores=self.stores,
                fetcher=self.fetcher,
                meter=self.meter,
                engine=self.engine,
            )
            return app.search_service(picture_address)

        own = self.search_service(picture_address)
        return ActiveIndex(
            own,
            self.stores.documents,
            other,
            freshness_s=self.settings.freshness_s,
            follows=self.settings.backend == "local",
        )

    def http_api(self, picture_address: Callable[[IndexedItem], str] | None = None) -> HttpApi:
        import msgspec

        from visor.web.access import local_key

        settings = self.settings
        if settings.backend == "local" and not settings.owner_key:
            settings = msgspec.structs.replace(settings, owner_key=local_key(settings.home))
        return self._http_api(settings, picture_address)

    def stats(self) -> StatsAnswer:
        """The contents of the index and the state of this process. Needs no owner's key, and writes none."""
        return self._http_api(self.settings).stats()

    def _http_api(self, settings: Settings, picture_address: Callable[[IndexedItem], str] | None = None) -> HttpApi:
        from visor.web.access import AccessPolicy
        from visor.web.api import HttpApi

        return HttpApi(
            self.serving(picture_address),
            settings,
            AccessPolicy(settings, self.meter),
            pusher=lambda: self.pusher,
            objects=self._metered[0],
            read_image=self.read_image,
            metrics=self.metrics,
            pipeline=self._pipeline(),
        )

    def _pipeline(self) -> Collector:
        """What `GET /metrics` reports on queue and sources: nothing on Google Cloud, where reading it costs money."""
        from visor.web.metrics import Pipeline

        if self.settings.backend != "local":
            return tuple
        return Pipeline(self.stores, lambda: self.configuration, self.settings.freshness_s)

    def site(self, config: Mapping[str, Any]) -> Site:
        """The page and the HTTP API at one address; `config` is the content of the page's config.json.

        On this machine it also shows pictures that have no web URL; on Google Cloud those stay private.
        """
        from visor.web.site import PAGE, Site, picture_address

        local = self.settings.backend == "local"
        return Site(
            self.http_api(picture_address if local else None),
            page=PAGE if PAGE.is_dir() else None,
            config={"endpoint": "", **config},
            read_image=self.read_image if local else None,
        )

    @cached_property
    def _readers(self) -> ImageReaders:
        from visor.image_readers.readers import open_image_readers

        # On Google Cloud only crawl has the owner's configuration; the settings name the buckets that embed may read.
        local = self.settings.backend == "local"
        own = self.configuration.folders() if local else ()
        pushed = [folder for _, _, folders in self._known for folder in folders]
        return open_image_readers(
            self.settings,
            self.fetcher,
            folders=(*own, *pushed),
            buckets=self.configuration.buckets() if local else {},
            frames=self.stores.objects,
        )

    def _read_image(self, item: Item) -> bytes:
        from visor.errors import FetchRefused

        readers = self._readers
        try:
            return readers.fetch(item.image_url).body
        except FetchRefused:
            # Another process may have begun to fill the index from another folder since.
            if self._remembered != self._known:
                self._read_anew()
            if self._readers is readers:
                raise
        return self._readers.fetch(item.image_url).body
