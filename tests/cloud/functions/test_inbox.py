"""examples/inbox as it is deployed: a picture put into the owner's bucket is found, and not when it is deleted."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
from google.cloud import storage
from tests.cloud.support.running import pushing, wait_until
from tests.unit.ingest.test_pipeline_embed import drawing

from visor.app import App
from visor.ingest.bucket_events import DELETED, FINALIZED
from visor.models.embedder import Embedder
from visor.schema.search import SearchRequest
from visor.settings import Settings
from visor_emulators.demo import running_function

EXAMPLES = Path(__file__).parents[3] / "examples"


def told(blob: storage.Blob) -> dict[str, Any]:
    """What Cloud Storage says about an object: the resource of its JSON API."""
    blob.reload()
    return {
        "kind": "storage#object",
        "bucket": blob.bucket.name,
        "name": blob.name,
        "generation": str(blob.generation),
        "contentType": blob.content_type,
        "size": str(blob.size),
        "md5Hash": blob.md5_hash,
        "crc32c": blob.crc32c,
        "updated": blob.updated.isoformat(),
        "metadata": dict(blob.metadata or {}),
    }


def notify(inbox: str, kind: str, data: dict[str, Any]) -> None:
    """Deliver a notification as Eventarc does: a CloudEvent whose attributes are headers."""
    bucket, name = data["bucket"], data["name"]
    headers = {
        "ce-id": uuid.uuid4().hex,
        "ce-specversion": "1.0",
        "ce-type": kind,
        "ce-source": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        "ce-subject": f"objects/{name}",
        "ce-time": "2026-11-21T10:00:00Z",
    }
    httpx.post(inbox, json=data, headers=headers, timeout=60).raise_for_status()


def test_a_picture_in_the_inbox_is_found_and_a_deleted_one_is_not(
    embedder: Embedder, built_settings: Settings, cloud_settings: Settings, tmp_path: Path
) -> None:
    client = storage.Client(project=cloud_settings.project)
    bucket = client.create_bucket(f"inbox-{uuid.uuid4().hex}")
    (tmp_path / "visor.toml").write_text(f'[sources.inbox]\nkind = "bucket"\nurl = "gs://{bucket.name}/shop/"\n')
    settings = msgspec.structs.replace(
        cloud_settings,
        home=built_settings.home,
        config=tmp_path / "visor.toml",
        allow_buckets=(f"gs://{bucket.name}/shop/",),
        freshness_s=0.0,
        threads=1,
    )
    with ExitStack() as stack:
        embed = stack.enter_context(running_function("embed", settings))
        stack.enter_context(pushing(settings, embed))
        inbox = stack.enter_context(running_function("inbox", settings, signature="cloudevent", source=EXAMPLES))
        app = stack.enter_context(App(settings, embedder=embedder))
        search = app.search_service()

        def titles(seed: int) -> list[str]:
            matches = search.search(SearchRequest(k=5), drawing(seed)).matches
            return [match.item.title for match in matches if match.verdict == "exact"]

        def put(n: int) -> storage.Blob:
            blob = bucket.blob(f"shop/Number {n}.png")
            blob.metadata = {"page_url": f"https://shop.test/{n}"}
            blob.upload_from_string(drawing(n), content_type="image/png")
            notify(inbox, FINALIZED, told(blob))
            return blob

        blobs = [put(n) for n in range(2)]
        wait_until(lambda: titles(0) == ["Number 0"] and titles(1) == ["Number 1"], "both are found")
        best = search.search(SearchRequest(k=1), drawing(1)).matches[0].item
        assert (best.source, best.page_url) == ("inbox", "https://shop.test/1")
        gone = told(blobs[0])
        blobs[0].delete()
        notify(inbox, DELETED, gone)
        wait_until(lambda: titles(0) == [], "the deleted one is not found")
        assert titles(1) == ["Number 1"]
        notify(inbox, FINALIZED, gone)
        put(2)
        wait_until(lambda: titles(2) == ["Number 2"], "the next is found")
        assert titles(0) == [], "a notification that comes late brings nothing back"
