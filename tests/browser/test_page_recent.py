"""Recent searches: kept in this browser alone, shown on the start page, and deleted there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import expect
from tests.browser.page_driver import (
    DEVICES,
    ask,
    drop,
    drop_picture,
    search_by,
    titles,
)

from visor.demo.catalogue import DemoCatalogue, Product


@DEVICES
def test_recent_searches_are_kept_here_and_deleted(
    new_page: Any, picture: Path, product: Product, device: dict[str, Any]
) -> None:
    page = new_page(**device)
    drop_picture(page, picture)
    found = titles(page)
    page.get_by_role("button", name="start over").click()
    ask(page, product.title)
    page.get_by_role("button", name="start over").click()
    recent = page.get_by_role("region", name="Recent searches")
    expect(recent.get_by_role("link")).to_have_text([product.title, picture.name], use_inner_text=True)
    page.reload()
    recent.get_by_role("link", name=picture.name).click()
    page.wait_for_selector(".card[data-verdict]")
    assert titles(page) == found
    page.get_by_role("button", name="start over").click()
    page.get_by_role("button", name=f"Delete {product.title}", exact=True).click()
    expect(recent.get_by_role("link")).to_have_text([picture.name], use_inner_text=True)
    page.get_by_role("button", name="Delete all").click()
    expect(recent).to_have_count(0)
    page.reload()
    page.wait_for_selector(".example")
    assert page.evaluate("localStorage.getItem('visor-recent')") is None


def test_what_another_tab_deletes_does_not_come_back(new_page: Any, picture: Path, product: Product) -> None:
    page = new_page()
    drop_picture(page, picture)
    page.get_by_role("button", name="start over").click()
    other = page.context.new_page()
    other.goto(page.url)
    page.get_by_role("button", name="Delete all").click()
    recent = other.get_by_role("region", name="Recent searches")
    expect(recent).to_have_count(0)
    ask(other, product.title)
    other.get_by_role("button", name="start over").click()
    expect(recent.get_by_role("link")).to_have_text([product.title], use_inner_text=True)
    expect(page.get_by_role("region", name="Recent searches").get_by_role("link")).to_have_count(1)


def test_photos_of_one_name_are_recent_searches_of_their_own(new_page: Any, demo_catalogue: DemoCatalogue) -> None:
    page = new_page()
    for number in (0, 1, 0):
        data = demo_catalogue.picture(demo_catalogue.products[number]).read_bytes()
        with search_by(page):
            drop(page, "image.png", data, "image/png")
    page.get_by_role("button", name="start over").click()
    recent = page.get_by_role("region", name="Recent searches").get_by_role("link")
    expect(recent).to_have_text(["image.png"] * 2, use_inner_text=True)
