"""`visor bench search`: one size of index, Visor against the first prototype's way."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.spatial.distance import cdist

from visor.bench import search_index, vectors
from visor.index.container import Array
from visor.index.space import unit
from visor.settings import Settings

QUERIES = 500
PROTOTYPE_IMAGES = 70_000
"""Vectors that the prototype's way is timed on at most; a larger index is reckoned from it, for it grows linearly."""
PROTOTYPE_RUNS = 3


@click.command("search")
@click.option("--images", default=70_000, show_default=True, type=click.IntRange(min=100))
@click.option("--pictures", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Real ones to mix.")
@click.option(
    "--vectors",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .npy of real vectors to mix.",
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Build here and leave it (default: /tmp)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def search_command(images: int, pictures: Path | None, file: Path | None, keep: Path | None, as_json: bool) -> None:
    """Latency, recall, memory and size of one index of made vectors, and the prototype's latency."""
    say: Callable[[str], None] = lambda line: click.echo(line, err=True)  # noqa: E731
    base, origin = base_vectors(pictures, file)
    say(f"{len(base)} base vectors of {base.shape[1]} numbers: {origin}")
    if keep is not None:
        document = measure(images, base, keep, say)
    else:
        with tempfile.TemporaryDirectory(prefix="visor-bench-") as folder:
            document = measure(images, base, Path(folder), say)
    document["vectors"] = origin
    if as_json:
        click.echo(json.dumps(document))
        return
    for name, value in document.items():
        click.echo(f"{name:24} {value}")


def measure(images: int, base: Array, home: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Build an index of `images` made vectors under `home`, search it in a fresh process, time the prototype's way."""
    built = search_index.build(home, base, images, say)
    queries = np.concatenate(list(vectors.mixed(base, QUERIES, seed=2)))
    queries_file = home / "queries.npy"
    np.save(queries_file, queries.astype(np.float32))
    model = _model_directory()
    command = [sys.executable, "-m", "visor.bench.search_process", str(home), str(queries_file), model]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    searched: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    del searched["ids"]
    say("searched; timing the prototype's way")
    prototype_ms = prototype(base, queries, min(images, PROTOTYPE_IMAGES)) * max(1.0, images / PROTOTYPE_IMAGES)
    return {
        **searched,
        **built,
        "prototype_p50_ms": round(prototype_ms, 1),
        "prototype_images": min(images, PROTOTYPE_IMAGES),
        "speedup": round(prototype_ms / searched["fast_p50_ms"], 1),
        "dimension": int(base.shape[1]),
    }


def base_vectors(pictures: Path | None, file: Path | None) -> tuple[Array, str]:
    """Real vectors (n, d) float32 of a folder's pictures or of a file, or stand-ins, and words that say which."""
    if file is not None:
        return unit(np.load(file).astype(np.float32)), f"of {file.name}, mixed"
    if pictures is None:
        return vectors.stand_ins(), "stand-ins with a falling spectrum (name --pictures FOLDER for real ones), mixed"
    from visor.models.run import load_embedder

    embedder = load_embedder(Settings.read())
    return vectors.real_vectors(
        pictures, embedder
    ), f"pictures of {pictures.name} by {embedder.description.name}, mixed"


def prototype(base: Array, queries: Array, images: int) -> float:
    """Median milliseconds of SciPy's `cdist` over .npy shards of float32 in memory, and a sort of all distances."""
    shards = [block.astype(np.float32)[:, : vectors.DIMENSION] for block in vectors.mixed(base, images, seed=1)]
    took = []
    for query in queries[:PROTOTYPE_RUNS].astype(np.float32):
        started = time.perf_counter()
        distances = np.concatenate([cdist(query[None, : vectors.DIMENSION], shard, "cosine")[0] for shard in shards])
        np.argsort(distances)[:12]
        took.append((time.perf_counter() - started) * 1000)
    return float(np.median(took))


def _model_directory() -> str:
    """The directory of the model that is built here, so that memory is measured with it; '' if there is none."""
    from visor.errors import VisorError
    from visor.models.directory import model_directory

    settings = Settings.read()
    try:
        directory = model_directory(settings, settings.model)
    except VisorError:
        return ""
    return str(directory) if directory.exists() else ""
