"""Delivery under faults, in real processes on the emulators: in the end everything is there, once."""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.cloud.support import faults
from tests.cloud.support.origin import Origin, seed_of
from tests.cloud.support.running import pushing, settled, wait_until
from tests.unit.ingest.test_pipeline_embed import drawing

from visor.index.search.searcher import Searcher
from visor.models.embedder import Embedder
from visor.schema.items import Batch, Change, Item, item_id
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor_emulators.demo import FUNCTIONS, environ_of, running_function
from visor_emulators.emulators import Emulators

ATTEMPTS = 60
"""More than the faults that one batch can meet."""


@pytest.fixture
def origin() -> Iterator[Origin]:
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture
def settings(cloud_settings: Settings, built_settings: Settings, origin: Origin) -> Settings:
    return msgspec.structs.replace(
        cloud_settings,
        home=built_settings.home,
        allow_hosts=(origin.host,),
        fetch_timeout_s=2.0,
        store_deadline_s=3.0,
        embed_attempts_max=ATTEMPTS,
    )


@pytest.fixture
def stores(settings: Settings) -> Iterator[Stores]:
    with open_stores(settings) as stores:
        yield stores


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of faults, and a folder of functions that meet them."""
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setenv(faults.FOLDER, str(folder))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    for name in ("embed", "compact"):
        faults.write_main(tmp_path / "functions", name, FUNCTIONS)
    return folder


@contextmanager
def faulty_function(planned: Path, name: str, settings: Settings) -> Iterator[str]:
    with running_function(name, settings, source=planned.parent / "functions") as address:
        yield address


def change(origin: Origin, key: str, *, version: int = 1, action: Any = "embed") -> Change:
    item = Item(id=item_id("s", key), source="s", key=key, image_url=origin.address(key), title=key)
    return Change(action=action, item=item, version=version)


def publish(stores: Stores, *batches: list[Change]) -> None:
    stores.queue.publish([msgspec.json.encode(Batch.of("s", "run", tuple(changes))) for changes in batches])


@functools.cache
def expected(embedder: Embedder, key: str) -> np.ndarray[Any, Any]:
    """The vector of the picture of that key: kept, since each is looked up after every fault."""
    picture = Image.open(io.BytesIO(drawing(seed_of(key)))).convert("RGB")
    vector: np.ndarray[Any, Any] = embedder.embed([picture]).vectors[0]
    return vector


def check_index(stores: Stores, embedder: Embedder, keys: set[str]) -> None:
    """Exactly these items are searchable, each once, each with its own picture's vector, and none is also a failure."""
    searcher = Searcher(stores.objects, stores.documents, model=embedder.fingerprint, freshness_s=0)
    searcher.refresh()
    assert searcher.notice is None
    assert len(searcher) == len(keys)
    ids = {item_id("s", key): key for key in keys}
    assert sorted(searcher.sample(10_000)) == sorted(ids)
    for item, key in ids.items():
        vector = searcher.vector_of(item)
        assert vector is not None
        assert float(vector @ expected(embedder, key)) > 0.999, key
    failed = {document.key for document in stores.documents.query("failures")}
    assert not failed & ids.keys()
    live = {d.key for d in stores.documents.query("items") if not d.data.get("gone")}
    assert live == ids.keys()


STEPS = ["documents.get", "origin.read", "model.embed", "objects.put", "documents.commit"]


def test_embed_survives_death_errors_and_time_outs_at_every_step(
    planned: Path, settings: Settings, stores: Stores, origin: Origin, embedder: Embedder
) -> None:
    points = [
        f"{step}.{when}.{action}"
        for step, when, action in itertools.product(STEPS, ("before", "after"), ("kill", "exception", "unavailable"))
    ]
    # Two deliveries of one batch at once: Pub/Sub gives the stalled ones up and delivers them again.
    points += [f"{step}.before.stall" for step in STEPS]
    faults.plan(planned, points)
    keys = [f"k{number}" for number in range(36)]
    batches = [[change(origin, key) for key in keys[start : start + 3]] for start in range(0, len(keys), 3)]
    # Out of order and twice: newer versions, and what they replace, at once.
    batches += [[change(origin, key, version=2) for key in keys[:3]], batches[1], batches[5]]
    random.Random(7).shuffle(batches)
    with (
        faulty_function(planned, "embed", settings) as address,
        pushing(settings, address, ack_deadline_s=10),
    ):
        publish(stores, *batches)
        ids = {item_id("s", key) for key in keys}
        wait_until(lambda: not list(planned.iterdir()), "every planned fault has happened")
        wait_until(lambda: settled(stores, ids), "every item is settled")
        newest = lambda: {d.data["version"] for d in stores.documents.get("items", [item_id("s", keys[0])]).values()}  # noqa: E731
        wait_until(lambda: newest() == {2}, "the newest version has won")
    assert stores.documents.query("failures") == []
    check_index(stores, embedder, set(keys))
    assert stores.queue.dead_letters() == []


def test_compact_survives_death_errors_and_lost_swaps_and_another_at_once(
    planned: Path, settings: Settings, stores: Stores, origin: Origin, embedder: Embedder
) -> None:
    from visor.ingest.embed import BatchEmbedder

    embed = BatchEmbedder(
        embedder=embedder,
        read_image=lambda item: drawing(seed_of(item.key)),
        objects=stores.objects,
        documents=stores.documents,
        settings=settings,
    )
    points = [
        "objects.put(segments).before.kill",
        "objects.put_file(segments).after.kill",
        "objects.put(manifest).before.kill",
        "objects.put(manifest).after.kill",
        "objects.put(manifest).after.unavailable",
        "objects.put(manifest).before.exception",
        "documents.query(commits).after.kill",
        "documents.commit.before.kill",
        "documents.commit.after.exception",
        "objects.get(shards).after.exception",
        "documents.query(commits).before.unavailable",
        "objects.put_file(segments).before.unavailable",
        "objects.put(manifest).before.unavailable",
        "documents.commit.before.unavailable",
    ]
    keys: list[str] = []

    def more(count: int) -> None:
        new = [f"c{len(keys) + number}" for number in range(count)]
        keys.extend(new)
        embed.embed(msgspec.json.encode(Batch.of("s", "run", tuple(change(origin, key) for key in new))))

    with faulty_function(planned, "compact", settings) as one, faulty_function(planned, "compact", settings) as two:

        def compact(address: str) -> int:
            try:
                return httpx.post(address, timeout=60).status_code
            except httpx.TransportError:
                return 0

        more(3)
        assert compact(one) == 200
        for point in points:
            more(2)
            faults.plan(planned, [point])
            compact(one)
            check_index(stores, embedder, set(keys))
        missed = sorted(path.name for path in planned.iterdir())
        for path in planned.iterdir():
            path.unlink()
        # One of the two ways in which segments are written is never taken.
        assert len(missed) <= 1, missed
        with ThreadPoolExecutor(2) as pool:
            for _ in range(4):
                more(2)
                assert set(pool.map(compact, (one, two))) == {200}
                check_index(stores, embedder, set(keys))
    assert stores.documents.query("failures") == []


@contextmanager
def paused(emulators: Emulators, name: str) -> Iterator[None]:
    """The server of that name does not answer, as one behind a broken network."""
    process = emulators._servers[name].process
    assert process is not None
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("down", ["firestore", "storage"])
def test_a_store_that_is_down_delays_and_loses_nothing(
    down: str, emulators: Emulators, settings: Settings, stores: Stores, origin: Origin, embedder: Embedder
) -> None:
    keys = [f"d{number}" for number in range(6)]
    with running_function("embed", settings) as address, pushing(settings, address):
        publish(stores, [change(origin, key) for key in keys[:3]])
        wait_until(lambda: settled(stores, {item_id("s", key) for key in keys[:3]}), "the first batch is embedded")
        with paused(emulators, down):
            late = [change(origin, key) for key in keys[3:]]
            publish(stores, late)
            # A delivery of our own takes the same way as Pub/Sub's, and tells that it failed.
            assert deliver(address, late) == 500
        wait_until(lambda: settled(stores, {item_id("s", key) for key in keys}), "both batches are embedded")
    check_index(stores, embedder, set(keys))


def deliver(address: str, changes: list[Change]) -> int:
    """Push a batch as Pub/Sub does; the function's status."""
    data = base64.b64encode(msgspec.json.encode(Batch.of("s", "run", tuple(changes)))).decode()
    envelope = {"subscription": "projects/p/subscriptions/s", "message": {"messageId": "0", "data": data}}
    return httpx.post(address, json=envelope, timeout=60).status_code


def visor(settings: Settings, *arguments: str) -> str:
    """The output of the command line."""
    environ = {**os.environ, **environ_of(settings)}
    done = subprocess.run(
        [sys.executable, "-m", "visor", *arguments], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_origins_of_all_kinds_and_dead_letters_through_the_command_line(
    settings: Settings, stores: Stores, origin: Origin, embedder: Embedder
) -> None:
    settings = msgspec.structs.replace(settings, embed_attempts_max=5, store_deadline_s=15.0)
    origin.behaviour = {
        "missing": "404",
        "forbidden": "403",
        "garbage": "garbage",
        "busy-once": "busy once",
        "slow-once": "slow once",
        "busy": "busy",
        "broken": "500",
    }
    good = ["good-1", "good-2"]
    with running_function("embed", settings) as address, pushing(settings, address):
        publish(
            stores,
            [change(origin, key) for key in [*good, "missing", "forbidden", "garbage"]],
            [change(origin, key) for key in ("slow-once", "busy-once")],
            [change(origin, key) for key in ("busy", "broken", "good-3")],
        )
        stores.queue.publish([b"this is not a batch"])
        done = [*good, "good-3", "missing", "forbidden", "garbage", "slow-once", "busy-once"]
        wait_until(lambda: settled(stores, {item_id("s", key) for key in done}), "all that can be settled is")

        def is_recorded(key: str) -> bool:
            failure = stores.documents.get("failures", [item_id("s", key)]).get(item_id("s", key))
            # Before a try alone, an item is marked as one that ended its process: no failure before the try is over.
            return failure is not None and not failure.data["retriable"] and failure.data["code"] != "embed_crashed"

        wait_until(lambda: is_recorded("busy") and is_recorded("broken"), "what stays away is recorded as failed")
        failures = {d.key: d.data for d in stores.documents.query("failures")}
        why = {key: failures[item_id("s", key)] for key in origin.behaviour if item_id("s", key) in failures}
        assert {key: (data["code"], data["retriable"]) for key, data in why.items()} == {
            "missing": ("fetch_failed", False),
            "forbidden": ("fetch_failed", False),
            "garbage": ("undecodable_image", False),
            "busy": ("fetch_unavailable", False),
            "broken": ("fetch_unavailable", False),
        }
        assert "404" in why["missing"]["reason"]
        assert "429" in why["busy"]["reason"]
        assert origin.asked["good-1"] == origin.asked["missing"] == 1, "what is done is not done again"
        assert all(why[key]["next_at"] > time.time() for key in ("busy", "broken"))
        letters = json.loads(visor(settings, "dlq", "list", "--json"))["dead_letters"]
        assert [letter["items"] for letter in letters] == [[]], "only what is not a batch"
        check_index(stores, embedder, {*good, "good-3", "slow-once", "busy-once"})

        origin.healed = True
        visor(settings, "failures", "--retry", "--code", "fetch_unavailable")
        wait_until(lambda: settled(stores, {item_id("s", "busy"), item_id("s", "broken")}), "the retried are embedded")
    check_index(stores, embedder, {*good, "good-3", "slow-once", "busy-once", "busy", "broken"})
    assert {d.key for d in stores.documents.query("failures")} == {
        item_id("s", key) for key in ("missing", "forbidden", "garbage")
    }
