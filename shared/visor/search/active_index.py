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
    serves its own model it stops polling: another model comes with another deployment.

    Args:
        own: The service of the process's own model.
        other: Makes the service of the model with that fingerprint; None if the model is not here.
    """

    def __init__(
        self,
        own: SearchService,
        documents: DocumentStore,
        other: Callable[[str], SearchService | None],
        *,
        freshness_s: float,
    ) -> None:
        self._own, self._documents, self._other = own, documents, other
        self._freshness_s = freshness_s
        self._serving: SearchService | None = None
        self._looked_at = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> SearchService:
        """The service to answer the next request with.

        Raises:
            StoreUnavailable: The current model is not known yet, and the store does not answer.
        """
        serving = self._serving
        if serving is self._own:
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
        serving = self._serving
        if serving is self._own:
            return serving
        try:
            state, _ = read_current(self._documents)
            if serving is not None and state is not None and state.current == self._own.embedder.fingerprint:
                self._own.searcher.refresh(force=True)
        except StoreUnavailable:
            if serving is None:
                raise
            self._looked_at = time.monotonic()
            return serving
        self._looked_at = time.monotonic()
        if state is None or state.current == self._own.embedder.fingerprint:
            serving = self._own
        elif serving is None:
            serving = self._other(state.current)
            if serving is None:
                serving = self._own
                LOG.error(
                    "The index of model %s is searched, and that model is not here; answers come from the index of %s, "
                    "which is not complete yet",
                    state.current,
                    self._own.embedder.fingerprint,
                )
        self._serving = serving
        return serving
