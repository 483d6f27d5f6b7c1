"""A network that fails on demand: an HTTP proxy with planned faults, and a TCP link that can be cut."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["503", "429", "403", "cut", "lost answer", "half answer", "wrong byte", "stall"]
STALL_S = 3.0


class FaultyProxy:
    """Forwards HTTP to one server; the first requests meet the faults in `plan`, one each.

    - a number: answered with that status, not forwarded
    - cut: the connection ends before the request is forwarded
    - lost answer: the server carries the request out, the connection ends without its answer
    - half answer: half of the body arrives, then the connection ends
    - wrong byte: one byte of the body is another
    - stall: the answer waits for `STALL_S`
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.plan: list[Fault] = []
        self.always: Fault | None = None
        self.between: Callable[[], object] = lambda: None
        """What happens while half an answer is under way."""
        self.requests: list[str] = []
        self.lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[str]:
        """The proxy's own address."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                proxy.answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = forward  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def next_fault(self, line: str) -> Fault | None:
        with self.lock:
            self.requests.append(line)
            return self.plan.pop(0) if self.plan else self.always

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        fault = self.next_fault(f"{request.command} {request.path}")
        if fault is not None and fault.isdigit():
            request.send_response(int(fault))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if fault == "cut":
            _hang_up(request)
            return
        if fault == "stall":
            time.sleep(STALL_S)
        upstream = http.client.HTTPConnection(self.upstream, timeout=30)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "connection"}
        upstream.request(request.command, request.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if fault == "lost answer":
            _hang_up(request)
            return
        if fault == "wrong byte" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        with suppress(ConnectionError):
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            if fault == "half answer":
                request.wfile.write(content[: len(content) // 2])
                self.between()
                _hang_up(request)
                return
            request.wfile.write(content)


def _hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    with suppress(OSError):
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)


class Link:
    """Forwards TCP to one server, until it is cut. Its own address stays the same."""

    def __init__(self, upstream: str) -> None:
        host, port = upstream.split(":")
        self._upstream = (host, int(port))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.mode: Literal["pass", "refuse", "silent"] = "pass"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections; new ones meet `mode`."""
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            self._open.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "refuse":
                client.close()
                continue
            server = socket.create_connection(self._upstream)
            with self._lock:
                self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.mode != "silent":
                    target.sendall(data)
