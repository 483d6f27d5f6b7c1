"""A running search function sees what embed commits and compact swaps, without listing the bucket, and never fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import httpx
import msgspec
import pytest
from tests.cloud.support.faulty import FaultyProxy
from tests.cloud.support.running import search, wait_until
from tests.cloud.test_costs import kind_of
from tests.unit.ingest.test_pipeline_embed import Origin, body, change

from visor.index.merge.merge import merge
from visor.index.merge.policy import MergePolicy
from visor.ingest.embed import BatchEmbedder
from visor.models.embedder import Embedder
from visor.schema.items import item_id
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor_emulators.demo import running_function

AT_ONCE = MergePolicy(grace_s=0)
"""Deletes what a merge replaced with the next one, under the feet of searches that hold it."""


@pytest.fixture
def settings(cloud_settings: Settings, built_settings: Settings) -> Settings:
    return msgspec.structs.replace(
        cloud_settings,
        home=built_settings.home,
        freshness_s=0.5,
        searches_burst=10_000,
        reads_burst=10_000,
        quota_share=1.0,
    )


@pytest.fixture
def stores(settings: Settings) -> Iterator[Stores]:
    with open_stores(settings) as stores:
        yield stores


def test_a_running_search_follows_commits_deletes_and_merges(
    settings: Settings, stores: Stores, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = BatchEmbedder(
        embedder=embedder,
        read_image=Origin().read,
        objects=stores.objects,
        documents=stores.documents,
        settings=settings,
    )
    proxy = FaultyProxy(os.environ["STORAGE_EMULATOR_HOST"])
    with proxy.running() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        with running_function("search", settings) as endpoint, asked_all_the_time(endpoint) as failures:

            def images() -> int:
                count = httpx.get(f"{endpoint}/v1/stats", timeout=30).json()["images"]
                assert isinstance(count, int)
                return count

            def nearest(key: str) -> str:
                vector = embedder_text(embedder, key)
                return str(search(endpoint, vector=vector)["matches"][0]["item"]["id"])

            assert images() == 0, "an empty index is searched, too"
            embed.embed(body(*(change(f"a{number}") for number in range(4))))
            wait_until(lambda: images() == 4, "the first batch is found", settings.freshness_s + 20)
            assert nearest("a2") == item_id("s", "a2")
            for round_number in range(3):
                embed.embed(body(*(change(f"b{round_number}{number}") for number in range(2))))
                for _ in range(2):
                    merge(stores.objects, stores.documents, model=embedder.fingerprint, policy=AT_ONCE)
            wait_until(lambda: images() == 10, "what was merged is found", settings.freshness_s + 20)
            assert nearest("b11") == item_id("s", "b11")
            embed.embed(body(change("a2", version=2, action="delete")))
            wait_until(lambda: images() == 9, "what was deleted is gone", settings.freshness_s + 20)
            assert nearest("a2") != item_id("s", "a2")
            gone = httpx.get(f"{endpoint}/v1/items/{item_id('s', 'a2')}", timeout=30)
            assert gone.status_code == 404
        assert failures == []
    assert "list" not in {kind_of(request) for request in proxy.requests}
    assert "write" not in {kind_of(request) for request in proxy.requests}


def embedder_text(embedder: Embedder, key: str) -> str:
    import base64
    import io

    from PIL import Image

    picture = Image.open(io.BytesIO(Origin().read(change(key).item))).convert("RGB")
    vector = embedder.embed([picture]).vectors[0]
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


class asked_all_the_time:  # noqa: N801 — used as a context manager
    """Searches without a pause in a thread of its own; what did not succeed is in the list that it gives."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self.failures = endpoint, list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._stop.wait(0.05):
            answer = httpx.get(f"{self.endpoint}/v1/items", timeout=60)
            if answer.status_code != 200:
                self.failures.append(answer.text)

    def __enter__(self) -> list[str]:
        self._thread.start()
        return self.failures

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
