"""Sitemaps and sitemap indexes, packed or not (https://www.sitemaps.org/protocol.html)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import lxml.etree

from visor.errors import FetchFailed, SourceError
from visor.sources.client import PAGE_BYTES_MAX, RetryingClient
from visor.sources.parse.encoding import unpacked
from visor.sources.parse.text import iso_date
from visor.sources.site.urls import canonical, same_site

SITEMAPS_MAX = 500
DEPTH_MAX = 3


class Location(NamedTuple):
    """A page that a sitemap lists."""

    url: str
    lastmod: str | None
    """ISO 8601."""


def locations(client: RetryingClient, sitemaps: list[str], host: str) -> Iterator[Location]:
    """The pages of the host that sitemaps list, those of the sitemaps that they name included, in their order.

    A sitemap that is missing or cannot be read is skipped.

    Raises:
        SourceUnavailable: The host does not answer for now.
    """
    todo = [(url, 0) for url in sitemaps]
    seen: set[str] = set()
    while todo and len(seen) < SITEMAPS_MAX:
        url, depth = todo.pop(0)
        if url in seen or not same_site(url, host):
            continue
        seen.add(url)
        root = _document(client, url)
        if root is None:
            continue
        for entry in root.iterchildren("{*}sitemap", "{*}url"):
            found = canonical(_text(entry, "loc"), url)
            if found is None:
                continue
            if lxml.etree.QName(entry).localname == "sitemap":
                todo += [(_text(entry, "loc"), depth + 1)] if depth < DEPTH_MAX else []
            elif same_site(found, host):
                yield Location(found, iso_date(_text(entry, "lastmod")))


def _text(entry: lxml.etree._Element, name: str) -> str:
    return (entry.findtext(f"{{*}}{name}") or "").strip()


def _document(client: RetryingClient, url: str) -> lxml.etree._Element | None:
    try:
        body = unpacked([client.get(url).body], PAGE_BYTES_MAX).read()
    except (FetchFailed, SourceError):
        return None
    # No entities, no other documents; a broken sitemap is read as far as possible.
    parser = lxml.etree.XMLParser(recover=True, resolve_entities=False, no_network=True, huge_tree=False)
    try:
        root = lxml.etree.fromstring(body, parser)
    except lxml.etree.LxmlError:
        return None
    return root if root is not None and lxml.etree.QName(root).localname in ("urlset", "sitemapindex") else None
