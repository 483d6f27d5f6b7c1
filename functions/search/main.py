"""The search function: answers `POST /v1/search` and its companions over HTTPS, and may serve the page as well."""

import functions_framework
import msgspec
from flask import Request
from werkzeug.wrappers import Response

from visor.app import App
from visor.settings import Settings
from visor.web.cloud_logging import log_to_cloud

settings = Settings.read()
log_to_cloud(settings.project)
app = App(settings)
answer = app.site(msgspec.json.decode(settings.page_config)).answer if settings.page_config else app.http_api()


@functions_framework.http
def search(request: Request) -> Response:
    """Answer every request of the page."""
    return answer(request)
