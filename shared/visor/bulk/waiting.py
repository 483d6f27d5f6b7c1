"""The queue of a bulk: batches wait as objects until a worker, on whatever machine, has committed them.

Crawl, push and reindex publish to it as to any other queue, so a bulk follows their plan of changes. A batch is named
by its content and deleted once it is committed: batches left by a killed run wait for the next one, and a bundle that
Beam runs again finds nothing to do.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from visor.errors import CorruptObject
from visor.http.url_policy import host_of
from visor.link_check.probe import is_web
from visor.schema.items import Batch, Change
from visor.storage import Stores
from visor.storage.publish import BATCH_BYTES_MAX, decode_batch
from visor.storage.queue import BULK, LETTERS_MAX, DeadLetter, Message, check_bodies

AT_ONCE, LEASE_S = 64, 900.0
"""Messages that are taken out of the index's own queue at once, and how long other processes cannot receive them."""


class Waiting(NamedTuple):
    """The parts of a waiting batch's name."""

    name: str
    host: str
    """Digest of the host from which its pictures are downloaded; empty: not from the web."""
    pictures: int


class WaitingBatches:
    """A `Queue` of objects: durable, seen by every machine, and without leases, as Beam distributes the work.

    Args:
        stores: Their queue takes the dead letters.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores, self._objects = stores, stores.objects

    def publish(self, bodies: Sequence[bytes]) -> list[str]:
        """As `Queue.publish`; each batch is split by host, so that each host has its own request rate."""
        check_bodies(bodies)
        names = []
        for batch in map(decode_batch, bodies):
            by_host: dict[str, list[Change]] = defaultdict(list)
            for change in batch.changes:
                url = "" if change.action == "delete" else change.item.image_url
                by_host[host_digest(url)].append(change)
            for host, changes in by_host.items():
                part = Batch.of(batch.source, batch.run, tuple(changes))
                names.append(f"{BULK}{host or '-'}.{sum(c.action != 'delete' for c in changes)}.{part.id}")
                self._objects.put(names[-1], msgspec.json.encode(part))
        return names

    def all(self) -> Iterator[Waiting]:
        """The waiting batches, by name."""
        for info in self._objects.list(BULK):
            host, pictures, _ = info.name.removeprefix(BULK).split(".")
            yield Waiting(info.name, host.strip("-"), int(pictures))

    def waiting(self) -> int:
        return sum(1 for _ in self.all())

    def take_over(self) -> tuple[int, int]:
        """Move the batches that wait in the index's own queue here. Returns the number of their pictures, and how many
        messages are left there: leased ones, and those that wait for another try. Not for Pub/Sub, which pushes
        messages to embed."""
        own, pictures = self._stores.queue, 0
        while messages := own.receive(AT_ONCE, lease_s=LEASE_S):
            for message in messages:
                try:
                    self.publish([message.body])
                    pictures += sum(change.action != "delete" for change in decode_batch(message.body).changes)
                except CorruptObject as exc:
                    self.bury(message.body, attempts=message.attempt, why=str(exc))
                own.acknowledge(message)
        return pictures, own.waiting()

    def receive(self, limit: int, *, lease_s: float) -> list[Message]:
        """The first batches. Other processes may receive them, too: embedding one twice changes nothing."""
        names = [one.name for one, _ in zip(self.all(), range(limit), strict=False)]
        return [self.message(name) for name in names]

    def message(self, name: str) -> Message:
        """One batch. Raises NotFound if it is done."""
        return Message(id=name, body=bytes(self._objects.get(name)), receipt=name, attempt=1)

    def gathered(
        self, names: Iterable[str], size: int, read: Callable[[str], Message | None] | None = None
    ) -> Iterator[tuple[Message, ...]]:
        """The batches of those names that still wait: each alone, or several combined by `joined`.

        Args:
            size: Changes in one, at most.
            read: Used in place of `message`; returns None for a batch that is done.
        """
        held: dict[tuple[str, str], list[tuple[Message, Batch]]] = defaultdict(list)
        for name in names:
            message = (read or self.message)(name)
            if message is None:
                continue
            try:
                batch = decode_batch(message.body)
            except CorruptObject:
                yield (message,)
                continue
            some = held[batch.source, batch.run]
            if some and not _fits([*some, (message, batch)], size):
                yield tuple(one for one, _ in some)
                some.clear()
            some.append((message, batch))
        for some in filter(None, held.values()):
            yield tuple(one for one, _ in some)

    def acknowledge(self, message: Message) -> None:
        self._objects.delete(message.receipt)

    def release(self, message: Message, *, delay_s: float, why: str = "", counts: bool = True) -> None:
        """Does nothing: the batch still waits."""

    def bury(self, body: bytes, *, attempts: int, why: str) -> None:
        self._stores.queue.bury(body, attempts=attempts, why=why)

    def dead(self) -> int:
        return self._stores.queue.dead()

    def dead_letters(self, limit: int = LETTERS_MAX) -> list[DeadLetter]:
        return self._stores.queue.dead_letters(limit)

    def retry(self, letter: DeadLetter) -> None:
        self._stores.queue.retry(letter)

    def close(self) -> None:
        """Does nothing: whoever opened the stores closes them."""


def _fits(some: Sequence[tuple[Message, Batch]], size: int) -> bool:
    """Whether batches of one source and run may be joined. No item may be in two of them, as the newer change might not
    be the one that counts."""
    items = [change.item.id for _, batch in some for change in batch.changes]
    small = sum(len(message.body) for message, _ in some) <= BATCH_BYTES_MAX
    return small and len(items) <= size and len({*items}) == len(items)


def joined(messages: Sequence[Message]) -> bytes:
    """The body of one batch with the changes of all: a host with few pictures makes a small batch."""
    if len(messages) == 1:
        return messages[0].body
    batches = [decode_batch(message.body) for message in messages]
    changes = tuple(change for batch in batches for change in batch.changes)
    return msgspec.json.encode(Batch.of(batches[0].source, batches[0].run, changes))


def host_digest(url: str) -> str:
    """8 hexadecimal digits for the host from which a picture is downloaded; empty if it is not on the web."""
    return hashlib.blake2b(host_of(url).encode(), digest_size=4).hexdigest() if is_web(url) else ""


def pictures_by_host(waiting: Iterable[Waiting]) -> Counter[str]:
    """Pictures that wait, by digest of their host."""
    counts: Counter[str] = Counter()
    for one in waiting:
        counts[one.host] += one.pictures
    return counts
