"""What has nothing in it is known by that, however it was encoded; what shows something is not taken for it."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageDraw
from tests.unit.imaging.empty_pictures import (
    BLANK,
    CUT,
    EMPTY,
    FLAT,
    NOISE,
    as_jpeg,
    as_png,
    disc,
    half_a_picture,
    scene,
    transparent_ghost,
    transparent_lettering,
)

from visor.demo.catalogue import DemoCatalogue
from visor.errors import UndecodableImage
from visor.imaging.content import ITEM_INNER_MIN, QUERY_INNER_MIN, Content, Emptiness, content_of
from visor.imaging.decode import decode_image as decode

FLOORS = {"query": QUERY_INNER_MIN, "item": ITEM_INNER_MIN}


def seen(data: bytes) -> Content:
    return content_of(decode(data, pixels_max=200_000_000, side_hint=342).pixels)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_compare_is_found_on_both_sides(name: str, floor: str) -> None:
    kinds = {Emptiness.BLANK: BLANK, Emptiness.FLAT: FLAT, Emptiness.NOISE: NOISE, Emptiness.CUT: CUT}
    [expected] = [kind for kind, names in kinds.items() if name in names]
    assert seen(as_png(EMPTY[name]())).emptiness(FLOORS[floor]) is expected


@pytest.mark.parametrize("quality", [95, 80, 50])
@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_compare_is_found_in_a_jpeg_of_it(name: str, quality: int) -> None:
    """Of a query: JPEG leaves ripples around a disc, which as an item of the catalogue may count as something."""
    assert seen(as_jpeg(EMPTY[name](), quality)).emptiness(QUERY_INNER_MIN) is not None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_black_picture_of_any_size_is_blank() -> None:
    """A page sends a large one smaller; a server that gets it whole refuses it by its size."""
    assert seen(as_jpeg(Image.new("L", (7_000, 7_000)))).emptiness(ITEM_INNER_MIN) is Emptiness.BLANK
    with pytest.raises(UndecodableImage, match="12,000 x 12,000 pixels"):
        decode(as_jpeg(Image.new("L", (12_000, 12_000))), pixels_max=60_000_000)


def test_a_third_of_a_jpeg_is_refused_and_what_a_browser_makes_of_half_is_known() -> None:
    whole = as_jpeg(scene())
    with pytest.raises(UndecodableImage, match="ends before its picture does"):
        decode(whole[: len(whole) // 3], pixels_max=60_000_000)
    again = as_jpeg(half_a_picture(), 80)
    assert seen(again).emptiness(QUERY_INNER_MIN) is Emptiness.CUT
    assert seen(whole).emptiness(QUERY_INNER_MIN) is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(400, 300), (64, 48), (1600, 300), (40, 800)])
def test_a_scene_has_something_to_compare(seed: int, size: tuple[int, int]) -> None:
    image = scene(seed).resize(size)
    for data in (as_png(image), as_jpeg(image, 50)):
        assert seen(data).emptiness(QUERY_INNER_MIN) is None


@pytest.mark.parametrize("border", ["white", "black", "grey"])
def test_a_border_or_a_caption_makes_no_half_of_a_picture(border: str) -> None:
    framed = Image.new("RGB", (520, 520), border)
    framed.paste(scene(), (60, 110))
    assert seen(as_jpeg(framed)).emptiness(QUERY_INNER_MIN) is None
    captioned = scene()
    ImageDraw.Draw(captioned).rectangle((0, 270, 400, 300), fill=border)
    assert seen(as_jpeg(captioned)).emptiness(QUERY_INNER_MIN) is None


def test_a_drawing_of_flat_shapes_that_do_not_touch_shows_something() -> None:
    drawing = Image.new("RGB", (300, 300), "white")
    pen = ImageDraw.Draw(drawing)
    for number, colour in enumerate(("red", "green", "blue", "orange", "black")):
        x, y = 20 + 95 * (number % 3), 30 + 140 * (number // 3)
        pen.ellipse((x, y, x + 70, y + 90), fill=colour)
    content = content_of(drawing)
    assert content.inner < ITEM_INNER_MIN
    assert content.emptiness(QUERY_INNER_MIN) is None
    assert content_of(drawing.quantize(2).convert("RGB")).emptiness(QUERY_INNER_MIN) is Emptiness.FLAT


def test_a_plain_subject_on_a_plain_ground_is_an_item_but_no_query() -> None:
    """A sun with a face: some drawings show less than a query must."""
    face = disc()
    pen = ImageDraw.Draw(face)
    for x in (110, 170):
        pen.ellipse((x, 110, x + 16, 130), fill="black")
    pen.arc((110, 130, 190, 190), 20, 160, fill="black", width=3)
    content = content_of(face)
    assert content.emptiness(ITEM_INNER_MIN) is None
    assert content.inner > ITEM_INNER_MIN


@pytest.mark.parametrize("picture", [transparent_lettering, transparent_ghost])
def test_white_on_nothing_is_seen(picture: object) -> None:
    data = picture()  # type: ignore[operator]
    pixels = decode(data, pixels_max=1_000_000).pixels
    assert pixels.getpixel((0, 0)) == (96, 96, 96)
    shown = pixels.convert("L").getextrema()
    assert shown[1] == 255, "the subject keeps its colour"


def test_a_shape_on_nothing_is_an_item_and_lettering_is_none() -> None:
    assert seen(transparent_ghost()).emptiness(ITEM_INNER_MIN) is None
    assert seen(transparent_lettering()).emptiness(ITEM_INNER_MIN) is Emptiness.FLAT


@pytest.mark.parametrize("size", [18, 30, 40, 60])
@pytest.mark.parametrize("height", [800, 1600])
def test_a_page_of_text_is_not_called_blank_or_noise(size: int, height: int) -> None:
    page = Image.new("RGB", (height * 3 // 4, height), "white")
    pen = ImageDraw.Draw(page)
    for y in range(20, height - size, size * 7 // 5):
        pen.text((20, y), "the quick brown fox jumps over the lazy dog " * 4, fill="black", font_size=size)
    assert content_of(page).emptiness(QUERY_INNER_MIN) in (None, Emptiness.FLAT)


@pytest.mark.parametrize("colour", ["black", "navy", "orange", "#d0d0d0"])
def test_other_colours_on_nothing_stay_on_white(colour: str) -> None:
    assert decode(transparent_lettering(colour), pixels_max=1_000_000).pixels.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("size", [(1, 1), (5, 400)])
def test_a_picture_of_nothing_at_all_is_white(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", size, (0, 0, 0, 0)).save(buffer, "PNG")
    assert decode(buffer.getvalue(), pixels_max=1_000_000).pixels.getpixel((0, 0)) == (255, 255, 255)


def test_the_demo_has_something_to_see(demo_catalogue: DemoCatalogue) -> None:
    contents = [seen(demo_catalogue.picture(product).read_bytes()) for product in demo_catalogue.products]
    found = [content.emptiness(ITEM_INNER_MIN) for content in contents]
    assert sum(one is not None for one in found) <= 1
    assert sum(content.inner >= QUERY_INNER_MIN for content in contents) >= len(contents) - 4
