"""Across the gap: looks are packed, gaps measured, sums learned and forgotten, and answers do not depend on others."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visor.confidence.across import Across, decide, fit_intercept, gap, packed
from visor.imaging.augment import augment, cut_out
from visor.imaging.colour_signature import colour_signature
from visor.index.format.facets import FacetColumns
from visor.index.format.looks import TRAITS, Augmented, label_roots, no_looks, pack_look
from visor.index.format.projection import FullSpace
from visor.index.search.fusion import NAMED_WEIGHT, WORDS_WEIGHT, Fusion, traits
from visor.index.search.snapshot import LiveBlock
from visor.schema.collections import VISITORS
from visor.schema.items import FacetRow, Item, as_document
from visor.schema.words import name_weights, stems
from visor.search.visitors import BATCH, FORGET, VisitorLog, VisitorSum, VisitorSums, forget_visitors, robust_mean
from visor.storage import Stores
from visor.storage.documents import SERVER_TIME, Put

Array = np.ndarray[Any, Any]
D = 32


def looks_of(rng: np.random.Generator, count: int) -> Array:
    probabilities = rng.dirichlet(np.full(1000, 0.01), count)
    return np.stack([pack_look(p, rng.integers(0, 40, 162)) for p in probabilities])


def unit_rows(rng: np.random.Generator, count: int, shift: Array | float = 0.0) -> Array:
    rows = rng.standard_normal((count, D)) + shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Red Apples, 2 boxes of Cherries", ("red", "apple", "box", "cherry")),
        ("Glass of tomatoes", ("glass", "tomato")),
        ("Bus · bus", ("bus",)),
        ("Äpfel", ("äpfel",)),
        ("", ()),
    ],
)
def test_words_are_compared_without_their_plurals(text: str, found: tuple[str, ...]) -> None:
    assert stems(text) == found


def test_a_labels_word_is_worth_its_share_of_the_shortest_name() -> None:
    weights = name_weights(("Granny Smith", "apple (the fruit)", "a long, wordy sentence that explains it all"))
    assert weights == {"granny": 0.5, "smith": 0.5, "apple": 1.0}


def test_a_look_keeps_the_best_labels() -> None:
    probabilities = np.zeros(1000)
    probabilities[[5, 7, 0]] = 0.5, 0.3, 0.2
    roots = label_roots(pack_look(probabilities, np.zeros(162, np.uint8))[None])[0]
    assert roots[[5, 7, 0]] ** 2 == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert roots.sum() == pytest.approx(np.sqrt([0.5, 0.3, 0.2]).sum(), abs=0.02)
    assert not label_roots(no_looks(2)).any()
    assert not label_roots(pack_look(None, np.zeros(162, np.uint8))[None]).any()


def test_colours_tell_red_from_green_and_leave_the_ground_out() -> None:
    def on_white(colour: str) -> Array:
        image = Image.new("RGB", (100, 100), "white")
        image.paste(colour, (30, 30, 70, 70))
        return colour_signature(image).astype(float) / 255

    red, green = on_white("red"), on_white("green")
    assert red.shape == (162,)
    assert np.linalg.norm(red) == pytest.approx(1, abs=0.02)
    assert red @ green < 0.2
    assert red @ (colour_signature(Image.new("RGB", (50, 50), "red")) / 255) > 0.9


def test_colours_of_a_part_are_those_of_the_part_alone() -> None:
    image = Image.new("RGB", (100, 100), "green")
    image.paste("red", (30, 30, 70, 70))
    middle = colour_signature(image, (30.0, 30.0, 70.0, 70.0))
    assert np.array_equal(middle, colour_signature(Image.new("RGB", (50, 50), "red")))


def test_what_stands_on_a_plain_ground_is_put_on_another() -> None:
    image = Image.new("RGB", (300, 200), "white")
    image.paste("red", (100, 50, 200, 150))
    thing = cut_out(image)
    assert thing is not None
    assert thing.size == pytest.approx((53, 53), abs=3)
    scenes = [augment(thing, np.random.default_rng(7)) for _ in range(2)]
    assert scenes[0].size == (320, 320)
    assert scenes[0].tobytes() == scenes[1].tobytes()
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    assert cut_out(Image.fromarray(noise)) is None
    assert cut_out(Image.new("RGB", (50, 50), "white")) is None


def test_items_without_a_look_differ_by_their_vectors_alone() -> None:
    rng = np.random.default_rng(0)
    vectors, looks = unit_rows(rng, 20), looks_of(rng, 20)
    every, nothing = traits(vectors, looks), np.zeros(20)
    fusion = Fusion.of(every[3], *np.zeros((2, D + TRAITS), np.float32), FullSpace(D), [])
    plain = fusion.similarities(vectors, no_looks(20), nothing, nothing, coded=False)
    assert plain == pytest.approx(vectors @ vectors[3], abs=1e-5)
    whole = fusion.similarities(vectors, looks, nothing, nothing, coded=False)
    assert whole.argmax() == 3
    assert whole[3] == pytest.approx(1.55, abs=1e-4)
    worded = fusion.similarities(vectors, looks, np.ones(20), np.full(20, 2.0), coded=False)
    assert worded == pytest.approx(whole + WORDS_WEIGHT - 2 * NAMED_WEIGHT, abs=1e-5)


def columns_of(titles: list[str]) -> FacetColumns:
    items = [Item(id="i", source="s", key="k", image_url="u", title=title) for title in titles]
    return FacetColumns.of([FacetRow.of(item) for item in items])


def test_how_far_an_item_s_words_name_what_its_own_picture_shows() -> None:
    names = [{"granny": 0.5, "smith": 0.5}, {"lemon": 1.0, "fruit": 1.0}, {}, {"never": 1.0}]
    titles = ["Lemon", "Granny Smith", "Lemon of granny", "Chair", ""]
    columns = columns_of(titles)
    roots = np.zeros((5, 1000))
    roots[:, :4] = [[0.2, 0.9, 0.4, 0.3], [0.8, 0.5, 0, 0], [0.4, 0.7, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert columns.named(np.arange(5), roots, names) == pytest.approx([0.9, 0.8, 0.9, 0, 0])
    assert columns.named(np.array([2, 1]), roots[[2, 1]], names) == pytest.approx([0.9, 0.8])
    assert columns.named(np.arange(5), roots, []).tolist() == [0] * 5
    # Titles that changed since the rows were written are in an overlay.
    block: Any = SimpleNamespace(columns=columns)
    live = LiveBlock(block, None, 5, np.array([1, 3]), columns_of(["Chair", "Lemon"]))
    assert live.named(np.array([0, 1, 3, 4]), roots[[0, 1, 3, 4]], names) == pytest.approx([0.9, 0, 1, 0])


def words_of_labels(chances: dict[int, float], usual: dict[int, float]) -> dict[str, float]:
    """The words of a query with these label probabilities where visitors' photos usually have those."""
    names: list[dict[str, float]] = [{} for _ in range(1000)]
    names[1], names[2], names[3] = {"granny": 0.5, "smith": 0.5}, {"smith": 1.0}, {"shop": 1.0}
    probabilities, visitors = np.zeros(1000), np.zeros(D + TRAITS, np.float32)
    probabilities[[*chances]] = [*chances.values()]
    visitors[[D + label for label in usual]] = np.sqrt([*usual.values()])
    look = pack_look(probabilities, np.ones(162, np.uint8))
    query = traits(unit_rows(np.random.default_rng(0), 1), look[None])[0]
    return dict(Fusion.of(query, visitors, np.zeros(D + TRAITS, np.float32), FullSpace(D), names).words)


def test_a_querys_words_are_its_labels_names() -> None:
    words = words_of_labels({1: 0.75, 2: 0.25}, usual={})
    assert words == pytest.approx({"granny": 0.375, "smith": 0.625}, abs=0.01)


def test_what_photos_usually_show_says_little_of_one() -> None:
    words = words_of_labels({2: 0.4, 3: 0.6}, usual={3: 0.29})
    assert words == pytest.approx({"smith": 0.952, "shop": 0.048 - 1}, abs=0.01), "0.4 / 0.01 to 0.6 / 0.3, and 0 to 1"


def test_the_same_look_has_no_gap_and_another_has() -> None:
    rng = np.random.default_rng(1)
    shift = 0.25 * rng.standard_normal(D)
    catalogue = unit_rows(rng, 200).mean(0)
    assert abs(gap(unit_rows(rng, 20).mean(0), 20, catalogue, 200)) < 0.1
    assert gap(unit_rows(rng, 20, 4 * shift).mean(0), 20, catalogue, 200) > 0.3


def test_the_gap_is_on_where_photos_look_unlike_the_catalogue() -> None:
    rng = np.random.default_rng(2)
    catalogue, photos = unit_rows(rng, 100), unit_rows(rng, 30, 1.0)
    none = np.zeros(TRAITS)

    def known(visitors: Array, count: float) -> Across:
        visitors = packed(np.concatenate([visitors.mean(0), none]))
        at = packed(np.concatenate([catalogue.mean(0), none]))
        return Across(catalogue=at, visitors=visitors, photos=count)

    assert decide(known(photos, 30), 100, 0.0, 0)
    assert not decide(known(photos, 9), 100, 0.0, 0)
    assert not decide(known(catalogue[:30], 30), 100, 1.0, 50)
    assert decide(Across(catalogue=""), 100, 0.6, 8)
    assert not decide(Across(catalogue=""), 100, 0.4, 8)
    on = Across(**{**{n: getattr(known(photos, 30), n) for n in ("catalogue", "visitors", "photos")}, "is_on": True})
    assert np.mean([on.is_visitor(photo) for photo in photos]) > 0.95
    assert np.mean([on.is_visitor(item) for item in catalogue]) < 0.1


def test_confidence_across_rises_with_what_speaks_for_it_and_never_down_the_page() -> None:
    clear = np.r_[0.9, np.full(60, 0.1)].astype(np.float32)
    doubtful = np.r_[0.5, 0.49, np.full(59, 0.4)].astype(np.float32)
    across, unvisited = Across(catalogue="", photos=100.0), Across(catalogue="")
    assert across.is_it(clear, [0])[0] > 0.8 > across.is_it(doubtful, [0])[0]
    assert unvisited.is_it(clear, [0]) < across.is_it(clear, [0]), "the first match is right less often then"
    found = across.is_it(np.sort(np.random.default_rng(0).random(80))[::-1].astype(np.float32), [0, 1, 5, 90])
    assert found == sorted(found, reverse=True)
    assert across.held(clear) > across.held(doubtful) > across.held(clear[1:])
    assert across.held(clear[:0]) == 0.0


def test_the_fitted_intercept_separates_held_from_strangers_and_needs_evidence() -> None:
    shipped = Across(catalogue="").intercept
    assert fit_intercept(np.empty(0), np.empty(0)) == shipped
    low = [fit_intercept(np.full(n, 0.4), np.full(n, 0.3)) for n in (5, 500)]
    assert shipped < low[0] < low[1]


def test_sums_are_written_in_batches_folded_once_and_forgotten(local_stores: Stores) -> None:
    documents, rng = local_stores.documents, np.random.default_rng(3)
    written: list[int] = []
    log = VisitorLog(documents, "m", on_write=lambda: written.append(1))
    photos = traits(unit_rows(rng, 25), looks_of(rng, 25))
    for number, photo in enumerate([*photos, *photos]):
        log.add(photo, -50.0 if number % 2 else None)
    assert len(written) == len(documents.query(VISITORS)) == 25 // BATCH
    sums = VisitorSums(documents, "m")
    learned = sums.fold(None)
    assert learned is not None
    assert learned.photos == 20
    tens = [robust_mean(photos[start : start + 10], [1.0] * 10) for start in (0, 10)]
    assert learned.mean == pytest.approx(robust_mean(np.stack(tens), [10.0] * 2), abs=1e-3)
    assert learned.scores.tolist() == [10.0, *[0.0] * 23], "half of them had a score, lower than any bin"
    scores = tuple(learned.scores.tolist())
    before = Across(catalogue="", visitors=packed(learned.mean), photos=20, scores=scores, folded=learned.keys)
    assert sums.fold(before) is None
    assert documents.query(VISITORS) == []
    forget_visitors(documents)
    again = sums.fold(before)
    assert again is not None
    assert again.photos == 0
    assert not again.scores.any()
    assert sums.fold(Across(catalogue="", folded=again.keys)) is None
    assert [one.key for one in documents.query(VISITORS)] == [FORGET]


def test_two_models_take_up_their_own_and_both_forget(local_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    documents, rng = local_stores.documents, np.random.default_rng(3)
    mean = packed(traits(unit_rows(rng, 1), looks_of(rng, 1))[0])

    def photos(model: str) -> None:
        data = {**as_document(VisitorSum(model=model, photos=10, mean=mean)), "added_at": SERVER_TIME}
        documents.commit([Put(collection=VISITORS, key=f"{model}{rng.random()}", data=data)])

    def folded(model: str, before: Across | None = None) -> tuple[float, Across]:
        learned = VisitorSums(documents, model).fold(before)
        assert learned is not None
        return learned.photos, Across(catalogue="", visitors=mean, photos=learned.photos, folded=learned.keys)

    photos("serves")
    photos("comes")
    (old, served), (new, coming) = folded("serves"), folded("comes")
    assert (old, new) == (10, 10), "neither merge took the other's"
    forget_visitors(documents)
    (old, served), (new, coming) = folded("serves", served), folded("comes", coming)
    assert (old, new) == (0, 0)
    for model, before in {"serves": served, "comes": coming}.items():
        assert VisitorSums(documents, model).fold(before) is None, "obeyed once"
    photos("serves")
    monkeypatch.setattr("visor.search.visitors.OTHERS_S", 0.0)
    time.sleep(0.01)
    assert VisitorSums(documents, "comes").fold(coming) is None
    assert [one.key for one in documents.query(VISITORS)] == [FORGET], "a model that is gone leaves nothing for good"


def test_a_word_to_forget_outlives_a_merge_that_does_not_end(
    local_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, rng = local_stores.documents, np.random.default_rng(3)
    monkeypatch.setattr("visor.search.visitors.READ_MAX", 4)
    mean = packed(traits(unit_rows(rng, 1), looks_of(rng, 1))[0])
    known = Across(catalogue="", visitors=mean, photos=20.0)

    def photos(count: int) -> None:
        for key in range(count):
            data = {**as_document(VisitorSum(model="m", photos=10, mean=mean)), "added_at": SERVER_TIME}
            documents.commit([Put(collection=VISITORS, key=f"{key}{rng.random()}", data=data)])

    photos(10)
    forget_visitors(documents)
    sums = VisitorSums(documents, "m")
    for _ in range(2):
        learned = sums.fold(known)  # and its manifest is not written
        assert learned is not None
        assert learned.photos == 0
    after = Across(catalogue="", folded=learned.keys)
    photos(1)
    learned = None
    for _ in range(3):
        learned = learned or sums.fold(after)
    assert learned is not None
    assert learned.photos == 10, "only what came after the word"
    forget_visitors(documents)
    again = sums.fold(Across(catalogue="", visitors=mean, photos=10.0, folded=learned.keys))
    assert again is not None
    assert again.photos == 0, "it was said again"
    assert sums.fold(Across(catalogue="", folded=again.keys)) is None
    assert [one.key for one in documents.query(VISITORS)] == [FORGET]


def test_augmented_queries_are_thinned_out_evenly() -> None:
    ids = np.arange(300 * 16, dtype=np.uint16).reshape(300, 16).astype(np.uint8)
    one = Augmented(ids, np.ones((300, D), np.float16), no_looks(300), 400)
    joined = Augmented.join([one, one], D)
    assert len(joined.ids) == 256
    assert joined.tried == round(800 * 256 / 600)
    assert Augmented.join([], D).tensors() == {}
