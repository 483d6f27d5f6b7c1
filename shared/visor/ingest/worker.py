"""The worker: takes batches from the queue and embeds them, in the embedded setting (Pub/Sub pushes in the other)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from visor.errors import FormatError, ImageError, VisorError
from visor.ingest.batch_plan import EmbedReport
from visor.ingest.embed import OURS, BatchEmbedder
from visor.storage.queue import Message, Queue

LOG = logging.getLogger("visor.worker")
LEASE_S = 900.0
BACK_OFF_S = 2.0
"""Doubled with every attempt, unless the origin named its own time."""
BACK_OFF_MAX_S = 300.0
OURS_MAX = 5
"""Times in a row that something of ours fails, until `drain` gives up: a store that is away, a full disk."""
POLL_S = 0.25


class Worker:
    """Embeds what is queued in a few threads: one downloads while the model is busy with another's pictures."""

    def __init__(
        self,
        queue: Queue,
        embedder: BatchEmbedder,
        *,
        threads: int = 2,
        on_report: Callable[[EmbedReport], None] | None = None,
        on_wait: Callable[[int, str], None] | None = None,
    ) -> None:
        """
        Args:
            on_wait: Called with the number of batches that wait for another try, and why one of them does.
        """
        self.queue, self.embedder, self.threads = queue, embedder, threads
        self.on_report, self.on_wait = on_report, on_wait
        self._stop = threading.Event()
        self._ours, self._why = 0, ""

    def drain(self) -> None:
        """Work until the queue is empty: everything is embedded, recorded as failed, or a dead letter.

        Raises:
            VisorError: An error of ours, not of a picture: a missing model, a full disk. The batch is kept, and its
                attempts do not count.
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

        def loop() -> None:
            try:
                self._loop(until_empty=until_empty)
            except BaseException as exc:  # noqa: BLE001 — carried to the caller's thread
                errors.append(exc)
                self._stop.set()

        threads = [threading.Thread(target=loop, name=f"worker-{n}", daemon=True) for n in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
        if errors:
            raise errors[0]

    def _loop(self, *, until_empty: bool) -> None:
        while not self._stop.is_set():
            messages = self.queue.receive(1, lease_s=LEASE_S)
            for message in messages:
                self._process(message, until_empty=until_empty)
            if not messages:
                waiting = self.queue.waiting() if until_empty else -1
                if waiting == 0:
                    return
                if self._why and self.on_wait:
                    self.on_wait(waiting, self._why)
                    self._why = ""
                time.sleep(POLL_S)

    def _process(self, message: Message, *, until_empty: bool) -> None:
        try:
            report = self.embedder.embed(message.body, attempt=message.attempt)
        except VisorError as exc:
            wait_s = getattr(exc, "retry_after_s", None) or BACK_OFF_S * 2 ** (message.attempt - 1)
            LOG.warning("Message %s, attempt %d: %s", message.id, message.attempt, exc)
            is_ours = not isinstance(exc, ImageError | FormatError)
            self.queue.release(message, delay_s=min(wait_s, BACK_OFF_MAX_S), why=str(exc), counts=not is_ours)
            self._ours, self._why = self._ours + is_ours, str(exc)
            if until_empty and self._ours >= OURS_MAX:
                raise
            return
        except Exception as exc:
            is_ours = isinstance(exc, OURS)
            self.queue.release(message, delay_s=BACK_OFF_S, why=f"{type(exc).__name__}: {exc}", counts=not is_ours)
            raise
        self._ours = 0
        self.queue.acknowledge(message)
        if self.on_report:
            self.on_report(report)
