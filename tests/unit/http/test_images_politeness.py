"""A host that is dead, busy or asks for it is left alone, and tried again later."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Lock

import msgspec
import pytest
from tests.unit.http.images_origin import PICTURE, Origin, status
from tests.unit.sources.catalogue_server import Reply, Server, serving

from visor.app import App
from visor.errors import FetchUnavailable, SourceUnavailable
from visor.http import throttle as throttle_module
from visor.http.client import Fetcher
from visor.http.fetch import FetchOptions
from visor.http.response import retry_after_s
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


@pytest.mark.parametrize("code", [429, 503])
def test_a_host_that_asks_for_it_is_left_alone(origin: Origin, fetcher: Fetcher, code: int) -> None:
    origin.routes["/x"] = status(code, Retry_After="120")
    with pytest.raises(FetchUnavailable) as first:
        fetcher.fetch(origin.base + "/x")
    assert first.value.retry_after_s == 120
    with pytest.raises(FetchUnavailable, match="left alone") as second:
        fetcher.fetch(origin.base + "/a.jpg")
    assert second.value.retry_after_s is not None
    assert 100 < second.value.retry_after_s <= 120
    assert len(origin.requests) == 1


def test_a_pause_that_no_header_names_grows_and_is_told(
    origin: Origin, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.routes["/x"] = status(429, b"<html>Too many requests")
    asked_to_wait = []
    for _ in range(3):
        with pytest.raises(FetchUnavailable, match="answered 429") as busy:
            fetcher.fetch(origin.base + "/x")
        asked_to_wait.append(busy.value.retry_after_s)
        fetcher._throttle._paused_until.clear()
    assert asked_to_wait == [10, 20, 40]


def test_another_host_is_not_left_alone_with_it(origin: Origin) -> None:
    with Origin() as other:
        other.routes["/b.jpg"] = status(200, PICTURE)
        origin.routes["/x"] = status(429, Retry_After="120")
        allowed = (f"127.0.0.1:{origin.port}", f"127.0.0.1:{other.port}")
        with Fetcher(Settings(allow_hosts=allowed)) as fetcher:
            with pytest.raises(FetchUnavailable):
                fetcher.fetch(origin.base + "/x")
            assert fetcher.fetch(other.base + "/b.jpg").body == PICTURE


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    now = datetime(2025, 7, 1, 12, tzinfo=UTC)
    assert retry_after_s("30") == 30
    assert retry_after_s(" 0 ") == 0
    assert retry_after_s(format_datetime(now + timedelta(seconds=90), usegmt=True), now) == 90
    assert retry_after_s(format_datetime(now - timedelta(days=1), usegmt=True), now) == 0
    for unreadable in (None, "", "soon", "-5", "1.5", "9" * 40, "Tue, 99 Foo 2025 00:00:00 GMT"):
        assert retry_after_s(unreadable, now) is None


def test_no_header_silences_a_host_for_ever() -> None:
    throttle = HostThrottle(2, 1)
    throttle.pause("shop:80", 1e12)
    with pytest.raises(FetchUnavailable) as caught, throttle.slot("shop:80", 0):
        pass  # not reached: entering is refused
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s <= throttle_module.PAUSE_MAX_S


def test_a_host_that_goes_on_saying_too_many_requests_is_left_alone_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("visor.http.throttle.time.monotonic", lambda: now)
    throttle = HostThrottle(2, 1)
    waits = []
    for _ in range(12):
        throttle.refused("shop:80", None)
        throttle.refused("shop:80", None)
        with pytest.raises(FetchUnavailable) as caught, throttle.slot("shop:80", 0):
            pass  # not reached: entering is refused
        waits.append(caught.value.retry_after_s)
        now += waits[-1] or 0
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == throttle_module.PAUSE_MAX_S
    throttle.served("shop:80")
    throttle.refused("shop:80", None)
    with pytest.raises(FetchUnavailable, match="for another 10 s"), throttle.slot("shop:80", 0):
        pass


def test_no_more_than_the_limit_run_at_once_per_host(origin: Origin) -> None:
    lock, enough = threading.Lock(), threading.Event()
    active, most = 0, 0

    def counted(handler: object) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
            if active == 3:
                enough.set()
        enough.wait(10)
        time.sleep(0.02)
        with lock:
            active -= 1
        status(200, PICTURE)(handler)  # type: ignore[arg-type]

    origin.routes["/a.jpg"] = counted
    settings = Settings(
        allow_hosts=(f"127.0.0.1:{origin.port}",), fetch_parallel=12, fetch_parallel_per_host=3, fetch_timeout_s=30
    )
    with Fetcher(settings) as fetcher, ThreadPoolExecutor(12) as threads:
        bodies = list(threads.map(lambda _: fetcher.fetch(origin.base + "/a.jpg").body, range(24)))
    assert bodies == [PICTURE] * 24
    assert most == 3


def test_the_limit_in_all_holds_across_hosts() -> None:
    throttle = HostThrottle(parallel=2, per_host=2)
    held = throttle.slot("a:80", 0), throttle.slot("b:80", 0)
    with held[0], held[1], pytest.raises(FetchUnavailable, match="busy"), throttle.slot("c:80", 0.01):
        pass
    with throttle.slot("c:80", 0) as waited_s:
        assert waited_s >= 0


def test_waiting_for_a_turn_has_an_end_and_a_failed_fetch_gives_its_turn_back(origin: Origin) -> None:
    entered, leave = threading.Event(), threading.Event()

    def blocked(handler: object) -> None:
        entered.set()
        leave.wait(10)
        status(500)(handler)  # type: ignore[arg-type]

    origin.routes["/blocked"] = blocked
    settings = Settings(allow_hosts=(f"127.0.0.1:{origin.port}",), fetch_parallel_per_host=1)
    with Fetcher(settings) as fetcher, ThreadPoolExecutor(1) as threads:
        first = threads.submit(fetcher.fetch, origin.base + "/blocked")
        assert entered.wait(10)
        with pytest.raises(FetchUnavailable, match="busy"):
            fetcher.fetch(origin.base + "/a.jpg", FetchOptions(slot_wait_s=0.01))
        leave.set()
        assert isinstance(first.exception(10), FetchUnavailable)
        assert fetcher.fetch(origin.base + "/a.jpg").body == PICTURE
