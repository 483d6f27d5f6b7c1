"""Calibration: from what is around a query to the probability that the catalogue holds what was asked for.

Learned at a merge and without labels (`visor.confidence.fit`): how the catalogue's own images differ from strangers of
the same shop. Two numbers are assumptions: half of the queries ask for something that the catalogue holds, and a
quarter of the others comes from elsewhere, where any match is weaker. Nothing is learned between merges.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from visor.confidence.across import Across, sigmoid
from visor.confidence.features import FEATURES, Neighbourhood, features, first_log_odds
from visor.index.format.container import Array
from visor.schema.items import Record

CONFIDENT = 0.5
"""Probability below which an answer says that there is no confident match."""
OUT_OF_DOMAIN_SHARE = 0.25
"""Share of strangers taken to be from elsewhere."""
FIRST_SLOPE, FIRST_INTERCEPT = 1.1, 1.0
"""Log-odds that a first match is right, over its log-odds among all in units of the catalogue's own spread: the least
over-sure on clothing and on groceries."""
JUDGED = 24
"""Results of an answer that are judged one by one: two pages."""
SHORT_FROM = 2.0
SHORT_WEIGHT = 2.0
"""A best similarity more than 2 of the catalogue's standard deviations below its median counts extra, as nothing else
tells pictures from elsewhere as well."""
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

    first_centre: float = 0.0
    """Median of `features.first_log_odds` over the catalogue's own images, each left out …"""
    first_spread: float = 0.0
    """… and their standard deviation; 0 where that was not measured."""
    across: Across | None = None
    """What is known of visitors' photos; None before a merge that knows of looks."""

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

    def confidence(self, score: float) -> float:
        """Confidence in [0, 1] that the catalogue holds what was asked for."""
        share = OUT_OF_DOMAIN_SHARE
        strangers = 1.0 - share + share * float(self.out_of_domain_ratio(np.array(score)))
        return 1.0 / (1.0 + math.exp(min(60.0, max(-60.0, math.log(strangers) - score))))

    def first(self, around: Neighbourhood) -> float | None:
        """Confidence in [0, 1] that the nearest row is right; None where that was not fitted."""
        if not self.first_spread or len(around.query) != len(self.mean_vector) or not len(around.rows):
            return None
        odds = first_log_odds(around, self.mean_vector, self.images)
        return sigmoid(FIRST_INTERCEPT + FIRST_SLOPE * (odds - self.first_centre) / self.first_spread)

    def confidences(self, around: Neighbourhood, ranks: Sequence[int]) -> list[float]:
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
                least = min(least, self.confidence(self.score(rest)))
            found.append(least)
        return found
