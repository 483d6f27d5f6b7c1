"""Drawings asked for by made-up photos of them, through the real model, embed, merge and search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from visor.demo.catalogue import DemoCatalogue
from visor.imaging.augment import augment, cut_out
from visor.schema.search import Filters, SearchAnswer, SearchRequest
from visor.search.service import SearchService
from visor.settings import Settings
from visor_bench.answers.gap import Bench, Photo, figures, index_of
from visor_bench.answers.life import drawings
from visor_bench.answers.packshots import articles_of, photos_of

ITEMS, PHOTOS = 48, 16


@pytest.fixture(scope="module")
def bench(built_settings: Settings, demo_catalogue: DemoCatalogue) -> Iterator[Bench]:
    with index_of(drawings(demo_catalogue)[:ITEMS], built_settings) as bench:
        yield bench


@pytest.fixture(scope="module")
def photos(demo_catalogue: DemoCatalogue, tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    """Of drawings on a plain ground, by other dice than embed's."""
    folder, made = tmp_path_factory.mktemp("photos"), list[Photo]()
    for number, article in enumerate(drawings(demo_catalogue)[:ITEMS]):
        thing = cut_out(Image.open(article.path).convert("RGB"))
        if thing is not None and len(made) < PHOTOS:
            path = folder / f"{number}.jpg"
            augment(thing, np.random.default_rng(number)).save(path, quality=90)
            made.append(Photo(path, article.title, frozenset([article.id])))
    return made


def said(answer: SearchAnswer) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(answer, timing_ms={}))


def ask(service: SearchService, photo: Photo) -> SearchAnswer:
    return service.search(SearchRequest(k=12), photo.path.read_bytes())


@pytest.mark.slow
def test_without_visitors_photos_are_answered_across_the_gap(bench: Bench, photos: list[Photo]) -> None:
    found = figures([bench.ask(photo) for photo in photos])
    assert len(photos) >= PHOTOS // 2
    assert found["across"] >= 0.8
    assert found["p_at_12"] >= max(0.6, found["plain_p_at_12"])
    assert found["p_at_1"] >= found["plain_p_at_1"]
    assert found["hidden_though_found"] <= 0.25
    assert found["very_likely_and_wrong"] <= 0.1


@pytest.mark.slow
def test_catalogue_images_are_answered_by_their_own_look(bench: Bench, demo_catalogue: DemoCatalogue) -> None:
    own = [Photo(a.path, a.title, frozenset([a.id])) for a in drawings(demo_catalogue)[:12]]
    found = figures([bench.ask(photo) for photo in own])
    assert found["across"] <= 0.1
    assert found["p_at_1"] == 1.0


@pytest.mark.slow
def test_an_answer_depends_on_the_query_and_the_generation_alone(bench: Bench, photos: list[Photo]) -> None:
    first = [said(ask(bench.service, photo)) for photo in photos[:4]]
    other = bench.new_service()
    assert [said(ask(other, photo)) for photo in photos[:4]] == first, "another instance, or after a restart"
    rng = np.random.default_rng(0)
    traits = rng.random((30, bench.embedder.dimension + 1162)).astype(np.float32)
    for one in traits:
        bench.service.visitors.add(one)
    for _ in range(500):
        bench.service.searcher.search(rng.standard_normal(bench.embedder.dimension), k=3)
    assert [said(ask(bench.service, photo)) for photo in photos[:4]] == first, "after what others asked"
    bench.forget()
    assert bench.service.learned_from == 0


@pytest.mark.slow
def test_a_link_is_answered_as_its_picture_was(bench: Bench, photos: list[Photo]) -> None:
    for photo in photos[:4]:
        answer = ask(bench.service, photo)
        again = bench.service.search(SearchRequest(k=12, vector=answer.query.vector))
        assert [m.item.id for m in again.matches] == [m.item.id for m in answer.matches]
        assert again.confidence == pytest.approx(answer.confidence, abs=0.02)


@pytest.mark.slow
def test_a_filter_changes_what_is_asked_and_not_what_is_known(bench: Bench, photos: list[Photo]) -> None:
    for photo in photos[:4]:
        answer = ask(bench.service, photo)
        kept = answer.matches[0]
        assert kept.item.collection is not None
        filters = Filters(collection=(kept.item.collection,))
        filtered = bench.service.search(SearchRequest(k=12, filters=filters), photo.path.read_bytes())
        assert filtered.matches[0].item.id == kept.item.id
        assert filtered.matches[0].confidence == kept.confidence
        assert filtered.confidence == answer.confidence


def test_map_files_say_what_is_right(tmp_path: Path) -> None:
    (tmp_path / "photos" / "Apple").mkdir(parents=True)
    (tmp_path / "photos" / "Other").mkdir()
    for kind in ("Apple", "Other"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / kind / "1.png")
    (tmp_path / "catalogue.json").write_text('[{"title": "Apple", "image": "a.png", "collection": "Fruit"}]')
    (tmp_path / "map.json").write_text('{"Apple": "a.png"}')
    articles = articles_of(tmp_path)
    photos = photos_of(tmp_path / "photos", tmp_path / "map.json")
    assert [(photo.kind, photo.right) for photo in photos] == [("Apple", frozenset([articles[0].id]))]
