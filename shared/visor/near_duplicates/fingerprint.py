"""The fingerprint of an image, which shows whether another one is the same: a PDQ hash and a tiny sketch of its pixels.

Layout of one row, `HASH_BYTES` long, uint8:

| bytes | what |
| --- | --- |
| 0-31 | PDQ, 256 bits: finds the same image among millions by Hamming distance |
| 32-121 | luma of 12 x 12 cells, row by row, 5 bits each (0…31), most significant bit first |
| 122-139 | Cb, then Cr, of 3 x 3 cells, 8 bits each |

The sketch distinguishes crops, frames, captions and changes of colour; docs/decisions/images-hash.md has the
measurements. Here fingerprints are read and compared, which needs no picture; `perceptual_hash` makes them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.near_duplicates.thresholds import SAME_BITS, SAME_SIMILARITY

Array = np.ndarray[Any, Any]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

PDQ_BYTES = 32
"""The first bytes of a stored hash: 256 bits of PDQ."""
CELLS = 12
"""Luma cells along each side."""
CHROMA_CELLS = 3
LUMA_BITS = 5
PLANE = 96
"""Pixels along each side of the square that cells are averaged in; a multiple of both numbers of cells."""
LUMA_END = PDQ_BYTES + CELLS * CELLS * LUMA_BITS // 8
LUMA_STEP = 256 / (1 << LUMA_BITS)
BIT_WEIGHTS = (1 << np.arange(LUMA_BITS)[::-1]).astype(np.uint8)
HASH_BYTES = LUMA_END + 2 * CHROMA_CELLS * CHROMA_CELLS
PAIRS_AT_ONCE = 128
"""Rows that are compared with all others at once."""
BANDS = 16
"""Parts of 16 bits that a PDQ hash is cut into: two hashes that differ in fewer bits than this agree in one part."""
BAND_NEIGHBOURS = 4
"""Rows with the same part that each is compared with, so that a part shared by all does not cost quadratic time."""


def cell_means(plane: Floats, cells: int) -> Floats:
    """Means (cells, cells) of a (PLANE, PLANE) plane."""
    edge = PLANE // cells
    means: Floats = plane.reshape(cells, edge, cells, edge).mean(axis=(1, 3))
    return means


def sketch_luma(hashes: Bytes) -> Floats:
    """Luma of the cells, (n, CELLS * CELLS) float32, 0…255 in steps of 8, of hashes (n, HASH_BYTES)."""
    bits = np.unpackbits(hashes[:, PDQ_BYTES:LUMA_END], axis=1).reshape(len(hashes), -1, LUMA_BITS)
    levels: Floats = (bits @ BIT_WEIGHTS).astype(np.float32)
    return (levels + np.float32(0.5)) * np.float32(LUMA_STEP)


def sketch_chroma(hashes: Bytes) -> Floats:
    """Cb and Cr of the coarse cells, (n, 2, CHROMA_CELLS * CHROMA_CELLS) float32, 0…255, of hashes (n, HASH_BYTES)."""
    return hashes[:, LUMA_END:HASH_BYTES].reshape(len(hashes), 2, -1).astype(np.float32)


def unmatchable_hash(item_id: str) -> bytes:
    """The hash of a picture with nothing to compare: `HASH_BYTES` random bytes, the same ones for one item.

    Two such PDQ hashes, or one and a picture's, differ in 128 of 256 bits give or take 8; copies differ in 24 at most.
    A sketch of random cells correlates with no picture. So neither a search nor a merge nor a check of links takes the
    item for a copy of another one, and none of them needs to know about it.
    """
    return hashlib.shake_128(item_id.encode()).digest(HASH_BYTES)


def hash_distances(hashes: Array, others: Array) -> Array:
    """Hamming distances (n,) int64, 0 to 256, of PDQ: hashes (n, ≥ 32) uint8 to others, (≥ 32,) or (n, ≥ 32) uint8."""
    differing = np.bitwise_xor(hashes[:, :PDQ_BYTES], others[..., :PDQ_BYTES])
    distances: Array = np.bitwise_count(differing).sum(1, dtype=np.int64)
    return distances


def first_duplicate(hashes: Array, vectors: Array, images: int | None = None) -> Array:
    """For each of n rows in rank order, its first near-duplicate (itself if there is none): (n,) int64.

    Args:
        hashes: (n, h) uint8.
        vectors: (n, m) float32, unit length.
        images: Look for near-duplicates of only this many different images, which costs `images` · n at most.
    """
    leader = np.arange(len(hashes))
    words = np.ascontiguousarray(hashes[:, :PDQ_BYTES]).view(np.uint64)
    left, found = leader.copy(), 0
    while len(left) and (images is None or found < images):
        some = left[: min(PAIRS_AT_ONCE, len(left) if images is None else images - found)]
        near = np.bitwise_count(words[some, None] ^ words[left]).sum(2, dtype=np.int16) <= SAME_BITS
        for i, is_near in zip(some.tolist(), near, strict=True):
            if leader[i] != i:
                continue
            found += 1
            rows = left[is_near]
            rows = rows[(rows > i) & (leader[rows] == rows)]
            leader[rows[vectors[rows] @ vectors[i] >= SAME_SIMILARITY]] = i
        left = left[len(some) :]
        left = left[leader[left] == left]
    return leader


def same_hash_groups(hashes: Array) -> tuple[Array, Array]:
    """Groups of rows that may be near-duplicates by their PDQ hashes; a search checks their vectors.

    Args:
        hashes: (n, h) uint8.

    Returns:
        rows (g,) int64, rising, and leaders (g,) int64: the first row of each one's group. Groups of one
        row are left out.
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
            near = hash_distances(hashes[a], hashes[b]) <= SAME_BITS
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
