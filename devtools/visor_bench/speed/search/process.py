"""The process in which a benchmark searches: a new one, like a function's instance."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

from visor.index.format.container import Array
from visor.storage.local.documents import SqliteDocuments
from visor.storage.local.objects import FolderObjects

STARTED = time.time()
MODEL = "bench"
"""Model fingerprint in a benchmark's shards."""


def open_index(home: Path) -> tuple[FolderObjects, SqliteDocuments]:
    """The stores of a benchmark's index."""
    return FolderObjects(home / "objects"), SqliteDocuments(home / "documents.sqlite")


def main() -> None:
    """Arguments: the index's folder, a .npy of queries (q, d), a model directory or '', and .npy files of other queries
    whose recall is measured, too. Prints one JSON document."""
    home, queries_file, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    import numpy as np

    from visor.index.search.searcher import Searcher
    from visor.schema.search import Filters

    embedder = None
    if model:
        from PIL import Image

        from visor.models.embedder import Embedder

        embedder = Embedder(Path(model))
        embedder.embed([Image.new("RGB", (299, 299))])
    queries = np.load(queries_file)
    objects, documents = open_index(home)
    searcher = Searcher(objects, documents, model=MODEL, freshness_s=3600)
    searcher.refresh()
    searcher.search(queries[0], k=12)
    first_answer_s = time.time() - process_start()

    def run(
        mode: Literal["fast", "exact"], count: int, queries: Array = queries, **options: Any
    ) -> tuple[list[float], list[list[str]]]:
        took, found = [], []
        for query in queries[:count]:
            started = time.perf_counter()
            hits = searcher.search(query, k=12, mode=mode, **options).hits
            took.append((time.perf_counter() - started) * 1000)
            found.append([hit.id for hit in hits])
        return took, found

    run("fast", 20)
    fast_ms, fast = run("fast", len(queries))
    resident_fast = resident_mb()
    exact_count = min(len(queries), 200)
    exact_ms, exact = run("exact", exact_count)
    rare_ms, rare = run("fast", 50, filters=Filters(collection=("rare",)))
    half_ms, _ = run("fast", 50, filters=Filters(country=("FR", "JP")))

    def recall_of(file: str) -> float:
        others = np.load(file)
        return recall(*(run(mode, len(others), others)[1] for mode in ("fast", "exact")))

    document = {
        "images": len(searcher),
        "fast_p50_ms": round(float(np.percentile(fast_ms, 50)), 3),
        "fast_p99_ms": round(float(np.percentile(fast_ms, 99)), 3),
        "exact_p50_ms": round(float(np.percentile(exact_ms, 50)), 3),
        "recall_at_12": recall(fast[:exact_count], exact),
        **{f"recall_at_12_{Path(file).stem}": recall_of(file) for file in sys.argv[4:]},
        "resident_mb": round(resident_mb()),
        "resident_fast_only_mb": round(resident_fast),
        "first_answer_s": round(first_answer_s, 2),
        "rare_filter_p50_ms": round(float(np.percentile(rare_ms, 50)), 3),
        "rare_filter_found": round(float(np.mean([len(ids) > 0 for ids in rare])), 3),
        "half_filter_p50_ms": round(float(np.percentile(half_ms, 50)), 3),
        "model_loaded": embedder is not None,
        "ids": fast,
    }
    print(json.dumps(document))


def recall(found: list[list[str]], wanted: list[list[str]]) -> float:
    """The mean share of the wanted ids that were found."""
    shares = [len(set(a) & set(b)) / max(len(b), 1) for a, b in zip(found, wanted, strict=True)]
    return round(sum(shares) / len(shares), 4)


def process_start() -> float:
    """Seconds since 1970 at which this process was started, from the kernel if it reports that."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return STARTED
    import os

    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


def resident_mb() -> float:
    """Resident memory of this process in MB (10⁶ bytes), including mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


if __name__ == "__main__":
    main()
