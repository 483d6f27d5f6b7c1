"""What every document store promises."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from tests.contract.processes import in_processes

from visor.errors import Conflict
from visor.settings import Settings
from visor.storage import open_documents
from visor.storage.documents import SERVER_TIME, WRITES_MAX, Add, Delete, DocumentStore, Put, Where


def put(documents: DocumentStore, key: str, data: dict[str, Any], **guards: Any) -> bool:
    (applied,) = documents.commit([Put(collection="items", key=key, data=data, **guards)])
    return applied


def read(documents: DocumentStore, key: str, collection: str = "items") -> dict[str, Any] | None:
    found = documents.get(collection, [key]).get(key)
    return found.data if found else None


VALUES: dict[str, Any] = {
    "none": None,
    "yes": True,
    "no": False,
    "int": 42,
    "large": 2**63 - 1,
    "small": -(2**63),
    "float": 0.1,
    "whole": 3.0,
    "text": "Müller & Söhne \u0000 🦆 'quoted' \"twice\"",
    "empty": "",
    "bytes": bytes(range(256)),
    "no_bytes": b"",
    "list": [1, "two", None, [3, [4, []]], {"five": [b"6"]}],
    "map": {"inner": {"deep": [1.5, {"bytes": b"x"}]}, "dotted.name": 1, "with space": 2},
    "no_list": [],
    "no_map": {},
    "dotted.field": "x",
    "`quoted`": "y",
}


def test_values_come_back_as_they_were(documents: DocumentStore) -> None:
    put(documents, "a", VALUES)
    back = read(documents, "a")
    assert back == VALUES
    for field, value in VALUES.items():
        assert type(back[field]) is type(value), field


def test_tuples_become_lists(documents: DocumentStore) -> None:
    put(documents, "a", {"pair": (1, (2, 3))})
    assert read(documents, "a") == {"pair": [1, [2, 3]]}


@pytest.mark.parametrize(
    ("value", "error"),
    [(2**63, ValueError), (math.nan, ValueError), (math.inf, ValueError), ({1}, TypeError), (object(), TypeError)],
)
def test_values_that_are_none(documents: DocumentStore, value: object, error: type[Exception]) -> None:
    for data in ({"a": value}, {"a": [{"b": value}]}):
        with pytest.raises(error, match="valid"):
            put(documents, "a", data)
    assert read(documents, "a") is None


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "__id__", "a\nb", "x" * 501])
def test_names_that_are_none(documents: DocumentStore, name: str) -> None:
    for uses in (
        lambda: put(documents, name, {"a": 1}),
        lambda: documents.get("items", [name]),
        lambda: documents.get(name, ["a"]),
        lambda: documents.commit([Add(collection=name, key="a", amounts={"n": 1})]),
        lambda: documents.commit([Delete(collection="items", key=name)]),
        lambda: documents.query(name),
    ):
        with pytest.raises(ValueError, match="valid"):
            uses()


def test_get_answers_what_exists(documents: DocumentStore) -> None:
    for key in ("a", "b", "ü ö:1"):
        put(documents, key, {"key": key})
    found = documents.get("items", ["b", "none", "ü ö:1", "b"])
    assert {key: document.data for key, document in found.items()} == {"b": {"key": "b"}, "ü ö:1": {"key": "ü ö:1"}}
    assert all(document.key == key and document.revision > 0 for key, document in found.items())
    assert documents.get("items", []) == {}
    assert documents.get("others", ["a"]) == {}


def test_get_of_very_many(documents: DocumentStore) -> None:
    documents.commit([Put(collection="items", key=f"{n:04}", data={"n": n}) for n in range(400)])
    documents.commit([Put(collection="items", key=f"{n:04}", data={"n": n}) for n in range(400, 800)])
    found = documents.get("items", [f"{n:04}" for n in range(1000)])
    assert {key: document.data["n"] for key, document in found.items()} == {f"{n:04}": n for n in range(800)}


def test_put_replaces_the_whole_document(documents: DocumentStore) -> None:
    put(documents, "a", {"x": 1, "y": 2})
    put(documents, "a", {"y": 3})
    assert read(documents, "a") == {"y": 3}


def test_each_change_has_another_revision(documents: DocumentStore) -> None:
    seen = set()
    for number in range(5):
        put(documents, "a", {"number": number})
        seen.add(documents.get("items", ["a"])["a"].revision)
    documents.commit([Add(collection="items", key="a", amounts={"number": 1})])
    seen.add(documents.get("items", ["a"])["a"].revision)
    documents.commit([Delete(collection="items", key="a")])
    put(documents, "a", {"number": 1})
    seen.add(documents.get("items", ["a"])["a"].revision)
    assert len(seen) == 7
    assert documents.query("items")[0].revision in seen


def test_commit_applies_all(documents: DocumentStore) -> None:
    put(documents, "gone", {"x": 1})
    applied = documents.commit(
        [
            Put(collection="items", key="a", data={"x": 1}),
            Put(collection="commits", key="a", data={"x": 2}),
            Add(collection="meters", key="a", amounts={"n": 1}),
            Delete(collection="items", key="gone"),
        ]
    )
    assert applied == [True] * 4
    assert read(documents, "a") == {"x": 1}
    assert read(documents, "a", "commits") == {"x": 2}
    assert read(documents, "a", "meters") == {"n": 1}
    assert read(documents, "gone") is None


def test_an_empty_commit(documents: DocumentStore) -> None:
    assert documents.commit([]) == []


def test_commit_applies_nothing_on_conflict(documents: DocumentStore) -> None:
    put(documents, "a", {"x": 1})
    put(documents, "b", {"x": 1})
    with pytest.raises(Conflict, match="items/b"):
        documents.commit(
            [
                Put(collection="items", key="a", data={"x": 2}),
                Add(collection="meters", key="m", amounts={"n": 1}),
                Delete(collection="items", key="c"),
                Put(collection="items", key="b", data={"x": 2}, if_revision=1),
            ]
        )
    assert (read(documents, "a"), read(documents, "b")) == ({"x": 1}, {"x": 1})
    assert read(documents, "m", "meters") is None


def test_as_many_writes_as_are_allowed(documents: DocumentStore) -> None:
    writes = [Put(collection="items", key=f"{n:04}", data={"n": n}) for n in range(WRITES_MAX + 1)]
    with pytest.raises(ValueError, match="500"):
        documents.commit(writes)
    assert documents.query("items") == []
    assert documents.commit(writes[:-1]) == [True] * WRITES_MAX
    assert len(documents.query("items")) == WRITES_MAX


def test_two_writes_of_one_document(documents: DocumentStore) -> None:
    with pytest.raises(ValueError, match="items/a"):
        documents.commit(
            [Put(collection="items", key="a", data={"x": 1}), Add(collection="items", key="a", amounts={"x": 1})]
        )


def test_deleting_what_is_missing(documents: DocumentStore) -> None:
    assert documents.commit([Delete(collection="items", key="none")]) == [True]
    assert documents.commit([Delete(collection="items", key="none", field="version", value=1)]) == [True]


@pytest.mark.parametrize("kind", [int, float, str])
def test_newer_than_lets_the_newest_win(documents: DocumentStore, kind: type) -> None:
    for version, applied in [(5, True), (4, False), (5, True), (6, True), (1, False)]:
        data = {"version": kind(version), "try": version}
        assert put(documents, "a", data, newer_than="version") is applied, version
    assert read(documents, "a") == {"version": kind(6), "try": 6}


def test_newer_than_without_something_to_compare(documents: DocumentStore) -> None:
    put(documents, "a", {"x": 1})
    assert put(documents, "a", {"version": 1}, newer_than="version")
    put(documents, "a", {"version": "text"})
    assert put(documents, "a", {"version": 1}, newer_than="version")
    with pytest.raises(ValueError, match="version"):
        put(documents, "a", {"x": 1}, newer_than="version")


def test_what_is_left_out_leaves_the_rest_in(documents: DocumentStore) -> None:
    put(documents, "a", {"version": 9})
    applied = documents.commit(
        [
            Put(collection="items", key="a", data={"version": 8}, newer_than="version"),
            Put(collection="items", key="b", data={"version": 8}, newer_than="version"),
            Put(collection="commits", key="c", data={"committed_at": SERVER_TIME}),
        ]
    )
    assert applied == [False, True, True]
    assert (read(documents, "a"), read(documents, "b")) == ({"version": 9}, {"version": 8})
    assert read(documents, "c", "commits") is not None


def test_guarded_delete(documents: DocumentStore) -> None:
    def delete(value: int) -> list[bool]:
        return documents.commit([Delete(collection="items", key="a", field="version", value=value)])

    put(documents, "a", {"version": 5})
    assert delete(4) == [False]
    assert read(documents, "a") == {"version": 5}
    assert delete(5) == [True]
    assert read(documents, "a") is None
    put(documents, "a", {"x": 5})
    assert delete(1) == [True]


def test_if_revision(documents: DocumentStore) -> None:
    put(documents, "a", {"x": 1}, if_revision=0)
    with pytest.raises(Conflict, match="items/a"):
        put(documents, "a", {"x": 2}, if_revision=0)
    revision = documents.get("items", ["a"])["a"].revision
    put(documents, "a", {"x": 2}, if_revision=revision)
    with pytest.raises(Conflict):
        put(documents, "a", {"x": 3}, if_revision=revision)
    assert read(documents, "a") == {"x": 2}
    documents.commit([Delete(collection="items", key="a")])
    with pytest.raises(Conflict):
        put(documents, "a", {"x": 3}, if_revision=revision)
    assert read(documents, "a") is None


def test_if_revision_beside_newer_than(documents: DocumentStore) -> None:
    put(documents, "a", {"version": 5})
    put(documents, "b", {"x": 1})
    revision = documents.get("items", ["b"])["b"].revision
    writes = [
        Put(collection="items", key="a", data={"version": 4}, newer_than="version"),
        Put(collection="items", key="b", data={"x": 2}, if_revision=revision),
    ]
    assert documents.commit(writes) == [False, True]
    with pytest.raises(Conflict):
        documents.commit(writes)
    assert (read(documents, "a"), read(documents, "b")) == ({"version": 5}, {"x": 2})


def test_add(documents: DocumentStore) -> None:
    def add(**amounts: float) -> None:
        documents.commit([Add(collection="meters", key="m", amounts=amounts)])

    add(reads=3)
    add(reads=4, writes=1, seconds=0.5)
    add(seconds=0.25, reads=-1)
    data = read(documents, "m", "meters")
    assert data == {"reads": 6, "writes": 1, "seconds": 0.75}
    assert [type(value) for value in (data["reads"], data["seconds"])] == [int, float]


def test_add_keeps_other_fields(documents: DocumentStore) -> None:
    documents.commit([Put(collection="meters", key="m", data={"month": "2025-01", "nested": {"n": 1}, "n.m": 1})])
    documents.commit([Add(collection="meters", key="m", amounts={"n.m": 2, "month": 7})])
    # What is not a number counts as 0.
    assert read(documents, "m", "meters") == {"month": 7, "nested": {"n": 1}, "n.m": 3}


def test_server_time_is_near_and_increases(documents: DocumentStore) -> None:
    before = time.time()
    times = []
    for n in range(10):
        documents.commit([Put(collection="commits", key=f"{n}", data={"committed_at": SERVER_TIME, "n": n})])
        times.append(read(documents, f"{n}", "commits")["committed_at"])
    assert all(isinstance(at, float) for at in times)
    assert times == sorted(set(times))
    assert before - 60 < times[0] <= times[-1] < time.time() + 60


def test_server_time_is_one_for_a_commit(documents: DocumentStore) -> None:
    documents.commit(
        [Put(collection="commits", key=key, data={"committed_at": SERVER_TIME, "also_at": SERVER_TIME}) for key in "ab"]
    )
    times = [at for document in documents.query("commits") for at in document.data.values()]
    assert len(times) == 4
    assert len(set(times)) == 1


def test_server_time_elsewhere(documents: DocumentStore) -> None:
    with pytest.raises(ValueError, match="_at"):
        put(documents, "a", {"time": SERVER_TIME})
    with pytest.raises(TypeError):
        put(documents, "a", {"nested": {"x_at": SERVER_TIME}})


def test_times_can_be_written_back_and_queried(documents: DocumentStore) -> None:
    documents.commit([Put(collection="commits", key="a", data={"committed_at": SERVER_TIME})])
    first = read(documents, "a", "commits")
    documents.commit([Put(collection="commits", key="b", data=first)])
    assert read(documents, "b", "commits") == first
    after = [Where(field="committed_at", op=">", value=first["committed_at"])]
    since = [Where(field="committed_at", op=">=", value=first["committed_at"])]
    assert documents.query("commits", where=after, order_by="committed_at") == []
    assert [d.key for d in documents.query("commits", where=since, order_by="committed_at")] == ["a", "b"]
    documents.commit([Put(collection="commits", key="0", data={"committed_at": SERVER_TIME})])
    assert [d.key for d in documents.query("commits", where=after)] == ["0"]
    assert [d.key for d in documents.query("commits", order_by="committed_at", descending=True)] == ["0", "b", "a"]


def test_newer_than_on_times(documents: DocumentStore) -> None:
    assert put(documents, "a", {"seen_at": 1000.000001}, newer_than="seen_at")
    assert not put(documents, "a", {"seen_at": 1000}, newer_than="seen_at")
    assert put(documents, "a", {"seen_at": SERVER_TIME}, newer_than="seen_at")
    assert not put(documents, "a", {"seen_at": 1000.5}, newer_than="seen_at")


def fill(documents: DocumentStore) -> None:
    rows: dict[str, dict[str, Any]] = {
        "a": {"n": 3, "kind": "x", "on": True},
        "b": {"n": 1, "kind": "y", "on": False},
        "c": {"n": 2.5, "kind": "x", "on": True},
        "d": {"kind": "x"},
        "e": {"n": 3, "kind": "y"},
        "f": {"n": "3", "kind": 7, "on": 1},
    }
    documents.commit([Put(collection="rows", key=key, data=data) for key, data in rows.items()])


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ({}, "abcdef"),
        ({"limit": 2}, "ab"),
        ({"order_by": "n"}, "bcaef"),
        ({"order_by": "n", "descending": True}, "feacb"),
        ({"order_by": "n", "limit": 3}, "bca"),
        ({"order_by": "none"}, ""),
        ({"where": [("kind", "==", "x")]}, "acd"),
        ({"where": [("n", "<=", 3)], "descending": True, "limit": 2}, "ea"),
        ({"where": [("kind", "==", "x")], "order_by": "n"}, "ca"),
        ({"where": [("on", "==", True)]}, "ac"),
        ({"where": [("on", "==", False)]}, "b"),
        ({"where": [("on", "==", 1)]}, "f"),
        ({"where": [("n", ">", 2.5)]}, "ae"),
        ({"where": [("n", ">=", 2.5)]}, "cae"),
        ({"where": [("n", "<", 3)], "order_by": "n"}, "bc"),
        ({"where": [("n", "<=", 3), ("n", ">", 1)], "order_by": "n", "descending": True}, "eac"),
        ({"where": [("n", ">", "2")]}, "f"),
        ({"where": [("n", "==", 3), ("kind", "==", "y")]}, "e"),
        ({"where": [("kind", "==", "none")]}, ""),
    ],
)
def test_query(documents: DocumentStore, arguments: dict[str, Any], keys: str) -> None:
    fill(documents)
    where = [Where(field=field, op=op, value=value) for field, op, value in arguments.get("where", [])]
    found = documents.query("rows", **(arguments | {"where": where}))
    assert "".join(document.key for document in found) == keys


def test_query_of_another_collection(documents: DocumentStore) -> None:
    fill(documents)
    assert documents.query("other") == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"order_by": "a.b"},
        {"order_by": "a'b"},
        {"limit": 0},
        {"descending": True},
        {"where": [Where(field="x y", op="==", value=1)]},
        {"where": [Where(field="a", op=">", value=1), Where(field="b", op="<", value=1)]},
        {"where": [Where(field="a", op=">", value=1)], "order_by": "b"},
    ],
)
def test_queries_that_are_none(documents: DocumentStore, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="valid"):
        documents.query("rows", **arguments)


def test_threads_lose_no_addition(documents: DocumentStore) -> None:
    def add(_: int) -> None:
        for _ in range(5):
            documents.commit([Add(collection="meters", key="m", amounts={"n": 1})])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert read(documents, "m", "meters") == {"n": 20}


def increment(documents: DocumentStore, times: int) -> None:
    """Add to the number in one document by reading it and writing it back guarded."""
    for _ in range(times):
        while True:
            document = documents.get("counters", ["c"]).get("c")
            count, revision = (document.data["count"], document.revision) if document else (0, 0)
            try:
                documents.commit([Put(collection="counters", key="c", data={"count": count + 1}, if_revision=revision)])
            except Conflict:
                continue
            break


def test_threads_lose_no_guarded_write(documents: DocumentStore) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: increment(documents, 5), range(3)))
    assert read(documents, "c", "counters") == {"count": 15}


def commit_in_process(settings: Settings, argument: str) -> list[float]:
    documents = open_documents(settings)
    increment(documents, 5)
    times = []
    for n in range(10):
        documents.commit(
            [
                Put(collection="commits", key=f"{argument}-{n}", data={"committed_at": SERVER_TIME}),
                Add(collection="meters", key="m", amounts={"n": 1}),
                Put(collection="items", key="i", data={"version": n, "by": argument}, newer_than="version"),
            ]
        )
        times.append(documents.get("commits", [f"{argument}-{n}"])[f"{argument}-{n}"].data["committed_at"])
    documents.close()
    return times


def test_processes_lose_nothing(documents: DocumentStore, settings: Settings) -> None:
    times = in_processes(__file__, "commit_in_process", settings, ["a", "b", "c"])
    assert read(documents, "c", "counters") == {"count": 15}
    assert read(documents, "m", "meters") == {"n": 30}
    assert read(documents, "i")["version"] == 9
    assert len(documents.query("commits")) == 30
    for own in times:
        assert own == sorted(set(own))


def test_concurrent_readers_see_whole_commits(documents: DocumentStore, request: pytest.FixtureRequest) -> None:
    """Firestore reads as of one time. Its emulator does not: beside busy processes 3 of 100 reads saw half of a commit,
    5 in a read-only transaction. So there it is not asked for that documents fit."""
    is_emulator = "cloud" in request.node.name

    def write() -> None:
        for n in range(20):
            documents.commit([Put(collection="pairs", key=key, data={"n": n}) for key in "ab"])

    write()
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write)
        while not writing.done():
            found = documents.query("pairs")
            assert [one.key for one in found] == ["a", "b"]
            assert is_emulator or found[0].data == found[1].data
        writing.result()
    assert [one.data for one in documents.query("pairs")] == [{"n": 19}, {"n": 19}]


def test_two_indexes_do_not_see_each_other(settings: Settings) -> None:
    one, other = (open_documents(msgspec.structs.replace(settings, index=f"{settings.index}-{n}")) for n in "ab")
    put(one, "a", {"x": 1})
    assert other.query("items") == []
    assert other.get("items", ["a"]) == {}
    one.close()
    other.close()
