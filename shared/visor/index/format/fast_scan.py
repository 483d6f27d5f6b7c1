"""Fast scans: four-bit codes that FAISS scans, of one segment in the order of its rows, or of several in cells.

They estimate similarities to within a few hundredths, so the rows they find are put in order by better numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import faiss
import numpy as np

from visor.index.format.container import Array

PQ_BITS = 4
PQ_DIMENSIONS = 4
"""Coordinates in one 4-bit code: 256 numbers make 32 bytes (FAISS's `PQ64x4fs`)."""
PQ_TRAIN_MAX = 65_536
PQ_SAMPLES_MIN = 1000
PQ_ROWS_MIN = 20_000
"""Below this many rows the int8 scan is as fast as the fast scan."""
CELLS_ROWS_MIN = 65_536
"""Rows of an index from which a search visits only the nearest cells; with fewer, a scan of all is as fast."""
CELLS_LEARNED_FROM = CELLS_ROWS_MIN // 2
"""A projection learned on this many images or more has cells: it is learned anew before there are twice as many."""
CELLS = 512
CELLS_WITHIN = 0.2
"""A search visits all cells whose centre is at most this much less similar to the query than the nearest one: a query
that is near no centre needs many. See docs/decisions/index-cells.md."""
CELLS_ROWS = 16_384
"""The visited cells hold about this many rows or more."""
CELLS_ROUNDS = 8


class FastScan:
    """The product-quantised codes of one segment, in FAISS's serialised form (which later versions read, too)."""

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
        """From the bytes (b,) uint8 that `write` returned."""
        return cls(faiss.deserialize_index(np.ascontiguousarray(blob)))

    def write(self) -> Array:
        blob: Array = faiss.serialize_index(self._index)
        return blob

    def size_bytes(self, rows: int) -> int:
        """Size of what `write` returns once the index, empty now, holds this many rows."""
        block = int(self._index.bbs)
        return len(self.write()) + -(-rows // block) * block * int(self._index.M2) // 2

    def add(self, projected: Array) -> None:
        """Append unit vectors (n, m) float32."""
        # FAISS 1.15 ends the process when no rows are added to a fast scan.
        if len(projected):
            self._index.add(np.ascontiguousarray(projected, np.float32))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def scan(self, query: Array, want: int) -> Array:
        """At most `want` rows whose estimated similarity to the query (m,) is greatest, int64."""
        return _nearest(self._index, query, min(want, len(self)))

    @property
    def quantizer(self) -> Any:
        """FAISS's product quantiser, with the code book."""
        return self._index.pq

    def codes(self) -> Array:
        """(n, m / 8) uint8: the codes of each row, two per byte."""
        packer = self._index.get_CodePacker()
        packed = faiss.vector_to_array(self._index.codes).reshape(-1, packer.block_size)
        codes = np.empty((len(packed) * packer.nvec, packer.code_size), np.uint8)
        for number, block in enumerate(packed):
            packer.unpack_all(faiss.swig_ptr(block), faiss.swig_ptr(codes[number * packer.nvec :]))
        return codes[: len(self)]


class CellScan:
    """The rows of several segments in cells around common centres; a search visits the nearest cells.

    One table of a query's products serves all cells, because the codes are of the rows, not of their residuals.

    Args:
        centres: (c, m) float32, as `train_fast_scan` learns them.
        parts: The fast scan of each segment, all of one code book, and the cells (n,) of its rows.
    """

    def __init__(self, centres: Array, parts: Iterable[tuple[FastScan, Array]]) -> None:
        count, m = centres.shape
        self._centres, self._nearest = centres, faiss.IndexFlatIP(m)
        self._nearest.add(centres)
        plain: Any = faiss.IndexIVFPQ(self._nearest, m, count, m // PQ_DIMENSIONS, PQ_BITS, faiss.METRIC_INNER_PRODUCT)
        starts = [0]
        for scan, cells in parts:
            rows = np.argsort(cells, kind="stable")
            codes, bounds = scan.codes()[rows], np.searchsorted(cells[rows], np.arange(count + 1))
            numbers = starts[-1] + rows
            for cell, (start, stop) in enumerate(pairwise(bounds.tolist())):
                if start < stop:
                    pointers = faiss.swig_ptr(numbers[start:stop]), faiss.swig_ptr(codes[start:stop])
                    plain.invlists.add_entries(cell, stop - start, *pointers)
            starts.append(starts[-1] + len(cells))
            plain.pq = scan.quantizer
        plain.by_residual, plain.is_trained, plain.ntotal = False, True, starts[-1]
        self._starts = np.array(starts)
        self._index: Any = faiss.IndexIVFPQFastScan(plain)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def scan(self, query: Array, want: int) -> tuple[Array, Array]:
        """At most `want` rows whose estimated similarity to the query (m,) is greatest.

        Searches the nearest cells, or all if the nearest hold fewer rows.

        Returns:
            The segment of each row, rising, and the row's position in it, (r,) int64 both.
        """
        want, cells = min(want, len(self)), len(self._centres)
        found = _nearest(self._index, query, want, self._visited(query))
        if len(found) < want:
            found = _nearest(self._index, query, want, cells)
        found.sort()
        owners = np.searchsorted(self._starts, found, side="right") - 1
        return owners, found - self._starts[owners]

    def _visited(self, query: Array) -> int:
        """How many cells a search visits, the nearest ones."""
        near = np.einsum("ij,j->i", self._centres, query)
        within = int(np.count_nonzero(near >= near.max() - np.float32(CELLS_WITHIN)))
        cells = len(self._centres)
        return min(max(within, -(-CELLS_ROWS * cells // max(len(self), 1))), cells)


def nearest_cells(centres: Array, projected: Array) -> Array:
    """The cell (n,) uint16 that each unit vector (n, m) float32 is in."""
    nearest: Array = np.argmax(projected @ centres.T, axis=1)
    return nearest.astype(np.uint16)


def train_fast_scan(sample: Array, learned_on: int) -> dict[str, Array]:
    """The tensors that fast scans of an index need.

    Args:
        sample: Unit vectors (s, m) float32.
        learned_on: Rows in the index, of which the sample is a part.

    Returns:
        `fast` (b,) uint8: the bytes of a trained, empty fast scan, unless vectors are too few or m does not divide;
        and `centres` (`CELLS`, m) float32 of unit length, if there are enough rows.
    """
    if len(sample) < PQ_SAMPLES_MIN or sample.shape[1] % PQ_DIMENSIONS:
        return {}
    tensors = {"fast": FastScan.train(sample).write()}
    if learned_on >= CELLS_LEARNED_FROM:
        means: Any = faiss.Kmeans(
            sample.shape[1], CELLS, niter=CELLS_ROUNDS, spherical=True, min_points_per_centroid=1, seed=1
        )
        means.train(np.ascontiguousarray(sample[:PQ_TRAIN_MAX], np.float32))
        tensors["centres"] = means.centroids
    return tensors


def _nearest(index: Any, query: Array, want: int, visited: int = 0) -> Array:
    options: Any = {"nprobe": visited}
    _, rows = index.search(query[None], want, params=faiss.SearchParametersIVF(**options) if visited else None)
    found: Array = rows[0][rows[0] >= 0]
    return found
