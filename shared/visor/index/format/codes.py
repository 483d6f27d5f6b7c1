"""First passes over codes: FAISS product-quantised fast scan, and int8 brute force with a selector.

The int8 scan runs on any memory (a map, a slice, a buffer) without copying it: FAISS's `QT_8bit_direct_signed` keeps a
coordinate c in [−128, 127] as the byte c + 128, and its list scanner takes a plain pointer. With a query of whole
numbers it works in integers (about 8 ms for 1,000,000 × 256 on two cores of 2026), and leaves rows out inside the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from visor.index.format.container import Array
from visor.index.format.projection import CODE_RANGE, decode, dot

PQ_BITS = 4
PQ_DIMENSIONS = 4
"""Coordinates in one 4-bit code: 256 numbers make 32 bytes (FAISS's `PQ64x4fs`)."""
PQ_TRAIN_MAX = 65_536
PQ_SAMPLES_MIN = 1000
PQ_ROWS_MIN = 20_000
"""Below this many rows the int8 scan is as fast as the fast scan."""
EXACT_ROWS = 5_000
"""Rows that a float scan goes through at once."""


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
    whole = np.rint(query * (CODE_RANGE / max(float(np.abs(query).max()), 1e-12))).astype(np.float32)
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


def rerank(codes: Array, query: Array, rows: Array) -> Array:
    """Similarities (len(rows),) float32 of the given rows: cosine of the query (m,) and their codes."""
    return dot(decode(codes[rows]), query)


class FastScan:
    """The product-quantised codes of one segment, in FAISS's serialised form (which FAISS reads for ever)."""

    def __init__(self, index: Any) -> None:
        self._index = index

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
        """Bytes that `write` gives once the index, empty now, holds so many rows."""
        block = int(self._index.bbs)
        return len(self.write()) + -(-rows // block) * block * int(self._index.M2) // 2

    def add(self, projected: Array) -> None:
        """Append unit vectors (n, m) float32."""
        # FAISS 1.15 ends the process when a fast scan is given no rows.
        if len(projected):
            self._index.add(np.ascontiguousarray(projected, np.float32))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def scan(self, query: Array, want: int) -> Array:
        """At most `want` rows whose estimated similarity to the query (m,) is greatest, int64."""
        _, rows = self._index.search(query[None], min(want, len(self)))
        found: Array = rows[0][rows[0] >= 0]
        return found


def train_fast_scan(sample: Array) -> Array | None:
    """The bytes of a trained, empty fast scan; None if unit vectors (s, m) are too few or do not divide."""
    if len(sample) < PQ_SAMPLES_MIN or sample.shape[1] % PQ_DIMENSIONS:
        return None
    return FastScan.train(sample).write()


@dataclass(frozen=True, slots=True)
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
