"""When is a picture unsafe? One rule for queries and items, with a threshold of its own for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from visor.schema.items import Safety
from visor.settings import Settings


def unsafe_score(probabilities: Mapping[str, float]) -> float:
    """How unsafe a picture is, in [0, 1]: hentai and porn count in full, sexy by half."""
    return probabilities.get("hentai", 0.0) + probabilities.get("porn", 0.0) + 0.5 * probabilities.get("sexy", 0.0)


@dataclass(frozen=True)
class Thresholds:
    """Scores from which a query is not answered and an item is not indexed."""

    query: float
    item: float

    @classmethod
    def of(cls, settings: Settings) -> Thresholds:
        return cls(query=settings.unsafe_query, item=settings.unsafe_item)

    def judge_item(self, probabilities: Mapping[str, float] | None) -> Safety | None:
        return _judge(probabilities, self.item)

    def judge_query(self, probabilities: Mapping[str, float] | None) -> Safety | None:
        return _judge(probabilities, self.query)


def _judge(probabilities: Mapping[str, float] | None, threshold: float) -> Safety | None:
    """None where the model has no safety head."""
    if probabilities is None:
        return None
    return Safety(probabilities=dict(probabilities), unsafe=unsafe_score(probabilities) >= threshold)
