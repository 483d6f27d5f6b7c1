"""Shards: one immutable object with the vectors of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from visor.index.format.container import Array, Container, json_tensor, pack
from visor.index.format.ids import ids_to_bytes
from visor.index.format.looks import Augmented, no_looks
from visor.schema.items import FacetRow

FOLDER = "shards/"
HASH_BYTES_MIN = 32
HASH_BYTES_MAX = 160


def shard_object(key: str) -> str:
    """The object name of the shard whose commit has this key."""
    return f"{FOLDER}{key}.shard"


@dataclass(frozen=True, slots=True)
class Shard:
    """n items of one batch, in the batch's order.

    model: fingerprint of the model that made the vectors.
    ids: (n, 16) uint8. versions: (n,) int64. vectors: (n, d) float16, unit length.
    hashes: (n, h) uint8 with h from 32 to 160; the first 32 bytes are the PDQ hash. facets: n rows.
    looks: (n, 258) uint8, zeros in an older shard; augmented: queries made of some of the items.
    """

    model: str
    ids: Array
    versions: Array
    vectors: Array
    hashes: Array
    facets: list[FacetRow]
    looks: Array
    augmented: Augmented
    name: str = ""
    """Name of the object that it was read from."""

    def __len__(self) -> int:
        return len(self.versions)

    def reduced(self, vectors: int) -> Shard:
        """A copy with all ids and versions but only the first vectors, so that the rest needs no memory."""
        few = replace(self, vectors=self.vectors[:vectors], hashes=self.hashes[:0], facets=[], looks=self.looks[:0])
        return deepcopy(few)


def write_shard(
    *,
    model: str,
    ids: Sequence[str] | Array,
    versions: Sequence[int] | Array,
    vectors: Array,
    hashes: Array,
    facets: Sequence[FacetRow],
    looks: Array | None = None,
    augmented: Augmented | None = None,
) -> bytes:
    """The bytes of a shard; the same input gives the same bytes.

    Raises:
        ValueError: The parts differ in length, or have another dtype or shape than `Shard` states.
    """
    shard = Shard(
        model,
        ids_to_bytes(ids),
        np.asarray(versions, np.int64),
        np.asarray(vectors, np.float16),
        np.asarray(hashes),
        list(facets),
        no_looks(len(facets)) if looks is None else looks,
        augmented or Augmented.none(vectors.shape[-1]),
    )
    _check(shard)
    return pack(
        "shard",
        {"model": model, "count": len(shard), "dimension": int(shard.vectors.shape[1])},
        {
            "ids": shard.ids,
            "versions": shard.versions,
            "hashes": shard.hashes,
            "facets": json_tensor(shard.facets),
            "vectors": shard.vectors,
            **({} if looks is None else {"looks": shard.looks}),
            **shard.augmented.tensors(),
        },
    )


def read_shard(view: memoryview | bytes, *, name: str = "shard") -> Shard:
    """The shard in these bytes; its arrays are read-only views of them.

    Args:
        view: The whole object.
        name: Its name, for errors.

    Raises:
        CorruptObject: It is damaged or not a shard.
        NewerFormat: A later Visor wrote it.
    """
    container = Container.open(name, memoryview(view), kind="shard")
    vectors = container.array("vectors")
    return Shard(
        model=str(container.about["model"]),
        ids=container.array("ids"),
        versions=container.array("versions"),
        vectors=vectors,
        hashes=container.array("hashes"),
        facets=container.json("facets", list[FacetRow]),
        looks=container.array("looks") if "looks" in container else no_looks(len(vectors)),
        augmented=Augmented.read(container, vectors.shape[1], container.array),
        name=name,
    )


def _check(shard: Shard) -> None:
    n = len(shard.ids)
    lengths = {"versions": len(shard.versions), "vectors": len(shard.vectors), "hashes": len(shard.hashes)}
    lengths |= {"facets": len(shard.facets), "looks": len(shard.looks)}
    for part, length in lengths.items():
        if length != n:
            raise ValueError(f"{length} {part} for {n} ids")
    if shard.vectors.ndim != 2 or shard.vectors.shape[1] < 1:
        raise ValueError(f"vectors have shape {shard.vectors.shape}; expected (n, d)")
    if not np.isfinite(shard.vectors).all():
        raise ValueError("a vector holds a number that is not finite")
    if shard.hashes.dtype != np.uint8 or shard.hashes.ndim != 2:
        raise ValueError(f"hashes are {shard.hashes.dtype} of shape {shard.hashes.shape}; expected uint8 (n, h)")
    if not HASH_BYTES_MIN <= shard.hashes.shape[1] <= HASH_BYTES_MAX:
        raise ValueError(f"hashes have {shard.hashes.shape[1]} bytes; expected {HASH_BYTES_MIN} to {HASH_BYTES_MAX}")
