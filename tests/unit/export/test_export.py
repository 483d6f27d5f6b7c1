"""An export: what is in it and what is not, what a second one writes, and what happens on bad days."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scripts.golden.private_index import (
    DIMENSION,
    MODEL,
    exporter_of,
    item_id,
    make_export,
    open_index,
    put_commit,
    rows_of,
)
from tests.unit.imaging.empty_pictures import scene

import visor
from visor.app import App
from visor.cli.main import cli
from visor.errors import BadRequest, Conflict, StoreError, VisorError
from visor.export.export import ExportReport, site_in
from visor.export.files import DATA, GRACE_S, MANIFEST, ExportFiles, packed
from visor.export.items import ItemWriter, without_paths
from visor.export.rows import nibbles
from visor.index.format.container import Container
from visor.index.format.facets import FacetColumns
from visor.index.search.reader import IndexReader
from visor.models.store import model_directory, read_manifest
from visor.schema.items import FacetRow, FacetUpdate, IndexedItem, Item, Safety, ShardCommit, Tombstone
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.storage.local.objects import FolderObjects

ROOT = Path(__file__).parents[3]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_index("projected", tmp_path) as stores:
        yield stores


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def files_of(site: Path) -> dict[str, bytes]:
    return {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}


def test_the_same_index_makes_the_same_bytes(stores: Stores, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_export(stores, tmp_path, tmp_path / name)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert not [name for name in files_of(tmp_path / "one") if name.startswith(".")]


def test_a_second_export_writes_what_changed_and_deletes_late(stores: Stores, tmp_path: Path) -> None:
    site = tmp_path / "site"
    first = make_export(stores, tmp_path, site)
    assert make_export(stores, tmp_path, site).written == 0
    update = FacetUpdate(id=item_id(40), version=5, facets=FacetRow(collection="other", price=4.0))
    put_commit(stores, "e", ShardCommit(batch="e", updates=(update,)))
    old = files_of(site)
    changed = make_export(stores, tmp_path, site)
    new = files_of(site)
    kinds = {kind_of(new[name]) for name in new.keys() - old.keys() if name.endswith(".vsr")}
    # The columns of one part; codes, hashes and items are as they were.
    assert kinds == {"export_columns"}
    assert changed.written < first.written / 4
    assert old.keys() <= new.keys()
    removed = make_export(stores, tmp_path, site, now=GRACE_S)
    assert (removed.removed, make_export(stores, tmp_path, site, now=2 * GRACE_S).removed) == (1, 0)
    named = json.dumps(json.loads((site / MANIFEST).read_bytes()))
    assert all(path.name in named for path in (site / "data").glob("*.vsr"))


def kind_of(data: bytes) -> str:
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return str(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["kind"])


def test_what_is_gone_leaves_no_trace(stores: Stores, tmp_path: Path) -> None:
    unlike = FacetRow(collection="told to nobody", country="XX", labels=("unheard of",))
    put_commit(stores, "e", ShardCommit(batch="e", updates=(FacetUpdate(id=item_id(40), version=5, facets=unlike),)))
    make_export(stores, tmp_path, tmp_path / "with")
    put_commit(stores, "f", ShardCommit(batch="f", tombstones=(Tombstone(id=item_id(40), version=6),)))
    make_export(stores, tmp_path, tmp_path / "without")
    for word, key in (
        ("told to nobody", b"told to nobody"),
        ("unheard of", b"unheard of"),
        ("id", bytes.fromhex(item_id(40))),
    ):
        found = [any(key in unpacked(p) for p in (tmp_path / s).rglob("*.vsr")) for s in ("with", "without")]
        assert found == [True, False], word
    # Nor does what nobody may know: feedback on other queries, and whose photos were learned from.
    assert not any(b"vector:" in unpacked(p) or b"secret" in unpacked(p) for p in tmp_path.rglob("*.vsr"))


def test_an_export_of_another_model_that_stops_leaves_the_one_before_whole(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page embedded with the new model, and every search was refused."""
    site = tmp_path / "site"
    make_export(stores, tmp_path, site)
    before = files_of(site)
    update = FacetUpdate(id=item_id(40), version=5, facets=FacetRow(collection="other"))
    put_commit(stores, "e", ShardCommit(batch="e", updates=(update,)))
    news = IndexReader(stores.objects, stores.documents, MODEL).poll()
    assert news is not None
    exporter = exporter_of(news.snapshot, stores, tmp_path)
    described = tmp_path / "model" / "model.json"
    described.write_bytes(described.read_bytes().replace(f'"fingerprint":"{MODEL}"'.encode(), b'"fingerprint":"new"'))
    put = FolderObjects.put

    def full(site: FolderObjects, name: str, data: bytes, **options: Any) -> Any:
        if name.endswith(".vsr"):
            raise StoreError("The disk is full")
        return put(site, name, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(FolderObjects, "put", full)
        with site_in(site) as files, pytest.raises(StoreError, match="previous export is whole"):
            exporter.write(files, now=1)
    assert files_of(site) == before
    with site_in(site) as files:
        exporter.write(files, now=1)
    assert json.loads((site / "data" / "model.json").read_bytes())["fingerprint"] == "new"


@pytest.mark.slow
def test_killed_anywhere_the_export_before_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.export.killed_export", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first > 10
    assert second > 4


LIMITED = """
import resource, signal, sys
from pathlib import Path
from scripts.golden.private_index import make_export
from visor.errors import StoreError
from visor.settings import Settings
from visor.storage import open_stores
home, site = map(Path, sys.argv[1:])
with open_stores(Settings(home=home)) as stores:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, 25_000))
    try:
        make_export(stores, home, site)
    except StoreError as exc:
        print(exc)
"""
"""Exports where no file can have more than 25,000 bytes."""


def test_a_disk_that_is_full_says_so_and_harms_nothing(stores: Stores, tmp_path: Path) -> None:
    site = tmp_path / "site"
    make_export(stores, tmp_path, site)
    put_commit(stores, "e", ShardCommit(batch="e", tombstones=(Tombstone(id=item_id(12), version=2),)))
    before = (site / MANIFEST).read_bytes()

    # In a process of its own, and not in a copy of this one, whose threads a copy does not have.
    child = [sys.executable, "-B", "-c", LIMITED, str(tmp_path), str(site)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=True)
    said = done.stdout.strip()
    assert said.startswith("The export stopped: ")
    assert said.endswith("the previous export is whole.")
    assert (site / MANIFEST).read_bytes() == before
    make_export(stores, tmp_path, site)


@pytest.mark.parametrize(
    ("lies_there", "said"),
    [
        ({"notes.txt": b"mine"}, "what is in it is not an export"),
        ({"notes.txt": b"mine", ".lock": b"mine", ".unfinished/letter": b"mine"}, "what is in it is not an export"),
        ({"config.json": b'{"endpoint": ""}'}, "what is in it is not an export"),
        ({"config.json": b"[]"}, "what is in it is not an export"),
        ({"config.json": b'{"export": "./data/"}', "data/half.vsr": b"x"}, None),
        ({}, None),
    ],
)
def test_only_an_export_is_written_over(
    stores: Stores, tmp_path: Path, lies_there: dict[str, bytes], said: str | None
) -> None:
    site = tmp_path / "site"
    for name, data in lies_there.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(data)
    if said is None:
        assert make_export(stores, tmp_path, site).images == 318
    else:
        with pytest.raises(BadRequest, match=said):
            make_export(stores, tmp_path, site)
        assert files_of(site) == lies_there


def test_two_exports_into_a_folder_at_once_do_not_mix(tmp_path: Path) -> None:
    with site_in(tmp_path / "site") as site:
        site.put("data/a", b"a")
        with pytest.raises(Conflict, match="Another process exports into"), site_in(tmp_path / "site"):
            pass
        site.put("data/b", b"b")
    with site_in(tmp_path / "other"), site_in(tmp_path / "third"):
        pass


def test_only_its_own_files_are_deleted(stores: Stores, tmp_path: Path) -> None:
    """Not those that a server or its owner wants beside the page: CNAME, robots.txt, another page."""
    site = tmp_path / "site"
    make_export(stores, tmp_path, site)
    others = {"CNAME": b"shop.example", "robots.txt": b"User-agent: *", "blog/index.html": b"<p>"}
    for name, data in others.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_bytes(data)
    (site / "data" / "old-1.vsr").write_bytes(b"not needed")
    make_export(stores, tmp_path, site)
    assert make_export(stores, tmp_path, site, now=2 * GRACE_S).removed == 1
    assert others.items() <= files_of(site).items()
    assert not (site / "data" / "old-1.vsr").exists()


def run(home: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, env={"VISOR_HOME": str(home)})
    return str(result.exception if isinstance(result.exception, VisorError) else result.output)


def test_the_command_says_what_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = dict.fromkeys(("index", "first_visit", "pages", "pictures", "model", "page"), 0)
    report = ExportReport(images=5, bytes=sizes, written=1, written_bytes=9, removed=0, pictures=0, lost=1, unknown=2)
    made = SimpleNamespace(snapshot=SimpleNamespace(images=5), write=lambda site, **_: report)
    monkeypatch.setattr(App, "exporter", lambda *_, **__: made)
    monkeypatch.setenv("VISOR_HOME", str(tmp_path))
    open_stores(Settings(home=tmp_path)).objects.put("manifest", b"")
    told = CliRunner().invoke(cli, ["export", str(tmp_path / "site")], catch_exceptions=False).stderr
    assert "1 picture could not be read and will not be shown" in told
    assert "2 items will not be shown: unsafe, or without a document (see `visor check`)" in told


def test_the_command_says_what_is_missing(built_settings: visor.Settings, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(built_settings.home / "models")
    assert "There is no index" in run(home, "export", str(tmp_path / "site"))
    with visor.open(home) as index:
        index.stats()
    assert "The index holds no images" in run(home, "export", str(tmp_path / "site"))
    (tmp_path / "file").write_bytes(b"")
    assert "is a file" in run(home, "export", str(tmp_path / "file"))
    assert not (tmp_path / "site" / MANIFEST).exists()


SECRET = "Erika's secret holidays"


@pytest.mark.slow
def test_a_private_folder_has_pictures_and_tells_no_path(built_settings: visor.Settings, tmp_path: Path) -> None:
    home, pictures, site = tmp_path / "home", tmp_path / SECRET / "photos", tmp_path / "site"
    home.mkdir()
    (home / "models").symlink_to(built_settings.home / "models")
    (pictures / "beach").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = "SecretCamera", {}
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    for number, name in enumerate(("beach/a.jpg", "beach/b c.jpg", "d.jpg")):
        scene(number).resize((900, 700)).save(pictures / name, exif=exif)
    (pictures / "d.jpg.json").write_text(
        json.dumps({"description": f"see {pictures}/beach and {pictures.as_uri()}/d.jpg"})
    )
    with visor.open(home) as index:
        index.add_folder(pictures)
        report = index.export(site, title="Mine")
        assert (report.images, report.pictures, report.lost, report.bytes["page"] > 0) == (3, 3, 0, True)
        (pictures / "d.jpg").unlink()
        assert index.export(tmp_path / "again").lost == 1
    written = b"".join(
        path.read_bytes() + unpacked(path)
        for path in sorted(site.rglob("*"))
        if path.is_file() and path.suffix != ".tflite" and "assets" not in path.parts
    )
    for told in (SECRET, "Erika%27s", str(tmp_path), "SecretCamera", "Exif", "file:"):
        assert told.encode() not in written, told
    records = items_of(site)
    assert sorted(one["item"]["key"] for one in records) == ["beach/a.jpg", "beach/b c.jpg", "d.jpg"]
    assert [one["item"]["description"] for one in records if one["item"]["key"] == "d.jpg"] == ["see beach and "]
    for one in records:
        with Image.open(site / one["item"]["image_url"]) as small:
            assert (small.format, max(small.size), dict(small.getexif())) == ("WEBP", 320, {})
    assert json.loads((site / "config.json").read_bytes()) == {"title": "Mine", "export": "./data/"}
    model = json.loads((site / "data" / "model.json").read_bytes())
    networks = {file.sha256 for file in read_manifest(model_directory(built_settings, built_settings.model)).files}
    for file in model["files"]:
        path = site / "data" / file["url"]
        assert path.stat().st_size == file["size_bytes"]
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == file["sha256"]
        assert hashlib.sha256(unpacked(path)).hexdigest() in networks
    assert model["allowed"]
    assert model["size_bytes"] == report.bytes["model"]
    assert report.bytes["model"] == sum(file["size_bytes"] for file in model["files"])


def items_of(site: Path) -> list[dict[str, Any]]:
    manifest = json.loads((site / MANIFEST).read_bytes())
    pages = [page for part in manifest["parts"] for page in part["pages"]]
    found = [
        Container.open(p, memoryview(unpacked(site / DATA / p)), kind="export_page").json("items", list) for p in pages
    ]
    return [record for page in found for record in page]


@pytest.mark.slow
def test_originals_are_copied_where_that_is_asked(built_settings: visor.Settings, tmp_path: Path) -> None:
    home, pictures = tmp_path / "home", tmp_path / "pictures"
    home.mkdir()
    pictures.mkdir()
    (home / "models").symlink_to(built_settings.home / "models")
    scene(1).save(pictures / "a.png")
    with visor.open(home) as index:
        index.add_folder(pictures)
        index.export(tmp_path / "site", originals=True)
    told = run(home, "export", str(tmp_path / "my site"))
    assert told.endswith(f"Try it: python -m http.server -d '{tmp_path}/my site'\n"), "it can be pasted"
    (record,) = items_of(tmp_path / "site")
    assert (tmp_path / "site" / record["item"]["page_url"]).read_bytes() == (pictures / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("key", "url", "text", "left"),
    [
        ("a/b.jpg", "file:///srv/my%20pictures/a/b.jpg", "/srv/my pictures/a is old", "a is old"),
        ("a/b.jpg", "file:///srv/my%20pictures/a/b.jpg", "in /srv/my%20pictures", "in "),
        ("b.jpg", "file:///srv/x/b.jpg", "/srv/xylophones", "/srv/xylophones"),
        ("/srv/x/b.jpg", "file:///srv/x/b.jpg", "at /srv/x/b.jpg", "at b.jpg"),
        ("mine", "file:///srv/x/b.jpg", "file:///srv/x/b.jpg", ""),
        ("b", "https://shop.example/b.jpg", f"{Path.home()}/b", "b"),
        ("b", "https://shop.example/b.jpg", "1/2 and https://a.example/srv", "1/2 and https://a.example/srv"),
    ],
)
def test_paths_are_taken_out_of_texts(key: str, url: str, text: str, left: str) -> None:
    item = Item(id=item_id(1), source="s", key=key, image_url=url, title=text, extra={"note": text})
    cleaned = without_paths(item)
    assert (cleaned.title, cleaned.extra) == (left, {"note": left})


@pytest.mark.parametrize(
    ("image_url", "safe", "shown"),
    [
        ("https://shop.example/a.jpg", True, "https://shop.example/a.jpg"),
        ("http://shop.example/a.jpg", True, "http://shop.example/a.jpg"),
        ("gs://private/a.jpg", True, ""),
        ("javascript:alert(1)", True, ""),
        ("https://shop.example/a.jpg", False, None),
    ],
)
def test_what_is_shown_of_an_item(tmp_path: Path, image_url: str, safe: bool, shown: str | None) -> None:
    item = Item(id=item_id(1), source="s", key="k", image_url=image_url, page_url="file:///srv/a", image_etag="e")
    safety = Safety(probabilities={}, unsafe=not safe)
    indexed = IndexedItem(item=item, version=1, model="m", shard="s", indexed_at="", width=1, height=1, safety=safety)
    with site_in(tmp_path) as site:
        record = ItemWriter(ExportFiles(site, 0.0), None, 1).record(indexed)
    assert (None if record is None else record.item.image_url) == shown
    if record is not None:
        assert (record.item.page_url, record.item.image_etag) == (None, None)


@pytest.mark.parametrize("width", [8, 7, 1])
def test_nibbles_make_codes_again(width: int) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (50, width)).astype(np.uint8)
    high, low = nibbles(codes)
    assert high.shape == low.shape == (50, -(-width // 2))
    whole = np.concatenate([(high & 0xF0) | (low >> 4), (high << 4) | (low & 0x0F)], axis=1)
    assert np.array_equal(whole[:, :width], codes)


def test_columns_lose_the_names_that_nobody_has() -> None:
    rows = [
        FacetRow(
            collection=f"c{n}",
            labels=(f"l{n}", "all"),
            words=(f"w{n}",),
            declared={"x": "keyword"},
            values={"x": f"x{n}"},
        )
        for n in range(4)
    ]
    kept = FacetColumns.of(rows).take(np.array([3, 1])).pruned()
    again = FacetColumns.of([rows[3], rows[1]])
    assert kept.names == again.names
    assert kept.attributes["x", "keyword"].names == ("x1", "x3")
    for column in ("collection", "country"):
        assert kept.codes[column].tolist() == again.codes[column].tolist()
    assert kept.labels.codes.tolist() == again.labels.codes.tolist()


def test_what_does_not_shrink_is_not_packed() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    assert (packed(noise), packed(b"a" * 5000)[:2]) == (noise, b"\x1f\x8b")


def test_a_space_in_half_precision_projects_the_same(stores: Stores, tmp_path: Path) -> None:
    from visor.index.search.reader import IndexReader

    news = IndexReader(stores.objects, stores.documents, "golden").poll()
    assert news is not None
    space: Any = news.snapshot.space
    vectors = np.stack([row.vector.astype(np.float32) for row in rows_of(50)])
    coarse = (vectors - space.origin) @ space.matrix.astype(np.float16).astype(np.float32)
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True)
    assert coarse.shape[1] <= DIMENSION
    assert ((space.project(vectors) * coarse).sum(1) > 0.99999).all()
