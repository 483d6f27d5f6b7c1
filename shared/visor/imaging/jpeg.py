"""The structure of JPEG files: their segments, and the whole JPEGs that a RAW file or a TIFF carries as previews."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

END = b"\xff\xd9"
PREVIEWS_MAX = 64
"""Beginnings that are looked at in one file; cameras write up to five previews."""

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""Not those that stand alone: stuffing, restarts, and the start of a JPEG."""
_SCAN, _END_CODE = 0xDA, 0xD9
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive; 0xC3, the lossless one, is a sensor's own data."""
_PREVIEW = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")


def segments(data: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment of the JPEG at `start`, as far as its own end: not of what follows it."""
    at = start + 2
    while (found := _MARKER.search(data, at)) is not None:
        at = found.start()
        marker = found.group()[1]
        yield marker, at
        if marker == _END_CODE or at + 4 > len(data):
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def scans(data: bytes | memoryview, stop: int) -> int:
    """How many scans it has; no more than `stop` are counted."""
    count = 0
    for marker, _ in segments(data):
        count += marker == _SCAN
        if count >= stop:
            break
    return count


def largest_preview(data: bytes) -> tuple[int, int]:
    """Where the largest JPEG within a file begins, and its pixels; (0, 0) if there is none that can be shown."""
    best = 0, 0
    for found, _ in zip(_PREVIEW.finditer(data), range(PREVIEWS_MAX), strict=False):
        for marker, at in segments(data, found.start()):
            if marker in _FRAMES and at + 9 <= len(data):
                bits, height, width = struct.unpack(">BHH", data[at + 4 : at + 9])
                if bits == 8 and width * height > best[1]:
                    best = found.start(), width * height
            if marker in (_SCAN, _END_CODE) or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
                break
    return best
