"""What visitors' photos have in common: sums that searches leave and the next merge takes up.

Only the sum of numbers over ten photos or more is kept, and nothing about any one of them or about who searched.
Searches since the last merge change no answer.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np

from visor.confidence.across import Across, Learned, packed, unpacked
from visor.confidence.model import SCORE_EDGES
from visor.errors import QuotaReached, StoreUnavailable
from visor.index.format.container import Array
from visor.schema.collections import VISITORS
from visor.schema.items import Record, as_document, as_records
from visor.storage.documents import SERVER_TIME, Delete, DocumentStore, Put

FORGET = "forget"
"""Key of the document with which `visor feedback forget-visitors` tells the next merge to start anew."""
BATCH = 10
"""Photos in one document."""
WRITES_A_DAY = 50
"""Documents that one process writes in 24 hours at most."""
READ_MAX = 200
"""Documents that one merge takes up."""
OTHERS_S = 2 * 86_400
"""Age in seconds up to which a merge leaves the sums of another model's searches: both serve during a reindex."""
PHOTOS_MAX = 1000.0
"""Older photos fade once there are this many."""
PER_CLIENT_A_DAY = 3
"""Photos of one client that a process learns from in 24 hours: whoever wants to move the mean needs many addresses."""
CLIENTS_MAX = 10_000
"""Clients that are distinguished in a day; nothing is learned from further ones."""
FRESH_SHARE, FRESH_MIN = 0.1, 10.0
"""Once photos are known, all newer ones count as this share of them at most, or as this many if that is more."""
REMEMBERED = 500
"""Photos that a process recognises: a repeated one teaches nothing new."""


class VisitorSum(Record, frozen=True, kw_only=True):
    """Some photos of one process (collection `visitors`); or the owner's request to forget all."""

    model: str
    photos: int = 0
    mean: str = ""
    """As in `Across`."""
    scores: tuple[int, ...] = ()
    """How many had which score, in bins of `SCORE_EDGES`."""


class VisitorLog:
    """Sums up the photos of one process. Thread-safe.

    Args:
        model: Fingerprint of the model that made the vectors.
        on_write: Called before each document; it is not written if this raises `QuotaReached`.
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
        self._clients, self._day_ends_at = Counter[str](), 0.0
        self._seen: deque[int] = deque(maxlen=REMEMBERED)
        self._written: deque[float] = deque(maxlen=WRITES_A_DAY)
        self._photos: list[Array] = []
        self._scores: list[float] = []
        self._lock = threading.Lock()

    def add(self, traits: Array, score: float | None = None, *, client: str | None = None) -> None:
        """Count one photo, by its traits (d + 1162,) and the score that it was judged by, if any.

        Every tenth writes a document; if the store does not answer, they are dropped.

        Args:
            client: Who sent it, forgotten within a day; None: the owner, whose photos all count.
        """
        with self._lock:
            digest = hash(traits.tobytes())
            if digest in self._seen or not self._may_teach(client):
                return
            now = self._clock()
            spent = len(self._written) == WRITES_A_DAY and now - self._written[0] < 86_400
            if spent:
                return
            self._seen.append(digest)
            self._photos.append(traits.astype(np.float64))
            self._scores += [] if score is None else [score]
            if len(self._photos) < BATCH:
                return
            scores = np.histogram(np.clip(self._scores, *SCORE_EDGES[[0, -1]]), SCORE_EDGES)[0].tolist()
            mean = packed(robust_mean(np.stack(self._photos), [1.0] * BATCH))
            data = as_document(VisitorSum(model=self._model, photos=BATCH, mean=mean, scores=tuple(scores)))
            self._photos, self._scores = [], []
            self._written.append(now)
        try:
            self._on_write()
            put = Put(collection=VISITORS, key=secrets.token_hex(16), data={**data, "added_at": SERVER_TIME})
            self._documents.commit([put])
        except (StoreUnavailable, QuotaReached):
            pass

    def _may_teach(self, client: str | None) -> bool:
        if client is None:
            return True
        if self._clock() >= self._day_ends_at:
            self._clients, self._day_ends_at = Counter(), self._clock() + 86_400
        if len(self._clients) < CLIENTS_MAX or client in self._clients:
            self._clients[client] += 1
            return self._clients[client] <= PER_CLIENT_A_DAY
        return False


class VisitorSums:
    """The merge's side: what was learned before and what searches left since."""

    def __init__(self, documents: DocumentStore, model: str) -> None:
        self._documents, self._model = documents, model

    def fold(self, before: Across | None) -> Learned | None:
        """The manifest's mean with what has come since; None if nothing has.

        Documents that the manifest already includes are deleted: a merge that dies in between counts nothing twice. The
        owner's request to forget stays, as it is for each model's manifest; its time shows whether it was carried out.
        """
        before = before or Across(catalogue="")
        found = self._documents.query(VISITORS, order_by="added_at", limit=READ_MAX)
        word = self._documents.get(VISITORS, [FORGET]).get(FORGET)
        forgotten_at = 0.0 if word is None else float(word.data["added_at"])
        obeyed = f"{FORGET} {forgotten_at}"
        forget = word is not None and obeyed not in before.folded
        sums = [(document, one, float(document.data["added_at"])) for document, one in as_records(found, VisitorSum)]
        fresh = {
            document.key: one
            for document, one, added_at in sums
            if document.key not in before.folded and one.model == self._model and added_at > forgotten_at
        }
        # Documents that another version of Visor wrote, or damaged ones, cannot be added to the rest.
        sizes = Counter(len(one.mean) for one in fresh.values()).most_common(1)
        size = len(before.visitors) or (sizes[0][0] if sizes else 0)
        fresh = {
            k: one for k, one in fresh.items() if len(one.mean) == size and len(one.scores) in (0, len(SCORE_EDGES) - 1)
        }
        old = time.time() - OTHERS_S
        others = {document.key for document, one, added_at in sums if one.model != self._model and added_at > old}
        if stale := {d.key for d in found} - fresh.keys() - others - {FORGET}:
            self._documents.commit([Delete(collection=VISITORS, key=key) for key in sorted(stale)])
        if not fresh and not forget:
            return None
        parts = [(unpacked(before.visitors), before.photos)] if before.visitors and not forget else []
        scores = np.zeros(len(SCORE_EDGES) - 1)
        if before.scores and not forget:
            scores += before.scores
        if fresh:
            means = np.stack([unpacked(one.mean) for one in fresh.values()])
            came = [float(one.photos) for one in fresh.values()]
            most = max(FRESH_MIN, FRESH_SHARE * parts[0][1]) if parts else PHOTOS_MAX
            share = min(1.0, most / sum(came))
            parts.append((robust_mean(means, came), share * sum(came)))
            scores += share * np.sum([np.array(one.scores or 0 * scores) for one in fresh.values()], axis=0)
        photos = sum(n for _, n in parts)
        total = np.sum([part * n for part, n in parts], axis=0)
        kept = min(photos, PHOTOS_MAX)
        return Learned(
            total / max(photos, 1), kept, scores * kept / max(photos, 1), (*fresh, obeyed) if word else tuple(fresh)
        )


def robust_mean(means: Array, weights: Sequence[float]) -> Array:
    """The mean (t,) of rows (n, t), of which none pulls further from their medians than half of the others do."""
    centre = np.median(means, axis=0)
    apart = means - centre
    lengths = np.linalg.norm(apart, axis=1)
    pull = np.minimum(1, np.median(lengths) / np.maximum(lengths, 1e-12))
    mean: Array = centre + np.average(apart * pull[:, None], axis=0, weights=weights)
    return mean


def forget_visitors(documents: DocumentStore) -> None:
    """Make the next merge forget what was learned from visitors' photos."""
    documents.commit([Put(collection=VISITORS, key=FORGET, data={"added_at": SERVER_TIME, "model": ""})])
