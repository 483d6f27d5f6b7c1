"""Learning a projection on the indexed vectors: centring in part, PCA, whitening to a power."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.linalg import eigh

from visor.index.format.container import Array, pack
from visor.index.format.projection import CODE_RANGE, FOLDER, Projection, unit

DIMENSIONS = 256
"""Default size of the projected space, in numbers per vector; fewer if there were fewer samples to learn from."""
DIMENSIONS_MIN = 64
"""Samples that differ along fewer axes get further ones, at random: else a stranger, of which the space would keep only
what such samples differ in, is as near as a copy."""
SPREAD_MIN = 1e-6
"""Total variance below which all samples are the same picture."""
SAMPLES_MIN = 128
"""Images from which on a projection is learned; with fewer, the full vectors are compared."""
SAMPLES_MAX = 20_000
"""A projection is learned on at most this many vectors."""
POWER_SLOPE = 0.8
POWER_FROM = 0.5
POWER_MAX = 0.4
"""Whitening divides an axis of variance v by (v + shrunk mean)^p, with the power p = slope · (c − from). The commonness
c, the squared length of the mean of unit vectors, is the mean cosine of two pictures. Vectors that all look alike
(Inception alone, c 0.9) gain from whitening, vectors that are spread out (joined, c 0.6) lose by it. See
docs/decisions/index-projection.md."""
COMMON_KEPT = 0.4
"""So much of the common direction is kept that its energy is this share of the variance: removing all costs P@1."""
SHRINKAGE_SAMPLES = 1000.0
"""Samples at which an axis's own variance and the mean variance count alike in whitening; it helps small corpora."""
BLOCK_ROWS = 2048
"""Vectors of a sample that are processed in float32 at once."""


def learn(
    sample: Array,
    *,
    learned_on: int,
    dimensions: int = DIMENSIONS,
    train_fast_scan: Callable[[Array, int], dict[str, Array]] = lambda sample, learned_on: {},
) -> tuple[Projection, bytes]:
    """Learn a projection.

    Args:
        sample: (s, d) full vectors of length 1, float16 or float32; s at least 2.
        learned_on: Images in the index, of which `sample` is a part.
        dimensions: m, made smaller where the sample does not span as many.
        train_fast_scan: Makes the tensors of fast scans from projected vectors and `learned_on`, if there are enough.

    Returns:
        The projection and the bytes of its object, whose name is made from their digest.
    """
    mean = sample.mean(0, dtype=np.float64).astype(np.float32)
    variances, axes = _principal_axes(sample, mean)
    kept = min(dimensions, int(np.count_nonzero(variances > variances[0] * 1e-6)))
    kept = max(1, kept - kept % 8) if kept >= 8 else max(1, kept)
    variances, axes = variances[:kept], axes[:, :kept]
    common = float(mean @ mean)
    power = float(np.clip(POWER_SLOPE * (common - POWER_FROM), 0, POWER_MAX))
    kept_mean = min(1.0, float(np.sqrt(COMMON_KEPT * max(1 - common, 0) / max(common, 1e-9))))
    if variances.sum() < SPREAD_MIN:
        variances, axes, power, kept_mean = np.ones(1), mean[:, None] / np.sqrt(max(common, 1e-9)), 0.0, 1.0
    if len(variances) < min(dimensions, DIMENSIONS_MIN):
        variances, axes = _completed(variances, axes, min(dimensions, DIMENSIONS_MIN))
    kept = len(variances)
    shrunk = variances + variances.mean() * SHRINKAGE_SAMPLES / len(sample)
    origin = (1 - kept_mean) * mean
    matrix = axes * shrunk**-power
    # Spreads the variance evenly over the codes, and changes no similarity.
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((kept, kept)))
    matrix = (matrix @ rotation).astype(np.float32)
    projected = np.concatenate([unit((block - origin) @ matrix) for block in _blocks(sample)])
    widest = float(np.quantile(np.abs(projected), 0.99999))
    scale = CODE_RANGE / max(widest, 1e-6)
    scans = train_fast_scan(projected, learned_on)
    about = {"scale": scale, "learned_on": learned_on, "power": power, "common": common, "samples": len(sample)}
    data = pack("projection", about, {"origin": origin, "matrix": matrix, **scans})
    name = f"{FOLDER}{hashlib.blake2b(data, digest_size=12).hexdigest()}.projection"
    return Projection(name, origin, matrix, scale, learned_on, **scans), data


def _completed(variances: Array, axes: Array, least: int) -> tuple[Array, Array]:
    """Variances (r,) and axes (d, r), with random axes of no variance up to `least` that keep, on average, the length
    of what lies outside of the others."""
    outside = len(axes) - axes.shape[1]
    more = min(least - axes.shape[1], outside)
    if more <= 0:
        return variances, axes
    others = np.random.default_rng(1).standard_normal((len(axes), more))
    others, _ = np.linalg.qr(others - axes @ (axes.T @ others))
    return np.append(variances, np.zeros(more)), np.hstack([axes, others * np.sqrt(outside / more)])


def _blocks(sample: Array) -> Iterator[Array]:
    """The rows of a sample, some at a time, as float32: all of 20,000 × 3,328 numbers would be 266 MB."""
    for start in range(0, len(sample), BLOCK_ROWS):
        yield sample[start : start + BLOCK_ROWS].astype(np.float32)


def _principal_axes(sample: Array, mean: Array) -> tuple[Array, Array]:
    """Variances (r,) falling and axes (d, r) of vectors (s, d) around their mean (d,), r = min(s, d)."""
    s, d = sample.shape
    if s < d:
        centred = sample.astype(np.float32) - mean
        values, vectors = eigh((centred @ centred.T).astype(np.float64) / s)
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        axes = centred.T @ vectors
        axes /= np.maximum(np.linalg.norm(axes, axis=0), 1e-12)
        return values, axes
    covariance = np.zeros((d, d))
    for block in _blocks(sample):
        block -= mean
        covariance += block.T @ block
    covariance /= s
    values, axes = eigh(covariance)
    return np.maximum(values[::-1], 0), axes[:, ::-1]
