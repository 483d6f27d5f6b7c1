"""Which addresses are fetched, by their form. Where they lead is checked on connecting (`visor.http.ssrf_guard`)."""

from __future__ import annotations

from collections.abc import Collection

import httpx

from visor.errors import FetchFailed, FetchRefused
from visor.http.public_addresses import host_and_port

PORTS = frozenset({80, 443, 8000, 8080, 8182, 8443})
"""Ports that web servers use (8182: IIIF). Others only through `allow_hosts`: Visor is no port scanner."""


def checked(text: str, allow: Collection[str]) -> httpx.URL:
    """The address, normalised, if its form is one that Visor fetches. Where it leads is checked on connecting."""
    try:
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii").rstrip(".")
        url = url.copy_with(host=host, fragment=None)
    except (httpx.InvalidURL, UnicodeError, TypeError, ValueError) as exc:
        raise FetchRefused(f"{text[:200]!r} is no address: {exc}", valid="http://… or https://…") from exc
    shown = repr(text[:200])
    if url.scheme not in ("http", "https"):
        raise FetchRefused(f"{shown} has the scheme {url.scheme[:40]!r}", valid="http and https are fetched")
    if not host or "%" in host:
        raise FetchRefused(f"{shown} names no host that can be fetched from", valid="http://host/… or https://host/…")
    if url.userinfo:
        raise FetchRefused(
            f"The address on {host} carries a user name or password",
            valid="Addresses without 'user:password@' are fetched",
            remedy="Remove that part; what needs a password cannot be shown to others",
        )
    if port_of(url) not in PORTS and host_of(url) not in allow:
        raise FetchRefused(
            f"{shown} has the port {port_of(url)}",
            valid="Fetched are the ports " + ", ".join(str(port) for port in sorted(PORTS)),
            remedy=f"If this is a server that you trust, name it in VISOR_ALLOW_HOSTS as {host_of(url)}",
        )
    return url


def joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
        raise FetchFailed(f"{url.host} redirects to {location[:200]!r}, which is no address: {exc}") from exc


def port_of(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


def host_of(url: httpx.URL) -> str:
    return host_and_port(url.raw_host.decode("ascii"), port_of(url))
