"""The search function serves the page as well: one origin, a strict policy, nothing private, counted."""

from __future__ import annotations

import gzip
import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Response
from werkzeug.test import Client

from visor.web.site import Server, Site

SCRIPT = b"let visor = 1;" * 100


class Api:
    """Stands where the HTTP API would, and keeps what was counted."""

    def __init__(self) -> None:
        self.access, self.counted = self, list[int]()

    def check_address(self, request: Any) -> None:
        """On Google Cloud every name and page is answered."""

    def count(self, kind: str, *, seconds: float, response_bytes: int, used: dict[str, float]) -> None:
        assert kind == "reading"
        self.counted.append(response_bytes)

    def __call__(self, request: Any) -> Response:
        return Response("api", 404 if request.method == "GET" else 200)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "assets" / "index-BQT4JUOR.js").write_bytes(SCRIPT)
    (tmp_path.parent / "secret.txt").write_text("secret")
    return tmp_path


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def client(page: Path, api: Any) -> Client:
    config = {"endpoint": "", "title": "Shop"}
    return Client(Site(api, page=page, config=config, read_image=None), Response)


def test_the_page_comes_with_a_policy_of_one_origin(client: Client, api: Api) -> None:
    for path in ("/", "/index.html", "/config.json", "/assets/index-BQT4JUOR.js"):
        answer = client.get(path)
        assert answer.status_code == 200
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert policy["connect-src"] == "'self'"
        assert "unsafe" not in str(policy).replace("'wasm-unsafe-eval'", "")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/config.json").json == {"endpoint": "", "title": "Shop"}
    assert len(api.counted) == 5


def test_files_are_compressed_and_kept_as_long_as_their_names_say(client: Client) -> None:
    script = client.get("/assets/index-BQT4JUOR.js", headers={"Accept-Encoding": "gzip, br"})
    assert gzip.decompress(script.data) == SCRIPT
    assert len(script.data) < len(SCRIPT) / 10
    assert "immutable" in script.headers["Cache-Control"]
    assert script.mimetype == "text/javascript"
    assert client.get("/assets/index-BQT4JUOR.js").data == SCRIPT
    first = client.get("/")
    assert first.headers["Cache-Control"] == "no-cache"
    assert client.get("/", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


def test_a_page_built_anew_is_served(client: Client, page: Path) -> None:
    assert client.get("/").data == b"<!doctype html>"
    (page / "index.html").write_text("<!doctype html><title>New")
    os.utime(page / "index.html", ns=(0, 0))
    assert client.get("/").data == b"<!doctype html><title>New"


@pytest.mark.parametrize(
    "path",
    ["/../secret.txt", "/%2e%2e/secret.txt", "/assets/", "/nothing", "/pictures/abc", "/a%00b", f"/{'long' * 90}"],
    ids=str,
)
def test_what_is_no_file_of_the_page_is_left_to_the_api(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.data) == (404, b"api")


def test_what_is_asked_of_the_api_reaches_it(client: Client) -> None:
    assert client.post("/v1/search").data == b"api"
    assert client.get("/v1/health").data == b"api"
    assert client.get("/openapi.json").data == b"api"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6, so nothing listens at an address of it")
def test_an_address_of_ipv6_can_be_opened() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    server = Server(app, host="::1").start()
    try:
        assert httpx.get(server.address).text == "ok"
    finally:
        server.stop()
