"""The structure of JPEG 2000 files (ISO 15444-1, annex A), which determines how much memory decoding needs."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from visor.imaging.boxes import boxes

TILE_BYTES, CHANNEL_BYTES, PRECINCT_BYTES, BLOCK_BYTES = 8_500, 1_100, 600, 400
"""Bytes that the decoder needs for each tile of a picture, each channel of a tile, and each precinct and code-block of
a tile's channel, as measured; for each packet two more."""
_START = b"\xff\x4f\xff\x51"
_STYLE, _STYLE_OF_ONE, _TILE_PART, _DATA = 0xFF52, 0xFF53, 0xFF90, 0xFF93


def levels(data: bytes) -> int:
    """How often its sides can be halved."""
    return next((style[0] for _, style in _coding_styles(data)), 0)


def structure_bytes(data: bytes) -> int:
    """Bytes that its tiles, precincts and code-blocks need, whatever size it is decoded to."""
    start = _codestream(data)
    if start < 0 or start + 42 > len(data):
        return 0
    found: tuple[int, ...] = struct.unpack_from(">8IH", data, start + 8)
    width, height, _, _, across, down, _, _, channels = found
    tiles, most = -(-width // max(1, across)) * -(-height // max(1, down)), 0
    for layers, (halved, x, y, _, _, *sizes) in _coding_styles(data):

        def parts(x: int, y: int) -> int:
            return -(-min(width, across) >> x) * -(-min(height, down) >> y)

        wide, high = min((size & 15 for size in sizes), default=15), min((size >> 4 for size in sizes), default=15)
        # A block is no larger than half of a precinct.
        blocks = parts(min((x & 15) + 2, max(0, wide - 1)), min((y & 15) + 2, max(0, high - 1)))
        precincts = parts(wide, high) * (PRECINCT_BYTES + 2 * layers * (halved + 1))
        most = max(most, blocks * BLOCK_BYTES + precincts)
    return tiles * (TILE_BYTES + channels * CHANNEL_BYTES) + channels * most


def _codestream(data: bytes) -> int:
    """Where the codestream begins; -1 if there is none. Codestreams in other boxes do not count, as in JPEG XL."""
    if data.startswith(_START):
        return 0
    start = next((start for kind, start, _ in boxes(data) if kind == b"jp2c"), -1)
    return start if start >= 0 and data.startswith(_START, start) else -1


def _coding_styles(data: bytes) -> Iterator[tuple[int, bytes]]:
    """For the picture, its channels and its tiles: the number of layers, and bytes with how often it is halved,
    exponents of a block's sides, two others, and exponents of the precincts' sides."""
    at = part = _codestream(data) + 2
    layers = 1
    while 2 <= at <= len(data) - 12:
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _TILE_PART:
            part = at
        elif marker == _DATA:
            at = part = part + (int.from_bytes(data[part + 6 : part + 10], "big") or len(data))
            continue
        elif marker in (_STYLE, _STYLE_OF_ONE):
            layers = int.from_bytes(data[at + 6 : at + 8], "big") if marker == _STYLE else layers
            style = data[at + (9 if marker == _STYLE else 6) : at + 2 + length]
            if len(style) > 4:
                yield layers, style
        at += 2 + length
