"""The one suite of indexes: in segments, Milvus Lite and pgvector the same items give the same answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.contract.engines import EngineShop
from tests.unit.index.index_fixtures import clustered, hash_of, ids_of, keys_of, unit_rows

from visor.confidence.model import ConfidenceEstimator
from visor.errors import BadRequest, SettingsError, StoreUnavailable
from visor.index.engine import merge as engine_merge
from visor.index.search.hits import Order
from visor.index.search.searcher import Searcher
from visor.schema.items import FacetRow, item_id
from visor.schema.search import Condition, Filters, PriceRange
from visor.storage.engine import Clause, Row, VectorEngine, number_name, token

pytestmark = pytest.mark.contract

HOSTILE = (
    'x"] or true or id in ["',
    "'); drop table items; --",
    "{t}",
    "%s",
    "%(a)s",
    "back\\slash",
    "new\nline",
    "nul\0inside",
    "🧢 ünï",
    " ",
    "tokens",
    "a" * 70_000,
)
DECLARED: dict[str, Any] = {
    "colour": "keyword",
    "weight": "number",
    "sold": "flag",
    "made": "date",
    "price ": "keyword",
}


def facets_of(number: int) -> FacetRow:
    values = {"colour": ("red", "blue", HOSTILE[0])[number % 3], "sold": ("yes", "no")[number % 2]}
    if number % 4:
        values |= {"weight": str((number % 9) * 1e-7 - 3e-7), "made": f"2024-{1 + number % 12:02}-03"}
    return FacetRow(
        collection=("hats", "coats", None)[number % 3],
        source=("shop", 'we"ird')[number % 2],
        country="DE" if number % 5 else None,
        currency="EUR",
        price=number % 40 + 0.99 if number % 7 else None,
        date=f"20{10 + number % 15}-02-03" if number % 6 else None,
        labels=("cap", "hat") if number % 2 else ("coat",),
        facet_labels=("cap",) if number % 2 else None,
        words=("cap", "red"),
        texts={"title": f"Cap {number}"},
        product=f"{1 + number % 50:016x}" if number % 10 == 0 else None,
        pixels=number * 100,
        declared=DECLARED if number % 8 else {},
        values=values if number % 8 else {},
    )


def fill(shop: EngineShop, count: int, start: int = 0) -> np.ndarray[Any, Any]:
    vectors = clustered(count, seed=start)
    for at in range(0, count, 64):
        keys = keys_of(count, f"k{start}-")[at : at + 64]
        facets = [facets_of(start + at + number) for number in range(len(keys))]
        shop.add(keys, vectors[at : at + 64], facets=facets)
    return vectors


def any_of(**conditions: Condition) -> Filters:
    return Filters(attributes=conditions)


FILTERS = [
    Filters(),
    Filters(collection=("hats",)),
    Filters(collection=("hats", "nothing")),
    Filters(source=('we"ird',), country=("DE",)),
    Filters(label=("hat",)),
    Filters(label=("cap", "coat"), currency=("EUR",)),
    Filters(price=PriceRange(min=3.99, max=20.99)),
    Filters(price=PriceRange(min=39.99)),
    Filters(price=PriceRange()),
    Filters(date_from="2015", date_to="2017-02-03"),
    any_of(colour=Condition(any=(HOSTILE[0],))),
    any_of(colour=Condition(none=("red", "blue"))),
    any_of(colour=Condition(missing=True)),
    any_of(colour=Condition(missing=False)),
    any_of(weight=Condition(min=-2e-7, max=1e-7)),
    any_of(weight=Condition(any=("0", "1e-07"))),
    any_of(weight=Condition(none=("0",))),
    any_of(weight=Condition(missing=True)),
    any_of(sold=Condition(any=("true",))),
    any_of(made=Condition(min="2024-05", max="2024-08")),
    any_of(made=Condition(none=("2024-05",), missing=False)),
    any_of(price=Condition(missing=True), label=Condition(none=("cap",))),
    any_of(collection=Condition(none=("hats",))),
]


def told(searcher: Searcher, vectors: np.ndarray[Any, Any], **options: Any) -> list[Any]:
    """All that a page gets of the answers to some queries, but generations."""
    estimator, found = ConfidenceEstimator(), []
    for vector in vectors:
        hits = searcher.search(vector, **{"k": 12, **options})
        judged = estimator.judge(hits, ("cap",), None)
        found.append(
            (
                [replace(hit, similarity=round(hit.similarity, 5)) for hit in hits.hits],
                hits.total,
                hits.next is None,
                round(judged.held, 3),
                [round(one, 3) for one in judged.matches],
            )
        )
    return found


@pytest.mark.slow
def test_the_same_items_give_the_same_answers_under_every_filter(shop: EngineShop, twin: EngineShop) -> None:
    for one in (shop, twin):
        vectors = fill(one, 240)
        one.merge()
    queries = unit_rows(vectors[::60] + 0.05 * np.random.default_rng(1).standard_normal((4, vectors.shape[1])))
    mine, other = shop.searcher(), twin.searcher()
    for filters in FILTERS:
        assert told(mine, queries, filters=filters) == told(other, queries, filters=filters), filters
        assert mine.facets(filters) == other.facets(filters), filters


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [Order(), Order(sort="price_up"), Order(variety=0.3), Order(by_product=True), Order(similarity_min=0.3)],
    ids=str,
)
def test_where_nothing_passes_or_is_left_answers_are_empty(shop: EngineShop, twin: EngineShop, order: Order) -> None:
    found = []
    for one in (shop, twin):
        vectors = fill(one, 130)
        one.merge()
        answers: list[Any] = []

        def ask(filters: Filters, one: EngineShop = one, answers: list[Any] = answers, first: Any = vectors[0]) -> None:
            searcher = one.searcher()
            answers.append(searcher.facets(filters).images)
            for vector in (None, first):
                hits = searcher.search(vector, k=3, filters=filters, order=order)
                answers.append((hits.hits, hits.total, hits.next))

        ask(Filters(collection=("nobody",)))
        for key in keys_of(130, "k0-"):
            one.delete(key, 3)
        ask(Filters())
        one.merge()
        ask(Filters())
        found.append(answers)
    assert found[0] == found[1]


@pytest.mark.parametrize("is_merged", [False, True])
@pytest.mark.slow
def test_newest_versions_win_and_tombstones_hide(shop: EngineShop, twin: EngineShop, is_merged: bool) -> None:
    """Adds, updates and deletes in any order, some of them late; before and after a merge has taken them up."""
    for one in (shop, twin):
        rng = np.random.default_rng(3)
        vectors = fill(one, 200)
        one.merge()
        for step in range(60):
            number, version = int(rng.integers(0, 220)), int(rng.integers(1, 9))
            key = f"k0-{number}"
            what = rng.integers(3)
            if what == 0:
                one.delete(key, version)
            elif what == 1:
                one.update(key, version, facets_of(int(rng.integers(0, 99))))
            else:
                own = facets_of(int(rng.integers(0, 99)))
                one.add([key], vectors[rng.integers(0, 200)][None], version=version, facets=[own], name=f"s{step}")
            if step % 20 == 19 and is_merged:
                one.merge()
    mine, other = shop.searcher(), twin.searcher()
    assert len(mine) == len(other)
    for filters in (FILTERS[0], FILTERS[1], FILTERS[6], FILTERS[11]):
        assert mine.facets(filters) == other.facets(filters)
        ours, theirs = (s.search(vectors[7], k=200, filters=filters) for s in (mine, other))
        assert [(h.id, h.duplicates) for h in ours.hits] == [(h.id, h.duplicates) for h in theirs.hits]
        assert ours.total == theirs.total
    both = [{bytes(i): tuple(v) for some, ids in s.full_vectors() for i, v in zip(ids, some, strict=True)}
            for s in (mine, other)]  # fmt: skip
    assert both[0] == both[1]


def test_copies_and_products_are_grouped(shop: EngineShop) -> None:
    vectors = fill(shop, 150)
    shop.add(["copy"], vectors[1][None], hashes=[hash_of("k0-1")], facets=[facets_of(1)])
    shop.merge()
    hits = shop.searcher().search(vectors[1], k=3).hits
    assert {hits[0].id, *hits[0].duplicates} >= set(ids_of(["k0-1", "copy"]))
    grouped = shop.searcher().search(vectors[0], k=12, order=Order(by_product=True)).hits
    assert set(grouped[0].product) == set(ids_of(["k0-50", "k0-100"]))


def test_a_product_has_all_its_items_also_the_far_ones(shop: EngineShop, twin: EngineShop) -> None:
    """Some of them deleted or changed since the merge."""
    found = []
    for one in (shop, twin):
        vectors = fill(one, 400)
        one.merge()
        one.delete("k0-50", 5)
        one.update("k0-100", 5, facets_of(7))
        for filters in (Filters(), Filters(collection=("hats", "coats"))):
            hits = one.searcher().search(vectors[0], k=2, filters=filters, order=Order(by_product=True)).hits
            found.append([(hit.id, set(hit.product)) for hit in hits])
    assert found[:2] == found[2:]
    assert len(found[0][0][1]) == 5


@pytest.mark.slow
def test_a_page_goes_on_behind_the_last(shop: EngineShop, twin: EngineShop) -> None:
    for one in (shop, twin):
        vectors = fill(one, 200)
        one.merge()
    priced, near = Order(sort="price_up"), Order(sort="price_up", nearest=20)
    for order in (Order(), priced, near, Order(sort="newest"), Order(variety=0.5), Order(similarity_min=0.6)):
        pages = []
        for one in (shop, twin):
            searcher, cursor, ids = one.searcher(), None, []
            for _ in range(4):
                hits = searcher.search(vectors[3], k=9, order=replace(order, after=cursor))
                ids.append([hit.id for hit in hits.hits])
                cursor = hits.next
                if cursor is None:
                    break
            pages.append((ids, hits.total))
        assert pages[0] == pages[1], order


def test_what_is_stored_is_given_back(shop: EngineShop) -> None:
    vectors = fill(shop, 130)
    before = shop.searcher()
    assert (len(before), before.generation) == (130, 0)
    report = shop.merge()
    searcher = shop.searcher()
    assert (len(searcher), report.images, searcher.generation) == (130, 130, report.generation)
    own = searcher.vector_of(item_id("test", "k0-5"))
    hashes = searcher.hashes_of(item_id("test", "k0-5"))
    assert own is not None
    assert hashes is not None
    assert np.array_equal(own, vectors[5].astype(np.float16).astype(np.float32))
    assert hashes.tobytes() == hash_of("k0-5")
    assert searcher.vector_of("f" * 32) is None
    assert len(set(searcher.sample(20)) & set(ids_of(keys_of(130, "k0-")))) == 20
    assert shop.merge().commits == 0


def test_an_empty_index_may_change_its_engine(shop: EngineShop) -> None:
    """A begun and empty one has no rows anywhere."""
    vectors = fill(shop, 3)
    shop.merge()
    for key in keys_of(3, "k0-"):
        shop.delete(key, 9)
    shop.merge()
    shop.now[0] += 8 * 86_400
    shop.merge(relearn=True)
    assert len(shop.searcher()) == 0
    if shop.engine is not None:
        shop.engine.close()
        shop.engine = None
        shop.add(["back"], vectors[:1], version=10)
        shop.merge()
        assert len(shop.searcher()) == 1


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_value_is_read_as_an_expression(shop: EngineShop, value: str) -> None:
    vectors = fill(shop, 130)
    own = FacetRow(collection=value, source=value, labels=(value,), declared={"c": "keyword"}, values={"c": value})
    shop.add(["hostile"], vectors[0][None], facets=[own])
    shop.merge()
    searcher = shop.searcher()
    for filters in (Filters(collection=(value,)), Filters(label=(value,)), any_of(c=Condition(any=(value,)))):
        hits = searcher.search(vectors[9], k=5, filters=filters)
        assert ([hit.id for hit in hits.hits], hits.total) == (ids_of(["hostile"]), 1)
    assert {one.value: one.count for one in searcher.facets(Filters()).collection}[value] == 1


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_merge_that_dies_is_done_by_the_next(
    shop: EngineShop, twin: EngineShop, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    if shop.engine is None:
        pytest.skip("test_index_merge.py kills merges of segments")
    for one in (shop, twin):
        vectors = fill(one, 140)
        one.merge()
        fill(one, 90, start=500)
        one.delete("k0-3", 5)
    engine, calls = shop.engine, []
    upsert = type(engine).upsert

    def dies(self: Any, collection: str, rows: list[Row]) -> None:
        upsert(self, collection, rows[: len(rows) // 2])
        calls.append(collection)
        raise StoreUnavailable("It went away")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine), "upsert", dies)
        if is_killed:
            patch.setattr(engine_merge.EngineMerge, "_release", lambda *_: None)
        with pytest.raises(StoreUnavailable):
            shop.merge()
    assert calls
    assert len(shop.searcher()) == len(twin.searcher())
    if is_killed:
        assert shop.merge().finished is False, "the dead merge may be alive"
        shop.now[0] += engine_merge.LEASE_S + 1
    assert shop.merge().finished
    twin.merge()
    assert told(shop.searcher(), vectors[:3]) == told(twin.searcher(), vectors[:3])
    assert len(engine.collections()) <= 2, "one, and the one that searches may still hold"


def test_a_search_keeps_what_it_holds_while_an_engine_is_away(
    shop: EngineShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shop.engine is None:
        pytest.skip("test_index_search.py does it with stores")
    vectors = fill(shop, 130)
    shop.merge()
    searcher = shop.searcher()
    shop.add(["new"], vectors[:1])

    def away(*arguments: Any, **options: Any) -> Any:
        raise StoreUnavailable("It is away")

    with monkeypatch.context() as patch:
        patch.setattr(type(shop.engine), "count", away)
        searcher.refresh(force=True)
        assert len(searcher) == 130
    searcher.refresh(force=True)
    assert len(searcher) == 131, "the commit is not forgotten"


def test_an_index_elsewhere_is_refused(shop: EngineShop, twin: EngineShop) -> None:
    fill(shop, 130)
    shop.merge()
    twin.root, twin.objects, twin.documents = shop.root, shop.objects, shop.documents
    if shop.engine is not None:
        for call in (twin.searcher, twin.merge):
            with pytest.raises(SettingsError, match=f"This index is in {shop.engine.name}"):
                call()


def test_what_an_engine_cannot_do_is_refused(shop: EngineShop, monkeypatch: pytest.MonkeyPatch) -> None:
    if shop.engine is None:
        pytest.skip("Segments can")
    vectors = fill(shop, 130)
    shop.merge()
    monkeypatch.setattr("visor.index.engine.searcher.SORTED_MAX", 100)
    monkeypatch.setattr("visor.index.engine.searcher.COUNTED_MAX", 100)
    searcher = shop.searcher()
    for options in ({"metric": "euclidean"}, {"order": Order(sort="price_up")}):
        with pytest.raises(BadRequest, match=shop.engine.name):
            searcher.search(vectors[0], k=3, **options)
    assert len(searcher.search(vectors[0], k=30, order=Order(sort="price_up", nearest=20)).hits) >= 20, (
        "few are ordered"
    )
    with pytest.raises(BadRequest, match="Words alone"):
        searcher.search(None, k=3, text="cap")
    with pytest.raises(BadRequest, match="Words alone"):
        searcher.facets(Filters(), "cap")
    with pytest.raises(BadRequest, match="counted by facets"):
        searcher.facets(Filters())
    assert searcher.search(vectors[0], k=3, text="cap 7").hits


def row(number: int, **changes: Any) -> Row:
    rng = np.random.default_rng(number)
    near = unit_rows(rng.standard_normal((1, 16)))[0]
    made = Row(
        item_id("t", str(number)),
        number,
        f"source {number % 3}",
        (token("a"), token("b", str(number % 4)), (1 << 63) - 1),
        {number_name("n"): number - 50.25, number_name("tiny"): 1e-12 * number},
        b"\0\xff" * number * 200,
        near,
        rng.standard_normal(5_000).astype(np.float16),
    )
    return replace(made, **changes)


def test_an_engine_keeps_rows_to_the_bit(engine: VectorEngine) -> None:
    rows = [row(number) for number in range(90)]
    engine.create("c_1", 16)
    engine.create("c_1", 16)
    engine.upsert("c_1", rows)
    engine.upsert("c_1", [replace(row(3), version=99, facts=b"new")])
    stored = {one.id: one for one in engine.scan("c_1", (), "all")}
    assert len(stored) == engine.count("c_1") == 90
    assert set(stored) == set(engine.ids("c_1"))
    for one in [*rows[:3], replace(row(3), version=99, facts=b"new"), *rows[4:]]:
        found = stored[one.id]
        assert (found.version, found.source, found.tokens, found.numbers) == (
            one.version, one.source, one.tokens, one.numbers)  # fmt: skip
        assert found.facts == one.facts
        assert np.array_equal(found.near, one.near)
        assert np.array_equal(found.full, one.full)
    best = engine.nearest("c_1", rows[5].near, 90)
    expected = sorted(rows, key=lambda one: -float(one.near @ rows[5].near))
    assert [one.id for one in best] == [one.id for one in expected]
    assert not len(best[0].full)
    middle = f"{1 << 127:032x}"
    halves = [engine.scan("c_1", (), "none", stop=middle), engine.scan("c_1", (), "none", start=middle)]
    assert sorted(one.id for half in halves for one in half) == sorted(stored)
    assert engine.count("c_1", stop=middle) == len(halves[0])
    engine.delete("c_1", [one.id for one in rows[:10]])
    assert engine.count("c_1") == 80
    assert engine.get("c_1", [rows[0].id, rows[20].id], "none")[0].id == rows[20].id
    assert engine.get("c_1", []) == []
    assert engine.collections() == ["c_1"]
    engine.drop("c_1")
    engine.drop("c_1")
    assert engine.collections() == []


@pytest.mark.parametrize(
    ("clause", "passes"),
    [
        (Clause((token("b", "1"), token("b", "2"))), lambda n: n % 4 in (1, 2)),
        (Clause((token("b", "1"),), negated=True), lambda n: n % 4 != 1),
        (Clause((token("none"),)), lambda n: False),
        (Clause((token("none"),), negated=True), lambda n: True),
        (Clause(ranges=((number_name("n"), -10.25, 3.75),), has=token("a")), lambda n: 40 <= n <= 54),
        (Clause(ranges=((number_name("n"), -math.inf, -40.25),), has=token("a")), lambda n: n <= 10),
        (Clause(ranges=((number_name("n"), 0, math.inf),), has=token("a"), negated=True), lambda n: n <= 50),
        (Clause(ranges=((number_name("tiny"), 2e-12, 1e300),), has=token("a")), lambda n: n >= 2),
        (Clause(ranges=((number_name("other"), -math.inf, math.inf),), has=token("z"), negated=True), lambda n: True),
        (Clause(), lambda n: False),
    ],
)
def test_an_engine_filters(engine: VectorEngine, clause: Clause, passes: Any) -> None:
    rows = [row(number) for number in range(80)]
    engine.create("c_1", 16)
    engine.upsert("c_1", rows)
    expected = {one.id for number, one in enumerate(rows) if passes(number)}
    assert {one.id for one in engine.scan("c_1", [clause], "none")} == expected
    assert engine.count("c_1", [clause]) == len(expected)
    assert {one.id for one in engine.nearest("c_1", rows[0].near, 80, [clause])} == expected


def test_two_merges_do_not_write_at_once(shop: EngineShop) -> None:
    if shop.engine is None:
        pytest.skip("Segments are merged side by side, by compare-and-swap")
    fill(shop, 130)
    shop.merge()
    fill(shop, 10, start=700)

    def progress(line: str) -> None:
        other = shop.merge(progress=lambda text: None)
        assert (other.commits, other.finished) == (0, True) or other.conflicts

    shop.merge(progress=progress)
    assert len(shop.searcher()) == 140


@pytest.mark.slow
def test_a_file_of_milvus_lite_is_one_process(tmp_path: Any) -> None:
    import subprocess
    import sys

    from tests.contract.engines import milvus_lite

    engine = milvus_lite(tmp_path)
    engine.create("c_1", 4)
    code = (
        "import sys; from visor.storage.engines.milvus import MilvusEngine; from visor.errors import StoreUnavailable\n"
        "try: MilvusEngine(sys.argv[1], '', 'visor_test_').collections()\n"
        "except StoreUnavailable as exc: print(exc)"
    )
    path = str(tmp_path / "milvus.db")
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120, check=False)
    assert "Stop the other process" in run.stdout, run.stderr[-500:]
    assert run.stderr == "", "the library's own log, with its stack"
    engine.close()
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr[-500:]


def test_postgres_whose_extension_comes_later_is_asked_anew(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was refused once knows vectors as soon as the extension is there."""
    import psycopg
    from tests.contract.engines import pgvector

    def missing(_: object) -> None:
        raise psycopg.ProgrammingError("vector type not found in the database")

    engine = pgvector(postgres_url)
    with monkeypatch.context() as patch:
        patch.setattr("visor.storage.engines.pgvector.register_vector", missing)
        with pytest.raises(StoreUnavailable, match=r"vector type not found.*A server with the extension pgvector"):
            engine.collections()
    engine.create("c_1", 3)
    near = np.array([1, 0, 0], np.float32)
    engine.upsert("c_1", [Row("0" * 32, 1, "s", (1,), {}, b"", near, near.astype(np.float16))])
    assert [row.near.tolist() for row in engine.nearest("c_1", near, 1)] == [[1, 0, 0]]
    engine.drop("c_1")
    engine.close()


def test_postgres_finds_the_rows_that_pass_far_from_the_query(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index gives the nearest few hundred rows, none of which pass."""
    from tests.contract.engines import pgvector

    monkeypatch.setattr("visor.storage.engines.pgvector.EXACT_ROWS", 5)
    engine = pgvector(postgres_url)
    engine.create("c_1", 2)
    turned = [np.array([math.cos(n / 1000), math.sin(n / 1000)], np.float32) for n in range(1500)]
    full = np.zeros(1, np.float16)
    engine.upsert(
        "c_1", [Row(f"{n:032x}", 1, "s", (1 + n // 1400,), {}, b"", one, full) for n, one in enumerate(turned)]
    )
    engine._ask("set enable_sort = off")  # type: ignore[arg-type]  # else HNSW is used only for a large table
    found = engine.nearest("c_1", turned[0], 20, [Clause((2,))])
    assert [row.id for row in found] == [f"{n:032x}" for n in range(1400, 1420)]
    engine.drop("c_1")
    engine.close()
