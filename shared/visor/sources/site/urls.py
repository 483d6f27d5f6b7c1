"""URLs of a site's pages: their canonical form, and which are crawler traps."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from w3lib.url import canonicalize_url

LENGTH_MAX = 1000
SEGMENTS_MAX = 16
PARAMETERS_MAX = 4
"""A URL with more parameters is one of endless combinations of facets."""

_TRACKING = re.compile(
    r"(?:utm_\w+|mtm_\w+|pk_\w+|gclid|gbraid|wbraid|fbclid|msclkid|yclid|dclid|mc_[ce]id|igshid|_ga|_gl|ref_?|spm"
    r"|phpsessid|jsessionid|aspsessionid\w*|cfid|cftoken|sid|sessid|session_?id|osCsid|zenid|s_cid)\Z",
    re.IGNORECASE,
)
_SESSION_IN_PATH = re.compile(r";(?:jsessionid|phpsessid|sid)=[^/;?]*", re.IGNORECASE)
_NO_PAGE = re.compile(
    r"\.(?:jpe?g|png|gif|webp|avif|svg|ico|bmp|tiff?|heic|mp[34]|m4[av]|webm|og[gv]|wav|avi|mov|pdf|docx?|xlsx?|pptx?"
    r"|zip|gz|tgz|bz2|xz|rar|7z|exe|dmg|apk|iso|css|js|mjs|json|xml|rss|atom|txt|csv|woff2?|ttf|eot)\Z",
    re.IGNORECASE,
)


def canonical(url: str, base: str = "") -> str | None:
    """The canonical form of a URL, without fragment, session and tracking; None if it is not an http(s) URL."""
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > LENGTH_MAX:
            return None
        kept = [
            (name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if not _TRACKING.match(name)
        ]
        path = _SESSION_IN_PATH.sub("", parts.path) or "/"
        host = parts.netloc.removesuffix(":80" if parts.scheme == "http" else ":443")
        return str(canonicalize_url(urlunsplit((parts.scheme, host, path, urlencode(kept), ""))))
    except ValueError:
        return None


def is_trap(url: str) -> bool:
    """Whether a URL looks like a crawler trap: too deep, in circles, or facets upon facets."""
    parts = urlsplit(url)
    segments = [segment for segment in parts.path.split("/") if segment]
    if len(segments) > SEGMENTS_MAX or _NO_PAGE.search(parts.path) or len(parse_qsl(parts.query)) > PARAMETERS_MAX:
        return True
    # a/b/a/b/a/b: a relative link that is resolved against itself.
    return any(
        segments[at : at + size] == segments[at + size : at + 2 * size] == segments[at + 2 * size : at + 3 * size]
        for size in (1, 2, 3)
        for at in range(len(segments) - 3 * size + 1)
    )


def pattern(url: str) -> str:
    """What the URLs of one page template have in common: digits and the words of the last part left out."""
    parts = urlsplit(url)
    path = re.sub(r"\d+", "#", parts.path)
    head, _, last = path.rpartition("/")
    names = ",".join(sorted(name for name, _ in parse_qsl(parts.query, keep_blank_values=True)))
    return f"{head}/{'*' if last and not names else last}?{names}"


def same_site(url: str, host: str) -> bool:
    """Whether it is on the host, `www.` or not."""
    return (urlsplit(url).netloc.lower().removeprefix("www.")) == host.lower().removeprefix("www.")
