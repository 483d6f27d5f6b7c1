"""The same picture, told by its perceptual hash and its vector together."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PDQ_BYTES = 32
"""The first bytes of a stored hash: 256 bits of PDQ, of which two pictures without relation differ in about 128."""
SAME_BITS = 24
"""Bits of PDQ in which two copies of one picture differ at most (Facebook's own 31 lets flat drawings meet)."""
SAME_SIMILARITY = 0.9
"""Similarity that two copies of one picture have at least."""


def hash_distances(hashes: Array, query: Array) -> Array:
    """Hamming distances (n,) int64 between the PDQ parts of hashes (n, h) uint8 and of a query (≥ 32,) uint8."""
    differing = np.bitwise_xor(hashes[:, :PDQ_BYTES], query[:PDQ_BYTES])
    distances: Array = np.bitwise_count(differing).sum(1, dtype=np.int64)
    return distances


BANDS = 16
"""Parts of 16 bits that a PDQ hash is cut into: two hashes that differ in fewer bits than this agree in one part."""
BAND_NEIGHBOURS = 4
"""Rows with the same part that are compared with each other, so that a part that all share costs no square."""


def same_hash_groups(hashes: Array) -> tuple[Array, Array]:
    """Groups of rows whose PDQ hashes say that they may show the same picture; a search checks their vectors.

    Args:
        hashes: (n, h) uint8.

    Returns:
        rows (g,) int64, rising, and leaders (g,) int64: the first row of each one's group. Rows alone are left out.
    """
    n = len(hashes)
    leader = np.arange(n)
    if n < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    parts = np.ascontiguousarray(hashes[:, :PDQ_BYTES]).view("<u2")
    pairs = []
    for band in range(BANDS):
        order = np.argsort(parts[:, band], kind="stable")
        for step in range(1, BAND_NEIGHBOURS + 1):
            a, b = order[:-step], order[step:]
            same = parts[a, band] == parts[b, band]
            a, b = a[same], b[same]
            near = np.bitwise_count(hashes[a, :PDQ_BYTES] ^ hashes[b, :PDQ_BYTES]).sum(1, dtype=np.int64) <= SAME_BITS
            pairs.append(np.stack([a[near], b[near]]))
    found = np.unique(np.sort(np.concatenate(pairs, axis=1), axis=0), axis=1)
    for a, b in found.T:
        one, other = _root(leader, a), _root(leader, b)
        leader[max(one, other)] = min(one, other)
    for row in np.unique(found):
        leader[row] = _root(leader, row)
    rows = np.unique(found).astype(np.int64)
    return rows, leader[rows].astype(np.int64)


def _root(leader: Array, row: int) -> int:
    while leader[row] != row:
        row = leader[row]
    return int(row)
