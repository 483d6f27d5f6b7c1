"""Late records: tombstones and facet updates that a merge applies, and carries on for items that are still to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from visor.index.format.container import Array
from visor.index.format.facets import FacetColumns
from visor.index.format.ids import newest
from visor.index.format.segment import LateRecords, Segment
from visor.index.search.reader import join, late_records
from visor.schema.items import ShardCommit


@dataclass(frozen=True, slots=True)
class Late:
    """Tombstones and facet updates to apply and to carry on."""

    tombstones: LateRecords
    updates: LateRecords
    update_columns: FacetColumns

    @classmethod
    def none(cls) -> Late:
        return cls(LateRecords.none(), LateRecords.none(), FacetColumns.of([]))

    @classmethod
    def of_commits(cls, records: Sequence[ShardCommit], now: float) -> Late:
        """What commits bring; `now` in seconds since 1970."""
        tombstones = late_records([t for record in records for t in record.tombstones], now)
        updates = [u for record in records for u in record.updates]
        return cls(tombstones, late_records(updates, now), FacetColumns.of([u.facets for u in updates]))

    @classmethod
    def of_segments(cls, segments: Sequence[Segment]) -> Late:
        """What segments carry."""
        return cls(
            join([LateRecords.none(), *(segment.tombstones for segment in segments)]),
            join([LateRecords.none(), *(segment.updates for segment in segments)]),
            FacetColumns.concat([segment.update_columns for segment in segments]),
        )

    def __add__(self, other: Late) -> Late:
        return Late(
            join([self.tombstones, other.tombstones]),
            join([self.updates, other.updates]),
            FacetColumns.concat([self.update_columns, other.update_columns]),
        )


def carried(late: Late, others: Sequence[Segment], now: float, late_s: float) -> Late:
    """The part of `late` that the new segments have to carry: what is young, or concerns a segment not rewritten."""
    tombstones, updates = late.tombstones, late.updates
    stays = np.zeros(len(tombstones), bool)
    stays[newest(tombstones.ids, tombstones.versions)] = True
    stays &= (now - tombstones.since < late_s) | _concerns(tombstones, others)
    kept = np.zeros(len(updates), bool)
    kept[newest(updates.ids, updates.versions)] = True
    kept &= (now - updates.since < late_s) | _concerns(updates, others)
    return Late(_pick(tombstones, stays), _pick(updates, kept), late.update_columns.take(np.flatnonzero(kept)))


def _concerns(late: LateRecords, others: Sequence[Segment]) -> Array:
    """(t,) bool: which records concern a row of another live segment."""
    concerns = np.zeros(len(late), bool)
    for other in others:
        rows = other.index.find(late.ids)
        there = rows >= 0
        concerns[there] |= other.versions[rows[there]] <= late.versions[there]
    return concerns


def _pick(late: LateRecords, mask: Array) -> LateRecords:
    return replace(late, ids=late.ids[mask], versions=late.versions[mask], since=late.since[mask])
