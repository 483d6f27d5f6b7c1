"""The search benchmark runs as a whole, small, and says what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visor.bench.search import measure
from visor.bench.vectors import mixed, stand_ins

KEYS = {
    "images",
    "fast_p50_ms",
    "fast_p99_ms",
    "exact_p50_ms",
    "recall_at_12",
    "resident_mb",
    "first_answer_s",
    "stored_bytes_per_image",
    "prototype_p50_ms",
    "speedup",
}


def test_made_vectors_are_seeded_and_hard() -> None:
    base = stand_ins(200, 128)
    one, two = (np.concatenate(list(mixed(base, 3000, seed=4))) for _ in range(2))
    assert np.array_equal(one, two)
    assert np.linalg.norm(one.astype(np.float32), axis=1) == pytest.approx(np.ones(3000), abs=1e-2)
    similarities = np.sort(one[:50].astype(np.float32) @ one.astype(np.float32).T, axis=1)
    # Neighbours lie closer to each other than to the middle of all: near ties that a bad first pass loses.
    assert (similarities[:, -2] - similarities[:, -13]).mean() < (similarities[:, -13] - similarities[:, 1500]).mean()


def test_one_size_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISOR_HOME", str(tmp_path / "no-model"))
    document = measure(3000, stand_ins(200, 256), tmp_path, lambda line: None)
    assert document.keys() >= KEYS
    assert document["images"] == 3000
    assert document["recall_at_12"] == 1
    assert document["rare_filter_found"] == 1
    # 3,000 images bear the 256 × 256 projection alone: 90 bytes each.
    assert document["stored_bytes_per_image"] < 2 * 256 + 600
