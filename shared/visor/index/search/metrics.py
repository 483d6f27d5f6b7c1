"""SciPy's distance metrics by name, on the full vectors. SciPy is imported on first use; it may be missing.

docs/decisions/index-metrics.md says where it is installed, and why not everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from visor.errors import BadRequest
from visor.index.format.container import Array

PLAIN = (
    "braycurtis",
    "canberra",
    "chebyshev",
    "cityblock",
    "correlation",
    "cosine",
    "euclidean",
    "hamming",
    "jensenshannon",
    "minkowski",
    "sqeuclidean",
)
"""Metrics that need nothing but two vectors."""
BOUNDED = ("braycurtis", "correlation", "cosine", "hamming", "jensenshannon")
"""Those with similarity 1 − distance; of the others it is 1 / (1 + distance)."""
SCALED = ("seuclidean", "mahalanobis")
"""Metrics that need the index's variances or covariance."""
BOOLEAN = ("dice", "jaccard", "rogerstanimoto", "russellrao", "sokalsneath", "yule")
"""Metrics of yes-or-no vectors: here, whether a number is above the index's median of that coordinate."""
METRICS = tuple(sorted((*PLAIN, *SCALED, *BOOLEAN)))
STATISTICS_SAMPLES = 4096
"""Vectors from which variances, covariance and medians are taken."""
STATISTICS_ROWS = 512
"""Of them, so many are processed at once in float64."""


def check_metric(name: str) -> None:
    """Raise `BadRequest` for a name that is not one of `METRICS`, and for all of them where SciPy is missing."""
    if name not in METRICS:
        raise BadRequest(
            f"There is no metric {name!r}",
            valid=", ".join(METRICS),
            remedy="Name one of these, or none for the similarity that Visor is tuned for",
        )
    load_cdist(name)


def load_cdist(name: str) -> Callable[..., Any]:
    """`scipy.spatial.distance.cdist`. Raises `BadRequest` where SciPy is not installed."""
    try:
        from scipy.spatial.distance import cdist
    except ModuleNotFoundError as exc:
        raise BadRequest(
            f"The metric {name} is computed by SciPy, which this server does not have",
            valid="Mode fast or exact, without a metric",
            remedy="Leave the metric out; the owner can add SciPy with the Terraform variable metrics = true",
        ) from exc
    function: Callable[..., Any] = cdist
    return function


def _whitening(parts: Sequence[Array], mean: Array, count: int, floor: float) -> Callable[[Array], Array]:
    """A function that makes the covariance of rows (n, d) the identity. Holds one matrix (d, d), changed in place."""
    from scipy.linalg import cholesky, solve_triangular
    from scipy.linalg.blas import dsyrk

    matrix = np.zeros((len(mean), len(mean)), order="F")
    for part in parts:
        matrix = dsyrk(1 / max(count - 1, 1), (part - mean).T, beta=1, c=matrix, lower=1, overwrite_c=1)
    matrix[np.diag_indices(len(mean))] += floor
    factor = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False).astype(np.float32)

    def whitened(vectors: Array) -> Array:
        columns = vectors.astype(np.float32).T
        rows: Array = solve_triangular(factor, columns, lower=True, overwrite_b=True, check_finite=False).T
        return rows

    return whitened


class Metric:
    """One metric, prepared for one index.

    `seuclidean` and `mahalanobis` take variances and covariance (shrunk by a tenth of the mean variance, so that it can
    be inverted) from `sample`; the boolean metrics compare which coordinates are above the sample's median.

    Args:
        name: One of `METRICS`.
        sample: (s, d) full vectors of the index; used by `SCALED` and `BOOLEAN` only.

    Raises:
        BadRequest: There is no such metric, or no SciPy.
    """

    def __init__(self, name: str, sample: Array) -> None:
        check_metric(name)
        self.name, self._function, self._options = name, name, dict[str, Array]()
        self._cdist = load_cdist(name)
        self._prepare: Callable[[Array], Array] = lambda vectors: vectors.astype(np.float64)
        if name in BOOLEAN:
            median = np.median(sample.astype(np.float32), axis=0)
            self._prepare = lambda vectors: vectors > median
        elif name in SCALED:
            mean = sample.mean(0, dtype=np.float64)
            parts = [sample[start : start + STATISTICS_ROWS] for start in range(0, len(sample), STATISTICS_ROWS)]
            variances = np.sum([np.square(part - mean).sum(0) for part in parts], axis=0) / max(len(sample), 1)
            floor = max(float(variances.mean()) * 0.1, 1e-12)
            if name == "seuclidean":
                self._options = {"V": variances + floor}
            else:
                # With one triangular system: at 3,328 numbers a hundred times as fast as pair by pair.
                self._function, self._prepare = "euclidean", _whitening(parts, mean, len(sample), floor)

    def similarities(self, query: Array, vectors: Array) -> Array:
        """Of a query (d,) to full vectors (n, d): (n,) float32, greater is nearer.

        1 − distance for `BOUNDED` and `BOOLEAN` metrics, 1 / (1 + distance) for the others. A distance that is not
        defined for a pair (a vector without variance, say) counts as infinitely far.
        """
        distances = self.distances(query[None], vectors)[0]
        with np.errstate(invalid="ignore"):
            bounded = self.name in BOUNDED or self.name in BOOLEAN
            similarities = 1 - distances if bounded else 1 / (1 + distances)
        return np.where(np.isfinite(similarities), similarities, -1).astype(np.float32)

    def distances(self, queries: Array, vectors: Array) -> Array:
        """Of queries (q, d) to full vectors (n, d): (q, n) float64; NaN or infinite where it is not defined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            some, many = self._prepare(queries), self._prepare(vectors)
            distances: Array = self._cdist(some, many, self._function, **self._options)
        return distances

    @staticmethod
    def needs_sample(name: str) -> bool:
        return name in SCALED or name in BOOLEAN
