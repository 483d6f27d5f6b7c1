"""Merge: shards and small segments become larger segments, by compare-and-swap of the manifest.

A merge goes in steps. Each step writes new segments under fresh names, then swaps the manifest: before the swap nothing
of it can be seen, after it all. A merge that dies leaves at most objects that nobody names, which a later merge
collects; a merge that loses a swap to another removes what it wrote and starts again from the new manifest.

What a swap makes superfluous stays for a grace time, so that searches that hold the old manifest do not break.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from visor.errors import Conflict, CorruptObject, FormatError, NotFound
from visor.index import cleanup
from visor.index.columns import FacetColumns
from visor.index.container import FORMAT_VERSION, Array
from visor.index.manifest import (
    COMMITS,
    MANIFEST_KEY,
    Manifest,
    ProjectionEntry,
    SegmentEntry,
    Trash,
    read_manifest,
    swap_manifest,
)
from visor.index.policy import MergePolicy, choose_segments, is_learning_due
from visor.index.rewrite import Late, carried, gather, segment_take, shard_take, write_segments
from visor.index.scan import train_fast_scan
from visor.index.segment import LateRecords, Segment, open_segment
from visor.index.shard import Shard, read_shard
from visor.index.space import SAMPLES_MAX, Space, learn, read_space
from visor.index.state import join, late_records
from visor.records import Record, ShardCommit, as_document
from visor.stores.documents import SERVER_TIME, Document, DocumentStore, Put
from visor.stores.objects import ObjectStore

CONFLICTS_MAX = 5
"""Swaps that a merge loses before it leaves the field to the others."""


Calibrate = Callable[[Manifest, Sequence[Segment], Space], Mapping[str, Any] | None]
"""Gives the new content of a manifest's `calibration`, or None to leave it."""


class MergeReport(Record, frozen=True, kw_only=True):
    """What one merge did."""

    generation: int
    """Of the manifest afterwards; 0 if there is none."""
    images: int = 0
    """Rows in all segments afterwards."""
    segments: int = 0
    commits: int = 0
    """Shard commits taken up."""
    steps: int = 0
    """Swaps of the manifest that took something up or put something together."""
    learned: bool = False
    """True if the projection was learned anew."""
    conflicts: int = 0
    deleted: int = 0
    """Objects and commit documents removed."""
    unreadable: tuple[str, ...] = ()
    """Shards and segments that cannot be read: they are left where they are, and named."""
    finished: bool = True
    """False if the time budget ended first; the next merge goes on."""
    seconds: float = 0.0


def merge(
    objects: ObjectStore,
    documents: DocumentStore,
    *,
    model: str,
    policy: MergePolicy = MergePolicy(),  # noqa: B008 - frozen
    budget_s: float | None = None,
    relearn: bool = False,
    clock: Callable[[], float] = time.time,
    progress: Callable[[str], None] = lambda line: None,
    calibrate: Calibrate | None = None,
) -> MergeReport:
    """Take up what was committed, and put small segments together.

    Args:
        model: Fingerprint of the index to merge.
        policy: Sizes and times.
        budget_s: No new step starts after this many seconds.
        relearn: Learn the projection anew even if it is not due.
        clock: Seconds since 1970.
        progress: Told each step in one line.
        calibrate: Fits the confidence of answers to what is indexed, once the segments stand.

    Raises:
        FormatError: The manifest or its projection cannot be read.
    """
    return _Merge(objects, documents, model, policy, clock, progress, calibrate).run(budget_s, relearn)


@dataclass(frozen=True, slots=True)
class _Pending:
    """One commit that is in no segment yet."""

    key: str
    committed_at: float
    record: ShardCommit

    def rows(self, model: str) -> int:
        return self.record.count if self.record.model == model and self.record.shard else 0


@dataclass
class _Merge:
    """The state of one call of `merge`."""

    objects: ObjectStore
    documents: DocumentStore
    model: str
    policy: MergePolicy
    clock: Callable[[], float]
    progress: Callable[[str], None]
    calibrate: Calibrate | None = None
    manifest: Manifest | None = None
    generation: int = 0
    space: Space | None = None
    opened: dict[str, Segment] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    documents_read: list[Document] = field(default_factory=list)
    commits: int = 0
    steps: int = 0
    learned: bool = False
    conflicts: int = 0

    def run(self, budget_s: float | None, relearn: bool) -> MergeReport:
        started = time.monotonic()
        finished = False
        self._load()
        self.documents_read = self.documents.query(COMMITS, order_by="committed_at")
        while budget_s is None or time.monotonic() - started < budget_s:
            try:
                if not self._step(relearn and not self.learned):
                    finished = True
                    break
            except (Conflict, NotFound):
                # Somebody swapped the manifest: its segments may be gone, too.
                self.conflicts += 1
                if self.conflicts > CONFLICTS_MAX:
                    break
                self._load()
                self.documents_read = self.documents.query(COMMITS, order_by="committed_at")
        if finished:
            self._calibrate()
        self._announce()
        deleted = self._clean_up()
        manifest = self.manifest
        return MergeReport(
            generation=self.generation,
            images=manifest.images if manifest else 0,
            segments=len(manifest.segments) if manifest else 0,
            commits=self.commits,
            steps=self.steps,
            learned=self.learned,
            conflicts=self.conflicts,
            deleted=deleted,
            unreadable=tuple(sorted(self.unreadable.values())),
            finished=finished,
            seconds=round(time.monotonic() - started, 3),
        )

    def _load(self) -> None:
        self.manifest, self.generation = read_manifest(self.objects, self.model)
        self.space = None
        if self.manifest is not None:
            self.space = Space(None, self.manifest.dimension)
            if self.manifest.projection is not None:
                name = self.manifest.projection.name
                self.space = read_space(name, self.objects.get(name))
        self.opened = {}

    def _pending(self) -> list[_Pending]:
        """Commits in no segment, oldest first, but those whose shard cannot be read."""
        pending = []
        for document in self.documents_read:
            at = float(document.data["committed_at"])
            merged = self.manifest is not None and self.manifest.contains(document.key, at)
            if document.key == MANIFEST_KEY or merged or document.key in self.unreadable:
                continue
            fields = {name: value for name, value in document.data.items() if name != "committed_at"}
            pending.append(_Pending(document.key, at, msgspec.convert(fields, ShardCommit)))
        return pending

    def _step(self, relearn: bool) -> bool:
        """Do the next thing that is due. Returns False if nothing is."""
        pending = self._pending()
        group = self._group(pending)
        segments = self._segments()
        readable = [segment for segment in segments.values() if segment is not None]
        shards = self._read(group)
        group = [commit for commit in group if commit.key not in self.unreadable]
        rows = sum(len(segment) for segment in readable) + sum(len(shard) for shard in shards)
        if self.space is None and not shards:
            return False
        learning = len(readable) == len(segments) and is_learning_due(
            self.policy, rows, self.manifest.projection if self.manifest else None, forced=relearn
        )
        if learning:
            inputs = readable
        else:
            weights = [(segment.entry, self._live_rows(segment, readable)) for segment in readable]
            names = choose_segments(self.policy, weights, sum(len(shard) for shard in shards), bool(group))
            inputs = [segment for segment in readable if segment.entry.name in names]
        if not group and not inputs:
            return False
        self._rewrite(inputs, readable, group, shards, learning)
        return True

    def _group(self, pending: Sequence[_Pending]) -> list[_Pending]:
        """The oldest pending commits, as many as one step takes."""
        group: list[_Pending] = []
        rows = 0
        for commit in pending:
            count = commit.rows(self.model)
            if group and rows + count > self.policy.step_rows:
                break
            group.append(commit)
            rows += count
        return group

    def _read(self, group: Sequence[_Pending]) -> list[Shard]:
        shards = []
        for commit in group:
            if not commit.rows(self.model) or commit.record.shard is None:
                continue
            try:
                shards.append(read_shard(self.objects.get(commit.record.shard), name=commit.record.shard))
            except NotFound:
                if self.manifest is None or commit.key not in self.manifest.merged:
                    self.unreadable[commit.key] = f"{commit.record.shard} is missing"
            except FormatError as exc:
                self.unreadable[commit.key] = exc.found
        return shards

    def _segments(self) -> dict[str, Segment | None]:
        """The live segments by name, None for those that cannot be read."""
        segments: dict[str, Segment | None] = {}
        for entry in self.manifest.segments if self.manifest else ():
            if entry.name not in self.opened and entry.name not in self.unreadable:
                assert self.space is not None
                try:
                    self.opened[entry.name] = open_segment(self.objects, entry, self.space)
                except FormatError as exc:
                    self.unreadable[entry.name] = exc.found
            segments[entry.name] = self.opened.get(entry.name)
        return segments

    def _live_rows(self, segment: Segment, others: Sequence[Segment]) -> int:
        """Rows of a segment that no tombstone of any live segment hides."""
        hidden = np.zeros(len(segment), bool)
        for other in others:
            rows = segment.index.find(other.tombstones.ids)
            there = rows >= 0
            hidden[rows[there][segment.versions[rows[there]] <= other.tombstones.versions[there]]] = True
        return len(segment) - int(hidden.sum())

    def _rewrite(
        self,
        inputs: Sequence[Segment],
        readable: Sequence[Segment],
        group: Sequence[_Pending],
        shards: Sequence[Shard],
        learning: bool,
    ) -> None:
        """One step: write the new segments, swap the manifest."""
        taken_up = {segment.entry.name for segment in inputs}
        others = [segment for segment in readable if segment.entry.name not in taken_up]
        now = self.clock()
        space, projection = self._space(inputs, shards) if learning else (self.space, None)
        if space is None:
            space = Space(None, shards[0].vectors.shape[1])
        incoming, inherited = _late_of_commits(group, now), _late_of_segments(readable)
        rows = gather(inputs, shards, others, _both(incoming, inherited))
        carry = carried(_both(incoming, _late_of_segments(inputs)), others, now, self.policy.late_s)
        takes = [segment_take(segment, self.objects) for segment in inputs] + [shard_take(shard) for shard in shards]
        entries: list[SegmentEntry] = []
        try:
            with tempfile.TemporaryDirectory(prefix="visor-merge-") as folder:
                if len(rows) or len(carry.tombstones) or len(carry.updates):
                    entries = write_segments(
                        self.objects,
                        rows,
                        takes,
                        space=space,
                        late=carry,
                        segment_rows=self.policy.rows_max(sum(len(segment) for segment in readable) + len(rows)),
                        folder=Path(folder),
                    )
            self._swap(inputs, group, entries, space, projection, now)
        except CorruptObject as exc:
            # A block of full vectors is damaged: go on without its segment, which stays where it is.
            damaged = [s.entry.name for s in inputs if s.entry.name in exc.found]
            if not damaged:
                raise
            self.unreadable |= dict.fromkeys(damaged, exc.found)
            for name in damaged:
                self.opened.pop(name, None)
            return
        except Conflict:
            for entry in entries:
                self.objects.delete(entry.name)
            raise
        self.space = space
        self.steps += 1
        self.commits += len(group)
        self.learned |= learning
        for segment in inputs:
            self.opened.pop(segment.entry.name, None)
        taken = f"{len(group)} commits and {len(inputs)} segments"
        self.progress(f"{taken} became {len(entries)} segments with {len(rows)} images")

    def _space(self, inputs: Sequence[Segment], shards: Sequence[Shard]) -> tuple[Space, ProjectionEntry]:
        """A newly learned space, its object put."""
        rows = sum(len(segment) for segment in inputs) + sum(len(shard) for shard in shards)
        sample = _sample(self.objects, inputs, shards, SAMPLES_MAX)
        space, data = learn(sample, learned_on=rows, train_fast_scan=train_fast_scan)
        assert space.name is not None
        self.objects.put(space.name, data)
        return space, ProjectionEntry(name=space.name, dimensions=space.dimensions, learned_on=rows)

    def _swap(
        self,
        inputs: Sequence[Segment],
        group: Sequence[_Pending],
        entries: Sequence[SegmentEntry],
        space: Space,
        projection: ProjectionEntry | None,
        now: float,
    ) -> None:
        old = self.manifest
        gone = {segment.entry.name for segment in inputs}
        trash = [*gone, *(c.record.shard for c in group if c.record.shard and c.record.model == self.model)]
        before = old.projection if old else None
        if projection is not None and before is not None and before.name != projection.name:
            trash.append(before.name)
        kept = [entry for entry in (old.segments if old else ()) if entry.name not in gone]
        base = old or Manifest(format=FORMAT_VERSION, model=self.model, dimension=0, created_at=now)
        manifest = msgspec.structs.replace(
            base,
            dimension=base.dimension or space.dimension,
            created_at=now,
            projection=projection or base.projection,
            segments=(*kept, *entries),
            merged={**base.merged, **{commit.key: commit.committed_at for commit in group}},
            trash=(*base.trash, *(Trash(name=name, since=now) for name in sorted(trash))),
        )
        self.generation = swap_manifest(self.objects, manifest, self.generation)
        self.manifest = manifest

    def _calibrate(self) -> None:
        """Put a new calibration into the manifest, if one is due. Losing the swap costs nothing but the work."""
        if self.calibrate is None or self.manifest is None or self.space is None:
            return
        try:
            segments = [segment for segment in self._segments().values() if segment is not None and len(segment)]
            calibration = self.calibrate(self.manifest, segments, self.space)
            if calibration is None:
                return
            manifest = msgspec.structs.replace(self.manifest, calibration=dict(calibration))
            self.generation = swap_manifest(self.objects, manifest, self.generation)
            self.manifest = manifest
            self.progress(f"confidence calibrated on {calibration.get('fitted_on', 0)} images")
        except (Conflict, NotFound):
            self.conflicts += 1

    def _announce(self) -> None:
        """Tell running searches to read the manifest again, if its last swap was not told yet."""
        if self.manifest is None:
            return
        record = next((d for d in self.documents.get(COMMITS, [MANIFEST_KEY]).values()), None)
        told = record is not None and record.data.get("model") == self.model
        if told and record is not None and record.data.get("manifest") == self.generation:
            return
        signal = as_document(ShardCommit(batch=MANIFEST_KEY, model=self.model, manifest=self.generation))
        self.documents.commit([Put(collection=COMMITS, key=MANIFEST_KEY, data={**signal, "committed_at": SERVER_TIME})])

    def _clean_up(self) -> int:
        if self.manifest is None:
            return 0
        cleaner = cleanup.Cleaner(self.objects, self.documents, self.policy, self.clock())
        try:
            self.manifest, self.generation, deleted = cleaner.run(self.manifest, self.generation)
        except Conflict:
            return 0
        return deleted


def _sample(objects: ObjectStore, inputs: Sequence[Segment], shards: Sequence[Shard], most: int) -> Array:
    """Full vectors to learn on, the same share of each input. Ids are digests, so first rows by id are random rows.

    They are in the order of their ids: the same items make the same space, in whatever order they were committed.
    """
    total = sum(map(len, inputs)) + sum(map(len, shards))
    share = min(1.0, most / max(total, 1))
    everything: list[Segment | Shard] = [*inputs, *shards]
    taken = [int(np.ceil(len(one) * share)) for one in everything]
    parts = [segment.vectors(objects, 0, count) for segment, count in zip(inputs, taken, strict=False)]
    parts += [shard.vectors[:count] for shard, count in zip(shards, taken[len(inputs) :], strict=True)]
    ids = np.concatenate([one.ids[:count] for one, count in zip(everything, taken, strict=True)])
    return np.concatenate(parts)[np.lexsort(ids.T[::-1])]


def _late_of_commits(group: Sequence[_Pending], now: float) -> Late:
    tombstones = late_records([t for commit in group for t in commit.record.tombstones], now)
    updates = [u for commit in group for u in commit.record.updates]
    return Late(tombstones, late_records(updates, now), FacetColumns.of([u.facets for u in updates]))


def _late_of_segments(segments: Sequence[Segment]) -> Late:
    return Late(
        join([LateRecords.none(), *(segment.tombstones for segment in segments)]),
        join([LateRecords.none(), *(segment.updates for segment in segments)]),
        FacetColumns.concat([segment.update_columns for segment in segments]),
    )


def _both(one: Late, other: Late) -> Late:
    return Late(
        join([one.tombstones, other.tombstones]),
        join([one.updates, other.updates]),
        FacetColumns.concat([one.update_columns, other.update_columns]),
    )
