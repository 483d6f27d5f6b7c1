"""Calibration: from a query's neighbourhood to the probability that the catalogue holds what was searched for.

Learned at a merge and without labels (`visor.confidence.fit`): how the catalogue's own images differ from strangers of
the same shop. The share of queries for something that the catalogue holds, and the share of the others that comes from
elsewhere, where any match is weaker, are a half and a quarter until a merge has learned them from searches' scores.
Nothing is learned between merges.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import msgspec
import numpy as np

from visor.confidence.across import CONFIDENT_ACROSS, Across
from visor.confidence.features import (
    FEATURES,
    SAMPLED,
    CoverageProjection,
    Neighbourhood,
    Sampled,
    centred_similarities,
    features,
    first_log_odds,
    sigmoid,
)
from visor.index.format.container import Array
from visor.index.format.manifest import Manifest
from visor.index.format.projection import EMPTY_SPACE, Projection, Space, unit
from visor.index.format.segment import RowBlock
from visor.index.search.hits import Hits, NearestRows
from visor.index.search.snapshot import Snapshot
from visor.schema.items import Record

CONFIDENT = 0.5
"""Probability below which an answer reports that there is no confident match."""
HELD_SHARE, OUT_OF_DOMAIN_SHARE = 0.5, 0.25
"""Share of searches for what the catalogue holds, and share of the others from elsewhere, while little is known."""
HELD_LEAST, HELD_MOST, NEAR_LEAST = 0.25, 0.9, 0.05
"""Limits of what searches can teach, the last being the share of those for strangers of the same shop: a probability of
.5 stays between .25 and .95, whatever somebody searches for all day."""
SEARCHES_KNOWN, STRANGERS_KNOWN = 20.0, 5.0
"""Searches and strangers that these assumptions count as, besides those seen: more searches if vectors distinguish
less, because their scores then show less about the query."""
SCORE_EDGES = np.arange(-12.0, 12.5, 1.0)
"""Edges of the bins in which scores of searches are counted; the outer bins take what is beyond."""
NO_SEARCHES: Array = np.zeros(len(SCORE_EDGES) - 1)
FIRST_SLOPE, FIRST_INTERCEPT, FIRST_LOSS = 1.05, 1.35, 2.8
"""If the catalogue holds what was searched for, the log-odds that the first match is right are intercept + slope · its
standardised `first_log_odds`. Measured on clothing; where groups are clear, as on groceries, a merge learns both.
For vectors that distinguish nothing the whole loss is subtracted from the intercept, for others a part of it."""
JUDGED = 24
"""Results of an answer that are judged one by one: two pages."""
SHORT_FROM = 2.0
SHORT_WEIGHT = 2.0
"""A best similarity more than 2 of the catalogue's standard deviations below its median counts extra, as nothing else
reveals pictures from elsewhere as well."""
FULL_MAX = 2_000
"""Pictures up to which a calibration is fitted on full vectors: a projection learned on few pictures brings them
nearer than others. 13 MB as float16."""
FULL_KEPT_MAX = 4 * FULL_MAX
"""Pictures up to which full vectors stay in memory for that; long before that, a merge has fitted anew."""
ROWS_COMPARED = 40
NEARER = 4.0
"""Log-odds of a match that is as much nearer than usual as a copy is nearer than any picture: fits joined vectors, each
network's alone, and catalogues of 5 to 40 labelled photos (docs/benchmarks-confidence.md)."""
ALONE = 0.6, 0.88
"""Cosines of any two pictures and of a picture and its nearest, if there is only one picture to learn them from: in any
model, a picture that is less than nearly the same is not a match."""
PAIRS_ENOUGH = 6
"""Pairs of pictures, those of four, from which on these do not count: two show little of how alike others are."""
_BEST = FEATURES.index("best_similarity")


class Calibration(Record, frozen=True, kw_only=True, dict=True):
    """Kept in the manifest. The default is for an index that was never merged or is too small to learn from.

    Without `weights` the score is by how much the best match is nearer than these pictures are to each other.
    """

    weights: tuple[float, ...] = ()
    """One for each of `features.FEATURES`, for standardised values; the score is log-odds."""
    intercept: float = 0.0
    centre: tuple[float, ...] = ()
    """Median of each feature over the catalogue's own pictures, each left out in turn."""
    spread: tuple[float, ...] = ()
    """Standard deviation of the same."""
    mean: str = ""
    """Base64 of little-endian float16 (m,): mean of the catalogue's unit vectors in the space of the measurement."""
    space: str | None = None
    """Name of the projection of the measurement; None: full vectors."""
    out_of_domain_at: float = msgspec.field(default=-2.0, name="far_at")
    """Score at which a stranger is as likely from elsewhere as from the same shop."""
    out_of_domain_width: float = msgspec.field(default=0.7, name="far_width")
    """Scores over which that likelihood ratio changes by a factor of e."""
    held_share: float = HELD_SHARE
    """Share of searches for something that the catalogue holds."""
    out_of_domain_share: float = OUT_OF_DOMAIN_SHARE
    """Share of the others that come from elsewhere."""
    fitted_on: int = 0
    """Pictures that it was learned on; 0 for the default."""
    images: int = 0
    """Pictures in the index when it was fitted."""
    rejected: int = 0
    """Answers among them that somebody called no match."""
    cluster_weight: float = msgspec.field(default=0.0, name="trust")
    """How far the clusters found among the images were followed, 0 to 1; the rest are the default weights."""
    separability: float = 1.0
    """How well the vectors separate kinds, from nearly 0 to 1: as well as those that the default weights were learned
    from. The weights, the intercept and what is promised of first matches are scaled by it."""

    first_centre: float = 0.0
    """Median of `features.first_log_odds` over the catalogue's own images, each left out …"""
    first_spread: float = 0.0
    """… and their standard deviation; 0 if that was not measured."""
    first_slope: float = FIRST_SLOPE
    first_intercept: float = FIRST_INTERCEPT
    across: Across | None = None
    """What is known of visitors' photos; None before a merge that knows of looks."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Calibration:
        """The calibration of a manifest; the default if there is none or another version wrote it."""
        try:
            calibration = msgspec.convert(stored, cls)
        except msgspec.ValidationError:
            return cls()
        sizes = {len(calibration.weights), len(calibration.centre), len(calibration.spread)}
        return calibration if sizes in ({0}, {len(FEATURES)}) else cls()

    def within(self, space: Space, images: int) -> Calibration:
        """This; or the default if it was measured in another space than the one in which so many images are compared: a
        merge has learned a projection anew and fits later."""
        full = not isinstance(space, Projection) or images <= FULL_KEPT_MAX
        is_known = full if self.space is None else self.space == space.name
        return self if is_known else Calibration(across=self.across)

    @cached_property
    def mean_vector(self) -> Array:
        """(m,) float32."""
        return np.frombuffer(base64.b64decode(self.mean), "<f2").astype(np.float32)

    @property
    def is_fitted(self) -> bool:
        return bool(self.weights)

    def score(self, around: Neighbourhood) -> float:
        """Log-odds that the query is of a kind in the catalogue rather than a stranger of the same shop, at even odds.

        Args:
            around: Rows of the space that this was measured in; none make a score of -60.
        """
        if not len(around.rows):
            return -60.0
        if not self.is_fitted or len(around.query) != len(self.mean_vector):
            return score_of_rows(float((around.rows @ around.query).max()), around.rows[:ROWS_COMPARED])
        standard = (features(around, self.mean_vector) - self.centre) / self.spread
        shortfall = max(0.0, -SHORT_FROM - float(standard[_BEST]))
        return float(standard @ np.array(self.weights)) + self.intercept - self.separability * SHORT_WEIGHT * shortfall

    def out_of_domain_ratio(self, scores: Array) -> Array:
        """How much likelier each score is among strangers from elsewhere than among those of the same shop."""
        return np.exp(np.clip(-(np.asarray(scores) - self.out_of_domain_at) / self.out_of_domain_width, -30.0, 30.0))

    def confidence(self, score: float) -> float:
        """Confidence in [0, 1] that the catalogue holds what was searched for."""
        share, held = self.out_of_domain_share, self.held_share
        strangers = (1.0 - held) / held * (1.0 - share + share * float(self.out_of_domain_ratio(np.array(score))))
        return 1.0 / (1.0 + math.exp(min(60.0, max(-60.0, math.log(strangers) - score))))

    def learned_shares(self, counts: Array) -> Calibration:
        """With `held_share` and `out_of_domain_share` of searches, by expectation maximisation over a mixture of three.

        Args:
            counts: (25,) searches in each bin of `SCORE_EDGES`.
        """
        scores = (SCORE_EDGES[:-1] + SCORE_EDGES[1:]) / 2
        held_odds, far_odds = np.exp(scores), self.out_of_domain_ratio(scores)
        held, far, searches = HELD_SHARE, OUT_OF_DOMAIN_SHARE, float(counts.sum())
        known = SEARCHES_KNOWN / self.separability**3
        for _ in range(100):
            parts = np.stack([held * held_odds, (1 - held) * (1 - far) + 0 * scores, (1 - held) * far * far_odds])
            of_held, near, elsewhere = (parts / parts.sum(0)) @ counts
            held = (of_held + known * HELD_SHARE) / (searches + known)
            far = (elsewhere + STRANGERS_KNOWN * OUT_OF_DOMAIN_SHARE) / (near + elsewhere + STRANGERS_KNOWN)
        held = round(min(max(float(held), HELD_LEAST), HELD_MOST), 4)
        far = round(min(float(far), 1 - NEAR_LEAST / (1 - held)), 4)
        return msgspec.structs.replace(self, held_share=held, out_of_domain_share=far)

    def first_if_held(self, around: Neighbourhood) -> float | None:
        """Probability that the nearest row is right if the catalogue holds it; None if that was not fitted."""
        if not self.first_spread or len(around.query) != len(self.mean_vector) or not len(around.rows):
            return None
        odds = first_log_odds(around, self.mean_vector, self.images)
        log_odds = self.first_intercept + self.first_slope * (odds - self.first_centre) / self.first_spread
        return float(sigmoid(log_odds))

    def confidences(self, around: Neighbourhood, ranks: Sequence[int], held: float) -> list[float]:
        """Confidence in [0, 1] of each result: for the first, that it is right; for others, what the answer's would be
        if there were none nearer. Results look like pictures of the same shop, wherever the query is from.

        It never rises from one result to the next, nor above `held`. How right it is: docs/benchmarks-confidence.md.

        Args:
            around: As for `score`.
            ranks: Of each result in `around`, rising; results after its end have the confidence of the last.
            held: Confidence that the catalogue holds what was searched for.
        """
        found, least = [], held
        for number, rank in enumerate(ranks):
            if number < JUDGED and len(around.rows) > (rank if number else 0):
                at = min(rank, len(around.rows) - 1)
                first = self.first_if_held(around) if at == 0 else None
                rest = replace(around, rows=around.rows[at:], labels=around.labels[at:])
                least = min(least, float(sigmoid(self.score(rest))) if first is None else held * first)
            found.append(least)
        return found


def score_of_rows(best: float, rows: Array) -> float:
    """Log-odds of a match with the similarity `best`, by how alike rows (h, m) of unit length are to each other: models
    differ in how alike any two pictures are (0.4 in EfficientNet, 0.9 in Inception)."""
    common, usual = ALONE
    if len(rows) > 1:
        alike = rows @ rows.T
        np.fill_diagonal(alike, np.nan)
        known = min(1.0, len(rows) * (len(rows) - 1) / 2 / PAIRS_ENOUGH)
        common += known * (float(np.nanmean(alike)) - common)
        usual += known * (float(np.median(np.nanmax(alike, 1))) - usual)
    return NEARER * (best - usual) / max(1.0 - common, 1e-3)


@dataclass(frozen=True, slots=True)
class Judgement:
    """held: confidence that the catalogue holds what was searched for; confident: the least that is called so; matches:
    confidence of each hit that it is what was searched for, never rising; score: what `held` was made from, if any."""

    held: float
    confident: float
    matches: list[float]
    score: float | None = None


class ConfidenceEstimator:
    """Judges the answers of one index. Thread-safe; one per process."""

    def __init__(self) -> None:
        self._context = ConfidenceContext()

    def calibration(self, manifest: Manifest | None) -> Calibration:
        return self._context.calibration(manifest)

    def across(self, manifest: Manifest | None) -> Across | None:
        """What is known of visitors' photos, if queries are to be answered across the gap."""
        across = self.calibration(manifest).across
        return across if across is not None and across.is_on else None

    def judge(self, hits: Hits, query_labels: Sequence[str], across: Across | None) -> Judgement:
        """How sure an answer is. It follows from the hits and their manifest alone.

        Args:
            query_labels: Content labels of the query, most probable first.
            across: The hits were found across this gap; None: by the catalogue's own look.
        """
        if hits.nearest is None or not hits.hits:
            return Judgement(0.0, CONFIDENT, [0.0] * len(hits.hits))
        ranks = [hit.rank for hit in hits.hits]
        if hits.is_listed or (hits.text is not None and hits.text.words):
            # A later page or another order: each is as sure as the match of its rank in an answer of the nearest.
            lead = range(min(JUDGED, len(hits.nearest.rows)))
            found = tuple(replace(hits.hits[0], rank=rank) for rank in lead)
            nearest = replace(hits, hits=found, is_listed=False, text=None)
            judged = self.judge(nearest, query_labels, across)
            curve = judged.matches or [0.0]
            return replace(judged, matches=[curve[min(rank, len(curve) - 1)] for rank in ranks])
        if across is not None:
            similarities = hits.nearest.similarities
            return Judgement(across.held(similarities), CONFIDENT_ACROSS, across.is_it(similarities, ranks))
        calibration = self._context.measured(hits.nearest.snapshot)
        around = self._context.neighbourhood(hits.nearest, query_labels)
        score = calibration.score(around)
        held = calibration.confidence(score)
        return Judgement(held, CONFIDENT, calibration.confidences(around, ranks, held), score)

    def of_picture(self, nearest: NearestRows, vector: Array, labels: tuple[Sequence[str], Sequence[str]]) -> float:
        """Confidence that a picture would have as a match of a query if the index held it.

        Args:
            nearest: What the index holds near the query.
            vector: (d,) float32, the picture's full vector of unit length.
            labels: Content labels of the query and of the picture, most probable first.
        """
        around = self._context.neighbourhood(nearest, labels[0])
        row = vector if around.query is nearest.query else nearest.snapshot.space.project(vector[None])[0]
        rank = int((around.rows @ around.query > row @ around.query).sum())
        known = [*around.labels[:rank], labels[1], *around.labels[rank:]]
        around = replace(around, rows=np.insert(around.rows, rank, row, axis=0), labels=known)
        calibration = self._context.measured(nearest.snapshot)
        held = calibration.confidence(calibration.score(around))
        return calibration.confidences(around, range(rank + 1), held)[rank]

    def features(self, hits: Hits) -> tuple[float, ...]:
        """What an answer was judged by, for the next merge to learn from; nothing if that was not fitted."""
        if hits.nearest is None or not hits.nearest.rows:
            return ()
        calibration = self._context.measured(hits.nearest.snapshot)
        around = self._context.neighbourhood(hits.nearest)
        if not calibration.is_fitted or len(calibration.mean_vector) != len(around.query):
            return ()
        return tuple(round(float(value), 6) for value in features(around, calibration.mean_vector))

    def common_vector(self, manifest: Manifest | None) -> Array | None:
        """The mean full vector (d,) float32 of the catalogue, if the calibration knows it."""
        calibration = self._context.calibration(manifest)
        return calibration.mean_vector if calibration.is_fitted and calibration.space is None else None


class ConfidenceContext:
    """Keeps what is needed between searches of one snapshot. One thread may replace what another is using: each call
    works on what it has taken, and at worst reads once more."""

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

    def measured(self, snapshot: Snapshot) -> Calibration:
        """What the manifest's calibration says of answers from this snapshot."""
        return self.calibration(snapshot.manifest).within(snapshot.space, snapshot.images)

    def neighbourhood(self, nearest: NearestRows, query_labels: Sequence[str] = ()) -> Neighbourhood:
        """The neighbourhood of a query."""
        snapshot, query = nearest.snapshot, nearest.query
        calibration = self.measured(snapshot)
        labels = RowLabels(nearest.rows)
        projected = isinstance(snapshot.space, Projection)
        wants_full = calibration.is_fitted and calibration.space is None
        if projected and wants_full:
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
        """How a placed query relates to a sample of the catalogue; None if the calibration has no use for it."""
        mean = calibration.mean_vector
        if len(mean) != len(query):
            return None
        snapshot = snapshot.catalogue or snapshot
        kept, fitted, sample, middle = self._sample
        if kept is not snapshot or fitted is not calibration:
            full = calibration.space is None and isinstance(snapshot.space, Projection)
            parts = []
            for live, rows in zip(snapshot.blocks, sampled_rows(snapshot), strict=True):
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


def sampled_rows(snapshot: Snapshot) -> list[Array]:
    """For each block the rows (s,) int64 that represent the whole catalogue, about `SAMPLED` together."""
    step = max(1, -(-snapshot.images // SAMPLED))
    found = [np.arange(step // 2, len(live.block), step) for live in snapshot.blocks]
    return [r if v.alive is None else r[v.alive[r]] for v, r in zip(snapshot.blocks, found, strict=True)]


class RowLabels(Sequence[tuple[str, ...]]):
    """The content labels of rows, read when needed: of 64 rows only five are."""

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
