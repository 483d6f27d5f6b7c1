"""Filters, facets and metrics on an index as it is in use: segments with fast codes, fresh shards, newer versions,
tombstones and changed facets, against a plain dictionary of what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.index.index_fixtures import Shop, clustered, hash_of, ids_of, keys_of

from visor.index.format import fast_scan
from visor.index.merge import segment_builder as rewrite
from visor.index.merge.merge import merge
from visor.index.merge.policy import MergePolicy
from visor.index.search import snapshot
from visor.index.search.hits import Order
from visor.index.search.metrics import METRICS
from visor.index.search.searcher import Searcher
from visor.index.search.snapshot import FreshBlock
from visor.schema.items import FacetRow
from visor.schema.search import Condition, Filters, PriceRange, Sort

IMAGES = 3000
RARE = "one in three thousand"


@dataclass(frozen=True)
class InUse:
    """A searcher and what it has to find: the facets and the vector of each live item by id."""

    searcher: Searcher
    facets: dict[str, FacetRow]
    vectors: dict[str, np.ndarray[Any, Any]]


def facet(number: int, **changed: Any) -> FacetRow:
    fields: dict[str, Any] = {
        "collection": f"c{number % 40}",
        "source": f"s{number % 3}",
        "country": ("FR", "JP", None)[number % 3],
        "currency": ("EUR", "USD")[number % 2],
        "price": None if number % 11 == 0 else number / 10,
        "date": f"20{10 + number % 9}-03-0{1 + number % 9}",
        "labels": tuple(f"l{number % 90 + i}" for i in range(number % 4)),
    }
    return FacetRow(**fields | changed)


@pytest.fixture(scope="module", params=[pytest.param(0, marks=pytest.mark.slow), 32])
def in_use(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> InUse:
    """Three segments, whose fast scans lie in no cells or in 32, and fresh shards."""
    shop = Shop(tmp_path_factory.mktemp("filters"))
    keys, vectors = keys_of(IMAGES), clustered(IMAGES, kinds=40)
    facets = [facet(n, **({"collection": RARE} if n == 1234 else {})) for n in range(IMAGES)]
    policy = MergePolicy(segment_rows=1000, step_rows=1000, samples_min=64, ratio=0.5, small_rows=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewrite, "PQ_ROWS_MIN", 500)
        patch.setattr(fast_scan, "CELLS_LEARNED_FROM", 500 if request.param else IMAGES + 1)
        patch.setattr(fast_scan, "CELLS", request.param)
        patch.setattr(fast_scan, "CELLS_ROWS", 400)
        for start in range(0, IMAGES, 1000):
            part = slice(start, start + 1000)
            shop.add(keys[part], vectors[part], facets=facets[part], version=1)
            merge(shop.objects, shop.documents, model="model-a", policy=policy, clock=shop.clock)
    shown = dict(zip(ids_of(keys), facets, strict=True))
    stored = dict(zip(ids_of(keys), vectors, strict=True))
    # A new version moves item 7 into the rare collection, an update moves item 8, tombstones take the first one away.
    shop.add(["k7"], vectors[9:10], facets=[facet(7, collection=RARE, labels=("rare label",))], version=2)
    shop.update("k8", 2, facet(8, collection=RARE, price=77777.0, date="1999-12-31"))
    shown[ids_of(["k7"])[0]], stored[ids_of(["k7"])[0]] = facet(7, collection=RARE, labels=("rare label",)), vectors[9]
    shown[ids_of(["k8"])[0]] = facet(8, collection=RARE, price=77777.0, date="1999-12-31")
    fresh = clustered(60, seed=5)
    shop.add(keys_of(60, "f"), fresh, facets=[facet(n) for n in range(60)], version=1)
    shown |= dict(zip(ids_of(keys_of(60, "f")), [facet(n) for n in range(60)], strict=True))
    stored |= dict(zip(ids_of(keys_of(60, "f")), fresh, strict=True))
    for key in ["k1234", *keys[2000:2100], "f3"]:
        shop.delete(key, 5)
        del shown[ids_of([key])[0]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "CELLS_ROWS_MIN", 500)
        searcher = shop.searcher()
    blocks = [live.block for live in searcher._snapshot.blocks]
    assert sum(block.vectors.has_fast for block in blocks) == 3
    cells = searcher._snapshot.cells
    assert (cells.numbers if cells else ()) == ((0, 1, 2) if request.param else ())
    assert isinstance(blocks[-1], FreshBlock)
    return InUse(searcher, shown, stored)


CASES: list[tuple[Filters, Callable[[FacetRow], bool]]] = [
    (Filters(collection=(RARE,)), lambda f: f.collection == RARE),
    (Filters(label=("rare label",)), lambda f: "rare label" in f.labels),
    (Filters(price=PriceRange(min=77777)), lambda f: f.price is not None and f.price >= 77777),
    (Filters(date_to="1999"), lambda f: f.date is not None and f.date < "2000"),
    (Filters(collection=("c1", "c2")), lambda f: f.collection in ("c1", "c2")),
    (Filters(source=("s1",), currency=("USD",)), lambda f: (f.source, f.currency) == ("s1", "USD")),
    (
        Filters(country=("FR",), label=("l6", "l7"), price=PriceRange(min=10, max=99.9), date_from="2012"),
        lambda f: (
            f.country == "FR"
            and bool({"l6", "l7"} & set(f.labels))
            and f.price is not None
            and 10 <= f.price <= 99.9
            and f.date is not None
            and f.date >= "2012"
        ),
    ),
    (Filters(), lambda f: True),
]
QUERIES = range(0, IMAGES, 177)


@pytest.mark.parametrize(
    ("sort", "filters", "is_said"),
    [
        ("price_up", Filters(), True),
        ("likeness", Filters(price=PriceRange(max=20)), True),
        ("likeness", Filters(attributes={"price": Condition(min=20)}), True),
        ("price_down", Filters(currency=("USD",)), False),
        ("likeness", Filters(price=PriceRange(max=20), attributes={"currency": Condition(any=("EUR",))}), False),
        ("newest", Filters(attributes={"price": Condition(missing=True)}), False),
    ],
)
def test_prices_of_several_currencies_are_not_passed_off_as_comparable(
    in_use: InUse, sort: Sort, filters: Filters, is_said: bool
) -> None:
    hits = in_use.searcher.search(in_use.vectors[ids_of(["k5"])[0]], k=5, filters=filters, order=Order(sort=sort))
    said = "Prices in EUR, USD are compared as bare numbers: filter by one currency."
    assert hits.notice == (said if is_said else None)


@pytest.mark.parametrize(("filters", "passes"), CASES)
def test_k_results_come_whenever_k_items_match(in_use: InUse, filters: Filters, passes: Any) -> None:
    wanted = {i for i, f in in_use.facets.items() if passes(f)}
    assert wanted
    query = in_use.vectors[ids_of(["k5"])[0]]
    hits = in_use.searcher.search(query, k=IMAGES + 100, filters=filters).hits
    assert {i for hit in hits for i in (hit.id, *hit.duplicates)} == wanted
    for number in QUERIES:
        query = in_use.vectors[ids_of([f"k{number}"])[0]]
        assert in_use.searcher.search(query, k=1, filters=filters).hits[0].id in wanted
        fast, exact = (
            [hit.id for hit in in_use.searcher.search(query, k=12, filters=filters, mode=mode).hits]
            for mode in ("fast", "exact")
        )
        assert len(exact) == min(12, len(wanted))
        assert len(set(fast) & set(exact)) >= len(exact) - 1
        assert filters == Filters() or fast == exact


@pytest.mark.parametrize(("filters", "passes"), CASES)
def test_facets_count_what_matches(in_use: InUse, filters: Filters, passes: Any) -> None:
    shown = [f for f in in_use.facets.values() if passes(f)]
    facets = in_use.searcher.facets(filters)
    assert facets.images == len(shown)
    for name in ("collection", "source", "country", "currency"):
        expected = Counter(getattr(f, name) for f in shown if getattr(f, name) is not None)
        assert {v.value: v.count for v in getattr(facets, name)} == expected
    assert {v.value: v.count for v in facets.label} == Counter(label for f in shown for label in f.labels)
    prices = [np.float32(f.price) for f in shown if f.price is not None]
    assert (facets.price_min, facets.price_max) == (min(prices, default=None), max(prices, default=None))


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_obey_filters_too(in_use: InUse, metric: str) -> None:
    query = in_use.vectors[ids_of(["k5"])[0]]
    hits = in_use.searcher.search(query, k=5, metric=metric, filters=Filters(collection=(RARE,))).hits
    assert {hit.id for hit in hits} == set(ids_of(["k7", "k8"]))


def test_copies_in_several_segments_and_fresh_shards_are_one_result(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    vectors, hashes = clustered(300), [hash_of(key) for key in keys_of(300)]
    policy = MergePolicy(segment_rows=100, step_rows=100, samples_min=64, ratio=0.5, small_rows=16)
    copies = []
    for number in range(3):
        part = slice(number * 100, number * 100 + 99)
        copies.append(f"copy{number}")
        keys = [*keys_of(300)[part], copies[-1]]
        shop.add(keys, np.concatenate([vectors[part], vectors[5:6]]), hashes=[*hashes[part], hashes[5]])
        if number < 2:
            merge(shop.objects, shop.documents, model="model-a", policy=policy, clock=shop.clock)
    searcher = shop.searcher()
    assert searcher.segments >= 2
    assert searcher.fresh == 100
    first, second = searcher.search(vectors[5], k=2).hits
    assert {first.id, *first.duplicates} == set(ids_of(["k5", *copies]))
    assert not second.duplicates
