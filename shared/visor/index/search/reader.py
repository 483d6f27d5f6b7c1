"""Keeps a snapshot current: polls shard commits, reads new shards, follows the manifest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from visor.errors import CorruptObject, FormatError, NotFound
from visor.index.format.container import Array, corrupt
from visor.index.format.ids import id_text
from visor.index.format.manifest import MANIFEST_KEY, Commit, Manifest, decode_commit, manifest_object, read_manifest
from visor.index.format.pending_deletes import PendingDeletes
from visor.index.format.projection import EMPTY_SPACE, FullSpace, Space, read_projection
from visor.index.format.segment import RowBlock, Segment, open_segment
from visor.index.format.shard import Shard, read_shard
from visor.index.search.snapshot import Cells, Snapshot, apply_deletes, fresh_block, superseded
from visor.schema.collections import COMMITS
from visor.schema.search import Notice
from visor.storage.documents import Document, DocumentStore, Where
from visor.storage.objects import ObjectStore
from visor.telemetry.traces import Span, span

log = logging.getLogger(__name__)

OVERLAP_S = 10.0
"""Commits are queried again from this long before the newest known one: commit times are not assigned in order."""
READERS = 8
"""Objects that are read at once."""
MANIFEST_ATTEMPTS = 3
"""A manifest whose segments are gone was replaced while they were being read."""


@dataclass(frozen=True, slots=True)
class OpenCommit:
    """A commit with its shard; None if it has no vectors of this model or they cannot be read."""

    commit: Commit
    shard: Shard | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class OpenManifest:
    """A manifest with what it names. base: what `superseded(blocks)` returns for the segments that have rows."""

    manifest: Manifest | None = None
    generation: int = 0
    space: Space = EMPTY_SPACE
    segments: tuple[Segment, ...] = ()
    blocks: tuple[RowBlock, ...] = ()
    base: tuple[Array | None, ...] = ()
    cells: Cells | None = None
    problems: tuple[str, ...] = ()
    """Segments that were left out, and why."""

    def contains(self, commit: Commit) -> bool:
        """True if the segments contain that commit."""
        return self.manifest is not None and self.manifest.contains(commit)


@dataclass(frozen=True, slots=True)
class News:
    """A new snapshot, and the ids of the items that changed; None if any of them may have."""

    snapshot: Snapshot
    changed: frozenset[str] | None


class IndexReader:
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
        self._open = OpenManifest()
        self._is_first = True
        self._commits: dict[str, OpenCommit] = {}
        self._polled_to = 0.0
        self._advanced_at = 0.0
        self._settled = False
        self._manifest_seen = 0.0

    def poll(self) -> News | None:
        """The changes since the last call; None if there are none.

        Costs one query, which is one read if there is nothing new and has not been for `OVERLAP_S`; reads objects
        only if there is something new. Never lists the bucket. In traces, its span is linked to those of the
        commits that it takes in.

        Raises:
            FormatError: A part without which answers would be wrong cannot be read; the error names it.
        """
        with span("refresh") as traced:
            return self._poll(traced)

    def _poll(self, traced: Span) -> News | None:
        asked_at = self._clock()
        # Before the manifest: a merge deletes the commits that its manifest contains.
        found = [decode_commit(document) for document in self._query()]
        if self._is_first:
            self._open = self._open_manifest()
        signal = next((commit for commit in found if commit.key == MANIFEST_KEY), None)
        is_swapped = signal is not None and signal.committed_at > self._manifest_seen
        commits = self._open_commits([c for c in found if c.key != MANIFEST_KEY and self._is_new(c)])
        traced.link(one.commit.record.trace for one in commits)
        is_lost = signal is not None and signal.record.model == self._model and self._open.manifest is None
        is_swapped |= is_lost or bool(self._open.problems) or any(one.problem is not None for one in commits)
        if is_lost:
            self._open = self._open_manifest(or_lost=True)
        elif is_swapped and not self._is_first:
            self._open = self._open_manifest()
        if signal is not None:
            self._manifest_seen = max(self._manifest_seen, signal.committed_at)
        self._advance(found, asked_at)
        if not (self._is_first or is_swapped or commits):
            return None
        self._is_first = False
        held = self._commits | {one.commit.key: one for one in commits}
        self._commits = {key: one for key, one in held.items() if not self._open.contains(one.commit)}
        return News(self._snapshot(), None if is_swapped else _changed_items(commits))

    def _advance(self, commits: Sequence[Commit], asked_at: float) -> None:
        """Note up to which time commits are known, and whether all of them are: then they need not be read again."""
        newest = max((commit.committed_at for commit in commits), default=0.0)
        if newest > self._polled_to:
            self._polled_to, self._advanced_at, self._settled = newest, asked_at, False
        elif asked_at - self._advanced_at >= OVERLAP_S:
            # … except those that could not be read, which are tried again.
            self._settled = not any(one.problem for one in self._commits.values())

    def _query(self) -> list[Document]:
        where = []
        if self._settled:
            where = [Where(field="committed_at", op=">", value=self._polled_to)]
        elif self._polled_to:
            where = [Where(field="committed_at", op=">=", value=self._polled_to - OVERLAP_S)]
        return self._documents.query(COMMITS, where=where, order_by="committed_at")

    def _is_new(self, commit: Commit) -> bool:
        if self._open.contains(commit):
            return False
        held = self._commits.get(commit.key)
        return held is None or held.commit.committed_at < commit.committed_at or held.problem is not None

    def _open_commits(self, commits: Sequence[Commit]) -> list[OpenCommit]:
        if len(commits) < 2:
            return [self._open_commit(commit) for commit in commits]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self._open_commit, commits))

    def _open_commit(self, commit: Commit) -> OpenCommit:
        name = commit.record.shard
        if name is None or commit.record.model != self._model:
            return OpenCommit(commit)
        try:
            return OpenCommit(commit, read_shard(self._objects.get(name), name=name))
        except NotFound:
            return OpenCommit(commit, problem=f"{name} is missing")
        except FormatError as exc:
            return OpenCommit(commit, problem=exc.found)

    def _open_manifest(self, or_lost: bool = False) -> OpenManifest:
        """Args: or_lost: a missing manifest is a problem."""
        for _ in range(MANIFEST_ATTEMPTS - 1):
            try:
                return self._read_manifest(or_lost)
            except NotFound:
                continue
        return self._read_manifest(or_lost, is_last=True)

    def _read_manifest(self, or_lost: bool, is_last: bool = False) -> OpenManifest:
        """Raises NotFound if an object is missing, most likely because it was replaced; but not the last time."""
        manifest, generation = read_manifest(self._objects, self._model)
        if manifest is None:
            return OpenManifest(problems=(f"{manifest_object(self._model)} is missing",) if or_lost else ())
        space: Space = FullSpace(manifest.dimension)
        if manifest.projection is not None:
            name = manifest.projection.name
            held = self._open.space
            try:
                space = held if held.name == name else read_projection(name, self._objects.get(name))
            except NotFound as exc:
                if is_last:
                    raise corrupt(name, "it is missing") from exc
                raise
        known = {segment.entry: segment for segment in self._open.segments}
        with ThreadPoolExecutor(READERS) as pool:
            opened = [known.get(e) or pool.submit(open_segment, self._objects, e, space) for e in manifest.segments]
        segments, problems = [], []
        for entry, one in zip(manifest.segments, opened, strict=True):
            try:
                segments.append(one if isinstance(one, Segment) else one.result())
            except NotFound:
                if not is_last:
                    raise
                problems.append(f"{entry.name} is missing ({entry.count} pictures)")
            except CorruptObject as exc:
                problems.append(f"{exc.found} ({entry.count} pictures)")
        blocks = tuple(segment for segment in segments if len(segment))
        is_same = [*map(id, blocks)] == [*map(id, self._open.blocks)]
        cells = self._open.cells if is_same else Cells.of(blocks, space)
        return OpenManifest(
            manifest, generation, space, tuple(segments), blocks, tuple(superseded(blocks)), cells, tuple(problems)
        )

    def _snapshot(self) -> Snapshot:
        opened = self._open
        commits = sorted(self._commits.values(), key=lambda one: (one.commit.committed_at, one.commit.key))
        shards = [one.shard for one in commits if one.shard is not None]
        space = opened.space
        if space.dimension == 0 and shards:
            space = FullSpace(shards[0].vectors.shape[1])
        fresh = PendingDeletes.of_commits([one.commit.record for one in commits])
        pending = PendingDeletes.concat([fresh, *(segment.pending for segment in opened.segments)])
        block = fresh_block(shards, space)
        blocks = apply_deletes(opened.blocks, opened.base, block, pending)
        problems = [*opened.problems]
        problems += [f"{one.problem} ({one.commit.record.count} pictures)" for one in commits if one.problem]
        notices: tuple[Notice, ...] = ()
        if problems:
            text = f"Part of the index could not be read and was left out: {'; '.join(problems)}."
            notices = (Notice(code="index_partly_read", text=f"{text} `visor check` says what to do."),)
            log.warning(notices[0].text)
        return Snapshot(
            space,
            blocks,
            opened.generation,
            opened.manifest,
            notices,
            sum(live.count for live in blocks),
            block,
            pending,
            np.concatenate([fresh.tombstones.ids, fresh.updates.ids, *([] if block is None else [block.ids])]),
            cells=opened.cells,
        )


def _changed_items(commits: Sequence[OpenCommit]) -> frozenset[str] | None:
    """Ids that the commits name; None if one of them has another model or cannot be read."""
    if any(one.shard is None and one.commit.record.shard is not None for one in commits):
        return None
    changed = {update.id for one in commits for update in one.commit.record.updates}
    changed |= {tombstone.id for one in commits for tombstone in one.commit.record.tombstones}
    changed |= {id_text(row) for one in commits if one.shard is not None for row in one.shard.ids}
    return frozenset(changed)
