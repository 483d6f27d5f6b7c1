"""A picture that a visitor's own device looked at: the same answer, and nothing that a stranger gains by it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from PIL import Image, ImageOps
from tests.unit.imaging.empty_pictures import disc, noise, scene
from werkzeug.test import Client

import visor
from visor.app import App
from visor.confidence.across import Across, packed
from visor.demo.catalogue import DemoCatalogue
from visor.errors import BadRequest
from visor.free_tier.quota import Meter
from visor.index.format.looks import LOOK_BYTES, no_looks
from visor.index.search.fusion import traits
from visor.models.device import device_model
from visor.models.embedder import Embedder, is_made_by
from visor.models.store import models_folder
from visor.near_duplicates.fingerprint import HASH_BYTES
from visor.schema.search import SearchRequest, Seen
from visor.search.links import decode_vector, encode_vector
from visor.search.query import Stopwatch, seen_of
from visor.search.service import SearchService
from visor.search.visitors import VisitorLog, VisitorSums
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.web.site import Server

SEARCH = Path(__file__).parents[3] / "functions" / "search" / "main.py"
NUMBERS = 3328
TESTED = {"labels", "safety", "facets", "no_confident_match", "index", "total"}
"""Of an answer, what is the same to the last digit."""


@dataclass
class Function:
    """A function's address, and the process that began it."""

    client: httpx.Client
    pid: int

    def has_loaded(self, library: str) -> bool:
        """Whether it, or a worker of it, has the library in its memory."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True, check=False
        )
        pids = [str(self.pid), *found.stdout.split()]
        return any(library in Path(f"/proc/{pid}/maps").read_text() for pid in pids)


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def data_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def service(demo_app: App) -> SearchService:
    made = demo_app.search_service()
    made.refresh()
    return made


@pytest.fixture(scope="module")
def own(demo_catalogue: DemoCatalogue) -> Image.Image:
    """A picture of the catalogue."""
    return Image.open(demo_catalogue.picture(demo_catalogue.products[7])).convert("RGBA")


def look(service: SearchService, image: Image.Image, *, closer: bool = False) -> Seen:
    """What a device sends of a picture."""
    query = service.queries.query(SearchRequest(), data_of(image), Stopwatch(), closer=closer)
    return seen_of(query, service.embedder.fingerprint)


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 12, height // 12, width - width // 12, height - height // 12))


def mirrored(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return ImageOps.mirror(white)


PICTURES: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "the same": (lambda own: own, "exact"),
    "smaller": (lambda own: own.resize((own.width // 2, own.height // 2)), "exact"),
    "cropped": (cropped, "edited"),
    "mirrored": (mirrored, "edited"),
    "another": (lambda own: scene(3), "similar"),
    "blank": (lambda own: disc(), "similar"),
    "noise": (lambda own: noise(), "similar"),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("asked", [{}, {"mode": "exact", "facets": True}, {"sort": "price_up", "min_similarity": 0.4}])
def test_what_a_device_saw_is_answered_as_its_picture(
    service: SearchService, own: Image.Image, kind: str, asked: dict[str, Any]
) -> None:
    make, verdict = PICTURES[kind]
    image = make(own)
    wanted = service.search(SearchRequest(**asked), data_of(image))
    found = service.search(SearchRequest(seen=look(service, image), **asked))
    for name in TESTED:
        assert getattr(found, name) == getattr(wanted, name), name
    assert [(m.item.id, m.verdict) for m in found.matches] == [(m.item.id, m.verdict) for m in wanted.matches]
    assert found.matches[0].verdict == verdict or asked.get("sort")
    assert (found.guess and found.guess.collection) == (wanted.guess and wanted.guess.collection)
    assert found.confidence == pytest.approx(wanted.confidence, abs=0.03)
    for one, other in zip(found.matches, wanted.matches, strict=True):
        assert one.similarity == pytest.approx(other.similarity, abs=1e-3)
        assert one.confidence == pytest.approx(other.confidence, abs=0.03)
    same = ("vector", "width", "height", "blank", "item")
    assert [getattr(found.query, name) for name in same] == [getattr(wanted.query, name) for name in same]


@pytest.mark.slow
def test_across_the_gap_too(service: SearchService, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [look(service, scene(number), closer=True) for number in range(6)]
    looked = [decode_vector(photo.closer or "", NUMBERS) for photo in photos]
    visitors = np.mean([traits(one[None], seen[None])[0] for one, seen in looked if seen is not None], axis=0)
    vectors = np.stack([service.searcher.vector_of(i) for i in service.searcher.sample(20)])
    catalogue = traits(vectors, no_looks(len(vectors))).mean(0)
    across = Across(catalogue=packed(catalogue), visitors=packed(visitors), photos=30, is_on=True)
    monkeypatch.setattr(service.confidence, "across", lambda manifest: across)
    wanted = service.search(SearchRequest(), data_of(scene(2)))
    found = service.search(SearchRequest(seen=photos[2]))
    assert len(base64.b64decode(wanted.query.vector or "")) == 2 * NUMBERS + LOOK_BYTES, "it stands across the gap"
    assert found.query.vector == wanted.query.vector
    assert [m.item.id for m in found.matches] == [m.item.id for m in wanted.matches]
    assert found.confidence == pytest.approx(wanted.confidence, abs=1e-3)
    # Without a closer look its only one stands in, as that of a link does.
    assert service.search(SearchRequest(seen=msgspec.structs.replace(photos[2], closer=None))).matches


def test_an_unsafe_one_is_held_back_and_no_network_looks(demo_app: App, own: Image.Image) -> None:
    seen = look(demo_app.search_service(), own)
    settings = msgspec.structs.replace(demo_app.settings, unsafe_query=0.0)
    embedder = Embedder(demo_app.embedder.directory)
    with App(settings, stores=demo_app.stores, embedder=embedder) as app:
        service = app.search_service()
        answer = service.search(SearchRequest(seen=seen))
        assert answer.safety is not None
        assert answer.safety.unsafe
        assert answer.matches == ()
        item = service.searcher.sample(1)[0]
        for asked in ({"item": item}, {"vector": seen.vector}, {"text": "shoe"}, {"filters": {"price": {"min": 1}}}):
            service.search(msgspec.convert(asked, SearchRequest))
        assert not any("path" in vars(file) for file in embedder._files.values()), "a network's file was read"


def test_a_handle_and_examples_go_with_it(client: httpx.Client, service: SearchService, own: Image.Image) -> None:
    seen = msgspec.to_builtins(look(service, own))
    first = client.post("/v1/search", json={"seen": seen, "remember": True, "regions": True}).json()
    assert "regions" not in first
    again = client.post("/v1/search", json={"handle": first["query"]["handle"], "regions": True}).json()
    assert again["matches"] == first["matches"]
    unlike = {"seen": msgspec.to_builtins(look(service, scene(5))), "weight": -0.5}
    answers = client.post("/v1/searches", json={"searches": [{"seen": seen}, {"seen": seen, "examples": [unlike]}]})
    one, other = (outcome["answer"] for outcome in answers.json()["outcomes"])
    assert one["matches"] == first["matches"] != other["matches"]


def test_the_library_sends_it(demo_server: Server, service: SearchService, own: Image.Image) -> None:
    with visor.connect(demo_server.address) as index:
        found = index.search(seen=look(service, own), k=3)
        assert found.matches[0].verdict == "exact"
        assert index.search(seen=look(service, own), link=False).query.vector is None


def test_a_match_is_explained_by_shares(client: httpx.Client, service: SearchService, own: Image.Image) -> None:
    """They are what the server deals out itself, where it has the picture."""
    match = client.post("/v1/search", files={"image": data_of(own)}).json()["matches"][1]["item"]["id"]
    seen = msgspec.to_builtins(look(service, own))
    answer = client.post("/v1/explain", json={"seen": seen, "match": match}).json()
    whole = client.post(
        "/v1/explain", files={"image": data_of(own)}, data={"request": f'{{"match": "{match}"}}'}
    ).json()
    assert answer.keys() == {"item", "item_grid", "shares"}
    shares = np.frombuffer(base64.b64decode(answer["shares"]), "<f2").astype(np.float32)
    assert len(shares) == NUMBERS
    assert shares.min() >= 0 < shares.max()
    near = np.corrcoef(answer["item_grid"]["values"], whole["item_grid"]["values"])[0, 1]
    assert near > 0.95


# What is not a picture that the model saw


def changed(raw: str, at: int, value: bytes) -> str:
    data = bytearray(base64.b64decode(raw))
    data[at : at + len(value)] = value
    return base64.b64encode(data).decode()


HOSTILE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no vector": lambda s: {"vector": ""},
    "a vector without its look": lambda s: {"vector": base64.b64encode(base64.b64decode(s["vector"])[:-258]).decode()},
    "a closer one without": lambda s: {"closer": base64.b64encode(base64.b64decode(s["vector"])[:-258]).decode()},
    "half of a vector": lambda s: {"vector": s["vector"][: len(s["vector"]) // 8 * 4]},
    "one byte too many": lambda s: {"vector": base64.b64encode(base64.b64decode(s["vector"]) + b"x").decode()},
    "not a number": lambda s: {"vector": changed(s["vector"], 0, np.float16(math.nan).tobytes())},
    "infinity": lambda s: {"closer": changed(s["vector"], 10, np.float16(math.inf).tobytes())},
    "zeros": lambda s: {"vector": base64.b64encode(bytes(2 * NUMBERS + LOOK_BYTES)).decode()},
    "no base64": lambda s: {"vector": "ünïcode"},
    "a number": lambda s: {"vector": 7},
    "no hash": lambda s: {"hash": ""},
    "a short hash": lambda s: {"hash": base64.b64encode(bytes(HASH_BYTES - 1)).decode()},
    "a long hash": lambda s: {"hash": base64.b64encode(bytes(HASH_BYTES + 1)).decode()},
    "a hash that is none": lambda s: {"hash": "*"},
    "more than certain": lambda s: {"labels": [{"name": s["labels"][0]["name"], "probability": 1.01}]},
    "less than impossible": lambda s: {"safety": {**s["safety"], "porn": -0.1}},
    "an unknown class": lambda s: {"safety": {"fine": 1.0}},
    "too few classes": lambda s: {"safety": {"neutral": 1.0}},
    "an unknown label": lambda s: {"labels": [{"name": "unicorn", "probability": 0.5}]},
    "six labels": lambda s: {"labels": [s["labels"][0]] * 6},
    "an unknown emptiness": lambda s: {"blank": "boring"},
    "no width": lambda s: {"width": 0},
    "a height beyond all": lambda s: {"height": 10**30},
    "a width that is not a whole number": lambda s: {"width": 1.5},
    "what nobody knows": lambda s: {"thumbnail": "aGk="},
    "a picture as well": lambda s: {"width": 3, "picture": True},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/explain"])
def test_what_no_device_sees_is_refused(
    client: httpx.Client, service: SearchService, own: Image.Image, path: str, kind: str
) -> None:
    seen = msgspec.to_builtins(look(service, own))
    also = {"match": service.searcher.sample(1)[0]} if path == "/v1/explain" else {}
    answer = client.post(path, json={"seen": {**seen, **HOSTILE[kind](seen)}, **also})
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert problem["type"] == "urn:visor:bad_request"
    assert problem["valid"]
    assert problem["remedy"]


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"model": "0" * 64}, 400, "other_model"),
        ({"model": ""}, 400, "other_model"),
        ({"box": [0, 0, 0.5, 1]}, 400, "bad_request"),
        ({"exclude": [[0, 0, 0.5, 1]]}, 400, "bad_request"),
        ({"url": "https://shop.example/a.png"}, 400, "bad_request"),
        ({"hash": "A" * 21_000_000}, 413, "request_too_large"),
        ({"labels": [[[]]] * 100_000}, 400, "bad_request"),
    ],
)
def test_what_does_not_go_with_it_is_said(
    client: httpx.Client, service: SearchService, own: Image.Image, asked: dict[str, Any], status: int, code: str
) -> None:
    seen = msgspec.to_builtins(look(service, own))
    inside = {name: value for name, value in asked.items() if name in seen}
    beside = {name: value for name, value in asked.items() if name not in seen}
    answer = client.post("/v1/search", json={"seen": {**seen, **inside}, **beside})
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:visor:{code}"), answer.text
    assert answer.json()["remedy"]


def test_what_float32_rounds_beyond_1_is_taken(service: SearchService) -> None:
    seen = msgspec.to_builtins(look(service, scene(6)))
    sure = {**dict.fromkeys(seen["safety"], 0.0), "neutral": float(np.nextafter(np.float32(1), np.float32(2)))}
    assert service.search(msgspec.convert({"seen": {**seen, "safety": sure}}, SearchRequest)).matches


def test_nan_of_python_is_refused_too(service: SearchService, own: Image.Image) -> None:
    seen = {**msgspec.to_builtins(look(service, own)), "labels": [{"name": "lemon", "probability": math.nan}]}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(seen, Seen)


# What visitors teach


def test_a_vector_that_no_picture_has_teaches_nothing(
    demo_app: App, own: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, taught = demo_app.search_service(), []
    monkeypatch.setattr(service.visitors, "add", lambda photo, score=None, *, client=None: taught.append(photo))
    seen = look(service, scene(8))
    vector, lookup = decode_vector(seen.vector, NUMBERS)
    parts = service.embedder.description.parts
    assert is_made_by(parts, vector)
    one = np.zeros(NUMBERS, np.float32)
    one[7] = 1
    for forged in (-vector, np.roll(vector, 900), one, np.full(NUMBERS, NUMBERS**-0.5, np.float32)):
        assert not is_made_by(parts, forged)
        answer = service.search(
            SearchRequest(seen=msgspec.structs.replace(seen, vector=encode_vector(forged, lookup), closer=None)),
            client="198.51.100.7",
        )
        assert answer.query.width == seen.width
    assert taught == []
    service.search(SearchRequest(seen=seen), client="198.51.100.7")
    assert len(taught) == 1


def test_few_of_ten_photos_do_not_carry_their_mean_away(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    photos = (1 + 0.1 * rng.standard_normal((10, 300))).astype(np.float32)
    moved = []
    for hostile in (0, -9):
        with open_stores(Settings(home=tmp_path / str(hostile))) as stores:
            log = VisitorLog(stores.documents, "m")
            for number, photo in enumerate(photos):
                log.add(photo + hostile if number < 3 else photo)
            learned = VisitorSums(stores.documents, "m").fold(None)
        assert learned is not None
        assert learned.photos == 10
        moved.append(float(np.abs(learned.mean - 1).mean()))
    assert moved[1] < 0.1, "three tenths of nine would be 2.7"
    assert moved[0] < 0.05


# The model


def test_the_model_tells_what_a_device_needs(client: httpx.Client, embedder: Embedder) -> None:
    answer = client.get("/v1/model")
    model = answer.json()
    assert model["allowed"]
    assert model["fingerprint"] == embedder.fingerprint
    assert model["size_bytes"] == sum(file["size_bytes"] for file in model["files"])
    assert len(model["label_names"]) == 1000
    networks = [part["network"] for part in model["description"]["parts"]]
    assert [sum(tap["channels"] for tap in one["taps"]) for one in networks] == [2048, 1280]
    assert [one["power"] for one in networks] == [0.5, 1.0]
    assert "source" not in answer.text
    assert str(embedder.directory) not in answer.text
    tag = answer.headers["ETag"]
    assert client.get("/v1/model", headers={"If-None-Match": tag}).status_code == 304


@pytest.fixture(scope="module")
def function(demo_app: App, built_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """functions/search/main.py over the demo's index, as Cloud Run starts it."""
    port, log = unused_port(), tmp_path_factory.mktemp("function") / "log"
    mine = {name: value for name, value in os.environ.items() if not name.startswith("VISOR_")}
    variables = {"HOME": str(demo_app.settings.home), "MODELS": str(models_folder(built_settings)), "AUDIT_RATE": "0"}
    environ = mine | {f"VISOR_{name}": value for name, value in variables.items()}
    command = [sys.executable, "-m", "functions_framework", "--target=search", f"--source={SEARCH}"]
    with log.open("wb") as told:
        process = subprocess.Popen([*command, "--host=127.0.0.1", f"--port={port}"], env=environ, stderr=told)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(300):
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/v1/health").status_code == 200:
                        break
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
            yield Function(client, process.pid)
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has loaded")
def test_a_function_answers_without_a_network(function: Function, service: SearchService, own: Image.Image) -> None:
    """LiteRT is not a part of the processes that have answered, until one looks at a picture itself."""
    seen, item = msgspec.to_builtins(look(service, own)), service.searcher.sample(1)[0]
    asked = [
        {"seen": seen},
        {"vector": seen["vector"]},
        {"item": item},
        {"text": "fish"},
        {"filters": {"source": ["demo-shop"]}},
    ]
    for one in asked:
        answer = function.client.post("/v1/search", json=one)
        assert answer.status_code == 200
        assert answer.json()["matches"], one
    function.client.get("/v1/model").raise_for_status()
    assert not function.has_loaded("litert")
    pictured = function.client.post("/v1/search", files={"image": data_of(own)}).json()
    assert function.has_loaded("litert")
    by_seen = function.client.post("/v1/search", json={"seen": seen}).json()
    assert [m["item"]["id"] for m in by_seen["matches"]] == [m["item"]["id"] for m in pictured["matches"]]


@pytest.mark.parametrize("where", ["visor serve", "function"])
def test_its_files_come_whole_in_ranges_and_once(
    client: httpx.Client, function: Function, embedder: Embedder, where: str
) -> None:
    client = function.client if where == "function" else client
    for file in client.get("/v1/model").json()["files"]:
        address = str(client.base_url.join("/v1/model").join(file["url"]))
        whole = client.get(address)
        assert whole.status_code == 200
        assert hashlib.sha256(whole.content).hexdigest() == file["sha256"]
        assert len(whole.content) == file["size_bytes"]
        assert "immutable" in whole.headers["Cache-Control"]
        assert whole.headers["Accept-Ranges"] == "bytes"
        half = file["size_bytes"] // 2
        rest = client.get(address, headers={"Range": f"bytes={half}-", "If-Range": whole.headers["ETag"]})
        assert rest.status_code == 206
        assert rest.headers["Content-Range"] == f"bytes {half}-{file['size_bytes'] - 1}/{file['size_bytes']}"
        assert whole.content[:half] + rest.content == whole.content
        beyond = client.get(address, headers={"Range": f"bytes={file['size_bytes']}-"})
        assert beyond.status_code == 416
        assert beyond.headers["Content-Range"] == f"bytes */{file['size_bytes']}"
        assert client.get(address, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
        head = client.head(address)
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("name", ["0" * 64, "model.json", "..%2Fmodel.json", "%2e%2e", "é"])
def test_nothing_else_is_given_out(client: httpx.Client, name: str) -> None:
    assert client.get(f"/v1/model/{name}").status_code == 404


def test_an_owner_may_forbid_it(demo_app: App, own: Image.Image) -> None:
    seen = look(demo_app.search_service(), own)
    settings = msgspec.structs.replace(demo_app.settings, device=False)
    with App(settings, stores=demo_app.stores, embedder=demo_app.embedder) as app:
        asked = flask_client(app)
        model = asked.get("/v1/model").get_json()
        assert model["allowed"] is False
        assert "VISOR_DEVICE" in model["reason"]
        assert "files" not in model
        refused = asked.get(f"/v1/model/{demo_app.embedder.manifest.files[0].sha256}")
        assert (refused.status_code, refused.get_json()["type"]) == (403, "urn:visor:forbidden")
        with pytest.raises(BadRequest, match=r"only the server embed pictures.*Send the picture"):
            app.search_service().search(SearchRequest(seen=seen))


def flask_client(app: App, **settings: Any) -> FlaskClient:
    api, flask = app.http_api(), Flask("device")
    flask.add_url_rule("/<path:path>", "any", lambda path: api(request), methods=["GET", "POST"])
    return flask.test_client()


Deployed = Callable[..., tuple[FlaskClient, Meter]]


@pytest.fixture
def deployed(demo_app: App, local_stores: Stores) -> Iterator[Deployed]:
    """The endpoint in Google's setting, and its meter: one that the other tests' downloads do not fill."""
    with contextlib.ExitStack() as ends:

        def open_deployed(*, limited: bool = True, **settings: Any) -> tuple[FlaskClient, Meter]:
            own = msgspec.structs.replace(demo_app.settings, backend="gcp", **settings)
            meter = Meter(local_stores.documents, own, limited=limited)
            app = App(own, stores=demo_app.stores, embedder=demo_app.embedder, meter=meter)
            return flask_client(ends.enter_context(app)), meter

        yield open_deployed


def test_a_client_has_the_model_some_times_and_searches_keep_their_share(
    deployed: Deployed, embedder: Embedder
) -> None:
    asked, meter = deployed(cors_origins=("https://page.example",))
    page = {"Origin": "https://page.example"}
    files = asked.get("/v1/model").get_json()["files"]
    largest = max(files, key=lambda file: file["size_bytes"])
    address = f"/v1/{largest['url']}"
    before = {one.resource: one.used for one in meter.readings()}["response_bytes"]
    for _ in range(3):
        assert asked.head(address).status_code == 200
    part = asked.get(address, headers={"Range": "bytes=0-999", **page}, buffered=True)
    assert len(part.data) == 1000
    assert part.headers["Access-Control-Allow-Origin"] == "https://page.example"
    assert "Content-Range" in part.headers["Access-Control-Expose-Headers"]
    used = {one.resource: one.used for one in meter.readings()}["response_bytes"] - before
    assert used < 100_000, "what was not sent is not counted"
    assert len(asked.get(address, buffered=True).data) == largest["size_bytes"]
    again = asked.get(address)
    assert (again.status_code, again.get_json()["type"]) == (429, "urn:visor:quota_reached")
    assert int(again.headers["Retry-After"]) > 60
    meter.use({"response_bytes": 0.46 * 2**30})
    other = {"X-Forwarded-For": "198.51.100.9"}
    late = asked.get(address, headers=other)
    assert late.status_code == 429
    assert "data out" in late.get_json()["found"]
    assert asked.get("/v1/items", headers=other).status_code == 200


def test_a_server_on_this_machine_offers_the_model_to_all(client: httpx.Client, embedder: Embedder) -> None:
    size = sum(file.size_bytes for file in embedder.manifest.files)
    offer = client.get("/v1/stats").json()["device"]
    assert offer == {"allowed": True, "by_default": True, "size_bytes": size}


@pytest.mark.parametrize(
    ("changes", "offered"),
    [
        ({"models_from": "function"}, {"allowed": True}),
        ({"models_from": "bucket"}, {"allowed": True, "by_default": True}),
        ({"models_from": "elsewhere"}, {"allowed": True, "by_default": True}),
        ({"models_from": "bucket", "device": False}, {"allowed": False}),
    ],
)
def test_on_google_cloud_it_is_on_by_default_where_the_model_is_not_the_functions(
    deployed: Deployed, changes: dict[str, Any], offered: dict[str, Any]
) -> None:
    asked, _ = deployed(**changes)
    told = asked.get("/v1/stats").get_json()["device"]
    assert {name: value for name, value in told.items() if name != "size_bytes"} == offered


def test_models_from_the_bucket_are_counted_and_no_longer_offered_before_they_cost(deployed: Deployed) -> None:
    asked, meter = deployed(models_from="bucket")

    def used() -> float:
        return {one.resource: one.used for one in meter.readings()}["page_bytes"]

    before = used()
    size = asked.get("/v1/model").get_json()["size_bytes"]
    assert 0.7 * size < used() - before < 1.2 * size
    before = used()
    assert asked.get("/v1/stats").get_json()["device"]["by_default"]
    assert asked.head("/v1/model").status_code == 200
    assert used() == before, "only who is told what the model is fetches it"
    meter.use({"page_bytes": 50 * 2**30})
    assert "by_default" not in asked.get("/v1/stats").get_json()["device"]
    refused = asked.get("/v1/model")
    assert (refused.status_code, refused.get_json()["type"]) == (429, "urn:visor:quota_reached")
    assert "Cloud Storage data out" in refused.get_json()["found"]


def test_a_client_asks_for_the_model_some_times(deployed: Deployed) -> None:
    asked, _ = deployed(limited=False, models_from="bucket", reads_burst=1000)
    statuses = [asked.get("/v1/model").status_code for _ in range(31)]
    assert statuses.index(429) >= 7, "the devices of a household, of an instance that has just started"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "asked"),
    [
        ("https://files.example/models/", "connect-src 'self' https://files.example;"),
        ("./models/", "connect-src 'self';"),
        (None, "connect-src 'self';"),
    ],
)
def test_a_page_may_ask_where_its_models_are(demo_app: App, models: str | None, asked: str) -> None:
    site = demo_app.site({"models": models})
    answer = Client(site).get("/config.json")
    assert asked in answer.headers["Content-Security-Policy"]
    assert answer.get_json()["models"] == models


@pytest.mark.slow
def test_a_model_that_browsers_do_not_run_says_so(embedder: Embedder) -> None:
    manifest = embedder.manifest
    files = tuple(msgspec.structs.replace(file, file=f"{file.network}.onnx") for file in manifest.files)
    model = device_model(msgspec.structs.replace(manifest, files=files))
    assert not model.allowed
    assert "does not run in browsers" in model.reason
    assert model.files == ()
