"""The OpenAPI document is true: schemathesis asks the real server all that it describes, and much that is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import pytest

from visor.app import App
from visor.demo.catalogue import DemoCatalogue
from visor.demo.shop import DemoShop
from visor.schema.search import SearchRequest
from visor.search.query import Stopwatch, seen_of
from visor.web import openapi
from visor.web.endpoints import ENDPOINTS
from visor.web.site import Server

ROOT = Path(__file__).parents[3]
UNDECIDABLE = "positive_data_acceptance,negative_data_rejection"


def test_the_document_is_served_and_kept(demo_server: Server) -> None:
    served = httpx.get(demo_server.address + "/openapi.json").json()
    assert served == json.loads(json.dumps(openapi.document()))
    kept = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert kept == served, "run: python -m visor.web.openapi > docs/openapi.json, then npm run contract in frontend/"


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        ["--exclude-path-regex", "/v1/(search|explain|feedback|compare|facets)"],
        # No generator makes a picture that decodes or a vector of the right length, so valid requests are refused;
        # and of a form with parts taken out it sends one that is whole.
        ["--include-path-regex", "/v1/(search|explain|feedback|compare|facets)", "--exclude-checks", UNDECIDABLE],
    ],
    ids=["reading", "searching"],
)
def test_every_answer_is_as_described(demo_server: Server, tmp_path: Path, part: list[str]) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", demo_server.address + "/openapi.json", *part]
    command += ["--seed", "1", "--max-examples", "60", "--phases", "coverage,fuzzing", "--no-color"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert run.returncode == 0, run.stdout[-6000:]


EXAMPLES = [(name, shown) for name, examples in openapi.EXAMPLES.items() for shown in examples]


@pytest.mark.parametrize(("name", "shown"), EXAMPLES)
@pytest.mark.slow
def test_every_example_is_answered(
    demo_app: App, demo_server: Server, demo_shop: DemoShop, demo_catalogue: DemoCatalogue, name: str, shown: str
) -> None:
    [endpoint] = [one for one in ENDPOINTS if one.name == name]
    value = openapi.EXAMPLES[name][shown]
    with httpx.Client(base_url=demo_server.address, timeout=120) as client:
        if endpoint.request is None:
            assert client.get(endpoint.path, params=value).status_code == 200
            return
        msgspec.convert(value, endpoint.request)
        # What is the reader's own stands in for what the examples name.
        picture = {"url": f"{demo_shop.url}/pictures/{demo_catalogue.products[3].id}"}
        first, second = client.get("/v1/items?limit=2").json()["items"]
        handle = client.post("/v1/search", json={**picture, "remember": True}).json()["query"]["handle"]
        own = {"item": [first["id"], second["id"]], "url": [picture["url"]], "handle": [handle]}
        text = json.dumps(value)
        for kind, theirs in own.items():
            named = dict.fromkeys(re.findall(rf'"{kind}": "(.+?)"', text))
            for known, mine in zip(named, theirs, strict=False):
                text = text.replace(known, mine)
        asked = json.loads(text)
        if "seen" in asked:
            service, data = demo_app.search_service(), demo_catalogue.picture(demo_catalogue.products[3]).read_bytes()
            seen = seen_of(service.queries.query(SearchRequest(), data, Stopwatch()), service.embedder.fingerprint)
            asked["seen"] = msgspec.to_builtins(seen)
        if "after" in asked:
            before = client.post(endpoint.path, json={key: asked[key] for key in asked if key != "after"})
            asked["after"] = before.json()["next"]
        response = client.post(endpoint.path, json=asked)
        assert response.status_code == 200, response.text
        assert all("answer" in outcome for outcome in response.json().get("outcomes", ()))
