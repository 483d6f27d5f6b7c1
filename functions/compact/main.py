"""The compact function: Cloud Scheduler calls it, shards become segments."""

import functions_framework
import msgspec
from flask import Request, Response

from visor.assembly import Assembly
from visor.settings import Settings
from visor.web.logs import log_to_cloud

settings = Settings.read()
log_to_cloud(settings.project)
assembly = Assembly(settings)


@functions_framework.http
def compact(request: Request) -> Response:
    """Merge once, within the function's time."""
    return Response(msgspec.json.encode(assembly.merge()), mimetype="application/json")
