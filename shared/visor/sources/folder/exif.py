"""The EXIF of an image, as far as an item has fields for it."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from visor.sources.parse.encoding import decoded

_CAMERAS_WORDS = re.compile(
    r"[A-Z ]*DIGITAL (?:STILL )?CAMERA|SONY DSC|DCF ?1\.0|SAMSUNG|KODAK Digital Still Camera|Exif[_ ]JPEG.*|"
    r"<?KENOX.*|DSC|DCIM|cof|dav|oznor|hdr|rhdr|sdr|ptr|mde|bty|sdr_.*|hdrpl|smartcapture|Created with GIMP|default|"
    r"(?:Processed|Edited|Photographed) with .*|Screenshot|\W*"
)
"""Descriptions that a camera or program writes into every picture."""
_DATE_FORMAT = "%Y:%m:%d %H:%M:%S"


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
    taken = photo.get(ExifTags.Base.DateTimeOriginal) or tags.get(ExifTags.Base.DateTime)
    return Exif(
        title=_wide(tags.get(ExifTags.Base.XPTitle)),
        description=_own_words(_text(tags.get(ExifTags.Base.ImageDescription))),
        artist=_text(tags.get(ExifTags.Base.Artist)) or _wide(tags.get(ExifTags.Base.XPAuthor)),
        copyright=_text(tags.get(ExifTags.Base.Copyright)),
        date=_date(taken, photo.get(ExifTags.Base.OffsetTimeOriginal)),
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
    return _text(value.decode("utf-16-le", "replace")) if isinstance(value, bytes) else None


def _date(taken: Any, offset: Any) -> str | None:
    try:
        moment = datetime.strptime(str(taken).strip("\0 "), _DATE_FORMAT).isoformat()
    except ValueError:
        return None
    zone = str(offset or "").strip("\0 ")
    try:
        return datetime.fromisoformat(moment + zone).isoformat()
    except ValueError:
        return moment
