"""The demo on the emulators answers as the embedded demo does, and its page is served from its bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.cloud.support.running import search

from visor.app import App
from visor.cli.index import crawl_and_embed
from visor.demo.catalogue import DemoCatalogue
from visor.demo.shop import DemoShop, demo_source
from visor.models.embedder import Embedder
from visor.settings import Settings
from visor.web.site import PAGE, Server
from visor_emulators import demo as emulated
from visor_emulators.emulators import Emulators

QUERIES = 6


@pytest.fixture(scope="module")
def page() -> Path:
    if not PAGE.is_dir():
        pytest.skip("The page is not built; run make page")
    return PAGE


@pytest.fixture(scope="module")
def settings(demo_shop: DemoShop, built_settings: Settings) -> Settings:
    return msgspec.structs.replace(
        built_settings,
        index="demo",
        allow_hosts=(demo_shop.host,),
        searches_per_minute=6000.0,
        searches_burst=1000,
    )


@pytest.fixture(scope="module")
def embedded(
    settings: Settings, demo_shop: DemoShop, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of the embedded demo, made as `visor demo` makes it."""
    settings = msgspec.structs.replace(settings, home=tmp_path_factory.mktemp("embedded"))
    with App(settings, embedder=embedder) as app:
        crawl_and_embed(app, app.open_source("demo-shop", demo_source(demo_shop.url)))
        server = Server(app.site({})).start()
        yield server.address
        server.stop()


@pytest.fixture(scope="module")
def demo(emulators: Emulators, settings: Settings, demo_shop: DemoShop, page: Path) -> Iterator[tuple[str, str]]:
    """Addresses of the page and of the endpoint, on emulators of the demo's own."""
    source = ("demo-shop", demo_source(demo_shop.url))
    with emulated.emulated_demo(settings, {"title": "Visor demo", "notes": []}, source) as (address, endpoint, _):
        yield address, endpoint


def essence(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(match["item"]["id"], match["verdict"]) for match in answer["matches"]]


def test_both_demos_answer_the_same(demo: tuple[str, str], embedded: str, demo_catalogue: DemoCatalogue) -> None:
    step = len(demo_catalogue.products) // QUERIES
    for product in demo_catalogue.products[::step]:
        picture = demo_catalogue.picture(product).read_bytes()
        answers = []
        for endpoint in (demo[1], embedded):
            answer = httpx.post(
                f"{endpoint}/v1/search", content=picture, headers={"Content-Type": "image/png"}, timeout=60
            )
            answers.append(answer.raise_for_status().json())
        cloud, local = answers
        assert len(cloud["matches"]) >= 12
        assert cloud["index"]["images"] == local["index"]["images"] == len(demo_catalogue.products)
        assert cloud["index"]["generation"] > 0, "both are merged"
        assert local["index"]["generation"] > 0
        assert essence(cloud) == essence(local)
        for one, other in zip(cloud["matches"], local["matches"], strict=True):
            assert one["similarity"] == pytest.approx(other["similarity"], abs=1e-4)
            assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-3)
        assert search(demo[1], vector=cloud["query"]["vector"])["matches"][0]["item"] == local["matches"][0]["item"]


def test_the_page_is_served_from_its_bucket(demo: tuple[str, str], page: Path) -> None:
    address, endpoint = demo
    folder = address.rpartition("/")[0]
    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json"}
    served = sorted(path for path in page.rglob("*") if path.suffix in kinds)
    assert {path.suffix for path in served} >= {".html", ".js", ".css"}
    for path in served:
        answer = httpx.get(f"{folder}/{path.relative_to(page).as_posix()}", timeout=30)
        assert answer.status_code == 200
        assert answer.content == path.read_bytes() or path.name == "config.json"
        assert answer.headers["Content-Type"].partition(";")[0] == kinds[path.suffix], path.name
    config = httpx.get(f"{folder}/config.json", timeout=30)
    assert config.headers["Content-Type"].startswith("application/json")
    assert config.json()["endpoint"] == endpoint
