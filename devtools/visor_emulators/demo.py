"""The demo on Google's emulators: the deployed functions in separate processes, fed by Pub/Sub's push.

Cloud Storage is emulated by fake-gcs-server, Firestore and Pub/Sub by Google's own emulators. The page is an object in
a bucket, search, embed and compact run under functions-framework as they do on Google Cloud, and crawl publishes to the
topic.
"""

from __future__ import annotations

import mimetypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from google.cloud import storage
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1.types import DeadLetterPolicy, PushConfig, RetryPolicy

from visor.app import App
from visor.errors import SettingsError, StoreError
from visor.schema.collections import FAILURES, ITEMS
from visor.settings import PREFIX, Settings
from visor_emulators.emulators import Emulators

FUNCTIONS = Path(__file__).parents[2] / "functions"
PROJECT = "visor-demo"
INDEX_BUCKET = "visor-demo-index"
PAGE_BUCKET = "visor-demo-page"
READY_S = 60.0
EMBEDDED_S = 900.0
"""How long the demo waits for all its pictures to be embedded."""


@contextmanager
def emulated_cloud(settings: Settings) -> Iterator[Settings]:
    """Emulators with buckets, topics and subscriptions, for as long as the block runs; yields the settings to use.

    Raises:
        StoreError: An emulator is not installed or does not start; says how to get it.
    """
    with Emulators() as emulators:
        before = {name: os.environ.get(name) for name in emulators.environ}
        os.environ.update(emulators.environ)
        try:
            client = storage.Client(project=PROJECT)
            for bucket in (INDEX_BUCKET, PAGE_BUCKET):
                client.create_bucket(bucket)
            # The page is on the port of the emulator of its bucket.
            settings = msgspec.structs.replace(settings, cors_origins=("*",))
            yield msgspec.structs.replace(settings, backend="gcp", project=PROJECT, bucket=INDEX_BUCKET)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def running_function(
    name: str, settings: Settings, *, signature: str = "http", source: Path = FUNCTIONS, python: str = sys.executable
) -> Iterator[str]:
    """A function under functions-framework in its own process; yields its URL.

    Args:
        source: Folder that holds `<name>/main.py`: the checkout's, or one of bundles.
        python: The interpreter of the environment to run it in.

    Raises:
        StoreError: It does not answer within a minute; its output is on standard error.
    """
    port = _free_port()
    command = [python, "-m", "functions_framework", f"--target={name}", f"--source={source / name / 'main.py'}"]
    command += [f"--signature-type={signature}", "--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen(command, env={**os.environ, **environ_of(settings)}, cwd=source / name)  # noqa: S603
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address, process, name)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environ_of(settings: Settings) -> dict[str, str]:
    """The `VISOR_*` variables from which `Settings.read` makes these settings."""
    values = {}
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        if value != field.default:
            values[PREFIX + field.name.upper()] = ",".join(value) if isinstance(value, tuple) else str(value)
    return values


def subscribe_push(settings: Settings, address: str) -> None:
    """The topic, its dead letters, and a subscription that pushes to embed, with the settings that Terraform uses."""
    publisher, subscriber = PublisherClient(), SubscriberClient()
    with subscriber:
        topic = publisher.topic_path(settings.project, settings.topic)
        dead = publisher.topic_path(settings.project, settings.dead_letter_topic)
        for name in (topic, dead):
            publisher.create_topic(name=name)
        path = subscriber.subscription_path(settings.project, settings.dead_letter_subscription)
        subscriber.create_subscription(name=path, topic=dead)
        subscriber.create_subscription(
            request={
                "name": subscriber.subscription_path(settings.project, settings.subscription),
                "topic": topic,
                "push_config": PushConfig(push_endpoint=address),
                "ack_deadline_seconds": 600,
                "dead_letter_policy": DeadLetterPolicy(dead_letter_topic=dead, max_delivery_attempts=100),
                "retry_policy": RetryPolicy(minimum_backoff=Duration(seconds=1), maximum_backoff=Duration(seconds=60)),
            }
        )
    publisher.transport.close()


def publish_page(page: Path, config: Mapping[str, Any]) -> str:
    """Upload the built page to its bucket, with `config.json`. Returns its URL there."""
    client = storage.Client(project=PROJECT)
    bucket = client.bucket(PAGE_BUCKET)
    for file in sorted(path for path in page.rglob("*") if path.is_file()):
        blob = bucket.blob(file.relative_to(page).as_posix())
        blob.upload_from_filename(str(file), content_type=mimetypes.guess_type(file.name)[0])
    bucket.blob("config.json").upload_from_string(msgspec.json.encode(config), content_type="application/json")
    return f"{os.environ['STORAGE_EMULATOR_HOST']}/{PAGE_BUCKET}/index.html"


def wait_until_embedded(app: App, published: int) -> None:
    """Wait until every published item is searchable or recorded as failed.

    Raises:
        StoreError: It takes longer than a quarter of an hour.
    """
    ends_at = time.monotonic() + EMBEDDED_S
    while time.monotonic() < ends_at:
        done = len(app.stores.documents.query(ITEMS)) + len(app.stores.documents.query(FAILURES))
        if done >= published:
            return
        time.sleep(1.0)
    raise StoreError(
        f"{published - done} of {published} pictures are neither embedded nor failed",
        remedy="Look at the embed function's output above, and at `visor dlq list`",
    )


@contextmanager
def emulated_demo(
    settings: Settings, config: Mapping[str, Any], source: tuple[str, Mapping[str, Any]]
) -> Iterator[Any]:
    """The whole demo on emulators: yields the page's URL, the endpoint's, and the app that crawled."""
    with ExitStack() as stack:
        settings = stack.enter_context(emulated_cloud(settings))
        embed = stack.enter_context(running_function("embed", settings, signature="cloudevent"))
        search = stack.enter_context(running_function("search", settings))
        subscribe_push(settings, embed)
        app = stack.enter_context(App(settings))
        run = app.crawler.crawl(app.open_source(*source))
        wait_until_embedded(app, run.published)
        with running_function("compact", settings) as compact:
            # As Cloud Scheduler does; without it both demos would search in different spaces.
            httpx.post(compact, timeout=EMBEDDED_S).raise_for_status()
        yield publish_page(_page(), {**config, "endpoint": search}), search, app


def _page() -> Path:
    from visor.web.site import PAGE

    if not PAGE.is_dir():
        raise SettingsError("The page is not built", valid=f"{PAGE} holds it", remedy="Run make page")
    return PAGE


def _wait_for(address: str, process: subprocess.Popen[bytes], name: str) -> None:
    ends_at = time.monotonic() + READY_S
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            break
        try:
            # A path that functions-framework answers itself: any other would start a crawl.
            httpx.get(address + "/robots.txt", timeout=5)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise StoreError(
        f"The function {name} does not answer at {address}", remedy="Its output above says why it does not start"
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
