"""Vectors to measure with: real ones mixed and perturbed, seeded.

A made vector is 0.6 of one real vector, 0.25 and 0.15 of two others, and 0.3 times the difference of two more, cut off
below zero (real ones are square roots of averages) and scaled to unit length. So the made ones keep the spectrum of
real ones, and a query's neighbours come from the same pictures as the query and not from noise. Queries are made by the
same rule from another seed, so none is in the index.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visor.index.format.container import Array
from visor.index.format.projection import unit

DIMENSION = 2048
"""Numbers in a vector of InceptionV3, and of the stand-ins."""
STAND_INS = 800
BLOCK = 8192
WEIGHTS = (0.6, 0.25, 0.15, 0.3, -0.3)


def stand_ins(count: int = STAND_INS, dimension: int = DIMENSION, seed: int = 0) -> Array:
    """Used if there are no pictures: (count, dimension) float32 with a falling spectrum, non-negative, unit length."""
    rng = np.random.default_rng(seed)
    rank = 400
    hidden = rng.standard_normal((count, rank)) * np.arange(1, rank + 1) ** -0.6
    loadings = rng.standard_normal((rank, dimension)) / 3
    return unit(np.sqrt(np.logaddexp(0, hidden @ loadings)).astype(np.float32))


def mixed(base: Array, count: int, seed: int) -> Iterator[Array]:
    """`count` made vectors in blocks of at most `BLOCK`, (b, d) float16."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        rows = min(BLOCK, count - start)
        picked = rng.integers(len(base), size=(len(WEIGHTS), rows))
        made = np.zeros((rows, base.shape[1]), np.float32)
        for weight, chosen in zip(WEIGHTS, picked, strict=True):
            made += np.float32(weight) * base[chosen]
        yield unit(np.maximum(made, 0, out=made)).astype(np.float16)
