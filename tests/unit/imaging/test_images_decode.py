"""Pixels or a reason: nothing else comes out of `decode`, whatever goes in."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit.imaging.images_hostile import (
    BAD,
    GOOD,
    SEEDS,
    Expected,
    box,
    chunk,
    encoded,
    frames,
    photo,
    png,
    quarters,
)

from visor.errors import UndecodableImage
from visor.imaging.decode import FORMATS, FRAMES_MAX, DecodedImage, decode_image
from visor.imaging.jpeg import PREVIEWS_MAX, largest_preview
from visor.imaging.jpeg2000 import levels, structure_bytes

PIXELS_MAX = 60_000_000

MEASURE = """
import re, sys
from pathlib import Path
from visor.imaging.decode import decode_image
data, status = Path(sys.argv[1]).read_bytes(), Path("/proc/self/status")
Path("/proc/self/clear_refs").write_text("5")
before = int(re.search(r"VmRSS:\\s+(\\d+)", status.read_text())[1])
decode_image(data, pixels_max=60_000_000, side_hint=299)
print((int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) - before) * 1024)
"""
"""Prints by how many bytes decoding a file makes the process grow at most."""
SIDE = (2048, 2048)
SHADES = [Image.new("RGB", SIDE, (90, 20, 30 + shade)) for shade in range(4)]
"""Hardly different, so that none is worth stopping at."""
MEMORY: dict[str, Callable[[], bytes]] = {
    form: lambda form=form: encoded(photo().resize(SIDE), form)  # type: ignore[misc]
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000")
}
MEMORY["JPEG progressive"] = lambda: encoded(photo().resize(SIDE), "JPEG", progressive=True, subsampling=0)
MEMORY["PNG alpha"] = lambda: encoded(Image.new("RGBA", SIDE, (90, 20, 30, 40)), "PNG")
MEMORY["PNG deep"] = lambda: png(
    *SIDE, chunk(b"IDAT", zlib.compress(bytes(SIDE[1] * (1 + 8 * SIDE[0])))), depth=16, colour=6
)
MEMORY["AVIF alpha"] = lambda: encoded(Image.new("RGBA", SIDE, (90, 20, 30, 40)), "AVIF", subsampling="4:4:4")
MEMORY["HEIF alpha"] = lambda: encoded(photo().convert("RGBA").resize(SIDE), "HEIF", chroma=444)
MEMORY["TIFF float"] = lambda: encoded(Image.new("F", SIDE, 0.5), "TIFF", compression="tiff_lzw")
for moving in ("WEBP", "GIF", "PNG", "AVIF"):
    MEMORY[f"{moving} moving"] = lambda form=moving: frames(*SHADES, form=form, duration=40)  # type: ignore[misc]
A_PIXEL = dict.fromkeys(MEMORY, 6) | {"WEBP": 17, "WEBP moving": 17, "GIF moving": 14, "PNG moving": 14}
A_PIXEL |= {"AVIF": 10, "AVIF moving": 17, "HEIF": 8, "JPEG": 4, "AVIF alpha": 13, "HEIF alpha": 12.5, "PNG deep": 10}

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
@pytest.mark.slow
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


@pytest.mark.parametrize("share", [0.6, 0.8, 0.98])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_jpeg_whose_end_is_missing_is_what_browsers_show(share: float, options: dict[str, Any]) -> None:
    large = photo().resize((640, 480))
    data = encoded(large, "JPEG", quality=90, **options)
    start = data.index(b"\xff\xda")
    decoded = decode_image(data[: start + int((len(data) - start) * share)], pixels_max=PIXELS_MAX)
    assert decoded.pixels.size == (640, 480)
    upper = (0, 0, 640, int(480 * (share - 0.15)))
    there, whole = (np.asarray(one.crop(upper), int) for one in (decoded.pixels, large))
    assert np.abs(there - whole).mean() < (20 if options.get("progressive") else 4)


def large_file(name: str) -> bytes:
    """A picture of 1,600 × 900 pixels."""
    picture = photo().resize((1600, 900))
    form, mode, options = LARGE[name]
    return encoded(picture.convert(mode), form, **options)


LARGE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", "RGB", {}),
    "jpeg 2000": ("JPEG2000", "RGB", {}),
    "png": ("PNG", "RGB", {}),
    "png with alpha": ("PNG", "RGBA", {}),
    "png palette": ("PNG", "P", {}),
    "png grey": ("PNG", "L", {}),
    "png grey with alpha": ("PNG", "LA", {}),
    "tiff lzw": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "tiff raw": ("TIFF", "RGB", {}),
    "tiff deflate": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    "tiff cmyk": ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
    "tiff turned": ("TIFF", "RGB", {"compression": "tiff_lzw", "tiffinfo": {0x0112: 6}}),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_too_large_as_a_whole_is_scaled_while_it_is_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = large_file(name)
    whole = decode_image(data, pixels_max=PIXELS_MAX, side_hint=200)
    monkeypatch.setattr("visor.imaging.decode.BYTES_MAX", 0)
    monkeypatch.setattr("visor.imaging.bands.BAND_BYTES", 300_000)
    decoded = decode_image(data, pixels_max=1600 * 900 // (9 if name == "jpeg" else 3), side_hint=200)
    assert (decoded.width, decoded.height) == (whole.width, whole.height)
    assert min(decoded.pixels.size) >= 180
    same = whole.pixels.resize(decoded.pixels.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(same, int) - np.asarray(decoded.pixels, int)).mean() < 4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["WEBP", "AVIF", "GIF"])
def test_what_cannot_be_scaled_is_refused_with_what_to_do(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visor.imaging.decode.BYTES_MAX", 0)
    data = frames(photo().resize((1600, 900)), quarters().resize((1600, 900)), form=form, duration=50)
    with pytest.raises(UndecodableImage, match="too much memory") as caught:
        decode_image(data, pixels_max=1_000_000, side_hint=200)
    assert "VISOR_PIXELS_MAX" in str(caught.value)


@pytest.mark.parametrize("side", [901, 1000, 1023, 1024, 1025])
def test_a_jpeg_2000_of_any_size_is_scaled(side: int) -> None:
    data = encoded(photo().resize((side, side + 6)), "JPEG2000")
    for hint in (16, 33, 70, 130, 300):
        assert hint <= min(decode_image(data, pixels_max=PIXELS_MAX, side_hint=hint).pixels.size) < 2 * hint


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 4000), (4000, 1), (79, 3686), (3, 7)])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "JPEG2000"])
@pytest.mark.parametrize("side", [None, 1, 299])
def test_thin_and_tiny_pictures(width: int, height: int, form: str, side: int | None) -> None:
    data = encoded(photo().resize((width, height)), form)
    decoded = decode_image(data, pixels_max=PIXELS_MAX, side_hint=side)
    assert (decoded.width, decoded.height) == (width, height)
    assert min(decoded.pixels.size) >= 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", MEMORY)
def test_no_decoder_takes_more_memory_than_is_counted(name: str, tmp_path: Path) -> None:
    file = tmp_path / "picture"
    file.write_bytes(MEMORY[name]())
    found = subprocess.run([sys.executable, "-c", MEASURE, str(file)], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 2048 * 2048 * A_PIXEL[name] + 32_000_000


@pytest.mark.slow
def test_jpeg_xl_is_decoded_or_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = pytest.importorskip("imagecodecs", reason="in the extra `formats`, which is optional")
    for size, options in (((96, 64), {}), ((1, 1), {}), ((1024, 768), {}), ((333, 999), {"usecontainer": True})):
        picture = quarters().resize(size)
        decoded = decode_image(codec.jpegxl_encode(np.asarray(picture), **options), pixels_max=PIXELS_MAX)
        assert (decoded.format, decoded.pixels.size) == ("JXL", size)
        assert np.abs(np.asarray(decoded.pixels, int) - np.asarray(picture, int)).mean() < 8
    data = codec.jpegxl_encode(np.zeros((900, 1600, 3), np.uint8))
    with pytest.raises(UndecodableImage, match="1,600 x 900 pixels"):
        decode_image(data, pixels_max=1_000_000)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UndecodableImage, match=re.escape("visor-search[formats]")):
        decode_image(data, pixels_max=PIXELS_MAX)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float16, np.float32])
def test_a_deep_jpeg_xl_is_decoded_and_counts_for_more(depth: type, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = pytest.importorskip("imagecodecs", reason="in the extra `formats`, which is optional")
    greatest = np.iinfo(depth).max if np.issubdtype(depth, np.integer) else 1
    picture = np.asarray(quarters())
    data = codec.jpegxl_encode((picture * (greatest / 255)).astype(depth), lossless=True)
    decoded = decode_image(data, pixels_max=PIXELS_MAX)
    assert np.abs(np.asarray(decoded.pixels, int) - picture).max() <= 1
    a_pixel = {np.uint8: 8, np.uint16: 16}.get(depth, 32)
    for limit, is_enough in ((96 * 64 * a_pixel, True), (96 * 64 * a_pixel - 1, False)):
        monkeypatch.setattr("visor.imaging.decode.BYTES_MAX", limit)
        with nullcontext() if is_enough else pytest.raises(UndecodableImage, match="too much memory"):
            decode_image(data, pixels_max=96 * 64)


def test_another_box_does_not_say_how_large_a_jpeg_xl_is() -> None:
    codec = pytest.importorskip("imagecodecs", reason="in the extra `formats`, which is optional")
    large, small = (bytes(codec.jpegxl_encode(np.zeros((side, side, 3), np.uint8))) for side in (300, 8))
    start = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    for said in (box(b"xml ", b"jxlc" + small), box(b"Exif", bytes(4) + small)):
        # The codestream as a whole, and cut anywhere.
        for cut in (None, 1, 2, 20):
            first, *rest = (large,) if cut is None else (large[:cut], large[cut:])
            whole = box(b"jxlc", first) if not rest else box(b"jxlp", bytes(4) + first)
            whole += b"".join(box(b"jxlp", b"\x80\0\0\1" + part) for part in rest)
            assert decode_image(start + said + whole, pixels_max=90_000).width == 300
            with pytest.raises(UndecodableImage, match="300 x 300 pixels"):
                decode_image(start + said + whole, pixels_max=89_999)


def test_another_box_does_not_say_what_a_jpeg_2000_is_made_of() -> None:
    data = encoded(photo(), "JPEG2000", tile_size=(4, 4))
    other = encoded(photo(), "JPEG2000", no_jp2=True, num_resolutions=2)
    start = data.index(b"jp2c") - 4
    disguised = data[:start] + box(b"uuid", bytes(16) + other) + data[start:]
    assert (structure_bytes(disguised), levels(disguised)) == (structure_bytes(data), levels(data))
    assert structure_bytes(disguised) > structure_bytes(other)
    assert structure_bytes(data[:start]) == levels(data[:start]) == 0


def test_a_preview_is_not_looked_for_behind_thousands_of_segments() -> None:
    jpeg = encoded(photo(), "JPEG")
    beginnings = b"\xff\xd8\xff\xe0\0\2" * PREVIEWS_MAX
    assert largest_preview(beginnings + b"\xff\xe0\0\2" * 2_000 + jpeg) == (0, 0)
    assert largest_preview(b"RAW" + jpeg) == (3, 96 * 64)


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_of_the_fuzz_are_pictures(name: str) -> None:
    assert decode_image(SEEDS[name](), pixels_max=PIXELS_MAX).format in FORMATS


def outcome(data: bytes) -> DecodedImage | UndecodableImage:
    try:
        return decode_image(data, pixels_max=1_000_000, side_hint=32)
    except UndecodableImage as exc:
        return exc


@pytest.mark.slow
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
