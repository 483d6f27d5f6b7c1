"""Active index: which model's index a search process answers from while it is rebuilt under another model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from visor.errors import StoreUnavailable
from visor.index.format.current_model import read_current
from visor.search.service import SearchService
from visor.storage.documents import DocumentStore

LOG = logging.getLogger("visor.serving")


class ActiveIndex:
    """Returns the search service of the current model. Thread-safe; a request keeps the service that it got.

    A process whose own model is not the current one serves the current one's index, with the model that is stored
    next to its own, and polls every `freshness_s` for a change. Then it reads the new index and switches. Once it
    serves its own model it stops polling, unless it follows: another model comes with another deployment.

    Args:
        own: The service of the process's own model.
        other: Makes the service of the model with that fingerprint; None if the model is not here.
        follows: Whether its own model may be replaced while it runs, as by `visor reindex` in another shell.
    """

    def __init__(
        self,
        own: SearchService,
        documents: DocumentStore,
        other: Callable[[str], SearchService | None],
        *,
        freshness_s: float,
        follows: bool = False,
    ) -> None:
        self._own, self._documents, self._other = own, documents, other
        self._freshness_s, self._follows = freshness_s, follows
        self._serving: SearchService | None = None
        self._missing = ""
        self._looked_at = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> SearchService:
        """The service to answer the next request with.

        Raises:
            StoreUnavailable: The current model is not known yet, and the store does not answer.
        """
        serving = self._serving
        if serving is self._own and not self._follows:
            return serving
        if serving is not None and time.monotonic() - self._looked_at < self._freshness_s:
            return serving
        if not self._lock.acquire(blocking=serving is None) and serving is not None:
            return serving
        try:
            return self._look()
        finally:
            self._lock.release()

    def _look(self) -> SearchService:
        serving, own = self._serving, self._own.embedder.fingerprint
        if serving is self._own and not self._follows:
            return serving
        try:
            state, _ = read_current(self._documents)
            current = own if state is None else state.current
            if serving is None or serving.embedder.fingerprint != current:
                found = self._own if current == own else self._other(current)
                if serving is not None and found is not None:
                    found.searcher.refresh(force=True)
                serving = found or serving or self._own
        except StoreUnavailable:
            if serving is None:
                raise
            self._looked_at = time.monotonic()
            return serving
        self._looked_at = time.monotonic()
        missing = "" if serving.embedder.fingerprint == current else current
        if missing and missing != self._missing:
            LOG.error(
                "The index of model %s is searched, and that model is not here; answers come from the index of %s, "
                "which is not complete",
                missing,
                serving.embedder.fingerprint,
            )
        self._serving, self._missing = serving, missing
        return serving
