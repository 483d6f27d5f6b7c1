"""`visor eval`: measure how well a labelled folder is found."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import numpy as np

from visor.commands.options import as_json, print_json, progress, say
from visor.errors import BadRequest, UndecodableImage
from visor.evaluation import Labelled, evaluate
from visor.images.decode import decode
from visor.models.build import ensure_model
from visor.models.run import Embedder, load_embedder
from visor.settings import Settings

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"})
_AT_ONCE = 32

Folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("eval")
@click.argument("folder", type=Folder)
@click.option("--index-folder", type=Folder, help="Search in this labelled folder instead of leave-one-out.")
@click.option("--model", "model_name", help="Measure this model instead of the one that is set.")
@click.option("--metric", default="cosine", show_default=True, help="A SciPy metric, on the full vectors.")
@as_json
def eval_command(folder: Path, index_folder: Path | None, model_name: str | None, metric: str, as_json: bool) -> None:
    """Search for each picture in FOLDER and see whether what comes first has its label.

    A picture's label is the sub-folder of FOLDER that it lies in.
    """
    settings = Settings.read()
    if model_name is not None:
        settings = msgspec.structs.replace(settings, model=model_name)
    ensure_model(settings, say=say)
    embedder = load_embedder(settings)
    queries = embed_folder(folder, embedder, settings.pixels_max)
    index = None if index_folder is None else embed_folder(index_folder, embedder, settings.pixels_max)
    figures = evaluate(queries, index, metric=metric)
    document = {
        "model": embedder.description.name,
        "fingerprint": embedder.fingerprint,
        "metric": metric,
        **msgspec.to_builtins(figures),
    }
    if as_json:
        print_json(document)
        return
    where = "leave-one-out" if index is None else f"among {figures.images} pictures"
    click.echo(f"{figures.queries} queries of {figures.labels} labels, {where}, {embedder.description.name}, {metric}")
    click.echo(f"P@1   {figures.p_at_1:.3f}   the nearest has the query's label")
    click.echo(f"P@12  {figures.p_at_12:.3f}   share of the 12 nearest that have it")
    click.echo(f"mAP   {figures.map:.3f}   over the whole ranking")
    if figures.separation is not None:
        click.echo(f"AUROC {figures.separation:.3f}   the best similarity tells right from wrong first guesses")


def labelled_files(folder: Path) -> list[tuple[Path, str]]:
    """Every picture below a sub-folder of `folder` with that sub-folder's name, sorted by path."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    found = [(path, path.relative_to(folder).parts) for path in sorted(files)]
    return [(path, parts[0]) for path, parts in found if len(parts) > 1]


def embed_folder(folder: Path, embedder: Embedder, pixels_max: int) -> Labelled:
    """Vectors of all pictures that decode; what does not is said on standard error and left out.

    Raises:
        BadRequest: No labelled picture is in the folder.
    """
    files = labelled_files(folder)
    side = embedder.description.input_side
    vectors: list[np.ndarray] = []
    labels: list[str] = []
    with progress(f"embedding {folder.name}", len(files)) as add:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            pictures = []
            for path, label in some:
                try:
                    decoded = decode(path.read_bytes(), pixels_max=pixels_max, side_hint=side)
                except UndecodableImage as exc:
                    say(f"left out {path}: {exc}")
                    continue
                pictures.append(decoded.pixels)
                labels.append(label)
            vectors.append(embedder.embed(pictures).vectors)
            add(len(some))
    if not labels:
        raise BadRequest(
            f"There is no labelled picture in {folder}",
            valid="A sub-folder for each label, with pictures in it",
            remedy="Name the folder above the labels",
        )
    return Labelled(np.concatenate(vectors), labels)
