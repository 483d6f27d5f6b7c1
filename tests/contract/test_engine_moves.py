"""Whole ways through an engine: fill, search, delete, embed with another model; and to an engine and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from tests.contract.engines import MILVUS, EngineShop, milvus_lite
from tests.contract.test_engine_contract import facets_of, fill, told
from tests.unit.index.index_fixtures import MODEL, clustered, keys_of
from tests.unit.ingest.test_pipeline_embed import change, drawing
from tests.unit.ingest.test_pipeline_reindex import NEW, OLD, Model, serving, work

import visor
from visor.app import App
from visor.check import index_check
from visor.check.damage import CheckReport
from visor.cli.main import cli
from visor.errors import SettingsError, StoreUnavailable
from visor.index.engine.moves import EngineMove
from visor.index.format.manifest import read_manifest
from visor.index.format.projection import FullSpace, read_projection
from visor.index.format.segment import open_segment
from visor.index.merge.inputs import Inputs
from visor.index.merge.policy import MergePolicy
from visor.schema.items import Batch, item_id
from visor.schema.search import Filters, SearchRequest
from visor.settings import Settings
from visor.storage.engine import VectorEngine, open_engine

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("looked_at_once")]


def contents(shop: EngineShop) -> dict[str, tuple[Any, ...]]:
    """All that segments have of each item, but codes."""
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    space: Any = FullSpace(manifest.dimension)
    if manifest.projection is not None:
        space = read_projection(manifest.projection.name, shop.objects.get(manifest.projection.name))
    found = {}
    for entry in manifest.segments:
        segment = open_segment(shop.objects, entry, space)
        full, rows = segment.read_full(0, len(segment)), segment.worded_columns.rows()
        for number, row in enumerate(rows):
            about = int(segment.versions[number]), segment.hashes[number].tobytes(), segment.looks[number].tobytes()
            found[segment.ids[number].tobytes().hex()] = (*about, full[number].tobytes(), row)
    return found


def mover(shop: EngineShop, engine: VectorEngine) -> EngineMove:
    inputs = Inputs(shop.objects, shop.documents, MODEL)
    return EngineMove(inputs, MergePolicy(), shop.clock, print, ("english",), False, engine=engine)


def there_and_back(shop: EngineShop, engine: VectorEngine, count: int) -> None:
    before, manifest = contents(shop), read_manifest(shop.objects, MODEL)[0]
    assert mover(shop, engine).move_in() == len(before) == count
    assert not contents(shop)
    assert engine.count(engine.collections()[0]) == count
    assert mover(shop, engine).move_out() == count
    after = read_manifest(shop.objects, MODEL)[0]
    assert manifest is not None
    assert after is not None
    assert contents(shop) == before
    assert (after.calibration, after.projection) == (manifest.calibration, manifest.projection)
    assert engine.collections() == []


@pytest.mark.slow
def test_moving_there_and_back_loses_nothing(engine: VectorEngine, twin: EngineShop) -> None:
    vectors = fill(twin, 200)
    twin.delete("k0-7", 4)
    twin.merge()
    fill(twin, 20, start=900)  # which no merge has taken up
    answers = told(twin.searcher(), vectors[:3])
    there_and_back(twin, engine, 199)
    assert told(twin.searcher(), vectors[:3]) == answers
    mover(twin, engine).move_in()
    twin.engine = engine
    assert told(twin.searcher(), vectors[:3]) == answers
    twin.add(["k0-7"], vectors[7][None], version=3)
    assert twin.merge().images == 219, "a tombstone that moved along hides what comes late"


@pytest.mark.parametrize("stops", [StoreUnavailable("It went away"), KeyboardInterrupt()], ids=["fails", "stopped"])
def test_a_move_that_ends_early_can_be_done_again_at_once(
    engine: VectorEngine, twin: EngineShop, monkeypatch: pytest.MonkeyPatch, stops: BaseException
) -> None:
    """Its claim to write kept every merge and move off for ten minutes."""
    fill(twin, 30)
    twin.merge()
    mover(twin, engine).move_in()

    def stop(*_: object, **__: object) -> None:
        raise stops

    with monkeypatch.context() as patch:
        patch.setattr("visor.index.engine.moves.cut", stop)
        with pytest.raises(type(stops)):
            mover(twin, engine).move_out()
    assert mover(twin, engine).move_out() == 30


@pytest.mark.slow
def test_ten_thousand_items_move_there_and_back(tmp_path: Path, twin: EngineShop) -> None:
    vectors = clustered(10_000)
    for at in range(0, 10_000, 500):
        facets = [facets_of(at + number) for number in range(500)]
        twin.add(keys_of(10_000)[at : at + 500], vectors[at : at + 500], facets=facets)
    twin.merge()
    engine = milvus_lite(tmp_path)
    there_and_back(twin, engine, 10_000)
    engine.close()


@pytest.fixture(params=[MILVUS, "pgvector"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    url = str(tmp_path / "engine" / "milvus.db")
    if request.param == "pgvector":
        url = request.getfixturevalue("postgres_url")
    return Settings(home=tmp_path, freshness_s=0.0, batch_size=8, engine=request.param, engine_url=url)


def app_of(settings: Settings, model: Model, engine: VectorEngine | None = None) -> App:
    made: Any = model
    return App(settings, embedder=made, read_image=lambda item: drawing(int(item.key)), engine=engine)


def publish(app: App, *changes: Any) -> None:
    app.stores.queue.publish([msgspec.json.encode(Batch.of("s", "run", changes))])
    work(app)


@pytest.mark.parametrize("lost", ["collection", "projection", "projection of few"])
def test_what_an_engine_index_has_lost_is_named_and_mended(
    lost: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(settings)
    with app_of(settings, OLD, engine) as app:
        publish(app, *(change(str(number)) for number in range(140)))
        app.merge()
        manifest, _ = read_manifest(app.stores.objects, OLD.fingerprint)
        assert manifest is not None
        assert manifest.projection is not None
        if lost == "collection":
            engine.drop(engine.collections()[0])
            with pytest.raises(StoreUnavailable, match=r"the collection that this index was moved to.*check --repair"):
                app.search_service().refresh()
        else:
            app.stores.objects.delete(manifest.projection.name)

    def check(*, repair: bool) -> CheckReport:
        with app_of(settings, OLD, engine) as app, monkeypatch.context() as patch:
            patch.setattr(index_check, "SAMPLES_MIN", 1_000 if "few" in lost else 128)
            return app.check(repair=repair)

    named = {
        "collection": "has no collection old_model_.*, which has the vectors, at VISOR_ENGINE_URL",
        "projection": "There is no object projections/",
        "projection of few": "There is no object projections/",
    }[lost]
    remedy = "Learn one anew" if lost == "projection" else "mbed"
    first = check(repair=False).found[0]
    assert re.search(named, first.found)
    assert remedy in first.remedy
    assert check(repair=True).left == ()
    assert check(repair=False).found == ()
    with app_of(settings, OLD, engine) as app:
        found = app.search_service().search(SearchRequest(k=1), drawing(7))
        assert (len(app.searcher), found.matches[0].item.id) == (140, item_id("s", "7"))
    engine.close()


@pytest.mark.slow
def test_a_whole_life(settings: Settings) -> None:
    """Fill, search, filter, delete, add anew, embed with another model beside, and move back to segments."""
    engine = open_engine(settings)
    with app_of(settings, OLD, engine) as old, app_of(settings, NEW, engine) as new:
        publish(old, *(change(str(1000 + number), price=number) for number in range(30)))
        assert old.merge().images == 30
        service = old.search_service()

        def best(key: int, **filters: Any) -> list[str]:
            request = SearchRequest(k=3, filters=Filters(**filters))
            return [match.item.id for match in service.search(request, drawing(key)).matches]

        assert best(1003)[0] == item_id("s", "1003")
        assert item_id("s", "1003") not in best(1003, price=visor.PriceRange(min=4.0))
        publish(old, change("1003", version=2, action="delete"), change("1004", version=2, action="update", price=77.0))
        for _ in range(2):
            assert item_id("s", "1003") not in best(1003)
            assert best(1003, price=visor.PriceRange(min=50.0)) == [item_id("s", "1004")]
            old.merge()
        publish(old, change("1003", version=3))
        assert best(1003)[0] == item_id("s", "1003")
        old.merge()
        assert (old.check().found, len(engine.collections())) == ((), 1)

        active = serving(new, old)
        new.reindex()
        work(new)
        assert active().embedder.fingerprint == OLD.fingerprint
        new.merge()
        assert active().embedder.fingerprint == NEW.fingerprint
        assert len(active().searcher) == 30
        assert len(engine.collections()) == 2, "the old one stays for searches that have not seen the switch"
        rows = dict(_vectors(new))
        assert new.migrate("segments") == 30
        with pytest.raises(SettingsError, match="This index is in segments, and VISOR_ENGINE is"):
            new.merge()
    after = msgspec.structs.replace(settings, engine="segments")
    with app_of(after, NEW) as app:
        app.searcher.refresh()
        assert dict(_vectors(app)) == rows
        app.merge()
        assert app.migrate(settings.engine) == 30
    with app_of(settings, NEW) as app:
        app.searcher.refresh()
        assert dict(_vectors(app)) == rows
    engine.close()


def answers_of(settings: Settings) -> list[Any]:
    """To 20 drawings, of 200, which are enough for a projection; half of the queries are of none of them."""
    with app_of(settings, OLD) as app:
        publish(app, *(change(str(2000 + number), price=number) for number in range(200)))
        app.merge()
        service, found = app.search_service(), []
        for key in (*range(2000, 2200, 20), *range(5000, 5010)):
            answer = service.search(SearchRequest(k=12), drawing(key))
            matches = [(match.item.id, match.verdict, round(match.confidence, 2)) for match in answer.matches]
            found.append((matches, round(answer.confidence, 2), answer.total))
    return found


@pytest.fixture(scope="module")
def answers_of_segments(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return answers_of(Settings(home=tmp_path_factory.mktemp("segments"), freshness_s=0.0, batch_size=8))


@pytest.mark.slow
def test_pictures_get_the_same_twelve_and_the_same_confidence(
    settings: Settings, answers_of_segments: list[Any]
) -> None:
    assert answers_of(settings) == answers_of_segments


def _vectors(app: App) -> Iterator[tuple[bytes, bytes]]:
    app.searcher.refresh(force=True)
    for vectors, ids in app.searcher.full_vectors():
        yield from ((i.tobytes(), np.asarray(v, np.float16).tobytes()) for i, v in zip(ids, vectors, strict=True))


@pytest.mark.slow
def test_the_commands(built_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`visor index`, `search` and `engine` on a folder, with Milvus Lite."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        (pictures / f"{number}.png").write_bytes(drawing(number))
    for name, value in {"HOME": tmp_path, "MODELS": built_settings.home / "models", "FRESHNESS_S": 0}.items():
        monkeypatch.setenv(f"VISOR_{name}", str(value))
    monkeypatch.setenv("VISOR_ENGINE", "milvus")

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(cli, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return msgspec.json.decode(result.stdout)

    refused = CliRunner().invoke(cli, ["index", str(pictures)])
    assert "VISOR_ENGINE_URL is empty" in str(refused.exception)
    assert not (tmp_path / "indexes" / "default" / "objects" / "shards").exists(), "nothing was embedded in vain"
    monkeypatch.setenv("VISOR_ENGINE_URL", str(tmp_path / "milvus.db"))
    run("index", str(pictures))
    assert {**run("engine", "show"), "collection": ""} == {
        "engine": "milvus",
        "collection": "",
        "images": 4,
        "unmerged": 0,
    }
    assert run("search", str(pictures / "2.png"))["matches"][0]["item"]["title"] == "2"
    assert run("engine", "migrate", "segments") == {"engine": "segments", "images": 4, "unmerged": 0}
    monkeypatch.setenv("VISOR_ENGINE", "segments")
    assert run("search", str(pictures / "2.png"))["matches"][0]["item"]["title"] == "2"


def test_what_no_merge_has_taken_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a first merge there is nothing to move: the first one by the engine brings all there."""
    settings = Settings(home=tmp_path, freshness_s=0.0)
    monkeypatch.setenv("VISOR_HOME", str(tmp_path))
    engine: Any = milvus_lite(tmp_path)
    with app_of(settings, OLD, engine) as app:
        monkeypatch.setattr("visor.app.App", lambda _: app)

        def said(*arguments: str) -> str:
            return CliRunner().invoke(cli, ["engine", *arguments], catch_exceptions=False).stdout

        publish(app, *(change(str(number)) for number in range(5)))
        waits = "Not merged yet: 5 images, which `visor compact` brings there\n"
        assert said("migrate", "milvus") == f"In milvus: 0 images. Set VISOR_ENGINE=milvus from now on. {waits}"
        assert said("show") == f"0 images in segments. {waits}"
    with app_of(settings, OLD, engine) as app:
        assert (app.merge().images, app.unmerged(), engine.count(engine.collections()[0])) == (5, 0, 5)
    engine.close()


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("milvus", "http://user:s3cr3t@127.0.0.1:1"),
        ("milvus", "http://user:s3cr3t@127.0.0.1:port"),
        ("milvus", "http://user:s3/cr3t@127.0.0.1:1"),
        ("milvus", "http://[::1"),
        ("milvus", "ftp://host"),
        ("milvus", "no-database"),
        ("milvus", "/proc/none/milvus.db"),
        ("pgvector", "postgresql://user:s3cr3t@127.0.0.1:1/db"),
        ("pgvector", "postgresql://user:s3@cr3t@127.0.0.1:1/db"),
        ("pgvector", "postgresql://user:s3%cr3t@127.0.0.1:1/db"),
        ("pgvector", "postgresql://user:s3 cr3t@127.0.0.1:1/db"),
        ("pgvector", "postgresql://user:s3cr3t@[127.0.0.1:1/db"),
        ("pgvector", "postgresql://127.0.0.1:1/db?password=s3cr3t&other=1"),
        ("pgvector", "host=127.0.0.1 port=1 password=s3cr3t"),
    ],
)
def test_an_engine_that_does_not_answer_is_said_without_secrets(kind: Any, url: str, tmp_path: Path) -> None:
    """Nor does it leave anything: another address, engine or segments go on with the same index."""
    settings = Settings(home=tmp_path, engine=kind, engine_url=url, engine_token="t0ken-s3cr3t", freshness_s=0.0)
    with app_of(msgspec.structs.replace(settings, engine="segments"), OLD) as app:
        publish(app, change("1"))

    def merge() -> None:
        with app_of(settings, OLD) as app:
            app.merge()

    def migrate() -> None:
        with app_of(msgspec.structs.replace(settings, engine="segments"), OLD) as app:
            app.migrate(kind)

    for action in (merge, merge, migrate):
        with pytest.raises((SettingsError, StoreUnavailable)) as caught:
            action()
        assert "cr3t" not in str(caught.value)
        assert "VISOR_ENGINE_URL" in str(caught.value)
    with app_of(msgspec.structs.replace(settings, engine="segments"), OLD) as app:
        assert app.merge().finished


def test_what_milvus_says_is_told_with_the_password_that_it_comes_with() -> None:
    engine = open_engine(Settings(engine="milvus", engine_url="http://127.0.0.1:1", engine_token="root:Milvus"))
    with pytest.raises(StoreUnavailable, match=r"does not answer: Fail connecting to server on 127\.0\.0\.1:1"):
        engine.collections()


@pytest.mark.parametrize(
    ("engine", "url"),
    [
        ("milvus", ""),
        ("milvus", "postgresql://a:secret@host/db"),
        ("pgvector", "https://u:secret@host"),
        ("pgvector", "x.db"),
    ],
)
def test_an_address_of_another_engine_is_refused(engine: Any, url: str) -> None:
    with pytest.raises(SettingsError, match="VISOR_ENGINE_URL") as refused:
        open_engine(Settings(engine=engine, engine_url=url))
    assert "secret" not in str(refused.value)
