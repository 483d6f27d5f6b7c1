"""Fits a calibration to an index without labels.

Every picture of a sample is searched for twice: with itself left out (the catalogue holds more of its kind), and with
its whole group left out (the catalogue holds nothing of its kind). The groups come from clustering. How much clearer
they are than groups among vectors with the same spread but no groups shows two things. It shows how well the vectors
separate kinds: every confidence is scaled by that. And it shows whether the comparison may move the default weights,
half way: groups that are less clear would only mirror the similarity that made them. The measurements are in
docs/decisions/index-confidence.md.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from visor.confidence.clustering import clearest_groups, without_groups
from visor.confidence.features import (
    FEATURES,
    NEIGHBOURS,
    SAMPLED,
    Neighbourhood,
    Sampled,
    centred_similarities,
    features,
    first_log_odds,
)
from visor.confidence.model import FIRST_INTERCEPT, FIRST_LOSS, FIRST_SLOPE, Calibration
from visor.index.format.container import Array
from visor.index.format.projection import unit
from visor.near_duplicates.thresholds import copy_from

SAMPLE_MIN = 40
"""With fewer pictures the default stays."""
SAMPLE_MAX = 800
"""Pictures that are searched for."""
KEPT = 256
"""Nearest rows remembered for each picture, before its group is removed from them."""
GROUP_SIZES = (5, 10, 20)
"""Mean sizes of groups that are tried: the first that is not clearly worse than another is taken."""
GROUP_MARGIN = 0.03
CLEARNESS_DRAWS = 3
"""Draws of vectors without groups that a small sample is compared with."""
CHANCE_MIN = 0.03
"""Least silhouette that is assumed for chance: in mixed catalogues it nears 0."""
SEPARABLE = 2.3
"""Clearness of groups from which vectors separate kinds as well as those that the default weights were learned from.
Joined vectors have 1.8 to 5.6, Inception alone 1.9 to 4, untrained networks 1 to 1.8, with 40 photos or 240."""
SEPARABLE_LEAST = 0.05
RECENTRED = 0.8
"""Log-odds towards which scores are drawn as vectors distinguish less: strangers then score as own images do."""
CLUSTER_WEIGHT_FROM, CLUSTER_WEIGHT_FULL = 3.5, 4.5
"""Clearness between which the weight of the clusters grows from 0 to its most: clothing has 2.4, groceries have 5, and
3.1 with three photos per kind."""
CLUSTER_WEIGHT_MAX = 0.5
"""A full weight finds no better matches, and its confidences are 0.02 worse."""
DEFAULT_WEIGHTS = {
    "best_similarity": 0.88,
    "centred_1": -0.71,
    "centred_8": -1.31,
    "margin_1": 0.40,
    "margin_3": 0.49,
    "local_scaling_1": 0.15,
    "local_scaling_8": -0.79,
    "top5_cohesion": -0.08,
    "background_margin": 0.53,
    "background_spread": 0.67,
    "relative_background_margin": 1.23,
    "shared_neighbours": 0.40,
    "label_agreement": 0.20,
}
DEFAULT_INTERCEPT = 0.88
"""Learned by `scripts/models/confidence_weights.py` from labelled photos of clothing and of groceries; in units of the
catalogue's own spread."""
BIAS_CORRECTION = 0.2
"""Log-odds by which strangers are likelier than in comparisons: held-out groups are apart, whereas kinds overlap, and
the share of strangers from elsewhere that a search assumes is never quite 0."""
GROUPED_WITH_NEAREST = 1.0
"""Log-odds by which an image's nearest is likelier of its group than of its kind: groups consist of near images."""
NONE_REJECTED: Array = np.empty((0, len(FEATURES)))
REJECTED_WEIGHT = 3
REJECTED_MAX = 0.5
"""An answer that somebody rejected counts as this many strangers; all of them as half of the strangers at most."""
RIDGE, FIXED = 1.0, 1e9
RIDGE_QUERIES = 200.0
"""Queries that all comparisons together count as against the ridge."""
OUT_OF_DOMAIN_BELOW = 2.0
OUT_OF_DOMAIN_WIDTH = 0.35
"""Where strangers from elsewhere begin, below the mean of those of the same shop, in their standard deviations."""


@dataclass(frozen=True, slots=True)
class Sample:
    """n pictures to search for. vectors (n, m) float32: unit vectors of the space, of their covered length. rows (n,):
    their positions in the catalogue. labels: names for each, most probable first; empty where unknown."""

    vectors: Array
    rows: Array
    labels: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class CatalogueRows:
    """Some rows of the catalogue, in order: vectors (b, m) float32 of unit length, and their labels or ()."""

    vectors: Array
    labels: Sequence[Sequence[str]]


def fit(
    sample: Sample,
    catalogue: Callable[[], Iterable[CatalogueRows]],
    *,
    mean: Array,
    space: str | None = None,
    rejected: Array = NONE_REJECTED,
    images: int | None = None,
) -> Calibration:
    """A calibration for the catalogue; the default if the sample has fewer than `SAMPLE_MIN` pictures.

    Args:
        sample: At most `SAMPLE_MAX` are of use.
        catalogue: All rows, part by part; read twice. Memory: one part, and the rows near any picture, at most
            (n * 256, m) float16.
        mean: (m,) float32 of the catalogue's unit vectors.
        space: Name of the projection, or None for full vectors.
        rejected: (r, f) features of answers whose first match was called none; they count as strangers.
        images: How many images the catalogue has; None: as many as there are rows.
    """
    n = len(sample.vectors)
    if n < SAMPLE_MIN:
        return Calibration()
    mean = mean.astype(np.float16).astype(np.float32)
    copy = copy_from(mean)
    near, rows_seen = _nearest(sample, catalogue(), copy)
    images = images or rows_seen
    if sum(len(one.rows) >= 2 for one in near) < SAMPLE_MIN // 2:
        return Calibration()
    rows = _gather(near, catalogue())
    groups, clearness = _groups(sample.vectors - mean)
    row_groups = _row_groups(rows, groups, sample, mean)
    some = np.unique(np.linspace(0, n - 1, min(n, SAMPLED)).astype(int))
    drawn = unit(unit(sample.vectors[some]) - mean)
    similarities = centred_similarities(sample.vectors, mean, drawn)
    different = (some != np.arange(n)[:, None]) & (sample.vectors @ unit(sample.vectors[some]).T < copy)
    own, strange, first, alike = [], [], [], []
    for i, one in enumerate(near):
        others = row_groups[rows.places(one.rows)] != groups[i]
        foreign = different[i] & (groups[some] != groups[i])
        if len(one.rows) >= 2:
            around = _around(one, rows, sample, i, _sampled(similarities[i], drawn, different[i]))
            own.append(features(around, mean))
            first.append(first_log_odds(around, mean, images))
            alike.append(not others[0])
        if others.sum() >= 2:
            sampled = _sampled(similarities[i], drawn, foreign)
            strange.append(features(_around(one, rows, sample, i, sampled, others), mean))
    if min(len(own), len(strange)) < SAMPLE_MIN // 2:
        return Calibration()
    fitted = _fitted(np.stack(own), np.stack(strange), sample, mean, space, clearness, rejected)
    centre, spread = float(np.median(first)), max(float(np.std(first)), 1e-3)
    slope, intercept = _first((np.array(first) - centre) / spread, np.array(alike), clearness)
    return msgspec.structs.replace(
        fitted,
        first_centre=round(centre, 6),
        first_spread=round(spread, 6),
        first_slope=round(slope, 4),
        first_intercept=round(intercept, 4),
        images=images,
    )


def _groups(centred: Array) -> tuple[Array, float]:
    """Group (n,) of each vector (n, m), and how many times clearer these are than groups among vectors without any."""
    groups, clearness = clearest_groups(unit(centred), GROUP_SIZES, GROUP_MARGIN)
    draws = min(CLEARNESS_DRAWS, max(1, SAMPLE_MAX // len(centred)))
    by_chance = [clearest_groups(drawn, GROUP_SIZES, GROUP_MARGIN)[1] for drawn in without_groups(centred, draws)]
    return groups, clearness / max(float(np.mean(by_chance)), CHANCE_MIN)


def separability(clearness: float) -> float:
    """How well vectors with groups of this clearness separate kinds, nearly 0 to 1."""
    return float(np.clip((clearness - 1) / (SEPARABLE - 1), SEPARABLE_LEAST, 1))


def cluster_weight(clearness: float) -> float:
    """How far groups of this clearness are to be trusted, 0 to 1."""
    return float(np.clip((clearness - CLUSTER_WEIGHT_FROM) / (CLUSTER_WEIGHT_FULL - CLUSTER_WEIGHT_FROM), 0, 1))


def _first(odds: Array, alike: Array, clearness: float) -> tuple[float, float]:
    """Slope and intercept of `Calibration.first_if_held`, from standardised log-odds (n,) of images left out and which
    of their nearest are of the same group (n,), as far as groups are to be trusted."""
    slope, intercept = FIRST_SLOPE, 0.0
    if alike.any() and not alike.all():
        slope, intercept = logistic(odds[alike, None], odds[~alike, None], np.array([FIRST_SLOPE]), RIDGE)
    # `logistic` weighs both sides alike, but far more are right than wrong.
    intercept += np.log((alike.sum() + 1) / ((~alike).sum() + 1)) - GROUPED_WITH_NEAREST
    weight, scale = cluster_weight(clearness), separability(clearness)
    default = np.array([scale * FIRST_SLOPE, FIRST_INTERCEPT - (1 - scale) * FIRST_LOSS])
    mixed = weight * np.array([slope, intercept]) + (1 - weight) * default
    return float(mixed[0]), float(mixed[1])


def _fitted(
    own: Array,
    strange: Array,
    sample: Sample,
    mean: Array,
    space: str | None,
    clearness: float,
    rejected: Array,
) -> Calibration:
    centre, spread = np.median(own, 0), np.maximum(own.std(0), 1e-6)
    most = max(1, int(REJECTED_MAX * len(strange)))
    heard = rejected[rejected[:, FEATURES.index("best_similarity")] < copy_from(mean)]
    again = np.repeat(heard[-most:], REJECTED_WEIGHT, axis=0)[-most:]
    held, strangers = (own - centre) / spread, (np.concatenate([strange, again]) - centre) / spread
    default = np.array([*(DEFAULT_WEIGHTS[name] for name in FEATURES), DEFAULT_INTERCEPT])
    learned = logistic(held, strangers, default[:-1], RIDGE)
    if len(again):
        # With fixed weights, rejected answers move the intercept.
        without = logistic(held, strangers[: len(strange)], default[:-1], FIXED)[-1]
        default[-1] += logistic(held, strangers, default[:-1], FIXED)[-1] - without
    weight = CLUSTER_WEIGHT_MAX * cluster_weight(clearness)
    weights = weight * learned + (1 - weight) * default
    weights[-1] -= BIAS_CORRECTION
    scores = strangers @ weights[:-1] + weights[-1]
    deviation = max(float(scores.std()), 0.3)
    scale = separability(clearness)
    shift = -RECENTRED * scale * (1 - scale)
    weights *= scale
    weights[-1] += shift
    return Calibration(
        weights=tuple(round(float(w), 5) for w in weights[:-1]),
        intercept=round(float(weights[-1]), 5),
        centre=tuple(round(float(c), 6) for c in centre),
        spread=tuple(round(float(s), 6) for s in spread),
        mean=base64.b64encode(mean.astype("<f2").tobytes()).decode(),
        space=space,
        out_of_domain_at=round(scale * (float(scores.mean()) - OUT_OF_DOMAIN_BELOW * deviation) + shift, 4),
        out_of_domain_width=round(OUT_OF_DOMAIN_WIDTH * deviation, 4),
        fitted_on=len(own),
        rejected=len(rejected),
        cluster_weight=round(weight, 3),
        separability=round(scale, 3),
    )


@dataclass(slots=True)
class _Near:
    """The nearest rows of one picture, without itself and its copies: similarities (k,) falling, rows (k,) of the
    catalogue."""

    similarities: Array
    rows: Array


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of the catalogue that are near any picture: rows (u,) rising, vectors (u, m) float16, labels."""

    rows: Array
    vectors: Array
    labels: list[Sequence[str]]

    def places(self, rows: Array) -> Array:
        return np.searchsorted(self.rows, rows)


def _nearest(sample: Sample, catalogue: Iterable[CatalogueRows], copy: float) -> tuple[list[_Near], int]:
    near = [_Near(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in sample.rows]
    start = 0
    for part in catalogue:
        similarities = sample.vectors @ part.vectors.T
        for i, found in enumerate(near):
            mine = similarities[i]
            few = np.flatnonzero((mine < copy) & (np.arange(start, start + len(mine)) != sample.rows[i]))
            if len(few) > KEPT:
                few = few[np.argpartition(-mine[few], KEPT)[:KEPT]]
            merged = np.concatenate([found.similarities, mine[few]])
            order = np.argsort(-merged, kind="stable")[:KEPT]
            near[i] = _Near(merged[order], np.concatenate([found.rows, start + few])[order])
        start += len(part.vectors)
    return near, start


def _gather(near: Sequence[_Near], catalogue: Iterable[CatalogueRows]) -> _Rows:
    wanted = np.unique(np.concatenate([one.rows for one in near]))
    vectors, labels, start = [], [], 0
    for part in catalogue:
        mine = wanted[(wanted >= start) & (wanted < start + len(part.vectors))] - start
        vectors.append(part.vectors[mine].astype(np.float16))
        labels += [part.labels[row] if part.labels else () for row in mine]
        start += len(part.vectors)
    return _Rows(wanted, np.concatenate(vectors), labels)


def _row_groups(rows: _Rows, groups: Array, sample: Sample, mean: Array) -> Array:
    """Group (u,) of each row: its own if it is in the sample, otherwise that of the nearest picture in it."""
    place = {int(row): j for j, row in enumerate(sample.rows)}
    known = np.array([place.get(int(row), -1) for row in rows.rows])
    centred = unit(sample.vectors - mean).T
    for start in range(0, len(known), 1000):
        unknown = start + np.flatnonzero(known[start : start + 1000] < 0)
        if len(unknown):
            known[unknown] = (unit(rows.vectors[unknown].astype(np.float32) - mean) @ centred).argmax(1)
    found: Array = groups[known]
    return found


def _sampled(similarities: Array, drawn: Array, chosen: Array) -> Sampled | None:
    return Sampled(similarities[chosen], drawn[chosen].mean(0)) if chosen.any() else None


def _around(
    near: _Near, rows: _Rows, sample: Sample, i: int, sampled: Sampled | None, keep: Array | None = None
) -> Neighbourhood:
    """The neighbourhood of one image, of the near rows that `keep` (k,) bool leaves."""
    chosen = rows.places(near.rows if keep is None else near.rows[keep])[:NEIGHBOURS]
    return Neighbourhood(
        sample.vectors[i],
        rows.vectors[chosen].astype(np.float32),
        [rows.labels[j] for j in chosen] if sample.labels else (),
        sample.labels[i] if sample.labels else (),
        sampled,
    )


def logistic(held: Array, strangers: Array, prior: Array, ridge: float) -> Array:
    """Weights and intercept (f + 1,) of a logistic regression drawn to `prior`, both sides counting the same.

    Newton's method, no step going uphill; the intercept is free.
    """
    x = np.concatenate([held, strangers])
    x = np.c_[x, np.ones(len(x))]
    y = np.r_[np.ones(len(held)), np.zeros(len(strangers))]
    share = RIDGE_QUERIES / 2 * np.r_[np.full(len(held), 1 / len(held)), np.full(len(strangers), 1 / len(strangers))]
    target, pull = np.r_[prior, 0.0], np.r_[np.full(len(prior), ridge), 1e-6]

    def loss(at: Array) -> float:
        odds = x @ at
        return float(share @ (np.logaddexp(0.0, odds) - y * odds) + pull @ (at - target) ** 2 / 2)

    weights = target.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (share * (p - y)) + pull * (weights - target)
        curvature = (x * (share * p * (1 - p))[:, None]).T @ x + np.diag(pull)
        step, now = np.linalg.solve(curvature, gradient), loss(weights)
        while loss(weights - step) > now and np.abs(step).max() >= 1e-7:
            step = step / 2
        weights -= step
        if np.abs(step).max() < 1e-7:
            break
    found: Array = weights
    return found
