"""What a user would pick instead of Visor: each builds a file or folder from vectors, and opens it to search."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visor.index.format.container import Array
from visor.index.search.candidates import CELLS_DEPTH

K = 12
BLOCK_ROWS = 8192
"""Vectors that are passed on at once: they are in a mapped file that may be larger than memory."""
GRAPH_EFFORTS = (16, 32, 64, 128, 256, 512)
GRAPH_LINKS, GRAPH_BUILD_EFFORT = 32, 100
CELL_EFFORTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Cells that are visited."""
REFINED = CELLS_DEPTH
"""Rows that peers with coarse codes re-rank by finer ones, as many as Visor does."""
TRAIN_ROWS = 100_000
"""Approximate number of vectors from which peers learn cells and codes."""
Search = Callable[[Array, int], Array]
"""From a query (m,) float32 of unit length and an effort to the rows (k,) of its nearest vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """`build(vectors, path)` makes an index of unit vectors (n, m) float32; `open(path)` gives the search."""

    name: str
    build: Callable[[Array, Path], None]
    open: Callable[[Path], Search]
    efforts: tuple[int, ...] = (0,)
    """Settings that trade time for recall, ascending."""
    why: str
    """Why it is ahead of Visor, where it is."""


def _blocks(vectors: Array) -> Iterator[Array]:
    for start in range(0, len(vectors), BLOCK_ROWS):
        yield np.ascontiguousarray(vectors[start : start + BLOCK_ROWS])


def _faiss(
    make: Callable[[int, int], Any], tune: Callable[[Any, int], None] = lambda index, effort: None
) -> tuple[Callable[[Array, Path], None], Callable[[Path], Search]]:
    """`make(rows, dimension)` returns an empty index; `tune(index, effort)` sets what it trades for recall."""
    import faiss

    def build(vectors: Array, path: Path) -> None:
        index = make(*vectors.shape)
        if not index.is_trained:
            index.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // TRAIN_ROWS)]))
        for block in _blocks(vectors):
            index.add(block)
        faiss.write_index(index, str(path))

    def open_(path: Path) -> Search:
        index: Any = faiss.read_index(str(path))

        def search(query: Array, effort: int) -> Array:
            tune(index, effort)
            rows: Array = index.search(query[None], K)[1][0]
            return rows

        return search

    return build, open_


def _hnsw(rows: int, dimension: int) -> Any:
    import faiss

    index = faiss.IndexHNSWFlat(dimension, GRAPH_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = GRAPH_BUILD_EFFORT
    return index


def _hnsw_8bit(rows: int, dimension: int) -> Any:
    import faiss

    eight: Any = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexHNSWSQ(dimension, eight, GRAPH_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = GRAPH_BUILD_EFFORT
    return index


def _tune_graph(index: Any, effort: int) -> None:
    index.hnsw.efSearch = effort


def _ivf_fast_scan(rows: int, dimension: int) -> Any:
    """Cells, four-bit codes in them, and eight bits a number to re-rank the best."""
    import faiss

    kind = f"IVF{cells_of(rows)},PQ{dimension // 4}x4fs,Refine(SQ8)"
    index: Any = faiss.index_factory(dimension, kind, faiss.METRIC_INNER_PRODUCT)
    index.k_factor = REFINED / K
    return index


def _tune_cells(index: Any, effort: int) -> None:
    import faiss

    cells: Any = faiss.downcast_index(index.base_index)
    cells.nprobe = effort


def cells_of(rows: int) -> int:
    """As in FAISS's and ScaNN's guides: about the square root of the rows, with enough rows in each to learn from."""
    return max(1, min(int(rows**0.5), rows // 40))


def _flat(rows: int, dimension: int) -> Any:
    import faiss

    return faiss.IndexFlatIP(dimension)


def _scann() -> Any:
    """ScaNN without its TensorFlow operations, which load with one version of TensorFlow only."""
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type] # an import of it is then refused
    from scann import scann_ops_pybind

    return scann_ops_pybind


def _scann_build(vectors: Array, path: Path) -> None:
    rows = len(vectors)
    builder = _scann().builder(np.ascontiguousarray(vectors), K, "dot_product")
    tree = builder.tree(cells_of(rows), 1, training_sample_size=min(rows, TRAIN_ROWS))
    searcher = tree.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(REFINED, quantize=True).build()
    path.mkdir()
    searcher.serialize(str(path.absolute()))


def _scann_open(path: Path) -> Search:
    searcher = _scann().load_searcher(str(path.absolute()))

    def search(query: Array, effort: int) -> Array:
        rows: Array = searcher.search(query, leaves_to_search=effort, pre_reorder_num_neighbors=REFINED)[0]
        return rows

    return search


def _hnswlib_build(vectors: Array, path: Path) -> None:
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=GRAPH_BUILD_EFFORT, M=GRAPH_LINKS, random_seed=1)
    for block in _blocks(vectors):
        index.add_items(block)
    index.save_index(str(path))


def _hnswlib_open(path: Path) -> Search:
    import hnswlib

    index = hnswlib.Index("ip", int(path.with_suffix(".dimension").read_text()))
    index.load_index(str(path))

    def search(query: Array, effort: int) -> Array:
        index.set_ef(effort)
        rows: Array = index.knn_query(query, K)[0][0]
        return rows

    return search


def _usearch(dtype: str) -> tuple[Callable[[Array, Path], None], Callable[[Path], Search]]:
    def told(vectors: Array, path: Path) -> Array:
        """Integers over the whole range: USearch's own conversion of unit vectors uses only a few of the 256 values."""
        if dtype != "i8":
            return vectors
        scale = float(path.with_suffix(".scale").read_text())
        whole: Array = np.clip(np.rint(vectors * scale), -127, 127).astype(np.int8)
        return whole

    def build(vectors: Array, path: Path) -> None:
        from usearch.index import Index

        widest = float(np.quantile(np.abs(vectors[:BLOCK_ROWS]), 0.99999))
        path.with_suffix(".scale").write_text(str(127 / max(widest, 1e-6)))
        metric = "cos" if dtype == "i8" else "ip"
        index = Index(
            ndim=vectors.shape[1],
            metric=metric,
            dtype=dtype,
            connectivity=GRAPH_LINKS,
            expansion_add=GRAPH_BUILD_EFFORT,
        )
        for number, block in enumerate(_blocks(vectors)):
            index.add(number * BLOCK_ROWS + np.arange(len(block)), told(block, path))
        index.save(str(path))

    def open_(path: Path) -> Search:
        from usearch.index import Index

        index = Index.restore(str(path), view=True)

        def search(query: Array, effort: int) -> Array:
            index.expansion_search = effort
            rows: Array = index.search(told(query, path), K).keys
            return rows

        return search

    return build, open_


def _lance_build(vectors: Array, path: Path) -> None:
    import lancedb
    import pyarrow as pa

    width = vectors.shape[1]
    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), width))])

    def batches() -> Iterator[Any]:
        for number, block in enumerate(_blocks(vectors)):
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), width)
            yield pa.record_batch([pa.array(number * BLOCK_ROWS + np.arange(len(block))), values], schema)

    table = lancedb.connect(str(path)).create_table("v", pa.RecordBatchReader.from_batches(schema, batches()))
    table.create_index(metric="dot", num_partitions=max(1, int(len(vectors) ** 0.5)), num_sub_vectors=64)


def _lance_open(path: Path) -> Search:
    import lancedb

    table = lancedb.connect(str(path)).open_table("v")

    def search(query: Array, effort: int) -> Array:
        asked = table.search(query).distance_type("dot").nprobes(effort).refine_factor(effort // 2)
        found = asked.limit(K).to_arrow()
        return np.asarray(found["row"])

    return search


def _sklearn(algorithm: str) -> tuple[Callable[[Array, Path], None], Callable[[Path], Search]]:
    def build(vectors: Array, path: Path) -> None:
        from sklearn.neighbors import NearestNeighbors

        index = NearestNeighbors(n_neighbors=K, algorithm=algorithm).fit(vectors)
        with path.open("wb") as file:
            pickle.dump(index, file, protocol=5)

    def open_(path: Path) -> Search:
        with path.open("rb") as file:
            index = pickle.load(file)  # noqa: S301 - written by this run
        return lambda query, effort: index.kneighbors(query[None], return_distance=False)[0]

    return build, open_


def _save(vectors: Array, path: Path) -> None:
    for number, block in enumerate(_blocks(vectors)):
        np.save(path.with_suffix(f".{number:06}.npy"), block)


def _shards(path: Path) -> list[Array]:
    return [np.load(shard) for shard in sorted(path.parent.glob(f"{path.stem}.*.npy"))]


def _nearpy_open(path: Path) -> Search:
    from nearpy import Engine
    from nearpy.filters import NearestFilter
    from nearpy.hashes import RandomBinaryProjections

    shards = _shards(path)
    hashes = [RandomBinaryProjections(f"h{number}", 10, rand_seed=number) for number in range(4)]
    engine = Engine(shards[0].shape[1], lshashes=hashes, vector_filters=[NearestFilter(K)])
    for row, vector in enumerate(vector for shard in shards for vector in shard):
        engine.store_vector(vector, row)
    return lambda query, effort: np.array([row for _, row, _ in engine.neighbours(query)], np.int64)


def _scipy_open(path: Path) -> Search:
    from scipy.spatial.distance import cdist

    shards = _shards(path)

    def search(query: Array, effort: int) -> Array:
        distances = np.concatenate([cdist(query[None], shard, "cosine")[0] for shard in shards])
        return np.argsort(distances)[:K]

    return search


_GRAPH = "a graph visits few rows, but wants every full vector in memory, minutes to build, and filters afterwards"
_FLAT = "it holds nothing but the vectors"
_CELLS = "it visits few of its cells, and neither groups copies nor filters while it searches"
_GRAPH_8BIT = "a graph visits few rows, but takes minutes to build, links beside every code, and filters afterwards"
_MAPPED = "a graph visits few rows of its mapped file, but takes minutes to build and filters afterwards"
_FAISS_FLAT, _FAISS_HNSW = _faiss(_flat), _faiss(_hnsw, _tune_graph)
_HNSW_8BIT, _IVF_FAST_SCAN = _faiss(_hnsw_8bit, _tune_graph), _faiss(_ivf_fast_scan, _tune_cells)
_USEARCH_F16, _USEARCH_I8 = _usearch("f16"), _usearch("i8")
_BRUTE, _BALL_TREE = _sklearn("brute"), _sklearn("ball_tree")

PEERS = {
    peer.name: peer
    for peer in (
        Peer(name="faiss-flat", build=_FAISS_FLAT[0], open=_FAISS_FLAT[1], why=_FLAT),
        Peer(name="faiss-hnsw", build=_FAISS_HNSW[0], open=_FAISS_HNSW[1], efforts=GRAPH_EFFORTS, why=_GRAPH),
        Peer(name="hnswlib", build=_hnswlib_build, open=_hnswlib_open, efforts=GRAPH_EFFORTS, why=_GRAPH),
        Peer(name="faiss-hnsw-8bit", build=_HNSW_8BIT[0], open=_HNSW_8BIT[1], efforts=GRAPH_EFFORTS, why=_GRAPH_8BIT),
        Peer(
            name="faiss-ivf-fast-scan",
            build=_IVF_FAST_SCAN[0],
            open=_IVF_FAST_SCAN[1],
            efforts=CELL_EFFORTS,
            why=_CELLS,
        ),
        Peer(name="usearch-f16", build=_USEARCH_F16[0], open=_USEARCH_F16[1], efforts=GRAPH_EFFORTS, why=_MAPPED),
        Peer(name="usearch-i8", build=_USEARCH_I8[0], open=_USEARCH_I8[1], efforts=GRAPH_EFFORTS, why=_MAPPED),
        Peer(name="scann", build=_scann_build, open=_scann_open, efforts=CELL_EFFORTS, why=_CELLS),
        Peer(
            name="lancedb",
            build=_lance_build,
            open=_lance_open,
            efforts=(10, 20, 40, 80, 160),
            why="its vectors stay on disk until they are re-ranked",
        ),
        Peer(name="sklearn-brute", build=_BRUTE[0], open=_BRUTE[1], why=_FLAT),
        Peer(name="sklearn-ball-tree", build=_BALL_TREE[0], open=_BALL_TREE[1], why=_FLAT),
        Peer(name="nearpy", build=_save, open=_nearpy_open, why="it looks at few rows"),
        Peer(name="scipy-cdist", build=_save, open=_scipy_open, why=_FLAT),
    )
}
