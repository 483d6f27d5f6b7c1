"""Heat: which places of a picture its vector comes from, and which parts of it one may want to search for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from visor.errors import BadRequest
from visor.free_tier.quota import note_work
from visor.imaging.focus import BOX_SIDE_MIN
from visor.index.format.container import Array
from visor.models.description import ModelDescription
from visor.models.embedder import Embedder, joined_vector
from visor.schema.search import Box, Region

GRID = 16
"""Cells along each side of a heat-map: about what the finest feature map has."""
LOW = 50.0
"""Percentile of a picture's places below which nothing is shown."""
REGIONS_MAX = 4
LEVELS = (0.3, 0.45, 0.6, 0.75)
"""Levels of heat at which parts are cut out of a picture."""
AREA = (0.03, 0.8)
"""Least and greatest share of a picture that a region covers."""
OVERLAP_MAX = 0.35
"""Greatest share of the smaller of two regions that may be in both."""
GAIN_MIN = 0.2
"""Least share of the best region's gain that a further one has."""
LABEL_MIN = 0.25
"""Probability from which on a region has a label: on shelves, lower ones are guesses."""


def regions(embedder: Embedder, picture: Image.Image, mean: Array | None = None) -> tuple[Region, ...]:
    """Up to four parts of a picture that hold what is special about it, the most distinctive first; none if the model
    has no feature maps.

    The model runs on each for its label, so this costs as much as up to five pictures.

    Args:
        picture: RGB.
        mean: As for `explain`.
    """
    if not embedder.description.has_maps:
        return ()
    maps = embedder.features(picture)
    vector = vector_of(embedder.description, maps)
    special = vector - (0 if mean is None else mean)
    boxes = _telling(heat(maps, np.where(special > 0, special**2, 0)))
    boxes = [box for box in boxes if min(_cut(picture, box).size) >= BOX_SIDE_MIN]
    seen = embedder.embed([_cut(picture, box) for box in boxes])
    note_work("pictures", 1 + len(boxes))
    sure = [[label.name for label in found if label.probability >= LABEL_MIN] for found in seen.labels]
    return tuple(Region(box=box, label=next(iter(names), None)) for box, names in zip(boxes, sure, strict=True))


def _telling(warmth: Array) -> list[Box]:
    """Boxes that hold much more of the heat than of the area, and little of each other."""
    total, best = max(float(warmth.sum()), 1e-9), 0.0
    chosen: list[Box] = []

    def gain(box: Box) -> float:
        x, y, width, height = (round(part * GRID) for part in box)
        return float(warmth[y : y + height, x : x + width].sum()) / total - box[2] * box[3]

    for box in sorted(_parts(warmth), key=gain, reverse=True):
        best = best or gain(box)
        is_apart = all(_overlap(box, other) <= OVERLAP_MAX for other in chosen)
        if is_apart and gain(box) >= GAIN_MIN * best > 0:
            chosen.append(box)
    return chosen[:REGIONS_MAX]


def _parts(warmth: Array) -> Iterator[Box]:
    """Connected parts at each level of heat."""
    from scipy import ndimage  # late, for cold starts

    for level in LEVELS:
        numbered, _ = ndimage.label(warmth >= level, np.ones((3, 3)))
        for down, across in ndimage.find_objects(numbered):
            box = (across.start, down.start, across.stop - across.start, down.stop - down.start)
            x, y, width, height = (part / GRID for part in box)
            if AREA[0] <= width * height <= AREA[1]:
                yield x, y, width, height


def _overlap(one: Box, other: Box) -> float:
    shared = [max(0.0, min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    return shared[0] * shared[1] / min(one[2] * one[3], other[2] * other[3])


def _cut(picture: Image.Image, box: Box) -> Image.Image:
    x, y, width, height = box
    columns, rows = picture.size
    return picture.crop((round(x * columns), round(y * rows), round((x + width) * columns), round((y + height) * rows)))


def contributions(maps: Sequence[Array], shares: Array) -> list[Array]:
    """For each map (e, e, c), how much (e, e) of the sum of its channels' `shares` each place accounts for.

    The contributions of all maps add up to the sum of `shares`, as far as channels have any activation.
    """
    dealt, start = [], 0
    for one in maps:
        active = np.maximum(one, 0).astype(np.float64)
        total = active.sum((0, 1))
        mine = shares[start : start + one.shape[2]]
        dealt.append((active * np.where(total > 0, mine / np.maximum(total, 1e-12), 0)).sum(2))
        start += one.shape[2]
    return dealt


def heat(maps: Sequence[Array], shares: Array) -> Array:
    """Heat (GRID, GRID) in [0, 1]: how much of the channels' `shares` each cell accounts for, the hottest 1."""
    warmth = np.zeros((GRID, GRID), np.float32)
    for dealt in contributions(maps, shares):
        cells = Image.fromarray(dealt.astype(np.float32) * dealt.size).resize((GRID, GRID), Image.Resampling.BICUBIC)
        warmth += np.asarray(cells)
    warmth = np.maximum(warmth - np.percentile(warmth, LOW), 0)
    return np.asarray(warmth / max(float(warmth.max()), 1e-9), np.float32)


def vector_of(description: ModelDescription, maps: Sequence[Array]) -> Array:
    """The vector (d,) of the maps' means, as the model makes it."""
    taps, left = [], list(maps)
    for part in description.parts:
        count = len(part.network.taps) if part.weight > 0 else 0
        taps.append([one.mean((0, 1)) for one in left[:count]])
        left = left[count:]
    if left:
        found = f"The model {description.name} returns maps that its taps do not name"
        raise BadRequest(found, valid="A tap for each map", remedy="Correct its description, and build it again")
    return joined_vector(description.parts, taps)
