"""What the page says when there is no good answer, and what it offers only where the server does."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect
from tests.browser.page_driver import NOT_HERE, ask, changed_answer, drop, drop_picture, search_by, settled


def test_a_file_that_is_no_picture_is_refused_with_a_remedy(new_page: Any) -> None:
    page = new_page(expect_failures=True)
    drop(page, "offer.pdf", b"%PDF-1.7 not a picture at all", "application/pdf")
    problem = page.get_by_role("alert")
    problem.wait_for()
    expect(problem.get_by_text("What works:")).to_be_visible()
    expect(page.get_by_text("offer.pdf")).to_be_visible()
    page.get_by_role("button", name="Search with another picture").click()
    page.get_by_role("heading", name="Search by picture").wait_for()


@pytest.mark.parametrize(
    ("link", "title", "other"),
    [
        ("text=!!!", "There is no word in that", "has no word"),
        ("q=garbage", "This link is damaged", "bytes"),
        (f"like.q={'A' * 300}&text=green", "This link is damaged", "bytes"),
    ],
)
def test_what_cannot_be_searched_for_is_told_in_the_visitor_s_words(
    new_page: Any, address: str, link: str, title: str, other: str
) -> None:
    page = new_page(f"{address}/#{link}", expect_failures=True)
    problem = page.get_by_role("alert")
    expect(problem.get_by_role("heading", name=title)).to_be_visible()
    expect(problem).not_to_contain_text(other)
    problem.get_by_role("button", name="Start a new search").click()
    expect(page.get_by_role("heading", name="Search by picture")).to_be_visible()


def test_what_went_wrong_stands_alone_where_nothing_was_found_before(new_page: Any) -> None:
    page = new_page(expect_failures=True)
    ask(page, "xyzzyqq")
    expect(page.get_by_role("heading", name="Nothing is described like that")).to_be_visible()
    ask(page, "❤️")
    expect(page.get_by_role("heading", name="There is no word in that")).to_be_visible()
    expect(page.get_by_role("heading", name="Nothing is described like that")).to_have_count(0)


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
    page.get_by_text("No picture was found in that").wait_for()
    expect(page.get_by_role("heading", name="Search by picture")).to_be_visible()


def test_a_folder_that_is_dropped_is_no_picture(new_page: Any, picture: Path, tmp_path: Path) -> None:
    page = new_page(expect_failures=True)

    def drop_the_folder() -> None:
        files = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": files})
        page.get_by_text("No picture was found in that").wait_for()

    session = page.context.new_cdp_session(page)
    page.wait_for_selector(".example")
    drop_the_folder()
    expect(page.get_by_role("heading", name="Search by picture")).to_be_visible()
    drop_picture(page, picture)
    drop_the_folder()
    settled(page)
    expect(page.locator(".card[data-verdict]")).to_have_count(12)
    with search_by(page) as asked:
        page.locator(".stage").press("Enter")
        drop_the_folder()
    assert asked.request["box"]


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


def test_a_link_that_got_no_answer_is_asked_again_as_a_whole(new_page: Any) -> None:
    first = new_page()
    first.locator("button.example").first.click()
    first.wait_for_url("**/#item=*")
    page = new_page("about:blank", expect_failures=True)
    page.route("**/v1/**", lambda route: route.abort())
    page.goto(re.sub(r"generation=\d+", "generation=5", first.url))
    page.get_by_role("heading", name="The search does not answer").wait_for()
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("The catalogue has changed since this link was made").wait_for()
    expect(page.locator(".query-name")).to_have_text(first.locator(".query-name").inner_text())
    expect(page.locator(".reject")).to_have_count(12)
    expect(page.get_by_role("group", name="Collection").get_by_role("checkbox")).not_to_have_count(0)
    page.get_by_role("button", name="start over").click()
    page.wait_for_selector("button.example")


def test_a_link_s_picture_is_not_searched_before_the_model_is_known(new_page: Any, picture: Path) -> None:
    first = new_page()
    drop_picture(first, picture)
    page = new_page("about:blank", expect_failures=True)
    page.route("**/v1/stats", lambda route: route.abort())
    page.goto(re.sub(r"model=\w+", "model=another", first.url))
    page.get_by_role("heading", name="The search does not answer").wait_for()
    page.unroute("**/v1/stats")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("heading", name="another model").wait_for()


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
    expect(page.get_by_text("Come back on the first.")).to_be_visible()
    expect(page.get_by_role("button", name="Try again in 20 s")).to_be_disabled()
    page.unroute("**/v1/search")
    page.clock.run_for(21_000)
    page.get_by_role("button", name="Try again", exact=True).click()
    page.wait_for_selector(".card[data-verdict]")


def test_the_nearest_are_shown_at_once_under_what_is_said_of_them(new_page: Any, picture: Path) -> None:
    page = new_page()
    changed_answer(page, "/v1/search", lambda answer: answer.update(no_confident_match=True, confidence=0.04))
    drop_picture(page, picture)
    expect(page.get_by_role("heading", name=NOT_HERE)).to_be_visible()
    expect(page.get_by_text("A tighter photo of the thing alone")).to_be_visible()
    expect(page.locator(".card[data-verdict]")).to_have_count(12)
    expect(page.locator("[aria-live=polite]")).to_have_text(f"12 matches. {NOT_HERE}.", use_inner_text=True)
    expect(page.get_by_text("Unlikely")).to_have_count(0)
    page.get_by_text("Answered in").click()
    expect(page.get_by_text("Chance that the catalogue has it")).to_be_visible()
    expect(page.locator(".timing dd", has_text="4%")).to_be_visible()


@pytest.mark.parametrize(
    ("confidence", "words"),
    [
        (0.86, "Very likely what you are looking for"),
        (0.6, "Perhaps one of these"),
        (0.14, "We may have it, but no match stands out"),
    ],
)
def test_the_band_says_how_sure_the_answer_is(new_page: Any, picture: Path, confidence: float, words: str) -> None:
    page = new_page()

    def change(answer: dict[str, Any]) -> None:
        answer.update(no_confident_match=False, confidence=confidence)
        for match in answer["matches"]:
            match.update(confidence=confidence, verdict="similar")

    changed_answer(page, "/v1/search", change)
    drop_picture(page, picture)
    expect(page.get_by_role("heading", name=words)).to_be_visible()


def test_a_match_of_an_item_is_no_surer_than_the_answer(new_page: Any) -> None:
    page = new_page()

    def change(answer: dict[str, Any]) -> None:
        answer.update(no_confident_match=False, confidence=0.96)
        for match, confidence in zip(answer["matches"], (0.87, 0.6), strict=False):
            match.update(confidence=confidence, verdict="similar")

    changed_answer(page, "/v1/search", change)
    page.locator(".example").first.click()
    page.get_by_role("heading", name="Probably more of its kind").wait_for()
    first, second = (page.locator(".sureness").nth(at).inner_text() for at in range(2))
    assert "Perhaps alike" in first
    assert "ikely" not in first + second
    assert "%" not in first + second


BLANK = "This picture is nearly blank: there is nothing in it to compare."


def test_an_empty_picture_has_no_grid_but_a_sentence(new_page: Any, picture: Path) -> None:
    page = new_page()
    changed_answer(page, "/v1/search", lambda answer: answer.update(matches=[], query={"blank": BLANK}))
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_role("heading", name=BLANK).wait_for()
    expect(page.locator(".card")).to_have_count(0)
    expect(page.get_by_text("What it seems to show")).to_have_count(0)
    expect(page.locator("[aria-live=polite]")).to_have_text(BLANK, use_inner_text=True)


def test_what_is_near_to_an_empty_picture_stands_below_that_sentence(new_page: Any, picture: Path) -> None:
    page = new_page()
    changed_answer(page, "/v1/search", lambda answer: answer["query"].update(blank=BLANK))
    drop_picture(page, picture)
    expect(page.get_by_role("heading", name=BLANK)).to_be_visible()
    expect(page.locator(".card[data-verdict]")).to_have_count(12)
    expect(page.locator(".results")).not_to_have_text(re.compile("likely|certainly"), use_inner_text=True)


def test_an_empty_picture_is_told_so_by_the_server_and_has_no_link(new_page: Any) -> None:
    page = new_page()
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "white").save(buffer, "PNG")
    drop(page, "white.png", buffer.getvalue(), "image/png")
    page.get_by_role("heading", name=BLANK).wait_for()
    expect(page.locator(".card[data-verdict]")).to_have_count(12)
    expect(page.get_by_role("button", name="Copy link")).to_have_count(0)
    expect(page.get_by_role("button", name=re.compile("is not a match"))).to_have_count(0)
    sure = re.compile("likely|certainly|same picture", re.IGNORECASE)
    expect(page.locator(".results")).not_to_have_text(sure, use_inner_text=True)


def test_the_start_is_gone_back_to_after_an_answer_without_a_link(new_page: Any, picture: Path) -> None:
    page = new_page()
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "white").save(buffer, "PNG")
    drop(page, "white.png", buffer.getvalue(), "image/png")
    page.get_by_role("heading", name=BLANK).wait_for()
    page.get_by_role("button", name="start over").click()
    drop_picture(page, picture)
    page.go_back()
    expect(page.get_by_role("heading", name="Search by picture")).to_be_visible()


def test_an_unsafe_picture_is_held_back_in_two_words(new_page: Any, address: str, picture: Path) -> None:
    probabilities = {"porn": 0.93, "neutral": 0.07}
    for at, classes in ((address, False), (f"{address}/?owner", True)):
        page = new_page(at)
        changed_answer(
            page,
            "/v1/search",
            lambda answer: answer.update(matches=[], safety={"unsafe": True, "probabilities": probabilities}),
        )
        drop(page, picture.name, picture.read_bytes(), "image/png")
        page.get_by_role("heading", name="This picture is held back").wait_for()
        expect(page.locator(".safety").get_by_text("Held back")).to_be_visible()
        assert ("porn" in page.content()) == classes


def test_what_was_held_back_can_be_called_harmless(new_page: Any, picture: Path) -> None:
    page = new_page()
    changed_answer(
        page, "/v1/search", lambda answer: answer.update(matches=[], safety={"unsafe": True, "probabilities": {}})
    )
    drop(page, picture.name, picture.read_bytes(), "image/png")
    with page.expect_response("**/v1/feedback") as kept:
        page.get_by_role("button", name="This is harmless").click()
    assert kept.value.json() == {"kept": True}
    sent = kept.value.request.post_data_json
    assert sent["verdict"] == "harmless"
    assert set(sent) == {"query_vector", "verdict"}
    page.get_by_role("region", name="Results").get_by_text("The owner of this catalogue can now review it").wait_for()
    expect(page.get_by_role("button", name="This is harmless")).to_have_count(0)
    expect(page.get_by_role("heading", name="This picture is held back")).to_be_visible()


def test_only_likely_labels_are_said(new_page: Any, address: str, picture: Path) -> None:
    page = new_page("about:blank")
    labels = [
        {"name": "kite", "probability": 0.62},
        {"name": "hook", "probability": 0.2},
    ]
    facet = [{"value": one["name"], "count": 3} for one in labels]
    changed_answer(page, "/v1/search", lambda answer: answer.update(labels=labels))
    changed_answer(page, "/v1/facets", lambda facets: facets.update(label=facet))
    page.goto(address)
    drop_picture(page, picture)
    expect(page.locator(".label-name")).to_have_text(["Kite"], use_inner_text=True)
    shown = page.get_by_role("group", name="Seems to show")
    shown.wait_for()
    expect(shown.locator(".check-name")).to_have_text(["Kite", "Hook"], use_inner_text=True)


def test_visitors_do_not_read_what_only_the_owner_can_do(new_page: Any, address: str, picture: Path) -> None:
    problem = {
        "type": "urn:visor:fetch_refused",
        "title": "Fetch refused",
        "status": 422,
        "detail": "",
        "found": "a.example leads into a private network",
        "remedy": "If this is a server that you trust, name it in VISOR_ALLOW_HOSTS as a.example",
    }
    for at, owners in ((address, False), (f"{address}/?owner", True)):
        page = new_page(at, expect_failures=True)
        page.route(
            "**/v1/search",
            lambda route: route.fulfill(status=422, json=problem, headers={"Content-Type": "application/problem+json"}),
        )
        drop(page, picture.name, picture.read_bytes(), "image/png")
        page.get_by_role("alert").wait_for()
        expect(page.get_by_text("Save the picture, and choose the file instead")).to_be_visible(visible=not owners)
        assert ("VISOR_ALLOW_HOSTS" in page.content()) == owners


def test_a_search_that_fails_leaves_the_results_before_it(new_page: Any, picture: Path) -> None:
    page = new_page(expect_failures=True)
    drop_picture(page, picture)
    page.route("**/v1/search", lambda route: route.abort())
    page.get_by_role("group", name="Collection").get_by_role("checkbox").first.check()
    page.get_by_role("heading", name="The search does not answer").wait_for()
    expect(page.locator(".filter-state"), "on a phone the rest is out of sight").to_contain_text("does not answer")
    expect(page.get_by_text("Below are the previous results.")).to_be_visible()
    expect(page.get_by_role("button", name="Copy link"), "the address bar holds none").to_be_disabled()
    expect(page.locator(".card[data-verdict]")).to_have_count(12)
    expect(page.get_by_role("button", name="Show more"), "they answer another question").to_have_count(0)


def test_more_that_does_not_come_is_told_in_its_place(new_page: Any, picture: Path) -> None:
    page = new_page(expect_failures=True)
    drop_picture(page, picture)
    page.route("**/v1/search", lambda route: route.abort())
    page.get_by_role("button", name="Show more").click()
    again = page.locator(".more").get_by_role("button", name="Try again")
    expect(again).to_be_in_viewport()
    expect(again).to_be_focused()
    expect(page.get_by_text("Below are the previous results.")).to_have_count(0)
    page.unroute("**/v1/search")
    again.click()
    page.locator(".card[data-verdict]").nth(12).wait_for()
    expect(page.locator(".more").get_by_role("alert")).to_have_count(0)


def test_a_title_is_written_in_its_own_direction(new_page: Any, picture: Path) -> None:
    page = new_page()
    changed_answer(page, "/v1/search", lambda answer: answer["matches"][0]["item"].update(title="نمر (Tiger)"))
    drop_picture(page, picture)
    heading = page.locator(".card h3").first
    assert heading.evaluate("(one) => getComputedStyle(one).direction") == "rtl"


def test_a_partial_answer_says_so(new_page: Any, picture: Path) -> None:
    page = new_page()
    unread = {"code": "index_partly_read", "text": "`visor check` says what to do."}
    later = {"code": "of_a_later_visor", "text": "A page may be older than its server."}
    changed_answer(page, "/v1/search", lambda answer: answer.update(notices=[unread, later]))
    drop_picture(page, picture)
    expect(page.get_by_text("Part of the catalogue cannot be searched at the moment.")).to_be_visible()
    expect(page.get_by_text("A page may be older than its server.")).to_be_visible()
    expect(page.get_by_text("visor check")).to_have_count(0)  # which is for the owner


def test_the_wait_is_shown(new_page: Any, picture: Path) -> None:
    page = new_page()
    held: list[Any] = []
    page.route("**/v1/search", lambda route: held.append(route))
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_text("Looking…").wait_for()
    expect(page.locator(".card-skeleton")).to_have_count(8)
    expect(page.get_by_role("region", name="Results")).to_have_attribute("aria-busy", "true")
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
    expect(page.get_by_role("link", name="Shop A")).to_have_attribute("href", "https://a.example/1")
    price = page.get_by_text("€3.50")
    assert price.bounding_box()["height"] < 30
    expect(page.get_by_role("link", name="Shop B")).to_have_count(0)


def test_what_the_server_does_not_offer_is_not_shown(new_page: Any, picture: Path) -> None:
    page = new_page("about:blank")
    changed_answer(page, "/v1/stats", lambda stats: stats.update(capabilities=[]))
    page.goto(new_page().url)
    drop_picture(page, picture)
    expect(page.get_by_role("button", name=re.compile("is not a match"))).to_have_count(0)
    page.get_by_role("button", name="More actions for").first.click()
    expect(page.get_by_role("button", name="Look for this as well")).to_be_visible()
    for name in ("Why it matched", "Compare the pictures"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)


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
    expect(reject).to_have_count(count - 1)
    expect(page.locator(".shown-count")).to_have_text(re.compile(rf"^{count - 1} of \d+ results$"))
    assert page.evaluate("document.activeElement.matches('.reject')")
    page.get_by_role("button", name="Undo", exact=True).last.click()
    expect(reject).to_have_count(count)
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
    expect(page).to_have_title(page.locator(".brand span").inner_text())
    with page.expect_response("**/v1/stats"):
        page.get_by_role("button", name="About").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Pictures", exact=True).wait_for()
    # What is used of Google's allowances concerns the owner.
    expect(dialog.get_by_text("1,200 of 50,000")).to_have_count(0)
    dialog.get_by_role("button", name="Show what is for the owner").click()
    assert page.url.endswith("?owner")
    expect(dialog.get_by_text("1,200 of 50,000")).to_be_visible()
    expect(dialog.get_by_text("5 MB of 1 GB")).to_be_visible()
    expect(dialog.get_by_text("Prices are made up.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
