"""The pictures of a page's content: which URL to take for an `img`, and which pictures are decoration."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from visor.sources.parse.text import plain_text
from visor.sources.site.urls import absolute, is_file

SIDE_MIN = 120
"""Pixels of the shorter side, if the page gives them: smaller pictures are buttons."""
SIDE_LARGE = 240
"""From this size on a picture is not decoration, whatever its name is."""
PICTURES_MAX = 60

_URL = re.compile(r"[\s,]*(\S+)")
_DESCRIPTORS = re.compile(r"(?:\([^)]*\)?|[^(,])*")
_SIZE = re.compile(r"(\d{1,9}(?:\.\d+)?)([wx])(?=[\s,]|\Z)")
_SIZES = re.compile(r"\s" + _SIZE.pattern)
_BACKGROUND = re.compile(r"(?:background(?:-image)?\s*:[^;]*?|\A)url\(\s*['\"]?([^'\")]+)", re.IGNORECASE)
_PICTURE = re.compile(r"\.(?:jpe?g|jfif|png|webp|avif|gif|bmp|tiff?|heic)\Z", re.IGNORECASE)
_TYPES = re.compile(r"image/(?:jpe?g|pjpeg|png|webp|avif|gif)\b|\Z", re.IGNORECASE)
_TEMPLATE = re.compile(r"\{|%7B|<%|\[\[", re.IGNORECASE)
_OTHER_SCREENS = re.compile(r"max-(?:device-)?width|print|dark|portrait", re.IGNORECASE)
"""The `media` of a `source` that is not for a large screen in light mode."""
_WIDTH_TEMPLATE = re.compile(r"_?(?:\{|%7B)width(?:\}|%7D)x(?:(?:\{|%7B)height(?:\}|%7D))?", re.IGNORECASE)

_LAZY = {
    "background", "bg", "bgset", "echo", "full", "image", "img", "large", "lazy", "lazyload", "original", "setbg",
    "src", "zoom",
}  # fmt: skip
"""Words of attributes from which scripts for lazy loading read URLs, and of attributes that they do not read."""
_LESSER = {
    "alt", "blur", "caption", "class", "error", "fallback", "height", "hover", "href", "id", "itemprop", "link",
    "loading", "low", "lowsrc", "lqip", "media", "name", "page", "placeholder", "preview", "ratio", "rollover",
    "second", "secondary", "sizes", "small", "swap", "thumb", "thumbnail", "tiny", "title", "type", "width", "widths",
}  # fmt: skip
_LARGE = {"large": 1, "zoom": 2, "big": 2, "full": 3, "hires": 3, "orig": 3, "original": 3, "master": 3}
_DECORATION = {
    "avatar", "badge", "captcha", "emoji", "favicon", "gravatar", "icon", "icons", "logo", "logos", "payment", "rating",
    "ratings", "social", "spacer", "spinner", "sprite", "sprites", "tracking",
}  # fmt: skip
_DECORATION_FILES = _DECORATION | {
    "1x1", "ad", "ads", "banner", "blank", "button", "buttons", "clear", "counter", "dot", "empty", "loader", "loading",
    "noimage", "nophoto", "pixel", "placeholder", "star", "stars", "transparent",
}  # fmt: skip
_GENERIC = {
    "big", "black", "color", "dark", "default", "footer", "header", "image", "img", "large", "lazy", "light", "main",
    "medium", "mini", "new", "photo", "pic", "picture", "retina", "site", "small", "web", "white",
}  # fmt: skip
_BEHIND = (
    "//*[not(self::img)][@*[contains(., 'url(') or (starts-with(name(), 'data-') and (contains(name(), 'bg')"
    " or contains(name(), 'background') or contains(name(), 'image-src')))]]"
)
"""Elements with a background picture."""
_FURNITURE = {"nav", "aside", "template"}
_OF_A_SECTION = {"article", "main", "section"}


class Candidate(NamedTuple):
    """A URL that an `img` offers. The greatest is the one to take."""

    rank: float
    """The kind of URL: from 5, the large picture that it links to, to 1, one that is too small for a picture."""
    size: float
    url: str


class Picture(NamedTuple):
    """A picture of a page's content, as the page or a sitemap shows it."""

    url: str
    title: str = ""
    link: str | None = None
    """The page to which it links."""
    licence: str = ""


def srcset_candidates(text: str) -> Iterator[tuple[str, str]]:
    """URLs and their descriptors (HTML standard, 4.8.4.2.1)."""
    at = 0
    while match := _URL.match(text, at):
        url, at, described = match[1], match.end(), ""
        if not url.endswith(","):
            descriptors = _DESCRIPTORS.match(text, at)
            described, at = (descriptors[0], descriptors.end()) if descriptors else ("", at)
        if url.strip(","):
            yield url.rstrip(","), described


def chosen(image: Any, base_url: str) -> Candidate | None:
    """The best of all URLs that an `img`, the `source`s of its `picture` and scripts for lazy loading have."""
    # Some parsers put an `img` inside the `source` before it.
    picture = next(image.iterancestors("picture"), None)
    sources = picture.iter("source") if picture is not None else ()
    elements = [image, *(source for source in sources if _TYPES.match((source.get("type") or "").strip()))]
    found = []
    for element in elements:
        is_other = _OTHER_SCREENS.search(element.get("media") or "") is not None
        for candidate in _candidates(element):
            url = None if _TEMPLATE.search(filled := _filled(candidate.url, image)) else absolute(filled, base_url)
            if url and not urlsplit(url).path.lower().endswith(".svg"):
                found.append(candidate._replace(url=url, rank=1.5 if is_other else candidate.rank))
    # The first of equal ones.
    return max(found, key=lambda candidate: candidate[:2], default=None)


def _candidates(element: Any) -> Iterator[Candidate]:
    for name, text in element.items():
        # Frameworks have expressions here: `:src="'/a.jpg'"`.
        value, words = text.strip(" \t\r\n'"), set(re.split(r"[^0-9a-z]", name.lower()))
        is_lazy = name not in ("src", "srcset", "style")
        if not value or (is_lazy and words & _LESSER):
            continue
        if name.endswith(("srcset", "bgset")) or (words & _LAZY and _SIZES.search(value)):
            for url, described in srcset_candidates(value):
                size = _SIZE.search(described)
                width, by_width = (float(size[1]), size[2] == "w") if size else (1.0, False)
                yield Candidate((4.0 if width >= SIDE_MIN else 1.0) if by_width else 2.5 + is_lazy, width, url)
        elif name == "style" or value.startswith("url("):
            yield from (Candidate(2.0, 0.0, match[1]) for match in _BACKGROUND.finditer(value))
        elif not is_lazy:
            yield Candidate(2.0, 0.0, value)
        elif not re.search(r"\s|^[\[{#]", value):
            hints = (bool(words & _LAZY), "/" in value, bool(_PICTURE.search(re.split("[?#]", value)[0])))
            large = max((_LARGE.get(word, 0) for word in words), default=0)
            if sum(hints) > 1:
                yield Candidate(5.0 if large else 3.0, large, value)


def _filled(url: str, image: Any) -> str:
    """A template's URL with a width. Without its `_{width}x`, a Shopify shop returns the original picture."""
    widths = [int(width) for width in re.findall(r"\d{1,9}", image.get("data-widths") or "")]
    return re.sub(r"(?:\{|%7B)width(?:\}|%7D)", str(max(widths, default=1080)), _WIDTH_TEMPLATE.sub("", url))


def pictures(document: Any, base_url: str, left_out: Counter[str]) -> Iterator[Picture]:
    """The pictures of a page's content; others are counted in `left_out` by reason."""
    seen: set[str] = set()
    taken = set()
    behind = document.xpath(_BEHIND)
    for image in (*document.iter("img", "amp-img"), *behind):
        within = next(image.iterancestors("noscript"), None)
        beside = within.getprevious() if within is not None else None
        same = [*image.iterancestors("amp-img"), *(beside.iter() if beside is not None else ())]
        if any(other in taken for other in same):
            continue
        href = next((a.get("href") for a in image.iterancestors("a") if a.get("href")), None)
        link = absolute(href, base_url) if href else None
        best = chosen(image, base_url)
        if link and is_file(link):
            # A picture that links to itself, or to its large version.
            if _PICTURE.search(urlsplit(link).path):
                best = Candidate(5.0, 9.0, link)
            link = None
        if best is None or best.url in seen:
            continue
        if reason := _why_no_content(image, best):
            left_out[reason] += 1
            continue
        if len(seen) >= PICTURES_MAX:
            left_out[f"pictures beyond the {PICTURES_MAX} of one page"] += 1
            continue
        seen.add(best.url)
        taken.add(image)
        figure = next(image.iterancestors("figure"), None)
        caption = plain_text(figure.xpath("string(.//figcaption)"), 300) if figure is not None else ""
        alt = image.get("alt") or image.get("title") or image.get("aria-label")
        yield Picture(best.url, caption or plain_text(alt, 300), link)


def _why_no_content(image: Any, best: Candidate) -> str:
    ancestors = [ancestor for ancestor in image.iterancestors() if isinstance(ancestor.tag, str)]
    tags = {ancestor.tag for ancestor in ancestors}
    # The header of an article is content, that of the page is not.
    of_the_page = {"header", "footer"} & tags and not _OF_A_SECTION & tags
    if of_the_page or _FURNITURE & tags or "navigation" in (ancestor.get("role") for ancestor in ancestors):
        return "pictures in the header, footer or navigation of a page"
    shown = _side(image)
    side = int(best.size) if best.rank == 4 and best.size >= SIDE_LARGE else shown
    if best.rank == 1 or (best.rank < 5 and side is not None and side < SIDE_MIN):
        return f"pictures smaller than {SIDE_MIN} pixels"
    names = [_words(name) for name in (image.get("class") or "").split()]
    by_role = image.get("role") in ("presentation", "none") or any(name and name[-1] in _DECORATION for name in names)
    if by_role and (shown is None or shown < SIDE_LARGE):
        return "pictures that their class or role calls decoration"
    # If its size is not known, `byzantine-icon.jpg` may be anything, and `icon.png` is an icon.
    stem = _words(urlsplit(best.url).path.rpartition("/")[2].rpartition(".")[0])
    is_small = side is None or side < SIDE_LARGE
    if stem and is_small and _DECORATION_FILES.issuperset(stem if side is None else stem[-1:]):
        return "pictures that their file name calls decoration"
    return ""


def _words(name: str) -> list[str]:
    words = re.split(r"[^0-9a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower())
    return [word for word in words if word not in _GENERIC and not re.fullmatch(r"(?!1x1)\d*(?:x\d*|px)?", word)]


def _side(image: Any) -> int | None:
    """The shorter side in pixels, as far as the page gives it."""
    style = dict(re.findall(r"(?<![\w-])(width|height)\s*:\s*(\d+)px", image.get("style") or ""))
    sides = [(image.get(name) or style.get(name) or "").strip().removesuffix("px") for name in ("width", "height")]
    return min((int(side) for side in sides if re.fullmatch(r"\d{1,9}", side)), default=None)
