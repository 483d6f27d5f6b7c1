"""The inbox function: Cloud Storage says that an object of the owner's bucket came or went."""

import logging

import functions_framework
from cloudevents.http import CloudEvent

from visor.app import App
from visor.errors import BadRequest
from visor.settings import Settings
from visor.web.cloud_logging import log_to_cloud

log_to_cloud()
app = App(Settings.read())


@functions_framework.cloud_event
def inbox(event: CloudEvent) -> None:
    """Publish what one notification says. Returning acknowledges it; raising asks for another."""
    try:
        app.notified.handle(event["type"], event.data)
    except BadRequest as exc:  # which another one would not mend
        logging.error("%s", exc)
