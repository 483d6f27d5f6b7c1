"""The mathematics of `visor eval`, on cases small enough to work out by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visor.errors import BadRequest
from visor.evaluation.folder import embedded_folder
from visor.evaluation.scores import Labelled, area_under_roc, average_precision, evaluate
from visor.settings import Settings


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_leave_one_out_by_hand() -> None:
    # 0° and 10° are a; 13° and 100° are b. Nearest: 0→10 right, 10→13 wrong, 13→10 wrong, 100→13 right.
    found = evaluate(Labelled(on_circle(0, 10, 13, 100), ["a", "a", "b", "b"]))
    assert (found.images, found.queries, found.labels, found.unanswerable) == (4, 4, 2, 0)
    assert found.p_at_1 == 0.5
    assert found.p_at_12 == pytest.approx(1 / 12, abs=1e-4)
    # Places of the one right answer: 1 (of 10, 13, 100), 2, 3 (10, 0, 100), 1.
    assert found.map == pytest.approx((1 + 1 / 2 + 1 / 3 + 1) / 4, abs=1e-4)
    # Right first guesses at 10° and 87°, wrong ones at 3° and 3°: no right one is nearer than a wrong one.
    assert found.separation == 0.0


def test_against_an_index_excludes_nothing() -> None:
    vectors = on_circle(0, 90)
    found = evaluate(Labelled(vectors, ["a", "b"]), Labelled(vectors, ["a", "b"]))
    assert (found.p_at_1, found.map, found.separation) == (1.0, 1.0, None)


def test_label_that_nothing_else_has_counts_as_wrong_but_not_in_map() -> None:
    found = evaluate(Labelled(on_circle(0, 1, 50), ["a", "a", "lonely"]))
    assert found.unanswerable == 1
    assert found.p_at_1 == pytest.approx(2 / 3, abs=1e-4)
    assert found.map == 1.0


def test_p_at_12_is_of_twelve() -> None:
    vectors = on_circle(*range(20))
    found = evaluate(Labelled(vectors, ["a"] * 6 + ["b"] * 14))
    assert found.p_at_12 <= (6 * 5 + 14 * 12) / (20 * 12)


def test_scipy_metric_by_name_and_unknown_one() -> None:
    pictures = Labelled(on_circle(0, 10, 13, 100), ["a", "a", "b", "b"])
    assert evaluate(pictures, metric="euclidean").map == evaluate(pictures).map
    with pytest.raises(BadRequest, match="no metric 'nearness'"):
        evaluate(pictures, metric="nearness")


@pytest.mark.parametrize("metric", ["seuclidean", "mahalanobis", "jaccard"])
def test_a_metric_that_needs_the_whole_does_not_depend_on_how_many_are_asked_at_once(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((60, 8)) * np.geomspace(0.1, 10, 8)).astype(np.float32)
    pictures = Labelled(vectors, [str(n % 3) for n in range(60)])
    whole = evaluate(pictures, metric=metric)
    monkeypatch.setattr("visor.evaluation.scores._ROWS_AT_ONCE", 7)
    assert evaluate(pictures, metric=metric) == whole


def test_nothing_to_search_in() -> None:
    with pytest.raises(BadRequest, match="1 queries and 1 pictures"):
        evaluate(Labelled(on_circle(0), ["a"]))


def test_a_folder_whose_pictures_are_damaged_is_not_called_without_labels(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.png").write_bytes(b"no picture")
    embedder: Any = SimpleNamespace(description=SimpleNamespace(input_side=224))
    with pytest.raises(BadRequest, match=r"None of the 1 labelled files in .* can be decoded"):
        embedded_folder(tmp_path, Settings(), embedder)


def test_an_index_with_none_of_the_labels_is_a_mistake() -> None:
    with pytest.raises(BadRequest, match="'a' and 'images'"):
        evaluate(Labelled(on_circle(0), ["a"]), Labelled(on_circle(1), ["images"]))


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_average_precision_is_what_its_definition_says(relevant: list[bool]) -> None:
    hits = [sum(relevant[: place + 1]) / (place + 1) for place, is_relevant in enumerate(relevant) if is_relevant]
    found = average_precision(np.array(relevant))
    assert found == (pytest.approx(sum(hits) / len(hits)) if hits else None)


@given(st.lists(st.integers(0, 9), max_size=20), st.lists(st.integers(0, 9), max_size=20))
def test_area_under_roc_counts_pairs(positive: list[int], negative: list[int]) -> None:
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    found = area_under_roc(np.array(positive, float), np.array(negative, float))
    assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
