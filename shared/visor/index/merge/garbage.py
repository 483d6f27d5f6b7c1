"""Removing what a merge made superfluous: commit documents, shards, old segments, orphans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from visor.index.format import projection as space
from visor.index.format import segment, shard
from visor.index.format.manifest import (
    MANIFEST_KEY,
    MANIFESTS,
    Manifest,
    Trash,
    manifest_object,
    read_manifest_object,
    swap_manifest,
)
from visor.index.merge.policy import MergePolicy
from visor.schema.collections import COMMITS
from visor.schema.items import ShardCommit
from visor.storage.documents import WRITES_MAX, Delete, Document, DocumentStore
from visor.storage.objects import ObjectStore

DELIVERY_S = 600.0
"""So long may a delivery take from reading what is deleted to committing a vector of it: Pub/Sub's longest deadline."""
MERGED_KEPT_S = 86_400.0
"""How long the manifest names merged commits whose documents are gone, for searches that hold these."""


@dataclass(frozen=True, slots=True)
class Cleaner:
    """One round of removing. Everything it does may be repeated, and may stop anywhere."""

    objects: ObjectStore
    documents: DocumentStore
    policy: MergePolicy
    now: float

    def run(self, manifest: Manifest, generation: int) -> tuple[Manifest, int, int]:
        """Delete what may go. Returns the manifest and generation afterwards, and how many things went.

        Raises:
            Conflict: Another merge swapped the manifest; what was deleted was free to go anyway.
        """
        documents = [d for d in self.documents.query(COMMITS, order_by="committed_at") if d.key != MANIFEST_KEY]
        others = self._other_manifests(manifest)
        done = self._done(documents, manifest, others)
        deletes = [
            Delete(collection=COMMITS, key=d.key, field="committed_at", value=d.data["committed_at"]) for d in done
        ]
        deleted = 0
        for start in range(0, len(deletes), WRITES_MAX):
            deleted += sum(self.documents.commit(deletes[start : start + WRITES_MAX]))
        left = {d.key for d in documents} - {d.key for d in done}
        # A merged commit that only waits for another index names its shard still: that goes with it.
        waiting = {
            d.data.get("shard")
            for d in documents
            if d not in done and manifest.contains(d.key, float(d.data["committed_at"]))
        }
        ripe = {entry for entry in self._ripe(manifest) if entry.name not in waiting}
        merged = {k: at for k, at in manifest.merged.items() if k in left or self.now - at < MERGED_KEPT_S}
        trash = tuple(entry for entry in manifest.trash if entry not in ripe)
        collected_at = manifest.collected_at
        if self.now - collected_at >= self.policy.orphan_every_s:
            trash += self._orphans(manifest, others, documents)
            collected_at = self.now
        after = msgspec.structs.replace(manifest, merged=merged, trash=trash, collected_at=collected_at)
        if after != manifest:
            # First forget, then delete: a name in the trash never becomes live again.
            generation = swap_manifest(self.objects, after, generation)
        live = _named_by((after, *others))
        again = {d.data.get("shard") for d in documents if d not in done}
        for entry in ripe:
            if entry.name not in live and entry.name not in again:
                self.objects.delete(entry.name)
                deleted += 1
        return after, generation, deleted

    def _done(self, documents: Sequence[Document], manifest: Manifest, others: Sequence[Manifest]) -> list[Document]:
        """The commits that every index that has to has taken up."""
        records = {d.key: _record(d) for d in documents}
        begun = {record.model for record in records.values() if record.model and (record.shard or record.updates)}
        # Vectors of a model that has no manifest yet wait for its first merge, and so does what hides them.
        waits = bool(begun - {one.model for one in (manifest, *others)})
        done = []
        for document in documents:
            record, at = records[document.key], float(document.data["committed_at"])
            if record.tombstones or record.updates:
                age_s = self.now - at
                if age_s < DELIVERY_S or (waits and age_s < self.policy.late_s):
                    continue
            if _is_done(document.key, at, record, manifest, others):
                done.append(document)
        return done

    def _ripe(self, manifest: Manifest) -> set[Trash]:
        return {entry for entry in manifest.trash if self.now - entry.since >= self._patience_s(entry, manifest)}

    def _patience_s(self, entry: Trash, manifest: Manifest) -> float:
        # A shard that no commit names may be about to be committed, so it gets as long as a redelivery may take.
        is_orphan = PurePosixPath(entry.name).stem not in manifest.merged and entry.name.startswith(shard.FOLDER)
        return self.policy.orphan_every_s if is_orphan else self.policy.grace_s

    def _other_manifests(self, manifest: Manifest) -> list[Manifest]:
        """The manifests of other models: an index may be built anew beside this one."""
        found = [read_manifest_object(self.objects, info.name) for info in self.objects.list(MANIFESTS)]
        return [other for other in found if other is not None and other.model != manifest.model]

    def _orphans(
        self, manifest: Manifest, others: Sequence[Manifest], documents: Sequence[Document]
    ) -> tuple[Trash, ...]:
        """Objects that neither a manifest nor a commit names, as trash from now on."""
        named = _named_by((manifest, *others)) | {str(d.data.get("shard")) for d in documents}
        named |= {entry.name for one in (manifest, *others) for entry in one.trash}
        names = [
            info.name for folder in (shard.FOLDER, segment.FOLDER, space.FOLDER) for info in self.objects.list(folder)
        ]
        return tuple(Trash(name=name, since=self.now) for name in names if name not in named)


def drop_model(objects: ObjectStore, documents: DocumentStore, model: str) -> None:
    """Forget a model's index and the commits that wait for it; the next merge of another model collects the rest."""
    objects.delete(manifest_object(model))
    found = [d for d in documents.query(COMMITS, order_by="committed_at") if d.key != MANIFEST_KEY]
    left = [d.key for d in found if _record(d).model == model and not _record(d).tombstones]
    deletes = [Delete(collection=COMMITS, key=key) for key in left]
    for start in range(0, len(deletes), WRITES_MAX):
        documents.commit(deletes[start : start + WRITES_MAX])


def _record(document: Document) -> ShardCommit:
    fields = {name: value for name, value in document.data.items() if name != "committed_at"}
    return msgspec.convert(fields, ShardCommit)


def _is_done(key: str, at: float, record: ShardCommit, manifest: Manifest, others: Sequence[Manifest]) -> bool:
    """True if every index that has to has taken this commit up."""
    if record.model not in (None, manifest.model) and not any(
        other.model == record.model and other.contains(key, at) for other in others
    ):
        return False
    concerned = others if record.tombstones or record.updates else []
    return manifest.contains(key, at) and all(other.contains(key, at) for other in concerned)


def _named_by(manifests: Sequence[Manifest]) -> set[str]:
    names = {entry.name for manifest in manifests for entry in manifest.segments}
    return names | {manifest.projection.name for manifest in manifests if manifest.projection is not None}
