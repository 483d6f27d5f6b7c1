"""Large PNG and TIFF files a few rows at a time, for pictures that would need too much memory as a whole.

Pillow decodes only whole files. So each band becomes a small file: a PNG that begins with the last row of the previous
band, to which the filters of the next row refer; a TIFF of some of the strips, or of one row of tiles.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from itertools import accumulate

from PIL import Image, TiffTags
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

BAND_BYTES = 8_000_000
PIECE_BYTES = 1 << 16
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_ROWS = {"L": "L", "RGB": "RGB", "LA": "LA", "RGBA": "RGBA", "P": "P", "I;16": "I;16B"}
"""Pillow's mode, and its raw mode that returns a row's bytes as they are in the file."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

_TIFF_KEPT = {258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 322, 323, 332, 338, 339, 347, 530}
"""Tags without which a strip or a tile cannot be decoded."""
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _ROWS, _COUNTS, _PLANES = 256, 257, 258, 259, 273, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325


def png_bands(data: bytes, image: Image.Image) -> Iterator[Image.Image]:
    """The rows of an opened PNG; nothing if it cannot be read in bands: interlaced, or 16 bits in several channels."""
    depth, colour, interlaced = data[24], data[25], data[28]
    if interlaced or image.mode not in _PNG_ROWS or depth != (16 if image.mode == "I;16" else 8):
        return
    row_bytes = 1 + image.width * _CHANNELS[colour] * depth // 8
    step, left, before = max(1, BAND_BYTES // row_bytes), image.height, b""
    head = b"".join(_chunk(kind, bytes(body)) for kind, body in _chunks(data) if kind in (b"PLTE", b"tRNS"))
    inflate, rows = zlib.decompressobj(), bytearray()
    for piece in _pieces(data):
        rows += inflate.decompress(piece)
        while left and len(rows) >= row_bytes * min(step, left):
            count = min(step, left)
            stored = zlib.compressobj(0)
            with memoryview(rows) as view:
                raw = [stored.compress(before), stored.compress(view[: count * row_bytes]), stored.flush()]
            del rows[: count * row_bytes]
            size = struct.pack(">II", image.width, count + bool(before))
            # The checksum of the pixels' chunk, 0 here, is not checked.
            length = struct.pack(">I", sum(map(len, raw)))
            body = b"".join([_chunk(b"IHDR", size + data[24:29]), head, length, b"IDAT", *raw, bytes(4)])
            with PngImageFile(BytesIO(_PNG_START + body + _chunk(b"IEND", b""))) as band:
                yield band.crop((0, int(bool(before)), *band.size))
                last = band.crop((0, band.height - 1, *band.size))
            before, left = b"\0" + last.tobytes("raw", _PNG_ROWS[image.mode]), left - count
        if not left:
            return
    raise EOFError("image file is truncated")


def tiff_bands(data: bytes, image: TiffImageFile) -> Iterator[Image.Image]:
    """The rows of an opened TIFF; nothing if it cannot be read in bands: a plane per channel, or one huge strip."""
    tags = image.tag_v2
    width, height, tiled = tags[_WIDTH], tags[_HEIGHT], _TILE_OFFSETS in tags
    offsets, counts = tags[_TILE_OFFSETS if tiled else _OFFSETS], tags[_TILE_COUNTS if tiled else _COUNTS]
    rows = tags[_TILE_HEIGHT] if tiled else min(tags.get(_ROWS, height), height)
    across = -(-width // tags[_TILE_WIDTH]) if tiled else 1
    if not tiled and tags.get(_COMPRESSION, 1) == 1 and len(offsets) == 1:
        # Nothing is compressed, so each row of the one strip can be a strip.
        rows, row_bytes = 1, -(-width * sum(tags.get(_BITS, (1,))) // 8)
        offsets, counts = range(offsets[0], offsets[0] + row_bytes * height, row_bytes), [row_bytes] * height
    # Strips are small, sometimes one row each: take as many as fit in a band.
    step = 1 if tiled else max(1, BAND_BYTES // (rows * width * 4))
    if tags.get(_PLANES, 1) != 1 or rows * width > BAND_BYTES or len(offsets) < -(-height // rows) * across:
        return
    for first in range(0, height, rows * step):
        which = range(first // rows * across, min(first // rows + step, -(-height // rows)) * across)
        parts = [data[offsets[i] : offsets[i] + counts[i]] for i in which]
        own = {_WIDTH: width, _HEIGHT: min(rows * step, height - first)} | ({} if tiled else {_ROWS: rows})
        with TiffImageFile(BytesIO(_tiff(tags, own, parts, tiled))) as band:
            yield band.crop((0, 0, *band.size))


def _tiff(tags: ImageFileDirectory_v2, own: Mapping[int, int], parts: Sequence[bytes], tiled: bool) -> bytes:
    """A TIFF with the byte order of those tags."""
    where, lengths = (_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_OFFSETS, _COUNTS)
    header = b"II*\0\x08\0\0\0" if tags.prefix == b"II" else b"MM\0*\0\0\0\x08"
    directory = ImageFileDirectory_v2(header)
    for tag in _TIFF_KEPT & tags.keys():
        directory[tag] = tags[tag]
    starts = tuple(accumulate(map(len, parts[:-1]), initial=0))
    for tag, value in {**own, lengths: tuple(map(len, parts)), where: starts}.items():
        directory.tagtype[tag] = TiffTags.LONG
        directory[tag] = value
    if tiled:
        # Pillow itself does this for strips: they begin after the directory.
        size = len(header) + len(directory.tobytes(len(header)))
        directory[where] = tuple(size + start for start in starts)
    return header + directory.tobytes(len(header)) + b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    at = len(_PNG_START)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], memoryview(data)[at + 8 : at + 8 + length]
        at += 12 + length


def _pieces(data: bytes) -> Iterator[memoryview]:
    """The compressed pixels in pieces: each may inflate to a thousand times its size."""
    for kind, body in _chunks(data):
        if kind == b"IDAT":
            yield from (body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES))
