"""The ground for a transparent image: white, unless its subject would not be visible on white."""

from __future__ import annotations

import numpy as np
from PIL import Image

WHITE, GREY = (255, 255, 255), (96, 96, 96)
VISIBLE_MIN = 0.2
"""Share of a subject, weighted by its alpha, that must stand out from white. A white flash has 0, a ghost with black
eyes 0.17, a volleyball drawn in black lines 0.27."""
VISIBLE_DISTANCE = 24.0
"""Difference from white (0…255, greatest of the channels) from which a pixel stands out."""
SAMPLES_SIDE = 256
"""Pixels across and down that are examined: all of them would need as much memory as the image again."""


def contrasting_ground(rgba: Image.Image) -> tuple[int, int, int]:
    """`WHITE`, or `GREY` for an RGBA image that shows something white."""
    size = min(rgba.width, SAMPLES_SIDE), min(rgba.height, SAMPLES_SIDE)
    samples = np.asarray(rgba.resize(size, Image.Resampling.NEAREST), np.float32)
    alpha = samples[..., 3] / 255
    difference = (255 - samples[..., :3]).max(axis=-1) * alpha
    visible = float((alpha * (difference > VISIBLE_DISTANCE)).sum())
    return WHITE if visible >= VISIBLE_MIN * float(alpha.sum()) else GREY
