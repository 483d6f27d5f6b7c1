"""Embed: turn one batch of changes into a shard, item documents and failure records.

Deliveries come at least once and in any order, so every step can be repeated:
1. read the batch's item and failure documents, and leave out what is already done or superseded;
2. download and decode in threads, embed as pictures arrive;
3. write the shard, named by its content;
4. commit, atomically: the items, the failures, and the record that makes the shard visible.
A crash before 4 leaves at most a shard that nobody refers to, which the redelivery overwrites or compaction collects.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
from PIL import Image

from visor.errors import Conflict, CorruptObject, FetchUnavailable, ImageError, UnsafeImage
from visor.images.decode import DecodedImage, decode
from visor.images.hash import perceptual_hash
from visor.index.shard import shard_object, write_shard
from visor.models.run import Embedder
from visor.pipeline.meter import Meter
from visor.pipeline.safety import Thresholds
from visor.records import (
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
)
from visor.settings import Settings
from visor.stores.documents import SERVER_TIME, Delete, Document, DocumentStore, Put, Write
from visor.stores.objects import ObjectStore

LOG = logging.getLogger("visor.embed")
RACES_MAX = 3
"""Commits that one delivery loses to another of the same items before it leaves them to the next delivery."""
EMBED_AT_ONCE = 4
"""Pictures embedded in one go while others still download."""
GONE_KEPT = timedelta(days=30)
"""How long the document of a deleted item stays, so that an older message cannot bring it back."""


class BatchIncomplete(FetchUnavailable):
    """Part of a batch has to be delivered again, because its origin did not answer. The rest is committed."""

    code = "batch_incomplete"


@dataclass
class EmbedReport:
    """What one delivery did, in items."""

    embedded: int = 0
    updated: int = 0
    deleted: int = 0
    already_done: int = 0
    failed: int = 0
    unavailable: int = 0


@dataclass
class _Picture:
    """An item on its way through embed. The pixels are dropped once they are a vector."""

    change: Change
    width: int
    height: int
    hashes: bytes
    pixels: Image.Image | None
    vector: np.ndarray | None = None
    labels: tuple[Label, ...] = ()
    safety: Safety | None = None


@dataclass
class _Work:
    """The state of one delivery."""

    batch: Batch
    attempt: int
    documents: dict[str, Document]
    failed_before: dict[str, Document]
    report: EmbedReport = field(default_factory=EmbedReport)
    pictures: list[_Picture] = field(default_factory=list)
    updates: list[Change] = field(default_factory=list)
    deletes: list[Change] = field(default_factory=list)
    failures: list[tuple[Change, ImageError]] = field(default_factory=list)

    @property
    def changes_done(self) -> int:
        """Changes that this delivery worked on, with whatever result."""
        return len(self.pictures) + len(self.updates) + len(self.deletes) + len(self.failures)

    def stored_version(self, item: str) -> int:
        document = self.documents.get(item)
        return int(document.data["version"]) if document else -1

    def failed_version(self, item: str) -> int:
        """The version that was found to have no picture for good."""
        failure = self.failed_before.get(item)
        return -1 if failure is None or failure.data["retriable"] else int(failure.data["version"])

    def put_item(self, item: str, data: Mapping[str, object]) -> Put:
        """The write of an item's document: a new one needs no second read for its guard."""
        if item in self.documents:
            return _put("items", item, data)
        return Put(collection="items", key=item, data=data, if_revision=0)


class BatchEmbedder:
    """Embeds batches, one at a time or several in threads.

    Args:
        read_image: Gives the bytes of an item's picture, or raises an `ImageError`.
    """

    def __init__(
        self,
        *,
        embedder: Embedder,
        read_image: Callable[[Item], bytes],
        objects: ObjectStore,
        documents: DocumentStore,
        settings: Settings,
        meter: Meter | None = None,
    ) -> None:
        self.embedder, self.read_image, self.meter = embedder, read_image, meter
        self.objects, self.documents, self.settings = objects, documents, settings
        self.thresholds = Thresholds.of(settings)
        # Downloads wait for each other's decoding, because pixels are what takes memory, and threads of their own keep
        # a heap of that size each.
        self._decoding = ThreadPoolExecutor(settings.threads, "visor-decode")

    def embed(self, body: bytes, *, attempt: int = 1) -> EmbedReport:
        """Process one delivery of one message.

        Args:
            body: A `Batch` as JSON.
            attempt: 1 for the first delivery, as the queue counts.

        Raises:
            CorruptObject: The message is no batch: retrying will not help, and it belongs to the dead letters.
            BatchIncomplete: Some origins did not answer; what did is committed. Deliver again later.
            StoreUnavailable: A store did not answer; deliver again later.
            Conflict: Other deliveries of the same items went on writing them; deliver again later.
        """
        batch = decode_batch(body)
        for race in range(RACES_MAX):
            try:
                work = self._work(batch, attempt)
                break
            except Conflict:
                if race == RACES_MAX - 1:
                    raise
        self._tell(work)
        if self.meter is not None and work.changes_done:
            self.meter.add("embed", work.changes_done)
        if work.report.unavailable:
            waits = [e.retry_after_s or 0 for _, e in work.failures if isinstance(e, FetchUnavailable)]
            first = next(e for _, e in work.failures if e.retriable)
            raise BatchIncomplete(
                f"{work.report.unavailable} of {len(batch.changes)} pictures of batch {batch.id} are not to be had now",
                valid=f"The first of them: {first.found}",
                remedy="The queue delivers the batch again; what was embedded is not embedded twice",
                retry_after_s=max(waits) or None,
            )
        return work.report

    def _work(self, batch: Batch, attempt: int) -> _Work:
        """Go through the steps once, from what the stores hold now."""
        ids = list({change.item.id for change in batch.changes})
        documents, failed = self.documents.get("items", ids), self.documents.get("failures", ids)
        work = _Work(batch=batch, attempt=attempt, documents=documents, failed_before=failed)
        self._embed_pictures(work, self._sort_out(work))
        self._commit(work)
        return work

    def _tell(self, work: _Work) -> None:
        """One line a delivery, and one an item that failed."""
        for change, exc in work.failures:
            level = logging.INFO if exc.retriable else logging.WARNING
            LOG.log(level, "Item %s: %s", change.item.id, exc, extra=_about(work, [change.item.id]))
        report = work.report
        LOG.info(
            "Batch %s, attempt %d: %d embedded, %d updated, %d deleted, %d done before, %d failed, %d to be had later",
            work.batch.id,
            work.attempt,
            report.embedded,
            report.updated,
            report.deleted,
            report.already_done,
            report.failed,
            report.unavailable,
            extra=_about(work, [change.item.id for change in work.batch.changes]),
        )

    def _sort_out(self, work: _Work) -> list[Change]:
        """Leave out what is done; tell updates and deletes from what has to be embedded."""
        to_embed = []
        for change in {change.item.id: change for change in work.batch.changes}.values():
            document = work.documents.get(change.item.id)
            stored = work.stored_version(change.item.id)
            live = document is not None and not document.data.get("gone")
            same_model = document is not None and document.data.get("model") == self.embedder.fingerprint
            superseded = stored > change.version or (stored == change.version and (same_model or not live))
            hopeless = change.action != "delete" and work.failed_version(change.item.id) >= change.version
            if superseded or hopeless:
                work.report.already_done += 1
            elif change.action == "delete":
                work.deletes.append(change)
            elif change.action == "update" and live and same_model and _same_picture(document, change.item):
                work.updates.append(change)
            else:
                to_embed.append(change)
        return to_embed

    def _embed_pictures(self, work: _Work, changes: Sequence[Change]) -> None:
        if not changes:
            return
        with ThreadPoolExecutor(min(self.settings.fetch_parallel, len(changes)), "fetch") as pool:
            pending: list[_Picture] = []
            futures: dict[Future[_Picture], Change] = {pool.submit(self._read, c): c for c in changes}
            for future in as_completed(futures):
                try:
                    pending.append(future.result())
                except ImageError as exc:
                    work.failures.append((futures[future], exc))
                if len(pending) == EMBED_AT_ONCE:
                    self._embed_some(work, pending)
                    pending = []
            if pending:
                self._embed_some(work, pending)

    def _read(self, change: Change) -> _Picture:
        data = self.read_image(change.item)
        return self._decoding.submit(self._decoded, change, data).result()

    def _decoded(self, change: Change, data: bytes) -> _Picture:
        image: DecodedImage = decode(
            data, pixels_max=self.settings.pixels_max, side_hint=self.embedder.description.input_side
        )
        return _Picture(change, image.width, image.height, perceptual_hash(image.pixels), image.pixels)

    def _embed_some(self, work: _Work, pictures: list[_Picture]) -> None:
        embedded = self.embedder.embed([p.pixels for p in pictures if p.pixels is not None])
        for picture, vector, labels, probabilities in zip(
            pictures, embedded.vectors, embedded.labels, embedded.safety, strict=True
        ):
            picture.pixels = None
            picture.vector, picture.labels = vector, labels
            picture.safety = self.thresholds.judge_item(probabilities)
            if picture.safety is not None and picture.safety.unsafe:
                work.failures.append((picture.change, unsafe_image(picture.safety, self.settings.unsafe_item)))
            else:
                work.pictures.append(picture)

    def _commit(self, work: _Work) -> None:
        now = datetime.now(UTC)
        work.pictures.sort(key=lambda p: p.change.item.id)
        name = self._write_shard(work)
        tombstones = [Tombstone(id=c.item.id, version=c.version) for c in work.deletes]
        writes: list[Write] = [self._item(work, p, name or "", now) for p in work.pictures]
        writes += [self._gone(work, c, now) for c in work.deletes]
        updates = []
        for change in work.updates:
            indexed = msgspec.convert(work.documents[change.item.id].data, IndexedItem)
            indexed = msgspec.structs.replace(indexed, item=change.item, version=change.version)
            writes.append(work.put_item(change.item.id, as_document(indexed)))
            facets = FacetRow.of(change.item, indexed.labels)
            updates.append(FacetUpdate(id=change.item.id, version=change.version, facets=facets))
        for change, exc in work.failures:
            writes.append(_put("failures", change.item.id, as_document(self._failure(work, change, exc, now))))
            work.report.unavailable += exc.retriable
            work.report.failed += not exc.retriable
            if not exc.retriable and work.stored_version(change.item.id) >= 0:
                # An older picture of this item is searchable, and the catalogue no longer shows it.
                tombstones.append(Tombstone(id=change.item.id, version=change.version))
                writes.append(self._gone(work, change, now))
        done = [p.change for p in work.pictures] + work.deletes
        writes += [
            Delete(collection="failures", key=c.item.id, field="version", value=c.version)
            for c in done
            if c.item.id in work.failed_before
        ]
        if name or updates or tombstones:
            commit = ShardCommit(
                batch=work.batch.id,
                model=self.embedder.fingerprint,
                shard=name,
                count=len(work.pictures),
                updates=tuple(updates),
                tombstones=tuple(tombstones),
            )
            data = {**as_document(commit), "committed_at": SERVER_TIME}
            writes.append(Put(collection="commits", key=self._commit_key(work), data=data))
        if writes:
            self.documents.commit(writes)
        work.report.embedded = len(work.pictures)
        work.report.updated, work.report.deleted = len(work.updates), len(work.deletes)

    def _write_shard(self, work: _Work) -> str | None:
        """Write the vectors under a name made of what is in them; None if there are none."""
        if not work.pictures:
            return None
        pictures = work.pictures
        data = write_shard(
            model=self.embedder.fingerprint,
            ids=[p.change.item.id for p in pictures],
            versions=[p.change.version for p in pictures],
            vectors=np.stack([p.vector for p in pictures if p.vector is not None]).astype(np.float16),
            hashes=np.stack([np.frombuffer(p.hashes, np.uint8) for p in pictures]),
            facets=[FacetRow.of(p.change.item, p.labels) for p in pictures],
        )
        name = shard_object(self._commit_key(work))
        self.objects.put(name, data)
        return name

    def _commit_key(self, work: _Work) -> str:
        """Differs where a redelivery of a batch adds the part that was missing, or another model embeds it."""
        parts = [*sorted(p.change.item.id for p in work.pictures), self.embedder.fingerprint]
        return f"{work.batch.id}-{hashlib.blake2b(''.join(parts).encode(), digest_size=4).hexdigest()}"

    def _item(self, work: _Work, picture: _Picture, shard: str, now: datetime) -> Put:
        indexed = IndexedItem(
            item=picture.change.item,
            version=picture.change.version,
            model=self.embedder.fingerprint,
            shard=shard,
            indexed_at=now.isoformat(timespec="seconds"),
            width=picture.width,
            height=picture.height,
            labels=picture.labels,
            safety=picture.safety,
        )
        return work.put_item(picture.change.item.id, as_document(indexed))

    def _gone(self, work: _Work, change: Change, now: datetime) -> Put:
        data = {"version": change.version, "gone": True, "expires_at": (now + GONE_KEPT).timestamp()}
        return work.put_item(change.item.id, data)

    def _failure(self, work: _Work, change: Change, exc: ImageError, now: datetime) -> Failure:
        return Failure(
            item=change.item.id,
            source=change.item.source,
            image_url=change.item.image_url,
            version=change.version,
            batch=work.batch.id,
            code=exc.code,
            reason=str(exc),
            retriable=exc.retriable,
            at=now.isoformat(timespec="seconds"),
        )


def _same_picture(document: Document | None, item: Item) -> bool:
    """Whether the vector that an item has is its picture's still. Whoever published an update may not have known."""
    return document is not None and (
        msgspec.convert(document.data["item"], Item).image_signature() == item.image_signature()
    )


def decode_batch(body: bytes) -> Batch:
    """A message's batch.

    Raises:
        CorruptObject: The message is none.
    """
    try:
        return msgspec.json.decode(body, type=Batch)
    except msgspec.DecodeError as exc:
        raise CorruptObject(
            f"A message of {len(body)} bytes is no batch: {exc}",
            valid="A batch is what `visor crawl` publishes",
            remedy="It stays among the dead letters: see `visor dlq list`",
        ) from exc


def unsafe_image(safety: Safety, threshold: float) -> UnsafeImage:
    """The error for a picture that the safety head refuses."""
    worst = max(safety.probabilities, key=lambda name: safety.probabilities[name])
    return UnsafeImage(
        f"The safety head says {worst} with probability {safety.probabilities[worst]:.2f}",
        valid=f"Pictures below {threshold} are taken",
        remedy="If the picture is fine, raise VISOR_UNSAFE_ITEM or VISOR_UNSAFE_QUERY",
    )


def _put(collection: str, key: str, data: Mapping[str, object]) -> Put:
    return Put(collection=collection, key=key, data=data, newer_than="version")


def _about(work: _Work, items: list[str]) -> dict[str, object]:
    """What a line of the log carries, so that all lines of a batch or item are found."""
    return {"batch": work.batch.id, "run": work.batch.run, "source": work.batch.source, "items": items}
