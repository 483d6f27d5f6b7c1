"""`visor bench copies`: is the original of an edited picture found first, and distinguished from similar ones?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from PIL import Image

from visor.console import as_json, print_json, progress, say
from visor.errors import BadRequest, ImageError
from visor.imaging.decode import decode_image
from visor.imaging.sniff import ENDINGS
from visor.index.format.shard import shard_object, write_shard
from visor.index.merge.merge import merge
from visor.index.search.searcher import Searcher
from visor.models.embedder import Embedder, load_embedder
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.near_duplicates.verdict import Aligner, classify_matches
from visor.schema.collections import COMMITS
from visor.schema.items import BATCH_SIZE_MAX, FacetRow, ShardCommit, as_document, item_id
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.storage.documents import SERVER_TIME, Put
from visor_bench.answers.edits import EDITS, EXACT

PICTURES = 200
K = 12
"""Results per search, as a page requests them."""
SIDE = 640
"""Longest side of the pictures that are edited, in pixels: an edit of a huge photo shows the model nothing more."""


@dataclass(frozen=True)
class Told:
    """One edited query: whether its original came first, and its verdict."""

    edit: str
    is_first: bool
    verdict: str

    @property
    def is_right(self) -> bool:
        return self.verdict == ("exact" if self.edit in EXACT else "edited")


@click.command("copies")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pictures", default=PICTURES, show_default=True, help="Pictures that are edited.")
@as_json
def copies_command(folder: Path, pictures: int, as_json: bool) -> None:
    """Search for edited copies of a folder's pictures among all of them, through the search that a page uses.

    A verdict is right if the original's match is called `exact` after resizing and re-encoding and `edited` after the
    other edits. Beside it `similar_accuracy` says how often the first match of a picture whose original is not in the
    index is called `similar`.
    """
    settings = Settings.read()
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as home:
        document = measure(folder, pictures, settings, Path(home))
    if as_json:
        print_json(document)
        return
    click.echo(f"first {document['first']}  verdict {document['verdict_accuracy']}")
    for edit, figures in document["edits"].items():
        click.echo(f"{edit:12} first {figures['first']:.3f}  verdict {figures['verdict_accuracy']:.3f}")
    click.echo(f"{'other':12} called similar {document['similar_accuracy']:.3f}")


def measure(folder: Path, pictures: int, settings: Settings, home: Path) -> dict[str, Any]:
    """The figures of one folder; `home` keeps the index meanwhile.

    Raises:
        BadRequest: No picture is in the folder.
    """
    embedder = load_embedder(settings)
    stores = open_stores(msgspec.structs.replace(settings, backend="local", home=home, index="copies"))
    shown = _index(stores, embedder, folder, settings.pixels_max)
    searcher = Searcher(stores.objects, stores.documents, model=embedder.fingerprint, freshness_s=1e9)
    searcher.refresh()
    chosen = [list(shown)[i] for i in np.linspace(0, len(shown) - 1, min(pictures, len(shown))).astype(int)]
    told, others = [], []
    with progress("Searching", len(chosen)) as done:
        for number, item in enumerate(chosen):
            picture = _open(shown[item], settings.pixels_max)
            for name, edit in EDITS.items():
                told.append(_tell(searcher, embedder, edit(picture, number), name, item))
            others.append(_tell(searcher, embedder, picture, "", item, leave_out=True).verdict)
            done(1)
    stores.close()
    return summary(told, others, images=len(shown))


def _index(stores: Stores, embedder: Embedder, folder: Path, pixels_max: int) -> dict[str, Path]:
    """Index every picture in the folder, like embed and merge. Returns the files by item id."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in ENDINGS and path.is_file()]
    shown: dict[str, Path] = {}
    with progress(f"Indexing {folder.name}", len(files)) as done:
        for start in range(0, len(files), BATCH_SIZE_MAX):
            some = {item_id("copies", str(path)): path for path in files[start : start + BATCH_SIZE_MAX]}
            pictures = {}
            for item, path in sorted(some.items()):
                try:
                    pictures[item] = _open(path, pixels_max)
                except ImageError as exc:
                    say(f"{path}: {exc}")
            if pictures:
                _write(stores, embedder, pictures, start)
                shown |= {item: some[item] for item in pictures}
            done(len(some))
    if not shown:
        raise BadRequest(f"No picture is in {folder}", valid="A folder of pictures", remedy="Name another")
    merge(stores.objects, stores.documents, model=embedder.fingerprint)
    return dict(sorted(shown.items(), key=lambda one: one[1]))


def _write(stores: Stores, embedder: Embedder, pictures: dict[str, Image.Image], number: int) -> None:
    seen = embedder.embed(list(pictures.values()))
    hashes = [np.frombuffer(perceptual_hash(picture), np.uint8) for picture in pictures.values()]
    data = write_shard(
        model=embedder.fingerprint,
        ids=list(pictures),
        versions=[1] * len(pictures),
        vectors=seen.vectors.astype(np.float16),
        hashes=np.stack(hashes),
        facets=[FacetRow(labels=tuple(label.name for label in labels)) for labels in seen.labels],
    )
    name = shard_object(f"copies-{number}")
    stores.objects.put(name, data)
    commit = ShardCommit(batch=f"copies-{number}", model=embedder.fingerprint, shard=name, count=len(pictures))
    record = {**as_document(commit), "committed_at": SERVER_TIME}
    stores.documents.commit([Put(collection=COMMITS, key=f"copies-{number}", data=record)])


def _open(path: Path, pixels_max: int) -> Image.Image:
    picture = decode_image(path.read_bytes(), pixels_max=pixels_max).pixels
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture


def _tell(
    searcher: Searcher, embedder: Embedder, picture: Image.Image, edit: str, item: str, *, leave_out: bool = False
) -> Told:
    """Search as `visor.search.service` does. The verdict is that of the original, at whatever rank, or that of the
    first match if the original is left out."""
    hits = searcher.search(
        embedder.embed([picture]).vectors[0],
        k=K,
        leave_out=(item,) if leave_out else (),
    )
    similarities, hashes = [hit.similarity for hit in hits.hits], [hit.hash for hit in hits.hits]
    told = classify_matches(similarities, hashes, aligner=Aligner(picture), metric=hits.metric)
    place = 0 if leave_out else next((i for i, hit in enumerate(hits.hits) if item in (hit.id, *hit.duplicates)), None)
    if place is None or not hits.hits:
        return Told(edit, is_first=False, verdict="similar")
    return Told(edit, is_first=place == 0, verdict=told[place])


def summary(told: Sequence[Told], others: Sequence[str], *, images: int) -> dict[str, Any]:
    by_edit = {name: [one for one in told if one.edit == name] for name in EDITS}
    return {
        "first": _share([one.is_first for one in told]),
        "verdict_accuracy": _share([one.is_right for one in told]),
        "similar_accuracy": _share([verdict == "similar" for verdict in others]),
        "images": images,
        "queries": len(told),
        "edits": {
            name: {
                "first": _share([one.is_first for one in some]),
                "verdict_accuracy": _share([one.is_right for one in some]),
            }
            for name, some in by_edit.items()
        },
    }


def _share(values: Sequence[bool]) -> float:
    return round(float(np.mean(values)), 4)
