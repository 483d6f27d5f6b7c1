"""The similarity space: stable when few pictures are indexed, the same for one vector and for many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.unit.index.index_fixtures import clustered

from visor.errors import CorruptObject
from visor.index.format import fast_scan
from visor.index.format.container import Array
from visor.index.format.fast_scan import CellScan, FastScan, nearest_cells, train_fast_scan
from visor.index.format.projection import FullSpace, decode, encode, int8_scan, read_projection, rerank
from visor.index.merge.learn import learn
from visor_bench.vectors import mixed, stand_ins


def test_a_space_is_written_and_read() -> None:
    vectors = clustered(400)
    space, data = learn(vectors, learned_on=400)
    assert space.name is not None
    again = read_projection(space.name, memoryview(data))
    assert np.array_equal(again.code(vectors), space.code(vectors))
    with pytest.raises(CorruptObject, match=space.name):
        read_projection(space.name, memoryview(data[:-5]))


def test_one_vector_lands_where_it_lands_among_many() -> None:
    vectors = clustered(300)
    space, _ = learn(vectors, learned_on=300)
    many = space.project(vectors)
    for row in (0, 150, 299):
        assert space.project(vectors[[row]])[0] == pytest.approx(many[row], abs=1e-5)
    assert np.linalg.norm(many, axis=1) == pytest.approx(np.ones(300), abs=1e-5)


@pytest.mark.parametrize("count", [2, 8, 40, 128, 300])
def test_kinds_stay_together_however_few_are_learned_on(count: int) -> None:
    rng = np.random.default_rng(1)
    kinds = rng.integers(6, size=count)
    centres = rng.random((6, 512)) ** 2
    vectors = np.abs(centres[kinds] + 0.15 * rng.standard_normal((count, 512))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    space, _ = learn(vectors, learned_on=count)
    assert 1 <= space.dimensions <= 256

    def right(rows: np.ndarray) -> float:
        similarities = rows @ rows.T
        np.fill_diagonal(similarities, -9)
        return float((kinds[similarities.argmax(1)] == kinds).mean())

    assert right(space.project(vectors)) >= right(vectors) - 0.02


@pytest.mark.parametrize("different", [1, 2, 5, 20])
def test_a_stranger_is_no_copy_however_few_pictures_are_different(different: int) -> None:
    vectors = np.random.default_rng(2).random((different + 1, 512)).astype(np.float32) ** 3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stranger, known = vectors[-1:], vectors[np.arange(200) % different]
    space, _ = learn(known, learned_on=200)
    similarities = decode(space.code(known)) @ space.project(np.concatenate([known, stranger])).T
    assert np.diag(similarities) == pytest.approx(np.ones(200), abs=0.01)
    assert similarities[:, -1].max() < 0.55


def test_codes_keep_the_similarity() -> None:
    vectors = stand_ins(600, 256)
    space, _ = learn(vectors, learned_on=600)
    projected = space.project(vectors)
    coded = decode(encode(projected, space.scale))
    assert np.abs(projected @ projected.T - coded @ coded.T).max() < 0.02


def test_the_int8_scan_finds_the_nearest_allowed_rows() -> None:
    vectors = np.concatenate(list(mixed(stand_ins(300, 256), 5000, seed=3)))
    space, _ = learn(vectors, learned_on=5000)
    codes, allowed = space.code(vectors), np.arange(5000) % 97 == 0
    query = space.project(vectors[[11]])[0]
    for mask in (None, allowed, np.zeros(5000, bool)):
        rows = int8_scan(codes, query, 200, mask)
        near = rows[np.argsort(-rerank(codes, query, rows), kind="stable")][:10]
        truth = np.argsort(-rerank(codes, query, np.arange(5000)), kind="stable")
        wanted = truth if mask is None else truth[mask[truth]]
        assert near.tolist() == wanted[:10].tolist()


@pytest.mark.slow
def test_the_fast_scan_is_laid_out_as_long_as_it_says() -> None:
    projected = learn(stand_ins(1200, 128), learned_on=1200)[0].project(stand_ins(1200, 128))
    empty = train_fast_scan(projected, 1200)["fast"]
    for rows in (0, 1, 31, 32, 33, 1200):
        fast = FastScan.read(empty)
        size = fast.size_bytes(rows)
        fast.add(projected[:rows])
        assert len(fast.write()) == size
        assert len(fast) == len(fast.codes()) == rows
    assert np.array_equal(fast.codes(), fast.quantizer.compute_codes(projected))
    assert 7 in FastScan.read(fast.write()).scan(projected[7], 50)
    assert train_fast_scan(projected[:10], 10) == {}


@pytest.mark.slow
def test_a_scan_in_cells_visits_few_rows_but_gives_as_many_as_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_scan, "CELLS_LEARNED_FROM", 3000)
    monkeypatch.setattr(fast_scan, "CELLS", 16)
    monkeypatch.setattr(fast_scan, "CELLS_ROWS", 400)
    vectors = np.concatenate(list(mixed(stand_ins(200, 128), 3000, seed=3)))
    assert learn(vectors, learned_on=2999, train_fast_scan=train_fast_scan)[0].centres is None
    space, data = learn(vectors, learned_on=3000, train_fast_scan=train_fast_scan)
    assert data == learn(vectors, learned_on=3000, train_fast_scan=train_fast_scan)[1]
    projected = space.project(vectors)
    assert space.fast is not None
    assert space.centres is not None
    parts, starts = [], np.array([0, 33, 1800, 3000])
    for start, stop in pairwise(starts.tolist()):
        fast = FastScan.read(space.fast)
        fast.add(projected[start:stop])
        parts.append((fast, nearest_cells(space.centres, projected[start:stop])))
    cells = CellScan(space.centres, parts)
    assert len(cells) == 3000

    def scan(query: Array, want: int) -> Array:
        owners, rows = cells.scan(query, want)
        assert np.all(np.diff(owners) >= 0)
        found: Array = starts[owners] + rows
        return found

    truth = np.argsort(-(projected @ projected[::100].T), axis=0)[:12].T
    found = [scan(query, 200) for query in projected[::100]]
    assert np.mean([len(set(rows) & set(wanted)) / 12 for rows, wanted in zip(found, truth, strict=True)]) > 0.95
    assert scan(projected[0], 3000).tolist() == list(range(3000))
    assert len(scan(projected[0], 2500)) == 2500
    # The rows that it gives lie in the nearest cells, of which three hold 400 rows, about.
    monkeypatch.setattr(fast_scan, "CELLS_WITHIN", 0)
    for query in projected[::100]:
        near = np.argsort(-(space.centres @ query))
        assert set(np.concatenate([cells for _, cells in parts])[scan(query, 50)].tolist()) <= set(near[:3].tolist())


def test_without_a_projection_vectors_only_become_unit() -> None:
    space = FullSpace(4)
    assert space.project(np.array([[3, 4, 0, 0], [0, 0, 0, 0]])).tolist() == [
        pytest.approx([0.6, 0.8, 0, 0]),
        [0, 0, 0, 0],
    ]
