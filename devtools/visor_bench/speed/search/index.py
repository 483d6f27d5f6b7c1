"""A benchmark's index: shards of made vectors, merged by the real merge in its own process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from visor.index.format.container import Array
from visor.index.format.manifest import read_manifest
from visor.index.format.shard import shard_object, write_shard
from visor.near_duplicates.fingerprint import HASH_BYTES
from visor.schema.collections import COMMITS
from visor.schema.items import FacetRow, ShardCommit, as_document
from visor.storage.documents import SERVER_TIME, DocumentStore, Put
from visor.storage.objects import ObjectStore
from visor_bench.speed.search.process import MODEL, open_index
from visor_bench.vectors import BLOCK, mixed

RARE = 10_000
"""One item in this many has the collection `rare`."""


def build(
    home: Path,
    base: Array,
    images: int,
    say: Callable[[str], None],
    facets_of: Callable[[int], FacetRow] | None = None,
) -> dict[str, Any]:
    """Write shards of `images` made vectors and merge them.

    Args:
        facets_of: Returns the facets of an item by its number.

    Returns:
        `merge_s`, `merge_peak_mb` (of the merging process), `segments`, `stored_bytes_per_image`, of which
        `besides_bytes_per_image` are not full vectors and `hot_bytes_per_image` are read by a search.
    """
    objects, documents = open_index(home)
    write_shards(objects, documents, base, images, facets_of or bench_facets)
    say(f"{images} vectors in shards; merging")
    command = [sys.executable, "-m", "visor_bench.speed.search.index", str(home)]
    report: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603
    manifest, _ = read_manifest(objects, MODEL)
    stored = sum(entry.size_bytes for entry in manifest.segments) if manifest else 0
    if manifest is not None and manifest.projection is not None:
        stored += objects.stat(manifest.projection.name).size_bytes
    hot = sum(entry.hot_bytes for entry in manifest.segments) if manifest else 0
    return report | {
        "stored_bytes_per_image": round(stored / images, 1),
        "besides_bytes_per_image": round(stored / images - 2 * base.shape[1], 1),
        "hot_bytes_per_image": round(hot / images, 1),
    }


def write_shards(
    objects: ObjectStore,
    documents: DocumentStore,
    base: Array,
    images: int,
    facets_of: Callable[[int], FacetRow],
) -> None:
    """Write shards of made vectors, and their commits."""
    rng = np.random.default_rng(7)
    for number, vectors in enumerate(mixed(base, images, seed=1)):
        rows = np.arange(len(vectors)) + number * BLOCK
        ids = rng.integers(0, 256, (len(vectors), 16), np.uint8)
        facets = [facets_of(int(row)) for row in rows]
        data = write_shard(
            model=MODEL,
            ids=ids,
            versions=np.ones(len(vectors), np.int64),
            vectors=vectors,
            hashes=rng.integers(0, 256, (len(vectors), HASH_BYTES), np.uint8),
            facets=facets,
        )
        key = f"bench-{number}"
        objects.put(shard_object(key), data)
        record = ShardCommit(batch=key, model=MODEL, shard=shard_object(key), count=len(vectors))
        put = Put(collection=COMMITS, key=key, data={**as_document(record), "committed_at": SERVER_TIME})
        documents.commit([put])


def bench_facets(row: int) -> FacetRow:
    return FacetRow(
        collection="rare" if row % RARE == 77 else f"collection {row % 200}",
        source="bench",
        country=("FR", "JP", "US", "TN")[row % 4],
        currency="EUR",
        price=float(row % 997),
        date=f"2024-0{1 + row % 9}-11",
        labels=(f"label {row % 1000}", f"label {row % 77}", f"label {row % 13}"),
    )


def main() -> None:
    """Merge the index in the folder named on the command line; print what it took."""
    from visor.index.merge.merge import merge
    from visor.index.merge.policy import MergePolicy

    policy = MergePolicy(step_rows=65_536, grace_s=0)
    objects, documents = open_index(Path(sys.argv[1]))
    started = time.perf_counter()
    report = merge(objects, documents, model=MODEL, policy=policy)
    took = time.perf_counter() - started
    merge(objects, documents, model=MODEL, policy=policy)  # deletes what the first one replaced
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"merge_s": round(took, 1), "merge_peak_mb": round(peak), "segments": report.segments}))


if __name__ == "__main__":
    main()
