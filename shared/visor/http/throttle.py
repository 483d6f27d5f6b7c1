"""Limits concurrent fetches, in all and per host, and pauses hosts that are dead or ask for it (a circuit breaker)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from visor.errors import FetchUnavailable, HostDead, HostPaused

PAUSE_MAX_S = 3600.0
"""Longest pause that a host can ask for, so that no header silences it forever."""

DEAD_AFTER = 8
"""Failed connections in a row after which a host counts as dead."""
DEAD_PAUSE_S = 60.0
"""First pause of a dead host; doubles each time it is still dead."""
PAUSE_UNNAMED_S = 10.0
"""First pause of a host that answers 'too many requests' without a time; doubles with each such answer."""


class HostThrottle:
    """Limits fetches; shared by all threads of a `Fetcher`. A host is its `host:port`.

    Args:
        parallel: Fetches at once in all.
        per_host: Fetches at once per host.
    """

    def __init__(self, parallel: int, per_host: int) -> None:
        self._parallel = parallel
        self._per_host = per_host
        self._changed = Condition()
        self._active: Counter[str] = Counter()
        self._paused_until: dict[str, float] = {}
        self._failed: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    @contextmanager
    def slot(self, host: str, wait_s: float) -> Iterator[float]:
        """Hold a slot at `host`; yields the seconds of waiting for it.

        Raises:
            FetchUnavailable: No slot within `wait_s`, or the host wants to be left alone.
        """
        started = time.monotonic()
        with self._changed:
            self._refuse_while_paused(host)
            if not self._changed.wait_for(lambda: self._free(host), wait_s):
                raise FetchUnavailable(
                    f"{host} is busy with {self._active[host]} other fetches",
                    valid=f"At most {self._per_host} at once per host and {self._parallel} in all",
                    remedy="Try again later",
                )
            self._refuse_while_paused(host)
            self._active[host] += 1
        try:
            yield time.monotonic() - started
        finally:
            with self._changed:
                self._active[host] -= 1
                if not self._active[host]:
                    del self._active[host]
                self._changed.notify_all()

    def pause(self, host: str, seconds: float) -> None:
        """Leave `host` alone for `seconds`. A pause never shortens a longer one."""
        now = time.monotonic()
        with self._changed:
            until = now + min(seconds, PAUSE_MAX_S)
            self._paused_until = {h: t for h, t in self._paused_until.items() if t > now}
            self._paused_until[host] = max(until, self._paused_until.get(host, 0.0))

    def refused(self, host: str, wait_s: float | None, most_s: float = PAUSE_MAX_S) -> float:
        """Note that `host` asked to be left alone, for `wait_s` if it named a time, at most `most_s`. Answers to one
        burst count as one. Returns the seconds that it named, or else the chosen pause."""
        with self._changed:
            left_s = self._paused_until.get(host, 0.0) - time.monotonic()
            if wait_s is None and left_s > 0:
                return left_s
            self._refused[host] += 1
            if wait_s is None:
                wait_s = min(PAUSE_UNNAMED_S * 2.0 ** min(self._refused[host] - 1, 10), most_s)
        self.pause(host, min(wait_s, most_s))
        return wait_s

    def served(self, host: str) -> None:
        """Note that `host` answered with success."""
        with self._changed:
            self._refused.pop(host, None)

    def failed(self, host: str) -> None:
        """Note that `host` could not be connected to. A dead host is paused, then tried once."""
        with self._changed:
            self._failed[host] += 1
            beyond = self._failed[host] - DEAD_AFTER
        if beyond >= 0:
            self.pause(host, DEAD_PAUSE_S * 2.0 ** min(beyond, 10))

    def answered(self, host: str) -> None:
        """Note that `host` is alive."""
        with self._changed:
            self._failed.pop(host, None)

    def _free(self, host: str) -> bool:
        return self._active[host] < self._per_host and self._active.total() < self._parallel

    def _refuse_while_paused(self, host: str) -> None:
        left = self._paused_until.get(host, 0.0) - time.monotonic()
        if left > 0:
            dead = self._failed[host] >= DEAD_AFTER
            why = "could not be connected to again and again, and is left alone" if dead else "asked to be left alone"
            raise (HostDead if dead else HostPaused)(
                f"{host} {why} for another {left:.0f} s",
                remedy="Try again after that",
                retry_after_s=left,
            )
