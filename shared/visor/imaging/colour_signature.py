"""The colours of an image: a soft histogram over a, b and lightness of CIE L*a*b*."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

SIDE = 56
BINS, BIN_WIDTH = 9, 16.0
"""Centres of bins along a and b, from -64 to 64."""
COLOURS = BINS * BINS * 2
GROUND_DISTANCE, GROUND_SHARE = 12.0, 0.75
"""A border this even is a plain ground, which is not informative about the thing in front of it."""
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
_WHITE = np.array([0.9505, 1.0, 1.089], np.float32)


def colour_signature(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> Array:
    """Square roots of the histogram, scaled to length 255: (162,) uint8. A plain ground is left out.

    Args:
        box: Left, upper, right and lower edge in pixels of the part that counts; None: all.
    """
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, box)
    lab = _lab(np.asarray(small, np.float32) / 255)
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    ground = np.median(border, axis=0)
    weights = np.ones((SIDE, SIDE), np.float32)
    if (np.linalg.norm(border - ground, axis=-1) < GROUND_DISTANCE).mean() > GROUND_SHARE:
        thing = np.linalg.norm(lab - ground, axis=-1) > GROUND_DISTANCE
        weights = thing.astype(np.float32) if thing.any() else weights
    roots = np.sqrt(_histogram(lab, weights))
    signature: Array = np.rint(255 * roots / np.linalg.norm(roots)).astype(np.uint8)
    return signature


def _lab(rgb: Array) -> Array:
    """sRGB (…, 3) in [0, 1] as L*a*b*, D65."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ _XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab: Array = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
    return lab


def _histogram(lab: Array, weights: Array) -> Array:
    """(162,): each pixel is distributed over the four nearest bins of (a, b) and over dark and light."""
    a, b = (np.clip(lab[..., i] / BIN_WIDTH + BINS // 2, 0, BINS - 1.001) for i in (1, 2))
    light = np.clip(lab[..., 0] / 100, 0, 1)
    counts = np.zeros(COLOURS)
    for da in (0, 1):
        for db in (0, 1):
            share = weights * np.abs(1 - da - a % 1) * np.abs(1 - db - b % 1)
            places = ((a.astype(int) + da) * BINS + b.astype(int) + db) * 2
            for level, amount in ((0, 1 - light), (1, light)):
                counts += np.bincount((places + level).ravel(), (share * amount).ravel(), COLOURS)
    return counts
