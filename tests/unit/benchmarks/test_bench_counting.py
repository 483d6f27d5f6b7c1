"""What the calls of a store are counted as."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from visor.errors import Conflict, NotFound
from visor.storage import Stores
from visor.storage.documents import Add, Delete, Put
from visor_bench.load.counting import Tally, Usage, counting


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def stores(local_stores: Stores, tally: Tally) -> Stores:
    return counting(local_stores, tally)


def test_usages_add_up() -> None:
    one = Usage(class_a=1, document_reads=2)
    assert one + Usage(class_a=3, message_bytes=5) == Usage(class_a=4, document_reads=2, message_bytes=5)
    assert (one + one) - one == one
    assert one.as_dict()["class_a"] == 1
    assert one.as_dict()["document_deletes"] == 0


def test_objects(stores: Stores, tally: Tally, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    stores.objects.put("a", b"123")
    stores.objects.put_file("b", str(path))
    with pytest.raises(Conflict):
        stores.objects.put("a", b"1", if_generation=0)
    assert tally.usage == Usage(class_a=3, object_bytes_written=8)
    stores.objects.get("a", start=1)
    stores.objects.get_with_info("b")
    stores.objects.stat("a")
    with pytest.raises(NotFound):
        stores.objects.get("none")
    stores.objects.delete("a")
    assert tally.usage == Usage(class_a=3, object_bytes_written=8, class_b=4, object_bytes_read=7)


def test_listings_cost_a_write_a_page(stores: Stores, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visor_bench.load.counting.LIST_PAGE", 2)
    for count, pages in [(0, 1), (2, 1), (3, 2), (5, 3)]:
        for number in range(count):
            stores.objects.put(f"{count}/{number}", b"")
        before = tally.usage
        assert len(list(stores.objects.list(f"{count}/"))) == count
        assert tally.usage - before == Usage(class_a=pages), count


def test_documents(stores: Stores, tally: Tally) -> None:
    stores.documents.commit(
        [
            Put(collection="items", key="a", data={"version": 2}),
            Put(collection="items", key="b", data={"version": 2}, if_revision=0),
            Add(collection="meters", key="m", amounts={"n": 1}),
        ]
    )
    assert tally.usage == Usage(document_writes=3)
    before = tally.usage
    applied = stores.documents.commit(
        [
            Put(collection="items", key="a", data={"version": 1}, newer_than="version"),
            Delete(collection="items", key="b", field="version", value=5),
            Delete(collection="items", key="none"),
        ]
    )
    assert applied == [False, True, True]
    assert tally.usage - before == Usage(document_reads=2, document_deletes=2)
    before = tally.usage
    with pytest.raises(Conflict):
        stores.documents.commit([Put(collection="items", key="a", data={"x": 1}, if_revision=1)])
    assert tally.usage - before == Usage(document_reads=1)
    before = tally.usage
    stores.documents.get("items", ["a", "none", "a"])
    assert len(stores.documents.query("items")) == 1
    assert stores.documents.query("none") == []
    assert tally.usage - before == Usage(document_reads=2 + 1 + 1)


def test_messages(stores: Stores, tally: Tally) -> None:
    stores.queue.publish([b"short", b"x" * 3000])
    assert tally.usage == Usage(messages=2, message_bytes=4000)
    messages = stores.queue.receive(10, lease_s=60)
    assert tally.usage == Usage(messages=4, message_bytes=8000)
    stores.queue.acknowledge(messages[0])
    stores.queue.release(messages[1], delay_s=0)
    assert stores.queue.waiting() == 1
    assert stores.queue.dead_letters() == []
    assert tally.usage == Usage(messages=4, message_bytes=8000)


def test_threads_are_all_counted(tally: Tally) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: [tally.add(class_a=1) for _ in range(500)], range(4)))
    assert tally.usage.class_a == 2000
