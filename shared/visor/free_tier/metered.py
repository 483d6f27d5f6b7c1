"""Metered stores: each operation of a search is counted when it happens, whatever the request is.

The counts are what Google bills: a query without results and a missing document are one read each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from visor.free_tier.quota import Meter
from visor.storage.documents import Delete, DocumentStore
from visor.storage.objects import ObjectStore

Counts = Mapping[str, Callable[..., Mapping[str, int]]]
"""By method: a function from a call's result and arguments to its use, by resource."""
OBJECTS: Counts = {
    "get": lambda result, *_: {"class_b": 1},
    "get_with_info": lambda result, *_: {"class_b": 1},
    "stat": lambda result, *_: {"class_b": 1},
}
"""Only reads, because a search neither writes nor lists objects."""
DOCUMENTS: Counts = {
    "get": lambda result, collection, keys: {"firestore_reads": len(set(keys))},
    "query": lambda result, *_: {"firestore_reads": max(1, len(result))},
    "commit": lambda result, writes: {
        "firestore_writes": sum(not isinstance(write, Delete) for write in writes),
        "firestore_deletes": sum(isinstance(write, Delete) for write in writes),
    },
}
_REQUEST: ContextVar[Counter[str] | None] = ContextVar("request", default=None)


@contextmanager
def request_usage(used: Counter[str] | None) -> Iterator[None]:
    """Add this thread's use within the block to `used`, by resource; None: add it to the meter at once."""
    before = _REQUEST.set(used)
    try:
        yield
    finally:
        _REQUEST.reset(before)


def note_work(kind: Literal["searches", "pictures"], count: int = 1) -> None:
    """Count searches, or pictures that were embedded for one, in this request's use."""
    if (used := _REQUEST.get()) is not None:
        used[kind] += count


class _Metered:
    def __init__(self, store: Any, meter: Meter, counts: Counts) -> None:
        self._store, self._meter, self._counts = store, meter, counts

    def __getattr__(self, name: str) -> Any:
        method, count = getattr(self._store, name), self._counts.get(name)
        return method if count is None else lambda *args, **options: self._call(method, count, *args, **options)

    def _call(
        self, method: Callable[..., Any], count: Callable[..., Mapping[str, int]], *args: Any, **rest: Any
    ) -> Any:
        result = method(*args, **rest)
        amounts, used = count(result, *args), _REQUEST.get()
        self._meter.use(amounts) if used is None else used.update(amounts)
        return result


def metered(objects: ObjectStore, documents: DocumentStore, meter: Meter) -> tuple[ObjectStore, DocumentStore]:
    """The same stores, metered."""
    return _Metered(objects, meter, OBJECTS), _Metered(documents, meter, DOCUMENTS)
