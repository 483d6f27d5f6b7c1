"""Asking on the page: words, order, examples, products and more of them, against the real endpoint."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect
from tests.browser.page_driver import (
    DEVICES,
    DROP,
    ask,
    card_menu,
    changed_answer,
    drop,
    drop_picture,
    open_filters,
    search_by,
    settled,
    titles,
    type_words,
)

from visor.demo.catalogue import DemoCatalogue, Product


def choose_order(page: Any, order: str) -> None:
    """Take another order, above the results or, on a phone, among the filters."""
    open_filters(page)
    page.get_by_label("Order").locator("visible=true").select_option(label=order)


@DEVICES
def test_words_are_searched_alone(new_page: Any, product: Product, device: dict[str, Any]) -> None:
    page = new_page(**device)
    with search_by(page) as asked:
        ask(page, product.title.lower())
    assert asked.request["text"] == product.title.lower()
    assert not {"image", "url", "vector", "item"} & asked.request.keys()
    assert titles(page)[0] == product.title
    assert page.locator(".card mark").first.inner_text().lower() in product.title.lower()
    expect(page.get_by_role("heading", name="Items described like that")).to_be_visible()
    expect(page.locator(".sureness")).to_have_count(0)
    assert f"text={product.title.lower().replace(' ', '+')}" in page.url
    other = new_page(page.url)
    other.wait_for_selector(".card[data-verdict]")
    assert titles(other) == titles(page)
    expect(other.get_by_role("combobox", name="Words")).to_have_value(product.title.lower())


def test_a_typing_error_is_forgiven(new_page: Any, demo_catalogue: DemoCatalogue) -> None:
    word = next(one.title for one in demo_catalogue.products if re.fullmatch(r"[A-Z][a-z]{6,}", one.title))
    page = new_page()
    ask(page, word[:2] + word[3] + word[2] + word[4:])
    assert word in titles(page)[:3]


def test_suggestions_go_on_with_what_is_typed(new_page: Any, product: Product) -> None:
    page = new_page()
    field = page.get_by_role("combobox", name="Words")
    field.press_sequentially(product.title[:3].lower())
    options = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    options.first.wait_for()
    expect(field).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    chosen = field.get_attribute("aria-activedescendant")
    expect(page.locator(f"[id='{chosen}']")).to_have_attribute("aria-selected", "true")
    expect(field).to_have_value(re.compile(f"^{product.title[:3]}", re.IGNORECASE))
    page.keyboard.press("Escape")
    expect(options).to_have_count(0)
    field.press_sequentially(product.title[3].lower())
    options.first.wait_for()
    words = options.first.inner_text()
    with search_by(page) as asked:
        options.first.click()
    assert asked.request["text"] == words


def test_suggestions_for_other_words_go(new_page: Any, product: Product) -> None:
    page = new_page()
    field = page.get_by_role("combobox", name="Words")
    field.press_sequentially(product.title[:3].lower())
    options = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    options.first.wait_for()
    page.route("**/v1/suggest*", lambda route: None)
    field.press_sequentially(product.title[3].lower())
    expect(options.first, "it goes on with this too").to_contain_text(product.title[:4], ignore_case=True)
    field.fill("zzz")
    expect(options).to_have_count(0)


def test_words_join_a_picture_and_go_again(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    with search_by(page) as asked:
        ask(page, "animal")
    assert asked.request["text"] == "animal"
    assert asked.request["handle"], "the server has seen the picture"
    chips = page.get_by_role("list", name="Your search").get_by_role("button")
    expect(chips).to_have_text(["Your picture", "“animal”"], use_inner_text=True)
    with search_by(page) as asked:
        chips.filter(has_text="animal").click()
    assert "text" not in asked.request
    with search_by(page) as asked:
        ask(page, "animal")
    with search_by(page) as asked:
        chips.filter(has_text="Your picture").click()
    assert asked.request.keys() >= {"text"}
    expect(page.get_by_test_id("stage")).to_be_hidden()
    page.get_by_role("button", name="Clear the field").click()
    page.get_by_role("heading", name="Search by picture").wait_for()


@DEVICES
def test_the_order_is_chosen_and_kept_in_the_link(new_page: Any, picture: Path, device: dict[str, Any]) -> None:
    page = new_page(**device)
    drop_picture(page, picture)
    with search_by(page) as asked:
        choose_order(page, "Highest price")
    assert asked.request["sort"] == "price_down"
    assert asked.request["nearest"] == 24, "the dearest of the whole catalogue is like nothing"
    assert "sort=price_down" in page.url
    expect(page.get_by_text(re.compile(r"^The \d\d most alike, in the order that you chose\.$"))).to_be_visible()
    prices = [match["item"].get("price") for match in asked.answer["matches"]]
    assert prices == sorted((one for one in prices if one is not None), reverse=True)
    page.go_back()
    page.get_by_text("It comes first.").wait_for()
    assert "sort=" not in page.url


def test_more_is_shown_without_searching_anew(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    before = titles(page)
    with search_by(page) as asked:
        page.get_by_role("button", name="Show more").click()
    assert asked.request["after"]
    assert asked.request["handle"], "the picture is not sent again"
    assert titles(page)[: len(before)] == before
    assert len(titles(page)) == len(before) + len(asked.answer["matches"])
    while page.get_by_role("button", name="Show more").count():
        with search_by(page):
            page.get_by_role("button", name="Show more").click()
    ids = page.evaluate("() => [...document.querySelectorAll('.card h3 a')].map((link) => link.href)")
    assert len(ids) == len(set(ids))
    assert f"k={len(titles(page))}" in page.url


def test_more_does_not_take_the_place_of_a_box_that_was_just_drawn(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    with search_by(page) as asked:
        # The hand has yet to rest.
        assert page.evaluate("""async () => {
          document.querySelector(".stage").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
          await new Promise(requestAnimationFrame);
          await new Promise(requestAnimationFrame);
          return document.querySelector(".more button").disabled;
        }""")
    assert asked.request["box"]


def test_a_suggestion_takes_the_place_of_the_last_word_alone(new_page: Any, product: Product) -> None:
    page = new_page()
    field = page.get_by_role("combobox", name="Words")
    field.press_sequentially(f"Red/{product.title[:4]}")
    options = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    expect(options.first).to_have_text(re.compile(f"^Red/{product.title[:4]}", re.IGNORECASE))
    # While a word is composed, the keys choose its characters.
    field.dispatch_event("keydown", {"key": "ArrowDown", "isComposing": True})
    expect(field).to_have_value(f"Red/{product.title[:4]}")
    field.press("ArrowDown")
    expect(field).to_have_value(options.first.inner_text())


def test_words_that_are_too_many_are_cut_between_characters(new_page: Any) -> None:
    page = new_page()
    with search_by(page) as asked:
        ask(page, "apple" + "🍎" * 400)
    assert asked.request["text"] == "apple" + "🍎" * 395


def test_the_end_of_a_catalogue_is_its_end(new_page: Any, shelf: str) -> None:
    page = new_page(f"{shelf}/#any.colour=red&any.colour=green&any.colour=blue&group=false")
    page.wait_for_selector(".card[data-verdict]")
    while page.get_by_role("button", name="Show more").count():
        with search_by(page):
            page.get_by_role("button", name="Show more").click()
    expect(page.locator(".card")).to_have_count(40)


def test_more_like_these_and_not_like_that(new_page: Any, demo_catalogue: DemoCatalogue, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    like, unlike = titles(page)[1:3]
    with search_by(page) as asked:
        card_menu(page, 1, "Look for this as well")
    (example,) = asked.request["examples"]
    assert example["weight"] == 1
    assert like not in titles(page)
    number = titles(page).index(unlike)
    with search_by(page) as asked:
        card_menu(page, number, "But not like this")
    assert [one["weight"] < 0 for one in asked.request["examples"]] == [False, True]
    found = titles(page)
    assert re.search("like=[0-9a-f]{32}&unlike=[0-9a-f]{32}.*&q=", page.url)
    other = new_page(page.url)
    chips = other.get_by_role("list", name="Your search").get_by_role("button")
    other.get_by_role("button", name=f"Remove: Not like {unlike}").wait_for()
    expect(chips).to_have_text(["Your picture", f"Like {like}", f"Not like {unlike}"], use_inner_text=True)
    settled(other)
    assert titles(other) == found
    with search_by(other) as asked:
        chips.filter(has_text="Your picture").click()
    assert len(asked.request["examples"]) == 2
    assert "vector" not in asked.request
    expect(other.get_by_role("heading", name="Most like what you chose")).to_be_visible()


@DEVICES
def test_variety_is_chosen_and_kept_in_the_link(new_page: Any, picture: Path, device: dict[str, Any]) -> None:
    page = new_page(**device)
    drop_picture(page, picture)
    open_filters(page)
    page.get_by_text("Advanced").click()
    with search_by(page) as asked:
        page.get_by_role("slider", name="Variety").press("End")
    assert asked.request["variety"] == 1
    assert "variety=1" in page.url
    found = titles(page)
    other = new_page(page.url, **device)
    settled(other)
    assert titles(other) == found
    with search_by(page) as asked:
        page.get_by_role("button", name="Remove: Variety: 100").click()
    assert "variety" not in asked.request
    assert titles(page) != found


@DEVICES
def test_a_second_photo_of_ones_own_is_like_or_unlike(
    new_page: Any, demo_catalogue: DemoCatalogue, picture: Path, device: dict[str, Any]
) -> None:
    second = demo_catalogue.picture(demo_catalogue.products[20])
    page = new_page(**device)
    drop_picture(page, picture)

    def add(how: str) -> dict[str, Any]:
        """Add the second picture from the menu, by keyboard; what was asked for then."""
        open_filters(page)
        page.get_by_role("button", name="Add a picture").press("Enter")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name=how).locator("visible=true").press("Enter")
        chooser.value.set_files(second)
        page.locator(".chip", has_text=second.name).wait_for()
        weighed = "(sign) => Math.sign(JSON.parse(window.requestDocuments.at(-1)).examples?.[0].weight) === sign"
        page.wait_for_function(weighed, arg=-1 if how == "But not like this" else 1)
        settled(page)
        asked: dict[str, Any] = json.loads(page.evaluate("() => window.requestDocuments.at(-1)"))
        return asked

    (example,) = add("Look for this as well")["examples"]
    assert example.keys() == {"handle", "weight"}, "it is not sent twice"
    chips = page.get_by_role("list", name="Your search").get_by_role("button")
    expect(chips).to_have_text(["Your picture", f"Like {second.name}"], use_inner_text=True)
    page.wait_for_function("() => [...document.querySelectorAll('.chip img')].every((one) => one.naturalWidth > 0)")
    found = titles(page)
    assert re.search(r"like\.q=[\w-]+&q=[\w-]+$", page.url)
    assert second.name not in page.url
    other = new_page(page.url, **device)
    settled(other)
    assert titles(other)[:3] == found[:3]
    expect(other.get_by_role("button", name="Remove: Like Picture from a link")).to_be_visible()
    with search_by(page) as asked:
        choose_order(page, "Lowest price")
    assert asked.request["examples"] == [example]
    with search_by(page) as asked:
        chips.last.click()
    assert "examples" not in asked.request
    assert add("But not like this")["examples"][0]["weight"] < 0
    expect(page.locator(".chip-against")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


SLOW_DECODER = """(() => {
  const decode = window.createImageBitmap;
  window.createImageBitmap = async (...given) => {
    await new Promise((done) => (window.decodeOn = done));
    return decode(...given);
  };
})()"""


def test_what_is_chosen_while_a_picture_is_prepared_goes_with_it(new_page: Any, picture: Path) -> None:
    page = new_page()
    ask(page, "animal")
    page.evaluate(SLOW_DECODER)

    def prepare(words: str, order: str) -> dict[str, Any]:
        """Choose these before the picture is decoded; what is asked for then."""
        page.wait_for_function("() => window.decodeOn")
        choose_order(page, order)
        type_words(page, words)
        page.evaluate("() => { window.decodeOn(); window.decodeOn = null; }")
        last = "JSON.parse(window.requestDocuments.at(-1))"
        page.wait_for_function(f"(order) => {last}.sort === order", arg="price_up" if "Low" in order else "price_down")
        settled(page)
        asked: dict[str, Any] = page.evaluate(f"() => {last}")
        return asked

    drop(page, picture.name, picture.read_bytes(), "image/png")
    assert prepare("town", "Highest price")["text"] == "town"
    expect(page.get_by_role("button", name="Remove: Your picture")).to_be_visible()
    page.get_by_test_id("added").first.set_input_files(picture)
    asked = prepare("house", "Lowest price")
    assert (asked["text"], len(asked["examples"])) == ("house", 1)


def test_what_is_chosen_beside_a_file_that_cannot_be_read_is_searched_for_alone(new_page: Any, picture: Path) -> None:
    page = new_page()
    page.evaluate(SLOW_DECODER)
    page.evaluate("() => { Blob.prototype.arrayBuffer = () => Promise.reject(new Error('gone')); }")
    drop(page, picture.name, b"", "image/png")
    page.wait_for_function("() => window.decodeOn")
    type_words(page, "animal")
    with search_by(page) as asked:
        page.evaluate("() => window.decodeOn()")
    assert asked.request["text"] == "animal"
    expect(page.locator(".toast")).to_contain_text("No picture was found in that")


def test_of_several_pictures_the_first_is_searched_for_and_the_page_says_so(new_page: Any, picture: Path) -> None:
    page = new_page()
    data = base64.b64encode(picture.read_bytes()).decode()
    page.wait_for_selector("main")
    several = DROP.replace("transfer.items.add(", "for (const _ of [1, 2, 3]) transfer.items.add(")
    with search_by(page):
        page.evaluate(several, [data, "image/png", "a.png"])
    expect(page.locator(".toast")).to_have_text(re.compile("Only the first of these 3 pictures is searched for"))


def test_a_picture_that_the_server_forgot_is_asked_for_by_its_vector(new_page: Any, picture: Path) -> None:
    page = new_page(expect_failures=True)
    ask(page, "animal")
    page.get_by_test_id("added").first.set_input_files(picture)
    page.locator(".chip", has_text=picture.name).wait_for()
    settled(page)

    def forget(route: Any) -> None:
        if '"handle"' in (route.request.post_data or ""):
            problem = {"type": "urn:visor:unknown_handle", "title": "Forgotten", "status": 404}
            route.fulfill(status=404, content_type="application/problem+json", body=json.dumps(problem))
        else:
            route.continue_()

    page.route("**/v1/search", forget)
    choose_order(page, "Lowest price")
    page.get_by_text("In the order that you chose.").wait_for()
    settled(page)
    (example,) = json.loads(page.evaluate("() => window.requestDocuments.at(-1)"))["examples"]
    assert example.keys() == {"vector", "weight"}


def test_a_picture_with_nothing_in_it_is_not_added(new_page: Any, picture: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (300, 300), "white").save(tmp_path / "blank.png")
    page = new_page()
    drop_picture(page, picture)
    page.get_by_test_id("added").first.set_input_files(tmp_path / "blank.png")
    page.get_by_text("This picture cannot be added").wait_for()
    settled(page)
    expect(page.locator(".chip")).to_have_count(0)


def test_what_was_searched_for_is_not_lost_to_a_picture_that_cannot_be_added(
    new_page: Any, picture: Path, tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("RGB", (300, 300), "white").save(tmp_path / "blank.png")
    page = new_page()
    held: list[Any] = []

    def hold_the_first(route: Any) -> None:
        held.append(route)
        if len(held) > 1:
            route.continue_()

    page.route("**/v1/search", hold_the_first)
    with page.expect_request("**/v1/search"):
        drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_test_id("added").first.set_input_files(tmp_path / "blank.png")
    page.get_by_text("This picture cannot be added").wait_for()
    expect(page.locator(".card[data-verdict]")).to_have_count(12)


def test_the_address_of_a_picture_may_be_long(new_page: Any) -> None:
    page = new_page(expect_failures=True)
    address = f"http://127.0.0.1:9/{'long/' * 200}x.png?sign=1"
    field = page.get_by_role("combobox", name="Words, or the address")
    field.focus()
    page.keyboard.insert_text(address)
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Enter")
    assert json.loads(page.evaluate("() => window.requestDocuments.at(-1)"))["url"] == address
    page.get_by_role("button", name="start over").click()
    field.focus()
    page.keyboard.insert_text("green apples " * 40)
    with search_by(page) as asked:
        page.keyboard.press("Enter")
    assert asked.request["text"] == ("green apples " * 40)[:400]
    expect(field).to_have_value(asked.request["text"])


def test_a_product_is_one_result_with_its_other_pictures_behind_it(new_page: Any, shelf: str) -> None:
    page = new_page(f"{shelf}/#any.colour=red&any.colour=green&any.colour=blue&sort=price_up")
    page.get_by_text("3 more of this product").click()
    others = page.locator(".places[open] li")
    expect(others).to_have_count(3)
    expect(others.get_by_role("link").first).to_have_attribute("href", re.compile(r"/products/\d+$"))
    page.wait_for_function("() => [...document.querySelectorAll('.places[open] img')].every((i) => i.naturalWidth)")
    open_filters(page)
    page.get_by_text("Advanced").click()
    with search_by(page) as asked:
        page.get_by_role("checkbox", name="One result per product").uncheck()
    assert asked.request["group"] is False
    expect(page.get_by_text("more of this product")).to_have_count(0)
    assert "group=false" in page.url


@DEVICES
def test_two_pictures_are_compared(
    new_page: Any, picture: Path, product: Product, tmp_path: Path, device: dict[str, Any]
) -> None:
    from PIL import Image

    with Image.open(picture) as opened:
        drawn = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")).convert("RGB")
    drawn.paste((200, 20, 20), (150, 150, 230, 230))
    drawn.save(tmp_path / "changed.png")
    page = new_page(**device)
    drop_picture(page, tmp_path / "changed.png")
    # The card knows more: that the picture is a visitor's photo, and which part of it is like the match.
    changed_answer(page, "/v1/compare", lambda answer: answer.update(confidence=0.01, similarity=0.1))
    number = titles(page).index(product.title)
    chance, similarity = page.locator(".card[data-verdict]").nth(number).locator(".sureness p > :last-child").all()
    said = [chance.inner_text(), similarity.inner_text()]
    card_menu(page, number, "Compare the pictures")
    dialog = page.get_by_role("dialog", name="Two pictures")
    dialog.get_by_text("The same picture, changed").wait_for()
    expect(dialog.get_by_role("status")).to_contain_text(f"Similarity {said[1]}, chance of a match {said[0]}")
    slider = dialog.get_by_role("slider")
    slider.focus()
    before = page.locator(".overlaid-first").evaluate("(one) => getComputedStyle(one).clipPath")
    page.keyboard.press("End")
    assert page.locator(".overlaid-first").evaluate("(one) => getComputedStyle(one).clipPath") != before
    dialog.get_by_role("switch", name="Show where they differ").check()
    expect(dialog.get_by_role("img", name="The brighter a part")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("More actions for")


@DEVICES
def test_what_can_be_looked_for_in_a_picture_is_tapped(
    new_page: Any, demo_catalogue: DemoCatalogue, picture: Path, tmp_path: Path, device: dict[str, Any]
) -> None:
    from PIL import Image

    scene = Image.new("RGB", (1000, 700), "white")
    for one, place in zip(
        (picture, demo_catalogue.picture(demo_catalogue.products[20])), ((30, 40), (600, 300)), strict=True
    ):
        with Image.open(one) as opened:
            drawn = opened.convert("RGBA").resize((350, 350))
        scene.paste(drawn, place, drawn)
    scene.save(tmp_path / "scene.png")
    page = new_page(**device)
    drop_picture(page, tmp_path / "scene.png")
    regions = page.get_by_role("button", name="Look for: ")
    regions.first.wait_for()
    with search_by(page) as asked:
        regions.first.press("Enter")
    x, y, width, height = asked.request["box"]
    assert 0 <= x < x + width <= 1
    assert 0 <= y < y + height <= 1
    expect(regions).to_have_count(0)
    with search_by(page) as asked:
        page.get_by_role("button", name="Clear").click()
    assert "box" not in asked.request
    expect(regions.first).to_be_visible()


@DEVICES
def test_collections_are_looked_through_before_anything_is_asked(new_page: Any, device: dict[str, Any]) -> None:
    page = new_page(**device)
    first = page.locator(".collections button").first
    first.wait_for()
    name, count = first.inner_text().split("\n")[:2]
    with search_by(page) as asked:
        first.click()
    assert len(titles(page)) == int(count)
    assert {match["item"]["collection"] for match in asked.answer["matches"]} == {
        asked.request["filters"]["collection"][0]
    }
    expect(page.get_by_role("heading", name="In the catalogue")).to_be_visible()
    expect(page.get_by_role("button", name=f"Remove: Collection: {name}")).to_be_visible()
    with search_by(page) as asked:
        choose_order(page, "Lowest price")
    page.go_back()
    page.go_back()
    page.get_by_role("heading", name="Search by picture").wait_for()
