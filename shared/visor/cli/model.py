"""`visor model`: list, build and show models; `visor eval`: measure one on a labelled folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click
import msgspec

from visor.console import GivenPath, as_json, print_json, say
from visor.errors import VisorError
from visor.evaluation.confidence import first_confidences
from visor.evaluation.folder import EmbeddedFolder, check_labels, embedded_folder
from visor.evaluation.scores import Labelled, area_under_roc, evaluate
from visor.index.search.metrics import check_metric
from visor.models.build.builder import build_model, ensure_model
from visor.models.description import Download, Package, Variant
from visor.models.embedder import load_embedder
from visor.models.registry import AUTO, DEFAULT, describe, installed, names
from visor.models.store import MANIFEST, ModelManifest, model_directory, read_manifest
from visor.schema.words import counted
from visor.settings import Settings

Folder = GivenPath(exists=True, file_okay=False)


@click.group("model")
def model_command() -> None:
    """List, build and show the models that turn images into vectors."""


@model_command.command("list")
@as_json
def list_command(as_json: bool) -> None:
    """Show every model: installed or in visor.toml, its size if it is built here, what it can do and what it needs."""
    settings = Settings.read()
    rows = [_row(settings, name) for name in names(settings)]
    if as_json:
        print_json({"setting": settings.model, "auto": DEFAULT, "models": rows})
        return
    for row in rows:
        if "error" in row:
            click.echo(f"{row['name']:<28}{row['error']}")
            continue
        state = f"{row['size_bytes'] / 1e6:.0f} MB" if row["directory"] else "not built"
        click.echo(f"{row['name']:<28}{row['dimension'] or '?':>5} numbers  {state:<10} {row['summary']}")
        needs = f"; needs pip install 'visor-search[{','.join(row['missing'])}]'" if row["missing"] else ""
        click.echo(f"{'':28}{', '.join(row['abilities'])}{needs}")
    click.echo(f"{AUTO} is {DEFAULT}")


@model_command.command("build")
@click.argument("name", required=False)
@click.option("--float32", is_flag=True, help="Keep float32 weights: four times the size, for comparing.")
@as_json
def build_command(name: str | None, float32: bool, as_json: bool) -> None:
    """Build the model NAME, or the one that is set, unless it exists."""
    settings = Settings.read()
    variant: Variant = "float32" if float32 else "int8"
    directory = build_model(settings, name or settings.model, say=say, variant=variant)
    manifest = read_manifest(directory)
    if as_json:
        print_json({"directory": str(directory), "manifest": manifest})
    else:
        click.echo(f"{manifest.description.name} ({manifest.fingerprint[:12]}) is in {directory}")


@model_command.command("show")
@click.argument("name", required=False)
@as_json
def show_command(name: str | None, as_json: bool) -> None:
    """Show what the model NAME, or the one that is set, was built from."""
    settings = Settings.read()
    directory = model_directory(settings, name or settings.model)
    manifest = read_manifest(directory)
    if as_json:
        print_json({"directory": str(directory), "manifest": manifest})
        return
    for line in _shown(directory, manifest):
        click.echo(line)


def _row(settings: Settings, name: str) -> dict[str, Any]:
    try:
        model = describe(name, settings)
    except VisorError as exc:
        return {"name": name, "error": str(exc)}
    directory = model_directory(settings, name)
    built = read_manifest(directory) if (directory / MANIFEST).is_file() else None
    if built is not None:
        model = built.description
    origin = installed().get(name)
    return {
        "name": model.name,
        "summary": model.summary,
        "package": origin.dist.name if origin and origin.dist else None,
        "dimension": model.dimension,
        "fingerprint": built.fingerprint if built else model.fingerprint(),
        "abilities": model.abilities,
        "labels": model.sees_labels,
        "safety": model.sees_safety,
        "extras": model.extras,
        "missing": [extra for extra in model.extras if not (extra == "build" and built) and _is_missing(extra)],
        "networks": [
            {"name": part.network.name, "weight": part.weight, "licence": part.network.licence}
            | {"source": msgspec.to_builtins(part.network.source)}
            for part in model.parts
        ],
        "directory": str(directory) if built else None,
        "size_bytes": sum(file.size_bytes for file in built.files) if built else None,
    }


_MODULES = {"build": "tensorflow", "onnx": "onnxruntime", "words": "tokenizers"}


def _is_missing(extra: str) -> bool:
    return importlib.util.find_spec(_MODULES[extra]) is None


def _shown(directory: Path, manifest: ModelManifest) -> list[str]:
    lines = [
        f"{manifest.description.name}: {manifest.description.summary}",
        f"fingerprint {manifest.fingerprint}",
        f"{manifest.description.dimension} numbers, {manifest.variant}, built {manifest.built_at} in {directory}",
    ]
    files = {file.network: file for file in manifest.files}
    for part in manifest.description.parts:
        network, file = part.network, files[part.network.name]
        source = network.source
        origin = (
            f"{source.registry} {source.name} {source.version}"
            if isinstance(source, Package)
            else (source.url if isinstance(source, Download) else source.path)
        )
        taps = " + ".join(f"{tap.layer} ({tap.channels})" for tap in network.taps)
        how = network.preprocessing
        views = ", ".join(map(str, how.views))
        lines += [
            f"  {network.name}, weight {part.weight:g}, head {network.head}, {network.licence}, from {origin}",
            f"    {source.checksum}",
            f"    taps {taps}, power {network.power:g}; {how.size}×{how.size} {how.resample}, views {views}",
            f"    {file.file}, {file.size_bytes / 1e6:.1f} MB, cosine to the original {file.cosine}, {file.converter}",
        ]
    return lines


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
