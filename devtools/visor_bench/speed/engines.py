"""`visor bench engines`: do a vector engine and Visor's segments give the same answers, and what does each cost?"""

from __future__ import annotations

import io
import multiprocessing
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from PIL import Image, ImageEnhance

from visor.console import as_json, print_json, say
from visor.settings import Settings

K = 12
QUERIES = 300
WARM = 10
"""Searches before those that are timed."""


@click.command("engines")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--engine", default="milvus", show_default=True, type=click.Choice(["milvus", "pgvector"]))
@click.option("--url", default="", help="URL of the engine; empty: Milvus Lite in a temporary folder.")
@click.option("--queries", default=QUERIES, show_default=True)
@as_json
def engines_command(folder: Path, engine: str, url: str, queries: int, as_json: bool) -> None:
    """Index FOLDER once, merge it into segments and into a vector engine, and send both the same queries.

    The queries are parts of its pictures, smaller, darker or brighter, and compressed again. `same_twelve`: share of
    the queries with the same first twelve items in the same order; `confidence_gap`: the largest difference of the
    confidence of an answer or of one of its matches. Each runs in its own process; `ms` is of the scan alone.
    """
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as home:
        document = measure(folder.resolve(), engine, url, queries, Path(home))
    if as_json:
        print_json(document)
        return
    for name, value in document.items():
        click.echo(f"{name}: {value}")


def measure(folder: Path, engine: str, url: str, queries: int, home: Path) -> dict[str, Any]:
    """The figures of one folder; `home` keeps both indexes meanwhile."""
    from visor.models.store import models_folder

    settings = Settings.read()
    base = msgspec.structs.replace(
        settings, models=str(models_folder(settings)), allow_folders=(str(folder),), config=home / "visor.toml"
    )
    first = msgspec.structs.replace(base, home=home / "segments", engine="segments")
    second = msgspec.structs.replace(
        base, home=home / "engine", engine=engine, engine_url=url or str(home / "milvus.db"), index="default"
    )
    say(f"Embedding {folder}")
    _in_process(_embed, first, folder)
    shutil.copytree(first.home, second.home)
    found = {}
    for name, one in (("segments", first), (engine, second)):
        say(f"Asking {name}")
        found[name] = _in_process(_ask, one, folder, queries)
    ours, theirs = found["segments"].pop("answers"), found[engine].pop("answers")
    same = [a["ids"] == b["ids"] for a, b in zip(ours, theirs, strict=True)]
    sets = [set(a["ids"]) == set(b["ids"]) for a, b in zip(ours, theirs, strict=True)]
    gaps = [abs(a["confidence"] - b["confidence"]) for a, b in zip(ours, theirs, strict=True)]
    for a, b in zip(ours, theirs, strict=True):
        of_b = dict(zip(b["ids"], b["matches"], strict=True))
        gaps += [abs(x - of_b[i]) for i, x in zip(a["ids"], a["matches"], strict=True) if i in of_b]
    return {
        "images": found["segments"]["images"],
        "queries": len(ours),
        "same_twelve": round(float(np.mean(same)), 4),
        "same_set": round(float(np.mean(sets)), 4),
        "confidence_gap": round(max(gaps), 4),
        **{name: {key: value for key, value in one.items() if key != "images"} for name, one in found.items()},
    }


def _in_process(call: Any, *arguments: Any) -> Any:
    """What it returns from a separate process, with separate memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _embed(settings: Settings, folder: Path) -> None:
    from visor.app import App
    from visor.ingest.worker import Worker

    with App(settings) as app:
        app.crawler.crawl(app.open_folder(folder))
        Worker(app.stores.queue, app.batch_embedder).drain()


def _ask(settings: Settings, folder: Path, queries: int) -> dict[str, Any]:
    from visor.app import App
    from visor.evaluation.folder import labelled_files
    from visor.imaging.decode import decode_image
    from visor.schema.search import SearchRequest

    rng = np.random.default_rng(0)
    files = [path for path, _ in labelled_files(folder)]
    with App(settings) as app:
        began = time.perf_counter()
        images = app.merge().images
        merged_s = time.perf_counter() - began
        service, answers, scans = app.search_service(), [], []
        for number in rng.integers(len(files), size=queries + WARM).tolist():
            picture = decode_image(files[number].read_bytes(), pixels_max=settings.pixels_max).pixels
            photo = _photo(picture, rng)
            answer = service.search(SearchRequest(k=K), photo)
            answers.append(
                {
                    "ids": [match.item.id for match in answer.matches],
                    "matches": [match.confidence for match in answer.matches],
                    "confidence": answer.confidence,
                }
            )
            scans += [answer.timing_ms["scan"]] if "scan" in answer.timing_ms else []
        pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return {
        "images": images,
        "merge_s": round(merged_s, 2),
        "p50_ms": round(float(np.median(scans[WARM:])), 2),
        "p95_ms": round(float(np.quantile(scans[WARM:], 0.95)), 2),
        "resident_mb": round(pages * 4096 / 1e6),
        "answers": answers[WARM:],
    }


def _photo(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """A part of a picture, 55 to 100 % of each side, at most 480 pixels, in another light, as JPEG."""
    width, height = (max(1, int(side * rng.uniform(0.55, 1))) for side in picture.size)
    left, top = (
        int(rng.integers(0, side - part + 1)) for side, part in zip(picture.size, (width, height), strict=True)
    )
    part = picture.convert("RGB").crop((left, top, left + width, top + height))
    part.thumbnail((480, 480))
    bright = ImageEnhance.Brightness(part).enhance(float(rng.uniform(0.7, 1.3)))
    file = io.BytesIO()
    bright.save(file, "JPEG", quality=int(rng.integers(50, 90)))
    return file.getvalue()
