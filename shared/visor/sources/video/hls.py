"""HLS playlists (RFC 8216): which segments a video or a live stream consists of."""

from __future__ import annotations

from urllib.parse import urljoin

import m3u8

from visor.errors import SourceError
from visor.schema.items import Record


class HlsSegment(Record, frozen=True, kw_only=True):
    url: str
    sequence: int
    seconds: float
    """Its duration."""


class HlsPlaylist(Record, frozen=True, kw_only=True):
    segments: tuple[HlsSegment, ...] = ()
    ended: bool = False
    """Nothing will be added: a recording, not a live stream."""
    variant: str | None = None
    """URL of a master playlist's variant with the lowest bandwidth, which is read instead."""


def parse_playlist(text: str, url: str) -> HlsPlaylist:
    """A playlist that was read from `url`.

    Raises:
        SourceError: It is not a playlist, or its segments cannot be read without a key or a header of their own.
    """
    if not text.lstrip().startswith("#EXTM3U"):
        raise SourceError(f"{url:.200} is not an HLS playlist", valid="A text that starts with #EXTM3U")
    try:
        parsed = m3u8.loads(text)
    except Exception as exc:  # the parser raises whatever a malformed attribute leads to
        raise SourceError(f"{url:.200} is not a valid HLS playlist: {exc!s:.200}") from exc
    if any(key is not None and key.method != "NONE" for key in parsed.keys):
        raise SourceError(f"{url:.200} is encrypted", valid="Streams without #EXT-X-KEY are read")
    for tag, found in (("MAP", parsed.segment_map), ("BYTERANGE", any(part.byterange for part in parsed.segments))):
        if found:
            raise SourceError(f"{url:.200} has EXT-X-{tag}", valid="Segments that are whole MPEG transport streams")
    first = parsed.media_sequence or 0
    variants = [(variant.stream_info.bandwidth or 0, urljoin(url, variant.uri)) for variant in parsed.playlists]
    return HlsPlaylist(
        segments=tuple(
            HlsSegment(url=urljoin(url, segment.uri), sequence=first + at, seconds=segment.duration or 0.0)
            for at, segment in enumerate(parsed.segments)
        ),
        ended=parsed.is_endlist,
        variant=min(variants)[1] if variants else None,
    )
