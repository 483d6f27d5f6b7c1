"""The policy of a merge: its sizes and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visor.index.format.manifest import ProjectionEntry, SegmentEntry
from visor.index.merge.learn import SAMPLES_MIN


@dataclass(frozen=True, kw_only=True, slots=True)
class MergePolicy:
    """Sizes and times of a merge."""

    segment_rows: int = 131_072
    """Rows of a full-grown segment: with 3,328 numbers a vector 0.9 GB, which a function of 2 GiB can build."""
    step_rows: int = 16_384
    """Rows of shards that are taken up in one step."""
    segments_max: int = 12
    ratio: float = 4.0
    """A segment at most this many times as large as what is being written joins in, so that each vector is rewritten
    about log4(segment_rows / step_rows) times."""
    small_rows: int = 1_024
    """What is being written counts as at least this many rows, so that small segments do not pile up."""
    dead_share: float = 0.3
    """A segment is rewritten once this share of its rows is hidden."""
    samples_min: int = SAMPLES_MIN
    relearn_small: int = 4_096
    relearn_small_growth: float = 1.25
    """The projection is learned anew when the index has grown by this factor, while it was learned on fewer than
    `relearn_small` images: one learned on a quarter of a small index is worse than full vectors …"""
    relearn_growth: float = 2.0
    """… and by this factor afterwards …"""
    relearn_until: int = 65_536
    """… unless it was learned on this many images: more would not change it much."""
    grace_s: float = 600.0
    """How long replaced objects stay for searches that still hold them."""
    late_s: float = 7 * 86_400.0
    """How long tombstones and updates are kept for items that arrive late (Pub/Sub redelivers for 7 days)."""
    orphan_every_s: float = 86_400.0
    """How often orphans are looked for (a listing), and how old they get before they are deleted."""

    def rows_max(self, total: int) -> int:
        """Rows in one segment, so that an index of `total` rows stays within two thirds of `segments_max` segments."""
        return max(self.segment_rows, -(-total * 3 // (2 * self.segments_max)))


def is_learning_due(policy: MergePolicy, rows: int, projection: ProjectionEntry | None, *, forced: bool) -> bool:
    """True if a projection should be learned on an index of this many rows."""
    if rows < policy.samples_min:
        return False
    if projection is None or forced:
        return True
    is_small = projection.learned_on < policy.relearn_small
    growth = policy.relearn_small_growth if is_small else policy.relearn_growth
    return projection.learned_on < policy.relearn_until and rows >= growth * projection.learned_on


def choose_segments(
    policy: MergePolicy, segments: Sequence[tuple[SegmentEntry, int]], fresh: int, must_write: bool
) -> set[str]:
    """Names of the segments that join the next step.

    Args:
        segments: Each with the number of its rows that are not hidden.
        fresh: Rows of shards that are taken up.
        must_write: True if the step writes a segment anyway.
    """
    limit = policy.rows_max(fresh + sum(live for _, live in segments))
    rising = sorted(segments, key=lambda pair: (pair[1], pair[0].name))
    chosen: set[str] = set()
    size = fresh
    for entry, live in rising if must_write else ():
        if live > max(size, policy.small_rows) * policy.ratio or size + live > limit:
            break
        chosen.add(entry.name)
        size += live
    after = len(segments) - len(chosen) + (max(1, -(-size // limit)) if must_write else 0)
    for entry, _ in rising:
        if after > policy.segments_max and entry.name not in chosen:
            # The first segment is only replaced by the one that is written in its place.
            after -= 1 if must_write or chosen else 0
            chosen.add(entry.name)
    if not chosen and not must_write:
        chosen = {e.name for e, live in rising if e.count and live <= e.count * (1 - policy.dead_share)}
        chosen = set(sorted(chosen)[:1])
    return chosen
