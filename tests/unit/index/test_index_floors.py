"""Floors of what a search finds, on seeded vectors: a constant that is changed by mistake falls below one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.unit.index.index_fixtures import Shop, clustered, hash_of, keys_of

from visor.index.format import fast_scan
from visor.index.merge import segment_builder
from visor.index.merge.merge import merge
from visor.index.search import snapshot
from visor.index.search.ask import NEAREST


@pytest.mark.slow
@pytest.mark.parametrize("cells_from", [10_000, 1_000])
def test_fast_finds_what_exact_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells_from: int) -> None:
    """Guards how many rows of the fast scan are ranked again: recall is 1.0 with 400, and 0.76 with 40."""
    monkeypatch.setattr(fast_scan, "PQ_SAMPLES_MIN", 16)
    monkeypatch.setattr(segment_builder, "PQ_ROWS_MIN", 16)
    monkeypatch.setattr(fast_scan, "CELLS_LEARNED_FROM", cells_from)
    monkeypatch.setattr(fast_scan, "CELLS", 64)
    monkeypatch.setattr(fast_scan, "CELLS_ROWS", 1_000)
    monkeypatch.setattr(snapshot, "CELLS_ROWS_MIN", cells_from)
    shop, vectors = Shop(tmp_path), clustered(3_000)
    keys = keys_of(len(vectors))
    for start in range(0, len(keys), 1_000):
        shop.add(keys[start : start + 1_000], vectors[start : start + 1_000])
    merge(shop.objects, shop.documents, model="model-a", clock=shop.clock)
    searcher, recalls, apart = shop.searcher(), [], []
    assert (searcher._snapshot.cells is not None) == (cells_from == 1_000)
    for vector in vectors[:60]:
        fast, exact = searcher.search(vector, k=12), searcher.search(vector, k=12, mode="exact")
        recalls.append(len({hit.id for hit in fast.hits} & {hit.id for hit in exact.hits}) / 12)
        # What confidence is made of is as near.
        assert fast.nearest is not None
        assert exact.nearest is not None
        apart.append(exact.nearest.similarities[:NEAREST] - fast.nearest.similarities[:NEAREST])
    assert np.mean(recalls) >= 0.99
    assert np.mean(apart) < 0.001


@pytest.mark.parametrize(("bits", "results"), [(24, 1), (25, 2), (31, 2)])
def test_copies_differ_in_24_bits_of_their_hash_at_most(tmp_path: Path, bits: int, results: int) -> None:
    own = np.unpackbits(np.frombuffer(hash_of("one"), np.uint8))
    own[:bits] ^= 1
    shop, vectors = Shop(tmp_path), np.repeat(clustered(1), 2, axis=0)
    shop.add(["a", "b"], vectors, hashes=[hash_of("one"), np.packbits(own).tobytes()])
    assert len(shop.searcher().search(vectors[0], k=5).hits) == results


@pytest.mark.parametrize(("cosine", "results"), [(0.92, 1), (0.88, 2)])
def test_copies_have_vectors_that_agree(tmp_path: Path, cosine: float, results: int) -> None:
    vectors = np.zeros((2, 64), np.float32)
    vectors[0, 0], vectors[1, :2] = 1, (cosine, np.sqrt(1 - cosine**2))
    shop = Shop(tmp_path)
    shop.add(["a", "b"], vectors, hashes=[hash_of("one")] * 2)
    assert len(shop.searcher().search(vectors[0], k=5).hits) == results
