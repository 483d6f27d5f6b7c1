"""Fixtures that all tests share."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from visor.app import App
from visor.demo.catalogue import DemoCatalogue
from visor.demo.pictures import ensure_demo_pictures
from visor.demo.shop import DemoShop, demo_source
from visor.ingest import embed
from visor.ingest.worker import Worker
from visor.models.build.builder import ensure_model
from visor.models.embedder import Embedder, load_embedder
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.web.site import Server

DEMO_PRODUCTS = 60

FOLDERS = ("contract", "build", "cloud", "browser")
"""Folders of this one whose tests carry its name as their mark; others mark themselves `fault`, `build` or `slow`."""

LONGEST = (
    "web/test_web_openapi.py",
    "deploy/test_deploy_cloudbuild.py",
    "cloud/test_damage.py",
    "functions/test_abuse.py",
    "models/test_models_build.py",
    "terraform/test_terraform_applies.py",
    "functions/test_functions.py",
    "contract/test_engine_contract.py",
    "faults/test_sources_killed.py",
    "imaging/test_images_decode.py",
    "browser/test_page_asking.py",
    "cloud/test_faulty_network.py",
    "browser/test_page_access.py",
    "browser/test_page_device.py",
    "faults/test_delivery_table.py",
    "cloud/test_delivery.py",
    "browser/test_page.py",
    "check/test_damage.py",
    "benchmarks/test_bench_search.py",
    "web/test_web_strangers.py",
    "cloud/test_models.py",
    "browser/test_page_export.py",
    "link_check/test_pipeline_links.py",
    "faults/test_pipeline_killed.py",
    "browser/test_page_states.py",
    "ingest/test_pipeline_embed.py",
    "faults/test_killed_anywhere.py",
)
"""Files that take three quarters of a minute or more beside others, with their folders. They begin first: else one
worker is still at them when the others have done all. The first builds the model, which the next two do not need; files
that mostly wait (cloud/test_damage.py, cloud/test_faulty_network.py) begin beside others that compute."""

MEMORY, MEMORY_FREE_MIN = Path("/dev/shm"), 6 << 30

pytest_plugins = ["tests.emulated", "tests.forked_tensorflow"]


def pytest_configure() -> None:
    """Temporary files lie in memory where that has room: the stores wait for the disk at each commit."""
    if MEMORY.is_dir() and "TMPDIR" not in os.environ and shutil.disk_usage(MEMORY).free > MEMORY_FREE_MIN:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """With `-n auto`, three workers on two cores: many tests wait for processes that they started."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, and begin with the longest files."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
    places = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(f"{item.path.parent.name}/{item.path.name}", len(places)))


@pytest.fixture
def local_settings(tmp_path: Path) -> Settings:
    """Settings of the embedded setting in a folder of its own."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def local_stores(local_settings: Settings) -> Iterator[Stores]:
    """Embedded stores in a folder of their own."""
    with open_stores(local_settings) as stores:
        yield stores


@pytest.fixture(scope="module")
def looked_at_once() -> Iterator[None]:
    """For tests that embed the same images again and again: what embed computes of their pixels, but for the model's
    part, is kept."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("content_of", "perceptual_hash", "colour_signature"):
            patch.setattr(embed, name, kept(getattr(embed, name)))
        yield


def kept(look: Callable[..., Any]) -> Callable[..., Any]:
    """A function of an image's pixels, and of a part of them, that is called once for each image and part."""
    known: dict[tuple[Any, ...], Any] = {}

    def looked(pixels: Image.Image, *part: Any) -> Any:
        key = pixels.size, hashlib.blake2b(pixels.tobytes()).digest(), part
        if key not in known:
            known[key] = look(pixels, *part)
        return known[key]

    return looked


@pytest.fixture(scope="session")
def built_settings() -> Settings:
    """Settings whose home holds the default model: built once, kept where the demo keeps it."""
    settings = Settings.read()
    ensure_model(settings, say=print)
    return settings


@pytest.fixture(scope="session")
def embedder(built_settings: Settings) -> Embedder:
    """The default model."""
    return load_embedder(built_settings)


@pytest.fixture(scope="session")
def demo_catalogue(built_settings: Settings) -> DemoCatalogue:
    """Some of the demo shop's products, from every collection."""
    catalogue = ensure_demo_pictures(built_settings.home, print)
    step = max(1, len(catalogue.products) // DEMO_PRODUCTS)
    return msgspec.structs.replace(catalogue, products=catalogue.products[::step])


@pytest.fixture(scope="session")
def demo_shop(demo_catalogue: DemoCatalogue) -> Iterator[DemoShop]:
    """The demo shop with those products, on a free port."""
    with DemoShop(demo_catalogue) as shop:
        yield shop


@pytest.fixture(scope="session")
def demo_app(embedder: Embedder, demo_shop: DemoShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The demo shop, crawled and embedded in the embedded setting."""
    settings = Settings(home=tmp_path_factory.mktemp("demo"), allow_hosts=(demo_shop.host,), freshness_s=0.0)
    with App(settings, embedder=embedder) as app:
        app.crawler.crawl(app.open_source("demo-shop", demo_source(demo_shop.url)))
        Worker(app.stores.queue, app.batch_embedder).drain()
        yield app


@pytest.fixture(scope="session")
def demo_server(demo_app: App) -> Iterator[Server]:
    """The page and the endpoint over the crawled demo shop; `demo_server.address` is where."""
    server = Server(demo_app.site({"title": "Visor test", "notes": ["Prices are made up."]})).start()
    yield server
    server.stop()
