"""An index on local stores, filled with seeded vectors that have neighbours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visor.index.format.shard import shard_object, write_shard
from visor.index.search.searcher import Searcher
from visor.schema.items import FacetRow, FacetUpdate, ShardCommit, Tombstone, as_document, item_id
from visor.storage.documents import SERVER_TIME, Put
from visor.storage.local.documents import SqliteDocuments
from visor.storage.local.objects import FolderObjects

MODEL = "model-a"
DIMENSION = 64


def unit_rows(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int, dimension: int = DIMENSION, kinds: int = 12, seed: int = 0) -> np.ndarray[Any, Any]:
    """Non-negative unit vectors around `kinds` centres, (count, dimension) float32."""
    rng = np.random.default_rng(seed)
    centres = rng.random((kinds, dimension)) ** 3
    return unit_rows(np.abs(centres[rng.integers(kinds, size=count)] + 0.12 * rng.standard_normal((count, dimension))))


def hash_of(key: str) -> bytes:
    """A made-up hash, the same for the same key: two keys differ in about 128 of 256 bits."""
    return hashlib.blake2b(key.encode(), digest_size=32).digest()


@dataclass
class Shop:
    """Puts shards and commits as the pipeline does."""

    root: Path
    now: list[float] = field(default_factory=lambda: [1_000_000.0])

    def __post_init__(self) -> None:
        self.objects = FolderObjects(self.root / "objects")
        self.documents = SqliteDocuments(self.root / "documents.sqlite", clock=self.tick)

    def tick(self) -> float:
        self.now[0] += 0.001
        return self.now[0]

    def clock(self) -> float:
        return self.now[0]

    def add(
        self,
        keys: list[str],
        vectors: np.ndarray[Any, Any],
        *,
        version: int = 1,
        facets: list[FacetRow] | None = None,
        hashes: list[bytes] | None = None,
        name: str | None = None,
        model: str = MODEL,
    ) -> str:
        """One shard and its commit; returns the commit's key."""
        ids = [item_id("test", key) for key in keys]
        name = name or hashlib.blake2b(f"{model}{version}{ids}".encode(), digest_size=8).hexdigest()
        raw = hashes or [hash_of(key) for key in keys]
        data = write_shard(
            model=model,
            ids=ids,
            versions=[version] * len(keys),
            vectors=vectors.astype(np.float16),
            hashes=np.frombuffer(b"".join(raw), np.uint8).reshape(len(keys), -1),
            facets=facets or [FacetRow(collection="c", source="test")] * len(keys),
        )
        self.objects.put(shard_object(name), data)
        self.commit(name, ShardCommit(batch=name, model=model, shard=shard_object(name), count=len(keys)))
        return name

    def commit(self, key: str, record: ShardCommit) -> None:
        data = {**as_document(record), "committed_at": SERVER_TIME}
        self.documents.commit([Put(collection="commits", key=key, data=data)])

    def delete(self, key: str, version: int) -> None:
        tombstone = Tombstone(id=item_id("test", key), version=version)
        self.commit(f"delete-{key}-{version}", ShardCommit(batch="b", tombstones=(tombstone,)))

    def update(self, key: str, version: int, facets: FacetRow) -> None:
        update = FacetUpdate(id=item_id("test", key), version=version, facets=facets)
        self.commit(f"update-{key}-{version}", ShardCommit(batch="b", updates=(update,)))

    def searcher(self, **options: Any) -> Searcher:
        searcher = Searcher(self.objects, self.documents, model=MODEL, freshness_s=0, **options)
        searcher.refresh()
        return searcher


def keys_of(count: int, prefix: str = "k") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def ids_of(keys: list[str]) -> list[str]:
    return [item_id("test", key) for key in keys]
