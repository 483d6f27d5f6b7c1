"""Stores on Google Cloud over a network that fails: what is tried again, what is not, and that it ends in time."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from tests.cloud.support.faulty import Fault, FaultyProxy, Link

from visor.errors import Conflict, CorruptObject, NotFound, StoreError, StoreUnavailable
from visor.settings import Settings
from visor.storage import open_documents, open_objects, open_queue
from visor.storage.documents import SERVER_TIME, Add, DocumentStore, Put
from visor.storage.objects import ObjectStore
from visor_emulators.emulators import Emulators

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

BODY = random.Random(5).randbytes(200_000)
PASSING: list[Fault] = ["503", "429", "cut", "lost answer", "half answer"]


@pytest.fixture
def proxy(cloud_settings: Settings, emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(emulators.environ["STORAGE_EMULATOR_HOST"])
    with proxy.running() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield proxy
    # Of an error answer the library leaves the connection to the garbage collector: now, not in later tests.
    gc.collect()


@pytest.fixture
def objects(proxy: FaultyProxy, cloud_settings: Settings) -> Iterator[ObjectStore]:
    store = open_objects(msgspec.structs.replace(cloud_settings, store_deadline_s=20.0))
    yield store
    store.close()


@pytest.fixture
def impatient(proxy: FaultyProxy, cloud_settings: Settings) -> Iterator[ObjectStore]:
    store = open_objects(msgspec.structs.replace(cloud_settings, store_deadline_s=1.5))
    yield store
    store.close()


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(fault: Fault, objects: ObjectStore, proxy: FaultyProxy, tmp_path: Path) -> None:
    def twice(call: Callable[[], object]) -> object:
        proxy.plan = [fault, fault]
        result = call()
        assert proxy.plan == []
        return result

    info = twice(lambda: objects.put("a", BODY))
    (tmp_path / "file").write_bytes(BODY)
    twice(lambda: objects.put_file("b", str(tmp_path / "file")))
    assert bytes(twice(lambda: objects.get("a"))) == BODY
    assert bytes(twice(lambda: objects.get("a", start=10, end=1000))) == BODY[10:1000]
    data, read = twice(lambda: objects.get_with_info("a"))
    assert bytes(data) == BODY
    assert read == twice(lambda: objects.stat("a"))
    if fault != "lost answer":
        # The put whose answer was lost was carried out, and then once more.
        assert read == info
    assert [i.name for i in twice(lambda: list(objects.list()))] == ["a", "b"]
    twice(lambda: objects.delete("a"))
    with pytest.raises(NotFound):
        objects.get("a")


@pytest.mark.parametrize("fault", ["503", "cut", "lost answer"])
def test_large_uploads_go_on(fault: Fault, objects: ObjectStore, proxy: FaultyProxy, tmp_path: Path) -> None:
    body = random.Random(6).randbytes(9_000_000)
    (tmp_path / "file").write_bytes(body)
    proxy.plan = [fault]
    objects.put_file("large", str(tmp_path / "file"))
    assert bytes(objects.get("large")) == body


@pytest.mark.timeout(60)
@pytest.mark.parametrize("fault", ["503", "429", "cut", "stall"])
def test_what_stays_is_unavailable_in_time(fault: Fault, impatient: ObjectStore, proxy: FaultyProxy) -> None:
    impatient.put("a", BODY)
    proxy.always = fault
    started = time.monotonic()
    for call in (lambda: impatient.put("a", BODY), lambda: impatient.get("a"), lambda: list(impatient.list())):
        with pytest.raises(StoreUnavailable, match="Repeat the call"):
            call()
    assert time.monotonic() - started < 3 * 10
    proxy.always = None
    assert bytes(impatient.get("a")) == BODY


def test_a_refusal_is_final(objects: ObjectStore, proxy: FaultyProxy) -> None:
    objects.put("a", BODY)
    before = len(proxy.requests)
    proxy.always = "403"
    with pytest.raises(StoreError, match="Forbidden") as caught:
        objects.get("a")
    assert not caught.value.retriable
    assert len(proxy.requests) == before + 1


def test_wrong_bytes_are_noticed(objects: ObjectStore, proxy: FaultyProxy) -> None:
    objects.put("a", BODY)
    for read in (objects.get, objects.get_with_info):
        proxy.plan = ["wrong byte"]
        with pytest.raises(CorruptObject, match="Object a"):
            read("a")
        assert bytes(objects.get("a")) == BODY


def test_a_swap_whose_answer_was_lost_has_won(objects: ObjectStore, proxy: FaultyProxy) -> None:
    first = objects.put("manifest", b"1", if_generation=0)
    proxy.plan = ["lost answer"]
    second = objects.put("manifest", b"2", if_generation=first.generation)
    assert second == objects.stat("manifest")


def test_a_swap_whose_answer_was_lost_may_have_lost(objects: ObjectStore, proxy: FaultyProxy) -> None:
    first = objects.put("manifest", b"1", if_generation=0)
    objects.put("manifest", b"2", if_generation=first.generation)
    proxy.plan = ["lost answer"]
    # The bytes are the same, but they are somebody else's.
    with pytest.raises(StoreUnavailable, match="manifest"):
        objects.put("manifest", b"2", if_generation=first.generation)


def test_what_is_replaced_while_it_is_read_is_read_anew(objects: ObjectStore, proxy: FaultyProxy) -> None:
    objects.put("manifest", b"1" * 1000)
    replaced = []
    proxy.between = lambda: replaced.append(objects.put("manifest", b"2" * 1000))
    for read in (objects.get_with_info, lambda name: (objects.get(name), replaced[-1])):
        proxy.plan = ["half answer"]
        data, info = read("manifest")
        assert (bytes(data), info) == (b"2" * 1000, replaced[-1])
    assert len(replaced) == 2
    with pytest.raises(NotFound):
        objects.get_with_info("missing")


def test_swaps_over_a_bad_network_lose_and_repeat_nothing(objects: ObjectStore, proxy: FaultyProxy) -> None:
    objects.put("list", b"")

    def append(seed: int) -> None:
        rng = random.Random(seed)
        for number in range(5):
            entry = b"%d-%d " % (seed, number)
            unsure = False
            while True:
                data, info = objects.get_with_info("list")
                if entry in bytes(data):
                    assert unsure, "a conflict, and yet it was written"
                    break
                if rng.random() < 0.5:
                    proxy.plan.append(rng.choice(PASSING))
                try:
                    objects.put("list", bytes(data) + entry, if_generation=info.generation)
                except Conflict:
                    continue
                except StoreUnavailable:
                    unsure = True
                    continue
                break

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(append, range(3)))
    proxy.plan = []
    entries = bytes(objects.get("list")).split()
    assert sorted(entries) == [b"%d-%d" % (seed, number) for seed in range(3) for number in range(5)]


@pytest.fixture
def firestore_link(cloud_settings: Settings, emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    link = Link(emulators.environ["FIRESTORE_EMULATOR_HOST"])
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", link.address)
    yield link
    link.close()


def use(documents: DocumentStore) -> list[Callable[[], object]]:
    return [
        lambda: documents.commit([Put(collection="items", key="a", data={"version": 1}, newer_than="version")]),
        lambda: documents.commit([Add(collection="meters", key="a", amounts={"n": 1})]),
        lambda: documents.commit([Put(collection="commits", key="a", data={"committed_at": SERVER_TIME})]),
        lambda: documents.get("items", ["a"]),
        lambda: documents.query("items"),
    ]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("mode", ["refuse", "silent"])
def test_firestore_that_does_not_answer(mode: str, firestore_link: Link, cloud_settings: Settings) -> None:
    patient = open_documents(cloud_settings)
    for call in use(patient):
        call()
    patient.close()
    documents = open_documents(msgspec.structs.replace(cloud_settings, store_deadline_s=1.5))
    firestore_link.mode = mode
    firestore_link.cut()
    started = time.monotonic()
    for call in use(documents):
        with pytest.raises(StoreUnavailable, match="Repeat the call"):
            call()
    assert time.monotonic() - started < 5 * 10
    documents.close()


@pytest.mark.timeout(90)
def test_firestore_that_comes_back(firestore_link: Link, cloud_settings: Settings) -> None:
    documents = open_documents(cloud_settings)
    documents.get("items", ["a"])
    firestore_link.mode = "refuse"
    firestore_link.cut()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            documents.commit, [Put(collection="items", key="a", data={"version": 1}, newer_than="version")]
        )
        time.sleep(0.5)
        assert not waiting.done()
        firestore_link.mode = "pass"
        assert waiting.result() == [True]
    assert documents.get("items", ["a"])["a"].data == {"version": 1}
    documents.close()


def test_commits_while_connections_are_cut(firestore_link: Link, cloud_settings: Settings) -> None:
    documents = open_documents(cloud_settings)
    done, version = threading.Event(), 0
    documents.get("items", ["a"])

    def saw() -> None:
        pause_s, before = 0.05, 0
        while not done.wait(pause_s):
            # On a busy machine connecting takes longer: one that is always cut before it is up would only test the
            # deadline.
            pause_s *= 1 if version > before else 2
            before = version
            firestore_link.cut()

    sawing = threading.Thread(target=saw)
    sawing.start()
    try:
        for version in range(1, 31):
            applied = documents.commit(
                [
                    Put(collection="items", key=key, data={"version": version, "key": key}, newer_than="version")
                    for key in "ab"
                ]
            )
            assert applied == [True, True]
    finally:
        done.set()
        sawing.join()
    found = documents.get("items", ["a", "b"])
    assert [document.data["version"] for document in found.values()] == [30, 30]
    documents.close()


@pytest.mark.timeout(90)
def test_pubsub_that_does_not_answer(
    cloud_settings: Settings, emulators: Emulators, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link(emulators.environ["PUBSUB_EMULATOR_HOST"])
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", link.address)
    queue = open_queue(msgspec.structs.replace(cloud_settings, store_deadline_s=2.0))
    queue.publish([b"1"])
    (message,) = queue.receive(1, lease_s=60)
    link.mode = "refuse"
    link.cut()
    for call in (
        lambda: queue.publish([b"2"]),
        lambda: queue.receive(1, lease_s=60),
        lambda: queue.acknowledge(message),
        lambda: queue.release(message, delay_s=0),
        lambda: queue.dead_letters(),
    ):
        with pytest.raises(StoreUnavailable, match="Repeat the call"):
            call()
    link.mode = "pass"
    patient = open_queue(cloud_settings)
    patient.acknowledge(message)
    patient.publish([b"3"])
    assert b"3" in {m.body for _ in range(2) for m in patient.receive(2, lease_s=60)}
    patient.close()
    queue.close()
    link.close()
