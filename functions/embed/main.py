"""The embed function: Pub/Sub delivers a batch, which becomes a shard and item documents."""

import base64

import flask
import functions_framework
from cloudevents.http import CloudEvent

from visor.app import App
from visor.settings import Settings
from visor.telemetry.traces import span
from visor.web.cloud_logging import log_to_cloud

settings = Settings.read()
log_to_cloud(settings.project)
app = App(settings)


@functions_framework.cloud_event
def embed(event: CloudEvent) -> None:
    """Process one delivery. Returning acknowledges it, even if it became a dead letter; raising requests another."""
    # functions-framework makes the event from the pushed request, and leaves out how often it was delivered.
    pushed = flask.request.get_json(silent=True)
    attempt = int(pushed.get("deliveryAttempt") or 1) if isinstance(pushed, dict) else 1
    message = event.data["message"]
    with span("embed", kind="consumer", parent=message.get("attributes") or {}, attempt=attempt):
        app.pushed_batches.embed(base64.b64decode(message["data"]), attempt=attempt)
