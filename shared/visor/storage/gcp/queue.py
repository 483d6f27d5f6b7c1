"""The queue of batches on Pub/Sub."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized

from google.api_core.exceptions import DeadlineExceeded
from google.cloud import pubsub_v1
from google.pubsub_v1.types import ReceivedMessage

from visor.errors import StoreError
from visor.storage.gcp.backlog import Backlog
from visor.storage.gcp.errors import map_errors, retrying
from visor.storage.queue import BODY_BYTES_MAX, LETTERS_MAX, DeadLetter, Message, check_bodies
from visor.telemetry.traces import carrier

_LEASE_MAX_S = 600
_OWN = "CloudPubSub"
_COUNT = "CloudPubSubDeadLetterSourceDeliveryCount"
_ERROR = "CloudPubSubDeadLetterSourceDeliveryErrorMessage"
"""Attributes that Pub/Sub adds to a message when it forwards it to the dead-letter topic; `bury` adds the same."""
RECEIPTS_MAX = 1_000
"""Messages in one request. Their receipts have some 200 bytes each, and Pub/Sub accepts 524,288 bytes of them."""


class CloudQueue:
    """The queue on Google Cloud. Terraform makes the topics, the subscriptions and their dead-letter policy.

    Args:
        project: Id of the project.
        topic: Name of the topic that batches are published to.
        subscription: Name of a pull subscription to it.
        dead_letter_subscription: Name of a pull subscription to the dead-letter topic.
        dead_letter_topic: Name of that topic, for `bury`.
        deadline_s: How long a failing call is tried again.
        receive_wait_s: How long `receive` and `dead_letters` wait for a first message.
        dead_lease_s: How long this process holds a dead letter that was shown, to retry it; `close` returns it
            earlier.
    """

    def __init__(
        self,
        project: str,
        topic: str,
        subscription: str,
        dead_letter_subscription: str,
        *,
        dead_letter_topic: str = "",
        deadline_s: float = 30.0,
        receive_wait_s: float = 2.0,
        dead_lease_s: float = 60.0,
    ) -> None:
        with map_errors(f"Pub/Sub topic {topic}"):
            self._publisher = pubsub_v1.PublisherClient(
                batch_settings=pubsub_v1.types.BatchSettings(
                    max_messages=64,
                    # Room for four bodies of the largest size and their envelopes, below Pub/Sub's limit.
                    max_bytes=4 * BODY_BYTES_MAX + 100_000,
                    max_latency=0.01,
                )
            )
            self._subscriber = pubsub_v1.SubscriberClient()
        self._topic = self._publisher.topic_path(project, topic)
        self._dead_topic = self._publisher.topic_path(project, dead_letter_topic)
        self._subscription = self._subscriber.subscription_path(project, subscription)
        self._dead = self._subscriber.subscription_path(project, dead_letter_subscription)
        self._deadline_s = deadline_s
        self._receive_wait_s = receive_wait_s
        self._dead_lease_s = dead_lease_s
        self._backlogs = {
            "waiting": Backlog(project, subscription),
            "dead": Backlog(project, dead_letter_subscription),
        }
        self._open: set[str] = set()
        self._shown: dict[str, str] = {}
        self._closed = False

    def publish(self, bodies: Sequence[bytes]) -> list[str]:
        return self._publish_open(bodies, carrier())

    def _publish_open(self, bodies: Sequence[bytes], attributes: dict[str, str]) -> list[str]:
        ids = self._publish(self._topic, bodies, **attributes)
        self._open.update(ids)
        return ids

    def bury(self, body: bytes, *, attempts: int, why: str) -> None:
        # An attribute can have 1,024 bytes.
        attributes = carrier() | {_COUNT: str(attempts), _ERROR: why.encode()[:1024].decode(errors="ignore")}
        self._publish(self._dead_topic, [body], **attributes)

    def _publish(self, topic: str, bodies: Sequence[bytes], **attributes: str) -> list[str]:
        check_bodies(bodies)
        retry = retrying(self._deadline_s)
        with map_errors(f"Topic {topic}"):
            waiting = [
                self._publisher.publish(topic, body, retry=retry, timeout=self._deadline_s, **attributes)
                for body in bodies
            ]
            # Longer than the calls' own deadline, whose error is more specific.
            return [str(future.result(timeout=2 * self._deadline_s)) for future in waiting]

    def receive(self, limit: int, *, lease_s: float) -> list[Message]:
        received = self._pull(self._subscription, limit, lease_s)
        self._open.update(str(r.message.message_id) for r in received)
        return [
            Message(
                id=str(r.message.message_id),
                body=bytes(r.message.data),
                receipt=str(r.ack_id),
                # Pub/Sub counts only if there is a dead-letter policy.
                attempt=int(r.delivery_attempt) or 1,
                attributes=dict(r.message.attributes),
            )
            for r in received
        ]

    def acknowledge(self, message: Message) -> None:
        self._acknowledge(self._subscription, message.receipt)
        self._open.discard(message.id)

    def release(self, message: Message, *, delay_s: float, why: str = "", counts: bool = True) -> None:
        """See the protocol. Pub/Sub keeps no reason; the subscription's retry policy may add to the delay."""
        self._lease(self._subscription, [message.receipt], delay_s)

    def waiting(self) -> int:
        """Cloud Monitoring's number, minutes old. If it cannot be read: messages that this process published or
        received and did not acknowledge, as far as it knows."""
        return self._monitored("waiting", self._open)

    def dead(self) -> int:
        """As `waiting`. If it cannot be read: the dead letters that this process shows."""
        return self._monitored("dead", self._shown)

    def _monitored(self, what: str, known: Sized) -> int:
        if (backlog := self._backlogs.get(what)) is not None:
            try:
                return backlog.count()
            except StoreError:
                # This process will not get credentials while it runs, and searching for them takes seconds.
                self._backlogs.clear()
        return len(known)

    def dead_letters(self, limit: int = LETTERS_MAX) -> list[DeadLetter]:
        received: list[ReceivedMessage] = []
        # An answer may hold fewer than there are. Pulled messages are leased, and do not come again.
        while len(received) < limit and (more := self._pull(self._dead, limit - len(received), self._dead_lease_s)):
            received += more
        letters = []
        for r in received:
            attributes = dict(r.message.attributes)
            letter = DeadLetter(
                id=str(r.message.message_id),
                body=bytes(r.message.data),
                receipt=str(r.ack_id),
                attempts=int(attributes.get(_COUNT, 0)),
                why=attributes.get(_ERROR, ""),
                dead_at=r.message.publish_time.timestamp(),
                attributes={name: value for name, value in attributes.items() if not name.startswith(_OWN)},
            )
            self._shown[letter.receipt] = letter.id
            letters.append(letter)
        return letters

    def retry(self, letter: DeadLetter) -> None:
        # In this order a crash in between causes a second delivery, not a lost message.
        self._publish_open([letter.body], letter.attributes)
        self._acknowledge(self._dead, letter.receipt)
        self._shown.pop(letter.receipt, None)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._shown:
            self._lease(self._dead, list(self._shown), 0)
        self._publisher.stop()
        self._subscriber.close()

    def _pull(self, subscription: str, limit: int, lease_s: float) -> list[ReceivedMessage]:
        with map_errors(f"Subscription {subscription}"):
            try:
                # Not tried again within the wait: a pull whose answer is lost leases messages that nobody has.
                answer = self._subscriber.pull(
                    request={"subscription": subscription, "max_messages": min(limit, RECEIPTS_MAX)},
                    retry=None,
                    timeout=self._receive_wait_s,
                )
            except DeadlineExceeded:
                return []
        received = list(answer.received_messages)
        if received:
            self._lease(subscription, [r.ack_id for r in received], lease_s)
        return received

    def _lease(self, subscription: str, receipts: list[str], seconds: float) -> None:
        with map_errors(f"Subscription {subscription}"):
            for start in range(0, len(receipts), RECEIPTS_MAX):
                self._subscriber.modify_ack_deadline(
                    request={
                        "subscription": subscription,
                        "ack_ids": receipts[start : start + RECEIPTS_MAX],
                        "ack_deadline_seconds": min(_LEASE_MAX_S, math.ceil(seconds)),
                    },
                    retry=retrying(self._deadline_s),
                    timeout=self._deadline_s,
                )

    def _acknowledge(self, subscription: str, receipt: str) -> None:
        with map_errors(f"Subscription {subscription}"):
            self._subscriber.acknowledge(
                request={"subscription": subscription, "ack_ids": [receipt]},
                retry=retrying(self._deadline_s),
                timeout=self._deadline_s,
            )
