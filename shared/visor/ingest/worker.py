"""Receives batches and embeds them: in a worker on a laptop; in a function on Google Cloud, where Pub/Sub pushes
them."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from visor.errors import CorruptObject, FormatError, ImageError, VisorError
from visor.ingest.batch_plan import EmbedReport
from visor.ingest.embed import OURS, BatchEmbedder, BatchIncomplete
from visor.schema.collections import TRIES
from visor.storage import Stores
from visor.storage.documents import Delete, Put
from visor.storage.queue import Message, Queue
from visor.telemetry.traces import span

LOG = logging.getLogger("visor.worker")
LEASE_S = 900.0
BACK_OFF_S = 2.0
"""Doubled with every attempt, unless the origin named a time itself."""
BACK_OFF_MAX_S = 300.0
OURS_MAX = 5
"""Failures of our own in a row (an unavailable store, a full disk) after which `drain` gives up."""
POLL_FIRST_S, POLL_S = 0.01, 0.25
DELIVERIES_MAX = 90
"""From this delivery on each try is the last: Pub/Sub itself gives up after 100."""
CRAWL_EVERY_S, WORKER_PAUSE_S, MERGE_LOOK_S = 60.0, 30.0, 15.0
"""How often `Scheduler` checks for due sources and for something to merge; its pause after an error of the worker."""
MERGE_AFTER = 5_000
"""Items changed since the last merge after which there is another merge in the middle of a crawl."""


class Worker:
    """Embeds queued batches in a few threads: one downloads while the model is busy with another's pictures."""

    def __init__(
        self,
        queue: Queue,
        embedder: BatchEmbedder,
        *,
        threads: int = 2,
        on_report: Callable[[EmbedReport], None] | None = None,
        on_wait: Callable[[int, str], None] | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Args:
            on_wait: Called with the number of batches that wait for another try, and why one of them does.
            check: Called before each batch; what it raises ends `drain` or `work`.
        """
        self.queue, self.embedder, self.threads = queue, embedder, threads
        self.on_report, self.on_wait, self.check = on_report, on_wait, check
        self._stop, self._failed = threading.Event(), threading.Event()
        self._ours, self._why = 0, ""
        self._in_hand: list[Message] = []

    def drain(self) -> None:
        """Work until the queue is empty: everything is embedded, recorded as failed, or a dead letter.

        Raises:
            VisorError: A failure of our own, not of a picture: a missing model, a full disk. The batch is kept, and
                its attempts do not count.
        """
        self._run(until_empty=True)

    def work(self) -> None:
        """Work until `stop`."""
        self._run(until_empty=False)

    def stop(self) -> None:
        """End after the batches in hand."""
        self._stop.set()

    def _run(self, *, until_empty: bool) -> None:
        errors: list[BaseException] = []
        self._failed.clear()

        def loop() -> None:
            try:
                self._loop(until_empty=until_empty)
            except BaseException as exc:  # noqa: BLE001 — carried to the caller's thread
                errors.append(exc)
                self._failed.set()

        threads = [threading.Thread(target=loop, name=f"worker-{n}", daemon=True) for n in range(self.threads)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        except BaseException:
            # As with control-C: whoever catches it continues without us, and no picture is to blame.
            self._stop.set()
            for message in list(self._in_hand):
                with suppress(VisorError):
                    self.queue.release(message, delay_s=0, why="It was interrupted", counts=False)
            raise
        if errors:
            raise errors[0]

    def _loop(self, *, until_empty: bool) -> None:
        pause_s = POLL_FIRST_S
        while not (self._stop.is_set() or self._failed.is_set()):
            self.check()
            messages = self.queue.receive(1, lease_s=LEASE_S)
            for message in messages:
                self._in_hand.append(message)
                self._process(message, until_empty=until_empty)
                self._in_hand.remove(message)
            if not messages:
                waiting = self.queue.waiting() if until_empty else -1
                if waiting == 0:
                    return
                if self._why and self.on_wait:
                    self.on_wait(waiting, self._why)
                    self._why = ""
                time.sleep(pause_s)
            pause_s = POLL_FIRST_S if messages else min(2 * pause_s, POLL_S)

    def _process(self, message: Message, *, until_empty: bool) -> None:
        try:
            with span("embed", kind="consumer", parent=message.attributes, attempt=message.attempt):
                report = self.embedder.embed(message.body, attempt=message.attempt)
        except VisorError as exc:
            wait_s = getattr(exc, "retry_after_s", None) or BACK_OFF_S * 2 ** (message.attempt - 1)
            LOG.warning("Message %s, attempt %d: %s", message.id, message.attempt, exc)
            counts = counts_as_try(exc)
            self.queue.release(message, delay_s=min(wait_s, BACK_OFF_MAX_S), why=str(exc), counts=counts)
            self._ours += not counts and not isinstance(exc, BatchIncomplete)
            self._why = str(exc)
            if until_empty and self._ours >= OURS_MAX:
                raise
            return
        except Exception as exc:
            why = f"{type(exc).__name__}: {exc}"
            self.queue.release(message, delay_s=BACK_OFF_S, why=why, counts=counts_as_try(exc))
            raise
        self._ours = 0
        self.queue.acknowledge(message)
        if self.on_report:
            self.on_report(report)


class Scheduler:
    """Crawls due sources, embeds queued batches and merges, in threads of this process, until it is stopped."""

    def __init__(
        self,
        queue: Queue,
        embedder: BatchEmbedder,
        *,
        crawl_due: Callable[[], object],
        merge: Callable[[], object],
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """`check` as in `Worker`."""
        self._crawl_due, self._merge = crawl_due, merge
        self._changed = 1  # by an earlier process, perhaps
        self._worker = Worker(queue, embedder, on_report=self._count, check=check)
        self._queue = queue
        self._stop = threading.Event()
        tasks = (
            (self._worker.work, WORKER_PAUSE_S),
            (self._crawl_due, CRAWL_EVERY_S),
            (self._merge_if_due, MERGE_LOOK_S),
        )
        self._threads = [
            threading.Thread(target=self._repeat, args=task, name=f"scheduler-{number}", daemon=True)
            for number, task in enumerate(tasks)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, wait_s: float = 30.0) -> None:
        """End after the batches in hand, or leave them after `wait_s`: the next process does unfinished ones again,
        as after a power cut."""
        self._stop.set()
        self._worker.stop()
        self._threads[0].join(wait_s)

    def _repeat(self, task: Callable[[], object], pause_s: float) -> None:
        while not self._stop.is_set():
            try:
                task()
            except VisorError as exc:
                LOG.error("%s It is tried again in %d s", exc, pause_s)
            except Exception:
                LOG.exception("%s; tried again in %d s", getattr(task, "__name__", task), pause_s)
            self._stop.wait(pause_s)

    def _count(self, report: EmbedReport) -> None:
        self._changed += report.embedded + report.updated + report.deleted

    def _merge_if_due(self) -> None:
        """Merge once all waiting batches are done, or after many changes; again after a merge that failed."""
        if self._changed and (self._changed >= MERGE_AFTER or not self._queue.waiting()):
            changed = self._changed
            LOG.info("Merged: %s", self._merge())
            self._changed -= changed


class PushedBatches:
    """Embeds batches that Pub/Sub pushes, and makes a dead letter of a batch that was tried `attempts_max` times.

    Pub/Sub also counts deliveries for which no instance was free, so tries that ran are counted here. Except for the
    first delivery, each is counted before it runs, so that it counts even if its process ends. A try does not count if
    it fails for a reason of our own (an unavailable store, a missing model), or because a host asked for a pause.
    """

    def __init__(self, embedder: BatchEmbedder, stores: Stores, attempts_max: int) -> None:
        self.embedder, self.stores, self.attempts_max = embedder, stores, attempts_max

    def embed(self, body: bytes, *, attempt: int) -> EmbedReport | None:
        """Process one delivery; None if it became a dead letter, which acknowledges it, too.

        Args:
            attempt: 1 for the first delivery, as Pub/Sub counts.

        Raises:
            VisorError: As `BatchEmbedder.embed`; deliver again later.
        """
        key = hashlib.blake2b(body, digest_size=16).hexdigest()
        counted = self.stores.documents.get(TRIES, [key]).get(key)
        tries = 1 + (int(counted.data["tries"]) if counted else 0)
        if tries > self.attempts_max:
            self._bury(key, body, tries - 1, "The function ended during its last try")
            return None
        is_counted = attempt > 1 or tries > 1
        if is_counted:
            self._count(key, tries)
        try:
            last = attempt >= DELIVERIES_MAX
            report = self.embedder.embed(body, attempt=self.attempts_max if last else tries)
        except CorruptObject as exc:
            self._bury(key, body, tries, str(exc))
            return None
        except (VisorError, OSError) as exc:
            if not counts_as_try(exc):
                if is_counted:
                    with suppress(VisorError):
                        self._count(key, tries - 1)
            elif tries >= self.attempts_max:
                self._bury(key, body, tries, str(exc))
                return None
            elif not is_counted:
                self._count(key, tries)
            raise
        if is_counted:
            self.stores.documents.commit([Delete(collection=TRIES, key=key)])
        return report

    def _count(self, key: str, tries: int) -> None:
        self.stores.documents.commit([Put(collection=TRIES, key=key, data={"tries": tries})])

    def _bury(self, key: str, body: bytes, tries: int, why: str) -> None:
        LOG.error("Batch given up after %d tries: %s", tries, why)
        self.stores.queue.bury(body, attempts=tries, why=why)
        self.stores.documents.commit([Delete(collection=TRIES, key=key)])


def counts_as_try(error: Exception) -> bool:
    """Whether a try that ended with this error counts: not if the failure is our own."""
    if isinstance(error, BatchIncomplete):
        return error.counts
    return isinstance(error, ImageError | FormatError) or not isinstance(error, OURS)
