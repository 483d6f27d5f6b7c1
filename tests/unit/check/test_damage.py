"""Each row of the table of damage in docs/operations.md: do it, see it, do what is said, and search."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.unit.ingest.test_pipeline_embed import drawing
from tests.unit.ingest.test_pipeline_reindex import OLD as MODEL

from visor.app import App
from visor.cli.doctor import _index, _try
from visor.cli.main import cli, main
from visor.image_readers.thumbnails import put_thumbnail
from visor.index.format.container import Container
from visor.ingest.seen_set import SeenSet
from visor.ingest.worker import Worker
from visor.schema.items import Change, Item, item_id
from visor.schema.search import SearchRequest
from visor.settings import Settings
from visor.storage.publish import publish

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

    def only(self, pattern: str) -> Path:
        return max(self.objects.glob(pattern), key=lambda path: path.stat().st_size)

    def sql(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.index / "documents.sqlite")) as connection, connection:
            connection.execute(statement)


def flip(place: int | float) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place if isinstance(place, int) else int(len(data) * place)] ^= 0x5A
        path.write_bytes(bytes(data))

    return do


def place_of(tensor: str, path: Path) -> int:
    spec = Container.open(path.name, memoryview(path.read_bytes()), kind="segment").tensors[tensor]
    return (spec.start + spec.end) // 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scatter(path: Path) -> None:
    """Damage on some pages of a database, and in its text."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    for start in range(5 * 4096, len(data), 9 * 4096):
        data[start : start + 256] = b"\xff" * 256
    path.write_bytes(bytes(data))


def in_items(data: str) -> Callable[[Home], None]:
    one = "SELECT key FROM documents WHERE collection = 'items' ORDER BY key LIMIT 1"
    return lambda home: home.sql(f"UPDATE documents SET data = {data} WHERE key = ({one})")


def drop(name: str) -> Callable[[Home], None]:
    def do(home: Home) -> None:
        for ending in ("", "-wal", "-shm"):
            (home.index / f"{name}{ending}").unlink(missing_ok=True)

    return do


def put(where: str, data: bytes) -> Callable[[Home], None]:
    return lambda home: (home.index / where).write_bytes(data) and None


COMMIT = "collection = 'commits' AND key != 'manifest'"
DAMAGES: dict[str, Callable[[Home], object]] = {
    "manifest-damaged": lambda home: cut(home.only("manifest-*")),
    "manifest-missing": lambda home: home.only("manifest-*").unlink(),
    "segment-damaged": lambda home: flip(700)(home.only("segments/*")),
    "segment-truncated": lambda home: cut(home.only("segments/*")),
    "segment-missing": lambda home: home.only("segments/*").unlink(),
    "segment-vectors-damaged": lambda home: flip(0.7)(home.only("segments/*")),
    "segment-words-damaged": lambda home: flip(place_of("words", home.only("segments/*")))(home.only("segments/*")),
    "projection-damaged": lambda home: flip(0.5)(home.only("projections/*")),
    "projection-missing": lambda home: home.only("projections/*").unlink(),
    "shard-damaged": lambda home: [flip(0.5)(path) for path in home.objects.glob("shards/*")],
    "shard-missing": lambda home: shutil.rmtree(home.objects / "shards"),
    "commit-missing": lambda home: home.sql(f"DELETE FROM documents WHERE {COMMIT}"),
    "commit-damaged": lambda home: home.sql(
        f"UPDATE documents SET data = json_set(data, '$.count', 'x') WHERE {COMMIT}"
    ),
    "item-damaged": in_items("json_set(data, '$.width', 'wide')"),
    "item-unreadable": in_items("'{\"a\": 1}'"),
    "items-missing": lambda home: home.sql("DELETE FROM documents WHERE collection = 'items'"),
    "current-model-damaged": lambda home: home.sql("UPDATE documents SET data = '{}' WHERE collection = 'index'"),
    "failure-damaged": lambda home: home.sql("INSERT INTO documents VALUES ('failures', 'x', 1, '{}')"),
    "documents-missing": drop("documents.sqlite"),
    "documents-damaged": lambda home: scatter(home.index / "documents.sqlite"),
    "documents-no-database": lambda home: [drop("documents.sqlite")(home), put("documents.sqlite", b"x" * 9000)(home)],
    "documents-another-file": lambda home: [
        drop("documents.sqlite")(home),
        shutil.copy(home.index / "queue.sqlite", home.index / "documents.sqlite"),
    ],
    "queue-damaged": lambda home: [drop("queue.sqlite")(home), put("queue.sqlite", b"x" * 9000)(home)],
    "seen-set-damaged": lambda home: cut(home.only("seen/*")),
    "seen-set-missing": lambda home: home.only("seen/*").unlink(),
    "links-damaged": put("objects/links.json", b'{"format": 1, "cur'),
}


def test_the_table_lists_every_damage() -> None:
    assert set(ROWS) == {*DAMAGES, "frame-missing"}


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"x")], ids=["missing", "damaged"])
def test_a_lost_frame_is_named_and_its_item_forgotten(
    harm: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
    harm(Home(tmp_path).only("frames/*"))
    assert "video frames are missing or damaged" in run("check", "--repair").output
    with App(Settings.read()) as app:
        assert not len(SeenSet.load(app.stores.objects, "film"))


def test_a_healthy_index_is_called_so(healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(healthy, tmp_path / "copy")
    set_up(tmp_path / "copy", monkeypatch)
    checked = run("check")
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_seen_named_and_mended(
    damage: str, healthy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The pictures' place is part of the sources' names, so the copy goes where the index was made.
    kept = tmp_path / "kept"
    shutil.copytree(healthy / "home", kept)
    pictures = set_up(healthy, monkeypatch)
    try:
        mend(damage, Home(healthy), pictures)
    finally:
        shutil.rmtree(healthy / "home")
        shutil.copytree(kept, healthy / "home", copy_function=shutil.copy2)


def mend(damage: str, home: Home, pictures: Path) -> None:
    seen, _, then, _ = ROWS[damage]
    DAMAGES[damage](home)
    asked = ["--text", "3"] if "words" in damage else [str(pictures / "3.png")]
    searched = said(lambda: main(["search", *asked]))
    if "error" in seen or "notice" in seen:
        assert "`visor check" in searched, searched

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
        worded = service.search(SearchRequest(k=1, text="77"))
        assert worded.notice is None
        assert worded.matches[0].item.key == "77.png"
        for number in (0, 3, 77, MERGED - 1, MERGED, MERGED + FRESH - 1):
            answer = service.search(SearchRequest(k=1), drawing(number))
            assert answer.matches[0].item.key == f"{number}.png"


def said(call: Callable[[], object]) -> str:
    """What a command writes, errors included."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        call()
    return out.getvalue()
