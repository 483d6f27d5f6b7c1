"""Looking: what addresses say about themselves, several hosts side by side and one request at a time to each."""

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


class Look(NamedTuple):
    """What one address said."""

    state: Literal["there", "moved", "failed", "unknown"]
    """`unknown`: it says nothing about the address, such as 403 or 429."""
    address: str = ""
    """Where it moved to."""
    code: str = ""


def look_at(fetcher: Prober, url: str, *, is_picture: bool) -> Look:
    """What an address says about itself."""
    try:
        probed = fetcher.probe(url, is_image=is_picture)
    except FetchFailed as exc:
        if exc.status not in (None, 404, 410):
            return Look("unknown", code=f"http_{exc.status}")
        return Look("failed", code=f"http_{exc.status}" if exc.status else exc.code)
    except HostDead as exc:
        return Look("failed", code=exc.code)
    except FetchUnavailable as exc:
        return Look("unknown" if exc.retry_after_s is not None else "failed", code=exc.code)
    except QuotaReached as exc:
        return Look("unknown", code=exc.code)
    except ImageError as exc:
        return Look("failed", code=exc.code)
    if not is_picture and _is_home(probed.url) and not _is_home(url):
        # Shops send those who ask for a product that is gone to their front page.
        return Look("failed", code="redirected_home")
    if urlsplit(probed.permanent_url)[:4] != urlsplit(url)[:4]:
        return Look("moved", address=probed.permanent_url)
    return Look("there")


def _is_home(url: str) -> bool:
    parts = urlsplit(url)
    return parts.path in ("", "/") and not parts.query


def look_at_all(
    fetcher: Prober,
    addresses: Mapping[str, bool],
    is_over: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Look]:
    """What each address says.

    Args:
        addresses: Each with whether it is a picture's.
        is_over: Whether the time has ended; addresses that were not asked by then are unknown.
    """

    def look_at_host(urls: list[str]) -> dict[str, Look]:
        looks = {}
        for number, url in enumerate(urls):
            if number:
                sleep(DELAY_S)
            looks[url] = Look("unknown") if is_over() else look_at(fetcher, url, is_picture=addresses[url])
        return looks

    by_host: dict[str, list[str]] = defaultdict(list)
    for address in addresses:
        by_host[urlsplit(address).netloc.lower()].append(address)
    with ThreadPoolExecutor(HOSTS_AT_ONCE, thread_name_prefix="links") as pool:
        return {url: look for looks in pool.map(look_at_host, by_host.values()) for url, look in looks.items()}


def is_web(address: str) -> bool:
    return address.startswith(("https://", "http://"))
