"""How well a labelled folder is found: the mathematics behind `visor eval`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from visor.errors import BadRequest
from visor.index.search.metrics import Metric
from visor.schema.items import Record

NEAREST = 12
"""A page of results."""
_ROWS_AT_ONCE = 512


class Evaluation(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Figures over all queries, each in [0, 1]; greater is better."""

    images: int
    """Pictures that were searched in."""
    queries: int
    labels: int
    """Different labels among the pictures that were searched in."""
    unanswerable: int
    """Queries whose label no other picture has. They count as wrong in P@1 and P@12, and not at all in mAP."""
    p_at_1: float
    """Share of queries whose nearest picture has their label."""
    p_at_12: float
    """Mean share of the 12 nearest that have the query's label (of 12, however few have it)."""
    map: float
    """Mean over queries of the average precision over the whole ranking."""
    separation: float | None
    """Area under the ROC curve: chance that a right first guess is more similar than a wrong one. None without both."""


@dataclass(frozen=True)
class Labelled:
    """n pictures' vectors, (n, d) float32, with the label of each."""

    vectors: NDArray[np.float32]
    labels: Sequence[str]


def evaluate(queries: Labelled, index: Labelled | None = None, *, metric: str = "cosine") -> Evaluation:
    """Search for each query, in `index` or (leave-one-out) among the other queries.

    Equally similar pictures keep the order in which they were given.

    Args:
        metric: A SciPy metric of `scipy.spatial.distance.cdist`, by name.

    Raises:
        BadRequest: There is nothing to search for or in, no label is in both, or there is no such metric.
    """
    searched = queries if index is None else index
    if len(queries.labels) == 0 or len(searched.labels) < (2 if index is None else 1):
        raise BadRequest(
            f"There are {len(queries.labels)} queries and {len(searched.labels)} pictures to search in",
            valid="At least one query, and at least one other picture to find",
            remedy="Name a folder that has a sub-folder with pictures for each label",
        )
    if not set(queries.labels) & set(searched.labels):
        raise BadRequest(
            f"No query has a label of the pictures to search in: {_some(queries.labels)} and {_some(searched.labels)}",
            valid="Two folders whose sub-folders have the same names",
            remedy="Name the folders above the labels, and use the same name for a label in both",
        )
    searched_labels = np.asarray(searched.labels)
    scores, distances = Scores(), distances_to(searched.vectors, metric)
    for start in range(0, len(queries.labels), _ROWS_AT_ONCE):
        for row, distance in enumerate(distances(queries.vectors[start : start + _ROWS_AT_ONCE])):
            query = start + row
            order = np.argsort(distance, kind="stable")
            if index is None:
                order = order[order != query]
            scores.add(searched_labels[order] == queries.labels[query], -float(distance[order[0]]))
    return scores.summary(images=len(searched.labels), labels=len(set(searched.labels)))


def _some(labels: Sequence[str]) -> str:
    names = sorted(set(labels))
    return ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def distances_to(
    vectors: NDArray[np.float32], metric: str
) -> Callable[[NDArray[np.float32]], NDArray[np.float32] | NDArray[np.float64]]:
    """A function from queries (q, d) to distances (q, n) to vectors (n, d), as a search by that metric compares them.

    For `cosine` 1 − dot product, as the vectors have unit length. Statistics that a metric needs, such as
    variances, are those of `vectors`. Raises `BadRequest`: there is no such metric.
    """
    if metric == "cosine":
        return lambda queries: np.float32(1) - queries @ vectors.T
    return partial(Metric(metric, vectors).distances, vectors=vectors)


def average_precision(relevant: NDArray[np.bool_]) -> float | None:
    """Mean of the precision at each relevant place of a ranking, or None if nothing in it is relevant."""
    places = np.flatnonzero(relevant)
    if places.size == 0:
        return None
    return float(np.mean(np.arange(1, places.size + 1) / (places + 1)))


def area_under_roc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float | None:
    """Probability that a positive score exceeds a negative one, ties counting half (Mann–Whitney U), or None."""
    if positive.size == 0 or negative.size == 0:
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float(np.mean(below + not_above) / (2 * negative.size))


class Scores:
    """Figures over queries, added one by one."""

    def __init__(self) -> None:
        self._first: list[bool] = []
        self._similarity: list[float] = []
        self._share: list[float] = []
        self._precision: list[float | None] = []

    def add(self, relevant: NDArray[np.bool_], similarity: float) -> None:
        """Add a query's whole ranking: which of it have the query's label, and how similar the first of it is."""
        self._first.append(bool(relevant[0]))
        self._similarity.append(similarity)
        self._share.append(float(relevant[:NEAREST].sum()) / NEAREST)
        self._precision.append(average_precision(relevant))

    def summary(self, *, images: int, labels: int) -> Evaluation:
        first, similarity = np.array(self._first), np.array(self._similarity)
        known = [precision for precision in self._precision if precision is not None]
        separation = area_under_roc(similarity[first], similarity[~first])
        return Evaluation(
            images=images,
            queries=first.size,
            labels=labels,
            unanswerable=len(self._precision) - len(known),
            p_at_1=round(float(first.mean()), 4),
            p_at_12=round(float(np.mean(self._share)), 4),
            map=round(float(np.mean(known)), 4) if known else 0.0,
            separation=None if separation is None else round(separation, 4),
        )
