"""A host that is dead is left alone, and tried again later."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Lock

import msgspec
import pytest
from tests.unit.http.images_origin import Origin, status
from tests.unit.sources.catalogue_server import Reply, Server, serving

from visor.app import App
from visor.errors import FetchUnavailable, SourceUnavailable
from visor.http import throttle as throttle_module
from visor.http.client import Fetcher
from visor.http.fetch import FetchOptions
from visor.http.throttle import DEAD_AFTER, DEAD_PAUSE_S, HostThrottle
from visor.schema.items import Item, item_id
from visor.search.query import PAUSE_MAX_S
from visor.settings import Settings


def test_a_dead_host_is_not_asked_for_a_while_and_others_are() -> None:
    with socket.socket() as closed, serving(lambda _: Reply(b"here")) as alive:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        with Fetcher(Settings(allow_hosts=(dead, alive.host))) as fetcher:
            for _ in range(DEAD_AFTER):
                with pytest.raises(FetchUnavailable, match="cannot be connected to"):
                    fetcher.fetch(f"http://{dead}/", FetchOptions(accept="*/*"))
            with pytest.raises(FetchUnavailable, match="again and again") as refused:
                fetcher.fetch(f"http://{dead}/", FetchOptions(accept="*/*"))
            assert refused.value.retry_after_s == pytest.approx(DEAD_PAUSE_S, abs=5)
            assert fetcher.fetch(f"{alive.url}/", FetchOptions(accept="*/*")).body == b"here"


def test_the_pause_of_a_dead_host_doubles_and_an_answer_ends_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(throttle_module.time, "monotonic", lambda: now[0])
    throttle = HostThrottle(4, 4)
    for _ in range(DEAD_AFTER):
        throttle.failed("a:80")
    now[0] += DEAD_PAUSE_S + 1
    with throttle.slot("a:80", 1.0):
        throttle.failed("a:80")
    now[0] += DEAD_PAUSE_S + 1
    with pytest.raises(FetchUnavailable, match="again and again"), throttle.slot("a:80", 1.0):
        pass
    now[0] += DEAD_PAUSE_S
    with throttle.slot("a:80", 1.0):
        throttle.answered("a:80")
    throttle.failed("a:80")
    with throttle.slot("a:80", 1.0):
        pass


def test_failures_that_are_not_in_a_row_pause_nobody() -> None:
    flaky: list[int] = []
    with serving(lambda _: Reply(b"here")) as server, Fetcher(Settings(allow_hosts=(server.host,))) as fetcher:
        for number in range(3 * DEAD_AFTER):
            if number % 2:
                fetcher._throttle.failed(server.host)
            flaky.append(len(fetch(fetcher, server)))
    assert set(flaky) == {4}


def fetch(fetcher: Fetcher, server: Server) -> bytes:
    return fetcher.fetch(f"{server.url}/", FetchOptions(accept="*/*")).body


def test_a_visitor_s_url_silences_no_host_for_long(tmp_path: Path) -> None:
    busy = Reply(status=503, headers={"Retry-After": "2099"})
    with serving(lambda _: busy) as server, Fetcher(Settings(allow_hosts=(server.host,))) as fetcher:
        with pytest.raises(FetchUnavailable):
            fetcher.fetch(f"{server.url}/a", FetchOptions(pause_max_s=PAUSE_MAX_S))
        with pytest.raises(FetchUnavailable) as refused:
            fetcher.fetch(f"{server.url}/b", FetchOptions())
    assert 0 < (refused.value.retry_after_s or 0) <= PAUSE_MAX_S


def test_what_a_host_asks_of_the_crawl_holds_for_downloads_too(tmp_path: Path) -> None:
    busy = Reply(status=429, headers={"Retry-After": "600"})
    with (
        serving(lambda _: busy) as server,
        serving(lambda _: Reply(b"\x89PNG\r\n\x1a\n")) as other,
        App(Settings(home=tmp_path, allow_hosts=(server.host, other.host))) as app,
    ):
        source = app.open_source("shop", {"kind": "feed", "url": f"{server.url}/feed"})
        with pytest.raises(SourceUnavailable, match="asks to wait 600 s"):
            list(source.read(None))
        asked = len(server.requests)
        item = Item(id=item_id("shop", "1"), source="shop", key="1", image_url=f"{server.url}/1.png")
        with pytest.raises(FetchUnavailable, match="asked to be left alone") as refused:
            app.read_image(item)
        assert refused.value.retry_after_s == pytest.approx(600, abs=60)
        assert len(server.requests) == asked, "it was left alone"
        assert app.read_image(msgspec.structs.replace(item, image_url=f"{other.url}/1.png"))


@pytest.mark.parametrize(("instances", "at_once"), [(1, 4), (2, 2), (8, 1)])
def test_the_limit_per_host_is_divided_by_instances(instances: int, at_once: int) -> None:
    lock, enough = Lock(), Event()
    active, most = 0, 0

    def answer(handler: BaseHTTPRequestHandler) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
            if active == at_once:
                enough.set()
        enough.wait(30)
        with lock:
            active -= 1
        status(200, b"here")(handler)

    with Origin() as origin:
        origin.routes["/"] = answer
        settings = Settings(allow_hosts=(f"127.0.0.1:{origin.port}",), fetch_instances=instances)
        with Fetcher(settings) as fetcher, ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda _: fetcher.fetch(f"{origin.base}/", FetchOptions(accept="*/*")).body, range(16))
            )
    assert answers == [b"here"] * 16
    assert most == at_once
