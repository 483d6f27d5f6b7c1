"""Calibration: from what is around a query to the probability that the catalogue holds what was asked for.

Two things are learned, at different times and both without labels:
- at a merge (`visor.confidence.fit`): how the catalogue's own pictures differ from strangers of the same shop;
- while searching (`OutOfDomainPrior`): how many of the strangers come from elsewhere, where any match is weaker.
The base rate is an assumption, not a measurement: half of the queries ask for something that the catalogue holds.
"""

from __future__ import annotations

import base64
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from visor.confidence.features import FEATURES, Neighbourhood, features
from visor.index.format.container import Array
from visor.schema.items import Record

CONFIDENT = 0.5
"""Probability below which an answer says that there is no confident match."""
OUT_OF_DOMAIN_SHARE = 0.25
"""Share of strangers taken to be from elsewhere before any query was seen …"""
PRIOR_QUERIES = 6.0
"""… with the weight of this many strangers."""
OUT_OF_DOMAIN_MAX = 0.99
JUDGED = 24
"""Results of an answer that are judged one by one: two pages."""
QUERIES_REMEMBERED = 500
"""Scores of past queries that the share is estimated from: numbers, nothing about what was searched."""
SHORT_FROM = 2.0
SHORT_WEIGHT = 2.0
"""A best similarity more than 2 of the catalogue's standard deviations below its median counts extra, as nothing else
tells pictures from elsewhere as well."""
_STEPS = 4
_BEST = FEATURES.index("best_similarity")


class Calibration(Record, frozen=True, kw_only=True, dict=True):
    """Kept in the manifest. The default is for an index that was never merged or is too small to learn from.

    Without `weights` the score is a line over the best similarity. Its numbers are cautious: over cosines of joined
    vectors, two photos of different things have 0.4 to 0.6, and it takes 0.72 to be called a match.
    """

    weights: tuple[float, ...] = ()
    """One for each of `features.FEATURES`, for standardised values; the score is log-odds."""
    intercept: float = 0.0
    centre: tuple[float, ...] = ()
    """Median of each feature over the catalogue's own pictures, each left out in turn."""
    spread: tuple[float, ...] = ()
    """Standard deviation of the same."""
    mean: str = ""
    """Base64 of little-endian float16 (m,): mean of the catalogue's unit vectors in the space that was measured in."""
    space: str | None = None
    """Name of the projection that was measured in; None: full vectors."""
    out_of_domain_at: float = msgspec.field(default=-2.0, name="far_at")
    """Score at which a stranger is as likely from elsewhere as from the same shop."""
    out_of_domain_width: float = msgspec.field(default=0.7, name="far_width")
    """Scores over which that likelihood ratio changes by a factor of e."""
    middle: float = 0.72
    steepness: float = 14.0
    fitted_on: int = 0
    """Pictures that it was learned on; 0 for the default."""
    images: int = 0
    """Pictures in the index when it was fitted."""
    rejected: int = 0
    """Answers among them that somebody had called no match."""
    cluster_weight: float = msgspec.field(default=0.0, name="trust")
    """How far the clusters found among the images were followed, 0 to 1; the rest are the default weights."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Calibration:
        """The calibration of a manifest; the default where there is none or another version wrote it."""
        try:
            calibration = msgspec.convert(stored, cls)
        except msgspec.ValidationError:
            return cls()
        sizes = {len(calibration.weights), len(calibration.centre), len(calibration.spread)}
        return calibration if sizes in ({0}, {len(FEATURES)}) else cls()

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
            return self.score_of_similarity(float((around.rows @ around.query).max()))
        standard = (features(around, self.mean_vector) - self.centre) / self.spread
        shortfall = max(0.0, -SHORT_FROM - float(standard[_BEST]))
        return float(standard @ np.array(self.weights)) + self.intercept - SHORT_WEIGHT * shortfall

    def score_of_similarity(self, best: float) -> float:
        """The default's log-odds, from the best similarity alone."""
        return self.steepness * (best - self.middle)

    def out_of_domain_ratio(self, scores: Array) -> Array:
        """How much likelier each score is among strangers from elsewhere than among those of the same shop."""
        return np.exp(np.clip(-(np.asarray(scores) - self.out_of_domain_at) / self.out_of_domain_width, -30.0, 30.0))

    def confidence(self, score: float, out_of_domain_share: float = 0.0) -> float:
        """Confidence in [0, 1] that the catalogue holds what was asked for.

        Args:
            out_of_domain_share: Share of strangers from elsewhere, as `OutOfDomainPrior` estimates it.
        """
        strangers = 1.0 - out_of_domain_share + out_of_domain_share * float(self.out_of_domain_ratio(np.array(score)))
        return 1.0 / (1.0 + math.exp(min(60.0, max(-60.0, math.log(strangers) - score))))

    def confidences(self, around: Neighbourhood, ranks: Sequence[int], out_of_domain_share: float = 0.0) -> list[float]:
        """Confidence in [0, 1] of each result: that of the answer if there were none nearer.

        It never rises from one result to the next. How right it is: docs/benchmarks-confidence.md.

        Args:
            around: As for `score`.
            ranks: Of each result in `around`, rising; results behind its end have the confidence of the last.
        """
        found, least = [], 1.0
        for number, rank in enumerate(ranks):
            if number < JUDGED and rank < len(around.rows):
                rest = replace(around, rows=around.rows[rank:], labels=around.labels[rank:])
                least = min(least, self.confidence(self.score(rest), out_of_domain_share))
            found.append(least)
        return found


class OutOfDomainPrior:
    """Estimates, from the scores of the queries that came, which share of strangers comes from elsewhere. Thread-safe.

    Three kinds of query are mixed: those the catalogue holds (half, by assumption), strangers of the same shop, and
    strangers from elsewhere. Expectation–maximisation over past scores finds the share (Saerens et al., 'Adjusting the
    outputs of a classifier to new a priori probabilities', Neural Computation 2002), from `OUT_OF_DOMAIN_SHARE` on.
    """

    def __init__(self) -> None:
        self._scores: deque[float] = deque(maxlen=QUERIES_REMEMBERED)
        self._share = OUT_OF_DOMAIN_SHARE
        self._lock = threading.Lock()

    @property
    def out_of_domain_share(self) -> float:
        return self._share

    def add(self, score: float, calibration: Calibration) -> None:
        """Learn from one more query; one that is asked again teaches nothing new."""
        with self._lock:
            if score in self._scores:
                return
            self._scores.append(score)
            scores = np.clip(np.array(self._scores), -30.0, 30.0)
            held, ratio, share = np.exp(scores), calibration.out_of_domain_ratio(scores), self._share
            for _ in range(_STEPS):
                whole = held + (1 - share) + share * ratio
                far, near = share * ratio / whole, (1 - share) / whole
                strangers = PRIOR_QUERIES + far.sum() + near.sum()
                share = min(OUT_OF_DOMAIN_MAX, float((OUT_OF_DOMAIN_SHARE * PRIOR_QUERIES + far.sum()) / strangers))
            self._share = share
