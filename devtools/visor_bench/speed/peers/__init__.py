"""`visor bench peers`: Visor and what a user would pick instead, on the same vectors.

All get the same full unit vectors, as a user would give them, and each is measured against an exact float32 search in
the space it searches: the peers' is that of the full vectors, Visor's its own projected one (which finds better:
`visor bench metrics`). With `--projected` the peers get Visor's projected vectors (256 numbers), which they could not
make themselves; the true neighbours are then the same for all. Visor runs its whole search: project, scan, re-rank,
group, ids. It runs again right before each peer, so that `times_visors_time` compares the same minute. A peer that can
trade recall for time uses the least effort that reaches Visor's recall less `EQUAL_RECALL`, or its most if none does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from visor.console import as_json, say
from visor.index.format.container import Array
from visor_bench import vectors
from visor_bench.base import base_vectors, vector_options
from visor_bench.speed.peers.kinds import PEERS, K
from visor_bench.speed.peers.nearest import share_vectors
from visor_bench.speed.search import index as search_index

QUERIES = 200
COLUMNS = (
    "recall_at_12",
    "p50_ms",
    "p99_ms",
    "times_visors_time",
    "build_s",
    "bytes_per_image",
    "resident_mb",
    "times_visors_memory",
    "first_answer_s",
    "effort",
)
EQUAL_RECALL = 0.005
"""Recalls that differ by no more than this are called equal."""
MINUTES = 5.0

Table = dict[str, dict[str, Any]]


@click.command("peers")
@click.option("--images", default=10_000, show_default=True, type=click.IntRange(min=1000))
@vector_options
@click.option("--projected", is_flag=True, help="Give the peers Visor's projected vectors, not the full ones.")
@click.option("--only", multiple=True, type=click.Choice(sorted(PEERS)), help="Just these peers.")
@click.option("--minutes", default=MINUTES, show_default=True, help="A peer that takes longer to build is left out.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write memory against time as a picture.")
@as_json
def peers_command(
    images: int,
    pictures: Path | None,
    file: Path | None,
    model: str | None,
    projected: bool,
    only: tuple[str, ...],
    minutes: float,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Recall, latency, build time, size and memory, each peer in its own process."""
    base, origin = base_vectors(pictures, file, model)
    with tempfile.TemporaryDirectory(prefix="visor-peers-") as folder:
        table = measure(images, base, Path(folder), only or tuple(PEERS), projected=projected, minutes=minutes)
    sentences, both = ahead(table)
    if plot is not None:
        draw(table, plot, images)
    if as_json:
        document = {"images": images, "vectors": origin, "peers": table, "ahead": sentences, "ahead_in_both": both}
        click.echo(json.dumps(document))
        return
    click.echo(f"| {images:,} images | " + " | ".join(COLUMNS) + " |")
    click.echo("| --- " * (len(COLUMNS) + 1) + "|")
    for name, row in table.items():
        cells = [str(row.get(column, "")) for column in COLUMNS] if "left_out" not in row else [row["left_out"]]
        click.echo(f"| {name} | " + " | ".join(cells) + " |")
    click.echo(f"\nVectors: {origin}. Ahead of Visor in time and in memory at once: {', '.join(both) or 'none'}.\n")
    for sentence in sentences:
        click.echo(f"- {sentence}")


def measure(
    images: int, base: Array, folder: Path, names: tuple[str, ...], *, projected: bool = False, minutes: float = MINUTES
) -> Table:
    """A row of figures for `visor` and for each peer, by name; if there are none, `left_out` says why."""
    home = folder / "visor"
    built = search_index.build(home, base, images, say)
    queries = np.concatenate(list(vectors.mixed(base, QUERIES, seed=2))).astype(np.float32)
    np.save(folder / "full_queries.npy", queries)
    asked = "visor_bench.speed.search.process", str(home), str(folder / "full_queries.npy"), ""
    answers = _run(*asked)
    truth = share_vectors(home, queries, folder, projected=projected)
    right = sum(len(set(found) & wanted) for found, wanted in zip(answers["ids"], truth, strict=True))
    ours = {
        "recall_at_12": round(right / (K * len(truth)), 4),
        "p50_ms": answers["fast_p50_ms"],
        "p99_ms": answers["fast_p99_ms"],
        "build_s": built["merge_s"],
        "bytes_per_image": built["hot_bytes_per_image"],
        "resident_mb": answers["resident_mb"],
        "first_answer_s": answers["first_answer_s"],
        "times_visors_time": 1.0,
    }
    table = {"visor": ours}
    for name in names:
        say(f"{name} …")
        table[name] = _peer_row(name, images, folder, minutes, ours["recall_at_12"] - EQUAL_RECALL, asked)
    for row in table.values():
        if "left_out" not in row:
            row["times_visors_memory"] = round(row["resident_mb"] / ours["resident_mb"], 2)
    return table


def ahead(table: Table) -> tuple[list[str], list[str]]:
    """A sentence for each peer that is ahead of Visor in time or memory, and the names of those ahead in both at the
    same recall."""
    recall = table["visor"]["recall_at_12"]
    sentences, both = [], []
    for name, row in table.items():
        if name == "visor" or "left_out" in row:
            continue
        time, memory = row["times_visors_time"], row["times_visors_memory"]
        if time >= 1 and memory >= 1:
            continue
        finds = row["recall_at_12"] >= recall - EQUAL_RECALL
        less = "" if finds else f" and finds less ({row['recall_at_12']:.3f} against {recall:.3f})"
        sentences.append(
            f"{name} takes {time} times Visor's time in {memory} times its memory{less}: {PEERS[name].why}."
        )
        if finds and time < 1 and memory < 1:
            both.append(name)
    return sentences, both


def draw(table: Table, path: Path, images: int) -> None:
    """Resident memory against time, one point per peer, with its recall: down and left is better."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    there = {name: row for name, row in table.items() if "left_out" not in row}
    for number, name in enumerate(sorted(there, key=lambda name: there[name]["p50_ms"])):
        row = there[name]
        place = (row["p50_ms"], row["resident_mb"])
        axes.scatter(*place, color="tab:red" if name == "visor" else "tab:blue")
        label = f"{name} ({row['recall_at_12']:.3f})"
        # Above and below in turn: peers of one sort are close to each other.
        up = 6 if number % 2 else -14
        axes.annotate(label, place, xytext=(0, up), textcoords="offset points", fontsize=8, ha="center")
    axes.margins(0.15)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="p50 of a query, ms",
        ylabel="resident, MB",
        title=f"{images:,} images (recall@12)",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _peer_row(
    name: str, images: int, folder: Path, minutes: float, recall: float, visor: tuple[str, ...]
) -> dict[str, Any]:
    before = _size_bytes(folder)
    try:
        built = _run("visor_bench.speed.peers.process", "build", name, str(folder), minutes=minutes)
        size = (_size_bytes(folder) - before) / images
        ours_ms = _run(*visor)["fast_p50_ms"]
        row = _run("visor_bench.speed.peers.process", "search", name, str(folder), str(recall), minutes=minutes)
        times = {"times_visors_time": round(row["p50_ms"] / ours_ms, 2)}
        return built | {"bytes_per_image": round(size)} | row | times
    except subprocess.TimeoutExpired:
        return {"left_out": f"took more than {minutes:g} minutes to build or to open"}
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr or "").strip().splitlines()[-1:] or [f"ended with {exc.returncode}"]
        return {"left_out": f"does not run here: {' '.join(last)}"}
    finally:
        for path in folder.glob(f"{name}.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _run(module: str, *arguments: str, minutes: float | None = None) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *arguments]
    timeout_s = None if minutes is None else minutes * 60
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s)  # noqa: S603 - ours
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
