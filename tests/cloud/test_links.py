"""Links and the day's requests on the emulators: what the embedded stores do, Firestore and Cloud Storage do too."""

from __future__ import annotations

import msgspec
from tests.unit.ingest.test_pipeline_embed import body, change, drawing

from visor.app import App
from visor.errors import FetchFailed
from visor.http.fetch import Probed
from visor.ingest.request_budget import RequestBudget
from visor.link_check.check import LinkCheck
from visor.link_check.state import LinkState
from visor.models.embedder import Embedder
from visor.schema.items import Item, item_id
from visor.settings import Settings

DAY = 86_400.0
NOW = 1_800_000_000.0


class Web:
    """Every picture is there but that of item `a`, of which `b` has a copy."""

    def probe(self, url: str, *, is_image: bool) -> Probed:
        if url.endswith("/a.png"):
            raise FetchFailed("gone", status=404)
        return Probed(url=url, permanent_url=url)


def picture_of(item: Item) -> bytes:
    return drawing(1 if item.key in ("a", "b") else 2)


def test_a_dead_picture_is_replaced_by_its_copy(embedder: Embedder, cloud_settings: Settings) -> None:
    settings = msgspec.structs.replace(cloud_settings, freshness_s=0.0)
    with App(settings, embedder=embedder) as app:
        app.batch_embedder.read_image = picture_of
        app.batch_embedder.embed(body(change("a"), change("b"), change("c")))
        app.merge()
        stores = app.stores
        for day in range(2):
            report = LinkCheck(
                objects=stores.objects,
                documents=stores.documents,
                queue=stores.queue,
                fetcher=Web(),
                a_day=10,
                batch_size=64,
                clock=lambda day=day: NOW + day * DAY,  # type: ignore[misc]
                sleep=lambda seconds: None,
            ).run()
        assert (report.checked, report.replaced) == (3, 1)
        for message in stores.queue.receive(10, lease_s=60):
            app.batch_embedder.embed(message.body)
            stores.queue.acknowledge(message)
        found = stores.documents.get("items", [item_id("s", "a")])[item_id("s", "a")]
        assert found.data["item"]["image_url"] == "https://x.test/b.png"
        assert LinkState.load(stores.objects)[0].problems == {}


def test_requests_of_a_day_add_up_in_firestore(cloud_settings: Settings) -> None:
    with App(cloud_settings) as one, App(cloud_settings) as other:
        for app in (one, other):
            budget = RequestBudget(app.stores.documents, host_a_day=10, clock=lambda: NOW)
            for _ in range(3):
                budget.take("shop", "https://pictures.shop.test:8443/1.png")
            budget.flush()
        after = RequestBudget(one.stores.documents, host_a_day=10, clock=lambda: NOW)
        assert after.today() == ({"shop": 6}, {"pictures.shop.test:8443": 6})
