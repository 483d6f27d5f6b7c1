"""A client of the demo's server."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from visor.web.site import Server


@pytest.fixture(scope="module")
def client(demo_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo_server.address, timeout=120) as client:
        yield client
