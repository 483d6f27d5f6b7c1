"""Reads a body within a byte limit that counts bytes after decompression, not only before."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from visor.errors import FetchFailed

_ANY_ZLIB_HEADER = 32 + zlib.MAX_WBITS
_GZIP = b"\x1f\x8b"
"""How gzip data begins."""


def iter_body(chunks: Iterable[bytes], *, coding: str, length: str | None, bytes_max: int) -> Iterator[bytes]:
    """The decoded body, chunk by chunk.

    Args:
        chunks: The body as it arrives.
        coding: The response's `Content-Encoding`, empty for none.
        length: The response's `Content-Length`, if it has one: if it is too large, nothing is read.
        bytes_max: Most bytes to read, and most to decode to.

    Raises:
        FetchFailed: The body is larger, or has an encoding that was not requested, or is broken.
    """
    if length is not None and length.isdigit() and int(length) > bytes_max:
        raise _too_large(f"{int(length):,} bytes", bytes_max)
    decoded = _decoded(_limited(chunks, bytes_max), coding.strip().lower(), bytes_max)
    yield from _limited(decoded, bytes_max)


def _limited(chunks: Iterable[bytes], bytes_max: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > bytes_max:
            raise _too_large(f"more than {bytes_max:,} bytes", bytes_max)
        yield chunk


def _decoded(chunks: Iterable[bytes], coding: str, bytes_max: int) -> Iterator[bytes]:
    if coding in ("", "identity"):
        yield from chunks
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise FetchFailed(
            f"The response is encoded as {coding[:40]!r}, which was not requested", valid="gzip or nothing"
        )
    inflate = zlib.decompressobj(_ANY_ZLIB_HEADER)
    try:
        for chunk in chunks:
            # One byte more than allowed is enough to detect that it is too large.
            yield inflate.decompress(chunk, bytes_max + 1)
            # gzip data may be several members, one after the other (RFC 1952, 2.2). Anything else after it is padding.
            while inflate.eof and (rest := inflate.unused_data).startswith(_GZIP):
                inflate = zlib.decompressobj(_ANY_ZLIB_HEADER)
                yield inflate.decompress(rest, bytes_max + 1)
            if inflate.unconsumed_tail:
                raise _too_large(f"more than {bytes_max:,} bytes once unpacked", bytes_max)
    except zlib.error as exc:
        raise FetchFailed(f"The response claims to be {coding} but cannot be unpacked: {exc}") from exc
    if not inflate.eof:
        raise FetchFailed(f"The {coding} data of the response ends before its end")


def _too_large(size: str, bytes_max: int) -> FetchFailed:
    return FetchFailed(
        f"The response has {size}",
        valid=f"At most {bytes_max:,} bytes",
        remedy="Link to a smaller version, or raise VISOR_FETCH_BYTES_MAX",
    )
