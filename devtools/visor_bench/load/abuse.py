"""`visor bench abuse`: the search function with Terraform's settings, under the worst requests that strangers can send.

It reports whether memory stays below the function's, whether fixed queries are answered afterwards as before, to the
byte, and whether the meters have what was counted below them. The function runs under functions-framework in its own
process; a folder and SQLite replace Cloud Storage and Firestore, and are counted as if they were those.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec
import numpy as np
from PIL import Image, ImageFilter

from visor.app import App
from visor.console import as_json, print_json, say
from visor.free_tier.quota import Meter
from visor.index.format.shard import shard_object, write_shard
from visor.models.embedder import load_embedder
from visor.near_duplicates.fingerprint import HASH_BYTES
from visor.schema.collections import COMMITS, ITEMS
from visor.schema.items import FacetRow, IndexedItem, Item, ShardCommit, as_document, item_id
from visor.settings import PREFIX, Settings
from visor.storage import open_stores
from visor.storage.documents import SERVER_TIME, Put, Write
from visor.web.access import KEY_HEADER
from visor_bench.load.counting import Tally, counting

ITEMS_MADE, ALIKE, BATCH = 10_000, 2_500, 500
"""Items in the index, of which the first so many show one placeholder; items in a shard."""
AT_ONCE = 8
"""Requests that Cloud Run sends one instance at once."""
QUERIES = 50
WORDS = (
    *("red", "blue", "green", "old", "new", "cotton", "leather", "silver", "wood"),
    *("glass", "shirt", "shoe", "lamp", "chair", "vase", "ring", "clock", "print"),
)
"""Words of the items' titles."""
USAGE = "/bench/usage"
MAIN = """
import functions_framework
from visor_bench.load.abuse import endpoint
answer = endpoint()
@functions_framework.http
def search(request):
    return answer(request)
"""
Request = tuple[str, str, dict[str, Any]]
"""Method, path and what httpx sends."""


def endpoint() -> Callable[[Any], Any]:
    """In the function's process: the endpoint over counted stores on this machine, and a report of their use."""
    from flask import Response

    settings = Settings.read()
    tally = Tally()
    with_stores = counting(open_stores(msgspec.structs.replace(settings, backend="local")), tally)
    app = App(settings, stores=with_stores, meter=Meter(with_stores.documents, settings, limited=False))
    api = app.http_api()

    def answer(request: Any) -> Any:
        if request.path != USAGE:
            return api(request)
        readings = {reading.resource: reading.used for reading in app.meter.readings()}
        return Response(json.dumps({"counted": tally.usage.as_dict(), "metered": readings, "pid": os.getpid()}))

    return answer


def fill(settings: Settings, dimension: int, model: str) -> list[str]:
    """An index of made vectors, merged; the ids of its items."""
    rng = np.random.default_rng(5)
    ids = [item_id("bench", str(number)) for number in range(ITEMS_MADE)]
    placeholder = rng.random(dimension, np.float32)
    with App(msgspec.structs.replace(settings, backend="local")) as app:
        documents = app.stores.documents
        for start in range(0, ITEMS_MADE, BATCH):
            vectors = rng.random((BATCH, dimension), np.float32) ** 4
            hashes = rng.integers(0, 256, (BATCH, HASH_BYTES), np.uint8)
            if start < ALIKE:
                vectors[:], hashes[:] = placeholder, 0x55
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            some, name = ids[start : start + BATCH], f"abuse-{start}"
            data = write_shard(
                model=model,
                ids=some,
                versions=[1] * BATCH,
                vectors=vectors.astype(np.float16),
                hashes=hashes,
                facets=[FacetRow.of(_item(i, model, name).item) for i in some],
            )
            app.stores.objects.put(shard_object(name), data)
            record = ShardCommit(batch=name, model=model, shard=shard_object(name), count=BATCH)
            writes: list[Write] = [Put(collection=ITEMS, key=i, data=as_document(_item(i, model, name))) for i in some]
            documents.commit(writes)
            commit = {**as_document(record), "committed_at": SERVER_TIME}
            documents.commit([Put(collection=COMMITS, key=name, data=commit)])
        app.merge()
    return ids


def _item(item: str, model: str, shard: str) -> IndexedItem:
    rng = random.Random(item)  # noqa: S311
    shown = Item(
        id=item,
        source="bench",
        key=item,
        image_url=f"http://127.0.0.1:9/{item}.jpg",
        title=" ".join((*rng.sample(WORDS, 4), item)),
        collection=f"c{rng.randrange(7)}",
        price=float(rng.randrange(5_000)),
    )
    return IndexedItem(item=shown, version=1, model=model, shard=shard, indexed_at="2026-11-01", width=9, height=9)


def picture(seed: int, *, noise: bool = False) -> bytes:
    """A picture that the model accepts as one: blurred patches; or coarse noise."""
    cells = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), np.uint8)
    made = Image.fromarray(cells).resize((280, 280), Image.Resampling.NEAREST if noise else Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    made.filter(ImageFilter.GaussianBlur(0 if noise else 2)).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(seed: int) -> str:
    return base64.b64encode(picture(seed, noise=seed % 2 == 0)).decode()


def hostile(number: int, ids: list[str], vectors: list[str]) -> Request:
    """One of the worst requests of their kind; most of them are accepted."""
    rng = random.Random(number)  # noqa: S311
    item, vector = rng.choice(ids[:ALIKE] if number % 2 else ids), rng.choice(vectors)

    def image(noise: bool = False) -> dict[str, Any]:
        return {"files": {"image": picture(number, noise=noise)}}

    def search(**body: Any) -> Request:
        return "POST", "/v1/search", {"json": body}

    kinds: list[tuple[int, Callable[[], Request]]] = [
        (3, lambda: ("POST", "/v1/search", image(noise=True))),
        (3, lambda: ("POST", "/v1/search", image())),
        (8, lambda: search(vector=vector, k=200)),
        (8, lambda: search(item=item, k=200)),
        (8, lambda: search(item=item, k=12)),
        (6, lambda: search(item=item, k=200, mode="exact", facets=True)),
        (4, lambda: search(item=item, filters={"collection": [f"x{n}" for n in range(20_000)]}, facets=True)),
        (4, lambda: search(vector=vector, metric=rng.choice(["mahalanobis", "jaccard", "cityblock"]))),
        (8, lambda: ("POST", "/v1/feedback", {"json": {"item": item, "query_vector": vector}})),
        (8, lambda: ("POST", "/v1/feedback", {"json": {"item": ids[number % 99], "query_item": item}})),
        (4, lambda: search(text=" ".join(rng.choices(WORDS, k=60)), k=200, facets=True)),
        (2, lambda: search(text=" ".join(f"{rng.choice(WORDS)[:3]}{rng.randrange(99)}" for _ in range(50)))),
        (2, lambda: search(examples=[{"vector": rng.choice(vectors), "weight": 1 - n / 4} for n in range(8)], k=200)),
        (1, lambda: search(examples=[{"image": encoded(number + n)} for n in range(8)])),
        (2, lambda: search(filters={"price": {"min": number % 9}}, sort="newest", k=200, group=False)),
        (2, lambda: search(vector=vector, variety=1, k=200, sort="most_changed")),
        (1, lambda: search(image=encoded(number), regions=True, remember=True)),
        (1, lambda: search(handle="A" * 22, after="A" * 2000)),
        (2, lambda: ("GET", f"/v1/suggest?text={rng.choice(WORDS)[:2]}", {})),
        (1, lambda: ("POST", "/v1/searches", {"json": {"searches": [{"item": i} for i in ids[:16]]}})),
        (1, lambda: ("POST", "/v1/compare", {"json": {"first": {"image": encoded(number)}, "second": {"item": item}}})),
        (3, lambda: search(url=f"http://169.254.169.254/{number}")),
        (3, lambda: ("POST", "/v1/explain", {"json": {"item": item, "match": ids[0]}})),
        (5, lambda: ("GET", "/v1/items?limit=48", {})),
        (5, lambda: ("GET", "/v1/items?limit=" + "9" * 5_000, {})),
        (5, lambda: ("GET", f"/v1/facets?collection=c{number}", {})),
        (5, lambda: ("GET", f"/v1/items/{item}", {})),
        (4, lambda: ("DELETE", f"/v1/items/{item}", {"headers": {KEY_HEADER: f"guess {number}"}})),
        (4, lambda: ("POST", "/v1/items", {"json": {"key": "a", "image_url": "https://a.example/a.png"}})),
        (
            3,
            lambda: (
                "POST",
                "/v1/search",
                {"content": b"[" * 200_000, "headers": {"Content-Type": "application/json"}},
            ),
        ),
        (3, lambda: ("GET", "/v1/thumbnails/" + "0" * 32, {})),
        (1, lambda: ("POST", "/v1/search", {"files": [("image", b"x" * 2_000_000)] * 2})),
    ]
    make = rng.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]
    return make()


class Function:
    """The search function in its own process, with Terraform's environment."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        from visor_emulators.demo import _free_port, environ_of

        (folder / "main.py").write_text(MAIN)
        port = _free_port()
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "functions_framework", "--target=search", f"--source={folder / 'main.py'}"]
        mine = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        threads = {"THREADS": str(2 * AT_ONCE), "MALLOC_MMAP_THRESHOLD_": "262144", "OPENBLAS_NUM_THREADS": "1"}
        environ = {**mine, **environ_of(settings), **threads}
        self.process = subprocess.Popen([*command, "--host=127.0.0.1", f"--port={port}"], env=environ)  # noqa: S603
        self.client = httpx.Client(base_url=self.address, timeout=120)
        for _ in range(600):
            try:
                self.pid = self.usage()["pid"]
                return
            except httpx.TransportError:
                time.sleep(0.2)
        raise RuntimeError("The function did not start")

    def usage(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(USAGE).json()
        return found

    def peak_bytes(self) -> int:
        """Peak memory so far of the worker, and of the process that watches it."""
        return sum(_peak(pid) for pid in (self.pid, self.process.pid))

    def ask(self, request: Request, client: str) -> httpx.Response:
        method, path, content = request
        headers = {**content.get("headers", {}), "X-Forwarded-For": client}
        return self.client.request(method, path, **{**content, "headers": headers})

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(20)


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def deployed(own: Settings, home: Path) -> Settings:
    """Terraform's settings of the search function, with the models of `own` in an empty home."""
    (home / "models").symlink_to(own.home / "models")
    return Settings(
        backend="gcp",
        home=home,
        model=own.model,
        project="bench",
        bucket="bench",
        owner_key="the owner's key, of the bench",
        threads=1,
        pixels_max=40_000_000,
        store_deadline_s=8.0,
        fetch_timeout_s=12.0,
    )


def measure(settings: Settings, requests: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """As the module says, for an empty home whose models are there.

    Returns:
        `statuses` of the requests, `peak_mb` and `limit_mb`, `changed` (fixed queries with another answer afterwards),
        `moved_after_merge` (most that a confidence moved once a merge had learned from visitors' photos), `meters`
        (resource to metered of counted), and `seconds`.
    """
    embedder = load_embedder(settings)
    progress("Filling the index")
    ids = fill(settings, embedder.dimension, embedder.fingerprint)
    rng = np.random.default_rng(9)
    vectors = [
        base64.b64encode((rng.random(embedder.dimension) ** 4).astype("<f2").tobytes()).decode() for _ in range(QUERIES)
    ]
    asked: list[Request] = []
    for number in range(QUERIES):
        body: list[dict[str, Any]] = [{"files": {"image": picture(10**6 + number)}}]
        body.append({"json": {"vector": vectors[number]}})
        body.append({"json": {"item": ids[number * 97 % ITEMS_MADE]}})
        asked.append(("POST", "/v1/search", body[number % 3]))

    def answers(function: Function) -> list[bytes]:
        return [_answer(function.ask(one, f"192.0.2.{number}")) for number, one in enumerate(asked)]

    with tempfile.TemporaryDirectory() as folder:
        function = Function(settings, Path(folder))
        try:
            before = answers(function)
            start, started = function.usage(), time.monotonic()
            sent = Counter[int]()

            def one(number: int) -> None:
                address = f"10.{number % 40}.{number % 250}.{number % 7}"
                answer = function.ask(hostile(number, ids, vectors), f"1.1.1.1, {address}")
                sent[answer.status_code] += 1
                if number % 1000 == 999:
                    progress(f"{number + 1} requests, {time.monotonic() - started:.0f} s")

            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(one, range(requests)))
            seconds, end = time.monotonic() - started, function.usage()
            after = answers(function)
            report: dict[str, Any] = {
                "requests": requests,
                "seconds": round(seconds),
                "statuses": {str(status): count for status, count in sorted(sent.items())},
                "peak_mb": round(function.peak_bytes() / 2**20),
                "limit_mb": round(settings.function_memory_gib * 1024),
                "worker_survived": end["pid"] == start["pid"] == function.usage()["pid"],
                "changed": sum(a != b for a, b in zip(before, after, strict=True)),
                "meters": _meters(start, end),
            }
        finally:
            function.stop()
        with App(msgspec.structs.replace(settings, backend="local")) as app:
            app.merge()
        function = Function(settings, Path(folder))
        try:
            moved = [abs(_confidence(a) - _confidence(b)) for a, b in zip(before, answers(function), strict=True)]
            report["moved_after_merge"] = round(max(moved), 4)
        finally:
            function.stop()
    return report


def _answer(response: httpx.Response) -> bytes:
    document = response.raise_for_status().json()
    del document["timing_ms"]
    return json.dumps(document).encode()


def _confidence(answer: bytes) -> float:
    return float(json.loads(answer)["confidence"])


def _meters(start: dict[str, Any], end: dict[str, Any]) -> dict[str, str]:
    counted = {"class_b": "class_b", "firestore_reads": "document_reads", "firestore_writes": "document_writes"}
    return {
        resource: f"{end['metered'].get(resource, 0) - start['metered'].get(resource, 0):.0f} of "
        f"{end['counted'][name] - start['counted'][name]}"
        for resource, name in counted.items()
    }


@click.command("abuse")
@click.option("--requests", default=10_000, show_default=True, type=click.IntRange(100), help="How many.")
@as_json
def abuse_command(requests: int, as_json: bool) -> None:
    """Send the worst requests to the search function, and measure what they leave behind."""
    own = Settings.read()
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as home:
        report = measure(deployed(own, Path(home)), requests, say)
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        click.echo(f"{name:20} {value}")
