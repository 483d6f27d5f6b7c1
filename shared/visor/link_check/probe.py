"""Probing URLs: several hosts side by side, one request at a time to each.

A URL is judged by itself only while its host is otherwise fine. A login wall, maintenance or an expired domain answers
alike for all: then nothing is known about any of them.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from visor.errors import FetchFailed, FetchUnavailable, HostDead, ImageError, QuotaReached
from visor.http.fetch import Prober

HOSTS_AT_ONCE = 4
DELAY_S = 0.2
"""Between two requests to one host."""
HOST_MIN = 3
"""URLs of a host that fail, move elsewhere or are refused, from which on this may be the host's condition."""
AWAY = ("moved", "redirected_home")
"""How a host answers that sends everybody elsewhere: for this, one URL is enough if no other is fine."""
HOST_ENOUGH = 10
"""After so many of them and none that is fine, a host is asked no further."""


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
        if exc.elsewhere:
            # Another host says so, which is no more than no answer.
            return UrlStatus("failed", code=FetchUnavailable.code)
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


class HostLook(NamedTuple):
    """What asking URLs of one host showed, of its pages or of its images."""

    statuses: dict[str, UrlStatus]
    """Of each URL; those that say nothing because of the host's condition are unknown."""
    condition: str = ""
    """How the host answers for most of what was asked, if that is no matter of single URLs: a code."""
    bad: int = 0
    asked: int = 0


def probe_all(
    fetcher: Prober,
    urls: Mapping[str, bool],
    is_over: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
    *,
    good: Mapping[str, Collection[str]],
    stopped: Collection[str] = (),
    trusted: Collection[str] = (),
) -> dict[str, HostLook]:
    """What the pages and the images of each host show, by `part_of`.

    Args:
        urls: Each with whether it is an image's.
        is_over: Whether the time has ended; URLs that were not asked by then are unknown.
        good: By `part_of`, URLs that were there the last time.
        stopped: What is not asked, by `part_of`.
        trusted: Hosts whose URLs are judged by themselves, whatever the others answer.
    """

    def ask(url: str, *, is_picture: bool) -> UrlStatus:
        if is_over():
            return UrlStatus("unknown")
        sleep(DELAY_S)
        return probe_url(fetcher, url, is_picture=is_picture)

    def probe_part(part: str, of_part: list[str]) -> HostLook:
        statuses: dict[str, UrlStatus] = {}
        bad: dict[str, str] = {}
        is_fine = host_of(of_part[0]) in trusted

        def is_condition() -> bool:
            """Whether most of what was asked fails, and what was there before does, too."""
            nonlocal is_fine
            least = 1 if any(how.startswith(AWAY) for how in bad.values()) else HOST_MIN
            if is_fine or len(bad) < least or 2 * len(bad) <= sum(map(_says_something, statuses.values())):
                return False
            others = [url for url in good.get(part, ()) if url not in statuses]
            there = [ask(url, is_picture=urls[of_part[0]]).state == "there" for url in others]
            is_fine = 2 * sum(there) > len(there)
            return not is_fine

        for url in of_part if part not in stopped else ():
            if len(bad) == len(statuses) == HOST_ENOUGH and is_condition():
                break
            statuses[url] = ask(url, is_picture=urls[url])
            bad = _bad(statuses)
        condition = Counter(bad.values()).most_common(1)[0][0] if is_condition() else ""
        kept = {url: status for url, status in statuses.items() if not condition or status.state == "there"}
        asked = sum(map(_says_something, statuses.values()))
        return HostLook(dict.fromkeys(of_part, UrlStatus("unknown")) | kept, condition, len(bad), asked)

    by_host: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for url, is_picture in urls.items():
        by_host[host_of(url)][part_of(url, is_picture=is_picture)].append(url)
    with ThreadPoolExecutor(HOSTS_AT_ONCE, thread_name_prefix="links") as pool:
        looks = pool.map(lambda parts: {part: probe_part(part, of) for part, of in parts.items()}, by_host.values())
        return {part: look for of_host in looks for part, look in of_host.items()}


def part_of(url: str, *, is_picture: bool) -> str:
    """What is judged together: the pages of a host, or its images."""
    return f"{'images' if is_picture else 'pages'} of {host_of(url)}"


def _says_something(status: UrlStatus) -> bool:
    return status.state != "unknown" or status.code.startswith("http_")


def _bad(statuses: Mapping[str, UrlStatus]) -> dict[str, str]:
    """Of the URLs that are not there, or moved to another site or to one place with others: how."""
    targets = Counter(status.moved_to for status in statuses.values() if status.state == "moved")
    found = {}
    for url, status in statuses.items():
        if status.state == "moved" and (
            not _is_same_site(url, status.moved_to) or targets[status.moved_to] >= HOST_MIN
        ):
            found[url] = f"moved to {host_of(status.moved_to)}"
        elif status.state not in ("there", "moved") and _says_something(status):
            found[url] = status.code
    return found


def _is_same_site(one: str, other: str) -> bool:
    """Whether one host is the other, or below it, `www.` left out."""
    hosts = [(urlsplit(url).hostname or "").removeprefix("www.") for url in (one, other)]
    return hosts[0] == hosts[1] or hosts[0].endswith(f".{hosts[1]}") or hosts[1].endswith(f".{hosts[0]}")


def host_of(url: str) -> str:
    return urlsplit(url).netloc.lower()


def is_web(url: str) -> bool:
    return url.startswith(("https://", "http://"))
