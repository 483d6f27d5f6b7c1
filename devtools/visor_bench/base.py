"""What benchmarks share: the vectors that they mix (from real pictures, or stand-ins), and how figures are printed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
import numpy as np

from visor.errors import ModelNotBuilt
from visor.index.format.container import Array
from visor.index.format.projection import unit
from visor.settings import Settings
from visor_bench.vectors import stand_ins

if TYPE_CHECKING:
    from visor.models.embedder import Embedder

PHOTOS = Path("../shared/data")
"""Photos that are used if they are next to the checkout and no others are named."""

Command = TypeVar("Command", bound=Callable[..., Any])


def vector_options(command: Command) -> Command:
    """`--pictures`, `--vectors` and `--model`, as `base_vectors` takes them."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    npy = click.Path(exists=True, dir_okay=False, path_type=Path)
    beside = f"Real pictures to mix vectors of (default: {PHOTOS}, where it is)."
    command = click.option("--model", help="The model for --pictures, instead of the configured one.")(command)
    command = click.option("--vectors", "file", type=npy, help="A .npy of real vectors (n, d) to mix.")(command)
    return click.option("--pictures", type=folder, help=beside)(command)


def print_figures(document: dict[str, Any], as_json: bool) -> None:
    """Print what was measured: one line of JSON, or one line per figure."""
    if as_json:
        click.echo(msgspec.json.encode(document))
        return
    for name, value in document.items():
        click.echo(f"{name:32} {value}")


def base_vectors(pictures: Path | None, file: Path | None, model: str | None = None) -> tuple[Array, str]:
    """Real vectors (n, d) float32 of unit length, from a file or a folder's pictures, and a text that says which.

    Without either: from the photos next to the checkout, if they and a built model are there, else stand-ins.

    A model that is named, or needed for pictures that are named, is built if it has to be.
    """
    if file is not None:
        return unit(np.load(file).astype(np.float32)), f"of {file.name}, mixed"
    folder = pictures or (PHOTOS if PHOTOS.is_dir() else None)
    if folder is None:
        return stand_ins(), "stand-ins with a falling spectrum (name --pictures FOLDER for real ones), mixed"
    from visor.console import say
    from visor.models.build.builder import ensure_model
    from visor.models.embedder import load_embedder

    settings = Settings.read()
    if model is not None:
        settings = msgspec.structs.replace(settings, model=model)
    if pictures is not None or model is not None:
        ensure_model(settings, say=say)
    try:
        embedder = load_embedder(settings)
    except ModelNotBuilt:
        return stand_ins(), "stand-ins with a falling spectrum (no model is built for real ones), mixed"
    vectors = _of_pictures(folder, settings, embedder)
    name = embedder.description.name
    return vectors, f"{len(vectors)} pictures of {folder.resolve().name} by {name}, mixed"


def _of_pictures(folder: Path, settings: Settings, embedder: Embedder) -> Array:
    """Vectors of the labelled pictures in a folder; kept under `VISOR_HOME` for further benchmarks."""
    from visor.evaluation.folder import embedded_folder, labelled_files

    files = [(str(path.relative_to(folder)), path.stat().st_size) for path, _ in labelled_files(folder)]
    digest = hashlib.blake2b(msgspec.json.encode([embedder.fingerprint, files]), digest_size=8).hexdigest()
    kept = settings.home / "bench" / f"{digest}.npy"
    if kept.exists():
        return unit(np.load(kept))
    vectors = embedded_folder(folder, settings, embedder).vectors
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, vectors)
    return unit(vectors)
