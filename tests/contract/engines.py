"""Vector engines for tests: Milvus Lite in this process, and a real PostgreSQL with pgvector."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.index.index_fixtures import MODEL, Shop

from visor.confidence.fit_index import Calibrator
from visor.index.engine.searcher import EngineSearcher
from visor.index.merge.merge import MergeReport, merge
from visor.index.search.searcher import Searcher
from visor.storage.engine import VectorEngine

MILVUS = pytest.param("milvus", marks=pytest.mark.slow)
"""In `make check`, pgvector speaks for both engines."""


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server on a socket in a folder; gives its address."""
    import pgserver

    server = pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def milvus_lite(folder: Path) -> VectorEngine:
    from visor.storage.engines.milvus import MilvusEngine

    return MilvusEngine(str(folder / "milvus.db"), "", "visor_test_")


def pgvector(url: str) -> VectorEngine:
    """One whose tables no other test has."""
    from visor.storage.engines.pgvector import PgvectorEngine

    return PgvectorEngine(url, "", f"visor_{secrets.token_hex(4)}_")


class EngineShop(Shop):
    """A `Shop` whose merges and searches go to an engine; without one to segments."""

    engine: VectorEngine | None = None

    def merge(self, **options: Any) -> MergeReport:
        calibrate = Calibrator(self.objects)
        return merge(
            self.objects,
            self.documents,
            model=MODEL,
            clock=self.clock,
            calibrate=calibrate,
            **{"engine": self.engine, **options},
        )

    def searcher(self, **options: Any) -> Searcher:
        if self.engine is None:
            return super().searcher(**options)
        found = EngineSearcher(self.objects, self.documents, model=MODEL, freshness_s=0, engine=self.engine, **options)
        found.refresh()
        return found
