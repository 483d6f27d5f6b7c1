"""`visor bench peers`: Visor and what a user would pick instead, on the same vectors.

All get the same full unit vectors, as a user would give them, and each is measured against an exact search in the space
it searches: the peers' is that of the full vectors, Visor's its own projected one (which finds better: `visor bench
metrics`). With `--projected` the peers get Visor's projected vectors (256 numbers), which they could not make
themselves; the truth is then one and the same. Visor answers with its whole way: project, scan, re-rank, group, ids.
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

from visor.bench import search_index, search_process, vectors
from visor.bench.peer_kinds import PEERS, K
from visor.bench.search import base_vectors
from visor.index.container import Array
from visor.index.search import Searcher
from visor.index.space import unit

QUERIES = 200
COLUMNS = ("recall_at_12", "p50_ms", "p99_ms", "build_s", "bytes_per_image", "resident_mb", "first_answer_s")


@click.command("peers")
@click.option("--images", default=10_000, show_default=True, type=click.IntRange(min=1000))
@click.option("--vectors", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A .npy to mix.")
@click.option("--projected", is_flag=True, help="Give the peers Visor's projected vectors, not the full ones.")
@click.option("--only", multiple=True, type=click.Choice(sorted(PEERS)), help="Just these peers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def peers_command(images: int, file: Path | None, projected: bool, only: tuple[str, ...], as_json: bool) -> None:
    """Recall, latency, build time, size and memory, each peer in a process of its own."""
    base, origin = base_vectors(None, file)
    with tempfile.TemporaryDirectory(prefix="visor-peers-") as folder:
        table = measure(images, base, Path(folder), only or tuple(PEERS), projected)
    if as_json:
        click.echo(json.dumps({"images": images, "vectors": origin, "peers": table}))
        return
    click.echo(f"| {images} images | " + " | ".join(COLUMNS) + " |")
    click.echo("| --- " * (len(COLUMNS) + 1) + "|")
    for name, row in table.items():
        cells = [str(row.get(column, "")) for column in COLUMNS] if "left_out" not in row else [row["left_out"]]
        click.echo(f"| {name} | " + " | ".join(cells) + " |")


def measure(
    images: int, base: Array, folder: Path, names: tuple[str, ...], projected: bool
) -> dict[str, dict[str, Any]]:
    """A row of figures for `visor` and for each peer, by name; `left_out` says why there are none."""
    home = folder / "visor"
    built = search_index.build(home, base, images, lambda line: click.echo(line, err=True))
    objects, documents = search_process.open_index(home)
    searcher = Searcher(objects, documents, model=search_process.MODEL, freshness_s=1e9)
    searcher.refresh()
    queries = np.concatenate(list(vectors.mixed(base, QUERIES, seed=2))).astype(np.float32)
    np.save(folder / "full_queries.npy", queries)
    truth = _visor_truth(searcher, queries)
    _share_vectors(searcher, queries, folder, projected)
    answers = _run("visor.bench.search_process", str(home), str(folder / "full_queries.npy"), "")
    del searcher
    table = {"visor": _visor_row(answers, built, truth)}
    for name in names:
        table[name] = _peer_row(name, images, folder)
    return table


def _visor_truth(searcher: Searcher, queries: Array) -> list[set[str]]:
    """Ids of the 12 nearest to each query by exact float32 inner products of the projected vectors."""
    rows, ids = searcher.all_rows(projected=True)
    return [{ids[row] for row in np.argsort(-(rows @ query))[:K]} for query in searcher.space.project(queries)]


def _share_vectors(searcher: Searcher, queries: Array, folder: Path, projected: bool) -> None:
    """Write vectors, queries and truth for the peers."""
    rows, _ = searcher.all_rows(projected=projected)
    asked = searcher.space.project(queries) if projected else unit(queries)
    np.save(folder / "vectors.npy", unit(rows))
    np.save(folder / "queries.npy", asked)
    np.save(folder / "truth.npy", np.stack([np.argsort(-(rows @ query))[:K] for query in asked]))


def _visor_row(answers: dict[str, Any], built: dict[str, Any], truth: list[set[str]]) -> dict[str, Any]:
    right = sum(len(set(found) & wanted) for found, wanted in zip(answers["ids"], truth, strict=True))
    return {
        "recall_at_12": round(right / (K * len(truth)), 4),
        "p50_ms": answers["fast_p50_ms"],
        "p99_ms": answers["fast_p99_ms"],
        "build_s": built["merge_s"],
        "bytes_per_image": built["hot_bytes_per_image"],
        "resident_mb": answers["resident_mb"],
        "first_answer_s": answers["first_answer_s"],
    }


def _peer_row(name: str, images: int, folder: Path) -> dict[str, Any]:
    if images > PEERS[name].most:
        return {"left_out": f"left out above {PEERS[name].most} images: takes minutes"}
    before = _size_bytes(folder)
    try:
        built = _run("visor.bench.peer_process", "build", name, str(folder))
        size = (_size_bytes(folder) - before) / images
        row = built | {"bytes_per_image": round(size)} | _run("visor.bench.peer_process", "search", name, str(folder))
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr or "").strip().splitlines()[-1:]
        return {"left_out": f"does not run here: {' '.join(last)}"}
    for path in folder.glob(f"{name}.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return row


def _run(module: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own modules
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
