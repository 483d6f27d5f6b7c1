"""SciPy's distance metrics by name, on the full vectors.

They are computed with NumPy. SciPy would be 44 MB more in the search function's image, of the 0.5 GiB that are free for
all images (docs/decisions/index-metrics.md); tests hold each against SciPy's own.
"""

from __future__ import annotations

from collections.abc import Callable

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
"""Metrics of yes-or-no vectors: here, whether a number lies above the index's median of that coordinate."""
METRICS = tuple(sorted((*PLAIN, *SCALED, *BOOLEAN)))
CACHED_ROWS = 32
STATISTICS_SAMPLES = 4096
"""Vectors from which variances, covariance and medians are taken."""


def check_metric(name: str) -> None:
    """Raise `BadRequest` for a name that is not one of `METRICS`."""
    if name not in METRICS:
        raise BadRequest(
            f"There is no metric {name!r}",
            valid="Metrics are " + ", ".join(METRICS),
            remedy="Name one of these, or none for the similarity that Visor is tuned for",
        )


class Metric:
    """One metric, prepared for one index.

    `seuclidean` and `mahalanobis` take variances and covariance (shrunk by a tenth of the mean variance, so that it can
    be inverted) from `sample`; the boolean metrics compare which coordinates lie above the sample's median.

    Args:
        name: One of `METRICS`.
        sample: (s, d) full vectors of the index; used by `SCALED` and `BOOLEAN` only.
    """

    def __init__(self, name: str, sample: Array) -> None:
        check_metric(name)
        self.name = name
        self._median: Array | None = None
        self._scale: Array | None = None
        self._factor: Array | None = None
        if name in BOOLEAN:
            self._median = np.median(sample.astype(np.float32), axis=0)
        elif name in SCALED:
            full = sample.astype(np.float64)
            variances = full.var(0)
            floor = max(float(variances.mean()) * 0.1, 1e-12)
            if name == "seuclidean":
                self._scale = np.sqrt(variances + floor)
            else:
                covariance = np.cov(full, rowvar=False) if len(full) > 1 else np.zeros((full.shape[1],) * 2)
                inverse = np.linalg.inv(covariance + floor * np.eye(full.shape[1]))
                self._factor = np.linalg.cholesky(inverse)

    def similarities(self, query: Array, vectors: Array) -> Array:
        """Of a query (d,) to full vectors (n, d): (n,) float32, greater is nearer.

        1 − distance for `BOUNDED` and `BOOLEAN` metrics, 1 / (1 + distance) for the others. A distance that is not
        defined for a pair (a vector without variance, say) counts as infinitely far.
        """
        distances = self.distances(query, vectors)
        with np.errstate(invalid="ignore"):
            bounded = self.name in BOUNDED or self.name in BOOLEAN
            similarities = 1 - distances if bounded else 1 / (1 + distances)
        return np.where(np.isfinite(similarities), similarities, -1).astype(np.float32)

    def distances(self, query: Array, vectors: Array) -> Array:
        """Of a query (d,) to full vectors (n, d): (n,) float64; NaN or infinite where SciPy's is."""
        # A few rows at a time: what is computed in between stays in the processor's cache.
        parts = [self._of_some(query, vectors[i : i + CACHED_ROWS]) for i in range(0, len(vectors), CACHED_ROWS)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _of_some(self, query: Array, vectors: Array) -> Array:
        one: Array = query.astype(np.float64)
        many: Array = vectors.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._median is not None:
                return _DISAGREEMENT[self.name](*_contingency(one > self._median, many > self._median))
            if self._factor is not None:
                # Mahalanobis by matrix products: a hundred times as fast at 3,328 numbers as by pairs.
                one, many = one @ self._factor, many @ self._factor
            if self._scale is not None:
                one, many = one / self._scale, many / self._scale
            distances: Array = _DISTANCE.get(self.name, _euclidean)(one, many)
            return distances

    @staticmethod
    def needs_sample(name: str) -> bool:
        return name in SCALED or name in BOOLEAN


def _euclidean(one: Array, many: Array) -> Array:
    """Also minkowski, whose order is 2 by default."""
    roots: Array = np.sqrt(_squared(one, many))
    return roots


def _squared(one: Array, many: Array) -> Array:
    difference = many - one
    # Of differences, as the expanded square cancels for near vectors.
    squares: Array = np.einsum("ij,ij->i", difference, difference)
    return squares


def _cosine(one: Array, many: Array) -> Array:
    cosines = many @ one / (np.linalg.norm(many, axis=1) * np.linalg.norm(one))
    distances: Array = 1 - np.clip(cosines, -1, 1)
    return distances


def _canberra(one: Array, many: Array) -> Array:
    sizes = np.abs(many) + np.abs(one)
    # Where both numbers are zero they do not differ.
    sums: Array = np.divide(np.abs(many - one), sizes, out=np.zeros_like(sizes), where=sizes != 0).sum(1)
    return sums


def _jensen_shannon(one: Array, many: Array) -> Array:
    """Square root of the divergence, natural logarithm, of vectors made to sum to one; infinite below zero."""
    p, q = one / one.sum(), many / many.sum(1, keepdims=True)
    middle = (p + q) / 2
    parts = np.zeros_like(middle)
    for side in (np.broadcast_to(p, q.shape), q):
        parts += np.where(side > 0, side * np.log(np.where(side > 0, side / middle, 1.0)), 0.0)
    distances = np.sqrt(np.maximum(parts.sum(1), 0) / 2)
    undefined = (one < 0).any() | (many < 0).any(1) | (one.sum() == 0) | (many.sum(1) == 0)
    return np.where(undefined, np.inf, distances)


_DISTANCE: dict[str, Callable[[Array, Array], Array]] = {
    "braycurtis": lambda one, many: np.abs(many - one).sum(1) / np.abs(many + one).sum(1),
    "canberra": _canberra,
    "chebyshev": lambda one, many: np.abs(many - one).max(1),
    "cityblock": lambda one, many: np.abs(many - one).sum(1),
    "correlation": lambda one, many: _cosine(one - one.mean(), many - many.mean(1, keepdims=True)),
    "cosine": _cosine,
    "hamming": lambda one, many: (many != one).mean(1),
    "jensenshannon": _jensen_shannon,
    "sqeuclidean": _squared,
}
"""The definitions of `scipy.spatial.distance`: of (d,) to (n, d), (n,) float64. Those not named are Euclidean."""


def _contingency(one: Array, many: Array) -> tuple[Array, Array, Array, Array]:
    """How many coordinates are true in both, in the first only, in the second only, in neither: four (n,) float64."""
    both = many.astype(np.float32) @ one.astype(np.float32)
    # Whole numbers below 2**24 are exact in float32.
    both = both.astype(np.float64)
    first, second = one.sum() - both, many.sum(1) - both
    return both, first, second, len(one) - both - first - second


def _share(part: Array, whole: Array) -> Array:
    """part / whole; 0 where both are."""
    shares: Array = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return shares


_DISAGREEMENT: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "dice": lambda tt, tf, ft, ff: (tf + ft) / (2 * tt + tf + ft),
    "jaccard": lambda tt, tf, ft, ff: _share(tf + ft, tt + tf + ft),
    "rogerstanimoto": lambda tt, tf, ft, ff: 2 * (tf + ft) / (tt + ff + 2 * (tf + ft)),
    "russellrao": lambda tt, tf, ft, ff: (tf + ft + ff) / (tt + tf + ft + ff),
    "sokalsneath": lambda tt, tf, ft, ff: 2 * (tf + ft) / (tt + 2 * (tf + ft)),
    "yule": lambda tt, tf, ft, ff: _share(2 * tf * ft, tt * ff + tf * ft),
}
"""The definitions of `scipy.spatial.distance` for yes-or-no vectors, of what `_contingency` counts."""
