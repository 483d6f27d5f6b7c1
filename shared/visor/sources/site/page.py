"""Reads a page of a site: its images, best described first, its links, and its directives for robots."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import json_repair
import lxml.html
from extruct.w3cmicrodata import MicrodataExtractor
from lxml.etree import LxmlError, ParserError
from w3lib.encoding import html_to_unicode

from visor.http.fetch import Fetched
from visor.sources.parse.encoding import decoded, is_utf_8
from visor.sources.parse.json import parse_json
from visor.sources.parse.price import is_zero
from visor.sources.parse.schema_org import addresses, graph, product_row, product_rows, things
from visor.sources.parse.text import iso_date, plain_text
from visor.sources.site.doubt import stands_in, visible_text
from visor.sources.site.pictures import PICTURES_MAX, Picture, chosen, pictures
from visor.sources.site.urls import absolute

LINKS_MAX = 2000
REPAIRED_MAX = 100_000
"""Most characters of a script that is repaired so that it can be read as JSON, which takes long."""

_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives for robots that have a value after a colon, as the name of a robot has."""
_DATED = re.compile(r"(?<=unavailable_after):((?:[a-z]+,)?[^,;]*)")
_WRAPPERS = re.compile(r"(?://|/\*)?\s*(?:<!\[CDATA\[|\]\]>)\s*(?:\*/)?|<!--|-->")
_REFRESH = re.compile(r"\s*\d+(?:\.\d*)?\s*[;,]\s*url\s*=\s*['\"]?([^'\"]+)", re.IGNORECASE)
_BETWEEN = re.compile(r"\}\s*;?\s*\{")
_NESTED = re.compile(r"(?:[{\[]\s*){9}")


@dataclass(frozen=True, kw_only=True)
class SitePage:
    """A page that was read."""

    url: str
    """Its canonical URL, as it is written."""
    base_url: str
    """What its relative URLs are relative to."""
    title: str = ""
    described: tuple[Mapping[str, Any], ...] = ()
    """Products and images in structured data, as rows with Google's attribute names."""
    shared: Mapping[str, Any] | None = None
    """Its picture for sharing (Open Graph): a row, too."""
    pictures: tuple[Picture, ...] = ()
    """Other images of its content, without decoration."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Images that are not part of its content, counted by reason."""
    links: tuple[str, ...] = ()
    breadcrumb: str | None = None
    is_broken: bool = False
    """Its JSON-LD is not JSON, so that some of it may be missing."""
    is_scripted: bool = False
    """It has scripts, which may add contents that it does not show without them."""
    text: str = ""
    """Its visible text."""
    instead: str = ""
    """The sign that it replaces another page; empty if there is none."""
    robots: frozenset[str] = frozenset()
    """The directives for robots in it and its response's header: `noindex`, `nofollow`, `noimageindex`."""


def read_page(fetched: Fetched, *, now: str = "") -> SitePage:
    """The page that was fetched. Broken HTML is read as a browser would; never raises. A page in valid UTF-8 is read as
    such, whatever encoding it declares; in any other page, bytes that do not fit are Windows-1252.

    Args:
        now: Time in ISO 8601, for pages that ask not to be indexed after some day, and for offers.
    """
    encoding, text = _decoded(fetched)
    robots = asked_of_robots(fetched.robots, now)
    try:
        document = lxml.html.document_fromstring(
            text.replace("\0", ""), parser=lxml.html.HTMLParser(encoding="utf-8", huge_tree=False)
        )
    except (LxmlError, ParserError, ValueError):
        return SitePage(url=fetched.url, base_url=fetched.url, robots=robots)
    base_url = absolute(document.xpath("string(//base/@href)"), fetched.url) or fetched.url
    metas = [meta.get("content") or "" for meta in document.iter("meta") if _name(meta) in ("robots", "visor")]
    robots |= asked_of_robots(metas, now)
    found, is_broken = _structured(document, base_url)
    structured = graph(found)
    named = document.xpath("string(//link[translate(@rel,'CANOIL','canoil')='canonical']/@href)").strip()
    left_out: Counter[str] = Counter()
    text = visible_text(document)
    is_hidden = not robots.isdisjoint({"noindex", "noimageindex"})
    described, shared = tuple(_described(structured, now)), _shared(document)
    if shared and not described and len(alone := product_rows(structured, now)) == 1:
        # A product without its own picture has the page's picture for sharing.
        shared = {**shared, **alone[0]}
    return SitePage(
        url=(absolute(named, base_url) if named else None) or fetched.url,
        base_url=base_url,
        title=plain_text(document.xpath("string(//h1)") or document.xpath("string(//title)"), 300),
        described=() if is_hidden else described,
        shared=None if is_hidden else shared,
        pictures=() if is_hidden else tuple(pictures(document, base_url, left_out)),
        left_out=left_out,
        links=() if "nofollow" in robots else tuple(_links(document, base_url, encoding)),
        breadcrumb=_breadcrumb(structured),
        is_broken=is_broken,
        is_scripted=any("json" not in (script.get("type") or "") for script in document.iter("script")),
        text=text,
        instead=stands_in(document, text),
        robots=robots,
    )


def _decoded(fetched: Fetched) -> tuple[str, str]:
    """The encoding of a page, and its text."""
    body = fetched.body
    if not body.isascii() and is_utf_8(body):
        return "utf-8", body.decode("utf-8", "replace").removeprefix("\ufeff")
    header = (fetched.media_type or "text/html") + (f"; charset={fetched.charset}" if fetched.charset else "")
    encoding, text = html_to_unicode(header, body, auto_detect_fun=lambda _: "cp1252")
    return encoding, decoded(body) if encoding == "utf-8" else text


def asked_of_robots(values: Iterable[str], now: str = "") -> frozenset[str]:
    """Which of `noindex`, `nofollow` and `noimageindex` values of `X-Robots-Tag` or `<meta name=robots>` ask of us.

    https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag
    """
    asked: set[str] = set()
    for value in values:
        robot = "visor"
        value = _DATED.sub(lambda match: f":{quote(match[1])}", re.sub(r"\s*:\s*", ":", value.lower()))
        for token in re.split(r"[\s,;]+", value):
            name, colon, rest = token.partition(":")
            is_robot = colon and name not in _VALUED and re.fullmatch(r"[a-z*][\w.*-]*", name)
            robot, directive = (name, rest) if is_robot else (robot, name)
            if robot not in ("visor", "*"):
                continue
            ends = iso_date(unquote(rest).upper()) if directive == "unavailable_after" and now else None
            asked |= {"noindex", "nofollow"} if directive == "none" else {directive}
            asked |= {"noindex"} if ends and ends[:10] < now[:10] else set()
    return frozenset(asked & {"noindex", "nofollow", "noimageindex"})


def _name(meta: Any) -> str:
    return str(meta.get("property") or meta.get("name") or "").strip().lower()


def _structured(document: Any, url: str) -> tuple[list[Any], bool]:
    """JSON-LD and microdata in one form, without the parts that cannot be parsed; and whether JSON-LD is broken."""
    found, is_broken = list[Any](), False
    for script in document.iter("script"):
        if "ld+json" in (script.get("type") or "").lower():
            values, is_mended = _json_ld(script.text_content())
            found, is_broken = found + values, is_broken or is_mended
    _as_microdata(document)
    for image in document.xpath("//img[@itemprop]"):
        best = chosen(image, url)
        image.set("src", best.url if best else "")
    with suppress(Exception):
        found += [_as_json_ld(item) for item in MicrodataExtractor(nested=True).extract_items(document, url)]
    return found, is_broken


def _as_microdata(document: Any) -> None:
    """Write Schema.org's vocabulary in RDFa Lite as microdata, in place."""
    for element in document.xpath("//*[@typeof and not(@itemscope)]"):
        vocabulary = next(iter(element.xpath("ancestor-or-self::*[@vocab][1]/@vocab")), "")
        types = _of_schema_org(element.get("typeof"), "schema.org" in vocabulary)
        if types:
            element.set("itemscope", "")
            element.set("itemtype", " ".join(f"https://schema.org/{name}" for name in types))
    for element in document.xpath("//*[@property and not(@itemprop) and ancestor-or-self::*[@typeof and @itemscope]]"):
        element.set("itemprop", " ".join(_of_schema_org(element.get("property"), True)))


def _of_schema_org(names: str, is_plain: bool) -> list[str]:
    """The names with Schema.org's prefix, and those without a prefix if these are also Schema.org's."""
    form = r"(?:schema:)?(\w+)\Z" if is_plain else r"schema:(\w+)\Z"
    return [match[1] for name in names.split() if (match := re.match(form, name))]


def _json_ld(text: str) -> tuple[list[Any], bool]:
    """The values in a script, whatever wraps them and whatever mistakes they contain; and whether it is not JSON."""
    text = _WRAPPERS.sub("", html.unescape(text) if '"' not in text else text).strip("\ufeff \t\r\n;,")
    text = "[" + _BETWEEN.sub("},{", text[re.search(r"[\[{]|\Z", text).start() :]) + "]"  # type: ignore[union-attr]
    values: Any = None
    with suppress(Exception):
        values = parse_json(text)
    is_broken = values is None
    if is_broken and len(text) <= REPAIRED_MAX and not _NESTED.search(text):
        with suppress(Exception):
            values = json_repair.loads(text)
    return values if isinstance(values, list) else [], is_broken


def _as_json_ld(item: Any) -> Any:
    if isinstance(item, list):
        return [_as_json_ld(part) for part in item]
    if isinstance(item, Mapping) and "properties" in item:
        properties = {name: _as_json_ld(value) for name, value in item["properties"].items()}
        return {"@type": item.get("type"), **properties}
    return item


def _described(structured: list[Any], now: str) -> list[dict[str, Any]]:
    """Products, else images that the page describes."""
    rows = [row for row in product_rows(structured, now) if row.get("image_link")]
    if not rows:
        kinds = ("ImageObject", "Photograph", "Painting", "VisualArtwork", "Sculpture", "Drawing", "Poster", "CoverArt")
        found = things(structured, *kinds, outside=("Organization", "Person", "Brand", "Product", "Review"))
        rows = [row for row in map(product_row, found) if row.get("image_link")]
    return rows[:PICTURES_MAX]


def _breadcrumb(structured: list[Any]) -> str | None:
    """`Home > Shoes > Boots` without its ends: the position of the page in the site."""
    for trail in things(structured, "BreadcrumbList"):
        elements = trail.get("itemListElement")
        names = []
        for element in elements if isinstance(elements, list) else []:
            if isinstance(element, Mapping):
                item = element.get("item")
                names.append(element.get("name") or (item.get("name") if isinstance(item, Mapping) else ""))
        texts = [plain_text(name, 80) for name in names]
        inner = [name for name in texts[1:-1] if name] or [name for name in texts[:-1] if name]
        if inner:
            return " > ".join(inner)
    return None


def _shared(document: Any) -> Mapping[str, Any] | None:
    meta: dict[str, str] = {}
    for element in document.xpath("//meta[@content]"):
        name, content = _name(element), element.get("content").strip()
        if content:
            meta.setdefault(name, content)

    def first(*names: str) -> str:
        return next((meta[name] for name in names if name in meta), "")

    pictures = ("og:image:secure_url", "og:image", "og:image:url", "twitter:image", "twitter:image:src")
    named = document.xpath("//link[@rel='image_src']/@href | //meta[@itemprop='image']/@content")

    is_on_sale = not any(name.startswith("product:sale_price_dates") for name in meta)
    sale = first("product:sale_price:amount") if is_on_sale else ""
    amount = ("" if is_zero(sale) else sale) or first("product:price:amount", "og:price:amount", "product:price")
    currency = first("product:price:currency", "og:price:currency")
    row = {
        "image_link": next(iter(addresses([*map(first, pictures), *named])), ""),
        "title": first("og:title"),
        "description": first("og:description"),
        "price": amount,
        "currency": currency if amount else "",
        "product_type": first("article:section"),
        "date": first("article:modified_time", "article:published_time"),
    }
    return {name: value for name, value in row.items() if value} if row["image_link"] else None


def _links(document: Any, base_url: str, encoding: str) -> Iterator[str]:
    seen: set[str] = set()
    for element in document.iter("a", "area", "frame", "iframe", "link", "meta"):
        named, rels = element.get("href") or element.get("src"), (element.get("rel") or "").lower().split()
        if element.tag == "meta":
            refreshed = _REFRESH.match(element.get("content") or "") if element.get("http-equiv") else None
            named = refreshed[1] if refreshed else None
        if not named or "nofollow" in rels or (element.tag == "link" and "next" not in rels):
            continue
        url = absolute(named, base_url, encoding)
        if url and url not in seen:
            seen.add(url)
            yield url
            if len(seen) >= LINKS_MAX:
                return
