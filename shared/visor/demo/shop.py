"""The demo shop's web server: a marketplace's paged JSON API, pictures and product pages, on this machine only.

    GET /v1/collections                                     {"count", "results": [{"id", "name", "products"}]}
    GET /v1/collections/ID/products?start=0&count=50        {"count", "start", "results": [product]}
    GET /v1/products/ID                                     product
    GET /pictures/ID                                        the picture, with ETag and Last-Modified
    GET /products/ID, GET /                                 pages for people

`python -m visor.demo.shop --port 8091` runs it alone.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable
from email.utils import formatdate, parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import click
import msgspec

from visor.demo.catalogue import DemoCatalogue, Product
from visor.demo.pages import product_page, shop_page
from visor.demo.pictures import ensure_demo_pictures
from visor.demo.prices import made_up_price
from visor.errors import SettingsError
from visor.settings import Settings

HOST = "127.0.0.1"
SHOP_PORT = 8091
"""Where the shop stands unless another port is asked for. The same one each time: it is a part of the pictures'
addresses, and a picture at another address is embedded anew."""
COUNT_DEFAULT = 50
COUNT_MAX = 100

_MEDIA_TYPES = {".png": "image/png", ".webp": "image/webp"}


class Answer(NamedTuple):
    status: HTTPStatus
    media_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class DemoShop:
    """Serves a catalogue until it is closed. Use it in a `with`.

    Args:
        port: 0 takes a free one.
    """

    def __init__(self, catalogue: DemoCatalogue, port: int = 0) -> None:
        pages = ShopPages(catalogue)

        class Handler(_Handler):
            answer = staticmethod(pages.answer)

        try:
            self._server = ThreadingHTTPServer((HOST, port), Handler)
        except OSError as exc:
            raise SettingsError(
                f"The demo shop cannot stand at port {port}: {exc.strerror}",
                valid="A free port",
                remedy="End what uses it (another demo?), or choose one with --shop-port",
            ) from exc
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://{HOST}:{self.port}"
        pages.url = self.url
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="visor-demo-shop", daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """`host:port`, for `settings.allow_hosts`."""
        return f"{HOST}:{self.port}"

    def wait(self) -> None:
        """Until the shop is closed."""
        self._thread.join()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> DemoShop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ShopPages:
    """What the shop answers to a path, apart from HTTP."""

    def __init__(self, catalogue: DemoCatalogue) -> None:
        self.url = ""
        self._catalogue = catalogue
        self._by_id = {product.id: product for product in catalogue.products}
        self._collections = {collection.id: collection for collection in catalogue.collections}
        self._in = {
            id_: [product for product in catalogue.products if product.collection == id_] for id_ in self._collections
        }
        routes: tuple[tuple[str, Callable[..., Answer]], ...] = (
            (r"/", self._front),
            (r"/v1/collections", self._list_collections),
            (r"/v1/collections/([\w-]+)/products", self._list_products),
            (r"/v1/products/(\d+)", self._one_product),
            (r"/pictures/(\d+)", self._picture),
            (r"/products/(\d+)", self._page),
        )
        self._routes = [(re.compile(pattern), answer) for pattern, answer in routes]

    def answer(self, target: str) -> Answer:
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        for pattern, answer in self._routes:
            if match := pattern.fullmatch(parts.path):
                return answer(*match.groups(), query=query)
        return _missing(f"{parts.path} is not here")

    def _front(self, query: dict[str, str]) -> Answer:
        return _html(shop_page(self._catalogue))

    def _list_collections(self, query: dict[str, str]) -> Answer:
        results = [
            {"id": collection.id, "name": collection.name, "products": len(self._in[collection.id])}
            for collection in self._catalogue.collections
        ]
        return _json({"count": len(results), "results": results})

    def _list_products(self, collection: str, query: dict[str, str]) -> Answer:
        if collection not in self._in:
            return _missing(f"No collection '{collection}'")
        try:
            start, count = int(query.get("start", 0)), int(query.get("count", COUNT_DEFAULT))
        except ValueError:
            start, count = -1, 0
        if start < 0 or not 1 <= count <= COUNT_MAX:
            return _json({"error": f"start is from 0, count from 1 to {COUNT_MAX}"}, HTTPStatus.BAD_REQUEST)
        products = self._in[collection]
        results = [self._product(product) for product in products[start : start + count]]
        return _json({"count": len(products), "start": start, "results": results})

    def _one_product(self, id_: str, query: dict[str, str]) -> Answer:
        product = self._by_id.get(int(id_))
        return _json(self._product(product)) if product else _missing(f"No product {id_}")

    def _product(self, product: Product) -> dict[str, Any]:
        price = made_up_price(product.id)
        collection = self._collections[product.collection]
        return {
            "id": product.id,
            "title": product.title,
            "description": product.description,
            "price": {"amount": price.amount, "currency": price.currency},
            "country": price.country,
            "collection": {"id": collection.id, "name": collection.name},
            "primary_photo": {
                "url": f"{self.url}/pictures/{product.id}",
                "width": product.width,
                "height": product.height,
            },
            "url": f"{self.url}/products/{product.id}",
            "licence": self._catalogue.notice.licence,
            "credit": f"© {self._catalogue.notice.copyright}",
        }

    def _page(self, id_: str, query: dict[str, str]) -> Answer:
        product = self._by_id.get(int(id_))
        if product is None:
            return _missing(f"No product {id_}")
        collection = self._collections[product.collection]
        return _html(product_page(product, made_up_price(product.id), collection, self._catalogue.notice))

    def _picture(self, id_: str, query: dict[str, str]) -> Answer:
        product = self._by_id.get(int(id_))
        if product is None:
            return _missing(f"No product {id_}")
        path = self._catalogue.picture(product)
        headers = (
            ("ETag", _etag(path)),
            ("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True)),
            ("Cache-Control", "public, max-age=3600"),
        )
        return Answer(HTTPStatus.OK, _MEDIA_TYPES[path.suffix], path.read_bytes(), headers)


@cache
def _etag(path: Path) -> str:
    return f'"{hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()}"'


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, "application/json", msgspec.json.encode(value))


def _html(page: str) -> Answer:
    return Answer(HTTPStatus.OK, "text/html; charset=utf-8", page.encode())


def _missing(what: str) -> Answer:
    return _json({"error": what}, HTTPStatus.NOT_FOUND)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "VisorDemoShop"
    timeout = 60
    disable_nagle_algorithm = True
    wbufsize = -1

    @staticmethod
    def answer(target: str) -> Answer:
        raise NotImplementedError

    def do_GET(self) -> None:
        answer = self.answer(self.path)
        if self._has_it(dict(answer.headers)):
            answer = answer._replace(status=HTTPStatus.NOT_MODIFIED, body=b"")
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", answer.media_type)
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815 -- the base class's name

    def _has_it(self, headers: dict[str, str]) -> bool:
        """Whether the client's copy is still right (RFC 9110, 13.1): its tag decides, else its date."""
        if "ETag" not in headers:
            return False
        tags = self.headers.get("If-None-Match")
        if tags is not None:
            return headers["ETag"] in (tag.strip().removeprefix("W/") for tag in tags.split(","))
        since = self.headers.get("If-Modified-Since")
        if since is None:
            return False
        try:
            return parsedate_to_datetime(headers["Last-Modified"]) <= parsedate_to_datetime(since)
        except ValueError:
            return False

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        pass


def demo_source(shop_url: str) -> dict[str, Any]:
    """The configuration of the shop's source, as `open_source` takes it (`shop.toml`, with the address filled in)."""
    text = files("visor.demo").joinpath("shop.toml").read_text("utf-8")
    source = tomllib.loads(text.replace("http://127.0.0.1:8091", shop_url))["sources"]["demo"]
    assert isinstance(source, dict)
    return source


@click.command()
@click.option("--port", default=SHOP_PORT, show_default=True, help="0 takes a free one.")
def main(port: int) -> None:
    """Serve the demo shop alone, until control-C."""
    catalogue = ensure_demo_pictures(Settings.read().home, lambda line: click.echo(line, err=True))
    with DemoShop(catalogue, port) as shop:
        click.echo(f"The demo shop stands at {shop.url} with {len(catalogue.products)} products. Control-C closes it.")
        try:
            shop.wait()
        except KeyboardInterrupt:
            click.echo("Closed.")


if __name__ == "__main__":
    main()
