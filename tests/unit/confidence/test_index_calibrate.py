"""Calibration: fitted without labels, it tells held queries from strangers and says so honestly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scripts.models import confidence_weights
from tests.unit.index.index_fixtures import MODEL, Shop, hash_of, unit_rows

from visor.confidence import fit_index
from visor.confidence.across import sigmoid
from visor.confidence.clustering import cut, silhouette, ward, without_groups
from visor.confidence.features import (
    FEATURES,
    CoverageProjection,
    Neighbourhood,
    Sampled,
    centred_similarities,
    features,
    label_cosine,
)
from visor.confidence.fit import SAMPLE_MIN, CatalogueRows, Sample, fit
from visor.confidence.fit_index import Calibrator
from visor.confidence.model import (
    FIRST_INTERCEPT,
    FULL_KEPT_MAX,
    NO_SEARCHES,
    SCORE_EDGES,
    Calibration,
    ConfidenceContext,
    ConfidenceEstimator,
    score_of_rows,
)
from visor.evaluation.folder import EmbeddedFolder
from visor.evaluation.scores import area_under_roc
from visor.index.format.projection import FullSpace, unit
from visor.index.merge.learn import learn
from visor.index.merge.merge import merge
from visor.index.search.searcher import Searcher
from visor.schema.items import as_document
from visor_bench.answers.confidence import HERE, run_trial, splits_of

Array = np.ndarray[Any, Any]
DIMENSION = 96


def pictures(kinds: int, each: int, *, seed: int, spread: float = 0.5, shift: float = 0.0) -> EmbeddedFolder:
    """Unit vectors around `kinds` centres of their own; `shift` moves all of them away from the common direction."""
    rng = np.random.default_rng(seed)
    common = np.abs(rng.standard_normal(DIMENSION)) if not shift else rng.standard_normal(DIMENSION)
    centres = common + 0.5 * rng.standard_normal((kinds, DIMENSION))
    noise = spread * rng.standard_normal((kinds * each, DIMENSION))
    vectors = unit_rows(np.repeat(centres, each, axis=0) + noise)
    return EmbeddedFolder(vectors, [f"k{i}" for i in range(kinds) for _ in range(each)], [()] * (kinds * each))


def fitted(catalogue: EmbeddedFolder, rejected: Array | None = None) -> Calibration:
    rows = catalogue.vectors
    more = {} if rejected is None else {"rejected": rejected}
    sample = Sample(rows, np.arange(len(rows)), catalogue.labels)
    return fit(sample, lambda: [CatalogueRows(rows, ())], mean=rows.mean(0), **more)


def calibration_of(searcher: Searcher) -> Calibration:
    return ConfidenceContext().calibration(searcher.manifest)


def around_hits(searcher: Searcher, query: Array, k: int = 12) -> Neighbourhood:
    nearest = searcher.search(query, k=k).nearest
    assert nearest is not None
    return ConfidenceContext().neighbourhood(nearest)


def nearest(catalogue: EmbeddedFolder, query: Array, leave_out: int | None = None) -> Neighbourhood:
    order = np.argsort(-(catalogue.vectors @ query), kind="stable")
    return Neighbourhood(query, catalogue.vectors[order[order != leave_out]][:64])


@pytest.mark.slow
def test_held_queries_are_told_from_strangers_of_the_same_shop() -> None:
    both = pictures(40, 8, seed=3)
    catalogue, strangers = both.take(np.arange(160)), both.take(np.arange(160, 320))
    trial = run_trial(catalogue, strangers)
    area = area_under_roc(trial.probabilities[trial.held], trial.probabilities[~trial.held])
    assert area is not None
    assert area > 0.9
    assert trial.said[HERE].error() < 0.12


@pytest.mark.slow
def test_strangers_from_elsewhere_are_refused() -> None:
    catalogue, elsewhere = pictures(20, 8, seed=3), pictures(20, 8, seed=9, shift=1.0)
    trial = run_trial(catalogue, elsewhere)
    assert trial.probabilities[~trial.held].mean() < 0.05


def test_the_same_pictures_make_the_same_calibration() -> None:
    assert fitted(pictures(20, 8, seed=1)) == fitted(pictures(20, 8, seed=1))


def test_parts_of_any_size_make_the_same_calibration() -> None:
    catalogue = pictures(20, 8, seed=1)
    rows = catalogue.vectors
    sample = Sample(rows, np.arange(len(rows)), catalogue.labels)
    pieces = [CatalogueRows(rows[start : start + 37], ()) for start in range(0, len(rows), 37)]
    cut, whole = fit(sample, lambda: pieces, mean=rows.mean(0)), fitted(catalogue)
    assert cut.weights == pytest.approx(whole.weights, abs=1e-3)
    assert cut.intercept == pytest.approx(whole.intercept, abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, SAMPLE_MIN - 1])
def test_a_few_pictures_keep_the_default(count: int) -> None:
    few = pictures(1, count, seed=0)
    assert fitted(few) == Calibration()
    around = nearest(few, few.vectors[0], leave_out=0 if count > 1 else None)
    assert 0.0 <= Calibration().confidence(Calibration().score(around)) <= 1.0


def test_copies_of_one_picture_make_no_calibration() -> None:
    one = pictures(1, 1, seed=0)
    rows = np.repeat(one.vectors, 60, axis=0)
    assert fitted(EmbeddedFolder(rows, ["k"] * 60, [()] * 60)) == Calibration()


def test_nothing_indexed_is_no_match() -> None:
    empty = Neighbourhood(np.ones(4, np.float32) / 2, np.empty((0, 4), np.float32))
    assert Calibration().confidence(Calibration().score(empty)) < 1e-6


@pytest.mark.parametrize(("elsewhere", "low", "high"), [(0.0, 0.0, 0.1), (0.5, 0.35, 0.65), (1.0, 0.8, 0.92)])
def test_the_share_of_strangers_from_elsewhere_is_learned(elsewhere: float, low: float, high: float) -> None:
    calibration, rng = Calibration(out_of_domain_at=-3.0, out_of_domain_width=0.5), np.random.default_rng(4)
    far = rng.random(200) < elsewhere
    scores = np.concatenate([rng.normal(2.0, 1.5, 200), np.where(far, rng.normal(-6, 1, 200), rng.normal(-1, 1, 200))])
    counts = np.histogram(scores, SCORE_EDGES)[0]
    known = calibration.learned_shares(counts)
    assert low <= known.out_of_domain_share <= high
    assert known.confidence(3.0) >= known.confidence(0.0) >= known.confidence(-6.0)
    assert calibration.learned_shares(NO_SEARCHES) == calibration


@pytest.mark.parametrize(("at_home", "low", "high"), [(0.0, 0.25, 0.35), (0.5, 0.4, 0.6), (1.0, 0.8, 0.9)])
@pytest.mark.parametrize("searches", [200, 5_000])
def test_the_share_of_searches_at_home_is_learned(at_home: float, low: float, high: float, searches: int) -> None:
    calibration, rng = Calibration(out_of_domain_at=-6.0, out_of_domain_width=0.5), np.random.default_rng(5)
    # Normal scores of these means and variance are the log-odds of which side they are of.
    scores = rng.normal(np.where(rng.random(searches) < at_home, 1.5, -1.5), 3**0.5)
    known = calibration.learned_shares(np.histogram(np.clip(scores, -12, 12), SCORE_EDGES)[0])
    assert low <= known.held_share <= high
    assert low - 0.1 <= known.confidence(0.0) <= high + 0.05


@pytest.mark.parametrize("bins", [slice(0, 1), slice(23, 24), slice(0, 24, 23), slice(0, 24)])
def test_whatever_is_searched_for_all_day_teaches_little(bins: slice) -> None:
    counts = NO_SEARCHES.copy()
    counts[bins] = 100_000
    counts[-1] *= 9
    known = Calibration().learned_shares(counts)
    at_even_odds = [known.confidence(score) for score in (0.0, 3.0)]
    assert 0.2 <= at_even_odds[0] <= 0.951
    assert at_even_odds[1] >= 0.8


@pytest.mark.parametrize("common", [0.0, 0.4, 0.9])
def test_the_default_is_the_same_for_models_in_which_all_pictures_are_more_alike(common: float) -> None:
    """A copy of a photo of a kind that the catalogue holds, one of another kind, and noise."""
    few = pictures(4, 6, seed=2)
    centred = unit((few.vectors - few.vectors.mean(0)).astype(np.float32))
    axis = np.zeros((1, 1), np.float32) + np.sqrt(common)
    rows = np.hstack([np.repeat(axis, len(centred), 0), np.sqrt(1 - common) * centred]).astype(np.float32)
    strangers = np.random.default_rng(1).normal(size=(24, centred.shape[1])).astype(np.float32)
    away = np.hstack([np.repeat(axis, 24, 0), np.sqrt(1 - common) * unit(strangers)]).astype(np.float32)
    calibration = Calibration()
    assert np.allclose(
        [calibration.score(Neighbourhood(rows[0], np.delete(rows, 0, 0))), score_of_rows(1.0, rows)],
        [calibration.score(Neighbourhood(centred[0], np.delete(centred, 0, 0))), score_of_rows(1.0, centred)],
        atol=1e-3,
    )
    held = [
        calibration.confidence(calibration.score(Neighbourhood(r, np.delete(rows, i, 0)))) for i, r in enumerate(rows)
    ]
    strange = [calibration.confidence(calibration.score(Neighbourhood(one, rows))) for one in away]
    assert np.median(strange) < 0.3 < 0.4 < np.median(held)
    one = Neighbourhood(rows[0], rows[1:2])
    assert calibration.confidence(calibration.score(one)) < 0.7


def test_rejected_answers_make_the_next_calibration_more_careful() -> None:
    catalogue = pictures(20, 8, seed=1)
    before = fitted(catalogue)
    around = nearest(catalogue, catalogue.vectors[5], leave_out=5)
    after = fitted(catalogue, np.repeat(features(around, before.mean_vector)[None], 10, axis=0))
    assert after.score(around) < before.score(around)
    assert after.rejected == 10


def test_rejected_copies_teach_nothing_and_outliers_do_no_harm() -> None:
    catalogue = pictures(20, 8, seed=1)
    before = fitted(catalogue)
    itself = features(nearest(catalogue, catalogue.vectors[5]), before.mean_vector)
    after = fitted(catalogue, np.repeat(itself[None], 100, axis=0))
    assert (after.weights, after.intercept) == (before.weights, before.intercept)
    wild = fitted(catalogue, np.full((100, len(FEATURES)), 0.98))
    assert np.abs([*wild.weights, wild.intercept]).max() < 20


def test_a_calibration_survives_the_manifest() -> None:
    calibration = fitted(pictures(20, 8, seed=1))
    stored = msgspec.json.decode(msgspec.json.encode(as_document(calibration)))
    assert Calibration.of(stored) == calibration
    assert Calibration.of({}) == Calibration()
    assert Calibration.of({"weights": "x"}) == Calibration()
    assert Calibration.of({"weights": [1.0], "centre": [1.0], "spread": [1.0]}) == Calibration()


def test_a_match_is_as_likely_as_if_none_were_nearer() -> None:
    catalogue = pictures(20, 8, seed=1)
    calibration = fitted(catalogue)
    around = nearest(catalogue, catalogue.vectors[0], 0)
    likely = calibration.confidences(around, [0, 1, 2, 30, 500], held=0.9)
    assert likely[0] == pytest.approx(0.9 * calibration.first_if_held(around))
    without = dataclasses.replace(around, rows=around.rows[1:], labels=around.labels[1:])
    assert likely[1] == min(likely[0], sigmoid(calibration.score(without)))
    assert likely == sorted(likely, reverse=True)
    assert likely[3] < likely[0] / 2, "the kind has eight pictures; the thirtieth is of another"
    assert calibration.confidences(around, [0, 3], held=0.1) <= [0.1, 0.1], "nothing is likelier than that it is here"


def test_clear_groups_teach_how_far_a_first_match_is_right() -> None:
    """Of kinds far apart nearly all nearest are right; where there are no groups, little is promised of any."""
    apart, together = fitted(pictures(20, 8, seed=1)), fitted(pictures(1, 160, seed=1))
    assert apart.first_intercept > FIRST_INTERCEPT
    assert together.first_intercept < FIRST_INTERCEPT - 2


@pytest.mark.parametrize("dimension", [10, 100, 3_000])
def test_groups_by_chance_are_no_evidence(dimension: int) -> None:
    """Vectors that only spread have groups as well, the clearer, the fewer directions there are."""
    rng = np.random.default_rng(0)
    scattered = rng.standard_normal((160, dimension)) * np.geomspace(1, 0.1, dimension)
    grouped = np.repeat(scattered[:20], 8, axis=0) + 0.1 * np.roll(scattered, 1, axis=0)
    found = [
        fitted(EmbeddedFolder(rows, ["any"] * 160, [()] * 160)).separability
        for rows in (unit_rows(scattered + 1), unit_rows(grouped + 1))
    ]
    assert found[0] < 0.3
    assert found[1] == 1.0


def test_vectors_that_tell_nothing_promise_nothing() -> None:
    """Kinds that no vector separates: whatever is asked, both answers are about as likely."""
    scattered = pictures(1, 240, seed=2)
    unknown = dataclasses.replace(scattered, kinds=[f"k{i % 12}" for i in range(240)])
    trials = [run_trial(held, others) for held, others in splits_of(unknown, 3)]
    assert np.mean([trial.said[HERE].error() for trial in trials]) < 0.1


@pytest.mark.parametrize("common", [0.0, 3.0, 20.0])
def test_vectors_that_have_more_in_common_are_judged_alike(common: float) -> None:
    """Networks differ in how alike any two pictures are: .999 is not a copy where the usual is .998."""
    plain = pictures(40, 8, seed=3)
    moved = dataclasses.replace(plain, vectors=unit_rows(plain.vectors + common * unit_rows(np.ones((1, DIMENSION)))))
    areas = []
    for shop in (plain, moved):
        held, others = next(splits_of(shop, 1))
        trial = run_trial(held, others)
        assert trial.calibration.is_fitted, "no picture was taken for a copy"
        areas.append(area_under_roc(trial.probabilities[trial.held], trial.probabilities[~trial.held]))
    assert areas[1] == pytest.approx(areas[0], abs=0.03)


@pytest.mark.parametrize("count", [60, 240])
def test_vectors_without_groups_are_spread_like_those_with(count: int) -> None:
    """In more directions than there are vectors, too: of 60 the plain covariance would make that four times as much."""
    rng = np.random.default_rng(0)
    centred = rng.standard_normal((count, 500)) * np.geomspace(1, 0.05, 500)
    centred = (centred - centred.mean(0)).astype(np.float32)
    alike = [one @ one.T for one in (unit(centred), next(without_groups(centred, 1)))]
    spread = [float((some[~np.eye(count, dtype=bool)] ** 2).mean()) for some in alike]
    assert spread[1] == pytest.approx(spread[0], rel=0.6)


def test_features_are_finite_for_any_number_of_rows() -> None:
    rng = np.random.default_rng(0)
    rows = unit_rows(np.abs(rng.standard_normal((64, 16))))
    for count in (1, 2, 3, 5, 9, 10, 64):
        values = features(Neighbourhood(rows[0], rows[:count]), np.zeros(16, np.float32))
        assert values.shape == (len(FEATURES),)
        assert np.isfinite(values).all()


def test_centred_similarities_are_those_of_centred_vectors() -> None:
    rng = np.random.default_rng(0)
    rows = unit_rows(np.abs(rng.standard_normal((30, 16))))
    mean = rows.mean(0)
    values = dict(zip(FEATURES, features(Neighbourhood(rows[0], rows[1:]), mean), strict=True))
    centred = unit(rows - mean)
    similarities = np.sort(centred[1:] @ centred[0])[::-1]
    assert values["centred_1"] == pytest.approx(similarities[0], abs=1e-5)
    assert values["centred_8"] == pytest.approx(similarities[:8].mean(), abs=1e-5)
    assert values["margin_1"] == pytest.approx(similarities[0] - similarities[9:].mean(), abs=1e-5)


def test_a_sample_of_the_catalogue_tells_what_stands_out_from_it() -> None:
    catalogue = pictures(4, 30, seed=2)
    rows, mean = catalogue.vectors, catalogue.vectors.mean(0)
    sample = unit(rows - mean)
    similarities = centred_similarities(rows[:3], mean, sample)
    assert similarities == pytest.approx(sample[:3] @ sample.T, abs=1e-5)
    around = Neighbourhood(rows[0], rows[1:65], sampled=Sampled(similarities[0, 1:], sample[1:].mean(0)))
    values = dict(zip(FEATURES, features(around, mean), strict=True))
    assert values["background_margin"] == pytest.approx(values["centred_8"] - similarities[0, 1:].mean(), abs=1e-5)
    assert values["background_spread"] == pytest.approx(similarities[0, 1:].std(), abs=1e-5)
    nearest = 1 + np.argsort(-similarities[0, 1:65])[:8]
    own = np.sort(sample[nearest] @ sample[1:65].T, axis=1)[:, -9:-1].mean()
    stands_out = own - (sample[nearest] @ sample[1:].T).mean()
    assert values["relative_background_margin"] == pytest.approx(values["background_margin"] - stands_out, abs=1e-5)


def test_a_query_of_a_kind_shares_its_neighbours_with_its_hits() -> None:
    catalogue = pictures(3, 20, seed=2, spread=0.2)
    mean, between = catalogue.vectors.mean(0), unit_rows(catalogue.vectors[:1] + catalogue.vectors[20:21])[0]
    shared = [
        dict(zip(FEATURES, features(nearest(catalogue, query, own), mean), strict=True))["shared_neighbours"]
        for query, own in ((catalogue.vectors[0], 0), (between, None))
    ]
    assert shared[0] > 0.9
    assert shared[1] < shared[0] - 0.15, "half of the neighbours are of another kind than a hit"


def test_a_query_outside_of_the_space_is_covered_less() -> None:
    rng = np.random.default_rng(0)
    inside = np.zeros((300, 40), np.float32)
    inside[:, :8] = rng.standard_normal((300, 8))
    space, _ = learn(unit(inside), learned_on=300, dimensions=8)
    outside = np.zeros((1, 40), np.float32)
    outside[0, 20] = 1
    lengths = np.linalg.norm(CoverageProjection(space).project(np.concatenate([unit(inside[:1]), outside])), axis=1)
    assert lengths[0] == pytest.approx(1, abs=0.05)
    assert lengths[1] < 0.5
    assert np.linalg.norm(CoverageProjection(FullSpace(40)).project(outside)) == pytest.approx(1)


def test_labels_agree_by_their_order() -> None:
    assert label_cosine(("a", "b"), [("a", "b")]) == pytest.approx(1)
    assert label_cosine(("a", "b"), [("c",)]) == 0
    assert label_cosine((), [("c",)]) == 0
    assert label_cosine(("a", "b"), [("a", "c")]) > label_cosine(("a", "b"), [("b", "c")]) > 0


def test_silhouette_knows_clear_groups() -> None:
    clear, blurred = pictures(5, 10, seed=0, spread=0.05), pictures(5, 10, seed=0, spread=2.0)
    groups = np.repeat(np.arange(5), 10)
    centred = [unit(one.vectors - one.vectors.mean(0)) for one in (clear, blurred)]
    assert silhouette(centred[0] @ centred[0].T, groups) > 0.9
    assert silhouette(centred[1] @ centred[1].T, groups) < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_those_of_wards_clustering(seed: int) -> None:
    vectors = pictures(30, 7, seed=seed, spread=1.0).vectors.astype(np.float64)
    tree, merges = linkage(vectors, "ward"), ward(vectors @ vectors.T)
    for count in (1, 3, 21, 42, 210):
        ours, scipys = cut(merges, count), fcluster(tree, count, "maxclust")
        assert len(set(ours)) == count
        assert len(set(zip(ours, scipys, strict=True))) == count, "the same partition under other numbers"


def test_equal_vectors_are_grouped_and_end() -> None:
    same = np.repeat(unit_rows(np.eye(4)), 5, axis=0)
    assert cut(ward(same @ same.T), 4).tolist() == np.repeat([*range(4)], 5).tolist()
    assert cut(ward(np.full((6, 6), 3.0)), 2).max() == 1


@pytest.mark.slow
def test_weights_are_learned_from_shops_whose_kinds_are_known() -> None:
    """What `scripts/models/confidence_weights.py` does with folders, here with two made-up shops."""
    shops = [pictures(12, 20, seed=1, spread=1.2), pictures(30, 6, seed=2, spread=0.8)]
    compared = [
        [confidence_weights.compare(*split, other) for split in splits_of(own, 4)]
        for own, other in (shops, reversed(shops))
    ]
    weights = confidence_weights.learned([splits[::2] for splits in compared])
    best = np.eye(len(FEATURES))[0]
    for splits in compared:
        held_back = splits[1::2]
        assert confidence_weights.area(held_back, weights[:-1]) > confidence_weights.area(held_back, best)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [20, 300])
def test_a_merge_calibrates_and_a_search_uses_it(tmp_path: Path, kinds: int) -> None:
    """With few pictures on full vectors, with more than 2,000 in the projected space."""
    shop, indexed = Shop(tmp_path), pictures(kinds, 8, seed=1)
    keys = [f"p{i}" for i in range(len(indexed.vectors))]
    for start in range(0, len(keys), 200):
        shop.add(keys[start : start + 200], indexed.vectors[start : start + 200])
    calibrator = Calibrator(shop.objects)
    merge(shop.objects, shop.documents, model=MODEL, calibrate=calibrator)
    searcher = Searcher(shop.objects, shop.documents, model=MODEL, freshness_s=0)
    searcher.refresh()
    calibration = calibration_of(searcher)
    assert calibration.is_fitted
    assert (calibration.space is None) == (len(keys) <= 2000)
    stranger = unit_rows(np.random.default_rng(5).standard_normal((1, DIMENSION)))[0]
    scores = []
    for query in (indexed.vectors[3], stranger):
        around = around_hits(searcher, query, 5)
        assert len(around.rows) == 64
        assert around.sampled is not None
        assert len(around.sampled.similarities) == (len(keys) if len(keys) <= 512 else 480)
        assert len(around.query) == len(calibration.mean_vector)
        scores.append(calibration.score(around))
    assert calibration.confidence(scores[0]) > 0.9
    assert calibration.confidence(scores[1]) < 0.1
    before = searcher.generation
    merge(shop.objects, shop.documents, model=MODEL, calibrate=calibrator)
    searcher.refresh()
    assert searcher.generation == before, "nothing is fitted anew where nothing changed"


def test_a_grown_index_is_calibrated_anew(tmp_path: Path) -> None:
    shop, indexed = Shop(tmp_path), pictures(30, 8, seed=1)
    for name, rows in (("a", slice(0, 120)), ("b", slice(120, 240))):
        shop.add([f"{name}{i}" for i in range(120)], indexed.vectors[rows])
        merge(shop.objects, shop.documents, model=MODEL, calibrate=Calibrator(shop.objects))
        searcher = Searcher(shop.objects, shop.documents, model=MODEL, freshness_s=0)
        searcher.refresh()
        assert calibration_of(searcher).images == len(searcher)


def test_what_was_measured_in_another_projection_judges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that runs out of time swaps a new projection in and fits at its next run."""
    monkeypatch.setattr(fit_index, "FULL_MAX", 100)
    shop, indexed, random = Shop(tmp_path), pictures(30, 8, seed=1), np.random.default_rng(5)
    strangers, estimator = unit_rows(random.standard_normal((20, DIMENSION))), ConfidenceEstimator()
    order = random.permutation(240)
    for name, rows, calibrate in (("a", order[:140], Calibrator(shop.objects)), ("b", order[140:], None)):
        shop.add([f"{name}{i}" for i in range(len(rows))], indexed.vectors[rows])
        merge(shop.objects, shop.documents, model=MODEL, calibrate=calibrate)
        searcher = Searcher(shop.objects, shop.documents, model=MODEL, freshness_s=0)
        searcher.refresh()
        asked = (indexed.vectors[order[:20]], strangers)
        here, elsewhere = (
            [estimator.judge(searcher.search(query, k=5), (), None).held for query in queries] for queries in asked
        )
        assert min(here) > 0.5
        assert max(elsewhere) < 0.2
    calibration = calibration_of(searcher)
    assert calibration.space is not None
    assert calibration.space != searcher.space.name
    assert calibration.within(searcher.space, 240) == Calibration(across=calibration.across)


def test_what_was_measured_in_full_vectors_judges_only_as_many_as_are_kept() -> None:
    catalogue = pictures(20, 8, seed=1)
    calibration, (projection, _) = fitted(catalogue), learn(catalogue.vectors, learned_on=160)
    assert calibration.within(FullSpace(DIMENSION), 10**6) is calibration
    assert calibration.within(projection, FULL_KEPT_MAX) is calibration
    assert calibration.within(projection, FULL_KEPT_MAX + 1) == Calibration()


@pytest.mark.parametrize("is_merged", [True, False])
@pytest.mark.parametrize("count", [1, 2, 10, 50])
def test_small_and_unmerged_indexes_are_judged_soberly(tmp_path: Path, count: int, is_merged: bool) -> None:
    shop, indexed = Shop(tmp_path), pictures(5, count // 5, seed=4) if count >= 5 else pictures(1, count, seed=4)
    shop.add([f"p{i}" for i in range(count)], indexed.vectors)
    if is_merged:
        merge(shop.objects, shop.documents, model=MODEL, calibrate=Calibrator(shop.objects))
    searcher = Searcher(shop.objects, shop.documents, model=MODEL, freshness_s=0)
    searcher.refresh()
    calibration = calibration_of(searcher)
    assert calibration.is_fitted == (is_merged and count >= SAMPLE_MIN)
    stranger = unit_rows(np.random.default_rng(5).standard_normal((1, DIMENSION)))[0]
    says = []
    for query in (indexed.vectors[0], stranger):
        around = around_hits(searcher, query)
        says.append(calibration.confidence(calibration.score(around)))
    assert says[0] > 0.8, "an indexed picture itself"
    assert says[1] < 0.2, "a stranger"


def test_a_picture_that_many_items_show_is_learned_from_once(tmp_path: Path) -> None:
    """Of 50 pictures that say 'no image' no spread is learned, nor what is near to what."""
    kinds, few = pictures(20, 4, seed=1).vectors, SAMPLE_MIN - 2
    same = [hash_of("none")] * 50
    for number, count in enumerate((few, len(kinds))):
        keys = [f"{number}-{key}" for key in range(50 + count)]
        shop = Shop(tmp_path / str(number))
        vectors = np.concatenate([np.repeat(kinds[:1], 50, 0), kinds[:count]])
        hashes = same + [hash_of(key) for key in keys[50:]]
        for start in range(0, len(keys), 50):
            shop.add(keys[start : start + 50], vectors[start : start + 50], hashes=hashes[start : start + 50])
        merge(shop.objects, shop.documents, model=MODEL, calibrate=Calibrator(shop.objects))
        searcher = Searcher(shop.objects, shop.documents, model=MODEL, freshness_s=0)
        searcher.refresh()
        calibration = calibration_of(searcher)
        assert calibration.is_fitted == (count > few)
        if calibration.is_fitted:
            assert calibration.fitted_on <= count + 1
            distinct = np.concatenate([kinds[:1], kinds])
            np.testing.assert_allclose(calibration.mean_vector, unit(distinct).mean(0), atol=2e-3)


def test_rejections_move_the_calibration_at_the_next_merge(tmp_path: Path) -> None:
    shop, indexed = Shop(tmp_path), pictures(20, 8, seed=1)
    shop.add([f"p{i}" for i in range(160)], indexed.vectors)
    said: list[Array] = []
    calibrator = Calibrator(shop.objects, lambda: np.array(said) if said else np.empty((0, len(FEATURES))))
    merge(shop.objects, shop.documents, model=MODEL, calibrate=calibrator)
    searcher = Searcher(shop.objects, shop.documents, model=MODEL, freshness_s=0)
    searcher.refresh()
    asked = unit_rows(indexed.vectors[5:6] + 0.08 * np.random.default_rng(7).standard_normal(DIMENSION))[0]
    before, around = calibration_of(searcher), around_hits(searcher, asked)
    said.extend([features(around, before.mean_vector)] * 10)
    merge(shop.objects, shop.documents, model=MODEL, calibrate=calibrator)
    searcher.refresh()
    assert calibration_of(searcher).rejected == 10
    assert calibration_of(searcher).score(around) < before.score(around)
