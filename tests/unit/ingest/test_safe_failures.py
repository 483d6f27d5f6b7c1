"""One observation is never for good: what failed keeps its old picture, is told, and is tried again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tests.unit.ingest.test_pipeline_embed import change, drawing
from tests.unit.ingest.test_pipeline_reindex import Model
from tests.unit.sources.catalogue_server import Reply, Request, serving

from visor.app import App
from visor.cli.main import cli
from visor.errors import FetchFailed, SettingsError, SourceError
from visor.index.format.current_model import read_current
from visor.ingest.schedule import live_failures
from visor.ingest.worker import Worker
from visor.schema.items import Batch, Item, item_id
from visor.settings import Settings

MODELS = {"auto": Model("first-model", 8), "imagenet": Model("second-model", 6)}
PNG = {"Content-Type": "image/png"}
ITEMS = 6


@dataclass
class Laptop:
    """Commands in a row, each as in a process of its own; a model in miniature."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, **environ: str) -> Result:
        runner = CliRunner(env={"VISOR_HOME": str(self.home), **self.environ, **environ})
        return runner.invoke(cli, arguments)

    def app(self, **changes: Any) -> App:
        return App(msgspec.structs.replace(Settings(home=self.home, freshness_s=0.0), **changes))

    def searchable(self, model: str = "auto") -> int:
        with self.app(model=model) as app:
            app.searcher.refresh()
            return len(app.searcher)

    def failed(self) -> dict[str, str]:
        with self.app() as app:
            return {one.key: str(one.data["code"]) for one in app.stores.documents.query("failures")}


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    monkeypatch.setattr("visor.models.embedder.load_embedder", lambda settings: MODELS[settings.model])
    monkeypatch.setattr("visor.models.store.model_fingerprint", lambda settings: MODELS[settings.model].fingerprint)
    monkeypatch.setattr("visor.ingest.worker.BACK_OFF_S", 0.01)
    monkeypatch.chdir(tmp_path)
    return Laptop(tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(ITEMS):
        (folder / f"{number}.png").write_bytes(drawing(number))
    return folder


@dataclass
class Shop:
    """A feed of pictures at `/N.png`, or `/N.png?v=2`; `bad` answers in place of pictures."""

    bad: Reply | None = None
    version: str = ""

    def answer(self, request: Request) -> Reply:
        if request.path == "/feed":
            rows = [f"{n}\tNumber {n}\t/{n}.png{self.version}" for n in range(ITEMS)]
            return Reply("\n".join(["id\ttitle\timage_link", *rows]).encode())
        return self.bad or Reply(drawing(int(request.path[1:-4])), headers=PNG)


@pytest.fixture
def shop(laptop: Laptop, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop()
    with serving(shop.answer) as server:
        (tmp_path / "visor.toml").write_text(f'[sources.shop]\nkind = "feed"\nurl = "{server.url}/feed"\n')
        laptop.environ["VISOR_ALLOW_HOSTS"] = server.host
        yield shop


HTML = Reply(b"<!doctype html><title>Are you human?</title>", headers={"Content-Type": "text/html"})
BAD = {
    "403": Reply(status=403),
    "404": Reply(status=404),
    "401": Reply(status=401),
    "HTML": HTML,
    "nothing": Reply(b""),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_an_origin_refuses_once_is_had_the_next_time(bad: str, laptop: Laptop, shop: Shop) -> None:
    shop.bad = BAD[bad]
    first = laptop.run("index", "shop")
    assert first.exit_code == 1
    assert f"Searchable as they are now: 0 of {ITEMS} items; {ITEMS} failed" in first.stderr
    assert "  0: " in first.stderr, "by the shop's own key"
    shop.bad = None
    again = laptop.run("index", "shop")
    assert (again.exit_code, laptop.searchable(), laptop.failed()) == (0, ITEMS, {})


def test_what_is_not_taken_in_is_named(laptop: Laptop, folder: Path) -> None:
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    dangling = laptop.run("index", str(folder))
    assert (dangling.exit_code, "  link.png: it cannot be read" in dangling.stderr) == (1, True), dangling.stderr
    (folder / "link.png").unlink()
    (folder / "album").symlink_to(folder)
    looped = laptop.run("index", str(folder))
    assert (looped.exit_code, "  album: a symbolic link" in looped.stderr) == (0, True), looped.stderr
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(drawing(1))
    other = laptop.run("index", str(folder))
    assert (other.exit_code, r"caf\udce9.png" in other.stderr) == (1, True), other.stderr


def test_a_picture_that_is_gone_is_told_before_it_is_deleted(laptop: Laptop, folder: Path) -> None:
    laptop.run("index", str(folder))
    (folder / "1.png").unlink()
    told = "Not seen; deleted if further passes miss them too: 1 item"
    assert told in laptop.run("index", str(folder)).stderr
    last = laptop.run("index", str(folder)).stderr
    assert (told in last, ", 1 gone" in last, laptop.searchable()) == (False, True, ITEMS - 1), last


def test_what_is_tried_again_is_tried_and_counted_once(laptop: Laptop, folder: Path) -> None:
    empty = folder / "empty.jpg"
    empty.touch()
    laptop.run("index", str(folder))
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    changed = laptop.run("index", str(folder)).stderr
    assert (f"Done: {ITEMS + 1} of {ITEMS + 1}" in changed, "Trying again" in changed) == (True, False)
    unchanged = laptop.run("index", str(folder)).stderr
    assert ("Trying again what failed before: 1 item\n" in unchanged, "Done: 1 of 1" in unchanged) == (True, True)
    retried = laptop.run("failures", "--retry").stderr
    assert ("Trying 1 item again" in retried, "Done: 1 of 1" in retried) == (True, True), retried


@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD)
def test_a_new_picture_that_cannot_be_had_leaves_the_old_one(bad: str, laptop: Laptop, shop: Shop) -> None:
    laptop.run("index", "shop")
    shop.bad, shop.version = BAD[bad], "?v=2"
    assert laptop.run("index", "shop").exit_code == 1
    assert laptop.searchable() == ITEMS
    shop.bad = None
    assert laptop.run("index", "shop").exit_code == 0
    with laptop.app() as app:
        found = app.stores.documents.query("items")
        assert {one.data["item"]["image_url"].partition("?")[2] for one in found} == {"v=2"}
    assert laptop.failed() == {}


@pytest.mark.parametrize(("setting", "low"), [("VISOR_PIXELS_MAX", "1000"), ("VISOR_FETCH_BYTES_MAX", "100")])
@pytest.mark.slow
def test_a_limit_is_raised_as_the_message_says(setting: str, low: str, laptop: Laptop, folder: Path) -> None:
    first = laptop.run("index", str(folder), **{setting: low})
    assert first.exit_code == 1
    assert setting in first.stderr
    assert laptop.run("index", str(folder)).exit_code == 0
    assert laptop.searchable() == ITEMS


def test_a_folder_that_goes_and_comes_back(laptop: Laptop, folder: Path) -> None:
    with laptop.app() as app:
        app.crawler.crawl(app.open_source("pictures", {"kind": "folder", "path": str(folder)}))
        away = folder.rename(folder.with_name("away"))
        Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
    assert len(laptop.failed()) == ITEMS
    away.rename(folder)
    assert laptop.run("index", str(folder)).exit_code == 0
    assert laptop.searchable() == ITEMS


@pytest.mark.slow
def test_failures_are_listed_and_tried_again_by_one_command(laptop: Laptop, folder: Path) -> None:
    (folder / "broken.png").write_bytes(drawing(9)[:300])
    (folder / "page.png").write_bytes(b"<!doctype html><p>Moved")
    assert laptop.run("index", str(folder)).exit_code == 1, "a file of this machine could not be had"
    listed = laptop.run("failures")
    assert "broken.png  undecodable_image: " in listed.stdout
    assert "page.png  undecodable_image: This is an HTML page" in listed.stdout
    rows = json.loads(laptop.run("failures", "--source", "pictures", "--json").stdout)["failures"]
    assert {row["wanted"]["key"]: row.get("certain", False) for row in rows} == {"broken.png": True, "page.png": False}
    assert json.loads(laptop.run("failures", "--code", "fetch_failed", "--json").stdout)["failures"] == []
    assert json.loads(laptop.run("failures", "--source", "push", "--json").stdout)["failures"] == []
    mistyped = laptop.run("failures", "--source", "typo").exception
    assert isinstance(mistyped, SourceError)
    assert str(mistyped).startswith("The index has nothing from a source 'typo'")
    assert mistyped.valid == "Sources that were crawled: pictures"
    assert laptop.run("failures", "--retry").exit_code == 1
    # Its time and size stay: nothing but the command can know that another try is worth it.
    with laptop.app() as app:
        app.crawler.crawl(app.named_source("pictures"))
    (folder / "broken.png").write_bytes(drawing(9))
    (folder / "page.png").write_bytes(drawing(10))
    again = laptop.run("failures", "--retry", "--json")
    assert (again.exit_code, laptop.failed(), laptop.searchable()) == (0, {}, ITEMS + 2)
    assert json.loads(again.stdout) == {"tried": 2, "failures": []}
    Image.new("RGB", (64, 64)).save(folder / "blank.png")
    assert laptop.run("index", str(folder)).exit_code == 0
    told = laptop.run("failures")
    assert ("nothing_to_compare" in told.stdout, "--retry" in told.stderr) == (True, False)
    assert laptop.run("failures", "--retry").exit_code == 0, "it is searchable, and nothing was tried"


def test_the_failure_of_an_item_that_is_deleted_meanwhile_is_forgotten(laptop: Laptop, tmp_path: Path) -> None:
    embed, delete = (
        msgspec.json.encode(Batch.of("s", "run", [change("a", version=version, action=action)]))
        for version, action in ((1, "embed"), (2, "delete"))
    )

    def read_image(item: Item) -> bytes:
        # The other worker is faster.
        app.batch_embedder.embed(delete)
        raise FetchFailed("It is gone")

    settings = Settings(home=tmp_path / "home")
    with App(settings, embedder=MODELS["auto"], read_image=read_image) as app:  # type: ignore[arg-type]
        app.batch_embedder.embed(embed)
        assert live_failures(app.stores.documents) == []
        app.batch_embedder.embed(embed)
        assert app.stores.documents.query("failures") == []


def test_a_scheduled_crawl_tries_again_after_growing_pauses(
    laptop: Laptop, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.bad = BAD["403"]
    laptop.run("index", "shop")
    waits = []
    for _ in range(7):
        with laptop.app(allow_hosts=(laptop.environ["VISOR_ALLOW_HOSTS"],)) as app:
            failure = app.stores.documents.query("failures")[0].data
            at = msgspec.convert(failure["at"], type=Any)
            waits.append(round((failure["next_at"] - _seconds(at)) / 86_400))
            published = app.crawler.try_again(_due(app, failure["next_at"] - 60))
            assert published == 0, "not before"
            assert app.crawler.try_again(_due(app, failure["next_at"] + 60)) == ITEMS
            assert app.crawler.try_again(_due(app, failure["next_at"] + 60)) == 0, "and once"
            Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
    assert waits == [1, 2, 4, 8, 16, 32, 32]


def _due(app: App, seconds: float) -> Any:
    from datetime import UTC, datetime

    from visor.ingest.schedule import due_failures

    return due_failures(app.stores.documents, datetime.fromtimestamp(seconds, UTC))


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


@pytest.mark.slow
def test_reindex_after_index_of_a_folder_loses_nothing(laptop: Laptop, folder: Path) -> None:
    laptop.run("index", str(folder))
    moved = laptop.run("reindex", VISOR_MODEL="imagenet")
    assert (moved.exit_code, laptop.failed(), laptop.searchable("imagenet")) == (0, {}, ITEMS)
    with laptop.app() as app:
        state, _ = read_current(app.stores.documents)
        assert state is not None
        assert state.current == MODELS["imagenet"].fingerprint
    for command in (
        ["export", str(folder.parent / "site")],
        ["compact"],
        ["engine", "show"],
        ["engine", "migrate", "segments"],
    ):
        told = str(laptop.run(*command).exception)
        assert "This index is searched with model" in told, "it is not empty"


@pytest.mark.slow
def test_reindex_does_not_switch_to_a_smaller_index_unless_told(laptop: Laptop, folder: Path) -> None:
    laptop.run("index", str(folder))
    away = (folder / "3.png").rename(folder / "away")
    first = laptop.run("reindex", VISOR_MODEL="imagenet")
    assert first.exit_code == 1
    assert "1 item cannot be embedded with the new model: searches use the old index" in first.stderr
    assert laptop.searchable() == ITEMS, "the old index is whole"

    def current() -> str:
        with laptop.app() as app:
            state, _ = read_current(app.stores.documents)
            assert state is not None
            return state.current

    assert current() == MODELS["auto"].fingerprint
    if folder:
        told = laptop.run("reindex", "--confirm-loss", VISOR_MODEL="imagenet")
        assert (told.exit_code, current()) == (0, MODELS["imagenet"].fingerprint)
        assert laptop.searchable("imagenet") == ITEMS - 1
    away.rename(folder / "3.png")
    assert laptop.run("failures", "--retry", VISOR_MODEL="imagenet").exit_code == 0
    assert laptop.searchable("imagenet") == ITEMS


@pytest.mark.slow
def test_nothing_is_embedded_for_an_index_that_nobody_searches(laptop: Laptop, folder: Path) -> None:
    laptop.run("index", str(folder))
    assert laptop.run("reindex", VISOR_MODEL="imagenet").exit_code == 0
    (folder / "new.png").write_bytes(drawing(77))
    refused = laptop.run("index", str(folder))
    assert isinstance(refused.exception, SettingsError)
    assert "`visor reindex`" in str(refused.exception)
    assert laptop.run("index", str(folder), VISOR_MODEL="imagenet").exit_code == 0
    assert laptop.searchable("imagenet") == ITEMS + 1


@pytest.mark.slow
def test_an_unfinished_reindex_ends_once_the_file_is_back(laptop: Laptop, folder: Path) -> None:
    laptop.run("index", str(folder))
    away = (folder / "3.png").rename(folder / "away")
    assert laptop.run("reindex", VISOR_MODEL="imagenet").exit_code == 1
    away.rename(folder / "3.png")
    assert laptop.run("reindex", VISOR_MODEL="imagenet").exit_code == 0
    assert laptop.searchable("imagenet") == ITEMS


# What the index remembers of its sources.


@pytest.mark.slow
def test_a_later_process_may_read_what_was_indexed_and_nothing_else(laptop: Laptop, folder: Path) -> None:
    laptop.run("index", str(folder))
    (folder.parent / "else.png").write_bytes(drawing(1))
    with laptop.app() as app:
        item = msgspec.convert(app.stores.documents.query("items")[0].data["item"], type=dict[str, Any])
        client = _client(app)
        assert client(f"/pictures/{item['id']}") == 200
        assert app.named_source("pictures").name == "pictures", "as if it were in visor.toml"
    forgotten = laptop.run("source", "forget", "pictures")
    assert forgotten.stdout == f"Deleted from the index: {ITEMS} items of the source 'pictures'\n"
    assert laptop.searchable() == 0
    with laptop.app() as app, pytest.raises(SettingsError, match="has no source 'pictures'"):
        app.named_source("pictures")
    assert laptop.run("index", str(folder)).exit_code == 0
    assert laptop.searchable() == ITEMS
    unknown = laptop.run("source", "forget", "picture")
    assert unknown.exit_code != 0


def _client(app: App) -> Callable[[str], int]:
    from flask import Request as FlaskRequest
    from werkzeug.test import EnvironBuilder

    site = app.site({})
    return lambda path: site._answer(FlaskRequest(EnvironBuilder(path).get_environ())).status_code


def test_one_name_is_one_place(laptop: Laptop, folder: Path, tmp_path: Path) -> None:
    with laptop.app() as app:
        app.remember("pictures", {"kind": "folder", "path": str(folder)})
        app.remember("pictures", {"kind": "folder", "path": f"{folder}/../{folder.name}"})
        with pytest.raises(SettingsError, match=r"'pictures' of this index is .*pictures, not .*visor source forget"):
            app.remember("pictures", {"kind": "folder", "path": str(tmp_path)})


@pytest.mark.parametrize("options", [{"key": "AKIA", "secret": "hush"}, {"secret": "${SECRET}", "anon": True}])
def test_no_secret_is_remembered(options: dict[str, Any], laptop: Laptop) -> None:
    with laptop.app() as app:
        app.remember("cloud", {"kind": "bucket", "url": "gs://pictures/a", "options": options})
        kept = app.configuration.buckets()["gs://pictures/a"]
        assert kept == ({} if "key" in options else options)


COMMANDS = [
    "search x.png", "stats", "serve", "compact", "reindex", "links", "dlq list", "dlq retry", "failures", "sources",
    "feedback export", "feedback forget-visitors", "source forget x",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_index_is_refused_with_those_that_there_are(command: str, laptop: Laptop, folder: Path) -> None:
    Path("x.png").write_bytes(drawing(1))
    empty = laptop.run(*command.split())
    assert ("and no other. Correct VISOR_HOME" in str(empty.exception)) == (command != "sources")
    assert not laptop.home.exists(), "looking makes nothing"
    laptop.run("index", str(folder), VISOR_INDEX="holiday")
    refused = laptop.run(*command.split(), VISOR_INDEX="holliday")
    assert "There is no index 'holliday'" in str(refused.exception)
    assert "but others. Valid: holiday. Correct VISOR_INDEX" in str(refused.exception)
    assert not (laptop.home / "indexes" / "holliday").exists()


def test_a_home_that_cannot_be_made_is_named(laptop: Laptop, folder: Path) -> None:
    for home in ("/proc/x", str(folder / "0.png")):
        refused = str(laptop.run("index", str(folder), VISOR_HOME=home).exception)
        assert (f"The folder {home}/" in refused, "Correct VISOR_HOME" in refused) == (True, True), refused


@pytest.mark.slow
def test_doctor_makes_no_index(laptop: Laptop) -> None:
    assert "no index 'default' yet" in laptop.run("doctor").stdout
    assert not (laptop.home / "indexes").exists()


def test_item_ids_are_what_they_were() -> None:
    assert item_id("s", "k") == "dae6dc34768bfb653a41ee6de988d234"


def test_a_push_may_be_read_by_a_later_process(laptop: Laptop, folder: Path) -> None:
    import visor

    with visor.open(laptop.home) as index:
        assert index.add([{"key": "a", "image_url": str(folder / "1.png")}]).accepted == 1
    with laptop.app() as app:
        ((item,),) = [[one.data["item"] for one in app.stores.documents.query("items")]]
        assert _client(app)(f"/pictures/{item['id']}") == 200
