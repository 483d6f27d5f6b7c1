"""The boxes of JPEG 2000 and JPEG XL files (ISO 14496-12, 4.2)."""

from __future__ import annotations

from collections.abc import Iterator


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each box, and the range `[start, end)` of its body, until one has an impossible length."""
    at = 0
    while at + 8 <= len(data):
        length, kind, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if length == 1:
            length, start = int.from_bytes(data[start : start + 8], "big"), at + 16
        end = at + length if length else len(data)
        if end < start:
            return
        yield kind, start, min(end, len(data))
        at = end
