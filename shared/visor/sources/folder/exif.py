"""The EXIF and XMP of an image, as far as an item has fields for them; XMP also from a file next to it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

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
"""The standard's form, and the forms that programs write: with other signs, with a zone, without the time."""

XMP_BYTES_MAX = 4_000_000
"""Programs keep masks in this namespace."""
_NAMESPACES = {
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
    "http://www.w3.org/XML/1998/namespace": "xml",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/exif/1.0/": "exif",
}
_XMP_DATES = ("exif:DateTimeOriginal", "photoshop:DateCreated", "xmp:CreateDate")


class Exif(NamedTuple):
    """Texts that are not blank."""

    title: str | None = None
    description: str | None = None
    artist: str | None = None
    copyright: str | None = None
    date: str | None = None
    """ISO 8601, with an offset where the camera wrote one."""

    def or_else(self, other: Exif) -> Exif:
        """This description, with the other's texts where it has none itself."""
        return Exif(*(own or its for own, its in zip(self, other, strict=True)))


def read_exif(path: Path) -> Exif:
    """The EXIF of an image file, completed from its XMP; empty if there is none or it cannot be read."""
    # Not imported with the module: a bucket's crawl lacks this library, and reads no EXIF.
    import pillow_heif

    pillow_heif.register_heif_opener()
    try:
        with warnings.catch_warnings():
            # embed rejects broken and huge images; here only the header is read.
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                tags = picture.getexif()
                photo, xmp = tags.get_ifd(ExifTags.IFD.Exif), picture.info.get("xmp")
    except Exception:  # noqa: BLE001 -- Pillow's readers raise whatever a hostile file makes them
        return Exif()
    offset = photo.get(ExifTags.Base.OffsetTimeOriginal)
    original, digitized = photo.get(ExifTags.Base.DateTimeOriginal), photo.get(ExifTags.Base.DateTimeDigitized)
    taken = (_date(original, offset), _date(digitized, None), _date(tags.get(ExifTags.Base.DateTime), None))
    exif = Exif(
        title=_wide(tags.get(ExifTags.Base.XPTitle)),
        description=_own_words(_text(tags.get(ExifTags.Base.ImageDescription))),
        artist=_text(tags.get(ExifTags.Base.Artist)) or _wide(tags.get(ExifTags.Base.XPAuthor)),
        copyright=_text(tags.get(ExifTags.Base.Copyright)),
        date=next(filter(None, taken), None),
    )
    with suppress(ValueError):
        return exif.or_else(read_xmp(xmp)) if isinstance(xmp, bytes) else exif
    return exif


def read_xmp(data: bytes) -> Exif:
    """The description in XMP data (ISO 16684-1). Raises ValueError if the data is not XMP."""
    import xmltodict

    if len(data) > XMP_BYTES_MAX:
        raise ValueError(f"it has {len(data):,} bytes; at most {XMP_BYTES_MAX:,} are read")
    try:
        text = decoded(data).strip("\0 \r\n\t\ufeff")
        document = xmltodict.parse(text, process_namespaces=True, namespaces=_NAMESPACES)
        found = dict(_properties(document))
    except Exception as exc:  # the parser raises many errors for broken text, and refuses entities
        raise ValueError("it is not XMP") from exc
    dates = (_date(said, None) for name in _XMP_DATES if (said := _said(found.get(name))))
    return Exif(
        title=_said(found.get("dc:title")),
        description=_own_words(_said(found.get("dc:description"))),
        artist=_said(found.get("dc:creator")),
        copyright=_said(found.get("dc:rights")),
        date=next(filter(None, dates), None),
    )


def _properties(node: Any) -> Iterator[tuple[str, Any]]:
    """The properties of all descriptions in XMP data, written as elements or as attributes."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        for one in value if isinstance(value, list) else [value]:
            if name == "rdf:Description" and isinstance(one, Mapping):
                yield from ((key.removeprefix("@"), said) for key, said in one.items())
            else:
                yield from _properties(one)


def _said(value: Any) -> str | None:
    """A property's text: if there are several languages, the default one; for several people, their names."""
    if isinstance(value, Mapping):
        several = next((value[kind] for kind in ("rdf:Alt", "rdf:Seq", "rdf:Bag") if kind in value), None)
        if isinstance(several, Mapping):
            entries = several.get("rdf:li")
            entries = entries if isinstance(entries, list) else [entries]
            if "rdf:Alt" in value:
                is_default = [isinstance(one, Mapping) and one.get("@xml:lang") == "x-default" for one in entries]
                entries = entries[is_default.index(True) if True in is_default else 0 :][:1]
            return "; ".join(filter(None, map(_said, entries))) or None
        value = value.get("#text")
    return value.strip() or None if isinstance(value, str) else None


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
