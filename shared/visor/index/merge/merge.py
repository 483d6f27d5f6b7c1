"""Merge: shards and small segments become larger segments, by compare-and-swap of the manifest.

A merge goes in steps. Each step writes new segments under fresh names, then swaps the manifest: before the swap nothing
of it is visible, afterwards all of it. A merge that dies leaves at most objects that nobody names, which a later merge
collects; a merge that loses a swap to another removes what it wrote and starts again from the new manifest.

What a swap makes superfluous stays for a grace time, so that searches that hold the old manifest do not break.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from visor.errors import Conflict, CorruptObject, NotFound
from visor.index.format.container import FORMAT_VERSION, corrupt
from visor.index.format.fast_scan import train_fast_scan
from visor.index.format.manifest import (
    MANIFEST_KEY,
    Commit,
    Manifest,
    ProjectionEntry,
    SegmentEntry,
    Trash,
    check_engine,
)
from visor.index.format.pending_deletes import PendingDeletes
from visor.index.format.projection import FullSpace, Projection, Space
from visor.index.format.segment import Segment
from visor.index.format.shard import Shard
from visor.index.merge.garbage import GarbageCollector
from visor.index.merge.inputs import Inputs, live_rows, sample, sampled
from visor.index.merge.learn import SAMPLES_MAX, learn
from visor.index.merge.pieces import Piece, cut
from visor.index.merge.policy import MergePolicy, choose_segments, is_learning_due
from visor.index.merge.segment_builder import SegmentBuilder, kept_places, still_pending
from visor.schema.collections import COMMITS
from visor.schema.items import Record, ShardCommit, as_document
from visor.schema.words import counted
from visor.settings import LANGUAGES
from visor.storage.documents import SERVER_TIME, DocumentStore, Put
from visor.storage.engine import VectorEngine
from visor.storage.objects import ObjectStore

CONFLICTS_MAX = 5
"""Swaps that a merge loses before it gives way to the others."""


Calibrate = Callable[[Manifest, Sequence[Segment], Space], Mapping[str, Any] | None]
"""Returns the new content of a manifest's `calibration`, or None to leave it."""
Build = Callable[[Inputs, Sequence[Piece], SegmentBuilder], list[SegmentEntry]]
"""Builds the segments of pieces, under names that all builders of the same pieces use. Raises as `build_waiting`, and
`Conflict` as a swap."""


class MergeReport(Record, frozen=True, kw_only=True):
    """What one merge did."""

    generation: int
    """Generation of the manifest afterwards; 0 if there is none."""
    images: int = 0
    """Rows in all segments afterwards."""
    segments: int = 0
    commits: int = 0
    """Shard commits taken up."""
    steps: int = 0
    """Swaps of the manifest that took up commits or combined segments."""
    learned: bool = False
    """True if the projection was learned anew."""
    conflicts: int = 0
    deleted: int = 0
    """Objects and commit documents removed."""
    unreadable: tuple[str, ...] = ()
    """Shards and segments that cannot be read: they are left where they are, and named here."""
    finished: bool = True
    """False if the time budget ended first; the next merge goes on."""
    seconds: float = 0.0

    def __str__(self) -> str:
        held = f"{counted(self.images, 'image')} in {counted(self.segments, 'segment')}"
        return f"{held}; {counted(self.commits, 'commit')} merged"


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
    languages: Sequence[str] = LANGUAGES,
    fill: bool = False,
    engine: VectorEngine | None = None,
    build: Build | None = None,
) -> MergeReport:
    """Take up what was committed, and put small segments together.

    Args:
        model: Fingerprint of the index to merge.
        policy: Sizes and times.
        budget_s: No new step starts after this many seconds.
        relearn: Learn the projection anew even if it is not due.
        clock: Seconds since 1970.
        progress: Receives one line per step.
        calibrate: Fits the confidence of answers to what is indexed, once the segments are written.
        languages: What words are stemmed in.
        fill: Read missing texts of items that an older Visor indexed from their documents, at one read each; and stem
            all words in these languages.
        engine: Where the rows are, if not in segments.
        build: Builds the segments elsewhere. All commits are then one step, and a lost swap ends the merge.

    Raises:
        SettingsError: The index's rows are not where VISOR_ENGINE says.
        FormatError: The manifest cannot be read; or a projection cannot be, nor all that a new one is learned from.
    """
    inputs = Inputs(objects, documents, model)
    options = inputs, policy, clock, progress, languages, fill, calibrate
    if engine is None:
        return Merge(*options, build=build).run(budget_s, relearn)
    from visor.index.engine.merge import EngineMerge

    return EngineMerge(*options, engine=engine).run(budget_s, relearn)


@dataclass
class Merge:
    """The state of one call of `merge`."""

    index: Inputs
    policy: MergePolicy
    clock: Callable[[], float]
    progress: Callable[[str], None]
    languages: Sequence[str]
    fill: bool
    calibrate: Calibrate | None = None
    commits: int = 0
    steps: int = 0
    learned: bool = False
    conflicts: int = 0
    written: set[str] = field(default_factory=set)
    """Segments of this run."""
    engine: VectorEngine | None = None
    build: Build | None = None

    def run(self, budget_s: float | None, relearn: bool) -> MergeReport:
        started = time.monotonic()
        finished = False
        self.index.load()
        check_engine(self.index.manifest, self.engine.name if self.engine else "segments")
        while budget_s is None or time.monotonic() - started < budget_s:
            try:
                if not self._step(relearn and not self.learned):
                    finished = True
                    break
            except (Conflict, NotFound):
                # Another merge swapped the manifest: its segments may be gone, too.
                self.conflicts += 1
                if self.build or self.conflicts > CONFLICTS_MAX:
                    break
                self.index.load()
        if finished:
            self._calibrate()
        self._announce()
        deleted = self._collect_garbage()
        manifest = self.index.manifest
        return MergeReport(
            generation=self.index.generation,
            images=manifest.images if manifest else 0,
            segments=len(manifest.segments) if manifest else 0,
            commits=self.commits,
            steps=self.steps,
            learned=self.learned,
            conflicts=self.conflicts,
            deleted=deleted,
            unreadable=tuple(sorted(self.index.unreadable.values())),
            finished=finished,
            seconds=round(time.monotonic() - started, 3),
        )

    def _step(self, relearn: bool) -> bool:
        """Do the next thing that is due. Returns False if nothing is."""
        group = self.index.group(sys.maxsize if self.build else self.policy.step_rows)
        segments = self.index.segments()
        readable = [segment for segment in segments.values() if segment is not None]
        shards = self._shards(group, sum(map(len, readable)))
        group = [commit for commit in group if commit.key not in self.index.unreadable]
        rows = sum(len(segment) for segment in readable) + sum(len(shard) for shard in shards)
        if self.index.manifest is None and not shards:
            return False
        before = self.index.manifest.projection if self.index.manifest else None
        forced = relearn or self.index.is_projection_lost
        learning = len(readable) == len(segments) and is_learning_due(self.policy, rows, before, forced=forced)
        if self.index.is_projection_lost and not learning:
            raise corrupt(self.index.projection_name, "it is lost, and so is a part of what a new one is learned from")
        if learning:
            inputs = readable
        else:
            weights = [(segment.entry, live_rows(segment, readable)) for segment in readable]
            names = choose_segments(self.policy, weights, sum(len(shard) for shard in shards), bool(group))
            # Once per run: a text that is in no document will not be there the second time either.
            old = [one for one in readable if self.fill and one.entry.name not in self.written]
            lacking = [one.entry.name for one in old if not one.has_words_in(self.languages)]
            inputs = [segment for segment in readable if segment.entry.name in names.union(lacking[:1])]
        if not group and not inputs:
            return False
        self._rewrite(inputs, readable, group, shards, learning)
        return True

    def _shards(self, group: Sequence[Commit], others: int) -> list[Shard]:
        """The shards of commits; if others build from them, only what a plan and a sample need of each."""
        if self.build is None:
            return self.index.shards(group)
        total = others + sum(commit.rows(self.index.model) for commit in group)
        return self.index.shards(group, lambda one: one.reduced(sampled(len(one), total, SAMPLES_MAX)))

    def _rewrite(
        self,
        inputs: Sequence[Segment],
        readable: Sequence[Segment],
        group: Sequence[Commit],
        shards: Sequence[Shard],
        learning: bool,
    ) -> None:
        """One step: write the new segments, swap the manifest."""
        taken_up = {segment.entry.name for segment in inputs}
        others = [segment for segment in readable if segment.entry.name not in taken_up]
        now, objects = self.clock(), self.index.objects
        space, projection = self.index.space, None
        if learning:
            space, projection = self._learn(inputs, shards)
        if space.dimension == 0 and shards:
            space = FullSpace(shards[0].vectors.shape[1])
        records = [commit.record for commit in group]
        incoming = PendingDeletes.of_commits(records, now)
        # Without the time, so that the same pieces get the same names whenever they are planned.
        known = PendingDeletes.concat([PendingDeletes.of_commits(records), *(one.pending for one in readable)])
        sources: list[Segment | Shard] = [*inputs, *shards]
        places = kept_places(sources, others, known.tombstones)
        rows = sum(map(len, places))
        carried = PendingDeletes.concat([incoming, *(segment.pending for segment in inputs)])
        pending = still_pending(carried, others, now, self.policy.late_s)
        most = self.policy.rows_max(sum(map(len, others)) + rows)
        pieces = cut(sources, places, known, pending, dimension=space.dimension, most=most)
        entries: list[SegmentEntry] = []
        try:
            with tempfile.TemporaryDirectory(prefix="visor-merge-") as folder:
                builder = SegmentBuilder(
                    objects=objects,
                    model=self.index.model,
                    space=space,
                    folder=Path(folder),
                    languages=self.languages,
                    documents=self.index.documents if self.fill else None,
                )
                if self.build is None:
                    entries = [piece.build(builder) for piece in pieces]
                else:
                    entries = self.build(self.index, pieces, builder)
            manifest = self._manifest(inputs, group, entries, space, projection, now)
            self.index.swap(manifest, space)
        except CorruptObject as exc:
            # A block of full vectors is damaged: go on without its segment, which stays where it is.
            damaged = [s.entry.name for s in inputs if s.entry.name in exc.found]
            if not damaged:
                raise
            self.index.damaged(damaged, exc.found)
            return
        except Conflict:
            # Segments that others may also have built may be live: they are left to the garbage collector.
            for entry in entries if self.build is None else ():
                objects.delete(entry.name)
            raise
        self.steps += 1
        self.written |= {entry.name for entry in entries}
        self.commits += len(group)
        self.learned |= learning
        taken = f"{len(group)} commits and {len(inputs)} segments"
        self.progress(f"{taken} became {len(entries)} segments with {rows} images")

    def _learn(self, inputs: Sequence[Segment], shards: Sequence[Shard]) -> tuple[Projection, ProjectionEntry]:
        """A newly learned space, whose object is stored."""
        rows = sum(len(segment) for segment in inputs) + sum(len(shard) for shard in shards)
        known = sample(inputs, shards, SAMPLES_MAX)
        space, data = learn(known, learned_on=rows, train_fast_scan=train_fast_scan)
        return self._put_projection(space, data, rows)

    def _put_projection(self, space: Projection, data: bytes, rows: int) -> tuple[Projection, ProjectionEntry]:
        self.index.objects.put(space.name, data)
        return space, ProjectionEntry(name=space.name, dimensions=space.dimensions, learned_on=rows)

    def _manifest(
        self,
        inputs: Sequence[Segment],
        group: Sequence[Commit],
        entries: Sequence[SegmentEntry],
        space: Space,
        projection: ProjectionEntry | None,
        now: float,
    ) -> Manifest:
        """The manifest after a step."""
        old, model = self.index.manifest, self.index.model
        gone = {segment.entry.name for segment in inputs}
        trash = [*gone, *(c.record.shard for c in group if c.record.shard and c.record.model == model)]
        before = old.projection if old else None
        if projection is not None and before is not None and before.name != projection.name:
            trash.append(before.name)
        kept = [entry for entry in (old.segments if old else ()) if entry.name not in gone]
        base = old or Manifest(format=FORMAT_VERSION, model=model, dimension=0, created_at=now)
        return msgspec.structs.replace(
            base,
            dimension=base.dimension or space.dimension,
            created_at=now,
            projection=projection or base.projection,
            segments=(*kept, *entries),
            merged={**base.merged, **{commit.key: commit.committed_at for commit in group}},
            trash=(*base.trash, *(Trash(name=name, since=now) for name in sorted(trash))),
            engine=None,
        )

    def _calibrate(self) -> None:
        """Put a new calibration into the manifest, if one is due. Losing the swap costs nothing but the work."""
        manifest, space = self.index.manifest, self.index.space
        if self.calibrate is None or manifest is None:
            return
        try:
            calibration = self.calibrate(manifest, self._stored(), space)
            if calibration is None:
                return
            self.index.swap(msgspec.structs.replace(manifest, calibration=dict(calibration)), space)
            self.progress(f"confidence calibrated on {calibration.get('fitted_on', 0)} images")
        except (Conflict, NotFound):
            self.conflicts += 1

    def _stored(self) -> list[Segment]:
        """All rows that are merged."""
        return [segment for segment in self.index.segments().values() if segment is not None and len(segment)]

    def _announce(self) -> None:
        """Tell running searches to read the manifest again, if its last swap was not announced yet."""
        if self.index.manifest is None:
            return
        documents, model, generation = self.index.documents, self.index.model, self.index.generation
        announced = [
            (signal.data.get("model"), signal.data.get("manifest"))
            for signal in documents.get(COMMITS, [MANIFEST_KEY]).values()
        ]
        if announced == [(model, generation)]:
            return
        signal = as_document(ShardCommit(batch=MANIFEST_KEY, model=model, manifest=generation))
        documents.commit([Put(collection=COMMITS, key=MANIFEST_KEY, data={**signal, "committed_at": SERVER_TIME})])

    def _collect_garbage(self) -> int:
        if self.index.manifest is None:
            return 0
        collector = GarbageCollector(self.index.objects, self.index.documents, self.policy, self.clock())
        try:
            self.index.manifest, self.index.generation, deleted = collector.collect(
                self.index.manifest, self.index.generation
            )
        except Conflict:
            return 0
        return deleted
