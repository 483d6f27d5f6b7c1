"""What a page of a site holds: its images, best described first, its links, and what it asks of robots."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import lxml.html
from extruct.jsonld import JsonLdExtractor
from extruct.w3cmicrodata import MicrodataExtractor
from lxml.etree import LxmlError, ParserError
from w3lib.encoding import html_to_unicode

from visor.http.fetch import Fetched
from visor.sources.parse.schema_org import product_row, things
from visor.sources.parse.text import plain_text
from visor.sources.site.urls import canonical

SIDE_MIN = 120
"""Pixels of the shorter side, where the page says it: smaller images are buttons."""
LINKS_MAX = 2000
PICTURES_MAX = 60

_DECORATION = re.compile(
    r"logo|icon|sprite|spacer|pixel|blank|placeholder|avatar|gravatar|badge|banner|button|loader|spinner|favicon|captcha"
    r"|emoji|rating|stars|payment|social|tracking|counter|/ads?/|1x1",
    re.IGNORECASE,
)
_FURNITURE = frozenset({"header", "footer", "nav", "aside", "noscript", "template"})


@dataclass(frozen=True, kw_only=True)
class SitePage:
    """A page, read."""

    url: str
    """Its canonical address."""
    title: str = ""
    described: tuple[Mapping[str, Any], ...] = ()
    """Products and images in structured data, as rows with Google's attribute names."""
    shared: Mapping[str, Any] | None = None
    """What it shows when it is shared (Open Graph): a row too."""
    pictures: tuple[Mapping[str, Any], ...] = ()
    """Other images of its content, decoration left out."""
    links: tuple[str, ...] = ()
    breadcrumb: str | None = None
    noindex: bool = False


def read_page(fetched: Fetched) -> SitePage:
    """The page that was fetched. Broken HTML and wrong encodings are read as a browser would; never raises."""
    header = (fetched.media_type or "text/html") + (f"; charset={fetched.charset}" if fetched.charset else "")
    _, text = html_to_unicode(header, fetched.body, auto_detect_fun=_detected)
    try:
        document = lxml.html.document_fromstring(
            text.replace("\0", ""), parser=lxml.html.HTMLParser(encoding="utf-8", huge_tree=False)
        )
    except (LxmlError, ParserError, ValueError):
        return SitePage(url=canonical(fetched.url) or fetched.url)
    base = document.xpath("string(//base/@href)").strip()
    base_url = canonical(base, fetched.url) or fetched.url if base else fetched.url
    robots = ",".join(
        document.xpath(
            "//meta[translate(@name,'ROBTS','robts')='robots' or translate(@name,'VISOR','visor')='visor']/@content"
        )
    ).lower()
    structured = _structured(document, base_url)
    return SitePage(
        url=_canonical(document, base_url, fetched.url),
        title=plain_text(document.xpath("string(//h1)") or document.xpath("string(//title)"), 300),
        described=tuple(_described(structured)),
        shared=_shared(document),
        pictures=() if "noimageindex" in robots else tuple(_pictures(document)),
        links=() if "nofollow" in robots or "none" in robots else tuple(_links(document, base_url)),
        breadcrumb=_breadcrumb(structured),
        noindex="noindex" in robots or "none" in robots,
    )


def _detected(body: bytes) -> str:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _canonical(document: Any, base_url: str, url: str) -> str:
    named = document.xpath("string(//link[translate(@rel,'CANOIL','canoil')='canonical']/@href)").strip()
    return (canonical(named, base_url) if named else None) or canonical(url) or url


def _structured(document: Any, url: str) -> list[Any]:
    """JSON-LD and microdata in one form; what cannot be parsed is left out."""
    found: list[Any] = []
    try:
        found += JsonLdExtractor().extract_items(document, url)
    except Exception:  # noqa: BLE001 -- pages hold anything, and the parser raises whatever that leads to
        found += _json_ld_one_by_one(document)
    with suppress(Exception):
        found += [_as_json_ld(item) for item in MicrodataExtractor(nested=True).extract_items(document, url)]
    return found


def _json_ld_one_by_one(document: Any) -> Iterator[Any]:
    for script in document.xpath("//script[contains(@type,'ld+json')]"):
        try:
            yield from JsonLdExtractor().extract_items(lxml.html.fromstring(lxml.html.tostring(script)))
        except Exception:  # noqa: BLE001, S112 -- as above
            continue


def _as_json_ld(item: Any) -> Any:
    if isinstance(item, list):
        return [_as_json_ld(part) for part in item]
    if isinstance(item, Mapping) and "properties" in item:
        properties = {name: _as_json_ld(value) for name, value in item["properties"].items()}
        return {"@type": item.get("type"), **properties}
    return item


def _described(structured: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Products, else images that the page describes."""
    for kinds in (("Product", "ProductGroup"), ("ImageObject", "Photograph", "Painting", "VisualArtwork")):
        rows = [product_row(thing) for thing in things(structured, *kinds)]
        rows = [row for row in rows if row.get("image_link")]
        if rows:
            yield from rows[:PICTURES_MAX]
            return


def _breadcrumb(structured: list[Any]) -> str | None:
    """`Home > Shoes > Boots` without its ends: where the page stands in the site."""
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
        name = (element.get("property") or element.get("name") or "").strip().lower()
        if name.startswith(("og:", "product:", "article:", "twitter:")):
            meta.setdefault(name, element.get("content").strip())

    def first(*names: str) -> str:
        return next((meta[name] for name in names if meta.get(name)), "")

    amount = first("product:price:amount", "og:price:amount")
    currency = first("product:price:currency", "og:price:currency")
    row = {
        "image_link": first("og:image:secure_url", "og:image", "og:image:url", "twitter:image"),
        "title": first("og:title"),
        "description": first("og:description"),
        "price": f"{amount} {currency}".strip() if amount else "",
        "product_type": first("article:section"),
        "date": first("article:modified_time", "article:published_time"),
    }
    return {name: value for name, value in row.items() if value} if row["image_link"] else None


def _pictures(document: Any) -> Iterator[Mapping[str, Any]]:
    """Images of the content, the largest of each `srcset`."""
    seen: set[str] = set()
    for image in document.iter("img"):
        if any(ancestor.tag in _FURNITURE for ancestor in image.iterancestors()):
            continue
        sizes = [
            int(size) for name in ("width", "height") if (size := (image.get(name) or "").removesuffix("px")).isdigit()
        ]
        url = _largest(image)
        words = f"{url} {image.get('class', '')} {image.get('id', '')} {image.get('role', '')}"
        if not url or url in seen or (sizes and min(sizes) < SIDE_MIN) or _DECORATION.search(words):
            continue
        if image.get("role") == "presentation" or url.split("?")[0].lower().endswith(".svg"):
            continue
        seen.add(url)
        figure = next(image.iterancestors("figure"), None)
        caption = plain_text(figure.xpath("string(.//figcaption)"), 300) if figure is not None else ""
        link = next((a.get("href") for a in image.iterancestors("a") if a.get("href")), None)
        yield {
            "image_link": url,
            "title": caption or plain_text(image.get("alt") or image.get("title"), 300),
            "link": link,
        }
        if len(seen) >= PICTURES_MAX:
            return


def _largest(image: Any) -> str:
    """The largest image that an `img` and the `source`s of its `picture` offer, in a format that Visor decodes."""
    sets = [image.get("srcset") or image.get("data-srcset") or ""]
    # Some parsers put an `img` inside the `source` before it.
    picture = next(image.iterancestors("picture"), None)
    if picture is not None:
        sets += [
            source.get("srcset") or ""
            for source in picture.iter("source")
            if source.get("type", "image/jpeg") in ("image/jpeg", "image/png", "image/webp", "image/avif")
        ]
    best, best_size = "", 0.0
    for candidate in re.split(r",\s+", ", ".join(text.strip() for text in sets)):
        url, _, size = candidate.strip().partition(" ")
        number = re.match(r"([\d.]+)[wx]", size.strip())
        width = float(number[1]) if number else 1.0
        if url and not url.startswith("data:") and width > best_size:
            best, best_size = url, width
    named = (image.get(name) or "" for name in ("data-src", "data-original", "src"))
    plain = next((url for url in named if url and not url.startswith("data:")), "")
    return best.rstrip(",") or plain.strip()


def _links(document: Any, base_url: str) -> Iterator[str]:
    seen: set[str] = set()
    for anchor in document.iter("a", "area"):
        if "nofollow" in (anchor.get("rel") or "").lower():
            continue
        url = canonical(anchor.get("href") or "", base_url) if anchor.get("href") else None
        if url and url not in seen:
            seen.add(url)
            yield url
            if len(seen) >= LINKS_MAX:
                return
