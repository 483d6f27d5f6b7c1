"""`visor bench cold-start`: from the start of a search process to its first answer, and where the time goes.

The objects are on fake-gcs-server and the documents in Google's Firestore emulator, both processes on this machine; so
the only parts of a real cold start that are missing are the network's distance and the start of the container.
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
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from visor.console import as_json, print_json, say
from visor.schema.collections import COMMITS, ITEMS
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.storage.documents import DocumentStore, Put
    from visor.storage.objects import ObjectStore

STARTS = 5
WRITES = 400
"""Documents in one commit."""
ASKED = ("picture", "vector")
PARTS = ("imports", "model", "manifest", "segments", "first_query")


@click.command("cold-start")
@click.option("--images", default=100_000, show_default=True, type=click.IntRange(min=100))
@click.option("--starts", default=STARTS, show_default=True, type=click.IntRange(min=1))
@click.option("--ask", type=click.Choice(ASKED), default="picture", show_default=True, help="What is searched for.")
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="Another checkout to time in turn.")
@as_json
def cold_start_command(images: int, starts: int, ask: str, against: Path | None, as_json: bool) -> None:
    """Start search processes on an index of made vectors and time each part; prints medians."""
    document = measure(images, starts, lambda line: click.echo(line, err=True), ask=ask, against=against)
    if as_json:
        print_json(document)
        return
    say(f"{images:,} images: first answer after {document['first_answer_s']:.2f} s (median of {starts})")
    for part in PARTS:
        say(f"  {part:12} {document['parts'][part]:6.2f} s")
    if against is not None:
        say(f"{against}: {document['against']['first_answer_s']:.2f} s")


def measure(
    images: int, starts: int, progress: Callable[[str], None], *, ask: str = "picture", against: Path | None = None
) -> dict[str, Any]:
    """Build the index on the emulators, then start `starts` processes, one after the other.

    Returns:
        `first_answer_s`, the median from process start to the answer; `parts`, the medians of its parts in seconds,
        which add up to the whole except the interpreter's own start; `cpu_s` and `resident_mb`; `starts`, all of
        them; `against`, the same for another checkout.
    """
    from visor.models.build.builder import ensure_model
    from visor.models.store import model_fingerprint
    from visor_emulators.demo import emulated_cloud, environ_of

    base = Settings.read()
    ensure_model(base, say=progress)
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as folder, emulated_cloud(base) as settings:
        fill(settings, model_fingerprint(base), images, Path(folder), progress)
        picture = Path(folder) / "query.png"
        _draw(picture)
        environ = {**os.environ, **environ_of(settings)}
        command = [sys.executable, "-m", "visor_bench.speed.cold_start.process", ask, str(picture)]
        others = [] if against is None else [{**environ, "PYTHONPATH": str(against.resolve() / "shared")}]
        runs: list[list[dict[str, float]]] = [[] for _ in (environ, *others)]
        # The first start reads the libraries' files from the disk; in a function the image has been read by then.
        for _ in range(starts + 1):
            for own, some in zip(runs, (environ, *others), strict=True):
                done = subprocess.run(command, env=some, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
                own.append(json.loads(done.stdout.splitlines()[-1]))
                progress(f"first answer after {own[-1]['first_answer_s']:.2f} s")
    figures = [_medians(own[1:]) for own in runs]
    load = [round(load, 2) for load in os.getloadavg()]
    return {"images": images, "ask": ask, **figures[0], "load": load, **({"against": figures[1]} if others else {})}


def _medians(starts: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "first_answer_s": statistics.median(start["first_answer_s"] for start in starts),
        **{name: statistics.median(start[name] for start in starts) for name in ("cpu_s", "resident_mb")},
        "parts": {part: statistics.median(start[part] for start in starts) for part in PARTS},
        "starts": starts,
    }


def fill(settings: Settings, model: str, images: int, folder: Path, progress: Callable[[str], None]) -> None:
    """An index of `images` made vectors of the model's dimension, merged, in the stores of the settings."""
    from visor.index.merge.merge import merge
    from visor.index.merge.policy import MergePolicy
    from visor.models.store import model_directory, read_manifest
    from visor.storage import open_documents, open_objects
    from visor.storage.documents import Put
    from visor.storage.local.documents import SqliteDocuments
    from visor.storage.local.objects import FolderObjects

    dimension = read_manifest(model_directory(settings, settings.model)).description.dimension
    objects, documents = FolderObjects(folder / "objects"), SqliteDocuments(folder / "documents.sqlite")
    started = time.monotonic()
    ids = _write_shards(objects, documents, model, dimension, images)
    for _ in range(2):  # the second deletes what the first one replaced
        merge(objects, documents, model=model, policy=MergePolicy(grace_s=0))
    progress(f"{images} vectors merged in {time.monotonic() - started:.0f} s; uploading")
    cloud, store = open_objects(settings), open_documents(settings)
    for info in objects.list():
        cloud.put(info.name, objects.get(info.name))
    store.commit([Put(collection=COMMITS, key=d.key, data=d.data) for d in documents.query(COMMITS)])
    for start in range(0, len(ids), WRITES):
        store.commit([_item(item, model) for item in ids[start : start + WRITES]])
    cloud.close()
    store.close()


def _write_shards(objects: ObjectStore, documents: DocumentStore, model: str, dimension: int, images: int) -> list[str]:
    """Shards of made vectors with their commits; the ids of all."""
    from PIL import Image

    from visor.index.format.shard import shard_object, write_shard
    from visor.near_duplicates.perceptual_hash import perceptual_hash
    from visor.schema.items import FacetRow, ShardCommit, as_document
    from visor.storage.documents import SERVER_TIME, Put
    from visor_bench import vectors

    random = np.random.default_rng(7)
    hash_bytes = len(perceptual_hash(Image.new("RGB", (64, 64))))
    ids: list[str] = []
    for number, block in enumerate(vectors.mixed(vectors.stand_ins(dimension=dimension), images, seed=1)):
        here = random.integers(0, 256, (len(block), 16), np.uint8)
        ids += [row.tobytes().hex() for row in here]
        data = write_shard(
            model=model,
            ids=here,
            versions=np.ones(len(block), np.int64),
            vectors=block,
            hashes=random.integers(0, 256, (len(block), hash_bytes), np.uint8),
            facets=[FacetRow(collection=f"collection {row % 200}", price=float(row)) for row in range(len(block))],
        )
        key = f"bench-{number}"
        objects.put(shard_object(key), data)
        record = ShardCommit(batch=key, model=model, shard=shard_object(key), count=len(block))
        put = Put(collection=COMMITS, key=key, data={**as_document(record), "committed_at": SERVER_TIME})
        documents.commit([put])
    return ids


def _item(item: str, model: str) -> Put:
    from visor.schema.items import IndexedItem, Item, as_document
    from visor.storage.documents import Put

    indexed = IndexedItem(
        item=Item(id=item, source="bench", key=item, image_url=f"https://pictures.example/{item}"),
        version=1,
        model=model,
        shard="",
        indexed_at="2026-01-01T00:00:00+00:00",
        width=1,
        height=1,
    )
    return Put(collection=ITEMS, key=item, data=as_document(indexed))


def _draw(path: Path) -> None:
    from PIL import Image

    gradient = Image.linear_gradient("L").resize((640, 480))
    Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(path)
