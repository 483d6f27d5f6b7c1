"""A merge publishes the index to the site's bucket, as browsers get it from there."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from google.cloud import storage
from scripts.golden.private_index import MODEL, item_id, label_words, put_commit, put_shard, rows_of

from visor.app import App
from visor.schema.items import ShardCommit, Tombstone
from visor.settings import Settings
from visor.storage import open_stores


@pytest.fixture
def settings(cloud_settings: Settings, built_settings: Settings) -> Settings:
    """With a bucket for the site, where the page and the model's files lie already."""
    settings = msgspec.structs.replace(cloud_settings, home=built_settings.home, site=f"{cloud_settings.bucket}-site")
    client = storage.Client(project=settings.project)
    client.create_bucket(settings.site).blob("index.html").upload_from_string("the page")
    client.close()
    return settings


def test_a_merge_publishes_what_browsers_read(settings: Settings) -> None:
    client = storage.Client(project=settings.project)
    bucket = client.bucket(settings.site)
    model: Any = SimpleNamespace(fingerprint=MODEL, label_words=label_words())
    with open_stores(settings) as stores:
        put_shard(stores, "a", rows_of(40))
        with App(settings, stores=stores, embedder=model) as app:
            app.merge()
            blobs = {blob.name: blob for blob in client.list_blobs(bucket)}
            manifest = json.loads(blobs["data/visor.json"].download_as_bytes())
            assert (manifest["index"]["images"], manifest["index"]["model"]) == (40, MODEL)
            (part,) = manifest["parts"]
            chunk = blobs["data/" + part["columns"]["name"]]
            assert (chunk.cache_control, chunk.size) == (
                "public, max-age=31536000, immutable",
                part["columns"]["bytes"],
            )
            for name in ("data/visor.json", "data/model.json"):
                assert (blobs[name].cache_control, blobs[name].content_type) == ("no-cache", "application/json")
            assert blobs["index.html"].download_as_bytes() == b"the page"
            meter = {reading.resource: reading.used for reading in app.meter.readings()}
            assert meter["class_a"] >= len(blobs) - 1
            put_commit(stores, "d", ShardCommit(batch="d", tombstones=(Tombstone(id=item_id(3), version=2),)))
            app.merge()
            # The free writes are spread over the month: not at once again.
            again = json.loads(bucket.blob("data/visor.json").download_as_bytes())
            assert again["id"] == manifest["id"]
    client.close()
