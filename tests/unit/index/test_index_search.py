"""The searcher over fresh shards and segments, compared with plain NumPy."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from tests.unit.index.index_fixtures import DIMENSION, Shop, clustered, hash_of, ids_of, keys_of, unit_rows

from visor.errors import BadRequest
from visor.index.format.projection import Projection
from visor.index.merge.merge import merge
from visor.index.search import candidates as candidates_module
from visor.index.search import searcher as searcher_module
from visor.index.search.metrics import BOOLEAN, METRICS, PLAIN, Metric
from visor.index.search.searcher import Searcher
from visor.link_check.duplicate_lookup import find_duplicates
from visor.schema.items import FacetRow, item_id
from visor.schema.search import Filters, PriceRange


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def fill(shop: Shop, count: int, **options: Any) -> tuple[list[str], np.ndarray[Any, Any]]:
    keys, vectors = keys_of(count), clustered(count)
    for start in range(0, count, 64):
        shop.add(keys[start : start + 64], vectors[start : start + 64], **options)
    return keys, vectors


def nearest(vectors: np.ndarray[Any, Any], query: np.ndarray[Any, Any], k: int) -> list[int]:
    full = unit_rows(vectors.astype(np.float16).astype(np.float32))
    return np.argsort(-(full @ query), kind="stable")[:k].tolist()


def test_an_empty_index_answers(shop: Shop) -> None:
    searcher = shop.searcher()
    assert len(searcher) == 0
    assert searcher.search(np.ones(3, np.float32), k=5).hits == ()
    assert searcher.facets(Filters()).images == 0
    assert searcher.vector_of("0" * 32) is None


def test_one_image_is_found(shop: Shop) -> None:
    keys, vectors = fill(shop, 1)
    hits = shop.searcher().search(vectors[0], k=12).hits
    assert [hit.id for hit in hits] == ids_of(keys)
    assert hits[0].similarity == pytest.approx(1, abs=1e-3)


def test_equal_vectors_are_equally_near_wherever_they_lie(shop: Shop) -> None:
    keys, random = keys_of(71), np.random.default_rng(0)
    vectors = np.repeat(random.standard_normal((1, DIMENSION)), len(keys), axis=0)
    for start, stop in ((0, 5), (5, 28), (28, 71)):
        shop.add(keys[start:stop], vectors[start:stop])
    for query in random.standard_normal((8, DIMENSION)).astype(np.float32):
        hits = shop.searcher().search(query, k=71).hits
        assert len({hit.similarity for hit in hits}) == 1
        assert [hit.id for hit in hits] == sorted(ids_of(keys))


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_fresh_shards_alone_give_the_true_neighbours(shop: Shop, mode: Any) -> None:
    keys, vectors = fill(shop, 540)
    searcher = shop.searcher()
    for row in range(0, 540, 90):
        hits = searcher.search(vectors[row], k=12, mode=mode).hits
        assert [hit.id for hit in hits] == ids_of([keys[i] for i in nearest(vectors, vectors[row], 12)])


def test_a_merge_changes_no_answer_but_by_the_space(shop: Shop) -> None:
    _, vectors = fill(shop, 100)  # too few for a projection
    searcher = shop.searcher()
    before = [searcher.search(v, k=5).hits for v in vectors[:20]]
    merge(shop.objects, shop.documents, model=searcher.model, clock=shop.clock)
    searcher.refresh()
    assert searcher.generation > 0
    assert searcher.fresh == 0
    after = [searcher.search(v, k=5).hits for v in vectors[:20]]
    assert [[h.id for h in hits] for hits in after] == [[h.id for h in hits] for hits in before]


def test_fast_finds_what_exact_finds_in_the_projected_space(shop: Shop) -> None:
    _, vectors = fill(shop, 800)
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    searcher = shop.searcher()
    assert isinstance(searcher.space, Projection)
    for vector in vectors[::40]:
        exact = searcher.search(vector, k=12, mode="exact")
        fast = searcher.search(vector, k=12, mode="fast")
        assert [h.id for h in exact.hits] == [h.id for h in fast.hits]
        coded = searcher.space.project(vectors.astype(np.float16)) @ searcher.space.project(vector[None])[0]
        assert exact.hits[3].similarity == pytest.approx(np.sort(coded)[-4], abs=0.01)


def test_fresh_shards_and_segments_rank_in_one_space(shop: Shop) -> None:
    keys, vectors = fill(shop, 700)
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    twins = [f"twin-{key}" for key in keys[:50]]
    shop.add(twins, vectors[:50])
    searcher = shop.searcher()
    for row in range(0, 50, 7):
        hits = searcher.search(vectors[row], k=2).hits
        assert {hit.id for hit in hits} == set(ids_of([keys[row], twins[row]]))
        assert hits[0].similarity == pytest.approx(hits[1].similarity, abs=1e-6)


def test_leave_out(shop: Shop) -> None:
    keys, vectors = fill(shop, 60)
    searcher = shop.searcher()
    first = searcher.search(vectors[3], k=1).hits[0]
    assert (first.id, first.hash) == (ids_of([keys[3]])[0], hash_of(keys[3]))
    other = searcher.search(vectors[3], k=1, leave_out=[first.id]).hits[0]
    assert other.id != first.id
    assert bytes(searcher.hashes_of(first.id)) == hash_of(keys[3])


def test_the_same_picture_is_one_result_with_its_places(shop: Shop) -> None:
    vectors = clustered(40)
    copies = np.repeat(vectors[:1], 25, axis=0)
    shop.add([f"copy{i}" for i in range(25)], copies, hashes=[hash_of("one")] * 25)
    shop.add(keys_of(40), vectors, hashes=[hash_of(k) for k in keys_of(40)])
    hits = shop.searcher().search(vectors[0], k=12).hits
    assert len(hits) == 12
    groups = [hit for hit in hits if hit.duplicates]
    assert len(groups) == 1
    assert len(groups[0].duplicates) == 20
    assert {groups[0].id, *groups[0].duplicates} <= set(ids_of([f"copy{i}" for i in range(25)]))


def test_equal_hashes_of_different_pictures_stay_apart(shop: Shop) -> None:
    vectors = np.eye(6, DIMENSION, dtype=np.float32)
    shop.add(keys_of(6), vectors, hashes=[hash_of("flat")] * 6)
    assert len(shop.searcher().search(vectors[0], k=6).hits) == 6


def facet(number: int) -> FacetRow:
    return FacetRow(
        collection=f"c{number % 7}",
        source="s",
        country="FR" if number % 3 else None,
        currency="EUR",
        price=None if number % 11 == 0 else number / 10,
        date=f"20{10 + number % 9}-03-0{1 + number % 9}",
        labels=tuple(f"l{i}" for i in range(number % 4)),
    )


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (Filters(collection=("c1", "c2")), lambda n: n % 7 in (1, 2)),
        (Filters(country=("FR",), label=("l2",)), lambda n: n % 3 != 0 and n % 4 > 2),
        (Filters(price=PriceRange(min=10, max=19.9)), lambda n: n % 11 != 0 and 100 <= n <= 199),
        (Filters(date_from="2014", date_to="2015-03"), lambda n: n % 9 in (4, 5)),
        (Filters(currency=("USD",)), lambda n: False),
    ],
)
def test_filters_and_facets_against_a_plain_loop(shop: Shop, merged: bool, filters: Filters, passes: Any) -> None:
    keys, vectors = keys_of(300), clustered(300)
    for start in range(0, 300, 50):
        numbers = range(start, start + 50)
        shop.add([keys[n] for n in numbers], vectors[start : start + 50], facets=[facet(n) for n in numbers])
    if merged:
        merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    searcher = shop.searcher()
    wanted = [n for n in range(300) if passes(n)]
    hits = searcher.search(vectors[5], k=300, filters=filters).hits
    assert {hit.id for hit in hits} == set(ids_of([keys[n] for n in wanted]))
    facets = searcher.facets(filters)
    assert facets.images == len(wanted)
    counted = {value.value: value.count for value in facets.collection}
    assert counted == {f"c{c}": sum(n % 7 == c for n in wanted) for c in range(7) if any(n % 7 == c for n in wanted)}
    prices = [np.float32(n / 10) for n in wanted if n % 11]
    assert facets.price_max == (max(prices) if prices else None)


@pytest.mark.parametrize("name", METRICS)
def test_every_scipy_metric_runs_on_full_vectors(shop: Shop, name: str) -> None:
    _, vectors = fill(shop, 200)
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    shop.add(["extra"], vectors[:1])
    answer = shop.searcher().search(vectors[9], k=5, metric=name)
    assert (answer.mode, answer.metric) == ("metric", name)
    similarities = [hit.similarity for hit in answer.hits]
    assert similarities == sorted(similarities, reverse=True)
    if name in PLAIN:
        # A query of the index's own float16 vector is its own nearest.
        stored = vectors.astype(np.float16).astype(np.float64)
        distances = np.sort(cdist(vectors[9][None], stored, name)[0])[:5]
        bounded = name in ("braycurtis", "correlation", "cosine", "hamming", "jensenshannon")
        expected = 1 - distances if bounded else 1 / (1 + distances)
        assert similarities == pytest.approx(expected, abs=2e-3)
    if name not in ("hamming", *BOOLEAN):
        assert answer.hits[0].id == item_id("test", "k9")


@pytest.mark.parametrize("name", [*PLAIN, *BOOLEAN, "seuclidean"])
def test_every_metric_is_scipys_also_where_it_is_not_defined(name: str) -> None:
    vectors = np.random.default_rng(8).uniform(0, 1, (100, DIMENSION)).astype(np.float32)
    vectors[3], vectors[4], vectors[5], vectors[6, :9] = 0, 0.5, vectors[7], -0.25
    metric = Metric(name, vectors)
    full = vectors.astype(np.float64)
    extra = {"V": full.var(0) + full.var(0).mean() * 0.1} if name == "seuclidean" else {}
    compared = full > np.median(vectors, axis=0) if name in BOOLEAN else full
    for row in (0, 3, 4, 6, 7):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            expected = cdist(compared[row][None], compared, name, **extra)[0]
        given = metric.distances(vectors[row][None], vectors)[0]
        defined = np.isfinite(expected)
        assert (np.isfinite(given) == defined).all()
        assert given[defined] == pytest.approx(expected[defined], rel=1e-9, abs=1e-9)


def test_mahalanobis_is_scipys() -> None:
    vectors = clustered(200).astype(np.float64)
    floor = vectors.var(0).mean() * 0.1
    inverse = np.linalg.inv(np.cov(vectors, rowvar=False) + floor * np.eye(DIMENSION))
    expected = 1 / (1 + cdist(vectors[:1], vectors[:20], "mahalanobis", VI=inverse)[0])
    given = Metric("mahalanobis", vectors).similarities(vectors[0], vectors[:20])
    assert given == pytest.approx(expected, rel=1e-4)


def test_a_metric_s_statistics_are_taken_once_a_snapshot(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    _, vectors = fill(shop, 50)
    searcher = shop.searcher()
    made: list[str] = []
    prepare = searcher_module.prepare_metric
    monkeypatch.setattr(searcher_module, "prepare_metric", lambda of, name: (made.append(name), prepare(of, name))[1])
    answers = [searcher.search(vectors[3], k=3, metric="mahalanobis").hits for _ in range(3)]
    assert made == ["mahalanobis"]
    assert answers[0] == answers[1] == answers[2]
    shop.add(["more"], vectors[:1])
    searcher.refresh(force=True)
    searcher.search(vectors[3], k=3, metric="mahalanobis")
    assert len(made) == 2


def test_a_metric_goes_through_so_many_items_only(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    _, vectors = fill(shop, 50)
    monkeypatch.setattr(candidates_module, "METRIC_IMAGES_MAX", 49)
    with pytest.raises(BadRequest, match="50 items") as refused:
        shop.searcher().search(vectors[3], k=3, metric="cityblock")
    assert "exact" in refused.value.remedy


@pytest.mark.slow
def test_mahalanobis_takes_less_than_half_of_the_function_s_memory() -> None:
    """In a process of its own: 4,096 vectors of the default model's 3,328 numbers."""
    code = (
        "import resource, numpy as np; from visor.index.search.metrics import Metric\n"
        "v = np.random.default_rng(0).random((4096, 3328)).astype(np.float16); import scipy.linalg\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "Metric('mahalanobis', v).similarities(v[0], v[:1024])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < 300_000_000


def test_without_scipy_a_metric_is_refused_with_a_sentence(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    _, vectors = fill(shop, 5)
    monkeypatch.setitem(sys.modules, "scipy.spatial.distance", None)
    with pytest.raises(BadRequest, match="metrics = true") as caught:
        shop.searcher().search(vectors[0], k=1, metric="cityblock")
    assert "SciPy" in caught.value.found
    assert len(shop.searcher().search(vectors[0], k=1).hits) == 1


def test_the_metrics_are_all_that_scipy_names() -> None:
    from scipy.spatial import distance

    assert set(METRICS) == set(distance._METRICS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "manhatten"}, "cityblock"),
        ({"k": 0}, "k is 0"),
        ({"vector": np.ones(3, np.float32)}, "3 numbers"),
        ({"vector": np.zeros(DIMENSION, np.float32)}, "zeros"),
        ({"vector": np.full(DIMENSION, np.nan, np.float32)}, "finite"),
        ({"filters": Filters(date_from="yesterday")}, "yesterday"),
    ],
)
def test_what_cannot_be_asked_says_what_can(shop: Shop, arguments: dict[str, Any], message: str) -> None:
    fill(shop, 5)
    given: dict[str, Any] = {"vector": np.ones(DIMENSION, np.float32), "k": 3} | arguments
    with pytest.raises(BadRequest, match=message):
        shop.searcher().search(given.pop("vector"), **given)


class Asked:
    """Documents, and how many each query gave."""

    def __init__(self, documents: Any) -> None:
        self.documents, self.found = documents, list[int]()

    def query(self, *args: Any, **kwargs: Any) -> Any:
        found = self.documents.query(*args, **kwargs)
        self.found.append(len(found))
        return found


def test_a_search_looks_for_news_at_most_once_a_period_and_reads_no_commit_for_ever(shop: Shop) -> None:
    fill(shop, 300)
    now = [0.0]
    documents = Asked(shop.documents)
    searcher = Searcher(shop.objects, documents, model="model-a", freshness_s=30, clock=lambda: now[0])  # type: ignore[arg-type]

    def seconds(count: int) -> int:
        looks = 0
        for _ in range(count):
            looks += searcher.refresh()
            now[0] += 1
        return looks

    assert seconds(120) == 4 == len(documents.found)
    # All at first; again, for what became visible late; then only what is new.
    assert documents.found[0] == documents.found[1] > 1
    assert documents.found[2:] == [0, 0]
    shop.add(["late"], clustered(1))
    assert seconds(120) == 4
    assert len(searcher) == 301
    assert documents.found[4] == 1
    assert documents.found[-1] == 0


def test_a_commit_that_becomes_visible_late_is_found(shop: Shop) -> None:
    fill(shop, 100)
    now = [0.0]
    searcher = Searcher(shop.objects, shop.documents, model="model-a", freshness_s=5, clock=lambda: now[0])
    searcher.refresh()
    newest = shop.now[0]
    # Firestore may show the earlier one of two times later.
    shop.now[0] = newest - 4
    shop.add(["late"], clustered(1))
    shop.now[0] = newest
    now[0] += 5
    searcher.refresh()
    assert len(searcher) == 101


class MergedMeanwhile:
    """Objects of which a merge makes a new manifest as soon as somebody has read the old one."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.is_merged = shop, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shop.objects, name)

    def get_with_info(self, name: str) -> Any:
        found = self.shop.objects.get_with_info(name)
        if not self.is_merged:
            self.is_merged = True
            merge(self.shop.objects, self.shop.documents, model="model-a", clock=self.shop.clock)
        return found


def test_a_merge_that_ends_while_an_index_is_opened_hides_nothing(shop: Shop) -> None:
    keys, vectors = keys_of(60), clustered(60)
    shop.add(keys[:30], vectors[:30])
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    shop.add(keys[30:], vectors[30:])
    searcher = Searcher(MergedMeanwhile(shop), shop.documents, model="model-a", freshness_s=0)  # type: ignore[arg-type]
    searcher.refresh()
    assert len(searcher) == 60
    searcher.refresh()
    assert len(searcher) == 60


def test_a_merge_that_ends_while_duplicates_are_looked_up_hides_none(shop: Shop) -> None:
    keys, vectors = keys_of(3), np.repeat(clustered(1), 3, axis=0)
    same = [hash_of("same")] * 2
    shop.add(keys[:1], vectors[:1], hashes=same[:1])
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    shop.add(keys[1:], vectors[1:], hashes=same)
    first, *others = ids_of(keys)
    found = find_duplicates(MergedMeanwhile(shop), shop.documents, "model-a", [first])  # type: ignore[arg-type]
    assert sorted(found[first]) == sorted(others)


def test_vector_of_gives_the_stored_vector(shop: Shop) -> None:
    keys, vectors = fill(shop, 200)
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    shop.add(["extra"], vectors[7:8])
    searcher = shop.searcher()
    for key, row in [(keys[150], 150), ("extra", 7)]:
        assert np.array_equal(searcher.vector_of(item_id("test", key)), vectors[row].astype(np.float16))
    assert searcher.vector_of("no id") is None


def test_sample_is_spread_and_stable(shop: Shop) -> None:
    keys, _ = fill(shop, 100)
    searcher = shop.searcher()
    ids = searcher.sample(8)
    assert len(set(ids)) == 8
    assert set(ids) <= set(ids_of(keys))
    assert ids == searcher.sample(8)
