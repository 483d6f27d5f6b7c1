"""The search function: answers `POST /v1/search` and its companions over HTTPS."""

import functions_framework
from flask import Request, Response

from visor.app import App
from visor.settings import Settings
from visor.web.cloud_logging import log_to_cloud

settings = Settings.read()
log_to_cloud(settings.project)
api = App(settings).http_api()


@functions_framework.http
def search(request: Request) -> Response:
    """Everything that the page asks for."""
    return api(request)
