"""One peer in a process of its own: `build` or `search`. Prints one JSON document."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from visor.bench.peer_kinds import PEERS, K
from visor.bench.search_process import process_start, resident_mb


def main() -> None:
    """Arguments: `build` or `search`, the peer's name, the folder with vectors.npy, queries.npy and truth.npy."""
    what, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    peer, path = PEERS[name], folder / f"{name}.index"
    if what == "build":
        vectors = np.load(folder / "vectors.npy")
        path.with_suffix(".dimension").write_text(str(vectors.shape[1]))
        started = time.perf_counter()
        peer.build(vectors, path)
        print(json.dumps({"build_s": round(time.perf_counter() - started, 2)}))
        return
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    search = peer.open(path)
    search(queries[0])
    first = time.time() - process_start()
    took, right = [], 0
    until = time.perf_counter() + 20
    for query, wanted in zip(queries, truth, strict=True):
        started = time.perf_counter()
        found = search(query)
        took.append((time.perf_counter() - started) * 1000)
        right += len(set(found.tolist()) & set(wanted[:K].tolist()))
        if time.perf_counter() > until:
            break
    document = {
        "recall_at_12": round(right / (K * len(took)), 4),
        "p50_ms": round(float(np.percentile(took, 50)), 3),
        "p99_ms": round(float(np.percentile(took, 99)), 3),
        "resident_mb": round(resident_mb()),
        "first_answer_s": round(first, 2),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
