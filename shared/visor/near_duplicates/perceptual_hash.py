"""The perceptual hash: the fingerprint of an image is made, bit for bit PDQ.

PDQ: Facebook, 'The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm' (2019). Stored hashes are
compared by their bits, so every rounding is that of Facebook's reference in C++ on x86-64: float32 sums in its order,
which is why there is no matrix product, whose order a BLAS is free to choose.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visor.near_duplicates.fingerprint import (
    BIT_WEIGHTS,
    CELLS,
    CHROMA_CELLS,
    LUMA_BITS,
    LUMA_STEP,
    PLANE,
    Bytes,
    Floats,
    cell_means,
)

PDQ_EDGE = 256
"""Pixels along each side of the square that is hashed."""
PDQ_LUMA = np.array([0.299, 0.587, 0.114])
PDQ_SAMPLES = slice(2, None, 4)
"""The 64 rows and columns that are kept of the blurred square."""

_SCALE = float(np.float32(math.sqrt(2 / 64)))
_COSINES = np.array(
    [[_SCALE * math.cos(math.pi / 2 / 64 * (i + 1) * (2 * j + 1)) for i in range(16)] for j in range(64)],
    dtype=np.float32,
)
"""Columns: rows 1 to 16 of the discrete cosine transform of 64 values."""


def perceptual_hash(pixels: Image.Image) -> bytes:
    """The `HASH_BYTES` bytes that are kept of an upright RGB image of any size."""
    planes = ycbcr_planes(pixels)
    luma = np.minimum(cell_means(planes[..., 0], CELLS) / LUMA_STEP, (1 << LUMA_BITS) - 1).astype(np.uint8)
    bits = (luma.reshape(-1, 1) & BIT_WEIGHTS) > 0
    chroma = [np.rint(cell_means(planes[..., channel], CHROMA_CELLS)).astype(np.uint8) for channel in (1, 2)]
    return pdq(pixels) + np.packbits(bits).tobytes() + chroma[0].tobytes() + chroma[1].tobytes()


def pdq(pixels: Image.Image) -> bytes:
    """The 32 bytes of PDQ. The image is scaled to one size first: PDQ's own filter depends on it."""
    square = pixels.resize((PDQ_EDGE, PDQ_EDGE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.packbits(pdq_bits(np.asarray(square))).tobytes()


def pdq_bits(square: Bytes) -> NDArray[np.bool_]:
    """The 256 bits of PDQ of an RGB image (PDQ_EDGE, PDQ_EDGE, 3), highest frequencies first."""
    red, green, blue = (square[..., channel] * weight for channel, weight in enumerate(PDQ_LUMA))
    luma = (red + green + blue).astype(np.float32)
    blurred = _box(_box(luma))
    small = _box(_box(blurred)[PDQ_SAMPLES])[PDQ_SAMPLES]
    waves = _summed(_COSINES[:, :, None], small[:, None, :])
    waves = _summed(waves.T[:, :, None], _COSINES[:, None, :])
    median = np.partition(waves, 127, axis=None)[127]
    return np.asarray(waves > median).ravel()[::-1]


def _box(rows: Floats) -> Floats:
    """The means of each value and the next along each row, as columns; the last value stays. From a running sum, which
    adds each value and later subtracts it."""
    steps = np.empty((len(rows), 2 * PDQ_EDGE - 1), np.float32)
    steps[:, :2], steps[:, 2:-1:2] = rows[:, :2], rows[:, 2:]
    np.negative(rows[:, :-2], out=steps[:, 3::2])
    np.negative(rows[:, -2], out=steps[:, -1])
    sums = steps.cumsum(axis=1, out=steps).T
    means: Floats = np.vstack([sums[1::2] / np.float32(2), sums[-1]])
    return means


def _summed(left: Floats, right: Floats) -> Floats:
    """The sum of products over the first axis. It is memory's slow axis, so NumPy adds one term at a time."""
    total: Floats = np.multiply(left, right, order="C").sum(axis=0)
    return total


def ycbcr_planes(pixels: Image.Image) -> Floats:
    """(PLANE, PLANE, 3) float32, 0…255: the whole image, squeezed to a square."""
    square = pixels.resize((PLANE, PLANE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(square.convert("YCbCr"), dtype=np.float32)
