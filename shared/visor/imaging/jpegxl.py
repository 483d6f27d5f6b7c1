"""JPEG XL for Pillow, decoded by imagecodecs, which is optional (`visor-search[formats]`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from visor.errors import UndecodableImage
from visor.imaging.boxes import boxes

_START = b"\xff\x0a"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Ratios of width to height, by their number (ISO 18181-1, D.2)."""
_SIZE_BITS = (9, 13, 18, 30)
_HEAD_BYTES = 18
"""Bytes that are read of a codestream."""


class JpegXLImageFile(ImageFile.ImageFile):
    """The first frame, upright."""

    format = "JXL"

    def _open(self) -> None:
        assert self.fp is not None
        try:
            self._codec: Any = import_module("imagecodecs")
        except ImportError as exc:
            raise UndecodableImage(
                "JPEG XL is not decoded here",
                valid="JPEG, PNG, WebP, AVIF, HEIC, TIFF",
                remedy="Install visor-search[formats], or send it as a JPEG",
            ) from exc
        self._data = self.fp.read()
        self._size, self.info["bit_depth"] = _size_and_depth(self._data)
        self._mode, self.tile = "RGB", []

    def load(self) -> Any:
        if self._data:
            pixels = self._codec.jpegxl_decode(self._data, index=0, numthreads=1)
            self._data = b""
            if pixels.dtype.kind == "f":
                np.clip(np.nan_to_num(pixels, copy=False), 0, 1, out=pixels)
                pixels *= 255
            elif pixels.dtype != np.uint8:
                pixels >>= 8 * (pixels.itemsize - 1)
            loaded = Image.fromarray(pixels.astype(np.uint8, copy=False))
            self.im, self._mode, self._size = loaded.im, loaded.mode, loaded.size
        return super().load()


def _size_and_depth(data: bytes) -> tuple[tuple[int, int], int]:
    """Width and height, and the bits of a channel, from the beginning of the codestream. Floats are decoded to 32
    bits."""
    bits, at = int.from_bytes(_head(data).removeprefix(_START), "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & ((1 << count) - 1)

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take(_SIZE_BITS[take(2)]) + 1

    height, ratio = side(), take(3)
    width = height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1] if ratio else side()
    if take(1):
        return (width, height), 8
    if take(1) and take(6) >> 3:
        # A preview, an animation or another size comes first.
        return (width, height), 16
    is_float, which = take(1), take(2)
    return (width, height), 32 if is_float else (8, 10, 12)[which] if which < 3 else take(6) + 1


def _head(data: bytes) -> bytes:
    """The beginning of the codestream, which may be split over several boxes. A codestream in any other box does not
    count: a file could claim with it to be smaller than it is."""
    if data.startswith(_START):
        return data[:_HEAD_BYTES]
    head = b""
    for kind, start, end in boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            # A part begins with its number.
            start += 4 * (kind == b"jxlp")
            head += data[start : min(end, start + _HEAD_BYTES)]
        if len(head) >= _HEAD_BYTES:
            break
    return head[:_HEAD_BYTES]
