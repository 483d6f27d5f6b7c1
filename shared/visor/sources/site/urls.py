"""URLs of a site's pages: the form to request, the form to tell them apart, and which are crawler traps."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import parse_qsl, urldefrag, urljoin, urlsplit

from w3lib.url import canonicalize_url, safe_url_string

LENGTH_MAX = 1000
SEGMENTS_MAX = 16
PARAMETERS_NAMED_MAX = 4

_TRACKING = re.compile(
    r"(?:utm_\w+|mtm_\w+|pk_(?:campaign|kwd|keyword|source|medium|content|cid|vid)|gclid|gbraid|wbraid|fbclid|msclkid"
    r"|srsltid|gad_\w+|gclsrc|ttclid|twclid|mkt_tok|_hsenc|_hsmi|irclickid|sscid|pr_(?:prod_strat|rec_id|rec_pid|ref_pid|seq)"
    r"|yclid|dclid|mc_[ce]id|igshid|_ga|_gl|ref_|s_cid|phpsessid|jsessionid|aspsessionid\w*|cfid|cftoken|osCsid|zenid"
    r"|(?:s|sess|session_?)id=[0-9a-z]{20,}|spm=\w+(?:\.\w+){2,})(?:[=&]|\Z)",
    re.IGNORECASE,
)
"""Parameters that track a visitor. A name that an article may also use counts only with a value that is typical."""
_SESSION_IN_PATH = re.compile(r";(?:jsessionid|phpsessid|sid)=[^/;?]*", re.IGNORECASE)
_FILE = re.compile(
    r"\.(?:jpe?g|png|gif|webp|avif|svg|ico|bmp|tiff?|heic|mp[34]|m4[av]|webm|og[gv]|wav|avi|mov|pdf|docx?|xlsx?|pptx?"
    r"|zip|gz|tgz|bz2|xz|rar|7z|exe|dmg|apk|iso|css|js|mjs|json|xml|rss|atom|txt|csv|woff2?|ttf|eot)\Z",
    re.IGNORECASE,
)


@lru_cache(maxsize=10_000)
def absolute(url: str, base: str = "", encoding: str = "utf-8") -> str | None:
    """The URL as a browser requests it, otherwise as it is written; None if it is not an http(s) URL.

    Args:
        encoding: That of the page that links to it; browsers use it for characters beyond ASCII in its query.
    """
    try:
        found = safe_url_string(urldefrag(urljoin(base, url.strip().replace("\\", "/"))).url, encoding)
        parts = urlsplit(found)
        return found if parts.scheme in ("http", "https") and parts.hostname else None
    except (ValueError, LookupError):
        return None


def shown(url: str) -> str:
    """The URL without session and tracking, otherwise as it is written: the form to link to."""
    parts = urlsplit(url)
    query = "&".join(part for part in parts.query.split("&") if not _TRACKING.match(part))
    return parts._replace(path=_SESSION_IN_PATH.sub("", parts.path) or "/", query=query).geturl()


@lru_cache(maxsize=10_000)
def canonical(url: str, base: str = "") -> str | None:
    """The identity of a URL: one text for all its spellings. It is not requested, as servers may know only one of
    these. None if it is not an http(s) URL."""
    found = absolute(url, base)
    if found is None:
        return None
    parts = urlsplit(shown(found))
    host = parts.netloc.removesuffix(":80" if parts.scheme == "http" else ":443")
    return str(canonicalize_url(parts._replace(netloc=host).geturl()))


def is_file(url: str) -> bool:
    """Whether the name in a URL is that of a file that is not a page."""
    path = urlsplit(url).path
    # `/wiki/File:Red.jpg` is the page about a file.
    return bool(_FILE.search(path)) and ":" not in path.rpartition("/")[2]


def is_trap(url: str) -> bool:
    """Whether a URL looks like a crawler trap: too long, too deep, or in circles."""
    segments = [segment for segment in urlsplit(url).path.split("/") if segment]
    if len(segments) > SEGMENTS_MAX or len(url) > LENGTH_MAX:
        return True
    # a/b/a/b/a/b: a relative link that is resolved against itself.
    return any(
        segments[at : at + size] == segments[at + size : at + 2 * size] == segments[at + 2 * size : at + 3 * size]
        for size in (1, 2, 3)
        for at in range(len(segments) - 3 * size + 1)
    )


def pattern(url: str) -> str:
    """What the URLs of one page template have in common: without digits, the words of the last part, and the names of
    very many parameters, which are facets in any combination."""
    parts = urlsplit(url)
    path = re.sub(r"\d+", "#", parts.path)
    head, _, last = path.rpartition("/")
    found = sorted(name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    names = ",".join(found if len(found) <= PARAMETERS_NAMED_MAX else ["*"])
    return f"{head}/{'*' if last and not names else last}?{names}"


def may_be_endless(pattern: str) -> bool:
    """Whether a program may make any number of URLs with a pattern, by counting or combining."""
    return "#" in pattern or not pattern.endswith("?")


def same_site(url: str, host: str) -> bool:
    """Whether a URL is on the host, with or without `www.` and the default port."""
    one, other = (re.sub(r"\Awww\.|:(?:80|443)\Z", "", name.lower()) for name in (urlsplit(url).netloc, host))
    return one == other
