"""Probes URLs: several hosts in parallel, one request at a time to each.

A URL is judged by itself only while its host is otherwise fine. A login wall, maintenance or an expired domain answers
alike for all URLs: then nothing is known about any of them.
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
"""Pause between two requests to one host."""
HOST_MIN = 3
"""From this many URLs of a host that fail, move elsewhere or are refused, this may be the host's condition."""
AWAY = ("moved", "redirected_home")
"""Answers of a host that sends everybody elsewhere: for these, one URL is enough if no other is fine."""
HOST_ENOUGH = 10
"""After so many failures and no URL that is fine, a host is not probed any further."""


class UrlStatus(NamedTuple):
    """The result of probing one URL."""

    state: Literal["there", "moved", "failed", "unknown"]
    """`unknown`: the answer, such as 403 or 429, shows nothing about the URL."""
    moved_to: str = ""
    code: str = ""


def probe_url(fetcher: Prober, url: str, *, is_picture: bool) -> UrlStatus:
    """Probe one URL."""
    try:
        probed = fetcher.probe(url, is_image=is_picture)
    except FetchFailed as exc:
        if exc.status not in (None, 404, 410):
            return UrlStatus("unknown", code=f"http_{exc.status}")
        if exc.elsewhere:
            # Another host answered this, which counts the same as no answer.
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
    """The results of probing URLs of one host: of its pages or of its images."""

    statuses: dict[str, UrlStatus]
    """By URL; those that show nothing because of the host's condition are unknown."""
    condition: str = ""
    """How the host answers for most of the URLs, if that is not a matter of single URLs: a code."""
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
    """Probe the pages and the images of each host; results by `part_of`.

    Args:
        urls: URLs, and whether each is an image's.
        is_over: Whether the time has ended; URLs that were not probed by then are unknown.
        good: By `part_of`, URLs that were there the last time.
        stopped: What is not probed, by `part_of`.
        trusted: Hosts whose URLs are each judged alone, whatever the others answer.
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
            """Whether most of the URLs fail, including those that were there before."""
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
    """The URLs that are judged together: the pages of a host, or its images."""
    return f"{'images' if is_picture else 'pages'} of {host_of(url)}"


def _says_something(status: UrlStatus) -> bool:
    return status.state != "unknown" or status.code.startswith("http_")


def _bad(statuses: Mapping[str, UrlStatus]) -> dict[str, str]:
    """How URLs fail that are not there, or moved to another site, or to the same URL as others."""
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
    """Whether one host is the other or a subdomain of it, ignoring `www.`."""
    hosts = [(urlsplit(url).hostname or "").removeprefix("www.") for url in (one, other)]
    return hosts[0] == hosts[1] or hosts[0].endswith(f".{hosts[1]}") or hosts[1].endswith(f".{hosts[0]}")


def host_of(url: str) -> str:
    return urlsplit(url).netloc.lower()


def is_web(url: str) -> bool:
    return url.startswith(("https://", "http://"))
