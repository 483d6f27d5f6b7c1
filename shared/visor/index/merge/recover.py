"""Recovery: a manifest rebuilt from the segments that are there."""

from __future__ import annotations

import time

import numpy as np

from visor.errors import CorruptObject, NotFound
from visor.index.format.container import FORMAT_VERSION, Container
from visor.index.format.ids import IdIndex, newest
from visor.index.format.manifest import MANIFESTS, Manifest, ProjectionEntry, SegmentEntry, read_manifest_object
from visor.index.format.projection import read_projection
from visor.index.format.segment import FOLDER, entry_of
from visor.storage.objects import ObjectStore


def recover_manifest(objects: ObjectStore, model: str) -> Manifest:
    """The manifest of all readable segments of the model that hold something newer ones do not.

    Costs a listing and reads every segment. Tombstones that were applied long ago are no longer known, so rows of
    deleted items may be back: compare with the item documents.
    """
    ids, versions = np.empty((0, 16), np.uint8), np.empty(0, np.int64)
    entries: list[SegmentEntry] = []
    dimension, elsewhere = 0, _named_elsewhere(objects)
    for info in sorted(objects.list(FOLDER), key=lambda one: one.name, reverse=True):
        try:
            container = Container.open(info.name, objects.get(info.name), kind="segment")
            if container.about.get("model") != model or info.name in elsewhere:
                continue
            its_ids, its_versions = container.array("ids"), container.array("versions")
        except (CorruptObject, NotFound):
            continue
        rows = IdIndex.of(ids).find(its_ids)
        if len(rows) and not np.any((rows < 0) | (its_versions > np.append(versions, -1)[rows])):
            continue
        ids, versions = np.concatenate([ids, its_ids]), np.concatenate([versions, its_versions])
        kept = newest(ids, versions)
        ids, versions = ids[kept], versions[kept]
        dimension = container.tensors["vectors"].shape[1]
        entries.append(entry_of(container, info.size_bytes))
    return Manifest(
        format=FORMAT_VERSION,
        model=model,
        dimension=dimension,
        created_at=time.time(),
        projection=_projection(objects, [entry.projection for entry in entries if entry.projection]),
        segments=tuple(reversed(entries)),
    )


def _named_elsewhere(objects: ObjectStore) -> set[str]:
    """Segments that readable manifests name: those of other models."""
    names: set[str] = set()
    for info in objects.list(MANIFESTS):
        try:
            manifest = read_manifest_object(objects, info.name)
        except CorruptObject:
            continue
        names |= {entry.name for entry in manifest.segments} if manifest else set()
    return names


def _projection(objects: ObjectStore, names: list[str]) -> ProjectionEntry | None:
    """The newest of the projections; if it cannot be read, as learned on 0 images, so that a merge learns one anew."""
    if not names:
        return None
    try:
        space = read_projection(names[0], objects.get(names[0]))
    except (CorruptObject, NotFound):
        return ProjectionEntry(name=names[0], dimensions=0, learned_on=0)
    return ProjectionEntry(name=space.name, dimensions=space.dimensions, learned_on=space.learned_on)
