"""The compact function: Cloud Scheduler calls it, shards become segments."""

import functions_framework
import msgspec
from flask import Request, Response

from visor.assembly import Assembly
from visor.settings import Settings
from visor.web.logs import log_to_cloud

log_to_cloud()
assembly = Assembly(Settings.read())


@functions_framework.http
def compact(request: Request) -> Response:
    """Merge once, within the function's time."""
    return Response(msgspec.json.encode(assembly.merge()), mimetype="application/json")
