"""The crawl function: Cloud Scheduler calls it, the sources whose time has come are crawled."""

import functions_framework
import msgspec
from flask import Request, Response

from visor.app import Assembly
from visor.settings import Settings
from visor.web.cloud_logging import log_to_cloud

settings = Settings.read()
log_to_cloud(settings.project)
assembly = Assembly(settings)


@functions_framework.http
def crawl(request: Request) -> Response:
    """Crawl what is due, within the function's time. The next call goes on where this one stopped."""
    return Response(msgspec.json.encode(assembly.crawl_due()), mimetype="application/json")
