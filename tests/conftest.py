"""Fixtures that all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from visor.settings import Settings
from visor.stores import Stores, open_stores


@pytest.fixture
def local_settings(tmp_path: Path) -> Settings:
    """Settings of the embedded setting in a folder of its own."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def local_stores(local_settings: Settings) -> Iterator[Stores]:
    """Embedded stores in a folder of their own."""
    with open_stores(local_settings) as stores:
        yield stores
