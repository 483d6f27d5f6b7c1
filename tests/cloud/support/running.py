"""What the tests on the emulators share: a subscription that pushes to a function, and ways to wait and ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from google.cloud import pubsub_v1

from visor.settings import Settings
from visor.storage import Stores

WAIT_S = 120.0
"""On a busy machine; nothing waits this long where it works."""


def topic_path(settings: Settings) -> str:
    return f"projects/{settings.project}/topics/{settings.topic}"


@contextmanager
def pushing(settings: Settings, address: str, *, ack_deadline_s: int = 60) -> Iterator[str]:
    """A subscription that pushes to `address` as Terraform's does, but at once; yields its name."""
    with pubsub_v1.SubscriberClient() as subscriber:
        name = subscriber.subscription_path(settings.project, f"{settings.topic}-push")
        subscriber.create_subscription(
            request={
                "name": name,
                "topic": topic_path(settings),
                # The path is Terraform's: functions-framework takes the event's source from it.
                "push_config": {"push_endpoint": f"{address}/{topic_path(settings)}"},
                "ack_deadline_seconds": ack_deadline_s,
                # No retry policy: with one, the emulator now and then forgets a message whose delivery failed (3 of 9
                # runs on a busy machine, none of 6 without). Terraform's is held by test_terraform_evaluates.
                "dead_letter_policy": {
                    "dead_letter_topic": f"{topic_path(settings)}-dead",
                    "max_delivery_attempts": 100,
                },
            }
        )
        try:
            yield name
        finally:
            subscriber.delete_subscription(request={"subscription": name})


def wait_until(done: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    ends_at = time.monotonic() + wait_s
    while not done():
        assert time.monotonic() < ends_at, f"Still not so after {wait_s:.0f} s: {what}"
        time.sleep(0.1)


def settled(stores: Stores, ids: set[str]) -> bool:
    """Whether each item is searchable or gone or recorded as failed for good."""
    items = {document.key for document in stores.documents.query("items")}
    failed = {document.key for document in stores.documents.query("failures") if not document.data["retriable"]}
    return ids <= items | failed


def search(endpoint: str, **request: Any) -> dict[str, Any]:
    answer = httpx.post(f"{endpoint}/v1/search", json=request, timeout=60)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert isinstance(document, dict)
    return document
