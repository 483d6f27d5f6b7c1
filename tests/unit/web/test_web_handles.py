"""A picture is asked for again by its handle: the same answer, without the picture and without a second look at it."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from visor.demo.catalogue import DemoCatalogue
from visor.search import query as queries
from visor.search.query import KEPT_S, RecentQueries

LOOKED = {"decode", "embed"}
BOX = [0.1, 0.1, 0.8, 0.8]
REMEMBER = {"request": '{"remember": true}'}


@pytest.fixture
def picture(demo_catalogue: DemoCatalogue) -> bytes:
    return demo_catalogue.picture(demo_catalogue.products[11]).read_bytes()


def shown(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "timing_ms"}


@pytest.mark.parametrize("part", [{}, {"box": BOX}, {"box": BOX, "exclude": [[0.2, 0.2, 0.1, 0.1]]}])
@pytest.mark.parametrize("change", [{}, {"k": 3}, {"mode": "exact", "facets": True}, {"metric": "cityblock"}])
@pytest.mark.slow
def test_a_handle_answers_as_its_picture(
    client: httpx.Client, picture: bytes, part: dict[str, Any], change: dict[str, Any]
) -> None:
    first = client.post(
        "/v1/search", files={"image": picture}, data={"request": json.dumps({"remember": True, **part})}
    ).json()
    by_handle = client.post("/v1/search", json={"handle": first["query"]["handle"], **part, **change}).json()
    image = {"image": base64.b64encode(picture).decode()}
    by_picture = client.post("/v1/search", json={**image, "remember": True, **part, **change}).json()
    assert shown(by_handle) == shown(by_picture)
    # The same picture again, by whatever way it comes, is not looked at again either.
    assert not LOOKED & (set(by_handle["timing_ms"]) | set(by_picture["timing_ms"]))


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"handle": "0" * 32}, 404, "unknown_handle"),
        ({"handle": ""}, 404, "unknown_handle"),
        ({"handle": "known", "box": [0.5, 0, 0.5, 1]}, 404, "unknown_handle"),
        ({"handle": "known", "exclude": [[0, 0, 0.5, 1]]}, 404, "unknown_handle"),
        ({"handle": "known", "url": "https://shop.example/a.png"}, 400, "bad_request"),
        ({"handle": "known", "image": "aGk="}, 400, "bad_request"),
    ],
)
def test_what_is_not_remembered_is_said(
    client: httpx.Client, picture: bytes, asked: dict[str, Any], status: int, code: str
) -> None:
    handle = client.post("/v1/search", files={"image": picture}, data=REMEMBER).json()["query"]["handle"]
    asked = {**asked, "handle": handle if asked["handle"] == "known" else asked["handle"]}
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:visor:{code}")
    assert answer.json()["remedy"]


def test_a_handle_shows_nothing_to_explain(client: httpx.Client, picture: bytes) -> None:
    first = client.post("/v1/search", files={"image": picture}, data=REMEMBER).json()
    match = first["matches"][0]["item"]["id"]
    refused = client.post("/v1/explain", json={"handle": first["query"]["handle"], "match": match})
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:visor:bad_request")


def test_queries_are_forgotten_after_minutes_and_beyond_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = 0.0, queries.Query(np.zeros(10, np.float32))
    kept = RecentQueries(bytes_max=140, clock=lambda: now)
    started: list[float] = []
    monkeypatch.setattr(queries.threading.Timer, "start", lambda timer: started.append(timer.interval))
    for number in range(5):
        kept.put(number, seen)
    kept.put("huge", queries.Query(np.zeros(36, np.float32)))
    assert [kept.get(number) is not None for number in (0, 1, 2, 3, 4, "huge")] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    assert (started, KEPT_S <= 900) == ([KEPT_S], True)
    now = KEPT_S
    kept._forget()
    assert kept.get(4) is None
    assert not kept._kept.currsize


def test_handles_of_one_process_say_nothing_to_another() -> None:
    one, other = RecentQueries(), RecentQueries()
    assert one.handle(b"a picture") == one.handle(b"a picture") != one.handle(b"another")
    assert one.handle(b"a picture") != other.handle(b"a picture")


def test_only_who_asks_for_a_handle_gets_one(client: httpx.Client, picture: bytes) -> None:
    """An answer is the same from every process, so it has no handle of one."""
    assert "handle" not in client.post("/v1/search", files={"image": picture}).json()["query"]
