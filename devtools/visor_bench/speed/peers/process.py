"""One peer in its own process: `build` or `search`. Prints one JSON document."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from visor.index.format.container import Array
from visor_bench.speed.peers.kinds import PEERS, K, Search
from visor_bench.speed.search.process import process_start, resident_mb

SEARCH_S = 20.0
"""Queries stop after this time."""
MEMORY_SHARE = 0.9
"""A peer may use this share of the machine's free memory, so that running out of it ends no other process."""


def main() -> None:
    """Arguments: `build` or `search`, the peer's name, the folder with vectors.npy, queries.npy and truth.npy, and for
    `search` the recall to reach."""
    what, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    _bound_memory()
    peer, path = PEERS[name], folder / f"{name}.index"
    if what == "build":
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        path.with_suffix(".dimension").write_text(str(vectors.shape[1]))
        started = time.perf_counter()
        peer.build(vectors, path)
        print(json.dumps({"build_s": round(time.perf_counter() - started, 2)}))
        return
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    search = peer.open(path)
    search(queries[0], peer.efforts[0])
    first = time.time() - process_start()
    for effort in peer.efforts:
        took, recall = _ask(search, effort, queries, truth)
        if recall >= float(sys.argv[4]):
            break
    document = {
        "recall_at_12": round(recall, 4),
        "p50_ms": round(float(np.percentile(took, 50)), 3),
        "p99_ms": round(float(np.percentile(took, 99)), 3),
        "resident_mb": round(resident_mb()),
        "first_answer_s": round(first, 2),
    }
    print(json.dumps(document | ({"effort": effort} if len(peer.efforts) > 1 else {})))


def _ask(search: Search, effort: int, queries: Array, truth: Array) -> tuple[list[float], float]:
    """Milliseconds of each query, and the recall over them."""
    took, right = [], 0
    until = time.perf_counter() + SEARCH_S
    for query, wanted in zip(queries, truth, strict=True):
        started = time.perf_counter()
        found = search(query, effort)
        took.append((time.perf_counter() - started) * 1000)
        right += len(set(found.tolist()) & set(wanted[:K].tolist()))
        if time.perf_counter() > until:
            break
    return took, right / (K * len(took))


def _bound_memory() -> None:
    """Mapped files do not count: the kernel can take their pages back."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    most = int(int(lines["MemAvailable"].split()[0]) * 1024 * MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


if __name__ == "__main__":
    main()
