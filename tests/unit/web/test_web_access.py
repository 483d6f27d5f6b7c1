"""The access policy of every endpoint: what is refused, what is counted, and what the owner still may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from visor.free_tier.allowances import allowances
from visor.free_tier.quota import GUARDED, Meter
from visor.settings import Settings
from visor.storage import open_stores
from visor.web.access import BILLED_S, KEY_HEADER, AccessPolicy
from visor.web.api import HttpApi

KEY = "a key of twenty characters"
UNKNOWN = "/v1/items/" + "0" * 32


class NoService:
    """Must never be asked: the access policy refuses every request before."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the access policy let through: {name}")


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Meter]:
    with open_stores(Settings(home=tmp_path)) as stores:
        yield Meter(stores.documents, Settings(owner_key=KEY), limited=True)


def client(meter: Meter, **settings: Any) -> FlaskClient:
    """The endpoint in Google's setting, with the meter's store on this machine."""
    own = Settings(backend="gcp", owner_key=KEY, **settings)
    service: Any = NoService()
    app, search = Flask("access"), HttpApi(service, own, AccessPolicy(own, meter))
    methods = ["GET", "POST", "PUT", "DELETE"]
    app.add_url_rule("/<path:path>", "any", lambda path: search(request), methods=methods)
    return app.test_client()


def used(meter: Meter, resource: str) -> float:
    return next(reading.used for reading in meter.readings() if reading.resource == resource)


def use_up(meter: Meter, share: float) -> None:
    """Note searches until so much of what Visor may use of a day's reads is used."""
    reads = next(reading for reading in meter.readings() if reading.resource == "firestore_reads")
    meter.add("reading", reads.limit * share, seconds=0, response_bytes=0)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("PUT", "/v1/search", 405), ("POST", "/v1/items", 401), ("DELETE", UNKNOWN, 401)],
)
def test_what_is_refused_is_counted_as_google_bills_it(meter: Meter, method: str, path: str, status: int) -> None:
    asked = client(meter)
    answers = [asked.open(path, method=method) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status] * 3
    assert used(meter, "requests") == 3
    assert used(meter, "vcpu_s") >= 3 * BILLED_S
    assert used(meter, "response_bytes") == sum(len(answer.data) for answer in answers)


@pytest.mark.parametrize("path", ["/v1/search", "/v1/explain", "/v1/feedback"])
def test_when_the_free_tier_is_used_up_searches_are_told_when_to_come_back(meter: Meter, path: str) -> None:
    use_up(meter, 0.95)
    answer = client(meter).post(path, json={"item": "0" * 32})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 86_400
    problem = answer.get_json()
    assert "Firestore reads" in problem["found"]
    assert "so that Visor costs its owner nothing" in problem["valid"]


@pytest.mark.parametrize("path", ["/v1/facets", "/v1/items", UNKNOWN, "/v1/stats", "/v1/thumbnails/" + "0" * 32])
def test_so_is_everything_that_reads(meter: Meter, path: str) -> None:
    use_up(meter, 0.95)
    assert client(meter).get(path).status_code == 429


def test_the_reserve_is_the_owners(meter: Meter) -> None:
    use_up(meter, 0.95)
    access = AccessPolicy(Settings(backend="gcp", owner_key=KEY), meter)
    with Flask("owner").test_request_context("/v1/search", method="POST", headers={KEY_HEADER: KEY}):
        access.admit("search", request)
    use_up(meter, 0.06)
    answer = client(meter).post("/v1/search", json={"item": "0" * 32}, headers={KEY_HEADER: KEY})
    assert answer.status_code == 429, "what is free is free for the owner, too"


def test_a_client_that_only_reads_is_held_back_too(meter: Meter) -> None:
    asked = client(meter, reads_per_minute=1.0, reads_burst=8)
    statuses = [asked.get("/v1/thumbnails/" + "0" * 32).status_code for _ in range(6)]
    assert statuses == [404, 404, 429, 429, 429, 429]


def test_allowances_that_are_guarded_are_those_that_a_stranger_can_use_up() -> None:
    grows = {(a.service, a.metric) for a in allowances().allowances if a.per != "always"}
    unguarded = grows - {(service, metric) for service, metric, _ in GUARDED.values()}
    assert unguarded == {
        ("Firestore", "data out"),  # inside the region
        ("Cloud Build", "build time"),
        ("Secret Manager", "accesses"),  # one a cold start
        ("Cloud Logging", "taken in"),  # 1 KB a request: requests end first
    }
