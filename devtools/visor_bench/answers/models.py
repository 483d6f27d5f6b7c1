"""`visor bench models`: what models find, how sure they are of it, and what they cost, side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from visor.cli.cost import built_model
from visor.console import as_json, print_json, say
from visor.evaluation.folder import EmbeddedFolder, embedded_folder
from visor.evaluation.scores import Labelled, evaluate
from visor.free_tier.allowances import image_sizes
from visor.free_tier.cost_model import GIB, UsagePlan, lines
from visor.imaging.decode import decode_image
from visor.index.merge.learn import learn
from visor.models.build.builder import ensure_model
from visor.models.embedder import Embedder
from visor.settings import Settings
from visor_bench.answers.confidence import SPLITS, run_trial, splits_of, summary
from visor_bench.answers.copies import measure as measure_copies
from visor_bench.answers.gap import FILE, FOLDER, both_halves, figures, index_of
from visor_bench.answers.life import drawings_and_photos
from visor_bench.answers.packshots import articles_of, photos_of
from visor_bench.speed.embed import _process, jpeg
from visor_bench.speed.look import timed

LOOKS = 15
COLUMNS = {
    "dimension": "numbers",
    "file_mb": "MB",
    "registry_mb": "MB in Artifact Registry",
    "ms_1": "ms, 1 thread",
    "ms_2": "ms, 2 threads",
    "resident_mb": "MB resident",
}


@click.command("models")
@click.argument("names", nargs=-1, required=True)
@click.option("--folder", "folders", multiple=True, type=FOLDER, help="Labelled photos, one sub-folder per kind.")
@click.option("--packshots", type=(FOLDER, FOLDER, FILE), help="As of `bench packshots`: queries, catalogue, map.")
@click.option("--life", type=(FOLDER, FILE), help="As of `bench life`: queries and map.")
@click.option("--copies", default=0, help="Pictures of each folder that are edited, as of `bench copies`.")
@click.option("--splits", default=SPLITS, show_default=True, help="Splits of the kinds, for confidence.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw what is found against what it costs (SVG)."
)
@as_json
def models_command(
    names: Sequence[str],
    folders: Sequence[Path],
    packshots: tuple[Path, Path, Path] | None,
    life: tuple[Path, Path] | None,
    copies: int,
    splits: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure models by their names: those that are installed and those of visor.toml. They are built if need be.

    Of each folder: `p_at_1` and `map` by plain vectors and (`space_`) in the space that is learned on the folder, as a
    merge does; the ROC area and the calibration error of confidence.
    """
    document = {}
    for name in names:
        settings = msgspec.structs.replace(Settings.read(), model=name)
        directory = ensure_model(settings, say=say)
        found = costs(settings, directory)
        for folder in folders:
            found[folder.name] = finds(embedded_folder(folder, settings), splits)
            if copies:
                with tempfile.TemporaryDirectory(prefix="visor-bench-") as home:
                    told = measure_copies(folder, copies, settings, Path(home))
                found[folder.name] |= {f"copies_{key}": told[key] for key in ("first", "verdict_accuracy")}
        if packshots:
            with index_of(articles_of(packshots[1]), settings) as bench:
                found["packshots"] = asked(bench, photos_of(packshots[0], packshots[2]))
        if life:
            articles, photos = drawings_and_photos(*life, settings)
            with index_of(articles, settings) as bench:
                found["life"] = asked(bench, photos)
        document[name] = found
        say(f"{name}: {found}")
    if plot is not None:
        draw(document, plot)
    if as_json:
        print_json({"models": document, "load": [round(load, 2) for load in os.getloadavg()]})
        return
    click.echo("\n".join(table(document)))


def costs(settings: Settings, directory: Path) -> dict[str, Any]:
    """Numbers a vector; megabytes of its files, and with its libraries in Artifact Registry; milliseconds a decoded
    picture, medians; megabytes of a process that has answered queries only."""
    plan = built_model(settings)
    stored = [
        line.used * GIB
        for some in (UsagePlan(), msgspec.structs.replace(UsagePlan(), **plan))
        for line in lines(some)
        if line.service == "Artifact Registry"
    ]
    pixels = decode_image(jpeg(), pixels_max=settings.pixels_max, side_hint=640).pixels
    embedders = {threads: Embedder(directory, threads=threads) for threads in (1, 2)}
    took: dict[int, list[float]] = {threads: [] for threads in embedders}
    for _ in range(LOOKS + 1):
        for threads, embedder in embedders.items():
            took[threads].append(timed(partial(embedder.embed, [pixels]))[0])
    return {
        "dimension": plan["vector_numbers"],
        "file_mb": round(plan["model_bytes"] / 1e6, 1),
        "registry_mb": round((stored[1] - stored[0] + 2 * image_sizes().model_bytes) / 1e6, 1),
        **{f"ms_{threads}": round(float(np.median(some[1:])), 1) for threads, some in took.items()},
        "resident_mb": round(_process(directory, jpeg())["resident_mb"], 1),
    }


def finds(pictures: EmbeddedFolder, splits: int) -> dict[str, float]:
    """See `models_command`."""
    space, _ = learn(pictures.vectors, learned_on=len(pictures.vectors))
    plain = evaluate(Labelled(pictures.vectors, pictures.kinds))
    spaced = evaluate(Labelled(space.project(pictures.vectors), pictures.kinds))
    sure = summary([run_trial(held, others) for held, others in splits_of(pictures, splits)])
    return {
        "p_at_1": round(plain.p_at_1, 4),
        "space_p_at_1": round(spaced.p_at_1, 4),
        "map": round(plain.map, 4),
        "space_map": round(spaced.map, 4),
        "auroc": sure["auroc"],
        "calibration_error": sure["calibration_error"],
    }


def asked(bench: Any, photos: Sequence[Any]) -> dict[str, float]:
    measured = figures(*both_halves(bench, photos)[0])
    return {name: round(measured[name], 4) for name in ("p_at_1", "p_at_12", "plain_p_at_1")}


def table(document: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown."""
    first = next(iter(document.values()))
    parts = {name: list(value) for name, value in first.items() if isinstance(value, dict)}
    heads = [*COLUMNS.values(), *(f"{part} {key}" for part, keys in parts.items() for key in keys)]
    rows = [f"| model | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for name, found in document.items():
        values = [found[key] for key in COLUMNS] + [found[part][key] for part, keys in parts.items() for key in keys]
        rows.append(f"| {name} | {' | '.join(map(str, values))} |")
    return rows


def draw(document: dict[str, dict[str, Any]], path: Path) -> None:
    """mAP in the learned space against the time of an embedding, one panel per folder."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    first = next(iter(document.values()))
    folders = [name for name, value in first.items() if isinstance(value, dict) and "space_map" in value]
    with mpl.rc_context({"svg.hashsalt": "visor", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(3.6 * len(folders), 3.2), layout="constrained")
        for axes, folder in zip(figure.subplots(1, len(folders), squeeze=False)[0], folders, strict=True):
            for name, found in document.items():
                axes.plot(found["ms_1"], found[folder]["space_map"], "o", ms=4 + found["file_mb"] ** 0.5)
                axes.annotate(
                    name, (found["ms_1"], found[folder]["space_map"]), xytext=(5, 5), textcoords="offset points"
                )
            axes.set(title=folder, xlabel="ms a picture, 1 thread (dot: file size)", ylabel="mAP", ylim=(0, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
