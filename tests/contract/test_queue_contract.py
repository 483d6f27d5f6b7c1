"""What every queue promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from tests.contract.processes import in_processes

from visor.settings import Settings
from visor.storage import open_queue
from visor.storage.queue import BODY_BYTES_MAX, DeadLetter, Message, Queue
from visor.telemetry import traces

PATIENCE_S = 60
LEASE_S = 60


T = TypeVar("T")


def until(ask: Callable[[], Sequence[T]], count: int) -> list[T]:
    """What `ask` gives, asked again until it was `count` in all."""
    found: list[T] = []
    end = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} after {PATIENCE_S} s"
        found += ask()
        time.sleep(0.02)
    return found


def receive(queue: Queue, count: int, lease_s: float = LEASE_S) -> list[Message]:
    return until(lambda: queue.receive(count, lease_s=lease_s), count)


def exhaust(queue: Queue, attempts: int) -> list[str]:
    """Release the one message of the queue until it is dead; the bodies seen."""
    bodies = []
    for _ in range(attempts):
        (message,) = receive(queue, 1)
        bodies.append(message.body.decode())
        queue.release(message, delay_s=0, why="it is broken")
    # Asking once more, for the Pub/Sub emulator buries a message when it would deliver it again.
    assert list(queue.receive(1, lease_s=LEASE_S)) == []
    return bodies


def test_published_messages_are_received(queue: Queue) -> None:
    bodies = [b"one", b"two", bytes(range(256))]
    ids = queue.publish(bodies)
    assert len(set(ids)) == 3
    messages = receive(queue, 3)
    assert {message.id: message.body for message in messages} == dict(zip(ids, bodies, strict=True))
    assert [message.attempt for message in messages] == [1, 1, 1]
    assert len({message.receipt for message in messages}) == 3


@pytest.fixture
def said() -> Iterator[dict[str, str]]:
    """What carries the trace of the test."""
    assert traces.start({"OTEL_TRACES_EXPORTER": "console"})
    with traces.span("test"):
        yield traces.carrier()
    traces.stop()


def test_a_trace_goes_with_a_message_into_its_dead_letter_and_back(queue: Queue, said: dict[str, str]) -> None:
    assert set(said) == {"traceparent"}
    queue.publish([b"one"])
    (first,) = receive(queue, 1)
    assert said.items() <= first.attributes.items()
    queue.acknowledge(first)
    queue.bury(b"one", attempts=2, why="it is broken")
    traces.stop()
    (letter,) = until(queue.dead_letters, 1)
    assert letter.attributes == said
    queue.retry(letter)
    (again,) = receive(queue, 1)
    assert again.attributes == said
    queue.acknowledge(again)
    queue.publish([b"two"])
    (other,) = receive(queue, 1)
    assert other.attributes == {}


def test_dead_letters_are_counted(queue: Queue) -> None:
    assert queue.dead() == 0
    queue.publish([b"one"])
    queue.bury(b"bad", attempts=1, why="it is broken")
    (letter,) = until(queue.dead_letters, 1)
    assert (queue.dead(), queue.waiting()) == (1, 1)
    queue.retry(letter)
    assert queue.dead() == 0


def test_publishing_nothing(queue: Queue) -> None:
    assert queue.publish([]) == []


def test_receive_of_nothing(queue: Queue) -> None:
    assert list(queue.receive(10, lease_s=LEASE_S)) == []


def test_receive_keeps_to_its_limit(queue: Queue) -> None:
    queue.publish([b"%d" % n for n in range(5)])
    assert 1 <= len(queue.receive(2, lease_s=LEASE_S)) <= 2


def test_bodies_that_are_none(queue: Queue) -> None:
    for body in (b"", b"x" * (BODY_BYTES_MAX + 1)):
        with pytest.raises(ValueError, match="valid"):
            queue.publish([b"good", body])
    assert list(queue.receive(1, lease_s=LEASE_S)) == []


def test_the_largest_body(queue: Queue) -> None:
    body = b"x" * BODY_BYTES_MAX
    queue.publish([body, body])
    assert {message.body for message in receive(queue, 2)} == {body}


def test_acknowledged_messages_do_not_come_back(queue: Queue) -> None:
    queue.publish([b"one"])
    (message,) = receive(queue, 1, lease_s=10)
    queue.acknowledge(message)
    queue.acknowledge(message)
    queue.release(message, delay_s=0)
    assert list(queue.receive(1, lease_s=LEASE_S)) == []


def test_leased_messages_are_nobody_elses(queue: Queue) -> None:
    queue.publish([b"one"])
    receive(queue, 1)
    assert list(queue.receive(1, lease_s=LEASE_S)) == []


def test_a_lease_that_ran_out_is_delivered_again(queue: Queue) -> None:
    queue.publish([b"one"])
    (first,) = receive(queue, 1, lease_s=1)
    (second,) = receive(queue, 1)
    assert (second.id, second.body, second.attempt) == (first.id, b"one", 2)
    assert second.receipt != first.receipt
    queue.acknowledge(second)


def test_a_released_message_is_delivered_again(queue: Queue) -> None:
    (published,) = queue.publish([b"one"])
    (first,) = receive(queue, 1)
    queue.release(first, delay_s=0)
    (second,) = receive(queue, 1)
    assert (second.id, second.attempt) == (published, 2)


def test_release_waits_for_its_delay(queue: Queue) -> None:
    queue.publish([b"one"])
    (first,) = receive(queue, 1)
    before = time.time()
    queue.release(first, delay_s=3)
    (second,) = receive(queue, 1)
    # A little less, for Pub/Sub's clock is not ours.
    assert time.time() - before > 2.5
    assert second.id == first.id


def test_worn_out_messages_become_dead_letters(queue: Queue, settings: Settings) -> None:
    queue.publish([b"bad"])
    assert exhaust(queue, settings.embed_attempts_max) == ["bad"] * settings.embed_attempts_max
    (letter,) = until(queue.dead_letters, 1)
    assert letter.body == b"bad"
    assert letter.attempts == settings.embed_attempts_max
    assert abs(letter.dead_at - time.time()) < 60
    assert list(queue.receive(1, lease_s=LEASE_S)) == []


def test_what_is_buried_is_a_dead_letter_with_its_reason(queue: Queue) -> None:
    queue.bury(b"bad", attempts=7, why="Zu groß: " + "ü" * 2000)
    (letter,) = until(queue.dead_letters, 1)
    assert (letter.body, letter.attempts) == (b"bad", 7)
    assert letter.why.startswith("Zu groß: ü")
    queue.retry(letter)
    (message,) = receive(queue, 1)
    assert (message.body, message.attempt) == (b"bad", 1)
    queue.acknowledge(message)


def test_a_good_message_is_not_held_up_by_a_dead_one(queue: Queue, settings: Settings) -> None:
    queue.publish([b"bad"])
    exhaust(queue, settings.embed_attempts_max)
    queue.publish([b"good"])
    (message,) = receive(queue, 1)
    assert message.body == b"good"


def test_retried_dead_letters_start_anew(queue: Queue, settings: Settings) -> None:
    queue.publish([b"bad"])
    exhaust(queue, settings.embed_attempts_max)
    (letter,) = until(queue.dead_letters, 1)
    queue.retry(letter)
    (message,) = receive(queue, 1)
    assert (message.body, message.attempt) == (b"bad", 1)
    queue.acknowledge(message)
    assert list(queue.dead_letters()) == []


def test_dead_letters_wait_for_the_next_who_asks(queue: Queue, settings: Settings) -> None:
    queue.publish([b"bad"])
    exhaust(queue, settings.embed_attempts_max)
    (letter,) = until(queue.dead_letters, 1)
    queue.close()
    other = open_queue(settings)
    (again,) = until(other.dead_letters, 1)
    assert (again.id, again.body) == (letter.id, letter.body)
    other.retry(again)
    other.close()


def test_dead_letters_up_to_a_limit(queue: Queue, settings: Settings) -> None:
    for body in (b"1", b"2", b"3"):
        queue.publish([body])
        exhaust(queue, settings.embed_attempts_max)
    seen: list[DeadLetter] = []
    for limit in (1, 2):
        letters = until(lambda limit=limit: queue.dead_letters(limit), 1)
        assert len(letters) <= limit
        seen += letters
    assert {letter.body for letter in seen} <= {b"1", b"2", b"3"}


@pytest.mark.slow
def test_workers_share_the_messages(queue: Queue, settings: Settings) -> None:
    count = 40
    queue.publish([b"%d" % n for n in range(count)])
    bodies = in_processes(__file__, "work_in_process", settings, ["13", "13", "14"])
    assert sorted(int(body) for own in bodies for body in own) == list(range(count))


def work_in_process(settings: Settings, argument: str) -> list[str]:
    queue = open_queue(settings)
    found = []
    while len(found) < int(argument):
        for message in queue.receive(1, lease_s=LEASE_S):
            found.append(message.body.decode())
            queue.acknowledge(message)
    queue.close()
    return found


def test_threads_publish_at_once(queue: Queue) -> None:
    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(lambda n: queue.publish([b"%d" % (10 * n + m) for m in range(5)]), range(4)))
    messages = receive(queue, 20)
    assert {message.id for message in messages} == {id_ for ids in published for id_ in ids}
