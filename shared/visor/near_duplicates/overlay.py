"""Overlay: one picture laid over another that shows the same, so that they can be compared point by point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, ImageChops

from visor.near_duplicates.fingerprint import CELLS, cell_means
from visor.near_duplicates.verdict import Aligner, Placement, undone

FITTED_SIDE = 128
"""Longest side in pixels at which a placement is fitted to the pixels."""
STEPS = (0.01, 0.005, 0.0025, 0.001)
"""Steps by which edges are moved in that fit, as fractions of a side."""
COVERED_MIN = 0.25
"""Least share of the first picture that the second has to cover."""
CONTRAST_MIN = 2.0
"""Standard deviation of luma below which pictures count as not alike."""


def lay_over(
    first: Image.Image, second: Image.Image, aligners: tuple[Aligner, Aligner] | None = None
) -> tuple[Image.Image, Image.Image, float]:
    """The second picture laid over the first, and which part of the first it covers.

    Args:
        first, second: RGB, of the same motif: whole, cropped, with a border, mirrored or turned.
        aligners: Those of both pictures, if they exist already.

    Returns:
        RGB and L of the first one's size, L being 255 where it is covered; and the correlation of their lumas there, -1
        to 1.
    """
    one, two = aligners or (Aligner(first), Aligner(second))
    over, under = (
        query.placement(cell_means(candidate.planes[..., 0], CELLS).reshape(1, -1))
        for query, candidate in ((one, two), (two, one))
    )
    candidates = [Placement(), over, _inverse(under)]
    small, other = (_shrunk(one, FITTED_SIDE) for one in (first.convert("L"), second.convert("L")))
    best = max(candidates, key=lambda placement: _likeness(small, other, placement))
    likeness, fitted = _fitted(small, other, best)
    return *_laid(second, fitted, first.size), likeness


def difference(first: Image.Image, laid: Image.Image, covered: Image.Image) -> Image.Image:
    """L, bright where the pictures of `lay_over` differ; the largest difference of a pixel's channels, 0 to 255."""
    red, green, blue = ImageChops.difference(first, laid).split()
    return ImageChops.multiply(ImageChops.lighter(ImageChops.lighter(red, green), blue), covered)


def _laid(second: Image.Image, placement: Placement, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    turned = second if placement.turn is None else second.transpose(placement.turn)
    frame = Image.new("L", size).rotate(-placement.angle, expand=True).size
    (left, right), (top, bottom) = placement.rectangle
    across, down = turned.width / (right - left), turned.height / (bottom - top)
    box = -left * across, -top * down, (1 - left) * across, (1 - top) * down
    layers = []
    for layer in (turned, Image.new("L", turned.size, 255)):
        moved = layer.transform(frame, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        back = moved.rotate(placement.angle, Image.Resampling.BILINEAR, expand=True)
        x, y = (back.width - size[0]) // 2, (back.height - size[1]) // 2
        layers.append(back.crop((x, y, x + size[0], y + size[1])))
    return layers[0], layers[1].point(lambda value: 255 if value > 250 else 0)


def _inverse(placement: Placement) -> Placement:
    """How the query lies over the candidate."""
    (left, right), (top, bottom) = placement.rectangle
    across, down = right - left, bottom - top
    rectangle = ((-left / across, (1 - left) / across), (-top / down, (1 - top) / down))
    turn = None if placement.turn is None else undone(placement.turn)
    return Placement(rectangle, turn, -placement.angle)


def _likeness(first: Image.Image, second: Image.Image, placement: Placement) -> float:
    """Correlation of the lumas of two grey pictures where they overlap."""
    laid, covered = _laid(second, placement, first.size)
    inside = np.asarray(covered) > 0
    if inside.mean() < COVERED_MIN:
        return -1.0
    one, other = (np.asarray(luma, np.float32)[inside] for luma in (first, laid))
    spread = max(float(one.std()), CONTRAST_MIN) * max(float(other.std()), CONTRAST_MIN)
    return float(((one - one.mean()) * (other - other.mean())).mean()) / spread


def _fitted(first: Image.Image, second: Image.Image, placement: Placement) -> tuple[float, Placement]:
    """The placement with its edges moved to where the pixels agree best, and how well they do."""
    best = _likeness(first, second, placement)
    for step in STEPS:
        for _ in range(8):
            found = max(((_likeness(first, second, p), p) for p in _moved(placement, step)), key=lambda one: one[0])
            if found[0] <= best:
                break
            best, placement = found
    return best, placement


def _moved(placement: Placement, step: float) -> Iterator[Placement]:
    """Shifted along a side, or with one edge moved."""
    (left, right), (top, bottom) = placement.rectangle
    for a, b in ((step, step), (-step, -step), (step, 0), (-step, 0), (0, step), (0, -step)):
        yield replace(placement, rectangle=((left + a, right + b), (top, bottom)))
        yield replace(placement, rectangle=((left, right), (top + a, bottom + b)))


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    small = picture.copy()
    small.thumbnail((side, side), reducing_gap=3.0)
    return small
