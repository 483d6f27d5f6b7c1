"""`visor bench metrics`: which metric finds best on a labelled folder, and what it costs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from visor.console import as_json, say
from visor.evaluation.folder import embedded_folder
from visor.evaluation.scores import Scores
from visor.index.format.container import Array
from visor.index.format.projection import dot
from visor.index.merge.learn import learn
from visor.index.search.metrics import METRICS, Metric
from visor.models.build.builder import ensure_model
from visor.models.embedder import load_embedder
from visor.settings import Settings

OURS = "visor (projected)"

BUDGET_S = 60.0
"""A metric that would take longer over all queries is measured on fewer."""
QUERIES_MIN = 100

Rows = dict[str, dict[str, Any]]
"""Figures of each metric."""


@click.command("metrics")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", "models", multiple=True, help="A model to measure; may be repeated (default: the one set).")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write mAP against time as a picture.")
@as_json
def metrics_command(folder: Path, models: tuple[str, ...], plot: Path | None, as_json: bool) -> None:
    """P@1, P@12, mAP (leave-one-out, label = sub-folder) and milliseconds per query of every metric and model."""
    settings = Settings.read()
    tables, images = {}, 0
    for name in models or (settings.model,):
        set_ = msgspec.structs.replace(settings, model=name)
        ensure_model(set_, say=say)
        embedder = load_embedder(set_)
        pictures = embedded_folder(folder, set_, embedder)
        tables[embedder.description.name] = table(pictures.vectors, pictures.kinds)
        images = len(pictures.kinds)
    if plot is not None:
        draw(tables, plot, folder.resolve().name)
    if as_json:
        click.echo(json.dumps({"folder": folder.resolve().name, "images": images, "models": tables}))
        return
    for name, rows in tables.items():
        click.echo(f"| {name} | P@1 | P@12 | mAP | ms per query |\n| --- | --- | --- | --- | --- |")
        for metric, row in rows.items():
            click.echo(
                f"| {metric} | {row['p_at_1']:.3f} | {row['p_at_12']:.3f} | {row['map']:.3f} | {row['ms']:.2f} |"
            )
        click.echo()


def table(vectors: Array, labels: list[str]) -> Rows:
    """Figures by metric, and of Visor's own space, for full vectors (n, d) float32; greatest mAP first."""
    space, _ = learn(vectors, learned_on=len(vectors))
    projected = space.project(vectors)
    rows = {OURS: _row(lambda query: dot(projected, space.project(query[None])[0]), vectors, labels)}
    for name in METRICS:
        metric = Metric(name, vectors)
        rows[name] = _row(partial(metric.similarities, vectors=vectors), vectors, labels)
    return dict(sorted(rows.items(), key=lambda item: -item[1]["map"]))


def _row(similarities: Callable[[Array], Array], vectors: Array, labels: list[str]) -> dict[str, Any]:
    """Leave-one-out over all vectors, or over as many, evenly spaced, as `BUDGET_S` allows."""
    names, scores = np.array(labels), Scores()
    started = time.perf_counter()
    similarities(vectors[0])
    once_s = time.perf_counter() - started
    count = min(len(names), max(QUERIES_MIN, int(BUDGET_S / max(once_s, 1e-9))))
    queries = np.unique(np.linspace(0, len(names) - 1, count).astype(np.int64))
    took_s = 0.0
    for query in queries:
        started = time.perf_counter()
        row = similarities(vectors[query])
        took_s += time.perf_counter() - started
        order = np.argsort(-row, kind="stable")
        order = order[order != query]
        scores.add(names[order] == names[query], float(row[order[0]]))
    found = scores.summary(images=len(names), labels=len(set(labels)))
    return {
        "p_at_1": found.p_at_1,
        "p_at_12": found.p_at_12,
        "map": found.map,
        "ms": round(took_s * 1000 / len(queries), 3),
        "queries": len(queries),
    }


def draw(tables: dict[str, Rows], path: Path, folder: str) -> None:
    """mAP against milliseconds per query, one point per metric and model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, (model, rows) in enumerate(tables.items()):
        ordered = list(rows.values())
        axes.scatter([row["ms"] for row in ordered], [row["map"] for row in ordered], color=f"C{number}", label=model)
        for name, row in rows.items():
            axes.annotate(
                name,
                (row["ms"], row["map"]),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=7,
                color=f"C{number}",
                weight="bold" if name == OURS else "normal",
            )
    axes.set(xscale="log", xlabel="ms per query", ylabel="mAP", title=f"{folder}: metrics on full vectors, and Visor")
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
