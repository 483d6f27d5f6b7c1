"""Rate limiter: a token bucket per client, in the memory of the instance.

In memory, because a bucket in Firestore would cost a read and a write per search, as much as it protects. The loss is
bounded: Terraform allows two instances, so a client gets at most twice its rate, and the meters, which are in
Firestore, limit the use by all clients together. A restart does not help a client: in a new instance, an unknown
client starts with the tokens that it would have earned over the instance's own age, not with a full bucket.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from visor.errors import QuotaReached

CLIENTS_MAX = 10_000
FIRST_SHARE = 0.25
"""Share of its burst that a client gets from an instance that has just started: enough to open the page and search."""
CROWD = "crowd"
"""The bucket that new clients share while the table is full of active ones."""


class Slots:
    """Admits a number of requests at once, lets a few wait, and refuses the others, so that slow work occupies few
    threads.

    Args:
        what: What it is for, as it is worded in the refusal: 'search by metric'.
    """

    def __init__(self, what: str, *, at_once: int, waiting: int, wait_s: float) -> None:
        self._what, self._at_once, self._most, self._wait_s = what, at_once, at_once + waiting, wait_s
        self._free = threading.Semaphore(at_once)
        self._here = threading.Semaphore(self._most)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Raises `QuotaReached` if too many wait already, or after `wait_s`."""
        if not self._here.acquire(blocking=False):
            raise self._busy()
        try:
            if not self._free.acquire(timeout=self._wait_s):
                raise self._busy()
            try:
                yield
            finally:
                self._free.release()
        finally:
            self._here.release()

    def _busy(self) -> QuotaReached:
        return QuotaReached(
            f"Too many requests wait already for a {self._what}",
            valid=f"{self._at_once} at once",
            remedy=f"Try again in {self._wait_s:.0f} s",
            retry_after_s=self._wait_s,
        )


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """A bucket per client: `burst` requests at once, refilled at `per_minute`.

    Holds at most `clients_max` buckets. Thread-safe.
    """

    def __init__(
        self,
        *,
        per_minute: float,
        burst: int,
        clients_max: int = CLIENTS_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if per_minute <= 0 or burst < 1 or clients_max < 1:
            raise ValueError(
                f"per_minute {per_minute}, burst {burst} and clients_max {clients_max} have to be positive"
            )
        self.rate, self.burst, self.clients_max, self._clock = per_minute / 60, float(burst), clients_max, clock
        self._started = clock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, tokens: float = 1.0, *, owed: bool = False) -> None:
        """Take one request's tokens from a client's bucket.

        Args:
            owed: Take them even if there are too few: the next requests wait for them.

        Raises:
            QuotaReached: There are too few; `retry_after_s` says when there will be enough.
        """
        with self._lock:
            now = self._clock()
            bucket = self._bucket(client, now)
            bucket.tokens = min(self.burst, bucket.tokens + (now - bucket.at) * self.rate)
            bucket.at = now
            if owed or bucket.tokens >= tokens:
                bucket.tokens -= tokens
                return
            wait_s = (tokens - bucket.tokens) / self.rate
        raise QuotaReached(
            "Too many requests from this address",
            valid=f"{self.rate * 60:g} a minute, {self.burst:g} at once after a pause",
            remedy=f"Wait {wait_s:.0f} s",
            retry_after_s=wait_s,
        )

    def _bucket(self, client: str, now: float) -> _Bucket:
        """The client's bucket, moved to the end of the table, where the most recent are."""
        if client not in self._buckets:
            if len(self._buckets) >= self.clients_max and not self._forget(now):
                client = CROWD
            earned = max(1.0, self.burst * FIRST_SHARE) + (now - self._started) * self.rate
            self._buckets.setdefault(client, _Bucket(tokens=min(self.burst, earned), at=now))
        self._buckets.move_to_end(client)
        return self._buckets[client]

    def _forget(self, now: float) -> bool:
        """Drop the least recent clients whose buckets are full again, which changes nothing for them."""
        forgotten = False
        while self._buckets:
            client, bucket = next(iter(self._buckets.items()))
            if bucket.tokens + (now - bucket.at) * self.rate < self.burst:
                break
            del self._buckets[client]
            forgotten = True
            if len(self._buckets) < self.clients_max * 0.9:
                break
        return forgotten
