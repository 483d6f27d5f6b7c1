"""When is an image unsafe? One rule for queries and items, each with a threshold of its own in the settings."""

from __future__ import annotations

from collections.abc import Mapping

from visor.schema.items import Safety


def unsafe_score(probabilities: Mapping[str, float]) -> float:
    """How unsafe an image is, in [0, 1]: hentai and porn count in full, sexy by half."""
    return probabilities.get("hentai", 0.0) + probabilities.get("porn", 0.0) + 0.5 * probabilities.get("sexy", 0.0)


def moderate(probabilities: Mapping[str, float] | None, threshold: float) -> Safety | None:
    """The verdict on an image, unsafe from a score of `threshold` on; None where the model has no safety head."""
    if probabilities is None:
        return None
    return Safety(probabilities=dict(probabilities), unsafe=unsafe_score(probabilities) >= threshold)
