"""The fingerprint of an image, which tells whether another one is the same: a PDQ hash and a tiny sketch of its pixels.

Layout of one row, `HASH_BYTES` long, uint8:

| bytes | what |
| --- | --- |
| 0-31 | PDQ, 256 bits: finds the same image among millions by Hamming distance |
| 32-121 | luma of 12 x 12 cells, row by row, 5 bits each (0…31), most significant bit first |
| 122-139 | Cb, then Cr, of 3 x 3 cells, 8 bits each |

The sketch is what tells crops, frames, captions and changes of colour apart; docs/decisions/images-hash.md has the
measurements.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visor.near_duplicates.hamming import PDQ_BYTES
from visor.near_duplicates.pdq import EDGE, pdq_bits

CELLS = 12
"""Luma cells along each side."""
CHROMA_CELLS = 3
LUMA_BITS = 5
PLANE = 96
"""Pixels along each side of the square that cells are averaged in; a multiple of both numbers of cells."""
HASH_BYTES = PDQ_BYTES + CELLS * CELLS * LUMA_BITS // 8 + 2 * CHROMA_CELLS * CHROMA_CELLS

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_LUMA_END = PDQ_BYTES + CELLS * CELLS * LUMA_BITS // 8
_LUMA_STEP = 256 / (1 << LUMA_BITS)
_BIT_WEIGHTS = (1 << np.arange(LUMA_BITS)[::-1]).astype(np.uint8)


def perceptual_hash(pixels: Image.Image) -> bytes:
    """The `HASH_BYTES` bytes that are kept of an upright RGB image of any size."""
    planes = ycbcr_planes(pixels)
    luma = np.minimum(cell_means(planes[..., 0], CELLS) / _LUMA_STEP, (1 << LUMA_BITS) - 1).astype(np.uint8)
    bits = (luma.reshape(-1, 1) & _BIT_WEIGHTS) > 0
    chroma = [np.rint(cell_means(planes[..., channel], CHROMA_CELLS)).astype(np.uint8) for channel in (1, 2)]
    return pdq(pixels) + np.packbits(bits).tobytes() + chroma[0].tobytes() + chroma[1].tobytes()


def pdq(pixels: Image.Image) -> bytes:
    """The 32 bytes of PDQ. The image is brought to one size first: PDQ's own filter depends on it."""
    square = pixels.resize((EDGE, EDGE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.packbits(pdq_bits(np.asarray(square))).tobytes()


def ycbcr_planes(pixels: Image.Image) -> Floats:
    """(PLANE, PLANE, 3) float32, 0…255: the whole image, squeezed to a square."""
    square = pixels.resize((PLANE, PLANE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(square.convert("YCbCr"), dtype=np.float32)


def cell_means(plane: Floats, cells: int) -> Floats:
    """Means (cells, cells) of a (PLANE, PLANE) plane."""
    edge = PLANE // cells
    means: Floats = plane.reshape(cells, edge, cells, edge).mean(axis=(1, 3))
    return means


def sketch_luma(hashes: Bytes) -> Floats:
    """Luma of the cells, (n, CELLS * CELLS) float32, 0…255 in steps of 8, of hashes (n, HASH_BYTES)."""
    bits = np.unpackbits(hashes[:, PDQ_BYTES:_LUMA_END], axis=1).reshape(len(hashes), -1, LUMA_BITS)
    levels: Floats = (bits @ _BIT_WEIGHTS).astype(np.float32)
    return (levels + np.float32(0.5)) * np.float32(_LUMA_STEP)


def sketch_chroma(hashes: Bytes) -> Floats:
    """Cb and Cr of the coarse cells, (n, 2, CHROMA_CELLS * CHROMA_CELLS) float32, 0…255, of hashes (n, HASH_BYTES)."""
    return hashes[:, _LUMA_END:HASH_BYTES].reshape(len(hashes), 2, -1).astype(np.float32)
