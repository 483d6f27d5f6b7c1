"""Self-audit: some `fast` queries are run `exact` as well, and the recall of the index is reported live.

A check runs after the response to a request was written, on that request's thread: on Cloud Run a request-billed
instance has no processor between requests, so a thread of its own would stand still. If the processor is taken away
during a check, the check ends with the next request. Checks take at most `BUDGET` of the time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from visor.index.format.container import Array
from visor.index.search.searcher import Searcher
from visor.schema.search import Audit

RECALL_AT = 12
WAITING_MAX = 8
CHECKS_REMEMBERED = 1_000
BUDGET = 0.02
"""Share of the time that checks may take."""
PAUSE_MAX_S = 60.0
"""Longest pause after a check, for one that was held up."""


class RecallMonitor:
    """Checks sampled queries. Thread-safe; one per process.

    Args:
        searcher: Answers the queries of `waiting`, (d,) each: samples without filters that were answered `fast`.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._searcher, self._clock = searcher, clock
        self.waiting: deque[Array] = deque(maxlen=WAITING_MAX)
        self._recalls: deque[float] = deque(maxlen=CHECKS_REMEMBERED)
        self._samples = 0
        self._not_before = 0.0
        self._busy = threading.Lock()

    def check(self) -> bool:
        """Check one waiting query, if the budget allows and no other check is running. Returns whether it did."""
        if not self.waiting or self._clock() < self._not_before or not self._busy.acquire(blocking=False):
            return False
        try:
            vector = self.waiting.popleft()
            started = self._clock()
            fast = self._searcher.search(vector, k=RECALL_AT)
            exact = self._searcher.search(vector, k=RECALL_AT, mode="exact")
            ended = self._clock()
            wanted = {hit.id for hit in exact.hits}
            if wanted:
                self._recalls.append(len(wanted & {hit.id for hit in fast.hits}) / len(wanted))
                self._samples += 1
            self._not_before = ended + min((ended - started) / BUDGET, PAUSE_MAX_S)
        except IndexError:
            return False
        finally:
            self._busy.release()
        return True

    def result(self) -> Audit | None:
        """The result so far; None before the first check."""
        recalls = list(self._recalls)
        if not recalls:
            return None
        return Audit(samples=self._samples, recall_at_12=round(sum(recalls) / len(recalls), 4))
