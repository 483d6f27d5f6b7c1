"""The compact function: Cloud Scheduler calls it, and it merges shards into segments."""

import functions_framework
import msgspec
from flask import Request, Response

from visor.app import App
from visor.settings import Settings
from visor.web.cloud_logging import log_to_cloud

settings = Settings.read()
log_to_cloud(settings.project)
app = App(settings)


@functions_framework.http
def compact(request: Request) -> Response:
    """Merge once, within the function's time. The next call continues where this one stopped."""
    report = app.merge(budget_s=settings.compact_budget_s)
    return Response(msgspec.json.encode(report), mimetype="application/json")
