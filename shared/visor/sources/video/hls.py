"""HLS playlists (RFC 8216): which segments a video or a live stream consists of."""

from __future__ import annotations

import math
import re
from urllib.parse import urljoin

import m3u8

from visor.errors import SourceError
from visor.schema.items import Record
from visor.sources.parse.encoding import decoded

_START = "#EXTM3U"
SEQUENCE_MAX = 2**53
_SOUND = ("mp4a", "ac-3", "ec-3", "ac-4", "opus", "flac", "alac", "vorbis", "mp3", "dts", "stpp", "wvtt")
"""Beginnings of the names of codecs that have no pictures, such as subtitles (RFC 6381)."""


class HlsSegment(Record, frozen=True, kw_only=True):
    url: str
    sequence: int
    seconds: float
    """Its duration."""


class HlsPlaylist(Record, frozen=True, kw_only=True):
    segments: tuple[HlsSegment, ...] = ()
    ended: bool = False
    """No segments will be added: it is a recording, not a live stream."""
    variant: str | None = None
    """URL of a master playlist's variant with pictures and the lowest bandwidth, which is read instead."""


def is_playlist(start: bytes) -> bool:
    """Whether a file with this beginning is a playlist, whatever its URL."""
    return decoded(start[:64]).lstrip().startswith(_START)


def parse_playlist(data: bytes, url: str) -> HlsPlaylist:
    """A playlist that was read from `url`.

    Raises:
        SourceError: It is not a playlist, or its segments cannot be read without a key or their own header.
    """
    text = decoded(data).strip()
    if not text.startswith(_START):
        raise SourceError(f"{url:.200} is not an HLS playlist", valid="A text that starts with #EXTM3U")
    try:
        parsed = m3u8.loads(text)
    except Exception as exc:  # the parser raises many errors for malformed attributes
        raise SourceError(f"{url:.200} is not a valid HLS playlist: {_why(exc)}") from exc
    if any(key is not None and key.method != "NONE" for key in parsed.keys):
        raise SourceError(f"{url:.200} is encrypted", valid="A stream without #EXT-X-KEY")
    for tag, found in (("MAP", parsed.segment_map), ("BYTERANGE", any(part.byterange for part in parsed.segments))):
        if found:
            raise SourceError(f"{url:.200} has EXT-X-{tag}", valid="Segments that are whole MPEG transport streams")
    first = parsed.media_sequence or 0
    if not 0 <= first < SEQUENCE_MAX:
        raise SourceError(f"{url:.200} begins with segment {first}", valid=f"A number below {SEQUENCE_MAX}")
    variants = [(_has_pictures(info := one.stream_info), info.bandwidth or 0, one.uri) for one in parsed.playlists]
    if variants and not max(variants)[0]:
        raise SourceError(f"There is no video in {url:.200}, only sound", valid="A variant with pictures")
    best = [variant for variant in variants if variant[0] == max(variants)[0]]
    return HlsPlaylist(
        segments=tuple(
            HlsSegment(url=_joined(url, segment.uri), sequence=first + at, seconds=_seconds(segment.duration))
            for at, segment in enumerate(parsed.segments)
            if segment.uri and not segment.gap_tag
        ),
        ended=parsed.is_endlist or parsed.playlist_type == "vod",
        variant=_joined(url, min(best)[-1]) if best else None,
    )


def _joined(url: str, uri: str) -> str:
    """What a playlist names, as a URL; as it is written if it cannot be one: then only fetching it fails."""
    try:
        return urljoin(url, uri)
    except ValueError:
        return uri


def _seconds(duration: float | None) -> float:
    """The duration of a segment; 0 if a playlist does not know it and writes -1, as for a channel."""
    return duration if duration is not None and 0 <= duration < math.inf else 0.0


def _why(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"an attribute is missing in it: {exc.args[0]}"
    number = re.search(r"(?:float|int).*: ('.*')\Z", str(exc), re.S)
    return f"{number[1]:.100} is not a number" if number else f"{exc!s:.200}"


def _has_pictures(info: m3u8.StreamInfo) -> float:
    """1 if a variant declares pictures, 0 if it declares that it has none, a value between if it declares nothing."""
    if info.resolution:
        return 1.0
    codecs = [codec.strip().lower() for codec in (info.codecs or "").split(",") if codec.strip()]
    return float(not all(codec.startswith(_SOUND) for codec in codecs)) if codecs else 0.5
