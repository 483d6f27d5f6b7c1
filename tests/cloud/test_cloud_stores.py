"""What only the stores on Google Cloud have: round trips, prefixes, the backlog."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import requests
from google.cloud import firestore, storage

from visor.errors import Conflict, StoreError
from visor.settings import Settings
from visor.storage import open_documents, open_objects, open_queue
from visor.storage.documents import SERVER_TIME, Add, Delete, Put
from visor.storage.gcp.backlog import Backlog
from visor.storage.gcp.documents import CloudDocuments
from visor.storage.queue import Message


def test_names_in_the_bucket_and_the_database_begin_with_the_index(cloud_settings: Settings) -> None:
    objects, documents = open_objects(cloud_settings), open_documents(cloud_settings)
    objects.put("shards/a", b"1")
    documents.commit([Put(collection="commits", key="a", data={"committed_at": SERVER_TIME, "pairs": [[1, 2]]})])
    bucket = storage.Client(project=cloud_settings.project)
    assert [blob.name for blob in bucket.list_blobs(cloud_settings.bucket)] == [f"{cloud_settings.index}/shards/a"]
    database = firestore.Client(project=cloud_settings.project)
    raw = database.collection(f"{cloud_settings.index}-commits").document("a").get().to_dict()
    # A timestamp as Firestore's own, which its console shows and its TTL policies take.
    assert raw["committed_at"].timestamp() == documents.get("commits", ["a"])["a"].data["committed_at"]
    for client in (bucket, database, objects, documents):
        client.close()


@pytest.fixture
def documents(cloud_settings: Settings) -> Iterator[CloudDocuments]:
    store = open_documents(cloud_settings)
    assert isinstance(store, CloudDocuments)
    yield store
    store.close()


@pytest.fixture
def calls(documents: CloudDocuments, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls of Firestore's API that a store makes."""
    made: list[str] = []
    api = documents._client._firestore_api

    def counted(name: str, call: Any) -> Any:
        def counting(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            return call(*args, **kwargs)

        return counting

    for name in ("batch_get_documents", "commit", "begin_transaction", "run_query"):
        monkeypatch.setattr(api, name, counted(name, getattr(api, name)))
    return made


def test_round_trips(documents: CloudDocuments, calls: list[str]) -> None:
    def of(*writes: Put | Add | Delete) -> list[str]:
        calls.clear()
        documents.commit(writes)
        return list(calls)

    many = [Put(collection="items", key=f"{n}", data={"version": 1}) for n in range(64)]
    assert of(*many, Add(collection="meters", key="m", amounts={"n": 1})) == ["commit"]
    assert of(Put(collection="items", key="new", data={"x": 1}, if_revision=0)) == ["commit"]
    guarded = [Put(collection="items", key=f"{n}", data={"version": 2}, newer_than="version") for n in range(64)]
    assert of(*guarded) == ["batch_get_documents", "commit"]
    assert of(*[Put(collection="items", key="1", data={"version": 1}, newer_than="version")]) == ["batch_get_documents"]
    calls.clear()
    assert len(documents.get("items", [f"{n}" for n in range(64)])) == 64
    assert calls == ["batch_get_documents"]


def race(documents: CloudDocuments, rival: CloudDocuments, monkeypatch: pytest.MonkeyPatch, *writes: Put) -> None:
    """Have a rival commit between the next read and the next commit of `documents`."""
    read = documents._read
    left = [writes]

    def read_then_lose(*args: Any) -> Any:
        found = read(*args)
        if left:
            rival.commit(left.pop())
        return found

    monkeypatch.setattr(documents, "_read", read_then_lose)


@pytest.mark.parametrize("stored", [None, 1])
@pytest.mark.parametrize(("rival_version", "applied"), [(5, True), (9, False)])
def test_a_race_is_decided_by_what_the_rival_wrote(
    stored: int | None,
    rival_version: int,
    applied: bool,
    documents: CloudDocuments,
    cloud_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rival = open_documents(cloud_settings)
    assert isinstance(rival, CloudDocuments)
    if stored is not None:
        rival.commit([Put(collection="items", key="a", data={"version": stored})])
    race(documents, rival, monkeypatch, Put(collection="items", key="a", data={"version": rival_version, "old": 1}))
    ours = Put(collection="items", key="a", data={"version": 7}, newer_than="version")
    other = Put(collection="commits", key="c", data={"x": 1})
    assert documents.commit([ours, other]) == [applied, True]
    found = rival.get("items", ["a"])["a"].data
    assert found == ({"version": 7} if applied else {"version": 9, "old": 1})
    rival.close()


def test_a_guarded_delete_does_not_remove_what_a_rival_wrote(
    documents: CloudDocuments, cloud_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = open_documents(cloud_settings)
    assert isinstance(rival, CloudDocuments)
    rival.commit([Put(collection="items", key="a", data={"version": 1})])
    race(documents, rival, monkeypatch, Put(collection="items", key="a", data={"version": 9}))
    assert documents.commit([Delete(collection="items", key="a", field="version", value=5)]) == [False]
    assert rival.get("items", ["a"])["a"].data == {"version": 9}
    rival.close()


def test_a_swap_that_loses_its_race_conflicts(
    documents: CloudDocuments, cloud_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = open_documents(cloud_settings)
    assert isinstance(rival, CloudDocuments)
    rival.commit([Put(collection="items", key="a", data={"x": 1})])
    revision = rival.get("items", ["a"])["a"].revision
    race(documents, rival, monkeypatch, Put(collection="items", key="a", data={"x": 2}))
    with pytest.raises(Conflict, match="items/a"):
        documents.commit([Put(collection="items", key="a", data={"x": 3}, if_revision=revision)])
    assert rival.get("items", ["a"])["a"].data == {"x": 2}
    rival.close()


class Monitoring(ThreadingHTTPServer):
    """Answers as Cloud Monitoring's `projects.timeSeries.list` documents it."""

    def __init__(self, status: int, answer: object) -> None:
        asked = self.asked = []  # type: ignore[var-annotated]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(urlsplit(self.path))
                body = msgspec.json.encode(answer)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


def backlog(status: int, answer: object) -> tuple[Backlog, Monitoring]:
    server = Monitoring(status, answer)
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    with requests.Session() as session:
        made = Backlog("p", "batches", session=session, address=f"http://127.0.0.1:{server.server_port}")
    return made, server


def points(*counts: int) -> list[dict[str, Any]]:
    return [{"value": {"int64Value": str(count)}} for count in counts]


@pytest.mark.parametrize(
    ("answer", "count"),
    [({}, 0), ({"timeSeries": [{"points": points(7, 3)}]}, 7), ({"timeSeries": [{"points": points(7)}] * 2}, 14)],
)
def test_the_backlog_is_the_newest_sample(answer: object, count: int) -> None:
    asking, server = backlog(200, answer)
    assert asking.count() == asking.count() == count
    server.shutdown()
    server.server_close()
    (asked,) = server.asked
    query = parse_qs(asked.query)
    assert asked.path == "/v3/projects/p/timeSeries"
    assert 'resource.labels.subscription_id="batches"' in query["filter"][0]
    assert query["interval.startTime"] < query["interval.endTime"]


def test_a_backlog_that_may_not_be_read() -> None:
    asking, server = backlog(403, {"error": {"code": 403, "message": "Permission monitoring.timeSeries.list denied"}})
    with pytest.raises(StoreError, match=r"monitoring\.timeSeries\.list denied"):
        asking.count()
    server.shutdown()
    server.server_close()


def test_waiting_without_monitoring_is_what_this_process_knows(cloud_settings: Settings) -> None:
    queue = open_queue(cloud_settings)
    assert queue.waiting() == 0
    queue.publish([b"1", b"2"])
    messages: list[Message] = []
    while len(messages) < 2:
        messages += queue.receive(2, lease_s=60)
    assert queue.waiting() == 2
    queue.acknowledge(messages[0])
    assert queue.waiting() == 1
    queue.close()
