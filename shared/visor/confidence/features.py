"""The neighbourhood of a query: numbers that show whether a catalogue holds what was searched for, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visor.index.format.container import Array
from visor.index.format.projection import Projection, Space, dot, unit

NEIGHBOURS = 64
"""Hits that are considered."""
FEATURES = (
    "best_similarity",
    "centred_1",
    "centred_8",
    "margin_1",
    "margin_3",
    "local_scaling_1",
    "local_scaling_8",
    "top5_cohesion",
    "background_margin",
    "background_spread",
    "relative_background_margin",
    "shared_neighbours",
    "label_agreement",
)
"""Names of the numbers of `features`, in their order; a greater number speaks for the catalogue.

All but the first are measured in the space centred on the catalogue.

- best_similarity: the best similarity, as the search returns it.
- centred_1, centred_8: the best similarity, and the mean of the best 8.
- margin_1, margin_3: the best, or the mean of the best 3, less the mean of ranks 10 to 50, which any picture
  reaches here.
- local_scaling_1, local_scaling_8: how much nearer the query is to its hits than they are to their own nearest
  (Jégou et al., CVPR 2007).
- top5_cohesion: mean similarity of the best 5 among themselves.
- background_margin, background_spread: centred_8 less the mean of the similarities to a sample of the whole catalogue,
  and the standard deviation of these: a query of a large kind is near to a part of the catalogue and far from the rest.
- relative_background_margin: background_margin, less how far the hits' own nearness is above their similarities to
  that sample.
- shared_neighbours: share of the query's nearest 20 that are also among the nearest 20 of its best 5 (Jarvis & Patrick,
  IEEE Transactions on Computers 1973).
- label_agreement: cosine of the query's content labels with those of the best 5.
"""
SAMPLED = 512
"""Pictures of the catalogue that a query is compared with in addition to its nearest ones."""
LABEL_DECAY = 0.5
"""A label counts half as much as the one before: measured against 1 and 0.8."""
SHARPNESS = 8.0
"""Of the softmax over centred similarities: 8 to 15 show equally well which first match is right."""
_SHARED = 20
_FAR = slice(9, 50)


@dataclass(frozen=True, slots=True)
class Sampled:
    """How a query relates to a sample of the catalogue: its similarities (b,) to `unit(rows - mean)`, as
    `centred_similarities` returns them, and the mean (m,) of these rows."""

    similarities: Array
    middle: Array


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """A query and its nearest h ≤ 64 rows in the similarity space of m numbers, nearest first.

    query: (m,) float32 of length `covered`. rows: (h, m) float32, unit length. labels: content labels of each row, as
    far as they are known, and of the query, most probable first: an index keeps names, not probabilities.
    """

    query: Array
    rows: Array
    labels: Sequence[Sequence[str]] = ()
    query_labels: Sequence[str] = ()
    sampled: Sampled | None = None


class CoverageProjection:
    """Projects full vectors into a space so that a stranger does not gain from the part of it that the space drops.

    A projection drops whatever no indexed image has and scales the rest to unit length: that brings strangers nearer.
    So a query keeps the length of its part in the space.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.inverse: Array = np.empty((0, 0), np.float32)
        if isinstance(space, Projection):
            self.inverse = np.linalg.pinv((space.matrix.T @ space.matrix).astype(np.float64)).astype(np.float32)

    def project_one(self, vector: Array, unnormalised: Array) -> Array:
        """One full vector (d,) float32 as (m,), as `project` does; `unnormalised` is its part in the space."""
        if not isinstance(self.space, Projection):
            return vector
        moved = vector - self.space.origin
        energy, whole = float(dot(self.inverse, unnormalised) @ unnormalised), float(moved @ moved)
        covered = np.float32(np.sqrt(min(max(energy / max(whole, 1e-12), 0.0), 1.0)))
        placed: Array = unit(unnormalised[None])[0] * covered
        return placed

    def project(self, vectors: Array) -> Array:
        """Full vectors (n, d) as (n, m) float32 whose length is the covered share, in [0, 1]."""
        if not isinstance(self.space, Projection):
            return self.space.project(vectors)
        moved = np.asarray(vectors, np.float32) - self.space.origin
        inside = moved @ self.space.matrix
        energy = np.einsum("ij,jk,ik->i", inside, self.inverse, inside, optimize=True)
        whole = np.einsum("ij,ij->i", moved, moved)
        covered = np.sqrt(np.clip(energy / np.maximum(whole, 1e-12), 0, 1))
        placed: Array = unit(inside) * covered[:, None].astype(np.float32)
        return placed


def centred_similarities(queries: Array, mean: Array, sample: Array) -> Array:
    """Similarities (n, b) of queries (n, m), of their covered length, to rows (b, m) = `unit(rows - mean)`."""
    moved = queries - mean
    # The part of a query outside the space counts towards its length.
    lengths = np.sqrt(np.maximum(1.0 - 2 * (queries @ mean) + mean @ mean, 1e-9))
    similarities: Array = (moved @ sample.T) / lengths[:, None]
    return similarities


def first_log_odds(around: Neighbourhood, mean: Array, images: int) -> float:
    """Log-odds of the nearest row among all of the catalogue, by the softmax of their centred similarities.

    Rows that are not among the nearest are estimated from the sample.

    Args:
        around, mean: As for `features`.
        images: Rows in the catalogue.
    """
    near = SHARPNESS * centred_similarities(around.query[None], mean, unit(around.rows - mean))[0].astype(np.float64)
    others = float(np.exp(near[1:]).sum())
    if around.sampled is not None and images > len(near) and len(around.sampled.similarities):
        far = np.minimum(SHARPNESS * around.sampled.similarities, near.min())
        others += (images - len(near)) * float(np.exp(far).mean())
    return float(near[0] - np.log(max(others, 1e-9)))


def features(around: Neighbourhood, mean: Array) -> Array:
    """The numbers of `FEATURES`, (13,) float64.

    Args:
        around: With at least one row.
        mean: (m,) mean of the catalogue's rows.
    """
    query, rows = around.query, around.rows
    # Centred cosines by algebra: no second copy of the rows, and only the nearest are compared with all.
    common = float(mean @ mean)
    raw = (rows @ query).astype(np.float64)
    on_mean = (rows @ mean).astype(np.float64)
    lengths = np.sqrt(np.maximum(1.0 - 2 * on_mean + common, 1e-9))
    # The query's part outside the space counts towards its length.
    query_on_mean = float(query @ mean)
    similarities = (raw - query_on_mean - on_mean + common) / (
        np.sqrt(max(1.0 - 2 * query_on_mean + common, 1e-9)) * lengths
    )
    order = np.argsort(-similarities, kind="stable")
    s, few = similarities[order], order[:8]
    among = (rows[few] @ rows.T).astype(np.float64)
    among = (among - on_mean[few, None] - on_mean + common) / (lengths[few, None] * lengths)
    among[np.arange(len(few)), few] = -1.0
    closest = -np.sort(-among, axis=1)
    far = float(s[_FAR].mean()) if len(s) > _FAR.start else float(s[-1])
    own_3, own_8 = closest[:, : min(3, max(len(s) - 1, 1))].mean(1), closest[:, : min(8, max(len(s) - 1, 1))].mean(1)
    five = few[:5]
    others, hits_others = s, among.mean(1)
    if around.sampled is not None and len(around.sampled.similarities) > 1:
        others, middle = around.sampled.similarities, around.sampled.middle
        hits_others = (rows[few] @ middle - float(mean @ middle)) / lengths[few]
    above = s[:8].mean() - float(others.mean())
    circle = min(_SHARED, len(s) // 3 + 1)
    # A hit is the first of its own circle.
    among[np.arange(len(few)), few] = 1.0
    circles = np.argsort(-among[:5], axis=1, kind="stable")[:, :circle]
    is_near = np.zeros(len(s), bool)
    is_near[order[:circle]] = True
    together = among[: len(five), five][~np.eye(len(five), dtype=bool)]
    return np.array(
        [
            float(raw.max()),
            s[0],
            s[:8].mean(),
            s[0] - far,
            s[:3].mean() - far,
            float((s[:5] - own_3[:5]).max()),
            s[:8].mean() - own_8.mean(),
            float(together.mean()) if together.size else s[0],
            above,
            float(others.std()),
            above - float(own_8.mean() - hits_others.mean()),
            float(is_near[circles].mean()),
            label_cosine(around.query_labels, [around.labels[i] for i in five] if around.labels else ()),
        ]
    )


def label_cosine(query: Sequence[str], hits: Sequence[Sequence[str]]) -> float:
    """Mean cosine between label lists, whose n-th name counts `LABEL_DECAY` times the one before; 0 if unknown."""
    if not query or not hits:
        return 0.0
    wanted = _label_weights(query)
    shares = []
    for names in hits:
        have = _label_weights(names)
        length = (sum(w * w for w in wanted.values()) * sum(w * w for w in have.values())) ** 0.5
        shares.append(sum(w * have[name] for name, w in wanted.items() if name in have) / length if length else 0.0)
    return float(np.mean(shares))


def _label_weights(names: Sequence[str]) -> dict[str, float]:
    return {name: LABEL_DECAY**place for place, name in enumerate(names)}


def sigmoid(odds: Array | float) -> Array:
    """Probabilities from log-odds."""
    probabilities: Array = 1 / (1 + np.exp(-np.clip(odds, -60, 60)))
    return probabilities
