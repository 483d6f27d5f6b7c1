"""What a user would pick instead of Visor: each builds a file or folder from vectors, and opens it to search."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visor.index.container import Array

K = 12
Search = Callable[[Array], Array]
"""A query (m,) float32 of unit length to the rows (k,) of its nearest vectors."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`build(vectors, path)` makes an index of unit vectors (n, m) float32; `open(path)` gives the search."""

    name: str
    build: Callable[[Array, Path], None]
    open: Callable[[Path], Search]
    most: int = 10**9
    """Images from which it would take minutes, so that it is left out."""


def _faiss(make: Callable[[int], Any]) -> tuple[Callable[[Array, Path], None], Callable[[Path], Search]]:
    import faiss

    def build(vectors: Array, path: Path) -> None:
        index = make(vectors.shape[1])
        index.add(vectors)
        faiss.write_index(index, str(path))

    def open_(path: Path) -> Search:
        index = faiss.read_index(str(path))
        return lambda query: index.search(query[None], K)[1][0]

    return build, open_


def _hnsw(dimension: int) -> Any:
    import faiss

    index = faiss.IndexHNSWFlat(dimension, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 100, 128
    return index


def _flat(dimension: int) -> Any:
    import faiss

    return faiss.IndexFlatIP(dimension)


def _hnswlib_build(vectors: Array, path: Path) -> None:
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=100, M=32, random_seed=1)
    index.add_items(vectors)
    index.save_index(str(path))


def _hnswlib_open(path: Path) -> Search:
    import hnswlib

    index = hnswlib.Index("ip", int(path.with_suffix(".dimension").read_text()))
    index.load_index(str(path))
    index.set_ef(128)
    return lambda query: index.knn_query(query, K)[0][0]


def _usearch_build(vectors: Array, path: Path) -> None:
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="i8", connectivity=32, expansion_add=100)
    index.add(np.arange(len(vectors)), vectors)
    index.save(str(path))


def _usearch_open(path: Path) -> Search:
    from usearch.index import Index

    index = Index.restore(str(path), view=True)
    index.expansion_search = 128
    return lambda query: index.search(query, K).keys


def _lance_build(vectors: Array, path: Path) -> None:
    import lancedb
    import pyarrow as pa

    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    data = pa.table({"row": np.arange(len(vectors)), "vector": values})
    table = lancedb.connect(str(path)).create_table("v", data)
    table.create_index(metric="dot", num_partitions=max(1, int(len(vectors) ** 0.5)), num_sub_vectors=64)


def _lance_open(path: Path) -> Search:
    import lancedb

    table = lancedb.connect(str(path)).open_table("v")

    def search(query: Array) -> Array:
        found = table.search(query).distance_type("dot").nprobes(40).refine_factor(20).limit(K).to_arrow()
        return np.asarray(found["row"])

    return search


def _sklearn(algorithm: str) -> tuple[Callable[[Array, Path], None], Callable[[Path], Search]]:
    def build(vectors: Array, path: Path) -> None:
        from sklearn.neighbors import NearestNeighbors

        path.write_bytes(pickle.dumps(NearestNeighbors(n_neighbors=K, algorithm=algorithm).fit(vectors)))

    def open_(path: Path) -> Search:
        index = pickle.loads(path.read_bytes())  # noqa: S301 - written by this run
        return lambda query: index.kneighbors(query[None], return_distance=False)[0]

    return build, open_


def _save(vectors: Array, path: Path) -> None:
    np.save(path.with_suffix(".npy"), vectors)


def _nearpy_open(path: Path) -> Search:
    from nearpy import Engine
    from nearpy.filters import NearestFilter
    from nearpy.hashes import RandomBinaryProjections

    vectors = np.load(path.with_suffix(".npy"))
    hashes = [RandomBinaryProjections(f"h{number}", 10, rand_seed=number) for number in range(4)]
    engine = Engine(vectors.shape[1], lshashes=hashes, vector_filters=[NearestFilter(K)])
    for row, vector in enumerate(vectors):
        engine.store_vector(vector, row)
    return lambda query: np.array([row for _, row, _ in engine.neighbours(query)], np.int64)


def _scipy_open(path: Path) -> Search:
    from scipy.spatial.distance import cdist

    vectors = np.load(path.with_suffix(".npy"))
    return lambda query: np.argsort(cdist(query[None], vectors, "cosine")[0])[:K]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("faiss-flat", *_faiss(_flat)),
        Peer("faiss-hnsw", *_faiss(_hnsw), most=200_000),
        Peer("hnswlib", _hnswlib_build, _hnswlib_open, most=200_000),
        Peer("usearch-i8", _usearch_build, _usearch_open, most=200_000),
        Peer("lancedb", _lance_build, _lance_open),
        Peer("sklearn-brute", *_sklearn("brute"), most=200_000),
        Peer("sklearn-ball-tree", *_sklearn("ball_tree"), most=100_000),
        Peer("nearpy", _save, _nearpy_open, most=20_000),
        Peer("scipy-cdist", _save, _scipy_open, most=200_000),
    )
}
