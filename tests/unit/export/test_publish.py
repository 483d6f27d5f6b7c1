"""Publishing an index into the site's bucket: when it is due, what it reads and writes, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripts.golden.private_index import MODEL, exporter_of, item_id, open_index, put_commit, rows_of
from tests.unit.export.test_export import items_of

from visor.errors import StoreError
from visor.export.export import page_rows
from visor.export.publish import KEY, WAIT_MAX_S, Publisher
from visor.free_tier.quota import Meter
from visor.index.format.current_model import CurrentModel, read_current, write_current
from visor.index.merge.merge import merge
from visor.index.search.reader import IndexReader
from visor.index.search.snapshot import Snapshot
from visor.schema.collections import ITEMS, SITES
from visor.schema.items import FacetRow, FacetUpdate, ShardCommit, Tombstone, as_document
from visor.schema.search import Notice
from visor.settings import Settings
from visor.storage import Stores
from visor.storage.documents import Put
from visor.storage.local.objects import FolderObjects

DAY_S = 86_400.0


class Site:
    """The golden index `full`, published into a folder beside it, at a time that goes on."""

    def __init__(self, stores: Stores, home: Path, *, limited: bool = False) -> None:
        self.stores, self.home, self.root = stores, home, home / "bucket"
        self.objects = FolderObjects(self.root)
        self.objects.put("index.html", b"the page")
        self.meter = Meter(stores.documents, Settings(), limited=limited)
        self.merge()
        self.now = self.clock

    @property
    def clock(self) -> float:
        import time

        return time.time()

    def merge(self) -> None:
        merge(self.stores.objects, self.stores.documents, model=MODEL)

    def snapshot(self) -> Snapshot:
        news = IndexReader(self.stores.objects, self.stores.documents, MODEL).poll()
        assert news is not None
        return news.snapshot

    def publish(self, after_s: float = 0.0) -> Any:
        """Publish so long after the last time."""
        self.now += after_s
        return Publisher(
            site=self.objects,
            documents=self.stores.documents,
            meter=self.meter,
            exporter=lambda snapshot, items: exporter_of(snapshot, self.stores, self.home, items=items, page=None),
            model=MODEL,
            now=self.now,
        ).publish(self.snapshot())

    def change(self, number: int, version: int, title: str) -> None:
        """An update of one item, as embed writes it, and a merge that takes it up."""
        indexed = rows_of(60)[number].indexed
        indexed = msgspec.structs.replace(
            indexed, version=version, item=msgspec.structs.replace(indexed.item, title=title)
        )
        self.stores.documents.commit([Put(collection=ITEMS, key=item_id(number), data=as_document(indexed))])
        update = FacetUpdate(id=item_id(number), version=version, facets=FacetRow.of(indexed.item))
        put_commit(self.stores, f"u{number}-{version}", ShardCommit(batch="u", updates=(update,)))
        put_commit(self.stores, "gone", ShardCommit(batch="g", tombstones=(Tombstone(id=item_id(50), version=9),)))
        self.merge()

    def used(self, resource: str) -> float:
        month = next(iter(self.stores.documents.query("meters"))).data
        return float(month.get(f"month_{resource}", 0.0))

    def titles(self) -> set[str]:
        return {record["item"]["title"] for record in items_of(self.root) if record is not None}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_index("full", tmp_path) as stores:
        yield Site(stores, tmp_path)


def test_an_index_of_which_a_part_cannot_be_read_is_neither_published_nor_exported(site: Site) -> None:
    before = site.publish().images
    site.change(20, 7, "another name")
    damaged = dataclasses.replace(site.snapshot(), notices=(Notice(code="index_partly_read", text="a.seg is missing"),))
    with pytest.raises(StoreError, match=r"a.seg is missing. Valid: .* `visor check --repair`"):
        exporter_of(damaged, site.stores, site.home, page=None).write(site.objects, now=site.now)
    whole, site.snapshot = site.snapshot, lambda: damaged  # type: ignore[method-assign]
    assert site.publish(after_s=DAY_S + 1) is None
    assert "another name" not in site.titles()
    site.snapshot = whole  # type: ignore[method-assign]
    assert site.publish(after_s=DAY_S + 1).images == before - 1, "which it deleted"
    assert "another name" in site.titles()


def test_a_reindex_is_published_once_it_is_complete(site: Site) -> None:
    """The few items that the new model had embedded replaced the whole index."""
    assert write_current(site.stores.documents, CurrentModel(current="old", building=MODEL), 0)
    assert site.publish() is None
    assert not (site.root / "data").exists()
    _, revision = read_current(site.stores.documents)
    assert write_current(site.stores.documents, CurrentModel(current=MODEL, previous="old"), revision)
    assert site.publish().images == 298


def test_only_what_changed_is_read_and_written(site: Site) -> None:
    first = site.publish()
    assert (first.images, first.unknown) == (298, 1)  # one item is lost
    site.meter.flush()
    assert (site.used("firestore_reads") >= 298, site.used("class_a")) == (True, first.written + 1)
    assert (site.root / "index.html").read_bytes() == b"the page"
    assert not (site.root / "config.json").exists()
    # It is looked for again after a day, in case that its document comes.
    reads = site.used("published_item")
    site.change(20, 7, "another name")
    again = site.publish(after_s=DAY_S + 1)
    site.meter.flush()
    assert site.used("published_item") - reads == 2
    assert again.written < first.written
    assert "another name" in site.titles()
    assert len(site.titles()) == len({r.indexed.item.title for r in rows_of(300)}) - 4


@pytest.mark.parametrize(
    ("after_s", "is_due"), [(60.0, False), (1300.0, False), (12 * 1300.0, True), (WAIT_MAX_S, True)]
)
def test_many_files_are_followed_by_a_pause(site: Site, after_s: float, is_due: bool) -> None:
    site.stores.documents.commit([Put(collection=ITEMS, key=item_id(23), data=as_document(rows_of(60)[23].indexed))])
    assert site.publish().unknown == 0
    assert site.publish(after_s=WAIT_MAX_S) is None, "nothing changed"
    site.now = site.clock
    site.change(20, 7, "another name")
    assert (site.publish(after_s=after_s) is not None) == is_due


def test_what_the_free_tier_leaves_is_read_first(tmp_path: Path) -> None:
    with open_index("full", tmp_path) as stores:
        site = Site(stores, tmp_path)
        site.meter.headroom = lambda kind, owner=False: 100  # type: ignore[method-assign]
        assert site.publish().unknown == 198
        assert len(items_of(site.root)) == 298
        # The lost item is among those.
        assert site.publish(after_s=DAY_S + 1).unknown == 99
        assert site.publish(after_s=DAY_S + 1).unknown == 1


def test_a_quota_that_is_used_up_postpones_it(tmp_path: Path) -> None:
    with open_index("full", tmp_path) as stores:
        site = Site(stores, tmp_path, limited=True)
        site.meter.use({"class_a": 4900})
        assert site.publish() is None
        assert not (site.root / "data").exists()


def test_after_too_long_everything_is_read_again(site: Site) -> None:
    site.publish()
    document = site.stores.documents.get(SITES, [KEY])[KEY]
    put = Put(collection=SITES, key=KEY, data={**document.data, "behind_since": 1.0})
    site.stores.documents.commit([put])
    site.meter.flush()
    before = site.used("published_item")
    assert site.publish(after_s=DAY_S + 1).written == 0
    site.meter.flush()
    assert site.used("published_item") - before == 298


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"\x1f\x8bnonsense",
        lambda data: data[: len(data) // 2],
        lambda data: data[:99] + bytes(99) + data[198:],
    ],
    ids=["nonsense", "cut", "overwritten"],
)
def test_a_page_that_is_damaged_is_made_again(site: Site, damage: Callable[[bytes], bytes]) -> None:
    site.publish()
    page = site.root / "data" / json.loads((site.root / "data" / "visor.json").read_bytes())["parts"][0]["pages"][0]
    page.write_bytes(damage(page.read_bytes()))
    site.change(20, 7, "another name")
    site.publish(after_s=WAIT_MAX_S)
    assert "another name" in site.titles()


@pytest.mark.parametrize(("images", "rows"), [(1, 256), (131_072, 256), (131_073, 512), (1_000_000, 2048)])
def test_a_large_index_has_large_pages(images: int, rows: int) -> None:
    assert page_rows(images) == rows
