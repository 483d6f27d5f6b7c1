"""What several tests of fetching start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.http.images_origin import PICTURE, Origin, status

from visor.http.client import Fetcher
from visor.settings import Settings


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as running:
        running.routes["/a.jpg"] = status(200, PICTURE, Content_Type="image/jpeg", ETag='"v1"')
        yield running


@pytest.fixture
def fetcher(origin: Origin) -> Iterator[Fetcher]:
    with Fetcher(Settings(allow_hosts=(f"127.0.0.1:{origin.port}",), fetch_timeout_s=5)) as running:
        yield running
