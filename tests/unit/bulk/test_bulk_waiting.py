"""What waits for a bulk: batches of one host each, that survive a process, go once they are done, and take turns."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType

import msgspec
import pytest
from tests.unit.imaging.empty_pictures import scene

from visor.app import App
from visor.bulk.lanes import DIRECT, PacedReader, Politeness, lanes_of
from visor.bulk.run import (
    REFUSED_KEPT,
    BulkReport,
    WorkerEnded,
    bulk_app,
    estimate,
    poll_s_of,
    push_file,
    run,
    waiting_of,
)
from visor.bulk.waiting import Waiting, WaitingBatches, host_digest, joined, pictures_by_host
from visor.cli.bulk import _list
from visor.cli.index import tell_stopped_bulk
from visor.errors import NotFound, SettingsError, VisorError
from visor.index.format.current_model import CurrentModel, write_current
from visor.ingest.push import LINES_MAX
from visor.schema.collections import FAILURES
from visor.schema.items import Batch, Change, Failure, Item, as_document, item_id
from visor.settings import Settings
from visor.storage import Stores
from visor.storage.documents import Put
from visor.storage.publish import decode_batch, publish
from visor.storage.queue import BULK

URLS = (
    "https://a.example/1.jpg", "https://b.example/2.jpg", "https://a.example/3.jpg", "https://a.example:8443/4.jpg",
    "file:///pictures/5.jpg", "gs://pictures/6.jpg", "frame:7",
)  # fmt: skip


def change(url: str, version: int = 7) -> Change:
    return Change(
        action="embed", item=Item(id=item_id("shop", url), source="shop", key=url, image_url=url), version=version
    )


@pytest.fixture
def waiting(local_stores: Stores) -> WaitingBatches:
    return WaitingBatches(local_stores)


def test_each_batch_asks_one_host(waiting: WaitingBatches, local_stores: Stores) -> None:
    gone = Change.deletion(item_id("shop", "x"), "shop", 7)
    publish(waiting, [*map(change, URLS), gone], run="r")
    found = {one.host: one for one in waiting.all()}
    assert {host: one.pictures for host, one in found.items()} == {
        host_digest(URLS[0]): 2, host_digest(URLS[1]): 1, host_digest(URLS[3]): 1, "": 3,
    }  # fmt: skip
    assert pictures_by_host(found.values()).total() == len(URLS)
    bodies = [msgspec.json.decode(waiting.message(one.name).body, type=Batch) for one in found.values()]
    wanted = [*(change(url).item.id for url in URLS), gone.item.id]
    assert sorted(one.item.id for batch in bodies for one in batch.changes) == sorted(wanted)


def test_the_same_changes_wait_once(waiting: WaitingBatches) -> None:
    for _ in range(2):
        publish(waiting, map(change, URLS), run="r")
    assert waiting.waiting() == 4
    publish(waiting, [change(URLS[0], version=8)], run="r")
    assert waiting.waiting() == 5


def test_what_is_done_does_not_wait(waiting: WaitingBatches, local_stores: Stores) -> None:
    publish(waiting, map(change, URLS), run="r")
    message, *_ = WaitingBatches(local_stores).receive(10, lease_s=1)
    waiting.release(message, delay_s=0)
    assert waiting.waiting() == 4
    waiting.acknowledge(message)
    waiting.acknowledge(message)
    assert waiting.waiting() == 3
    with pytest.raises(NotFound):
        waiting.message(message.id)


def test_a_damaged_batch_becomes_a_dead_letter_of_the_index(waiting: WaitingBatches, local_stores: Stores) -> None:
    waiting.bury(b"no batch", attempts=1, why="it is none")
    assert [letter.body for letter in local_stores.queue.dead_letters()] == [b"no batch"]


@pytest.mark.parametrize(("lanes", "most"), [(1, 1), (2, 2), (4, 4)])
def test_a_host_has_its_lanes_and_what_asks_none_has_no_limit(lanes: int, most: int) -> None:
    batches = [Waiting(f"{BULK}{host}{n}", host, 64) for host in ("aa", "bb", "") for n in range(9)]
    found = Counter(lane for lane, _ in lanes_of(batches, lanes))
    for host in ("aa", "bb"):
        of_host = [count for lane, count in found.items() if lane.startswith(host + ".")]
        assert len(of_host) == most
        assert max(of_host) - min(of_host) <= 1
    assert len(found) == 2 * most + 9


def test_hosts_of_few_pictures_share_lanes_and_each_host_has_one(waiting: WaitingBatches) -> None:
    urls = [f"https://{host}.example/{n}.jpg" for host in range(300) for n in range(1 + host % 3)]
    urls += [f"https://many.example/{n}.jpg" for n in range(200)]
    publish(waiting, map(change, urls), run="r")
    lanes = [(lane, name) for lane, name in lanes_of(waiting.all(), 2)]
    assert {name for _, name in lanes} == {one.name for one in waiting.all()}
    by_host: dict[str, set[str]] = defaultdict(set)
    for lane, name in lanes:
        by_host[name.split(".")[0]].add(lane)
    assert sum(len(found) == 2 for found in by_host.values()) == 1, "that of the many"
    assert len({lane for lane, _ in lanes}) <= 2 + 600 / 64 * 1.3


def test_small_batches_are_embedded_together_and_their_items_are_the_same(waiting: WaitingBatches) -> None:
    publish(waiting, [change(f"https://{n}.example/1.jpg") for n in range(150)], run="r")
    publish(waiting, [change("https://1.example/1.jpg", version=8), change("https://x.example/1.jpg")], run="other")
    waiting.publish([msgspec.json.encode(Batch.of("shop", "r", (change("https://1.example/1.jpg", version=9),)))])
    waiting._objects.put(f"{BULK}-.1.broken", b"no batch")
    names = [one.name for one in waiting.all()]
    found = list(waiting.gathered(names, 64))
    assert sorted(one.id for some in found for one in some) == sorted(names)
    assert len(found) <= 1 + 1 + 4
    bodies = [joined(some) for some in found]
    assert b"no batch" in bodies
    batches = [decode_batch(body) for body in bodies if body != b"no batch"]
    for batch in batches:
        assert len(batch.changes) <= 64
        assert len({one.item.id for one in batch.changes}) == len(batch.changes), "the newest of an item has to win"
    assert sum(len(batch.changes) for batch in batches) == 153
    assert {batch.run for batch in batches} == {"r", "other"}
    assert list(waiting.gathered(names, 64, lambda name: None)) == [], "all is done"


def test_a_lane_asks_a_host_one_at_a_time_and_no_faster_than_its_part_of_the_rate() -> None:
    asked: list[tuple[str, float, float]] = []

    def read(item: Item) -> bytes:
        began = monotonic()
        sleep(0.01)
        asked.append((item.image_url[:16], began, monotonic()))
        return b""

    reader = PacedReader(read, Politeness(lanes=2, per_second=40))
    urls = [f"https://{host}.example/{n}" for n in range(6) for host in "ab"] + [f"file:///{n}" for n in range(20)]
    began = monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(reader, [change(url).item for url in urls]))
    for host in ("https://a.exampl", "https://b.exampl"):
        times = sorted((at, end) for name, at, end in asked if name == host)
        assert len(times) == 6
        for (at, end), (next_at, _) in pairwise(times):
            assert next_at >= end
            assert next_at - at >= 0.05 * 0.9
    assert max(at for name, at, _ in asked if name.startswith("file")) - began < 0.25


def test_lines_are_numbered_as_they_stand_in_a_long_file(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    line = '{{"key": "{0}", "image_url": "https://shop.example/{0}.jpg"}}\n'
    file.write_text("\n" + "".join(map(line.format, range(LINES_MAX))) + "\n\nno item\n" + line.format("a") * 2)
    with bulk_app(Settings(home=tmp_path / "home")) as app:
        wrong, earlier = push_file(app, file).items
    assert (wrong.line, earlier.line) == (LINES_MAX + 4, LINES_MAX + 5)
    assert f"line {LINES_MAX + 6} has the same key" in earlier.reason


def hosts_of_file(app: App, file: Path, limit: int | None) -> Counter[str]:
    """As a dry run."""
    return _list(app, str(file), limit=limit, dry_run=True, confirm_loss=False)[0]


def test_of_many_refused_lines_a_few_are_named_and_all_counted(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("no item\n" * 3 * LINES_MAX + GOOD)
    with bulk_app(Settings(home=tmp_path / "home")) as app:
        answer = push_file(app, file)
    assert (answer.accepted, answer.refused) == (1, 3 * LINES_MAX)
    assert [one.line for one in answer.items] == [*range(1, REFUSED_KEPT + 1)]


def test_a_catalogue_in_one_line_is_not_kept_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(GOOD + "\n[" + "1," * 20_000_000 + "]\n" + GOOD.replace('"a"', '"c"'))
    with bulk_app(Settings(home=tmp_path / "home")) as app:
        tracemalloc.start()
        try:
            answer = push_file(app, file)
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
        finally:
            tracemalloc.stop()
    assert (answer.accepted, [one.line for one in answer.items]) == (2, [2])
    assert "more than the 65536 bytes" in (answer.items[0].reason or "")


def test_no_more_of_a_file_is_taken_than_is_free_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is embedded, and so counted, before all of it is read."""
    file = tmp_path / "items.jsonl"
    line = '{{"key": "{0}", "image_url": "https://shop.example/{0}.jpg"}}\n'
    file.write_text("".join(map(line.format, range(LINES_MAX + 30))))
    with bulk_app(Settings(home=tmp_path / "home")) as app:
        monkeypatch.setattr(app.meter, "headroom", lambda *_, **__: LINES_MAX + 20)
        answer = push_file(app, file)
        assert pictures_by_host(waiting_of(app).all()).total() == LINES_MAX + 20
    assert (answer.accepted, answer.refused, answer.items[0].line) == (LINES_MAX + 20, 10, LINES_MAX + 21)
    assert "send it again tomorrow" in answer.items[0].reason


def test_what_failed_before_is_tried_again_once(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(GOOD)
    settings = Settings(home=tmp_path / "home")
    with bulk_app(settings) as app:
        _list(app, str(file), limit=None, dry_run=False, confirm_loss=False)
        (message,) = waiting_of(app).receive(9, lease_s=1)
        (change,) = msgspec.json.decode(message.body, type=Batch).changes
        data = as_document(
            Failure(
                item=change.item.id, source="push", image_url=change.item.image_url, version=change.version, batch="b",
                code="fetch_failed", reason="No answer", retriable=False, at="2026-11-28", wanted=change.item,
            )
        )  # fmt: skip
        app.stores.documents.commit([Put(collection=FAILURES, key=change.item.id, data=data)])
        waiting_of(app).acknowledge(message)
        for _ in range(2):
            _list(app, str(file), limit=None, dry_run=False, confirm_loss=False)
            assert pictures_by_host(waiting_of(app).all()).total() == 1, "not beside the same line"
        assert app.stores.documents.get(FAILURES, [change.item.id])[change.item.id].data["again"]


def test_a_bulk_takes_over_what_waits_in_the_queue(waiting: WaitingBatches, local_stores: Stores) -> None:
    publish(local_stores.queue, [*map(change, URLS), Change.deletion(item_id("shop", "x"), "shop", 7)], run="r")
    local_stores.queue.publish([b"no batch"])
    assert waiting.take_over() == (len(URLS), 0)
    assert pictures_by_host(waiting.all()).total() == len(URLS)
    assert [letter.body for letter in local_stores.queue.dead_letters()] == [b"no batch"]
    publish(local_stores.queue, [change(URLS[0])], run="r")
    local_stores.queue.receive(1, lease_s=60)
    assert waiting.take_over() == (0, 1), "what another process has in hand is left to it"


def test_other_commands_say_that_a_stopped_bulk_waits(
    waiting: WaitingBatches, local_stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    with App(Settings(), stores=local_stores) as app:
        tell_stopped_bulk(app)
        assert not capsys.readouterr().err
        publish(waiting, map(change, URLS), run="r")
        tell_stopped_bulk(app)
    assert "4 batches of it wait; run it again" in capsys.readouterr().err


class _Pipeline(ModuleType):
    """In place of `visor.bulk.pipeline`, which needs Apache Beam."""

    result: dict[str, int] | Exception | None = None

    def run_pass(self, *_: object) -> dict[str, int] | None:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> _Pipeline:
    pipeline = _Pipeline("visor.bulk.pipeline")
    monkeypatch.setitem(sys.modules, pipeline.__name__, pipeline)
    return pipeline


def test_a_job_that_starts_later_is_a_success(pipeline: _Pipeline) -> None:
    """Dataflow's launcher fails the job if this process ends with another status than 0."""
    left = [Waiting("a", "", 3)]
    report = run(lambda: left, "DataflowRunner", lambda _: (), advance=str, say=str)
    assert (report.left, report.starts_later, report.went_well) == (1, True, True)
    assert "wait for the job, which starts now: 1" in str(report)
    pipeline.result = {"embedded": 3}
    assert not run(lambda: left, "DataflowRunner", lambda _: (), advance=str, say=str).went_well


def test_no_bulk_embeds_for_an_index_of_another_model(local_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings, or its image, need not be those of the functions that embed."""
    monkeypatch.setattr(App, "fingerprint", "a" * 64)
    cloud = Settings(backend="gcp", project="shop-1", bucket="b")
    with App(cloud, stores=local_stores) as app:
        app.check_model(everywhere=True)
        write_current(local_stores.documents, CurrentModel(current="b" * 64), 0)
        app.check_model()
        with pytest.raises(SettingsError, match="This index is searched with model bbbbbbbbbbbb"):
            app.check_model(everywhere=True)


def test_a_bucket_is_listed_seldom() -> None:
    """A list costs what writing does: 5,000 a month are free."""
    names, hours = 16_000, 10
    lists = hours * 3600 / poll_s_of(Settings(backend="gcp", project="shop-1", bucket="b")) * names / 1000
    assert lists < 2_500
    assert poll_s_of(Settings()) == 1


def test_an_error_of_a_runner_is_said_in_words(pipeline: _Pipeline) -> None:
    pipeline.result = RuntimeError("Pipeline BeamApp failed in state FAILED")
    with pytest.raises(VisorError, match="RuntimeError: Pipeline BeamApp failed"):
        run(lambda: [Waiting("a", "", 3)], "FlinkRunner", lambda _: (), advance=str, say=str)


TRACEBACK = """Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in process
ValueError: first

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "shop.py", line 3, in run
{} [while running 'Embed/BeamML_RunInference']
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("visor.errors.ModelNotBuilt: No model. Build it.", "No model. Build it."),
        ("ZeroDivisionError: division by zero", "ZeroDivisionError: division by zero."),
    ],
)  # fmt: skip
def test_of_a_workers_traceback_its_end_is_said(pipeline: _Pipeline, line: str, said: str) -> None:
    pipeline.result = RuntimeError(TRACEBACK.format(line))
    with pytest.raises(VisorError) as raised:
        run(lambda: [Waiting("a", "", 3)], "FlinkRunner", lambda _: (), advance=str, say=str)
    assert str(raised.value) == said


def test_what_passes_that_ended_early_have_done_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [Waiting(str(n), "", 10) for n in range(4)]

    def one_pass(*_: object) -> dict[str, int]:
        if len(left) == 1:
            left.clear()
            return {"failed": 10}
        left.pop()
        raise WorkerEnded("killed")

    monkeypatch.setattr("visor.bulk.run._pass", one_pass)
    report = run(lambda: [*left], DIRECT, lambda _: (), advance=str, say=str)
    assert (report.passes, report.uncounted, report.counts, report.went_well) == (4, 30, {"failed": 10}, True)
    assert str(report) == "10 failed, 30 done before a worker ended"


def test_a_file_of_items_says_nothing_new_the_second_time(tmp_path: Path) -> None:
    file, url = tmp_path / "items.jsonl", "https://shop.example"
    lines = [f'{{"key": "{n}", "image_url": "{url}/{n}.jpg"}}' for n in range(5)]
    file.write_text("\n".join([*lines[:3], "", "no item", *lines[3:], '{"key": "gone", "deleted": true}']))
    with bulk_app(Settings(home=tmp_path / "home")) as app:
        (refused,) = push_file(app, file).items
        assert (refused.line, refused.state) == (5, "refused"), "as an editor counts"
        first = {one.name: one.pictures for one in waiting_of(app).all()}
        assert sum(first.values()) == 5
        assert hosts_of_file(app, file, None) == {host_digest(url): 5, "": 0}
        assert hosts_of_file(app, file, 2).total() == 2
        odd = file.with_name("odd.jsonl")
        odd.write_text('{"key": "a", "image_url": "http://[::1/a.jpg"}\n' + file.read_text())
        assert hosts_of_file(app, odd, None) == {host_digest(url): 5, "": 0}, "as pushing refuses it"
        assert {one.name: one.pictures for one in waiting_of(app).all()} == first, "which publishes nothing"
        push_file(app, file)
        assert {one.name: one.pictures for one in waiting_of(app).all()} == first
        answer = push_file(app, file, limit=2)
        assert (answer.accepted, answer.refused, answer.items) == (2, 0, ())
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000_000))
        push_file(app, file)
        assert waiting_of(app).waiting() > len(first)


@pytest.mark.parametrize(
    ("pictures", "workers", "rate", "hours", "limit"),
    [
        ({"": 14_400}, 1, 10.0, 1.0, "workers"),
        ({"": 14_400}, 4, 10.0, 0.25, "workers"),
        ({"a": 72_000, "b": 36_000}, 100, 10.0, 2.0, "host"),
        ({}, 2, 10.0, 0.0, "workers"),
    ],
)
def test_estimate_is_of_what_a_bulk_waits_for(
    pictures: dict[str, int], workers: int, rate: float, hours: float, limit: str
) -> None:
    found = estimate(pictures, workers, Politeness(1, rate), worker_price=0.5)
    assert (found.limit, found.pictures) == (limit, sum(pictures.values()))
    assert found.hours == pytest.approx(hours)
    assert found.cost == pytest.approx(hours * workers * 0.5)
    assert estimate(pictures, workers, Politeness(1, rate)).cost is None


def test_a_crawl_of_a_bulk_is_seen_by_the_next_crawl(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    scene().save(folder / "one.jpg")
    settings = Settings(home=tmp_path / "home", allow_folders=(str(folder),))
    with bulk_app(settings) as app:
        assert app.crawler.crawl(app.open_folder(folder)).published == 1
        assert waiting_of(app).waiting() == 1
    with App(settings) as app:
        assert app.crawler.crawl(app.open_folder(folder)).unchanged == 1
        assert app.stores.queue.waiting() == 0


GOOD, BAD = '{"key": "a", "image_url": "https://shop.example/a.jpg"}', '{"key": "b", "picture": "b.jpg"}'


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("lines", "listed"), [([GOOD, BAD], True), ([GOOD], True), ([BAD, "no item"], False), (["", ""], False)]
)
def test_a_file_of_which_nothing_is_taken_is_no_success(
    lines: list[str], listed: bool, dry_run: bool, tmp_path: Path
) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(lines))
    with bulk_app(Settings(home=tmp_path / "home")) as app:
        assert _list(app, str(file), limit=None, dry_run=dry_run, confirm_loss=False)[1] == listed


def test_a_folder_without_pictures_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with bulk_app(Settings(home=tmp_path / "home")) as app:
        assert not _list(app, str(tmp_path / "empty"), limit=None, dry_run=False, confirm_loss=False)[1]


@pytest.mark.parametrize(
    ("left", "counts", "well"),
    [
        (0, {}, True),
        (0, {"embedded": 0, "failed": 2}, False),
        (0, {"embedded": 1, "failed": 9}, True),
        (0, {"already_done": 5, "failed": 1}, True),
        (1, {"embedded": 1}, False),
    ],
)
def test_a_bulk_in_which_everything_failed_is_no_success(left: int, counts: dict[str, int], well: bool) -> None:
    assert BulkReport(left=left, counts=counts).went_well == well
