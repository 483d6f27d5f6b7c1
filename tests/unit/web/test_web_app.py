"""The search endpoint over real HTTP, on the crawled demo shop."""

from __future__ import annotations

import base64
import io
import secrets
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from PIL import Image

from visor.app import App
from visor.demo.catalogue import DemoCatalogue
from visor.schema.items import Item
from visor.schema.search import Match
from visor.search.service import _guess
from visor.web.site import Server


@pytest.fixture
def picture(demo_catalogue: DemoCatalogue) -> bytes:
    return demo_catalogue.picture(demo_catalogue.products[7]).read_bytes()


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a refused request: complete, and saying what to do."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["found"]
    assert document["remedy"]
    return dict(document)


def test_a_match_without_a_collection_votes_for_none() -> None:
    item = Item(id="0" * 32, source="shop", key="1", image_url="https://shop.example/1.jpg")
    shoe = msgspec.structs.replace(item, collection="shoes")
    sure = Match(item=item, similarity=0.99, confidence=0.99, verdict="exact")
    doubtful = [Match(item=shoe, similarity=0.1, confidence=0.0001, verdict="similar")] * 3
    found = _guess([sure, *doubtful], 0.99)
    assert found is not None
    assert (found.collection, found.probability) == ("shoes", 0.0)
    assert _guess([sure], 0.99) is None


def test_a_picture_of_the_catalogue_is_found_with_its_metadata(
    client: httpx.Client, picture: bytes, demo_catalogue: DemoCatalogue
) -> None:
    product = demo_catalogue.products[7]
    # Bytes that nobody sent before: what was seen in those of others may still be known.
    files = {"image": picture + secrets.token_bytes(8)}
    answer = client.post("/v1/search", files=files, data={"request": '{"k": 5, "facets": true}'}).json()
    best = answer["matches"][0]
    assert best["item"]["title"] == product.title
    assert best["item"]["currency"]
    assert best["item"]["price"] > 0
    assert best["item"]["page_url"].startswith("http")
    assert best["verdict"] == "exact"
    assert len(answer["matches"]) == 5
    similarities = [match["similarity"] for match in answer["matches"]]
    assert similarities == sorted(similarities, reverse=True)
    assert answer["confidence"] > 0.5
    assert not answer["no_confident_match"]
    assert answer["labels"]
    assert answer["safety"]["unsafe"] is False
    assert sum(value["count"] for value in answer["facets"]["collection"]) == answer["index"]["images"]
    assert {"decode", "embed", "scan", "items", "total"} <= set(answer["timing_ms"])


def test_every_way_to_ask_gives_the_same_first_match(client: httpx.Client, picture: bytes) -> None:
    form = client.post("/v1/search", files={"image": picture}).json()
    first = form["matches"][0]["item"]
    raw = client.post("/v1/search", content=picture, headers={"Content-Type": "image/png"}).json()
    text = base64.b64encode(picture).decode()
    body = client.post("/v1/search", json={"image": text}).json()
    data_url = client.post("/v1/search", json={"image": "data:image/png;base64," + text}).json()
    url = client.post("/v1/search", json={"url": first["image_url"]}).json()
    vector = client.post("/v1/search", json={"vector": form["query"]["vector"]}).json()
    for answer in (raw, body, data_url, url, vector):
        assert answer["matches"][0]["item"]["id"] == first["id"]
    assert "fetch" in url["timing_ms"]
    assert "embed" not in vector["timing_ms"]


def test_an_answer_holds_all_that_a_link_to_it_needs(client: httpx.Client, picture: bytes) -> None:
    first = client.post("/v1/search", files={"image": picture}).json()["matches"][0]["item"]
    asked = {"filters": {"collection": [first["collection"]]}, "k": 5, "mode": "exact"}
    answer = client.post("/v1/search", json={"image": base64.b64encode(picture).decode(), **asked}).json()
    stats = client.get("/v1/stats").json()
    assert answer["index"]["model"] == stats["model"]["fingerprint"]
    assert answer["index"]["generation"] == stats["generation"]
    # A link writes the vector URL-safe and without padding.
    vector = answer["query"]["vector"].replace("+", "-").replace("/", "_").rstrip("=")
    again = client.post("/v1/search", json={"vector": vector + "=" * (-len(vector) % 4), **asked}).json()
    assert [m["item"]["id"] for m in again["matches"]] == [m["item"]["id"] for m in answer["matches"]]
    assert [m["similarity"] for m in again["matches"]] == pytest.approx(
        [m["similarity"] for m in answer["matches"]], abs=1e-3
    )
    by_item = client.post("/v1/search", json={"item": first["id"], **asked}).json()
    assert by_item["query"]["item"] == first["id"]
    assert by_item["index"] == answer["index"]


def test_a_link_to_an_answer_tells_the_same_verdict_and_a_strange_vector_none(
    client: httpx.Client, picture: bytes
) -> None:
    shown = client.post("/v1/search", files={"image": picture}).json()
    linked = client.post("/v1/search", json={"vector": shown["query"]["vector"]}).json()
    assert shown["matches"][0]["verdict"] == linked["matches"][0]["verdict"] == "exact"
    assert linked["matches"][1]["verdict"] == "similar"
    assert linked["confidence"] >= 0.99
    numbers = np.random.default_rng(0).random(len(base64.b64decode(shown["query"]["vector"])) // 2)
    strange = base64.b64encode(numbers.astype("<f2").tobytes()).decode()
    answer = client.post("/v1/search", json={"vector": strange}).json()
    assert {match["verdict"] for match in answer["matches"]} == {"similar"}


def test_a_sure_match_outweighs_a_page_of_doubtful_ones(client: httpx.Client, picture: bytes) -> None:
    answer = client.post("/v1/search", files={"image": picture}).json()
    assert answer["guess"]["collection"] == answer["matches"][0]["item"]["collection"]
    assert answer["guess"]["probability"] > 0.8


def test_more_like_this_leaves_the_item_itself_out(client: httpx.Client, picture: bytes) -> None:
    first, second = client.post("/v1/search", files={"image": picture}).json()["matches"][:2]
    more = client.post("/v1/search", json={"item": first["item"]["id"]}).json()
    assert more["query"]["item"] == first["item"]["id"]
    assert more["matches"][0]["item"]["id"] == second["item"]["id"]


def test_ways_through_the_index_agree_on_a_small_one(client: httpx.Client, picture: bytes) -> None:
    answers = {}
    for name, request in (("fast", {}), ("exact", {"mode": "exact"}), ("metric", {"metric": "cosine"})):
        answers[name] = client.post("/v1/search", json={"image": base64.b64encode(picture).decode(), **request}).json()
        assert answers[name]["mode"] == name
    ids = {name: [match["item"]["id"] for match in answer["matches"]] for name, answer in answers.items()}
    assert ids["fast"] == ids["exact"]
    assert ids["metric"][0] == ids["exact"][0]


def test_filters_hold_for_every_match(client: httpx.Client, picture: bytes) -> None:
    facets = client.get("/v1/facets").json()
    collection = facets["collection"][0]["value"]
    body = {"image": base64.b64encode(picture).decode(), "k": 50}
    answer = client.post("/v1/search", json={**body, "filters": {"collection": [collection]}}).json()
    assert {match["item"]["collection"] for match in answer["matches"]} == {collection}
    assert len(answer["matches"]) == facets["collection"][0]["count"]
    narrowed = client.get("/v1/facets", params={"collection": collection}).json()
    assert narrowed["images"] == facets["collection"][0]["count"]
    price = {"min": 5, "max": 20}
    answer = client.post("/v1/search", json={**body, "filters": {"price": price, "currency": ["USD"]}}).json()
    assert answer["matches"]
    assert all(5 <= m["item"]["price"] <= 20 and m["item"]["currency"] == "USD" for m in answer["matches"])


@pytest.mark.slow
def test_a_box_and_excluded_parts_change_what_is_searched_for(
    client: httpx.Client, demo_catalogue: DemoCatalogue
) -> None:
    left, right = (Image.open(demo_catalogue.picture(demo_catalogue.products[n])).convert("RGBA") for n in (5, 30))
    both = Image.new("RGB", (800, 400), "white")
    for place, part in enumerate((left, right)):
        part.thumbnail((400, 400))
        both.paste(part, (400 * place, 0), part)
    buffer = io.BytesIO()
    both.save(buffer, "PNG")
    body = {"image": base64.b64encode(buffer.getvalue()).decode(), "k": 1}
    titles = [demo_catalogue.products[n].title for n in (5, 30)]
    for place in (0, 1):
        boxed = client.post("/v1/search", json={**body, "box": [0.5 * place, 0, 0.5, 1]}).json()
        assert boxed["matches"][0]["item"]["title"] == titles[place]
    painted = client.post("/v1/search", json={**body, "exclude": [[0.5, 0, 0.5, 1]]}).json()
    plain = client.post("/v1/search", json=body).json()
    assert painted["matches"][0]["item"]["title"] == titles[0]
    assert painted["query"]["vector"] != plain["query"]["vector"]


def test_answers_that_need_no_picture(client: httpx.Client, demo_app: App) -> None:
    health = client.get("/v1/health").json()
    assert health["images"] == len(demo_app.searcher) > 50
    stats = client.get("/v1/stats").json()
    assert stats["model"]["dimension"] == demo_app.embedder.dimension
    items = client.get("/v1/items", params={"limit": 6}).json()["items"]
    assert len({item["id"] for item in items}) == 6
    one = client.get(f"/v1/items/{items[0]['id']}").json()
    assert one["item"] == items[0]
    assert client.get("/config.json").json()["title"] == "Visor test"


def test_health_counts_the_images_before_anybody_searched(demo_app: App) -> None:
    with App(demo_app.settings, stores=demo_app.stores, embedder=demo_app.embedder) as app:
        server = Server(app.site({})).start()
        images = httpx.get(server.address + "/v1/health").json()["images"]
        server.stop()
    assert images > 50


@pytest.mark.parametrize(
    ("request_body", "says"),
    [
        ({}, "Exactly one"),
        ({"item": "0" * 32, "vector": "AAAA"}, "Exactly one"),
        ({"vector": "AAAA"}, "2 bytes"),
        ({"vector": "!"}, "base64"),
        ({"image": "!"}, "base64"),
        ({"item": "x", "box": [0, 0, 1, 1]}, "picture"),
        ({"image": "AA==", "k": 0}, "k of the request is 0"),
        ({"image": "AA==", "metric": "chessboard"}, ""),
        ({"image": "AA==", "colour": "red"}, "colour"),
        ({"image": "AA==", "box": [0, 0, 2, 1]}, "box[2] of the request is 2"),
    ],
)
def test_bad_requests_say_what_is_valid(client: httpx.Client, request_body: dict[str, Any], says: str) -> None:
    response = client.post("/v1/search", json=request_body)
    document = problem(response, response.status_code)
    assert response.status_code in (400, 422)
    assert says in document["detail"]


def test_unknown_metric_lists_the_known(client: httpx.Client, picture: bytes) -> None:
    body = {"image": base64.b64encode(picture).decode(), "metric": "chessboard"}
    assert "cityblock" in problem(client.post("/v1/search", json=body), 400)["valid"]


def test_an_unsearchable_picture_is_the_callers_fault(client: httpx.Client, picture: bytes) -> None:
    document = problem(client.post("/v1/search", files={"image": picture[:300]}), 422)
    assert document["type"] == "urn:visor:undecodable_image"
    document = problem(client.post("/v1/search", json={"url": "http://169.254.169.254/latest/meta-data"}), 422)
    assert document["type"] == "urn:visor:fetch_refused"


def test_wrong_addresses_methods_and_types(client: httpx.Client) -> None:
    problem(client.get("/v1/nothing"), 404)
    problem(client.get("/v1/items/" + "0" * 32), 404)
    problem(client.get("/v1/thumbnails/none.jpg"), 404)
    problem(client.get("/v1/model/" + "0" * 64), 404)
    assert problem(client.get("/v1//items"), 404)["remedy"] == "Try /v1/items"
    problem(client.get("/no/such/page"), 404)
    assert "POST /v1/search" in problem(client.get("/v1/search"), 405)["valid"]
    problem(client.post("/v1/search", content=b"x", headers={"Content-Type": "text/plain"}), 415)
    problem(client.post("/v1/search", json={"image": "A" * 30_000_000}), 413)
    problem(client.get("/v1/items", params={"limit": "many"}), 400)
    problem(client.get("/v1/facets", params={"colour": "red"}), 400)
    asked = client.post("/v1/search?k=3", content=b"GIF", headers={"Content-Type": "image/gif"})
    assert problem(asked, 400)["valid"] == "None: what is asked for is in the body"
    assert "path" not in client.get("/../../etc/passwd").text.lower()


def test_cross_origin_headers_and_no_caching(client: httpx.Client) -> None:
    preflight = client.options("/v1/search", headers={"Origin": "https://page.test"})
    assert preflight.status_code == 403
    assert "access-control-allow-origin" not in preflight.headers
    answer = client.get("/v1/health")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_the_vector_of_an_answer_is_the_items_own(client: httpx.Client, picture: bytes, demo_app: App) -> None:
    answer = client.post("/v1/search", files={"image": picture}).json()
    stored = demo_app.searcher.vector_of(answer["matches"][0]["item"]["id"])
    asked = np.frombuffer(base64.b64decode(answer["query"]["vector"]), "<f2").astype(np.float32)
    assert stored is not None
    assert float(stored @ asked) > 0.99
