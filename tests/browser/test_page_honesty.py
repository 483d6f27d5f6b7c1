"""What the page says about its own answers, against the real endpoint: why, what is not a match, how well it finds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import expect
from tests.browser.page_driver import NOT_HERE, changed_answer, drop_picture

from visor.app import App
from visor.demo.catalogue import DemoCatalogue
from visor.free_tier.quota import Meter
from visor.models.embedder import Embedder
from visor.storage.local.documents import SqliteDocuments
from visor.web.access import KEY_FILE
from visor.web.site import Server

WARM_PIXELS = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, index) => index % 4 === 3 && value > 128).length;
}"""


@pytest.fixture
def other_picture(demo_catalogue: DemoCatalogue, picture: Path) -> Path:
    """A picture that no other test searches with: what is said about it stays."""
    return next(found for one in demo_catalogue.products if (found := demo_catalogue.picture(one)) != picture)


def test_why_it_matched_is_drawn_over_both_pictures(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    page.get_by_role("button", name="More actions for").first.click()
    page.get_by_role("button", name="Why it matched").click()
    page.get_by_text("The warmer a part, the more it adds").wait_for()
    for heated in page.locator(".heated").all():
        page.wait_for_function(
            f"(canvas) => ({WARM_PIXELS})(canvas) > 0", arg=heated.locator("canvas").element_handle()
        )
        map_box, picture_box = (heated.locator(tag).bounding_box() for tag in ("canvas", "img"))
        assert map_box == picture_box
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("More actions for ")


def test_what_is_no_match_is_hidden_from_the_next_search(new_page: Any, other_picture: Path) -> None:
    page = new_page()
    page.clock.install()
    drop_picture(page, other_picture)
    last = page.locator(".card[data-verdict]").last
    name = last.get_attribute("aria-label")
    with page.expect_response("**/v1/feedback") as kept:
        last.get_by_role("button", name="is not a match").click()
        page.clock.fast_forward(10_000)
    assert kept.value.json() == {"kept": True}
    page.reload()
    drop_picture(page, other_picture)
    expect(page.get_by_role("article", name=name, exact=True)).to_have_count(0)
    stranger = new_page()
    drop_picture(stranger, other_picture)
    expect(stranger.get_by_role("article", name=name, exact=True)).to_have_count(1)


def test_the_owner_s_word_counts_for_all(
    new_page: Any, address: str, demo_app: App, demo_catalogue: DemoCatalogue
) -> None:
    picture = demo_catalogue.picture(demo_catalogue.products[-1])
    key = (demo_app.settings.home / KEY_FILE).read_text()
    page = new_page(f"{address}/?owner#key={key}")
    page.wait_for_selector("main")
    assert key not in page.url
    page.clock.install()
    drop_picture(page, picture)
    last = page.locator(".card[data-verdict]").last
    name = last.get_attribute("aria-label")
    with page.expect_response("**/v1/feedback") as kept:
        last.get_by_role("button", name="is not a match").click()
        page.clock.fast_forward(10_000)
    assert kept.value.request.headers["x-visor-key"] == key
    visitor = new_page()
    drop_picture(visitor, picture)
    expect(visitor.get_by_role("article", name=name, exact=True)).to_have_count(0)


def test_the_owner_s_link_counts_where_the_page_is_open_already(new_page: Any, address: str) -> None:
    page = new_page(f"{address}/?owner")
    page.wait_for_selector(".example")
    page.goto(f"{address}/?owner#key=secret")
    page.wait_for_function("() => sessionStorage.getItem('visor-key') === 'secret' && !location.hash")
    page.wait_for_selector(".example")


def test_a_hidden_match_stays_hidden_on_the_way_back(new_page: Any, picture: Path) -> None:
    page = new_page()
    page.route("**/v1/feedback", lambda route: route.fulfill(json={"kept": True}))
    drop_picture(page, picture)
    cards = page.locator(".card[data-verdict]")
    name = cards.last.get_attribute("aria-label")
    cards.last.get_by_role("button", name="is not a match").click()
    cards.first.get_by_role("button", name="More like").click()
    page.locator(".query-name").wait_for()
    page.go_back()
    page.get_by_alt_text(f"Searched picture: {picture.name}").wait_for()
    expect(page.get_by_role("article", name=name, exact=True)).to_have_count(0)
    expect(page.locator("main ~ [role=status].visually-hidden")).to_have_text(re.compile("^11 "))


@pytest.fixture
def audited_server(demo_app: App, embedder: Embedder) -> Iterator[Server]:
    """The same index, served by a process that checks each of its answers."""
    settings = msgspec.structs.replace(demo_app.settings, audit_rate=1.0)
    with App(settings, embedder=embedder) as app:
        server = Server(app.site({})).start()
        yield server
        server.stop()


def test_the_about_panel_tells_the_live_recall_and_what_was_used(
    new_page: Any, built_page: Path, audited_server: Server, picture: Path
) -> None:
    page = new_page(f"{audited_server.address}/?owner")
    page.get_by_role("button", name="About").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("none has been so far")).to_be_visible()
    expect(dialog.get_by_text("No searches since this server started.")).to_be_visible()
    page.keyboard.press("Escape")
    drop_picture(page, picture)
    # The check runs when the answer is out.
    page.wait_for_function("async () => 'audit' in await (await fetch('./v1/stats')).json()")
    page.get_by_role("button", name="About").click()
    dialog.get_by_text(re.compile(r"^[\d.]+% of the nearest twelve were found, in 1 fast answer")).wait_for()
    expect(dialog.get_by_role("row", name=re.compile(r"^Embed .*ms"))).to_be_visible()
    expect(dialog.get_by_text(re.compile(r"^[\d.]+ (bytes?|kB|MB) of 1 GB$"))).to_be_visible()


def test_the_about_panel_tells_what_the_month_has_cost(
    new_page: Any, built_page: Path, demo_app: App, embedder: Embedder, tmp_path: Path
) -> None:
    settings = msgspec.structs.replace(demo_app.settings, budget=5.0, budget_dollar=0.9)
    with App(settings, embedder=embedder, meter=Meter(SqliteDocuments(tmp_path / "meters.sqlite"), settings)) as app:
        free = next(one.free for one in app.meter.readings() if one.resource == "vcpu_s")
        app.meter.use({"vcpu_s": free + 50_000})
        spent = app.meter.spent()
        assert 0 < spent < 5
        server = Server(app.site({})).start()
        try:
            page = new_page(f"{server.address}/?owner")
            page.get_by_role("button", name="About").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_text("until the month has cost 5.00").wait_for()
            row = dialog.get_by_role("listitem").filter(has_text="Spent past what is free")
            expect(row).to_contain_text(f"{spent:.2f} of 5.00")
            dialog.get_by_role("button", name="Show what is for the owner").click()
            expect(dialog.get_by_text("Spent past what is free"), "it concerns the owner alone").to_have_count(0)
        finally:
            server.stop()


def test_a_picture_from_elsewhere_is_called_that(new_page: Any, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    tiles = np.random.default_rng(4).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(tiles).resize((300, 300), Image.Resampling.NEAREST).save(tmp_path / "tiles.png")
    page = new_page()
    page.set_input_files("[data-testid=file]", tmp_path / "tiles.png")
    page.get_by_role("heading", name=NOT_HERE).wait_for()
    expect(page.locator(".card[data-verdict=similar]")).to_have_count(12)
    page.get_by_text("Answered in").click()
    chance = page.locator(".timing .facts > div", has_text="Chance that the catalogue has it").locator("dd")
    expect(chance).to_have_text(re.compile(r"^(\d+|<\s1)%$"))


def test_each_picture_s_author_and_a_video_s_second_are_told(new_page: Any, picture: Path) -> None:
    page = new_page()

    def change(answer: dict[str, Any]) -> None:
        free, frame, sale = (match["item"] for match in answer["matches"][:3])
        links = {"file_page": "https://commons.example/file", "licence_url": "https://licence.example/by-sa"}
        free.update(author="Kaldari", licence="CC BY-SA 4.0", extra=links)
        frame.update(extra={"seconds": "3683"}, page_url="https://video.example/v.mp4#t=3683")
        sale.update(price=20, currency="EUR", extra={"regular_price": "40 EUR", "availability": "out of stock"})

    changed_answer(page, "/v1/search", change)
    drop_picture(page, picture)
    free, frame, sale = (page.locator(".card[data-verdict]").nth(at) for at in range(3))
    expect(free.get_by_role("link", name="Kaldari")).to_have_attribute("href", "https://commons.example/file")
    expect(free.get_by_role("link", name="CC BY-SA 4.0")).to_have_attribute("href", "https://licence.example/by-sa")
    expect(frame.get_by_text("GPL-2.0-or-later")).to_be_visible()
    expect(frame.get_by_text("1:01:23")).to_be_visible()
    expect(frame.get_by_role("heading").get_by_role("link")).to_have_attribute("href", re.compile("#t=3683$"))
    expect(sale.get_by_text("Out of stock")).to_be_visible()
    expect(sale.locator("s")).to_have_text(re.compile("€40.00$"))
    page.get_by_role("combobox", name="Language").select_option("de")
    expect(sale.get_by_text("Nicht vorrätig")).to_be_visible()
    expect(sale.locator("s")).to_have_text(re.compile(r"40,00\s€$"))
