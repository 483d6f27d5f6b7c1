"""Notified: a bucket says that an object came or went, and that is published at once, without a crawl.

Notifications come at least once and in any order. An object's generation is the microsecond at which it was written,
so a repeated notification makes the same message again. That of a deletion is believed only if the object is not there:
overwriting an object reports the old one as deleted, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from visor.errors import BadRequest, DropItem
from visor.schema.items import Batch, Change, Item, item_id
from visor.sources.bucket.source import BucketSource
from visor.storage.bucket_clients import Stored
from visor.storage.queue import Queue

FINALIZED = "google.cloud.storage.object.v1.finalized"
DELETED = "google.cloud.storage.object.v1.deleted"
METADATA = "google.cloud.storage.object.v1.metadataUpdated"


class _Object(msgspec.Struct, frozen=True):
    """What Visor reads of Cloud Storage's StorageObjectData."""

    bucket: str
    name: str
    generation: str
    size: str = "0"
    md5Hash: str | None = None  # noqa: N815 — Cloud Storage's own names
    crc32c: str | None = None
    etag: str | None = None
    updated: str | None = None
    metadata: dict[str, str] = {}


class Notified:
    """Takes notifications in.

    Args:
        sources: The bucket sources of the configuration.
        clock: Now.
    """

    def __init__(
        self,
        sources: Sequence[BucketSource],
        queue: Queue,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.sources, self.queue, self.clock = sources, queue, clock

    def take(self, kind: str, data: Mapping[str, Any]) -> int:
        """Publish what one notification says; returns the number of changes, 0 if it concerns no source.

        Args:
            kind: The CloudEvent's type.
            data: Its data: the object as Cloud Storage's JSON API describes it.

        Raises:
            BadRequest: It is no such notification; to repeat it does not help.
            StoreUnavailable: Deliver it again later.
        """
        if kind not in (FINALIZED, DELETED, METADATA):
            return 0
        try:
            told = msgspec.convert(data, _Object)
            written_ms = int(told.generation) // 1000
            stored = Stored(
                name=told.name,
                size_bytes=int(told.size),
                etag=told.md5Hash or told.crc32c or told.etag,
                modified=told.updated,
                metadata=told.metadata,
            )
        except (msgspec.ValidationError, ValueError) as exc:
            raise BadRequest(f"A notification cannot be read: {exc}", valid="StorageObjectData as JSON") from exc
        changes = 0
        for source in self.sources:
            if (source.scheme, source.bucket_name) == ("gs", told.bucket) and source.wants(told.name):
                change = self._change(source, kind, stored, written_ms)
                if change is not None:
                    self.queue.publish([msgspec.json.encode(Batch.of(source.name, "notified", (change,)))])
                    changes += 1
        return changes

    def _change(self, source: BucketSource, kind: str, stored: Stored, written_ms: int) -> Change | None:
        now_ms = int(self.clock().timestamp() * 1000)
        if kind == DELETED:
            if source.open().has(stored.name):
                return None
            key = source.key(stored.name)
            gone = Item(id=item_id(source.name, key), source=source.name, key=key, image_url="")
            return Change(action="delete", item=gone, version=now_ms)
        try:
            item = source.item(stored)
        except DropItem:
            return None
        # New metadata leaves the generation as it is, and an update is embedded where the picture is another.
        return Change(action="update", item=item, version=now_ms if kind == METADATA else written_ms)
