"""The device looks: what the page sees itself is what the server would see, and no picture leaves the browser."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect
from tests.browser.page_driver import changed_answer, drop, drop_picture, search_by, settled, titles
from tests.browser.test_page_access import violations
from tests.browser.test_page_honesty import WARM_PIXELS

from visor.demo.catalogue import DemoCatalogue
from visor.imaging.decode import decode_image
from visor.models.embedder import Embedder
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.search.links import decode_vector

SWITCH = "Analyse pictures on this device"
MEDIAN_MIN, LEAST_MIN = 0.995, 0.98
"""Cosine of the device's vector to the server's."""


class Watch:
    """Every request of a browser profile that carries something, also those of its workers."""

    def __init__(self, page: Any) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.asked: list[str] = []
        page.context.on("request", self._note)

    def _note(self, request: Any) -> None:
        self.asked.append(request.url)
        if request.method != "GET":
            self.sent.append((request.url, request.post_data_buffer or b""))

    def fetched(self) -> list[str]:
        """What was asked for that only a look takes: the model, its description and the runtime."""
        return [url for url in self.asked if "/v1/model" in url or "litert" in url]

    def carried(self, data: bytes) -> bool:
        """Whether anything that was sent may be a picture: a form, a field for one, or the file's own bytes."""
        marks = (b'"image"', b"multipart", b"\xff\xd8\xff", b"/9j/", b"iVBOR", data[64:96])
        return any(mark in body for _, body in self.sent for mark in marks) or any(
            len(body) > 40_000 for _, body in self.sent
        )


def switch_on(page: Any) -> None:
    page.get_by_role("switch", name=SWITCH).check()
    page.wait_for_function("() => !document.querySelector('.device-fetching')", timeout=60_000)
    expect(page.get_by_role("switch", name=SWITCH)).to_be_checked()


def test_no_picture_leaves_a_device_that_looks_itself(
    new_page: Any, picture: Path, address: str, demo_catalogue: DemoCatalogue
) -> None:
    sent = new_page()
    with search_by(sent) as by_server:
        drop_picture(sent, picture)
    page = new_page(is_visitor_new=True)
    watch = Watch(page)
    page.get_by_text("stay on this device").wait_for()
    page.get_by_text("are fetched for that once").wait_for()
    expect(page.get_by_role("switch", name=SWITCH)).to_be_checked()
    assert not watch.fetched(), "nothing large is fetched before there is a sign of a picture"
    with search_by(page) as by_device:
        drop_picture(page, picture)
    assert watch.fetched()
    seen = by_device.request["seen"]
    assert not {"image", "box", "exclude"} & set(by_device.request)
    assert titles(page)[0] == titles(sent)[0]
    assert len(set(titles(page)) & set(titles(sent))) >= 0.9 * len(titles(sent))
    ours, theirs = by_device.answer, by_server.answer
    assert [one["verdict"] for one in ours["matches"][:1]] == [one["verdict"] for one in theirs["matches"][:1]]
    assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=0.05)
    assert ours["labels"][0]["name"] == theirs["labels"][0]["name"] == seen["labels"][0]["name"]
    assert ours["safety"]["unsafe"] == theirs["safety"]["unsafe"]

    page.get_by_role("button", name="More actions for").first.click()
    page.get_by_role("button", name="Why it matched").click()
    page.get_by_text("The warmer a part, the more it adds").wait_for()
    for heated in page.locator(".heated").all():
        canvas = heated.locator("canvas").element_handle()
        page.wait_for_function(f"(canvas) => ({WARM_PIXELS})(canvas) > 0", arg=canvas)
    page.keyboard.press("Escape")
    assert not watch.carried(picture.read_bytes())

    second = demo_catalogue.picture(demo_catalogue.products[20])
    page.get_by_test_id("added").first.set_input_files(second)
    page.locator(".chip", has_text=second.name).wait_for()
    settled(page)
    assert not watch.carried(picture.read_bytes())
    assert not watch.carried(second.read_bytes())

    # Only the server lays pictures over each other: it is asked before.
    page.get_by_role("button", name="More actions for").first.click()
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("It has not been sent yet").wait_for()
    assert not watch.carried(picture.read_bytes())
    page.get_by_role("button", name="Send this picture").click()
    page.get_by_role("dialog").locator("img").first.wait_for()
    assert watch.carried(picture.read_bytes())


def test_the_model_stays_and_the_device_looks_at_the_next_visit(new_page: Any, picture: Path) -> None:
    page = new_page()
    switch_on(page)
    watch = Watch(page)
    page.reload()
    expect(page.get_by_role("switch", name=SWITCH)).to_be_checked()
    with search_by(page) as asked:
        drop_picture(page, picture)
    assert "seen" in asked.request
    assert not [url for url in watch.asked if "/v1/model" in url]
    page.get_by_role("switch", name=SWITCH).uncheck()
    # The link would be searched for first, without a picture.
    page.evaluate("history.replaceState(null, '', location.pathname)")
    page.reload()
    with search_by(page) as asked:
        drop_picture(page, picture)
    assert "seen" not in asked.request


def test_a_picture_that_the_browser_cannot_open_is_sent_only_if_somebody_wants_that(new_page: Any) -> None:
    page = new_page(expect_failures=True)
    switch_on(page)
    watch = Watch(page)
    drop(page, "IMG_0001.HEIC", b"\0\0\0\x18ftypheic" + bytes(3000), "image/heic")
    page.get_by_role("heading", name="This browser cannot open this picture").wait_for()
    assert [url for url, _ in watch.sent if "/v1/search" in url] == []
    page.get_by_role("button", name="Send this picture").click()
    page.wait_for_function("() => document.querySelector('.notice-card h2')?.textContent.includes('read')")
    assert [url for url, _ in watch.sent if "/v1/search" in url]


def test_a_model_that_arrives_damaged_is_fetched_again_and_then_refused(new_page: Any, picture: Path) -> None:
    page = new_page(expect_failures=True)
    asked: list[str] = []

    def damage(route: Any) -> None:
        asked.append(route.request.url)
        response = route.fetch()
        body = bytearray(response.body())
        body[len(body) // 2] ^= 1
        route.fulfill(response=response, body=bytes(body))

    *_, small = page.evaluate("async () => (await fetch('./v1/model')).json()")["files"]
    page.context.route(f"**/v1/model/{small['sha256']}", damage)
    page.get_by_role("switch", name=SWITCH).check()
    page.get_by_text("arrived twice with the wrong bytes").wait_for(timeout=60_000)
    assert len(asked) == 2
    expect(page.get_by_role("switch", name=SWITCH)).not_to_be_checked()
    page.context.unroute(f"**/v1/model/{small['sha256']}")
    switch_on(page)
    with search_by(page) as searched:
        drop_picture(page, picture)
    assert "seen" in searched.request


def test_a_download_that_breaks_goes_on_with_what_has_come(new_page: Any) -> None:
    page = new_page(expect_failures=True)
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    first, second = (
        file["sha256"] for file in page.evaluate("async () => (await fetch('./v1/model')).json()")["files"]
    )
    page.context.route(f"**/v1/model/{second}", lambda route: route.abort())
    page.get_by_role("switch", name=SWITCH).check()
    page.get_by_text("The connection broke").wait_for(timeout=60_000)
    page.context.unroute(f"**/v1/model/{second}")
    asked.clear()
    switch_on(page)
    assert [url.rpartition("/")[2] for url in asked if "/v1/model/" in url] == [second] != [first]


def test_what_cannot_be_kept_is_fetched_at_each_visit(new_page: Any, address: str, picture: Path) -> None:
    page = new_page()
    page.context.new_cdp_session(page).send("Storage.overrideQuotaForOrigin", {"origin": address, "quotaSize": 1000})
    switch_on(page)
    page.get_by_text("does not keep the model").wait_for()
    with search_by(page) as asked:
        drop_picture(page, picture)
    assert "seen" in asked.request


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("delete window.WebAssembly", "cannot analyse pictures itself"),
        ("localStorage.setItem('visor-device', 'starting')", "too little memory"),
    ],
)
def test_where_a_device_is_not_able_its_picture_is_sent_and_the_page_says_so(
    new_page: Any, address: str, picture: Path, script: str, says: str
) -> None:
    page = new_page("about:blank")
    page.add_init_script(script)
    page.goto(address)
    page.get_by_text(says).wait_for()
    with search_by(page) as asked:
        drop_picture(page, picture)
    assert "seen" not in asked.request


def offers(page: Any, **changes: bool) -> None:
    """Let the owner's side offer something else."""
    changed_answer(page, "/v1/stats", lambda stats: stats["device"].update(changes))


@pytest.mark.parametrize(
    ("script", "default"),
    [
        ("", True),
        ("Object.defineProperty(Navigator.prototype, 'deviceMemory', {get: () => 2})", False),
        ("Object.defineProperty(Navigator.prototype, 'connection', {get: () => ({saveData: true})})", False),
        ("Object.defineProperty(Navigator.prototype, 'connection', {get: () => ({effectiveType: '3g'})})", False),
        ("Object.defineProperty(Navigator.prototype, 'connection', {get: () => ({type: 'cellular'})})", False),
        ("Object.defineProperty(Navigator.prototype, 'connection', {get: () => undefined})", True),
        ("delete Object.getPrototypeOf(window).caches; delete window.caches", False),
        ("localStorage.setItem('visor-device', 'off')", False),
    ],
)
def test_it_is_on_where_the_device_is_able_and_its_line_is_good(
    new_page: Any, address: str, script: str, default: bool
) -> None:
    page = new_page("about:blank", is_visitor_new=True)
    page.add_init_script(script)
    page.goto(address)
    page.get_by_role("switch", name=SWITCH).wait_for()
    expect(page.get_by_role("switch", name=SWITCH)).to_be_checked(checked=default)


def test_where_the_owner_pays_for_each_download_it_is_off_until_somebody_says_so(
    new_page: Any, address: str, picture: Path
) -> None:
    page = new_page("about:blank", is_visitor_new=True)
    offers(page, by_default=False)
    page.goto(address)
    page.get_by_text("are fetched once").wait_for()
    expect(page.get_by_role("switch", name=SWITCH)).not_to_be_checked()
    with search_by(page) as asked:
        drop_picture(page, picture)
    assert "seen" not in asked.request


@pytest.mark.parametrize("sign", ["choose", "drag", "camera"])
def test_the_model_comes_at_the_first_sign_of_a_picture(new_page: Any, sign: str) -> None:
    page = new_page(is_visitor_new=True)
    watch = Watch(page)
    page.get_by_role("switch", name=SWITCH).wait_for()
    page.wait_for_timeout(500)
    assert not watch.fetched()
    if sign == "drag":
        page.evaluate(
            """() => {
              const transfer = new DataTransfer();
              transfer.items.add(new File(["a"], "a.png", { type: "image/png" }));
              document.body.dispatchEvent(new DragEvent("dragenter", { dataTransfer: transfer, bubbles: true }));
            }"""
        )
    else:
        page.get_by_role("button", name={"choose": "Choose a picture", "camera": "Take a photo"}[sign]).click()
    page.locator(".device-fetching progress").wait_for()
    page.wait_for_function("() => !document.querySelector('.device-fetching')", timeout=60_000)
    assert watch.sent == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_who_does_not_want_to_wait_for_the_model_sends_the_picture(new_page: Any, picture: Path, colours: str) -> None:
    page = new_page(is_visitor_new=True, expect_failures=True, color_scheme=colours, reduced_motion="reduce")
    watch = Watch(page)
    held: list[Any] = []
    page.context.route("**/v1/model/*", lambda route: held.append(route))
    page.get_by_role("switch", name=SWITCH).wait_for()
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_text("Your picture waits here").wait_for()
    assert not watch.carried(picture.read_bytes())
    assert violations(page) == []
    with search_by(page) as asked:
        page.get_by_role("button", name="Send the picture instead").click()
    assert "seen" not in asked.request
    assert asked.answer["matches"]
    for route in held:
        route.continue_()
    page.context.unroute("**/v1/model/*")


def test_a_model_that_the_owner_has_no_more_of_sends_nothing_by_itself(new_page: Any, picture: Path) -> None:
    page = new_page(is_visitor_new=True, expect_failures=True)
    watch = Watch(page)
    page.route("**/v1/model", lambda route: route.fulfill(status=429, json={"title": "Used up", "status": 429}))
    page.get_by_role("switch", name=SWITCH).wait_for()
    drop(page, picture.name, picture.read_bytes(), "image/png")
    page.get_by_role("heading", name="The model has not arrived").wait_for()
    assert not watch.carried(picture.read_bytes())
    assert violations(page) == []
    page.get_by_role("button", name="Send this picture").click()
    page.wait_for_selector(".card[data-verdict]")


def test_an_owner_may_forbid_it(new_page: Any, address: str, picture: Path) -> None:
    page = new_page("about:blank", is_visitor_new=True)
    offers(page, allowed=False)
    page.goto(address)
    with search_by(page) as asked:
        drop_picture(page, picture)
    expect(page.get_by_role("switch", name=SWITCH)).to_have_count(0)
    assert "seen" not in asked.request


def _photo(seed: int, width: int, height: int) -> Image.Image:
    """Something like a photo: soft shapes, an outline, and grain."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(soft)
    for _ in range(6):
        x, y, size = (float(v) for v in rng.uniform(0, 1, 3))
        box = (
            x * width * 0.8,
            y * height * 0.8,
            (x * 0.8 + 0.1 + size * 0.3) * width,
            (y * 0.8 + 0.1 + size * 0.3) * height,
        )
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        (draw.ellipse if size > 0.5 else draw.rectangle)(box, fill=colour, outline="black", width=3)
    grain = rng.normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(soft, float) + grain, 0, 255).astype(np.uint8))


def _files() -> list[tuple[str, str, bytes]]:
    """Names, media types and bytes: what browsers decode, sideways, transparent, moving, small and large."""

    def saved(image: Image.Image, form: str, **options: Any) -> bytes:
        out = io.BytesIO()
        image.save(out, form, **options)
        return out.getvalue()

    sideways = Image.Exif()
    sideways[0x0112] = 6
    clear = _photo(5, 500, 400)
    hole = Image.new("L", clear.size, 0)
    ImageDraw.Draw(hole).ellipse((60, 40, 430, 370), fill=255)
    clear.putalpha(hole)
    return [
        ("a.jpg", "image/jpeg", saved(_photo(1, 640, 480), "JPEG", quality=90)),
        ("large.jpg", "image/jpeg", saved(_photo(2, 3000, 2000), "JPEG", quality=85)),
        ("sideways.jpg", "image/jpeg", saved(_photo(3, 900, 600), "JPEG", exif=sideways.tobytes())),
        ("b.png", "image/png", saved(_photo(4, 411, 733), "PNG")),
        ("clear.png", "image/png", saved(clear, "PNG")),
        ("c.webp", "image/webp", saved(_photo(6, 800, 600), "WEBP", quality=90)),
        ("small.png", "image/png", saved(_photo(7, 90, 60), "PNG")),
        ("tall.jpg", "image/jpeg", saved(_photo(8, 300, 1500), "JPEG", quality=92)),
        (
            "moving.gif",
            "image/gif",
            saved(
                Image.new("RGB", (320, 240), "white"),
                "GIF",
                save_all=True,
                append_images=[_photo(9, 320, 240), _photo(10, 320, 240)],
            ),
        ),
        ("d.bmp", "image/bmp", saved(_photo(11, 350, 260), "BMP")),
        ("grey.jpg", "image/jpeg", saved(_photo(12, 640, 640).convert("L"), "JPEG", quality=90)),
    ]


def test_a_device_sees_what_the_server_sees(new_page: Any, embedder: Embedder, tmp_path: Path) -> None:
    page = new_page()
    switch_on(page)
    cosines = {}
    for name, media_type, data in _files():
        with search_by(page) as asked:
            drop(page, name, data, media_type)
        seen = asked.request["seen"]
        decoded = decode_image(data, pixels_max=50_000_000, side_hint=embedder.description.input_side)
        vector, look = decode_vector(seen["vector"], embedder.dimension)
        cosines[name] = float(vector @ embedder.embed([decoded.pixels]).vectors[0])
        hashes = [
            np.frombuffer(one, np.uint8) for one in (base64.b64decode(seen["hash"]), perceptual_hash(decoded.pixels))
        ]
        assert len(hashes[0]) == len(hashes[1])
        assert int(np.unpackbits(hashes[0][:32] ^ hashes[1][:32]).sum()) <= 16, name
        assert (seen["width"], seen["height"]) == (decoded.width, decoded.height), name
        assert look is not None
        settled(page)
    print(json.dumps(cosines, indent=1))
    assert np.median(list(cosines.values())) >= MEDIAN_MIN
    assert min(cosines.values()) >= LEAST_MIN, cosines
