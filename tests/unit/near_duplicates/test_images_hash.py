"""The hash and sketch of a picture, and what they tell: the same, an edited copy, or merely similar."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.unit.imaging.images_hostile import encoded

from visor.imaging.decode import decode_image
from visor.near_duplicates.fingerprint import (
    CELLS,
    HASH_BYTES,
    PDQ_BYTES,
    Bytes,
    cell_means,
    hash_distances,
    sketch_chroma,
    sketch_luma,
)
from visor.near_duplicates.overlay import _inverse, _laid
from visor.near_duplicates.perceptual_hash import pdq, perceptual_hash, ycbcr_planes
from visor.near_duplicates.verdict import Aligner, Placement, sketch_picture, verdicts
from visor_bench.answers.edits import EDITS, EXACT

SHARED_DATA = Path(os.environ.get("TEST_SHARED_DATA", Path(__file__).parents[3].parent / "shared" / "data"))


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with structure at every scale, as photos have."""
    random = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells, weight in ((3, 1.0), (6, 0.7), (14, 0.5), (40, 0.2)):
        noise = random.normal(size=(cells, cells, 3)) * weight
        layers = [
            Image.fromarray(noise[..., c].astype(np.float32)).resize(size, Image.Resampling.BICUBIC) for c in range(3)
        ]
        total += np.stack([np.asarray(layer) for layer in layers], axis=-1)
    return Image.fromarray(np.clip(128 + 45 * total, 0, 255).astype(np.uint8))


def row(image: Image.Image) -> Bytes:
    return np.frombuffer(perceptual_hash(image), dtype=np.uint8)


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [scene(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def rows(scenes: list[Image.Image]) -> Bytes:
    return np.stack([row(image) for image in scenes])


def test_a_hash_has_its_size_whatever_the_picture() -> None:
    assert HASH_BYTES == 140
    for size in ((1, 1), (1, 900), (900, 1), (13, 7), (96, 96), (640, 480)):
        image = scene(1).resize(size)
        assert len(perceptual_hash(image)) == HASH_BYTES
        assert perceptual_hash(image)[:PDQ_BYTES] == pdq(image)


def test_the_same_pixels_have_the_same_hash_for_ever() -> None:
    """A canonical value: segments keep these bytes, so a change of them is a change of the format."""
    steps = Image.fromarray(np.arange(96 * 96, dtype=np.uint32).reshape(96, 96).astype(np.uint8)).convert("RGB")
    assert sketch_luma(row(steps)[None]).shape == (1, CELLS * CELLS)
    assert perceptual_hash(steps) == perceptual_hash(steps.copy())
    ramp = Image.linear_gradient("L").convert("RGB")
    levels = sketch_luma(row(ramp)[None]).reshape(CELLS, CELLS)[:, 0].tolist()
    assert levels == [12, 28, 52, 76, 92, 116, 140, 156, 180, 204, 220, 244]
    assert set(perceptual_hash(ramp)[-18:]) == {128}


@pytest.mark.parametrize(
    ("width", "height", "canonical"),
    [
        (300, 200, "db2a15526a55dab5b5254b69b64b4c9a990a66558ca57b49969b2473cb876d2c"),
        (640, 480, "9c7730e29cc771e6e382870f1e1f33dcef0ecc1e883e10fc11f833f0ffc07100"),
        (1500, 900, "5b645ff012ffdfe0dffefffcffe4ffb4fd20fd20fda0ed008400ec0000000000"),
    ],
)
def test_the_32_bytes_of_pdq_are_canonical(width: int, height: int, canonical: str) -> None:
    """Stored indexes are searched by these bytes: another resampling or another Pillow must change none of them."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [(x * x + y * y) // 190, x * y // 60, 3 * x + y * y // 7]
    image = Image.fromarray((np.stack(channels, axis=-1) % 256).astype(np.uint8))
    assert pdq(image).hex() == canonical


def test_the_sketch_keeps_luma_and_chroma_within_its_steps(scenes: list[Image.Image], rows: Bytes) -> None:
    for image, one in zip(scenes, rows, strict=True):
        planes = ycbcr_planes(image)
        luma = cell_means(planes[..., 0], CELLS).ravel()
        assert np.abs(sketch_luma(one[None])[0] - luma).max() <= 4.01
        assert np.abs(sketch_chroma(one[None])[0, 0] - cell_means(planes[..., 1], 3).ravel()).max() <= 0.51


def test_hamming_counts_the_bits_of_pdq_only() -> None:
    one, other = np.zeros(HASH_BYTES, np.uint8), np.zeros((3, HASH_BYTES), np.uint8)
    other[1, 0] = 0b1011
    other[2, :] = 255
    assert hash_distances(other, one).tolist() == [0, 3, 256]
    assert hash_distances(other[:, :PDQ_BYTES], one[:PDQ_BYTES]).tolist() == [0, 3, 256]


def test_resized_and_reencoded_pictures_are_near_and_others_far(scenes: list[Image.Image], rows: Bytes) -> None:
    for index, image in enumerate(scenes):
        for edit in EXACT:
            distances = hash_distances(rows, row(EDITS[edit](image, 0)))
            assert distances[index] <= 24
            assert np.delete(distances, index).min() >= 70


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_is_deterministic_and_does_not_touch_its_picture(edit: str) -> None:
    image = scene(3)
    before = image.tobytes()
    made = EDITS[edit](image, 5)
    assert made.tobytes() == EDITS[edit](image, 5).tobytes()
    assert made.mode == "RGB"
    assert made.size != image.size or made.tobytes() != before
    assert image.tobytes() == before


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 30)])
def test_edits_take_small_pictures_too(edit: str, size: tuple[int, int]) -> None:
    assert EDITS[edit](scene(1).resize(size), 1).mode == "RGB"


@pytest.mark.parametrize("edit", EDITS)
def test_each_edit_gets_its_verdict_and_strangers_are_similar(
    edit: str, scenes: list[Image.Image], rows: Bytes
) -> None:
    for index, image in enumerate(scenes[:4]):
        found = verdicts(Aligner(EDITS[edit](image, index)), rows)
        assert found[index] == ("exact" if edit in EXACT else "edited")
        assert {verdict for k, verdict in enumerate(found) if k != index} == {"similar"}


@pytest.mark.parametrize("turn", Image.Transpose)
def test_what_lies_over_a_picture_is_found_from_it(turn: Image.Transpose, scenes: list[Image.Image]) -> None:
    """The way back, by which a picture is laid over one that shows it."""
    placement = Placement(turn=turn)
    turned, _ = _laid(scenes[0], placement, scenes[0].transpose(turn).size)
    back, covered = _laid(turned, _inverse(placement), scenes[0].size)
    assert np.array_equal(np.asarray(back), np.asarray(scenes[0]))
    assert np.asarray(covered).all()


@pytest.mark.parametrize(
    "turn",
    [Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.TRANSPOSE],
)
def test_turned_pictures_are_edited_copies(turn: Image.Transpose, scenes: list[Image.Image], rows: Bytes) -> None:
    assert verdicts(Aligner(scenes[0].transpose(turn)), rows)[:2] == ["edited", "similar"]


@pytest.mark.parametrize(
    "kept", [(0, 0, 0.7, 1), (0.3, 0, 1, 1), (0, 0.25, 1, 1), (0, 0, 1, 0.65), (0.1, 0.15, 0.85, 0.9)]
)
def test_pictures_cut_at_any_side_are_edited_copies(
    kept: tuple[float, float, float, float], scenes: list[Image.Image], rows: Bytes
) -> None:
    width, height = scenes[3].size
    box = tuple(round(part * side) for part, side in zip(kept, (width, height) * 2, strict=True))
    assert verdicts(Aligner(scenes[3].crop(box)), rows)[3] == "edited"


@pytest.mark.parametrize("angle", [-7, -5, -3, 3, 5, 7])
@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("fill", ["black", "white"])
def test_tilted_pictures_are_edited_copies(
    angle: int, expand: bool, fill: str, scenes: list[Image.Image], rows: Bytes
) -> None:
    tilted = scenes[2].rotate(angle, Image.Resampling.BICUBIC, expand=expand, fillcolor=fill)
    assert verdicts(Aligner(tilted), rows)[2] == "edited"


def test_an_indexed_picture_stands_in_for_its_pixels(scenes: list[Image.Image], rows: Bytes) -> None:
    copies = np.stack([rows[0], row(EDITS["crop_10"](scenes[0], 1)), row(EDITS["flip"](scenes[0], 1)), rows[1]])
    found = verdicts(Aligner(sketch_picture(rows[0])), copies)
    assert found[0] == "exact"
    assert found[2:] == ["edited", "similar"]


def test_things_of_one_outline_are_no_copies_of_each_other() -> None:
    """Their cells correlate by .968 and more."""
    discs = {}
    for kind in ("cross", "stripes", "face"):
        discs[kind] = Image.new("RGB", (300, 300), "white")
        draw = ImageDraw.Draw(discs[kind])
        draw.ellipse((40, 40, 260, 260), fill="#3c3c3c")
        if kind == "cross":
            draw.line((150, 60, 150, 240), fill="#8c8c8c", width=30)
            draw.line((60, 150, 240, 150), fill="#8c8c8c", width=30)
        elif kind == "stripes":
            for y in range(70, 250, 36):
                draw.line((60, y, 240, y), fill="#969696", width=12)
        else:
            draw.ellipse((90, 100, 120, 130), fill="#a0a0a0")
            draw.ellipse((180, 100, 210, 130), fill="#a0a0a0")
            draw.arc((100, 120, 200, 220), 20, 160, fill="#aaaaaa", width=14)
    for asked, other in (("cross", "stripes"), ("cross", "face"), ("face", "cross")):
        assert verdicts(Aligner(discs[asked]), row(discs[other])[None]) == ["similar"]
        assert verdicts(Aligner(EDITS["border"](discs[asked], 1)), row(discs[asked])[None]) == ["edited"]


def test_little_contrast_is_no_copy_of_much() -> None:
    dots, square = Image.new("RGB", (200, 200), "#d0c8b0"), Image.new("RGB", (200, 200), "#f0f0c0")
    for x in range(5):
        for y in range(5):
            ImageDraw.Draw(dots).ellipse((50 + 18 * x, 50 + 18 * y, 60 + 18 * x, 60 + 18 * y), fill="#c05030")
    ImageDraw.Draw(square).rectangle((50, 50, 132, 132), fill="#d83020")
    assert verdicts(Aligner(square), row(dots)[None]) == ["similar"]


def test_flat_pictures_are_the_same_only_if_their_colour_is() -> None:
    colours = ["white", "#f8f8f8", "black", "red", "#808080"]
    flat = np.stack([row(Image.new("RGB", (50, 50), colour)) for colour in colours])
    found = verdicts(Aligner(Image.new("RGB", (80, 60), "white")), flat)
    assert found == ["exact", "exact", "similar", "similar", "similar"]
    assert verdicts(Aligner(scene(1)), flat) == ["similar"] * 5
    scenes_of_flat_query = verdicts(
        Aligner(Image.new("RGB", (9, 9), "#123456")), np.stack([row(scene(1)), row(scene(2))])
    )
    assert scenes_of_flat_query == ["similar", "similar"]


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_alpha_channel_that_hides_nothing_makes_no_other_picture(
    form: str, scenes: list[Image.Image], rows: Bytes
) -> None:
    opaque = scenes[1].convert("RGBA")
    files = [encoded(opaque, form), encoded(scenes[1], "JPEG", quality=90)]
    with_alpha, jpeg = (decode_image(data, pixels_max=1_000_000).pixels for data in files)
    assert verdicts(Aligner(with_alpha), row(jpeg)[None]) == ["exact"]
    assert verdicts(Aligner(jpeg), row(with_alpha)[None]) == ["exact"]


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (790, 36_861), (3, 900)])
@pytest.mark.slow
def test_a_thin_picture_is_no_copy_of_another(size: tuple[int, int], scenes: list[Image.Image], rows: Bytes) -> None:
    thin = scenes[2].resize(size)
    assert set(verdicts(Aligner(thin), rows[3:])) == {"similar"}


def test_no_candidates_get_no_verdicts() -> None:
    assert verdicts(Aligner(scene(1)), np.zeros((0, HASH_BYTES), np.uint8)) == []


@pytest.mark.slow
def test_smaller_decoding_does_not_change_the_verdict() -> None:
    data = encoded(scene(4, (1600, 1200)), "JPEG", quality=90)
    whole, small = (decode_image(data, pixels_max=10**7, side_hint=side).pixels for side in (None, 299))
    assert small.size < whole.size
    assert verdicts(Aligner(small), row(whole)[None]) == ["exact"]
    assert hash_distances(row(whole)[None], row(small))[0] <= 24


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the photos of ../shared/data are not here")
@pytest.mark.slow
def test_verdicts_on_real_photos_are_right_nine_times_in_ten() -> None:
    paths = (
        sorted((SHARED_DATA / "clothing").glob("*/*.jpg"))[::40]
        + sorted((SHARED_DATA / "grocery").glob("*/*.jpg"))[::60]
    )
    photos = [decode_image(path.read_bytes(), pixels_max=10**8, side_hint=299).pixels for path in paths]
    hashes = np.stack([row(photo) for photo in photos])
    right = dict.fromkeys(EDITS, 0.0)
    strangers = 0.0
    for index, photo in enumerate(photos):
        for edit, make in EDITS.items():
            found = verdicts(Aligner(make(photo, index)), hashes)
            right[edit] += (found[index] == ("exact" if edit in EXACT else "edited")) / len(photos)
            strangers += (found.count("similar") - (found[index] == "similar")) / (len(photos) - 1)
    assert min(right.values()) >= 0.8, right
    assert sum(right.values()) / len(right) >= 0.95, right
    assert strangers / (len(photos) * len(EDITS)) >= 0.99
