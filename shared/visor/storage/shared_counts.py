"""Shared counts: numbers that several processes add to, kept in memory between flushes to the document store."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping

from visor.errors import StoreUnavailable
from visor.storage.documents import Add, DocumentStore

LOG = logging.getLogger(__name__)


class SharedCounts:
    """Counts by name, in one document for each period. Thread-safe.

    A killed process loses counts that it has not flushed, and between flushes it does not see the counts of others.
    """

    def __init__(self, documents: DocumentStore, collection: str) -> None:
        self.documents, self.collection = documents, collection
        self._lock = threading.Lock()
        self._stored: dict[str, dict[str, float]] = {}
        self._pending: dict[str, defaultdict[str, float]] = {}

    def add(self, period: str, amounts: Mapping[str, float]) -> None:
        with self._lock:
            pending = self._pending.setdefault(period, defaultdict(int))
            for name, amount in amounts.items():
                pending[name] += amount

    def get(self, period: str, name: str) -> float:
        """One number: as last read, plus what this process has added since."""
        with self._lock:
            return sum(counts.get(period, {}).get(name, 0) for counts in (self._stored, self._pending))

    def names(self, period: str) -> list[str]:
        with self._lock:
            return sorted({*self._stored.get(period, {}), *self._pending.get(period, {})})

    @property
    def is_flushed(self) -> bool:
        return not self._pending

    def flush(self, *periods: str) -> None:
        """Add this process's counts of all periods to the store, and read everybody's counts of `periods`.

        If the store is unavailable, this is logged, and the counts stay until the next flush.
        """
        with self._lock:
            pending, self._pending = self._pending, {}
        try:
            for key in list(pending):
                self.documents.commit([Add(collection=self.collection, key=key, amounts=dict(pending[key]))])
                with self._lock:
                    stored = self._stored.setdefault(key, {})
                    stored |= {name: stored.get(name, 0) + amount for name, amount in pending.pop(key).items()}
            found = self.documents.get(self.collection, list(periods))
            with self._lock:
                for key in periods:
                    data = found[key].data if key in found else {}
                    self._stored[key] = {k: v for k, v in data.items() if isinstance(v, int | float)}
        except StoreUnavailable as exc:
            LOG.warning("The counts in %s could not be written for now: %s", self.collection, exc)
        finally:
            for key, amounts in pending.items():
                self.add(key, amounts)
