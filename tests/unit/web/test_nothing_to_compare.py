"""A picture in which there is nothing to compare: no verdict, no confidence, no guess, and a sentence that says why."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from PIL import Image
from tests.unit.imaging.empty_pictures import EMPTY, as_jpeg, as_png, scene, transparent_ghost

from visor.app import App
from visor.demo.catalogue import DemoCatalogue
from visor.index.merge.merge import merge
from visor.ingest.embed import BatchEmbedder
from visor.ingest.schedule import live_failures
from visor.link_check.duplicate_lookup import find_duplicates
from visor.models.embedder import Embedder
from visor.schema.items import Batch, Change, Item, item_id
from visor.schema.search import SearchAnswer, SearchRequest
from visor.search.service import SearchService
from visor.settings import Settings

CONFIDENCE_MAX = 0.2
SHEETS = ("white", "white again", "one pixel", "disc", "linear gradient", "grey noise", "half a picture")
SCENES = range(5)


def assert_claims_nothing(answer: dict[str, Any]) -> None:
    assert answer["query"]["blank"].startswith(
        ("This picture is ", "This picture has only flat shapes", "The lower part of this picture is missing")
    )
    assert "vector" not in answer["query"]
    assert answer["confidence"] <= CONFIDENCE_MAX
    assert answer["no_confident_match"]
    assert "guess" not in answer
    assert answer["matches"], "the nearest are still listed"
    assert {match["verdict"] for match in answer["matches"]} == {"similar"}
    assert max(match["confidence"] for match in answer["matches"]) <= CONFIDENCE_MAX


@pytest.mark.parametrize("name", EMPTY)
def test_a_query_of_nothing_claims_nothing(client: httpx.Client, name: str) -> None:
    """As a page sends it."""
    assert_claims_nothing(client.post("/v1/search", files={"image": as_jpeg(EMPTY[name]())}).json())


def test_a_plain_part_of_a_picture_claims_nothing(client: httpx.Client) -> None:
    page = Image.new("RGB", (800, 400), "white")
    page.paste(scene().resize((400, 400)), (0, 0))
    files = {"image": as_png(page)}
    assert "blank" not in client.post("/v1/search", files=files).json()["query"]
    box = {"request": '{"box": [0.55, 0.1, 0.4, 0.8]}'}
    assert_claims_nothing(client.post("/v1/search", files=files, data=box).json())


@pytest.mark.slow
def test_a_picture_of_the_catalogue_still_is_the_same(client: httpx.Client, demo_catalogue: DemoCatalogue) -> None:
    for product in demo_catalogue.products[5:25:5]:
        answer = client.post("/v1/search", files={"image": demo_catalogue.picture(product).read_bytes()}).json()
        assert "blank" not in answer["query"]
        assert answer["matches"][0]["verdict"] == "exact"
        assert answer["confidence"] > 0.9


def picture(key: str) -> bytes:
    if key.startswith("scene"):
        return as_png(scene(int(key.split()[1])))
    return transparent_ghost() if key == "ghost" else as_png(EMPTY[key.removesuffix(" again")]())


def embed(batches: BatchEmbedder, *keys: str, version: int = 1) -> None:
    items = [Item(id=item_id("s", key), source="s", key=key, image_url=key, collection=key[:5]) for key in keys]
    changes = tuple(Change(action="embed", item=item, version=version) for item in items)
    batches.embed(msgspec.json.encode(Batch.of("s", "run", changes)))


def opened(home: Path, embedder: Embedder) -> App:
    """An index of empty pictures, two of them the same, and of some that show something."""
    app = App(Settings(home=home, freshness_s=0.0), embedder=embedder)
    app.batch_embedder.read_image = lambda item: picture(item.key)
    embed(app.batch_embedder, *SHEETS, "ghost", *(f"scene {seed}" for seed in SCENES))
    return app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Iterator[App]:
    with opened(tmp_path_factory.mktemp("empty"), embedder) as app:
        yield app


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Iterator[App]:
    with opened(tmp_path_factory.mktemp("merged"), embedder) as app:
        merge(app.stores.objects, app.stores.documents, model=app.embedder.fingerprint)
        yield app


@pytest.fixture(params=["app", "merged"])
def service(request: pytest.FixtureRequest) -> SearchService:
    found: App = request.getfixturevalue(request.param)
    service = found.search_service()
    service.refresh()
    return service


def asked(service: SearchService, **what: Any) -> SearchAnswer:
    return service.search(SearchRequest(k=20, **what))


def test_items_of_nothing_are_listed_and_claim_nothing(service: SearchService) -> None:
    answer = service.search(SearchRequest(k=20), as_png(scene(0)))
    keys = [match.item.key for match in answer.matches]
    assert set(SHEETS) <= set(keys), "each for itself: none is taken for a copy of another"
    by_key = {match.item.key: match for match in answer.matches}
    assert by_key["scene 0"].verdict == "exact"
    assert answer.confidence == by_key["scene 0"].confidence > 0.9
    for key in SHEETS:
        assert (by_key[key].verdict, by_key[key].confidence, by_key[key].places) == ("similar", 0.0, ())
    assert "ghost" in keys


@pytest.mark.parametrize("key", SHEETS)
def test_an_item_of_nothing_is_like_nothing(service: SearchService, key: str) -> None:
    answer = asked(service, item=item_id("s", key))
    assert answer.query.blank
    assert answer.confidence == 0
    assert answer.guess is None
    assert {match.verdict for match in answer.matches} == {"similar"}


def test_a_picture_of_nothing_is_not_the_same_as_that_in_the_catalogue(service: SearchService) -> None:
    answer = service.search(SearchRequest(k=20), as_png(EMPTY["white"]()))
    assert answer.query.blank
    assert answer.confidence == 0
    assert {(match.verdict, match.confidence) for match in answer.matches} == {("similar", 0.0)}


def test_a_vector_of_nothing_meets_no_copy(service: SearchService) -> None:
    """A link that an older Visor made of a blank picture."""
    vector = service.searcher.vector_of(item_id("s", "white"))
    assert vector is not None
    text = base64.b64encode(vector.astype("<f2").tobytes()).decode()
    answer = asked(service, vector=text)
    first = answer.matches[0]
    assert first.item.key in ("white", "white again")
    assert (first.verdict, first.confidence) == ("similar", 0.0)


def test_an_item_of_nothing_stands_in_for_no_dead_link(app: App) -> None:
    stores, model = app.stores, app.embedder.fingerprint
    ids = [item_id("s", key) for key in (*SHEETS, "scene 0")]
    assert set(map(tuple, find_duplicates(stores.objects, stores.documents, model, ids).values())) == {()}


def test_items_of_nothing_are_recorded_with_the_reason(app: App) -> None:
    documents = app.stores.documents
    failures = {document.data["item"]: document.data for document in documents.query("failures")}
    assert set(failures) == {item_id("s", key) for key in SHEETS}
    assert {failure["code"] for failure in failures.values()} == {"nothing_to_compare"}
    assert failures[item_id("s", "disc")]["reason"].startswith("This picture has only flat shapes or lettering")
    assert failures[item_id("s", "grey noise")]["reason"].startswith("This picture is noise")
    assert failures[item_id("s", "half a picture")]["reason"].startswith("The lower part of this picture is missing")
    assert [f.code for f in live_failures(app.stores.documents)] == ["nothing_to_compare"] * len(SHEETS)


def test_an_item_that_shows_something_at_last_has_claims_again(tmp_path: Path, embedder: Embedder) -> None:
    shown = as_jpeg(scene(9))
    with App(Settings(home=tmp_path, freshness_s=0.0), embedder=embedder) as app:
        app.batch_embedder.read_image = lambda item: picture(item.key)
        embed(app.batch_embedder, "disc", "white")
        assert len(live_failures(app.stores.documents)) == 2
        app.batch_embedder.read_image = lambda item: shown
        embed(app.batch_embedder, "disc", version=2)
        assert len(live_failures(app.stores.documents)) == 1
        best = app.search_service().search(SearchRequest(k=1), shown).matches[0]
        assert (best.item.key, best.verdict) == ("disc", "exact")
