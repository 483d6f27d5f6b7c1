"""Hostile bytes to upright RGB pixels, or `UndecodableImage` with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, ImageStat, UnidentifiedImageError

from visor.errors import UndecodableImage, UndecodableNow
from visor.imaging.ground import contrasting_ground
from visor.imaging.sniff import image_format, what_instead

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
"""Pillow's names of what is decoded."""
FRAMES_MAX = 32
"""Frames of an animation that are searched for one that is not blank."""
FRAME_DEVIATION_MIN = 10.0
"""Standard deviation of grey values (0…255) from which a frame counts as not blank."""
SCANS_MAX = 64
"""A progressive JPEG has about ten scans; thousands of them are a way to keep a processor busy."""

PROFILE_BYTES_MAX = 4_000_000
"""A larger colour profile is not read; printers' profiles have up to 3 MB."""

ROWS_AT_ONCE = 64
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_PROFILE_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}

_VALID = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC pictures are decoded"
_SAVE_ANEW = "Open it in a picture program and save it as JPEG or PNG"
_WITH_ANIMATIONS = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})

pillow_heif.register_heif_opener()


@dataclass(frozen=True)
class DecodedImage:
    """One picture."""

    pixels: Image.Image
    """Mode RGB, sRGB, upright, without metadata."""
    width: int
    height: int
    """Size in pixels of the picture as it came, upright; `pixels` is smaller if a `side_hint` allowed it."""
    format: str
    """One of `FORMATS`."""
    frame: int
    """Which frame of an animation this is; 0 for a still."""


def decode_image(data: bytes | memoryview, *, pixels_max: int, side_hint: int | None = None) -> DecodedImage:
    """The picture in `data`: of an animation the first frame that is not blank, of several pages the first.

    Args:
        data: A whole file.
        pixels_max: Largest width x height, checked before any pixel is decoded.
        side_hint: If given, the pixels may be scaled down by a whole factor; the shorter side keeps at least so many.

    Raises:
        UndecodableImage: Anything else than a picture of `FORMATS` within the limit.
    """
    _look_first(data)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return _decoded(image, pixels_max, side_hint)
    except UndecodableImage:
        raise
    except Exception as exc:
        raise _reason(exc, data, pixels_max) from exc


def _look_first(data: bytes | memoryview) -> None:
    if len(data) == 0:
        raise UndecodableNow("The file is empty", valid=_VALID, remedy="Send the picture's bytes")
    form = image_format(data)
    if form == "JPEG" and bytes(data).count(b"\xff\xda") > SCANS_MAX:
        raise UndecodableImage(f"The JPEG has more than {SCANS_MAX} scans", valid=_VALID, remedy=_SAVE_ANEW)
    if form is not None:
        return
    other = what_instead(data)
    if other == "SVG":
        raise UndecodableImage(
            "This is an SVG drawing, which is instructions for a browser and not pixels",
            valid=_VALID,
            remedy="Export it as PNG, or link to a rendered version of it",
        )
    if other is not None:
        name = {"HTML": "an HTML page", "JSON": "a JSON document", "XML": "an XML document"}.get(other, other)
        raise UndecodableNow(f"This is {name}, not a picture", valid=_VALID, remedy="Send the picture itself")


def _decoded(image: Image.Image, pixels_max: int, side_hint: int | None) -> DecodedImage:
    form = "JPEG" if image.format == "MPO" else str(image.format)
    width, height = image.size
    if width < 1 or height < 1:
        raise UndecodableImage(f"The {form} is {width} x {height} pixels large", valid="At least 1 x 1")
    if width * height > pixels_max:
        raise _too_many_pixels(f"{width:,} x {height:,} pixels", pixels_max)
    if form == "JPEG" and side_hint:
        image.draft(None, (side_hint, side_hint))
    animated = form in _WITH_ANIMATIONS and getattr(image, "is_animated", False)
    frame, index = _sensible_frame(image, pixels_max) if animated else (_loaded(image), 0)
    factor = min(frame.size) // side_hint if side_hint else 1
    if factor > 1:
        # Not `reduce`: its last row and column may be narrower than the others, which shifts the picture.
        frame = frame.resize((frame.width // factor, frame.height // factor), Image.Resampling.BOX)
    orientation = _orientation(image)
    if orientation in _UPRIGHT:
        frame = frame.transpose(_UPRIGHT[orientation])
    if orientation in _SIDEWAYS:
        width, height = height, width
    pixels = in_srgb(frame, image.info.get("icc_profile"))
    pixels = pixels.copy() if pixels is image else pixels
    pixels.info.clear()
    return DecodedImage(pixels=pixels, width=width, height=height, format=form, frame=index)


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return flattened(image)


def _sensible_frame(image: Image.Image, pixels_max: int) -> tuple[Image.Image, int]:
    """The first frame that is not blank, else the one that is least so, and its number."""
    frames = max(1, min(FRAMES_MAX, pixels_max // (image.width * image.height)))
    best, best_index, best_deviation = None, 0, -1.0
    for index in range(frames):
        try:
            image.seek(index)
            frame = _loaded(image).copy()
        except Exception:
            # The end, or a broken frame: what came before it is a picture all the same.
            if best is None:
                raise
            break
        deviation = ImageStat.Stat(frame.convert("L").resize((64, 64), Image.Resampling.BOX)).stddev[0]
        if deviation > best_deviation:
            best, best_index, best_deviation = frame, index, deviation
        if deviation >= FRAME_DEVIATION_MIN:
            break
    assert best is not None
    return best, best_index


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or the EXIF data is broken."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # noqa: BLE001 - broken metadata raises anything, and the pixels are good without it
        return 1


def _too_many_pixels(found: str, pixels_max: int) -> UndecodableImage:
    return UndecodableImage(
        f"The picture has {found}",
        valid=f"At most {pixels_max:,} pixels",
        remedy="Send a smaller version, or raise VISOR_PIXELS_MAX",
    )


def _reason(exc: Exception, data: bytes | memoryview, pixels_max: int) -> UndecodableImage:
    """What an exception of the decoders means."""
    form = image_format(data)
    if isinstance(exc, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_many_pixels("too many pixels to be decoded safely", pixels_max)
    if isinstance(exc, MemoryError):
        return UndecodableNow("The picture needs more memory than there is", valid=_VALID, remedy="Make it smaller")
    if isinstance(exc, UnidentifiedImageError):
        begins = f"begin like a {form} file but are not one" if form else "are not an image"
        return UndecodableImage(f"The {len(data):,} bytes {begins}", valid=_VALID, remedy=_SAVE_ANEW)
    if isinstance(exc, EOFError) or "truncated" in str(exc).lower():
        found = f"The {form} file ends before its picture does ({exc})"
        return UndecodableImage(found, valid="A whole file", remedy="Download or upload it again")
    return UndecodableImage(
        f"The {form} file is broken ({type(exc).__name__}: {str(exc)[:200]})", valid=_VALID, remedy=_SAVE_ANEW
    )


def flattened(image: Image.Image) -> Image.Image:
    """The loaded image in mode L, RGB or CMYK, 8 bits a channel; what is transparent becomes white, or grey
    behind a white subject.

    The argument is left as it is and may be returned itself.
    """
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return _transformed(image, ImageCms.ImageCmsProfile(lab))
    if image.has_transparency_data:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        ground = Image.new("RGB", image.size, contrasting_ground(rgba))
        ground.paste(rgba, mask=rgba.getchannel("A"))
        return ground
    return image if image.mode in _PROFILE_SPACES else image.convert("RGB")


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
