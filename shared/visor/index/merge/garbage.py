"""Garbage collection: removes what a merge made superfluous: commit documents, shards, old segments, orphans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from visor.index.format import projection as space
from visor.index.format import segment, shard
from visor.index.format.manifest import (
    MANIFESTS,
    Commit,
    Manifest,
    Trash,
    manifest_object,
    read_commits,
    read_manifest_object,
    swap_manifest,
)
from visor.index.merge import pieces
from visor.index.merge.policy import MergePolicy
from visor.schema.collections import COMMITS
from visor.schema.items import as_document
from visor.storage.documents import WRITES_MAX, Delete, DocumentStore, Put, Write
from visor.storage.objects import ObjectStore

DELIVERY_S = 600.0
"""Longest time between reading a tombstone and committing a vector of that item: Pub/Sub's longest deadline."""
MERGED_KEPT_S = 86_400.0
"""The manifest names a merged commit until it is this old and a merge after the one that deleted its document has run,
for the searches that hold it."""


@dataclass(frozen=True, slots=True)
class GarbageCollector:
    """One round of collection. Everything it does may be repeated, and may stop anywhere."""

    objects: ObjectStore
    documents: DocumentStore
    policy: MergePolicy
    now: float

    def collect(self, manifest: Manifest, generation: int) -> tuple[Manifest, int, int]:
        """Delete what may go. Returns the manifest and generation afterwards, and how many objects were deleted.

        Raises:
            Conflict: Another merge swapped the manifest; everything deleted was superfluous anyway.
        """
        commits = read_commits(self.documents)
        others = self._other_manifests(manifest)
        done = self._done(commits, manifest, others)
        left = [commit for commit in commits if commit not in done]
        deletes = [Delete(collection=COMMITS, key=c.key, field="committed_at", value=c.committed_at) for c in done]
        deleted = 0
        for start in range(0, len(deletes), WRITES_MAX):
            deleted += sum(self.documents.commit(deletes[start : start + WRITES_MAX]))
        # A merged commit that only waits for another index still names its shard: both are deleted together.
        waiting = {commit.record.shard for commit in left if manifest.contains(commit)}
        ripe = {entry for entry in self._ripe(manifest) if entry.name not in waiting}
        # Running searches have yet to learn that the commits deleted now, however old, were merged.
        keys = {commit.key for commit in commits}
        merged = {k: at for k, at in manifest.merged.items() if k in keys or self.now - at < MERGED_KEPT_S}
        trash = tuple(entry for entry in manifest.trash if entry not in ripe)
        collected_at = manifest.collected_at
        if self.now - collected_at >= self.policy.orphan_every_s:
            trash += self._orphans(manifest, others, commits)
            collected_at = self.now
        after = manifest
        # Names that are no longer needed are dropped with the next change: they alone do not justify a new generation.
        if (trash, collected_at) != (manifest.trash, manifest.collected_at):
            after = msgspec.structs.replace(manifest, merged=merged, trash=trash, collected_at=collected_at)
            # First forget, then delete: a name in the trash never becomes live again.
            generation = swap_manifest(self.objects, after, generation)
        named = _named_by((after, *others)) | {commit.record.shard for commit in left}
        for entry in ripe:
            if entry.name not in named:
                self.objects.delete(entry.name)
                deleted += 1
        return after, generation, deleted

    def _done(self, commits: Sequence[Commit], manifest: Manifest, others: Sequence[Manifest]) -> list[Commit]:
        """The commits that all indexes concerned have taken up."""
        begun = {c.record.model for c in commits if c.record.model and (c.record.shard or c.record.updates)}
        # Vectors of a model that has no manifest yet wait for its first merge, and so do the records that hide them.
        waits = bool(begun - {one.model for one in (manifest, *others)})
        done = []
        for commit in commits:
            if commit.record.tombstones or commit.record.updates:
                age_s = self.now - commit.committed_at
                if age_s < DELIVERY_S or (waits and age_s < self.policy.late_s):
                    continue
            if _is_done(commit, manifest, others):
                done.append(commit)
        return done

    def _ripe(self, manifest: Manifest) -> set[Trash]:
        return {entry for entry in manifest.trash if self.now - entry.since >= self._patience_s(entry, manifest)}

    def _patience_s(self, entry: Trash, manifest: Manifest) -> float:
        # A shard that no commit names may be about to be committed, so it gets as long as a redelivery may take.
        is_orphan = PurePosixPath(entry.name).stem not in manifest.merged and entry.name.startswith(shard.FOLDER)
        return self.policy.orphan_every_s if is_orphan else self.policy.grace_s

    def _other_manifests(self, manifest: Manifest) -> list[Manifest]:
        """The manifests of other models: an index may be rebuilt next to this one."""
        found = [read_manifest_object(self.objects, info.name) for info in self.objects.list(MANIFESTS)]
        return [other for other in found if other is not None and other.model != manifest.model]

    def _orphans(self, manifest: Manifest, others: Sequence[Manifest], commits: Sequence[Commit]) -> tuple[Trash, ...]:
        """Objects that neither a manifest nor a commit names, as trash from now on."""
        named = _named_by((manifest, *others)) | {str(commit.record.shard) for commit in commits}
        named |= {entry.name for one in (manifest, *others) for entry in one.trash}
        folders = (shard.FOLDER, segment.FOLDER, space.FOLDER, pieces.FOLDER)
        names = [info.name for folder in folders for info in self.objects.list(folder)]
        return tuple(Trash(name=name, since=self.now) for name in names if name not in named)


def keep_only(objects: ObjectStore, documents: DocumentStore, model: str, commits: Sequence[Commit]) -> None:
    """Forget the indexes of all other models, and their part of these commits; the next merge collects the rest.

    May be repeated, and may stop anywhere.
    """
    for info in list(objects.list(MANIFESTS)):
        if info.name != manifest_object(model):
            objects.delete(info.name)
    others = [commit for commit in commits if commit.record.model not in (None, model)]
    writes: list[Write] = []
    for commit in others:
        if commit.record.tombstones:
            # Tombstones also hide rows of the index that stays. No index has to take up the rest.
            record = msgspec.structs.replace(commit.record, model=None, shard=None, count=0, updates=())
            data = {**as_document(record), "committed_at": commit.committed_at}
            writes.append(Put(collection=COMMITS, key=commit.key, data=data, newer_than="committed_at"))
        else:
            writes.append(Delete(collection=COMMITS, key=commit.key, field="committed_at", value=commit.committed_at))
    for start in range(0, len(writes), WRITES_MAX):
        documents.commit(writes[start : start + WRITES_MAX])


def _is_done(commit: Commit, manifest: Manifest, others: Sequence[Manifest]) -> bool:
    """True if all indexes concerned have taken up this commit."""
    record = commit.record
    if record.model not in (None, manifest.model) and not any(
        other.model == record.model and other.contains(commit) for other in others
    ):
        return False
    concerned = others if record.tombstones or record.updates else []
    return manifest.contains(commit) and all(other.contains(commit) for other in concerned)


def _named_by(manifests: Sequence[Manifest]) -> set[str]:
    names = {entry.name for manifest in manifests for entry in manifest.segments}
    return names | {manifest.projection.name for manifest in manifests if manifest.projection is not None}
