"""Damages to each kind of stored object and document, done through the stores, so that they are the same everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from visor.index.format.container import Array, Container, pack
from visor.index.format.current_model import KEY
from visor.index.format.manifest import MANIFEST_KEY, MANIFESTS, read_manifest_object, swap_manifest
from visor.index.format.segment import entry_of
from visor.schema.collections import (
    COMMITS,
    CURRENT_MODEL,
    FAILURES,
    FEEDBACK,
    FEEDBACK_INBOX,
    ITEMS,
    METERS,
    REQUESTS,
    RUNS,
    SOURCES,
    TRIES,
    VISITORS,
)
from visor.storage import Stores
from visor.storage.documents import Delete, Put

Damage = Callable[[Stores], object]


def flip(place: int | float) -> Callable[[bytes], bytes]:
    """Change one byte: the one at that place, or share of the length."""

    def harm(data: bytes) -> bytes:
        at = place if isinstance(place, int) else int(len(data) * place)
        return data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]

    return harm


def flip_in(tensor: str) -> Callable[[bytes], bytes]:
    """Change the middle byte of a tensor of a segment."""

    def harm(data: bytes) -> bytes:
        spec = Container.open("it", memoryview(data), kind="segment").tensors[tensor]
        return flip((spec.start + spec.end) // 2)(data)

    return harm


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def replaced(new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: new


def harmed(prefix: str, harm: Callable[[bytes], bytes] | None = None, *, every: bool = False) -> Damage:
    """Harm the largest live object below a prefix, or `every`; without a `harm` it is deleted."""

    def do(stores: Stores) -> None:
        manifests = [read_manifest_object(stores.objects, info.name) for info in stores.objects.list(MANIFESTS)]
        trash = {one.name for manifest in manifests if manifest is not None for one in manifest.trash}
        found = [info for info in stores.objects.list(prefix) if info.name not in trash]
        found.sort(key=lambda info: -info.size_bytes)
        assert found, prefix
        for info in found if every else found[:1]:
            data = bytes(stores.objects.get(info.name))
            stores.objects.delete(info.name)
            if harm is not None:
                stores.objects.put(info.name, harm(data))

    return do


def rewritten(tensor: str, change: Callable[[Array], Array]) -> Damage:
    """Change a tensor of the live segment of a one-segment index, and have the manifest mean what comes of it."""

    def do(stores: Stores) -> None:
        (info,) = stores.objects.list(MANIFESTS)
        manifest = read_manifest_object(stores.objects, info.name)
        assert manifest is not None
        (entry,) = manifest.segments
        old = Container.open(entry.name, stores.objects.get(entry.name), kind="segment")
        names = [name for name in old.tensors if name != "header_digest" and not name.startswith("padding_")]
        tensors = {name: old.array(name, verify=False) for name in names}
        data = pack("segment", old.about, {**tensors, tensor: change(tensors[tensor])})
        stores.objects.put(entry.name, data)
        after = entry_of(Container.open(entry.name, memoryview(data), kind="segment"), len(data))
        swap_manifest(stores.objects, msgspec.structs.replace(manifest, segments=(after,)), info.generation)

    return do


def made(name: str, data: bytes) -> Damage:
    return lambda stores: stores.objects.put(name, data)


def changed(collection: str, change: dict[str, Any] | None, *, key: str = "", every: bool = False) -> Damage:
    """Change fields of a collection's first document, of `every` one or of that `key`; None deletes it. Where there is
    none, it is made of the fields alone."""

    def do(stores: Stores) -> None:
        found = {d.key: d for d in stores.documents.query(collection) if key in ("", d.key)}
        if not key and collection == COMMITS:
            found.pop(MANIFEST_KEY, None)
        for name in sorted(found or {key or "x": None})[: None if every else 1]:
            before = found[name].data if name in found else {}
            put = Put(collection=collection, key=name, data={**before, **(change or {})})
            stores.documents.commit([Delete(collection=collection, key=name) if change is None else put])

    return do


def replaced_item(stores: Stores) -> None:
    name = min(document.key for document in stores.documents.query(ITEMS))
    stores.documents.commit([Put(collection=ITEMS, key=name, data={"a": 1})])


DAMAGES: dict[str, Damage] = {
    "manifest-damaged": harmed("manifest-", cut),
    "manifest-missing": harmed("manifest-"),
    "segment-damaged": harmed("segments/", flip(700)),
    "segment-truncated": harmed("segments/", cut),
    "segment-missing": harmed("segments/"),
    "segment-vectors-damaged": harmed("segments/", flip(0.7)),
    "segment-words-damaged": harmed("segments/", flip_in("words")),
    "projection-damaged": harmed("projections/", flip(0.5)),
    "projection-missing": harmed("projections/"),
    "shard-damaged": harmed("shards/", flip(0.5), every=True),
    "shard-missing": harmed("shards/", every=True),
    "commit-missing": changed(COMMITS, None, every=True),
    "commit-damaged": changed(COMMITS, {"count": "x"}, every=True),
    "signal-damaged": changed(COMMITS, {"manifest": "x"}, key=MANIFEST_KEY),
    "item-damaged": changed(ITEMS, {"width": "wide"}),
    "item-unreadable": replaced_item,
    "items-missing": changed(ITEMS, None, every=True),
    "current-model-damaged": changed(CURRENT_MODEL, {"current": 1}, key=KEY),
    "current-model-missing": changed(CURRENT_MODEL, None, key=KEY),
    "failure-damaged": changed(FAILURES, {"item": 1}),
    "run-damaged": changed(RUNS, {"seen": "x"}),
    "source-damaged": changed(SOURCES, {"name": 1}),
    "feedback-damaged": changed(FEEDBACK, {"query": 1, "given_at": 5.0}),
    "feedback-waiting-damaged": changed(FEEDBACK_INBOX, {"query": 1, "given_at": time.time()}),
    "visitors-damaged": changed(VISITORS, {"model": 1, "added_at": 5.0}),
    "meter-damaged": changed(METERS, {"month_requests": "x"}, every=True),
    "requests-damaged": changed(REQUESTS, {"host x": "y"}),
    "tries-damaged": changed(TRIES, {"tries": "x"}),
    "seen-set-damaged": harmed("seen/", cut),
    "seen-set-missing": harmed("seen/"),
    "links-damaged": made("links.json", b'{"format": 1, "cur'),
    "frames-state-damaged": made("frames.json", b'{"swept": 5}'),
}
"""By the names in docs/operations.md."""
