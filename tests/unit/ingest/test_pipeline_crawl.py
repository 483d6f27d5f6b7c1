"""What a crawl publishes, over real stores, from catalogues that change, fail and stop."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from visor.errors import Conflict, SourceError, SourceUnavailable
from visor.ingest.crawl import Crawl
from visor.ingest.seen_set import UNREAD_MAX, SeenSet, object_name
from visor.schema.items import Batch, Change, CrawlRun, Item, item_id
from visor.settings import Settings
from visor.sources.contract import Page, RowFailure
from visor.storage import Stores, open_stores


def make_item(key: str, *, price: float = 1.0, picture: str = "a", source: str = "shop") -> Item:
    url = f"https://x.test/{key}{picture}.jpg"
    return Item(id=item_id(source, key), source=source, key=key, image_url=url, price=price)


@dataclass
class Catalogue:
    """A source over a list, ten items a page, whose checkpoint is the next position."""

    items: Sequence[Item]
    name: str = "shop"
    page: int = 10
    fail_at: int | None = None
    failed: tuple[RowFailure, ...] = ()
    failed_more: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)
    partial: bool = False
    gone: tuple[str, ...] = ()
    reads: list[Any] = field(default_factory=list)

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        self.reads.append(checkpoint)
        start = checkpoint["at"] if checkpoint else 0
        while True:
            if self.fail_at is not None and start >= self.fail_at:
                raise SourceUnavailable("The shop does not answer")
            end = start + self.page
            yield Page(
                items=tuple(self.items[start:end]),
                checkpoint={"at": end} if end < len(self.items) else None,
                failed=self.failed if start == 0 else (),
                failed_more=self.failed_more if start == 0 else 0,
                passed_over=self.passed_over if start == 0 else {},
                partial=self.partial,
                gone=self.gone if start == 0 else (),
            )
            if end >= len(self.items):
                return
            start = end


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(Settings(home=tmp_path)) as stores:
        yield stores


def crawl(stores: Stores, catalogue: Catalogue, **options: Any) -> CrawlRun:
    return Crawl(
        catalogue,
        objects=stores.objects,
        documents=stores.documents,
        queue=stores.queue,
        settings=Settings(batch_size=8),
        **options,
    ).run()


def published(stores: Stores) -> list[Change]:
    """Everything that waits in the queue, which is emptied."""
    changes: list[Change] = []
    while messages := stores.queue.receive(10, lease_s=60):
        for message in messages:
            batch = msgspec.json.decode(message.body, type=Batch)
            assert len(batch.changes) <= 8
            changes += batch.changes
            stores.queue.acknowledge(message)
    return changes


ITEMS = [make_item(str(n)) for n in range(25)]


def test_first_crawl_publishes_everything_once_and_second_nothing(stores: Stores) -> None:
    run = crawl(stores, Catalogue(ITEMS))
    assert (run.state, run.seen, run.published, run.unchanged) == ("complete", 25, 25, 0)
    changes = published(stores)
    assert sorted(c.item.key for c in changes) == sorted(i.key for i in ITEMS)
    assert {c.action for c in changes} == {"embed"}

    generation = stores.objects.stat(object_name("shop")).generation
    run = crawl(stores, Catalogue(ITEMS))
    assert (run.published, run.updated, run.deleted, run.unchanged) == (0, 0, 0, 25)
    assert published(stores) == []
    assert stores.objects.stat(object_name("shop")).generation > generation


def test_changed_price_updates_and_changed_picture_embeds_with_a_greater_version(stores: Stores) -> None:
    crawl(stores, Catalogue(ITEMS))
    version = published(stores)[0].version
    changed = [make_item("0", price=2.0), make_item("1", picture="b"), *ITEMS[2:]]
    run = crawl(stores, Catalogue(changed))
    assert (run.published, run.updated, run.unchanged) == (1, 1, 23)
    changes = {c.item.key: c for c in published(stores)}
    assert {key: c.action for key, c in changes.items()} == {"0": "update", "1": "embed"}
    assert all(c.version > version for c in changes.values())


def test_missing_twice_in_a_row_becomes_a_tombstone_and_missing_once_does_not(stores: Stores) -> None:
    crawl(stores, Catalogue(ITEMS))
    published(stores)
    assert crawl(stores, Catalogue(ITEMS[1:])).deleted == 0
    assert crawl(stores, Catalogue(ITEMS)).deleted == 0
    assert crawl(stores, Catalogue(ITEMS[1:])).deleted == 0
    assert crawl(stores, Catalogue(ITEMS[1:])).deleted == 1
    (gone,) = published(stores)
    assert (gone.action, gone.item.id) == ("delete", ITEMS[0].id)
    assert crawl(stores, Catalogue(ITEMS[1:])).deleted == 0
    assert crawl(stores, Catalogue(ITEMS)).published == 1


def test_rows_that_failed_are_not_missing(stores: Stores) -> None:
    crawl(stores, Catalogue(ITEMS))
    published(stores)
    named = (RowFailure(key="0", reason="no picture"),)
    for _ in range(3):
        run = crawl(stores, Catalogue(ITEMS[1:], failed=named))
        assert (run.deleted, run.failed) == (0, 1)
        assert "no picture" in run.why
    for _ in range(3):
        assert crawl(stores, Catalogue(ITEMS[1:], failed_more=1)).deleted == 0


def test_a_partial_pass_calls_nothing_missing_and_deletes_what_the_catalogue_says_is_gone(stores: Stores) -> None:
    crawl(stores, Catalogue(ITEMS))
    published(stores)
    for _ in range(3):
        assert crawl(stores, Catalogue(ITEMS[:3], partial=True)).deleted == 0
    assert crawl(stores, Catalogue(ITEMS[:3], partial=True, gone=("7", "never-seen"))).deleted == 1
    assert [c.item.id for c in published(stores)] == [item_id("shop", "7")]


def unread(*places: str) -> tuple[RowFailure, ...]:
    return tuple(RowFailure(key=place, reason="it answers 500", unread=True) for place in places)


def test_what_stood_at_a_place_that_could_not_be_read_is_not_missing(stores: Stores) -> None:
    """Whatever its keys. A place that failed already when the item was seen does not hide it."""
    crawl(stores, Catalogue(ITEMS, failed=unread("/old")))
    for _ in range(3):
        run = crawl(stores, Catalogue(ITEMS[5:], failed=unread("/old", "/new")))
        assert (run.deleted, run.failed) == (0, 2)
        assert "2 places could not be read; kept, though not seen: 5 items" in run.why
    run = crawl(stores, Catalogue(ITEMS[5:], failed=unread("/old")))
    assert (run.deleted, "deleted if further passes miss them too: 5 items" in run.why) == (0, True)
    assert crawl(stores, Catalogue(ITEMS[5:], failed=unread("/old"))).deleted == 5


def test_a_place_that_was_read_in_between_hides_what_was_seen_there(stores: Stores) -> None:
    crawl(stores, Catalogue(ITEMS[5:], failed=unread("/p")))
    crawl(stores, Catalogue(ITEMS))
    for _ in range(3):
        assert crawl(stores, Catalogue(ITEMS[5:], failed=unread("/p"))).deleted == 0


def test_more_places_than_are_kept_make_the_pass_partial(stores: Stores) -> None:
    crawl(stores, Catalogue(ITEMS))
    many = unread(*(f"/{n}" for n in range(UNREAD_MAX + 1)))
    for _ in range(3):
        assert crawl(stores, Catalogue(ITEMS[1:], failed=many)).deleted == 0


@pytest.mark.parametrize(
    ("there", "left", "deleted"),
    [(1, 0, None), (2, 0, None), (15, 0, None), (2, 1, 1), (3, 2, 1), (3, 1, None), (15, 7, None), (15, 8, 7)],
)
def test_a_loss_of_more_than_half_is_a_failed_run_however_small_the_catalogue(
    there: int, left: int, deleted: int | None, stores: Stores
) -> None:
    """`deleted`: on the second pass, None where the owner has to confirm."""
    crawl(stores, Catalogue(ITEMS[:there]))
    less = Catalogue(ITEMS[:left])
    if deleted is None:
        for _ in range(2):
            with pytest.raises(SourceError, match=f"no longer lists {there - left} of {there} items"):
                crawl(stores, less)
        assert crawl(stores, less, confirm_loss=True).deleted == there - left
    else:
        assert [crawl(stores, less).deleted for _ in range(2)] == [0, deleted]


def test_a_catalogue_that_says_that_most_of_it_is_gone_has_to_be_confirmed(stores: Stores) -> None:
    crawl(stores, Catalogue(ITEMS))
    keys = tuple(item.key for item in ITEMS)
    with pytest.raises(SourceError, match="no longer lists 25 of 25"):
        crawl(stores, Catalogue([], gone=keys))
    assert crawl(stores, Catalogue(ITEMS)).unchanged == 25
    assert crawl(stores, Catalogue(ITEMS, gone=keys)).deleted == 0, "what is listed is not gone"


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({}, "listed nothing at all"),
        ({"passed_over": {"pages that robots.txt disallows": 41, "tiny": 2}}, "pages that robots.txt disallows (41)"),
        ({"failed": (RowFailure(key="1", reason="no picture"),)}, "no picture (1)"),
    ],
)
def test_a_pass_without_items_is_empty_and_says_the_likeliest_cause(
    given: dict[str, Any], cause: str, stores: Stores
) -> None:
    run = crawl(stores, Catalogue([], **given))
    assert run.state == "empty"
    assert run.why.startswith("Nothing was found to index: ")
    assert cause in run.why
    crawl(stores, Catalogue(ITEMS))
    with pytest.raises(SourceError, match=re.escape(cause)):
        crawl(stores, Catalogue([], **given))


def test_the_account_says_reasons_whole_and_tells_rows_that_failed_from_details_that_were_left_out(
    stores: Stores,
) -> None:
    def said(reason: str, count: int = 1, *, dropped: bool = True) -> tuple[RowFailure, ...]:
        return tuple(RowFailure(key=f"r{at}", reason=reason.format(at), dropped=dropped) for at in range(count))

    once = "date 'gestern' is not a date such as 2026-05-01"
    failed = (
        *said("price 'USD 1.12{}' may be 1.125 or 1125: set the source's decimal to '.' or ','", 3, dropped=False),
        *said("it has no key", 2),
        *said(once, dropped=False),
    )
    run = crawl(stores, Catalogue(ITEMS[:10], failed=failed))
    several = "price 'USD 1.120' may be 1.125 or 1125: set the source's decimal to '.' or ',' (and others like it)"
    assert run.failed == 2
    assert run.account() == [
        f"3 details left out: {several}",
        "2 failed: it has no key",
        f"1 detail left out: {once}",
    ]


def test_each_reason_has_an_example_however_frequent_another_is(stores: Stores) -> None:
    failed = [*((f"a{n}", "it has no key") for n in range(9)), ("b", "it has no picture"), ("c", "it has no picture")]
    rows = tuple(RowFailure(key=key, reason=reason) for key, reason in failed)
    told = crawl(stores, Catalogue(ITEMS[:10], failed=rows)).why
    assert (told.count("it has no key"), told.count("it has no picture")) == (5, 1)


@pytest.mark.parametrize(
    ("found", "said"),
    [("The feed is empty", "Source 'shop': The feed is empty"), ("Source 'shop': no list", "Source 'shop': no list")],
)
def test_an_error_names_its_source_once(found: str, said: str, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(catalogue: Catalogue, checkpoint: object) -> Iterator[Page]:
        raise SourceError(found, valid="Rows", remedy="Correct it")
        yield

    monkeypatch.setattr(Catalogue, "read", read)
    with pytest.raises(SourceError) as failed:
        crawl(stores, Catalogue(ITEMS))
    assert str(failed.value) == f"{said}. Valid: Rows. Correct it."


def test_a_run_that_was_interrupted_says_so(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(catalogue: Catalogue, checkpoint: object) -> Iterator[Page]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Catalogue, "read", read)
    with pytest.raises(KeyboardInterrupt):
        crawl(stores, Catalogue(ITEMS))
    (run,) = (found.data for found in stores.documents.query("runs"))
    assert (run["state"], run["code"], "interrupted" in run["why"]) == ("failed", "interrupted", True)


def test_a_run_is_summed_up_in_words(stores: Stores) -> None:
    said = "complete: 1 item seen, 1 to embed, 0 changed, 0 gone, 0 unchanged, 0 failed"
    assert crawl(stores, Catalogue(ITEMS[:1])).summary() == said


def test_a_run_that_fails_where_the_last_one_did_reads_from_the_beginning(stores: Stores) -> None:
    catalogue = Catalogue(ITEMS, fail_at=20)
    for _ in range(2):
        with pytest.raises(SourceUnavailable):
            crawl(stores, catalogue)
    assert catalogue.reads == [None, {"at": 20}, None]
    catalogue.items = [make_item("0", price=2.0), *ITEMS[1:]]
    with pytest.raises(SourceUnavailable):
        crawl(stores, catalogue)
    changes = {change.item.key: change for change in published(stores)}
    assert (len(changes), changes["0"].item.price) == (20, 2.0), "the change before the failing page is seen"
    (last, *_) = stores.documents.query("runs", order_by="started_at", descending=True)
    assert "reads from the beginning again" in last.data["why"]
    run = crawl(stores, Catalogue(ITEMS))
    assert (run.state, run.published) == ("complete", 5)


def test_a_catalogue_that_is_down_keeps_its_checkpoint(stores: Stores) -> None:
    with pytest.raises(SourceUnavailable):
        crawl(stores, Catalogue(ITEMS, fail_at=20))
    down = Catalogue(ITEMS, fail_at=0)
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            crawl(stores, down)
    back = Catalogue(ITEMS)
    assert crawl(stores, back).seen == 5
    assert back.reads == [{"at": 20}]


def test_an_item_listed_twice_counts_once_and_is_told(stores: Stores) -> None:
    twice = [*ITEMS, ITEMS[3], make_item("0", price=9.0), make_item("1", picture="b")]
    for changed in (25, 0):
        run = crawl(stores, Catalogue(twice))
        assert (run.published, run.updated, run.failed) == (changed, 0, 1)
        assert [count for reason, count in run.passed_over.items() if "more than once" in reason] == [1]
        assert run.why.startswith("1: its key is listed more than once")


def test_a_picture_with_a_validator_may_move(stores: Stores) -> None:
    def signed(signature: str, etag: str) -> list[Item]:
        return [msgspec.structs.replace(make_item("0"), image_url=f"https://x.test/?{signature}", image_etag=etag)]

    crawl(stores, Catalogue(signed("a", "1")))
    published(stores)
    crawl(stores, Catalogue(signed("b", "1")))
    crawl(stores, Catalogue(signed("b", "2")))
    assert [(c.action, c.item.image_url[-1]) for c in published(stores)] == [("update", "b"), ("embed", "b")]


def test_stops_within_its_budget_and_goes_on_from_the_checkpoint(stores: Stores) -> None:
    ticks = iter(range(0, 10_000, 40))
    catalogue = Catalogue(ITEMS)
    run = crawl(stores, catalogue, budget_s=30.0, clock=lambda: float(next(ticks)))
    assert (run.state, run.seen) == ("postponed", 10)
    run = crawl(stores, catalogue)
    assert (run.state, run.seen) == ("complete", 15)
    assert catalogue.reads == [None, {"at": 10}]
    changes = published(stores)
    assert sorted(c.item.key for c in changes) == sorted(i.key for i in ITEMS)
    assert len({c.version for c in changes}) == 1


@pytest.mark.parametrize("page", [1, 10, 1000])
@pytest.mark.parametrize("limit", [1, 2, 10, 13, 24])
def test_a_limit_is_kept_to_the_item_and_the_next_run_goes_on_behind_it(stores: Stores, limit: int, page: int) -> None:
    crawl(stores, Catalogue(ITEMS))
    published(stores)
    changed, found = [make_item(item.key, price=2.0) for item in ITEMS[1:]], list[str]()
    for first in range(0, len(changed), limit):
        run = crawl(stores, Catalogue(changed, page=page), limit=limit)
        is_last = first + limit >= len(changed)
        assert run.state == "complete" if is_last else run.state == "postponed"
        assert (run.seen, run.deleted, run.failed) == (min(limit, len(changed) - first), 0, 0)
        found += [change.item.key for change in published(stores)]
    assert found == [item.key for item in changed]
    # One pass has missed it, however many runs that took.
    assert crawl(stores, Catalogue(changed)).deleted == 1


def test_an_unreachable_catalogue_keeps_what_was_read_and_is_recorded(stores: Stores) -> None:
    with pytest.raises(SourceUnavailable):
        crawl(stores, Catalogue(ITEMS, fail_at=20))
    (run,) = [d.data for d in stores.documents.query("runs", order_by="started_at")]
    assert (run["state"], run["published"]) == ("failed", 20)
    assert "does not answer" in run["why"]
    assert crawl(stores, Catalogue(ITEMS)).published == 5
    assert len(published(stores)) == 25


class KilledError(Exception):
    """Stands for the process ending: nothing of Visor's catches it."""


def test_a_run_killed_at_any_page_repeats_the_same_batches_and_loses_nothing(stores: Stores, tmp_path: Path) -> None:
    @dataclass
    class Killed(Catalogue):
        kill_at: int = 0

        def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
            for number, page in enumerate(super().read(checkpoint)):
                if number == self.kill_at:
                    raise KilledError
                yield page

    bodies: dict[str, int] = {}
    for kill_at in range(3):
        with pytest.raises(KilledError):
            crawl(stores, Killed(ITEMS, kill_at=kill_at))
    crawl(stores, Catalogue(ITEMS))
    keys: set[str] = set()
    while messages := stores.queue.receive(10, lease_s=60):
        for message in messages:
            batch = msgspec.json.decode(message.body, type=Batch)
            bodies[batch.id] = bodies.get(batch.id, 0) + 1
            keys |= {c.item.key for c in batch.changes}
            stores.queue.acknowledge(message)
    assert keys == {item.key for item in ITEMS}
    assert len(bodies) == 4, "25 items in batches of 8: every repetition has the same names"


def test_two_crawls_at_once_do_not_overwrite_each_other(stores: Stores) -> None:
    def other(_: Change) -> None:
        if not ran:
            ran.append(True)
            crawl(stores, Catalogue(ITEMS))

    ran: list[bool] = []
    with pytest.raises(Conflict):
        crawl(stores, Catalogue(ITEMS), on_change=other)
    assert len(SeenSet.load(stores.objects, "shop")) == 25


def test_dry_run_shows_and_keeps_nothing(stores: Stores) -> None:
    shown: list[Change] = []
    run = crawl(stores, Catalogue(ITEMS), dry_run=True, on_change=shown.append)
    assert (run.published, len(shown)) == (25, 25)
    assert published(stores) == []
    assert stores.documents.query("runs") == []
    assert len(SeenSet.load(stores.objects, "shop")) == 0


def test_a_command_that_is_told_can_be_pasted(stores: Stores) -> None:
    """A folder's source is called as the folder."""
    items = [make_item(str(n), source="My Pictures") for n in range(30)]
    crawl(stores, Catalogue(items, name="My Pictures"))
    with pytest.raises(SourceError, match=r"visor crawl 'My Pictures' --confirm-loss"):
        crawl(stores, Catalogue(items[:10], name="My Pictures"))


def test_a_great_loss_waits_for_its_owners_word(stores: Stores) -> None:
    items = [make_item(str(n)) for n in range(60)]
    crawl(stores, Catalogue(items))
    published(stores)
    few = Catalogue(items[:20])
    for _ in range(3):
        with pytest.raises(SourceError, match=r"40 of 60 .* --confirm-loss"):
            crawl(stores, few)
    assert published(stores) == []
    back = crawl(stores, Catalogue(items))
    assert (back.unchanged, back.deleted) == (60, 0), "what was missing is back as if nothing had been"
    with pytest.raises(SourceError, match="40 of 60"):
        crawl(stores, few)
    run = crawl(stores, few, confirm_loss=True)
    assert run.deleted == 40
    assert {change.action for change in published(stores)} == {"delete"}


def test_a_run_that_failed_for_its_losses_is_no_evidence_of_any(stores: Stores) -> None:
    items = [make_item(str(n)) for n in range(10)]
    crawl(stores, Catalogue(items))
    with pytest.raises(SourceError, match="10 of 10"):
        crawl(stores, Catalogue([]))
    assert crawl(stores, Catalogue(items[:9])).deleted == 0, "missing for the first time"
    assert crawl(stores, Catalogue(items)).unchanged == 10


def test_what_is_missing_twice_waits_where_others_have_just_gone(stores: Stores) -> None:
    """Where rows go while pages are read, others move to pages that were read already."""
    items = [make_item(str(n)) for n in range(20)]
    crawl(stores, Catalogue(items))
    # 0 goes while the pages are read: 9 is not seen; then 1 goes, and 9 is not seen again.
    crawl(stores, Catalogue([*items[:9], *items[10:]]))
    assert crawl(stores, Catalogue([*items[1:9], *items[10:]])).deleted == 0
    assert crawl(stores, Catalogue(items[2:])).deleted == 0, "0 is missing for the second time, 1 for the first"
    assert crawl(stores, Catalogue(items[2:])).deleted == 2


def test_half_of_a_catalogue_may_go_without_asking(stores: Stores) -> None:
    items = [make_item(str(n)) for n in range(60)]
    crawl(stores, Catalogue(items))
    crawl(stores, Catalogue(items[:30]))
    assert crawl(stores, Catalogue(items[:30])).deleted == 30
