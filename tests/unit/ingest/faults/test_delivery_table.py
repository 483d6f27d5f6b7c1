"""Every step of embed and compact × every fault: in the end each item is searchable once, or failed with its reason.

A step is one call of a store, of the origin or of the model. They are counted, not listed, so that none is missed: each
run meets its fault one call later than the run before, until a run gets to its end without meeting it. What only real
processes and networks can show is in `test_pipeline_killed.py` and `tests/cloud/test_delivery.py`.
"""

from __future__ import annotations

import functools
import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tests.cloud.support.origin import Origin, seed_of
from tests.unit.ingest.test_pipeline_embed import drawing
from tests.unit.ingest.test_pipeline_reindex import Model

from visor.app import App
from visor.cli.crawl import dlq_command
from visor.errors import StoreUnavailable
from visor.index.merge.merge import merge
from visor.index.merge.policy import MergePolicy
from visor.index.search.searcher import Searcher
from visor.ingest.embed import BatchEmbedder
from visor.ingest.schedule import due_failures
from visor.ingest.worker import Worker
from visor.schema.items import Batch, Change, Item, item_id
from visor.settings import Settings
from visor.storage import Stores, open_stores

pytestmark = [pytest.mark.fault, pytest.mark.usefixtures("looked_at_once")]

When = Literal["before", "after"]
MODEL: Any = Model("made-up", 8)
SETTINGS = Settings(embed_attempts_max=1000, fetch_parallel=1)
ITEMS = 3
MOST_STEPS = 60
POLICY = MergePolicy(samples_min=8, relearn_growth=2.0, grace_s=0.0)
"""Learns soon and again, and deletes what was replaced at once: more steps to be disturbed at."""


class Killed(BaseException):
    """Ends the process: nothing of ours catches it."""


def raises(error: Callable[[], BaseException]) -> Callable[[], None]:
    def act() -> None:
        raise error()

    return act


ERRORS: dict[str, Callable[[], None]] = {
    "killed": raises(Killed),
    "exception": raises(lambda: RuntimeError("planned")),
    "timed out": raises(lambda: TimeoutError("planned")),
    "store down": raises(lambda: StoreUnavailable("planned")),
}


@dataclass
class Steps:
    """Counts calls, and does `act` once: before or after the call of number `at`."""

    at: int
    when: When
    act: Callable[[], None]
    names: list[str] = field(default_factory=list)
    met: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def around(self, name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.lock:
                self.names.append(name)
                mine = len(self.names) == self.at
                self.met |= mine
            if mine and self.when == "before":
                self.act()
            result = real(*args, **kwargs)
            if mine and self.when == "after":
                self.act()
            return result

        return call

    def store(self, name: str, real: Any) -> Any:
        steps = self

        class Stepped:
            def __getattr__(self, method: str) -> Any:
                return steps.around(f"{name}.{method}", getattr(real, method))

        return Stepped()

    def model(self) -> Any:
        stepped = Model(MODEL.fingerprint, MODEL.side)
        stepped.embed = self.around("model.embed", MODEL.embed)  # type: ignore[method-assign]
        return stepped


@functools.cache
def picture(address: str) -> bytes:
    return drawing(seed_of(address))


@functools.cache
def vector_of(address: str) -> np.ndarray[Any, Any]:
    vector: np.ndarray[Any, Any] = MODEL.embed([Image.open(io.BytesIO(picture(address))).convert("RGB")]).vectors[0]
    return vector


def read_image(item: Item) -> bytes:
    return picture(item.image_url)


def change(key: str, version: int = 1, action: Any = "embed") -> Change:
    """Another version has another picture."""
    address = f"https://x.test/{key}-{version}.png"
    return Change(
        action=action, item=Item(id=item_id("s", key), source="s", key=key, image_url=address), version=version
    )


def batch(*changes: Change) -> bytes:
    return msgspec.json.encode(Batch.of("s", "run", changes))


def embedder(stores: Stores, steps: Steps | None = None) -> BatchEmbedder:
    if steps is None:
        return BatchEmbedder(
            embedder=MODEL,
            read_image=read_image,
            objects=stores.objects,
            documents=stores.documents,
            settings=SETTINGS,
        )
    return BatchEmbedder(
        embedder=steps.model(),
        read_image=steps.around("origin.read", read_image),
        objects=steps.store("objects", stores.objects),
        documents=steps.store("documents", stores.documents),
        settings=SETTINGS,
    )


def deliver(stores: Stores, batches: BatchEmbedder) -> None:
    """One delivery of all that waits. Leases end at once, as they do in time when nobody acknowledges."""
    for message in stores.queue.receive(10, lease_s=0.0):
        try:
            batches.embed(message.body, attempt=message.attempt)
        except (Exception, Killed):  # noqa: BLE001 — whatever it is, the message comes again
            continue
        stores.queue.acknowledge(message)


def check(stores: Stores, expected: dict[str, int], searcher: Searcher) -> None:
    """Exactly these items (key to version) are searchable, each once, with the vector of its own picture."""
    searcher.refresh(force=True)
    assert searcher.notice is None
    assert len(searcher) == len(expected)
    assert sorted(searcher.sample(10_000)) == sorted(item_id("s", key) for key in expected)
    for key, version in expected.items():
        vector = searcher.vector_of(item_id("s", key))
        assert vector is not None
        assert np.abs(vector - vector_of(change(key, version).item.image_url)).max() < 0.01, key
    documents = {d.key: d.data for d in stores.documents.query("items")}
    live = {key: data["version"] for key, data in documents.items() if not data.get("gone")}
    assert live == {item_id("s", key): version for key, version in expected.items()}
    assert stores.documents.query("failures") == []
    assert stores.queue.waiting() == 0
    assert stores.queue.dead_letters() == []


def check_no_orphans(stores: Stores) -> None:
    """What nobody names is collected in time."""
    for hours in (48, 96):
        later = time.time() + hours * 3600
        merge(stores.objects, stores.documents, model=MODEL.fingerprint, policy=POLICY, clock=lambda at=later: at)
    searcher = Searcher(stores.objects, stores.documents, model=MODEL.fingerprint, freshness_s=0)
    searcher.refresh()
    assert searcher.manifest is not None
    named = {entry.name for entry in searcher.manifest.segments}
    assert {info.name for info in stores.objects.list("segments/")} == named
    assert list(stores.objects.list("shards/")) == []


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(msgspec.structs.replace(SETTINGS, home=tmp_path)) as stores:
        yield stores


def new_searcher(stores: Stores) -> Searcher:
    return Searcher(stores.objects, stores.documents, model=MODEL.fingerprint, freshness_s=0)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", [*ERRORS, "delivered twice at once", "newer version at once", "older version late"])
def test_embed(fault: str, when: When, stores: Stores) -> None:
    expected: dict[str, int] = {}
    seen: set[str] = set()
    for number in range(1, MOST_STEPS):
        keys = [f"{number}-{n}" for n in range(ITEMS)]
        body = batch(*(change(key, 2) for key in keys))
        after = dict.fromkeys(keys, 2)
        act = ERRORS.get(fault)
        if fault == "delivered twice at once":
            act = functools.partial(embedder(stores).embed, body, attempt=2)
        elif fault == "newer version at once":
            newer = batch(change(keys[0], 3), change(keys[1], 3, "delete"))
            act = functools.partial(embedder(stores).embed, newer)
            after = {keys[0]: 3, keys[2]: 2}
        elif fault == "older version late":
            act = functools.partial(embedder(stores).embed, batch(*(change(key, 1) for key in keys)))
        steps = Steps(number, when, act)  # type: ignore[arg-type]
        stores.queue.publish([body])
        deliver(stores, embedder(stores, steps))
        seen |= set(steps.names)
        expected |= after if steps.met else dict.fromkeys(keys, 2)
        while stores.queue.waiting():
            deliver(stores, embedder(stores))
        if not steps.met:
            break
    assert not steps.met, "every step was disturbed"
    assert seen == {"documents.get", "origin.read", "model.embed", "objects.put", "documents.commit"}
    check(stores, expected, new_searcher(stores))
    merge(stores.objects, stores.documents, model=MODEL.fingerprint, policy=POLICY)
    check(stores, expected, new_searcher(stores))
    check_no_orphans(stores)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", [*ERRORS, "another compact at once", "a delivery at once", "a delete at once"])
def test_compact(fault: str, when: When, stores: Stores) -> None:
    """A search that runs all the time finds the same before, in between and after."""
    expected: dict[str, int] = {}
    running = new_searcher(stores)
    seen: set[str] = set()

    def embed(*changes: Change) -> None:
        embedder(stores).embed(batch(*changes))
        for one in changes:
            expected.pop(one.item.key, None)
            if one.action != "delete":
                expected[one.item.key] = one.version

    def compact(through: Steps | None = None) -> None:
        objects, documents = stores.objects, stores.documents
        if through is not None:
            objects, documents = through.store("objects", objects), through.store("documents", documents)
        merge(objects, documents, model=MODEL.fingerprint, policy=POLICY)

    undisturbed = 0
    for number in range(1, MOST_STEPS):
        embed(*(change(f"{number}-{n}") for n in range(ITEMS)))
        act = ERRORS.get(fault)
        if fault == "another compact at once":
            act = compact
        elif fault == "a delivery at once":
            act = functools.partial(embed, change(f"{number}-late"), change(f"{number}-0", 2))
        elif fault == "a delete at once":
            act = functools.partial(embed, change(f"{number}-1", 2, "delete"))
        steps = Steps(number, when, act)  # type: ignore[arg-type]
        try:
            compact(steps)
        except (Exception, Killed):  # noqa: BLE001 — Cloud Scheduler calls again
            assert fault in ERRORS
        seen |= set(steps.names)
        check(stores, expected, running)
        compact()
        check(stores, expected, running)
        undisturbed = 0 if steps.met else undisturbed + 1
        # Not every merge has as many steps: some learn, some write two segments.
        if undisturbed == 3:
            break
    assert undisturbed == 3, "every step was disturbed"
    assert seen >= {"objects.get_with_info", "documents.query", "objects.get", "objects.put", "objects.delete"}
    assert seen >= {"objects.put_file", "documents.commit", "documents.get", "objects.list"}
    compact()
    check(stores, expected, new_searcher(stores))
    check_no_orphans(stores)


ORIGINS: dict[str, tuple[str, str | None]] = {
    "good": ("", None),
    "slow at first": ("slow once", None),
    "busy at first": ("busy once", None),
    "missing": ("404", "fetch_failed"),
    "gone": ("410", "fetch_failed"),
    "forbidden": ("403", "fetch_failed"),
    "garbage": ("garbage", "undecodable_image"),
    "cut off": ("cut off", "fetch_unavailable"),
    "busy for long": ("busy", "fetch_unavailable"),
    "broken": ("500", "fetch_unavailable"),
}
"""What an origin does, and the code that is recorded in the end; None: its item is searchable."""


def test_origins_and_dead_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visor.ingest.worker.BACK_OFF_S", 0.01)
    origin = Origin()
    monkeypatch.setenv("VISOR_HOME", str(tmp_path))
    settings = Settings(home=tmp_path, allow_hosts=(origin.host,), fetch_timeout_s=1.0, embed_attempts_max=3)
    keys = {what.replace(" ", "-"): outcome for what, outcome in ORIGINS.items()}
    origin.behaviour = {key: how for key, (how, _) in keys.items()}

    def of(key: str) -> Change:
        item = Item(id=item_id("s", key), source="s", key=key, image_url=origin.address(key))
        return Change(action="embed", item=item, version=1)

    def letters() -> list[dict[str, Any]]:
        listed = CliRunner().invoke(dlq_command, ["list", "--json"], catch_exceptions=False)
        return list(msgspec.json.decode(listed.stdout)["dead_letters"])

    def outcomes(app: App) -> dict[str, str | None]:
        failures = {d.key: str(d.data["code"]) for d in app.stores.documents.query("failures")}
        assert all(len(d.data["reason"]) > 20 for d in app.stores.documents.query("failures"))
        live = {d.key for d in app.stores.documents.query("items")}
        assert not live & failures.keys()
        assert live | failures.keys() == {item_id("s", key) for key in keys}
        return {key: failures.get(item_id("s", key)) for key in keys}

    with App(settings, embedder=MODEL) as app:
        for key in keys:
            app.stores.queue.publish([batch(of(key))])
            # One at a time: a host that asks to wait is left alone by all.
            Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
        app.stores.queue.publish([b"no batch"])
        Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
        assert outcomes(app) == {key: code for key, (_, code) in keys.items()}
        late = {key for key, (_, code) in keys.items() if code == "fetch_unavailable"}
        assert [(letter["items"], letter["attempts"]) for letter in letters()] == [([], 3)], "what is not a batch"

        origin.healed = True
        tomorrow = datetime.now(UTC) + timedelta(days=1, minutes=1)
        due = due_failures(app.stores.documents, tomorrow)
        assert {item_id("s", key) for key in late} <= {failure.item for failure in due}
        assert app.crawler.try_again(due) == len(due)
        Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
        healed = {key: code if code == "undecodable_image" else None for key, (_, code) in keys.items()}
        assert outcomes(app) == healed
        assert [letter["items"] for letter in letters()] == [[]], "what is not a batch stays for a human"
        searcher = new_searcher(app.stores)
        searcher.refresh()
        assert sorted(searcher.sample(100)) == sorted(item_id("s", key) for key, code in healed.items() if code is None)
    origin.close()
