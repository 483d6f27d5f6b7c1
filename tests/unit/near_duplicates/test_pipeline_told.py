"""What matches are called where the query is no picture, and in which order the places of one picture are named."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from tests.unit.near_duplicates.test_images_hash import scene

from visor.index.search.hits import Hit, Hits
from visor.link_check.state import PICTURE_GONE
from visor.near_duplicates.fingerprint import perceptual_hash
from visor.near_duplicates.verdict import SAME_VECTOR_MIN, Verdict, classify_matches
from visor.schema.items import IndexedItem, Item
from visor.search.item_cache import offer_sort_key
from visor_bench.edits import EDITS


def hits(*similarities: float, metric: str | None = None) -> Hits:
    """A picture, an edited copy of it and another picture, with these similarities to a query."""
    shown = [scene(1), EDITS["crop_10"](scene(1), 1), scene(2)]
    found = zip(shown, similarities, strict=True)
    matches = (Hit(id=f"{n}", similarity=s, rank=n, hash=perceptual_hash(p)) for n, (p, s) in enumerate(found))
    return Hits(tuple(matches), "metric" if metric else "fast", metric)


def classified(found: Hits, stored: np.ndarray | None = None) -> list[Verdict]:
    return classify_matches(None, found.hits, stored, by_metric=found.metric is not None)


def test_an_items_sketch_stands_in_for_its_picture() -> None:
    stored = np.frombuffer(perceptual_hash(EDITS["flip"](scene(1), 1)), np.uint8)
    told = classified(hits(0.97, 0.9, 0.6), stored)
    assert told[0] == "edited"
    assert told[2] == "similar"


def test_a_vector_that_is_a_matchs_own_has_its_sketch() -> None:
    found = hits(SAME_VECTOR_MIN, 0.9, 0.6)
    assert classified(found) == ["exact", "edited", "similar"]


@pytest.mark.parametrize("found", [hits(SAME_VECTOR_MIN - 0.001, 0.9, 0.6), hits(1.0, 0.9, 0.6, metric="cityblock")])
def test_any_other_vector_has_nothing_to_compare(found: Hits) -> None:
    assert classified(found) == ["similar"] * 3
    assert classified(Hits((), "fast")) == []


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


@pytest.mark.parametrize(("similarity", "verdict"), [(0.51, "edited"), (0.49, "similar")])
def test_sketches_that_fit_by_chance_are_no_copies(similarity: float, verdict: Verdict) -> None:
    stored = np.frombuffer(perceptual_hash(EDITS["flip"](scene(1), 1)), np.uint8)
    assert classified(hits(similarity, 0.3, 0.3), stored)[0] == verdict


def test_the_same_pixels_have_the_same_hash_for_ever() -> None:
    """Stored indexes hold these bytes: a change of resizing or of a library makes no duplicate agree any more."""
    assert perceptual_hash(scene(1))[:32].hex() == "c37938c4c13dc23b88a6cb3db67081e83fb24cd0a267971de1ba3ec531b99e52"
