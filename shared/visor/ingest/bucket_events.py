"""Bucket events: a change in a bucket is published at once, without a crawl.

Notifications come at least once and in any order. An object's generation is the microsecond at which it was written,
and its metageneration counts the changes of its metadata since. A change's version is made from these and from the time
that Cloud Storage gives, never from the time of arrival: the newest wins, and a repeated notification makes the same
message again. A deletion is accepted only if the object is gone: overwriting an object also reports the old one as
deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from visor.errors import BadRequest, DropItem
from visor.schema.attributes import AttributeType
from visor.schema.items import Change, checked_item, item_id
from visor.sources.bucket.source import BucketSource
from visor.storage.bucket_clients import Stored
from visor.storage.publish import publish
from visor.storage.queue import Queue

FINALIZED = "google.cloud.storage.object.v1.finalized"
DELETED = "google.cloud.storage.object.v1.deleted"
METADATA = "google.cloud.storage.object.v1.metadataUpdated"


class _Object(msgspec.Struct, frozen=True):
    """The fields of Cloud Storage's StorageObjectData that Visor reads."""

    bucket: str
    name: str
    generation: str
    metageneration: str = "1"
    size: str = "0"
    md5Hash: str | None = None  # noqa: N815 — Cloud Storage's own names
    crc32c: str | None = None
    etag: str | None = None
    updated: str | None = None
    timeDeleted: str | None = None  # noqa: N815
    """A newer generation has taken its place."""
    metadata: dict[str, str] | None = None

    def version(self, kind: str) -> int:
        """Grows with (generation, metageneration), and is comparable with the time of a crawl in milliseconds."""
        updated = datetime.fromisoformat(self.updated).timestamp() * 1000 if self.updated else 0
        changes = max(int(self.metageneration), 2 if kind == METADATA else 1) - 1
        return max(int(self.generation) // 1000, int(updated)) + changes


class BucketEventHandler:
    """Publishes the changes that a bucket's notifications report.

    Args:
        sources: The bucket sources of the configuration.
        clock: Now.
        attributes: The attributes of items' `extra` that the owner declares.
    """

    def __init__(
        self,
        sources: Sequence[BucketSource],
        queue: Queue,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        attributes: Mapping[str, AttributeType] | None = None,
    ) -> None:
        self.sources, self.queue, self.clock, self.attributes = sources, queue, clock, attributes

    def handle(self, kind: str, data: Mapping[str, Any]) -> int:
        """Publish the change that one notification reports. Returns the number of changes; 0 if it concerns no source.

        Args:
            kind: The CloudEvent's type.
            data: Its data: the object as Cloud Storage's JSON API describes it.

        Raises:
            BadRequest: It cannot be read; repeating it does not help.
            StoreUnavailable: Deliver it again later.
        """
        if kind not in (FINALIZED, DELETED, METADATA):
            return 0
        try:
            event = msgspec.convert(data, _Object)
            version = event.version(kind)
            stored = Stored(
                name=event.name,
                size_bytes=int(event.size),
                etag=event.md5Hash or event.crc32c or event.etag,
                modified=event.updated,
                metadata=event.metadata or {},
            )
        except (msgspec.ValidationError, ValueError) as exc:
            found, remedy = f"A notification cannot be read: {exc}", "Send an object as Cloud Storage describes it"
            raise BadRequest(found, valid="StorageObjectData as JSON", remedy=remedy) from exc
        changes = 0
        if event.timeDeleted and kind != DELETED:
            return changes
        for source in self.sources:
            if (source.scheme, source.bucket_name) == ("gs", event.bucket) and source.wants(event.name):
                change = self._change(source, kind, stored, version)
                if change is not None:
                    publish(self.queue, [change], run="notified")
                    changes += 1
        return changes

    def _change(self, source: BucketSource, kind: str, stored: Stored, version: int) -> Change | None:
        if kind == DELETED:
            # Taken first: what is written while it is asked for is newer.
            gone_ms = int(self.clock().timestamp() * 1000)
            if source.open().has(stored.name):
                return None
            key = source.key(stored.name)
            return Change.deletion(item_id(source.name, key), source.name, gone_ms, key=key)
        try:
            item = checked_item(source.item(stored), self.attributes)
        except DropItem:
            return None
        # New metadata does not change the generation, and an update is embedded if the picture differs.
        return Change(action="update", item=item, version=version)
