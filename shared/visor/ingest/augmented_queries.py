"""Augmented queries: a sample of a batch's items as phones might photograph them, for the merge to learn from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from visor.imaging.augment import augment, cut_out
from visor.index.format.container import Array
from visor.index.format.ids import ids_to_bytes
from visor.index.format.looks import Augmented

SAMPLED = 64
"""Of 256 items by the first byte of their id: one in four, the same ones at each delivery. One in eight of 81 packshots
left nine, with whose mean a third of the photos were taken for catalogue images."""


@dataclass
class AugmentedQueries:
    """The sample of one delivery: items on a plain background are put on another one."""

    tried: int = 0
    _made: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    def images(self, items: dict[str, Image.Image]) -> dict[str, Image.Image]:
        """The augmented images to embed, by item id, of some items' images."""
        sampled = {item: image for item, image in items.items() if int(item[:2], 16) < SAMPLED}
        self.tried += len(sampled)
        things = {item: cut_out(image) for item, image in sampled.items()}
        return {
            item: augment(thing, np.random.default_rng(int(item[:16], 16)))
            for item, thing in things.items()
            if thing is not None
        }

    def add(self, item: str, vector: Array, look: Array) -> None:
        self._made[item] = vector, look

    def kept(self, dimension: int) -> Augmented:
        """The augmented queries in the order of their ids."""
        if not self._made:
            return replace(Augmented.none(dimension), tried=self.tried)
        ids = sorted(self._made)
        vectors, looks = (np.stack([self._made[item][part] for item in ids]) for part in (0, 1))
        return Augmented(ids_to_bytes(ids), vectors.astype(np.float16), looks, self.tried)
