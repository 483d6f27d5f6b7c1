"""Probing URLs: several hosts side by side, one request at a time to each."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from visor.errors import FetchFailed, FetchUnavailable, HostDead, ImageError, QuotaReached
from visor.http.fetch import Prober

HOSTS_AT_ONCE = 4
DELAY_S = 0.2
"""Between two requests to one host."""


class UrlStatus(NamedTuple):
    """What asking one URL showed."""

    state: Literal["there", "moved", "failed", "unknown"]
    """`unknown`: the answer says nothing about the URL, such as 403 or 429."""
    moved_to: str = ""
    code: str = ""


def probe_url(fetcher: Prober, url: str, *, is_picture: bool) -> UrlStatus:
    """Ask one URL."""
    try:
        probed = fetcher.probe(url, is_image=is_picture)
    except FetchFailed as exc:
        if exc.status not in (None, 404, 410):
            return UrlStatus("unknown", code=f"http_{exc.status}")
        return UrlStatus("failed", code=f"http_{exc.status}" if exc.status else exc.code)
    except HostDead as exc:
        return UrlStatus("failed", code=exc.code)
    except FetchUnavailable as exc:
        return UrlStatus("unknown" if exc.retry_after_s is not None else "failed", code=exc.code)
    except QuotaReached as exc:
        return UrlStatus("unknown", code=exc.code)
    except ImageError as exc:
        return UrlStatus("failed", code=exc.code)
    if not is_picture and _is_home(probed.url) and not _is_home(url):
        # Shops redirect requests for a product that is gone to their front page.
        return UrlStatus("failed", code="redirected_home")
    if urlsplit(probed.permanent_url)[:4] != urlsplit(url)[:4]:
        return UrlStatus("moved", moved_to=probed.permanent_url)
    return UrlStatus("there")


def _is_home(url: str) -> bool:
    parts = urlsplit(url)
    return parts.path in ("", "/") and not parts.query


def probe_all(
    fetcher: Prober,
    urls: Mapping[str, bool],
    is_over: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, UrlStatus]:
    """The status of each URL.

    Args:
        urls: Each with whether it is an image's.
        is_over: Whether the time has ended; URLs that were not asked by then are unknown.
    """

    def probe_host(of_host: list[str]) -> dict[str, UrlStatus]:
        statuses = {}
        for number, url in enumerate(of_host):
            if number:
                sleep(DELAY_S)
            statuses[url] = UrlStatus("unknown") if is_over() else probe_url(fetcher, url, is_picture=urls[url])
        return statuses

    by_host: dict[str, list[str]] = defaultdict(list)
    for url in urls:
        by_host[urlsplit(url).netloc.lower()].append(url)
    with ThreadPoolExecutor(HOSTS_AT_ONCE, thread_name_prefix="links") as pool:
        return {url: status for of_host in pool.map(probe_host, by_host.values()) for url, status in of_host.items()}


def is_web(url: str) -> bool:
    return url.startswith(("https://", "http://"))
