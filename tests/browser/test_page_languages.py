"""The page in each of its languages, and from right to left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser.page_driver import PHONE, changed_answer, drop, drop_picture, settled
from tests.browser.test_page_access import violations

MESSAGES = Path(__file__).parents[2] / "frontend" / "src" / "words" / "messages"
LANGUAGES = sorted(path.stem for path in MESSAGES.glob("*.json"))
DEVICES = pytest.mark.parametrize(
    "device", [{"viewport": {"width": 1280, "height": 860}}, PHONE], ids=["wide", "phone"]
)
SPOKEN = """() => {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) found.push(walk.currentNode.data);
  for (const one of document.querySelectorAll("*"))
    for (const name of ["aria-label", "title", "placeholder", "alt"]) found.push(one.getAttribute(name) ?? "");
  return found.map((text) => text.trim()).filter(Boolean);
}"""
"""All that the page says, to whom who sees it and to whom who hears it."""

OUTSIDE = """() => {
  const width = document.documentElement.clientWidth;
  const isOwn = (one) => one.checkVisibility() && !one.closest(".visually-hidden, .region, .box, svg");
  return [...document.querySelectorAll("main *, header *, dialog[open] *, .menu:popover-open *")].filter(isOwn)
    .map((one) => [one, one.getBoundingClientRect()])
    .filter(([, at]) => at.width > 1 && (at.left < -1 || at.right > width + 1))
    .map(([one]) => one.outerHTML.slice(0, 90));
}"""
"""What stands partly beside the page."""


def messages(language: str) -> dict[str, str | dict[str, str]]:
    found: dict[str, str | dict[str, str]] = json.loads((MESSAGES / f"{language}.json").read_text(encoding="utf-8"))
    return found


def forms(message: str | dict[str, str]) -> list[str]:
    return [message] if isinstance(message, str) else list(message.values())


def english_only(language: str) -> Callable[[str], bool]:
    """Whether a text is one of the English messages and none of the language's."""
    english = [text for key, value in messages("en").items() if key != "direction" for text in forms(value)]
    own = {text for value in messages(language).values() for text in forms(value)}
    foreign = [text for text in english if text not in own and re.search(r"\w{3}", re.sub(r"\{\w+\}", "", text))]
    pattern = re.compile("|".join(re.sub(r"\\\{\w+\\\}", ".+", re.escape(text)) for text in foreign), re.DOTALL)
    return lambda text: pattern.fullmatch(text) is not None


def steps(page: Any, picture: Path) -> Any:
    """The states of the page in which it says most, one after the other."""
    page.wait_for_selector(".example")
    yield "start"
    drop_picture(page, picture)
    settled(page)
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    yield "results"
    page.locator(".tool").nth(1).click()
    yield "painting"
    page.locator(".card .icon-button[popovertarget]").first.click()
    page.locator(".menu:popover-open").wait_for()
    yield "menu"
    page.locator(".menu:popover-open .menu-button").last.click()
    page.locator(".heat-key").wait_for()
    page.wait_for_function("() => document.querySelector('.heated canvas').width > 300 || true")
    yield "why"
    page.keyboard.press("Escape")
    page.locator(".top-actions button").last.click()
    page.get_by_role("dialog").wait_for()
    yield "about"
    page.keyboard.press("Escape")
    drop(page, "offer.pdf", b"%PDF-1.7 not a picture at all", "application/pdf")
    page.get_by_role("alert").wait_for()
    yield "problem"


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_nothing_is_left_in_english(new_page: Any, picture: Path, language: str) -> None:
    page = new_page(locale=f"{language}-{language.upper()}", expect_failures=True)
    is_english = english_only(language)
    for step in steps(page, picture):
        assert page.evaluate("document.documentElement.lang") == language
        left = [text for text in page.evaluate(SPOKEN) if is_english(text)]
        assert left == [], step
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), step


@DEVICES
def test_from_right_to_left_nothing_overflows(new_page: Any, picture: Path, device: dict[str, Any]) -> None:
    page = new_page(expect_failures=True, **device)
    page.wait_for_selector("main")
    page.evaluate("document.documentElement.dir = 'rtl'")
    for step in steps(page, picture):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), step
        assert page.evaluate(OUTSIDE) == [], step
    brand, actions = (page.locator(one).bounding_box() for one in (".brand", ".top-actions"))
    assert brand["x"] > actions["x"]


def test_a_dialog_says_what_went_wrong_and_what_to_do(new_page: Any, picture: Path) -> None:
    page = new_page(locale="de-DE", expect_failures=True)
    problem = {"type": "urn:visor:store_unavailable", "title": "Store unavailable", "status": 503, "detail": "It is."}
    for path in ("explain", "compare"):
        page.route(f"**/v1/{path}", lambda route: route.fulfill(status=503, json=problem))
    drop_picture(page, picture)
    for name in ("Warum es passt", "Bilder vergleichen"):
        page.get_by_role("button", name="Mehr zu").first.click()
        page.get_by_role("button", name=name).locator("visible=true").click()
        said = page.get_by_role("dialog").get_by_role("alert")
        expect(said.get_by_text("Die Suche geht zurzeit nicht.")).to_be_visible()
        expect(said.get_by_text("Versuchen Sie es gleich noch einmal.")).to_be_visible()
        page.keyboard.press("Escape")


@DEVICES
def test_the_language_is_chosen_by_hand_and_kept(new_page: Any, picture: Path, device: dict[str, Any]) -> None:
    page = new_page(locale="pt-BR", **device)
    page.get_by_role("heading", name="Search by picture").wait_for()
    page.get_by_label("Language").select_option(label="Français")
    page.get_by_role("heading", name="Chercher par image").wait_for()
    drop_picture(page, picture)
    expect(page.locator(".price-tag").first).to_have_text(re.compile(r"\d+,\d\d\s(€|£|\$)"))
    expect(page.locator(".sureness").first).to_have_text(re.compile(r"0,\d{3}"))
    page.get_by_label("Langue").select_option(label="Deutsch")
    page.get_by_text("Dasselbe Bild ist im Katalog").wait_for()
    expect(page.get_by_label("Sprache")).to_be_visible()
    assert page.title().startswith(f"{picture.name}: dasselbe Bild")
    page.reload()
    page.get_by_role("heading", name="Sehr wahrscheinlich das, was Sie suchen").wait_for()
    assert page.evaluate("document.documentElement.lang") == "de"
    assert violations(page) == []


def test_the_language_that_was_chosen_last_is_spoken(new_page: Any) -> None:
    page = new_page()
    held: list[Any] = []
    page.route("**/assets/fr-*.js", lambda route: held.append(route))
    with page.expect_request("**/assets/fr-*.js"):
        page.get_by_label("Language").select_option("fr")
    page.get_by_label("Language").select_option("de")
    page.get_by_role("heading", name="Mit Bild oder").wait_for()
    with page.expect_response("**/assets/fr-*.js"):
        held[0].continue_()
    page.reload()
    expect(page.get_by_role("heading", name="Mit Bild oder")).to_be_visible()


def test_a_language_that_does_not_come_is_told(new_page: Any, address: str) -> None:
    page = new_page("about:blank", expect_failures=True, locale="fr-FR")
    page.route("**/assets/fr-*.js", lambda route: route.abort())
    page.goto(address)
    expect(page.get_by_role("heading", name="Search by picture")).to_be_visible()
    page.route("**/assets/de-*.js", lambda route: route.abort())
    page.get_by_label("Language").select_option("de")
    page.get_by_text("That language could not be fetched.").wait_for()
    expect(page.get_by_label("Language")).to_have_value("en")


def test_a_page_without_words_says_that_it_is_not_whole(new_page: Any, address: str) -> None:
    page = new_page("about:blank", expect_failures=True, locale="fr-FR")
    for language in ("fr", "en"):
        page.route(f"**/assets/{language}-*.js", lambda route: route.abort())
    page.goto(address)
    page.get_by_text("This page did not arrive whole. Please load it again.").wait_for()
    page.unroute_all()
    page.reload()
    expect(page.get_by_role("heading", name="Chercher par image")).to_be_visible()
    expect(page.get_by_text("This page did not arrive whole.")).to_have_count(0)


def test_only_the_language_that_is_read_is_loaded(new_page: Any) -> None:
    page = new_page(locale="es-MX")
    page.get_by_role("heading", name="Buscar por imagen").wait_for()
    scripts = page.evaluate("() => performance.getEntriesByType('resource').map((one) => one.name.split('/').pop())")
    assert [one for one in scripts if re.match(r"(de|en|es|fr)-", one)] == [
        next(one for one in scripts if one.startswith("es-"))
    ]


def test_the_owner_s_language_goes_before_the_browser_s(new_page: Any, address: str) -> None:
    page = new_page("about:blank", locale="en-GB")
    changed_answer(page, "/config.json", lambda config: config.update(language="de-CH"))
    page.goto(address)
    page.get_by_role("heading", name="Mit Bild oder Wörtern suchen").wait_for()
