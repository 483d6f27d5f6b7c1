"""Reads sitemaps and indexes of sitemaps, packed or not, as XML, RSS, Atom or text, with the pictures that they list
(https://www.sitemaps.org/protocol.html, Google's image sitemaps)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import lxml.etree

from visor.errors import FetchFailed, SourceError, SourceUnavailable
from visor.sources.client import PAGE_BYTES_MAX, RetryingClient
from visor.sources.contract import Place, RowErrors
from visor.sources.parse.encoding import decoded, unpacked
from visor.sources.parse.text import iso_date
from visor.sources.parse.xml import repaired
from visor.sources.site.pictures import PICTURES_MAX, Picture
from visor.sources.site.urls import absolute, same_site

SITEMAPS_MAX = 500
_NO_SITEMAP = "this is not a sitemap"
_VALID = "XML, RSS, Atom, or a line for each address"
_SITEMAP = re.compile(r"\.xml(?:\.gz)?\Z", re.IGNORECASE)
"""Many sites write an index of sitemaps as if these were pages."""
_PREFIXED = re.compile(r"(</?)([\w-]+):(?=[\w-])")
_ROOT = re.compile(r"<(?:[\w-]+:)?(urlset|sitemapindex|rss|feed|RDF)\b")


class Location(NamedTuple):
    """A page that a sitemap lists."""

    url: str
    lastmod: str | None
    """ISO 8601."""
    images: tuple[Picture, ...] = ()


def locations(
    client: RetryingClient, sitemaps: list[str], host: str, errors: RowErrors, *, promised: bool
) -> Iterator[Location]:
    """The pages of the host that sitemaps list, including those in sitemaps that they name, in their order.

    The first sitemaps may be on any host, those that they name on the same host or on this one. A sitemap that cannot
    be read is reported in `errors`.

    Args:
        promised: These sitemaps are named somewhere; else a missing one is not reported.
    """
    todo, seen = [(url, promised) for url in sitemaps], set[str]()
    while todo:
        url, is_promised = todo.pop(0)
        if url in seen:
            continue
        if len(seen) >= SITEMAPS_MAX:
            errors.pass_over(f"sitemaps beyond the first {SITEMAPS_MAX}", 1 + len(todo))
            return
        seen.add(url)
        try:
            text = decoded(unpacked([client.get(url).body], PAGE_BYTES_MAX).read())
            entries = list(_entries(text))
        except (FetchFailed, SourceError, SourceUnavailable) as exc:
            is_missing = exc.found == _NO_SITEMAP or getattr(exc, "status", None) in (404, 410)
            if is_promised or not is_missing:
                errors.add(Place(url), f"sitemap: {exc.found}")
            continue
        if unclosed := _unclosed(text):
            errors.add(Place(url), f"sitemap: it is cut off, <{unclosed}> has no end")
        for is_sitemap, loc, lastmod, images in entries:
            found = absolute(loc, url) if loc else None
            if found is None:
                continue
            if is_sitemap or _SITEMAP.search(urlsplit(found).path):
                todo += [(found, True)] if same_site(found, host) or same_site(found, url.split("/")[2]) else []
            elif same_site(found, host):
                pictures = (image._replace(url=absolute(image.url, url) or "") for image in images)
                yield Location(found, iso_date(lastmod), tuple(image for image in pictures if image.url)[:PICTURES_MAX])
            else:
                errors.pass_over("pages on other hosts in sitemaps")


def _entries(text: str) -> Iterator[tuple[bool, str, str, list[Picture]]]:
    """For each entry, whether it is a sitemap, its URL, its date and its pictures. Raises `SourceError`."""
    if not text.lstrip().startswith("<") and not _ROOT.search(text):
        lines = [line for line in map(str.strip, text.splitlines()) if re.match(r"https?://\S+\Z", line)]
        if not lines:
            raise SourceError(_NO_SITEMAP, valid=_VALID)
        yield from ((False, line, "", []) for line in lines)
        return
    root = _document(text)
    for entry in root.iter("{*}sitemap", "{*}url", "{*}item", "{*}entry"):
        links = [link.get("href") for link in entry.iterchildren("{*}link") if link.get("rel") in (None, "alternate")]
        loc = _text(entry, "loc") or next((href for href in links if href), "") or _text(entry, "link")
        images = [
            Picture(
                _text(image, "loc"), _text(image, "title") or _text(image, "caption"), None, _text(image, "license")
            )
            for image in entry.iterchildren("{*}image")
        ]
        lastmod = _text(entry, "lastmod") or _text(entry, "updated") or _text(entry, "pubDate")
        yield str(entry.tag).rpartition("}")[2] == "sitemap", loc, lastmod, images


def _text(entry: lxml.etree._Element, name: str) -> str:
    return (entry.findtext(f"{{*}}{name}") or "").strip()


def _unclosed(text: str) -> str:
    """The name of the sitemap's element if its end is missing, because the sitemap is cut off."""
    root = _ROOT.search(text)
    closed = root and re.compile(rf"[^<>]*/>|.*</(?:[\w-]+:)?{root[1]}\s*>", re.S).match(text, root.end())
    return root[1] if root and not closed else ""


def _document(text: str) -> lxml.etree._Element:
    """The sitemap in a text, which may have a program's warning before it and mistakes in it."""
    root = _ROOT.search(text)
    if root is None:
        raise SourceError(_NO_SITEMAP, valid=_VALID)
    # No entities, no other documents; broken XML is read as far as possible.
    parser = lxml.etree.XMLParser(recover=True, resolve_entities=False, no_network=True, huge_tree=False)
    text = repaired(text[root.start() :])
    # A prefix that is not declared is part of the name: `<image:image>`.
    declared = set(re.findall(r"xmlns:([\w-]+)\s*=", text))
    text = _PREFIXED.sub(lambda match: match[0] if match[2] in declared else match[1], text)
    try:
        found = lxml.etree.fromstring(text.encode(), parser)
    except lxml.etree.LxmlError as exc:
        raise SourceError(f"this is broken XML: {exc}") from exc
    if found is None:
        raise SourceError("this is broken XML")
    return found
