"""Which forms of URLs are fetched. Their addresses are checked on connecting (`visor.http.ssrf_guard`)."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

import httpx

from visor.errors import FetchFailed, FetchRefused
from visor.http.ssrf_guard import host_and_port

PORTS = frozenset({80, 443, 8000, 8080, 8182, 8443})
"""Ports that web servers use (8182: IIIF). Others only through `allow_hosts`: Visor is not a port scanner."""


def validate_url(text: str, allow: Collection[str]) -> httpx.URL:
    """The URL, normalised, if Visor fetches URLs of its form.

    Args:
        allow: `host:port` pairs that may have any port.

    Raises:
        FetchRefused: Visor does not fetch such URLs.
    """
    shown = repr(text.partition("?")[0][:200])
    try:
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii").rstrip(".")
        url = url.copy_with(host=host, fragment=None)
        # httpx decodes `xn--…` only now, and IDNA 2008 does not allow each: emoji are not.
        _ = url.host
    except (httpx.InvalidURL, UnicodeError, TypeError, ValueError) as exc:
        # What the library quotes may be a part of a password.
        why = str(exc).partition(":")[0]
        raise FetchRefused(f"{shown} is not a URL: {why}", valid="http://… or https://…") from exc
    if url.scheme not in ("http", "https"):
        raise FetchRefused(f"{shown} has the scheme {url.scheme[:40]!r}", valid="http or https")
    if not host or "%" in host:
        raise FetchRefused(f"{shown} names no host that can be fetched from", valid="http://host/… or https://host/…")
    if url.userinfo:
        raise FetchRefused(
            f"The URL on {host} carries a user name or password",
            valid="A URL without 'user:password@'",
            remedy="Remove that part; an image that needs a password cannot be shown to others",
        )
    if _port_of(url) not in PORTS and host_key(url) not in allow:
        raise FetchRefused(
            f"{shown} has the port {_port_of(url)}",
            valid="The ports " + ", ".join(str(port) for port in sorted(PORTS)),
            remedy=f"If this is a server that you trust, name it in VISOR_ALLOW_HOSTS as {host_key(url)}",
        )
    return url


def resolve_redirect(response: httpx.Response, allow: Collection[str]) -> httpx.URL:
    """The target of a redirect, if Visor fetches it. Raises as `validate_url`, or `FetchFailed`."""
    location = response.headers.get("location")
    host = response.url.host
    if location is None:
        raise FetchFailed(f"{host} redirects ({response.status_code}) without saying where to")
    try:
        target = response.url.join(location)
    except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
        raise FetchFailed(f"{host} redirects to {location[:200]!r}, which is not a URL: {exc}") from exc
    return validate_url(str(target), allow)


def host_of(url: str) -> str:
    """The host of any URL, with its port if that is not its scheme's default."""
    try:
        return httpx.URL(url).netloc.decode("ascii").rpartition("@")[2] or "nowhere"
    except (httpx.InvalidURL, ValueError):
        return urlsplit(url).netloc[:200] or "nowhere"


def host_key(url: httpx.URL) -> str:
    """`host:port`, as `allow_hosts` and `HostThrottle` name a host."""
    return host_and_port(url.raw_host.decode("ascii"), _port_of(url))


def _port_of(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]
