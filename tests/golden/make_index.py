"""Made `tests/golden/index-1/` once, with format version 1, and `words-1/` with version 1 of words. Run it again only
for a new version, into a new folder: `python tests/golden/make_index.py index|words`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT.parent)]

from tests.unit.index.index_fixtures import MODEL, Shop, clustered, ids_of, keys_of  # noqa: E402

from visor.index.format import fast_scan as scan  # noqa: E402
from visor.index.format.container import FORMAT_VERSION  # noqa: E402
from visor.index.merge import segment_builder as rewrite  # noqa: E402
from visor.index.merge.merge import merge  # noqa: E402
from visor.index.merge.policy import MergePolicy  # noqa: E402
from visor.index.words.text_index import VERSION  # noqa: E402
from visor.schema.items import FacetRow, Item  # noqa: E402

TITLES = ("Crème brûlée", "Red T-Shirts", "Granny Smith, a green apple", "Зелёные яблоки", "白い猫の皿")
ASKED = ("creme", "shirt", "grren appel ", "яблоко", "猫", "straw")


def words() -> None:
    target = Path(__file__).parent / f"words-{VERSION}"
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        rows = [FacetRow.of(Item(id="0" * 32, source="t", key="k", image_url="", title=title)) for title in TITLES]
        shop.add(keys_of(len(TITLES)), clustered(len(TITLES), dimension=8), facets=rows)
        merge(shop.objects, shop.documents, model=MODEL, clock=shop.clock, languages=("english", "french", "russian"))
        searcher = shop.searcher()
        found = {text: [hit.id for hit in searcher.search(None, k=5, text=text).hits] for text in ASKED}
        shutil.rmtree(target, ignore_errors=True)
        for info in shop.objects.list():
            if not info.name.startswith("shards/"):
                path = target / info.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(shop.objects.get(info.name)))
        (target / "expected.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def index() -> None:
    target = Path(__file__).parent / f"index-{FORMAT_VERSION}"
    scan.PQ_SAMPLES_MIN = rewrite.PQ_ROWS_MIN = 16
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        vectors = clustered(68, dimension=16, kinds=5)
        facets = [FacetRow(collection=f"c{n % 3}", price=n, date="2024-05-01", labels=("x",)) for n in range(60)]
        shop.add(keys_of(60), vectors[:60], facets=facets)
        shop.delete("k59", 2)
        shop.update("k58", 2, FacetRow(collection="updated"))
        merge(shop.objects, shop.documents, model=MODEL, policy=MergePolicy(samples_min=16), clock=shop.clock)
        name = shop.add(keys_of(8, "fresh"), vectors[60:])
        searcher = shop.searcher()
        answers = [
            [[hit.id, round(hit.similarity, 4)] for hit in searcher.search(vector, k=5, mode=mode).hits]
            for mode in ("fast", "exact")
            for vector in vectors[::10]
        ]
        shutil.rmtree(target, ignore_errors=True)
        for info in shop.objects.list():
            if info.name.startswith("shards/") and name not in info.name:
                continue
            path = target / info.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(shop.objects.get(info.name)))
        expected = {"answers": answers, "fresh": name, "gone": ids_of(["k59"])[0], "updated": ids_of(["k58"])[0]}
        (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
        np.save(target / "queries.npy", vectors[::10].astype(np.float16))


if __name__ == "__main__":
    {"index": index, "words": words}[sys.argv[1]]()
