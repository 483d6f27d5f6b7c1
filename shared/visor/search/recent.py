"""Recent queries: what was seen in the pictures of the last minutes, so that none is processed twice."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from cachetools import TTLCache

KEPT_S = 600.0
"""How long a query is remembered."""
BYTES_MAX = 16_000_000


class Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


Q = TypeVar("Q", bound=Sized)


class RecentQueries(Generic[Q]):
    """Queries by the handle of their picture and the part that counts. In memory only, for `KEPT_S`. Thread-safe."""

    def __init__(self, *, bytes_max: int = BYTES_MAX, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: TTLCache[Hashable, Q] = TTLCache(bytes_max, KEPT_S, clock, lambda query: query.size_bytes)
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._forgets = False

    def handle(self, picture: bytes) -> str:
        """32 hex digits that name the picture. Only who has seen an answer to it knows them; no other process does."""
        return hashlib.blake2b(picture, key=self._secret, digest_size=16).hexdigest()

    def get(self, key: Hashable) -> Q | None:
        with self._lock:
            return self._kept.get(key)

    def put(self, key: Hashable, query: Q) -> None:
        with self._lock:
            if query.size_bytes <= self._kept.maxsize:
                self._kept[key] = query
            self._forget_later()

    def _forget_later(self) -> None:
        """The cache drops old queries when it is used; this drops them when nobody uses it any more."""
        if self._kept and not self._forgets:
            timer = threading.Timer(KEPT_S, self._forget)
            timer.daemon = self._forgets = True
            timer.start()

    def _forget(self) -> None:
        with self._lock:
            self._forgets = False
            self._kept.expire()
            self._forget_later()
