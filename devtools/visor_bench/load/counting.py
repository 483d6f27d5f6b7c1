"""Counts what the calls of a store cost on Google Cloud, by its billing rules, around any store.

Sources: cloud.google.com/storage/pricing#operations-by-class, cloud.google.com/firestore/pricing,
cloud.google.com/pubsub/pricing. Embedded stores are counted as if they were those on Google Cloud, so a laptop shows
what a plan would use of the free tier.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from visor.free_tier.allowances import Counted, Figure, Operation, counted
from visor.schema.items import Record
from visor.storage import Stores
from visor.storage.documents import Add, Delete, Document, DocumentStore, Put, Where, Write
from visor.storage.objects import ObjectInfo, ObjectStore
from visor.storage.queue import LETTERS_MAX, DeadLetter, Message, Queue

DRIFT = 0.1
"""Relative difference between the data file and a measurement above which they have drifted apart."""
LIST_PAGE = 1000
"""Names in one answer to a listing."""
MESSAGE_BYTES_MIN = 1000
"""What a message of fewer bytes is billed as, each time it is published or delivered."""


class Usage(Record, frozen=True, kw_only=True):
    """Operations of the free tier. Counts of whole operations; bytes as billed."""

    class_a: int = 0
    """Cloud Storage: writes and listings."""
    class_b: int = 0
    """Cloud Storage: reads of objects and of their metadata."""
    object_bytes_read: int = 0
    object_bytes_written: int = 0
    document_reads: int = 0
    document_writes: int = 0
    document_deletes: int = 0
    messages: int = 0
    """Publications and deliveries."""
    message_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    def __sub__(self, other: Usage) -> Usage:
        """What was used since an earlier count."""
        return Usage(**{name: getattr(self, name) - getattr(other, name) for name in self.__struct_fields__})

    def as_dict(self) -> dict[str, int]:
        """Every count by name, the zeros too."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


class Tally:
    """A counter of usage; several stores and threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        return self._usage

    def add(self, **counts: int) -> None:
        with self._lock:
            self._usage += Usage(**counts)


class CountingObjects:
    """An object store that counts. A call that raises has been billed too, and is counted."""

    def __init__(self, objects: ObjectStore, tally: Tally) -> None:
        self._objects = objects
        self._tally = tally

    def put(self, name: str, data: bytes | memoryview, *, if_generation: int | None = None) -> ObjectInfo:
        self._tally.add(class_a=1)
        info = self._objects.put(name, data, if_generation=if_generation)
        self._tally.add(object_bytes_written=info.size_bytes)
        return info

    def put_file(self, name: str, path: str, *, if_generation: int | None = None) -> ObjectInfo:
        self._tally.add(class_a=1)
        info = self._objects.put_file(name, path, if_generation=if_generation)
        self._tally.add(object_bytes_written=info.size_bytes)
        return info

    def get(self, name: str, *, start: int = 0, end: int | None = None) -> memoryview:
        self._tally.add(class_b=1)
        data = self._objects.get(name, start=start, end=end)
        self._tally.add(object_bytes_read=len(data))
        return data

    def get_with_info(self, name: str) -> tuple[memoryview, ObjectInfo]:
        self._tally.add(class_b=1)
        data, info = self._objects.get_with_info(name)
        self._tally.add(object_bytes_read=len(data))
        return data, info

    def stat(self, name: str) -> ObjectInfo:
        self._tally.add(class_b=1)
        return self._objects.stat(name)

    def delete(self, name: str) -> None:
        """Deleting is free."""
        self._objects.delete(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # One answer at least, also if it is empty.
        self._tally.add(class_a=1)
        for number, info in enumerate(self._objects.list(prefix)):
            if number and number % LIST_PAGE == 0:
                self._tally.add(class_a=1)
            yield info

    def close(self) -> None:
        self._objects.close()


class CountingDocuments:
    """A document store that counts. A commit that raises `Conflict` has read, and not written."""

    def __init__(self, documents: DocumentStore, tally: Tally) -> None:
        self._documents = documents
        self._tally = tally

    def get(self, collection: str, keys: Sequence[str]) -> dict[str, Document]:
        # A document that is missing costs its read as well.
        self._tally.add(document_reads=len(set(keys)))
        return self._documents.get(collection, keys)

    def query(
        self,
        collection: str,
        *,
        where: Sequence[Where] = (),
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        found = self._documents.query(collection, where=where, order_by=order_by, descending=descending, limit=limit)
        # Without a result a query costs one read.
        self._tally.add(document_reads=max(1, len(found)))
        return found

    def commit(self, writes: Sequence[Write]) -> list[bool]:
        self._tally.add(document_reads=sum(reads_of(write) for write in writes))
        applied = self._documents.commit(writes)
        done = [write for write, was_applied in zip(writes, applied, strict=True) if was_applied]
        deletes = sum(isinstance(write, Delete) for write in done)
        self._tally.add(document_writes=len(done) - deletes, document_deletes=deletes)
        return applied

    def close(self) -> None:
        self._documents.close()


def reads_of(write: Write) -> int:
    """Documents that must be read to decide about a guarded write (0 or 1), races not counted."""
    if isinstance(write, Put):
        return int(write.newer_than is not None or write.if_revision not in (None, 0))
    return 0 if isinstance(write, Add) else int(write.field is not None)


class CountingQueue:
    """A queue that counts. Pub/Sub bills what is published and what is delivered, pulled or pushed."""

    def __init__(self, queue: Queue, tally: Tally) -> None:
        self._queue = queue
        self._tally = tally

    def publish(self, bodies: Sequence[bytes]) -> list[str]:
        ids = self._queue.publish(bodies)
        self._count(bodies)
        return ids

    def receive(self, limit: int, *, lease_s: float) -> list[Message]:
        messages = self._queue.receive(limit, lease_s=lease_s)
        self._count([message.body for message in messages])
        return messages

    def acknowledge(self, message: Message) -> None:
        self._queue.acknowledge(message)

    def release(self, message: Message, *, delay_s: float, why: str = "", counts: bool = True) -> None:
        self._queue.release(message, delay_s=delay_s, why=why, counts=counts)

    def bury(self, body: bytes, *, attempts: int, why: str) -> None:
        self._queue.bury(body, attempts=attempts, why=why)
        self._count([body])

    def waiting(self) -> int:
        return self._queue.waiting()

    def dead(self) -> int:
        return self._queue.dead()

    def dead_letters(self, limit: int = LETTERS_MAX) -> list[DeadLetter]:
        letters = self._queue.dead_letters(limit)
        self._count([letter.body for letter in letters])
        return letters

    def retry(self, letter: DeadLetter) -> None:
        self._queue.retry(letter)
        self._count([letter.body])

    def close(self) -> None:
        self._queue.close()

    def _count(self, bodies: Sequence[bytes]) -> None:
        sizes = (max(MESSAGE_BYTES_MIN, len(body)) for body in bodies)
        self._tally.add(messages=len(bodies), message_bytes=sum(sizes))


def counting(stores: Stores, tally: Tally) -> Stores:
    """The same stores, counted together."""
    return Stores(
        objects=CountingObjects(stores.objects, tally),
        documents=CountingDocuments(stores.documents, tally),
        queue=CountingQueue(stores.queue, tally),
    )


def drift(measured: Mapping[str, Mapping[str, float]], *, tolerance: float = DRIFT) -> list[str]:
    """Where the code's use differs from counted.json, one sentence each; empty if they agree.

    Args:
        measured: Operation to resource to what a thousand used, under the names of counted.json.
        tolerance: Relative; below 1 a thousand, absolute.

    Raises:
        KeyError: An operation that counted.json does not know.
    """
    found = []
    for operation, counts in measured.items():
        entry = counted().operations[operation]
        for resource, value in counts.items():
            figure = entry.counts.get(resource)
            known = figure.value if figure else 0.0
            if abs(value - known) > tolerance * max(abs(known), 1.0):
                found.append(
                    f"{operation}: {entry.unit} use {value:g} {resource}, counted.json says {known:g}"
                    f" ({figure.why if figure else 'not named'})"
                )
    return found


def record(measured: Mapping[str, Mapping[str, float]], *, command: str, path: Path) -> None:
    """Write measurements into counted.json, each with the command that made it. What was not measured stays."""
    now = msgspec.json.decode(path.read_bytes(), type=Counted)
    operations = dict(now.operations)
    for operation, counts in measured.items():
        figures = {r: Figure(value=v, basis="measured", why=command) for r, v in counts.items()}
        operations[operation] = Operation(
            unit=operations[operation].unit, counts=operations[operation].counts | figures
        )
    document = msgspec.structs.replace(now, operations=operations)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
