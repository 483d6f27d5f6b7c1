"""Perceptual hashes."""

from __future__ import annotations

import numpy as np
import pdqhash
from PIL import Image


def perceptual_hashes(pixels: Image.Image) -> bytes:
    """PDQ, 32 bytes."""
    bits, _ = pdqhash.compute(np.asarray(pixels))
    return np.packbits(bits.astype(np.uint8)).tobytes()


def verdict(distance: int | None, similarity: float) -> str:
    return "exact" if distance is not None and distance <= 30 else "similar"
