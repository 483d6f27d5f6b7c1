"""What matches are called, which rows are near-duplicates, and in which order the places of one image are named."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from tests.unit.near_duplicates.test_images_hash import scene

from visor.link_check.state import PICTURE_GONE
from visor.near_duplicates.fingerprint import PDQ_BYTES, first_duplicate, hash_distances, same_hash_groups
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.near_duplicates.thresholds import SAME_VECTOR_MIN
from visor.near_duplicates.verdict import Aligner, classify_matches
from visor.schema.items import IndexedItem, Item
from visor.search.item_cache import offer_sort_key
from visor_bench.answers.edits import EDITS

SHOWN = [scene(1), EDITS["crop_10"](scene(1), 1), scene(2)]
"""An image, an edited copy of it and another image."""
HASHES = [perceptual_hash(shown) for shown in SHOWN]


def test_an_items_sketch_stands_in_for_its_picture() -> None:
    stored = perceptual_hash(EDITS["flip"](scene(1), 1))
    told = classify_matches([0.97, 0.9, 0.6], HASHES, aligner=None, query_hash=stored)
    assert told[0] == "edited"
    assert told[2] == "similar"


def test_a_vector_that_is_a_matchs_own_has_its_sketch() -> None:
    assert classify_matches([SAME_VECTOR_MIN, 0.9, 0.6], HASHES, aligner=None) == ["exact", "edited", "similar"]


@pytest.mark.parametrize(("first", "metric"), [(SAME_VECTOR_MIN - 0.001, None), (1.0, "cityblock")])
def test_any_other_vector_has_nothing_to_compare(first: float, metric: str | None) -> None:
    assert classify_matches([first, 0.9, 0.6], HASHES, aligner=None, metric=metric) == ["similar"] * 3
    assert classify_matches([], [], aligner=None) == []
    assert classify_matches([], [], aligner=Aligner(SHOWN[0])) == []


@pytest.mark.parametrize("edit", ["crop_10", "flip", "caption"])
def test_a_sketch_that_fits_is_an_edited_copy_only_from_half_the_similarity_on(edit: str) -> None:
    aligner = Aligner(EDITS[edit](scene(1), 1))
    told = {s: classify_matches([s], HASHES[:1], aligner=aligner)[0] for s in (0.2, 0.3, 0.49, 0.51, 0.9)}
    assert told == {0.2: "similar", 0.3: "similar", 0.49: "similar", 0.51: "edited", 0.9: "edited"}
    # A named metric has another scale, so the sketch decides alone.
    assert classify_matches([0.2], HASHES[:1], aligner=aligner, metric="cityblock") == ["edited"]


def differing(bits: int) -> np.ndarray:
    """(2, HASH_BYTES) uint8: two hashes whose PDQ parts differ in so many bits, spread over all of it."""
    hashes = np.tile(np.frombuffer(HASHES[0], np.uint8), (2, 1))
    flipped = np.zeros(256, np.uint8)
    flipped[np.linspace(0, 120, bits).astype(int)] = 1
    hashes[1, :PDQ_BYTES] ^= np.packbits(flipped)
    return hashes


@pytest.mark.parametrize(("bits", "same"), [(0, True), (23, True), (24, True), (25, False), (28, False), (31, False)])
def test_near_duplicates_differ_in_24_bits_at_most(bits: int, same: bool) -> None:
    hashes = differing(bits)
    assert hash_distances(hashes, hashes[0]).tolist() == [0, bits]
    assert hash_distances(hashes, hashes[::-1]).tolist() == [bits, bits]
    assert first_duplicate(hashes, np.ones((2, 1), np.float32)).tolist() == ([0, 0] if same else [0, 1])
    rows, leaders = same_hash_groups(hashes)
    assert (rows.tolist(), leaders.tolist()) == (([0, 1], [0, 0]) if same else ([], []))


@pytest.mark.parametrize(("similarity", "same"), [(1.0, True), (0.91, True), (0.89, False), (0.5, False)])
def test_near_duplicates_have_similar_vectors_too(similarity: float, same: bool) -> None:
    vectors = np.array([[1, 0], [similarity, (1 - similarity**2) ** 0.5]], np.float32)
    assert first_duplicate(differing(0), vectors).tolist() == ([0, 0] if same else [0, 1])


def place(key: str, date: str | None, price: float | None) -> IndexedItem:
    item = Item(id=key * 32, source="shop", key=key, image_url="https://shop.example/a.jpg", date=date, price=price)
    return IndexedItem(item=item, version=1, model="m", shard="s", indexed_at="2026-01-15T00:00:00Z", width=1, height=1)


def test_places_are_named_newest_first_then_cheapest() -> None:
    places = [
        place("a", "2024-05-01", 1.0),
        place("b", "2026-03-01", None),
        place("c", "2026-03-01", 9.5),
        place("d", "2026-03-01T12:00:00Z", 3.0),
        place("e", None, 0.5),
    ]
    assert [one.item.id[0] for one in sorted(places, key=offer_sort_key)] == ["d", "c", "b", "e", "a"]


def test_an_offer_without_its_picture_comes_last() -> None:
    gone = place("a", "2026-06-01", 1.0)
    gone = msgspec.structs.replace(gone, item=msgspec.structs.replace(gone.item, extra={PICTURE_GONE: "2026-06-02"}))
    others = [place("b", "2024-01-01", 9.0), place("c", None, None)]
    assert [one.item.id[0] for one in sorted([gone, *others], key=offer_sort_key)] == ["c", "b", "a"]


def test_the_same_pixels_have_the_same_hash_for_ever() -> None:
    """Stored indexes hold these bytes: a change of resizing or of a library makes no duplicate agree any more."""
    assert perceptual_hash(scene(1))[:32].hex() == "c37938c4c13dc23b88a6cb3db67081e83fb24cd0a267971de1ba3ec531b99e52"
