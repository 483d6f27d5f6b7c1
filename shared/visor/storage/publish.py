"""Publishing: the one way from changes to messages on the queue, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from visor.errors import CorruptObject
from visor.schema.items import BATCH_SIZE_MAX, Batch, Change
from visor.storage.queue import BODY_BYTES_MAX, Queue
from visor.telemetry.traces import span

BATCH_BYTES_MAX = BODY_BYTES_MAX // 2
"""Limit of one batch's changes: embed's commit writes them twice at most, and Firestore accepts 10 MiB."""


def publish(queue: Queue, changes: Iterable[Change], *, run: str, batch_size: int = BATCH_SIZE_MAX) -> None:
    """Publish changes in batches of one source each, in the given order, within `batch_size` and a message's bytes.

    Batches are named by their content, so publishing the same changes again is idempotent.

    Raises:
        StoreUnavailable: The queue did not answer; some batches may have been published.
    """
    by_source: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        by_source[change.item.source].append(change)
    batches = [
        Batch.of(source, run, some) for source, of_source in by_source.items() for some in _cut(of_source, batch_size)
    ]
    if batches:
        with span("publish", kind="producer", batches=len(batches)):
            queue.publish([msgspec.json.encode(batch) for batch in batches])


def _cut(changes: Iterable[Change], batch_size: int) -> Iterator[tuple[Change, ...]]:
    some: list[Change] = []
    size = 0
    for change in changes:
        bytes_more = len(msgspec.json.encode(change))
        if some and (len(some) == batch_size or size + bytes_more > BATCH_BYTES_MAX):
            yield tuple(some)
            some, size = [], 0
        some.append(change)
        size += bytes_more
    if some:
        yield tuple(some)


def decode_batch(body: bytes) -> Batch:
    """A message's batch.

    Raises:
        CorruptObject: The message does not hold one.
    """
    try:
        return msgspec.json.decode(body, type=Batch)
    except msgspec.DecodeError as exc:
        raise CorruptObject(
            f"A message of {len(body)} bytes is not a batch: {exc}",
            valid="A batch as `visor crawl` publishes it",
            remedy="It stays among the dead letters: see `visor dlq list`",
        ) from exc
