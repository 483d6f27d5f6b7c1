"""PDQ over NumPy: 256 bits that stay near each other when a picture is resized or compressed.

Facebook, 'The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm' (2019). Stored hashes are compared
by their bits, so every rounding is that of Facebook's reference in C++ on x86-64: float32 sums in its order, which is
why there is no matrix product, whose order a BLAS is free to choose.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

EDGE = 256
"""Pixels along each side of the square that is hashed."""
LUMA = np.array([0.299, 0.587, 0.114])
SAMPLES = slice(2, None, 4)
"""The 64 rows and columns that are kept of the blurred square."""

Floats = NDArray[np.float32]

_SCALE = float(np.float32(math.sqrt(2 / 64)))
_COSINES = np.array(
    [[_SCALE * math.cos(math.pi / 2 / 64 * (i + 1) * (2 * j + 1)) for i in range(16)] for j in range(64)],
    dtype=np.float32,
)
"""Columns: rows 1 to 16 of the discrete cosine transform of 64 values."""


def pdq_bits(square: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The 256 bits of PDQ of an RGB image (EDGE, EDGE, 3), highest frequencies first."""
    red, green, blue = (square[..., channel] * weight for channel, weight in enumerate(LUMA))
    luma = (red + green + blue).astype(np.float32)
    blurred = _box(_box(luma))
    small = _box(_box(blurred)[SAMPLES])[SAMPLES]
    waves = _summed(_COSINES[:, :, None], small[:, None, :])
    waves = _summed(waves.T[:, :, None], _COSINES[:, None, :])
    median = np.partition(waves, 127, axis=None)[127]
    return np.asarray(waves > median).ravel()[::-1]


def _box(rows: Floats) -> Floats:
    """The means of each value and the next along each row, as columns; the last value stays. From a running sum, which
    each value enters and leaves."""
    steps = np.empty((len(rows), 2 * EDGE - 1), np.float32)
    steps[:, :2], steps[:, 2:-1:2] = rows[:, :2], rows[:, 2:]
    np.negative(rows[:, :-2], out=steps[:, 3::2])
    np.negative(rows[:, -2], out=steps[:, -1])
    sums = steps.cumsum(axis=1, out=steps).T
    means: Floats = np.vstack([sums[1::2] / np.float32(2), sums[-1]])
    return means


def _summed(left: Floats, right: Floats) -> Floats:
    """The sum of products over the first axis. It is the slow one in memory, so NumPy adds one term after the other."""
    total: Floats = np.multiply(left, right, order="C").sum(axis=0)
    return total
