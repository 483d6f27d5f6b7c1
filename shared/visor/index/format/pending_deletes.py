"""Pending deletes: tombstones and facet updates that still have to be applied, also to items that arrive later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from visor.index.format.container import Array, Container
from visor.index.format.facets import FacetColumns
from visor.index.format.ids import IdIndex, ids_to_bytes, newest
from visor.schema.items import FacetUpdate, ShardCommit, Tombstone


@dataclass(frozen=True, slots=True)
class PendingRecords:
    """Tombstones, or updates: each concerns the rows of its item that have its version or an older one.

    ids (t, 16) uint8, versions (t,) int64, since (t,) float64 (seconds since 1970, when a merge took them up).
    """

    ids: Array
    versions: Array
    since: Array

    @classmethod
    def of(cls, records: Sequence[Tombstone] | Sequence[FacetUpdate], since: float = 0.0) -> PendingRecords:
        ids = ids_to_bytes([record.id for record in records])
        return cls(ids, np.array([record.version for record in records], np.int64), np.full(len(records), since))

    @classmethod
    def concat(cls, parts: Sequence[PendingRecords]) -> PendingRecords:
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.versions for part in parts]),
            np.concatenate([part.since for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.versions)

    def take(self, places: Array) -> PendingRecords:
        return PendingRecords(self.ids[places], self.versions[places], self.since[places])

    def newest(self) -> Array:
        """Positions (u,) int64 of the newest record of each item, sorted by id."""
        return newest(self.ids, self.versions)

    def concerned(self, index: IdIndex, versions: Array) -> tuple[Array, Array]:
        """The rows that they concern in a block with these ids and versions (n,), and the position of each's record.

        Returns:
            Two (r,) int64.
        """
        rows = index.find(self.ids)
        places = np.flatnonzero(rows >= 0)
        places = places[versions[rows[places]] <= self.versions[places]]
        return rows[places], places


@dataclass(frozen=True, slots=True)
class PendingDeletes:
    """Tombstones, and updates with their new facets: row i of `update_columns` belongs to update i."""

    tombstones: PendingRecords
    updates: PendingRecords
    update_columns: FacetColumns

    @classmethod
    def none(cls) -> PendingDeletes:
        return cls.of_commits([])

    @classmethod
    def of_commits(cls, records: Sequence[ShardCommit], now: float = 0.0) -> PendingDeletes:
        """The records of commits; `now` in seconds since 1970."""
        updates = [update for record in records for update in record.updates]
        return cls(
            PendingRecords.of([tombstone for record in records for tombstone in record.tombstones], now),
            PendingRecords.of(updates, now),
            FacetColumns.of([update.facets for update in updates]),
        )

    @classmethod
    def concat(cls, parts: Iterable[PendingDeletes]) -> PendingDeletes:
        parts = [part for part in parts if len(part)] or [cls.none()]
        return cls(
            PendingRecords.concat([part.tombstones for part in parts]),
            PendingRecords.concat([part.updates for part in parts]),
            FacetColumns.concat([part.update_columns for part in parts]),
        )

    @classmethod
    def from_container(cls, container: Container) -> PendingDeletes:
        tombstones, updates = (
            PendingRecords(*(container.array(f"{what}_{part}") for part in ("ids", "versions", "since")))
            for what in ("tombstone", "update")
        )
        columns = FacetColumns.from_container(container, "update_")
        texts = container.array("update_texts") if "update_texts" in container else None
        return cls(tombstones, updates, columns.with_texts(texts))

    def tensors(self) -> dict[str, Array]:
        """Tensors for a container; `from_container` reads them back."""
        tensors = {
            f"{what}_{part}": getattr(records, part)
            for what, records in (("tombstone", self.tombstones), ("update", self.updates))
            for part in ("ids", "versions", "since")
        }
        return tensors | self.update_columns.tensors("update_") | self.update_columns.text_tensors("update_")

    def __len__(self) -> int:
        return len(self.tombstones) + len(self.updates)

    def take(self, tombstones: Array, updates: Array) -> PendingDeletes:
        """The records at these positions."""
        return PendingDeletes(
            self.tombstones.take(tombstones), self.updates.take(updates), self.update_columns.take(updates)
        )
