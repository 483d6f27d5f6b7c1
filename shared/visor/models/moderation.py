"""Moderation: how unsafe a picture is, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping

from visor.models.description import SAFETY_CLASSES
from visor.models.runtime import Vector
from visor.schema.items import Safety

SUSPECTED = 0.05
"""Unsafe score from which the safety head runs a second time, at a higher resolution: for 5 % of 1,401 harmless
pictures. None of the others has more than .26 then (docs/decisions/models-resolution.md)."""


def unsafe_score(probabilities: Mapping[str, float]) -> float:
    """How unsafe an image is, in [0, 1]: hentai and porn count fully, sexy by half."""
    return probabilities.get("hentai", 0.0) + probabilities.get("porn", 0.0) + 0.5 * probabilities.get("sexy", 0.0)


def unsafe_score_in_words(probabilities: Mapping[str, float], threshold: float) -> str:
    """The score of a picture that is unsafe by `threshold`, and the terms of its sum."""
    hentai, porn, sexy = (probabilities.get(name, 0.0) for name in ("hentai", "porn", "sexy"))
    score = max(threshold, round(unsafe_score(probabilities), 2))
    return f"{score:g} (hentai {hentai:.2f} + porn {porn:.2f} + half of sexy {sexy:.2f})"


def safety_of(head: Vector) -> dict[str, float]:
    """The probability of each of `SAFETY_CLASSES`, from the output of a safety head, (5,)."""
    return dict(zip(SAFETY_CLASSES, (float(p) for p in head), strict=True))


def moderate(probabilities: Mapping[str, float] | None, threshold: float) -> Safety | None:
    """The verdict on an image, unsafe from a score of `threshold` on; None if the model has no safety head.

    One rule for queries and items; each has its own threshold in the settings.
    """
    if probabilities is None:
        return None
    return Safety(probabilities=dict(probabilities), unsafe=unsafe_score(probabilities) >= threshold)
