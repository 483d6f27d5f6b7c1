"""Pixels of any kind as 8-bit sRGB, one band of rows at a time, so that no second whole copy exists."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageFile

from visor.imaging.ground import contrasting_ground

BAND_PIXELS = 1 << 20
PROFILE_BYTES_MAX = 4_000_000
"""A larger colour profile is not read; printers' profiles have up to 3 MB."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits of sensors and scanners. Many are stored in 16 bits unscaled, so that the upper bits are empty."""
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})

_PROFILE_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}


def bands_of(image: Image.Image) -> Iterator[Image.Image]:
    """The rows of a loaded image of any mode as L, RGB, RGBA or CMYK; may be the argument itself."""
    boxes = _boxes(image)
    if image.mode not in DEEP_MODES:
        return (plain(image.crop(box) if len(boxes) > 1 else image) for box in boxes)
    span = _span(np.asarray(image.crop(box)) for box in boxes)
    return (Image.fromarray(_eight_bits(np.asarray(image.crop(box)), *span)) for box in boxes)


def _boxes(image: Image.Image) -> list[tuple[int, int, int, int]]:
    step = max(1, BAND_PIXELS // image.width)
    return [(0, top, image.width, min(top + step, image.height)) for top in range(0, image.height, step)]


def plain(band: Image.Image) -> Image.Image:
    """An image with 8 bits a channel as L, RGB, RGBA or CMYK; may be the argument itself."""
    if band.mode == "LAB":
        return _transformed(band, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if band.has_transparency_data:
        return band.convert("LA").convert("RGBA") if band.mode == "La" else band.convert("RGBA")
    return band if band.mode in _PROFILE_SPACES else band.convert("L" if band.mode == "1" else "RGB")


def reduced(bands: Iterable[Image.Image], size: tuple[int, int], factor: int) -> Image.Image:
    """The bands of a picture of that size as one image, its sides divided by `factor` and rounded down.

    Not with `Image.reduce`: its last row and column may be narrower than the others, which shifts the picture.
    """
    width, height = (max(1, side // factor) for side in size)
    scale, out, held, done, above = size[1] / height, None, None, 0, 0
    for band in bands:
        if band.size == size == (width, height):
            return band
        held = band if held is None else _stacked(held, band)
        rows = height if above + held.height >= size[1] else int((above + held.height) / scale)
        if rows > done:
            box = (0, done * scale - above, held.width, min(rows * scale - above, held.height))
            out = out or Image.new(held.mode, (width, height))
            out.paste(held.resize((width, rows - done), Image.Resampling.BOX, box), (0, done))
            start = min(int(rows * scale), above + held.height)
            held = held.crop((0, start - above, held.width, held.height)) if start < above + held.height else None
            done, above = rows, start
    if out is None or done < height:
        raise EOFError("image file is truncated")
    return out


def flattened(image: Image.Image) -> Image.Image:
    """An image from `plain` without its alpha: transparent parts become white, or grey behind a white subject."""
    if image.mode != "RGBA":
        return image
    ground = Image.new("RGB", image.size, contrasting_ground(image))
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An L, RGB or CMYK image as RGB, with its ICC profile if that can be read and fits; else as Pillow converts."""
    if profile and len(profile) <= PROFILE_BYTES_MAX:
        try:
            found = ImageCms.ImageCmsProfile(BytesIO(profile))
            fits = found.profile.xcolor_space == _PROFILE_SPACES[image.mode]
            if fits and "sRGB" not in (found.profile.profile_description or ""):
                return _transformed(image, found)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # browsers, too, ignore a broken profile
    return image if image.mode == "RGB" else image.convert("RGB")


def has_sixteen_bits(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not yet loaded has several channels of 16 bits, of which Pillow keeps 8."""
    return image.mode in ("RGB", "RGBA") and any(f"{image.mode};16" in str(tile.args) for tile in image.tile)


def stretched(upper: Image.Image, again: ImageFile.ImageFile) -> Iterator[Image.Image]:
    """As `bands_of`, for 16-bit channels whose upper bits may be empty: with the 8 highest bits that are used.

    Args:
        upper: The upper 8 bits of each channel, loaded.
        again: The same file, not yet loaded.
    """
    highest = [high for _, high in upper.getextrema()]  # type: ignore[misc]
    colour, *alpha = max(highest[:3]), *highest[3:]
    unused = [16 - _depth(256 * high + 255) for high in (colour, colour, colour, *alpha)]
    if not any(unused):
        return bands_of(upper)
    again.tile = [tile._replace(args=_other_byte(tile.args)) for tile in again.tile]
    again.load()
    higher = [min(value << bits, 255) for bits in unused for value in range(256)]
    lower = [value >> (8 - bits) if bits else 0 for bits in unused for value in range(256)]
    return (plain(ImageChops.add(upper.crop(box).point(higher), again.crop(box).point(lower))) for box in _boxes(upper))


def _other_byte(args: Any) -> Any:
    if isinstance(args, tuple):
        return (_other_byte(args[0]), *args[1:])
    mode, _, half = str(args).partition(";")
    return f"{mode};{_OTHER_BYTE[half]}" if half in _OTHER_BYTE else args


def _stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    both = Image.new(upper.mode, (upper.width, upper.height + lower.height))
    both.paste(upper, (0, 0))
    both.paste(lower, (0, upper.height))
    return both


def _transformed(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(profile, _srgb(), image.mode, "RGB")
    return transform.apply(image)


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _depth(high: float) -> int:
    return next((bits for bits in DEPTHS if high < 1 << bits), 16)


def _span(parts: Iterable[np.ndarray]) -> tuple[float, float]:
    """The values that become black and white, for values of 16 or 32 bits, integer or float.

    Values within 0…65535 are assumed to span 0…1 (float) or 8 to 16 bits; others are stretched from their least to
    their greatest.
    """
    low, high, kind = 0.0, 0.0, "u"
    for number, part in enumerate(parts):
        kind = part.dtype.kind
        finite = part[np.isfinite(part)] if kind == "f" else part
        if finite.size:
            least, most = float(finite.min()), float(finite.max())
            low, high = (min(low, least), max(high, most)) if number else (least, most)
    if low < 0 or high > 65535:
        return low, high
    return 0.0, 1.0 if kind == "f" and high <= 1 else float((1 << _depth(high)) - 1)


def _eight_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values (h, w) as uint8; values that are not finite become 0."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low or 1.0))
    eight: np.ndarray = np.clip(scaled, 0, 255).astype(np.uint8)
    return eight
