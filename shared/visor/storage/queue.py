"""The queue of batches: at-least-once delivery, in no order.

Contract, the same on every backend:
- `publish` is durable when it returns. If it raises, some of its messages may have been published. A body has at
  least one byte and at most `BODY_BYTES_MAX`; else it raises `ValueError` and publishes nothing.
- `receive` leases messages for `lease_s`; one that is neither acknowledged nor released by then is delivered again.
- `release` gives a message back, to be delivered again after `delay_s`.
- A message that is published or buried within a span carries its trace (attributes `traceparent` and the like) to every
  delivery and into its dead letter, and back when that is retried.
- A message that was delivered `attempts_max` times without acknowledgement becomes a dead letter, with why if known.
- Acknowledging twice, or after the lease, does nothing worse than a redelivery.

On Google Cloud embed is pushed to, and Pub/Sub does the leasing; `receive` then pulls, for tools and tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

BODY_BYTES_MAX: Final = 2_000_000
"""Pub/Sub takes 10,000,000 a request, but its emulator's clients receive at most 4,194,304 an answer."""

LETTERS_MAX: Final = 10_000
"""Dead letters that are read at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One delivery. `receipt` is good for this delivery only."""

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
        """Messages' ids, in the order of `bodies`."""
        ...

    def receive(self, limit: int, *, lease_s: float) -> list[Message]:
        """At most `limit` messages; an empty list if none is due."""
        ...

    def acknowledge(self, message: Message) -> None: ...

    def release(self, message: Message, *, delay_s: float, why: str = "", counts: bool = True) -> None:
        """`counts=False`: the failure was not the message's; the attempt does not count (it does on Google Cloud)."""
        ...

    def bury(self, body: bytes, *, attempts: int, why: str) -> None:
        """Make a dead letter of a message that was pushed here, before its attempts are used up. Durable."""
        ...

    def waiting(self) -> int:
        """Messages that are not acknowledged and not dead, leased ones included (an estimate on Google Cloud)."""
        ...

    def dead(self) -> int:
        """Dead letters (an estimate on Google Cloud)."""
        ...

    def dead_letters(self, limit: int = LETTERS_MAX) -> list[DeadLetter]: ...

    def retry(self, letter: DeadLetter) -> None:
        """Publish a dead letter again with its attempts counted from 0, and forget the dead letter."""
        ...

    def close(self) -> None:
        """Give back connections; the store is not used afterwards. May be called twice."""
        ...


def check_bodies(bodies: Sequence[bytes]) -> None:
    """Raises ValueError unless every body can be published."""
    for body in bodies:
        if not 1 <= len(body) <= BODY_BYTES_MAX:
            raise ValueError(f"A message of {len(body)} bytes; valid are 1 to {BODY_BYTES_MAX}")
