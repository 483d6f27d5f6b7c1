"""A change of model: searches go on with the old index until the new one is complete, and never fail in between."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from flask import Request
from PIL import Image
from tests.unit.ingest.test_pipeline_embed import change, drawing
from werkzeug.test import EnvironBuilder

from visor.app import App
from visor.check.index_check import IndexCheck
from visor.errors import FetchFailed, SettingsError, StoreUnavailable
from visor.index.format.current_model import CurrentModel, read_current, write_current
from visor.index.format.manifest import read_manifest
from visor.index.merge import garbage
from visor.index.merge.merge import merge
from visor.ingest import reindex
from visor.ingest.worker import Worker
from visor.models.description import ModelDescription
from visor.models.store import ModelManifest
from visor.schema.items import Batch, is_live, item_id
from visor.search.active_index import ActiveIndex
from visor.settings import Settings
from visor.storage.documents import Put
from visor.web.access import AccessPolicy
from visor.web.api import HttpApi

pytestmark = pytest.mark.usefixtures("looked_at_once")

ITEMS = 30


class Model:
    """A model in miniature: its vectors are of the picture's coarse colours, of a dimension of its own."""

    def __init__(self, fingerprint: str, side: int) -> None:
        self.fingerprint, self.side, self.dimension = fingerprint, side, 3 * side * side
        about = {"name": fingerprint, "summary": "", "licences": (), "reads_words": False, "parts": ()}
        self.description = SimpleNamespace(input_side=128, **about)
        self.label_words: list[dict[str, float]] = []
        own = ModelDescription(name=fingerprint, summary="", dimension=0, parts=())
        self.manifest = ModelManifest(fingerprint=fingerprint, variant="int8", description=own, files=(), built_at="")

    def check_files(self) -> None:
        """There are none."""

    def embed(self, images: list[Image.Image]) -> Any:
        rows = [np.asarray(image.resize((self.side, self.side)), np.float32).ravel() + 1 for image in images]
        vectors = np.stack([row / np.linalg.norm(row) for row in rows])
        none = [None] * len(rows)
        return SimpleNamespace(vectors=vectors, labels=[()] * len(rows), safety=none, probabilities=none)

    def embed_closer(self, image: Image.Image) -> Any:
        return self.embed([image]), self.embed([image])


OLD, NEW = Model("old-model", 8), Model("new-model", 6)


def app_of(home: Path, model: Model) -> App:
    """A deployment with that model."""
    settings = Settings(home=home, freshness_s=0.0, batch_size=8)
    return App(settings, embedder=model, read_image=lambda item: drawing(int(item.key)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def old_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an index of the old model, merged: made once, and copied for each test."""
    home = tmp_path_factory.mktemp("old")
    with app_of(home, OLD) as app:
        changes = [change(str(1000 + number)) for number in range(ITEMS)]
        app.stores.queue.publish([msgspec.json.encode(Batch.of("s", "run", tuple(changes)))])
        work(app)
        app.merge()
    return home


@pytest.fixture
def old(old_home: Path, tmp_path: Path) -> Iterator[App]:
    """An index of the old model, merged."""
    shutil.copytree(old_home, tmp_path, dirs_exist_ok=True)
    with app_of(tmp_path, OLD) as app:
        yield app


@pytest.fixture
def new(tmp_path: Path) -> Iterator[App]:
    with app_of(tmp_path, NEW) as app:
        yield app


def work(app: App, batches: int | None = None) -> None:
    """Embed what is queued, or so many batches of it."""
    if batches is None:
        Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
        return
    for message in app.stores.queue.receive(batches, lease_s=60):
        app.batch_embedder.embed(message.body)
        app.stores.queue.acknowledge(message)


def serving(new: App, old: App) -> ActiveIndex:
    """A search process of the new deployment, with the old model beside its own."""
    return ActiveIndex(
        new.search_service(),
        new.stores.documents,
        {OLD.fingerprint: old.search_service()}.get,
        freshness_s=0.0,
    )


def found(api: HttpApi, key: str) -> tuple[str, str]:
    """Which model answers a search for an item's picture, and the best match."""
    picture = Image.open(io.BytesIO(drawing(int(key))))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    builder = EnvironBuilder("/v1/search", method="POST", data=buffer.getvalue(), content_type="image/png")
    response = api(Request(builder.get_environ()))
    assert response.status_code == 200, response.get_data(as_text=True)
    answer = msgspec.json.decode(response.get_data())
    best = answer["matches"][0]
    assert best["item"]["id"] != item_id("s", key) or best["verdict"] == "exact", "it is the item's own file"
    return answer["index"]["model"], best["item"]["id"]


def test_searches_go_on_until_the_new_index_is_complete_and_then_switch(old: App, new: App) -> None:
    state, _ = read_current(old.stores.documents)
    assert state is not None
    assert state.current == OLD.fingerprint, "the first merge notes whose index it is"

    api = HttpApi(serving(new, old), new.settings, AccessPolicy(new.settings, new.meter))
    assert found(api, "1003") == (OLD.fingerprint, item_id("s", "1003"))
    report = new.reindex()
    assert (report.published, report.switched) == (ITEMS, False)
    for _ in range(2):
        work(new, batches=1)
        new.merge()
        assert found(api, "1003") == (OLD.fingerprint, item_id("s", "1003"))
        assert found(api, "1029") == (OLD.fingerprint, item_id("s", "1029"))
    work(new)
    assert found(api, "1003") == (OLD.fingerprint, item_id("s", "1003")), "embedded, and not yet merged"
    new.merge()
    assert found(api, "1003") == (NEW.fingerprint, item_id("s", "1003"))
    assert len(api.service().searcher) == ITEMS
    assert new.reindex().switched


@pytest.mark.slow
def test_what_is_deleted_meanwhile_vanishes_from_both(old: App, new: App) -> None:
    api = HttpApi(serving(new, old), new.settings, AccessPolicy(new.settings, new.meter))
    new.reindex()
    gone = change("1003", version=2, action="delete")
    new.stores.queue.publish([msgspec.json.encode(Batch.of("s", "run2", (gone,)))])
    work(new)
    assert found(api, "1003")[0] == OLD.fingerprint
    assert found(api, "1003")[1] != item_id("s", "1003")
    new.merge()
    assert found(api, "1003")[0] == NEW.fingerprint
    assert found(api, "1003")[1] != item_id("s", "1003")
    assert len(api.service().searcher) == ITEMS - 1


@pytest.mark.slow
def test_a_reindex_that_is_called_off_leaves_nothing_behind(
    old: App, new: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    new.reindex()
    work(new, batches=2)
    # An item that came meanwhile: only the new model has it.
    new.batch_embedder.embed(batch(change("2000")))
    assert old.reindex().published == 2 * 8 + 1
    work(old)
    old.merge()
    state, _ = read_current(old.stores.documents)
    assert state is not None
    assert (state.current, state.building, state.previous) == (OLD.fingerprint, None, NEW.fingerprint)
    old.searcher.refresh(force=True)
    assert len(old.searcher) == ITEMS + 1
    assert old.searcher.vector_of(item_id("s", "2000")) is not None
    monkeypatch.setattr(reindex, "KEPT_S", 0.0)
    old.merge()
    merge_late(old, hours=48)
    merge_late(old, hours=96)
    assert {d.key for d in old.stores.documents.query("commits")} == {"manifest"}
    assert list(old.stores.objects.list("shards/")) == []
    old.searcher.refresh(force=True)
    assert len(old.searcher) == ITEMS + 1


def merge_late(app: App, hours: float = 1.0) -> None:
    """Merge as a compact function does that still has that model, so much later."""
    later = time.time() + hours * 3600
    merge(app.stores.objects, app.stores.documents, model=app.fingerprint, clock=lambda: later)


def batch(*changes: Any) -> bytes:
    return msgspec.json.encode(Batch.of("s", "run2", changes))


@pytest.mark.slow
@pytest.mark.parametrize("asked", [True, False])
def test_a_delete_that_the_old_model_merges_before_the_new_ones_first_merge_reaches_both(
    asked: bool, old: App, new: App
) -> None:
    if asked:
        new.reindex()
        work(new, batches=1)
    else:
        # Embed has the new model already, and nobody has asked for a reindex yet.
        new.batch_embedder.embed(batch(*(change(str(1000 + n), version=2) for n in range(8))))
    embedded = [d for d in new.stores.documents.query("items") if d.data["model"] == NEW.fingerprint]
    assert len(embedded) == 8
    key = embedded[3].data["item"]["key"]
    # By an instance that has the old model still: nothing in the commit says that the new one waits for it.
    old.batch_embedder.embed(batch(change(key, version=3, action="delete")))
    for _ in range(2):
        merge_late(old)
    if not asked:
        new.reindex()
    work(new)
    new.merge()
    new.searcher.refresh(force=True)
    assert new.searcher.vector_of(item_id("s", key)) is None
    assert len(new.searcher) == ITEMS - 1
    # What hid it is carried on by both indexes now, and its commit goes.
    merge_late(old, hours=2)
    tombstones = [d for d in new.stores.documents.query("commits") if d.data.get("tombstones")]
    assert tombstones == []


@pytest.mark.slow
def test_a_delete_that_is_merged_while_the_new_models_first_delivery_is_under_way(old: App, new: App) -> None:
    def read(item: Any) -> bytes:
        if item.key == "1003":
            old.batch_embedder.embed(batch(change("1003", version=2, action="delete")))
            merge_late(old, hours=0.1)
        return drawing(int(item.key))

    new.batch_embedder.read_image = read
    new.batch_embedder.embed(batch(change("1003"), change("1004")))
    merge_late(old)
    new.merge()
    new.searcher.refresh(force=True)
    assert new.searcher.sample(9) == [item_id("s", "1004")]


class StoppedError(Exception):
    """Ends a reindex in the middle."""


def embedded_in_seconds(app: App, each_s: int) -> None:
    """So many items were embedded in each second: embedding takes its time."""
    for number, document in enumerate(app.stores.documents.query("items")):
        data = {**document.data, "indexed_at": f"2026-01-01T00:00:{number // each_s:02d}+00:00"}
        app.stores.documents.commit([Put(collection="items", key=document.key, data=data)])


@pytest.mark.slow
def test_a_reindex_that_is_stopped_goes_on_where_it_was(old: App, new: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindex, "PAGE", 4)
    embedded_in_seconds(old, each_s=3)

    def stop(published: int) -> None:
        if published >= 12:
            raise StoppedError

    with pytest.raises(StoppedError):
        new.reindex(stop)
    state, _ = read_current(new.stores.documents)
    assert state is not None
    assert 12 <= state.published < ITEMS
    waiting = new.stores.queue.waiting()
    new.reindex()
    assert waiting < new.stores.queue.waiting() <= waiting + ITEMS
    work(new)
    new.merge()
    state, _ = read_current(new.stores.documents)
    assert state is not None
    assert (state.current, state.previous) == (NEW.fingerprint, OLD.fingerprint)
    models = {document.data["model"] for document in new.stores.documents.query("items")}
    assert models == {NEW.fingerprint}


@pytest.mark.slow
@pytest.mark.parametrize("each_s", [1, 7, 1000])
def test_no_item_counts_twice_however_often_a_reindex_is_stopped(
    old: App, new: App, monkeypatch: pytest.MonkeyPatch, each_s: int
) -> None:
    """`each_s` items are of one second; a page of four ends within it."""
    monkeypatch.setattr(reindex, "PAGE", 4)
    embedded_in_seconds(old, each_s)

    def stop(published: int) -> None:
        raise StoppedError

    for _ in range(3):
        with pytest.raises(StoppedError):
            new.reindex(stop)
    assert new.reindex().published == ITEMS
    work(new)
    models = {document.data["model"] for document in new.stores.documents.query("items")}
    assert models == {NEW.fingerprint}


@pytest.mark.slow
def test_what_the_old_model_took_for_done_is_published_anew(old: App, new: App) -> None:
    new.reindex()
    work(new, batches=1)
    work(old)
    new.merge()
    report = new.reindex()
    assert ITEMS < report.published < 2 * ITEMS, "those that are left"
    work(new)
    new.merge()
    assert new.reindex().switched


def completed(app: App) -> None:
    """A reindex to the app's model, from its begin or from where it was, to the switch."""
    app.reindex()
    app.try_again()
    work(app)
    app.merge()
    assert app.reindex().switched
    app.searcher.refresh(force=True)
    assert app.searcher.sample(99) == sorted(live(app))
    assert check(app) == []


def live(app: App) -> list[str]:
    return [document.key for document in app.stores.documents.query("items") if is_live(document.data)]


def check(app: App) -> list[Any]:
    return IndexCheck(app.stores, app.fingerprint).run()


@pytest.mark.slow
@pytest.mark.parametrize("begun", [0, 1, None], ids=["published", "partly embedded", "embedded"])
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("kept_s", [reindex.KEPT_S, 0.0], ids=["within the hour", "later"])
def test_a_reindex_back_loses_nothing_to_the_merges_of_the_index_that_is_served_meanwhile(
    begun: int | None, merged: bool, kept_s: float, old: App, new: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindex, "KEPT_S", kept_s)
    completed(new)
    old.reindex()
    work(old, batches=begun)
    if merged:
        merge_late(old, hours=0)
    new.batch_embedder.embed(batch(change("2000"), change("1004", version=2, action="delete")))
    for _ in range(2):
        new.merge()
    work(new)
    completed(old)


@pytest.mark.slow
@pytest.mark.parametrize("begun", [0, 2, None], ids=["published", "partly embedded", "embedded"])
@pytest.mark.parametrize("merged", [False, True])
def test_a_reindex_that_is_called_off_and_then_wanted_after_all_is_complete(
    begun: int | None, merged: bool, old: App, new: App
) -> None:
    new.reindex()
    work(new, batches=2)
    if merged:
        new.merge()
    old.reindex()
    work(old, batches=begun)
    for _ in range(2):
        old.merge()
    completed(new)


@pytest.mark.slow
def test_a_third_model_leaves_nothing_of_the_two_before(
    old: App, new: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new.reindex()
    work(new, batches=2)
    new.merge()
    new.batch_embedder.embed(batch(change("2000"), change("1004", version=2, action="delete")))
    with app_of(tmp_path, Model("third-model", 7)) as third:
        third.reindex()
        work(third, batches=1)
        old.batch_embedder.embed(batch(change("2001"), change("1005", version=2, action="delete")))
        completed(third)
        monkeypatch.setattr(reindex, "KEPT_S", 0.0)
        third.merge()
        merge_late(third, hours=48)
        merge_late(third, hours=96)
        left = [info.name.partition("-")[2] for info in third.stores.objects.list("manifest-")]
        assert left == ["third-model.json"]
        assert {d.key for d in third.stores.documents.query("commits")} == {"manifest"}
        assert list(third.stores.objects.list("shards/")) == []
        assert len(list(third.stores.objects.list("segments/"))) == 1
        third.searcher.refresh(force=True)
        assert third.searcher.sample(99) == sorted(live(third))


@pytest.mark.slow
def test_what_the_old_model_adds_during_a_long_reindex_is_published_too(
    old: App, new: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindex, "OVERLAP_S", -60.0)
    new.reindex()
    work(new)
    old.batch_embedder.embed(batch(change("2000")))
    new.merge()
    state, _ = read_current(new.stores.documents)
    assert state is not None
    assert state.current == OLD.fingerprint, "an item is left"
    completed(new)


@pytest.mark.slow
def test_an_item_that_the_old_model_embeds_after_the_switch_is_found_by_check(old: App, new: App) -> None:
    completed(new)
    old.batch_embedder.embed(batch(change("2000"), change("1003", version=2)))
    (damage,) = check(new)
    assert damage.items == tuple(sorted(item_id("s", key) for key in ("2000", "1003")))
    IndexCheck(new.stores, new.fingerprint, repair=True).run()
    work(new)
    new.merge()
    completed(new)


def test_a_check_during_a_reindex_reads_the_index_that_is_searched(old: App, new: App) -> None:
    """It called the index whole, where a search said that a part is missing and that the check says what to do."""
    new.reindex()
    work(new, batches=1)
    new.merge()
    manifest, _ = read_manifest(old.stores.objects, OLD.fingerprint)
    assert manifest is not None
    old.stores.objects.delete(manifest.segments[0].name)
    assert [damage.kind for damage in new.check().found] == ["segment", "item without a vector"]
    assert new.check(repair=True).left == ()
    work(new)
    new.merge()
    completed(new)


def test_a_repair_with_a_model_that_is_not_the_indexs_is_refused(old: App, new: App) -> None:
    """It would embed what is lost for an index that nobody searches."""
    assert new.check().found == ()
    with pytest.raises(SettingsError, match="This index is searched with model old-model, and VISOR_MODEL is"):
        new.check(repair=True)


@pytest.mark.slow
def test_what_was_given_up_at_the_switch_is_embedded_by_a_reindex_back(
    old: App, new: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(item: Any) -> bytes:
        if item.key == "1003":
            raise FetchFailed("Gone")
        return drawing(int(item.key))

    new.batch_embedder.read_image = read
    new.reindex()
    work(new)
    new.merge()
    report = new.reindex()
    assert (report.left, report.switched, new.stores.queue.waiting()) == (1, False, 0)
    new.reindex(confirm_loss=True)
    monkeypatch.setattr(reindex, "KEPT_S", 0.0)
    for _ in range(2):
        new.merge()
    assert new.reindex().switched
    assert [info.name for info in new.stores.objects.list("manifest-")] == ["manifest-new-model.json"]
    assert check(new) == [], "its owner knows"
    completed(old)
    assert item_id("s", "1003") in old.searcher.sample(99)


@pytest.mark.slow
def test_an_item_whose_next_picture_failed_before_the_reindex_is_counted_and_may_be_given_up(
    old: App, new: App
) -> None:
    def read(item: Any) -> bytes:
        raise FetchFailed("Gone")

    old.batch_embedder.read_image = read
    old.batch_embedder.embed(batch(change("1003", version=2)))
    new.reindex()
    work(new)
    new.merge()
    report = new.reindex()
    assert (report.left, report.switched, new.stores.queue.waiting()) == (1, False, 0)
    new.reindex(confirm_loss=True)
    new.merge()
    assert new.reindex().switched


@pytest.mark.slow
@pytest.mark.parametrize("step", ["manifest", "commits", "state"])
def test_an_old_index_is_dropped_for_good_though_the_merge_is_killed(
    step: str, old: App, new: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def kill(*arguments: Any, **options: Any) -> None:
        raise KilledError

    old.batch_embedder.embed(batch(change("1004", version=2, action="delete")))
    completed(new)
    monkeypatch.setattr(reindex, "KEPT_S", 0.0)
    with monkeypatch.context() as patched:
        if step == "manifest":
            patched.setattr(type(new.stores.objects), "delete", kill)
        elif step == "commits":
            patched.setattr(garbage, "WRITES_MAX", None)
        else:
            patched.setattr(reindex, "write_current", kill)
        with pytest.raises((KilledError, TypeError)):
            reindex.finish_reindex(new.stores.objects, new.stores.documents, new.fingerprint)
    new.merge()
    merge_late(new)
    assert [info.name for info in new.stores.objects.list("manifest-")] == ["manifest-new-model.json"]
    assert {d.key for d in new.stores.documents.query("commits")} == {"manifest"}
    assert check(new) == []


@pytest.mark.slow
def test_many_items_of_one_second_are_all_published(old: App, new: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindex, "PAGE", 4)
    for document in old.stores.documents.query("items"):
        data = {**document.data, "indexed_at": "2026-01-01T00:00:00+00:00"}
        old.stores.documents.commit([Put(collection="items", key=document.key, data=data)])
    new.reindex()
    work(new)
    models = {document.data["model"] for document in new.stores.documents.query("items")}
    assert models == {NEW.fingerprint}


@pytest.mark.slow
def test_the_old_index_is_dropped_when_no_search_can_hold_it(old: App, new: App) -> None:
    new.reindex()
    work(new)
    new.merge()
    manifests = [info.name for info in new.stores.objects.list("manifest-")]
    assert len(manifests) == 2
    documents = new.stores.documents
    assert not reindex.is_old_index_free(documents, NEW.fingerprint)
    later = reindex.KEPT_S + 10 + read_current(documents)[0].switched  # type: ignore[union-attr]
    assert reindex.is_old_index_free(documents, NEW.fingerprint, clock=lambda: later)
    old.reindex()
    assert not reindex.is_old_index_free(documents, NEW.fingerprint, clock=lambda: later), "it is built upon"


@pytest.mark.slow
def test_a_search_without_the_old_model_serves_its_own_and_says_so(
    old: App, new: App, caplog: pytest.LogCaptureFixture
) -> None:
    service = ActiveIndex(new.search_service(), new.stores.documents, lambda fingerprint: None, freshness_s=0.0)()
    assert service.embedder.fingerprint == NEW.fingerprint
    assert OLD.fingerprint in caplog.text


@pytest.mark.slow
def test_a_store_that_is_away_at_the_switch_delays_it(old: App, new: App) -> None:
    class Away:
        on = False

        def __getattr__(self, name: str) -> Any:
            if self.on:
                raise StoreUnavailable("Away")
            return getattr(new.stores.documents, name)

    away = Away()
    current = ActiveIndex(
        new.search_service(),
        away,
        {OLD.fingerprint: old.search_service()}.get,
        freshness_s=0.0,  # type: ignore[arg-type]
    )
    assert current().embedder.fingerprint == OLD.fingerprint
    new.reindex()
    work(new)
    new.merge()
    away.on = True
    assert current().embedder.fingerprint == OLD.fingerprint
    away.on = False
    assert current().embedder.fingerprint == NEW.fingerprint


def test_what_crawls_with_the_old_model_leaves_batches_to_the_new_one(old: App, new: App) -> None:
    """`visor serve --crawl` that runs on after a reindex embedded for an index that nobody searches any more."""
    scheduler = old.scheduler()
    new.reindex()
    work(new)
    new.merge()
    old.pusher.push_lines(b'{"key": "new", "image_url": "https://shop.test/new.jpg"}')
    with pytest.raises(SettingsError, match="This index is searched with model new-model"):
        scheduler._worker.drain()
    assert len(new.stores.queue.receive(9, lease_s=60)) == 1


def test_a_search_on_this_machine_follows_a_reindex_by_another_process(
    old: App, new: App, caplog: pytest.LogCaptureFixture
) -> None:
    """`visor serve` went on with the old index, which gets no new items, and is deleted an hour later."""
    others = {NEW.fingerprint: new.search_service()}
    documents = old.stores.documents
    current = ActiveIndex(old.search_service(), documents, others.get, freshness_s=0.0, follows=True)
    without = ActiveIndex(old.search_service(), documents, lambda fingerprint: None, freshness_s=0.0, follows=True)
    assert current().embedder.fingerprint == without().embedder.fingerprint == OLD.fingerprint
    new.reindex()
    work(new)
    new.merge()
    assert current().embedder.fingerprint == NEW.fingerprint
    assert len(current().searcher) == ITEMS
    assert [without().embedder.fingerprint for _ in range(3)] == [OLD.fingerprint] * 3
    assert caplog.text.count("that model is not here") == 1


def test_an_empty_index_is_nobodys_and_is_served(tmp_path: Path, new: App) -> None:
    service = ActiveIndex(new.search_service(), new.stores.documents, lambda fingerprint: None, freshness_s=0.0)()
    service.refresh()
    assert len(service.searcher) == 0


def test_an_index_is_not_exported_before_its_reindex_is_complete(tmp_path: Path) -> None:
    """The few items that the new model had embedded were exported, without a word about the others."""
    with app_of(tmp_path, NEW) as app:
        assert write_current(app.stores.documents, CurrentModel(current=OLD.fingerprint, building=NEW.fingerprint), 0)
        with pytest.raises(SettingsError, match=r"The reindex to VISOR_MODEL.* is not complete.*visor reindex"):
            app.exporter({})
