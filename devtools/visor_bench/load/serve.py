"""`visor bench serve`: how many searches by picture a server answers, and how long each takes, with more and more
clients at once."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
from PIL import Image

from visor.console import as_json, print_json, say
from visor.settings import PREFIX, Settings
from visor_bench.speed.embed import jpeg

CLIENTS = (1, 2, 4, 16)
WARMING = 4
"""Searches that are not counted, at the start."""


@click.command("serve")
@click.option("--images", default=10_000, show_default=True, type=click.IntRange(min=100))
@click.option(
    "--requests", default=96, show_default=True, type=click.IntRange(1), help="Searches per number of clients."
)
@click.option("--picture", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Photo to search for.")
@click.option("--against", metavar="URL", help="A server of another version, which is searched in turn with this one.")
@as_json
def serve_command(images: int, requests: int, picture: Path | None, against: str | None, as_json: bool) -> None:
    """Search a server on this machine with 4-megapixel JPEGs from 1, 2, 4 and 16 clients at once."""
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as home:
        document = measure(Settings.read(), images, requests, jpeg(picture), Path(home), say, against)
    if as_json:
        print_json(document)
        return
    for row in document["clients"]:
        click.echo("  ".join(f"{name} {value}" for name, value in row.items()))


def measure(
    own: Settings,
    images: int,
    requests: int,
    data: bytes,
    home: Path,
    progress: Callable[[str], None],
    against: str | None = None,
) -> dict[str, Any]:
    """Fill an index of made vectors, serve it, and search it.

    Returns:
        `images`, and for each number of `clients`: `requests_per_s`, and `p50_ms` and `p99_ms` of one request; of
        another server, `other_requests_per_s` and the `ratio`.
    """
    from visor.models.build.builder import ensure_model
    from visor.models.store import model_fingerprint
    from visor_bench.speed.cold_start import fill

    ensure_model(own, say=progress)
    (home / "models").symlink_to(own.home / "models")
    settings = Settings(backend="local", home=home, model=own.model)
    (home / "filling").mkdir()
    fill(settings, model_fingerprint(own), images, home / "filling", progress)
    rows = []
    with serving(settings) as address, httpx.Client(timeout=120) as client:
        servers = [address, against] if against else [address]
        pictures = different(data, len(servers) * (WARMING + requests * len(CLIENTS)))
        for server in servers:
            _asked(client, server, list(itertools.islice(pictures, WARMING)), 1)
        for clients in CLIENTS:
            found = [_asked(client, one, list(itertools.islice(pictures, requests)), clients) for one in servers]
            p50, p99 = (round(float(np.percentile(found[0][1], share)), 1) for share in (50, 99))
            row = {"clients": clients, "requests_per_s": round(found[0][0], 2), "p50_ms": p50, "p99_ms": p99}
            for speed, _ in found[1:]:
                row |= {"other_requests_per_s": round(speed, 2), "ratio": round(found[0][0] / speed, 2)}
            rows.append(row)
            progress(str(row))
    return {"images": images, "clients": rows, "load": [round(load, 2) for load in os.getloadavg()]}


def _asked(client: httpx.Client, server: str, pictures: Sequence[bytes], clients: int) -> tuple[float, list[float]]:
    """Requests a second, and milliseconds of each."""

    def ask(picture: bytes) -> float:
        start = time.perf_counter()
        client.post(f"{server}/v1/search", files={"image": picture}).raise_for_status()
        return (time.perf_counter() - start) * 1000

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        took = list(pool.map(ask, pictures))
    return len(pictures) / (time.perf_counter() - start), took


def different(data: bytes, count: int) -> Iterator[bytes]:
    """The JPEG with something else in a corner, so that no answer comes from the cache of the last queries."""
    with Image.open(BytesIO(data)) as image:
        for number in range(count):
            image.paste((number % 16 * 16, number // 16 % 16 * 16, number // 256 % 256), (0, 0, 160, 160))
            buffer = BytesIO()
            image.save(buffer, "JPEG", quality=90)
            yield buffer.getvalue()


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The URL of `visor serve` in its own process, whose clients may search as often as they like."""
    often = {"SEARCHES_PER_MINUTE": "1000000", "SEARCHES_BURST": "1000000"}
    values = {"HOME": str(settings.home), "MODEL": settings.model, **often}
    mine = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environ = mine | {PREFIX + name: value for name, value in values.items()}
    command = [sys.executable, "-m", "visor", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", next((line for line in process.stderr if "http://" in line), ""))
        if found is None:
            raise RuntimeError("The server did not start")
        yield found[0]
    finally:
        process.terminate()
        process.wait(20)
