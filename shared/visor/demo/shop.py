"""The demo shop's web server: a marketplace's paged JSON API, images and product pages, on this machine only.

    GET /v1/collections                                     {"count", "results": [{"id", "name", "products"}]}
    GET /v1/collections/ID/products?start=0&count=50        {"count", "start", "results": [product]}
    GET /v1/products/ID                                     product
    GET /pictures/ID                                        the image, with ETag and Last-Modified
    GET /products/ID, GET /                                 pages for people

`python -m visor.demo.shop --port 8091` runs it alone.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from visor.demo import SHOP_PORT
from visor.demo.catalogue import DemoCatalogue, Product
from visor.demo.pages import product_page, shop_page
from visor.demo.pictures import ensure_demo_pictures
from visor.demo.prices import made_up_price
from visor.errors import SettingsError
from visor.settings import Settings
from visor.web.site import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HOST = "127.0.0.1"
COUNT_DEFAULT = 50
COUNT_MAX = 100
MEDIA_TYPES = {".png": "image/png", ".webp": "image/webp"}
ROUTES = Map(
    [
        Rule("/", endpoint="front"),
        Rule("/v1/collections", endpoint="list_collections"),
        Rule("/v1/collections/<id>/products", endpoint="list_products"),
        Rule("/v1/products/<int:id>", endpoint="one_product"),
        Rule("/pictures/<int:id>", endpoint="picture"),
        Rule("/products/<int:id>", endpoint="page"),
    ],
    strict_slashes=False,
)


class DemoShop:
    """Serves a catalogue until it is closed. Use it in a `with`.

    Args:
        port: 0 picks a free one.
    """

    def __init__(self, catalogue: DemoCatalogue, port: int = 0) -> None:
        pages = ShopPages(catalogue)
        try:
            self._server = Server(pages, host=HOST, port=port)
        except SettingsError as exc:
            raise SettingsError(
                f"The demo shop cannot use port {port}: {exc.found}",
                valid="A free port",
                remedy="Stop what uses it (another demo?), or choose another: "
                f"make demo SHOP_PORT={port + 1}, visor demo --shop-port …",
            ) from exc
        self.url = pages.url = self._server.address
        self._server.start()

    @property
    def host(self) -> str:
        """`host:port`, for `settings.allow_hosts`."""
        return self.url.removeprefix("http://")

    def wait(self) -> None:
        """Wait until the shop is closed."""
        self._server.wait()

    def __enter__(self) -> DemoShop:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()


class ShopPages:
    """The shop as a WSGI application."""

    def __init__(self, catalogue: DemoCatalogue) -> None:
        self.url = ""
        self._catalogue = catalogue
        self._by_id = {product.id: product for product in catalogue.products}
        self._collections = {collection.id: collection for collection in catalogue.collections}
        self._in = {
            id_: [product for product in catalogue.products if product.collection == id_] for id_ in self._collections
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        try:
            endpoint, arguments = ROUTES.bind_to_environ(environ).match()
            response: Response = getattr(self, f"_{endpoint}")(request, *arguments.values())
        except HTTPException as exc:
            response = _json({"error": exc.description}, exc.code or 500)
        return response(environ, start_response)

    def _front(self, request: Request) -> Response:
        return _html(shop_page(self._catalogue))

    def _list_collections(self, request: Request) -> Response:
        results = [
            {"id": collection.id, "name": collection.name, "products": len(self._in[collection.id])}
            for collection in self._catalogue.collections
        ]
        return _json({"count": len(results), "results": results})

    def _list_products(self, request: Request, collection: str) -> Response:
        if collection not in self._in:
            raise NotFound(f"No collection '{collection}'")
        try:
            start, count = int(request.args.get("start", 0)), int(request.args.get("count", COUNT_DEFAULT))
        except ValueError:
            start, count = -1, 0
        if start < 0 or not 1 <= count <= COUNT_MAX:
            raise BadRequest(f"start is from 0, count from 1 to {COUNT_MAX}")
        products = self._in[collection]
        results = [self._as_json(product) for product in products[start : start + count]]
        return _json({"count": len(products), "start": start, "results": results})

    def _one_product(self, request: Request, id_: int) -> Response:
        return _json(self._as_json(self._find(id_)))

    def _page(self, request: Request, id_: int) -> Response:
        product = self._find(id_)
        collection = self._collections[product.collection]
        return _html(product_page(product, made_up_price(product.id), collection, self._catalogue.notice))

    def _picture(self, request: Request, id_: int) -> Response:
        path = self._catalogue.picture(self._find(id_))
        return send_file(path, request.environ, MEDIA_TYPES[path.suffix], etag=_etag(path), max_age=3600)

    def _find(self, id_: int) -> Product:
        if id_ not in self._by_id:
            raise NotFound(f"No product {id_}")
        return self._by_id[id_]

    def _as_json(self, product: Product) -> dict[str, Any]:
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


@cache
def _etag(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, mimetype="application/json")


def _html(page: str) -> Response:
    return Response(page, mimetype="text/html")


def demo_source(shop_url: str) -> dict[str, Any]:
    """The configuration of the shop's source for `open_source` (`shop.toml`, with the URL filled in)."""
    text = files("visor.demo").joinpath("shop.toml").read_text("utf-8")
    source = tomllib.loads(text.replace("http://127.0.0.1:8091", shop_url))["sources"]["demo"]
    assert isinstance(source, dict)
    return source


@click.command()
@click.option("--port", default=SHOP_PORT, show_default=True, help="0 picks a free one.")
def main(port: int) -> None:
    """Serve the demo shop alone, until control-C."""
    catalogue = ensure_demo_pictures(Settings.read().home, lambda line: click.echo(line, err=True))
    with DemoShop(catalogue, port) as shop:
        click.echo(f"The demo shop is at {shop.url} with {len(catalogue.products)} products. Control-C stops it.")
        try:
            shop.wait()
        except KeyboardInterrupt:
            click.echo("Stopped.")


if __name__ == "__main__":
    main()
