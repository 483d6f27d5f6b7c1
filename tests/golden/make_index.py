"""Made `tests/golden/index-1/` once, with format version 1. Run it again only for a new version, into a new folder."""

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

from visor.index.format import projection as scan  # noqa: E402
from visor.index.format.container import FORMAT_VERSION  # noqa: E402
from visor.index.merge import segment_builder as rewrite  # noqa: E402
from visor.index.merge.merge import merge  # noqa: E402
from visor.index.merge.policy import MergePolicy  # noqa: E402
from visor.schema.items import FacetRow  # noqa: E402


def main() -> None:
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
    main()
