"""The plan of one delivery of a batch: what is left to do, its results, and the writes that record them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
import numpy as np

from visor.errors import DropItem, EmbedCrashed, ImageError, NothingToCompare, UnsafeImage
from visor.ingest.augmented_queries import AugmentedQueries
from visor.schema.collections import COMMITS, FAILURES, ITEMS
from visor.schema.items import (
    Batch,
    Change,
    FacetRow,
    FacetUpdate,
    Failure,
    IndexedItem,
    Item,
    Label,
    Safety,
    ShardCommit,
    Tombstone,
    as_document,
    checked_item,
    is_live,
)
from visor.settings import PREFIX, Settings
from visor.storage.documents import SERVER_TIME, Delete, Document, Put, Write
from visor.telemetry.traces import carrier

GONE_KEPT = timedelta(days=30)
"""How long the document of a deleted item stays, so that an older message cannot bring it back."""
PAUSE_DAYS_MAX = 32
"""Longest time until a scheduled crawl tries again what failed; the first is a day, and each is twice the last."""
DECIDING = ("allow_buckets", "allow_folders", "allow_hosts", "fetch_bytes_max", "pixels_max", "unsafe_item")
"""Settings that decide whether a picture is accepted, and that errors name as their remedy."""
AHEAD_MS = 3_600_000
"""A stored version this far in the future comes from a clock that was ahead: what comes now is newer."""


@dataclass
class EmbedReport:
    """What one delivery did, in items."""

    embedded: int = 0
    updated: int = 0
    deleted: int = 0
    already_done: int = 0
    failed: int = 0
    unavailable: int = 0

    def add(self, other: EmbedReport) -> None:
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


@dataclass(frozen=True)
class EmbeddedImage:
    """What embed knows of an item's image. hashes: its perceptual hash; vector (d,) float32."""

    change: Change
    width: int
    height: int
    hashes: bytes
    vector: np.ndarray
    labels: tuple[Label, ...]
    safety: Safety | None
    look: np.ndarray
    """(258,) uint8: `visor.index.format.looks`."""
    blank: str | None = None
    """Why there is nothing to compare in it, if so: a sentence."""


@dataclass
class BatchPlan:
    """The state of one delivery's work.

    Args:
        model: Fingerprint of the model that embeds.
        documents, failed_before: The batch's items and failures as the store has them, by id.
    """

    batch: Batch
    attempt: int
    model: str
    settings: Settings
    now: datetime
    documents: dict[str, Document]
    failed_before: dict[str, Document]
    report: EmbedReport = field(default_factory=EmbedReport)
    images: list[EmbeddedImage] = field(default_factory=list)
    augmented: AugmentedQueries = field(default_factory=AugmentedQueries)
    updates: list[Change] = field(default_factory=list)
    deletes: list[Change] = field(default_factory=list)
    failures: list[tuple[Change, ImageError]] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    """Items that are newer, or deleted: their failures are out of date, even if they were recorded later."""
    _unmarked: dict[str, Document | None] = field(default_factory=dict)
    """By item, what its failure was before `mark`."""

    @property
    def changes_done(self) -> int:
        """Changes that this delivery worked on, whatever the result."""
        return len(self.images) + len(self.updates) + len(self.deletes) + len(self.failures)

    @property
    def is_last(self) -> bool:
        """Whether items that fail now are recorded as failed, and left to a later crawl."""
        return self.attempt >= self.settings.embed_attempts_max

    def stored_version(self, item: str) -> int:
        document = self.documents.get(item)
        return int(document.data["version"]) if document else -1

    def failed_version(self, item: str) -> int:
        """The version whose image failed for good; -1 if none did."""
        failure = self.failed_before.get(item)
        if failure is None or failure.data["code"] == NothingToCompare.code:
            return -1
        if failure.data["retriable"] or failure.data.get("again"):
            return -1
        return int(failure.data["version"])

    def mark(self, change: Change) -> Put:
        """The write, made before an item is embedded alone, which records that the process ended meanwhile."""
        ended = EmbedCrashed("The process ended while it was embedded", remedy="Check the image: memory may run out")
        data = as_document(self._failure(change, ended, self.now))
        self._unmarked[change.item.id] = self.failed_before.get(change.item.id)
        self.failed_before[change.item.id] = Document(key=change.item.id, data=data, revision=1)
        return _put(FAILURES, change.item.id, data)

    def unmark(self, change: Change) -> Write:
        """The write that takes a mark back: the process goes on, and what it lacked was not of the item."""
        before = self._unmarked[change.item.id]
        if before is not None and before.data["version"] == change.version:
            return _put(FAILURES, change.item.id, before.data)
        return Delete(collection=FAILURES, key=change.item.id, field="version", value=change.version)

    def put_item(self, item: str, data: Mapping[str, object]) -> Put:
        """The write of an item's document. For a new one, the guard needs no second read."""
        if item in self.documents:
            return _put(ITEMS, item, data)
        return Put(collection=ITEMS, key=item, data=data, if_revision=0)

    def sort_changes(self) -> list[Change]:
        """Leave out changes that are done already, note updates and deletes, and return the changes to embed."""
        to_embed = []
        for change in {change.item.id: self._in_order(change) for change in self.batch.changes}.values():
            document = self.documents.get(change.item.id)
            stored = self.stored_version(change.item.id)
            live = is_live(document.data if document else None)
            same_model = document is not None and document.data.get("model") == self.model
            superseded = stored > change.version or (stored == change.version and (same_model or not live))
            hopeless = change.action != "delete" and self.failed_version(change.item.id) >= change.version
            if superseded or hopeless:
                self.report.already_done += 1
                self.superseded += [change.item.id] if stored > change.version else []
            elif change.action == "delete":
                self.deletes.append(change)
            elif change.action == "update" and live and same_model and _same_image(document, change.item):
                self.updates.append(change)
            else:
                to_embed.append(change)
        return to_embed

    def _in_order(self, change: Change) -> Change:
        """The change, with a version above that left by a clock that was ahead."""
        failure = self.failed_before.get(change.item.id)
        known = max(self.stored_version(change.item.id), failure.data["version"] if failure else -1)
        latest = int(self.now.timestamp() * 1000) + AHEAD_MS
        if not change.version <= latest < known:
            return change
        return msgspec.structs.replace(change, version=known + 1)

    def writes(self, shard: str | None) -> list[Write]:
        """All results of the delivery, for one atomic commit. Counts it in the report as well.

        Args:
            shard: Name of the object with the vectors of `images`; None if there are none.
        """
        now = self.now
        tombstones = [Tombstone(id=c.item.id, version=c.version) for c in self.deletes]
        writes: list[Write] = [self._item(p, shard or "", now) for p in self.images]
        writes += [self._gone(c, now) for c in self.deletes]
        updates = []
        for change in self.updates:
            indexed = msgspec.convert(self.documents[change.item.id].data, IndexedItem)
            indexed = msgspec.structs.replace(indexed, item=change.item, version=change.version)
            writes.append(self.put_item(change.item.id, as_document(indexed)))
            facets = FacetRow.of(change.item, indexed.labels, (indexed.width, indexed.height))
            updates.append(FacetUpdate(id=change.item.id, version=change.version, facets=facets))
        for change, exc in self.failures:
            failure = self._failure(change, exc, now)
            writes.append(_put(FAILURES, change.item.id, as_document(failure)))
            self.report.unavailable += failure.retriable
            self.report.failed += not failure.retriable
            if isinstance(exc, UnsafeImage) and 0 <= self.stored_version(change.item.id) < change.version:
                # Any other failure leaves the older picture searchable: the link check finds out whether it is gone.
                tombstones.append(Tombstone(id=change.item.id, version=change.version))
                writes.append(self._gone(change, now))
        for image in self.images:
            if image.blank is not None:
                failure = self._failure(image.change, nothing_to_compare(image.blank), now)
                writes.append(_put(FAILURES, image.change.item.id, as_document(failure)))
        done = {image.change.item.id: image.change.version for image in self.images if image.blank is None}
        done |= {change.item.id: change.version for change in self.deletes}
        done |= {key: self.stored_version(key) - 1 for key in self.superseded}
        writes += [
            Delete(collection=FAILURES, key=key, field="version", value=version)
            for key, version in done.items()
            if key in self.failed_before
        ]
        if shard or updates or tombstones:
            commit = ShardCommit(
                batch=self.batch.id,
                model=self.model,
                shard=shard,
                count=len(self.images),
                updates=tuple(updates),
                tombstones=tuple(tombstones),
                trace=carrier().get("traceparent", ""),
            )
            data = {**as_document(commit), "committed_at": SERVER_TIME}
            writes.append(Put(collection=COMMITS, key=self.commit_key(), data=data))
        self.report.embedded = len(self.images)
        self.report.updated, self.report.deleted = len(self.updates), len(self.deletes)
        return writes

    def commit_key(self) -> str:
        """Differs if a redelivery of a batch adds the part that was missing, or if another model embeds it."""
        parts = [*sorted(p.change.item.id for p in self.images), self.model]
        return f"{self.batch.id}-{hashlib.blake2b(''.join(parts).encode(), digest_size=4).hexdigest()}"

    def _item(self, image: EmbeddedImage, shard: str, now: datetime) -> Put:
        indexed = IndexedItem(
            item=image.change.item,
            version=image.change.version,
            model=self.model,
            shard=shard,
            indexed_at=now.isoformat(timespec="seconds"),
            width=image.width,
            height=image.height,
            labels=image.labels,
            safety=image.safety,
            blank=image.blank,
        )
        return self.put_item(image.change.item.id, as_document(indexed))

    def _gone(self, change: Change, now: datetime) -> Put:
        data = {"version": change.version, "gone": True, "expires_at": (now + GONE_KEPT).timestamp()}
        return self.put_item(change.item.id, data)

    def _failure(self, change: Change, exc: ImageError, now: datetime) -> Failure:
        before = self.failed_before.get(change.item.id)
        is_same = before is not None and before.data["version"] == change.version
        tries = before.data.get("tries", 1) + bool(before.data.get("again")) if before is not None and is_same else 1
        pause = timedelta(days=min(2 ** (tries - 1), PAUSE_DAYS_MAX))
        return Failure(
            item=change.item.id,
            source=change.item.source,
            image_url=change.item.image_url,
            version=change.version,
            batch=self.batch.id,
            code=exc.code,
            reason=str(exc),
            # The last try leaves it to the crawl at `next_at`: a silent origin is not a fault of the batch.
            retriable=exc.retriable and not self.is_last,
            at=now.isoformat(timespec="seconds"),
            model=self.model,
            wanted=None if isinstance(exc, NothingToCompare) else _writable(change.item),
            certain=exc.certain,
            settings=named_settings(str(exc), self.settings),
            tries=tries,
            next_at=None if exc.certain else (now + pause).timestamp(),
        )


def named_settings(reason: str, settings: Settings) -> dict[str, str]:
    """The settings that a sentence names, as they are now."""
    return {name: str(getattr(settings, name)) for name in DECIDING if PREFIX + name.upper() in reason}


def nothing_to_compare(sentence: str) -> NothingToCompare:
    """The record for an item that is indexed, but never counts as a near-duplicate of another one."""
    return NothingToCompare(
        sentence,
        valid="An image that shows something",
        remedy="Look at the image where the catalogue has it: it may be a placeholder, or cut off",
    )


def _writable(item: Item) -> Item | None:
    try:
        return checked_item(item)
    except DropItem:
        return None


def _same_image(document: Document | None, item: Item) -> bool:
    """Whether an item's vector is still that of its image: the publisher of an update may not have known."""
    return document is not None and (
        msgspec.convert(document.data["item"], Item).image_signature() == item.image_signature()
    )


def _put(collection: str, key: str, data: Mapping[str, object]) -> Put:
    return Put(collection=collection, key=key, data=data, newer_than="version")
