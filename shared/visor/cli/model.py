"""`visor model`: list, build and show models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from visor.console import as_json, print_json, say
from visor.models.build.builder import build_model
from visor.models.registry import AUTO, DEFAULT, MODELS, ModelDescription, Package, Variant
from visor.models.store import MANIFEST, ModelManifest, model_directory, read_manifest
from visor.settings import Settings


@click.group("model")
def model_command() -> None:
    """List, build and show the models that turn images into vectors."""


@model_command.command("list")
@as_json
def list_command(as_json: bool) -> None:
    """Show every model: its networks, and whether it is built here."""
    settings = Settings.read()
    rows = [_row(settings, model) for model in MODELS]
    if as_json:
        print_json({"setting": settings.model, "auto": DEFAULT, "models": rows})
        return
    for row in rows:
        state = "built" if row["directory"] else "not built"
        click.echo(f"{row['name']:<28}{row['dimension']:>5} numbers  {state:<10} {row['summary']}")
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


def _row(settings: Settings, model: ModelDescription) -> dict[str, Any]:
    directory = model_directory(settings, model.name)
    return {
        "name": model.name,
        "summary": model.summary,
        "dimension": model.dimension,
        "fingerprint": model.fingerprint(),
        "labels": model.sees_labels,
        "safety": model.sees_safety,
        "networks": [
            {"name": part.network.name, "weight": part.weight, "licence": part.network.licence}
            | {"source": msgspec.to_builtins(part.network.source)}
            for part in model.parts
        ],
        "directory": str(directory) if (directory / MANIFEST).is_file() else None,
    }


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
        origin = f"{source.registry} {source.name} {source.version}" if isinstance(source, Package) else source.url
        taps = " + ".join(f"{tap.layer} ({tap.channels})" for tap in network.taps)
        how = network.preprocessing
        views = ", ".join(how.views)
        lines += [
            f"  {network.name}, weight {part.weight:g}, head {network.head}, {network.licence}, from {origin}",
            f"    {source.checksum}",
            f"    taps {taps}, power {network.power:g}; {how.size}×{how.size} {how.resample}, views {views}",
            f"    {file.file}, {file.size_bytes / 1e6:.1f} MB, cosine to Keras {file.cosine}, {file.converter}",
        ]
    return lines
