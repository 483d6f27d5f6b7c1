"""What an origin answers, and what its refusals and the failures of a connection mean to Visor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpcore
import httpx

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable
from visor.imaging.sniff import picture_format, what_instead
from visor.schema.items import Record

_UNAVAILABLE = frozenset({202, 408, 421, 425, 429})

TRANSLATED: tuple[tuple[type[Exception], Callable[[str], Exception], str], ...] = (
    (httpcore.ConnectTimeout, FetchUnavailable, "does not accept connections in time"),
    (httpcore.ReadTimeout, FetchUnavailable, "does not answer in time"),
    (httpcore.WriteTimeout, FetchUnavailable, "does not take the request in time"),
    (httpcore.PoolTimeout, FetchUnavailable, "could not be asked: all connections are in use"),
    (httpcore.ConnectError, FetchUnavailable, "cannot be connected to"),
    (httpcore.NetworkError, FetchUnavailable, "broke off the connection"),
    (httpcore.RemoteProtocolError, FetchUnavailable, "does not answer in proper HTTP"),
    (httpcore.ProtocolError, FetchFailed, "cannot be asked for this address"),
    (httpcore.ConnectionNotAvailable, FetchUnavailable, "could not be asked: its connection was in use"),
    (httpcore.UnsupportedProtocol, FetchRefused, "is asked over a protocol that Visor does not speak"),
    (httpcore.ProxyError, FetchUnavailable, "is behind a proxy that failed"),
)
"""Each error of httpcore (the first that fits), what it becomes, and how the sentence goes on after the host's name."""


class Fetched(Record, frozen=True, kw_only=True):
    """What an address gave."""

    body: bytes
    """Empty if `not_modified`."""
    url: str
    """The address that answered, after redirects."""
    media_type: str = ""
    """`Content-Type` without parameters, in lower case; what the origin claims, not what the bytes are."""
    charset: str | None = None
    etag: str | None = None
    modified: str | None = None
    """`Last-Modified` as it was sent."""
    not_modified: bool = False
    """The validators that were passed still hold."""


class Probed(Record, frozen=True, kw_only=True):
    """What an address said when it was only asked whether it is still there."""

    url: str
    """The address that answered, after redirects."""
    lasting_url: str
    """The address to ask for from now on: where redirects that are meant to last (301, 308) lead."""


class FetchedStream(NamedTuple):
    """What an address gives, as it comes."""

    pieces: Iterator[bytes]
    url: str
    media_type: str
    charset: str | None
    etag: str | None
    modified: str | None
    not_modified: bool


def retry_after_s(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for (a number or an HTTP date; RFC 9110, 10.2.3); none if unreadable."""
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


def expect(fetched: Fetched, accept: str) -> Fetched:
    """What was fetched, unless a picture was asked for and it is plainly something else."""
    if not accept.startswith("image/") or fetched.not_modified or picture_format(fetched.body):
        return fetched
    if not fetched.body:
        raise FetchFailed("The address gave an empty answer", valid="A picture", remedy="Correct the address")
    other = what_instead(fetched.body)
    claims_text = fetched.media_type.startswith("text/") or fetched.media_type == "application/json"
    if other in ("HTML", "JSON", "XML") or (other is None and claims_text):
        raise FetchFailed(
            f"The address gave {other or fetched.media_type}, not a picture",
            valid="The address of the picture itself",
            remedy="Open the page and copy the address of its picture, not of the page",
        )
    return fetched


def content_type(fields: httpx.Headers) -> tuple[str, str | None]:
    """Media type and charset that the origin claims."""
    media_type, _, parameters = fields.get("content-type", "").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([\w.:-]+)", parameters, re.IGNORECASE)
    return media_type.strip().lower(), charset[1].lower() if charset else None


def translated(exc: Exception, url: httpx.URL) -> Exception:
    if isinstance(exc, httpcore.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(exc):
        return FetchFailed(f"{url.host} cannot prove its name: {exc}", remedy="Its owner has to renew its certificate")
    make, ending = next((make, ending) for kind, make, ending in TRANSLATED if isinstance(exc, kind))
    return make(f"{url.host} {ending} ({type(exc).__name__}: {exc})")


def rejection(url: httpx.URL, status: int, fields: httpx.Headers) -> FetchFailed | FetchUnavailable:
    """What a status that is no answer to read means: no for good, or not now."""
    if status < 500 and status not in _UNAVAILABLE:
        return FetchFailed(
            f"{url.host} answered {status} for {url.raw_path.decode('ascii', 'replace')[:200]!r}",
            valid="200 is an answer to read",
            remedy="Check that the address opens in a browser without signing in",
            status=status,
        )
    wait_s = retry_after_s(fields.get("retry-after"))
    return FetchUnavailable(f"{url.host} answered {status} for now", remedy="Try again later", retry_after_s=wait_s)
