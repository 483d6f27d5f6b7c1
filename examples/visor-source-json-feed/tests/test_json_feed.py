"""JsonFeedSource keeps the contract that every source has to keep, against a real server on this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from visor.sources import open_source
from visor.testing import check_source, source_context


class Feed(BaseHTTPRequestHandler):
    """Twelve entries, five on a page, one of them without a picture."""

    def do_GET(self) -> None:
        start = int(self.path.partition("?start=")[2] or 0)
        rows = [
            {"id": str(at), "title": f"Entry {at}", "url": f"/{at}", "image": f"/{at}.jpg" if at != 3 else None}
            for at in range(start, min(12, start + 5))
        ]
        following = {"next_url": f"/feed.json?start={start + 5}"} if start + 5 < 12 else {}
        body = json.dumps({"version": "https://jsonfeed.org/version/1.1", "items": rows, **following}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Feed) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_contract(host: str) -> None:
    config = {"kind": "json_feed", "url": f"http://{host}/feed.json"}
    with source_context(allow_hosts=[host]) as context:
        items = check_source(lambda: open_source("mine", config, context), pages_min=3)
    assert [item.title for item in items] == [f"Entry {at}" for at in range(12) if at != 3]
    assert items[0].image_url == f"http://{host}/0.jpg"
