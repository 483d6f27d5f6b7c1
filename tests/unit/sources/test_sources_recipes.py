"""The recipes of docs/sources.md, each read from there and run against a server that answers as the product does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.unit.sources.catalogue_server import Reply, Request, Server, context_for, serving

from visor.errors import SourceUnavailable
from visor.sources.config import SourcesFile
from visor.sources.contract import Page

TEXT = (Path(__file__).parents[3] / "docs" / "sources.md").read_text("utf-8")
SHOWN = {name: text for text in re.findall(r"```toml\n(.*?)```", TEXT, re.S) for name in SourcesFile(text).entries}
KEYS = {
    "MAGENTO_TOKEN": "t0ken-of-9",
    "PRESTASHOP_KEY": "K3YK3YK3Y",
    "ETSY_KEYSTRING": "k3ystring",
    "ETSY_SHARED_SECRET": "s3cret-of-9",
}

Rows = list[dict[str, Any]]
Expected = tuple[str, str, float | None, str | None, str, str | None]
"""Key, title, price, currency and the addresses of picture and page, in which `{host}` is the server's."""


def read_recipe(name: str, server: Server) -> list[Page]:
    """The pages of the recipe as the documentation shows it, with the server's host and pages of two rows."""
    text = re.sub(r"https://[\w.]+(?=/)", server.url, SHOWN[name])
    text = re.sub(r"\bcount = \d+", "count = 2", text)
    with context_for(server.host, **KEYS) as context:
        return list(SourcesFile(text).open(name, context).read(None))


# Shopify


def shopify(rows: Rows, products_max: int = 25_000) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        page, limit = int(request.query["page"]), int(request.query["limit"])
        if page * limit > products_max:
            return Reply.json({"errors": f"Page * Limit exceeds the {products_max} limit."}, 400)
        return Reply.json({"products": rows[(page - 1) * limit : page * limit]})

    return answer


def shopify_product(id_: int, title: str, *variants: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "title": title,
        "handle": title.lower().replace(" ", "-"),
        "body_html": "<p>Made to last.</p>",
        "published_at": "2026-03-01T09:00:00+01:00",
        "vendor": "Cobbler",
        "product_type": "Shoes",
        "tags": ["new"],
        "variants": [
            {"price": "129.00", "compare_at_price": None, "available": True, "featured_image": None, "product_id": id_}
            | variant
            for variant in variants
        ],
        "images": [{"id": id_ * 10, "src": f"https://cdn.example/{id_}.jpg?v=1", "variant_ids": []}],
        "options": [{"name": "Colour", "position": 1, "values": ["Red", "Blue"]}],
        **changed,
    }


SHOPIFY: Rows = [
    shopify_product(
        1,
        "Canvas shoe",
        {"id": 11, "title": "Red / 42", "featured_image": {"id": 7, "src": "https://cdn.example/red.jpg?v=2"}},
        {"id": 12, "title": "Blue / 42", "price": "119.50"},
        {"id": 13, "title": "Green / 42", "available": False},
    ),
    shopify_product(2, "Sandal", {"id": 21, "title": "Default Title", "price": "1299.00"}),
    shopify_product(3, "Boot", {"id": 31, "title": "Default Title"}),
    shopify_product(4, "Laces", {"id": 41, "title": "Default Title", "price": "4.00"}),
]
SHOPIFY_ITEMS: list[Expected] = [
    ("11", "Canvas shoe", 129, "EUR", "https://cdn.example/red.jpg?v=2", "{host}/products/canvas-shoe?variant=11"),
    ("12", "Canvas shoe", 119.5, "EUR", "https://cdn.example/1.jpg?v=1", "{host}/products/canvas-shoe?variant=12"),
    ("21", "Sandal", 1299, "EUR", "https://cdn.example/2.jpg?v=1", "{host}/products/sandal?variant=21"),
    ("31", "Boot", 129, "EUR", "https://cdn.example/3.jpg?v=1", "{host}/products/boot?variant=31"),
    ("41", "Laces", 4, "EUR", "https://cdn.example/4.jpg?v=1", "{host}/products/laces?variant=41"),
]

# WordPress, and WooCommerce in it


def wordpress(rows: Rows) -> Callable[[Request], Reply]:
    """Pages, totals and `Link` in headers. Hidden rows are counted, and left out of their pages, which may be empty."""

    def answer(request: Request) -> Reply:
        page, size = int(request.query.get("page", 1)), int(request.query["per_page"])
        pages = -(-len(rows) // size)
        if page > pages:
            told = {"code": "rest_post_invalid_page_number", "message": "The page number is too large.", "data": {}}
            return Reply.json(told, 400)
        asc = request.query.get("orderby") == "id" and request.query.get("order") == "asc"
        ordered = sorted(rows, key=lambda row: row["id"], reverse=not asc)
        shown = [row for row in ordered[(page - 1) * size : page * size] if not row.get("hidden")]
        links = {"prev": page - 1, "next": page + 1}
        url = f"http://{request.headers['host']}{request.path}?"
        link = ", ".join(
            f'<{url}{urlencode({**request.query, "page": str(at)})}>; rel="{rel}"'
            for rel, at in links.items()
            if 1 <= at <= pages
        )
        return Reply.json(
            shown, **{"X-WP-Total": str(len(rows)), "X-WP-TotalPages": str(pages)}, **({"Link": link} if link else {})
        )

    return answer


def woo_product(id_: int, name: str, price: str, code: str, minor_unit: int) -> dict[str, Any]:
    return {
        "id": id_,
        "name": name,
        "type": "simple",
        "permalink": f"https://shop.example/product/{id_}/",
        "sku": f"W{id_}",
        "short_description": "<p>Warm &amp; soft</p>",
        "prices": {
            "price": price,
            "regular_price": price,
            "sale_price": price,
            "price_range": None,
            "currency_code": code,
            "currency_symbol": code,
            "currency_minor_unit": minor_unit,
            "currency_decimal_separator": ",",
            "currency_thousand_separator": ".",
        },
        "images": [{"id": id_, "src": f"https://shop.example/up/{id_}.jpg", "thumbnail": "https://shop.example/t.jpg"}],
        "is_purchasable": True,
        "is_in_stock": True,
    }


WOOCOMMERCE: Rows = [
    woo_product(34, "Pennant &#8211; large", "1105", "GBP", 2),
    woo_product(35, "Kimono", "12500", "JPY", 0),
    woo_product(36, "Ring", "125000", "KWD", 3),
    woo_product(37, "Scarf", "45", "EUR", 0),
]
WOOCOMMERCE_ITEMS: list[Expected] = [
    (key, title, price, code, f"https://shop.example/up/{key}.jpg", f"https://shop.example/product/{key}/")
    for key, title, price, code in [
        ("34", "Pennant – large", 11.05, "GBP"),
        ("35", "Kimono", 12500, "JPY"),
        ("36", "Ring", 125, "KWD"),
        ("37", "Scarf", 45, "EUR"),
    ]
]


def medium(id_: int, **changed: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "date_gmt": "2026-02-03T04:05:06",
        "slug": f"img-{id_}",
        "link": f"https://blog.example/img-{id_}/",
        "title": {"rendered": f"A fox&#8217;s den {id_}"},
        "caption": {"rendered": "<p>In May</p>\n"},
        "alt_text": "",
        "media_type": "image",
        "mime_type": "image/jpeg",
        "media_details": {"width": 2560, "height": 1707, "sizes": {}},
        "source_url": f"https://blog.example/wp-content/uploads/2026/02/img-{id_}.jpg",
        **changed,
    }


WORDPRESS: Rows = [
    medium(1),
    medium(2, hidden=True),
    medium(3, hidden=True),
    medium(4, hidden=True),
    medium(5),
    medium(6),
    medium(7),
    medium(8),
]
WORDPRESS_ITEMS: list[Expected] = [
    (
        str(at),
        f"A fox’s den {at}",
        None,
        None,
        f"https://blog.example/wp-content/uploads/2026/02/img-{at}.jpg",
        f"https://blog.example/img-{at}/",
    )
    for at in (1, 5, 6, 7, 8)
]

# Magento


def magento_graphql(rows: Rows) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        asked = re.search(r"pageSize: (\d+), currentPage: (\d+)\)", request.query["query"])
        if asked is None or list(request.query) != ["query"]:
            return Reply.json({"errors": [{"message": "Syntax Error: Unexpected <EOF>"}]}, 400)
        size, page = map(int, asked.groups())
        if page > -(-len(rows) // size):
            said = f"currentPage value {page} specified is greater than the {-(-len(rows) // size)} page(s) available."
            return Reply.json({"errors": [{"message": said}], "data": {"products": None}})
        shown = rows[(page - 1) * size : page * size]
        return Reply.json({"data": {"products": {"total_count": len(rows), "items": shown}}})

    return answer


MAGENTO: Rows = [
    {
        "sku": f"24-MB0{at}",
        "name": f"Bag {at}",
        "url_key": f"bag-{at}",
        "url_suffix": suffix,
        "image": {"url": f"https://shop.example/media/catalog/product/cache/1f/m/b/mb0{at}.jpg"},
        "price_range": {"minimum_price": {"final_price": {"value": value, "currency": "USD"}}},
    }
    for at, suffix, value in [(1, ".html", 34), (2, "", 59.5), (3, None, 1299), (4, ".html", 0.99)]
]
MAGENTO_ITEMS: list[Expected] = [
    (f"24-MB0{at}", f"Bag {at}", price, "USD", f"{image}{at}.jpg", page)
    for image in ["https://shop.example/media/catalog/product/cache/1f/m/b/mb0"]
    for at, price, page in [
        (1, 34, "{host}/bag-1.html"),
        (2, 59.5, "{host}/bag-2"),
        (3, 1299, "{host}/bag-3"),
        (4, 0.99, "{host}/bag-4.html"),
    ]
]


def magento_rest(rows: Rows) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {KEYS['MAGENTO_TOKEN']}":
            told = {"message": "The consumer isn't authorized to access %resources."}
            return Reply.json({**told, "parameters": {"resources": "Magento_Catalog::products"}}, 401)
        size = int(request.query["searchCriteria[pageSize]"])
        page = min(int(request.query["searchCriteria[currentPage]"]), -(-len(rows) // size))
        shown = rows[(page - 1) * size : page * size]
        criteria = {"filter_groups": [], "page_size": size, "current_page": page}
        return Reply.json({"items": shown, "search_criteria": criteria, "total_count": len(rows)})

    return answer


def magento_row(id_: int, price: float, files: Sequence[str] = (), **changed: Any) -> dict[str, Any]:
    types: list[list[str]] = [["swatch_image"], ["image", "small_image", "thumbnail"]]
    return {
        "id": id_,
        "sku": f"M{id_}",
        "name": f"Coat {id_}",
        "price": price,
        "status": 1,
        "visibility": 4,
        "type_id": "simple",
        "media_gallery_entries": [
            {"id": at, "media_type": "image", "label": None, "position": at, "types": kinds, "file": file}
            for at, (file, kinds) in enumerate(zip(files, types[-len(files) :], strict=False))
        ],
        "custom_attributes": [
            {"attribute_code": "category_ids", "value": ["3", "4"]},
            {"attribute_code": "url_key", "value": f"coat-{id_}"},
        ],
        **changed,
    }


MAGENTO_REST: Rows = [
    magento_row(1, 34.5, ["/m/b/swatch.jpg", "/m/b/front.jpg"]),
    magento_row(2, 0, ["/m/b/two.jpg"], type_id="configurable"),
    magento_row(3, 7, ["/m/b/size.jpg"], visibility=1),
    magento_row(4, 1299, ["/m/b/four.jpg"], custom_attributes=[]),
]
MAGENTO_REST_ITEMS: list[Expected] = [
    ("M1", "Coat 1", 34.5, "EUR", "{host}/media/catalog/product/m/b/front.jpg", "{host}/coat-1.html"),
    ("M2", "Coat 2", None, None, "{host}/media/catalog/product/m/b/two.jpg", "{host}/coat-2.html"),
    ("M4", "Coat 4", 1299, "EUR", "{host}/media/catalog/product/m/b/four.jpg", None),
]

# PrestaShop


def prestashop(rows: Rows) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        asked = request.query
        if asked.get("ws_key") != KEYS["PRESTASHOP_KEY"] or asked.get("output_format") != "JSON":
            return Reply.json({"errors": [{"code": 17, "message": "Invalid authentication key"}]}, 401)
        start, count = map(int, asked["limit"].split(","))
        shown: Any = rows[start : start + count]
        if "language" not in asked:
            shown = [{**row, "name": [{"id": "1", "value": row["name"]}]} for row in shown]
        # No products: a list and not an object.
        return Reply.json({"products": shown} if shown else [])

    return answer


PRESTASHOP: Rows = [
    {
        "id": at,
        "id_default_image": image,
        "reference": f"demo_{at}",
        "price": "19.117647",
        "active": "1",
        "link_rewrite": f"mug-{at}",
        "name": f"Mug {at}",
        "taxed": taxed,
        "associations": {"images": [{"id": image}]},
    }
    for at, image, taxed in [(1, "12", "22.750000"), (2, 13, "1299.000000"), (3, "14", 9.9), (4, "15", "0.500000")]
]
PRESTASHOP_ITEMS: list[Expected] = [
    (key, f"Mug {key}", price, "EUR", "{host}/" + f"{image}-large_default/mug-{key}.jpg", "{host}" + page + key)
    for key, image, price in [("1", 12, 22.75), ("2", 13, 1299), ("3", 14, 9.9), ("4", 15, 0.5)]
    for page in ["/index.php?controller=product&id_product="]
]

# Etsy


def etsy(rows: Rows, offset_max: int = 12_000) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        if request.headers.get("x-api-key") != f"{KEYS['ETSY_KEYSTRING']}:{KEYS['ETSY_SHARED_SECRET']}":
            return Reply.json({"error": "Shared secret is required in x-api-key header."}, 403)
        offset, limit = int(request.query["offset"]), int(request.query["limit"])
        if offset > offset_max:
            return Reply.json({"error": "Offset provided is greater than the maximum offset allowed."}, 400)
        shown = rows[offset : offset + limit]
        if request.query.get("includes") != "Images":
            shown = [{**row, "images": None} for row in shown]
        return Reply.json({"count": len(rows), "results": shown})

    return answer


ETSY: Rows = [
    {
        "listing_id": at,
        "shop_id": 12345678,
        "title": f"Ring {at} &quot;moon&quot;",
        "state": "active",
        "url": f"https://www.etsy.example/listing/{at}/ring",
        "price": {"amount": amount, "divisor": divisor, "currency_code": code},
        "images": [{"listing_image_id": at, "rank": 1, "url_fullxfull": f"https://i.example/il_fullxfull.{at}.jpg"}],
    }
    for at, amount, divisor, code in [(1, 1999, 100, "USD"), (2, 4500, 1, "JPY"), (3, 5, 1, "EUR"), (4, 1, 100, "USD")]
]
ETSY_ITEMS: list[Expected] = [
    (
        str(at),
        f'Ring {at} "moon"',
        price,
        code,
        f"https://i.example/il_fullxfull.{at}.jpg",
        f"https://www.etsy.example/listing/{at}/ring",
    )
    for at, price, code in [(1, 19.99, "USD"), (2, 4500, "JPY"), (3, 5, "EUR"), (4, 0.01, "USD")]
]


@pytest.mark.parametrize("left_out", [0, 1], ids=["full", "short"])
@pytest.mark.parametrize(
    ("name", "product", "rows", "items", "asked"),
    [
        ("shopify", shopify, SHOPIFY, SHOPIFY_ITEMS, (5, 3)),
        ("woocommerce", wordpress, WOOCOMMERCE, WOOCOMMERCE_ITEMS, (2, 2)),
        ("magento", magento_graphql, MAGENTO, MAGENTO_ITEMS, (2, 2)),
        ("magento_rest", magento_rest, MAGENTO_REST, MAGENTO_REST_ITEMS, (2, 2)),
        ("prestashop", prestashop, PRESTASHOP, PRESTASHOP_ITEMS, (5, 3)),
        ("etsy", etsy, ETSY, ETSY_ITEMS, (2, 2)),
        ("wordpress", wordpress, WORDPRESS, WORDPRESS_ITEMS, (4, 4)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_recipe_reads_its_product(
    name: str,
    product: Callable[[Rows], Callable[[Request], Reply]],
    rows: Rows,
    items: list[Expected],
    asked: tuple[int, int],
    left_out: int,
) -> None:
    """With a last page that is full and with one that is not: all items, nothing else, and no doubt about the end."""
    with serving(product(rows[: len(rows) - left_out])) as server:
        pages = read_recipe(name, server)
        assert len(server.requests) == asked[left_out]
    found = [item for page in pages for item in page.items]
    assert [(i.key, i.title, i.price, i.currency, i.image_url, i.page_url) for i in found] == [
        tuple(value.replace("{host}", server.url) if isinstance(value, str) else value for value in expected)
        for expected in items[: len(items) - left_out]
    ]
    assert not [failure for page in pages for failure in page.failed]
    assert not any(page.partial for page in pages)


@pytest.mark.parametrize(
    ("name", "answer"), [("shopify", shopify(SHOPIFY, products_max=2)), ("etsy", etsy(ETSY, offset_max=1))]
)
def test_a_limit_of_the_product_is_told_and_counts_nothing_as_missing(
    name: str, answer: Callable[[Request], Reply]
) -> None:
    with serving(answer) as server:
        pages = read_recipe(name, server)
    assert pages[-1].partial
    (reason,) = pages[-1].passed_over
    assert "answers 400: the API's end, or its limit" in reason


def test_a_shop_whose_links_are_lost_on_the_way_loses_no_items() -> None:
    def without_links(request: Request) -> Reply:
        reply = wordpress(WOOCOMMERCE)(request)
        reply.headers.pop("Link", None)
        return reply

    with serving(without_links) as server:
        (page,) = read_recipe("woocommerce", server)
    assert [failure.reason for failure in page.failed if failure.unread] == [
        "the API counts 4 rows of collection '' and gave 2"
    ]


def manuscript(request: Request) -> Reply:
    """A manifest of Presentation API 3, and one of 2."""
    service = f"https://images.example/iiif{request.path.rpartition('/')[0]}"
    if request.path.startswith("/cod-1/"):
        pages = [
            {
                "id": f"{service}/canvas/{at}",
                "type": "Canvas",
                "label": {"none": [f"{at}r"]},
                "items": [{"items": [{"body": {"service": [{"id": f"{service}-{at}", "type": "ImageService3"}]}}]}],
            }
            for at in (1, 2)
        ]
        return Reply.json({"type": "Manifest", "label": {"en": ["A psalter"]}, "items": pages})
    old = {
        "@id": f"{service}/canvas/1",
        "@type": "sc:Canvas",
        "label": "1v",
        "images": [{"resource": {"service": {"@id": f"{service}-1", "profile": "level2"}}}],
    }
    return Reply.json({"@type": "sc:Manifest", "label": "A psalter", "sequences": [{"canvases": [old]}]})


def test_each_page_of_a_iiif_manifest_is_an_item() -> None:
    with serving(manuscript) as server:
        pages = read_recipe("manuscripts", server)
    assert [(item.key, item.title, item.collection, item.image_url) for page in pages for item in page.items] == [
        (
            f"https://images.example/iiif/{book}/canvas/{at}",
            title,
            book,
            f"https://images.example/iiif/{book}-{at}/full/!1024,1024/0/default.jpg",
        )
        for book, at, title in [("cod-1", 1, "1r"), ("cod-1", 2, "2r"), ("cod-2", 1, "1v")]
    ]
    assert not [failure for page in pages for failure in page.failed]


def archive(request: Request) -> Reply:
    """Two pages of OAI-PMH; a token stands alone, as the protocol has it."""
    token = request.query.get("resumptionToken")
    wanted = {"verb": "ListRecords"} | ({"resumptionToken": "a:2"} if token else {"metadataPrefix": "oai_dc"})
    if request.query != wanted:
        return Reply(OAI.format('<error code="badArgument">No such argument</error>').encode(), headers=XML)
    host = f"http://{request.headers['host']}"
    records = "".join(
        f"<record><header><identifier>oai:{n}</identifier></header><metadata><oai_dc:dc><dc:title>Map &amp; view {n}"
        f"</dc:title><dc:creator>Blaeu</dc:creator><dc:creator>Hondius</dc:creator><dc:identifier>{host}/item/{n}"
        f"</dc:identifier><dc:identifier>{host}/files/{n}.jpg</dc:identifier><dc:date>1662</dc:date></oai_dc:dc>"
        "</metadata></record>"
        for n in ([1, 2] if token is None else [4])
    )
    gone = '<record><header status="deleted"><identifier>oai:3</identifier></header></record>' * (token is None)
    more = f'<resumptionToken completeListSize="4">{"" if token else "a:2"}</resumptionToken>'
    return Reply(OAI.format(f"<ListRecords>{records}{gone}{more}</ListRecords>").encode(), headers=XML)


XML = {"Content-Type": "text/xml; charset=utf-8"}
OAI = (
    '<?xml version="1.0"?><OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/" xmlns:oai_dc="urn:oai_dc" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/"><responseDate>2026-11-27T00:00:00Z</responseDate>{}</OAI-PMH>'
)


def test_an_archive_is_read_over_oai_pmh() -> None:
    with serving(archive) as server:
        pages = read_recipe("archive", server)
    host = server.url
    assert [
        (item.key, item.title, item.author, item.image_url, item.page_url) for page in pages for item in page.items
    ] == [(f"oai:{n}", f"Map & view {n}", "Blaeu", f"{host}/files/{n}.jpg", f"{host}/item/{n}") for n in (1, 2, 4)]
    assert not [failure for page in pages for failure in page.failed]
    assert pages[0].passed_over == {"left out by only": 1}


@pytest.mark.parametrize("body", [b"<OAI-PMH><ListRecords><record>", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", b""])
def test_broken_xml_is_no_empty_catalogue(body: bytes) -> None:
    with serving(lambda request: Reply(body, headers=XML)) as server, pytest.raises(SourceUnavailable):
        read_recipe("archive", server)
