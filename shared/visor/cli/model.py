"""`visor model`: list, build and show models."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click
import msgspec

from visor.console import as_json, print_json, say
from visor.errors import VisorError
from visor.models.build.builder import build_model
from visor.models.description import Download, Package, Variant
from visor.models.registry import AUTO, DEFAULT, describe, installed, names
from visor.models.store import MANIFEST, ModelManifest, model_directory, read_manifest
from visor.settings import Settings


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
