"""Items that their owner sends over HTTP: from the request to the answer of a search, and who may send them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.unit.sources.catalogue_server import Reply, Request, serving
from tests.unit.sources.catalogue_server import Server as CatalogueServer
from werkzeug.test import EnvironBuilder

from visor.app import App
from visor.errors import KeyRequired
from visor.free_tier.quota import Meter
from visor.ingest.push import LINES_MAX, Pusher
from visor.ingest.worker import Worker
from visor.models.embedder import Embedder
from visor.schema.items import Batch, item_id
from visor.schema.push import PushItem
from visor.settings import Settings
from visor.storage import open_stores
from visor.web.access import KEY_HEADER, AccessPolicy
from visor.web.site import Server

LINES = {"Content-Type": "application/x-ndjson"}
KEY = "the owner's key"


def picture(seed: int) -> bytes:
    """A PNG of coloured blocks, another one for every seed."""
    blocks = np.random.default_rng(seed).integers(0, 255, (5, 5, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((200, 200), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(request: Request) -> Reply:
    name = request.path.strip("/").removesuffix(".png")
    return Reply(picture(int(name)), headers={"Content-Type": "image/png"}) if name.isdigit() else Reply(status=404)


@pytest.fixture
def shop() -> Iterator[CatalogueServer]:
    with serving(pictures) as server:
        yield server


@pytest.fixture
def app(shop: CatalogueServer, embedder: Embedder, tmp_path: Path) -> Iterator[App]:
    settings = Settings(home=tmp_path, allow_hosts=(shop.host,), freshness_s=0.0, batch_size=4, owner_key=KEY)
    with App(settings, embedder=embedder) as app:
        yield app


@pytest.fixture
def client(app: App) -> Iterator[httpx.Client]:
    server = Server(app.site({})).start()
    with httpx.Client(base_url=server.address, headers={KEY_HEADER: KEY}, timeout=60) as client:
        yield client
    server.stop()


def lines(*items: dict[str, Any]) -> bytes:
    return b"\n".join(msgspec.json.encode(item) for item in items) + b"\n"


def embed(app: App) -> None:
    Worker(app.stores.queue, app.batch_embedder, threads=1).drain()


def best(client: httpx.Client, seed: int) -> dict[str, Any] | None:
    matches = client.post("/v1/search", files={"image": picture(seed)}).json()["matches"]
    return dict(matches[0]) if matches and matches[0]["verdict"] == "exact" else None


def test_pushed_items_are_found_changed_replaced_and_deleted(
    client: httpx.Client, app: App, shop: CatalogueServer
) -> None:
    items = [{"key": str(n), "image_url": f"{shop.url}/{n}.png", "title": f"Number {n}"} for n in range(9)]
    answer = client.post("/v1/items", content=lines(*items), headers=LINES)
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 9
    assert [item["id"] for item in answer.json()["items"]] == [item_id("push", str(n)) for n in range(9)]
    embed(app)
    found = best(client, 3)
    assert found is not None
    assert found["item"]["title"] == "Number 3"
    assert found["item"]["source"] == "push"
    fetched = len(shop.requests)

    one = client.post("/v1/items", json={**items[3], "title": "Renamed", "price": 5, "currency": "eur"})
    assert one.json()["accepted"] == 1
    embed(app)
    found = best(client, 3)
    assert found is not None
    assert (found["item"]["title"], found["item"]["price"], found["item"]["currency"]) == ("Renamed", 5, "EUR")
    assert len(shop.requests) == fetched, "a picture that stays is not fetched again"

    client.post("/v1/items", json={**items[3], "image_url": f"{shop.url}/33.png"})
    embed(app)
    assert best(client, 3) is None
    assert best(client, 33)["item"]["id"] == item_id("push", "3")  # type: ignore[index]

    assert client.delete(f"/v1/items/{item_id('push', '3')}").status_code == 202
    client.post("/v1/items", json={"key": "4", "deleted": True})
    embed(app)
    assert (best(client, 33), best(client, 4)) == (None, None)
    assert client.get("/v1/health").json()["images"] == 7


def test_each_line_has_its_own_answer(client: httpx.Client, shop: CatalogueServer) -> None:
    good = {"key": "a", "image_url": f"{shop.url}/1.png"}
    body = lines(good, {"key": "b"}, {"key": "c", "image_url": "file:///etc/passwd"}) + b"{broken\n\n"
    body += lines({**good, "colour": "red"}, {**good, "title": "later"}, {"key": "d", "title": "x" * 70_000})
    body += b'{"key": "\xff", "image_url": "http://x.test/1.png"}\n' + lines({**good, "key": "e", "date": "soon"})
    answer = client.post("/v1/items", content=body, headers=LINES).json()
    said = {item["line"]: (item["state"], item.get("reason", "")) for item in answer["items"]}
    assert [number for number, (state, _) in said.items() if state == "accepted"] == [7]
    for number, part in {1: "line 7", 2: "missing", 3: "http", 4: "read", 6: "colour", 8: "bytes", 10: "date"}.items():
        assert part in said[number][1]
    assert "cannot be read" in said[9][1]
    assert (answer["accepted"], answer["refused"]) == (1, len(said) - 1)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"price": -5}, "price is -5; valid: a number from 0 to 1e+15"),
        ({"price": 1e308, "currency": "EUR"}, "price is 1e+308"),
        ({"price": 5, "currency": "XXX"}, "currency is not an ISO 4217 code"),
        ({"currency": "zzz"}, "currency is not an ISO 4217 code"),
    ],
)
def test_a_price_that_is_none_is_refused(
    client: httpx.Client, shop: CatalogueServer, fields: dict[str, Any], says: str
) -> None:
    item = {"key": "a", "image_url": f"{shop.url}/1.png", **fields}
    answers = client.post("/v1/items", json=item).json(), client.post("/v1/items", content=lines(item), headers=LINES)
    for answer in (answers[0], answers[1].json()):
        assert answer["refused"] == 1
        assert says in answer["items"][0]["reason"]


def test_what_cannot_be_taken_as_a_whole_is_a_problem(client: httpx.Client, app: App) -> None:
    assert client.post("/v1/items", json={"title": "no key"}).status_code == 400
    assert client.post("/v1/items", content=b"x", headers={"Content-Type": "text/csv"}).status_code == 415
    many = lines(*({"key": str(n), "deleted": True} for n in range(LINES_MAX + 1)))
    assert client.post("/v1/items", content=many, headers=LINES).status_code == 413
    assert client.delete("/v1/items/nonsense").status_code == 404
    assert client.post("/v1/items", json={"key": "a"}, headers={"Origin": "https://else.test"}).status_code == 403
    assert app.stores.queue.waiting() == 0


def test_an_item_of_a_source_is_not_deleted(client: httpx.Client, app: App, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(picture(1))
    app.crawler.crawl(app.open_source("mine", {"kind": "folder", "path": str(tmp_path / "pictures")}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.batch_embedder, "read_image", lambda item: picture(1))
        embed(app)
    answer = client.delete(f"/v1/items/{item_id('mine', '1.png')}")
    assert answer.status_code == 404
    assert "mine" in answer.json()["found"]


@pytest.mark.parametrize(
    ("owner_key", "sent", "may"),
    [
        ("", "", False),
        ("", "guess", False),
        ("secret", "", False),
        ("secret", "wrong", False),
        ("secret", "secret", True),
    ],
)
def test_on_google_cloud_only_the_owners_key_may_push(owner_key: str, sent: str, may: bool, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, backend="gcp", owner_key=owner_key)
    with open_stores(Settings(home=tmp_path)) as stores:
        access = AccessPolicy(settings, Meter(stores.documents, settings, limited=False))
        request = EnvironBuilder("/v1/items", method="POST", headers={KEY_HEADER: sent}).get_request()
        if may:
            access.admit("owner", request)  # type: ignore[arg-type]
        else:
            with pytest.raises(KeyRequired):
                access.admit("owner", request)  # type: ignore[arg-type]


def test_versions_grow_though_the_clock_stands_and_the_free_tier_bounds(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with open_stores(settings) as stores:
        meter = Meter(stores.documents, settings, limited=True)
        pusher = Pusher(
            queue=stores.queue, documents=stores.documents, settings=settings, meter=meter, clock=lambda: 5.0
        )
        for _ in range(2):
            pusher.push_one(PushItem(key="a", image_url="https://x.test/a.png"))
        batches = [msgspec.json.decode(m.body, type=Batch) for m in stores.queue.receive(10, lease_s=60)]
        assert sorted(batch.changes[0].version for batch in batches) == [5000, 5001]
        meter.headroom = lambda kind, owner=False: 1  # type: ignore[method-assign]
        answer = pusher.push_lines(lines(*({"key": str(n), "deleted": True} for n in range(3))))
        assert (answer.accepted, answer.refused) == (1, 2)
        assert "free" in str(answer.items[2].reason)
