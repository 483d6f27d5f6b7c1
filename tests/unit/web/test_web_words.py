"""Words over real HTTP, on the crawled demo shop."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from visor.demo.catalogue import DemoCatalogue


def search(client: httpx.Client, **request: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/v1/search", json=request).raise_for_status().json()
    return answer


def test_words_alone_find_what_says_them(client: httpx.Client, demo_catalogue: DemoCatalogue) -> None:
    product = demo_catalogue.products[7]
    answer = search(client, text=product.title, k=5)
    best = answer["matches"][0]
    assert best["item"]["title"] == product.title
    assert best["similarity"] is None
    assert best["text_score"] > 0
    assert best["verdict"] is None
    title = next(one for one in best["highlights"] if one["field"] == "title")
    assert title["text"][slice(*title["spans"][0])] in product.title
    assert answer["confidence"] > 0.5
    assert not answer["no_confident_match"]
    assert "vector" not in answer["query"]
    scores = [match["text_score"] for match in answer["matches"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("asked", [{"filters": {"price": {"min": 0}}}, {"text": "a", "sort": "price_up"}])
def test_without_a_picture_there_is_no_verdict_about_one(client: httpx.Client, asked: dict[str, Any]) -> None:
    matches = search(client, **asked, k=3)["matches"]
    assert matches
    assert {(match["similarity"], match["verdict"]) for match in matches} == {(None, None)}


def test_words_and_a_picture_make_one_answer(client: httpx.Client, demo_catalogue: DemoCatalogue) -> None:
    product = demo_catalogue.products[7]
    image = demo_catalogue.picture(product).read_bytes()
    form = {"request": json.dumps({"k": 5, "text": product.title.split()[0]})}
    answer = client.post("/v1/search", files={"image": image}, data=form).json()
    assert answer["matches"][0]["item"]["title"] == product.title
    assert answer["matches"][0]["verdict"] == "exact"
    assert answer["matches"][0]["highlights"]


@pytest.mark.parametrize(("text", "is_told"), [("xylophonist", True), ("!!!", True), ("TITLE xylophonist", False)])
def test_words_beside_a_picture_that_nobody_says_are_told_of(
    client: httpx.Client, demo_catalogue: DemoCatalogue, text: str, is_told: bool
) -> None:
    product = demo_catalogue.products[7]
    form = {"request": json.dumps({"k": 5, "text": text.replace("TITLE", product.title)})}
    files = {"image": demo_catalogue.picture(product).read_bytes()}
    answer = client.post("/v1/search", files=files, data=form).json()
    said = f"No match contains '{text}': only the picture counted."
    assert answer.get("notice") == (said if is_told else None)


def test_all_of_a_title_is_sure_and_half_of_it_is_not(client: httpx.Client, demo_catalogue: DemoCatalogue) -> None:
    wanted, other = demo_catalogue.products[7], demo_catalogue.products[40]
    assert not search(client, text=wanted.title)["no_confident_match"]
    half = search(client, text=wanted.title.split()[0] + " xylophonist")
    assert half["matches"]
    assert half["no_confident_match"]
    photo = demo_catalogue.picture(other).read_bytes()
    form = {"request": json.dumps({"k": 5, "text": "xylophonist " + other.title.split()[0]})}
    alone = client.post("/v1/search", files={"image": photo}).json()
    beside = client.post("/v1/search", files={"image": photo}, data=form).json()
    assert beside["confidence"] == pytest.approx(alone["confidence"], abs=0.02)


def test_what_nothing_says_is_not_found(client: httpx.Client) -> None:
    answer = search(client, text="xylophonist qwertz")
    assert answer["matches"] == []
    assert answer["confidence"] == 0
    assert answer["no_confident_match"]


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({"text": "…!"}, "The text '…!' has no word"),
        ({"text": ""}, "The text '' has no word"),
        ({"text": "red", "metric": "cosine"}, "A metric does not go with text"),
        ({"text": "red", "box": [0, 0, 0.5, 0.5]}, "A box or excluded parts do not go with examples or text alone"),
        ({"text": "a" * 401}, "text of the request is"),
        ({"filters": {"collection": ["x"]}, "min_confidence": 0.5}, "min_confidence does not go with filters alone"),
        ({"filters": {"collection": ["x"]}, "min_similarity": 0.5}, "min_similarity does not go with filters alone"),
        ({"filters": {"collection": ["x"]}, "sort": "newest", "nearest": 9}, "nearest does not go with filters alone"),
    ],
)
def test_words_that_cannot_be_searched_for_are_refused(
    client: httpx.Client, request_: dict[str, Any], found: str
) -> None:
    response = client.post("/v1/search", json=request_)
    assert response.status_code == 400
    assert found in response.json()["found"]


def test_facets_count_what_words_alone_find(client: httpx.Client, demo_catalogue: DemoCatalogue) -> None:
    word = demo_catalogue.products[7].title.split()[0]
    every = client.get("/v1/facets").json()["images"]
    counted = client.get("/v1/facets", params={"text": word}).json()
    answer = search(client, text=word, facets=True)
    assert answer["facets"] == counted
    assert counted["images"] == answer["total"] < every
    photo = demo_catalogue.picture(demo_catalogue.products[3]).read_bytes()
    form = {"request": json.dumps({"facets": True, "text": word})}
    beside = client.post("/v1/search", files={"image": photo}, data=form).json()
    assert beside["facets"]["images"] == every, "beside a picture, words put in order what there is"
    assert client.get("/v1/facets", params={"text": "a" * 401}).status_code == 400


@pytest.mark.parametrize(
    ("address", "found", "valid"),
    [
        ("/v1/facets?TEXT=x", "Query parameter 'TEXT' is not one of GET /v1/facets", "text"),
        ("/v1/items?collection=x", "Query parameter 'collection' is not one of GET /v1/items", "limit"),
        ("/v1/suggest?q=a", "Query parameter 'q' is not one of GET /v1/suggest", "text"),
        ("/v1/facets?attributes={", "attributes is '{'", "one JSON object"),
        ("/v1/facets?attributes=[]", "attributes is []", "a table (each a table with the keys any"),
        ("/v1/facets?date_from=2020&date_from=2021", "date_from is '2020 and 2021'", "One date"),
        ("/v1/facets?text=a&text=b", "text is given 2 times", "One text"),
        ("/v1/suggest?text=a&text=b", "text is given 2 times", "One text"),
        ("/v1/items?limit=1&limit=2", "limit is given 2 times", "One limit"),
        ("/v1/facets?text=!!!", "The text '!!!' has no word", "Letters or digits"),
        ("/v1/facets?text=", "The text '' has no word", "Letters or digits"),
    ],
)
def test_parameters_of_words_are_told_as_those_of_a_search(
    client: httpx.Client, address: str, found: str, valid: str
) -> None:
    response = client.get(address)
    problem = response.json()
    assert (response.status_code, problem["found"], bool(problem["remedy"])) == (400, found, True)
    assert valid in problem["valid"]


def test_suggestions_go_on_what_was_typed(client: httpx.Client, demo_catalogue: DemoCatalogue) -> None:
    word = demo_catalogue.products[7].title.split()[0]
    words = client.get("/v1/suggest", params={"text": word[:-1].upper()}).json()["words"]
    assert word in words
    assert all(one.lower().startswith(word[:-1].lower()) for one in words)
    assert client.get("/v1/suggest").json() == {"words": []}
    assert client.get("/v1/suggest", params={"text": "a" * 401}).status_code == 400
