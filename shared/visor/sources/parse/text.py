"""Texts, dates and countries: from what catalogues write to what the page shows."""

from __future__ import annotations

import html
import math
import re
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

TITLE_LENGTH_MAX = 300
DESCRIPTION_LENGTH_MAX = 2000
READ_MAX = 20_000
"""Characters of a text that are read: a hostile text could make the search for its end slow."""

_TAG = re.compile(r"<(?:!--.*?--|/?[A-Za-z][^>]*)>", re.S)
_HIDDEN = re.compile(
    r"<(script|style)\b.*?</\1\s*>"
    r"|<(\w+)\b(?=[^<>]*(?:display\s*:\s*none|visibility\s*:\s*hidden|\shidden[\s=>]))[^<>]*>.*?</\2\s*>",
    re.S | re.I,
)
"""Elements that a browser does not show."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that a terminal would take for a command."""
_DOTNET_DATE = re.compile(r"/Date\((-?\d+)(?:[+-]\d{4})?\)/\Z")
_COMPACT = re.compile(r"(?=19|20)(\d{8})(?:([0-2]\d[0-5]\d)([0-5]\d)?)?\Z")
"""Digits of a day such as `20240501`, perhaps with its time; as seconds since 1970 this would be in August 1970."""
_PARTS = (
    re.compile(r"\A(?P<y>\d{4})[/.-](?P<m>\d\d?)[/.-](?P<d>\d\d?)(?!\d)"),
    re.compile(r"\A(?P<d>\d\d?)\.(?P<m>\d\d?)\.(?P<y>\d{4})(?!\d)"),
)
"""Days whose parts can have one order only: `05/01/2024` may be in January or in May."""
_COUNTS_TO = 1e6
"""Numbers from -1 to it are no seconds since 1970 but a year, a spreadsheet's day, or 0 or -1 for none."""
_MILLISECONDS_FROM = 1e11
"""Seconds since 1970 stay below this until the year 5138; milliseconds are above it since 1973."""


def plain_text(value: Any, length_max: int = DESCRIPTION_LENGTH_MAX) -> str:
    """A text without markup, entities, line breaks and double blanks, cut at a blank to at most `length_max`."""
    text = "" if value is None else str(value)[:READ_MAX]
    text = _TAG.sub(" ", _HIDDEN.sub(" ", text)) if "<" in text else text
    text = _CONTROLS.sub("", " ".join(html.unescape(text).replace("\0", "").split()))
    if len(text) <= length_max:
        return text
    cut = text[: length_max - 1]
    return (cut.rpartition(" ")[0] if " " in cut[length_max // 2 :] else cut).rstrip(" ,;:") + "…"


def scalar_text(value: Any) -> str:
    """A key, code or number as it is written; empty for everything else.

    A number has all its digits and no others: 7.0 is `7`, and 1e21 is a one with 21 zeros.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = format(Decimal(repr(value)), "f") if isinstance(value, int) or math.isfinite(value) else ""
        return text.rstrip("0").removesuffix(".") if "." in text else text
    return value.strip() if isinstance(value, str) else ""


def iso_date(value: Any) -> str | None:
    """ISO 8601 of an ISO text, an HTTP date, a day such as `1.5.2024` or `2024/5/1`, or seconds or milliseconds since
    1970 (also as `/Date(…)/`, which .NET writes); None for anything else, and for the year 1, which means no date."""
    if isinstance(value, bool) or value in (None, ""):
        return None
    if isinstance(value, str):
        value = re.sub(r"\s(?:UTC|GMT)\Z", " +0000", _DOTNET_DATE.sub(r"\1", value.strip()))
    if isinstance(value, int | float) and -1 <= value < _COUNTS_TO:
        return None
    if digits := _COMPACT.match(scalar_text(value)):
        value = f"{digits[1]}T{digits[2]}{digits[3] or ''}" if digits[2] else digits[1]
    if isinstance(value, int | float) or re.fullmatch(r"\d{9,13}(\.\d+)?", str(value)):
        try:
            seconds = float(value)
            seconds = seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds
            value = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
        except (ValueError, OverflowError, OSError):
            return None
    text = str(value)
    for parts in _PARTS:
        text = parts.sub(lambda day: f"{day['y']}-{day['m']:0>2}-{day['d']:0>2}", text)
    if text.startswith("0001"):
        return None
    for read in (date.fromisoformat if len(text) <= 10 else datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError):
            return read(text).isoformat().replace("+00:00", "Z")
    return None


def country_code(value: Any) -> str | None:
    """ISO 3166-1 alpha-2 in capitals if the value is such a code, else the text as it is."""
    text = plain_text(value, 60)
    return (text.upper() if re.fullmatch(r"[A-Za-z]{2}", text) else text) or None
