"""`visor bench cold-start`: from the start of a search process to its first answer, and where the time goes.

The objects lie on fake-gcs-server and the documents in Google's Firestore emulator, as processes of their own on this
machine; so what is missing of a real cold start is the network's distance and the start of the container.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from visor.commands.options import as_json, print_json, say
from visor.settings import Settings

STARTS = 5
PARTS = ("imports", "model", "manifest", "segments", "first_query")


@click.command("cold-start")
@click.option("--images", default=100_000, show_default=True, type=click.IntRange(min=100))
@click.option("--starts", default=STARTS, show_default=True, type=click.IntRange(min=1))
@as_json
def cold_start_command(images: int, starts: int, as_json: bool) -> None:
    """Start search processes on an index of made vectors and time each part; prints medians."""
    document = measure(images, starts, lambda line: click.echo(line, err=True))
    if as_json:
        print_json(document)
        return
    say(f"{images:,} images: first answer after {document['first_answer_s']:.2f} s (median of {starts})")
    for part in PARTS:
        say(f"  {part:12} {document['parts'][part]:6.2f} s")


def measure(images: int, starts: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Build the index on the emulators, then start `starts` processes, one after the other.

    Returns:
        `first_answer_s`, the median from process start to the answer; `parts`, the medians of its parts in seconds,
        which make up the whole but for the interpreter's own start; `starts`, all of them.
    """
    from visor.demo.emulated import emulated_cloud, environ_of
    from visor.models.build import ensure_model
    from visor.models.directory import fingerprint_of

    base = Settings.read()
    ensure_model(base, say=progress)
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as folder, emulated_cloud(base) as settings:
        fill(settings, fingerprint_of(base), images, Path(folder), progress)
        picture = Path(folder) / "query.png"
        _draw(picture)
        environ = {**os.environ, **environ_of(settings)}
        command = [sys.executable, "-m", "visor.bench.cold_start_process", str(picture)]
        runs: list[dict[str, float]] = []
        # The first start reads the files of the libraries from the disk; a function's image is read by then.
        for _ in range(starts + 1):
            done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)  # noqa: S603
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            progress(f"first answer after {runs[-1]['first_answer_s']:.2f} s")
    kept = runs[1:]
    return {
        "images": images,
        "first_answer_s": statistics.median(run["first_answer_s"] for run in kept),
        "parts": {part: statistics.median(run[part] for run in kept) for part in PARTS},
        "starts": kept,
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def fill(settings: Settings, model: str, images: int, folder: Path, progress: Callable[[str], None]) -> None:
    """An index of `images` made vectors of the model's dimension, merged, in the stores of the settings."""
    from visor.bench import vectors
    from visor.bench.search_index import POLICY
    from visor.index.merge import merge
    from visor.index.shard import shard_object, write_shard
    from visor.models.directory import model_directory, read_manifest
    from visor.records import FacetRow, IndexedItem, Item, ShardCommit, as_document
    from visor.stores import open_documents, open_objects
    from visor.stores.documents import SERVER_TIME, Put
    from visor.stores.local.documents import SqliteDocuments
    from visor.stores.local.objects import FolderObjects

    dimension = read_manifest(model_directory(settings, settings.model)).description.dimension
    objects, documents = FolderObjects(folder / "objects"), SqliteDocuments(folder / "documents.sqlite")
    random = np.random.default_rng(7)
    started = time.monotonic()
    ids: list[bytes] = []
    for number, block in enumerate(vectors.mixed(vectors.stand_ins(dimension=dimension), images, seed=1)):
        here = random.integers(0, 256, (len(block), 16), np.uint8)
        ids += [row.tobytes() for row in here]
        facets = [FacetRow(collection=f"collection {row % 200}", price=float(row % 997)) for row in range(len(block))]
        data = write_shard(
            model=model,
            ids=here,
            versions=np.ones(len(block), np.int64),
            vectors=block,
            hashes=random.integers(0, 256, (len(block), 32), np.uint8),
            facets=facets,
        )
        key = f"bench-{number}"
        objects.put(shard_object(key), data)
        record = ShardCommit(batch=key, model=model, shard=shard_object(key), count=len(block))
        documents.commit(
            [Put(collection="commits", key=key, data={**as_document(record), "committed_at": SERVER_TIME})]
        )
    for _ in range(2):  # the second deletes what the first one replaced
        merge(objects, documents, model=model, policy=POLICY)
    progress(f"{images} vectors merged in {time.monotonic() - started:.0f} s; uploading")
    cloud = open_objects(settings)
    for info in objects.list():
        cloud.put(info.name, objects.get(info.name))
    cloud.close()
    store = open_documents(settings)
    for document in documents.query("commits"):
        store.commit([Put(collection="commits", key=document.key, data=document.data)])
    for start in range(0, min(images, 20_000), 400):
        store.commit(
            [
                Put(
                    collection="items",
                    key=item.hex(),
                    data=as_document(
                        IndexedItem(
                            item=Item(id=item.hex(), source="bench", key=item.hex(), image_url="https://x.example/a"),
                            version=1,
                            model=model,
                            shard="",
                            indexed_at="2026-01-01T00:00:00+00:00",
                            width=1,
                            height=1,
                        )
                    ),
                )
                for item in ids[start : start + 400]
            ]
        )
    store.close()


def _draw(path: Path) -> None:
    from PIL import Image

    gradient = Image.linear_gradient("L").resize((640, 480))
    Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(path)
