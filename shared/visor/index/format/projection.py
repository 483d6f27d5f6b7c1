"""The similarity space: full vectors, or their projection as int8 codes; the scans through both; and a query's vector.

A projection is partial centring, PCA, partial whitening, then unit length; `visor.index.merge.learn` learns it.

The int8 scan runs on any memory (a map, a slice, a buffer) without copying it: FAISS's `QT_8bit_direct_signed` keeps a
coordinate c in [−128, 127] as the byte c + 128, and its list scanner takes a plain pointer. With a query of whole
numbers it works in integers (about 8 ms for 1,000,000 × 256 on two cores of 2026), and skips rows inside the loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np

from visor.errors import BadRequest
from visor.index.format.container import Array, Container, corrupt
from visor.index.format.fast_scan import FastScan

FOLDER = "projections/"
CODE_RANGE = 127
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
    learned_on: int = 0
    fast: Array | None = None
    """(b,) uint8: an empty FAISS fast scan whose code book was learned with the projection, if there were enough."""
    centres: Array | None = None
    """(c, m) float32 of unit length: the centres of the cells that hold the rows of a large index."""

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
"""The space of an empty index."""


def dot(rows: Array, vector: Array) -> Array:
    """Inner products (n,) float32 of rows (n, m) with a vector (m,), on this thread alone.

    BLAS would hand so small a product to its threads and wait for them: ten times slower on a busy machine.
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


def unit(vectors: Array) -> Array:
    """Rows scaled to length 1; a zero row stays zero."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32))[:, None]
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def query_vector(vector: Array, dimension: int) -> Array:
    """A query as (d,) float32 of length 1.

    Raises:
        BadRequest: It has another size, contains a number that is not finite, or is all zeros.
    """
    flat = np.asarray(vector, np.float32).reshape(-1)
    if len(flat) != dimension:
        raise BadRequest(
            f"The vector has {len(flat)} numbers",
            valid=f"{dimension}, as the vectors of this index have",
            remedy="Send a vector of the index's own model, or a picture",
        )
    length = float(np.linalg.norm(flat))
    if not np.isfinite(length) or length == 0:
        raise BadRequest(
            "The vector is all zeros or holds a number that is not finite",
            valid="Finite numbers, not all of them 0",
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
        raise corrupt(name, f"origin {origin.shape} and matrix {matrix.shape} do not fit together")
    about = container.about
    scans = {tensor: container.array(tensor) for tensor in ("fast", "centres") if tensor in container}
    return Projection(name, origin, matrix, float(about["scale"]), int(about["learned_on"]), **scans)


def int8_scan(codes: Array, query: Array, want: int, allowed: Array | None = None) -> Array:
    """The rows with the greatest inner products, unordered.

    Args:
        codes: (n, m) uint8, C-contiguous, as `space.encode` makes them.
        query: (m,) float32 of length 1.
        want: How many.
        allowed: (n,) bool; others are skipped inside the scan.

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


@dataclass(frozen=True)
class CodedVectors:
    """n rows as codes (n, m) uint8, scanned as integers.

    fast: the bytes (b,) uint8 of a fast scan of the same rows, if there is one. cells: (n,) uint16, which of the
    projection's cells each row is in.
    """

    codes: Array
    fast: Array | None = None
    cells: Array | None = None

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
            rows = self._fast_scan.scan(query, want)
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

    @cached_property
    def _fast_scan(self) -> FastScan:
        """Opened on first use: a search of cells does not need it."""
        assert self.fast is not None
        return FastScan.read(self.fast)


@dataclass(frozen=True, slots=True)
class FullVectors:
    """n rows as vectors (n, d) float32 of unit length, in an index without a projection. Used like `CodedVectors`."""

    vectors: Array

    def unit(self, rows: Array) -> Array:
        taken: Array = self.vectors[rows]
        return taken

    def scan(self, query: Array, want: int, allowed: Array | None, *, exact: bool) -> tuple[Array, Array]:
        rows = np.arange(len(self.vectors)) if allowed is None else np.flatnonzero(allowed)
        # With BLAS a row's similarity would depend on its position, and copies would not be equally near.
        parts = [dot(self.vectors[rows[i : i + EXACT_ROWS]], query) for i in range(0, len(rows), EXACT_ROWS)]
        scores = np.concatenate(parts) if parts else np.empty(0, np.float32)
        if len(rows) > want:
            best = np.argsort(-scores, kind="stable")[:want]
            rows, scores = rows[best], scores[best]
        return rows, scores

    @property
    def has_fast(self) -> bool:
        return False
