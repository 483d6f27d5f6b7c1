"""Input for peers: the vectors of a benchmark's index as one file, the queries, and the true neighbours. All in blocks:
a million vectors of 2,048 float32 are 8 GB."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visor.index.format.container import Array
from visor.index.format.ids import id_text
from visor.index.format.projection import unit
from visor.index.search.searcher import Searcher
from visor_bench.speed.peers.kinds import K
from visor_bench.speed.search import process as search_process


class Nearest:
    """The K rows of the greatest inner products with each of q queries, kept while blocks of vectors go by."""

    def __init__(self, queries: Array) -> None:
        self._queries = queries
        self._seen = 0
        self._scores = np.full((len(queries), K), -np.inf, np.float32)
        self.rows = np.full((len(queries), K), -1, np.int64)
        """(q, K) int64, greatest first."""

    def add(self, vectors: Array) -> None:
        """The next rows, (b, m) float32."""
        numbers = np.broadcast_to(self._seen + np.arange(len(vectors)), (len(self._queries), len(vectors)))
        scores = np.concatenate([self._scores, self._queries @ vectors.T], axis=1)
        rows = np.concatenate([self.rows, numbers], axis=1)
        best = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        order = np.argsort(-scores, axis=1, kind="stable")
        self._scores, self.rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        self._seen += len(vectors)


def share_vectors(home: Path, queries: Array, folder: Path, *, projected: bool) -> list[set[str]]:
    """Write `vectors.npy` (n, d), `queries.npy` (q, d) and `truth.npy` (q, K), the rows nearest to each query.

    Args:
        home: A benchmark's index.
        queries: (q, d) float32 full vectors.
        projected: Give the peers Visor's projected vectors.

    Returns:
        For each query the ids of the K nearest by exact float32 inner products of the projected vectors.
    """
    objects, documents = search_process.open_index(home)
    searcher = Searcher(objects, documents, model=search_process.MODEL, freshness_s=1e9)
    searcher.refresh()
    space = searcher.space
    inside = space.project(queries)
    asked = inside if projected else unit(queries)
    np.save(folder / "queries.npy", asked)
    out = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(len(searcher), asked.shape[1])
    )
    ours, theirs, ids = Nearest(inside), Nearest(asked), []
    for full, block_ids in searcher.full_vectors():
        ids.append(block_ids)
        coordinates = space.project(full)
        vectors = coordinates if projected else unit(full.astype(np.float32))
        done = sum(map(len, ids[:-1]))
        out[done : done + len(vectors)] = vectors
        ours.add(coordinates)
        theirs.add(vectors)
    out.flush()
    np.save(folder / "truth.npy", theirs.rows)
    every = np.concatenate(ids)
    return [{id_text(every[row]) for row in rows} for rows in ours.rows]
