"""Moving an index between segments and a vector engine, or between engines, without embedding again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from visor.index.engine.merge import EngineMerge
from visor.index.engine.rows import EngineBlock
from visor.index.format.container import Array, corrupt
from visor.index.format.facets import FacetColumns
from visor.index.format.ids import id_text
from visor.index.format.looks import Augmented
from visor.index.format.manifest import read_manifest
from visor.index.format.pending_deletes import PendingDeletes
from visor.index.format.segment import Segment
from visor.index.merge.inputs import Inputs
from visor.index.merge.merge import Merge
from visor.index.merge.pieces import cut
from visor.index.merge.policy import MergePolicy
from visor.index.merge.segment_builder import KeptRows, kept_places, kept_rows, segment_reader, still_pending
from visor.storage.engine import VectorEngine


class EngineMove(EngineMerge):
    """Moves one index into an engine's collection or out of it."""

    def move_in(self) -> int:
        """Bring all rows of the segments into a collection; returns how many there are."""
        self.index.load()
        manifest, space, now = self.index.manifest, self.index.space, self.clock()
        segments = self._all_segments()
        if manifest is None or manifest.engine is not None:
            return manifest.images if manifest else 0
        pending = PendingDeletes.concat([segment.pending for segment in segments])
        kept = kept_rows(segments, kept_places(segments, [], pending.tombstones), pending)
        entry = self._new_collection(space)
        readers, done = [segment_reader(segment) for segment in segments], 0

        def near(part: KeptRows, full: Array) -> Array:
            found = np.empty((len(full), space.dimensions), np.float32)
            for number in np.unique(part.source):
                mine = part.source == number
                found[mine] = segments[number].vectors.unit(part.place[mine])
            return found

        for rows in self._in_blocks(kept, segments, readers, space.dimension, near):
            self.rows.upsert(entry.collection, rows)
            done += len(rows)
            self.progress(f"{done} of {len(kept)} images moved")
        self.rows.flush(entry.collection)
        names = kept.columns.pruned().names["declared"]
        entries = self._carry(segments, still_pending(pending, [], now, self.policy.late_s), space)
        entry = self._described(entry, names)
        after = self._manifest(segments, [], entries, space, None, now)
        self.index.swap(msgspec.structs.replace(after, engine=entry), space)
        Merge._announce(self)
        return entry.images

    def move_out(self) -> int:
        """Make segments from all rows of the collection, and drop it; returns how many rows there are."""
        with self._released_on_failure():
            return self._move_out()

    def _move_out(self) -> int:
        self.index.load()
        manifest, space, now = self.index.manifest, self.index.space, self.clock()
        if manifest is None or manifest.engine is None:
            return manifest.images if manifest else 0
        self._hold()
        segments, entry = self._all_segments(), self.entry
        blocks = [EngineBlock.of(self.rows, entry.collection, some, 0) for some in self._stored_rows("none")] or [
            EngineBlock.of(self.rows, entry.collection, [], 0)
        ]
        ids = np.concatenate([block.ids for block in blocks])
        width = min(block.hashes.shape[1] for block in blocks)
        pending = PendingDeletes.concat([segment.pending for segment in segments])

        def read(rows: Array) -> Array:
            self._hold()
            names = [id_text(row) for row in ids[rows]]
            full = {row.id: row.full for row in self.rows.get(entry.collection, names, "all")}
            self.progress(f"{int(rows[-1]) + 1} of {len(ids)} images moved")
            return np.stack([full[name] for name in names])

        source: Any = _Source(
            ids=ids,
            versions=np.concatenate([block.versions for block in blocks]),
            hashes=np.concatenate([block.hashes[:, :width] for block in blocks]),
            worded_columns=FacetColumns.concat([block.columns for block in blocks]),
            looks=np.concatenate([block.looks for block in blocks]),
            augmented=Augmented.join([segment.augmented for segment in segments], space.dimension),
            read=read,
        )
        most = self.policy.rows_max(len(ids))
        pieces = cut([source], [np.arange(len(ids))], pending, pending, dimension=space.dimension, most=most)
        with tempfile.TemporaryDirectory(prefix="visor-merge-") as folder:
            builder = self._builder(space, Path(folder))
            entries = [piece.build(builder) for piece in pieces]
        after = self._manifest(segments, [], entries, space, None, now)
        self.index.swap(msgspec.structs.replace(after, engine=None), space)
        Merge._announce(self)
        for name in (entry.collection, *entry.old):
            self.rows.drop(name)
        return len(ids)

    def _all_segments(self) -> list[Segment]:
        found = self.index.segments()
        if self.index.unreadable:
            raise corrupt(next(iter(self.index.unreadable)), next(iter(self.index.unreadable.values())))
        return [segment for segment in found.values() if segment is not None]


def migrate(
    inputs: Callable[[], Inputs],
    target: str,
    engine_of: Callable[[str], VectorEngine],
    progress: Callable[[str], None],
    languages: tuple[str, ...],
) -> int:
    """Move an index, as it is, to `target`: "segments" or an engine's name; nothing is embedded. Returns its images.

    Args:
        inputs: Makes the inputs of the index, anew for each step.
        engine_of: Opens the engine of that name.

    Raises:
        SettingsError: `VISOR_ENGINE_URL` is not an address of that engine.
        Conflict: A merge ran meanwhile; nothing moved.
    """
    if target != "segments":
        engine_of(target).collections()
    first = inputs()
    manifest = read_manifest(first.objects, first.model)[0]
    own = manifest.engine.name if manifest is not None and manifest.engine is not None else "segments"
    if own == target or manifest is None:
        return manifest.images if manifest else 0
    steps = [target] if "segments" in (own, target) else ["segments", target]
    images = 0
    for step in steps:
        engine = engine_of(own if step == "segments" else step)
        move = EngineMove(inputs(), MergePolicy(), time.time, progress, languages, fill=False, engine=engine)
        images = move.move_out() if step == "segments" else move.move_in()
    return images


@dataclass
class _Source:
    """All rows of a collection, as a source of pieces; its vectors are read by row."""

    ids: Array
    versions: Array
    hashes: Array
    worded_columns: FacetColumns
    looks: Array
    augmented: Augmented
    read: Callable[[Array], Array]

    @property
    def vectors(self) -> _Source:
        return self

    def __getitem__(self, rows: Array) -> Array:
        return self.read(rows)
