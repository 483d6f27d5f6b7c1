"""Keeps a snapshot current: polls shard commits, reads new shards, follows the manifest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import numpy as np

from visor.errors import FormatError, NotFound
from visor.index.format.container import Array
from visor.index.format.facets import FacetColumns
from visor.index.format.ids import id_text
from visor.index.format.manifest import MANIFEST_KEY, Manifest, read_manifest
from visor.index.format.projection import Space, read_space
from visor.index.format.segment import LateRecords, Segment, open_segment
from visor.index.format.shard import Shard, read_shard
from visor.index.search.snapshot import Block, Snapshot, resolve, segment_block, shards_block, superseded
from visor.schema.collections import COMMITS
from visor.schema.items import FacetUpdate, ShardCommit, Tombstone
from visor.storage.documents import Document, DocumentStore, Where
from visor.storage.objects import ObjectStore

log = logging.getLogger(__name__)

OVERLAP_S = 10.0
"""Commits are asked for again from this long before the newest one known: commit times are not handed out in order."""
READERS = 8
"""Objects that are read at once."""
MANIFEST_ATTEMPTS = 3
"""A manifest whose segments are gone was replaced while they were being read."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A shard commit as a search holds it; `shard` is None where it brought no vectors or they cannot be read."""

    key: str
    committed_at: float
    record: ShardCommit
    shard: Shard | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """What the manifest says, opened."""

    manifest: Manifest | None
    generation: int
    space: Space
    segments: tuple[Segment, ...]
    blocks: tuple[Block, ...]
    base: tuple[Array | None, ...]
    problems: tuple[str, ...]


class IndexState:
    """The mutable part of a searcher. Not thread-safe: one refresh at a time."""

    def __init__(
        self,
        objects: ObjectStore,
        documents: DocumentStore,
        model: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects, self._documents, self._model, self._clock = objects, documents, model, clock
        self._merged: Merged | None = None
        self._commits: dict[str, Commit] = {}
        self._polled_to = 0.0
        self._advanced_at = 0.0
        self._settled = False
        self._manifest_seen = 0.0
        self._changed: set[str] | None = set()

    def poll(self) -> Snapshot | None:
        """The snapshot after what happened since the last call; None if nothing did.

        Costs one query, which is one read where there is nothing new and has been nothing for `OVERLAP_S`, and reads of
        objects only where there is something new. Never lists the bucket.

        Raises:
            FormatError: What cannot be left out without making answers wrong cannot be read; it is named.
        """
        first = self._merged is None
        if first:
            self._merged = self._open_merged()
        asked_at = self._clock()
        documents = self._query()
        news = [d for d in documents if d.key != MANIFEST_KEY and self._is_new(d)]
        signal = next((d for d in documents if d.key == MANIFEST_KEY), None)
        told = signal is not None and float(signal.data["committed_at"]) > self._manifest_seen
        commits = self._read_commits(news)
        gone = any(commit.problem is not None and commit.shard is None for commit in commits)
        if (told or gone) and not first:
            self._merged = self._open_merged()
        if told and signal is not None:
            self._manifest_seen = float(signal.data["committed_at"])
        assert self._merged is not None
        self._advance(documents, asked_at)
        if not (first or told or commits):
            return None
        self._note_changed(None if told or gone else commits)
        self._commits |= {commit.key: commit for commit in commits}
        manifest = self._merged.manifest
        if manifest is not None:
            self._commits = {
                key: commit for key, commit in self._commits.items() if not manifest.contains(key, commit.committed_at)
            }
        return self._snapshot()

    def take_changed(self) -> set[str] | None:
        """Ids of the items that changed since the last call; None if any may have."""
        changed, self._changed = self._changed, set()
        return changed

    def _note_changed(self, commits: Sequence[Commit] | None) -> None:
        # An embed commit of another model, or one that cannot be read, does not say which items are in it.
        if commits is None or any(c.shard is None and c.record.shard is not None for c in commits):
            self._changed = None
        if self._changed is None or commits is None:
            return
        for commit in commits:
            self._changed |= {update.id for update in commit.record.updates}
            self._changed |= {tombstone.id for tombstone in commit.record.tombstones}
            if commit.shard is not None:
                self._changed |= {id_text(row) for row in commit.shard.ids}

    @property
    def manifest(self) -> Manifest | None:
        return self._merged.manifest if self._merged else None

    def _advance(self, documents: Sequence[Document], asked_at: float) -> None:
        """Note up to when commits are known, and whether all of them are: then they need not be read again."""
        newest = max((float(d.data["committed_at"]) for d in documents), default=0.0)
        if newest > self._polled_to:
            self._polled_to, self._advanced_at, self._settled = newest, asked_at, False
        elif asked_at - self._advanced_at >= OVERLAP_S:
            # … but for those that could not be read, which are tried again.
            self._settled = not any(commit.problem for commit in self._commits.values())

    def _query(self) -> list[Document]:
        where = []
        if self._settled:
            where = [Where(field="committed_at", op=">", value=self._polled_to)]
        elif self._polled_to:
            where = [Where(field="committed_at", op=">=", value=self._polled_to - OVERLAP_S)]
        return self._documents.query(COMMITS, where=where, order_by="committed_at")

    def _is_new(self, document: Document) -> bool:
        committed_at = float(document.data["committed_at"])
        assert self._merged is not None
        manifest = self._merged.manifest
        if manifest is not None and manifest.contains(document.key, committed_at):
            return False
        held = self._commits.get(document.key)
        return held is None or held.committed_at < committed_at or held.problem is not None

    def _read_commits(self, documents: Sequence[Document]) -> list[Commit]:
        if len(documents) < 2:
            return [self._read_commit(document) for document in documents]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self._read_commit, documents))

    def _read_commit(self, document: Document) -> Commit:
        fields = {name: value for name, value in document.data.items() if name != "committed_at"}
        record = msgspec.convert(fields, ShardCommit)
        at = float(document.data["committed_at"])
        if record.shard is None or record.model != self._model:
            return Commit(document.key, at, record, None)
        try:
            shard = read_shard(self._objects.get(record.shard), name=record.shard)
        except NotFound:
            return Commit(document.key, at, record, None, f"{record.shard} is missing")
        except FormatError as exc:
            return Commit(document.key, at, record, None, exc.found)
        return Commit(document.key, at, record, shard)

    def _open_merged(self) -> Merged:
        for attempt in range(MANIFEST_ATTEMPTS):
            manifest, generation = read_manifest(self._objects, self._model)
            try:
                return self._open(manifest, generation)
            except NotFound:
                if attempt == MANIFEST_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _open(self, manifest: Manifest | None, generation: int) -> Merged:
        if manifest is None:
            return Merged(None, 0, Space(None, 0), (), (), (), ())
        space = Space(None, manifest.dimension)
        if manifest.projection is not None:
            name = manifest.projection.name
            held = self._merged.space if self._merged else None
            space = held if held is not None and held.name == name else read_space(name, self._objects.get(name))
        known = {s.entry: s for s in self._merged.segments} if self._merged else {}
        segments = []
        with ThreadPoolExecutor(READERS) as pool:
            opened = [known.get(e) or pool.submit(open_segment, self._objects, e, space) for e in manifest.segments]
            segments = [s if isinstance(s, Segment) else s.result() for s in opened]
        blocks = tuple(segment_block(segment, self._objects) for segment in segments if len(segment))
        return Merged(manifest, generation, space, tuple(segments), blocks, tuple(superseded(blocks)), ())

    def _snapshot(self) -> Snapshot:
        merged = self._merged
        assert merged is not None
        commits = sorted(self._commits.values(), key=lambda commit: (commit.committed_at, commit.key))
        shards = [commit.shard for commit in commits if commit.shard is not None]
        space = merged.space
        if space.dimension == 0 and shards:
            space = Space(None, shards[0].vectors.shape[1])
        tombstones = late_records([t for commit in commits for t in commit.record.tombstones])
        fresh_updates = [u for commit in commits for u in commit.record.updates]
        updates = join([late_records(fresh_updates), *(segment.updates for segment in merged.segments)])
        columns = [FacetColumns.of([u.facets for u in fresh_updates])]
        columns += [segment.update_columns for segment in merged.segments]
        lives = resolve(
            merged.blocks,
            merged.base,
            shards_block(shards, space),
            join([tombstones, *(segment.tombstones for segment in merged.segments)]),
            updates,
            FacetColumns.concat(columns),
        )
        problems = [*merged.problems, *(f"{c.problem} ({c.record.count} pictures)" for c in commits if c.problem)]
        notice = None
        if problems:
            notice = "Part of the index could not be read and was left out: " + "; ".join(problems) + "."
            log.warning(notice)
        return Snapshot(space, lives, merged.generation, notice, sum(live.count for live in lives))


def late_records(records: Sequence[Tombstone] | Sequence[FacetUpdate], since: float = 0.0) -> LateRecords:
    """Tombstones or updates as arrays; `since` in seconds since 1970."""
    ids = np.frombuffer(b"".join(bytes.fromhex(r.id) for r in records), np.uint8).reshape(-1, 16)
    return LateRecords(ids, np.array([r.version for r in records], np.int64), np.full(len(records), since))


def join(parts: Sequence[LateRecords]) -> LateRecords:
    return LateRecords(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.versions for part in parts]),
        np.concatenate([part.since for part in parts]),
    )
