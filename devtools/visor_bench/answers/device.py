"""`visor bench device`: what a browser sees itself, compared with what the server sees in the same files."""

from __future__ import annotations

import base64
import json
import mimetypes
import shutil
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np

from visor.console import as_json, progress
from visor.errors import SettingsError
from visor.models.device import device_model
from visor.near_duplicates.fingerprint import PDQ_BYTES
from visor.schema.search import SearchAnswer, SearchRequest, Seen
from visor.search.links import decode_vector
from visor.search.query import Stopwatch
from visor.settings import Settings
from visor.web.site import PAGE, Server
from visor_bench.answers.gap import FOLDER, Article, Bench, index_of
from visor_bench.base import print_figures

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

FIRST = 12
"""Matches of a first page."""
LOAD = """async ([worker, described]) => {
  const looking = new Worker(worker);
  const waiting = new Map();
  looking.onmessage = ({ data }) => "progress" in data || waiting.get(data.id)(data);
  globalThis.ask = (task) => new Promise((done) => {
    waiting.set(waiting.size, done);
    looking.postMessage({ id: waiting.size - 1, task });
  });
  const start = performance.now();
  const { reason, detail } = await ask({ do: "load", ...described });
  return reason ? `${reason}: ${detail}` : performance.now() - start;
}"""
LOOK = """async (address) => {
  const file = await (await fetch(address)).blob();
  const start = performance.now();
  const said = await ask({ do: "look", file, box: null, exclude: [] });
  return { ...said, ms: performance.now() - start };
}"""


@click.command("device")
@click.option("--pictures", type=FOLDER, required=True, help="Photos: some are searched for among the others.")
@click.option("--queries", type=int, default=100, show_default=True, help="How many are searched for.")
@click.option("--catalogue", "items", type=int, default=600, show_default=True, help="At most this many are searched.")
@click.option("--seed", type=int, default=1, show_default=True)
@as_json
def device_command(pictures: Path, queries: int, items: int, seed: int, as_json: bool) -> None:
    """Search for photos as a headless Chromium sees them, and as the server does, each with its own decoder."""
    files = sorted(p for p in pictures.rglob("*") if (mimetypes.guess_type(p.name)[0] or "").startswith("image/"))
    files = [files[place] for place in np.random.default_rng(seed).permutation(len(files))]
    asked, catalogue = files[:queries], files[queries : queries + items]
    articles = [Article(key=str(path.relative_to(pictures)), path=path, title=path.stem) for path in catalogue]
    with index_of(articles, Settings.read()) as bench:
        rows = list(_rows(bench, asked))
    document = {"queries": len(rows), "catalogue": len(catalogue), **_figures(rows)}
    print_figures(document, as_json)


def _rows(bench: Bench, files: Sequence[Path]) -> Iterator[dict[str, float]]:
    """How alike both embeddings of each file are, and what they find."""
    with _browser(bench, files) as (page, load_ms), progress("Looking", len(files)) as done:
        for number, path in enumerate(files):
            said = page.evaluate(LOOK, f"/file/{number}")
            if "result" not in said:
                raise SettingsError(f"{path} is not seen: {said['reason']}, {said['detail']}", valid="Photos")
            seen = msgspec.convert(said["result"], Seen)
            image = base64.b64encode(path.read_bytes()).decode()
            theirs = bench.service.search(SearchRequest(image=image, k=FIRST))
            ours = bench.service.search(SearchRequest(seen=seen, k=FIRST))
            yield {"ms": said["ms"], "load_ms": load_ms, **_alike(bench, seen, image), **_found(ours, theirs)}
            done(1)


def _alike(bench: Bench, seen: Seen, image: str) -> dict[str, float]:
    query = bench.service.queries.query(SearchRequest(image=image), None, Stopwatch())
    vector, _ = decode_vector(seen.vector, bench.embedder.dimension)
    assert query.hashes is not None
    hashes = np.frombuffer(base64.b64decode(seen.hash), np.uint8)
    bits = np.unpackbits(hashes[:PDQ_BYTES] ^ query.hashes[:PDQ_BYTES]).sum()
    return {"cosine": float(vector @ query.vector), "hash_bits": int(bits)}


def _found(ours: SearchAnswer, theirs: SearchAnswer) -> dict[str, float]:
    mine, others = ([match.item.id for match in one.matches] for one in (ours, theirs))
    return {
        "first": float(mine[:1] == others[:1]),
        "page": len(set(mine) & set(others)) / max(len(others), 1),
        "confidence": abs(ours.confidence - theirs.confidence),
        "verdict": float([m.verdict for m in ours.matches[:1]] == [m.verdict for m in theirs.matches[:1]]),
    }


def _figures(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    def of(name: str) -> list[float]:
        return [row[name] for row in rows]

    return {
        "cosine_median": round(statistics.median(of("cosine")), 5),
        "cosine_least": round(min(of("cosine")), 5),
        "hash_bits_most": max(of("hash_bits")),
        "first_same": round(statistics.mean(of("first")), 3),
        "first_12_same": round(statistics.mean(of("page")), 3),
        "verdict_same": round(statistics.mean(of("verdict")), 3),
        "confidence_apart_median": round(statistics.median(of("confidence")), 4),
        "confidence_apart_most": round(max(of("confidence")), 4),
        "load_ms": round(rows[0]["load_ms"]),
        "look_ms_median": round(statistics.median(of("ms"))),
        "look_ms_most": round(max(of("ms"))),
    }


@contextmanager
def _browser(bench: Bench, files: Sequence[Path]) -> Iterator[tuple[Any, float]]:
    """A page of a headless Chromium whose worker has the model, and the milliseconds that took."""
    from playwright.sync_api import sync_playwright

    worker = next((PAGE / "assets").glob("worker-*.js"), None)
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if worker is None or program is None:
        raise SettingsError(
            "There is no built page" if worker is None else "There is no Chromium",
            valid="A browser and the page",
            remedy="Run make setup, and install the package chromium",
        )
    manifest = bench.embedder.manifest
    model = json.loads(msgspec.json.encode(device_model(manifest, closer=True)))

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        kind, _, name = environ["PATH_INFO"].strip("/").partition("/")
        path = {
            "assets": PAGE / "assets" / name,
            "file": files[int(name)] if kind == "file" else None,
            "model": bench.embedder.path_of(name.removesuffix(".tflite")) if kind == "model" else None,
        }.get(kind)
        data = path.read_bytes() if path else b"<!doctype html><title>Visor</title>"
        media_type = (mimetypes.guess_type(path.name)[0] or "application/octet-stream") if path else "text/html"
        start_response("200 OK", [("Content-Type", media_type), ("Content-Length", str(len(data)))])
        return [data]

    server = Server(answer).start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.goto(f"{server.address}/")
            described = {"model": model, "base": f"{server.address}/model/"}
            load_ms = page.evaluate(LOAD, [f"/assets/{worker.name}", described])
            if not isinstance(load_ms, float | int):
                raise SettingsError(f"Chromium does not run the model: {load_ms}", valid="Files that LiteRT runs")
            yield page, float(load_ms)
            browser.close()
    finally:
        server.stop()
