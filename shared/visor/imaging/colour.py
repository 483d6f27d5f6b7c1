"""From any pixel format to 8-bit sRGB, on a ground that what is transparent stands out from."""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

PROFILE_BYTES_MAX = 4_000_000
"""A larger colour profile is not read; printers' profiles have up to 3 MB."""

ROWS_AT_ONCE = 64
WHITE, GREY = (255, 255, 255), (96, 96, 96)
"""Grounds of transparent pictures: the second for those that would not be seen on white."""
VISIBLE_MIN = 0.2
"""Share of a subject, weighed by its alpha, that must stand out from white. A white flash has 0, a ghost with black eyes
0.17, a volleyball drawn in black lines 0.27."""
VISIBLE_DISTANCE = 24.0
"""Difference from white (0…255, greatest of the channels) from which a pixel stands out."""
SAMPLES_SIDE = 256
"""A ground is chosen by so many pixels across and down: all of them take as much memory as the picture again."""
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_PROFILE_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def flattened(image: Image.Image) -> Image.Image:
    """The loaded image in mode L, RGB or CMYK, 8 bits a channel; what is transparent becomes white, or grey behind a
    white subject.

    The argument is left as it is and may be returned itself.
    """
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return _transformed(image, ImageCms.ImageCmsProfile(lab))
    if image.has_transparency_data:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        ground = Image.new("RGB", image.size, _contrasting(rgba))
        ground.paste(rgba, mask=rgba.getchannel("A"))
        return ground
    return image if image.mode in _PROFILE_SPACES else image.convert("RGB")


def _contrasting(rgba: Image.Image) -> tuple[int, int, int]:
    """The ground to lay an RGBA picture on."""
    side = min(rgba.width, SAMPLES_SIDE), min(rgba.height, SAMPLES_SIDE)
    samples = np.asarray(rgba.resize(side, Image.Resampling.NEAREST), np.float32)
    alpha = samples[..., 3] / 255
    differs = (255 - samples[..., :3]).max(axis=-1) * alpha
    visible = float((alpha * (differs > VISIBLE_DISTANCE)).sum())
    return WHITE if visible >= VISIBLE_MIN * float(alpha.sum()) else GREY


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An L, RGB or CMYK image as RGB, through its ICC profile if that can be read and fits; else as Pillow converts."""
    if profile and len(profile) <= PROFILE_BYTES_MAX:
        try:
            found = ImageCms.ImageCmsProfile(BytesIO(profile))
            fits = found.profile.xcolor_space == _PROFILE_SPACES[image.mode]
            if fits and "sRGB" not in (found.profile.profile_description or ""):
                return _transformed(image, found)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # browsers too show a picture whose profile is broken as if it had none
    return image if image.mode == "RGB" else image.convert("RGB")


def _transformed(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(profile, _srgb(), image.mode, "RGB")
    return transform.apply(image)


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Values (h, w) of 16 or 32 bits, integer or float, as uint8: by their full range where that is known.

    16-bit values span 0…65535; wider ones that stay within 0…1 (float), 0…255 or 0…65535 are taken to span that, and
    others are stretched from their least to their greatest. What is not finite becomes 0.
    """
    if values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 65535:
        is_fraction = high <= 1 and not float(high).is_integer()
        low, high = 0.0, 1.0 if is_fraction else 255.0 if high <= 255 else 65535.0
    span = high - low or 1.0
    eight = np.empty(values.shape, np.uint8)
    # A few rows at a time: as float64 all of them take eight times the picture's memory.
    for start in range(0, len(values), ROWS_AT_ONCE):
        rows = values[start : start + ROWS_AT_ONCE].astype(np.float64)
        eight[start : start + ROWS_AT_ONCE] = np.clip((rows - low) * (255.0 / span), 0, 255)
    return eight
