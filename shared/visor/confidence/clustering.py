"""Groups: substitutes for kinds, found among vectors without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from visor.index.format.container import Array
from visor.index.format.projection import unit


def clearest_groups(vectors: Array, sizes: Sequence[int], margin: float) -> tuple[Array, float]:
    """Group of each vector (n,) int64 from 0 on, and how clear the groups are, -1 to 1 (`silhouette`).

    Args:
        vectors: (n, m) float32 of unit length, n ≥ 3. Memory: three times 8 n² bytes.
        sizes: Mean sizes of groups that are tried: the first that is not `margin` less clear than another is taken.
    """
    x = np.asarray(vectors, np.float64)
    alike = x @ x.T
    merges = ward(alike)
    tried = []
    for size in sizes:
        groups = cut(merges, max(3, len(vectors) // size))
        tried.append((groups, silhouette(alike, groups)))
    best = max(clearness for _, clearness in tried)
    return next(one for one in tried if one[1] >= best - margin)


def ward(alike: Array) -> Array:
    """Ward's clustering of vectors by their products (n, n) float64: (n - 1, 2) int64, pairs of vectors whose groups
    are merged, costliest pair last.

    By chains of nearest neighbours, with distances kept up to date: n² time and memory (Murtagh, 'A survey of recent
    advances in hierarchical clustering algorithms', Computer Journal 1983). Our own, because it would be all that the
    compact function needs SciPy for, and its image has no room for SciPy.
    """
    n, lengths = len(alike), np.diag(alike)
    apart = np.maximum(lengths[:, None] + lengths - 2 * alike, 0.0)
    np.fill_diagonal(apart, np.inf)
    size, alive = np.ones(n), np.ones(n, bool)
    pairs, costs, chain = list[tuple[int, int]](), list[float](), list[int]()
    while len(pairs) < n - 1:
        if not chain:
            chain.append(int(alive.argmax()))
        last = chain[-1]
        nearest = int(apart[last].argmin())
        if len(chain) == 1 or apart[last, nearest] < apart[last, chain[-2]]:
            chain.append(nearest)
            continue
        kept, gone = chain[-2], chain[-1]
        del chain[-2:]
        pairs.append((kept, gone))
        costs.append(float(apart[kept, gone]))
        # Lance and Williams, 'A general theory of classificatory sorting strategies', Computer Journal 1967.
        others = alive.copy()
        others[[kept, gone]] = False
        both = (size[kept] + size[others]) * apart[kept, others] + (size[gone] + size[others]) * apart[gone, others]
        moved = (both - size[others] * apart[kept, gone]) / (size[kept] + size[gone] + size[others])
        apart[kept, others] = apart[others, kept] = moved
        apart[gone], apart[:, gone] = np.inf, np.inf
        size[kept] += size[gone]
        alive[gone] = False
    return np.array(pairs, np.int64).reshape(-1, 2)[np.argsort(costs, kind="stable")]


def cut(merges: Array, groups: int) -> Array:
    """Group of each vector (n,) int64 from 0 on, when all but the costliest `groups` - 1 merges (n - 1, 2) are made."""
    roots = list(range(len(merges) + 1))

    def root(i: int) -> int:
        while roots[i] != i:
            i = roots[i]
        return i

    for kept, gone in merges[: max(0, len(roots) - groups)]:
        roots[root(int(gone))] = root(int(kept))
    found: Array = np.unique([root(i) for i in range(len(roots))], return_inverse=True)[1]
    return found


def silhouette(alike: Array, groups: Array) -> float:
    """Mean simplified silhouette, -1 to 1, of unit vectors with cosines (n, n): mean cosine distance to their own and
    to the next group."""
    n, members = len(alike), np.eye(groups.max() + 1)[groups]
    sizes = members.sum(0)
    if len(sizes) < 2:
        return 0.0
    sums = alike @ members
    own = 1 - (sums[np.arange(n), groups] - 1) / np.maximum(sizes[groups] - 1, 1)
    others = 1 - sums / sizes
    others[np.arange(n), groups] = np.inf
    other = others.min(1)
    values = np.where(sizes[groups] > 1, (other - own) / np.maximum(np.maximum(own, other), 1e-9), 0)
    return float(values.mean())


def without_groups(centred: Array, draws: int) -> Iterator[Array]:
    """Unit vectors (n, m) float32 that are spread like these but in no groups, `draws` times.

    Normally distributed, with the covariance that Ledoit and Wolf estimate ('A well-conditioned estimator for
    large-dimensional covariance matrices', Journal of Multivariate Analysis 2004): for few vectors the plain one is
    too flat, and draws from it are too near. The same vectors give the same draws.

    Args:
        centred: (n, m) float32 whose mean is about 0.
    """
    n, dimension = centred.shape
    gram = (centred @ centred.T).astype(np.float64) / n
    scale = np.trace(gram) / dimension
    total = float((gram**2).sum())
    noise = float((np.diag(gram) ** 2).sum()) * n - total
    shrinkage = min(1.0, max(0.0, noise / n / max(total - dimension * scale**2, 1e-12)))
    parts = np.sqrt([(1 - shrinkage) / n, shrinkage * scale]).astype(np.float32)
    rng = np.random.default_rng(0)
    for _ in range(draws):
        drawn = parts[0] * (rng.standard_normal((n, n), np.float32) @ centred)
        drawn += parts[1] * rng.standard_normal((n, dimension), np.float32)
        yield unit(drawn - drawn.mean(0))
