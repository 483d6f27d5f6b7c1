"""Embed: turn one batch of changes into a shard, item documents and failure records.

Deliveries come at least once and in any order, so every step can be repeated:
1. read the batch's item and failure documents, and leave out what is already done or superseded;
2. download and decode in threads, and embed as images arrive;
3. write the shard, named by its content;
4. commit, atomically: the items, the failures, and the record that makes the shard visible.
A crash before 4 leaves at most an unreferenced shard, which the redelivery overwrites or garbage collection deletes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from PIL import Image

from visor.errors import (
    Conflict,
    EmbedCrashed,
    FetchUnavailable,
    HostPaused,
    ImageError,
    UnsafeImage,
    VisorError,
)
from visor.free_tier.quota import Meter
from visor.imaging.colour_signature import colour_signature
from visor.imaging.content import ITEM_INNER_MIN, content_of
from visor.imaging.decode import decode_image
from visor.index.format.looks import pack_look
from visor.index.format.shard import shard_object, write_shard
from visor.ingest.batch_plan import BatchPlan, EmbeddedImage, EmbedReport, nothing_to_compare
from visor.models.description import CLOSER_VIEWS
from visor.models.embedder import Embedder, view_of
from visor.models.moderation import moderate, unsafe_score_in_words
from visor.near_duplicates.fingerprint import unmatchable_hash
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.schema.collections import FAILURES, ITEMS
from visor.schema.items import Batch, Change, FacetRow, Item, Safety
from visor.settings import Settings
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore
from visor.storage.publish import decode_batch
from visor.telemetry.metrics import Metrics
from visor.telemetry.traces import current, span

LOG = logging.getLogger("visor.embed")
RACES_MAX = 3
"""Commits lost to other deliveries of the same items before this delivery leaves them to the next one."""
BUDGET_S = 500.0
"""Of the 540 s that the function has: a delivery starts again only if it can end within this."""
ALONE_FROM = 3
"""Attempt from which the items of a batch are embedded one by one: its process has ended twice."""
OURS = (VisorError, OSError, MemoryError)
"""Errors that stop a whole delivery: they are not about one item."""
PAUSE_WAITED_S = 300.0
"""A pause of a host up to this long is waited for; a longer pause counts as a try."""
LAST_PAUSE_S = 5.0
"""The last try waits for a pause up to this long: items of a batch then come one by one, within `BUDGET_S`."""
EMBED_AT_ONCE = 4
"""Images embedded at once while others still download."""


class BatchIncomplete(FetchUnavailable):
    """Part of a batch has to be delivered again because an origin did not answer. The rest is committed."""

    code = "batch_incomplete"
    counts = True
    """False: the try embedded something, or made no request because all hosts are in a pause."""
    done = EmbedReport()
    """What was committed."""


class _Decoded(NamedTuple):
    """An image on its way to the model."""

    change: Change
    width: int
    height: int
    hashes: bytes
    blank: str | None
    """Why there is nothing to compare in it, if so."""
    pixels: Image.Image


class BatchEmbedder:
    """Embeds batches, one at a time or several in threads.

    Args:
        read_image: Returns the bytes of an item's image, or raises an `ImageError`.
        metrics: Counts items by result.

    Raises:
        ModelError: A file of the model is damaged: that is not a failure of the items.
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
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        embedder.check_files()
        self.embedder, self.read_image, self.meter, self.clock = embedder, read_image, meter, clock
        self.objects, self.documents, self.settings = objects, documents, settings
        self.metrics = metrics or Metrics()
        # Decoding has its own threads, fewer than downloads have: pixels take most of the memory, and each decoding
        # thread keeps a heap of that size.
        self._decoding = ThreadPoolExecutor(settings.threads, "visor-decode")

    def embed(self, body: bytes, *, attempt: int = 1) -> EmbedReport:
        """Process one delivery of one message.

        Args:
            body: A `Batch` as JSON.
            attempt: 1 for the first delivery, as the queue counts.

        Raises:
            CorruptObject: The message does not hold a batch. Retrying does not help; it belongs to the dead letters.
            BatchIncomplete: Some origins did not answer; the rest is committed. Deliver again later. After the last try
                of `embed_attempts_max` these items are recorded as failed instead.
            StoreUnavailable: A store did not answer; deliver again later.
            Conflict: Other deliveries kept writing the same items; deliver again later.
        """
        batch = decode_batch(body)
        current().set(batch=batch.id, run=batch.run, source=batch.source)
        plans = list(self._plans(batch, attempt))
        report = self._reported(plans)
        if report.unavailable:
            raise self._incomplete(batch, plans, report)
        return report

    def _reported(self, plans: Sequence[BatchPlan]) -> EmbedReport:
        """The sum of what was done, logged and counted."""
        report = EmbedReport()
        for plan in plans:
            self._log(plan)
            report.add(plan.report)
            if self.meter is not None and plan.changes_done:
                self.meter.add("embed", plan.changes_done)
        for outcome, count in vars(report).items():
            self.metrics.count("visor_embed_items_total", count, outcome=outcome)
            current().set(**{f"visor.items.{outcome}": count or None})
        return report

    def _incomplete(self, batch: Batch, plans: Sequence[BatchPlan], report: EmbedReport) -> BatchIncomplete:
        late = [e for plan in plans for _, e in plan.failures if e.retriable]
        waits = [e.retry_after_s or 0 for e in late if isinstance(e, FetchUnavailable)]
        incomplete = BatchIncomplete(
            f"{report.unavailable} of {len(batch.changes)} pictures of batch {batch.id} cannot be fetched now. "
            f"The first of them: {late[0].found}",
            remedy="The queue delivers the batch again; what was embedded is not embedded twice",
            retry_after_s=max(waits, default=0) or None,
        )
        unasked = all(isinstance(e, HostPaused) for e in late) and max(waits) <= PAUSE_WAITED_S
        incomplete.counts = not (report.embedded or unasked)
        incomplete.done = replace(report, unavailable=0)
        return incomplete

    def _plans(self, batch: Batch, attempt: int) -> Iterator[BatchPlan]:
        """Deliver a batch; if that fails in an unforeseen way, deliver its halves, so that an item stops only itself.

        Raises:
            Exception: It is not about one item, or no other item succeeded.
        """
        parts = [batch] if attempt < ALONE_FROM else batch.cut(1)
        crashed: list[tuple[Batch, Exception]] = []
        fine = False
        while parts:
            part = parts.pop(0)
            try:
                yield self._delivered(part, attempt)
                fine = True
            except Exception as exc:
                if isinstance(exc, OURS) and not isinstance(exc, EmbedCrashed):
                    raise
                if _lacks_threads(exc):
                    raise InterruptedError(f"No thread could be begun: {exc}") from exc
                LOG.exception("Batch %s: %d items fail", batch.id, len(part.changes))
                if len(part.changes) > 1:
                    parts = [*part.cut((len(part.changes) + 1) // 2), *parts]
                else:
                    crashed.append((part, exc))
        if crashed and not fine and attempt < ALONE_FROM:
            raise crashed[0][1]
        for part, error in crashed:
            plan = self._plan(part, attempt)
            if not isinstance(error, EmbedCrashed):
                error = EmbedCrashed(f"It cannot be embedded: {type(error).__name__}: {error!s:.500}")
            plan.failures.append((part.changes[0], error))
            self._commit(plan)
            yield plan

    def _delivered(self, batch: Batch, attempt: int) -> BatchPlan:
        started = self.clock()
        for race in range(RACES_MAX):
            try:
                return self._deliver(batch, attempt)
            except Conflict:
                took_s = self.clock() - started
                if race == RACES_MAX - 1 or took_s > BUDGET_S / RACES_MAX:
                    raise
        raise AssertionError("unreachable")

    def _deliver(self, batch: Batch, attempt: int) -> BatchPlan:
        """Run the steps once, from what the stores hold now."""
        with span("documents"):
            plan = self._plan(batch, attempt)
        changes = plan.sort_changes()
        if attempt >= ALONE_FROM:
            self.documents.commit([plan.mark(change) for change in changes])
        try:
            if changes:
                with span("images", images=len(changes)):
                    self._embed_images(plan, changes)
            with span("commit"):
                self._commit(plan)
        except Exception as exc:
            # The process has not ended. Of what its memory was too small for, the mark tells the next try.
            if attempt >= ALONE_FROM and not isinstance(exc, MemoryError):
                with suppress(VisorError):
                    self.documents.commit([plan.unmark(change) for change in changes])
            raise
        return plan

    def _plan(self, batch: Batch, attempt: int) -> BatchPlan:
        ids = list({change.item.id for change in batch.changes})
        documents, failed = self.documents.get(ITEMS, ids), self.documents.get(FAILURES, ids)
        return BatchPlan(
            batch=batch,
            attempt=attempt,
            model=self.embedder.fingerprint,
            settings=self.settings,
            now=datetime.now(UTC),
            documents=documents,
            failed_before=failed,
        )

    def _log(self, plan: BatchPlan) -> None:
        """Log one line for the delivery and one for each item that failed."""
        for change, exc in plan.failures:
            level = logging.INFO if exc.retriable else logging.WARNING
            item, key = change.item.id, change.item.key
            LOG.log(level, "Item %s (%.200s): %s", item, key, exc, extra=_about(plan, [item]))
        for image in plan.images:
            if image.blank is not None:
                item = image.change.item.id
                LOG.warning("Item %s: %s", item, nothing_to_compare(image.blank), extra=_about(plan, [item]))
        report = plan.report
        LOG.info(
            "Batch %s, attempt %d: %d embedded, %d updated, %d deleted, %d done before, %d failed, %d left for later",
            plan.batch.id,
            plan.attempt,
            report.embedded,
            report.updated,
            report.deleted,
            report.already_done,
            report.failed,
            report.unavailable,
            extra=_about(plan, [change.item.id for change in plan.batch.changes]),
        )

    def _embed_images(self, plan: BatchPlan, changes: Sequence[Change]) -> None:
        with ThreadPoolExecutor(min(self.settings.fetch_parallel, len(changes)), "fetch") as pool:
            pending: list[_Decoded] = []
            futures: dict[Future[_Decoded], Change] = {pool.submit(self._read, c, plan.is_last): c for c in changes}
            for future in as_completed(futures):
                try:
                    pending.append(future.result())
                except ImageError as exc:
                    plan.failures.append((futures[future], exc))
                if len(pending) == EMBED_AT_ONCE:
                    self._embed_some(plan, pending)
                    pending = []
            if pending:
                self._embed_some(plan, pending)

    def _read(self, change: Change, is_last: bool) -> _Decoded:
        try:
            data = self.read_image(change.item)
        except HostPaused as exc:
            # Another item's error paused this host. No item fails for good without a request for it.
            if not is_last or not 0 < (exc.retry_after_s or 0) <= LAST_PAUSE_S:
                raise
            time.sleep(exc.retry_after_s or 0)
            data = self.read_image(change.item)
        return self._decoding.submit(self._decoded, change, data).result()

    def _decoded(self, change: Change, data: bytes) -> _Decoded:
        side = self.embedder.description.input_side
        image = decode_image(data, pixels_max=self.settings.pixels_max, side_hint=side)
        emptiness = content_of(image.pixels).emptiness(ITEM_INNER_MIN)
        hashes = unmatchable_hash(change.item.id) if emptiness else perceptual_hash(image.pixels)
        blank = None if emptiness is None else emptiness.value
        return _Decoded(change, image.width, image.height, hashes, blank, image.pixels)

    def _embed_some(self, plan: BatchPlan, images: list[_Decoded]) -> None:
        augmented = plan.augmented.images({image.change.item.id: image.pixels for image in images if not image.blank})
        every = [*(image.pixels for image in images), *augmented.values()]
        with span("look", images=len(every)):
            embedded = self.embedder.embed(every)
        # As with a photo that is searched for, the colours of an augmented image are those of its middle.
        boxes = [None] * len(images) + [view_of(pixels, CLOSER_VIEWS[-1]) for pixels in augmented.values()]
        colours = [colour_signature(pixels, box) for pixels, box in zip(every, boxes, strict=True)]
        looks = [pack_look(p, c) for p, c in zip(embedded.probabilities, colours, strict=True)]
        for row, item in enumerate(augmented, len(images)):
            plan.augmented.add(item, embedded.vectors[row], looks[row])
        for row, image in enumerate(images):
            safety = moderate(embedded.safety[row], self.settings.unsafe_item)
            if safety is not None and safety.unsafe:
                plan.failures.append((image.change, unsafe_image(safety, self.settings.unsafe_item)))
            else:
                # Without the pixels, which take most of the memory.
                labels = () if image.blank else embedded.labels[row]
                vector, look = embedded.vectors[row], looks[row]
                plan.images.append(EmbeddedImage(*image[:4], vector, labels, safety, look, image.blank))

    def _commit(self, plan: BatchPlan) -> None:
        plan.images.sort(key=lambda p: p.change.item.id)
        shard = self._write_shard(plan)
        if writes := plan.writes(shard):
            self.documents.commit(writes)

    def _write_shard(self, plan: BatchPlan) -> str | None:
        """Write the vectors to an object named by its content; None if there are no vectors."""
        if not plan.images:
            return None
        images = plan.images
        data = write_shard(
            model=self.embedder.fingerprint,
            ids=[image.change.item.id for image in images],
            versions=[image.change.version for image in images],
            vectors=np.stack([image.vector for image in images]).astype(np.float16),
            hashes=np.stack([np.frombuffer(image.hashes, np.uint8) for image in images]),
            facets=[FacetRow.of(image.change.item, image.labels, (image.width, image.height)) for image in images],
            looks=np.stack([image.look for image in images]),
            augmented=plan.augmented.kept(self.embedder.dimension),
        )
        name = shard_object(plan.commit_key())
        self.objects.put(name, data)
        return name


def _lacks_threads(exc: Exception) -> bool:
    """Whether a thread could not be begun, as this process ends (after control-C) or has too many."""
    said = ("cannot schedule new futures", "can't start new thread")
    return isinstance(exc, RuntimeError) and any(words in str(exc) for words in said)


def unsafe_image(safety: Safety, threshold: float) -> UnsafeImage:
    """The error for an image that the safety head refuses."""
    return UnsafeImage(
        f"The safety head gives it the score {unsafe_score_in_words(safety.probabilities, threshold)}",
        valid=f"A score below {threshold:g}",
        remedy="If the picture is fine, raise VISOR_UNSAFE_ITEM",
    )


def _about(plan: BatchPlan, items: list[str]) -> dict[str, object]:
    """The fields of a log line, by which all lines of a batch or an item can be found."""
    return {"batch": plan.batch.id, "run": plan.batch.run, "source": plan.batch.source, "items": items}
