"""A host that is dead is left alone, and tried again later."""

from __future__ import annotations

import socket

import pytest
from catalogue_server import Reply, Server, serving

from visor.errors import FetchUnavailable
from visor.images import politeness
from visor.images.fetch import Fetcher
from visor.images.politeness import DEAD_AFTER, DEAD_PAUSE_S, Turns
from visor.settings import Settings


def test_a_dead_host_is_not_asked_for_a_while_and_others_are() -> None:
    with socket.socket() as closed, serving(lambda _: Reply(b"here")) as alive:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        with Fetcher(Settings(allow_hosts=(dead, alive.host))) as fetcher:
            for _ in range(DEAD_AFTER):
                with pytest.raises(FetchUnavailable, match="cannot be connected to"):
                    fetcher.fetch(f"http://{dead}/", accept="*/*")
            with pytest.raises(FetchUnavailable, match="again and again") as refused:
                fetcher.fetch(f"http://{dead}/", accept="*/*")
            assert refused.value.retry_after_s == pytest.approx(DEAD_PAUSE_S, abs=5)
            assert fetcher.fetch(f"{alive.url}/", accept="*/*").body == b"here"


def test_the_pause_of_a_dead_host_doubles_and_an_answer_ends_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(politeness.time, "monotonic", lambda: now[0])
    turns = Turns(4, 4)
    for _ in range(DEAD_AFTER):
        turns.failed("a:80")
    now[0] += DEAD_PAUSE_S + 1
    with turns.turn("a:80", 1.0):
        turns.failed("a:80")
    now[0] += DEAD_PAUSE_S + 1
    with pytest.raises(FetchUnavailable, match="again and again"), turns.turn("a:80", 1.0):
        pass
    now[0] += DEAD_PAUSE_S
    with turns.turn("a:80", 1.0):
        turns.answered("a:80")
    turns.failed("a:80")
    with turns.turn("a:80", 1.0):
        pass


def test_failures_that_are_not_in_a_row_pause_nobody() -> None:
    flaky: list[int] = []
    with serving(lambda _: Reply(b"here")) as server, Fetcher(Settings(allow_hosts=(server.host,))) as fetcher:
        for number in range(3 * DEAD_AFTER):
            if number % 2:
                fetcher._turns.failed(server.host)
            flaky.append(len(fetch(fetcher, server)))
    assert set(flaky) == {4}


def fetch(fetcher: Fetcher, server: Server) -> bytes:
    return fetcher.fetch(f"{server.url}/", accept="*/*").body
