"""Feedback: 'not a match' hides a pair, and changes the calibration at the next merge, once the owner agrees.

A visitor's feedback waits in an inbox and changes nobody's answers. The owner's own feedback, and what the owner
accepts from the inbox, counts for all; what the owner rejects no longer counts. 'Harmless' changes nothing by itself.

Only a pair of ids is kept, with the numbers that the answer was judged by, and nothing about the person. A query that
is not an item is kept as a digest of its vector: the same picture makes the same query.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np

from visor.confidence.features import FEATURES
from visor.confidence.fit import NONE_REJECTED
from visor.errors import StoreUnavailable
from visor.index.format.container import Array
from visor.schema.collections import FEEDBACK, FEEDBACK_INBOX
from visor.schema.items import Record, as_document, as_records
from visor.storage.documents import SERVER_TIME, WRITES_MAX, Delete, DocumentStore, Put, Where, Write

REMEMBERED_MAX = 20_000
"""Pairs that a process keeps, and that a merge reads: the newest."""
REJECTED = "rejected"
"""Verdict of a pair that the owner took back: running searches see it at their next poll."""
INBOX_DAYS = 30
"""How long a visitor's feedback waits for the owner; then a merge deletes it."""
LOOK_BACK_S = 10.0
"""The later of two times may become visible first, so each poll reads this much again."""


class Feedback(Record, frozen=True, kw_only=True):
    """One pair, or one query, as kept (collection `feedback`)."""

    query: str
    """Item id, or `vector:` and 32 hex digits."""
    item: str = ""
    """Item id of the match; empty if the verdict is on the query."""
    verdict: str = "not_a_match"
    """`not_a_match`, or `harmless`: a query that was held back should not have been. That changes nothing by itself."""
    features: tuple[float, ...] = ()
    """Numbers of `visor.confidence.features.FEATURES` at that time, if the item was the answer's first match."""


def query_key(vector: Array, item: str | None) -> str:
    """The key of a query in feedback.

    Args:
        vector: (d,) float of unit length. Rounded to 16 bits per number, as in links, so that both name one query.
        item: The item that was searched for, if it was one.
    """
    if item is not None:
        return item
    return "vector:" + hashlib.blake2b(vector.astype("<f2").tobytes(), digest_size=16).hexdigest()


def pair_key(query: str, item: str) -> str:
    return hashlib.blake2b(f"{query}\0{item}".encode(), digest_size=16).hexdigest()


class FeedbackLog:
    """Writes feedback, and knows what to hide. Thread-safe; one per process.

    Args:
        freshness_s: Longest time between two polls. A poll costs one query, for new feedback only.
    """

    def __init__(
        self, documents: DocumentStore, *, freshness_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._documents, self._freshness_s, self._clock = documents, freshness_s, clock
        self._hidden: dict[str, set[str]] = defaultdict(set)
        self._looked_at: float | None = None
        self._read_to = 0.0
        self._lock = threading.Lock()

    def add(self, feedback: Feedback, *, by_owner: bool = True) -> None:
        """Keep it durably; the same feedback twice counts once. If it is not `by_owner` it waits in the inbox."""
        self._documents.commit([_put(FEEDBACK if by_owner else FEEDBACK_INBOX, feedback)])
        if feedback.item and by_owner:
            with self._lock:
                self._hidden[feedback.query].add(feedback.item)

    def hidden(self, query: str) -> frozenset[str]:
        """Items that are no match for that query, by ids; while the store does not answer, those that are known."""
        self._refresh()
        with self._lock:
            return frozenset(self._hidden.get(query, ()))

    def _refresh(self) -> None:
        with self._lock:
            now = self._clock()
            if self._looked_at is not None and now - self._looked_at < self._freshness_s:
                return
            since = self._read_to - LOOK_BACK_S
            where = [Where(field="given_at", op=">", value=since)] if self._read_to else []
            try:
                found = self._documents.query(
                    FEEDBACK, where=where, order_by="given_at", descending=True, limit=REMEMBERED_MAX
                )
            except StoreUnavailable:
                # One search in `freshness_s` is enough to wait for a store that does not answer.
                self._looked_at = self._clock()
                return
            for document, one in as_records(found, Feedback):
                if one.item:
                    hidden = self._hidden[one.query]
                    (hidden.discard if one.verdict == REJECTED else hidden.add)(one.item)
                self._read_to = max(self._read_to, float(document.data["given_at"]))
            self._looked_at = now


def _put(collection: str, feedback: Feedback) -> Put:
    data = {**as_document(feedback), "given_at": SERVER_TIME}
    return Put(collection=collection, key=pair_key(feedback.query, feedback.item), data=data)


def decide(documents: DocumentStore, feedback: Iterable[Feedback], *, accept: bool) -> None:
    """Accept feedback, for all; or reject it: it leaves the inbox, and if accepted before it no longer counts."""
    for one in feedback:
        key = pair_key(one.query, one.item)
        writes: list[Write] = [Delete(collection=FEEDBACK_INBOX, key=key)]
        if accept:
            writes.append(_put(FEEDBACK, one))
        elif documents.get(FEEDBACK, [key]):
            data = {**as_document(one), "verdict": REJECTED, "given_at": SERVER_TIME}
            writes.append(Put(collection=FEEDBACK, key=key, data=data))
        documents.commit(writes)


def trim_inbox(documents: DocumentStore) -> None:
    """Delete what has waited too long, at most 500 at a time. A merge does this."""
    old = Where(field="given_at", op="<", value=time.time() - INBOX_DAYS * 86_400)
    found = documents.query(FEEDBACK_INBOX, where=[old], limit=WRITES_MAX)
    if found:
        documents.commit([Delete(collection=FEEDBACK_INBOX, key=document.key) for document in found])


def all_feedback(documents: DocumentStore, collection: str = FEEDBACK) -> list[Feedback]:
    """The feedback that is kept, or waits, the newest first, at most `REMEMBERED_MAX`; none that was rejected."""
    found = documents.query(collection, order_by="given_at", descending=True, limit=REMEMBERED_MAX)
    return [one for _, one in as_records(found, Feedback) if one.verdict != REJECTED]


def rejected_features(documents: DocumentStore) -> Array:
    """Features (r, f) of the answers whose first match was rejected, oldest first, for `visor.confidence.fit`."""
    rows = [one.features for one in reversed(all_feedback(documents)) if len(one.features) == len(FEATURES)]
    return np.array(rows, float) if rows else NONE_REJECTED
