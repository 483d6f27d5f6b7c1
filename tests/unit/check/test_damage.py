"""Each row of the table of damage in docs/operations.md: do it, see it, do what is said, and search."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.unit.check.damages import DAMAGES, flip_in, harmed, replaced, rewritten
from tests.unit.ingest.test_pipeline_embed import drawing
from tests.unit.ingest.test_pipeline_reindex import OLD as MODEL

from visor.app import App
from visor.bulk.run import bulk_app
from visor.cli.doctor import _index, _try
from visor.cli.main import cli, main
from visor.errors import VisorError
from visor.image_readers.thumbnails import put_thumbnail
from visor.index.format import fast_scan
from visor.index.format.container import Array
from visor.index.format.fast_scan import FastScan
from visor.index.merge import segment_builder
from visor.ingest.seen_set import SeenSet
from visor.ingest.worker import Worker
from visor.schema.items import Change, Item, is_live, item_id
from visor.schema.search import SearchRequest
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.storage.documents import Put
from visor.storage.publish import publish

pytestmark = pytest.mark.usefixtures("looked_at_once")

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("\n## Damage") : PAGE.index("\n## A change of model")]
ROWS = {
    row[0]: row[1:] for row in re.findall(r"^\| `([\w-]+)` \| (.+?) \| (.+?) \|(.*?)\|(.*?)\|$", TABLE, re.MULTILINE)
}
MERGED, FRESH = 150, 20


@pytest.fixture(scope="module", autouse=True)
def tiny_model() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(App, "embedder", MODEL)
        patch.setattr(App, "fingerprint", MODEL.fingerprint)
        yield


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an index of a folder: segments, a projection, fresh shards, a seen-set."""
    root = tmp_path_factory.mktemp("healthy")
    with pytest.MonkeyPatch.context() as patch:
        pictures = set_up(root, patch)
        for number in range(MERGED):
            (pictures / f"{number}.png").write_bytes(drawing(number))
        assert run("index", str(pictures)).exit_code == 0
        for number in range(MERGED, MERGED + FRESH):
            (pictures / f"{number}.png").write_bytes(drawing(number))
        with App(Settings.read()) as app:
            app.crawler.crawl(app.open_folder(pictures))
            for message in app.stores.queue.receive(10, lease_s=60):
                app.batch_embedder.embed(message.body)
                app.stores.queue.acknowledge(message)
    return root


def set_up(root: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.setenv("VISOR_HOME", str(root / "home"))
    patch.setenv("VISOR_CONFIG", str(root / "none.toml"))
    patch.setenv("VISOR_ALLOW_FOLDERS", str(root / "pictures"))
    patch.setenv("VISOR_BATCH_SIZE", "16")
    (root / "pictures").mkdir(exist_ok=True)
    return root / "pictures"


def run(*arguments: str) -> Result:
    """A command, as a shell sees it."""
    return CliRunner().invoke(cli, arguments, standalone_mode=True)


class Home:
    """A copy of the index, to damage."""

    def __init__(self, root: Path) -> None:
        self.root, self.pictures = root, root / "pictures"
        self.index = root / "home" / "indexes" / "default"
        self.objects = self.index / "objects"


def scatter(path: Path) -> None:
    """Damage on some pages of a database, and in its text."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    for start in range(5 * 4096, len(data), 9 * 4096):
        data[start : start + 256] = b"\xff" * 256
    path.write_bytes(bytes(data))


def drop(name: str) -> Callable[[Home], None]:
    def do(home: Home) -> None:
        for ending in ("", "-wal", "-shm"):
            (home.index / f"{name}{ending}").unlink(missing_ok=True)

    return do


def in_one_file(path: Path) -> None:
    """Take what stands in the log beside a database into the database, as its last user does."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def put(where: str, data: bytes) -> Callable[[Home], None]:
    return lambda home: (home.index / where).write_bytes(data) and None


FILES: dict[str, Callable[[Home], object]] = {
    "documents-missing": drop("documents.sqlite"),
    "documents-damaged": lambda home: scatter(home.index / "documents.sqlite"),
    "documents-no-database": lambda home: [drop("documents.sqlite")(home), put("documents.sqlite", b"x" * 9000)(home)],
    "documents-another-file": lambda home: [
        drop("documents.sqlite")(home),
        in_one_file(home.index / "queue.sqlite"),
        shutil.copy(home.index / "queue.sqlite", home.index / "documents.sqlite"),
    ],
    "queue-damaged": lambda home: [drop("queue.sqlite")(home), put("queue.sqlite", b"x" * 9000)(home)],
}
"""Damages to the files of a laptop."""


LOOKS = [("stats",), ("sources",), ("failures",), ("dlq", "list"), ("feedback", "list")]


def test_the_table_lists_every_damage() -> None:
    assert set(ROWS) == {*DAMAGES, *FILES, "frame-missing"}


@pytest.mark.parametrize("harm", [None, replaced(b"x")], ids=["missing", "damaged"])
def test_a_lost_frame_is_named_and_its_item_forgotten(
    harm: Callable[[bytes], bytes] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_up(tmp_path, monkeypatch)
    with App(Settings.read()) as app:
        url = put_thumbnail(app.stores.objects, "film", "1", drawing(1))
        item = Item(id=item_id("film", "1"), source="film", key="1", image_url=url)
        publish(app.stores.queue, [Change(action="embed", item=item, version=1)], run="r")
        Worker(app.stores.queue, app.batch_embedder).drain()
        seen = SeenSet.load(app.stores.objects, "film")
        seen.see([item])
        seen.save(app.stores.objects, "film")
    assert run("check").exit_code == 0
    with open_stores(Settings.read()) as stores:
        harmed("frames/", harm)(stores)
    assert "video frames are missing or damaged" in run("check", "--repair").output
    with App(Settings.read()) as app:
        assert not len(SeenSet.load(app.stores.objects, "film"))


def test_what_waits_for_a_stopped_bulk_is_not_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A repair called its items lost, and sent them to be crawled again."""
    pictures = set_up(tmp_path, monkeypatch)
    for number in range(3):
        (pictures / f"{number}.png").write_bytes(drawing(number))
    app = bulk_app(Settings.read())
    app.crawl(app.open_folder(pictures))
    checked = run("check", "--repair")
    assert checked.exit_code == 0, checked.output
    with open_stores(Settings.read()) as stores:
        assert len(SeenSet.load(stores.objects, app.open_folder(pictures).name)) == 3
        harmed("bulk/")(stores)
    said = run("check", "--repair").output
    assert "3 items that source pictures has listed" in said
    assert "Done: Forget them: `visor crawl pictures`, or `visor index` with its folder, brings them" in said


def test_what_only_older_documents_have_leaves_with_the_crawls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The picture is deleted, its tombstone merged, and the documents are those of before: no crawl missed the item."""
    pictures = set_up(tmp_path, monkeypatch)
    for number in range(4):
        (pictures / f"{number}.png").write_bytes(drawing(number))
    assert run("index", str(pictures)).exit_code == 0
    with open_stores(Settings.read()) as stores:
        documents = stores.documents.query("items")
    (pictures / "0.png").unlink()
    for _ in range(2):
        assert run("index", str(pictures)).exit_code == 0
    with open_stores(Settings.read()) as stores:
        for one in documents:
            stores.documents.commit([Put(collection="items", key=one.key, data=one.data)])
    assert "1 item with a document and no vector" in run("check").output
    run("check", "--repair")
    for _ in range(2):
        run("index", str(pictures))
    assert run("check").exit_code == 0
    assert run("index", str(pictures)).exit_code == 0
    with open_stores(Settings.read()) as stores:
        assert sum(is_live(one.data) for one in stores.documents.query("items")) == 3


def test_a_healthy_index_is_called_so(healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(healthy, tmp_path / "copy")
    set_up(tmp_path / "copy", monkeypatch)
    checked = run("check")
    assert checked.exit_code == 0, checked.output


@pytest.fixture
def pictures(healthy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The healthy index's, in its place: that is part of the sources' names. What is done to it is undone."""
    kept = tmp_path / "kept"
    shutil.copytree(healthy / "home", kept)
    yield set_up(healthy, monkeypatch)
    shutil.rmtree(healthy / "home")
    shutil.copytree(kept, healthy / "home", copy_function=shutil.copy2)


def one_more(fast: Array) -> Array:
    scan = FastScan.read(fast)
    scan.add(np.ones((1, scan.quantizer.d), np.float32))
    return scan.write()


INDEXED = MERGED + FRESH
SCANS_DAMAGED: dict[str, tuple[Callable[[Stores], object], str]] = {
    "fast": (harmed("segments/", flip_in("fast")), "tensor fast does not match its checksum"),
    "cells": (harmed("segments/", flip_in("cells")), "tensor cells does not match its checksum"),
    "fast of other rows": (
        rewritten("fast", one_more),
        f"its fast scan has {INDEXED + 1} rows, but it has {INDEXED}",
    ),
    "cells of other rows": (
        rewritten("cells", lambda c: c[:-1]),
        f"{INDEXED} have codes and {INDEXED - 1} lie in cells",
    ),
    "codes of other rows": (
        rewritten("codes", lambda c: c[:-1]),
        f"{INDEXED - 1} have codes and {INDEXED} lie in cells",
    ),
    "unknown cells": (rewritten("cells", lambda c: c + np.uint16(4)), "its rows lie in cells that projections/"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", SCANS_DAMAGED)
def test_what_is_wrong_with_a_fast_scan_or_cells_is_named_and_mended(
    damage: str, healthy: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harm, said_of_it = SCANS_DAMAGED[damage]
    for module, name, value in (
        (fast_scan, "PQ_SAMPLES_MIN", 16),
        (fast_scan, "CELLS_LEARNED_FROM", 64),
        (fast_scan, "CELLS", 4),
        (segment_builder, "PQ_ROWS_MIN", 16),
    ):
        monkeypatch.setattr(module, name, value)
    assert run("compact", "--relearn").exit_code == 0
    assert run("check").exit_code == 0
    with open_stores(Settings.read()) as stores:
        harm(stores)
    checked = run("check")
    assert checked.exit_code == 1
    assert said_of_it in " ".join(checked.output.split())
    assert run("check", "--repair").exit_code == 0
    assert run("index", str(pictures)).exit_code == 0
    again = run("check")
    assert again.exit_code == 0, again.output
    with App(Settings.read()) as app:
        app.searcher.refresh()
        assert len(app.searcher) == INDEXED


def do(damage: str, root: Path) -> None:
    if damage in FILES:
        FILES[damage](Home(root))
        return
    with open_stores(Settings.read()) as stores:
        DAMAGES[damage](stores)


def no_tracebacks(*commands: tuple[str, ...]) -> None:
    for command in commands:
        ended = run(*command).exception
        assert ended is None or isinstance(ended, SystemExit | VisorError), (command, ended)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [*DAMAGES, *FILES])
def test_what_is_damaged_ends_no_command_in_a_traceback(damage: str, healthy: Path, pictures: Path) -> None:
    do(damage, healthy)
    no_tracebacks(("compact",), ("links",), ("index", str(pictures)), ("compact", "--relearn"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [*DAMAGES, *FILES])
def test_a_damage_is_seen_named_and_mended(damage: str, healthy: Path, pictures: Path) -> None:
    seen, _, then, _ = ROWS[damage]
    do(damage, healthy)
    asked = ["--text", "3"] if "words" in damage else [str(pictures / "3.png")]
    searched = said(lambda: main(["search", *asked]))
    if "error" in seen or "notice" in seen:
        assert "`visor check" in searched, searched
    no_tracebacks(*LOOKS)

    assert _try("index", lambda: _index(Settings.read())).state == "missing"
    checked = run("check")
    assert checked.exit_code == 1
    assert "`visor check --repair`" in checked.output
    repaired = run("check", "--repair")
    assert repaired.exit_code == 0, repaired.output
    if "visor index" in then:
        assert run("index", str(pictures)).exit_code == 0
    again = run("check")
    assert again.exit_code == 0, again.output
    crawled = run("index", str(pictures))
    assert crawled.exit_code == 0, crawled.output
    with App(Settings.read()) as app:
        service = app.search_service()
        service.refresh()
        assert len(app.searcher) == MERGED + FRESH
        assert app.searcher.notice is None
        for number in (0, 3, 77, MERGED - 1, MERGED, MERGED + FRESH - 1):
            answer = service.search(SearchRequest(k=1), drawing(number))
            assert answer.matches[0].item.key == f"{number}.png"
        assert service.search(SearchRequest(k=1, text="3")).notice is None


def said(call: Callable[[], object]) -> str:
    """What a command writes, errors included."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        call()
    return out.getvalue()


def test_items_in_any_number_of_dead_letters_are_not_forgotten_and_can_be_sent_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_up(tmp_path, monkeypatch)
    items = [
        Item(id=item_id("shop", str(n)), source="shop", key=str(n), image_url=f"http://x.test/{n}.png")
        for n in range(110)
    ]
    with App(Settings.read()) as app:
        queue, seen = app.stores.queue, SeenSet.load(app.stores.objects, "shop")
        for item in items:
            publish(queue, [Change(action="embed", item=item, version=1)], run="r")
            for message in queue.receive(1, lease_s=60):
                queue.acknowledge(message)
                queue.bury(message.body, attempts=5, why="away")
        seen.see(items)
        seen.save(app.stores.objects, "shop")
    checked = run("check")
    assert (checked.exit_code, "neither indexed" in checked.output) == (0, False), checked.output
    assert run("dlq", "list").output.count("away") == 110
    with App(Settings.read()) as app:
        assert app.retry_letters("shop") == 110
