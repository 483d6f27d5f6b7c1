"""The one suite that every backend passes: `settings` is parametrised, the tests know nothing of backends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.engines import MILVUS, EngineShop, milvus_lite, pgvector, postgres

from visor.settings import Settings
from visor.storage import open_documents, open_objects, open_queue
from visor.storage.documents import DocumentStore
from visor.storage.engine import VectorEngine
from visor.storage.objects import ObjectStore
from visor.storage.queue import Queue


@pytest.fixture(params=["local", pytest.param("cloud", marks=pytest.mark.cloud)])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Settings of an empty index on each backend in turn."""
    settings = request.getfixturevalue(f"{request.param}_settings")
    assert isinstance(settings, Settings)
    return settings


@pytest.fixture
def objects(settings: Settings) -> Iterator[ObjectStore]:
    store = open_objects(settings)
    yield store
    store.close()


@pytest.fixture
def documents(settings: Settings) -> Iterator[DocumentStore]:
    store = open_documents(settings)
    yield store
    store.close()


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    store = open_queue(settings)
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL with pgvector, for the whole session. Its server is another user, whom pytest shuts out of its
    temporary folders when another session of it starts."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        with postgres(Path(folder) / "data") as url:
            yield url


@pytest.fixture(params=[MILVUS, "pgvector"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorEngine]:
    """Each vector engine in turn, empty."""
    opened = milvus_lite(tmp_path) if request.param == "milvus" else pgvector(request.getfixturevalue("postgres_url"))
    yield opened
    opened.close()


@pytest.fixture(params=["segments", MILVUS, "pgvector"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineShop]:
    """An empty index in segments and in each vector engine in turn."""
    (tmp_path / "index").mkdir()
    made = EngineShop(tmp_path / "index")
    if request.param == "milvus":
        made.engine = milvus_lite(tmp_path)
    elif request.param == "pgvector":
        made.engine = pgvector(request.getfixturevalue("postgres_url"))
    yield made
    if made.engine is not None:
        made.engine.close()


@pytest.fixture
def twin(tmp_path: Path) -> EngineShop:
    """An empty index in segments."""
    (tmp_path / "twin").mkdir()
    return EngineShop(tmp_path / "twin")
