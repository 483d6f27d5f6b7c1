"""A headless Chromium and the built page."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import expect, sync_playwright
from tests.browser.page_driver import CHOOSE_THE_SERVER, LISTEN

from visor.app import App
from visor.demo.catalogue import DemoCatalogue, Product
from visor.demo.shop import DemoShop
from visor.ingest.worker import Worker
from visor.models.embedder import Embedder
from visor.schema.push import PushItem
from visor.settings import Settings
from visor.web.site import Server

FRONTEND = Path(__file__).parents[2] / "frontend"
DIST = FRONTEND / "dist"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first takes four tenths less of the processor."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
PATIENCE_MS = 20_000
"""How long a page may take, until what is waited for is missing."""
NewPage = Callable[..., Any]


def missing(what: str) -> None:
    """Skip with one line, or fail where the run says that a browser is a must."""
    if os.environ.get("TEST_REQUIRE_BROWSER") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running browser."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing("No Chromium on this machine: install chromium-headless-shell or chromium to run the browser tests")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def built_page() -> Path:
    """The folder of the built page, built anew if a source is newer."""
    if not (FRONTEND / "node_modules").is_dir():
        missing("The front end's packages are not installed: run npm ci in frontend/ (make setup does)")
    sources = [p for folder in ("src", "public") for p in (FRONTEND / folder).rglob("*") if p.is_file()]
    newest = max(p.stat().st_mtime for p in [*sources, FRONTEND / "index.html", FRONTEND / "vite.config.ts"])
    index = DIST / "index.html"
    if not index.is_file() or index.stat().st_mtime < newest:
        built = subprocess.run(["npm", "run", "build"], cwd=FRONTEND, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stdout + built.stderr
    return DIST


@pytest.fixture(scope="session")
def address(built_page: Path, demo_server: Server) -> str:
    """Where the page and the endpoint are."""
    return demo_server.address


COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="session")
def shelf(
    built_page: Path, embedder: Embedder, demo_catalogue: DemoCatalogue, demo_shop: DemoShop, tmp_path_factory: Any
) -> Iterator[str]:
    """Where some of the shop's pictures are searched that were pushed with all that one can filter and order by: three
    colours in turn, weights from 1, every second one fragile, made a month apart, the first four of one product; of the
    first ten one knows who makes them."""
    home = tmp_path_factory.mktemp("shelf")
    (home / "visor.toml").write_text(
        '[attributes]\ncolour = "keyword"\nweight = "number"\nfragile = "flag"\nmade = "date"\nmaker = "keyword"\n'
    )
    settings = Settings(home=home, config=home / "visor.toml", allow_hosts=(demo_shop.host,), freshness_s=0.0)
    with App(settings, embedder=embedder) as app:
        items = [
            PushItem(
                key=str(product.id),
                title=product.title,
                description=product.description,
                image_url=f"{demo_shop.url}/pictures/{product.id}",
                page_url=f"{demo_shop.url}/products/{product.id}",
                collection=("Garden", "Kitchen")[number % 2],
                price=10.0 + number,
                currency="EUR",
                date=f"20{22 + number // 12}-{1 + number % 12:02}-01",
                group="set" if number < 4 else None,
                extra={
                    "colour": COLOURS[number % 3],
                    "weight": f"{1 + number} kg",
                    "fragile": "yes" if number % 2 else "no",
                    "made": f"20{20 + number // 12}-{1 + number % 12:02}-15",
                    **({"maker": ("Acme", "Bolt")[number % 2]} if number < 10 else {}),
                },
            )
            for number, product in enumerate(demo_catalogue.products[:40])
        ]
        app.pusher.push_lines(msgspec.json.Encoder().encode_lines(items))
        Worker(app.stores.queue, app.batch_embedder).drain()
        server = Server(app.site({"title": "Shelf"})).start()
        yield server.address
        server.stop()


@pytest.fixture
def new_page(chromium: Any, address: str) -> Iterator[NewPage]:
    """Opens the page in a browser profile of its own; at the end nothing may have gone wrong unseen on it."""
    contexts: list[Any] = []
    mistakes: list[str] = []

    def open_page(
        at: str | None = None, *, expect_failures: bool = False, is_visitor_new: bool = False, **options: Any
    ) -> Any:
        """`is_visitor_new`: nothing was chosen before; else pictures are sent, and the server looks at them."""
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 860}} | options))
        contexts.append(context)
        context.add_init_script(LISTEN)
        if not is_visitor_new:
            context.add_init_script(CHOOSE_THE_SERVER)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: mistakes.append(f"exception: {error}"))

        def hear(message: Any) -> None:
            expected = expect_failures and "Failed to load resource" in message.text
            if message.type == "error" and not expected:
                mistakes.append(f"console: {message.text}")

        page.on("console", hear)
        page.goto(at or address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert mistakes == []


@pytest.fixture(scope="session")
def product(demo_catalogue: DemoCatalogue) -> Product:
    """A product of the indexed part of the demo shop, large enough to draw on."""
    return max(demo_catalogue.products, key=lambda one: min(one.width, one.height))


@pytest.fixture(scope="session")
def picture(demo_catalogue: DemoCatalogue, product: Product) -> Path:
    """That product's picture."""
    return demo_catalogue.picture(product)
