"""Merge: nothing is lost, doubled or resurrected, whatever arrives in whatever order and wherever it stops."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.index.index_fixtures import DIMENSION, MODEL, Shop, clustered, hash_of, ids_of, keys_of

from visor.errors import Conflict
from visor.index.format.manifest import ProjectionEntry, SegmentEntry, manifest_object, read_manifest
from visor.index.merge.merge import MergeReport, merge
from visor.index.merge.policy import MergePolicy, choose_segments, is_learning_due
from visor.schema.items import FacetRow, item_id
from visor.schema.search import Filters

SMALL = MergePolicy(segment_rows=300, step_rows=100, samples_min=64, small_rows=16, grace_s=60, segments_max=4)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def run(shop: Shop, policy: MergePolicy = SMALL, **options: Any) -> MergeReport:
    return merge(shop.objects, shop.documents, model=MODEL, policy=policy, clock=shop.clock, **options)


def names(shop: Shop, folder: str) -> set[str]:
    return {info.name for info in shop.objects.list(folder)}


def found(shop: Shop) -> set[str]:
    """Ids that a new searcher finds, each once."""
    searcher = shop.searcher()
    if not len(searcher):
        return set()
    hits = searcher.search(np.ones(DIMENSION, np.float32), k=len(searcher) + 10, mode="exact").hits
    ids = [i for hit in hits for i in (hit.id, *hit.duplicates)]
    assert len(ids) == len(set(ids)) == len(searcher)
    return set(ids)


def fill(shop: Shop, count: int, prefix: str = "k", version: int = 1, seed: int = 0) -> list[str]:
    keys, vectors = keys_of(count, prefix), clustered(count, seed=seed)
    for start in range(0, count, 64):
        shop.add(keys[start : start + 64], vectors[start : start + 64], version=version)
    return keys


def test_nothing_to_merge(shop: Shop) -> None:
    assert run(shop).generation == 0


def test_the_same_items_make_the_same_space_in_whatever_order_they_came(tmp_path: Path) -> None:
    keys, vectors = keys_of(200), clustered(200)
    spaces = []
    for seed in range(2):
        shop = Shop(tmp_path / str(seed))
        order = np.random.default_rng(seed).permutation(200)
        for rows in np.array_split(order, 4):
            rows = np.array(sorted(rows, key=lambda row: item_id("test", keys[row])))
            shop.add([keys[row] for row in rows], vectors[rows])
        run(shop, MergePolicy(samples_min=64))
        manifest, _ = read_manifest(shop.objects, MODEL)
        assert manifest is not None
        assert manifest.projection is not None
        # The name is a digest of what was learned.
        spaces.append(manifest.projection.name)
    assert spaces[0] == spaces[1]


def test_shards_become_segments_and_go(shop: Shop) -> None:
    keys = fill(shop, 500)
    report = run(shop)
    assert (report.images, report.commits, report.learned, report.finished) == (500, 8, True, True)
    assert found(shop) == set(ids_of(keys))
    assert [d.key for d in shop.documents.query("commits")] == ["manifest"]
    assert len(names(shop, "shards/")) == 8  # for searches that hold the old manifest
    shop.now[0] += 100
    run(shop)
    assert names(shop, "shards/") == set()
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    assert names(shop, "segments/") == {entry.name for entry in manifest.segments}
    assert names(shop, "projections/") == {manifest.projection.name}
    assert manifest.trash == ()
    assert found(shop) == set(ids_of(keys))


@pytest.mark.slow
def test_never_more_than_the_policy_allows(shop: Shop) -> None:
    expected: set[str] = set()
    for number in range(24):
        expected |= set(ids_of(fill(shop, 70, prefix=f"r{number}-", seed=number)))
        report = run(shop)
        assert report.segments <= SMALL.segments_max
        shop.now[0] += 100
    assert found(shop) == expected
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    assert manifest.projection is not None
    assert {entry.projection for entry in manifest.segments} == {manifest.projection.name}


def test_the_newest_version_wins_and_old_ones_are_dropped(shop: Shop) -> None:
    vectors = clustered(200)
    shop.add(keys_of(200), vectors, version=3)
    run(shop)
    shop.add(keys_of(50), np.roll(vectors[:50], 1, axis=0), version=4)
    shop.add(keys_of(20), vectors[:20], version=2)  # arrives late
    searcher = shop.searcher()
    item = item_id("test", "k5")
    assert np.array_equal(searcher.vector_of(item), vectors[4].astype(np.float16))
    assert len(searcher) == 200
    run(shop)
    searcher.refresh()
    assert np.array_equal(searcher.vector_of(item), vectors[4].astype(np.float16))
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    assert manifest.images == 200


def test_a_tombstone_hides_what_arrives_after_it(shop: Shop) -> None:
    fill(shop, 100)
    run(shop)
    shop.delete("late", 5)
    run(shop)
    shop.add(["late"], clustered(1), version=4)
    assert item_id("test", "late") not in found(shop)
    run(shop)
    assert item_id("test", "late") not in found(shop)
    shop.add(["late"], clustered(1), version=6)
    assert item_id("test", "late") in found(shop)


def test_late_records_are_dropped_in_the_end(shop: Shop) -> None:
    fill(shop, 100)
    shop.delete("k1", 5)
    shop.update("k2", 5, FacetRow(collection="new"))
    run(shop)
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    assert (manifest.segments[0].tombstones, manifest.segments[0].updates) == (1, 1)
    shop.now[0] += SMALL.late_s + 1
    fill(shop, 40, prefix="more")
    run(shop)
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    assert sum(entry.tombstones + entry.updates for entry in manifest.segments) == 0
    searcher = shop.searcher()
    assert searcher.facets(Filters(collection=("new",))).images == 1
    assert item_id("test", "k1") not in found(shop)


def test_an_update_reaches_rows_of_other_segments(shop: Shop) -> None:
    big = MergePolicy(segment_rows=300, step_rows=100, samples_min=64, small_rows=1, ratio=1, grace_s=60)
    fill(shop, 300)
    run(shop, big)
    shop.update("k7", 5, FacetRow(collection="new", price=3))
    fill(shop, 3, prefix="more")
    run(shop, big)
    searcher = shop.searcher()
    assert searcher.segments > 1
    hits = searcher.search(np.ones(DIMENSION, np.float32), k=9, filters=Filters(collection=("new",))).hits
    assert [hit.id for hit in hits] == ids_of(["k7"])
    assert searcher.facets(Filters()).price_max == 3


def test_an_older_update_that_another_segment_carries_never_holds_again(shop: Shop) -> None:
    policy = MergePolicy(segment_rows=100, step_rows=100, samples_min=1000, small_rows=1, ratio=1, grace_s=60)
    prices = []
    # The first update stays with a segment that is not written again, the second one becomes part of its row.
    for price, rows in ((None, 20), (3, 90), (2, 20), (None, 50)):
        if price is not None:
            shop.update("k7", 10 - price, FacetRow(collection="new", price=price))
        fill(shop, rows, prefix="k" if not prices else f"more{len(prices)}-")
        run(shop, policy)
        shop.now[0] += policy.late_s + 1
        facets = shop.searcher().facets(Filters(collection=("new",)))
        prices.append((facets.price_min, facets.price_max))
    assert prices == [(None, None), (3, 3), (2, 2), (2, 2)]


def test_an_update_before_its_shard_applies(shop: Shop) -> None:
    shop.update("k3", 9, FacetRow(collection="new"))
    fill(shop, 10, version=8)
    assert shop.searcher().facets(Filters(collection=("new",))).images == 1
    run(shop)
    assert shop.searcher().facets(Filters(collection=("new",))).images == 1
    fill(shop, 10, version=10)  # a newer version brings its own facets
    assert shop.searcher().facets(Filters(collection=("new",))).images == 0


def test_a_running_search_follows_merges(shop: Shop) -> None:
    keys = fill(shop, 300)
    searcher = shop.searcher()
    for step in range(5):
        keys += fill(shop, 30, prefix=f"s{step}-", seed=step)
        searcher.refresh()
        assert len(searcher) == len(keys)
        run(shop)
        shop.now[0] += 1000
        run(shop)  # what the searcher held is deleted now
        searcher.refresh()
        assert len(searcher) == len(keys)
        assert searcher.fresh == 0


def test_a_running_search_follows_a_merge_of_what_waited_for_days(shop: Shop) -> None:
    fill(shop, 100)
    searcher = shop.searcher()
    shop.now[0] += 3 * 86_400
    run(shop)
    searcher.refresh()
    assert (len(searcher), searcher.fresh) == (100, 0)


def test_the_loser_of_a_swap_cleans_up_and_starts_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = fill(shop, 200)
    put, raced = shop.objects.put, []

    def race(name: str, data: bytes, *, if_generation: int | None = None) -> Any:
        if name == manifest_object(MODEL) and not raced:
            raced.append(True)
            run(shop)  # the other merger is faster
        return put(name, data, if_generation=if_generation)

    monkeypatch.setattr(shop.objects, "put", race)
    report = run(shop)
    assert report.conflicts == 1
    assert report.images == 200
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    kept = {entry.name for entry in manifest.segments} | {entry.name for entry in manifest.trash}
    assert names(shop, "segments/") <= kept
    assert found(shop) == set(ids_of(keys))


class Killed(BaseException):
    """Stands for the process's end."""


def killing(shop: Shop, at: int) -> Iterator[Callable[[], int]]:
    """The store's writing calls raise from the `at`-th on, half of them after having done their work."""
    calls = [0]
    originals = {(s, n): getattr(s, n) for s, n in _writing(shop)}

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] > at:
                raise Killed
            result = original(*args, **options)
            if calls[0] == at and at % 2:
                raise Killed
            return result

        return call

    for (store, name), original in originals.items():
        setattr(store, name, wrap(original))
    try:
        yield lambda: calls[0]
    finally:
        for (store, name), original in originals.items():
            setattr(store, name, original)


def _writing(shop: Shop) -> list[tuple[Any, str]]:
    return [
        (shop.objects, "put"),
        (shop.objects, "put_file"),
        (shop.objects, "delete"),
        (shop.documents, "commit"),
    ]


@pytest.mark.parametrize("at", range(16))
def test_a_merge_that_dies_anywhere_loses_nothing(shop: Shop, at: int) -> None:
    keys = fill(shop, 150)
    run(shop)
    keys += fill(shop, 150, prefix="more", seed=1)
    shop.delete("k3", 2)
    keys.remove("k3")
    shop.now[0] += 1000
    for counted in killing(shop, at):
        try:
            run(shop)
            assert counted() <= at
        except Killed:
            pass
    assert found(shop) == set(ids_of(keys))
    run(shop)
    assert found(shop) == set(ids_of(keys))
    for _ in range(3):  # orphans are noted, then deleted
        shop.now[0] += 2 * SMALL.orphan_every_s
        run(shop)
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    assert names(shop, "segments/") == {entry.name for entry in manifest.segments}
    assert names(shop, "shards/") == set()
    assert names(shop, "projections/") == {manifest.projection.name}
    assert found(shop) == set(ids_of(keys))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.slow
def test_any_order_of_events_ends_in_the_same_index(tmp_path: Path, seed: int) -> None:
    """Against a plain dictionary: newest version wins, tombstones hide versions up to theirs, updates likewise."""
    rng = random.Random(seed)
    shop = Shop(tmp_path)
    vectors = clustered(40, seed=seed)
    events: list[tuple[str, int, int]] = []
    for item in range(40):
        for version in sorted(rng.sample(range(1, 30), rng.randint(1, 4))):
            events.append((rng.choice(["add", "add", "delete", "update"]), item, version))
    rng.shuffle(events)
    for number, (what, item, version) in enumerate(events):
        key = f"i{item}"
        if what == "add":
            facets = [FacetRow(collection=f"v{version}")]
            shop.add([key], vectors[[item]] + version / 100, version=version, facets=facets, name=f"s{number}")
        elif what == "delete":
            shop.delete(key, version)
        else:
            shop.update(key, version, FacetRow(collection=f"v{version}"))
        if rng.random() < 0.1:
            run(shop)
            shop.now[0] += rng.choice([0, 1000])
    expected = {}
    for item in range(40):
        adds = [v for what, i, v in events if i == item and what == "add"]
        gone = max((v for what, i, v in events if i == item and what == "delete"), default=0)
        if adds and max(adds) > gone:
            shown = [v for what, i, v in events if i == item and what == "update" and v >= max(adds)]
            expected[item_id("test", f"i{item}")] = f"v{max([max(adds), *shown])}"
    for _ in range(2):
        assert found(shop) == set(expected)
        counts = {v.value: v.count for v in shop.searcher().facets(Filters()).collection}
        assert counts == {c: list(expected.values()).count(c) for c in expected.values()}
        run(shop)


def test_a_corrupt_shard_is_named_kept_and_left_out(shop: Shop) -> None:
    keys = fill(shop, 100)
    bad = next(iter(names(shop, "shards/")))
    data = bytearray(shop.objects.get(bad))
    data[-3] ^= 1
    shop.objects.put(bad, bytes(data))
    searcher = shop.searcher()
    assert bad in (searcher.notice or "")
    assert 0 < len(searcher) < len(keys)
    report = run(shop)
    assert any(bad in what for what in report.unreadable)
    shop.now[0] += 1000
    run(shop)
    assert bad in names(shop, "shards/")
    data[-3] ^= 1
    shop.objects.put(bad, bytes(data))  # restored from a copy
    run(shop)
    assert found(shop) == set(ids_of(keys))


def test_a_corrupt_segment_never_loses_what_is_merged_into_it(shop: Shop) -> None:
    fill(shop, 100)
    run(shop)
    (bad,) = names(shop, "segments/")
    data = bytearray(shop.objects.get(bad))
    data[-3] ^= 1  # in the full vectors, which only a merge checks
    shop.objects.put(bad, bytes(data))
    more = fill(shop, 64, prefix="more")
    report = run(shop)
    assert any(bad in what for what in report.unreadable)
    assert bad in names(shop, "segments/")
    assert found(shop) >= set(ids_of(more))
    data[400] ^= 1  # in the header
    shop.objects.put(bad, bytes(data))
    searcher = shop.searcher()
    assert bad in (searcher.notice or "")
    assert len(searcher) == len(more)


def test_two_models_live_side_by_side(shop: Shop) -> None:
    keys = fill(shop, 100)
    run(shop)
    shop.add(keys, clustered(100, dimension=32, seed=9), model="model-b")
    shop.delete("k1", 7)
    assert len(shop.searcher()) == 99
    other = merge(shop.objects, shop.documents, model="model-b", policy=SMALL, clock=shop.clock)
    assert other.images == 99
    shop.now[0] += 3600
    run(shop)
    assert len(shop.searcher()) == 99
    assert [d.key for d in shop.documents.query("commits")] == ["manifest"]


def test_copies_are_grouped_in_the_segment(shop: Shop) -> None:
    vectors = clustered(80)
    shop.add(keys_of(80), vectors, hashes=[hash_of(k) for k in keys_of(80)])
    shop.add(
        [f"copy{i}" for i in range(80, 100)],
        np.repeat(vectors[3:4], 20, axis=0),
        hashes=[hash_of("k3")] * 20,
        facets=[FacetRow(collection="even" if i % 2 else "odd") for i in range(20)],
    )
    run(shop)
    searcher = shop.searcher()
    hit = searcher.search(vectors[3], k=1).hits[0]
    assert len(hit.duplicates) == 20
    hit = searcher.search(vectors[3], k=1, filters=Filters(collection=("even",))).hits[0]
    assert len(hit.duplicates) == 9


def test_a_budget_of_nothing_does_nothing(shop: Shop) -> None:
    fill(shop, 100)
    report = run(shop, budget_s=0)
    assert (report.finished, report.steps) == (False, 0)
    assert run(shop).finished


def test_a_swap_of_an_old_generation_is_a_conflict(shop: Shop) -> None:
    from visor.index.format.manifest import swap_manifest

    fill(shop, 10)
    run(shop)
    manifest, generation = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    swap_manifest(shop.objects, manifest, generation)
    with pytest.raises(Conflict):
        swap_manifest(shop.objects, manifest, generation)


def test_three_million_images_are_never_more_than_a_dozen_segments() -> None:
    """The default policy alone, with entries in place of segments."""
    policy = MergePolicy()
    segments: list[SegmentEntry] = []
    rng = random.Random(1)
    total = 0
    while total < 3_000_000:
        fresh = rng.choice([64, 1_000, policy.step_rows])
        total += fresh
        chosen = choose_segments(policy, [(entry, entry.count) for entry in segments], fresh, True)
        count = fresh + sum(entry.count for entry in segments if entry.name in chosen)
        pieces = -(-count // policy.rows_max(total))
        segments = [entry for entry in segments if entry.name not in chosen]
        segments += [entry_of(f"{total}-{piece}", count // pieces + 1) for piece in range(pieces)]
        assert len(segments) <= policy.segments_max == 12


def entry_of(name: str, count: int) -> SegmentEntry:
    return SegmentEntry(name=name, count=count, size_bytes=1, hot_bytes=1, digest="", projection=None)


@pytest.mark.parametrize(
    ("learned_on", "rows", "due"),
    [
        (None, 127, False),
        (None, 128, True),
        (200, 249, False),
        (200, 250, True),
        (5_000, 9_999, False),
        (5_000, 10_000, True),
        (65_536, 10_000_000, False),
    ],
)
def test_a_projection_is_learned_anew_as_the_index_grows(learned_on: int | None, rows: int, due: bool) -> None:
    known = None if learned_on is None else ProjectionEntry(name="p", dimensions=256, learned_on=learned_on)
    assert is_learning_due(MergePolicy(), rows, known, forced=False) == due
