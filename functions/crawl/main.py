"""The crawl function: Cloud Scheduler calls it, and it crawls the sources that are due."""

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
def crawl(request: Request) -> Response:
    """Crawl what is due, within the function's time. The next call continues where this one stopped."""
    return Response(msgspec.json.encode(app.crawl_due()), mimetype="application/json")
