"""The one suite that every backend passes: `settings` is parametrised, the tests know nothing of backends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from visor.settings import Settings
from visor.storage import open_documents, open_objects, open_queue
from visor.storage.documents import DocumentStore
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
