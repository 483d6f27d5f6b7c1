"""Several pictures, orders, pages, many searches at once and two pictures compared, over real HTTP."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from visor.demo.catalogue import DemoCatalogue


@pytest.fixture(scope="module")
def pictures(demo_catalogue: DemoCatalogue) -> list[str]:
    """Each product's picture in base64."""
    paths = [demo_catalogue.picture(product) for product in demo_catalogue.products]
    return [base64.b64encode(path.read_bytes()).decode() for path in paths]


def search(client: httpx.Client, **request: Any) -> dict[str, Any]:
    response = client.post("/v1/search", json=request)
    assert response.status_code == 200, response.text
    return dict(response.json())


def ids(answer: dict[str, Any]) -> list[str]:
    return [match["item"]["id"] for match in answer["matches"]]


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"sort": "price_up"},
        {"sort": "price_up", "nearest": 20},
        {"sort": "newest"},
        {"variety": 0.6},
        {"min_similarity": 0.5},
        {"min_confidence": 0.01},
    ],
    ids=str,
)
@pytest.mark.slow
def test_pages_go_on_by_the_vector_to_the_end_and_repeat_nothing(
    client: httpx.Client, pictures: list[str], order: dict[str, Any]
) -> None:
    answer = search(client, image=pictures[3], k=7, **order)
    found, vector, total = ids(answer), answer["query"]["vector"], answer.get("total")
    while answer.get("next"):
        answer = search(client, vector=vector, k=7, after=answer["next"], **order)
        assert answer["matches"]
        found += ids(answer)
    assert len(found) == len(set(found))
    whole = search(client, image=pictures[3], k=200, **order)
    assert sorted(found) == sorted(ids(whole))
    assert whole["total"] >= len(found)
    assert total is None or total >= len(found)
    assert "next" not in whole


@pytest.mark.parametrize("sort", ["likeness", "newest"])
def test_a_match_passes_with_the_similarity_that_it_is_shown_with(
    client: httpx.Client, pictures: list[str], sort: str
) -> None:
    first = search(client, image=pictures[3], k=12, group=False)
    vector = first["query"]["vector"]
    for place, match in enumerate(first["matches"], 1):
        near = search(client, vector=vector, k=48, group=False, sort=sort, min_similarity=match["similarity"])
        assert sorted(ids(near)) == sorted(ids(first)[:place])


def test_a_match_of_picture_and_words_is_as_sure_on_whichever_page_it_is(
    client: httpx.Client, pictures: list[str], demo_catalogue: DemoCatalogue
) -> None:
    vector = search(client, image=pictures[3])["query"]["vector"]
    asked = {"vector": vector, "text": demo_catalogue.products[20].title, "group": False}
    whole = search(client, **asked, k=48)["matches"]
    pages = [search(client, **asked, k=2)]
    while len(pages) < 10:
        pages.append(search(client, **asked, k=2, after=pages[-1]["next"]))
    sure = {match["item"]["id"]: match["confidence"] for match in whole}
    assert {i: sure[i] for page in pages for i in ids(page)} == {
        match["item"]["id"]: match["confidence"] for page in pages for match in page["matches"]
    }
    least = whole[5]["confidence"]
    enough = [match["item"]["id"] for match in whole if match["confidence"] >= least]
    assert sorted(ids(search(client, **asked, k=48, min_confidence=least))) == sorted(enough)


def test_variety_does_not_undo_another_order(client: httpx.Client, pictures: list[str]) -> None:
    vector = search(client, image=pictures[3])["query"]["vector"]
    dearest = ids(search(client, vector=vector, k=48, sort="price_down"))
    assert ids(search(client, vector=vector, k=48, sort="price_down", variety=0.5)) == dearest
    assert ids(search(client, vector=vector, k=48, variety=0.5)) != ids(search(client, vector=vector, k=48))


@pytest.mark.parametrize("sort", ["price_up", "price_down"])
def test_an_order_does_not_change_what_is_known_of_the_query(
    client: httpx.Client, pictures: list[str], sort: str
) -> None:
    """Three of an order may all be unlike the picture, which the catalogue has all the same."""
    asked = {"image": pictures[3], "k": 3}
    nearest, other = search(client, **asked), search(client, **asked, sort=sort)
    assert nearest["guess"]
    assert "guess" not in other, "the nearest, which vote for it, are not on the page"
    assert other["confidence"] == pytest.approx(nearest["confidence"], abs=0.1)
    assert not other.get("no_confident_match")


@pytest.mark.parametrize("sort", ["likeness", "price_up", "newest"])
def test_filters_alone_give_all_that_passes(client: httpx.Client, sort: str) -> None:
    [largest, *_] = client.get("/v1/facets").json()["collection"]
    filters = {"collection": [largest["value"]]}
    answer = search(client, filters=filters, k=3, sort=sort)
    found, total = ids(answer), answer["total"]
    while answer.get("next"):
        answer = search(client, filters=filters, k=3, sort=sort, after=answer["next"])
        found += ids(answer)
        assert all(match["similarity"] is None for match in answer["matches"])
    assert len(found) == len(set(found)) == total == largest["count"]
    prices = [match["item"].get("price", math.inf) for match in search(client, filters=filters, sort=sort)["matches"]]
    assert sort != "price_up" or prices == sorted(prices)


def test_nothing_at_all_is_still_refused(client: httpx.Client) -> None:
    for nothing in ({}, {"filters": {}}, {"filters": {"collection": []}, "sort": "newest"}):
        response = client.post("/v1/search", json=nothing)
        assert response.status_code == 400
        assert "nothing to search for" in response.json()["found"]


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ('{"price": {"max": 0}}', 200),
        ('{"collection": {"none": ["x"]}}', 200),
        ('{"colour": {"any": "red"}}', 400),
        ("{", 400),
        ("[]", 400),
    ],
)
def test_facets_are_counted_under_conditions_on_attributes(client: httpx.Client, attributes: str, status: int) -> None:
    response = client.get("/v1/facets", params={"attributes": attributes})
    assert response.status_code == status, response.text
    if status == 200:
        asked = {"item": client.get("/v1/items").json()["items"][0]["id"], "facets": True}
        both = search(client, **asked, filters={"attributes": json.loads(attributes)})["facets"]
        assert response.json() == both


def test_confidence_of_a_page_goes_on_where_that_of_the_page_before_ended(
    client: httpx.Client, pictures: list[str]
) -> None:
    whole = search(client, image=pictures[3], k=40)
    first = search(client, image=pictures[3], k=10)
    second = search(client, image=pictures[3], k=10, after=first["next"])
    assert max(m["confidence"] for m in second["matches"]) <= min(m["confidence"] for m in first["matches"])
    known = {m["item"]["id"]: m["confidence"] for m in whole["matches"]}
    for match in second["matches"]:
        assert match["confidence"] == pytest.approx(known[match["item"]["id"]], abs=0.05)


def test_an_order_by_price_with_a_threshold_gives_the_sure_ones_only(client: httpx.Client, pictures: list[str]) -> None:
    plain = search(client, image=pictures[3], k=50)
    least = plain["matches"][4]["confidence"]
    answer = search(client, image=pictures[3], k=50, sort="price_up", min_confidence=least)
    assert 1 <= len(answer["matches"]) < len(plain["matches"])
    assert all(match["confidence"] >= least for match in answer["matches"])
    prices = [match["item"]["price"] for match in answer["matches"]]
    assert prices == sorted(prices)
    copy = search(client, image=pictures[3], k=3, sort="most_changed")["matches"][0]
    assert copy["verdict"] == "exact"


@pytest.mark.slow
@pytest.mark.parametrize("with_picture", [False, True])
@pytest.mark.parametrize(
    ("text", "more"),
    [("red circle", {}), ("red heart", {"sort": "price_up"}), ("red circle", {"variety": 0.5})],
    ids=str,
)
def test_a_page_of_words_is_as_full_as_there_are_sure_matches(
    client: httpx.Client, pictures: list[str], text: str, more: dict[str, Any], with_picture: bool
) -> None:
    asked = {"text": text, "group": False} | more
    if with_picture:
        asked["vector"] = search(client, image=pictures[3], k=1)["query"]["vector"]
    every = pages(client, asked | {"k": 50})
    sure = sorted((match["confidence"] for match in every), reverse=True)
    for least in {sure[0], sure[len(sure) // 3]}:
        found = pages(client, asked | {"k": 4, "min_confidence": least})
        assert all(match["confidence"] >= least for match in found)
        # Of a picture's matches behind each other, confidence is given by the page.
        slack = 0.05 if with_picture else 0.0
        named = {match["item"]["id"] for match in found}
        assert {match["item"]["id"] for match in every if match["confidence"] >= least + slack} <= named
        assert named <= {match["item"]["id"] for match in every if match["confidence"] >= least - slack}


def pages(client: httpx.Client, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """All matches, once each, on pages that are full but for the last."""
    found = list[dict[str, Any]]()
    after = dict[str, str]()
    while True:
        page = search(client, **asked, **after)
        found += page["matches"]
        if "next" not in page:
            assert len({match["item"]["id"] for match in found}) == len(found)
            return found
        assert len(page["matches"]) == asked["k"]
        after = {"after": page["next"]}


@pytest.mark.parametrize(
    "changed", [{"sort": "oldest"}, {"after": "AAAA"}, {"after": "!"}, {"after": ""}, {"group": False}], ids=str
)
def test_a_cursor_of_something_else_is_refused(
    client: httpx.Client, pictures: list[str], changed: dict[str, Any]
) -> None:
    after = search(client, image=pictures[3], k=5)["next"]
    response = client.post("/v1/search", json={"image": pictures[3], "after": after} | changed)
    assert response.status_code == 400
    assert "after" in response.json()["found"]


def test_a_cursor_of_another_picture_is_refused(client: httpx.Client, pictures: list[str]) -> None:
    first, second = ids(search(client, image=pictures[3]))[:2]
    after = search(client, item=first, k=5)["next"]
    assert search(client, item=first, k=5, after=after)["matches"]
    for other in ({"item": second}, {"image": pictures[20]}, {"text": "apple"}, {"examples": [{"item": second}]}):
        response = client.post("/v1/search", json={"k": 5, "after": after} | other)
        assert response.status_code == 400
        assert "after is the cursor of" in response.json()["found"]


def test_one_example_is_the_picture_and_two_are_near_both(client: httpx.Client, pictures: list[str]) -> None:
    alone = search(client, image=pictures[3])
    assert ids(search(client, examples=[{"image": pictures[3]}])) == ids(alone)
    both = search(client, image=pictures[3], examples=[{"image": pictures[20], "weight": 1}], k=4)
    first = ids(alone)[0], ids(search(client, image=pictures[20]))[0]
    assert set(first) <= set(ids(both))
    assert {match["verdict"] for match in both["matches"] if match["item"]["id"] in first} == {"exact"}
    linked = search(client, vector=both["query"]["vector"], k=4)
    assert ids(linked) == ids(both)


def test_what_it_should_not_be_like_goes_back(client: httpx.Client, pictures: list[str]) -> None:
    alone = search(client, image=pictures[3], k=30)
    unlike = alone["matches"][1]["item"]["id"]
    answer = search(client, image=pictures[3], examples=[{"item": unlike, "weight": -0.6}], k=30)
    assert unlike not in ids(answer)
    assert ids(answer)[0] == ids(alone)[0]
    assert ids(answer) != [i for i in ids(alone) if i != unlike]
    # What is judged is what is wanted, so that what is not wanted makes nothing surer.
    assert answer["confidence"] <= alone["confidence"] + 0.02


@pytest.mark.parametrize(
    ("request_body", "says"),
    [
        ({"examples": [{}]}, "nothing to search for"),
        ({"examples": [{"item": "0" * 32}, {"item": "0" * 32}] * 5}, "examples"),
        ({"examples": [{"item": "0" * 32, "weight": 2}]}, "weight"),
        ({"examples": [{"item": "0" * 32}], "box": [0, 0, 1, 1]}, "box"),
        ({"item": "0" * 32, "variety": 1.5}, "variety"),
    ],
)
def test_wrong_examples_are_refused(client: httpx.Client, request_body: dict[str, Any], says: str) -> None:
    response = client.post("/v1/search", json=request_body)
    assert response.status_code == 400
    assert says in response.json()["found"]


def test_a_picture_and_its_opposite_are_refused(client: httpx.Client, pictures: list[str]) -> None:
    response = client.post(
        "/v1/search", json={"image": pictures[3], "examples": [{"image": pictures[3], "weight": -1}]}
    )
    assert response.status_code == 400
    assert "cancel" in response.json()["found"]


def on_paper(*places: tuple[str, tuple[int, int]]) -> str:
    """Pictures, each at a place on a large white sheet, as a photo in base64."""
    sheet = Image.new("RGB", (640, 480), "white")
    for picture, place in places:
        drawn = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGBA")
        drawn = drawn.resize((200, 160))
        sheet.paste(drawn, place, drawn)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.slow
@pytest.mark.parametrize("part", [{}, {"box": [0.5, 0.5, 0.5, 0.5]}], ids=["whole", "part"])
def test_what_in_a_photo_to_look_for_is_told_when_asked(
    client: httpx.Client, pictures: list[str], part: dict[str, Any]
) -> None:
    """Of the whole picture, whatever part is searched for; and by its handle once it was told."""
    image = on_paper((pictures[3], (30, 20)), (pictures[9], (400, 300)))
    assert "regions" not in search(client, image=image, **part)
    told = search(client, image=image, regions=True, remember=True, **part)
    regions = told["regions"]
    assert 1 <= len(regions) <= 4
    for x, y, width, height in (region["box"] for region in regions):
        middle = x + width / 2, y + height / 2
        assert 0 <= x < x + width <= 1
        assert 0 <= y < y + height <= 1
        assert 0.03 <= width * height <= 0.8
        assert min(abs(middle[0] - 0.2) + abs(middle[1] - 0.21), abs(middle[0] - 0.78) + abs(middle[1] - 0.79)) < 0.3
    again = search(client, handle=told["query"]["handle"], regions=True, **part)
    assert (again["regions"], "embed" in again["timing_ms"]) == (regions, False)
    for same in ({"handle": told["query"]["handle"]}, {"image": image}):
        assert "regions" not in search(client, **same, **part), "who asked before does not change an answer"
    assert "regions" not in search(client, item=told["matches"][0]["item"]["id"], regions=True)


def test_no_part_of_a_picture_is_suggested_that_is_too_small_to_search_for(client: httpx.Client) -> None:
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1500, 2, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    strip.save(buffer, "PNG")
    answer = search(client, image=base64.b64encode(buffer.getvalue()).decode(), regions=True)
    assert "regions" not in answer
    assert answer["matches"]


def test_a_handle_knows_of_regions_only_what_was_asked(client: httpx.Client, pictures: list[str]) -> None:
    image = on_paper((pictures[4], (200, 200)))
    handle = search(client, image=image, remember=True)["query"]["handle"]
    response = client.post("/v1/search", json={"handle": handle, "regions": True})
    assert (response.status_code, response.json()["type"]) == (404, "urn:visor:unknown_handle")


@pytest.mark.parametrize("after", [{"k": 3}, {"sort": "newest"}], ids=str)
def test_examples_and_pages_by_handle(client: httpx.Client, pictures: list[str], after: dict[str, Any]) -> None:
    first, second = (search(client, image=picture, k=1, remember=True)["query"]["handle"] for picture in pictures[5:7])
    by_handle = search(client, handle=first, examples=[{"handle": second}], **after)
    by_picture = search(client, image=pictures[5], examples=[{"image": pictures[6]}], **after)
    assert ids(by_handle) == ids(by_picture)
    page = search(client, handle=first, examples=[{"handle": second}], **after, after=by_picture["next"])
    assert not {*ids(page)} & {*ids(by_picture)}


def test_many_searches_have_an_answer_or_a_problem_each(client: httpx.Client, pictures: list[str]) -> None:
    before = client.get("/v1/stats").json()["searches"]
    asked = [{"image": pictures[3], "k": 2}, {"item": "0" * 32}, {"vector": "!"}, {"image": pictures[5], "k": 1}]
    outcomes = client.post("/v1/searches", json={"searches": asked}).json()["outcomes"]
    assert [outcome.get("problem", {}).get("status") for outcome in outcomes] == [None, 404, 400, None]
    assert ids(outcomes[0]["answer"]) == ids(search(client, **asked[0]))
    assert client.get("/v1/stats").json()["searches"] >= before + 2
    assert client.post("/v1/searches", json={"searches": []}).status_code == 400
    assert client.post("/v1/searches", json={"searches": [asked[1]] * 17}).status_code == 400


def edited(picture: str, edit: Callable[[Image.Image], Image.Image]) -> str:
    drawn = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGBA")
    paper = Image.new("RGBA", drawn.size, "white")
    buffer = io.BytesIO()
    edit(Image.alpha_composite(paper, drawn).convert("RGB")).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("edit", "verdict"),
    [
        (lambda image: image, "exact"),
        (lambda image: image.crop((image.width // 10, image.height // 9, image.width, image.height)), "edited"),
        (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "edited"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_90), "edited"),
    ],
    ids=["same", "crop", "mirrored", "turned"],
)
def test_an_edited_picture_is_laid_over_the_original(
    client: httpx.Client, pictures: list[str], edit: Callable[[Image.Image], Image.Image], verdict: str
) -> None:
    body = {"first": {"image": pictures[3]}, "second": {"image": edited(pictures[3], edit)}}
    for asked in (body, {"first": body["second"], "second": body["first"]}):
        answer = client.post("/v1/compare", json=asked).json()
        assert answer["verdict"] == verdict
        assert answer["confidence"] >= 0.95
        assert answer["is_aligned"]
        first, second, unlike = (
            Image.open(io.BytesIO(base64.b64decode(answer[name]))) for name in ("first", "second", "difference")
        )
        assert first.size == second.size == unlike.size
        assert sum(n * count for n, count in enumerate(unlike.histogram())) / unlike.width / unlike.height < 16


@pytest.mark.slow
def test_other_pictures_are_compared_without_being_laid_over(client: httpx.Client, pictures: list[str]) -> None:
    item = ids(search(client, image=pictures[30]))[0]
    answer = client.post("/v1/compare", json={"first": {"image": pictures[3]}, "second": {"item": item}}).json()
    assert answer["verdict"] == "similar"
    assert not answer["is_aligned"]
    assert "difference" not in answer
    assert answer["confidence"] < 0.5
    for second, found in (({}, "has nothing to compare"), ({"item": item, "url": "http://a/b"}, "has url and item")):
        wrong = client.post("/v1/compare", json={"first": {"image": pictures[3]}, "second": second})
        assert (wrong.status_code, found in wrong.json()["found"]) == (400, True)
        assert wrong.json()["valid"] == "Exactly one of image, url, item for each"
