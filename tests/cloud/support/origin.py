"""A shop's picture server that behaves as badly as a test wants, item by item."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.unit.ingest.test_pipeline_embed import drawing


def seed_of(key: str) -> int:
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(key))


class Origin:
    """Serves `/KEY.png`. `behaviour` names what is different about a key, `healed` makes all of them good."""

    def __init__(self) -> None:
        self.behaviour: dict[str, str] = {}
        self.healed = False
        self.asked: Counter[str] = Counter()
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                origin.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def address(self, key: str) -> str:
        return f"http://{self.host}/{key}.png"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        key = request.path.strip("/").removesuffix(".png")
        self.asked[key] += 1
        how = "" if self.healed else self.behaviour.get(key, "")
        first = self.asked[key] == 1
        status, body, headers = 200, drawing(seed_of(key)), {"Content-Type": "image/png"}
        if how.isdigit():
            status, body = int(how), b"no"
        elif how == "busy" or (how == "busy once" and first):
            status, body, headers = 429, b"later", {"Retry-After": "1"}
        elif how == "garbage":
            body = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
        elif how == "slow once" and first:
            time.sleep(4)
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        if how == "cut off":
            body = body[: len(body) // 2]
        # Who waited too long has gone.
        with suppress(ConnectionError):
            request.end_headers()
            request.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
