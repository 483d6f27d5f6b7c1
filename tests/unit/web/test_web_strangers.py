"""Strangers: whose pages and names are refused, who the owner is, and that nobody else moves an answer."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from flask import Flask, request
from flask.testing import FlaskClient
from PIL import Image

from visor.app import App
from visor.cli.main import cli
from visor.demo.catalogue import DemoCatalogue
from visor.errors import QuotaReached, SettingsError
from visor.free_tier.quota import STRANGERS_A_DAY, Meter
from visor.schema.collections import FEEDBACK
from visor.schema.search import ExplainRequest, FeedbackRequest, SearchRequest
from visor.search.feedback import all_feedback
from visor.search.query import Stopwatch, seen_of
from visor.search.visitors import PER_CLIENT_A_DAY, VisitorLog, VisitorSums, robust_mean
from visor.settings import Settings
from visor.storage import Stores
from visor.web.access import KEY_FILE, KEY_HEADER, local_key
from visor.web.endpoints import ENDPOINTS
from visor.web.rate_limit import FIRST_SHARE, Slots
from visor.web.site import Server
from visor_bench.load.counting import Tally, counting


@pytest.fixture
def key(demo_server: Server, demo_app: App) -> dict[str, str]:
    return {KEY_HEADER: (demo_app.settings.home / KEY_FILE).read_text()}


@pytest.fixture
def picture(demo_catalogue: DemoCatalogue) -> bytes:
    return demo_catalogue.picture(demo_catalogue.products[5]).read_bytes()


# Names and pages


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:8080"}, True),
        ({"Host": "visor.localhost"}, True),
        ({"Host": "[::1]:8080"}, True),
        ({"Host": "192.168.1.7:8080"}, True),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}, False),
        ({"Host": "127.0.0.1.evil.example"}, False),
        ({"Host": "localhost.evil.example"}, False),
        ({"Host": "localhost@evil.example"}, False),
        ({"Host": ""}, False),
        ({"Host": "[::1"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://["}, False),
        ({"Host": "localhost:8080", "Origin": "evil://localhost:8080"}, False),
        ({"Host": "localhost:8080", "Origin": "http://localhost:9090"}, False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/config.json", "/v1/health", "/v1/items", "/pictures/" + "0" * 32])
def test_only_this_machine_s_names_and_pages_are_answered(
    client: httpx.Client, path: str, headers: dict[str, str], allowed: bool
) -> None:
    answer = client.get(path, headers=headers)
    assert (answer.status_code != 403) == allowed, answer.text
    if not allowed:
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.json()["remedy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_an_owner_may_name_hosts_and_origins(demo_app: App) -> None:
    settings = msgspec.structs.replace(
        demo_app.settings, hosts=("Box.example",), cors_origins=("https://page.example",)
    )
    with App(settings, stores=demo_app.stores, embedder=demo_app.embedder) as app:
        server = Server(app.site({})).start()
        headers = {"Host": "box.example", "Origin": "https://page.example"}
        answer = httpx.get(server.address + "/v1/health", headers=headers)
        server.stop()
    assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"


# The owner


@pytest.mark.parametrize("given", [None, "", "wrong", "é" * 40])
def test_without_its_key_nobody_is_the_owner(client: httpx.Client, given: str | None) -> None:
    headers = {} if given is None else {KEY_HEADER: given.encode()}
    for answer in (
        client.post("/v1/items", json={"key": "a", "image_url": "https://a.example/a.png"}, headers=headers),
        client.delete("/v1/items/" + "0" * 32, headers=headers),
    ):
        assert answer.status_code in (401, 429)
        assert answer.json()["remedy"]


def test_with_it_the_owner_is(client: httpx.Client, key: dict[str, str]) -> None:
    assert client.delete("/v1/items/" + "0" * 32, headers=key).status_code in (202, 404)


def test_the_key_is_made_once_and_its_users_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    first = local_key(home)
    assert local_key(home) == first
    assert len(first) >= 40
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home, home / KEY_FILE)] == [0o700, 0o600]
    assert [path.name for path in home.iterdir()] == [KEY_FILE]


def test_an_empty_key_is_made_anew_and_one_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).touch()
    key = local_key(tmp_path)
    assert len(key) >= 40
    assert local_key(tmp_path) == key
    (tmp_path / KEY_FILE).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SettingsError, match="it is not text"):
        local_key(tmp_path)


def test_a_key_that_finds_no_space_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "hardlink_to", full)
    with pytest.raises(SettingsError, match=r"No space left.*free space"):
        local_key(tmp_path)
    assert [*tmp_path.iterdir()] == []


def deployed(app: App, stores: Stores | None = None, **settings: Any) -> tuple[FlaskClient, Meter]:
    """The endpoint in Google's setting over the demo's index, and its meter."""
    own = msgspec.structs.replace(app.settings, backend="gcp", owner_key="the owner's key", **settings)
    used = stores or app.stores
    meter = Meter(app.stores.documents, msgspec.structs.replace(own, quota_share=1e6), limited=True)
    made = App(own, stores=used, embedder=app.embedder, fetcher=app.fetcher, meter=meter, read_image=app.read_image)
    api, flask = made.http_api(), Flask("deployed")
    flask.add_url_rule("/<path:path>", "any", lambda path: api(request), methods=["GET", "POST", "DELETE"])
    return flask.test_client(), meter


def test_guesses_of_the_key_are_limited_by_client(demo_app: App) -> None:
    asked, _ = deployed(demo_app)

    def delete(given: str, client: str) -> int:
        headers = {KEY_HEADER: given, "X-Forwarded-For": f"9.9.9.9, {client}"}
        return asked.delete("/v1/items/" + "0" * 32, headers=headers).status_code

    assert delete("the owner's key", "198.51.100.1") in (202, 404)
    statuses = [delete(f"guess {n}", "198.51.100.1") for n in range(200)]
    assert statuses.count(401) < 30
    assert delete("the owner's key", "198.51.100.1") == 429, "the right one is not told from the others"
    assert {delete("the owner's key", "198.51.100.2") for _ in range(50)} <= {202, 404}


# What costs more than a search


@pytest.mark.slow
def test_a_metric_is_the_owner_s_where_it_is_paid_for(demo_app: App, picture: bytes) -> None:
    asked, _ = deployed(demo_app)
    body = {"image": base64.b64encode(picture).decode(), "metric": "mahalanobis"}
    refused = asked.post("/v1/search", json=body)
    assert refused.status_code == 401
    assert "vectors" in refused.get_json()["valid"]
    assert asked.post("/v1/search", json=body, headers={KEY_HEADER: "the owner's key"}).status_code == 200


def test_few_wait_for_what_is_slow() -> None:
    slots = Slots("search by metric", at_once=1, waiting=1, wait_s=0.05)
    with slots.slot():
        with pytest.raises(QuotaReached) as waited, slots.slot():
            pass  # not reached: entering is refused
        assert waited.value.retry_after_s
    with slots.slot():
        pass  # free again
    none = Slots("search by metric", at_once=1, waiting=0, wait_s=60)
    with none.slot(), pytest.raises(QuotaReached), none.slot():
        pass  # not reached: nobody may wait


def noise(seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


SEARCH_COSTS: dict[str, tuple[dict[str, Any], int]] = {
    "image": ({"image": noise(1)}, 12),
    "url": ({"url": "http://169.254.169.254/"}, 0),
    "vector": ({"vector": "AAAA"}, 0),
    "item": ({"item": "ITEM"}, 13),
    "handle": ({"handle": "A" * 22}, 0),
    "remember": ({"image": noise(30), "remember": True}, 12),
    "box": ({"image": noise(2), "box": [0, 0, 0.5, 0.5]}, 12),
    "exclude": ({"image": noise(3), "exclude": [[0, 0, 0.1, 0.1]] * 64}, 12),
    "k": ({"image": noise(4), "k": 200}, 200),
    "filters": ({"image": noise(5), "filters": {"collection": ["x"] * 5_000}}, 12),
    "mode": ({"image": noise(6), "mode": "exact"}, 12),
    "metric": ({"image": noise(7), "metric": "mahalanobis"}, 12),
    "leave_out": ({"image": noise(8), "leave_out": ["0" * 32] * 200}, 12),
    "facets": ({"image": noise(9), "facets": True}, 12),
    "text": ({"image": noise(10), "text": "x " * 200}, 12),
    "examples": ({"examples": [{"image": noise(20 + n), "weight": 1 - n / 4} for n in range(8)]}, 12),
    "sort": ({"image": noise(11), "sort": "most_changed"}, 12),
    "nearest": ({"image": noise(28), "sort": "newest", "nearest": 200}, 12),
    "min_confidence": ({"image": noise(12), "min_confidence": 0.1}, 12),
    "min_similarity": ({"image": noise(13), "min_similarity": 0.1, "sort": "newest"}, 12),
    "after": ({"image": noise(14), "after": "A" * 2000}, 12),
    "variety": ({"image": noise(15), "variety": 1}, 12),
    "group": ({"image": noise(16), "group": False}, 12),
    "regions": ({"image": noise(17), "regions": True}, 12),
    "seen": ({"seen": "SEEN", "k": 200}, 200),
    "link": ({"image": noise(18), "link": False}, 12),
}
"""By option of a search: a request with as much of it as may be, and the documents that it may read."""
COSTS: dict[str, tuple[str, Any, int]] = {
    "searches": ("/v1/searches", {"searches": [{"item": "ITEM"}, {"image": noise(18)}, {"item": "0" * 32}]}, 36),
    "compare": ("/v1/compare", {"first": {"image": noise(19)}, "second": {"item": "ITEM"}}, 1),
    "suggest": ("/v1/suggest?text=a", None, 0),
    "explain": ("/v1/explain", {"item": "ITEM", "match": "ITEM"}, 2),
    "feedback": ("/v1/feedback", {"item": "ITEM", "query_item": "ITEM"}, 2),
    "facets": ("/v1/facets?collection=a&price_min=1", None, 0),
    "items": ("/v1/items?limit=48", None, 48),
    "item": ("/v1/items/ITEM", None, 1),
    "thumbnail": ("/v1/thumbnails/" + "0" * 32 + ".jpg", None, 0),
    "stats": ("/v1/stats", None, 0),
    "model": ("/v1/model", None, 0),
    "model_file": ("/v1/model/" + "0" * 64, None, 0),
    "health": ("/v1/health", None, 0),
    "openapi": ("/openapi.json", None, 0),
    "metrics": ("/metrics", None, 0),
    "push": ("/v1/items", {"key": "a", "image_url": "https://a.example/a.png"}, 0),
    "delete": ("/v1/items/" + "0" * 32, None, 0),
}


def seen_by(app: App) -> str:
    """What a device sends of noise."""
    service = app.search_service()
    query = service.queries.query(SearchRequest(image=noise(80)), None, Stopwatch())
    return msgspec.json.encode(seen_of(query, service.embedder.fingerprint)).decode()


def test_every_option_s_cost_is_known() -> None:
    assert set(SEARCH_COSTS) == set(SearchRequest.__struct_fields__)
    assert set(ExplainRequest.__struct_fields__) - set(SEARCH_COSTS) == {"match"}
    assert set(FeedbackRequest.__struct_fields__) == {"item", "query_item", "query_vector", "verdict"}
    assert {"search", *COSTS} == {endpoint.name for endpoint in ENDPOINTS}


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        *(pytest.param("/v1/search", body, most, id=f"search {name}") for name, (body, most) in SEARCH_COSTS.items()),
        *(pytest.param(*cost, id=name) for name, cost in COSTS.items()),
    ],
)
@pytest.mark.slow
def test_each_costs_what_is_bounded_and_is_metered_as_it_is_counted(
    demo_app: App, path: str, body: dict[str, Any] | None, most: int
) -> None:
    tally = Tally()
    asked, meter = deployed(demo_app, counting(demo_app.stores, tally), searches_burst=100, reads_burst=100)
    item = asked.get("/v1/items?limit=1").get_json()["items"][0]["id"]
    before, used = tally.usage, {r.resource: r.used for r in meter.readings()}
    text = json.dumps(body).replace("ITEM", item).replace('"SEEN"', seen_by(demo_app))
    headers = {"Content-Type": "application/json"}
    if body and "metric" in body:
        headers[KEY_HEADER] = "the owner's key"
    method = {"/v1/items/" + "0" * 32: "DELETE"}.get(path, "POST" if body is not None else "GET")
    answer = asked.open(path.replace("ITEM", item), method=method, data=text if body else None, headers=headers)
    assert answer.status_code < 500, answer.text
    counted = tally.usage - before
    told = len(demo_app.stores.documents.query(FEEDBACK))
    assert counted.document_reads <= most + 4 + told, "and what a look for news reads"
    booked = {r.resource: r.used - used[r.resource] for r in meter.readings()}
    assert booked["firestore_reads"] == counted.document_reads
    assert booked["class_b"] == counted.class_b
    assert counted.document_writes <= booked["firestore_writes"] <= counted.document_writes + 1.02, (
        "and the meter's own"
    )
    assert booked["requests"] == pytest.approx(1)


def test_who_reads_much_waits_longer(demo_app: App) -> None:
    asked, _ = deployed(demo_app, reads_per_minute=120.0, reads_burst=60)
    assert asked.get("/v1/items?limit=48").status_code == 200
    assert asked.get("/v1/items?limit=1").status_code == 429


@pytest.mark.parametrize(
    ("path", "body", "pictures"),
    [
        ("search", {"image": noise(40)}, 1),
        ("search", {"image": noise(41), "text": "x"}, 1),
        ("search", {"image": noise(42), "examples": [{"image": noise(43), "weight": -0.5}, {"item": "ITEM"}]}, 2),
        ("search", {"examples": [{"image": noise(50 + n), "weight": 1 - n / 4} for n in range(8)]}, 8),
        ("search", {"item": "ITEM", "examples": [{"item": "ITEM", "weight": 0.5}]}, 1),
        ("search", {"examples": [{"seen": "SEEN", "weight": 1 - n / 4} for n in range(8)]}, 1),
        ("searches", {"searches": [{"image": noise(44)}, {"image": noise(45)}, {"text": "x"}]}, 3),
        ("searches", {"searches": [{"examples": [{"image": noise(n)} for n in (46, 47, 48)]}, {"text": "x"}]}, 3),
        ("compare", {"first": {"image": noise(60)}, "second": {"image": noise(61)}}, 2),
        ("compare", {"first": {"image": noise(62)}, "second": {"item": "ITEM"}}, 2),
        ("explain", {"item": "ITEM", "match": "ITEM"}, 2),
    ],
)
@pytest.mark.slow
def test_each_picture_that_is_looked_at_is_taken_from_the_rate(
    demo_app: App, path: str, body: dict[str, Any], pictures: int
) -> None:
    asked, _ = deployed(demo_app, searches_burst=40, searches_per_minute=0.001)
    item = asked.get("/v1/items?limit=1").get_json()["items"][0]["id"]
    text = json.dumps(body).replace("ITEM", item).replace('"SEEN"', seen_by(demo_app))
    assert asked.post(f"/v1/{path}", data=text, content_type="application/json").status_code == 200
    unknown = {"item": "0" * 32}
    statuses = [asked.post("/v1/search", json=unknown).status_code for _ in range(41)]
    assert statuses.count(404) == 40 * FIRST_SHARE - pictures


# Nobody moves an answer


def answer_to(client: httpx.Client, picture: bytes) -> dict[str, Any]:
    answer = client.post("/v1/search", files={"image": picture}).json()
    return {name: value for name, value in answer.items() if name != "timing_ms"}


def test_a_stranger_s_word_hides_nothing_until_the_owner_takes_it_in(
    client: httpx.Client, picture: bytes, demo_app: App, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISOR_HOME", str(demo_app.settings.home))
    before = answer_to(client, picture)
    item, vector = before["matches"][0]["item"]["id"], before["query"]["vector"]
    assert before["matches"][0]["verdict"] == "exact"
    kept = client.post("/v1/feedback", json={"item": item, "query_vector": vector})
    assert kept.json() == {"kept": True}
    assert answer_to(client, picture) == before
    assert all(one.item != item for one in all_feedback(demo_app.stores.documents)), "a merge learns nothing of it"
    listed = json.loads(CliRunner().invoke(cli, ["feedback", "list", "--json"]).stdout)["feedback"]
    [row] = [row for row in listed if row["item"] == item]
    assert row["state"] == "waits"

    CliRunner().invoke(cli, ["feedback", "accept", row["key"]], catch_exceptions=False)
    assert item not in json.dumps(answer_to(client, picture)["matches"])
    CliRunner().invoke(cli, ["feedback", "reject", row["key"]], catch_exceptions=False)
    assert answer_to(client, picture) == before
    unknown = CliRunner().invoke(cli, ["feedback", "accept", "nothing"])
    assert "visor feedback list" in str(unknown.exception)

    assert client.post("/v1/feedback", json={"item": item, "query_vector": vector}, headers=key).status_code == 200
    assert item not in json.dumps(answer_to(client, picture)["matches"])
    CliRunner().invoke(cli, ["feedback", "reject", row["key"]], catch_exceptions=False)
    assert answer_to(client, picture) == before


def test_a_request_may_leave_out_what_its_sender_rejected(client: httpx.Client, picture: bytes) -> None:
    before = answer_to(client, picture)
    ids = [match["item"]["id"] for match in before["matches"]]
    body = {"vector": before["query"]["vector"], "leave_out": ids[:2]}
    after = client.post("/v1/search", json=body).json()
    assert [match["item"]["id"] for match in after["matches"]][:4] == ids[2:6]
    assert client.post("/v1/search", json={**body, "leave_out": ["x"]}).status_code == 400


def test_strangers_write_no_more_than_a_day_s_share(demo_app: App, picture: bytes) -> None:
    asked, meter = deployed(demo_app, searches_burst=10**6)
    item = asked.get("/v1/items?limit=1").get_json()["items"][0]["id"]
    said = {"item": item, "query_item": item}
    assert asked.post("/v1/feedback", json=said).status_code == 200
    meter.use({}, {"feedback": STRANGERS_A_DAY - 1})
    assert [asked.post("/v1/feedback", json=said).status_code for _ in range(3)] == [429] * 3
    assert asked.post("/v1/feedback", json=said, headers={KEY_HEADER: "the owner's key"}).status_code == 200


def test_one_client_teaches_little(local_stores: Stores) -> None:
    now = [0.0]
    log = VisitorLog(local_stores.documents, "m", clock=lambda: now[0])
    sums = VisitorSums(local_stores.documents, "m")
    photos = np.eye(300, dtype=np.float32)
    for photo in photos[:250]:
        log.add(photo, client="198.51.100.1")
    assert sums.fold(None) is None, f"{PER_CLIENT_A_DAY} photos make no document"
    now[0] += 90_000
    for number, photo in enumerate(photos[250:280]):
        log.add(photo, client=f"198.51.100.{number}")
    learned = sums.fold(None)
    assert learned is not None
    assert learned.photos == 30
    assert learned.mean[:250].sum() == pytest.approx(PER_CLIENT_A_DAY / 30, abs=1e-3)


def test_what_the_owner_may_not_write_is_not_written(local_stores: Stores) -> None:
    def refuse() -> None:
        raise QuotaReached("Enough for today")

    log = VisitorLog(local_stores.documents, "m", on_write=refuse)
    for photo in np.eye(20, dtype=np.float32):
        log.add(photo)
    assert VisitorSums(local_stores.documents, "m").fold(None) is None


def test_few_documents_that_differ_do_not_carry_the_mean_away() -> None:
    rng = np.random.default_rng(0)
    honest = 1 + 0.05 * rng.standard_normal((20, 64))
    hostile = np.full((6, 64), -3.0)
    mean = robust_mean(np.concatenate([honest, hostile]), [10.0] * 26)
    plain = np.concatenate([honest, hostile]).mean(0)
    assert np.abs(mean - 1).mean() < 0.1 < np.abs(plain - 1).mean()


# Requests that were faults of ours


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/items?limit=" + "9" * 5_000, {}),
        ("/v1/items?limit=-1", {}),
        ("/v1/items?limit=%D9%A3", {}),
        ("/v1/facets?attributes=" + "[" * 3_000, {}),
        ("/pictures/", {}),
        ("/pictures/__x__", {}),
        ("/pictures/%00", {}),
        ("/pictures/" + "a" * 3_000, {}),
        ("/", {"Range": "bytes=9999999-"}),
        ("/", {"Range": "bytes=5-2"}),
        ("/", {"Range": "bytes=-0"}),
        ("/", {"Range": "words=1"}),
        ("/index.html/%00", {}),
    ],
)
def test_no_address_is_a_fault_of_ours(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    assert client.get(path, headers=headers).status_code < 500


IMAGE = ("image", ("a.png", base64.b64decode(noise(11)), "image/png"))


@pytest.mark.parametrize(
    ("parts", "matches"),
    [
        ([IMAGE, ("request", (None, b'{"k": 2}'))], 2),
        ([IMAGE, ("request", ("req.json", b'{"k": 2}', "application/json"))], 2),
        ([IMAGE, ("request", ("blob", b'{"k": 2, "filters": {"collection": ["none"]}}', "application/json"))], 0),
        ([("image", (None, b"text"))], 422),
        ([IMAGE, IMAGE], 400),
        ([IMAGE, ("request", (None, b'{"k": 2}')), ("request", ("r", b'{"k": 3}', "application/json"))], 400),
        ([IMAGE, ("k", (None, b"2"))], 400),
        ([("picture", IMAGE[1])], 400),
        ([IMAGE, ("request", ("r", b"\xff\xfe", "application/json"))], 400),
    ],
)
def test_a_part_is_read_however_it_was_sent_or_refused(client: httpx.Client, parts: Any, matches: int) -> None:
    answer = client.post("/v1/search", files=parts)
    if matches >= 400:
        assert answer.status_code == matches, answer.text
    else:
        assert len(answer.json()["matches"]) == matches


def test_idle_connections_keep_nobody_waiting(demo_server: Server) -> None:
    port = int(demo_server.address.rpartition(":")[2])
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(150)]
    try:
        for connection in idle[::2]:
            connection.sendall(b"GET /v1/hea")
        assert httpx.get(demo_server.address + "/v1/health", timeout=5).status_code == 200
    finally:
        for connection in idle:
            connection.close()


def told_by(server: Server, *parts: bytes) -> tuple[str, dict[str, Any]]:
    """Status line and document of what a server says to bytes that are no whole request."""
    port = int(server.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while more := connection.recv(65_536):
            received += more
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return head.split(b"\r\n")[0].decode(), msgspec.json.decode(body)


BEGINNING = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("parts", [(BEGINNING, b"some"), (BEGINNING,), (BEGINNING[:40],)], ids=["body", "none", "head"])
def test_a_request_that_does_not_arrive_is_told(demo_app: App, parts: tuple[bytes, ...]) -> None:
    server = Server(demo_app.site({}), within_s=0.5).start()
    try:
        status, document = told_by(server, *parts)
    finally:
        server.stop()
    assert " 408 " in status
    assert document["type"] == "urn:visor:request_too_slow"
    assert document["remedy"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /v1/health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (BEGINNING.replace(b"99", b"99000000"), 413),
    ],
    ids=["broken", "large"],
)
def test_what_waitress_refuses_is_told_as_a_problem(demo_server: Server, sent: bytes, expected: int) -> None:
    status, document = told_by(demo_server, sent)
    assert f" {expected} " in status
    assert document["status"] == expected
    assert document["remedy"]


def test_what_visor_makes_at_home_is_its_user_s_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    from visor.storage import open_stores

    with open_stores(settings):
        made = [settings.home, *(path for path in settings.home.rglob("*") if path.is_dir())]
        assert {stat.S_IMODE(path.stat().st_mode) for path in made if path.parent in (tmp_path, settings.home)} == {
            0o700
        }


def test_many_near_duplicates_cost_no_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue with one placeholder for 6,000 items: whoever asks for it asks for twelve different images."""
    from visor.near_duplicates import fingerprint

    pairs = [0]
    count = np.bitwise_count

    def counting_pairs(words: Any) -> Any:
        pairs[0] += words.size
        return count(words)

    monkeypatch.setattr(fingerprint, "np", SimpleNamespace(**{**vars(np), "bitwise_count": counting_pairs}))
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 256, (6_500, 64), np.uint8)
    hashes[:6_000] = 0x55
    vectors = rng.standard_normal((6_500, 16)).astype(np.float32)
    vectors[:6_000] = 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    leaders = fingerprint.first_duplicate(hashes, vectors, 12)
    assert (leaders[:6_000] == 0).all()
    assert (leaders[6_000:] == np.arange(6_000, 6_500)).all()
    assert pairs[0] < 30 * 6_500 * 4, "a dozen passes, not 6,500"
