"""The verdict: whether a match is the same image as the query, an edited copy of it, or merely similar.

Sketches of the pixels and the vectors decide together. Evidence: docs/decisions/images-hash.md.

A query is aligned with the sketches of candidates in every way that an edit may have moved it. A hypothesis says where
the whole candidate would be in the query: larger than it (the query is a crop), smaller (the query has a border or is a
screenshot), partly covered (a caption), mirrored or turned. Under each hypothesis the query is averaged over the
candidate's cells as far as it covers them, and compared by normalised correlation, which brightness and contrast do not
change. All hypotheses of a query against k candidates are two matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visor.near_duplicates.fingerprint import (
    CELLS,
    CHROMA_CELLS,
    HASH_BYTES,
    PLANE,
    Bytes,
    Floats,
    cell_means,
    sketch_chroma,
    sketch_luma,
)
from visor.near_duplicates.perceptual_hash import ycbcr_planes
from visor.near_duplicates.thresholds import (
    ANGLES,
    CONTRAST_FLOOR,
    CONTRAST_LARGE,
    COVERED_MIN,
    EDGES_SLACK,
    EDITED_CORRELATION_MIN,
    EDITED_SIMILARITY_MIN,
    EXACT_CHROMA_MAX,
    EXACT_LUMA_MAX,
    GAIN_MAX,
    REFINED_WITHIN,
    REST_SCALE,
    SAME_VECTOR_MIN,
    SMALL,
    SMALL_REST_SCALE,
)

Verdict = Literal["exact", "edited", "similar"]

Interval = tuple[float, float]
Intervals = tuple[Interval, ...]
Rectangle = tuple[Interval, Interval]
"""Left and right, top and bottom of a candidate as fractions of the query; beyond 0…1 if the query is a crop."""
Mask = NDArray[np.bool_]
Cells = tuple[Floats, Mask]
"""(h, CELLS * CELLS) means of the query under h hypotheses, and which of them the query covers."""

_TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)
_BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
"""The inverses of turns that are not their own inverse."""


def classify_matches(
    similarities: Sequence[float],
    hashes: Sequence[bytes],
    *,
    aligner: Aligner | None,
    query_hash: bytes | None = None,
    metric: str | None = None,
) -> list[Verdict]:
    """A verdict for each of k matches; `similar` if there is nothing to align with them.

    Args:
        similarities: (k,) to the query; NaN if only words were searched for.
        hashes: (k,) of `perceptual_hash`.
        aligner: The image that was searched for, if it was one. Otherwise a stored sketch is used.
        query_hash: Hash of the item that was searched for, if it was one. A vector (a link to an answer) has none: the
            nearest match's is used if the vectors are the same.
        metric: A named metric, whose similarities are on another scale, so that the sketches decide alone.
    """
    if aligner is None and query_hash is None and metric is None and hashes:
        nearest = int(np.argmax(similarities))
        query_hash = hashes[nearest] if similarities[nearest] >= SAME_VECTOR_MIN else None
    if aligner is None and query_hash is not None:
        aligner = Aligner(sketch_picture(np.frombuffer(query_hash, np.uint8)))
    if aligner is None:
        return ["similar"] * len(hashes)
    rows = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), HASH_BYTES)
    # Sketches of less similar images fit by chance, so they are not aligned.
    near = [metric is not None or similarity >= EDITED_SIMILARITY_MIN for similarity in similarities]
    return verdicts(aligner, rows, near)


def verdicts(aligner: Aligner, hashes: Bytes, near: Sequence[bool] | None = None) -> list[Verdict]:
    """The verdict of the sketches on each candidate.

    Args:
        aligner: The query. Without its pixels, use `Aligner(sketch_picture(hash))`.
        hashes: (k, HASH_BYTES) uint8 of `perceptual_hash`.
        near: Which of them may be edited copies; all if None.
    """
    if len(hashes) == 0:
        return []
    same = _same(aligner, hashes)
    copied = ~same if near is None else ~same & np.array(near)
    if copied.any():
        fits = aligner.best_fit(sketch_luma(hashes[copied]), enough=EDITED_CORRELATION_MIN)
        copied[copied] = fits >= EDITED_CORRELATION_MIN
    return ["exact" if s else "edited" if c else "similar" for s, c in zip(same, copied, strict=True)]


def sketch_picture(one: Bytes) -> Image.Image:
    """A (PLANE, PLANE) YCbCr image of a hash (HASH_BYTES,), which is aligned like its picture: as RGB it would lose its
    brightest colours."""
    luma = sketch_luma(one[None]).reshape(CELLS, CELLS)
    cb, cr = sketch_chroma(one[None]).reshape(2, CHROMA_CELLS, CHROMA_CELLS)
    planes = [np.kron(p, np.ones((PLANE // len(p), PLANE // len(p)))) for p in (luma, cb, cr)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8), mode="YCbCr")


def _same(aligner: Aligner, hashes: Bytes) -> np.ndarray:
    """(k,) bool: the sketches differ by no more than re-encoding and resizing cause."""
    luma = cell_means(aligner.planes[..., 0], CELLS).ravel()
    chroma = np.stack([cell_means(aligner.planes[..., channel], CHROMA_CELLS).ravel() for channel in (1, 2)])
    luma_off = np.abs(sketch_luma(hashes) - luma).max(axis=1)
    chroma_off = np.abs(sketch_chroma(hashes) - chroma).max(axis=(1, 2))
    same: np.ndarray = (luma_off <= EXACT_LUMA_MAX) & (chroma_off <= EXACT_CHROMA_MAX)
    return same


def undone(turn: Image.Transpose) -> Image.Transpose:
    """The turn that undoes another."""
    return _BACK.get(turn, turn)


@dataclass(frozen=True)
class Placement:
    """How a candidate lies over the query: turned first, then within a rectangle, then rotated about the middle.

    rectangle: in the frame that just holds the query turned back by `angle` (degrees, counter-clockwise).
    """

    rectangle: Rectangle = ((0.0, 1.0), (0.0, 1.0))
    turn: Image.Transpose | None = None
    angle: float = 0.0


class Aligner:
    """One query, prepared to be aligned with candidates.

    Args:
        pixels: An upright RGB image of any size.
    """

    def __init__(self, pixels: Image.Image) -> None:
        self.planes = ycbcr_planes(pixels)
        """(PLANE, PLANE, 3) float32: Y, Cb, Cr."""
        self._square = _squeezed(pixels)
        self._small = pixels.convert("L") if max(pixels.size) <= SMALL else _shrunk(pixels).convert("L")

    @property
    def size_bytes(self) -> int:
        return self.planes.nbytes + PLANE * PLANE + self._small.width * self._small.height

    def _hypotheses(self) -> tuple[Cells, int, list[Placement]]:
        """The hypotheses, how many of them are covers, and the placements of those of a rotation.

        Made when there is something to align: it takes longer than everything else computed of a query."""
        luma = self.planes[..., 0]
        covered, (rotated, rotations) = _covered(luma), _rotated(self._small)
        parts = [*(grid.cells(luma) for grid in _grids()), covered, _turned(self._square), rotated]
        cells = np.concatenate([templates for templates, _ in parts]), np.concatenate([masks for _, masks in parts])
        return cells, len(covered[0]), rotations

    def best_fit(self, candidates: Floats, *, enough: float = 1.0) -> Floats:
        """How well candidates fit: `_fit` (k,), -1…1, under the hypothesis with the best correlation of each.

        Args:
            candidates: (k, CELLS * CELLS) float32 luma, 0…255.
            enough: A fit that need not be improved; fits a little below it are refined.
        """
        (cells, masks), *_ = self._hypotheses()
        correlations = correlate(cells, masks, candidates)
        found: Floats = correlations.max(axis=0)
        rectangles = _rectangles()
        for k in np.flatnonzero(found > enough - REFINED_WITHIN):
            best = correlations[:, k].argmax()
            found[k] = _fit(cells[best], masks[best], candidates[k], found[k])
            if found[k] < enough and best < len(rectangles):
                found[k] = max(found[k], self._refined(rectangles[best], candidates[k : k + 1])[0])
        return found

    def placement(self, candidate: Floats) -> Placement:
        """The best hypothesis for the place of one candidate, (1, CELLS * CELLS) as for `best_fit`."""
        cells, covered, rotations = self._hypotheses()
        best = int(correlate(*cells, candidate)[:, 0].argmax())
        rectangles = _rectangles()
        if best < len(rectangles):
            return Placement(self._refined(rectangles[best], candidate)[1])
        best -= len(rectangles) + covered
        if best < 0:
            return Placement()
        if best < len(_TURNS):
            return Placement(turn=undone(_TURNS[best]))
        return rotations[best - len(_TURNS)]

    def _refined(self, rectangle: Rectangle, candidate: Floats) -> tuple[float, Rectangle]:
        """The best fit near a hypothesis, and where: both ends of both intervals moved in smaller steps."""
        best, (x, y) = -1.0, rectangle
        for step in (0.02, 0.01, 0.005):
            xs, ys = _around(x, step), _around(y, step)
            cells, masks = _Grid.of(xs, ys).cells(self.planes[..., 0])
            correlations = correlate(cells, masks, candidate)[:, 0]
            at = int(correlations.argmax())
            best = max(best, _fit(cells[at], masks[at], candidate[0], correlations[at]))
            y, x = ys[at // len(xs)], xs[at % len(xs)]
        return best, (x, y)


def correlate(templates: Floats, masks: Mask, candidates: Floats) -> Floats:
    """Normalised correlation (h, k) of templates (h, c) with candidates (k, c) over the cells in masks (h, c).

    Contrast below `CONTRAST_FLOOR` is taken as the floor, so that flat images correlate with nothing.
    """
    weights = masks.astype(np.float32)
    count = np.maximum(weights.sum(axis=1, keepdims=True), 1)
    centred = (templates - (templates * weights).sum(axis=1, keepdims=True) / count) * weights
    contrast = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    # Centred on a middle grey; otherwise the difference of two large squares would lose its digits.
    around = candidates - np.float32(128)
    mean = weights @ around.T / count
    deviation = np.sqrt(np.maximum(weights @ (around**2).T / count - mean**2, 0))
    covariance = centred @ around.T / count
    result: Floats = covariance / (np.maximum(contrast, CONTRAST_FLOOR) * np.maximum(deviation, CONTRAST_FLOOR))
    result[(count < COVERED_MIN * templates.shape[1])[:, 0]] = -1
    return result


def _fit(template: Floats, mask: Mask, candidate: Floats, correlation: float) -> float:
    """The correlation of a template (c,) with a candidate (c,), or less: any objects of similar outline on a plain
    background correlate, but more luma is left unexplained, the edges between their cells correlate less, and one has
    more contrast than an edit causes. Edges do not count if there is contrast and little is unexplained."""
    deviation = candidate[mask].std()
    gain = max(template[mask].std(), CONTRAST_FLOOR) / max(deviation, CONTRAST_FLOOR)
    if not 1 / GAIN_MAX <= gain <= GAIN_MAX:
        return 0.0
    square = (CELLS, CELLS)
    inside = mask.reshape(square)
    pairs = inside[1:] & inside[:-1], inside[:, 1:] & inside[:, :-1]
    mine, theirs = (
        np.concatenate([np.diff(one.reshape(square), axis=axis)[pairs[axis]] for axis in (0, 1)])
        for one in (template, candidate)
    )
    floor = len(mine) * CONTRAST_FLOOR**2
    edges = mine @ theirs / np.sqrt(max(mine @ mine, floor) * max(theirs @ theirs, floor))
    rest = deviation * math.sqrt(max(0.0, 1 - correlation**2))
    if deviation >= CONTRAST_LARGE:
        edges = max(edges, 1 - EDGES_SLACK - rest / SMALL_REST_SCALE)
    return float(min(correlation, 1 - rest / REST_SCALE, edges + EDGES_SLACK))


@dataclass(frozen=True)
class _Grid:
    """Every interval across with every interval down, with the weights that average the query under them."""

    xs: Intervals
    ys: Intervals
    across: Floats
    inside_x: Mask
    down: Floats
    inside_y: Mask

    @classmethod
    def of(cls, xs: Intervals, ys: Intervals) -> _Grid:
        return cls(xs, ys, *_weights(xs), *_weights(ys))

    @property
    def rectangles(self) -> list[Rectangle]:
        """In the order of `cells`: x runs fastest."""
        return [(x, y) for y in self.ys for x in self.xs]

    def cells(self, luma: Floats) -> Cells:
        """The query's cells under every rectangle."""
        n_down, n_across = len(self.ys), len(self.xs)
        means = np.matmul(np.matmul(self.down.reshape(-1, PLANE), luma), self.across.reshape(-1, PLANE).T)
        cells: Floats = means.reshape(n_down, CELLS, n_across, CELLS).transpose(0, 2, 1, 3).reshape(-1, CELLS * CELLS)
        inside: Mask = self.inside_y[:, None, :, None] & self.inside_x[None, :, None, :]
        return cells, inside.reshape(-1, CELLS * CELLS)


@cache
def _grids() -> list[_Grid]:
    """Where the whole candidate may lie in the query, as fractions of the query's sides."""
    return [_Grid.of(xs, ys) for xs, ys in (_borders(), *_crops())]


@cache
def _rectangles() -> list[Rectangle]:
    return [rectangle for grid in _grids() for rectangle in grid.rectangles]


def _borders() -> tuple[Intervals, Intervals]:
    """The query shows the candidate with a border, or as it is: the same on both sides, independent above and below."""
    sides = (0.0, 0.03, 0.06, 0.09, 0.12, 0.16, 0.2)
    ends = (0.0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3)
    return tuple((side, 1 - side) for side in sides), tuple((top, 1 - low) for top in ends for low in ends)


def _crops() -> list[tuple[Intervals, Intervals]]:
    """The query is a window of the candidate: of about its shape, or cut at the sides only, or above and below only."""
    sizes = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
    shapes = [(width, height) for width in sizes for height in (width - 0.05, width, width + 0.05) if height < 1.01]
    shapes += [shape for size in sizes[:-2] for shape in ((size, 1.0), (1.0, size))]
    return [(_windows(width), _windows(height)) for width, height in shapes if (width, height) != (1.0, 1.0)]


def _windows(size: float) -> Intervals:
    """Where the candidate is if the query is a window of `size` of it, about 4 % of the candidate apart."""
    starts = np.linspace(0, 1 - size, max(1, round((1 - size) / 0.04) + 1))
    return tuple((-start / size, (1 - start) / size) for start in starts.tolist())


def _weights(intervals: Intervals) -> tuple[Floats, Mask]:
    """For each interval, cut into CELLS: how much of each of PLANE pixels a cell averages, and whether it is inside.

    Returns:
        (n, CELLS, PLANE) float32 whose rows sum to 1, and (n, CELLS) bool.
    """
    low, high = (np.array(end)[:, None] for end in zip(*intervals, strict=True))
    edges = (low + (high - low) * np.arange(CELLS + 1) / CELLS) * PLANE
    pixel = np.arange(PLANE)
    starts, ends = edges[:, :-1, None], edges[:, 1:, None]
    overlap = np.clip(np.minimum(ends, pixel + 1) - np.maximum(starts, pixel), 0, None)
    inside = (edges[:, :-1] >= -0.1) & (edges[:, 1:] <= PLANE + 0.1)
    return (overlap / (ends - starts)).astype(np.float32), inside


def _covered(luma: Floats) -> Cells:
    """The query as it is, with its lower or upper rows left out: a caption covers them."""
    rows = np.repeat(np.arange(CELLS), CELLS)
    covers = [side for n in (1, 2, 3, 4) for side in (rows < CELLS - n, rows >= n)]
    return np.repeat(cell_means(luma, CELLS).reshape(1, -1), len(covers), axis=0), np.stack(covers)


def _turned(square: Image.Image) -> Cells:
    """The mirrored and the quarter-turned query, a grey square."""
    planes = [np.asarray(square.transpose(turn), dtype=np.float32) for turn in _TURNS]
    cells = np.stack([cell_means(plane, CELLS).ravel() for plane in planes])
    return cells, np.ones(cells.shape, dtype=bool)


def _rotated(small: Image.Image) -> tuple[Cells, list[Placement]]:
    """The query, small and grey, turned back by each angle, with the candidate in its middle as large as each of three
    ways to rotate leaves it.

    Rotating keeps the size (corners are cut), enlarges it until all corners fit, or crops it until no corner is empty.
    """
    width, height = small.size
    templates, masks, placements = [], [], []
    for angle in ANGLES:
        back = small.rotate(-angle, Image.Resampling.BILINEAR, expand=True)
        there = Image.new("L", small.size, 255).rotate(-angle, Image.Resampling.BILINEAR, expand=True)
        luma, valid = _plane(back), _plane(there)
        c, s = math.cos(math.radians(angle)), abs(math.sin(math.radians(angle)))
        grown = (width * c - height * s) / (c * c - s * s), (height * c - width * s) / (c * c - s * s)
        cut = c + s * max(width, height) / min(width, height)
        for across, down in ((width, height), grown, (width * cut, height * cut)):
            xs = ((0.5 - across / back.width / 2, 0.5 + across / back.width / 2),)
            ys = ((0.5 - down / back.height / 2, 0.5 + down / back.height / 2),)
            grid = _Grid.of(xs, ys)
            (cells, inside), (whole, _) = grid.cells(luma), grid.cells(valid)
            templates.append(cells.ravel())
            masks.append((inside & (whole > 250)).ravel())
            placements.append(Placement((xs[0], ys[0]), angle=angle))
    return (np.stack(templates), np.stack(masks)), placements


def _plane(picture: Image.Image) -> Floats:
    return np.asarray(picture.resize((PLANE, PLANE), Image.Resampling.BILINEAR), dtype=np.float32)


def _squeezed(pixels: Image.Image) -> Image.Image:
    """The whole image as a grey square."""
    return pixels.resize((PLANE, PLANE), Image.Resampling.BILINEAR, reducing_gap=3.0).convert("L")


def _shrunk(pixels: Image.Image) -> Image.Image:
    scale = SMALL / max(pixels.size)
    size = max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale))
    return pixels.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)


def _around(interval: Interval, step: float) -> Intervals:
    low, high = interval
    return tuple((low + a * step, high + b * step) for a in (-1, 0, 1) for b in (-1, 0, 1))
