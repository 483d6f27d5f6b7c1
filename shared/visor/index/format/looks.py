"""Looks: what an image shows besides its vector, in 258 bytes: its 32 best labels with probabilities, and its colours.

Also the augmented queries of a shard or segment: images of some items as a phone might have taken them, as vectors.
Both are optional tensors. Objects without them are read as zeros, and a zero look adds nothing to a similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from visor.index.format.container import Array, Container
from visor.index.format.ids import IdIndex

LABELS, LABELS_KEPT, COLOURS = 1000, 32, 162
LOOK_BYTES = 3 * LABELS_KEPT + COLOURS
TRAITS = LABELS + COLOURS
"""Numbers that a look adds to a vector."""
AUGMENTED_MAX = 256
"""Augmented queries that one segment keeps."""


def pack_look(probabilities: Array | None, colours: Array) -> Array:
    """One look (258,) uint8: the best labels (32 little-endian uint16), 255 · their roots (32), the colours (162).

    Args:
        probabilities: (labels,) of the first 1,000 labels at most; None if the model has no such head.
        colours: (162,) uint8 of `colour_signature`.
    """
    look = np.zeros(LOOK_BYTES, np.uint8)
    if probabilities is not None:
        best = np.argsort(-probabilities[:LABELS], kind="stable")[:LABELS_KEPT]
        look[: 2 * len(best)] = best.astype("<u2").view(np.uint8)
        roots = look[2 * LABELS_KEPT : 2 * LABELS_KEPT + len(best)]
        roots[:] = np.rint(255 * np.sqrt(np.clip(probabilities[best], 0, 1)))
    look[3 * LABELS_KEPT :] = colours
    return look


def no_looks(count: int) -> Array:
    return np.zeros((count, LOOK_BYTES), np.uint8)


def label_roots(looks: Array) -> Array:
    """Square roots of the label probabilities (n, 1000) float32 of looks (n, 258), each row at most 1 long."""
    roots = np.zeros((len(looks), LABELS), np.float32)
    best = np.ascontiguousarray(looks[:, : 2 * LABELS_KEPT]).view("<u2").astype(np.int64)
    values = looks[:, 2 * LABELS_KEPT : 3 * LABELS_KEPT].astype(np.float32) / 255
    # Unused places all name label 0, with root 0.
    np.maximum.at(roots, (np.arange(len(looks))[:, None], np.minimum(best, LABELS - 1)), values)
    return roots


@dataclass(frozen=True, slots=True)
class Augmented:
    """Augmented queries: ids (a, 16) uint8 of their items, vectors (a, d) float16, looks (a, 258) uint8.

    tried: Items that were checked for a plain background; only those with one were augmented.
    """

    ids: Array
    vectors: Array
    looks: Array
    tried: int

    @classmethod
    def none(cls, dimension: int) -> Augmented:
        return cls(
            np.empty((0, 16), np.uint8), np.empty((0, dimension), np.float16), np.empty((0, LOOK_BYTES), np.uint8), 0
        )

    @classmethod
    def join(cls, parts: Sequence[Augmented], dimension: int) -> Augmented:
        """All parts, evenly thinned out to `AUGMENTED_MAX`."""
        parts = [cls.none(dimension), *parts]
        n, tried = sum(len(part.ids) for part in parts), sum(part.tried for part in parts)
        rows = np.unique(np.linspace(0, n - 1, min(n, AUGMENTED_MAX)).astype(int)) if n else np.empty(0, int)
        ids, vectors, looks = (
            np.concatenate([getattr(part, name) for part in parts])[rows] for name in ("ids", "vectors", "looks")
        )
        return cls(ids, vectors, looks, round(tried * len(rows) / n) if n else tried)

    def without(self, ids: Sequence[Array]) -> Augmented:
        """Without the queries of some items, ids (n, 16) uint8 each; `tried` shrinks in proportion."""
        keep = np.ones(len(self.ids), bool)
        for some in ids:
            keep &= IdIndex.of(some).find(self.ids) < 0
        tried = round(self.tried * keep.mean()) if len(keep) else self.tried
        return Augmented(self.ids[keep], self.vectors[keep], self.looks[keep], tried)

    @classmethod
    def read(cls, container: Container, dimension: int, array: Callable[[str], Array]) -> Augmented:
        """What `tensors` wrote, read through `array`, which reads one tensor; empty if nothing was written."""
        if "augmented_ids" not in container:
            return cls.none(dimension)
        ids, vectors, looks, tried = (array(f"augmented_{name}") for name in ("ids", "vectors", "looks", "tried"))
        return cls(ids, vectors, looks, int(tried[0]))

    def tensors(self) -> dict[str, Array]:
        """Tensors for a container; none if no item was tried."""
        if not self.tried:
            return {}
        return {
            "augmented_ids": self.ids,
            "augmented_vectors": np.asarray(self.vectors, "<f2"),
            "augmented_looks": self.looks,
            "augmented_tried": np.array([self.tried], np.uint32),
        }
