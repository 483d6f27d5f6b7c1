"""From a row's values to an item."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from visor.errors import DropItem
from visor.schema.items import Item, item_id
from visor.sources.contract import RowErrors
from visor.sources.parse.text import iso_date

_NO_URL = re.compile(r"https?:/*|[#-]*|n/?a|null|none|nil|undefined|nan|false|no_selection", re.IGNORECASE)
_NO_DATE = re.compile(r"[0\W_TZ]*|0001.*|\d{4}(?:-\d\d)?")
"""`0000-00-00`, the year 1 and `-` stand for no date, and a year or month alone for one that no day has."""


def make_item(
    source: str,
    key: str,
    image_url: str,
    *,
    title: str = "",
    price: float | None = None,
    currency: str | None = None,
    extra: Mapping[str, str] | None = None,
    **others: Any,
) -> Item:
    """The item of a source's key. A currency without a price and blank extras are left out.

    Args:
        others: The other fields of `Item`, texts or None.
    """
    return Item(
        id=item_id(source, key),
        source=source,
        key=key,
        image_url=image_url,
        title=title,
        price=price,
        currency=currency if price is not None else None,
        extra={name: value for name, value in (extra or {}).items() if value},
        **others,
    )


def resolve_url(value: Any, base_url: str, what: str) -> str:
    """An absolute http(s) URL. Raises `DropItem` if it cannot be one; `what` names it.

    Args:
        base_url: Its query is not part of the base, as it may hold a key.
    """
    if not isinstance(value, str) or is_no_url(value):
        raise DropItem(f"it has no address of a {what}" + (f" but {str(value)!r:.80}" if value else ""))
    try:
        url = urljoin(base_url.partition("?")[0], unescaped(value).replace("\\", "/"))
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http(s) address")
    except ValueError as exc:
        raise DropItem(f"its address of a {what} cannot be used: {value!r:.120} ({exc})") from exc
    return url.replace(" ", "%20")


def unescaped(url: str) -> str:
    """The intended form of a URL that was escaped for HTML once too often."""
    return url.strip().replace("&amp;", "&")


def is_no_url(text: str) -> bool:
    """Whether a text in place of a URL is a program's way to write that there is none."""
    return _NO_URL.fullmatch(text.strip()) is not None


def page_url_of(key: str, value: Any, base_url: str, errors: RowErrors) -> str | None:
    """An absolute http(s) URL of a page. One that cannot be used is reported, and the item stays without it."""
    if value is None or (isinstance(value, str) and is_no_url(value)):
        return None
    try:
        return resolve_url(value, base_url, "page")
    except DropItem as exc:
        errors.add(key, exc.reason, dropped=False)
        return None


def date_of(key: str, value: Any, errors: RowErrors) -> str | None:
    """ISO 8601 of a date. One that cannot be read is reported, and the item stays without it."""
    date = iso_date(value)
    if date is None and not _NO_DATE.fullmatch(text := str(value or "").strip()) and not is_no_url(text):
        errors.add(key, f"date {value!r:.60} is not a date such as 2026-05-01", dropped=False)
    return date
