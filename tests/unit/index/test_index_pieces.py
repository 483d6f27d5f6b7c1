"""A merge in pieces that others build: the very segments of a merge here, whatever is tried twice, raced or stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.index.index_fixtures import MODEL, Shop, clustered, hash_of, ids_of, keys_of
from tests.unit.index.test_index_merge import Killed, killing, names

from visor.errors import CorruptObject, NotFound
from visor.index.format import fast_scan
from visor.index.format.container import Container
from visor.index.format.ids import id_text
from visor.index.format.manifest import Manifest, SegmentEntry, manifest_object, read_manifest, swap_manifest
from visor.index.merge import segment_builder
from visor.index.merge.inputs import Inputs
from visor.index.merge.merge import Build, MergeReport, merge
from visor.index.merge.pieces import FOLDER, Piece, build_waiting, built, put_piece
from visor.index.merge.policy import MergePolicy
from visor.index.merge.recover import recover_manifest
from visor.index.merge.segment_builder import SegmentBuilder
from visor.schema.items import FacetRow
from visor_bench.load.bulk import digests

SMALL = MergePolicy(segment_rows=100, step_rows=10**9, samples_min=64, small_rows=16, grace_s=60, segments_max=6)


class Elsewhere:
    """Builds pieces as workers do: of nothing but what waits, several times, and leaves what cannot be built."""

    def __init__(self, shop: Shop, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.shop, self.meanwhile, self.pieces = shop, meanwhile, list[str]()

    def __call__(self, index: Inputs, pieces: Sequence[Piece], builder: SegmentBuilder) -> list[SegmentEntry]:
        self.pieces = [put_piece(piece, builder, index) for piece in pieces]
        self.meanwhile()
        for name in (*self.pieces[::-1], *self.pieces):
            try:
                build_waiting(self.shop.objects, self.shop.documents, name)
            except (CorruptObject, NotFound):
                continue
        for name in self.pieces:
            build_waiting(self.shop.objects, self.shop.documents, name)
        return [built(self.shop.objects, name) for name in self.pieces]


@pytest.fixture(autouse=True)
def fast_scans_and_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """In segments that tests can make."""
    monkeypatch.setattr(fast_scan, "PQ_SAMPLES_MIN", 16)
    monkeypatch.setattr(segment_builder, "PQ_ROWS_MIN", 16)
    monkeypatch.setattr(fast_scan, "CELLS_LEARNED_FROM", 64)
    monkeypatch.setattr(fast_scan, "CELLS", 4)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "one")


def twin(shop: Shop) -> Shop:
    """The same index once more."""
    shop.documents.close()
    shutil.copytree(shop.root, shop.root.with_name("twin"))
    return Shop(shop.root.with_name("twin"), now=[*shop.now])


def run(shop: Shop, build: Build | None = None, **options: Any) -> MergeReport:
    options = {"policy": SMALL, "clock": shop.clock, "languages": ("english",), **options}
    return merge(shop.objects, shop.documents, model=MODEL, build=build, **options)


def fill(shop: Shop, count: int, prefix: str = "k", version: int = 1, seed: int = 0) -> list[str]:
    keys, vectors = keys_of(count, prefix), clustered(count, seed=seed)
    for start in range(0, count, 30):
        rows = slice(start, start + 30)
        texts = [{"title": f"A {key} of many things"} for key in keys[rows]]
        facets = [FacetRow(collection=f"c{n % 3}", price=n, texts=text) for n, text in enumerate(texts)]
        # Some show the same picture.
        hashes = [hash_of(key[:2]) for key in keys[rows]]
        shop.add(keys[rows], vectors[rows], version=version, facets=facets, hashes=hashes)
    return keys


def manifest_of(shop: Shop) -> Manifest:
    manifest, _ = read_manifest(shop.objects, MODEL)
    assert manifest is not None
    return manifest


def content(shop: Shop) -> tuple[Any, ...]:
    """All tensors of the live segments, what words find, and what the manifest says besides names and times."""
    manifest = manifest_of(shop)
    said = tuple(msgspec.structs.replace(entry, name="", digest="") for entry in manifest.segments)
    besides = {"segments": said, "trash": (), "merged": {}, "created_at": 0.0, "collected_at": 0.0}
    words = shop.searcher(languages=("english",)).search(None, k=500, text="thing").hits
    return msgspec.structs.replace(manifest, **besides), digests(shop.objects, manifest), [hit.id for hit in words]


def found(shop: Shop) -> list[str]:
    """Ids of the live rows, sorted."""
    return sorted(id_text(row) for _, ids in shop.searcher().full_vectors() for row in ids)


def fresh(shop: Shop) -> dict[str, Any]:
    fill(shop, 330)
    return {}


def relearned(shop: Shop) -> dict[str, Any]:
    fill(shop, 250)
    run(shop)
    fill(shop, 60, "more", seed=1)
    return {"relearn": True}


def changed(shop: Shop) -> dict[str, Any]:
    """Older and newer versions in several pieces, tombstones and updates for rows there and for rows to come."""
    fill(shop, 250)
    run(shop)
    fill(shop, 120, version=3, seed=2)
    fill(shop, 60, version=2, seed=3)
    for number in range(0, 50, 7):
        shop.delete(f"k{number}", 9)
        shop.update(f"k{number + 1}", 9, FacetRow(collection="new", price=7))
    shop.delete("to come", 9)
    return {"relearn": True}


def small(shop: Shop) -> dict[str, Any]:
    """Too few to learn on, but for pending deletes."""
    fill(shop, 20)
    shop.delete("to come", 9)
    return {}


def deleted(shop: Shop) -> dict[str, Any]:
    """Nothing is left but what may come."""
    for key in fill(shop, 20):
        shop.delete(key, 9)
    return {}


@pytest.mark.parametrize("make", [fresh, relearned, changed, small, deleted])
@pytest.mark.slow
def test_pieces_built_elsewhere_are_the_segments_of_a_merge(shop: Shop, make: Callable[[Shop], dict[str, Any]]) -> None:
    options = make(shop)
    other = twin(shop)
    build = Elsewhere(other)
    ours, theirs = run(shop, **options), run(other, build, **options)
    assert content(other) == content(shop)
    assert ours.images == theirs.images == manifest_of(shop).images
    assert found(other) == found(shop)
    assert len(build.pieces) == len(manifest_of(shop).segments) or make is changed
    assert not names(other, FOLDER)
    before = names(other, "segments/")
    again = Elsewhere(other)
    assert run(other, again).steps == 0
    assert (again.pieces, names(other, "segments/")) == ([], before)
    # By their names they are newer than what they were made of.
    live = manifest_of(other).segments
    other.objects.delete(manifest_object(MODEL))
    recovered = recover_manifest(other.objects, MODEL).segments[-len(live) :]
    assert {entry.name: entry for entry in recovered} == {entry.name: entry for entry in live}


@pytest.mark.slow
def test_a_merge_that_lost_its_swap_uses_nothing_and_says_so(shop: Shop) -> None:
    keys = fill(shop, 330)
    raced = Elsewhere(shop, lambda: run(shop))
    report = run(shop, raced)
    assert (report.conflicts, report.finished, report.steps) == (1, False, 0)
    assert found(shop) == sorted(ids_of(keys))
    live = {entry.name for entry in manifest_of(shop).segments}
    assert not live & {f"segments/{name}" for name in raced.pieces}
    assert run(shop, Elsewhere(shop)).finished
    for _ in range(3):  # orphans are noted, then deleted
        shop.now[0] += 2 * SMALL.orphan_every_s
        run(shop)
    assert (names(shop, "segments/"), names(shop, FOLDER)) == (live, set())


@pytest.mark.slow
@pytest.mark.parametrize("at", range(1, 16))
def test_a_merge_that_dies_anywhere_goes_on_from_there(shop: Shop, at: int) -> None:
    keys = fill(shop, 330)
    other = twin(shop)
    run(other)
    for _ in killing(shop, at):
        with suppress(Killed):
            run(shop, Elsewhere(shop))
    done = names(shop, "segments/")
    run(shop, Elsewhere(shop))
    assert found(shop) == sorted(ids_of(keys))
    assert content(shop) == content(other)
    assert done <= {entry.name for entry in manifest_of(shop).segments} == names(shop, "segments/")
    for _ in range(3):
        shop.now[0] += 2 * SMALL.orphan_every_s
        run(shop)
    assert names(shop, FOLDER) == set()


@pytest.mark.slow
def test_a_damaged_segment_is_named_and_left_where_it_is(shop: Shop) -> None:
    fill(shop, 250)
    run(shop)
    bad = max(names(shop, "segments/"))
    data = bytearray(shop.objects.get(bad))
    data[Container.open(bad, memoryview(bytes(data)), kind="segment").tensors["vectors"].start + 5] ^= 1
    shop.objects.put(bad, bytes(data))
    fill(shop, 60, "more", seed=1)
    other = twin(shop)
    ours, theirs = run(shop, relearn=True), run(other, Elsewhere(other), relearn=True)
    assert theirs.unreadable == ours.unreadable
    assert bad in ours.unreadable[0]
    assert content(other) == content(shop)


@pytest.mark.slow
def test_a_worker_does_nothing_for_a_manifest_that_was_replaced(shop: Shop) -> None:
    fill(shop, 250)
    run(shop)
    before, generation = read_manifest(shop.objects, MODEL)
    assert before is not None
    fill(shop, 330, "more")
    report = run(shop, Elsewhere(shop, lambda: swap_manifest(shop.objects, before, generation)))
    assert (report.conflicts, report.finished) == (1, False)
    assert names(shop, "segments/") == {entry.name for entry in before.segments}
