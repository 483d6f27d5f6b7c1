"""Detects a format by its first bytes, whatever its name or media type is."""

from __future__ import annotations

import re

LOOK_BYTES = 1024
"""First bytes that are examined."""
ENDINGS = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
        *(".heic", ".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpf", ".jpx"),
    ]
)
"""Extensions of the files that Visor decodes, in lower case: not RAW, which is mostly next to its JPEG, nor JPEG XL,
for which the decoder is optional."""

_PICTURES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP"),
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", re.DOTALL), "BMP"),
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), "TIFF"),
    (re.compile(rb"....ftyp(avi[fs]|m[is]f1(....){1,12}?avi[fs])", re.DOTALL), "AVIF"),
    (re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif[12]|msf1)", re.DOTALL), "HEIF"),
    (re.compile(rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  "), "JPEG2000"),
    (re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "), "JXL"),
    # Olympus and OM, Panasonic and Leica, Fujifilm, Canon, Sigma, Minolta; most others write TIFF.
    (re.compile(rb"IIR[OS]|MMOR|IIU\x00|FUJIFILMCCD-RAW|....ftypcrx |FOVb|\x00MRM", re.DOTALL), "RAW"),
)
_OTHERS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"%PDF-"), "a PDF document"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive or office document"),
    (re.compile(rb"\x1f\x8b"), "gzip data"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "a video"),
    (re.compile(rb"\x00\x00\x01\x00"), "an icon (ICO)"),
    (re.compile(rb"%!PS"), "a PostScript document"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an old office document"),
    (re.compile(rb"BZh|Rar!|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd"), "a packed archive"),
)
# Atomic, so that a hostile run of comments cannot make the match take exponential time.
_TEXT_START = rb"(?>(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*)"
_TEXTS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(_TEXT_START + rb"(?:<!doctype\s+svg[^>]*>\s*)?<(?:\w+:)?svg[\s>]", re.I | re.DOTALL), "SVG"),
    (re.compile(_TEXT_START + rb"<!doctype\s+svg", re.I | re.DOTALL), "SVG"),
    (re.compile(_TEXT_START + rb"<(?:!doctype\s+html|html|head|body|script|title|meta)\b", re.I | re.DOTALL), "HTML"),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*[{\[]\s*[\"{\[\]}0-9tfn-]"), "JSON"),
    (re.compile(_TEXT_START + rb"<[a-z]", re.I | re.DOTALL), "XML"),
)


def image_format(data: bytes | memoryview) -> str | None:
    """The name in `visor.imaging.decode.FORMATS` of the format that the bytes begin with; `None` if it has none."""
    return _first(_PICTURES, bytes(data[:LOOK_BYTES]))


def what_instead(data: bytes | memoryview) -> str | None:
    """What the bytes are if not an image: 'SVG', 'HTML', 'JSON', 'XML', a description, or `None` if unknown."""
    return no_text(data) or _first(_TEXTS, bytes(data[:LOOK_BYTES]))


def no_text(data: bytes | memoryview) -> str | None:
    """What the bytes are if neither an image nor text: a description, or `None` if unknown."""
    return _first(_OTHERS, bytes(data[:LOOK_BYTES]))


def _first(patterns: tuple[tuple[re.Pattern[bytes], str], ...], head: bytes) -> str | None:
    return next((name for pattern, name in patterns if pattern.match(head)), None)
