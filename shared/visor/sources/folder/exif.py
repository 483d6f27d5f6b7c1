"""The EXIF of an image, as far as an item has fields for it."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pillow_heif
from PIL import ExifTags, Image

from visor.sources.parse.encoding import decoded

_CAMERAS_WORDS = re.compile(
    r"[A-Z ]*DIGITAL (?:STILL ?)?CAMERA|SONY DSC|DCF ?1\.0|SAMSUNG|SAMSUNG CAMERA PICTURES|KODAK Digital Still Camera|"
    r"Digital StillCamera|Exif[_ ]JPEG.*|<?KENOX.*|DSC|DCIM|DCIM[\\/].*|Maker:0x[0-9a-f]+,.*|AppleMark|Picasa|"
    r"(?:cof|dav|oznor|hdr|rhdr|sdr|ptr|mde|bty|hdrpl)(?:_\w*)?|smartcapture|Created with (?:The )?GIMP|default|"
    r"(?:charset=Ascii ?)?Screenshot|LEAD Technologies Inc.*|File written by Adobe Photoshop.*|"
    r"Optimized by JPEGmini.*|(?:Processed|Edited|Photographed) with .*|\W*"
)
"""Descriptions that a camera or program writes into every picture."""
_DATE = re.compile(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d))?(?:[.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?")
"""As the standard wants it, and with the signs, the zone or without the time that programs write."""


pillow_heif.register_heif_opener()


class Exif(NamedTuple):
    """Texts that are not blank."""

    title: str | None = None
    description: str | None = None
    artist: str | None = None
    copyright: str | None = None
    date: str | None = None
    """ISO 8601, with an offset where the camera wrote one."""


def read_exif(path: Path) -> Exif:
    """The EXIF of an image file; empty if there is none or it cannot be read."""
    try:
        with warnings.catch_warnings():
            # embed rejects broken and huge images; here only the header is read.
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                tags = picture.getexif()
                photo = tags.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # noqa: BLE001 -- Pillow's readers raise whatever a hostile file makes them
        return Exif()
    offset = photo.get(ExifTags.Base.OffsetTimeOriginal)
    original, digitized = photo.get(ExifTags.Base.DateTimeOriginal), photo.get(ExifTags.Base.DateTimeDigitized)
    taken = (_date(original, offset), _date(digitized, None), _date(tags.get(ExifTags.Base.DateTime), None))
    return Exif(
        title=_wide(tags.get(ExifTags.Base.XPTitle)),
        description=_own_words(_text(tags.get(ExifTags.Base.ImageDescription))),
        artist=_text(tags.get(ExifTags.Base.Artist)) or _wide(tags.get(ExifTags.Base.XPAuthor)),
        copyright=_text(tags.get(ExifTags.Base.Copyright)),
        date=next(filter(None, taken), None),
    )


def _text(value: Any) -> str | None:
    """Pillow reads these bytes as Latin-1; most programs write UTF-8."""
    if not isinstance(value, str):
        return None
    with suppress(UnicodeEncodeError):
        value = decoded(value.encode("latin-1"))
    return value.replace("\0", " ").strip() or None


def _own_words(text: str | None) -> str | None:
    return None if text and _CAMERAS_WORDS.fullmatch(text) else text


def _wide(value: Any) -> str | None:
    """Windows' own tags are UTF-16."""
    return _text(value[: len(value) // 2 * 2].decode("utf-16-le", "replace")) if isinstance(value, bytes) else None


def _date(taken: Any, offset: Any) -> str | None:
    found = _DATE.fullmatch(str(taken).strip("\0 "))
    if found is None:
        return None
    year, month, day, hour, minute, second, zone = found.groups()
    try:
        moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    except ValueError:
        return None
    if hour is None:
        return moment.date().isoformat()
    try:
        return datetime.fromisoformat(moment.isoformat() + (zone or str(offset or "").strip("\0 "))).isoformat()
    except ValueError:
        return moment.isoformat()
