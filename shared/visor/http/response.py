"""What a response means to Visor: its media type, its refusals, and whether its body is an image."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from visor.errors import FetchFailed, FetchUnavailable
from visor.imaging.sniff import image_format, what_instead

_NO_SUCH_SIZE = re.compile(rb"thumbnail (?:steps|sizes)", re.I)
"""Wikimedia's message, with 429, for a width that it does not make. Waiting would not help."""
_UNAVAILABLE = frozenset({202, 408, 421, 425, 429})


def head_fields(response: httpx.Response) -> dict[str, Any]:
    """The fields of `visor.http.fetch.Response` except the URL."""
    headers = response.headers
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([\w.:-]+)", parameters, re.IGNORECASE)
    return {
        "media_type": media_type.strip().lower(),
        "charset": charset[1].lower() if charset else None,
        "etag": headers.get("etag"),
        "modified": headers.get("last-modified"),
        "headers": dict(headers),
        "not_modified": response.status_code == 304,
        "robots": tuple(headers.get_list("x-robots-tag")),
    }


def retry_after_s(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds in a `Retry-After` header (a number or an HTTP date; RFC 9110, 10.2.3); None if unreadable."""
    if text is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", text):
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def ensure_image(body: bytes, media_type: str) -> None:
    """Raise `FetchFailed` if a body, or its beginning, is plainly not an image."""
    if image_format(body):
        return
    if not body:
        raise FetchFailed("The URL gave an empty response", valid="An image", remedy="Correct the URL")
    other = what_instead(body)
    claims_text = media_type.startswith("text/") or media_type == "application/json"
    if other in ("HTML", "JSON", "XML") or (other is None and claims_text):
        raise FetchFailed(
            f"The URL gave {other or media_type}, not an image",
            valid="The URL of the image itself",
            remedy="Open the page and copy the URL of its image, not of the page",
        )


def status_error(response: httpx.Response, body: bytes = b"") -> FetchFailed | FetchUnavailable:
    """The error for a status other than success and the beginning of its body: no for good, or not now."""
    url, status = response.url, response.status_code
    if status == 429 and _NO_SUCH_SIZE.search(body):
        return FetchFailed(
            f"{url.host} does not make thumbnails of this size: {url.raw_path.decode('ascii', 'replace')[:200]!r}",
            valid="One of the sizes that it keeps ready",
            remedy="Crawl the source again: it then returns a new URL of the picture",
            status=status,
        )
    if status < 500 and status not in _UNAVAILABLE:
        return FetchFailed(
            f"{url.host} answered {status} for {url.path[:200]!r}",
            valid="A status of 200",
            remedy="Check that the URL opens in a browser without signing in",
            status=status,
        )
    wait_s = retry_after_s(response.headers.get("retry-after"))
    return FetchUnavailable(f"{url.host} answered {status} for now", remedy="Try again later", retry_after_s=wait_s)
