"""`visor bench embed`: what embedding costs, with the shipped files and the float32 ones, in turn in the same run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import numpy as np

from visor.console import as_json, say
from visor.settings import Settings
from visor_bench.base import print_figures
from visor_bench.speed.look import timed

if TYPE_CHECKING:
    from visor.models.description import Variant

SIZE = 2448, 1632
"""Pixels of the JPEG that is embedded: 4 megapixels."""
MANY = 24
"""Pictures that are embedded at once."""
FLOAT: Final = "float32"


@click.command("embed")
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(1), help="Times to embed; medians count.")
@click.option("--picture", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Photo to embed.")
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Checkout of another version, which embeds in turn with this one; its model has to be built.",
)
@as_json
def embed_command(rounds: int, picture: Path | None, against: Path | None, as_json: bool) -> None:
    """Time a query from the bytes of a 4-megapixel JPEG to vector, labels and safety, and many pictures at once."""
    document = compare(against, rounds, jpeg(picture)) if against else measure(Settings.read(), rounds, jpeg(picture))
    print_figures(document, as_json)


def measure(settings: Settings, rounds: int, data: bytes) -> dict[str, Any]:
    """Time the model of the settings and its float32 files, which are built if need be, in turn.

    Returns:
        `query_ms`: from the bytes to vector, labels and safety, and `query_cpu_ms` the processor time of it;
        `decode_ms` of it; `images_per_s` of many decoded pictures, on all cores; `first_vector_s` after the start of a
        process, and `resident_mb` of one that has answered queries only; `float32`: the same; `speedup` of `query_ms`.
    """
    from visor.models.build.builder import build_model
    from visor.models.embedder import Embedder

    variants: tuple[Variant, ...] = ("int8", FLOAT)
    folders = {variant: build_model(settings, settings.model, say=say, variant=variant) for variant in variants}
    embedders = {variant: Embedder(folder, threads=settings.threads) for variant, folder in folders.items()}
    took: dict[str, list[dict[str, float]]] = {variant: [] for variant in folders}
    for _ in range(rounds + 1):
        for variant, embedder in embedders.items():
            took[variant].append(_round(embedder, data, settings.pixels_max))
    for variant, folder in folders.items():
        took[variant][0] = {}  # the first one fills caches
        for _ in range(3):
            took[variant].append(_process(folder, data))
    figures = {variant: _medians(rows) for variant, rows in took.items()}
    shipped, float32 = figures["int8"], figures[FLOAT]
    return {
        **shipped,
        FLOAT: float32,
        "speedup": round(float32["query_ms"] / shipped["query_ms"], 2),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def compare(other: Path, rounds: int, data: bytes) -> dict[str, Any]:
    """This version and that of the checkout `other` in turn, each in its own process.

    Returns:
        Medians of `query_ms`, `query_cpu_ms`, `decode_ms` and `images_per_s` of `this` and of the `other`; `ratio`: the
        median of this one's figure by the other's in the same round.
    """
    trees = {"this": Path(__file__).resolve().parents[3], "other": other.resolve()}
    took: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as scratch, ExitStack() as stack:
        picture = Path(scratch, "picture.jpg")
        picture.write_bytes(data)
        looking = {name: stack.enter_context(_looking(tree, picture)) for name, tree in trees.items()}
        for _ in range(rounds):
            for name, process in looking.items():
                process.stdin.write("\n")
                process.stdin.flush()
                took[name].append(json.loads(process.stdout.readline()))
    pairs = list(zip(took["this"], took["other"], strict=True))
    return {
        **{name: _medians(rows) for name, rows in took.items()},
        "ratio": _medians([{name: a[name] / b[name] for name in a} for a, b in pairs]),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


@contextmanager
def _looking(tree: Path, picture: Path) -> Iterator[Any]:
    """The process of `visor_bench.speed.look` with the Visor of that checkout."""
    environ = os.environ | {"PYTHONPATH": str(tree / "shared")}
    command = [sys.executable, "-P", str(Path(__file__).with_name("look.py")), str(picture)]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()


def jpeg(picture: Path | None = None) -> bytes:
    """A 4-megapixel JPEG of quality 90: of a photo, or of blurred noise and edges."""
    from PIL import Image, ImageFilter

    if picture is None:
        cells = np.random.default_rng(3).integers(0, 256, (102, 153, 3), np.uint8)
        image = Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC).filter(ImageFilter.UnsharpMask(3))
    else:
        image = Image.open(picture).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _round(embedder: Any, data: bytes, pixels_max: int) -> dict[str, float]:
    from visor.imaging.decode import decode_image

    def decoded() -> Any:
        return decode_image(data, pixels_max=pixels_max, side_hint=embedder.description.input_side).pixels

    decode_ms, _ = timed(decoded)
    query_ms, query_cpu_ms = timed(lambda: embedder.embed([decoded()]))
    pixels = decoded()
    many_ms, _ = timed(lambda: embedder.embed([pixels] * MANY))
    return {
        "query_ms": query_ms,
        "query_cpu_ms": query_cpu_ms,
        "decode_ms": decode_ms,
        "images_per_s": MANY / many_ms * 1000,
    }


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: round(statistics.median(row[name] for row in rows if name in row), 2) for name in names}


def _process(folder: Path, data: bytes) -> dict[str, float]:
    command = [sys.executable, "-m", "visor_bench.speed.embed", str(folder)]
    answer: dict[str, float] = json.loads(subprocess.run(command, input=data, capture_output=True, check=True).stdout)  # noqa: S603
    return answer


def main() -> None:
    """In its own process. Argument: a model directory; the JPEG comes on standard input."""
    from visor.models.embedder import Embedder

    settings, data = Settings(), sys.stdin.buffer.read()
    embedder = Embedder(Path(sys.argv[1]), threads=settings.threads)
    _look(embedder, data, settings.pixels_max)
    looked = time.time()
    # Only now, as it imports SciPy.
    from visor_bench.speed.search.process import process_start, resident_mb

    for _ in range(5):
        _look(embedder, data, settings.pixels_max)
    print(json.dumps({"first_vector_s": looked - process_start(), "resident_mb": resident_mb()}))


def _look(embedder: Any, data: bytes, pixels_max: int) -> None:
    from visor.imaging.decode import decode_image

    embedder.embed([decode_image(data, pixels_max=pixels_max, side_hint=embedder.description.input_side).pixels])


if __name__ == "__main__":
    main()
