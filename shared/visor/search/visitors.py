"""What visitors' photos have in common: sums that searches leave and the next merge takes up.

Kept is the sum of numbers over ten photos or more, and nothing about any one of them or about who searched. What was
asked since the last merge changes no answer.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from visor.confidence.across import Across, Learned, packed, unpacked
from visor.confidence.model import SCORE_EDGES
from visor.errors import StoreUnavailable
from visor.index.format.container import Array
from visor.storage.documents import SERVER_TIME, Delete, DocumentStore, Put

COLLECTION = "visitors"
FORGET = "forget"
"""Key of the document with which `visor feedback forget-visitors` tells the next merge to begin anew."""
BATCH = 10
"""Photos in one document."""
WRITES_A_DAY = 50
"""Documents that one process writes in 24 hours at most."""
READ_MAX = 200
"""Documents that one merge takes up."""
PHOTOS_MAX = 1000.0
"""Older photos fade once there are so many."""
REMEMBERED = 500
"""Photos that a process knows again: one that is asked again teaches nothing new."""


class VisitorLog:
    """Sums up the photos of one process. Thread-safe.

    Args:
        model: Fingerprint of the model that the vectors are of.
        on_write: Called after each document, for the meter.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        documents: DocumentStore,
        model: str,
        *,
        on_write: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._documents, self._model, self._on_write, self._clock = documents, model, on_write, clock
        self._seen: deque[int] = deque(maxlen=REMEMBERED)
        self._written: deque[float] = deque(maxlen=WRITES_A_DAY)
        self._sum: Array | None = None
        self._photos = 0
        self._scores: list[float] = []
        self._lock = threading.Lock()

    def add(self, traits: Array, score: float | None = None) -> None:
        """Count one photo, by its traits (d + 1162,) and what it was judged by, where that was a score.

        Every tenth writes a document; a store that is away is left.
        """
        with self._lock:
            digest = hash(traits.tobytes())
            if digest in self._seen:
                return
            self._seen.append(digest)
            self._sum = traits.astype(np.float64) + (0 if self._sum is None else self._sum)
            self._photos += 1
            self._scores += [] if score is None else [score]
            now = self._clock()
            spent = len(self._written) == WRITES_A_DAY and now - self._written[0] < 86_400
            if self._photos < BATCH or spent:
                return
            data = {"model": self._model, "photos": self._photos, "mean": packed(self._sum / self._photos)}
            data["scores"] = np.histogram(np.clip(self._scores, *SCORE_EDGES[[0, -1]]), SCORE_EDGES)[0].tolist()
            self._sum, self._photos, self._scores = None, 0, []
            self._written.append(now)
        try:
            put = Put(collection=COLLECTION, key=secrets.token_hex(16), data={**data, "added_at": SERVER_TIME})
            self._documents.commit([put])
            self._on_write()
        except StoreUnavailable:
            pass


class VisitorSums:
    """The merge's side: what was learned before and what searches left since."""

    def __init__(self, documents: DocumentStore, model: str) -> None:
        self._documents, self._model = documents, model

    def fold(self, before: Across | None) -> Learned | None:
        """The manifest's mean with what came since; None if nothing did.

        Documents that the manifest says it has are deleted: a merge that dies in between counts nothing twice.
        """
        before = before or Across(catalogue="")
        found = self._documents.query(COLLECTION, order_by="added_at", limit=READ_MAX)
        forget = bool(self._documents.get(COLLECTION, [FORGET]))
        fresh = [d for d in found if d.key not in before.folded and d.data["model"] == self._model and not forget]
        stale = {d.key for d in found} - {d.key for d in fresh} | ({FORGET} if forget else set())
        if stale:
            self._documents.commit([Delete(collection=COLLECTION, key=key) for key in sorted(stale)])
        if not fresh and not forget:
            return None
        parts = [(unpacked(before.visitors), before.photos)] if before.visitors and not forget else []
        parts += [(unpacked(d.data["mean"]), float(d.data["photos"])) for d in fresh]
        photos = sum(n for _, n in parts)
        total = np.sum([part * n for part, n in parts], axis=0)
        counts = [before.scores] if before.scores and not forget else []
        scores = np.sum([np.zeros(len(SCORE_EDGES) - 1), *counts, *(d.data.get("scores", 0.0) for d in fresh)], axis=0)
        kept = min(photos, PHOTOS_MAX)
        return Learned(total / max(photos, 1), kept, scores * kept / max(photos, 1), tuple(d.key for d in fresh))


def forget_visitors(documents: DocumentStore) -> None:
    """Have the next merge forget what was learned from visitors' photos."""
    documents.commit([Put(collection=COLLECTION, key=FORGET, data={"added_at": SERVER_TIME, "model": ""})])
