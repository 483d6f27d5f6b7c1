"""The similarity space: full vectors, or their projection: centring in part, PCA, partial whitening, unit length."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.linalg import eigh

from visor.errors import BadRequest
from visor.index.format.container import Array, Container, corrupt, pack

FOLDER = "projections/"
DIMENSIONS = 256
"""Default size of the projected space, in numbers a vector; fewer where fewer samples were to learn from."""
SAMPLES_MIN = 128
"""Images from which a projection is learned; below, the full vectors are compared."""
SAMPLES_MAX = 20_000
"""Vectors that a projection is learned on at most."""
POWER_SLOPE = 0.8
POWER_FROM = 0.5
POWER_MAX = 0.4
"""Whitening power p from the commonness c (the squared length of the mean of unit vectors, which is the mean cosine of
two pictures): slope · (c − from). Vectors that all look alike (Inception alone, c 0.9) gain from whitening, vectors
that are spread out (joined, c 0.6) lose by it. See docs/decisions/index-projection.md."""
COMMON_KEPT = 0.4
"""Of the common direction so much is kept that its energy is this share of the variance: centring it all costs P@1."""
SHRINKAGE_SAMPLES = 1000.0
"""Samples at which an axis's own variance and the mean variance count alike in whitening, for small corpora's sake."""
CODE_RANGE = 127
BLOCK_ROWS = 2048
"""Vectors of a sample that are looked at in float32 at once."""


@dataclass(frozen=True, slots=True)
class FullSpace:
    """Full vectors at unit length: the space of an index that is too small to learn a projection from."""

    dimension: int
    """d; 0 while nothing is indexed."""

    @property
    def name(self) -> None:
        """It has no object."""
        return None

    @property
    def dimensions(self) -> int:
        return self.dimension

    def project(self, vectors: Array) -> Array:
        """Full vectors (n, d), any float dtype, as unit vectors (n, d) float32."""
        return unit(np.asarray(vectors, np.float32))

    def project_unnormalised(self, vector: Array) -> Array:
        return vector


@dataclass(frozen=True, slots=True)
class Projection:
    """Maps full vectors (n, d) to unit vectors (n, m) whose inner product is the similarity."""

    name: str
    """Object name, which tells projections apart."""
    origin: Array
    """(d,) float32, subtracted first."""
    matrix: Array
    """(d, m) float32."""
    scale: float
    """A coordinate times this, rounded, is its int8 code."""
    fast: Array | None = None
    """(b,) uint8: an empty FAISS fast scan whose code book was learned with the projection, if there were enough."""
    learned_on: int = 0

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.origin)

    @property
    def dimensions(self) -> int:
        """m."""
        return int(self.matrix.shape[1])

    def project(self, vectors: Array) -> Array:
        """Full vectors (n, d), any float dtype, as unit vectors (n, m) float32."""
        full = np.asarray(vectors, np.float32)
        if len(full) == 1:
            return unit(self.project_unnormalised(full[0])[None])
        return unit((full - self.origin) @ self.matrix)

    def project_unnormalised(self, vector: Array) -> Array:
        """The part of one full vector (d,) float32 that lies in the space, as (m,) float32, not yet of unit length."""
        return dot(self.matrix.T, vector - self.origin)

    def code(self, vectors: Array) -> Array:
        """Full vectors (n, d) as codes (n, m) uint8: the rounded coordinate plus 128."""
        return encode(self.project(vectors), self.scale)


Space = FullSpace | Projection
"""Both have `name`, `dimension` (d), `dimensions` (m), `project` and `project_unnormalised`."""
EMPTY_SPACE = FullSpace(0)
"""Of an index that holds nothing."""


def unit(vectors: Array) -> Array:
    """Rows scaled to length 1; a zero row stays zero."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32))[:, None]
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def dot(rows: Array, vector: Array) -> Array:
    """Inner products (n,) float32 of rows (n, m) with a vector (m,), on this thread alone.

    BLAS would hand so small a product to its threads and wait for them: on a busy machine ten times as long as this.
    """
    products: Array = np.einsum("ij,j->i", rows, vector)
    return products


def encode(projected: Array, scale: float) -> Array:
    """Unit vectors (n, m) float32 as codes (n, m) uint8."""
    rounded = np.rint(projected * np.float32(scale))
    np.clip(rounded, -CODE_RANGE, CODE_RANGE, out=rounded)
    return (rounded.astype(np.int16) + 128).astype(np.uint8)


def decode(codes: Array) -> Array:
    """Codes (n, m) uint8 as unit vectors (n, m) float32."""
    return unit(codes.astype(np.float32) - np.float32(128))


def query_vector(vector: Array, dimension: int) -> Array:
    """A query as (d,) float32 of length 1.

    Raises:
        BadRequest: It has another size, or holds a number that is not finite, or only zeros.
    """
    flat = np.asarray(vector, np.float32).reshape(-1)
    if len(flat) != dimension:
        raise BadRequest(
            f"The vector has {len(flat)} numbers",
            valid=f"The vectors of this index have {dimension}",
            remedy="Send a vector of the index's own model, or a picture",
        )
    length = float(np.linalg.norm(flat))
    if not np.isfinite(length) or length == 0:
        raise BadRequest(
            "The vector is all zeros or holds a number that is not finite",
            valid="A vector has finite numbers, not all of them 0",
            remedy="Send the vector as an answer's query.vector gives it",
        )
    return flat / np.float32(length)


def learn(
    sample: Array,
    *,
    learned_on: int,
    dimensions: int = DIMENSIONS,
    power: float | None = None,
    shrinkage: float = SHRINKAGE_SAMPLES,
    seed: int = 0,
    train_fast_scan: Callable[[Array], Array | None] | None = None,
) -> tuple[Projection, bytes]:
    """Learn a projection.

    Args:
        sample: (s, d) full vectors of length 1, float16 or float32; s at least 2.
        learned_on: Images in the index, of which `sample` is a part.
        dimensions: m, made smaller where the sample does not span as many.
        power: Whitening power p in [0, 0.5]: an axis of variance v is divided by (v + shrunk mean)^p; by default as
            `POWER_SLOPE` says.
        shrinkage: See `SHRINKAGE_SAMPLES`.
        train_fast_scan: Makes the bytes of a trained, empty fast scan from projected vectors, if there are enough.
        seed: Of the rotation that spreads the variance evenly over the codes; it changes no similarity.

    Returns:
        The projection and the bytes of its object, whose name is made of their digest.
    """
    mean = sample.mean(0, dtype=np.float64).astype(np.float32)
    variances, axes = _principal_axes(sample, mean)
    kept = min(dimensions, int(np.count_nonzero(variances > variances[0] * 1e-6)))
    kept = max(1, kept - kept % 8) if kept >= 8 else max(1, kept)
    variances, axes = variances[:kept], axes[:, :kept]
    shrunk = variances + variances.mean() * shrinkage / len(sample)
    common = float(mean @ mean)
    if power is None:
        power = float(np.clip(POWER_SLOPE * (common - POWER_FROM), 0, POWER_MAX))
    kept_mean = min(1.0, float(np.sqrt(COMMON_KEPT * max(1 - common, 0) / max(common, 1e-9))))
    origin = (1 - kept_mean) * mean
    matrix = axes * shrunk**-power
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((kept, kept)))
    matrix = (matrix @ rotation).astype(np.float32)
    projected = np.concatenate([unit((block - origin) @ matrix) for block in _blocks(sample)])
    widest = float(np.quantile(np.abs(projected), 0.99999))
    scale = CODE_RANGE / max(widest, 1e-6)
    tensors = {"origin": origin, "matrix": matrix}
    fast = train_fast_scan(projected) if train_fast_scan is not None else None
    if fast is not None:
        tensors["fast"] = fast
    about = {"scale": scale, "learned_on": learned_on, "power": power, "common": common, "samples": len(sample)}
    data = pack("projection", about, tensors)
    name = f"{FOLDER}{hashlib.blake2b(data, digest_size=12).hexdigest()}.projection"
    return Projection(name, origin, matrix, scale, fast, learned_on), data


def read_projection(name: str, view: memoryview) -> Projection:
    """The projection in an object.

    Raises:
        CorruptObject, NewerFormat: It cannot be read.
    """
    container = Container.open(name, view, kind="projection")
    origin, matrix = container.array("origin"), container.array("matrix")
    if matrix.ndim != 2 or origin.shape != matrix.shape[:1]:
        raise corrupt(name, f"origin {origin.shape} and matrix {matrix.shape} do not fit")
    about = container.about
    fast = container.array("fast") if "fast" in container else None
    return Projection(name, origin, matrix, float(about["scale"]), fast, int(about["learned_on"]))


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
