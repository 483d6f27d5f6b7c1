"""The similarity space: full vectors, or their projection as int8 codes; and the scans through both.

A projection is centring in part, PCA, partial whitening and unit length; `visor.index.merge.learn` learns it.

The int8 scan runs on any memory (a map, a slice, a buffer) without copying it: FAISS's `QT_8bit_direct_signed` keeps a
coordinate c in [−128, 127] as the byte c + 128, and its list scanner takes a plain pointer. With a query of whole
numbers it works in integers (about 8 ms for 1,000,000 × 256 on two cores of 2026), and leaves rows out inside the loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np

from visor.errors import BadRequest
from visor.index.format.container import Array, Container, corrupt, unit

FOLDER = "projections/"
CODE_RANGE = 127
PQ_BITS = 4
PQ_DIMENSIONS = 4
"""Coordinates in one 4-bit code: 256 numbers make 32 bytes (FAISS's `PQ64x4fs`)."""
PQ_TRAIN_MAX = 65_536
PQ_SAMPLES_MIN = 1000
PQ_ROWS_MIN = 20_000
"""Below this many rows the int8 scan is as fast as the fast scan."""
CELLS_ROWS_MIN = 65_536
"""Rows from which a fast scan lies in cells, of which a search visits the nearest; fewer are scanned as soon."""
CELLS = 128
CELLS_VISITED = 8
"""Cells that a search visits at least …"""
CELLS_WITHIN = 0.15
"""… and all whose centre is so much less similar to the query than the nearest one: a query that is near to none needs
many. See docs/decisions/index-cells.md."""
CELLS_LEARNED_ON = 16_384
"""Rows that the centres of cells are learned on, about."""
CELLS_ROUNDS = 8
EXACT_ROWS = 5_000
"""Rows that a float scan goes through at once."""


@dataclass(frozen=True, slots=True)
class FullSpace:
    """Full vectors at unit length: the space of an index that is too small to learn a projection from."""

    dimension: int
    """d; 0 while nothing is indexed."""

    @property
    def name(self) -> None:
        """It has no object."""
        return None

    @property
    def dimensions(self) -> int:
        return self.dimension

    def project(self, vectors: Array) -> Array:
        """Full vectors (n, d), any float dtype, as unit vectors (n, d) float32."""
        return unit(np.asarray(vectors, np.float32))

    def project_unnormalised(self, vector: Array) -> Array:
        return vector


@dataclass(frozen=True, slots=True)
class Projection:
    """Maps full vectors (n, d) to unit vectors (n, m) whose inner product is the similarity."""

    name: str
    """Object name, which tells projections apart."""
    origin: Array
    """(d,) float32, subtracted first."""
    matrix: Array
    """(d, m) float32."""
    scale: float
    """A coordinate times this, rounded, is its int8 code."""
    fast: Array | None = None
    """(b,) uint8: an empty FAISS fast scan whose code book was learned with the projection, if there were enough."""
    learned_on: int = 0

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.origin)

    @property
    def dimensions(self) -> int:
        """m."""
        return int(self.matrix.shape[1])

    def project(self, vectors: Array) -> Array:
        """Full vectors (n, d), any float dtype, as unit vectors (n, m) float32."""
        full = np.asarray(vectors, np.float32)
        if len(full) == 1:
            return unit(self.project_unnormalised(full[0])[None])
        return unit((full - self.origin) @ self.matrix)

    def project_unnormalised(self, vector: Array) -> Array:
        """The part of one full vector (d,) float32 that lies in the space, as (m,) float32, not yet of unit length."""
        return dot(self.matrix.T, vector - self.origin)

    def code(self, vectors: Array) -> Array:
        """Full vectors (n, d) as codes (n, m) uint8: the rounded coordinate plus 128."""
        return encode(self.project(vectors), self.scale)


Space = FullSpace | Projection
"""Both have `name`, `dimension` (d), `dimensions` (m), `project` and `project_unnormalised`."""
EMPTY_SPACE = FullSpace(0)
"""Of an index that holds nothing."""


def dot(rows: Array, vector: Array) -> Array:
    """Inner products (n,) float32 of rows (n, m) with a vector (m,), on this thread alone.

    BLAS would hand so small a product to its threads and wait for them: on a busy machine ten times as long as this.
    """
    products: Array = np.einsum("ij,j->i", rows, vector)
    return products


def encode(projected: Array, scale: float) -> Array:
    """Unit vectors (n, m) float32 as codes (n, m) uint8."""
    rounded = np.rint(projected * np.float32(scale))
    np.clip(rounded, -CODE_RANGE, CODE_RANGE, out=rounded)
    return (rounded.astype(np.int16) + 128).astype(np.uint8)


def decode(codes: Array) -> Array:
    """Codes (n, m) uint8 as unit vectors (n, m) float32."""
    return unit(codes.astype(np.float32) - np.float32(128))


def query_vector(vector: Array, dimension: int) -> Array:
    """A query as (d,) float32 of length 1.

    Raises:
        BadRequest: It has another size, or holds a number that is not finite, or only zeros.
    """
    flat = np.asarray(vector, np.float32).reshape(-1)
    if len(flat) != dimension:
        raise BadRequest(
            f"The vector has {len(flat)} numbers",
            valid=f"The vectors of this index have {dimension}",
            remedy="Send a vector of the index's own model, or a picture",
        )
    length = float(np.linalg.norm(flat))
    if not np.isfinite(length) or length == 0:
        raise BadRequest(
            "The vector is all zeros or holds a number that is not finite",
            valid="A vector has finite numbers, not all of them 0",
            remedy="Send the vector as an answer's query.vector gives it",
        )
    return flat / np.float32(length)


def read_projection(name: str, view: memoryview) -> Projection:
    """The projection in an object.

    Raises:
        CorruptObject, NewerFormat: It cannot be read.
    """
    container = Container.open(name, view, kind="projection")
    origin, matrix = container.array("origin"), container.array("matrix")
    if matrix.ndim != 2 or origin.shape != matrix.shape[:1]:
        raise corrupt(name, f"origin {origin.shape} and matrix {matrix.shape} do not fit")
    about = container.about
    fast = container.array("fast") if "fast" in container else None
    return Projection(name, origin, matrix, float(about["scale"]), fast, int(about["learned_on"]))


def int8_scan(codes: Array, query: Array, want: int, allowed: Array | None = None) -> Array:
    """The rows of the greatest inner products, unordered.

    Args:
        codes: (n, m) uint8, C-contiguous, as `space.encode` makes them.
        query: (m,) float32 of length 1.
        want: How many.
        allowed: (n,) bool; others are passed over inside the scan.

    Returns:
        At most `want` rows, int64. The query is rounded to int8 for this pass, so let `rerank` put them in order.
    """
    n, m = codes.shape
    want = min(want, n)
    if want == 0:
        return np.empty(0, np.int64)
    whole, _ = rounded_query(query)
    quantizer: Any = faiss.ScalarQuantizer(m, faiss.ScalarQuantizer.QT_8bit_direct_signed)
    origin = faiss.IndexFlatIP(m)
    selector = None
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(n, faiss.swig_ptr(bits))
    scanner = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, origin, True, selector, False)
    scanner.set_query(faiss.swig_ptr(whole))
    scanner.set_list(0, 0.0)
    scores = np.full(want, -np.inf, np.float32)
    rows = np.full(want, -1, np.int64)
    scanner.scan_codes(n, faiss.swig_ptr(codes), None, faiss.swig_ptr(scores), faiss.swig_ptr(rows), want)
    return rows[rows >= 0]


def rounded_query(query: Array) -> tuple[Array, float]:
    """A query (m,) times a number, rounded to int8, as float32; and that number."""
    size = CODE_RANGE / max(float(np.abs(query).max()), 1e-12)
    return np.rint(query * size).astype(np.float32), size


def rerank(codes: Array, query: Array, rows: Array) -> Array:
    """Similarities (len(rows),) float32 of the given rows: cosine of the query (m,) and their codes."""
    return dot(decode(codes[rows]), query)


class FastScan:
    """The product-quantised codes of one segment, in FAISS's serialised form (which FAISS reads for ever)."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.cells = int(getattr(index, "nlist", 0))
        """In how many cells the rows lie; 0: in none, so that each search goes through all."""
        self._centres: Array = np.empty((0, 0), np.float32)
        if self.cells:
            self._centres = faiss.downcast_index(index.quantizer).reconstruct_n(0, self.cells)

    @classmethod
    def train(cls, sample: Array) -> FastScan:
        """An empty index, its code book learned on unit vectors (s, m) float32; s ≥ 16, m a multiple of 4."""
        m = sample.shape[1]
        index = faiss.IndexPQFastScan(m, m // PQ_DIMENSIONS, PQ_BITS, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.min_points_per_centroid = 1
        index.train(np.ascontiguousarray(sample[:PQ_TRAIN_MAX], np.float32))
        return cls(index)

    @classmethod
    def read(cls, blob: Array) -> FastScan:
        """From the bytes (b,) uint8 that `write` gave."""
        return cls(faiss.deserialize_index(np.ascontiguousarray(blob)))

    def write(self) -> Array:
        blob: Array = faiss.serialize_index(self._index)
        return blob

    def size_bytes(self, rows: int) -> int:
        """Bytes that `write` gives once the index, empty now, holds so many rows; with cells, at most."""
        block, cells = int(self._index.bbs), self.cells
        blocks = -(-rows // block) if not cells else (rows + (block - 1) * cells) // block
        ids = 8 * rows if cells else 0
        return len(self.write()) + blocks * block * int(self._index.M2) // 2 + ids

    def fit_for(self, rows: int) -> FastScan:
        """An empty index of the same code book, in cells if it is to hold enough rows."""
        return self.in_cells(np.zeros((CELLS, self._index.d), np.float32)) if rows >= CELLS_ROWS_MIN else self

    def in_cells(self, centres: Array) -> FastScan:
        """An empty index of the same code book whose rows lie in cells around centres (c, m) float32.

        One table of a query's products serves all cells, for what is coded is the row and not what is left of it.
        """
        flat, m = self._index, centres.shape[1]
        nearest = faiss.IndexFlatIP(m)
        nearest.add(centres)
        index = faiss.IndexIVFPQFastScan(nearest, m, len(centres), flat.pq.M, PQ_BITS, faiss.METRIC_INNER_PRODUCT)
        index.by_residual, index.pq, index.is_trained = False, flat.pq, True
        # What a reader visits that knows of no cells.
        index.nprobe = max(1, len(centres) // 8)
        return FastScan(index)

    def add(self, projected: Array) -> None:
        """Append unit vectors (n, m) float32."""
        # FAISS 1.15 ends the process when a fast scan is given no rows.
        if len(projected):
            self._index.add(np.ascontiguousarray(projected, np.float32))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def scan(self, query: Array, want: int) -> Array:
        """At most `want` rows whose estimated similarity to the query (m,) is greatest, int64.

        Of rows in cells those in the nearest cells; in all, where these hold fewer rows than are wanted.
        """
        want = min(want, len(self))
        found = self._search(query, want, self._visited(query))
        return found if len(found) == want else self._search(query, want, self.cells)

    def _visited(self, query: Array) -> int:
        """How many cells a search visits, the nearest ones."""
        if not self.cells:
            return 0
        near = dot(self._centres, query)
        within = int(np.count_nonzero(near >= near.max() - np.float32(CELLS_WITHIN)))
        return min(max(within, CELLS_VISITED), self.cells)

    def _search(self, query: Array, want: int, visited: int) -> Array:
        options: Any = {"nprobe": visited}
        parameters = faiss.SearchParametersIVF(**options) if visited else None
        _, rows = self._index.search(query[None], want, params=parameters)
        found: Array = rows[0][rows[0] >= 0]
        return found


def cell_centres(codes: Array) -> Array:
    """Centres (`CELLS`, m) float32 of unit length, learned on some of the rows with codes (n, m) uint8."""
    means: Any = faiss.Kmeans(codes.shape[1], CELLS, niter=CELLS_ROUNDS, spherical=True, min_points_per_centroid=1)
    means.train(decode(codes[:: max(1, len(codes) // CELLS_LEARNED_ON)]))
    centres: Array = means.centroids
    return centres


def train_fast_scan(sample: Array) -> Array | None:
    """The bytes of a trained, empty fast scan; None if unit vectors (s, m) are too few or do not divide."""
    if len(sample) < PQ_SAMPLES_MIN or sample.shape[1] % PQ_DIMENSIONS:
        return None
    return FastScan.train(sample).write()


@dataclass(frozen=True)
class CodedVectors:
    """n rows as codes (n, m) uint8, scanned as integers, and perhaps a fast scan of the same rows."""

    codes: Array
    fast: FastScan | None = None

    def unit(self, rows: Array) -> Array:
        """(len(rows), m) float32 of unit length."""
        return decode(self.codes[rows])

    def scan(self, query: Array, want: int, allowed: Array | None, *, exact: bool) -> tuple[Array, Array]:
        """The `want` nearest allowed rows and their similarities, unordered.

        Args:
            query: (m,) float32, unit length.
            want: How many, at most.
            allowed: (n,) bool, or None for all.
            exact: Compare with every row, even where there is a fast scan.
        """
        if self.fast is not None and not exact and allowed is None:
            rows = self.fast.scan(query, want)
        else:
            rows = int8_scan(self.codes, query, want, allowed)
        return rows, rerank(self.codes, query, rows)

    def within(self, query: Array, want: int, allowed: Array | None) -> tuple[Array, float]:
        """About the `want` nearest allowed rows, and a similarity that no other reaches."""
        rows = int8_scan(self.codes, query, want, allowed)
        if len(rows) < want:
            return rows, -math.inf
        whole, size = rounded_query(query)
        least = float(dot(self.codes[rows].astype(np.float32) - np.float32(128), whole).min()) / size
        # |c·q - c·q'| <= |c| |q - q'| for the query q, its rounded form q' and any code c.
        rounding = float(np.linalg.norm(whole / size - query))
        return rows, max(least, 0.0) / max(self.shortest, 1e-9) + rounding + 1e-5

    @cached_property
    def shortest(self) -> float:
        """Least length of the codes; computed once."""
        parts = (self.codes[i : i + EXACT_ROWS].astype(np.float32) - 128 for i in range(0, len(self.codes), EXACT_ROWS))
        return math.sqrt(min(float(np.einsum("ij,ij->i", part, part).min()) for part in parts))

    @property
    def has_fast(self) -> bool:
        return self.fast is not None


@dataclass(frozen=True, slots=True)
class FullVectors:
    """n rows as vectors (n, d) float32 of unit length, in an index without a projection. Used as `CodedVectors`."""

    vectors: Array

    def unit(self, rows: Array) -> Array:
        taken: Array = self.vectors[rows]
        return taken

    def scan(self, query: Array, want: int, allowed: Array | None, *, exact: bool) -> tuple[Array, Array]:
        rows = np.arange(len(self.vectors)) if allowed is None else np.flatnonzero(allowed)
        parts = [self.vectors[rows[i : i + EXACT_ROWS]] @ query for i in range(0, len(rows), EXACT_ROWS)]
        scores = np.concatenate(parts) if parts else np.empty(0, np.float32)
        if len(rows) > want:
            best = np.argpartition(-scores, want - 1)[:want]
            rows, scores = rows[best], scores[best]
        return rows, scores

    @property
    def has_fast(self) -> bool:
        return False
