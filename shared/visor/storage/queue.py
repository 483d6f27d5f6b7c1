"""The queue of batches: at-least-once delivery, in no particular order.

Contract, the same on every backend:
- `publish` is durable when it returns. If it raises, some of its messages may have been published. A body has at
  least one byte and at most `BODY_BYTES_MAX`; else it raises `ValueError` and publishes nothing.
- `receive` leases messages for `lease_s`; one that is neither acknowledged nor released by then is delivered again.
- `release` gives a message back, to be delivered again after `delay_s`.
- A message that is published or buried within a span carries its trace (attributes such as `traceparent`) to every
  delivery and into its dead letter, and back if that is retried.
- A message delivered `attempts_max` times without acknowledgement becomes a dead letter, with the reason if known.
- Acknowledging twice, or after the lease, causes at worst a redelivery.

On Google Cloud, Pub/Sub pushes to embed and manages the leases; `receive` pulls, for tools and tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

BODY_BYTES_MAX: Final = 2_000_000
"""Pub/Sub accepts 10,000,000 in a request, but its emulator's clients receive at most 4,194,304 in an answer."""

BULK: Final = "bulk/"
"""Folder of the objects in which the batches of a bulk wait, beside the queue (`visor.bulk.waiting`)."""

LETTERS_MAX: Final = 10_000
"""Dead letters that are read at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One delivery. `receipt` is valid only for this delivery."""

    id: str
    body: bytes
    receipt: str
    attempt: int
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A message that nobody could process."""

    id: str
    body: bytes
    receipt: str
    attempts: int
    why: str
    dead_at: float
    attributes: dict[str, str] = field(default_factory=dict)


class Queue(Protocol):
    """See the module for the contract."""

    def publish(self, bodies: Sequence[bytes]) -> list[str]:
        """Publish messages; returns their ids in the order of `bodies`."""
        ...

    def receive(self, limit: int, *, lease_s: float) -> list[Message]:
        """Lease at most `limit` messages; an empty list if none is due."""
        ...

    def acknowledge(self, message: Message) -> None: ...

    def release(self, message: Message, *, delay_s: float, why: str = "", counts: bool = True) -> None:
        """`counts=False`: the failure was not the message's; the attempt does not count (it does on Google Cloud)."""
        ...

    def bury(self, body: bytes, *, attempts: int, why: str) -> None:
        """Make a dead letter of a message that was pushed here, before its attempts are used up. Durable on return."""
        ...

    def waiting(self) -> int:
        """Number of messages neither acknowledged nor dead, including leased ones (an estimate on Google Cloud)."""
        ...

    def dead(self) -> int:
        """Number of dead letters (an estimate on Google Cloud)."""
        ...

    def dead_letters(self, limit: int = LETTERS_MAX) -> list[DeadLetter]: ...

    def retry(self, letter: DeadLetter) -> None:
        """Publish a dead letter again with its attempts counted from 0, and delete the dead letter."""
        ...

    def close(self) -> None:
        """Release connections; the store must not be used afterwards. May be called twice."""
        ...


def check_bodies(bodies: Sequence[bytes]) -> None:
    """Raises ValueError unless every body can be published."""
    for body in bodies:
        if not 1 <= len(body) <= BODY_BYTES_MAX:
            raise ValueError(f"A message of {len(body)} bytes; valid are 1 to {BODY_BYTES_MAX}")
