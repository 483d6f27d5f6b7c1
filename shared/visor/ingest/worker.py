"""The worker: takes batches from the queue and embeds them, in the embedded setting (Pub/Sub pushes in the other)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from visor.errors import VisorError
from visor.ingest.batch_plan import EmbedReport
from visor.ingest.embed import BatchEmbedder
from visor.storage.queue import Message, Queue

LOG = logging.getLogger("visor.worker")
LEASE_S = 900.0
BACK_OFF_S = 2.0
"""Doubled with every attempt, unless the origin named its own time."""
BACK_OFF_MAX_S = 300.0
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
    ) -> None:
        self.queue, self.embedder, self.threads = queue, embedder, threads
        self.on_report = on_report
        self._stop = threading.Event()

    def drain(self) -> None:
        """Work until the queue is empty: everything is embedded, recorded as failed, or a dead letter.

        Raises:
            VisorError: An error of ours, not of a picture: a missing model, a full disk. The batch is kept.
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
                self._process(message)
            if not messages:
                if until_empty and self.queue.waiting() == 0:
                    return
                time.sleep(POLL_S)

    def _process(self, message: Message) -> None:
        try:
            report = self.embedder.embed(message.body, attempt=message.attempt)
        except VisorError as exc:
            wait_s = getattr(exc, "retry_after_s", None) or BACK_OFF_S * 2 ** (message.attempt - 1)
            LOG.warning("Message %s, attempt %d: %s", message.id, message.attempt, exc)
            self.queue.release(message, delay_s=min(wait_s, BACK_OFF_MAX_S), why=str(exc))
            return
        except Exception as exc:
            self.queue.release(message, delay_s=BACK_OFF_S, why=f"{type(exc).__name__}: {exc}")
            raise
        self.queue.acknowledge(message)
        if self.on_report:
            self.on_report(report)
