"""What a person does with a picture on the page."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
DEVICES = pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
NOT_HERE = "We probably don't have it: these are the nearest"
"""What stands above matches that the endpoint calls unsure."""
LISTEN = """(() => {
  const ask = window.fetch;
  window.requestDocuments = [];
  window.fetch = (address, init) => {
    if (String(address).endsWith("/v1/search")) {
      window.requestDocuments.push(init.body instanceof FormData ? init.body.get("request") : init.body);
    }
    return ask(address, init);
  };
})()"""
"""The browser does not tell what a form with a file holds, so the page is listened to on its way out."""

CHOOSE_THE_SERVER = """try {
  if (!localStorage.getItem("visor-device")) localStorage.setItem("visor-device", "off");
} catch {}"""

DROP = """([data, type, name]) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""
PASTE = """([data, type, name]) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
}"""


def drop(page: Any, name: str, data: bytes, media_type: str) -> None:
    """Drop a file on the page."""
    page.wait_for_selector("main")
    page.evaluate(DROP, [base64.b64encode(data).decode(), media_type, name])


def paste(page: Any, name: str, data: bytes, media_type: str) -> None:
    """Paste a file."""
    page.wait_for_selector("main")
    page.evaluate(PASTE, [base64.b64encode(data).decode(), media_type, name])


def drop_picture(page: Any, picture: Path) -> None:
    """Drop a picture and wait for its results."""
    drop(page, picture.name, picture.read_bytes(), f"image/{picture.suffix[1:]}")
    page.wait_for_selector(".card[data-verdict]")


def titles(page: Any) -> list[str]:
    """The titles of the results, in their order."""
    return [card.get_attribute("aria-label") for card in page.query_selector_all(".card[data-verdict]")]


def settled(page: Any) -> None:
    """Wait until no search is under way."""
    page.wait_for_selector(".results[aria-busy=false]")


class Asked:
    """What the page asked the endpoint; filled in when the endpoint has answered."""

    request: dict[str, Any]
    answer: dict[str, Any]


@contextmanager
def search_by(page: Any) -> Iterator[Asked]:
    """What is done within it leads to a search; both its document and its answer are known afterwards."""
    asked = Asked()
    with page.expect_response("**/v1/search") as answered:
        yield asked
    asked.answer = answered.value.json()
    asked.request = json.loads(page.evaluate("() => window.requestDocuments.at(-1)"))
    settled(page)


def changed_answer(page: Any, path: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Let the page see the real answer of an endpoint with a change: states that no picture brings about at will."""

    def handle(route: Any) -> None:
        response = route.fetch()
        document = response.json()
        change(document)
        route.fulfill(response=response, json=document)

    page.route(f"**{path}", handle)


def type_words(page: Any, words: str) -> None:
    """Type words into the field, and Enter."""
    page.get_by_role("combobox", name="Words, or the address").fill(words)
    page.keyboard.press("Enter")


def ask(page: Any, words: str) -> None:
    """Search for words."""
    type_words(page, words)
    page.wait_for_selector(".chips")
    settled(page)


def open_filters(page: Any) -> None:
    page.evaluate("() => document.querySelector('.filters').open = true")


def card_menu(page: Any, number: int, action: str) -> None:
    """Choose something from the menu of a result."""
    page.get_by_role("button", name="More actions for").nth(number).click()
    page.get_by_role("button", name=action).locator("visible=true").click()
