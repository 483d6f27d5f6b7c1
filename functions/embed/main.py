"""The embed function: Pub/Sub delivers a batch, it becomes a shard and item documents."""

import base64

import functions_framework
from cloudevents.http import CloudEvent
from flask import request

from visor.assembly import Assembly
from visor.settings import Settings
from visor.web.logs import log_to_cloud

log_to_cloud()
assembly = Assembly(Settings.read())


@functions_framework.cloud_event
def embed(event: CloudEvent) -> None:
    """Process one delivery. Returning acknowledges it; raising asks for another."""
    message = event.data["message"]
    # Of a plain push functions-framework keeps the message only; how often it was delivered stands beside it.
    delivery = request.get_json(silent=True) or event.data
    attempt = int(delivery.get("deliveryAttempt") or 1)
    assembly.batch_embedder.embed(base64.b64decode(message["data"]), attempt=attempt)
