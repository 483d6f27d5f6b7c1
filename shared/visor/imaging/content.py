"""How much there is to see in a picture: below a floor, there is nothing to compare with others.

A blank sheet, a disc or a gradient is near to any drawing on a plain ground, and its hash near to the hash of many.
Some measurements tell such a picture from those that show something. docs/decisions/nothing-to-compare.md has the
evidence, also for those that do not: PDQ's own quality, entropy, the share of all edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE = 128
"""Most pixels across and down in which edges are sought. A smaller image is not enlarged: that would smooth it."""
SIDE_MIN = 8
COARSE_SIDE = 64
"""Edge of the square in which neighbours are correlated and missing rows counted: JPEG's blocks vanish in it."""
EDGE_MIN = 12.0
"""Laplacian (4 times a pixel's luma minus its neighbours') from which a pixel is on an edge."""
GROUND_DISTANCE = 16.0
"""Largest difference of a channel (0…255) between a pixel of the ground and the border's median colour."""
RIM = 2
"""Pixels on both sides of the ground's border that belong to the subject's outline."""
COLOUR_DISTANCE = 48
"""Largest difference of a channel between a pixel and the flat colour as which it counts."""
COLOUR_SHARE_MIN = 0.02
"""Share of the pixels that a colour needs to count: colours that smooth the edges of lettering have less."""
COLOURS_MAX = 8
"""More are not counted."""
MISSING_DISTANCE = 3.0
"""Largest difference of a channel within the rows that a decoder filled in for missing ones."""

QUERY_INNER_MIN = 0.010
"""Floor for a query: lettering or a disc, also as JPEG, has at most 0.008; photos have 0.060, packshots 0.038."""
ITEM_INNER_MIN = 0.001
"""Floor for the catalogue: 14 of 534 drawings have less than 0.010, and all that show something at least 0.001."""
EDGES_MIN, COLOURS_MIN = 0.010, 4
"""With this share of edges of any kind and this many colours, a flat drawing shows something although its outlines are
empty inside: a disc, a square or lettering has one or two colours, a gradient four and no edge."""
CORRELATION_MIN = 0.1
"""Noise has −0.02 to 0.04, pictures 0.52 and more; pages of text have any, and few colours."""
MISSING_MAX = 0.4
"""Cut pictures lack 0.45 to 0.8 of their height; 1,401 whole ones lack nothing. If less is missing, the rest can be
compared."""


class Emptiness(StrEnum):
    """Why there is nothing to compare in a picture, as a sentence."""

    BLANK = "This picture is nearly blank: there is nothing in it to compare."
    FLAT = "This picture has only flat shapes or lettering in few colours: too little to compare."
    NOISE = "This picture is noise: there is nothing in it to compare."
    CUT = "The lower part of this picture is missing: only a part of it has arrived."


@dataclass(frozen=True, slots=True)
class Content:
    """Measurements of what one picture shows."""

    inner: float
    """Share of pixels on an edge, 0…1, without the outline of the subject on its ground."""
    edges: float
    """The same including the outline."""
    colours: int
    """Number of clearly different colours, 1 to `COLOURS_MAX`; only counted if there are few inner edges."""
    correlation: float
    """Correlation of a pixel with its neighbours, −1…1; 1 in a picture of one colour."""
    missing: float
    """Share of the height, 0…1, from the bottom up, in one colour that most of the other border does not have."""

    def emptiness(self, inner_min: float) -> Emptiness | None:
        """Why there is nothing to compare in it; None if there is something.

        Args:
            inner_min: `QUERY_INNER_MIN` or `ITEM_INNER_MIN`.
        """
        if self.inner < inner_min:
            if self.edges < EDGES_MIN:
                return Emptiness.BLANK
            if self.colours < COLOURS_MIN:
                return Emptiness.FLAT
        if self.correlation < CORRELATION_MIN:
            return Emptiness.NOISE
        return Emptiness.CUT if self.missing >= MISSING_MAX else None


def content_of(pixels: Image.Image) -> Content:
    """The content of an RGB picture of any size."""
    coarse = _scaled(pixels, COARSE_SIDE, COARSE_SIDE)
    width, height = (min(max(side, SIDE_MIN), SIDE) for side in pixels.size)
    inner, edges = _edges(_scaled(pixels, width, height))
    return Content(
        inner=inner,
        edges=edges,
        colours=_colours(pixels) if inner < QUERY_INNER_MIN else COLOURS_MAX,
        correlation=_neighbour_correlation(_luma(coarse)),
        missing=_missing_share(coarse),
    )


def _scaled(pixels: Image.Image, width: int, height: int) -> Plane:
    """(height, width, 3) float32, 0…255: the whole picture, squeezed to this size."""
    is_smaller = pixels.width >= width and pixels.height >= height
    how = Image.Resampling.BOX if is_smaller else Image.Resampling.BICUBIC
    return np.asarray(pixels.resize((width, height), how), np.float32)


def _luma(scaled: Plane) -> Plane:
    luma: Plane = scaled @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma


def _edges(scaled: Plane) -> tuple[float, float]:
    """Shares of pixels on an edge: without the outline, and all."""
    luma = _luma(scaled)
    edges = np.zeros(luma.shape, bool)
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    edges[1:-1, 1:-1] = np.abs(4 * luma[1:-1, 1:-1] - around) > EDGE_MIN
    border = np.concatenate([scaled[0], scaled[-1], scaled[:, 0], scaled[:, -1]])
    ground = np.abs(scaled - np.median(border, axis=0)).max(axis=-1) < GROUND_DISTANCE
    outline = _widened(ground) & _widened(~ground)
    return float((edges & ~outline).mean()), float(edges.mean())


def _colours(pixels: Image.Image) -> int:
    """Number of colours with at least `COLOUR_SHARE_MIN` of the pixels; the most frequent first takes its near ones."""
    left = np.asarray(pixels.resize((COARSE_SIDE, COARSE_SIDE), Image.Resampling.NEAREST), np.int32).reshape(-1, 3)
    enough, found = COLOUR_SHARE_MIN * len(left), 0
    for _ in range(2 * COLOURS_MAX):
        if len(left) < enough or found == COLOURS_MAX:
            break
        bins = (left >> 4) @ np.array([256, 16, 1])
        most = left[bins == np.bincount(bins).argmax()].mean(axis=0)
        near = np.abs(left - most).max(axis=1) <= COLOUR_DISTANCE
        found += int(near.sum() >= enough)
        left = left[~near]
    return found


def _widened(mask: Mask) -> Mask:
    """The mask, `RIM` pixels larger in each of four directions."""
    for _ in range(RIM):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def _neighbour_correlation(luma: Plane) -> float:
    centred = luma - luma.mean()
    variance = float((centred**2).mean())
    if variance <= 1:
        return 1.0
    across, down = (centred[:, 1:] * centred[:, :-1]).mean(), (centred[1:] * centred[:-1]).mean()
    return float(across + down) / 2 / variance


def _missing_share(square: Plane) -> float:
    height = len(square)
    fill = square[-1].mean(axis=0)
    is_filled = np.abs(square - fill).max(axis=(1, 2)) < MISSING_DISTANCE
    there = height - int(np.argmin(is_filled[::-1])) if not is_filled.all() else 0
    if there == 0:
        return 0.0
    border = np.concatenate([square[0], square[:there, 0], square[:there, -1]])
    differs = np.abs(border - fill).max(axis=1) > GROUND_DISTANCE
    return (height - there) / height if differs.mean() > 0.5 else 0.0
