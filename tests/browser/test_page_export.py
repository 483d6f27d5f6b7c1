"""The page over an export: it searches by itself, also without a network, and says what is wrong with its files."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.page_driver import PHONE, drop_picture
from tests.browser.test_page_access import violations

import visor
from visor.demo.catalogue import DemoCatalogue
from visor.settings import Settings

GOLDEN = Path(__file__).parents[1] / "golden" / "private"
CARD = ".card[data-verdict]"


class Handler(SimpleHTTPRequestHandler):
    """As `python -m http.server` serves a folder, without a line for each request."""

    def log_message(self, *_: Any) -> None:
        pass


Site = Callable[..., tuple[str, Path]]


@pytest.fixture
def site(built_page: Path, tmp_path: Path) -> Iterator[Site]:
    """Gives the address and the folder of a committed export with the built page."""
    servers: list[ThreadingHTTPServer] = []

    def serve(name: str = "projected", **config: str) -> tuple[str, Path]:
        folder = tmp_path / f"site{len(servers)}"
        shutil.copytree(built_page, folder)
        shutil.copytree(GOLDEN / name / "data", folder / "data")
        (folder / "config.json").write_text(json.dumps({"export": "./data/", "title": "Alone", **config}))
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", folder

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def file_of(folder: Path, kind: str) -> Path:
    """The first part's file of a kind."""
    part = json.loads((folder / "data" / "visor.json").read_bytes())["parts"][0]
    return folder / "data" / str(part[kind]["name"] if kind != "pages" else part[kind][0])


def cards(page: Any) -> list[str]:
    page.wait_for_selector(CARD)
    return [card.get_attribute("aria-label") for card in page.query_selector_all(CARD)]


def kept(page: Any) -> int:
    """Files of the catalogue that the browser keeps."""
    return int(page.evaluate("async () => (await (await caches.open('visor-export')).keys()).length"))


def wait_until_kept(page: Any, files: int) -> None:
    for _ in range(100):
        if kept(page) >= files and page.evaluate("async () => (await caches.keys()).includes('visor-shell')"):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{kept(page)} files are kept, not {files}")


def test_an_export_is_searched_filtered_and_paged_without_a_server(new_page: Any, site: Site) -> None:
    address, _ = site()
    page = new_page("about:blank", expect_failures=True)
    outside: list[str] = []
    page.on("request", lambda asked: outside.append(asked.url) if not asked.url.startswith(address) else None)
    page.route("https://shop.example/**", lambda route: route.abort())
    page.goto(address)
    page.wait_for_selector(".example")
    expect(page.get_by_role("combobox", name="Search")).to_have_count(0)
    page.query_selector_all(".example")[1].click()
    assert len(cards(page)) == 12
    page.get_by_label("Hats", exact=False).first.check()
    page.wait_for_function("() => document.querySelectorAll('.results[aria-busy=false]').length === 1")
    page.get_by_role("button", name="More", exact=False).last.click()
    # Pictures stand where the catalogue says; nothing else is asked of anybody.
    assert {url.split("/")[2] for url in outside} <= {"shop.example"}


@pytest.mark.parametrize(("colours", "device"), [("light", {}), ("dark", PHONE)], ids=["light", "dark phone"])
def test_axe_finds_nothing_in_an_export(new_page: Any, site: Site, colours: str, device: dict[str, Any]) -> None:
    address, folder = site()
    page = new_page(address, expect_failures=True, color_scheme=colours, reduced_motion="reduce", **device)
    page.wait_for_selector(".example")
    assert violations(page) == []
    page.query_selector_all(".example")[1].click()
    assert cards(page)
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert violations(page) == []
    page.get_by_role("button", name="About").click()
    assert violations(page) == []
    file_of(folder, "codes_high").unlink()
    damaged = new_page(address, expect_failures=True, color_scheme=colours, reduced_motion="reduce", **device)
    damaged.get_by_role("heading", name="A file of this catalogue is missing").wait_for()
    assert violations(damaged) == []


def test_a_second_visit_needs_no_network(new_page: Any, site: Site) -> None:
    address, folder = site("small")
    page = new_page(address, expect_failures=True)
    page.wait_for_selector(".example")
    wait_until_kept(page, len(list((folder / "data").glob("*.vsr"))) + 1)
    page.wait_for_timeout(500)
    page.context.set_offline(True)
    page.goto(address)
    page.wait_for_selector(".example")
    page.query_selector_all(".example")[1].click()
    assert cards(page)


def test_a_newer_export_is_taken_as_a_whole_at_the_next_visit(new_page: Any, site: Site) -> None:
    address, folder = site("small")
    page = new_page(address, expect_failures=True)
    page.wait_for_selector(".example")
    before = {path.name for path in (folder / "data").glob("*.vsr")}
    wait_until_kept(page, len(before) + 1)
    shutil.rmtree(folder / "data")
    shutil.copytree(GOLDEN / "full" / "data", folder / "data")
    page.goto(address)
    page.wait_for_selector(".example")
    page.get_by_text("298", exact=False).first.wait_for()
    for _ in range(100):
        names = page.evaluate("async () => (await (await caches.open('visor-export')).keys()).map((one) => one.url)")
        if not any(url.rsplit("/", 1)[1] in before for url in names):
            break
        page.wait_for_timeout(100)
    left = {url.rsplit("/", 1)[1] for url in names} & before
    assert left <= {path.name for path in (folder / "data").glob("*.vsr")}


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ("flip", "A file of this catalogue is damaged"),
        ("cut", "A file of this catalogue is damaged"),
        ("delete", "A file of this catalogue is missing"),
        ("newer", "This page is older than its catalogue"),
        ("no manifest", "A file of this catalogue is missing"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(new_page: Any, site: Site, change: str, title: str) -> None:
    address, folder = site()
    codes, manifest = file_of(folder, "codes_high"), folder / "data" / "visor.json"
    data = codes.read_bytes()
    if change == "flip":
        codes.write_bytes(data[:99] + bytes([data[99] ^ 4]) + data[100:])
    elif change == "cut":
        codes.write_bytes(data[: len(data) // 2])
    elif change == "delete":
        codes.unlink()
    elif change == "newer":
        manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"format": 2}))
    else:
        manifest.unlink()
    page = new_page(address, expect_failures=True)
    page.get_by_role("heading", name=title).wait_for()


def test_where_there_is_a_server_it_answers_for_damaged_files(new_page: Any, site: Site, shelf: str) -> None:
    where, folder = site(endpoint="")
    file_of(folder, "columns").unlink()
    page = new_page("about:blank", expect_failures=True)

    def hand_on(route: Any) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace(where, shelf)))

    page.route(f"{where}/v1/**", hand_on)
    page.goto(where)
    page.get_by_text("so the server answers").wait_for()
    page.wait_for_selector(".example img")


def test_without_storage_the_catalogue_is_searched_and_it_is_said(new_page: Any, site: Site) -> None:
    address, _ = site()
    page = new_page("about:blank", expect_failures=True)
    # As a full disk answers: workers have no such hook, so the page's quota is taken away.
    session = page.context.new_cdp_session(page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": address, "quotaSize": 1})
    page.goto(address)
    page.wait_for_selector(".example")
    page.get_by_text("This browser keeps no files for this site").wait_for()


def test_a_folder_of_ones_own_pictures_is_searched_by_a_picture_and_nothing_leaves(
    new_page: Any, site: Site, built_settings: Settings, demo_catalogue: DemoCatalogue, tmp_path: Path
) -> None:
    address, served = site()
    folder, home = tmp_path / "Pictures", tmp_path / "home"
    folder.mkdir()
    for product in demo_catalogue.products[:12]:
        shutil.copy(demo_catalogue.picture(product), folder)
    home.mkdir()
    shutil.rmtree(served / "data")
    (home / "models").symlink_to(built_settings.home / "models")
    with visor.open(home) as index:
        index.add_folder(folder)
        index.export(served, title="Mine")
    page = new_page("about:blank", expect_failures=True)
    asked: list[str] = []
    page.context.on("request", lambda one: asked.append(f"{one.method} {one.url}"))
    page.goto(address)
    picture = demo_catalogue.picture(demo_catalogue.products[3])
    page.wait_for_selector(".example img")
    drop_picture(page, picture)
    first = page.locator(CARD).first
    expect(first).to_have_attribute("data-verdict", "exact")
    assert first.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0
    wait_until_kept(page, len(list((served / "data").glob("*.vsr"))))
    page.context.set_offline(True)
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(".example img")
    drop_picture(page, picture)
    outside = [one for one in asked if not one.startswith((f"GET {address}/", f"GET blob:{address}/", "GET data:"))]
    assert outside == []
