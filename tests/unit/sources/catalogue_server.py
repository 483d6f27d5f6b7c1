"""Real HTTP servers on this machine for the tests of sources: each test says what its server answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from visor.http.client import Fetcher
from visor.settings import Settings
from visor.sources.contract import SourceContext


@dataclass(frozen=True)
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def target(self) -> str:
        return self.path + ("?" + "&".join(f"{k}={v}" for k, v in self.query.items()) if self.query else "")


@dataclass(frozen=True)
class Reply:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Reply:
        return cls(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})


Answer = Callable[[Request], Reply]


class Server:
    """Answers every GET with what `answer` makes of it, and keeps the requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._lock = Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # A crawl that publishes what it reads takes a large body in slowly.
            timeout = 60
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers)
                with outer._lock:
                    outer.requests.append(request)
                    reply = outer.answer(request)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in reply.headers and reply.status != 304:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def context_for(*hosts: str, slept: list[float] | None = None, **environ: str) -> Iterator[SourceContext]:
    """A context whose fetcher may reach those hosts. Waits are noted in `slept` and not waited for."""
    settings = Settings(allow_hosts=hosts, fetch_timeout_s=5)
    waits = [] if slept is None else slept
    with Fetcher(settings) as fetcher:
        yield SourceContext(settings=settings, fetcher=fetcher, environ=environ, sleep=waits.append)
