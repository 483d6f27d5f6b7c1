"""The search function as it is deployed, asked by people who mean harm: it answers, stays up and does not grow."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx
import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.cloud.support.served import UNLIMITED, Served, served
from tests.deployed import deployed_environ
from tests.emulated import PROJECT, make_bucket, make_topics
from tests.unit.imaging.images_hostile import BAD, GOOD, SEEDS, encoded

from visor.app import App
from visor.demo.shop import DemoShop, demo_source
from visor.ingest.worker import Worker
from visor.models.embedder import Embedder
from visor.settings import Settings
from visor_emulators.emulators import Emulators

GIB = 2**30
SLOW_S = 2.0
"""How long a body may take in these tests, instead of the deployed 20 s."""
REQUESTS = 10_000
GROWTH_BYTES_MAX = 24_000_000
"""What the worker may grow by after its caches are warm: pools and fragmentation."""


@pytest.fixture(scope="module")
def index(embedder: Embedder, demo_shop: DemoShop, emulators: Emulators) -> Settings:
    """Some sixty pictures of the demo shop, crawled and embedded, on the emulators."""
    home = Settings.read().home
    settings = Settings(
        backend="gcp",
        home=home,
        project=PROJECT,
        index="abuse",
        bucket="abuse",
        topic="abuse-batches",
        subscription="abuse-pull",
        dead_letter_subscription="abuse-dead",
        allow_hosts=(demo_shop.host,),
        quota_share=1.0,
    )
    make_bucket(settings)
    make_topics(settings)
    with App(settings, embedder=embedder) as app:
        app.crawler.crawl(app.open_source("demo-shop", demo_source(demo_shop.url)))
        Worker(app.stores.queue, app.batch_embedder).drain()
        app.merge()
    return msgspec.structs.replace(settings, allow_hosts=())


@pytest.fixture(scope="module")
def endpoint(index: Settings) -> Iterator[Served]:
    with served(index, **UNLIMITED) as running:
        yield running
        assert running.is_the_same_process(), "the worker died and was replaced"


@pytest.fixture(scope="module")
def impatient(index: Settings) -> Iterator[Served]:
    """Waits for bodies no longer than these tests do."""
    with served(index, request_timeout_s=SLOW_S, **UNLIMITED) as running:
        yield running
        assert running.is_the_same_process(), "the worker died and was replaced"


@pytest.fixture(scope="module")
def items(endpoint: Served) -> list[str]:
    answer = httpx.get(endpoint.address + "/v1/items", params={"limit": 48}, timeout=60).raise_for_status().json()
    return [item["id"] for item in answer["items"]]


def small_picture() -> bytes:
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), "PNG")


def search(endpoint: Served, **request: object) -> httpx.Response:
    return httpx.post(endpoint.address + "/v1/search", json=request, timeout=60)


# Slow uploads


def head(length: int, path: str = "/v1/search", media_type: str = "image/png") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n".encode()


class Trickle:
    """Sends a head at once and its body a byte now and then, on several connections, until they are ended."""

    def __init__(self, endpoint: Served, count: int, first: bytes, piece: bytes = b"x") -> None:
        self.connections = [endpoint.connect() for _ in range(count)]
        for connection in self.connections:
            connection.sendall(first)
        self._piece, self._ended = piece, threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        left = list(self.connections)
        while left and not self._ended.wait(0.1):
            for connection in list(left):
                try:
                    connection.sendall(self._piece)
                except OSError:
                    left.remove(connection)

    def answers(self) -> list[bytes]:
        """What each connection was told before it was closed by the other side."""
        return [self._answer(connection) for connection in self.connections]

    def _answer(self, connection: object) -> bytes:
        received = b""
        try:
            while piece := connection.recv(65536):  # type: ignore[attr-defined]
                received += piece
        except ConnectionResetError:
            pass
        return received

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        for connection in self.connections:
            connection.close()


def concurrency() -> int:
    """As many requests as Cloud Run sends one instance at once."""
    return int(deployed_environ("search")["THREADS"]) // 2


@pytest.mark.parametrize(
    "first",
    [
        head(100_000),
        head(100_000, media_type="multipart/form-data; boundary=b"),
        head(90_000, "/v1/feedback", "application/json"),
    ],
    ids=["picture", "form", "feedback"],
)
def test_slow_bodies_stop_nobody_and_are_ended(impatient: Served, items: list[str], first: bytes) -> None:
    trickle = Trickle(impatient, concurrency(), first)
    try:
        assert search(impatient, item=items[0]).status_code == 200, "while the others are still sending"
        for answer in trickle.answers():
            assert answer.split()[1] == b"408", answer
            assert b"urn:visor:request_too_slow" in answer
    finally:
        trickle.stop()


def test_a_slow_chunked_body_is_ended(impatient: Served) -> None:
    first = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    trickle = Trickle(impatient, 4, first, b"1\r\nx\r\n")
    try:
        assert {answer[:12] for answer in trickle.answers()} == {b"HTTP/1.1 408"}
    finally:
        trickle.stop()


def test_more_slow_bodies_than_threads_are_ended_too(impatient: Served, items: list[str]) -> None:
    """More than Cloud Run would send: they come in turns, and each turn ends."""
    trickle = Trickle(impatient, 4 * concurrency(), head(100_000))
    try:
        answered = search(impatient, item=items[0])
        assert answered.status_code == 200
        assert {answer[:12] for answer in trickle.answers()} == {b"HTTP/1.1 408"}
    finally:
        trickle.stop()


def test_a_slow_body_that_nobody_wants_is_not_waited_for(impatient: Served) -> None:
    trickle = Trickle(impatient, 4, head(100_000, "/v1/nothing"))
    try:
        assert {answer[:12] for answer in trickle.answers()} == {b"HTTP/1.1 404"}
    finally:
        trickle.stop()


def test_slow_headers_stop_nobody(endpoint: Served, items: list[str]) -> None:
    """Cloud Run's front end needs a whole head to know whom it is for, so the function never meets this."""
    trickle = Trickle(endpoint, concurrency(), b"POST /v1/search HTTP/1.1\r\nHost: x\r\nX-", b"a")
    try:
        for _ in range(5):
            assert search(endpoint, item=items[0]).status_code == 200
    finally:
        trickle.stop()


def test_a_client_that_reads_nothing_and_one_that_leaves_harm_nobody(endpoint: Served, items: list[str]) -> None:
    body = json.dumps({"item": items[0], "k": 200}).encode()
    deaf = [endpoint.connect() for _ in range(concurrency())]
    for connection in deaf:
        connection.sendall(head(len(body), media_type="application/json") + body)
    leaving = [endpoint.connect() for _ in range(50)]
    for connection in leaving:
        connection.sendall(head(100_000) + b"half")
        connection.close()
    assert search(endpoint, item=items[1]).status_code == 200
    for connection in deaf:
        connection.close()


# Many at once, and much at once


def test_hundreds_of_connections_at_once_are_all_answered(endpoint: Served, items: list[str]) -> None:
    body = json.dumps({"item": items[0], "k": 1}).encode()
    connections = [endpoint.connect() for _ in range(300)]
    for connection in connections:
        connection.sendall(head(len(body), media_type="application/json") + body)
    try:
        assert Counter(connection.recv(12) for connection in connections) == {b"HTTP/1.1 200": 300}
    finally:
        for connection in connections:
            connection.close()


def test_idle_connections_are_closed(endpoint: Served) -> None:
    """Each keeps a thread for 5 s before gunicorn notices, so only as many as Cloud Run opens leave some for others."""
    idle = [endpoint.connect() for _ in range(concurrency())]
    try:
        assert httpx.get(endpoint.address + "/v1/health", timeout=60).status_code == 200
        assert {connection.recv(1) for connection in idle} == {b""}
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("path", ["/v1/search", "/v1/explain", "/v1/feedback", "/v1/nothing", "/v1/health"])
def test_bodies_that_are_too_large(endpoint: Served, path: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 1_000_000

    expected = {"/v1/nothing": 404, "/v1/health": 405}.get(path, 413)
    headers = {"Content-Type": "application/json"}
    announced = httpx.post(endpoint.address + path, content=b"x" * 21_000_000, headers=headers, timeout=60)
    assert announced.status_code == expected
    assert announced.json()["status"] == expected
    try:
        chunked = httpx.post(endpoint.address + path, content=endless(), headers=headers, timeout=60)
    except httpx.TransportError:
        return  # hung up on while it was still sending, which is as good
    assert chunked.status_code == expected


def test_a_body_that_is_announced_and_never_comes(endpoint: Served) -> None:
    with endpoint.connect() as connection:
        connection.sendall(head(10**12))
        assert connection.recv(12) == b"HTTP/1.1 413"


def large_pictures() -> dict[str, bytes]:
    """At the deployed limits of pixels and of memory, in the formats that take most for each."""
    side = int(float(deployed_environ("search")["VISOR_PIXELS_MAX"]) ** 0.5)
    colour = Image.new("RGB", (side, side), (90, 20, 30))
    return {
        "webp": encoded(colour.resize((4850, 4850)), "WEBP", method=0),
        "rgba": encoded(Image.new("RGBA", (side, side), (90, 20, 30, 40)), "PNG", compress_level=1),
        "float": encoded(Image.new("F", (side, side), 0.5), "TIFF", compression="tiff_lzw"),
        "thin": encoded(Image.new("RGB", (side * side // 298, 298)), "PNG", compress_level=1),
    }


def test_large_pictures_at_once_fit_the_memory(endpoint: Served) -> None:
    """They are decoded one at a time, and what one took is there for the next."""
    pictures = large_pictures()
    box, rest = '{"box": [0, 0, 1, 1]}', '{"exclude": [[0, 0, 0.1, 0.1]]}'
    requests = [("webp", "{}"), ("rgba", rest), ("float", "{}"), ("thin", box)]

    def ask(request: tuple[str, str]) -> int:
        files, form = {"image": pictures[request[0]]}, {"request": request[1]}
        return httpx.post(endpoint.address + "/v1/search", files=files, data=form, timeout=280).status_code

    with ThreadPoolExecutor(concurrency()) as pool:
        assert set(pool.map(ask, requests)) == {200}
    assert endpoint.memory("VmHWM") < float(deployed_environ("search")["VISOR_FUNCTION_MEMORY_GIB"]) * GIB


# Hostile content


@pytest.mark.parametrize("name", BAD)
def test_a_hostile_picture_is_refused_with_a_reason(endpoint: Served, name: str) -> None:
    answer = httpx.post(
        endpoint.address + "/v1/search", content=BAD[name][0], headers={"Content-Type": "image/png"}, timeout=60
    )
    assert answer.status_code == 422
    assert answer.json()["found"]


def test_unusual_pictures_are_searched(endpoint: Served) -> None:
    for name, (data, _) in list(GOOD.items())[::4]:
        answer = search(endpoint, image=base64.b64encode(data).decode())
        assert answer.status_code == 200, name


def test_damaged_pictures_are_searched_or_refused(endpoint: Served) -> None:
    random = Random(11)
    with httpx.Client(base_url=endpoint.address, timeout=60) as client:
        for form, make in SEEDS.items():
            data = make()
            for _ in range(6):
                damaged = bytearray(data[: random.randint(len(data) // 2, len(data))])
                for _ in range(random.randint(1, 20)):
                    damaged[random.randrange(len(damaged))] = random.randrange(256)
                answer = client.post("/v1/search", content=bytes(damaged), headers={"Content-Type": "image/jpeg"})
                assert answer.status_code in (200, 422), (form, answer.text)


DEEP = b"[" * 200_000
DOCUMENTS = {
    "deep": b'{"image":' + DEEP,
    "deep and unknown": b'{"x":' + DEEP,
    "deep objects": b'{"filters":' + b'{"a":' * 100_000,
    "no text": b'{"image": "\xff\xfe"}',
    "a lone surrogate": b'{"item": "\\ud800"}',
    "a NUL": b'{"item": "\\u0000"}',
    "a number without end": b'{"k": ' + b"9" * 100_000 + b"}",
    "not a number": b'{"k": NaN}',
    "infinity": b'{"item": "0", "filters": {"price": {"min": 1e999}}}',
    "a million keys": b"{" + b",".join(b'"k%d": 1' % n for n in range(100_000)) + b"}",
    "the same key twice": b'{"item": "a", "item": "b"}',
    "a million boxes": b'{"image": "AA==", "exclude": [' + b",".join([b"[0,0,1,1]"] * 100_000) + b"]}",
    "a vector without direction": b'{"vector": "' + b"A" * 8876 + b'"}',
    "base64 of nothing": b'{"image": ""}',
    "an address of a megabyte": b'{"url": "http://a.example/' + b"a" * 1_000_000 + b'"}',
    "an item with slashes": b'{"item": "../../etc/passwd"}',
    "filters of everything": b'{"item": "0", "filters": {"collection": [' + b",".join([b'"x"'] * 50_000) + b"]}}",
    "nothing": b"",
    "null": b"null",
}


@pytest.mark.parametrize("path", ["/v1/search", "/v1/explain", "/v1/feedback"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_hostile_documents_are_the_callers_fault(endpoint: Served, name: str, path: str) -> None:
    answer = httpx.post(
        endpoint.address + path, content=DOCUMENTS[name], headers={"Content-Type": "application/json"}, timeout=60
    )
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["status"] == answer.status_code
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text


FORMS = {
    "no boundary": ("multipart/form-data", b"--b\r\n"),
    "no end": ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\nx"),
    "many parts": (
        "multipart/form-data; boundary=b",
        b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n" * 5_000 + b"--b--\r\n",
    ),
    "a long header": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="' + b"a" * 5_000_000 + b'"\r\n\r\nx\r\n--b--\r\n',
    ),
    "an endless boundary": ("multipart/form-data; boundary=" + "b" * 5_000, b"-" * 100_000),
    "no text": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n'
        b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n\xff\xfe\r\n--b--\r\n',
    ),
    "a charset that is none": ("application/json; charset=utf-99", b"{}"),
}


@pytest.mark.parametrize("name", FORMS)
def test_hostile_forms_are_the_callers_fault(endpoint: Served, name: str) -> None:
    media_type, body = FORMS[name]
    answer = httpx.post(endpoint.address + "/v1/search", content=body, headers={"Content-Type": media_type}, timeout=60)
    assert 400 <= answer.status_code < 500, answer.text


HEADS = {
    "two lengths": b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length and chunks": b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "broken chunks": b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a thousand headers": b"GET /v1/health HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n",
    "a header of a megabyte": b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-A: " + b"b" * 1_000_000 + b"\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "an old HTTP": b"GET /v1/health HTTP/0.9\r\n\r\n",
    "a path of bytes": b"GET /v1/items/\xff\xfe%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path above": b"GET /../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long path": b"GET /v1/items/" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a filter of bytes": b"GET /v1/facets?collection=%ff%00&price_min=nan HTTP/1.1\r\nHost: x\r\n\r\n",
    "another address": b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
    "a tunnel": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a claimed client": b"GET /v1/items/a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: " + b"1," * 3_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", HEADS)
def test_hostile_heads_are_the_callers_fault(endpoint: Served, name: str) -> None:
    with endpoint.connect() as connection:
        connection.sendall(HEADS[name])
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or answer.split()[1][:1] in (b"2", b"4"), answer


@pytest.mark.parametrize("part", ["(search|explain|feedback)", "(facets|items|stats|health|thumbnails).*"])
def test_no_generated_request_is_a_fault_of_ours(endpoint: Served, tmp_path: Path, part: str) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", endpoint.address + "/openapi.json"]
    command += ["--include-path-regex", f"/v1/{part}", "--checks", "not_a_server_error,content_type_conformance"]
    command += ["--checks", "response_schema_conformance,status_code_conformance"]
    command += ["--seed", "3", "--max-examples", "12", "--phases", "fuzzing", "--no-color"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert run.returncode == 0, run.stdout[-6000:]


# Access


def test_one_client_is_held_back_and_others_are_not(index: Settings, items: list[str]) -> None:
    with served(index) as running, httpx.Client(base_url=running.address, timeout=60) as client:

        def ask(address: str) -> httpx.Response:
            return client.post(
                "/v1/search", json={"item": items[0]}, headers={"X-Forwarded-For": f"1.2.3.4, {address}"}
            )

        answers = [ask("203.0.113.7") for _ in range(60)]
        assert {answer.status_code for answer in answers} == {200, 429}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert refused[0].json()["type"] == "urn:visor:quota_reached"
        assert ask("203.0.113.8").status_code == 200
        reads = Counter(client.get("/v1/items/" + "0" * 32).status_code for _ in range(200))
        assert set(reads) == {404, 429}, "asking for items that are not there is a read of the database each"


def test_only_the_page_s_origin_is_let_in(index: Settings) -> None:
    with served(index) as running, httpx.Client(base_url=running.address, timeout=60) as client:
        own = client.get("/v1/health", headers={"Origin": "https://storage.googleapis.com"})
        assert own.headers["Access-Control-Allow-Origin"] == "https://storage.googleapis.com"
        for origin in ("https://evil.example", "null", "https://storage.googleapis.com.evil.example"):
            other = client.options("/v1/search", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in other.headers
        assert own.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert own.headers["X-Content-Type-Options"] == "nosniff"


# Memory


def test_memory_does_not_grow(endpoint: Served, items: list[str]) -> None:
    """A mixture of requests, most of them cheap, as a stream of abuse is."""
    picture = small_picture()
    broken, unknown = picture[:200], "0" * 32
    vector = search(endpoint, item=items[0]).json()["query"]["vector"]

    def ask(number: int) -> int:
        kind = number % 100
        if kind == 0:
            answer = client.post("/v1/search", files={"image": picture})
        elif kind == 1:
            answer = client.post("/v1/search", json={"vector": vector, "k": 5})
        elif kind in (2, 3):
            answer = client.post("/v1/search", json={"item": items[number % len(items)], "k": 5})
        elif kind in (4, 5, 6):
            answer = client.get("/v1/items/" + items[number % len(items)])
        elif kind in (7, 8):
            answer = client.get("/v1/facets", params={"collection": f"c{number}"})
        elif kind < 40:
            answer = client.post("/v1/search", content=broken, headers={"Content-Type": "image/png"})
        elif kind < 60:
            answer = client.post("/v1/search", content=b'{"image": "' + b"A" * 200_000 + b'!"}', headers=JSON)
        elif kind < 80:
            answer = client.get(f"/v1/nothing/{number}", headers={"X-Forwarded-For": f"10.{number % 256}.1.1"})
        else:
            answer = client.post("/v1/search", json={"item": unknown, "k": number})
        return answer.status_code

    limits = httpx.Limits(max_connections=concurrency())
    with (
        httpx.Client(base_url=endpoint.address, timeout=120, limits=limits) as client,
        ThreadPoolExecutor(concurrency()) as pool,
    ):
        list(pool.map(ask, range(500)))
        before = endpoint.memory("VmRSS")
        statuses = Counter(pool.map(ask, range(500, 500 + REQUESTS)))
    after = endpoint.memory("VmRSS")
    print(f"{REQUESTS:,} requests {dict(statuses)}: {before / 1e6:.0f} MB, then {after / 1e6:.0f} MB")
    assert set(statuses) == {200, 400, 404, 422}
    assert after - before < GROWTH_BYTES_MAX
    assert endpoint.is_the_same_process()


JSON = {"Content-Type": "application/json"}
