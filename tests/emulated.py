"""Fixtures with Google's emulators and fake-gcs-server, for all tests (loaded by `tests/conftest.py`)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from google.cloud import pubsub_v1, storage

from visor.settings import Settings
from visor_emulators.emulators import Emulators

PROJECT = "visor-tests"

if required := os.environ.pop("VISOR_REQUIRE_EMULATORS", ""):
    # Also known by this name; as a variable of Visor it would be a setting that is misspelt.
    os.environ["TEST_REQUIRE_EMULATORS"] = required


@pytest.fixture(scope="session")
def emulators() -> Iterator[Emulators]:
    """The three servers, running, and this process's environment pointing at them."""
    if missing := Emulators.missing():
        if os.environ.get("TEST_REQUIRE_EMULATORS") == "1":
            pytest.fail(f"TEST_REQUIRE_EMULATORS=1, and missing are: {missing}")
        pytest.skip(f"Emulators are missing; install {missing}")
    with Emulators() as running, pytest.MonkeyPatch.context() as patch:
        for variable, value in running.environ.items():
            patch.setenv(variable, value)
        yield running


@pytest.fixture
def cloud_settings(emulators: Emulators) -> Settings:
    """Settings of an empty index on the emulators: bucket, topics and subscriptions as Terraform makes them."""
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = Settings(
        backend="gcp",
        project=PROJECT,
        index=name,
        bucket=name,
        topic=f"{name}-batches",
        subscription=f"{name}-batches-pull",
        dead_letter_topic=f"{name}-batches-dead",
        dead_letter_subscription=f"{name}-dead-pull",
    )
    make_bucket(settings)
    make_topics(settings)
    return settings


def make_bucket(settings: Settings) -> None:
    client = storage.Client(project=settings.project)
    client.create_bucket(settings.bucket)
    client.close()


def make_topics(settings: Settings) -> None:
    """The topic with a pull subscription, and what a message does that fails too often."""
    publisher = pubsub_v1.PublisherClient()
    with pubsub_v1.SubscriberClient() as subscriber:
        topic = publisher.topic_path(settings.project, settings.topic)
        dead_topic = publisher.topic_path(settings.project, settings.topic + "-dead")
        dead = subscriber.subscription_path(settings.project, settings.dead_letter_subscription)
        batches = subscriber.subscription_path(settings.project, settings.subscription)
        for name in (topic, dead_topic):
            publisher.create_topic(request={"name": name})
        subscriber.create_subscription(request={"name": dead, "topic": dead_topic, "ack_deadline_seconds": 600})
        subscriber.create_subscription(
            request={
                "name": batches,
                "topic": topic,
                "ack_deadline_seconds": 600,
                "dead_letter_policy": {
                    "dead_letter_topic": dead_topic,
                    "max_delivery_attempts": settings.embed_attempts_max,
                },
            }
        )
    publisher.stop()
