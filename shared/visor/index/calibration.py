"""Calibration: from similarities to probabilities."""

from __future__ import annotations

import math

from visor.records import Record


class Calibration(Record, frozen=True, kw_only=True):
    """A logistic curve over the best similarity; the default is for an index that was never merged."""

    middle: float = 0.55
    steepness: float = 14.0
    threshold: float = 0.5

    def probability(self, similarity: float) -> float:
        """Probability in [0, 1] that a match of this similarity is what was asked for."""
        exponent = max(-60.0, min(60.0, self.steepness * (similarity - self.middle)))
        return 1.0 / (1.0 + math.exp(-exponent))
