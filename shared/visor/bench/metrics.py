"""`visor bench metrics`: which metric finds best on a labelled folder, and what it costs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from visor.bench.vectors import PICTURES, real_vectors
from visor.index.container import Array
from visor.index.metrics import METRICS, Metric
from visor.index.space import dot, learn
from visor.settings import Settings

TIMED = 5
OURS = "visor (projected)"


@click.command("metrics")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write mAP against time as a picture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def metrics_command(folder: Path, plot: Path | None, as_json: bool) -> None:
    """P@1, P@12, mAP (leave-one-out, label = sub-folder) and milliseconds per query of every metric."""
    from visor.models.run import load_embedder

    embedder = load_embedder(Settings.read())
    vectors = real_vectors(folder, embedder)
    labels = [p.parent.name for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURES]
    if len(labels) != len(vectors):
        raise click.ClickException(f"{len(labels) - len(vectors)} pictures of {folder} cannot be decoded; remove them")
    rows = table(vectors, labels)
    if plot is not None:
        draw(rows, plot)
    if as_json:
        document = {"model": embedder.description.name, "images": len(labels), "metrics": rows}
        click.echo(json.dumps(document))
        return
    click.echo("| metric | P@1 | P@12 | mAP | ms per query |\n| --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        click.echo(f"| {name} | {row['p_at_1']:.3f} | {row['p_at_12']:.3f} | {row['map']:.3f} | {row['ms']:.2f} |")


def table(vectors: Array, labels: list[str]) -> dict[str, dict[str, Any]]:
    """Figures by metric, and of Visor's own space, for full vectors (n, d) float32; greatest mAP first."""
    space, _ = learn(vectors, learned_on=len(vectors))
    projected = space.project(vectors)
    started = time.perf_counter()
    for query in vectors[:TIMED]:
        dot(projected, space.project(query[None])[0])
    rows = {OURS: _row(projected @ projected.T, labels, (time.perf_counter() - started) / TIMED)}
    for name in METRICS:
        metric = Metric(name, vectors)
        started = time.perf_counter()
        similarities = np.stack([metric.similarities(query, vectors) for query in vectors])
        rows[name] = _row(similarities, labels, (time.perf_counter() - started) / len(vectors))
    return dict(sorted(rows.items(), key=lambda item: -item[1]["map"]))


def _row(similarities: Array, labels: list[str], seconds: float) -> dict[str, Any]:
    names = np.array(labels)
    masked = similarities.astype(np.float64)
    np.fill_diagonal(masked, -np.inf)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :-1]
    right = names[order] == names[:, None]
    found = np.cumsum(right, axis=1) / np.arange(1, len(names))
    findable = right.any(1)
    average = (found * right).sum(1)[findable] / right.sum(1)[findable]
    return {
        "p_at_1": round(float(right[:, 0].mean()), 4),
        "p_at_12": round(float(right[:, :12].sum(1).mean() / 12), 4),
        "map": round(float(average.mean()), 4),
        "ms": round(seconds * 1000, 3),
    }


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """mAP against milliseconds per query, one point a metric."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, row in rows.items():
        axes.scatter(row["ms"], row["map"], color="tab:red" if name == OURS else "tab:blue")
        axes.annotate(name, (row["ms"], row["map"]), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="ms per query", ylabel="mAP", title="Metrics on full vectors, and Visor's own space")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
