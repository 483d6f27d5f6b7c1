"""`visor bench search`: one size of index, Visor against the first prototype's method."""

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

from visor.console import as_json, say
from visor.index.format.container import Array
from visor.settings import Settings
from visor_bench import vectors
from visor_bench.base import base_vectors, print_figures, vector_options
from visor_bench.speed.search import index as search_index
from visor_bench.speed.search.turns import ask_in_turns

QUERIES = 500
OTHERS = 200
"""Queries of two other kinds: the photos from which the vectors are mixed, and means of five of them, which are near to
nothing."""
PROTOTYPE_IMAGES = 70_000
"""Most vectors on which the prototype is timed; its time grows linearly, so larger indexes are extrapolated."""
PROTOTYPE_RUNS = 3


GROWTH = ("fast_p50_ms", "exact_p50_ms", "resident_mb", "stored_mb", "merge_s", "first_answer_s")
"""Figures that may grow at most as much as the number of images."""
GROWTH_FROM = 1_000_000
"""From this many images on, growth is measured by default."""


@click.command("search")
@click.option("--images", default=70_000, show_default=True, type=click.IntRange(min=100))
@vector_options
@click.option(
    "--smaller",
    type=click.IntRange(min=100),
    help=f"Also measure this many images and print the growth (default: a tenth, from {GROWTH_FROM:,} images on).",
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Build here and keep it (default: /tmp)."
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The `visor` of another checkout: it indexes the same vectors its own way, and both are searched in turns.",
)
@as_json
def search_command(
    images: int,
    pictures: Path | None,
    file: Path | None,
    model: str | None,
    smaller: int | None,
    keep: Path | None,
    against: Path | None,
    as_json: bool,
) -> None:
    """Latency, recall, memory and size of one index of made vectors, and the prototype's latency."""
    base, origin = base_vectors(pictures, file, model)
    say(f"{len(base)} base vectors of {base.shape[1]} numbers: {origin}")
    if smaller is None and images >= GROWTH_FROM:
        smaller = images // 10
    less = None if smaller is None else _measure_in(None, smaller, base)
    document = _measure_in(keep, images, base, against)
    if less is not None:
        document["growth"] = growth(less, document)
    document["vectors"] = origin
    print_figures(document, as_json)


def _measure_in(home: Path | None, images: int, base: Array, against: Path | None = None) -> dict[str, Any]:
    if home is None:
        with tempfile.TemporaryDirectory(prefix="visor-bench-") as folder:
            return _measure_in(Path(folder), images, base, against)
    document = measure(images, base, home, say)
    return document if against is None else document | {"against": measure_against(against, images, base, home)}


def measure_against(command: Path, images: int, base: Array, home: Path) -> dict[str, Any]:
    """The figures of another checkout's `visor bench search` on the same vectors, and the result of `ask_in_turns`.

    Args:
        command: Its `visor`, with its interpreter beside it.
        home: The folder of this Visor's index.
    """
    say(f"{command} indexes the same vectors")
    with tempfile.TemporaryDirectory(prefix="visor-bench-against-") as folder:
        other, file = Path(folder) / "index", Path(folder) / "base.npy"
        np.save(file, base)
        options = ["--images", str(images), "--smaller", "100", "--vectors", str(file), "--keep", str(other), "--json"]
        done = subprocess.run(  # noqa: S603 - the developer's own checkout
            [str(command), "bench", "search", *options], check=True, stdout=subprocess.PIPE, text=True
        )
        theirs: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        say("asking both in turns")
        pythons = sys.executable, str(command.parent / "python")
        turns = ask_in_turns(pythons, (home, other), home / "queries.npy")
    return {**{name: theirs[name] for name in ("recall_at_12", "resident_mb", "stored_bytes_per_image")}, **turns}


def growth(less: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The ratio of each figure at `more` images to that at `less`, and whether none outgrows the images."""
    ratios = {name: round(more[name] / max(less[name], 1e-9), 2) for name in ("images", *GROWTH)}
    linear = all(ratios[name] <= ratios["images"] for name in GROWTH)
    return {"from_images": less["images"], **ratios, "at_most_linear": linear}


def measure(images: int, base: Array, home: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Build an index of `images` made vectors under `home`, search it in a new process, time the prototype."""
    built = search_index.build(home, base, images, say)
    queries = np.concatenate(list(vectors.mixed(base, QUERIES, seed=2)))
    queries_file = home / "queries.npy"
    np.save(queries_file, queries.astype(np.float32))
    others = {
        "photos": base[:OTHERS],
        "far": base[np.random.default_rng(3).integers(len(base), size=(OTHERS, 5))].mean(1),
    }
    for name, vectors_of in others.items():
        np.save(home / f"{name}.npy", vectors_of)
    files = [str(queries_file), _model_directory(), *(str(home / f"{name}.npy") for name in others)]
    command = [sys.executable, "-m", "visor_bench.speed.search.process", str(home), *files]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    searched: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    del searched["ids"]
    say("searched; timing the prototype's way")
    prototype_ms = prototype(base, queries, min(images, PROTOTYPE_IMAGES)) * max(1.0, images / PROTOTYPE_IMAGES)
    return {
        **searched,
        **built,
        "stored_mb": round(built["stored_bytes_per_image"] * images / 1e6, 1),
        "prototype_p50_ms": round(prototype_ms, 1),
        "prototype_images": min(images, PROTOTYPE_IMAGES),
        "speedup": round(prototype_ms / searched["fast_p50_ms"], 1),
        "dimension": int(base.shape[1]),
    }


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
    from visor.models.store import model_directory

    settings = Settings.read()
    try:
        directory = model_directory(settings, settings.model)
    except VisorError:
        return ""
    return str(directory) if directory.exists() else ""
