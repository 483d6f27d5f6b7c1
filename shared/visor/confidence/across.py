"""What an index knows of its visitors' photos: their mean, whether they look unlike the catalogue, and how sure
answers across that gap are.

Fitted at a merge and kept in the manifest, so that an answer follows from the query and the index generation alone.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from visor.confidence.features import sigmoid
from visor.index.format.container import Array
from visor.index.format.looks import TRAITS
from visor.index.format.projection import Space
from visor.index.search.fusion import Fusion
from visor.schema.items import Record

CONFIDENT_ACROSS = 0.4
"""Probability below which an answer across the gap reports that there is no confident match."""
GAP_MIN, VISITORS_MIN = 0.2, 10
"""Gap between visitors' photos and catalogue, and number of photos, from which on the two count as different: the same
look has up to 0.06, photos against packshots or drawings 0.35 to 0.88."""
SIDE = 0.35
"""Share of the way from the catalogue's mean to the visitors' from which a query is on their side: at half way, a tenth
of the photos were taken for catalogue images while only augmented ones, or photos of food alone, were known."""
CUT_OUT_SHARE = 0.5
AUGMENTED_MIN = 5
"""Without visitors, augmented images replace their photos if this many items have a plain background."""
HELD_SLOPE, HELD_INTERCEPT = 2.2, -1.3
"""Log-odds, over the best similarity, that the catalogue holds what was searched for: photos gave 1.2 and -0.7 among
packshots, 2.1 and -1.3 among drawings, where near relatives stayed. A merge moves the intercept."""
HELD_SHRINKAGE = 40.0
"""Augmented queries that the shipped intercept counts as."""
FIRST = (2.86, 2.22, -2.63)
"""Weights of the log-odds that the first match is right: of its lead over the next ones, of its lead over others as a
share of its similarity, and of 1. Fitted to photos among packshots and among drawings at once."""
UNLEARNED = -0.34
"""Added to these log-odds while too few photos are known: the first match is right less often then, by .07 in both."""
BEST_FLOOR = 0.1
"""The share is taken of the similarity, or of this if it is lower."""
_NEXT, _OTHERS = slice(1, 9), slice(9, 50)


@dataclass(frozen=True, slots=True)
class Learned:
    """Mean traits (d + 1162,) of so many photos, how many of them had which score, (25,) in bins of
    `model.SCORE_EDGES`, and the keys of the documents that are in both."""

    mean: Array
    photos: float
    scores: Array
    keys: tuple[str, ...]


class Across(Record, frozen=True, kw_only=True, dict=True):
    """Kept in the manifest's calibration. Means are base64 of little-endian float16 (d + 1162,): `fusion.traits`."""

    catalogue: str
    visitors: str = ""
    """Mean of the visitors' photos."""
    photos: float = 0.0
    """Photos in it."""
    scores: tuple[float, ...] = ()
    """How many of these photos had which score; photos that were answered across the gap have none."""
    augmented: str = ""
    """Mean of augmented catalogue images, which is used while there are too few photos."""
    is_on: bool = False
    """Whether queries on the visitors' side are answered across the gap."""
    intercept: float = HELD_INTERCEPT
    folded: tuple[str, ...] = ()
    """Keys of the documents that are in `visitors` and may still exist; and of a request to forget, with its time."""

    @property
    def learned(self) -> bool:
        return self.photos >= VISITORS_MIN

    @cached_property
    def means(self) -> tuple[Array, Array]:
        """Means of visitors' photos, or of what replaces them, and of the catalogue: (d + 1162,) float32 each."""
        return unpacked(self.visitors if self.learned else self.augmented), unpacked(self.catalogue)

    def is_visitor(self, vector: Array) -> bool:
        """Whether a query (d,) is on the visitors' side of the gap, where copies of catalogue images never do."""
        if not self.is_on:
            return False
        visitors, catalogue = (mean[: len(vector)] for mean in self.means)
        apart = visitors - catalogue
        return bool((vector - catalogue - SIDE * apart) @ apart > 0)

    def fusion(self, query: Array, space: Space, names: Sequence[dict[str, float]]) -> Fusion:
        """How the query with these traits (d + 1162,) is compared with items; `names` as for `Fusion.of`."""
        visitors, catalogue = self.means
        # Augmented images show which side a photo is on, but not well enough what photos have in common.
        return Fusion.of(query, visitors if self.learned else catalogue, catalogue, space, names)

    def held(self, similarities: Array) -> float:
        """Probability that the catalogue holds what was searched for, from falling similarities (n,)."""
        return float(sigmoid(HELD_SLOPE * float(similarities[0]) + self.intercept)) if len(similarities) else 0.0

    def is_it(self, similarities: Array, ranks: Sequence[int]) -> list[float]:
        """For the matches at these ranks, the probability that each is what was searched for if there were none nearer;
        never rising.

        Args:
            similarities: (n,) of `Fusion.similarities`, falling: of all candidates.
        """
        found, least = [], 1.0
        for rank in ranks:
            rest = similarities[rank:].astype(np.float64)
            if len(rest):
                behind = [rest[part].mean() if len(rest) > part.start else rest[-1] for part in (_NEXT, _OTHERS)]
                ahead = rest[0] - behind[0], (rest[0] - behind[1]) / max(rest[0], BEST_FLOOR)
                odds = float(np.dot(FIRST, (*ahead, 1.0))) + (0.0 if self.learned else UNLEARNED)
                least = min(least, float(sigmoid(odds)))
            found.append(least)
        return found


def fit_intercept(best: Array, best_without: Array) -> float:
    """The intercept of `Across.held` from augmented queries: best similarities (a,) with and without their item."""
    if not len(best):
        return HELD_INTERCEPT
    scores = HELD_SLOPE * np.concatenate([best, best_without]).astype(np.float64)
    target, intercept = len(best), HELD_INTERCEPT
    for _ in range(30):
        p = 1 / (1 + np.exp(-(scores + intercept)))
        intercept -= float(np.clip((p.sum() - target) / max(float((p * (1 - p)).sum()), 1e-6), -1, 1))
    weight = len(best) / (len(best) + HELD_SHRINKAGE)
    return round(weight * intercept + (1 - weight) * HELD_INTERCEPT, 4)


def gap(visitors: Array, photos: float, catalogue: Array, items: float) -> float:
    """How far apart two looks are, from their mean unit vectors (d,): in variances, 0 for the same look."""
    spread = [max(1 - float(mean @ mean), 1e-6) for mean in (visitors, catalogue)]
    apart = float((visitors - catalogue) @ (visitors - catalogue))
    return (apart - spread[0] / max(photos, 1) - spread[1] / max(items, 1)) / (sum(spread) / 2)


def decide(across: Across, items: int, cut_out_share: float, augmented: int) -> bool:
    """Whether to answer queries across the gap: photos look unlike the catalogue, or it consists of cut-outs."""
    if across.learned:
        visitors, catalogue = (mean[:-TRAITS] for mean in across.means)
        return gap(visitors, across.photos, catalogue, items) >= GAP_MIN
    return cut_out_share >= CUT_OUT_SHARE and augmented >= AUGMENTED_MIN


def packed(mean: Array) -> str:
    return base64.b64encode(mean.astype("<f2").tobytes()).decode()


def unpacked(text: str) -> Array:
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)
