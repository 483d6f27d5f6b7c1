"""Merge into a vector engine: what was committed becomes rows of a collection.

Segments still hold what an engine has no place for: tombstones and updates that wait for later items, and augmented
queries. The manifest remains the commit point: rows written to an engine before a swap are also in the commits that
searches hold until then, so they count once. One merge at a time writes: the manifest names it as long as it renews
this claim.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from visor.errors import Conflict, VisorError
from visor.index.engine.rows import EngineBlock, declared_token, engine_rows, near_vectors
from visor.index.format.container import FORMAT_VERSION, Array, corrupt
from visor.index.format.facets import FacetColumns
from visor.index.format.fast_scan import train_fast_scan
from visor.index.format.ids import id_text, ids_to_bytes, sort_order
from visor.index.format.looks import Augmented, no_looks
from visor.index.format.manifest import MANIFESTS, Commit, EngineEntry, Manifest, read_manifest_object
from visor.index.format.pending_deletes import PendingDeletes
from visor.index.format.projection import FullSpace, Space
from visor.index.format.segment import Segment
from visor.index.format.shard import Shard
from visor.index.merge.learn import SAMPLES_MAX, learn
from visor.index.merge.merge import Merge, MergeReport
from visor.index.merge.policy import is_learning_due
from visor.index.merge.segment_builder import (
    NO_ROWS,
    KeptRows,
    RowReader,
    SegmentBuilder,
    full_blocks,
    kept_places,
    kept_rows,
    looks_of,
    shard_reader,
    still_pending,
)
from visor.storage.engine import Clause, Row, VectorEngine, id_parts

LEASE_S = 600.0
"""Time after which another merge may write, if the last one has not renewed its claim."""
SAMPLED = 512
"""About this many items represent all of them in a confidence (`visor.confidence.features`)."""
PART_ROWS = 1_000
"""Rows of an engine that are read at once."""


@dataclass
class EngineMerge(Merge):
    """`Merge` into an engine."""

    writer: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def rows(self) -> VectorEngine:
        assert self.engine is not None
        return self.engine

    @property
    def entry(self) -> EngineEntry:
        entry = self.index.manifest.engine if self.index.manifest else None
        if entry is not None and entry.name == self.rows.name:
            return entry
        return EngineEntry(name=self.rows.name, collection="")

    def run(self, budget_s: float | None, relearn: bool) -> MergeReport:
        """As `Merge.run`; a merge that fails lets others write at once."""
        with self._released_on_failure():
            return super().run(budget_s, relearn)

    @contextmanager
    def _released_on_failure(self) -> Iterator[None]:
        """Give up the claim to write if the block fails or is interrupted."""
        try:
            yield
        except BaseException:
            with suppress(VisorError):
                self._release(self.entry)
            raise

    def _release(self, entry: EngineEntry) -> None:
        if self.index.manifest is not None and self.entry.writer == self.writer:
            entry = msgspec.structs.replace(entry, writer="")
            self.index.swap(msgspec.structs.replace(self.index.manifest, engine=entry), self.index.space)

    def _step(self, relearn: bool) -> bool:
        group = self.index.group(self.policy.step_rows)
        segments = [segment for segment in self.index.segments().values() if segment is not None]
        shards = self.index.shards(group)
        group = [commit for commit in group if commit.key not in self.index.unreadable]
        before = self.index.manifest.projection if self.index.manifest else None
        rows = self.entry.images + sum(map(len, shards))
        forced = relearn or self.index.is_projection_lost
        learning = is_learning_due(self.policy, rows, before, forced=forced)
        if self.index.is_projection_lost and not learning:
            raise corrupt(self.index.projection_name, "it is lost, and there is too little to learn a new one from")
        if (self.index.manifest is None and not shards) or not (group or learning):
            return False
        self._hold()
        space, projection, old = self.index.space, None, self.entry
        if learning:
            space, projection = self._learn([], shards)
        elif space.dimension == 0 and shards:
            space = FullSpace(shards[0].vectors.shape[1])
        entry = old
        if learning or not old.collection:
            entry = self._new_collection(space)
            for some in self._stored_rows("all") if old.collection else ():
                near = near_vectors(space, np.stack([row.full for row in some]))
                self._put(entry, [replace(row, near=one) for row, one in zip(some, near, strict=True)])
        now = self.clock()
        incoming = PendingDeletes.of_commits([commit.record for commit in group], now)
        self._apply(entry, space, shards, incoming, [segment.pending for segment in segments])
        carried = PendingDeletes.concat([incoming, *(segment.pending for segment in segments)])
        columns = [FacetColumns.of(shard.facets) for shard in shards]
        names = {name for part in (*columns, incoming.update_columns) for name in part.names["declared"]}
        self._publish(entry, segments, shards, group, still_pending(carried, [], now, self.policy.late_s), names,
                      space, projection)  # fmt: skip
        self.steps += 1
        self.commits += len(group)
        self.learned |= learning
        self.progress(f"{len(group)} commits went into {self.rows.name}, which has {self.entry.images} images")
        return True

    def _learn(self, inputs: Sequence[Segment], shards: Sequence[Shard]) -> Any:
        """As `Merge._learn`, on the engine's rows and these shards."""
        stored, total = self.entry.images, self.entry.images + sum(map(len, shards))
        share = min(1.0, SAMPLES_MAX / total)
        ranges = id_parts(stored, PART_ROWS) if stored else []
        some: list[Row] = []
        for start, stop in ranges[: max(1, round(share * len(ranges)))]:
            some += self.rows.scan(self.entry.collection, (), "all", start=start, stop=stop)
        taken = [math.ceil(len(shard) * share) for shard in shards]
        ids = [ids_to_bytes([row.id for row in some]), *(s.ids[:n] for s, n in zip(shards, taken, strict=True))]
        full = [row.full[None] for row in some] + [s.vectors[:n] for s, n in zip(shards, taken, strict=True)]
        known = np.concatenate(full)[sort_order(np.concatenate(ids))]
        space, data = learn(known, learned_on=total, train_fast_scan=train_fast_scan)
        return self._put_projection(space, data, total)

    def _new_collection(self, space: Space) -> EngineEntry:
        name = f"{_family(self.index.model)}{secrets.token_hex(4)}"
        self.rows.create(name, space.dimensions)
        old = {**self.entry.old, self.entry.collection: self.clock()} if self.entry.collection else self.entry.old
        return msgspec.structs.replace(self.entry, collection=name, images=0, old=old)

    def _put(self, entry: EngineEntry, rows: Sequence[Row]) -> None:
        self._hold()
        self.rows.upsert(entry.collection, rows)

    def _hold(self) -> None:
        """Claim the right to write, or renew the claim.

        Raises:
            Conflict: Another merge holds it.
        """
        entry, now, manifest = self.entry, self.clock(), self.index.manifest
        is_mine = entry.writer == self.writer
        if is_mine and now - entry.writing < LEASE_S / 4:
            return
        if entry.writer and not is_mine and now - entry.writing < LEASE_S:
            raise Conflict(
                "Another merge is writing to this index",
                valid="One merge at a time",
                remedy=f"Wait until it ends; if it died, try again in {LEASE_S / 60:.0f} minutes",
            )
        # Raises if the engine does not answer: nothing is claimed then.
        self.rows.collections()
        entry = msgspec.structs.replace(entry, writer=self.writer, writing=now)
        base = manifest or Manifest(format=FORMAT_VERSION, model=self.index.model, dimension=0, created_at=now)
        self.index.swap(msgspec.structs.replace(base, engine=entry), self.index.space)

    def _apply(
        self,
        entry: EngineEntry,
        space: Space,
        shards: Sequence[Shard],
        incoming: PendingDeletes,
        waiting: Sequence[PendingDeletes],
    ) -> None:
        """Apply commits to the collection: it has the newest versions afterwards, and no rows that tombstones hide."""
        known = PendingDeletes.concat([incoming, *waiting])
        kept = kept_rows(shards, kept_places(shards, [], known.tombstones), known)
        readers = [shard_reader(shard) for shard in shards]
        dead, changed = ([id_text(row) for row in part.ids] for part in (incoming.tombstones, incoming.updates))
        fresh = [id_text(row) for row in kept.ids]
        versions = {row.id: row.version for row in self.rows.get(entry.collection, {*fresh, *dead}, "none")}
        newest = dict(zip(fresh, kept.versions.tolist(), strict=True))
        written = {name for name, version in newest.items() if versions.get(name, -1) <= version}
        for rows in self._in_blocks(kept, shards, readers, space.dimension, lambda _, full: near_vectors(space, full)):
            self._put(entry, [row for row in rows if row.id in written])
        pairs = zip(dead, incoming.tombstones.versions.tolist(), strict=True)
        gone = {name for name, version in pairs if name not in written and versions.get(name, version + 1) <= version}
        self.rows.delete(entry.collection, gone)
        stored = self.rows.get(entry.collection, set(changed) - written - gone, "all")
        block = EngineBlock.of(self.rows, entry.collection, stored, space.dimensions)
        latest = known.updates.newest()
        rows_at, places = known.updates.take(latest).concerned(block.index, block.versions)
        if len(rows_at):
            vectors = {row.id: row.full for row in stored}
            self._put(
                entry,
                engine_rows(
                    block.ids[rows_at],
                    block.versions[rows_at],
                    block.hashes[rows_at],
                    known.update_columns.take(latest[places]),
                    block.looks[rows_at],
                    np.stack([vectors[id_text(block.ids[row])] for row in rows_at]),
                    block.vectors.unit(rows_at),
                ),
            )

    def _publish(
        self,
        entry: EngineEntry,
        segments: Sequence[Segment],
        shards: Sequence[Shard],
        group: Sequence[Commit],
        pending: PendingDeletes,
        declared: set[str],
        space: Space,
        projection: Any = None,
    ) -> None:
        """Swap the manifest to the collection as it is now."""
        self.rows.flush(entry.collection)
        entries = self._carry([*segments, *shards], pending, space)
        self._hold()
        manifest = self._manifest(segments, group, entries, space, projection, self.clock())
        entry = self._described(entry, {*entry.declared, *declared})
        entry = msgspec.structs.replace(entry, writer=self.writer, writing=self.entry.writing)
        self.index.swap(msgspec.structs.replace(manifest, engine=entry), space)

    def _described(self, entry: EngineEntry, declared: Iterable[str]) -> EngineEntry:
        """The entry with what a search knows about the collection without querying it."""
        clauses = {text: Clause((declared_token(json.loads(text)),)) for text in sorted(declared)}
        counts = {text: self.rows.count(entry.collection, [clause]) for text, clause in clauses.items()}
        images, rank, sampled = self.rows.count(entry.collection), 0, list[str]()
        step = max(1, -(-images // SAMPLED))
        for start, stop in id_parts(images, PART_ROWS):
            ids = sorted(self.rows.ids(entry.collection, start=start, stop=stop))
            sampled += ids[(step // 2 - rank) % step :: step]
            rank += len(ids)
        known = {text: count for text, count in counts.items() if count}
        return msgspec.structs.replace(entry, images=images, declared=known, sampled=tuple(sampled))

    def _carry(self, sources: Sequence[Segment | Shard], pending: PendingDeletes, space: Space) -> list[Any]:
        """A segment without rows for what the engine has no place for; none if there is nothing of the kind."""
        if not len(pending) and not any(source.augmented.tried for source in sources):
            return []
        with tempfile.TemporaryDirectory(prefix="visor-merge-") as folder:
            augmented = Augmented.join([source.augmented for source in sources], space.dimension).tensors()
            return [self._builder(space, Path(folder)).write(NO_ROWS, [], [], augmented, pending)]

    def _builder(self, space: Space, folder: Path) -> SegmentBuilder:
        return SegmentBuilder(
            objects=self.index.objects,
            model=self.index.model,
            space=space,
            folder=folder,
            languages=self.languages,
        )

    def _in_blocks(
        self,
        kept: KeptRows,
        sources: Sequence[Segment | Shard],
        readers: Sequence[RowReader],
        dimension: int,
        near: Callable[[KeptRows, Array], Array],
    ) -> Iterator[list[Row]]:
        """The rows that a merge keeps of its sources, as an engine's rows, some at a time.

        Args:
            dimension: d.
            near: Returns the projected vectors (b, m) float32 of some of the rows, whose full vectors are (b, d).
        """
        looks, start = looks_of(kept, sources).get("looks", no_looks(len(kept))), 0
        for full in full_blocks(kept, readers, dimension) if len(kept) else ():
            part, stop = kept.part(start, start + len(full)), start + len(full)
            columns = part.ids, part.versions, part.hashes, part.columns, looks[start:stop]
            yield engine_rows(*columns, full, near(part, full))
            start = stop

    def _stored_rows(self, vectors: Any) -> Iterator[list[Row]]:
        """All rows of the collection, sorted by id, some at a time."""
        for start, stop in id_parts(self.entry.images, PART_ROWS):
            some = self.rows.scan(self.entry.collection, (), vectors, start=start, stop=stop)
            if some:
                yield sorted(some, key=lambda row: row.id)

    def _stored(self) -> list[Segment]:
        segments = [segment for segment in self.index.segments().values() if segment is not None]
        augmented = Augmented.join([segment.augmented for segment in segments], self.index.space.dimension)
        parts: list[Any] = []
        for start, stop in id_parts(self.entry.images, 4 * PART_ROWS) if self.entry.collection else ():
            count = self.rows.count(self.entry.collection, start=start, stop=stop)
            own = Augmented.none(self.index.space.dimension) if parts else augmented
            if count:
                parts.append(StoredPart(self.rows, self.entry.collection, start, stop, count, own, parts))
        return cast("list[Segment]", parts)

    def _announce(self) -> None:
        """Let others write, and drop collections that no search queries any more."""
        entry, now = self.entry, self.clock()
        if self.index.manifest is not None and entry.writer == self.writer:
            kept = {name: since for name, since in entry.old.items() if now - since < self.policy.grace_s}
            families = {_family(self.index.model)}
            for info in list(self.index.objects.list(MANIFESTS)):
                other = read_manifest_object(self.index.objects, info.name)
                families |= {_family(other.model)} if other else set()
            for name in self.rows.collections():
                is_other = _of_family(name) != _family(self.index.model)
                if _of_family(name) not in families or not (is_other or name == entry.collection or name in kept):
                    self.rows.drop(name)
            try:
                self._release(msgspec.structs.replace(entry, old=kept))
            except Conflict:
                self.conflicts += 1
        super()._announce()


@dataclass
class StoredPart:
    """A range of an engine's rows that a calibration uses like a segment. Only one of all parts is kept in memory."""

    engine: VectorEngine
    collection: str
    start: str
    stop: str
    count: int
    augmented: Augmented
    parts: list[StoredPart] = field(repr=False)

    def __len__(self) -> int:
        return self.count

    @cached_property
    def _held(self) -> EngineBlock:
        for part in self.parts:
            part.__dict__.pop("_held", None)
        rows = self.engine.scan(self.collection, start=self.start, stop=self.stop)
        return EngineBlock.of(self.engine, self.collection, rows, 0)

    def __getattr__(self, name: str) -> Any:
        if name in ("ids", "hashes", "columns", "vectors", "looks", "read_full"):
            return getattr(self._held, name)
        raise AttributeError(name)


def _family(model: str) -> str:
    """The prefix of the names of a model's collections."""
    return re.sub("[^A-Za-z0-9]", "_", model)[:24] + "_"


def _of_family(name: str) -> str:
    return name[: name.rindex("_") + 1]
