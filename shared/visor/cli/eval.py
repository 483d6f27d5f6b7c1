"""`visor eval`: measure how well a labelled folder is found."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from visor.console import GivenPath, as_json, print_json, say
from visor.evaluation.confidence import first_confidences
from visor.evaluation.folder import EmbeddedFolder, check_labels, embedded_folder
from visor.evaluation.scores import Labelled, area_under_roc, evaluate
from visor.index.search.metrics import check_metric
from visor.models.build.builder import ensure_model
from visor.models.embedder import load_embedder
from visor.schema.words import counted
from visor.settings import Settings

Folder = GivenPath(exists=True, file_okay=False)


@click.command("eval")
@click.argument("folder", type=Folder)
@click.option("--index-folder", type=Folder, help="Search in this labelled folder instead of leave-one-out.")
@click.option("--model", "model_name", help="Measure this model instead of the one that is set.")
@click.option("--metric", default="cosine", show_default=True, help="A SciPy metric, on the full vectors.")
@as_json
def eval_command(folder: Path, index_folder: Path | None, model_name: str | None, metric: str, as_json: bool) -> None:
    """Search for each image in FOLDER, and count how often the first results have its label.

    The label of an image is the sub-folder of FOLDER that contains it.
    """
    settings = Settings.read()
    if model_name is not None:
        settings = msgspec.structs.replace(settings, model=model_name)
    check_metric(metric)
    for one in filter(None, (folder, index_folder)):
        check_labels(one, to_tell_apart=one == (index_folder or folder))
    ensure_model(settings, say=say)
    embedder = load_embedder(settings)
    queries = embedded_folder(folder, settings, embedder)
    index = None if index_folder is None else embedded_folder(index_folder, settings, embedder)
    figures = evaluate(labelled(queries), None if index is None else labelled(index), metric=metric)
    likely, right = first_confidences(index or queries, None if index is None else queries)
    separation = area_under_roc(likely[right], likely[~right])
    document = {
        "model": embedder.description.name,
        "fingerprint": embedder.fingerprint,
        "metric": metric,
        **msgspec.to_builtins(figures),
        "confidence_separation": None if separation is None else round(separation, 4),
    }
    if as_json:
        print_json(document)
        return
    where = "leave-one-out" if index is None else f"among {counted(figures.images, 'picture')}"
    asked = f"{counted(figures.queries, 'query')} of {counted(figures.labels, 'label')}"
    click.echo(f"{asked}, {where}, {embedder.description.name}, {metric}")
    click.echo(f"P@1   {figures.p_at_1:.3f}   the nearest has the query's label")
    click.echo(f"P@12  {figures.p_at_12:.3f}   share of the 12 nearest that have it")
    click.echo(f"mAP   {figures.map:.3f}   over the whole ranking")
    if figures.separation is not None:
        click.echo(f"AUROC {figures.separation:.3f}   the best similarity tells right from wrong first guesses")
    if separation is not None:
        click.echo(f"AUROC {separation:.3f}   confidence does")


def labelled(pictures: EmbeddedFolder) -> Labelled:
    return Labelled(pictures.vectors, pictures.kinds)
