"""Hostile bytes to upright RGB pixels, or `UndecodableImage` with the reason."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain

import numpy as np
import pillow_heif
from PIL import Image, ImageFile, ImageStat, PngImagePlugin, UnidentifiedImageError
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from visor.errors import UndecodableImage, UndecodableNow
from visor.imaging.bands import png_bands, tiff_bands
from visor.imaging.jpeg import END, has_more_scans, largest_preview
from visor.imaging.jpeg2000 import levels, structure_bytes
from visor.imaging.jpegxl import JpegXLImageFile
from visor.imaging.pixels import bands_of, flattened, has_sixteen_bits, in_srgb, plain, reduced, stretched
from visor.imaging.sniff import image_format, what_instead

_OPENERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "AVIF": AvifImageFile,
    "HEIF": pillow_heif.HeifImageFile,
    "JPEG2000": Jpeg2KImageFile,
    "JXL": JpegXLImageFile,
}
FORMATS = (*_OPENERS, "RAW")
"""The formats that are decoded; of RAW the largest preview."""
BYTES_MAX, BYTES_A_PIXEL = 400_000_000, 6
"""Memory that a decoder may use: in all, or for each pixel of `pixels_max` if that is more."""
SIZE_FACTOR_MAX = {"JPEG": 10, "TIFF": 10, "JPEG2000": 10}
"""A file that is scaled down may have this many times `pixels_max`, other formats 3 times: more takes too long."""
FRAMES_MAX = 32
"""Most frames of an animation that are searched for one that is not blank."""
FRAME_DEVIATION_MIN = 10.0
"""Standard deviation of grey values (0…255) from which a frame counts as not blank."""
SCANS_MAX = 64
"""A progressive JPEG has about ten scans; thousands of them can keep a processor busy."""
PIECES_MAX = 200_000
"""Strips or tiles of a TIFF. Each takes 7 µs, and a scan of 366 megapixels with a strip for each row has 20,000."""
PAGES_MAX = 8
"""Pages of a TIFF among which the first whole picture is sought."""
MISSING_MAX = 0.5
"""Share of a JPEG's rows that may be missing at its end."""

_BYTES = {"WEBP": 17, "AVIF": 10, "HEIF": 8, "JPEG2000": 20, "JXL": 8}
"""Memory that a decoder needs for each pixel, as measured; the others need what Pillow's image does."""
_ALPHA_BYTES = {"AVIF": 3, "HEIF": 5}
"""Additional bytes a pixel for an alpha channel, at 4:4:4."""
_MOVING_BYTES = {"GIF": 14, "PNG": 14, "AVIF": 17}
"""Bytes a pixel for animations, with the previous frame and the combined one."""
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
_VALID = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, JPEG 2000, JPEG XL and RAW with a preview are decoded"
_SAVE_ANEW = "Open it in a picture program and save it as JPEG or PNG"
_WITH_ANIMATIONS = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
_ORIENTATION_TAG, _MAKE_TAG, _DNG_TAG, _SUBFILE_TAG = 0x0112, 0x010F, 0xC612, 0x00FE
_NOT_WHOLE = 0b101
"""Flags of a TIFF's page with reduced resolution, or with a mask."""
_FILLED_IN = 126, 129
"""Range of greys that a decoder fills in for missing rows of a JPEG."""
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
# ImageMagick writes profiles as texts of some megabytes.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY // 4


@dataclass(frozen=True)
class DecodedImage:
    """One picture."""

    pixels: Image.Image
    """Mode RGB, sRGB, upright, without metadata."""
    width: int
    height: int
    """Size in pixels of the original picture, upright; `pixels` is smaller if a `side_hint` allowed it."""
    format: str
    """One of `FORMATS`."""
    frame: int
    """Which frame of an animation this is; 0 for a still."""


def decode_image(data: bytes | memoryview, *, pixels_max: int, side_hint: int | None = None) -> DecodedImage:
    """The picture in `data`: the first non-blank frame of an animation, or the first of several pages that is not a
    thumbnail or mask of another.

    A JPEG whose end is missing is decoded as in browsers, if at least half of its rows are there.

    Args:
        data: A whole file.
        pixels_max: Most pixels of the result. They and the memory for decoding (`BYTES_MAX`) are checked before any
            pixel is decoded.
        side_hint: If given, the pixels may be scaled down by a whole factor; the shorter side keeps at least this many
            pixels, as far as memory allows. The limit then applies to the size that a file is decoded to.

    Raises:
        UndecodableImage: The data is not a picture of `FORMATS` within the limits.
    """
    data = bytes(data)
    file = _File(data, _form(data), pixels_max, side_hint)
    try:
        try:
            return file.decoded()
        except OSError as exc:
            if file.form != "JPEG" or "truncated" not in str(exc):
                raise
            # With an end marker, the decoder fills in the missing rows before it.
            return replace(file, data=data + END, is_cut=True).decoded()
    except UndecodableImage:
        raise
    except Exception as exc:
        raise _reason(exc, file) from exc


@dataclass(frozen=True)
class _File:
    """A file, and the limits within which it is decoded."""

    data: bytes
    form: str
    pixels_max: int
    side_hint: int | None
    is_cut: bool = False

    def open(self) -> ImageFile.ImageFile:
        """Open the file; not with `Image.open`, which limits the size of the file, not the size it is decoded to."""
        if self.form == "JPEG" and has_more_scans(self.data, SCANS_MAX):
            raise UndecodableImage(f"The JPEG has more than {SCANS_MAX} scans", valid=_VALID, remedy=_SAVE_ANEW)
        try:
            image = _OPENERS[self.form](BytesIO(self.data))
        except (SyntaxError, IndexError, TypeError, KeyError, struct.error) as exc:
            raise UnidentifiedImageError(str(exc)) from exc
        self._check_pieces(image)
        return image

    def decoded(self, orientation: int = 1) -> DecodedImage:
        """Its picture, turned by `orientation` if the file itself has none."""
        preview = self._preview() if self.form in ("RAW", "TIFF") else None
        if preview is not None:
            return preview
        with self.open() as image:
            if isinstance(image, TiffImageFile):
                _turn_to_picture(image)
                self._check_pieces(image)
            width, height = image.size
            self._check_size(width, height)
            profile = image.info.get("icc_profile")
            if self.form in _WITH_ANIMATIONS and getattr(image, "is_animated", False):
                frame, index = self._sensible_frame(image)
            else:
                frame, index = flattened(self._still(image)), 0
            own = _orientation(image.info.get("exif"))
        turn = own if own in _UPRIGHT else orientation
        if turn in _UPRIGHT:
            frame = frame.transpose(_UPRIGHT[turn])
        if turn in _SIDEWAYS:
            width, height = height, width
        pixels = in_srgb(frame, profile)
        pixels.info.clear()
        return DecodedImage(pixels=pixels, width=width, height=height, format=self.form, frame=index)

    def _preview(self) -> DecodedImage | None:
        """The preview in a camera's file, if it is larger than the file's first picture."""
        pixels, orientation = 0, 1
        if self.form == "TIFF":
            try:
                with self.open() as image:
                    if not isinstance(image, TiffImageFile) or {_MAKE_TAG, _DNG_TAG}.isdisjoint(image.tag_v2):
                        return None
                    pixels = image.width * image.height
                    orientation = image.tag_v2.get(_ORIENTATION_TAG, 1)
            except UnidentifiedImageError:
                pass  # raw data in none of Pillow's modes
        start, found = largest_preview(self.data)
        if found <= pixels:
            if self.form == "TIFF":
                return None
            raise UndecodableImage("The RAW file has no preview", valid=_VALID, remedy="Export it as JPEG")
        orientation = orientation if pixels else _raw_orientation(self.data)
        return replace(replace(self, data=self.data[start:], form="JPEG").decoded(orientation), format="RAW")

    def _check_pieces(self, image: ImageFile.ImageFile) -> None:
        if len(image.tile) > PIECES_MAX:
            found = f"The {self.form} is cut into {len(image.tile):,} pieces"
            raise UndecodableImage(found, valid=f"At most {PIECES_MAX:,} strips or tiles", remedy=_SAVE_ANEW)

    def _check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise UndecodableImage(f"The {self.form} is {width} x {height} pixels large", valid="At least 1 x 1")
        limit = self.pixels_max * (1 if self.side_hint is None else SIZE_FACTOR_MAX.get(self.form, 3))
        if width * height > limit:
            raise _too_many_pixels(f"{width:,} x {height:,} pixels", limit)

    def _factor(self, width: int, height: int) -> int:
        """The divisor of a picture's sides."""
        if self.side_hint is None:
            return 1
        fitting = math.isqrt((width * height - 1) // self.pixels_max) + 1
        return max(1, min(width, height) // self.side_hint, fitting)

    def _fits(self, image: ImageFile.ImageFile, size: tuple[int, int]) -> bool:
        """Whether there is enough memory to decode it to that size."""
        depth = 16 if has_sixteen_bits(image) else image.info.get("bit_depth", 8)
        a_pixel = _BYTES.get(self.form) or _MODE_BYTES.get(image.mode, 4) + 1
        a_pixel += _ALPHA_BYTES.get(self.form, 0) * (image.mode == "RGBA")
        if getattr(image, "is_animated", False):
            a_pixel = _MOVING_BYTES.get(self.form, a_pixel)
        needed = a_pixel * -(-depth // 8) * size[0] * size[1]
        if self.form == "JPEG2000":
            needed += structure_bytes(self.data)
        if image.info.get("progressive"):
            # All coefficients are kept, at the file's size; some channels have fewer of them.
            layers = getattr(image, "layer", ())
            most = max((across * down for _, across, down, _ in layers), default=1)
            needed += 2 * image.width * image.height * sum(across * down for _, across, down, _ in layers) // most
        return needed <= self._bytes_max

    @property
    def _bytes_max(self) -> int:
        return max(self.pixels_max * BYTES_A_PIXEL, BYTES_MAX)

    def _still(self, image: ImageFile.ImageFile) -> Image.Image:
        """The only picture: decoded as a whole if there is enough memory, else in bands."""
        whole_size, size = image.size, self._scaled(image)
        if self._fits(image, size):
            deep = has_sixteen_bits(image)
            image.load()
            whole = (
                stretched(image, self._again(image))
                if deep
                else bands_of(_shown(image) if self.form == "BMP" else image)
            )
            frame = reduced(whole, image.size, self._factor(*image.size))
            if self.is_cut and _filled_in_share(frame) > MISSING_MAX:
                raise EOFError("more than half of its rows are missing")
            return frame
        bands: Iterator[Image.Image] = iter(())
        turn = 1
        if isinstance(image, TiffImageFile):
            # Pillow itself turns the pixels only of a whole TIFF.
            bands, turn = tiff_bands(self.data, image), image.tag_v2.get(_ORIENTATION_TAG, 1)
            size = image.tag_v2[256], image.tag_v2[257]
        elif self.form == "PNG":
            bands = png_bands(self.data, image)
        first = next(bands, None)
        if first is None:
            raise self._too_large(*whole_size)
        frame = reduced((plain(band) for band in chain([first], bands)), size, self._factor(*size))
        return frame.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else frame

    def _again(self, image: ImageFile.ImageFile) -> ImageFile.ImageFile:
        """The same picture, not yet loaded."""
        again = self.open()
        if isinstance(image, TiffImageFile):
            again.seek(image.tell())
        return again

    def _scaled(self, image: ImageFile.ImageFile) -> tuple[int, int]:
        """Make the decoder itself scale as far as wanted, or further if memory is short; returns the size."""
        width, height = image.size
        powers = 3 if self.form == "JPEG" else levels(self.data) if self.form == "JPEG2000" else 0
        powers *= self.side_hint is not None
        power = min(powers, self._factor(width, height).bit_length() - 1)
        while power < powers and not self._fits(image, (width >> power, height >> power)):
            power += 1
        if self.form == "JPEG2000":
            # Not with its `reduce`: that rounds sizes to the nearest, but the decoder rounds them up.
            size = -(-width >> power), -(-height >> power)
            (tile,) = image.tile
            assert isinstance(tile.args, tuple)
            image.tile = [tile._replace(extents=(0, 0, *size), args=(tile.args[0], power, *tile.args[2:]))]
            image._size = size
        elif power:
            image.draft(None, (max(1, width >> power), max(1, height >> power)))
        elif self.form == "HEIF" and self.side_hint and not self._fits(image, (width, height)):
            # One of the thumbnails in it; half, because a thumbnail's smaller side may be less than wanted.
            image.draft(None, (self.side_hint // 2, self.side_hint // 2))
            return image.size
        return -(-width >> power), -(-height >> power)

    def _sensible_frame(self, image: ImageFile.ImageFile) -> tuple[Image.Image, int]:
        """The first frame that is not blank, else the least blank one, and its number."""
        if not self._fits(image, image.size):
            raise self._too_large(*image.size)
        frames = max(1, min(FRAMES_MAX, self.pixels_max // (image.width * image.height)))
        best, best_index, best_deviation = None, 0, -1.0
        for index in range(frames):
            try:
                image.seek(index)
                image.load()
                frame = flattened(reduced(bands_of(image.copy()), image.size, self._factor(*image.size)))
            except Exception:
                # The end, or a broken frame: the frames before it are still usable.
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

    def _too_large(self, width: int, height: int) -> UndecodableImage:
        return UndecodableImage(
            f"The {self.form} of {width:,} x {height:,} pixels takes too much memory to be decoded",
            valid=f"At most {self._bytes_max // 1_000_000} MB: half of the pixels, or a JPEG",
            remedy="Use a smaller version or a JPEG, or raise VISOR_PIXELS_MAX",
        )


def _form(data: bytes) -> str:
    """The format that the bytes begin with. Raises `UndecodableImage` if it is not one that is decoded."""
    if not data:
        raise UndecodableNow("The file is empty", valid=_VALID, remedy="Use the whole file")
    form = image_format(data)
    if form is not None:
        return form
    other = what_instead(data)
    if other == "SVG":
        raise UndecodableImage(
            "This is an SVG drawing, which is instructions for a browser and not pixels",
            valid=_VALID,
            remedy="Export it as PNG, or link to a rendered version of it",
        )
    if other is not None:
        name = {"HTML": "an HTML page", "JSON": "a JSON document", "XML": "an XML document"}.get(other, other)
        raise UndecodableNow(f"This is {name}, not a picture", valid=_VALID, remedy="Use the picture itself")
    raise UndecodableImage(f"The {len(data):,} bytes are not an image", valid=_VALID, remedy=_SAVE_ANEW)


def _turn_to_picture(tiff: TiffImageFile) -> None:
    """Go to the first page that is not a thumbnail or mask of another one; else to the first."""
    try:
        for page in range(PAGES_MAX):
            tiff.seek(page)
            kind = tiff.tag_v2.get(_SUBFILE_TAG, 0)
            if not (isinstance(kind, int) and kind & _NOT_WHOLE):
                return
    except Exception:  # noqa: BLE001, S110 - there is no such page, or a broken one: the first is still a picture
        pass
    tiff.seek(0)


def _shown(bmp: Image.Image) -> Image.Image:
    """The image as browsers show it: Windows programs leave the alpha channel at 0 if it is unused."""
    if bmp.mode == "RGBA" and bmp.getchannel("A").getextrema() == (0, 0):
        bmp.putalpha(255)
    return bmp


def _orientation(exif: bytes | None) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or it is broken. XMP's is ignored, as in browsers."""
    try:
        tags = Image.Exif()
        tags.load(exif or b"")
        value = tags.get(_ORIENTATION_TAG, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # noqa: BLE001 - broken metadata can raise anything, and the pixels are good without it
        return 1


def _raw_orientation(data: bytes) -> int:
    """The orientation in a RAW file that is almost a TIFF, or in Canon's, which contains one."""
    start = 0 if data[:2] in (b"II", b"MM") else data.find(b"CMT1") + 4
    order = data[start : start + 2]
    return _orientation(b"Exif\0\0" + order + (b"*\0" if order == b"II" else b"\0*") + data[start + 4 :])


def _filled_in_share(frame: Image.Image) -> float:
    """Share of the rows, from the bottom up, that a decoder filled in."""
    values = np.asarray(frame)
    low, high = _FILLED_IN
    there = np.flatnonzero(((values < low) | (values > high)).reshape(frame.height, -1).any(axis=1))
    return 1 - (int(there[-1]) + 1) / frame.height if there.size else 1.0


def _too_many_pixels(found: str, limit: int) -> UndecodableImage:
    return UndecodableImage(
        f"The picture has {found}",
        valid=f"At most {limit:,} pixels",
        remedy="Use a smaller version, or raise VISOR_PIXELS_MAX",
    )


def _reason(exc: Exception, file: _File) -> UndecodableImage:
    """The error for an exception of the decoders."""
    if isinstance(exc, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_many_pixels("too many pixels to be decoded safely", file.pixels_max)
    if isinstance(exc, MemoryError):
        return UndecodableNow("The picture needs more memory than there is", valid=_VALID, remedy="Make it smaller")
    if isinstance(exc, UnidentifiedImageError):
        begins = f"begin like a {file.form} file but are not one"
        return UndecodableImage(
            f"The {len(file.data):,} bytes {begins} ({exc!s:.200})", valid=_VALID, remedy=_SAVE_ANEW
        )
    if isinstance(exc, EOFError) or file.is_cut or "truncated" in str(exc).lower():
        found = f"The {file.form} file ends before its picture does ({exc!s:.200})"
        return UndecodableImage(found, valid="A whole file", remedy="Download or upload it again")
    return UndecodableImage(
        f"The {file.form} file is broken ({type(exc).__name__}: {exc!s:.200})", valid=_VALID, remedy=_SAVE_ANEW
    )
