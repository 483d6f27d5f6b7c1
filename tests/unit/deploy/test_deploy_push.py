"""What Pub/Sub pushes to embed's address arrives as the CloudEvent that embed takes, with its delivery attempt."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from functions_framework import create_app

from visor.app import App
from visor.deploy.terraform import read_terraform

ROOT = Path(__file__).resolve().parents[3]
TOPIC = "projects/my-project/topics/visor-batches"


class Recorder:
    """Stands where the embedder would, and keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, int]] = []

    def embed(self, body: bytes, *, attempt: int = 1) -> None:
        self.calls.append((body, attempt))


@pytest.fixture
def embed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Any, Recorder]]:
    """The real functions/embed/main.py, started by functions-framework as Cloud Functions starts it."""
    recorder = Recorder()
    monkeypatch.setattr(App, "pushed_batches", recorder)
    monkeypatch.setattr("visor.web.cloud_logging.log_to_cloud", lambda *_: None)
    monkeypatch.setenv("VISOR_HOME", str(tmp_path))
    before = set(sys.modules)
    # Terraform deploys it without an event trigger, so Google starts it with the signature type http.
    app = create_app("embed", str(ROOT / "functions" / "embed" / "main.py"), "http")
    yield app.test_client(), recorder
    for name in set(sys.modules) - before:
        if name == "main":
            del sys.modules[name]


def push(attempt: int | None) -> dict[str, Any]:
    """The body of a push, as Pub/Sub documents it; `deliveryAttempt` is there with a dead-letter policy only."""
    body: dict[str, Any] = {
        "message": {
            "data": base64.b64encode(b'{"id":"b"}').decode(),
            "messageId": "136969346945",
            "message_id": "136969346945",
            "publishTime": "2026-11-21T04:00:00.000Z",
        },
        "subscription": "projects/my-project/subscriptions/visor-batches-embed",
    }
    return body | ({} if attempt is None else {"deliveryAttempt": attempt})


@pytest.mark.parametrize(("attempt", "seen"), [(None, 1), (1, 1), (4, 4)])
def test_a_push_is_embedded_with_its_attempt(embed: tuple[Any, Recorder], attempt: int | None, seen: int) -> None:
    client, recorder = embed
    answer = client.post(f"/{TOPIC}", json=push(attempt))
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert recorder.calls == [(b'{"id":"b"}', seen)]


def test_a_cloud_event_is_embedded_too(embed: tuple[Any, Recorder]) -> None:
    """As Eventarc would send it."""
    client, recorder = embed
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "136969346945",
        "ce-source": f"//pubsub.googleapis.com/{TOPIC}",
        "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
    }
    assert client.post("/", json=push(3), headers=headers).status_code == 200
    assert recorder.calls == [(b'{"id":"b"}', 3)]


def test_the_push_address_ends_with_the_topic() -> None:
    subscription = read_terraform(ROOT / "terraform").of("resource")["google_pubsub_subscription.batches"]
    address = subscription.inner("push_config")[0].attributes["push_endpoint"]
    assert address.endswith('.uri}/${google_pubsub_topic.topic["batches"].id}"')
