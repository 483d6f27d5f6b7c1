"""At the end of a merge, fits what is known of visitors' photos to what is indexed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from visor.confidence.across import AUGMENTED_MIN, HELD_INTERCEPT, Across, Learned, decide, fit_intercept, packed
from visor.index.format.container import Array
from visor.index.format.facets import FacetColumns
from visor.index.format.ids import IdIndex, sort_order
from visor.index.format.looks import Augmented, label_roots
from visor.index.format.projection import Projection, Space
from visor.index.format.segment import Segment
from visor.index.search.fusion import Fusion, traits

ITEMS_MIN, ITEMS_MAX = 20, 2_000
"""Items below which nothing is fitted, and items that the catalogue's mean and the confidence are measured on."""

AUGMENTED_MAX = 64
"""Augmented queries that the confidence is measured with."""


def fit_across(
    segments: Sequence[Segment],
    space: Space,
    before: Across | None,
    learned: Learned | None,
    label_words: Sequence[dict[str, float]],
    distinct: Sequence[Array],
) -> Across | None:
    """What is known of visitors now; None for a catalogue that is too small.

    Args:
        before: What was known.
        learned: The visitors' mean, if it changed.
        label_words: For each label the weights of its words; empty: the confidence stays as shipped.
        distinct: For each segment which rows, (n,) bool, show a picture that no earlier row shows: others do not count.
    """
    images = sum(int(keep.sum()) for keep in distinct)
    if images < ITEMS_MIN:
        return None
    share = min(1.0, ITEMS_MAX / images)
    kept = [np.flatnonzero(keep) for keep in distinct]
    sampled = [(segment, rows[: math.ceil(len(rows) * share)]) for segment, rows in zip(segments, kept, strict=True)]
    vectors = np.concatenate([segment.read_full(0, rows.max(initial=-1) + 1)[rows] for segment, rows in sampled])
    looks = np.concatenate([segment.looks[rows] for segment, rows in sampled])
    catalogue = traits(vectors, looks).mean(0)
    augmented = Augmented.join([segment.augmented for segment in segments], space.dimension)
    augmented = augmented.without([segment.ids[~keep] for segment, keep in zip(segments, distinct, strict=True)])
    enough = len(augmented.ids) >= AUGMENTED_MIN
    seen = traits(augmented.vectors, augmented.looks)
    across = msgspec.structs.replace(
        before or Across(catalogue=""),
        catalogue=packed(catalogue),
        augmented=packed(seen.mean(0)) if enough else "",
        intercept=HELD_INTERCEPT,
    )
    if learned is not None:
        across = msgspec.structs.replace(
            across,
            visitors=packed(learned.mean) if learned.photos else "",
            photos=learned.photos,
            scores=tuple(learned.scores.round(2).tolist()),
            folded=learned.keys,
        )
    is_on = decide(across, images, len(augmented.ids) / max(augmented.tried, 1), len(augmented.ids))
    across = msgspec.structs.replace(across, is_on=is_on)
    if not (is_on and enough and label_words):
        return across
    ids = np.concatenate([segment.ids[rows] for segment, rows in sampled])
    order = sort_order(ids)
    columns = FacetColumns.concat([segment.columns.take(rows) for segment, rows in sampled]).take(order)
    projected, looks = space.project(vectors[order]), looks[order]
    own = IdIndex.of(ids[order]).find(augmented.ids)
    names = np.array([columns.words.row(row).tobytes().hex() for row in range(len(ids))])
    named = columns.named(np.arange(len(ids)), label_roots(looks), label_words)
    best, without = [], []
    for query, row in list(zip(seen, own, strict=True))[:AUGMENTED_MAX]:
        others = names != names[row]
        if row >= 0 and others.any():
            fusion = Fusion.of(query, seen.mean(0), catalogue, space, label_words)
            words = columns.word_sums(fusion.words)
            found = fusion.similarities(projected, looks, words, named, coded=isinstance(space, Projection))
            best.append(found.max())
            without.append(found[others].max())
    return msgspec.structs.replace(across, intercept=fit_intercept(np.array(best), np.array(without)))
