"""Searches two Visors in turns: each in its own process over its own index of the same vectors.

`main` runs by its file's path under either checkout's interpreter, so it imports what either of them has.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

TURN = 25
"""Queries that one process answers before it is the other one's turn."""
WARM = 20


def ask_in_turns(pythons: tuple[str, str], homes: tuple[Path, Path], queries_file: Path) -> dict[str, Any]:
    """Send all queries to both and compare.

    Args:
        pythons: The interpreters of this Visor and of the other one.
        homes: The folders of their indexes.
        queries_file: A .npy of full vectors (q, d) float32.

    Returns:
        `in_turns_p50_ms`, the other one's `p50_ms`, their ratio `times`, and `times_by_turn`: the median of the
        ratios of the turns, which a busy minute of the machine affects less.
    """
    asked = len(np.load(queries_file, mmap_mode="r"))
    processes = [
        subprocess.Popen(  # noqa: S603 - our own file
            [python, __file__, str(home), str(queries_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for python, home in zip(pythons, homes, strict=True)
    ]
    took: list[list[list[float]]] = [[], []]
    try:
        for start in range(0, asked, TURN):
            for number, process in enumerate(processes):
                cast(IO[str], process.stdin).write(f"{start} {min(start + TURN, asked)}\n")
                cast(IO[str], process.stdin).flush()
                took[number].append(json.loads(cast(IO[str], process.stdout).readline()))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    ours, theirs = (float(np.median(np.concatenate(turns))) for turns in took)
    by_turn = [np.median(ours) / np.median(theirs) for ours, theirs in zip(*took, strict=True)]
    return {
        "in_turns_p50_ms": round(ours, 3),
        "p50_ms": round(theirs, 3),
        "times": round(ours / theirs, 3),
        "times_by_turn": round(float(np.median(by_turn)), 3),
    }


def main() -> None:
    """Arguments: the index's folder, a .npy of queries. Standard input: lines `START STOP`."""
    try:
        from visor.index.search.searcher import Searcher
        from visor_bench.speed.search.process import MODEL, open_index
    except ImportError:  # as it was at commit c511fa7
        from visor.bench.search_process import MODEL, open_index  # type: ignore[import-not-found, no-redef]

        from visor.index.search import Searcher  # type: ignore[attr-defined, no-redef]

    home, queries = Path(sys.argv[1]), np.load(sys.argv[2])
    searcher = Searcher(*open_index(home), model=MODEL, freshness_s=1e9)
    searcher.refresh()
    for query in queries[:WARM]:
        searcher.search(query, k=12)
    for line in sys.stdin:
        start, stop = map(int, line.split())
        took = []
        for query in queries[start:stop]:
            started = time.perf_counter()
            searcher.search(query, k=12)
            took.append((time.perf_counter() - started) * 1000)
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
