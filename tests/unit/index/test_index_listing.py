"""Listings: orders, pages, products and attributes, against a plain dictionary of what is in the index."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.index.index_fixtures import Shop, clustered, hash_of, ids_of, keys_of, unit_rows

from visor.errors import BadRequest
from visor.index.format.attributes import AttributeColumn
from visor.index.format.facets import FacetColumns
from visor.index.merge import segment_builder
from visor.index.merge.merge import merge
from visor.index.merge.policy import MergePolicy
from visor.index.search import ask as ask_module
from visor.index.search.facet_counts import price_ranges
from visor.index.search.hits import Hit, Order, varied
from visor.index.search.searcher import Searcher
from visor.schema.items import FacetRow, item_id
from visor.schema.search import Condition, Filters, PriceRange, Sort

IMAGES = 2000
DECLARED: Any = {"colour": "keyword", "weight": "number", "sold": "flag", "made": "date"}


def row(number: int, **changed: Any) -> FacetRow:
    values = {
        "colour": ("red", "green", "blue")[number % 3],
        "weight": f"{number / 4} kg",
        "sold": ("true", "no")[number % 2],
        "made": f"{2000 + number % 20}-0{1 + number % 9}",
    }
    fields: dict[str, Any] = {
        "collection": f"c{number % 7}",
        "price": None if number % 13 == 0 else float(number % 50),
        "date": None if number % 17 == 0 else f"20{10 + number % 9}-03-0{1 + number % 9}",
        "pixels": 0 if number % 19 == 0 else 1000 + number % 400,
        # Three pictures of each of the first 300 products.
        "product": f"{1 + number % 300:016x}" if number < 900 else None,
        "declared": DECLARED if number % 5 else {},
        "values": {name: value for name, value in values.items() if number % 5 and number % 4},
    }
    return FacetRow(**fields | changed)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, FacetRow]]:
    """Three segments with fast codes, fresh shards, an update and tombstones."""
    shop = Shop(tmp_path_factory.mktemp("listing"))
    keys, vectors, facets = keys_of(IMAGES), clustered(IMAGES, kinds=30), [row(n) for n in range(IMAGES)]
    policy = MergePolicy(segment_rows=600, step_rows=600, samples_min=64, ratio=0.5, small_rows=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_builder, "PQ_ROWS_MIN", 500)
        for start in range(0, IMAGES, 600):
            part = slice(start, start + 600)
            shop.add(keys[part], vectors[part], facets=facets[part])
            if start < 1800:
                merge(shop.objects, shop.documents, model="model-a", policy=policy, clock=shop.clock)
    live = dict(zip(ids_of(keys), facets, strict=True))
    shop.update("k5", 2, row(5, price=7777.0, product=None))
    live[item_id("test", "k5")] = row(5, price=7777.0, product=None)
    for key in keys[1000:1030]:
        shop.delete(key, 5)
        del live[item_id("test", key)]
    return shop, live


def pages(searcher: Searcher, vector: Any, *, k: int, order: Order, **options: Any) -> Iterator[tuple[Hit, ...]]:
    hits = searcher.search(vector, k=k, order=order, **options)
    yield hits.hits
    while hits.next is not None:
        order = Order(**{name: getattr(order, name) for name in order.__slots__} | {"after": hits.next})
        hits = searcher.search(vector, k=k, order=order, **options)
        yield hits.hits


QUERY = clustered(3, kinds=30, seed=4)[1]


@pytest.mark.parametrize(
    ("order", "filters"),
    [
        (Order(), Filters()),
        (Order(variety=0.5), Filters()),
        (Order(sort="price_up"), Filters()),
        (Order(sort="most_changed"), Filters(collection=("c1", "c2"))),
        (Order(by_product=True), Filters()),
        (Order(by_product=True, variety=0.3), Filters(collection=("c1", "c2", "c3"))),
        (Order(by_product=True, sort="newest"), Filters()),
    ],
)
def test_pages_to_the_end_give_each_once(
    filled: tuple[Shop, dict[str, FacetRow]], order: Order, filters: Filters
) -> None:
    shop, live = filled
    passing = {i: one for i, one in live.items() if not filters.collection or one.collection in filters.collection}
    searcher = shop.searcher()
    found = list(pages(searcher, QUERY, k=97, order=order, filters=filters))
    assert all(found)
    hits = [hit for page in found for hit in page]
    products = [passing[hit.id].product if order.by_product else None for hit in hits]
    assert max(Counter(p or hit.id for p, hit in zip(products, hits, strict=True)).values()) == 1
    everything = [i for hit in hits for i in (hit.id, *hit.product)]
    assert sorted(everything) == sorted(passing)
    assert searcher.search(QUERY, k=5, order=order, filters=filters).total == len(hits)


@pytest.mark.parametrize(
    "asked",
    [{"vector": QUERY}, {"vector": QUERY, "metric": "euclidean"}, {"vector": None, "text": "shoe"}],
    ids=["picture", "metric", "words"],
)
def test_what_matches_alike_is_given_once_and_in_the_order_of_ids(tmp_path: Path, asked: dict[str, Any]) -> None:
    shop, keys = Shop(tmp_path), keys_of(126)
    policy = MergePolicy(segment_rows=42, ratio=0.001, small_rows=1)
    for start in range(0, 126, 42):
        shop.add(
            keys[start : start + 42],
            np.repeat(QUERY[None], 42, axis=0),
            facets=[FacetRow(texts={"title": "Shoe"})] * 42,
        )
        if start < 84:
            merge(shop.objects, shop.documents, model="model-a", policy=policy, clock=shop.clock)
    searcher = shop.searcher()
    assert searcher.segments == 2
    found = [hit.id for page in pages(searcher, k=10, order=Order(), **asked) for hit in page]
    assert found == sorted(ids_of(keys))


@pytest.mark.parametrize("filters", [Filters(), Filters(collection=("c1", "c2"))], ids=["all", "some"])
@pytest.mark.parametrize("by_product", [True, False])
def test_what_is_left_out_is_not_counted(
    filled: tuple[Shop, dict[str, FacetRow]], by_product: bool, filters: Filters
) -> None:
    searcher, order = filled[0].searcher(), Order(by_product=by_product)
    # One of three of a product, and some of no product, of either collection.
    left_out = ids_of(["k8", "k1100", "k1101", "k1102", "k1103", "k1104", "k1105", "k1106"])
    found = [*pages(searcher, QUERY, k=500, order=order, filters=filters, leave_out=left_out)]
    total = searcher.search(QUERY, k=5, order=order, filters=filters, leave_out=left_out).total
    assert total == sum(map(len, found))


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("price_up", lambda one: one.price),
        ("price_down", lambda one: None if one.price is None else -one.price),
        ("newest", lambda one: one.date and -int(one.date.replace("-", ""))),
        ("oldest", lambda one: one.date and int(one.date.replace("-", ""))),
        ("largest", lambda one: -one.pixels or None),
        ("smallest", lambda one: one.pixels or None),
    ],
)
def test_an_order_is_that_of_the_values_with_the_rest_behind(
    filled: tuple[Shop, dict[str, FacetRow]], sort: Any, value: Callable[[FacetRow], float | None]
) -> None:
    shop, live = filled
    found = [value(live[h.id]) for page in pages(shop.searcher(), QUERY, k=200, order=Order(sort=sort)) for h in page]
    known = [one for one in found if one is not None]
    assert known == sorted(known)
    assert found[: len(known)] == known


@pytest.mark.parametrize("by_product", [False, True])
@pytest.mark.parametrize("filters", [Filters(), Filters(price=PriceRange(min=10, max=30))], ids=["all", "priced"])
def test_only_the_nearest_are_ordered_if_so_asked(
    filled: tuple[Shop, dict[str, FacetRow]], filters: Filters, by_product: bool
) -> None:
    shop, live = filled
    searcher = shop.searcher()
    plain = Order(by_product=by_product)
    near = [hit.id for hit in searcher.search(QUERY, k=40, filters=filters, order=plain).hits]
    order = Order(sort="price_up", nearest=40, by_product=by_product)
    found = list(pages(searcher, QUERY, k=7, order=order, filters=filters))
    given = [hit.id for page in found for hit in page]
    # Of a product, its cheapest picture is given.
    shown = [[(live[item].product if by_product else None) or item for item in items] for items in (given, near)]
    assert sorted(shown[0]) == sorted(shown[1])
    prices = [math.inf if (price := live[item].price) is None else price for item in given]
    assert prices == sorted(prices) != [live[item].price for item in near]
    hits = searcher.search(QUERY, k=7, filters=filters, order=order)
    assert hits.is_listed
    assert by_product or hits.total == len(near)


@pytest.mark.parametrize("sort", ["price_up", "price_down", "newest", "smallest"])
def test_an_order_by_value_compares_only_what_can_be_on_the_page(
    filled: tuple[Shop, dict[str, FacetRow]], sort: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    likeness = ask_module.likeness
    monkeypatch.setattr(ask_module, "likeness", lambda *a: compared.append(len(a[2])) or likeness(*a))
    searcher = filled[0].searcher()
    first = searcher.search(QUERY, k=12, order=Order(sort=sort)).hits
    assert sum(compared) < IMAGES / 4
    found = list(pages(searcher, QUERY, k=97, order=Order(sort=sort)))
    # With a threshold, which all pass, every row is compared.
    compared.clear()
    whole = list(pages(searcher, QUERY, k=97, order=Order(sort=sort, similarity_min=-1.0)))
    assert compared[0] > IMAGES / 4
    assert found == whole
    assert found[0][:12] == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        Order(),
        Order(similarity_min=0.4),
        Order(by_product=True),
        Order(sort="price_up", similarity_min=0.6),
        Order(sort="newest", similarity_min=0.6, by_product=True),
    ],
)
@pytest.mark.parametrize("filters", [Filters(), Filters(collection=("c1", "c2", "c3", "c4"))], ids=["all", "some"])
def test_a_page_that_is_found_among_the_nearest_is_that_of_all(
    filled: tuple[Shop, dict[str, FacetRow]], monkeypatch: pytest.MonkeyPatch, order: Order, filters: Filters
) -> None:
    compared: list[int] = []
    compare = ask_module.likeness

    def counting(snapshot: Any, live: Any, rows: Any, *rest: Any) -> Any:
        compared.append(len(rows))
        return compare(snapshot, live, rows, *rest)

    monkeypatch.setattr(ask_module, "likeness", counting)
    searcher, found, rows = filled[0].searcher(), [], []
    for within in (20, IMAGES):
        monkeypatch.setattr(ask_module, "WITHIN", within)
        compared.clear()
        every = list(pages(searcher, QUERY, k=6, order=order, filters=filters))
        found.append([[(hit.id, hit.similarity, hit.product) for hit in page] for page in every[:12]])
        compared.clear()
        list(islice(pages(searcher, QUERY, k=6, order=order, filters=filters), 4))
        rows.append(sum(compared))
    assert found[0] == found[1]
    assert rows[0] < 0.7 * rows[1]


def test_variety_never_costs_a_match_and_brings_other_kinds_forward(filled: tuple[Shop, dict[str, FacetRow]]) -> None:
    shop, _ = filled
    searcher, spread = shop.searcher(), []
    for variety in (0.0, 0.7):
        hits = searcher.search(QUERY, k=12, order=Order(variety=variety)).hits
        rows = np.stack([searcher.vector_of(hit.id) for hit in hits])
        spread.append(float((rows @ rows.T).mean()))
    assert spread[1] < spread[0]
    assert hits[0].id == searcher.search(QUERY, k=1, mode="exact").hits[0].id


@pytest.mark.parametrize("dimension", [16, 48, 100])
def test_variety_picks_equal_rows_in_their_order(dimension: int) -> None:
    one, other = unit_rows(np.random.default_rng(0).standard_normal((2, dimension))).astype(np.float32)
    vectors = np.stack([*[one] * 23, *[other] * 23])
    chosen = np.zeros(46, bool)
    for picks in (10, 5):
        picked = varied(np.full(46, 0.5, np.float32), vectors, chosen, picks, 0.5)
        for kind in (range(23), range(23, 46)):
            left = [row for row in kind if not chosen[row]]
            mine = [row for row in picked if row in kind]
            assert mine == left[: len(mine)]
        chosen[picked] = True
    assert chosen[0]
    assert chosen[23]


@pytest.mark.parametrize("order", [Order(), Order(variety=0.4), Order(sort="price_down"), Order(by_product=True)])
@pytest.mark.slow
def test_what_is_deleted_between_pages_vanishes_and_nothing_comes_twice(tmp_path: Path, order: Order) -> None:
    shop = Shop(tmp_path)
    keys = keys_of(400)
    shop.add(keys, clustered(400), facets=[row(n) for n in range(400)])
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    searcher = shop.searcher()
    found: list[str] = []
    gone: set[str] = set()
    for number, page in enumerate(pages(searcher, clustered(3, seed=4)[1], k=23, order=order)):
        found += [hit.id for hit in page]
        # One that was given, and some that were not yet.
        key = {item_id("test", key): key for key in keys}
        for victim in [page[0].id, *[i for i in key if i not in found][number * 3 : number * 3 + 3]]:
            shop.delete(key[victim], 9)
            gone |= {victim} - set(found)
        searcher.refresh(force=True)
    assert len(found) == len(set(found))
    assert not gone & set(found)
    if not order.by_product:
        assert set(found) == set(ids_of(keys)) - gone


@pytest.mark.slow
@pytest.mark.parametrize("order", [Order(), Order(sort="price_up")], ids=lambda order: order.sort)
def test_ten_thousand_are_given_to_the_end_and_a_deleted_one_vanishes(tmp_path: Path, order: Order) -> None:
    shop, keys = Shop(tmp_path), keys_of(10_000)
    shop.add(keys, clustered(10_000, 16, kinds=3000), facets=[row(n, declared={}, product=None) for n in range(10_000)])
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    searcher, query = shop.searcher(), clustered(3, 16, kinds=3000, seed=4)[1]
    whole = [hit.id for page in pages(searcher, query, k=200, order=order) for hit in page]
    assert len(whole) == 10_000
    assert set(whole) == set(ids_of(keys))
    key = dict(zip(ids_of(keys), keys, strict=True))
    # One that was given, the next page's first, the one that a page ended with, and one near the end.
    gone = {0: whole[3], 1: whole[400], 2: whole[599], 20: whole[-7]}
    found: list[str] = []
    for number, page in enumerate(pages(searcher, query, k=200, order=order)):
        found += [hit.id for hit in page]
        if number in gone:
            shop.delete(key[gone[number]], 2)
            searcher.refresh(force=True)
    assert found == [one for one in whole if one not in (gone[1], gone[20])]


def test_near_duplicates_are_given_once_over_all_pages(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    vectors, keys = clustered(300), keys_of(300)
    hashes = [hash_of(f"group {n % 100}") for n in range(300)]
    # Of each hash two are of one picture, the third is another picture.
    vectors[100:200] = unit_rows(vectors[:100] + 0.01)
    shop.add(keys, vectors, hashes=hashes)
    for sort in ("likeness", "oldest"):
        found = [h for page in pages(shop.searcher(), vectors[7], k=30, order=Order(sort=sort)) for h in page]
        pictures = Counter(int(keys[ids_of(keys).index(hit.id)][1:]) % 100 for hit in found)
        assert len(found) <= 200
        assert set(pictures) == set(range(100))
        assert max(pictures.values()) <= 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sort", ["likeness", "price_up"])
def test_copies_among_products_are_the_same_matches_however_long_a_page_is(
    tmp_path: Path, seed: int, sort: Sort
) -> None:
    shop, random, keys = Shop(tmp_path), np.random.default_rng(seed), keys_of(24)
    shown = random.integers(0, 14, 24)
    vectors = unit_rows(clustered(14)[shown] + 0.004 * random.standard_normal((24, 64)))
    facets = [FacetRow(product=f"{n:016x}" if n else None, price=float(n % 3)) for n in random.integers(0, 8, 24)]
    shop.add(keys, vectors, facets=facets, hashes=[hash_of(f"picture {n}") for n in shown])
    searcher, order = shop.searcher(), Order(sort=sort, by_product=True)
    whole, *others = (
        [h.id for page in pages(searcher, vectors[0], k=k, order=order) for h in page] for k in (50, 1, 3)
    )
    assert others == [whole, whole]


def test_a_product_is_one_hit_with_its_best_picture(filled: tuple[Shop, dict[str, FacetRow]]) -> None:
    shop, live = filled
    searcher = shop.searcher()
    exact = [hit.id for hit in searcher.search(QUERY, k=IMAGES, mode="exact").hits]
    hits = searcher.search(QUERY, k=40, mode="exact", order=Order(by_product=True)).hits
    for hit in hits:
        product = live[hit.id].product
        members = [i for i in exact if product is not None and live[i].product == product]
        assert [hit.id, *hit.product] == (members or [hit.id])


MET: list[tuple[str, Condition, Callable[[FacetRow], bool]]] = [
    ("colour", Condition(any=("red", "blue")), lambda one: one.values.get("colour") in ("red", "blue")),
    ("colour", Condition(none=("red",)), lambda one: one.values.get("colour") != "red"),
    ("colour", Condition(missing=True), lambda one: "colour" not in one.values),
    ("colour", Condition(missing=False, none=("red",)), lambda one: one.values.get("colour") in ("green", "blue")),
    ("weight", Condition(min=100, max=200.25), lambda one: 100 <= weight(one) <= 200.25),
    ("weight", Condition(any=("100.25", "7,75")), lambda one: weight(one) in (100.25, 7.75)),
    ("sold", Condition(any=("true",)), lambda one: one.values.get("sold") == "true"),
    ("sold", Condition(none=("TRUE",)), lambda one: one.values.get("sold") != "true"),
    ("made", Condition(min="2005", max="2007-03"), lambda one: "2005" <= one.values.get("made", "") <= "2007-03"),
    ("made", Condition(any=("2005",)), lambda one: one.values.get("made", "").startswith("2005")),
    ("collection", Condition(none=("c1", "c2")), lambda one: one.collection not in ("c1", "c2")),
    ("country", Condition(missing=True), lambda one: True),
    ("label", Condition(missing=False), lambda one: False),
    ("price", Condition(missing=True), lambda one: one.price is None),
    ("price", Condition(any=("19",)), lambda one: one.price == 19),
    ("date", Condition(none=("2012-03",), missing=False), lambda one: bool(one.date) and "2012-03" not in one.date),
]


def weight(one: FacetRow) -> float:
    return float(one.values["weight"].split()[0]) if "weight" in one.values else float("nan")


@pytest.mark.parametrize(("name", "condition", "holds"), MET, ids=[f"{name} {c}" for name, c, _ in MET])
def test_conditions_find_every_item_that_meets_them(
    filled: tuple[Shop, dict[str, FacetRow]], name: str, condition: Condition, holds: Callable[[FacetRow], bool]
) -> None:
    shop, live = filled
    filters = Filters(attributes={name: condition})
    searcher = shop.searcher()
    found = {hit.id for hit in searcher.search(QUERY, k=IMAGES, filters=filters).hits}
    assert found == {i for i, one in live.items() if holds(one)}
    assert searcher.facets(filters).images == len(found)


@pytest.mark.parametrize(
    ("name", "condition", "says"),
    [
        ("size", Condition(any=("7",)), "declared attributes: colour, made, sold, weight"),
        ("colour", Condition(min=3), "no range"),
        ("collection", Condition(max="x"), "no range"),
        ("label", Condition(max="x"), "no range"),
        ("weight", Condition(min="heavy"), "a number"),
        ("sold", Condition(any=("perhaps",)), "true or false"),
        ("made", Condition(min=2005), "a date"),
        ("made", Condition(min="last week"), "ISO 8601"),
        ("made", Condition(min="20240531"), "Date '20240531' cannot be read"),
        ("date", Condition(max="20245"), "Date '20245' cannot be read"),
    ],
)
def test_a_condition_that_does_not_fit_is_refused(
    filled: tuple[Shop, dict[str, FacetRow]], name: str, condition: Condition, says: str
) -> None:
    with pytest.raises(BadRequest, match=says):
        filled[0].searcher().search(QUERY, k=1, filters=Filters(attributes={name: condition}))


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=60), st.sampled_from([1, 10, 100, 1000]))
def test_a_range_of_prices_counts_what_its_filter_finds(numbers: list[int], unit: int) -> None:
    prices = np.array([number / unit for number in numbers], np.float32)
    ranges = price_ranges(prices)
    assert sum(one.count for one in ranges) == len(prices)
    column = AttributeColumn("number", prices)
    for one in ranges[:-1]:
        found = column.mask("price", Condition(min=one.min)) & ~column.mask("price", Condition(min=one.max))
        assert one.count == np.count_nonzero(found)
    assert ranges[-1].count == np.count_nonzero(column.mask("price", Condition(min=ranges[-1].min, max=ranges[-1].max)))


@pytest.mark.parametrize("text", ["20240531", "202405", "20245", "2024053112", "today", ""])
def test_a_date_that_is_none_is_of_no_item_and_hinders_nothing(tmp_path: Path, text: str) -> None:
    shop = Shop(tmp_path)
    rows = [FacetRow(date=text, declared={"made": "date"}, values={"made": text}), FacetRow(date="2024-05-31")]
    shop.add(["a", "b"], clustered(2), facets=rows)
    shop.update("b", 2, rows[0])
    for _ in range(2):
        facets = shop.searcher().facets(Filters())
        assert (facets.date_ranges, facets.attributes["made"].missing) == ((), 2)
        assert merge(shop.objects, shop.documents, model="model-a").images == 2


def test_attributes_are_counted(filled: tuple[Shop, dict[str, FacetRow]]) -> None:
    shop, live = filled
    facets = shop.searcher().facets(Filters(collection=("c1",)))
    rows = [one for one in live.values() if one.collection == "c1"]
    colours = Counter(one.values["colour"] for one in rows if "colour" in one.values)
    assert {v.value: v.count for v in facets.attributes["colour"].values} == colours
    assert facets.attributes["colour"].missing == len(rows) - colours.total()
    assert facets.attributes["weight"].max == max(weight(one) for one in rows if "weight" in one.values)
    assert facets.attributes["made"].min == min(one.values["made"] for one in rows if "made" in one.values) + "-01"
    assert sum(r.count for r in facets.price_ranges) == sum(one.price is not None for one in rows)
    assert sum(r.count for r in facets.date_ranges) == sum(one.date is not None for one in rows)


def test_an_attribute_of_two_types_has_the_same_one_wherever_its_rows_are_stored(tmp_path: Path) -> None:
    types = []
    for number, order in enumerate([("number", "keyword"), ("keyword", "number")]):
        shop = Shop(tmp_path / str(number))
        for type_ in order:
            facets = [FacetRow(declared={"size": type_}, values={"size": "5"})] * 4
            shop.add(keys_of(4, type_), clustered(4), facets=facets)
            types.append(shop.searcher().facets(Filters()).attributes["size"].type)
            merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    assert types[1] == types[3]


@pytest.mark.parametrize("facet", ["collection", "label"])
def test_a_filter_by_as_many_values_as_a_request_can_hold_takes_no_minutes(facet: str) -> None:
    names = [f"n{number}" for number in range(1500)]
    columns = FacetColumns.of([FacetRow(collection=name, labels=(name,)) for name in names])
    many = (*(f"x{number}" for number in range(200_000)), "n7")
    started = time.process_time()
    keep = columns.mask(Filters(**{facet: many}), {})  # type: ignore[arg-type]
    assert np.flatnonzero(keep).tolist() == [7]
    assert time.process_time() - started < 1
