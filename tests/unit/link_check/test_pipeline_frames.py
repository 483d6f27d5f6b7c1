"""Frames of deleted items go, and none that is shown or may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.sources.test_sources_video import scene, video

from visor.app import App
from visor.errors import SourceError
from visor.image_readers.thumbnails import put_thumbnail
from visor.ingest.worker import Worker
from visor.link_check import thumbnail_gc as frames
from visor.link_check.state import OBJECT as LINKS
from visor.link_check.state import LinkProblem, LinkState
from visor.link_check.thumbnail_gc import EVERY_DAYS, sweep_frames
from visor.models.embedder import Embedder
from visor.schema.collections import FAILURES, ITEMS
from visor.schema.items import Failure, IndexedItem, as_document, is_live
from visor.settings import Settings
from visor.storage.documents import Delete, Put

WEEK = EVERY_DAYS * 86_400.0


class Film:
    """A video source, its store, and sweeps a week apart."""

    def __init__(self, app: App, path: Path) -> None:
        self.app, self.path, self.now = app, path, 1_800_000_000.0
        self.shows(4)

    def shows(self, count: int) -> None:
        self.path.write_bytes(video([scene(n) for n in range(count)]))

    def crawl(self, *, embed: bool = True) -> None:
        source = self.app.open_source("film", {"kind": "video", "url": str(self.path), "interval_s": 1})
        self.app.crawler.crawl(source)
        if embed:
            Worker(self.app.stores.queue, self.app.batch_embedder, threads=1).drain()

    def sweep(self) -> int:
        stores = self.app.stores
        deleted = sweep_frames(stores.objects, stores.documents, now=self.now)
        self.now += WEEK
        return deleted

    @property
    def kept(self) -> int:
        return len(list(self.app.stores.objects.list("frames/")))


@pytest.fixture
def film(embedder: Embedder, tmp_path: Path) -> Iterator[Film]:
    with App(Settings(home=tmp_path, freshness_s=0.0), embedder=embedder) as app:
        yield Film(app, tmp_path / "film.mp4")


def test_frames_of_deleted_items_are_deleted(film: Film) -> None:
    film.crawl()
    assert (film.sweep(), film.sweep(), film.kept) == (0, 0, 4), "what is shown stays"
    film.shows(2)
    film.crawl()
    film.crawl()
    assert len([d for d in film.app.stores.documents.query("items") if not d.data.get("gone")]) == 2
    before = film.kept
    assert before >= 4, "a frame of the shorter video may be compressed otherwise"
    assert (film.sweep(), film.kept) == (0, before), "it may wait in the queue still"
    assert (film.sweep(), film.kept) == (before - 2, 2)
    assert film.app.search_service().sample(9)[0].item.image_url.startswith("./v1/thumbnails/")


@pytest.mark.slow
def test_frames_that_wait_to_be_embedded_stay(film: Film) -> None:
    film.crawl(embed=False)
    assert film.sweep() == 0
    film.crawl()
    assert (film.sweep(), film.sweep(), film.kept) == (0, 0, 4)


def test_frames_of_a_run_that_was_killed_are_deleted(film: Film) -> None:
    put_thumbnail(film.app.stores.objects, "film", "7", b"a picture")
    assert (film.sweep(), film.sweep(), film.kept) == (0, 1, 0)


def test_frames_of_items_that_may_come_back_stay(film: Film) -> None:
    """A film's page answers again after a month, or a setting changes: then the frame could no longer be read."""
    film.crawl()
    stores = film.app.stores
    first, second, *_ = (
        msgspec.convert(one.data, IndexedItem).item for one in stores.documents.query(ITEMS) if is_live(one.data)
    )
    state, generation = LinkState.load(stores.objects)
    state.problems[first.id] = LinkProblem(source="film", next="2026-01-01", state="gone", item=first)
    state.save(stores.objects, generation)
    failure = Failure(item=second.id, source="film", image_url=second.image_url, version=9, batch="b",
                      code="image_too_small", reason="It is small", retriable=False, at="", wanted=second)  # fmt: skip
    put = Put(collection=FAILURES, key=second.id, data=as_document(failure))
    gone = [Put(collection=ITEMS, key=one.id, data={"version": 9, "gone": True}) for one in (first, second)]
    stores.documents.commit([put, *gone])
    assert (film.sweep(), film.sweep(), film.sweep(), film.kept) == (0, 0, 0, 4)
    stores.objects.delete(LINKS)
    stores.documents.commit([Delete(collection=FAILURES, key=second.id)])
    assert (film.sweep(), film.sweep(), film.kept) == (0, 2, 2)


def test_a_sweep_happens_once_a_week_and_goes_on_where_it_was(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAMES_MAX", 3)
    for n in range(7):
        put_thumbnail(film.app.stores.objects, "film", str(n), b"x")
    assert sum(film.sweep() for _ in range(6)) == 7
    put_thumbnail(film.app.stores.objects, "film", "8", b"x")
    film.now -= WEEK
    before = film.now
    assert film.sweep() == 0
    film.now = before
    assert film.sweep() == 0, "nothing is listed within the week"


def test_a_film_that_is_no_film_says_so(film: Film) -> None:
    film.path.write_bytes(b"no video at all")
    with pytest.raises(SourceError, match="there is no video in it"):
        film.crawl()
