"""What is Pub/Sub's own: how much one request may hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from visor.storage.gcp.queue import RECEIPTS_MAX, CloudQueue

LETTERS = 2_500


class Subscriber:
    """Gives dead letters, as many as a pull asks for, and notes how many messages each request names."""

    def __init__(self) -> None:
        self.left = LETTERS
        self.pulled: list[int] = []
        self.leased: list[tuple[int, int]] = []

    def pull(self, request: dict[str, Any], **_: Any) -> Any:
        self.pulled.append(request["max_messages"])
        some = range(self.left, max(0, self.left - request["max_messages"]), -1)
        self.left -= len(some)
        message = SimpleNamespace(data=b"", attributes={}, publish_time=SimpleNamespace(timestamp=lambda: 0.0))
        return SimpleNamespace(
            received_messages=[
                SimpleNamespace(ack_id=f"r{n}", message=SimpleNamespace(message_id=str(n), **vars(message)))
                for n in some
            ]
        )

    def modify_ack_deadline(self, request: dict[str, Any], **_: Any) -> None:
        self.leased.append((len(request["ack_ids"]), request["ack_deadline_seconds"]))

    def close(self) -> None:
        pass


def test_very_many_dead_letters_are_read_and_given_back_in_requests_that_pub_sub_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    queue, subscriber = CloudQueue("p", "t", "s", "d"), Subscriber()
    queue._subscriber.close()
    monkeypatch.setattr(queue, "_subscriber", subscriber)
    assert len(queue.dead_letters()) == LETTERS
    queue.close()
    assert max(subscriber.pulled) <= RECEIPTS_MAX
    assert [count for count, seconds in subscriber.leased if seconds == 0] == [1000, 1000, 500]
    assert max(count for count, _ in subscriber.leased) <= RECEIPTS_MAX
