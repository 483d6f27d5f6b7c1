"""The page in a browser, against the real endpoint over the crawled demo shop."""

from __future__ import annotations

import base64
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import expect
from tests.browser.page_driver import DROP, drop, drop_picture, paste, search_by, settled, titles

from visor.app import App
from visor.demo.catalogue import Product
from visor.web.site import Server


def test_a_dropped_file_leads_to_results(new_page: Any, picture: Path, product: Product, tmp_path: Path) -> None:
    from PIL import Image

    # Of a picture that was sent before, by another test, the server remembers what it saw.
    unseen = tmp_path / "unseen.png"
    with Image.open(picture) as image:
        copy = image.convert("RGBA")
    copy.putpixel((copy.width // 2, copy.height // 2), (1, 2, 3, 255))
    copy.save(unseen)
    page = new_page()
    drop_picture(page, unseen)
    first = page.locator(".card[data-verdict]").first
    expect(first).to_have_attribute("aria-label", product.title)
    expect(first).to_have_attribute("data-verdict", "exact")
    expect(first.get_by_text("Same picture")).to_be_visible()
    link = first.get_by_role("heading").get_by_role("link")
    expect(link).to_have_attribute("href", re.compile(rf"/products/{product.id}$"))
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(first.locator(".price-tag strong")).to_have_text(re.compile(r"\d"))
    expect(first.locator(".sureness")).to_have_text(re.compile(r"(Likely|likely|certainly)\s*\d+%"))
    expect(page.get_by_text("All these pictures: ").get_by_text("GPL-2.0-or-later")).to_be_visible()
    expect(page.locator(".labels li").nth(1)).not_to_be_attached()
    expect(page.get_by_text("Safe to show")).to_be_visible()
    page.get_by_text("Answered in").click()
    expect(page.locator(".timing").get_by_text("Embed")).to_be_visible()
    page.wait_for_function("() => [...document.querySelectorAll('.card img')].slice(0, 4).every((i) => i.naturalWidth)")


def test_the_picture_is_scaled_down_before_it_is_sent(new_page: Any, tmp_path: Path) -> None:
    from PIL import Image

    large = tmp_path / "large.png"
    Image.linear_gradient("L").resize((3000, 1500)).convert("RGB").save(large)
    page = new_page()
    with search_by(page) as asked:
        page.set_input_files("[data-testid=file]", large)
    query = asked.answer["query"]
    assert (query["width"], query["height"], query["format"]) == (1024, 512, "JPEG")


def test_white_on_nothing_is_sent_on_a_ground_that_shows_it(new_page: Any, tmp_path: Path) -> None:
    from PIL import Image, ImageDraw

    snow = Image.new("RGBA", (400, 300))
    ImageDraw.Draw(snow).ellipse((40, 40, 300, 200), "white")
    snow.save(tmp_path / "snow.png")
    page = new_page()
    with search_by(page):
        page.set_input_files("[data-testid=file]", tmp_path / "snow.png")
    corner = """async ([image]) => {
      const canvas = new OffscreenCanvas(1, 1).getContext("2d");
      canvas.drawImage(await createImageBitmap(image), 0, 0);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    }"""
    assert page.locator(".stage img").evaluate_all(corner) == pytest.approx([96, 96, 96, 255], abs=2)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_server_chooses_the_frame(
    new_page: Any, picture: Path, product: Product, tmp_path: Path, form: str
) -> None:
    from PIL import Image

    with Image.open(picture) as opened:
        drawn = opened.convert("RGBA")
    white = Image.new("RGBA", drawn.size, "white")
    shown = Image.alpha_composite(white, drawn).convert("RGB")
    white.convert("RGB").save(tmp_path / f"moving.{form.lower()}", form, save_all=True, append_images=[shown, shown])
    page = new_page()
    with search_by(page) as asked:
        page.set_input_files("[data-testid=file]", tmp_path / f"moving.{form.lower()}")
    assert asked.answer["query"]["format"] == form
    assert titles(page)[0] == product.title


def test_what_this_browser_cannot_show_is_searched_all_the_same(
    new_page: Any, picture: Path, product: Product, tmp_path: Path
) -> None:
    import pillow_heif
    from PIL import Image

    with Image.open(picture) as opened:
        drawn = opened.convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    pillow_heif.from_pillow(white).save(tmp_path / "photo.heic")
    page = new_page()
    with search_by(page) as asked:
        page.set_input_files("[data-testid=file]", tmp_path / "photo.heic")
    assert asked.answer["query"]["format"] == "HEIF"
    assert titles(page)[0] == product.title
    expect(page.get_by_text("This browser cannot show HEIC pictures")).to_be_visible()


def test_a_pasted_picture_and_an_address_are_searched(new_page: Any, picture: Path, product: Product) -> None:
    page = new_page()
    paste(page, picture.name, picture.read_bytes(), f"image/{picture.suffix[1:]}")
    page.wait_for_selector(".card[data-verdict]")
    address = page.locator(".card[data-verdict] img").first.get_attribute("src")
    page.get_by_role("button", name="start over").click()
    page.get_by_label("address of a picture").fill("https://")
    page.keyboard.press("Enter")
    expect(page.get_by_text("That is not the address")).to_be_visible()
    page.get_by_label("address of a picture").fill(address)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card[data-verdict=exact]")
    assert titles(page)[0] == product.title


def test_a_picture_that_is_not_on_the_page_any_more_takes_no_memory(new_page: Any, picture: Path) -> None:
    page = new_page()
    page.evaluate("""() => {
      window.given = [];
      window.takenBack = [];
      const { createObjectURL, revokeObjectURL } = URL;
      URL.createObjectURL = (blob) => window.given[window.given.push(createObjectURL(blob)) - 1];
      URL.revokeObjectURL = (address) => { window.takenBack.push(address); revokeObjectURL(address); };
    }""")
    # The second takes the place of the first before that is ready.
    given = [base64.b64encode(picture.read_bytes()).decode(), "image/png", picture.name]
    page.wait_for_selector("main")
    page.evaluate(f"(given) => {{ ({DROP})(given); ({DROP})(given); }}", given)
    page.wait_for_selector(".card[data-verdict]")
    page.wait_for_function("() => window.given.length === 2")
    page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
    page.wait_for_function("() => window.takenBack.length === 1")
    assert page.locator(".stage img").first.get_attribute("src") not in page.evaluate("window.takenBack")


def test_a_link_repeats_the_search(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    link, found = page.url, titles(page)
    assert re.search(r"#.*generation=\d+&model=[0-9a-z]+&q=[\w-]+$", link)
    other = new_page(link)
    other.wait_for_selector(".card[data-verdict]")
    assert titles(other) == found
    expect(other.get_by_text("The picture is not in it")).to_be_visible()
    other.get_by_role("button", name=f"More like this: {found[1]}").click()
    other.get_by_alt_text(f"Searched picture: {found[1]}").wait_for()
    other.wait_for_selector(".card[data-verdict]")
    alike = titles(other)
    afresh = new_page(other.url)
    afresh.get_by_alt_text(f"Searched picture: {found[1]}").wait_for()
    afresh.wait_for_selector(".card[data-verdict]")
    assert titles(afresh) == alike


def test_a_link_of_another_model_is_not_searched(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    other = new_page(re.sub(r"model=\w+", "model=older", page.url))
    other.get_by_role("heading", name="another model").wait_for()


def test_a_link_of_another_model_ends_the_search_before_it(new_page: Any, picture: Path, product: Product) -> None:
    page = new_page()
    drop_picture(page, picture)
    link = re.sub(r"model=\w+", "model=older", page.url.partition("#")[2])
    page.get_by_role("button", name="start over").click()
    held: list[Any] = []
    page.route("**/v1/search", lambda route: held.append(route))
    page.get_by_label("address of a picture").fill(product.title)
    with page.expect_request("**/v1/search") as asked:
        page.keyboard.press("Enter")
    with page.expect_event("requestfailed", lambda request: request == asked.value):
        page.evaluate("(link) => { location.hash = link; }", link)
    page.get_by_role("heading", name="another model").wait_for()
    assert page.url.endswith(link)


def test_that_the_catalogue_has_changed_is_said_of_the_link_alone(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    found = titles(page)
    page.get_by_role("button", name=f"More like this: {found[1]}").click()
    page.wait_for_url("**/#item=*")
    page.wait_for_selector(".card[data-verdict]")
    link = re.sub(r"generation=\d+", "generation=5", page.url.partition("#")[2])
    page.go_back()
    held: list[Any] = []
    page.route("**/v1/items/*", lambda route: held.append(route))
    page.evaluate("(link) => { location.hash = link; }", link)
    page.get_by_text("The catalogue has changed since this link was made").wait_for()
    page.get_by_role("combobox", name="Language").select_option("de")
    page.get_by_text("Der Katalog hat sich geändert, seit dieser Link entstand").wait_for()
    page.get_by_role("combobox", name="Sprache").select_option("en")
    page.get_by_text("The catalogue has changed since this link was made").wait_for()
    page.go_back()
    page.get_by_alt_text(f"Searched picture: {picture.name}").wait_for()
    with page.expect_response("**/v1/items/*"):
        held[0].continue_()
    expect(page.get_by_text("The catalogue has changed since this link was made")).to_have_count(0)


@pytest.mark.parametrize("is_late", [False, True], ids=["after-its-results", "after-it-was-left"])
def test_the_item_of_a_link_is_known_on_the_way_back(new_page: Any, is_late: bool) -> None:
    page = new_page()
    page.locator("button.example").first.click()
    page.wait_for_url("**/#item=*")
    name = page.locator(".query-name").inner_text()
    link = page.url
    page = new_page("about:blank")
    held: list[Any] = []
    page.route("**/v1/items/*", lambda route: held.append(route))
    page.goto(link)
    page.wait_for_selector(".card[data-verdict]")
    if not is_late:
        held[0].continue_()
        expect(page.locator(".query-name")).to_have_text(name)
    page.locator(".card .text-button").first.click()
    page.wait_for_url(lambda url: "#item=" in url and url != link)
    settled(page)
    page.unroute("**/v1/items/*")
    page.go_back()
    expect(page.locator(".query-name")).to_have_text(name)


def test_back_and_forward_show_what_was_there(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    found = titles(page)
    assert page.title().startswith(f"{picture.name}: the same picture")
    page.get_by_role("button", name="Show more").scroll_into_view_if_needed()
    depth = page.evaluate("scrollY")
    assert depth > 0
    page.get_by_role("button", name=f"More like this: {found[1]}").dispatch_event("click")
    page.get_by_text(f"More like {found[1]}", exact=True).wait_for()
    page.wait_for_selector(".card[data-verdict]")
    assert page.evaluate("scrollY") == 0
    assert found[1] not in titles(page)
    assert page.title().startswith(f"More like {found[1]}")
    assert "#item=" in page.url
    page.go_back()
    page.get_by_alt_text(f"Searched picture: {picture.name}").wait_for()
    assert titles(page) == found
    page.wait_for_function("(depth) => Math.abs(scrollY - depth) < 2", arg=depth)
    assert page.title().startswith(f"{picture.name}: the same picture")
    page.go_forward()
    page.get_by_text(f"More like {found[1]}", exact=True).wait_for()
    page.go_back()
    page.go_back()
    page.get_by_role("heading", name="Search by picture").wait_for()


def test_an_example_starts_a_search(new_page: Any) -> None:
    page = new_page()
    page.locator(".example").first.click()
    page.wait_for_selector(".card[data-verdict]")
    assert len(titles(page)) == 12
    page.get_by_role("button", name="Show more").click()
    page.wait_for_selector(".grid > li:nth-child(36)")
    assert "k=36" in page.url


def test_filters_narrow_the_results_and_count(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    box = page.get_by_role("group", name="Collection").get_by_role("checkbox").first
    count = page.get_by_role("group", name="Collection").locator(".check-count").first.inner_text()
    with search_by(page) as asked:
        box.check()
    assert len(asked.request["filters"]["collection"]) == 1
    expect(page.get_by_text(f"{count} items pass")).to_be_visible()
    assert len(titles(page)) == min(int(count), 12)
    assert "collection=" in page.url
    page.get_by_placeholder("From").fill("999999999")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="No item passes these filters").wait_for()
    page.get_by_role("button", name="Clear all filters").click()
    page.wait_for_selector(".card[data-verdict]")
    assert "collection=" not in page.url
    expect(box).not_to_be_checked()


def test_exact_and_a_metric_are_asked_for(new_page: Any, address: str, picture: Path) -> None:
    page = new_page(f"{address}/?owner")
    drop_picture(page, picture)
    page.get_by_text("Advanced").click()
    with search_by(page) as asked:
        page.get_by_role("radio", name="Exact").check()
    assert asked.answer["mode"] == "exact"
    with search_by(page) as asked:
        page.get_by_label("Metric").select_option("cosine")
    assert asked.answer["mode"] == "metric"
    assert "mode=exact&metric=cosine" in page.url


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over the picture, in fractions of its sides."""
    frame = page.get_by_test_id("stage").bounding_box()
    for (x, y), act in ((start, page.mouse.down), (end, page.mouse.up)):
        page.mouse.move(frame["x"] + frame["width"] * x, frame["y"] + frame["height"] * y, steps=6)
        act()


def test_a_box_is_drawn_resized_and_taken_away(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    with search_by(page) as asked:
        drag(page, (0.2, 0.3), (0.7, 0.8))
    assert asked.request["box"] == pytest.approx([0.2, 0.3, 0.5, 0.5], abs=0.02)
    with search_by(page) as asked:
        drag(page, (0.7, 0.8), (0.9, 0.9))
    assert asked.request["box"] == pytest.approx([0.2, 0.3, 0.7, 0.6], abs=0.02)
    with search_by(page) as asked:
        page.get_by_role("button", name="Undo drawing").click()
    assert asked.request["box"] == pytest.approx([0.2, 0.3, 0.5, 0.5], abs=0.02)
    with search_by(page) as asked:
        page.get_by_role("button", name="Clear").click()
    assert "box" not in asked.request


def test_a_click_that_slips_draws_no_box(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    drag(page, (0.2, 0.3), (0.21, 0.305))
    expect(page.locator("[aria-live=polite]")).to_have_text(re.compile(r"^12 matches\."))
    expect(page.get_by_role("button", name="Undo drawing")).to_be_disabled()
    with search_by(page) as asked:
        drag(page, (0.2, 0.3), (0.7, 0.8))
    assert "box" in asked.request
    with search_by(page) as asked:
        drag(page, (0.1, 0.1), (0.11, 0.105))
    assert "box" not in asked.request


def test_what_is_painted_out_is_left_out(new_page: Any, picture: Path) -> None:
    page = new_page()
    drop_picture(page, picture)
    page.get_by_role("button", name="Paint out").click()
    page.get_by_role("radio", name="Broad").check(force=True)
    with search_by(page) as asked:
        drag(page, (0.1, 0.5), (0.9, 0.5))
    exclude = asked.request["exclude"]
    assert asked.answer["matches"]
    assert 1 <= len(exclude) <= 64
    covered = [x <= 0.5 <= x + width and y <= 0.5 <= y + height for x, y, width, height in exclude]
    assert sum(covered) >= 1
    assert not any(y < 0.2 for _, y, _, _ in exclude)


def test_the_camera_is_asked_for_a_photo(new_page: Any) -> None:
    page = new_page()
    page.get_by_role("button", name="Take a photo").click()
    shoot = page.get_by_role("button", name="Search with this photo")
    page.wait_for_function("() => document.querySelector('video')?.videoWidth > 0")
    with search_by(page):
        shoot.click()
    page.get_by_alt_text("Searched picture: Photo").wait_for()


@pytest.fixture
def open_address(demo_app: App) -> Iterator[str]:
    """An endpoint that the pages of other origins may ask."""
    settings = msgspec.structs.replace(demo_app.settings, cors_origins=("*",))
    with App(settings, stores=demo_app.stores, embedder=demo_app.embedder) as app:
        server = Server(app.site({})).start()
        yield server.address
        server.stop()


@pytest.fixture
def bucket(built_page: Path, open_address: str, tmp_path: Path) -> Iterator[str]:
    """The page as a bucket serves it: below a prefix, without index pages, elsewhere than the endpoint."""
    shutil.copytree(built_page, tmp_path / "my-bucket")
    config = {"endpoint": open_address, "title": "Finder", "notes": [{"text": "Licence", "href": "https://a.example/"}]}
    (tmp_path / "my-bucket" / "config.json").write_bytes(msgspec.json.encode(config))

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/my-bucket/index.html"
        server.shutdown()
        thread.join()


def test_the_page_works_below_a_bucket_s_prefix(new_page: Any, bucket: str, picture: Path) -> None:
    page = new_page(bucket)
    page.wait_for_selector("main")
    assert page.title() == "Finder"
    with page.expect_response("**/v1/search") as answered:
        drop_picture(page, picture)
    assert "Retry-After" in answered.value.header_value("access-control-expose-headers")
    link = page.url
    assert link.startswith(bucket + "#")
    page.get_by_role("button", name="start over").click()
    assert page.url == bucket
    expect(page.get_by_role("link", name="Licence")).to_have_attribute("href", "https://a.example/")
    other = new_page(link)
    other.wait_for_selector(".card[data-verdict]")


def test_the_page_asks_nobody_but_the_endpoint_and_the_pictures_hosts(
    new_page: Any, chromium: Any, address: str, picture: Path, demo_shop: Any
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.split("/")[2]) if request.url.startswith("http") else None)
    page.goto(address)
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.wait_for_selector(".card[data-verdict]")
    context.close()
    assert asked <= {address.removeprefix("http://"), demo_shop.host}


def test_no_test_takes_what_is_not_there_yet_for_missing() -> None:
    """`expect` waits; an assertion about what `is_visible` says asks once, and fails where the machine is busy."""
    once = re.compile(r"assert .*\.(?:is_\w+|count|all_\w+)\(\)")
    tests = {path.name: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
    assert {name: found for name, text in tests.items() if (found := once.findall(text))} == {}
