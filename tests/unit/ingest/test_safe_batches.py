"""One bad row, one poisoned item, one wrong clock stops only itself."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from tests.unit.ingest.faults.test_delivery_table import MODEL, Killed
from tests.unit.ingest.test_pipeline_embed import drawing

from visor.app import App
from visor.errors import Conflict, DropItem, StoreUnavailable
from visor.free_tier.quota import Meter
from visor.ingest.embed import BatchEmbedder
from visor.ingest.push import Pusher
from visor.ingest.schedule import next_run, runs_of
from visor.ingest.worker import OURS_MAX, Worker
from visor.schema.items import BATCH_SIZE_MAX, Batch, Change, Item, checked_item, item_id
from visor.settings import Settings
from visor.sources.config import SourcesFile
from visor.sources.contract import Page
from visor.storage import Stores, open_stores
from visor.storage.local.queue import SqliteQueue
from visor.storage.publish import publish
from visor.storage.queue import BODY_BYTES_MAX

YEAR_S = 365 * 86_400.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", freshness_s=0.0)


@pytest.fixture
def stores(settings: Settings) -> Iterator[Stores]:
    with open_stores(settings) as stores:
        yield stores


def item(key: str, /, **fields: Any) -> Item:
    return Item(**{"id": item_id("s", key), "source": "s", "key": key, "image_url": f"https://x.test/{key}", **fields})


def change(key: str, /, version: int = 1, **fields: Any) -> Change:
    return Change(action="embed", item=item(key, **fields), version=version)


BAD_ROWS: dict[str, dict[str, Any]] = {
    "an attribute without a name": {"extra": {"": "x"}},
    "a blank name": {"extra": {"  ": "x"}},
    "a reserved name": {"extra": {"__x__": "x"}},
    "a long name": {"extra": {"n" * 501: "x"}},
    "a long name in bytes": {"extra": {"ä" * 251: "x"}},
    "no text": {"extra": {"a": 5}},
    "nothing": {"title": None},
    "400 digits": {"price": 10**400},
    "3 MB": {"description": "d" * 3_000_000},
    "a key of 2 MB": {"key": "k" * 2_100_000},
    "no id": {"id": "7"},
}
MENDED_ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "half an emoji": ({"title": "cut \ud83d"}, {"title": "cut \ufffd"}),
    "half an emoji in a name": ({"extra": {"a\udc00": "x"}}, {"extra": {"a\ufffd": "x"}}),
    "half an emoji in a key": ({"key": "k\ud83d"}, {"key": "k\ufffd"}),
    "no number": ({"price": float("nan"), "currency": "EUR"}, {"price": None}),
    "infinite": ({"price": float("inf")}, {"price": None}),
    "1e308": ({"price": 1e308}, {"price": None}),
    "less than nothing": ({"price": -1.0}, {"price": None}),
    "a whole number": ({"price": 5}, {"price": 5.0}),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_bad_item_is_refused_at_the_border(what: str) -> None:
    with pytest.raises(DropItem) as refused:
        checked_item(item("k", **BAD_ROWS[what]))
    assert 10 < len(refused.value.reason) < 400


@pytest.mark.parametrize("what", MENDED_ROWS)
def test_what_can_be_mended_is(what: str) -> None:
    fields, mended = MENDED_ROWS[what]
    found = checked_item(item("k", **fields))
    assert {name: getattr(found, name) for name in mended} == mended
    msgspec.json.encode(found)


class Catalogue:
    """The items it is given, in one page; `error` instead, if there is one."""

    def __init__(self, name: str, items: list[Item], error: Exception | None = None) -> None:
        self.name, self.items, self.error = name, items, error

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        if self.error is not None:
            raise self.error
        yield Page(items=tuple(self.items))


def app_of(settings: Settings, stores: Stores, read: Any = lambda item: drawing(len(item.key))) -> App:
    return App(settings, stores=stores, embedder=MODEL, read_image=read)


def live(stores: Stores) -> set[str]:
    return {d.data["item"]["key"] for d in stores.documents.query("items") if not d.data.get("gone")}


def test_bad_rows_stop_no_crawl(settings: Settings, stores: Stores) -> None:
    bad = [item(f"bad{n}", **fields) for n, fields in enumerate(BAD_ROWS.values())]
    good = [item(f"good{n}") for n in range(3)] + [item(f"ok{n}", **f) for n, (f, _) in enumerate(MENDED_ROWS.values())]
    with app_of(settings, stores) as app:
        run = app.crawler.crawl(Catalogue("s", [*bad, *good]))
        assert (run.state, run.published, run.failed) == ("complete", len(good), len(bad))
        Worker(stores.queue, app.batch_embedder, threads=1).drain()
    assert len(live(stores)) == len(good)
    assert run.lacking == {"its price 'nan' is not valid; valid: 0 to 1e+15 (and others like it)": 4}
    assert stores.documents.query("failures") == []


def test_bad_lines_of_a_push_are_refused_one_by_one(settings: Settings, stores: Stores) -> None:
    lines: list[dict[str, Any]] = [
        {"key": name, "image_url": "https://x.test/a", **fields}
        for name, fields in [
            ("good", {}),
            ("empty", {"extra": {"": "x"}}),
            ("reserved", {"extra": {"__x__": "x"}}),
            ("long", {"extra": {"n" * 501: "x"}}),
            ("last", {}),
        ]
    ]
    pusher = Pusher(
        queue=stores.queue, documents=stores.documents, settings=settings, meter=Meter(stores.documents, settings)
    )
    answer = pusher.push_lines(b"\n".join(json.dumps(line).encode() for line in lines))
    assert [one.state for one in answer.items] == ["accepted", "refused", "refused", "refused", "accepted"]
    assert all("attribute called" in (one.reason or "") for one in answer.items if one.state == "refused")


def test_a_byte_order_mark_before_a_line_is_none_of_it(settings: Settings, stores: Stores) -> None:
    """Two files of Windows' editor, one behind the other."""
    lines = [b'\xef\xbb\xbf{"key": "%d", "image_url": "https://x.test/a"}' % n for n in range(2)]
    meter = Meter(stores.documents, settings)
    pusher = Pusher(queue=stores.queue, documents=stores.documents, settings=settings, meter=meter)
    assert pusher.push_lines(b"\r\n".join(lines)).accepted == 2


@pytest.mark.parametrize("size", [100, 40_000, 120_000])
def test_batches_are_cut_by_bytes(size: int, stores: Stores) -> None:
    changes = [change(str(n), description="d" * size) for n in range(100)]
    publish(stores.queue, changes, run="r")
    bodies = [message.body for message in stores.queue.receive(100, lease_s=60)]
    batches = [msgspec.json.decode(body, type=Batch) for body in bodies]
    assert all(len(body) <= BODY_BYTES_MAX and len(b.changes) <= BATCH_SIZE_MAX for body, b in zip(bodies, batches))  # noqa: B905
    assert [one for batch in batches for one in batch.changes] == changes


@pytest.mark.parametrize("error", [RecursionError("deep"), UnicodeEncodeError("utf-8", "x", 0, 1, "half"), KeyError(1)])
def test_a_source_that_fails_in_whatever_way_stops_no_other(
    error: Exception, settings: Settings, stores: Stores
) -> None:
    text = "".join(f'[sources.{name}]\nkind = "folder"\npath = "/x"\n' for name in ("bad", "good"))
    sources = {"bad": Catalogue("bad", [], error), "good": Catalogue("good", [item("a", source="good")])}
    with app_of(settings, stores) as app:
        runs = app.crawler.crawl_due(SourcesFile(text), sources.__getitem__)
    assert [(run.source, run.state) for run in runs] == [("good", "complete")]
    latest = runs_of(stores.documents, SourcesFile(text), 1)
    assert (latest["bad"][0].state, latest["bad"][0].code) == ("failed", type(error).__name__)


# A poisoned item.


def poisoned(settings: Settings, stores: Stores, poison: dict[str, BaseException]) -> BatchEmbedder:
    def read(one: Item) -> bytes:
        if one.key in poison:
            raise poison[one.key]
        return drawing(int(one.key))

    return app_of(msgspec.structs.replace(settings, fetch_parallel=1), stores, read).batch_embedder


@pytest.mark.slow
def test_an_item_that_raises_ends_alone(settings: Settings, stores: Stores) -> None:
    embedder = poisoned(settings, stores, {"3": ValueError("planned"), "17": RecursionError("deep")})
    report = embedder.embed(msgspec.json.encode(Batch.of("s", "r", tuple(change(str(n)) for n in range(20)))))
    assert (report.embedded, report.failed) == (18, 2)
    found = {d.data["wanted"]["key"]: d.data for d in stores.documents.query("failures")}
    assert {key: data["code"] for key, data in found.items()} == {"3": "embed_crashed", "17": "embed_crashed"}
    assert "ValueError: planned" in found["3"]["reason"]
    assert found["3"]["next_at"] is not None


def test_a_batch_whose_every_item_raises_is_not_the_items_fault(settings: Settings, stores: Stores) -> None:
    embedder = poisoned(settings, stores, {str(n): ValueError("planned") for n in range(4)})
    body = msgspec.json.encode(Batch.of("s", "r", tuple(change(str(n)) for n in range(4))))
    with pytest.raises(ValueError, match="planned"):
        embedder.embed(body)
    assert stores.documents.query("failures") == []


@pytest.mark.parametrize("words", ["cannot schedule new futures after interpreter shutdown", "can't start new thread"])
@pytest.mark.parametrize("attempt", [1, 5])
def test_a_process_that_ends_is_no_items_fault(
    words: str, attempt: int, settings: Settings, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    embedder = poisoned(settings, stores, {str(n): RuntimeError(words) for n in range(1, 4)})
    stores.queue.publish([msgspec.json.encode(Batch.of("s", "r", tuple(change(str(n)) for n in range(4))))])
    clock = Clock(time.time())
    queue = SqliteQueue(settings.home / "indexes" / "default" / "queue.sqlite", 2, clock=clock)
    (message,) = queue.receive(1, lease_s=60)
    with pytest.raises(InterruptedError, match=words):
        Worker(queue, embedder)._process(replace(message, attempt=attempt), until_empty=True)
    assert stores.documents.query("failures") == []
    assert "Traceback" not in caplog.text
    clock.now += 3  # the batch is given back, and that try does not count
    assert [one.attempt for one in queue.receive(1, lease_s=60)] == [1]


@pytest.mark.parametrize("attempt", [1, 5])
@pytest.mark.parametrize("error", [Conflict("lost"), StoreUnavailable("away"), OSError(28, "No space left on device")])
def test_what_is_ours_leaves_no_failure_of_an_item(
    error: Exception, attempt: int, settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = msgspec.json.encode(Batch.of("s", "r", (change("1"),)))
    with app_of(settings, stores) as app:
        embedder = app.batch_embedder
        with monkeypatch.context() as patched:
            patched.setattr(embedder, "_write_shard", Mock(side_effect=error))
            with pytest.raises(type(error)):
                embedder.embed(body, attempt=attempt)
        assert stores.documents.query("failures") == []
        assert embedder.embed(body, attempt=attempt).embedded == 1
    assert live(stores) == {"1"}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Control-C interrupts: a shell starts what runs in its background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_worker_stops_when_its_caller_is_interrupted(settings: Settings, stores: Stores) -> None:
    asked: list[str] = []
    released = threading.Event()

    def read(one: Item) -> bytes:
        asked.append(one.key)
        if len(asked) == 1:
            signal.raise_signal(signal.SIGINT)
            released.wait(60)
        return drawing(int(one.key))

    bodies = [msgspec.json.encode(Batch.of("s", "r", (change(str(n)),))) for n in range(20)]
    stores.queue.publish(bodies)
    with app_of(settings, stores, read) as app:
        with pytest.raises(KeyboardInterrupt):
            Worker(stores.queue, app.batch_embedder, threads=1).drain()
        attempts = [one.attempt for one in stores.queue.receive(30, lease_s=60)]
        released.set()
        time.sleep(0.6)
        assert len(asked) < 3, "nobody is there any more who asked for it"
    assert attempts == [1] * 20, "that try does not count"


@pytest.mark.parametrize("poison", [("0",), ("9",), ("4",), ("2", "7")])
@pytest.mark.slow
def test_items_that_end_the_process_end_alone(poison: tuple[str, ...], settings: Settings, stores: Stores) -> None:
    embedder = poisoned(settings, stores, {key: Killed() for key in poison})
    body = msgspec.json.encode(Batch.of("s", "r", tuple(change(str(n)) for n in range(10))))
    for attempt in range(1, settings.embed_attempts_max + 1):
        try:
            embedder.embed(body, attempt=attempt)
            break
        except Killed:
            pass  # the next delivery goes on
    assert live(stores) == {str(n) for n in range(10)} - set(poison)
    assert {d.data["wanted"]["key"]: d.data["code"] for d in stores.documents.query("failures")} == dict.fromkeys(
        poison, "embed_crashed"
    )


def test_a_real_kill_of_the_process_too(settings: Settings, stores: Stores) -> None:
    stores.queue.publish([msgspec.json.encode(Batch.of("s", "r", tuple(change(str(n)) for n in range(6))))])
    stores.close()

    def read(one: Item) -> bytes:
        if one.key == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return drawing(int(one.key))

    for _ in range(settings.embed_attempts_max):
        if (child := os.fork()) == 0:
            try:
                with open_stores(settings) as own, app_of(settings, own, read) as app:
                    Worker(own.queue, app.batch_embedder, threads=1).drain()
            finally:
                os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
    assert live(stores) == {"0", "1", "3", "4", "5"}
    assert stores.queue.dead_letters() == []


@pytest.mark.parametrize("error", [StoreUnavailable("away"), OSError(28, "No space left on device"), MemoryError()])
def test_what_is_ours_never_counts_against_a_batch(error: Exception, settings: Settings, stores: Stores) -> None:
    class Broken:
        fingerprint = MODEL.fingerprint

        def embed(self, body: bytes, *, attempt: int) -> None:
            raise error

    stores.queue.publish([msgspec.json.encode(Batch.of("s", "r", (change("1"),)))])
    clock = Clock(0.0)
    queue = SqliteQueue(settings.home / "indexes" / "default" / "queue.sqlite", 2, clock=clock)
    worker = Worker(queue, Broken(), threads=1)  # type: ignore[arg-type]
    raised = 0
    for _ in range(3 * OURS_MAX):
        clock.now += 600
        (message,) = queue.receive(1, lease_s=60)
        try:
            worker._process(message, until_empty=True)
        except type(error):
            raised += 1
    assert raised > OURS_MAX, "drain ends, and says why"
    clock.now += 600
    assert queue.dead_letters() == []
    with app_of(settings, stores) as app:
        Worker(queue, app.batch_embedder, threads=1).drain()
    assert live(stores) == {"1"}


# A wrong clock.


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("ahead_s", [1800.0, 86_400.0, YEAR_S])
def test_messages_of_a_clock_that_was_ahead_are_due(ahead_s: float, tmp_path: Path) -> None:
    clock = Clock(1e9 + ahead_s)
    queue = SqliteQueue(tmp_path / "queue.sqlite", 5, clock=clock)
    queue.publish([b"fresh", b"released", b"leased"])
    leased = {message.body: message for message in queue.receive(3, lease_s=900)}
    queue.release(leased[b"fresh"], delay_s=0.0)
    queue.release(leased[b"released"], delay_s=300.0)
    queue.publish([b"new"])
    clock.now = 1e9
    found = {message.body for message in queue.receive(9, lease_s=60)}
    assert found >= ({b"new"} if ahead_s < 3600 else {b"new", b"fresh", b"released", b"leased"})


def test_a_push_after_a_clock_that_was_ahead_counts(settings: Settings, stores: Stores) -> None:
    import time

    clock = Clock(time.time() + YEAR_S)
    meter = Meter(stores.documents, settings)
    pusher = Pusher(queue=stores.queue, documents=stores.documents, settings=settings, meter=meter, clock=clock)
    with app_of(settings, stores) as app:

        def push(**fields: Any) -> dict[str, Any]:
            line = json.dumps({"key": "k", "image_url": "https://x.test/k", **fields}).encode()
            assert pusher.push_lines(line).accepted == 1
            Worker(stores.queue, app.batch_embedder, threads=1).drain()
            (document,) = stores.documents.query("items")
            return document.data

        push(title="ahead")
        pusher._version, clock.now = 0, time.time()
        assert push(title="right")["item"]["title"] == "right"
        assert push(deleted=True)["gone"]
        assert push(title="back")["item"]["title"] == "back"
        assert push(title="new", image_url="https://x.test/kk")["item"]["title"] == "new"
        app.searcher.refresh()
        assert len(app.searcher) == 1


def test_a_source_that_ran_while_the_clock_was_ahead_is_due(settings: Settings, stores: Stores) -> None:
    configuration = SourcesFile('[sources.s]\nkind = "folder"\npath = "/x"\n')
    now = datetime.now(UTC)
    with app_of(settings, stores) as app:
        app.crawler.crawl(Catalogue("s", []))
        (run,) = stores.documents.query("runs")
        ahead = {**run.data, "started_at": (now + timedelta(days=400)).isoformat(timespec="milliseconds")}
        from visor.storage.documents import Delete, Put

        stores.documents.commit(
            [Put(collection="runs", key="ahead", data=ahead), Delete(collection="runs", key=run.key)]
        )
    latest = runs_of(stores.documents, configuration, 1).get("s")
    assert next_run(configuration.entry("s"), latest[0] if latest else None, now) == now


def test_a_reindex_takes_what_was_indexed_while_the_clock_was_ahead(settings: Settings, stores: Stores) -> None:
    from tests.unit.ingest.test_pipeline_reindex import Model

    from visor.storage.documents import Put

    with app_of(settings, stores) as app:
        app.batch_embedder.embed(msgspec.json.encode(Batch.of("s", "r", (change("1"), change("22")))))
        app.merge()
    for document, years in zip(stores.documents.query("items"), (0.001, 1.0), strict=True):
        ahead = (datetime.now(UTC) + timedelta(days=365 * years)).isoformat(timespec="seconds")
        stores.documents.commit(
            [Put(collection="items", key=document.key, data={**document.data, "indexed_at": ahead})]
        )
    new: Any = Model("another", 6)
    with App(settings, stores=stores, embedder=new, read_image=lambda one: drawing(len(one.key))) as app:
        assert app.reindex().published == 2
