"""`visor.open`: an index in this process."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from visor.app import App
from visor.errors import BadRequest, NotConfigured, NothingToCompare, SettingsError, SourceError
from visor.ingest.worker import Worker
from visor.library.index import Index, Progress, SearchResult, closed, id_of
from visor.schema.collections import FAILURES, ITEMS
from visor.schema.items import CrawlRun, IndexedItem, Item
from visor.schema.push import PushAnswer, PushedItem, PushItem
from visor.schema.search import CompareAnswer, CompareRequest, SearchRequest
from visor.search.request import given_path, plain
from visor.settings import INDEX_NAME, INDEX_NAMES, Settings
from visor.sources.config import PUSHED, SOURCE_NAMES, is_source_name
from visor.web.schema import ItemAnswer, StatsAnswer

if TYPE_CHECKING:
    from visor.export.export import ExportReport
    from visor.index.merge.merge import MergeReport
    from visor.ingest.batch_plan import EmbedReport
    from visor.search.active_index import ActiveIndex

logging.getLogger("visor").addHandler(logging.NullHandler())


def open(  # noqa: A001 — `visor.open`, as in `gzip.open`
    path: str | Path | None = None, *, name: str | None = None, settings: Settings | None = None
) -> Index:
    """Open an index on this machine, or create it if there is none.

    Args:
        path: The folder that holds models and indexes; by default `~/.visor`, which the command `visor` uses, too.
        name: The name of the index, one of several in that folder; by default `default`.
        settings: All other settings. The environment is not read; `visor.Settings.read()` reads it.

    Raises:
        SettingsError: `name` cannot name an index.
        ModelNotBuilt: The folder holds no model yet; raised by the first method that needs one.
    """
    settings = settings or Settings()
    home = given_path(settings.home if path is None else path)
    index = name or settings.index
    if not (isinstance(index, str) and INDEX_NAME.fullmatch(index)):  # the index is a folder below `path`
        raise SettingsError(f"{index!r:.200} cannot name an index", valid=INDEX_NAMES, remedy="Choose another name")
    return LocalIndex(msgspec.structs.replace(settings, home=home, index=index))


class LocalIndex(Index):
    """An index whose stores and model are opened here."""

    def __init__(self, settings: Settings) -> None:
        # The next search has to find added items.
        self._settings = msgspec.structs.replace(settings, freshness_s=0.0, audit_rate=0.0)
        self._opened: App | None = App(self._settings)
        self._process, self._inherited = os.getpid(), list[App]()

    @property
    def _app(self) -> App:
        self._leave_parent()
        if self._opened is None:
            raise closed()
        return self._opened

    def _leave_parent(self) -> None:
        """In a process that was forked: open the index anew. The parent's threads, which a search waits for, are not
        here, and its connections are not to be used or closed by two."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self.__dict__.pop("_active", None)
            if self._opened is not None:
                self._inherited.append(self._opened)
                self._opened = App(self._settings)

    def close(self) -> None:
        self._leave_parent()
        opened, self._opened = self._opened, None
        self.__dict__.pop("_active", None)
        if opened is not None:
            opened.close()

    @property
    def _serving(self) -> ActiveIndex:
        self._leave_parent()
        return self._active

    @cached_property
    def _active(self) -> ActiveIndex:
        return self._app.serving(_url_of)

    def _search(self, request: SearchRequest, upload: bytes | None) -> SearchResult:
        return SearchResult(**msgspec.structs.asdict(self._serving().search(request, upload)))

    def _compare(self, request: CompareRequest, uploads: tuple[bytes | None, bytes | None]) -> CompareAnswer:
        from visor.search.compare import Comparer

        return Comparer(self._serving(), self._app.read_image).compare(request, uploads)

    def _name_of(self, folder: Path) -> str:
        from visor.ingest.crawler import folder_source_name

        return folder_source_name(folder, self._app.stores, self._app.configuration)

    def crawl(
        self,
        source: str | Mapping[str, Any],
        *,
        name: str | None = None,
        limit: int | None = None,
        confirm_loss: bool = False,
        progress: Progress | None = None,
    ) -> CrawlRun:
        if not isinstance(source, str | Mapping):
            found = f"A value of type {type(source).__name__} is not a source"
            raise BadRequest(found, valid="A name in visor.toml, or a mapping of keys", remedy="Give one of these")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            valid, remedy = "A whole number above 0, or None for all", "Correct it"
            raise BadRequest(f"limit is {limit!r:.50}", valid=valid, remedy=remedy)
        keys = {} if isinstance(source, str) else plain(dict(source), "the source")
        if not isinstance(source, str) and not isinstance(keys.get("kind"), str):
            from visor.sources.registry import kinds

            valid, remedy = ", ".join(kinds()), "Add `kind` to the mapping"
            raise SettingsError("The mapping does not name the source's kind", valid=valid, remedy=remedy)
        app, documents = self._app, self._app.stores.documents
        try:
            named = name or str(keys.get("kind"))
            opened = app.named_source(source, limit) if isinstance(source, str) else app.open_source(named, keys, limit)
        except NotConfigured as exc:
            raise SettingsError(f"Source '{named}': {exc.reason}", valid=exc.valid, remedy=exc.remedy) from exc
        if not (isinstance(named, str) and is_source_name(named)):
            raise SettingsError(f"{named!r:.200} cannot name a source", valid=SOURCE_NAMES)
        app.remember(opened.name, keys or app.configuration.entry(opened.name).own)
        before = {found.key: found.revision for found in documents.query(FAILURES)}
        try:
            run, again = app.crawl(opened, limit=limit, confirm_loss=confirm_loss)
        except SourceError:
            if app.stores.queue.waiting():  # the items before the error: no other crawl would publish them again
                _embed(app, 0, None)
                app.merge()
            raise
        _embed(app, run.published + again, progress)
        app.merge()
        failures = [found.data for found in documents.query(FAILURES) if before.get(found.key) != found.revision]
        codes = Counter(failure["code"] for failure in failures if failure["source"] == run.source)
        # An image with nothing to compare is searchable nevertheless.
        failed = run.failed + codes.total() - codes[NothingToCompare.code]
        return msgspec.structs.replace(run, failed=failed, failures={**run.failures, **codes})

    def get(self, item: str | Item) -> ItemAnswer:
        found = self._serving().item(id_of(item))
        return ItemAnswer(**{name: getattr(found, name) for name in ItemAnswer.__struct_fields__})

    def delete(self, item: str | Item) -> None:
        self._app.pusher.delete(id_of(item))
        _embed(self._app, 0, None)

    def compact(self) -> MergeReport:
        return self._app.merge()

    def export(
        self,
        folder: str | Path,
        *,
        title: str = "Visor",
        originals: bool = False,
        progress: Progress | None = None,
    ) -> ExportReport:
        from visor.export.export import site_in

        target = given_path(folder)
        exporter = self._app.exporter({"title": title}, originals=originals)
        total, done = exporter.snapshot.images, 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        with site_in(target) as site:
            return exporter.write(site, now=time.time(), advance=advance)

    def stats(self) -> StatsAnswer:
        return self._app.stats()

    def _push(self, items: list[PushItem], progress: Progress | None) -> PushAnswer:
        paths: dict[int, Path] = {}
        for number, item in enumerate(items):
            if item.image_url and "://" not in item.image_url:
                with suppress(BadRequest):  # a text that cannot be a path is refused with the item
                    paths[number] = given_path(item.image_url).resolve()
        for number, path in paths.items():
            status = path.stat() if path.is_file() else None
            modified = items[number].image_modified or (f"{status.st_mtime_ns}-{status.st_size}" if status else None)
            items[number] = msgspec.structs.replace(items[number], image_url=path.as_uri(), image_modified=modified)
        app = self._app
        app.remember(PUSHED, {}, {str(path.parent) for path in paths.values()})
        documents = app.stores.documents
        answer = app.open_pusher(files=True).push_lines(msgspec.json.Encoder().encode_lines(items))
        _embed(app, answer.accepted, progress)
        ids = [pushed.id for pushed in answer.items if pushed.id is not None]
        failures, indexed = documents.get(FAILURES, ids), documents.get(ITEMS, ids)

        def outcome(pushed: PushedItem) -> PushedItem:
            """The result as refused, if an item was accepted but could not be embedded."""
            failure, item = failures.get(pushed.id or ""), indexed.get(pushed.id or "")
            if failure is None or (item is not None and item.data["version"] >= failure.data["version"]):
                return pushed
            return msgspec.structs.replace(pushed, state="refused", reason=failure.data["reason"])

        return msgspec.structs.replace(answer, items=tuple(map(outcome, answer.items)))


def _url_of(indexed: IndexedItem) -> str:
    return indexed.item.image_url


def _embed(app: App, count: int, progress: Progress | None) -> None:
    """Embed all queued items, about `count`."""
    done = 0

    def on_report(report: EmbedReport) -> None:
        nonlocal done
        done = min(count, done + report.embedded + report.updated + report.failed)
        if progress is not None:
            progress(done, count)

    app.check_model()
    Worker(app.stores.queue, app.batch_embedder, on_report=on_report).drain()
