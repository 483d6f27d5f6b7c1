"""Shards, segments, projections and manifests of every format version stay readable for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.index.index_fixtures import MODEL, Shop

from visor.index.format.container import FORMAT_VERSION
from visor.index.merge.merge import merge
from visor.index.words.text_index import VERSION
from visor.schema.items import FacetRow, ShardCommit
from visor.schema.search import Filters

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


@pytest.fixture(params=range(1, FORMAT_VERSION + 1))
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Shop, dict[str, Any], Any]:
    """A store with the committed objects of one format version, what they have to answer, and the queries."""
    folder, shop = GOLDEN / f"index-{request.param}", Shop(tmp_path)
    for path in (p for p in folder.rglob("*") if p.suffix in (".shard", ".seg", ".projection") or "manifest" in p.name):
        shop.objects.put(path.relative_to(folder).as_posix(), path.read_bytes())
    expected = json.loads((folder / "expected.json").read_text())
    shard = f"shards/{expected['fresh']}.shard"
    shop.commit(expected["fresh"], ShardCommit(batch="b", model=MODEL, shard=shard, count=8))
    return shop, expected, np.load(folder / "queries.npy")


def answers(shop: Shop, queries: Any) -> list[list[tuple[str, float]]]:
    searcher = shop.searcher()
    modes: list[Any] = ["fast", "exact"]
    return [[(h.id, h.similarity) for h in searcher.search(q, k=5, mode=m).hits] for m in modes for q in queries]


def test_every_version_answers_as_when_it_was_written(golden: tuple[Shop, dict[str, Any], Any]) -> None:
    shop, expected, queries = golden
    for now, then in zip(answers(shop, queries), expected["answers"], strict=True):
        assert [i for i, _ in now] == [i for i, _ in then]
        assert [s for _, s in now] == pytest.approx([s for _, s in then], abs=2e-3)
    searcher = shop.searcher()
    assert len(searcher) == 67
    assert searcher.notice is None
    assert searcher.vector_of(expected["gone"]) is None
    assert searcher.facets(Filters(collection=("updated",))).images == 1
    metric = searcher.search(queries[0], k=1, metric="euclidean").hits[0]
    assert metric.similarity == pytest.approx(1, abs=1e-3)


def test_every_version_can_be_merged_on(golden: tuple[Shop, dict[str, Any], Any]) -> None:
    shop, _, _ = golden
    report = merge(shop.objects, shop.documents, model=MODEL, clock=shop.clock)
    assert report.unreadable == ()
    assert report.images == 67
    assert len(shop.searcher()) == 67


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_words_of_every_version_are_found_as_when_they_were_written(version: int, tmp_path: Path) -> None:
    folder, shop = GOLDEN / f"words-{version}", Shop(tmp_path)
    for path in (p for p in folder.rglob("*") if p.suffix == ".seg" or "manifest" in p.name):
        shop.objects.put(path.relative_to(folder).as_posix(), path.read_bytes())
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    for _ in range(2):
        searcher = shop.searcher()
        assert {text: [h.id for h in searcher.search(None, k=5, text=text).hits] for text in expected} == expected
        assert searcher.search(None, k=5, text="creme").notice is None
        assert searcher.complete("cre", 5) == ["Crème"]
        shop.add(["new"], np.ones((1, 8), np.float32), facets=[FacetRow(texts={})])
        merge(shop.objects, shop.documents, model=MODEL, clock=shop.clock, languages=("english", "french", "russian"))
