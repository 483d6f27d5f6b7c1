"""Similarity across the gap between visitors' photos and catalogue images: vectors, labels, words and colours in one.

Each side loses what its images have in common, so that only the differences are compared: the visitors' mean is
subtracted from the query, the catalogue's from the item. A label counts by how much likelier it is than in most photos:
'grocery store' says nothing about a photo of groceries. The weights are on plateaus measured in
docs/decisions/answers-across-the-gap.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visor.index.format.container import Array
from visor.index.format.looks import LABELS, LABELS_KEPT, TRAITS, label_roots
from visor.index.format.projection import Space, dot, unit

LABELS_WEIGHT, WORDS_WEIGHT, COLOURS_WEIGHT = 0.3, 0.9, 0.25
NAMED_WEIGHT = 0.15
"""What an item loses whose own picture shows the labels that its words name: a photo of it would show them too. An item
whose words name no label gains nothing by them either."""
USUAL_FLOOR = 0.01
"""Added to a label's usual probability in photos before a query's probability is divided by it."""
WORDS_MIN = 0.1
"""Share of words from which on an item is a candidate whatever its vector."""


def traits(vectors: Array, looks: Array) -> Array:
    """(n, d + 1162) float32: unit vectors, then unit roots of the labels, then unit roots of the colours."""
    colours = looks[:, 3 * LABELS_KEPT :].astype(np.float32)
    return np.concatenate([unit(vectors.astype(np.float32)), unit(label_roots(looks)), unit(colours)], axis=1)


@dataclass(frozen=True, slots=True)
class Fusion:
    """A query on the visitors' side of the gap.

    query: (d + 1162,) `traits` less the visitors' mean, the labels over what is usual, each of the three parts of
    length 1. catalogue: (d + 1162,) mean traits of the catalogue. projected: (m,) what the codes are scanned with.
    words: weight of each word. names: of each label, as for `of`.
    """

    query: Array
    catalogue: Array
    projected: Array
    words: Mapping[str, float]
    names: Sequence[dict[str, float]]

    @classmethod
    def of(
        cls, query: Array, visitors: Array, catalogue: Array, space: Space, names: Sequence[dict[str, float]]
    ) -> Fusion:
        """From the traits (d + 1162,) of a query and the means of both sides.

        Args:
            names: For each label, what `visor.schema.words.name_weights` makes of its names; empty without labels.
        """
        d = len(query) - TRAITS
        labels = slice(d, d + LABELS)
        projected = space.project((query - visitors + catalogue)[None, :d])[0]
        usual = visitors[labels] ** 2
        apart = query - visitors
        apart[labels] /= np.sqrt(usual + USUAL_FLOOR)
        own, typical = (_share(one / (usual + USUAL_FLOOR)) for one in (query[labels] ** 2, usual))
        words = _words(own - typical, names) if own.any() else {}
        return cls(unit_parts(apart[None])[0], catalogue, projected, words, names)

    def similarities(self, vectors: Array, looks: Array, words: Array, named: Array, *, coded: bool) -> Array:
        """Similarities (n,) float32, greater is nearer; beyond 1 where everything agrees.

        Args:
            vectors: (n, m) unit vectors of the similarity space if `coded`, else (n, d) full ones.
            looks: (n, 258) uint8; zeros where unknown.
            words: (n,) of `FacetColumns.word_sums`.
            named: (n,) of `FacetColumns.named`.
        """
        d = len(self.query) - TRAITS
        near = dot(vectors, self.projected) if coded else dot(unit(vectors - self.catalogue[:d]), self.query[:d])
        beside = traits(np.zeros((len(looks), 0), np.float32), looks)
        known = [beside[:, part].any(1) for part in (slice(0, LABELS), slice(LABELS, TRAITS))]
        beside = unit_parts(beside - self.catalogue[d:])
        labels = dot(beside[:, :LABELS], self.query[d : d + LABELS]) * known[0]
        colours = dot(beside[:, LABELS:], self.query[d + LABELS :]) * known[1]
        beside = LABELS_WEIGHT * labels + COLOURS_WEIGHT * colours
        found: Array = near + beside + (WORDS_WEIGHT * words - NAMED_WEIGHT * named)
        return found.astype(np.float32)


def unit_parts(rows: Array) -> Array:
    """Traits (n, d + 1162) with each of their three parts (vector, labels, colours) at length 1."""
    d = rows.shape[1] - TRAITS
    return np.concatenate([unit(rows[:, :d]), unit(rows[:, d : d + LABELS]), unit(rows[:, d + LABELS :])], axis=1)


def _share(numbers: Array) -> Array:
    """Numbers (n,) ≥ 0 that add up to 1, or to 0."""
    total = numbers.sum()
    found: Array = numbers / total if total else numbers
    return found


def _words(labels: Array, names: Sequence[dict[str, float]]) -> dict[str, float]:
    """Weight of each word: Σ weight of the label (1000,) · share of the word in its names."""
    weights: dict[str, float] = {}
    for label in np.flatnonzero(labels).tolist() if names else ():
        for word, share in names[label].items():
            weights[word] = weights.get(word, 0.0) + float(labels[label]) * share
    return weights
