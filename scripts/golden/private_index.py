"""Small indexes of generated rows and their exports, from which `scripts.golden.private_answers` makes golden files."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from PIL import Image

from visor.confidence import fit_index
from visor.confidence.across import Learned
from visor.export.export import Exporter, ExportReport, site_in
from visor.imaging.content import Emptiness
from visor.index.format.looks import pack_look
from visor.index.format.projection import unit as unit_rows
from visor.index.format.shard import shard_object, write_shard
from visor.index.merge.merge import merge
from visor.index.search.fusion import traits
from visor.index.search.reader import IndexReader
from visor.index.search.snapshot import Snapshot
from visor.link_check.state import PICTURE_GONE
from visor.models.description import ModelDescription
from visor.models.registry import DEFAULT, describe
from visor.models.store import ModelManifest
from visor.near_duplicates.fingerprint import unmatchable_hash
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.schema.collections import ITEMS
from visor.schema.items import FacetRow, FacetUpdate, IndexedItem, Item, Label, ShardCommit, Tombstone, as_document
from visor.schema.items import item_id as id_of
from visor.schema.words import name_weights
from visor.search.feedback import Feedback, FeedbackLog, all_feedback
from visor.search.item_cache import ItemCache
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.storage.documents import SERVER_TIME, Put

Array = np.ndarray[Any, Any]
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "private"
MODEL = "golden"
DIMENSION = 48
INDEXES = ("projected", "full", "small", "across")
LABELS = ("dress", "hat", "shoe", "coat", "bag", *(f"thing {n}" for n in range(5, 1000)))
DECLARED: dict[str, Any] = {"size": "number", "colour": "keyword", "new": "flag", "since": "date"}


def unit(vectors: Array) -> Array:
    return unit_rows(vectors.astype(np.float32))


def item_id(number: int) -> str:
    return id_of("shop", f"k{number}")


def picture(number: int) -> Image.Image:
    """A smooth picture, 96 x 96, different for each row."""
    coarse = np.random.default_rng(number).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Row:
    """One generated item. Every tenth shows the picture of the one before, a little smaller."""

    number: int
    vector: Array
    kind: int

    @property
    def original(self) -> int:
        return self.number - 1 if self.number % 10 == 9 else self.number

    @property
    def is_blank(self) -> bool:
        return self.number % 50 == 7

    @property
    def pixels(self) -> Image.Image:
        one = picture(self.original)
        return one if self.original == self.number else one.resize((80, 80), Image.Resampling.BICUBIC)

    @property
    def look(self) -> Array:
        random = np.random.default_rng(1000 + self.number)
        probabilities = np.zeros(len(LABELS), np.float32)
        probabilities[[self.kind, 5 + self.number % 40, 50 + self.kind]] = 0.6, 0.25, 0.1
        return pack_look(probabilities, random.integers(0, 256, 162).astype(np.uint8))

    @property
    def labels(self) -> tuple[Label, ...]:
        return (
            Label(name=LABELS[self.kind], probability=0.6),
            Label(name=LABELS[5 + self.number % 40], probability=0.25),
        )

    @property
    def indexed(self) -> IndexedItem:
        n, known = self.number, self.number % 3 > 0
        extra = {"size": str(n % 17 / 2), "colour": ("red", "blue", "grün")[n % 3], "new": str(n % 2 == 0).lower()}
        extra["since"] = f"20{10 + n % 15}-0{1 + n % 9}-1{n % 10}"
        item = Item(
            id=item_id(n),
            source="shop",
            key=f"k{n}",
            image_url=f"https://shop.example/{n}.jpg",
            page_url=f"https://shop.example/{n}",
            title=f"{LABELS[self.kind]} number {n}",
            price=None if n % 7 == 0 else round(3.5 + 1.37 * (n % 61), 2),
            currency=(None, "EUR", "USD")[n % 7 and 1 + n % 2],
            collection=(None, "dresses", "hats", "shoes", "coats")[n % 5],
            country=("DE", "FR", None)[n % 3],
            date=None if n % 11 == 0 else f"20{15 + n % 10}-{1 + n % 12:02}-{1 + n % 28:02}",
            group=f"product {n // 3}" if n % 30 < 6 else None,
            extra=extra | ({PICTURE_GONE: "2026-01-01"} if n == 19 else {}),
            attributes=DECLARED if known else {},
        )
        return IndexedItem(
            item=item,
            version=1,
            model=MODEL,
            shard="shards/s.shard",
            indexed_at="2026-11-26T00:00:00Z",
            width=640 + n,
            height=480,
            labels=self.labels,
            blank=Emptiness.BLANK.value if self.is_blank else None,
        )


def rows_of(count: int) -> list[Row]:
    """The first of 320 rows."""
    return all_rows()[:count]


@cache
def all_rows(count: int = 320) -> list[Row]:
    random = np.random.default_rng(7)
    centres = random.random((5, DIMENSION)) ** 3
    kinds = random.integers(5, size=count)
    vectors = unit(np.abs(centres[kinds] + 0.12 * random.standard_normal((count, DIMENSION))).astype(np.float32))
    for number in range(9, count, 10):
        vectors[number] = unit((vectors[number - 1] + 0.004 * random.standard_normal(DIMENSION))[None])[0]
        kinds[number] = kinds[number - 1]
    return [Row(n, vectors[n].astype(np.float16), int(kinds[n])) for n in range(count)]


def put_shard(stores: Stores, name: str, rows: list[Row]) -> None:
    hashes = [unmatchable_hash(item_id(row.number)) if row.is_blank else perceptual_hash(row.pixels) for row in rows]
    data = write_shard(
        model=MODEL,
        ids=[item_id(row.number) for row in rows],
        versions=[1] * len(rows),
        vectors=np.stack([row.vector for row in rows]),
        hashes=np.frombuffer(b"".join(hashes), np.uint8).reshape(len(rows), -1),
        facets=[FacetRow.of(one.item, one.labels, (one.width, one.height)) for one in (row.indexed for row in rows)],
        looks=np.stack([row.look for row in rows]),
    )
    stores.objects.put(shard_object(name), data)
    put_commit(stores, name, ShardCommit(batch=name, model=MODEL, shard=shard_object(name), count=len(rows)))
    # The item of one row is lost.
    kept = [row for row in rows if row.number != 23]
    for start in range(0, len(kept), 100):
        puts = [
            Put(collection=ITEMS, key=item_id(r.number), data=as_document(r.indexed)) for r in kept[start : start + 100]
        ]
        stores.documents.commit(puts)


def put_commit(stores: Stores, key: str, commit: ShardCommit) -> None:
    data = {**as_document(commit), "committed_at": SERVER_TIME}
    stores.documents.commit([Put(collection="commits", key=key, data=data)])


def photos(rows: list[Row]) -> Array:
    """Vectors of visitors' photos of the rows: all moved the same way, away from the catalogue."""
    random = np.random.default_rng(99)
    away = np.abs(random.standard_normal(DIMENSION)) ** 2
    moved = np.stack([row.vector.astype(np.float32) for row in rows]) + 0.25 * away
    return unit((moved + 0.02 * random.standard_normal(moved.shape)).astype(np.float32))


def make_index(name: str, stores: Stores) -> None:
    """Fill the stores: most rows are merged, some are fresh, deleted, updated or said not to match."""
    rows = rows_of({"small": 60, "projected": 320}.get(name, 300))
    fresh = len(rows) - 20
    put_shard(stores, "a", rows[: fresh // 2])
    put_shard(stores, "b", rows[fresh // 2 : fresh])
    mean = traits(photos(rows[:20]), np.stack([row.look for row in rows[:20]])).mean(0)
    learned = Learned(mean, 20.0, np.zeros(24), ("secret",)) if name == "across" else None
    calibrate = fit_index.Calibrator(stores.objects, learn=lambda before: learned, label_words=label_words())
    with patch.object(fit_index, "FULL_MAX", 100 if name == "projected" else 2000):
        merge(stores.objects, stores.documents, model=MODEL, calibrate=None if name == "small" else calibrate)
    put_shard(stores, "c", rows[fresh:])
    gone = tuple(Tombstone(id=item_id(n), version=2) for n in (3, fresh + 3))
    item = msgspec.structs.replace(rows[5].indexed.item, collection="updated", price=1.0)
    changed = msgspec.structs.replace(rows[5].indexed, item=item, version=2)
    stores.documents.commit([Put(collection=ITEMS, key=item.id, data=as_document(changed))])
    updates = (FacetUpdate(id=item.id, version=2, facets=FacetRow.of(item, rows[5].labels)),)
    put_commit(stores, "d", ShardCommit(batch="d", tombstones=gone, updates=updates))
    said = FeedbackLog(stores.documents, freshness_s=0)
    said.add(Feedback(query=item_id(10), item=item_id(11)))
    said.add(Feedback(query="vector:" + "0" * 32, item=item_id(12)))


def label_words() -> list[dict[str, float]]:
    return [name_weights((name,)) for name in LABELS]


def description() -> ModelDescription:
    """A model whose vectors have `DIMENSION` numbers."""
    builtin = describe(DEFAULT, Settings())
    parts = []
    for part in builtin.parts:
        network, weight = part.network, 0.0
        if network.head == "labels":
            tap = msgspec.structs.replace(network.taps[0], channels=DIMENSION)
            network, weight = msgspec.structs.replace(network, taps=(tap,)), 1.0
        parts.append(msgspec.structs.replace(part, network=network, weight=weight))
    return msgspec.structs.replace(builtin, name=MODEL, dimension=DIMENSION, parts=tuple(parts))


def exporter_of(snapshot: Snapshot, stores: Stores, home: Path, **options: Any) -> Exporter:
    """The exporter of an index, with a page and a model that are only names."""
    model, page = home / "model", home / "page"
    for folder in (model, page):
        folder.mkdir(exist_ok=True)
    manifest = ModelManifest(
        fingerprint=MODEL, variant="int8", description=description(), files=(), label_names=LABELS, built_at=""
    )
    (model / "model.json").write_bytes(msgspec.json.encode(manifest))
    (page / "index.html").write_text("<title>golden</title>")
    told: dict[str, Any] = {"items": ItemCache(stores.documents).get, "page": page, **options}
    return Exporter(
        snapshot=snapshot,
        fingerprint=MODEL,
        feedback=all_feedback(stores.documents),
        model=model,
        label_words=label_words(),
        settings=Settings(),
        **told,
    )


def make_export(stores: Stores, home: Path, site: Path, *, now: float = 0.0) -> ExportReport:
    """Export an index into a folder."""
    news = IndexReader(stores.objects, stores.documents, MODEL).poll()
    assert news is not None
    with site_in(site) as files:
        return exporter_of(news.snapshot, stores, home).write(files, now=now)


def open_index(name: str, home: Path) -> Stores:
    """The stores of the index as it was committed, unpacked below `home`."""
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as tar:
        tar.extractall(home, filter="data")
    return open_stores(Settings(home=home))
