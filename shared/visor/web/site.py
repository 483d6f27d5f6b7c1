"""The embedded setting's site: the page, the search endpoint and a folder's pictures at one local address."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Request, Response
from PIL import Image
from werkzeug.security import safe_join
from werkzeug.utils import send_file
from werkzeug.wrappers import Response as WerkzeugResponse

from visor.errors import SettingsError, VisorError
from visor.imaging.decode import decode
from visor.schema.items import IndexedItem, Item
from visor.search.item_cache import web_address
from visor.web.app import SearchApp

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_BUILT = Path(__file__).parents[3] / "frontend" / "dist"
PAGE = _BUILT if _BUILT.is_dir() else Path(__file__).with_name("page")
"""The built page: of a checkout, or the one that lies in an installed package."""
PICTURES = "/pictures/"
THUMBNAIL_SIDE = 480


def picture_address(indexed: IndexedItem) -> str:
    """The address of an item's picture as a browser can open it."""
    return web_address(indexed) or f".{PICTURES}{indexed.item.id}"


class Site:
    """A WSGI application.

    Args:
        page: Folder of the built page, or None to answer the endpoint only.
        config: What the page's `config.json` says.
        read_image: Gives the bytes of an item's picture, for pictures that have no web address.
    """

    def __init__(
        self,
        app: SearchApp,
        *,
        page: Path | None,
        config: Mapping[str, Any],
        read_image: Callable[[Item], bytes],
    ) -> None:
        self.app, self.page, self.config, self.read_image = app, page, config, read_image

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        return self._answer(request)(environ, start_response)

    def _answer(self, request: Request) -> WerkzeugResponse:
        path = request.path
        if request.method not in ("GET", "HEAD") or path.startswith("/v1/") or path == "/openapi.json":
            return self.app(request)
        if path == "/config.json":
            return Response(msgspec.json.encode(self.config), mimetype="application/json")
        if path.startswith(PICTURES):
            return self._picture(path.removeprefix(PICTURES))
        if self.page is not None:
            file = safe_join(str(self.page), "index.html" if path == "/" else path.lstrip("/"))
            if file is not None and Path(file).is_file():
                return send_file(file, request.environ, max_age=0)
        return self.app(request)

    def _picture(self, item: str) -> Response:
        """A thumbnail of a folder's or private bucket's picture: items of other sources have addresses of their own."""
        found = self.app.service.items.get([item]).get(item)
        if found is None or web_address(found):
            return Response("No such picture", 404, mimetype="text/plain")
        try:
            data = self.read_image(found.item)
            pixels = decode(data, pixels_max=self.app.settings.pixels_max, side_hint=THUMBNAIL_SIDE).pixels
        except VisorError as exc:
            return Response(str(exc), 404, mimetype="text/plain")
        pixels.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=85)
        return Response(buffer.getvalue(), mimetype="image/jpeg", headers={"Cache-Control": "max-age=3600"})


class Server:
    """A site on a local port, served by waitress in a thread of its own."""

    def __init__(self, application: Any, *, host: str = "127.0.0.1", port: int = 0, threads: int = 8) -> None:
        from waitress.server import create_server

        try:
            self._server: Any = create_server(
                application, host=host, port=port, threads=threads, ident="visor", max_request_body_size=64_000_000
            )
        except OSError as exc:
            raise SettingsError(
                f"Port {port} of {host} cannot be served on: {exc.strerror}",
                valid="A free port",
                remedy=f"End what uses it, or choose another: make demo PORT={port + 1000}, visor serve --port …",
            ) from exc
        self.address = f"http://{host}:{self._server.effective_port}"
        self._thread = threading.Thread(target=self._server.run, name="site", daemon=True)

    def start(self) -> Server:
        self._thread.start()
        return self

    def wait(self) -> None:
        """Until the process is interrupted."""
        while self._thread.is_alive():
            self._thread.join(1.0)

    def stop(self) -> None:
        self._server.close()
        self._server.task_dispatcher.shutdown()
        self._thread.join(5)
