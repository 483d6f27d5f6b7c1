"""The day's request budget: how many requests a source made and a host got today, over all runs and functions.

One document a day (collection `requests`, key `2026-11-21`, UTC) counts requests by source and by host. It is read when
the first request is made and written once every `FLUSH_S` or `FLUSH_REQUESTS`: a process that is killed loses at most
those. Redirects are not counted.

Only crawl keeps the budget: it makes the requests to catalogues itself, and counts a picture's download when it
publishes its item. So embed, on however many instances, never meets a limit that would make its batches dead letters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

from visor.errors import QuotaReached
from visor.http.client import Fetcher
from visor.http.fetch import IMAGE, Fetched, FetchedStream, FetchOptions, Probed
from visor.http.url_policy import host_of
from visor.schema.collections import REQUESTS
from visor.storage.documents import DocumentStore
from visor.storage.shared_counts import SharedCounts

FLUSH_S = 60.0
FLUSH_REQUESTS = 200
_SOURCE, _HOST = "source ", "host "


class RequestBudget:
    """Counts requests and refuses those beyond the day's limit. Thread-safe; one per process.

    Args:
        host_a_day: Requests to one host a day; 0: no limit.
    """

    def __init__(self, documents: DocumentStore, *, host_a_day: int, clock: Callable[[], float] = time.time) -> None:
        self.host_a_day, self.clock = host_a_day, clock
        self._counts = SharedCounts(documents, REQUESTS)
        self._lock = threading.Lock()
        self._day = ""
        self._unflushed = 0
        self._flush_at = 0.0

    def take(self, source: str, url: str, source_a_day: int | None = None) -> None:
        """Count one request that is about to be made.

        Args:
            source_a_day: Requests that the source may make a day; None: no limit.

        Raises:
            QuotaReached: The source or the host has reached today's limit; nothing is counted.
        """
        host = host_of(url)
        with self._lock:
            self._begin_day()
            if source_a_day is not None and self._used(_SOURCE + source) >= source_a_day:
                raise self._used_up(f"Source '{source}' has made the {source_a_day:,} requests of its requests_a_day")
            if self.host_a_day and self._used(_HOST + host) >= self.host_a_day:
                raise self._used_up(f"{host} has had the {self.host_a_day:,} requests of VISOR_HOST_REQUESTS_A_DAY")
            self._count({_SOURCE + source: 1, _HOST + host: 1})

    def reserve(self, url: str) -> bool:
        """Count a request that embed will make, even if there is no room. False if there is no more room."""
        host = host_of(url)
        with self._lock:
            self._begin_day()
            self._count({_HOST + host: 1})
            return not self.host_a_day or self._used(_HOST + host) < self.host_a_day

    def today(self) -> tuple[dict[str, int], dict[str, int]]:
        """Requests of today by source and by host."""
        with self._lock:
            self._begin_day()
            names = self._counts.names(self._day)
            return tuple(  # type: ignore[return-value]
                {n.removeprefix(kind): self._used(n) for n in names if n.startswith(kind)} for kind in (_SOURCE, _HOST)
            )

    def flush(self) -> None:
        """Add what was counted to the store, and read what others counted."""
        with self._lock:
            if not self._counts.is_flushed:
                self._flush()

    def _used(self, name: str) -> int:
        return int(self._counts.get(self._day, name))

    def _begin_day(self) -> None:
        day = datetime.fromtimestamp(self.clock(), UTC).date().isoformat()
        if day != self._day:
            self._day = day
            self._flush()

    def _count(self, amounts: Mapping[str, int]) -> None:
        self._counts.add(self._day, amounts)
        self._unflushed += len(amounts)
        if self._unflushed >= 2 * FLUSH_REQUESTS or self.clock() >= self._flush_at:
            self._flush()

    def _flush(self) -> None:
        self._unflushed, self._flush_at = 0, self.clock() + FLUSH_S
        self._counts.flush(self._day)

    def _used_up(self, found: str) -> QuotaReached:
        now = datetime.fromtimestamp(self.clock(), UTC)
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        return QuotaReached(
            f"{found} today",
            remedy=f"It goes on from its checkpoint after {midnight.isoformat(timespec='minutes')}",
            retry_after_s=(midnight - now).total_seconds(),
        )


class BudgetedFetcher:
    """A fetcher for one source whose requests are counted.

    Raises what the fetcher raises, and `QuotaReached` in place of a request beyond the limit.
    """

    def __init__(self, fetcher: Fetcher, budget: RequestBudget, source: str, source_a_day: int | None = None) -> None:
        self._fetcher, self._budget, self._source, self._a_day = fetcher, budget, source, source_a_day

    def fetch(self, url: str, options: FetchOptions = IMAGE) -> Fetched:
        self._budget.take(self._source, url, self._a_day)
        return self._fetcher.fetch(url, options)

    def stream(self, url: str, options: FetchOptions) -> AbstractContextManager[FetchedStream]:
        self._budget.take(self._source, url, self._a_day)
        return self._fetcher.stream(url, options)

    def probe(self, url: str, *, is_image: bool) -> Probed:
        self._budget.take(self._source, url, self._a_day)
        return self._fetcher.probe(url, is_image=is_image)
