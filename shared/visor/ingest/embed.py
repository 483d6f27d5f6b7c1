"""Embed: turn one batch of changes into a shard, item documents and failure records.

Deliveries come at least once and in any order, so every step can be repeated:
1. read the batch's item and failure documents, and leave out what is already done or superseded;
2. download and decode in threads, embed as pictures arrive;
3. write the shard, named by its content;
4. commit, atomically: the items, the failures, and the record that makes the shard visible.
A crash before 4 leaves at most a shard that nobody refers to, which the redelivery overwrites or compaction collects.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from datetime import UTC, datetime

import msgspec
import numpy as np

from visor.errors import Conflict, CorruptObject, FetchUnavailable, ImageError, UnsafeImage
from visor.free_tier.quota import Meter
from visor.imaging.colour_signature import colour_signature
from visor.imaging.decode import DecodedImage, decode
from visor.index.format.looks import pack_look
from visor.index.format.shard import shard_object, write_shard
from visor.ingest.batch_plan import Delivery, EmbedReport, Picture
from visor.models.embedder import Embedder
from visor.models.moderation import Thresholds
from visor.near_duplicates.fingerprint import perceptual_hash
from visor.schema.items import (
    Batch,
    Change,
    FacetRow,
    Item,
    Safety,
)
from visor.settings import Settings
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore

LOG = logging.getLogger("visor.embed")
RACES_MAX = 3
"""Commits that one delivery loses to another of the same items before it leaves them to the next delivery."""
BUDGET_S = 500.0
"""A delivery ends within this, of the 540 s that its function has: none begins again that might not end in time."""
EMBED_AT_ONCE = 4
"""Pictures embedded in one go while others still download."""


class BatchIncomplete(FetchUnavailable):
    """Part of a batch has to be delivered again, because its origin did not answer. The rest is committed."""

    code = "batch_incomplete"


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.embedder, self.read_image, self.meter, self.clock = embedder, read_image, meter, clock
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
        started = self.clock()
        for race in range(RACES_MAX):
            try:
                work = self._work(batch, attempt)
                break
            except Conflict:
                took_s = self.clock() - started
                if race == RACES_MAX - 1 or took_s > BUDGET_S / RACES_MAX:
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

    def _work(self, batch: Batch, attempt: int) -> Delivery:
        """Go through the steps once, from what the stores hold now."""
        ids = list({change.item.id for change in batch.changes})
        documents, failed = self.documents.get("items", ids), self.documents.get("failures", ids)
        work = Delivery(
            batch=batch,
            attempt=attempt,
            model=self.embedder.fingerprint,
            documents=documents,
            failed_before=failed,
        )
        self._embed_pictures(work, work.sort_out())
        self._commit(work)
        return work

    def _tell(self, work: Delivery) -> None:
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

    def _embed_pictures(self, work: Delivery, changes: Sequence[Change]) -> None:
        if not changes:
            return
        with ThreadPoolExecutor(min(self.settings.fetch_parallel, len(changes)), "fetch") as pool:
            pending: list[Picture] = []
            futures: dict[Future[Picture], Change] = {pool.submit(self._read, c): c for c in changes}
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

    def _read(self, change: Change) -> Picture:
        data = self.read_image(change.item)
        return self._decoding.submit(self._decoded, change, data).result()

    def _decoded(self, change: Change, data: bytes) -> Picture:
        image: DecodedImage = decode(
            data, pixels_max=self.settings.pixels_max, side_hint=self.embedder.description.input_side
        )
        return Picture(change, image.width, image.height, perceptual_hash(image.pixels), image.pixels)

    def _embed_some(self, work: Delivery, pictures: list[Picture]) -> None:
        images = {p.change.item.id: p.pixels for p in pictures if p.pixels is not None}
        augmented = work.augmented.images(images)
        embedded = self.embedder.embed([*images.values(), *augmented.values()])
        looks = [
            pack_look(probabilities, colour_signature(image))
            for probabilities, image in zip(
                embedded.probabilities, (*images.values(), *augmented.values()), strict=True
            )
        ]
        for number, item in enumerate(augmented, len(images)):
            work.augmented.add(item, embedded.vectors[number], looks[number])
        for picture, vector, labels, probabilities, look in zip(
            pictures, embedded.vectors, embedded.labels, embedded.safety, looks, strict=False
        ):
            picture.pixels, picture.look = None, look
            picture.vector, picture.labels = vector, labels
            picture.safety = self.thresholds.judge_item(probabilities)
            if picture.safety is not None and picture.safety.unsafe:
                work.failures.append((picture.change, unsafe_image(picture.safety, self.settings.unsafe_item)))
            else:
                work.pictures.append(picture)

    def _commit(self, work: Delivery) -> None:
        work.pictures.sort(key=lambda p: p.change.item.id)
        shard = self._write_shard(work)
        if writes := work.writes(shard, datetime.now(UTC)):
            self.documents.commit(writes)

    def _write_shard(self, work: Delivery) -> str | None:
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
            looks=np.stack([p.look for p in pictures if p.look is not None]),
            augmented=work.augmented.kept(self.embedder.dimension),
        )
        name = shard_object(work.commit_key())
        self.objects.put(name, data)
        return name


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


def _about(work: Delivery, items: list[str]) -> dict[str, object]:
    """What a line of the log carries, so that all lines of a batch or item are found."""
    return {"batch": work.batch.id, "run": work.batch.run, "source": work.batch.source, "items": items}
