"""How sure an answer is. The seam for calibration: a judge completes hits with confidence and verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from visor.index.copies import SAME_BITS
from visor.index.hits import Hit, Hits, Verdict
from visor.index.manifest import Manifest

Judge = Callable[[Hits, Manifest | None], Hits]
"""Takes an answer and the manifest (None before the first merge), gives the answer with its judgement."""

CONFIDENT = 0.5
EDITED_BITS = 90
"""Bits of PDQ in which an edited copy differs at most; pictures without relation differ in about 128."""


def plain(hits: Hits, manifest: Manifest | None) -> Hits:
    """Without calibration: the similarity itself, kept within [0, 1], stands for the confidence."""
    judged = tuple(replace(hit, confidence=_bounded(hit.similarity), verdict=_verdict(hit)) for hit in hits.hits)
    best = judged[0].confidence if judged else 0.0
    return replace(hits, hits=judged, confidence=best, confident=best >= CONFIDENT)


def _verdict(hit: Hit) -> Verdict:
    if hit.hash_distance is None or hit.hash_distance > EDITED_BITS:
        return "similar"
    return "exact" if hit.hash_distance <= SAME_BITS else "edited"


def _bounded(similarity: float) -> float:
    return float(np.clip(similarity, 0, 1))
