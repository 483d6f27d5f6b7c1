"""The structure of JPEG files: their segments, and the whole JPEGs that a RAW file or a TIFF carries as previews."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice

import numpy as np

END = b"\xff\xd9"
PREVIEWS_MAX = 64
"""Possible starts of a preview that are examined in one file; cameras write up to five previews."""
SEGMENTS_MAX = 1_000
"""Segments before a preview's pixels that are examined. A colour profile needs 255 at most; millions of empty ones
after each possible start would keep a processor busy for minutes."""

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""Markers of segments, not those without one: stuffing, restarts, and the start of a JPEG."""
_SCAN, _END_CODE = 0xDA, 0xD9
_SCAN_PAIR = int.from_bytes((0xFF, _SCAN), "little")
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive; 0xC3, the lossless one, is a sensor's own data."""
_PREVIEW = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")


def segments(data: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, int]]:
    """Marker and position of each segment of the JPEG at `start`, up to its own end."""
    at = start + 2
    while (found := _MARKER.search(data, at)) is not None:
        at = found.start()
        marker = found.group()[1]
        yield marker, at
        if marker == _END_CODE or at + 4 > len(data):
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def has_more_scans(data: bytes, limit: int) -> bool:
    """Whether it has more scans than `limit`."""
    # Few JPEGs have that many of the two bytes that begin a scan. NumPy counts them in a ninth of the time of `count`.
    pairs = (np.frombuffer(data, "<u2", (len(data) - odd) // 2, odd) for odd in (0, 1))
    if sum(np.count_nonzero(two == _SCAN_PAIR) for two in pairs) <= limit:
        return False
    scans = (at for marker, at in segments(data) if marker == _SCAN)
    return any(True for _ in islice(scans, limit, None))


def largest_preview(data: bytes) -> tuple[int, int]:
    """Start of the largest JPEG within a file, and its number of pixels; (0, 0) if none can be decoded."""
    best = 0, 0
    for found, _ in zip(_PREVIEW.finditer(data), range(PREVIEWS_MAX), strict=False):
        for marker, at in islice(segments(data, found.start()), SEGMENTS_MAX):
            if marker in _FRAMES and at + 9 <= len(data):
                bits, height, width = struct.unpack(">BHH", data[at + 4 : at + 9])
                if bits == 8 and width * height > best[1]:
                    best = found.start(), width * height
            if marker in (_SCAN, _END_CODE) or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
                break
    return best
