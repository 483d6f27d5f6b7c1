"""Filters on the page: attributes, dates, prices, what is refused and what would help, against the real endpoint."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.page_driver import DEVICES, ask, card_menu, open_filters, search_by, settled, titles


@DEVICES
def test_attributes_dates_and_prices_are_filtered(new_page: Any, shelf: str, device: dict[str, Any]) -> None:
    page = new_page(shelf, **device)
    page.locator(".example").first.click()
    page.wait_for_selector(".card[data-verdict]")
    open_filters(page)
    with search_by(page) as asked:
        page.get_by_role("group", name="Colour").get_by_label("red").check()
    assert asked.request["filters"]["attributes"] == {"colour": {"any": ["red"]}}
    expect(page.get_by_text("14 items pass")).to_be_visible()
    with search_by(page) as asked:
        page.get_by_role("group", name="Fragile").get_by_label("Yes").check()
    assert asked.request["filters"]["attributes"]["fragile"] == {"any": ["true"]}
    expect(page.get_by_text("7 items pass")).to_be_visible()
    # Counts of a chosen list are those without it, under all other filters.
    blue = page.get_by_role("group", name="Colour").locator("label", has_text="blue").locator(".check-count")
    page.wait_for_function("(one) => one.textContent === '6'", arg=blue.element_handle())
    with search_by(page) as asked:
        page.get_by_label("Lowest Weight").fill("10.5")
        page.keyboard.press("Enter")
    assert asked.request["filters"]["attributes"]["weight"] == {"min": 10.5}
    with search_by(page) as asked:
        page.get_by_label("Latest Made").fill("2022-06-30")
        page.keyboard.press("Enter")
    assert asked.request["filters"]["attributes"]["made"] == {"max": "2022-06-30"}
    with search_by(page) as asked:
        page.get_by_role("group", name="Price").get_by_role("checkbox").first.check()
    assert asked.request["filters"]["price"].keys() == {"min", "max"}
    with search_by(page) as asked:
        page.get_by_label("Earliest date").fill("2022-01-01")
        page.get_by_label("Earliest date").blur()
    assert asked.request["filters"]["date_from"] == "2022-01-01"
    chips = page.get_by_role("list", name="Your search").get_by_role("button")
    expect(chips).to_have_count(6)
    assert re.search(r"any\.colour=red.*min\.weight=10\.5.*max\.made=2022-06-30", page.url)
    other = new_page(page.url, **device)
    settled(other)
    expect(other.get_by_role("list", name="Your search").get_by_role("button")).to_have_text(
        chips.all_inner_texts(), use_inner_text=True
    )
    with search_by(page) as asked:
        chips.filter(has_text="Weight").click()
    assert "weight" not in asked.request["filters"]["attributes"]


@pytest.mark.parametrize("group", ["Price", "Date"])
def test_a_range_that_is_ticked_has_the_items_that_are_counted(new_page: Any, shelf: str, group: str) -> None:
    page = new_page(shelf)
    page.locator(".example").first.click()
    page.wait_for_selector(".card[data-verdict]")
    open_filters(page)
    ranges = page.get_by_role("group", name=group).locator("label.check:has(.check-count)")
    expect(ranges.nth(2)).to_be_visible()
    for number in range(ranges.count()):
        one = ranges.nth(number)
        count = one.locator(".check-count").inner_text()
        with search_by(page) as asked:
            one.get_by_role("checkbox").check()
        assert asked.answer["facets"]["images"] == int(count)
        expect(one.get_by_role("checkbox")).to_be_checked()
        with search_by(page):
            one.get_by_role("checkbox").uncheck()


@DEVICES
def test_filters_choose_from_what_words_alone_find(new_page: Any, shelf: str, device: dict[str, Any]) -> None:
    page = new_page(shelf, **device)
    collections = page.get_by_role("group", name="Collection").locator(".check")
    colours = page.get_by_role("group", name="Colour").locator(".check")
    ask(page, "garden")
    open_filters(page)
    expect(collections).to_have_text(["Garden20"])
    expect(colours).to_have_text(["blue7", "red7", "green6"])
    with search_by(page):
        colours.filter(has_text="red").get_by_role("checkbox").check()
    expect(page.get_by_text("7 items pass")).to_be_visible()
    expect(collections).to_have_text(["Garden7"])
    expect(colours).to_have_text(["blue7", "red7", "green6"])
    # With a picture, words put in order what there is.
    with search_by(page):
        card_menu(page, 0, "Look for this")
    expect(collections).to_have_text(["Garden7", "Kitchen7"])


@DEVICES
def test_values_are_refused_and_what_is_unknown_is_asked_for(new_page: Any, shelf: str, device: dict[str, Any]) -> None:
    page = new_page(f"{shelf}/#any.fragile=true&any.fragile=false&group=false", **device)
    page.wait_for_selector(".card[data-verdict]")
    open_filters(page)
    colour, maker = page.get_by_role("group", name="Colour"), page.get_by_role("group", name="Maker")
    with search_by(page) as asked:
        colour.get_by_role("button", name="Not red").press("Enter")
    assert asked.request["filters"]["attributes"]["colour"] == {"none": ["red"]}
    expect(page.get_by_text("26 items pass")).to_be_visible()
    expect(colour.get_by_role("button", name="Not red")).to_have_attribute("aria-pressed", "true")
    with search_by(page) as asked:
        maker.get_by_label("Unknown").press("Space")
    assert asked.request["filters"]["attributes"]["maker"] == {"missing": True}
    assert asked.answer["total"] == 20
    chips = page.get_by_role("list", name="Your search").get_by_role("button")
    for name in ("Colour: not red", "Maker: unknown"):
        expect(chips.filter(has_text=name)).to_be_visible()
    assert "none.colour=red" in page.url
    assert "missing.maker=true" in page.url
    other = new_page(page.url, **device)
    settled(other)
    expect(other.get_by_role("list", name="Your search").get_by_role("button")).to_have_text(
        chips.all_inner_texts(), use_inner_text=True
    )
    with search_by(page) as asked:
        maker.get_by_role("button", name="Leave out unknown").press("Enter")
    assert asked.request["filters"]["attributes"]["maker"] == {"missing": False}
    assert asked.answer["total"] == 6
    with search_by(page) as asked:
        maker.get_by_label("Acme").check()
    with search_by(page) as asked:
        colour.get_by_label("red").check()
    # What is chosen is not refused.
    assert asked.request["filters"]["attributes"]["colour"] == {"any": ["red"]}
    assert asked.request["filters"]["attributes"]["maker"] == {"any": ["Acme"], "missing": False}
    with search_by(page) as asked:
        page.get_by_role("group", name="Collection").get_by_role("button", name="Not Garden").press("Enter")
    assert asked.request["filters"]["attributes"]["collection"] == {"none": ["Garden"]}
    expect(page.get_by_role("button", name="Remove: Collection: not Garden")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@DEVICES
def test_where_nothing_passes_it_says_which_filter_to_loosen(new_page: Any, shelf: str, device: dict[str, Any]) -> None:
    page = new_page(shelf, **device)
    page.locator(".example").first.click()
    page.wait_for_selector(".card[data-verdict]")
    link = page.url.partition("#")[2]
    other = new_page(f"{shelf}/#{link}&any.colour=red&any.fragile=true&min.weight=500", **device)
    other.get_by_role("heading", name="No item passes these filters").wait_for()
    offers = other.get_by_role("list", name="What would help").get_by_role("button")
    offers.first.wait_for()
    expect(offers).to_have_text(["Without Weight: from 500: 6 items"], use_inner_text=True)
    with search_by(other) as asked:
        offers.first.click()
    assert asked.request["filters"]["attributes"].keys() == {"colour", "fragile"}
    assert len(titles(other)) == 6


def test_without_the_words_something_passes_the_filters(new_page: Any, shelf: str) -> None:
    page = new_page(f"{shelf}/#text=zzqqxxyy&any.colour=red")
    offers = page.get_by_role("list", name="What would help").get_by_role("button")
    expect(offers).to_have_text([re.compile(r"^Without “zzqqxxyy”: 1\d items$")], use_inner_text=True)
    with search_by(page) as asked:
        offers.first.click()
    assert "text" not in asked.request
    assert titles(page)


def test_values_are_counted_once_for_an_answer(new_page: Any, shelf: str) -> None:
    page = new_page(shelf)
    page.locator(".example").first.click()
    page.wait_for_selector(".card[data-verdict]")
    counted: list[str] = []
    page.on("request", lambda request: counted.append(request.url) if "/v1/facets" in request.url else None)
    with page.expect_response("**/v1/facets*"), search_by(page):
        page.get_by_role("group", name="Fragile").get_by_role("checkbox", name="Yes").check()
    page.get_by_role("button", name="Show more").click()
    page.wait_for_selector(".grid > li:nth-child(13)")
    settled(page)
    assert len(counted) == 1
