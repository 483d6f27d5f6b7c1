"""Pixels or a reason: nothing else comes out of `decode`, whatever goes in."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit.imaging.images_hostile import BAD, GOOD, SEEDS, Expected, encoded, photo, quarters

from visor.errors import UndecodableImage
from visor.imaging.decode import FORMATS, FRAMES_MAX, DecodedImage, decode_image

PIXELS_MAX = 60_000_000

# Pillow warns of what decode_image() then refuses or does without. Outside of tests a warning does not end a decode.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\..*"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


@pytest.mark.parametrize("name", GOOD)
def test_what_is_a_picture_comes_upright_in_srgb_on_white(name: str) -> None:
    data, expected = GOOD[name]
    decoded = decode_image(data, pixels_max=PIXELS_MAX)
    assert isinstance(expected, Expected)
    assert decoded.format == expected.format
    assert (decoded.width, decoded.height) == expected.size == decoded.pixels.size
    assert decoded.frame == expected.frame
    assert decoded.pixels.mode == "RGB"
    assert decoded.pixels.info == {}
    width, height = decoded.pixels.size
    spots = [(width // 4, height // 4), (3 * width // 4, height // 4), (width // 4, 3 * height // 4)]
    spots.append((3 * width // 4, 3 * height // 4))
    for spot, colour in zip(spots, expected.corners, strict=True):
        found = decoded.pixels.getpixel(spot)
        assert isinstance(found, tuple)
        assert all(abs(f - c) <= expected.tolerance for f, c in zip(found, colour, strict=True)), (spot, found, colour)


@pytest.mark.parametrize("name", BAD)
def test_what_is_none_gets_a_reason(name: str) -> None:
    data, words = BAD[name]
    with pytest.raises(UndecodableImage, match=words) as caught:
        decode_image(data, pixels_max=PIXELS_MAX)
    assert caught.value.found
    assert caught.value.valid
    assert "object at 0x" not in str(caught.value)


def test_a_memoryview_will_do() -> None:
    assert decode_image(memoryview(encoded(quarters(), "PNG")), pixels_max=PIXELS_MAX).format == "PNG"


def test_the_pixel_limit_is_the_callers() -> None:
    data = encoded(quarters(), "PNG")
    assert decode_image(data, pixels_max=96 * 64).pixels.size == (96, 64)
    with pytest.raises(UndecodableImage, match="96 x 64 pixels"):
        decode_image(data, pixels_max=96 * 64 - 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("side", [32, 100, 299, 512])
def test_a_hint_makes_it_smaller_but_keeps_the_side(form: str, side: int) -> None:
    large = photo().resize((1200, 800))
    data = encoded(large, form)
    decoded = decode_image(data, pixels_max=PIXELS_MAX, side_hint=side)
    assert (decoded.width, decoded.height) == (1200, 800)
    assert min(decoded.pixels.size) >= side
    assert (max(decoded.pixels.size) < 1200) == (side <= 400)
    whole = decode_image(data, pixels_max=PIXELS_MAX).pixels.resize(decoded.pixels.size, Image.Resampling.BOX)
    difference = [abs(a - b) for a, b in zip(whole.tobytes(), decoded.pixels.tobytes(), strict=True)]
    assert sum(difference) / len(difference) < 3


def test_a_hint_larger_than_the_picture_leaves_it() -> None:
    assert decode_image(encoded(quarters(), "JPEG"), pixels_max=PIXELS_MAX, side_hint=5000).pixels.size == (96, 64)


def test_sizes_are_upright_with_a_hint_too() -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    data = encoded(photo().resize((1200, 800)), "JPEG", exif=tags.tobytes())
    decoded = decode_image(data, pixels_max=PIXELS_MAX, side_hint=200)
    assert (decoded.width, decoded.height) == (800, 1200)
    assert decoded.pixels.size == (200, 300)


def test_a_long_animation_is_not_searched_to_its_end() -> None:
    # Hardly different shades, so that no frame is merged with the one before and none is worth stopping at.
    shades = [Image.new("RGB", (8, 8), (255, 255, 255 - index % 5)) for index in range(200)]
    data = encoded(shades[0], "GIF", save_all=True, append_images=[*shades[1:], quarters().resize((8, 8))])
    assert decode_image(data, pixels_max=PIXELS_MAX).frame < FRAMES_MAX
    assert decode_image(data, pixels_max=64).frame == 0


def test_an_animation_that_breaks_off_later_is_still_a_picture() -> None:
    faint = quarters().convert("L").point(lambda value: 128 + value // 50)
    data = encoded(faint, "GIF", save_all=True, append_images=[photo().convert("L")])
    assert decode_image(data, pixels_max=PIXELS_MAX).frame == 1
    assert decode_image(data[: len(data) // 2], pixels_max=PIXELS_MAX).frame == 0


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_of_the_fuzz_are_pictures(name: str) -> None:
    assert decode_image(SEEDS[name](), pixels_max=PIXELS_MAX).format in FORMATS


def outcome(data: bytes) -> DecodedImage | UndecodableImage:
    try:
        return decode_image(data, pixels_max=1_000_000, side_hint=32)
    except UndecodableImage as exc:
        return exc


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_give_pixels_or_a_reason(name: str, data: st.DataObject) -> None:
    damaged = bytearray(SEEDS[name]())
    for _ in range(data.draw(st.integers(1, 12))):
        # Headers and directories sit at the beginning; damage there finds more than damage in the pixels.
        reach = data.draw(st.sampled_from((64, 600, len(damaged))))
        place = data.draw(st.integers(0, min(reach, len(damaged)) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(damaged)) | st.just(len(damaged)))
    result = outcome(bytes(damaged[:end]))
    assert isinstance(result, DecodedImage | UndecodableImage)
    if isinstance(result, DecodedImage):
        assert result.pixels.mode == "RGB"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    head=st.sampled_from(
        [
            *(b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP"),
            *(b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypavif", b"<svg ", b"<?xml"),
        ]
    ),
    tail=st.binary(max_size=400),
)
def test_bytes_that_begin_like_a_picture_give_pixels_or_a_reason(head: bytes, tail: bytes) -> None:
    assert isinstance(outcome(head + tail), DecodedImage | UndecodableImage)
