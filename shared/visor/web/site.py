"""The site: the page and the HTTP API at one address; on this machine also a folder's images."""

from __future__ import annotations

import functools
import gzip
import io
import logging
import mimetypes
import re
import select
import threading
from collections.abc import Callable, Iterable, Mapping
from errno import EADDRNOTAVAIL
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from flask import Request, Response
from PIL import Image
from werkzeug.exceptions import HTTPException
from werkzeug.security import safe_join
from werkzeug.wrappers import Response as WerkzeugResponse

from visor.errors import SettingsError, UnknownItem, VisorError
from visor.imaging.decode import decode_image
from visor.schema.items import IndexedItem, Item
from visor.search.item_cache import web_address
from visor.telemetry.metrics import CONTENT_TYPE
from visor.web.api import HttpApi
from visor.web.endpoints import ENDPOINTS
from visor.web.problems import http_problem, problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_BUILT = Path(__file__).parents[3] / "frontend" / "dist"
PAGE = _BUILT if _BUILT.is_dir() else Path(__file__).with_name("page")
"""The built page: in a checkout, or in an installed package."""
API_PATHS = frozenset(one.path for one in ENDPOINTS)
METRICS, PICTURES = "/metrics", "/pictures/"
THUMBNAIL_SIDE = 480
CONNECTIONS_MAX, IDLE_S = 1000, 15
"""Open connections, and seconds after which an idle one is closed."""
LOG = logging.getLogger("visor.web")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' https: http: data: blob:; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every file of the page. All of it comes from this origin except for the catalogue's pictures.
`wasm-unsafe-eval` lets it compile WebAssembly, with which a device embeds pictures itself; it evaluates no script."""
_NAMED_BY_CONTENT = re.compile(r"-[A-Za-z0-9_-]{8,}\.\w+\Z")
_COMPRESSED = (".css", ".html", ".js", ".json", ".svg", ".txt", ".wasm")


def picture_address(indexed: IndexedItem) -> str:
    """The URL of an item's image that a browser can open."""
    return web_address(indexed) or f".{PICTURES}{indexed.item.id}"


class Site:
    """A WSGI application.

    Args:
        page: Folder of the built page, or None to answer the API only.
        config: The content of the page's `config.json`. If `models` names another origin, the page may also send
            requests there.
        read_image: Returns the bytes of an item's image, for images that have no web URL; None: they are not shown,
            and reads of the page are counted, because a function serves them.
    """

    def __init__(
        self,
        api: HttpApi,
        *,
        page: Path | None,
        config: Mapping[str, Any],
        read_image: Callable[[Item], bytes] | None,
    ) -> None:
        self.api, self.page, self.config, self.read_image = api, page, config, read_image
        models = urlsplit(str(config.get("models") or ""))
        allowed = f"connect-src 'self' {models.scheme}://{models.netloc}" if models.netloc else "connect-src 'self'"
        self.headers = {name: value.replace("connect-src 'self'", allowed) for name, value in HEADERS.items()}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        return self.answer(request)(environ, start_response)

    def answer(self, request: Request) -> WerkzeugResponse:
        """A file of the page, a picture, or the HTTP API's answer. Never raises."""
        try:
            response = self._answer(request)
        except VisorError as exc:
            response = problem(exc)
        except HTTPException as exc:
            response = http_problem(request, exc.code or 400, exc.description or exc.name)
        except Exception:
            LOG.exception("A request to %s failed", request.path)
            response = http_problem(request, 500, "Visor has a bug here; its log says more")
        for name, value in {**self.headers, "Cross-Origin-Resource-Policy": "same-origin"}.items():
            response.headers.setdefault(name, value)
        return response

    def _answer(self, request: Request) -> WerkzeugResponse:
        path = request.path
        if request.method not in ("GET", "HEAD") or path.startswith("/v1/") or path in API_PATHS:
            return self.api(request)
        self.api.access.check_address(request)
        if path == "/config.json":
            return self._sent(Response(msgspec.json.encode(self.config), mimetype="application/json"))
        if path.startswith(PICTURES) and self.read_image is not None:
            return self._picture(path.removeprefix(PICTURES), self.read_image)
        if self.page is not None:
            file = safe_join(str(self.page), "index.html" if path == "/" else path.lstrip("/"))
            if file is not None and _is_file(Path(file)):
                return self._sent(self._file(Path(file), request))
        return self.api(request)

    def _file(self, path: Path, request: Request) -> Response:
        packed = path.suffix in _COMPRESSED and request.accept_encodings["gzip"] > 0
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        response = Response(_read(path, packed, path.stat().st_mtime_ns), mimetype=kind)
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if _NAMED_BY_CONTENT.search(path.name) else "no-cache"
        )
        response.headers["Vary"] = "Accept-Encoding"
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        response.add_etag()
        response.make_conditional(request)
        return response

    def _sent(self, response: Response) -> Response:
        if self.read_image is None:
            size = response.calculate_content_length() or 0
            self.api.access.count("reading", seconds=0, response_bytes=size, used={})
        return response

    def _picture(self, item: str, read_image: Callable[[Item], bytes]) -> Response:
        """A thumbnail of an image in a folder or private bucket. Items of other sources have web URLs."""
        try:
            found = self.api.service().found(item)
            if web_address(found):
                raise UnknownItem(f"Item {item:.64} has a web URL", remedy="Open that instead")
            data = read_image(found.item)
            pixels = decode_image(data, pixels_max=self.api.settings.pixels_max, side_hint=THUMBNAIL_SIDE).pixels
        except VisorError as exc:
            # Its path on this machine must not be revealed.
            LOG.info("Item %s is not shown: %s", item, exc)
            return Response("This picture cannot be shown here", 404, mimetype="text/plain")
        pixels.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=85)
        return Response(buffer.getvalue(), mimetype="image/jpeg", headers={"Cache-Control": "max-age=3600"})


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long
        return False


@functools.lru_cache(64)
def _read(path: Path, packed: bool, _modified: int) -> bytes:
    """A file of the page, until a page built anew replaces it."""
    data = path.read_bytes()
    return gzip.compress(data, mtime=0) if packed else data


def metrics_site(api: HttpApi) -> WSGIApplication:
    """A WSGI application that reports the metrics of `api`, without a key: for a port that only its owner can reach."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        if request.path != METRICS or request.method not in ("GET", "HEAD"):
            response = http_problem(request, 404, f"{request.path} does not exist", valid=f"GET {METRICS}")
        else:
            try:
                api.access.check_address(request)
                response = Response(api.metrics_text(), content_type=CONTENT_TYPE)
            except VisorError as exc:
                response = problem(exc)
        return response(environ, start_response)

    return answer


class Server:
    """A WSGI application on a local port, served by waitress in its own thread. `within_s` is the time within which a
    request must arrive."""

    def __init__(
        self,
        site: WSGIApplication,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        threads: int = 8,
        within_s: float = 20.0,
    ) -> None:
        from waitress.server import create_server

        from visor.web.connections import Channel, refuse_late

        try:
            if not 0 <= port < 2**16:
                raise ValueError("there is no such port")
            self._server: Any = create_server(
                site,
                host=host,
                port=port,
                threads=threads,
                ident="visor",
                max_request_body_size=64_000_000,
                connection_limit=CONNECTIONS_MAX,
                channel_timeout=IDLE_S,
                cleanup_interval=5,
                asyncore_use_poll=hasattr(select, "poll"),
            )
        except (OSError, ValueError) as exc:
            remedy = f"Stop what uses it, or choose another: make demo PORT={port + 1000}, visor serve --port …"
            valid = "A free port up to 65535"
            if getattr(exc, "errno", None) == EADDRNOTAVAIL or "host" in str(exc):
                valid, remedy = "An address of this machine", "Correct --host: 127.0.0.1 is this machine alone"
            raise SettingsError(
                f"Port {port} of {host} cannot be used: {getattr(exc, 'strerror', None) or exc}",
                valid=valid,
                remedy=remedy,
            ) from exc
        self._server.channel_class = Channel
        self._server.maintenance = lambda now: refuse_late(self._server, now, within_s)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self._server.effective_port}"
        self._thread = threading.Thread(target=self._server.run, name="site", daemon=True)

    def start(self) -> Server:
        self._thread.start()
        return self

    def wait(self) -> None:
        """Wait until the process is interrupted."""
        while self._thread.is_alive():
            self._thread.join(1.0)

    def stop(self) -> None:
        """Finish the current answers, then close all connections in the thread that reads them."""
        from waitress.wasyncore import close_all

        def close() -> None:
            # The unsent rest of a large answer is in a file, which only the channel closes.
            for channel in list(self._server.active_channels.values()):
                channel.handle_close()
            close_all(self._server._map, ignore_all=True)

        self._server.task_dispatcher.shutdown()
        self._server.trigger.pull_trigger(close)
        self._thread.join(5)
