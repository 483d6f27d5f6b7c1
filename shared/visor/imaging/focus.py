"""The part of a picture that counts: within a box, without the areas that were painted out."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageStat

from visor.errors import BadRequest
from visor.schema.search import Box

BOX_SIDE_MIN = 8
"""Pixels: a smaller box is too small to embed."""


def focus(pixels: Image.Image, box: Box | None, exclude: Sequence[Box]) -> Image.Image:
    """The part of a picture that counts: within `box`, cropped to what `exclude` leaves of it.

    Excluded parts that remain inside are filled with the mean colour of the rest, which affects the model least.

    Args:
        box, exclude: x, y, width, height as fractions of the sides.

    Raises:
        BadRequest: Fewer than 8 × 8 pixels are left.
    """
    if box is None and not exclude:
        return pixels
    edges = (0, 0, *pixels.size) if box is None else _corners(pixels, box)
    part = pixels.crop(edges)
    rest = Image.new("L", part.size, 255)
    for excluded in exclude:
        x0, y0, x1, y1 = _corners(pixels, excluded)
        rest.paste(0, (x0 - edges[0], y0 - edges[1], x1 - edges[0], y1 - edges[1]))
    left, top, right, bottom = rest.getbbox() or (0, 0, 0, 0)
    if right - left < BOX_SIDE_MIN or bottom - top < BOX_SIDE_MIN:
        raise BadRequest(
            f"Of this picture {right - left} × {bottom - top} pixels are left to search for",
            valid=f"At least {BOX_SIDE_MIN} × {BOX_SIDE_MIN}",
            remedy="Draw a larger box, or paint out less",
        )
    part, rest = part.crop((left, top, right, bottom)), rest.crop((left, top, right, bottom))
    mean = tuple(round(channel) for channel in ImageStat.Stat(part, rest).mean)
    return Image.composite(part, Image.new("RGB", part.size, mean), rest)


def _corners(pixels: Image.Image, box: Box) -> tuple[int, int, int, int]:
    x, y, width, height = box
    columns, rows = pixels.size
    right, bottom = min(x + width, 1.0), min(y + height, 1.0)
    return round(x * columns), round(y * rows), round(right * columns), round(bottom * rows)
