"""Each folder has a source of its own, also where two are called alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from visor.app import App
from visor.errors import FetchRefused, SettingsError
from visor.ingest.seen_set import SeenSet
from visor.schema.collections import ITEMS
from visor.schema.items import CrawlRun, IndexedItem, Item, as_document
from visor.settings import Settings
from visor.sources.remembered import remember, remembered
from visor.storage.documents import Put


@pytest.fixture
def crawl(tmp_path: Path) -> Callable[[Path], CrawlRun]:
    def crawl(folder: Path) -> CrawlRun:
        with App(Settings(home=tmp_path / "home", config=tmp_path / "visor.toml")) as app:
            return app.crawler.crawl(app.open_folder(folder))

    return crawl


def holiday(path: Path, pictures: int) -> Path:
    (path / "Holiday").mkdir(parents=True)
    for number in range(pictures):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path / "Holiday" / f"{number}.jpg")
    return path / "Holiday"


def test_two_folders_of_the_same_name_do_not_overwrite_each_other(
    tmp_path: Path, crawl: Callable[[Path], CrawlRun]
) -> None:
    first, second = holiday(tmp_path / "2023", 3), holiday(tmp_path / "2024", 4)
    runs = [crawl(folder) for folder in (first, second, first, second)]
    assert [run.published for run in runs] == [3, 4, 0, 0]
    assert [run.deleted for run in runs] == [0, 0, 0, 0]
    names = [run.source for run in runs]
    assert names[:2] == names[2:]
    assert names[0] == "Holiday" != names[1]


def test_an_index_of_an_older_visor_goes_on_under_its_name(tmp_path: Path, crawl: Callable[[Path], CrawlRun]) -> None:
    """It has not noted which folder it read; its pictures say so."""
    first, second = holiday(tmp_path / "2023", 3), holiday(tmp_path / "2024", 4)
    crawl(first)
    with App(Settings(home=tmp_path / "home", config=tmp_path / "visor.toml")) as app:
        seen = SeenSet.load(app.stores.objects, "Holiday")
        seen.advance(checkpoint=None)
        seen.save(app.stores.objects, "Holiday")
        (page,) = app.open_folder(first).read(None)
        facts = {
            "version": 1,
            "model": "m",
            "shard": "s",
            "indexed_at": "2026-01-15T00:00:00Z",
            "width": 8,
            "height": 8,
        }
        indexed = [IndexedItem(item=item, **facts) for item in page.items]
        app.stores.documents.commit([Put(collection=ITEMS, key=one.item.id, data=as_document(one)) for one in indexed])
        assert app.open_folder(first).name == "Holiday" != app.open_folder(second).name
    assert crawl(first).source == "Holiday"


@pytest.mark.parametrize("name", ["push", ".hidden", "..odd", "a\\b", "new\nline", "é" * 120, "shop"])
def test_a_folder_has_a_name_of_its_own_whatever_it_is_called(
    name: str, tmp_path: Path, crawl: Callable[[Path], CrawlRun]
) -> None:
    (tmp_path / "visor.toml").write_text('[sources.shop]\nkind = "feed"\nurl = "https://shop.test/feed"\n')
    try:
        folder = holiday(tmp_path, 2).rename(tmp_path / name)
    except (OSError, UnicodeError):
        pytest.skip("This file system takes no such name")
    run, again = crawl(folder), crawl(folder)
    assert (run.published, again.published, again.unchanged) == (2, 0, 2)
    assert run.source == again.source
    assert run.source not in ("push", "shop")
    run.source.encode()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path, crawl: Callable[[Path], CrawlRun]) -> None:
    folder = holiday(tmp_path, 2).rename(tmp_path / "me\udcff")
    with pytest.raises(SettingsError, match="Rename it"):
        crawl(folder)


def test_folders_that_several_processes_note_at_once_are_all_kept(tmp_path: Path) -> None:
    folders = [f"/pictures/{number}" for number in range(16)]
    with App(Settings(home=tmp_path)) as app, ThreadPoolExecutor(8) as pool:
        documents = app.stores.documents
        list(pool.map(lambda folder: remember(documents, "push", {}, [folder]), folders))
        ((_, _, kept),) = remembered(documents)
    assert kept == sorted(folders)


def test_of_two_folders_noted_under_one_name_at_once_one_is_refused(tmp_path: Path) -> None:
    def note(folder: str) -> str:
        try:
            remember(documents, "Holiday", {"kind": "folder", "path": folder})
        except SettingsError:
            return ""
        return folder

    for attempt in range(8):
        with App(Settings(home=tmp_path / str(attempt))) as app, ThreadPoolExecutor(8) as pool:
            documents = app.stores.documents
            noted = list(filter(None, pool.map(note, (f"/{number}" for number in range(8)))))
            assert noted == [own["path"] for _, own, _ in remembered(documents) if own is not None]


def test_a_process_reads_the_folder_that_another_began_to_index(tmp_path: Path) -> None:
    """Such as `visor serve --crawl`, which embeds what `visor index` in another shell publishes."""
    first, second, other = (holiday(tmp_path / name, 1) / "0.jpg" for name in ("2023", "2024", "2025"))
    settings = Settings(home=tmp_path / "home", config=tmp_path / "visor.toml")

    def item(path: Path) -> Item:
        return Item(id="0" * 32, source="Holiday", key="0", image_url=path.as_uri())

    with App(settings) as server, App(settings) as indexer:
        assert server.configuration.folders() == ()
        indexer.remember("first", {"kind": "folder", "path": str(first.parent)})
        assert server.read_image(item(first)) == first.read_bytes()
        indexer.remember("push", {}, [str(second.parent)])
        assert server.read_image(item(second)) == second.read_bytes()
        with pytest.raises(FetchRefused, match="outside the folders"):
            server.read_image(item(other))
