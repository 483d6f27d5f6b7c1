"""Meters count cheaply, see each other, stop softly before the limit, and start anew with Google's day."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from visor.errors import QuotaReached, StoreUnavailable
from visor.free_tier.allowances import allowances, counted
from visor.free_tier.quota import FLUSH_S, HARDLY_SEARCHED, STRANGERS_A_DAY, Meter, california
from visor.schema.collections import METERS
from visor.settings import Settings
from visor.storage import open_stores
from visor.storage.documents import Document, DocumentStore, Write

NOON = datetime.datetime(2026, 11, 21, 12, tzinfo=california()).timestamp()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class CountingDocuments:
    """A real store, with its writes and reads counted, and away when told so."""

    def __init__(self, inner: DocumentStore) -> None:
        self.inner, self.writes, self.reads, self.away = inner, 0, 0, False

    def get(self, collection: str, keys: Sequence[str]) -> dict[str, Document]:
        self._answer()
        self.reads += len(keys)
        return self.inner.get(collection, keys)

    def commit(self, writes: Sequence[Write]) -> list[bool]:
        self._answer()
        self.writes += len(writes)
        return self.inner.commit(writes)

    def query(self, collection: str, **_: object) -> list[Document]:
        raise AssertionError("a meter asks by key")

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("The store is away")


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[CountingDocuments]:
    with open_stores(Settings(home=tmp_path)) as stores:
        yield CountingDocuments(stores.documents)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def meter(documents: CountingDocuments, clock: Clock, **settings: float) -> Meter:
    return Meter(documents, Settings(**settings), limited=True, clock=clock)  # type: ignore[arg-type]


def used(of: Meter, resource: str) -> float:
    return next(r.used for r in of.readings() if r.resource == resource)


def test_counts_what_counted_json_says(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock)
    one.add("search", 3)
    assert used(one, "firestore_reads") == pytest.approx(3 * counted().each("search", "firestore_reads"))
    assert used(one, "class_b") == 0


def test_measured_seconds_replace_the_figure(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock, function_cpu=2, function_memory_gib=4)
    one.add("search", 10, seconds=5)
    assert used(one, "vcpu_s") == pytest.approx(10)
    assert used(one, "gib_s") == pytest.approx(20)


def test_two_instances_see_each_other_after_a_flush(documents: CountingDocuments, clock: Clock) -> None:
    one, two = meter(documents, clock), meter(documents, clock)
    one.add("search", 100)
    two.add("search", 50)
    one.flush()
    two.flush()
    one.flush()
    assert used(one, "requests") == used(two, "requests") == 150


def test_nothing_is_lost_in_a_day_of_many_flushes(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock)
    for _ in range(2000):
        one.add("search")
        clock.now += 20
    one.flush()
    stored = documents.inner.get(METERS, ["2026-11"])["2026-11"].data
    assert stored["month_search"] == 2000
    assert sum(stored.get(f"d{day}_search", 0) for day in (21, 22)) == 2000


def test_a_busy_day_costs_the_meter_less_than_one_percent(documents: CountingDocuments, clock: Clock) -> None:
    """1,000 searches in a day by one instance, then a whole day at every ten seconds."""
    one = meter(documents, clock)
    for _ in range(8640):
        one.add("search")
        clock.now += 10
    free = allowances()
    flushes = 86_400 / FLUSH_S + 8640 * counted().each("search", "firestore_reads") / (50_000 * 0.01) + 2
    assert documents.writes <= min(flushes, 0.02 * free.of("Firestore", "writes").free)
    assert documents.reads <= min(flushes, 0.01 * free.of("Firestore", "reads").free)


def test_idle_costs_nothing(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock)
    one.flush()
    writes = documents.writes
    clock.now += 5 * FLUSH_S
    one.allow("search")
    assert documents.writes == writes


def test_stops_before_the_limit_with_a_reserve_for_the_owner(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock, quota_share=0.9, owner_reserve=0.1)
    reads = allowances().of("Firestore", "reads").free
    per_search = counted().each("search", "firestore_reads")
    fitting = int(reads * 0.9 * 0.9 / per_search)
    for _ in range(fitting):
        one.allow("search")
        one.add("search")
    with pytest.raises(QuotaReached) as caught:
        one.allow("search")
    assert "Firestore reads" in caught.value.found
    assert caught.value.status == 429
    assert caught.value.retry_after_s == pytest.approx(12 * 3600)
    one.allow("search", owner=True)
    one.add("search", reads * 0.09 / per_search)
    with pytest.raises(QuotaReached):
        one.allow("search", owner=True)


def test_crawl_leaves_room_for_searches(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock)
    first = one.headroom("embed")
    one.add("embed", first)
    assert one.headroom("embed") == 0
    with pytest.raises(QuotaReached):
        one.allow("embed", 64)
    one.allow("search")
    one.allow("feedback", STRANGERS_A_DAY)
    writes = allowances().of("Firestore", "writes").free
    share = HARDLY_SEARCHED["firestore_writes"]
    assert first == pytest.approx(writes * 0.9 * 0.9 * share / counted().each("embed", "firestore_writes"), rel=0.01)


def test_a_new_day_is_california_s(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock)
    one.add("embed", one.headroom("embed"))
    clock.now = NOON + 12 * 3600 - 1
    assert one.headroom("embed") == 0
    clock.now += 2
    assert one.headroom("embed") > 0
    assert used(one, "requests") > 0, "the month goes on"


def test_a_month_limit_ends_with_the_month(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock)
    one.add("fresh_shard", 50_000)
    with pytest.raises(QuotaReached) as caught:
        one.allow("cold_start")
    assert caught.value.retry_after_s == pytest.approx(9.5 * 86_400)
    clock.now += caught.value.retry_after_s + 1
    one.allow("cold_start")


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        ((2026, 11, 1, 0), 25),  # clocks go back in this night
        ((2027, 3, 14, 0), 23),  # and forward in this one
        ((2026, 11, 2, 0), 24),
    ],
)
def test_a_day_on_which_the_clocks_change_ends_when_it_ends(
    documents: CountingDocuments, clock: Clock, now: tuple[int, int, int, int], hours: int
) -> None:
    clock.now = datetime.datetime(*now, tzinfo=california()).timestamp()
    one = meter(documents, clock)
    one.add("embed", one.headroom("embed"))
    with pytest.raises(QuotaReached) as caught:
        one.allow("embed")
    assert caught.value.retry_after_s == hours * 3600
    clock.now += hours * 3600
    one.allow("embed")


def test_what_was_written_and_could_not_be_read_back_still_counts(
    documents: CountingDocuments, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = meter(documents, clock)
    one.add("search", 10)
    one.add("search", 5)

    def away(collection: str, keys: Sequence[str]) -> dict[str, Document]:
        raise StoreUnavailable("The store is away")

    monkeypatch.setattr(documents, "get", away)
    before = used(one, "firestore_reads")
    one.flush()
    assert used(one, "firestore_reads") == before > 0
    monkeypatch.undo()
    one.flush()
    assert used(one, "firestore_reads") == before


def test_a_store_that_is_away_stops_nobody_and_loses_nothing(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock)
    documents.away = True
    one.add("search", 10)
    one.allow("search")
    clock.now += FLUSH_S + 1
    one.add("search", 5)
    documents.away = False
    one.flush()
    assert documents.inner.get(METERS, ["2026-11"])["2026-11"].data["month_search"] == 15


def test_the_embedded_setting_counts_and_never_stops(documents: CountingDocuments, clock: Clock) -> None:
    one = Meter(documents, Settings(), clock=clock)  # type: ignore[arg-type]
    one.add("search", 10**7)
    one.allow("search")
    assert one.headroom("embed") > 10**12


def begins(year: int, month: int) -> float:
    return datetime.datetime(year, month, 1, 0, 5, tzinfo=california()).timestamp()


MONTH_BEGINS = begins(2026, 11)


@pytest.mark.parametrize(
    ("budget", "dollar", "instances", "month", "images"),
    [
        (5.0, 1.0, 2, (2026, 11), 2_000_000),
        (5.0, 0.8, 2, (2026, 11), 2_000_000),
        (1.0, 1.0, 2, (2026, 11), 1_000_000),
        (5.0, 1.0, 6, (2027, 2), 2_000_000),
        (5.0, 1.0, 3, (2028, 2), 0),
        (20.0, 1.0, 6, (2026, 12), 5_000_000),
        (750.0, 150.0, 2, (2026, 10), 0),
    ],
)
def test_a_month_past_the_allowance_stops_at_the_budget(
    documents: CountingDocuments,
    clock: Clock,
    budget: float,
    dollar: float,
    instances: int,
    month: tuple[int, int],
    images: int,
) -> None:
    """Instances with all the load there could be, which see each other's counts only now and then. What is stored was
    said in the month before, by two merges, and is said again when the sum is used."""
    clock.now = begins(*month) - 86_400

    def merge() -> None:
        merging = meter(documents, clock, budget=budget, budget_dollar=dollar)
        merging.note_images(images)
        merging.flush()

    merge()
    merge()
    clock.now = begins(*month)
    every = [meter(documents, clock, budget=budget, budget_dollar=dollar) for _ in range(instances)]
    size = max(1.0, budget / dollar / 5) * 2 / instances
    refused = set()
    for _half_day in range(27 * 2):
        for one in every:
            for kind, n in (("embed", 10_000 * size), ("search", 2_000 * size)):
                try:
                    one.allow(kind, n)
                    one.add(kind, n)
                except QuotaReached as reached:
                    refused.add(f"{kind}: {reached}"[:47])
        clock.now += 12 * 3600
    merge()
    assert refused == {f"{kind}: This month's budget is used up for a {kind}"[:47] for kind in ("embed", "search")}
    for _ in range(2):
        for one in every:
            one.flush()
    assert {0.9 * budget <= one.spent() <= budget for one in every} == {True}
    every[0].allow("search", size, owner=True)
    clock.now = begins(month[0] + month[1] // 12, month[1] % 12 + 1)
    assert every[0].spent() < 0.5 * budget, "a new month has its own sum, of which what is stored takes its part"


def test_without_a_budget_nothing_past_an_allowance_is_let_through(documents: CountingDocuments, clock: Clock) -> None:
    one = meter(documents, clock)
    clock.now = MONTH_BEGINS
    while True:
        try:
            one.allow("embed", 500)
        except QuotaReached:
            break
        one.add("embed", 500)
    one.note_images(100_000)
    assert one.spent() == 0


def test_with_a_budget_a_crawl_may_go_on_past_the_day(documents: CountingDocuments, clock: Clock) -> None:
    free, paid = meter(documents, clock), meter(documents, clock, budget=5.0)
    assert free.headroom("embed") < 20_000 < 100_000 < paid.headroom("embed")
    while n := paid.headroom("embed"):
        paid.add("embed", n)
    assert 4.5 <= paid.spent() <= 5
