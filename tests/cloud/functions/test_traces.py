"""One trace goes from what is published through Pub/Sub to the embed function, and a search is linked to it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.cloud.support.origin import Origin
from tests.cloud.test_delivery import change, origin, pushing, settings, settled, stores, wait_until  # noqa: F401
from tests.unit.ingest.test_pipeline_embed import drawing
from tests.unit.telemetry.conftest import CONSUMER, Collector, collector  # noqa: F401

from visor.schema.items import item_id
from visor.settings import Settings
from visor.storage import Stores
from visor.storage.publish import publish
from visor.telemetry import traces
from visor_emulators.demo import running_function


def test_a_trace_goes_through_pubsub_into_the_functions(
    settings: Settings,  # noqa: F811
    stores: Stores,  # noqa: F811
    origin: Origin,  # noqa: F811
    collector: Collector,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.setenv("K_SERVICE", "visor-embed")
    wanted = {item_id("s", key) for key in ("a", "b")}
    with running_function("embed", settings) as address, pushing(settings, address):
        with traces.span("crawl"):
            publish(stores.queue, [change(origin, key) for key in ("a", "b")], run="run")
        wait_until(lambda: settled(stores, wanted), "the batch is embedded")
        wait_until(lambda: named(collector, "embed"), "embed has sent its spans before its request ended")
    monkeypatch.setenv("K_SERVICE", "visor-search")
    with running_function("search", settings) as address:
        picture: dict[str, Any] = {"image": drawing(1)}
        assert httpx.post(f"{address}/v1/search", files=picture, timeout=60).status_code == 200
    wait_until(lambda: named(collector, "refresh"), "search has sent its spans when it ended")
    spans = collector.spans()
    (crawl,) = [span for span in spans if span.name == "crawl"]
    (embed,) = [span for span in spans if span.name == "embed" and span.kind == CONSUMER]
    (refresh,) = [span for span in spans if span.name == "refresh"]
    assert (embed.service, embed.trace) == ("visor-embed", crawl.trace)
    assert embed.attributes["visor.items.embedded"] == 2
    assert (refresh.service, refresh.links) == ("visor-search", [crawl.trace])
    assert refresh.trace != crawl.trace


def named(collector: Collector, name: str) -> bool:  # noqa: F811
    return any(
        span.name == name
        for request in collector.requests
        for of_resource in request.resource_spans
        for scope in of_resource.scope_spans
        for span in scope.spans
    )
