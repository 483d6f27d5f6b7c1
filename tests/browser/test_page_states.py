"""What the page says when there is no good answer, and what it offers only where the server does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.browser.page_driver import changed_answer, drop, drop_picture


def test_a_file_that_is_no_picture_is_refused_with_a_remedy(new_page: Any) -> None:
    page = new_page(expect_failures=True)
    drop(page, "offer.pdf", b"%PDF-1.7 not a picture at all", "application/pdf")
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert problem.get_by_text("What works:").is_visible()
    assert page.get_by_text("offer.pdf").is_visible()
    page.get_by_role("button", name="Search with another picture").click()
    page.get_by_role("heading", name="Search by picture").wait_for()


def test_text_that_is_dropped_is_no_search(new_page: Any) -> None:
    page = new_page()
    page.wait_for_selector("main")
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.setData("text/plain", "hello");
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
        }"""
    )
    page.get_by_text("There is no picture in that").wait_for()
    assert page.get_by_role("heading", name="Search by picture").is_visible()


def test_an_endpoint_that_is_down_is_named_and_asked_again(new_page: Any, address: str, picture: Path) -> None:
    page = new_page("about:blank", expect_failures=True)
    page.route("**/v1/**", lambda route: route.abort())
    page.goto(address)
    page.get_by_role("heading", name="The search does not answer").wait_for()
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".example")
    page.route("**/v1/search", lambda route: route.abort())
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_role("heading", name="The search does not answer").wait_for()
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".card[data-verdict]")


def test_a_quota_that_is_reached_is_told(new_page: Any, picture: Path) -> None:
    page = new_page(expect_failures=True)
    page.clock.install()
    problem = {
        "type": "urn:visor:quota_reached",
        "title": "Quota reached",
        "status": 429,
        "detail": "",
        "found": "This month's free searches are used up",
        "remedy": "Come back on the first",
    }
    page.route(
        "**/v1/search",
        lambda route: route.fulfill(
            status=429, json=problem, headers={"Content-Type": "application/problem+json", "Retry-After": "20"}
        ),
    )
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_role("heading", name="Quota reached").wait_for()
    assert page.get_by_text("Come back on the first.").is_visible()
    assert page.get_by_role("button", name="Try again in 20 s").is_disabled()
    page.unroute("**/v1/search")
    page.clock.run_for(21_000)
    page.get_by_role("button", name="Try again", exact=True).click()
    page.wait_for_selector(".card[data-verdict]")


def test_nothing_like_it_is_said_and_the_nearest_are_behind_a_click(new_page: Any, picture: Path) -> None:
    page = new_page()
    changed_answer(page, "/v1/search", lambda answer: answer.update(no_confident_match=True, confidence=0.04))
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_role("heading", name="Nothing in the catalogue is like it").wait_for()
    assert page.get_by_text("A 4 % chance that the catalogue has what you look for.").is_visible()
    assert page.locator(".card[data-verdict]").count() == 0
    page.get_by_role("button", name="Show the nearest anyway").click()
    assert page.locator(".card[data-verdict]").count() == 12
    assert page.evaluate("document.activeElement.textContent") == "The nearest, though nothing is like it"


def test_an_unsafe_picture_is_not_searched_for(new_page: Any, picture: Path) -> None:
    page = new_page()
    probabilities = {"porn": 0.93, "neutral": 0.07}
    changed_answer(
        page,
        "/v1/search",
        lambda answer: answer.update(matches=[], safety={"unsafe": True, "probabilities": probabilities}),
    )
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_role("heading", name="This picture is not searched for").wait_for()
    assert page.get_by_text("Not safe to show").is_visible()


def test_a_partial_answer_says_so(new_page: Any, picture: Path) -> None:
    page = new_page()
    changed_answer(page, "/v1/search", lambda answer: answer.update(notice="A segment could not be read."))
    drop_picture(page, picture)
    assert page.get_by_text("A segment could not be read.").is_visible()


def test_the_wait_is_shown(new_page: Any, picture: Path) -> None:
    page = new_page()
    held: list[Any] = []
    page.route("**/v1/search", lambda route: held.append(route))
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_text("Looking…").wait_for()
    assert page.locator(".card-skeleton").count() == 8
    assert page.get_by_role("region", name="Results").get_attribute("aria-busy") == "true"
    page.wait_for_timeout(50)
    held[0].continue_()
    page.wait_for_selector(".card[data-verdict]")


def test_a_picture_that_does_not_come_is_replaced_by_a_sign(new_page: Any, picture: Path) -> None:
    page = new_page(expect_failures=True)
    page.route("**/pictures/**", lambda route: route.abort())
    drop_picture(page, picture)
    page.locator(".card .thumb-broken").first.wait_for()


def test_the_same_picture_in_several_places_is_one_result(new_page: Any, picture: Path) -> None:
    page = new_page()
    places = [
        {"item": "a", "title": "Shop A " * 20, "page_url": "https://a.example/1", "price": 3.5, "currency": "EUR"},
        {"item": "b", "title": "Shop B", "page_url": "javascript:alert(1)"},
    ]
    changed_answer(page, "/v1/search", lambda answer: answer["matches"][0].update(places=places))
    drop_picture(page, picture)
    page.get_by_text("2 places").click()
    assert page.get_by_role("link", name="Shop A").get_attribute("href") == "https://a.example/1"
    price = page.get_by_text("€3.50")
    assert price.bounding_box()["height"] < 30
    assert page.get_by_role("link", name="Shop B").count() == 0


def test_what_the_server_does_not_offer_is_not_shown(new_page: Any, picture: Path) -> None:
    page = new_page("about:blank")
    changed_answer(page, "/v1/stats", lambda stats: stats.update(capabilities=[]))
    page.goto(new_page().url)
    drop_picture(page, picture)
    assert page.get_by_role("button", name=re.compile("is not a match")).count() == 0
    assert page.get_by_role("button", name=re.compile("^Why ")).count() == 0


def test_not_a_match_hides_the_result_and_is_sent_unless_undone(new_page: Any, address: str, picture: Path) -> None:
    page = new_page("about:blank")
    page.clock.install()
    changed_answer(page, "/v1/stats", lambda stats: stats.update(capabilities=["feedback"]))
    sent: list[dict[str, Any]] = []

    def keep(route: Any) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(json={})

    page.route("**/v1/feedback", keep)
    page.goto(address)
    drop_picture(page, picture)
    reject = page.get_by_role("button", name=re.compile("is not a match"))
    count = reject.count()
    reject.first.click()
    assert reject.count() == count - 1
    assert page.evaluate("document.activeElement.matches('.reject')")
    page.get_by_role("button", name="Undo", exact=True).last.click()
    assert reject.count() == count
    page.clock.fast_forward(10_000)
    assert sent == []
    reject.first.click()
    page.clock.fast_forward(10_000)
    page.wait_for_timeout(100)
    assert len(sent) == 1
    assert re.fullmatch("[0-9a-f]{32}", sent[0]["item"])
    assert set(sent[0]) == {"item", "query_vector"}


def test_the_about_panel_tells_what_the_index_holds(new_page: Any, address: str) -> None:
    page = new_page("about:blank")
    meter = {"service": "Firestore", "metric": "reads", "per": "day", "used": 1200, "limit": 45000, "free": 50000}
    sent = {
        "service": "Cloud Run",
        "metric": "data out",
        "per": "month",
        "used": 5 << 20,
        "limit": 1e9,
        "free": 1 << 30,
    }
    meters = [meter | {"resource": "firestore_reads"}, sent | {"resource": "response_bytes"}]
    changed_answer(page, "/v1/stats", lambda stats: stats.update(meters=meters))
    page.goto(address)
    page.wait_for_selector(".example")
    with page.expect_response("**/v1/stats"):
        page.get_by_role("button", name="About").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Pictures", exact=True).wait_for()
    assert dialog.get_by_text("1,200 of 50,000").is_visible()
    assert dialog.get_by_text("5 MB of 1 GB").is_visible()
    assert dialog.get_by_text("Prices are made up.").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
