"""The manifest: which segments are live and which model and projection made them; and the commits after it.

It is replaced by compare-and-swap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from visor.errors import NewerFormat, NotFound, SettingsError
from visor.index.format.container import FORMAT_VERSION, checksum, corrupt
from visor.schema.collections import COMMITS
from visor.schema.items import Record, ShardCommit, as_record
from visor.storage.documents import Document, DocumentStore
from visor.storage.objects import ObjectStore

MANIFESTS = "manifest-"
"""First part of the object names of all manifests."""
MANIFEST_KEY = "manifest"
"""Key of the one commit record with which a merge tells running searches to read the manifest again."""


class SegmentEntry(Record, frozen=True, kw_only=True):
    """One live segment."""

    name: str
    count: int
    """Rows."""
    size_bytes: int
    hot_bytes: int
    """Everything but the full vectors: a search reads `[0, hot_bytes)`."""
    digest: str
    """BLAKE2b-128 of its header, in hex: ties the manifest to these very bytes."""
    projection: str | None = None
    tombstones: int = 0
    updates: int = 0


class ProjectionEntry(Record, frozen=True, kw_only=True):
    """The projection that all live segments are coded with."""

    name: str
    dimensions: int
    learned_on: int
    """Images in the index when it was learned."""


class Trash(Record, frozen=True, kw_only=True):
    """An object that is not live any more and may be deleted once searches have had time to release it."""

    name: str
    since: float
    """Seconds since 1970."""


class EngineEntry(Record, frozen=True, kw_only=True):
    """The collection of a vector engine that holds the rows; segments then carry only pending deletes and augmented
    queries."""

    name: str
    """milvus or pgvector."""
    collection: str
    images: int = 0
    declared: dict[str, int] = msgspec.field(default_factory=dict)
    """Number of items by their declaration of attributes, as JSON."""
    sampled: tuple[str, ...] = ()
    """Ids of an even sample of items, which represent all of them in a confidence."""
    old: dict[str, float] = msgspec.field(default_factory=dict)
    """Collections that this one replaced, and since when (seconds since 1970): searches may still query them."""
    writer: str = ""
    """The merge that writes to it now, if any; …"""
    writing: float = 0.0
    """… and when it last renewed this claim, seconds since 1970."""


class Manifest(Record, frozen=True, kw_only=True):
    """The commit point of one model's index."""

    format: int
    model: str
    dimension: int
    """Numbers in a full vector."""
    created_at: float
    """Seconds since 1970."""
    projection: ProjectionEntry | None = None
    segments: tuple[SegmentEntry, ...] = ()
    merged: dict[str, float] = msgspec.field(default_factory=dict)
    """Commits that the segments contain, with their `committed_at`, for as long as their documents may be there."""
    trash: tuple[Trash, ...] = ()
    collected_at: float = 0.0
    """When orphans were last looked for, seconds since 1970."""
    calibration: dict[str, Any] = msgspec.field(default_factory=dict)
    """Belongs to confidence; a merge carries it over unread."""
    engine: EngineEntry | None = None
    """None: the segments hold the rows."""
    digest: str = ""
    """BLAKE2b-64 of the manifest without this field; set only in the stored object."""

    @property
    def images(self) -> int:
        return sum(segment.count for segment in self.segments) + (self.engine.images if self.engine else 0)

    def contains(self, commit: Commit) -> bool:
        """True if the segments contain that commit (a later commit under the same key is a different one)."""
        return self.merged.get(commit.key, -1.0) >= commit.committed_at


@dataclass(frozen=True, slots=True)
class Commit:
    """A shard commit as it is stored; `committed_at` in seconds since 1970, by the store's clock."""

    key: str
    committed_at: float
    record: ShardCommit

    def rows(self, model: str) -> int:
        """Rows that it adds to the index of a model."""
        return self.record.count if self.record.model == model and self.record.shard else 0


def decode_commit(document: Document) -> Commit:
    return Commit(document.key, float(document.data["committed_at"]), as_record(document.data, ShardCommit))


def read_commits(documents: DocumentStore) -> list[Commit]:
    """All commits, oldest first, without the signal of a merge."""
    found = documents.query(COMMITS, order_by="committed_at")
    return [decode_commit(document) for document in found if document.key != MANIFEST_KEY]


def manifest_object(model: str) -> str:
    """The object name of a model's manifest: an index is rebuilt under a new model next to the old one."""
    return f"{MANIFESTS}{re.sub('[^A-Za-z0-9._-]', '_', model)}.json"


def read_manifest(objects: ObjectStore, model: str) -> tuple[Manifest | None, int]:
    """The model's manifest and its generation; `(None, 0)` if nothing has been merged yet.

    Raises:
        CorruptObject, NewerFormat: It cannot be read.
    """
    return _read(objects, manifest_object(model))


def check_engine(manifest: Manifest | None, configured: str) -> None:
    """Refuse to search or merge an index that is somewhere else.

    Raises:
        SettingsError: Its rows are not where VISOR_ENGINE says.
    """
    own = configured if manifest is None else manifest.engine.name if manifest.engine else "segments"
    if own != configured and manifest is not None and manifest.images:
        raise SettingsError(
            f"This index is in {own}, and VISOR_ENGINE is {configured}",
            valid=f"VISOR_ENGINE={own}, or an index that was moved",
            remedy=f"Set VISOR_ENGINE={own}; or move the index: `visor engine migrate {configured}`",
        )


def read_manifest_object(objects: ObjectStore, name: str) -> Manifest | None:
    """The manifest in the object of that name; None if there is none."""
    return _read(objects, name)[0]


def _read(objects: ObjectStore, name: str) -> tuple[Manifest | None, int]:
    try:
        view, info = objects.get_with_info(name)
    except NotFound:
        return None, 0
    try:
        version = msgspec.json.decode(view, type=_Version).format
        if version > FORMAT_VERSION:
            raise NewerFormat(
                f"{name} has format version {version}",
                valid=f"Versions up to {FORMAT_VERSION}",
                remedy="Install the Visor that wrote it, or a later one",
            )
        manifest = msgspec.json.decode(view, type=Manifest)
    except msgspec.DecodeError as exc:
        raise corrupt(name, f"it is not a manifest ({exc})") from exc
    plain = msgspec.structs.replace(manifest, digest="")
    if manifest.digest not in ("", checksum(_encode(plain))):
        raise corrupt(name, "it does not match its digest")
    return plain, info.generation


def swap_manifest(objects: ObjectStore, manifest: Manifest, generation: int) -> int:
    """Replace exactly that generation (0: create). Returns the new one.

    Raises:
        Conflict: Another process was faster; nothing changed.
    """
    data = _encode(msgspec.structs.replace(manifest, digest=checksum(_encode(manifest))))
    return objects.put(manifest_object(manifest.model), data, if_generation=generation).generation


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest, order="deterministic")


class _Version(msgspec.Struct):
    format: int
