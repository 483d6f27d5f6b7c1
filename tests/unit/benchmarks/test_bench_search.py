"""The benchmarks of the index run as a whole, small, and say what they promise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from visor_bench.base import base_vectors
from visor_bench.speed import peers
from visor_bench.speed.peers.kinds import CELL_EFFORTS, GRAPH_EFFORTS
from visor_bench.speed.peers.nearest import Nearest
from visor_bench.speed.search import GROWTH, growth, measure
from visor_bench.vectors import mixed, stand_ins

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


@pytest.mark.slow
def test_one_size_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISOR_HOME", str(tmp_path / "no-model"))
    monkeypatch.setattr("visor_bench.speed.search.QUERIES", 100)
    document = measure(3000, stand_ins(200, 256), tmp_path, lambda line: None)
    assert document.keys() >= KEYS
    assert document["images"] == 3000
    assert document["recall_at_12"] == 1
    assert document["rare_filter_found"] == 1
    # 3,000 images bear the 256 × 256 projection alone: 90 bytes each.
    assert document["stored_bytes_per_image"] < 2 * 256 + 600
    assert document["besides_bytes_per_image"] == pytest.approx(document["stored_bytes_per_image"] - 512)


def test_growth_is_linear_if_nothing_outgrows_the_images() -> None:
    less = {"images": 1000, **dict.fromkeys(GROWTH, 2.0)}
    more = {"images": 10_000, **dict.fromkeys(GROWTH, 20.0)}
    assert growth(less, more) == {
        "from_images": 1000,
        "images": 10.0,
        **dict.fromkeys(GROWTH, 10.0),
        "at_most_linear": True,
    }
    assert not growth(less, more | {"resident_mb": 21.0})["at_most_linear"]


def test_base_vectors_of_a_file_are_made_unit_length(tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", 3 * stand_ins(20, 16))
    base, words = base_vectors(None, tmp_path / "some.npy")
    assert np.linalg.norm(base, axis=1) == pytest.approx(1)
    assert "some.npy" in words


def test_nearest_in_blocks_are_the_nearest_of_all() -> None:
    vectors, queries = stand_ins(300, 32), stand_ins(7, 32, seed=1)
    nearest = Nearest(queries)
    for start in range(0, 300, 64):
        nearest.add(vectors[start : start + 64])
    assert np.array_equal(nearest.rows, np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :12])


@pytest.mark.slow
def test_peers_are_measured_beside_visor(tmp_path: Path) -> None:
    table = peers.measure(1200, stand_ins(200, 64), tmp_path, ("faiss-flat", "faiss-hnsw"), minutes=5)
    assert table["faiss-flat"]["recall_at_12"] == 1
    assert table["visor"]["recall_at_12"] > 0.95
    assert table["visor"]["times_visors_time"] == 1
    # As little effort as finds what Visor finds.
    hnsw = table["faiss-hnsw"]
    assert hnsw["recall_at_12"] >= table["visor"]["recall_at_12"] - peers.EQUAL_RECALL or hnsw["effort"] == 512


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "needs"),
    [("faiss-hnsw-8bit", "faiss"), ("faiss-ivf-fast-scan", "faiss"), ("usearch-i8", "usearch"), ("scann", "scann")],
)
def test_peers_with_codes_find_as_much_in_visors_numbers(tmp_path: Path, name: str, needs: str) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip("the extra `bench` is not installed")
    table = peers.measure(1200, stand_ins(200, 64), tmp_path, (name,), projected=True)
    assert table[name]["recall_at_12"] >= 0.97
    assert table[name]["effort"] in (*GRAPH_EFFORTS, *CELL_EFFORTS)


@pytest.mark.slow
def test_a_peer_out_of_time_is_left_out_with_the_reason(tmp_path: Path) -> None:
    table = peers.measure(1000, stand_ins(100, 32), tmp_path, ("faiss-flat",), minutes=1e-4)
    assert table["faiss-flat"] == {"left_out": "took more than 0.0001 minutes to build or to open"}


def test_who_is_ahead_is_said() -> None:
    def row(recall: float, time: float, memory: float) -> dict[str, float]:
        return {"recall_at_12": recall, "times_visors_time": time, "times_visors_memory": memory}

    table = {
        "visor": row(0.99, 1, 1),
        "faiss-hnsw": row(0.989, 0.5, 3),
        "hnswlib": row(0.99, 2, 2),
        "usearch-f16": row(0.7, 0.5, 0.5),
        "lancedb": row(0.99, 0.9, 0.9),
        "nearpy": {"left_out": "not built"},
    }
    sentences, both = peers.ahead(table)
    assert both == ["lancedb"]
    assert [sentence.split()[0] for sentence in sentences] == ["faiss-hnsw", "usearch-f16", "lancedb"]
    assert "finds less" in sentences[1]


def test_peers_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    row = {"recall_at_12": 0.99, "p50_ms": 1.0, "resident_mb": 100}
    peers.draw({"visor": row, "hnswlib": row, "nearpy": {"left_out": "not built"}}, tmp_path / "peers.png", 1200)
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
