"""HLS playlists (RFC 8216): which segments a video or a live stream consists of."""

from __future__ import annotations

import re
from urllib.parse import urljoin

from visor.errors import SourceError
from visor.schema.items import Record

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')


class HlsSegment(Record, frozen=True, kw_only=True):
    url: str
    sequence: int
    seconds: float
    """How long it is."""


class HlsPlaylist(Record, frozen=True, kw_only=True):
    segments: tuple[HlsSegment, ...] = ()
    ended: bool = False
    """Nothing will be added: a recording. Else it is a live stream."""
    variant: str | None = None
    """A master playlist's smallest variant, which is read instead."""


def parse_playlist(text: str, url: str) -> HlsPlaylist:
    """A playlist that was read from `url`.

    Raises:
        SourceError: It is none, or its segments cannot be read without a key or an own header.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or not lines[0].startswith("#EXTM3U"):
        raise SourceError(f"{url:.200} is no HLS playlist", valid="A text that starts with #EXTM3U")
    segments: list[HlsSegment] = []
    variants: list[tuple[float, str]] = []
    sequence, seconds, bandwidth = 0, 0.0, None
    for line in lines[1:]:
        tag, _, value = line.partition(":")
        attributes = {name: found.strip('"') for name, found in _ATTRIBUTE.findall(value)}
        if tag == "#EXT-X-MEDIA-SEQUENCE":
            sequence = _number(value, url)
        elif tag == "#EXTINF":
            seconds = _seconds(value)
        elif tag == "#EXT-X-STREAM-INF":
            bandwidth = float(_number(attributes.get("BANDWIDTH", "0"), url))
        elif tag == "#EXT-X-KEY" and attributes.get("METHOD") != "NONE":
            raise SourceError(f"{url:.200} is encrypted", valid="Streams without #EXT-X-KEY are read")
        elif tag in ("#EXT-X-MAP", "#EXT-X-BYTERANGE"):
            raise SourceError(f"{url:.200} has {tag[1:]}", valid="Segments that are whole MPEG transport streams")
        elif not line.startswith("#"):
            if bandwidth is not None:
                variants.append((bandwidth, urljoin(url, line)))
                bandwidth = None
            else:
                segments.append(HlsSegment(url=urljoin(url, line), sequence=sequence, seconds=seconds))
                sequence += 1
    return HlsPlaylist(
        segments=tuple(segments), ended="#EXT-X-ENDLIST" in lines, variant=min(variants)[1] if variants else None
    )


def _number(text: str, url: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise SourceError(f"{url:.200} says {text!r:.40} where a whole number belongs")
    return int(text)


def _seconds(text: str) -> float:
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else 0.0
