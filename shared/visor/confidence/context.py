"""Confidence of an answer: its hits and their neighbours, measured in the space that the calibration was fitted in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from visor.confidence.across import CONFIDENT_ACROSS, Across, is_it
from visor.confidence.features import (
    SAMPLED,
    CoverageProjection,
    Neighbourhood,
    Sampled,
    centred_similarities,
    features,
)
from visor.confidence.model import CONFIDENT, Calibration
from visor.index.format.container import Array
from visor.index.format.manifest import Manifest
from visor.index.format.projection import EMPTY_SPACE, Projection, unit
from visor.index.format.segment import RowBlock
from visor.index.search.hits import Hits, NearestRows
from visor.index.search.snapshot import Snapshot

FULL_MAX = 2_000
"""Pictures up to which a calibration is fitted on full vectors: a projection learned on few pictures shows what it was
learned on nearer than what it was not. 13 MB as float16."""
FULL_KEPT_MAX = 4 * FULL_MAX
"""Pictures up to which full vectors stay in memory for that; a merge long before has fitted anew."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """held: confidence that the catalogue holds what was asked for; confident: from which it is called so; matches:
    confidence of each hit that it is what was asked for, never rising."""

    held: float
    confident: float
    matches: list[float]


class ConfidenceEstimator:
    """Judges the answers of one index. Thread-safe; one a process."""

    def __init__(self) -> None:
        self._context = ConfidenceContext()

    def across(self, manifest: Manifest | None) -> Across | None:
        """What is known of visitors' photos, where queries are to be answered across the gap."""
        across = self._context.calibration(manifest).across
        return across if across is not None and across.is_on else None

    def judge(self, hits: Hits, query_labels: Sequence[str], across: Across | None) -> Judgement:
        """How sure an answer is. It follows from the hits and their manifest alone.

        Args:
            query_labels: Content labels of the query, most probable first.
            across: The hits were found across this gap; None: by the catalogue's own look.
        """
        if hits.nearest is None or not hits.hits:
            return Judgement(0.0, CONFIDENT, [])
        ranks = [hit.rank for hit in hits.hits]
        if across is not None:
            similarities = hits.nearest.similarities
            return Judgement(across.held(similarities), CONFIDENT_ACROSS, is_it(similarities, ranks))
        calibration = self._context.calibration(hits.nearest.snapshot.manifest)
        around = self._context.neighbourhood(hits.nearest, query_labels)
        held = calibration.confidence(calibration.score(around))
        return Judgement(held, CONFIDENT, calibration.confidences(around, ranks))

    def features(self, hits: Hits) -> tuple[float, ...]:
        """What an answer was judged by, to learn from at the next merge; nothing where it was not fitted."""
        if hits.nearest is None or not hits.nearest.rows:
            return ()
        calibration = self._context.calibration(hits.nearest.snapshot.manifest)
        around = self._context.neighbourhood(hits.nearest)
        if not calibration.is_fitted or len(calibration.mean_vector) != len(around.query):
            return ()
        return tuple(round(float(value), 6) for value in features(around, calibration.mean_vector))

    def common_vector(self, manifest: Manifest | None) -> Array | None:
        """The mean full vector (d,) float32 of the catalogue, where the calibration knows it."""
        calibration = self._context.calibration(manifest)
        return calibration.mean_vector if calibration.is_fitted and calibration.space is None else None


class ConfidenceContext:
    """Keeps what is needed between searches of one snapshot. One thread may replace what another is using: each call
    works on what it took, and at worst reads once more."""

    def __init__(self) -> None:
        self._frame = CoverageProjection(EMPTY_SPACE)
        self._full: dict[int, tuple[RowBlock, Array]] = {}
        self._calibration: tuple[Manifest | None, Calibration] = (None, Calibration())
        nothing = np.empty((0, 0), np.float32)
        self._sample: tuple[Snapshot | None, Calibration, Array, Array] = (None, Calibration(), nothing, nothing)

    def calibration(self, manifest: Manifest | None) -> Calibration:
        """The manifest's calibration, or the default."""
        kept, calibration = self._calibration
        if kept is not manifest:
            calibration = Calibration.of(manifest.calibration if manifest else {})
            self._calibration = (manifest, calibration)
        return calibration

    def neighbourhood(self, nearest: NearestRows, query_labels: Sequence[str] = ()) -> Neighbourhood:
        """The neighbourhood of a query."""
        snapshot, query = nearest.snapshot, nearest.query
        calibration = self.calibration(snapshot.manifest)
        labels = RowLabels(nearest.rows)
        projected = isinstance(snapshot.space, Projection)
        wants_full = calibration.is_fitted and calibration.space is None
        if projected and wants_full and snapshot.images <= FULL_KEPT_MAX:
            rows = [self._full_vectors(snapshot, block)[row] for block, row in nearest.rows]
            sampled = self._sampled(snapshot, calibration, query)
            return Neighbourhood(query, _stack(rows, len(query)), labels, query_labels, sampled)
        frame = self._frame
        if frame.space is not snapshot.space:
            frame = self._frame = CoverageProjection(snapshot.space)
        placed = frame.project_one(query, nearest.unnormalised)
        sampled = self._sampled(snapshot, calibration, placed)
        return Neighbourhood(placed, nearest.vectors, labels, query_labels, sampled)

    def _sampled(self, snapshot: Snapshot, calibration: Calibration, query: Array) -> Sampled | None:
        """How a placed query stands to a sample of the catalogue; None where the calibration has no use for it."""
        mean = calibration.mean_vector
        if len(mean) != len(query):
            return None
        kept, fitted, sample, middle = self._sample
        if kept is not snapshot or fitted is not calibration:
            step = max(1, -(-snapshot.images // SAMPLED))
            full = calibration.space is None and isinstance(snapshot.space, Projection)
            parts = []
            for live in snapshot.blocks:
                rows = np.arange(step // 2, len(live.block), step)
                rows = rows if live.alive is None else rows[live.alive[rows]]
                parts.append(self._full_vectors(snapshot, live.block)[rows] if full else live.block.vectors.unit(rows))
            sample = unit(unit(np.concatenate(parts).astype(np.float32)) - mean)
            middle = sample.mean(0)
            self._sample = (snapshot, calibration, sample, middle)
        return Sampled(centred_similarities(query[None], mean, sample)[0], middle)

    def _full_vectors(self, snapshot: Snapshot, block: RowBlock) -> Array:
        """All full vectors of a block, (n, d) float16, read once."""
        kept = self._full.get(id(block))
        if kept is not None and kept[0] is block:
            return kept[1]
        vectors = np.ascontiguousarray(block.read_full(0, len(block)), np.float16)
        live = {id(one.block) for one in snapshot.blocks}
        self._full = {**{i: one for i, one in self._full.items() if i in live}, id(block): (block, vectors)}
        return vectors


class RowLabels(Sequence[tuple[str, ...]]):
    """The content labels of rows, read when they are asked for: of 64 rows five are."""

    def __init__(self, rows: Sequence[tuple[RowBlock, int]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> tuple[str, ...]: ...

    @overload
    def __getitem__(self, place: slice) -> RowLabels: ...

    def __getitem__(self, place: int | slice) -> tuple[str, ...] | RowLabels:
        if isinstance(place, slice):
            return RowLabels(self._rows[place])
        block, row = self._rows[place]
        return tuple(block.columns.names["label"][code] for code in block.columns.labels.row(row))


def _stack(rows: Sequence[Array], dimension: int) -> Array:
    if not rows:
        return np.empty((0, dimension), np.float32)
    return unit(np.stack(rows).astype(np.float32))
