"""`visor bulk --merge` where it needs no Beam: one segment, a lost swap, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.index.index_fixtures import MODEL, Shop, clustered, ids_of, keys_of

from visor.app import App
from visor.bulk.lanes import DIRECT
from visor.bulk.merging import BeamBuild
from visor.cli.bulk import _merge
from visor.errors import Conflict
from visor.index.format.ids import id_text
from visor.index.format.manifest import SegmentEntry, read_manifest
from visor.index.merge.inputs import Inputs
from visor.index.merge.merge import merge
from visor.index.merge.pieces import FOLDER, Piece
from visor.index.merge.segment_builder import SegmentBuilder
from visor.settings import Settings


class Raced(BeamBuild):
    """Another merge is faster."""

    def __call__(self, index: Inputs, pieces: Sequence[Piece], builder: SegmentBuilder) -> list[SegmentEntry]:
        merge(index.objects, index.documents, model=MODEL)
        return super().__call__(index, pieces, builder)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(App, "fingerprint", MODEL)
    return Settings(home=tmp_path)


@pytest.fixture
def shop(settings: Settings) -> Shop:
    shop = Shop(settings.home / "indexes" / settings.index)
    shop.add(keys_of(200), clustered(200))
    return shop


def indexed(shop: Shop) -> list[str]:
    return sorted(id_text(row) for _, ids in shop.searcher().full_vectors() for row in ids)


@pytest.mark.parametrize("relearn", [False, True])
def test_one_segment_is_built_here(
    settings: Settings, shop: Shop, capsys: pytest.CaptureFixture[str], relearn: bool
) -> None:
    if relearn:
        merge(shop.objects, shop.documents, model=MODEL)
    said: list[str] = []
    _merge(settings, BeamBuild(settings, [], DIRECT, said.append), relearn=relearn, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["segments"], report["steps"], report["learned"]) == (200, 1, 1, True)
    assert said == ["1 of 1 segments, with 200 images, are to be built"]
    assert indexed(shop) == sorted(ids_of(keys_of(200)))
    assert not [*shop.objects.list(FOLDER)]


def test_a_lost_swap_is_an_error_and_changes_nothing(settings: Settings, shop: Shop) -> None:
    with pytest.raises(Conflict, match="Another merge replaced the manifest meanwhile"):
        _merge(settings, Raced(settings, [], DIRECT, str), relearn=False, as_json=False)
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    assert len(manifest.segments) == 1
    assert indexed(shop) == sorted(ids_of(keys_of(200)))
