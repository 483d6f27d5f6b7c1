"""What a page says, in the many ways in which pages say it: pictures, structured data, and what is asked of robots."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.unit.sources.site.test_sources_site import crawl, html, items_of

from visor.http.fetch import Fetched
from visor.sources.parse.schema_org import graph, product_rows
from visor.sources.site.page import SitePage, asked_of_robots, read_page
from visor.sources.site.pictures import srcset_candidates


def page(body: str, head: str = "") -> SitePage:
    text = f"<!doctype html><html><head><meta charset=utf-8>{head}</head><body>{body}</body></html>"
    return read_page(Fetched(body=text.encode(), url="http://e.org/d/page.html", media_type="text/html"))


def pictures(body: str, head: str = "") -> list[str]:
    return [picture.url.removeprefix("http://e.org") for picture in page(body, head).pictures]


GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


@pytest.mark.parametrize(
    ("image", "chosen"),
    [
        # What browsers choose from: the HTML standard.
        ("<img src=/a.jpg>", "/a.jpg"),
        ('<img src="/a b.jpg">', "/a%20b.jpg"),
        ("<img src=/s.jpg srcset='/a.jpg 400w, /b.jpg 1200w, /c.jpg 800w'>", "/b.jpg"),
        ("<img srcset='/a.jpg 400w,/b.jpg 800w,/c.jpg 1600w'>", "/c.jpg"),
        ("<img srcset='/a.jpg,/b.jpg 2x'>", "/a.jpg,/b.jpg"),
        ("<img srcset='/a.jpg, /b.jpg 1.5x' src=/c.jpg>", "/b.jpg"),
        ("<img srcset='/w_400,h_400/a.jpg 400w, /w_800,h_800/a.jpg 800w'>", "/w_800,h_800/a.jpg"),
        ("<img srcset='/a.jpg 400w 300h, /b.jpg 800w 600h'>", "/b.jpg"),
        ("<picture><source type=image/jxl srcset='/a.jxl 3000w'><img src=/a.jpg></picture>", "/a.jpg"),
        ("<picture><source type=image/webp srcset='/a.webp 2x'><img src=/a.jpg></picture>", "/a.webp"),
        ("<picture><source media='(max-width: 600px)' srcset=/phone.jpg><img src=/a.jpg></picture>", "/a.jpg"),
        ("<picture><source media='(min-width: 900px)' srcset=/a.jpg><img src=/phone.jpg></picture>", "/a.jpg"),
        ("<picture><source media='(prefers-color-scheme: dark)' srcset=/d.jpg><img src=/a.jpg></picture>", "/a.jpg"),
        ("<picture><source media=print srcset=/p.jpg><img src=/a.jpg></picture>", "/a.jpg"),
        ("<picture><source media='(max-width: 600px)' srcset=/a.jpg></source><img></picture>", "/a.jpg"),
        # What scripts for lazy loading know.
        (f"<img src='{GIF}' data-src=/a.jpg>", "/a.jpg"),
        (f"<img src='{GIF}' data-lazy-src=/a.jpg>", "/a.jpg"),
        (f"<img src='{GIF}' data-lazy=/a.jpg>", "/a.jpg"),
        (f"<img src='{GIF}' data-flickity-lazyload=/a.jpg>", "/a.jpg"),
        (f"<img src='{GIF}' nitro-lazy-src=/a.jpg>", "/a.jpg"),
        (f"<img src='{GIF}' data-src=/media/17>", "/media/17"),
        ("<img src=/placeholder.gif data-original=/a.jpg>", "/a.jpg"),
        ("<img src=/p.gif data-lazy-srcset='/a.jpg 300w, /b.jpg 900w'>", "/b.jpg"),
        (f"<img srcset='{GIF}' data-srcset='/a.jpg 800w' src=/thumb.jpg>", "/a.jpg"),
        ("<img srcset='/lqip.jpg 20w' data-srcset='/a.jpg 800w'>", "/a.jpg"),
        ("<img srcset='/lqip.jpg 20w' data-src=/a.jpg>", "/a.jpg"),
        ("<picture><source data-srcset='/a.jpg 1600w'><img src=/placeholder.gif></picture>", "/a.jpg"),
        ("<noscript><img src=/a.jpg width=800 height=800></noscript>", "/a.jpg"),
        (f"<img src='{GIF}' data-src=/a.jpg><noscript><img src=/a-again.jpg></noscript>", "/a.jpg"),
        ("<div style=\"background-image: url('/a.jpg')\"></div>", "/a.jpg"),
        ("<a class=lazy data-bg=/a.jpg></a>", "/a.jpg"),
        ("<div data-bg='url(/a.jpg)'></div>", "/a.jpg"),
        ("<div data-bgset='/s.jpg 300w, /a.jpg 900w'></div>", "/a.jpg"),
        ("<div data-setbg=/a.jpg></div>", "/a.jpg"),
        ("<div data-lazy-background=/a.jpg></div>", "/a.jpg"),
        ("<div class=parallax data-image-src=/a.jpg></div>", "/a.jpg"),
        ("<amp-img src=/a.jpg><noscript><img src=/b.jpg></noscript></amp-img>", "/a.jpg"),
        (f"<img src='{GIF}' data-cfsrc=/a.jpg>", "/a.jpg"),
        (f"<img src='{GIF}' :src=\"'/a.jpg'\">", "/a.jpg"),
        (f"<img src='{GIF}' v-lazy=\"'/a.jpg'\">", "/a.jpg"),
        (f"<img src='{GIF}' v-bind:src=product.image data-src=/a.jpg>", "/a.jpg"),
        (f"<img src='{GIF}' file=/a.jpg>", "/a.jpg"),
        # The large picture behind a small one.
        ("<img src=/s.jpg width=90 height=90 data-zoom-image=/a.jpg>", "/a.jpg"),
        ("<img src=/s.jpg data-large_image=/a.jpg data-large_image_width=900>", "/a.jpg"),
        ("<img src=/s.jpg data-medium-file=/m.jpg data-large-file=/l.jpg data-orig-file=/a.jpg>", "/a.jpg"),
        ("<a href=/a.jpg><img src=/s.jpg width=90 height=90></a>", "/a.jpg"),
        ("<img src=/s.jpg data-full-size-image-url=/a.jpg>", "/a.jpg"),
        ("<img src=/a.jpg data-second-image=/back.jpg data-rollover=/back.jpg>", "/a.jpg"),
        # Templates of addresses.
        ("<img src=/1_300x.jpg data-src='/1_{width}x.jpg' data-widths='[180, 360]'>", "/1.jpg"),
        ("<img src=/s.jpg data-src='/i?w={width}' data-widths='[180, 360]'>", "/i?w=360"),
        ("<img src=/s.jpg data-src='/{quality}/a.jpg'>", "/s.jpg"),
        ("<img src='<%= image %>'>", None),
        ("<img src='[[image]]'>", None),
        # Attributes that are no address of the picture.
        ("<img src=/a.jpg data-thumb=/t.jpg data-product-name='Lens 2x' data-name=b.jpg data-url=/page>", "/a.jpg"),
        ('<img src=/a.jpg data-placeholder-src=/p.jpg data-options=\'{"src": "/b.jpg"}\'>', "/a.jpg"),
        ("<img src='' data-src=''>", None),
        ("<img src=/drawing.svg>", None),
        # Numbers that nobody can have meant.
        (f"<img srcset='/a.jpg {'9' * 400}w'>", "/a.jpg"),
        (f"<img src=/a.jpg width={'9' * 5000} height={'9' * 5000}>", "/a.jpg"),
        (f"<img data-src='/a_{{width}}x.jpg' data-widths={'9' * 5000}>", "/a.jpg"),
    ],
)
def test_the_picture_of_an_img(image: str, chosen: str | None) -> None:
    assert pictures(image) == ([chosen] if chosen else [])


def test_an_address_that_is_none_stops_no_page() -> None:
    assert pictures("<img data-src='http://[bad/a.jpg'><img data-src='//[x' src=/b.jpg>") == ["/b.jpg"]


def test_srcset_by_the_standard() -> None:
    assert list(srcset_candidates(" ,a.jpg 1x,, b.jpg (x, y) 2x ,c,d.jpg")) == [
        ("a.jpg", " 1x"),
        ("b.jpg", " (x, y) 2x "),
        ("c,d.jpg", ""),
    ]


@pytest.mark.parametrize(
    "image",
    [
        "<img src=/catalogo/scarpe/rossa.jpg>",
        "<img src=/silicone-mould.jpg>",
        "<img src=/blanket-grey.jpg>",
        "<img src=/byzantine-icon-1350.jpg>",
        "<img src=/blue-button-up-shirt.jpg>",
        "<img src=/google-pixel-9.jpg>",
        "<img src=/fidget-spinner.jpg>",
        "<img src=/sprite-can.jpg>",
        "<img src=/counter-stool-oak.jpg>",
        "<img src=/badger-cub.jpg>",
        "<img src=/lodestars-anthology.jpg>",
        "<img src=/photo-12.jpg>",
        "<img src=/icon.jpg class=icon width=800 height=600>",
        "<img src=/a.jpg class='js-lazyloader blanket-image button-up'>",
        "<article><header><img src=/a.jpg></header></article>",
        "<header><main><img src=/a.jpg></main></header>",
    ],
)
def test_what_only_looks_like_decoration_is_content(image: str) -> None:
    assert len(pictures(image)) == 1


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("<img src=/logo.png>", "file name"),
        ("<img src=/i/site-logo@2x.png>", "file name"),
        ("<img src=/spacer.gif>", "file name"),
        ("<img src=/byzantine-icon.png width=128 height=128>", "file name"),
        ("<img src=/a.png class=custom-logo>", "class or role"),
        ("<img src=/a.png class='avatar avatar-96 photo'>", "class or role"),
        ("<img src=/a.png role=presentation>", "class or role"),
        ("<img src=/a.png width=40>", "smaller"),
        ("<img src=/a.png style='width: 40px; height: 300px'>", "smaller"),
        ("<header><img src=/a.png></header>", "header"),
        ("<nav><img src=/a.png></nav>", "header"),
    ],
)
def test_decoration_is_left_out_with_its_reason(image: str, reason: str) -> None:
    read = page(image)
    assert not read.pictures
    assert [reason in told for told in read.left_out] == [True]


def test_addresses_are_relative_to_the_base_of_the_page() -> None:
    read = page("<img src=img/a.jpg><a href=b.html>b</a>", "<base href=/static/>")
    assert read.pictures[0].url == "http://e.org/static/img/a.jpg"
    assert read.links == ("http://e.org/static/b.html",)
    assert pictures("<img src=a.jpg>", "<base href='javascript:'>") == ["/d/a.jpg"]


@pytest.mark.parametrize(
    ("image", "link"),
    [
        ("<a href=/full.jpg><img src=/a.jpg></a>", None),
        ("<a href=/film.mp4><img src=/a.jpg></a>", None),
        ("<a href='javascript:x()'><img src=/a.jpg></a>", None),
        ("<a href=/about.html><img src=/a.jpg></a>", "http://e.org/about.html"),
        ("<a href=/wiki/File:A.jpg><img src=/a.jpg></a>", "http://e.org/wiki/File:A.jpg"),
    ],
)
def test_a_picture_links_to_a_page_or_to_none(image: str, link: str | None) -> None:
    assert [picture.link for picture in page(image).pictures] == [link]


# Structured data

OFFER = {"@type": "Offer", "price": "9.50", "priceCurrency": "EUR"}
THING = {"@type": "Product", "name": "Thing", "image": "/1.jpg", "offers": OFFER}
WRITTEN = json.dumps(THING)


def script(content: Any, kind: str = "application/ld+json") -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    return f'<script type="{kind}">{text}</script>'


def described(*scripts: Any, kind: str = "application/ld+json") -> list[dict[str, Any]]:
    return [dict(row) for row in page("".join(script(content, kind) for content in scripts)).described]


@pytest.mark.parametrize(
    "script",
    [
        WRITTEN + ";",
        f"[{WRITTEN}];",
        "\ufeff" + WRITTEN,
        f"//<![CDATA[\n{WRITTEN}\n//]]>",
        f"/*<![CDATA[*/{WRITTEN}/*]]>*/",
        f"<![CDATA[{WRITTEN}]]>",
        f"<!-- {WRITTEN} -->",
        f"<!-- Product -->\n{WRITTEN}",
        f"// Product\n{WRITTEN}",
        f'{{"@type": "WebSite"}}{WRITTEN}',
        f'{{"@type": "WebSite"}};\n{WRITTEN}',
        f'{{"@type": "WebSite"}},{WRITTEN},',
        f"var product = {WRITTEN};",
        WRITTEN[:-1] + ",}",
        WRITTEN.replace('"Thing"', '"Th\\ing"'),
        WRITTEN.replace('"Thing"', '"Thing", "description": "27" wide"'),
        WRITTEN.replace('"Thing"', '"Thing", "description": "a\tb\nc", "weight": NaN'),
        WRITTEN.replace('"', "'"),
        WRITTEN.replace('"', "&quot;"),
    ],
)
def test_json_ld_with_mistakes_is_read(script: str) -> None:
    (row,) = described(script)
    assert (row["title"], row["image_link"], row["price"], row["currency"]) == ("Thing", "/1.jpg", "9.50", "EUR")


@pytest.mark.parametrize("kind", ["application/ld+json; charset=utf-8", "Application/LD+JSON"])
def test_json_ld_is_known_by_its_type_in_any_spelling(kind: str) -> None:
    assert len(described(THING, kind=kind)) == 1


@pytest.mark.parametrize("script", ["", "{", "Nothing", "{" * 50_000, '{"a":' * 50_000, "[" * 50_000])
def test_what_is_no_json_ld_is_nothing(script: str) -> None:
    assert described(script) == []


def test_references_are_resolved_over_all_scripts_of_a_page() -> None:
    graph = [
        {"@type": "WebPage", "@id": "#page", "mainEntity": {"@id": "#product"}},
        {
            "@type": "Product",
            "@id": "#product",
            "name": "Lamp",
            "image": {"@id": "#primaryimage"},
            "brand": {"@id": "#b"},
        },
        {"@type": "Product", "@id": "#product", "offers": [{"@id": "#offer"}], "isRelatedTo": {"@id": "#product"}},
        {"@type": "Brand", "@id": "#b", "name": "Acme"},
        {"@type": "Offer", "@id": "#offer", "price": 3.35, "priceCurrency": "GBP"},
    ]
    (row,) = described({"@graph": graph}, {"@type": "ImageObject", "@id": "#primaryimage", "contentUrl": "/lamp.jpg"})
    assert (row["title"], row["image_link"], row["brand"], row["price"]) == ("Lamp", "/lamp.jpg", "Acme", 3.35)


def test_the_logo_of_an_organization_is_no_picture_of_its_page() -> None:
    def picture(url: str) -> dict[str, Any]:
        return {"@type": "ImageObject", "url": url, "caption": "A picture"}

    graph = [
        {"@type": "Organization", "logo": picture("/logo.png")},
        {"@type": "Person", "image": picture("/face.jpg")},
        {"@type": "Article", "image": picture("/post.jpg")},
    ]
    assert [row["image_link"] for row in described({"@graph": graph})] == ["/post.jpg"]


GROUP = {"@type": "ProductGroup", "@id": "#g", "productGroupID": "7", "name": "Shirt", "image": "/g.jpg", "brand": "A"}


@pytest.mark.parametrize(
    ("scripts", "found"),
    [
        (
            [{**GROUP, "hasVariant": [{"sku": "s"}, {"sku": "m", "image": "/m.jpg", "name": "Shirt M"}]}],
            [("s", "Shirt", "/g.jpg", "A"), ("m", "Shirt M", "/m.jpg", "A")],
        ),
        (
            [GROUP, {"@type": "Product", "sku": "s", "image": "/s.jpg", "isVariantOf": {"@id": "#g"}}],
            [("s", "Shirt", "/s.jpg", "A")],
        ),
        ([{"@type": "Product", "sku": "s", "isVariantOf": GROUP}], [("s", "Shirt", "/g.jpg", "A")]),
        ([GROUP, {"@type": "Product", "sku": "s", "inProductGroupWithID": "7"}], [("s", "Shirt", "/g.jpg", "A")]),
        (
            [
                {**GROUP, "hasVariant": [{"@id": "#s"}]},
                {"@type": "Product", "@id": "#s", "sku": "s", "isVariantOf": {"@id": "#g"}},
            ],
            [("s", "Shirt", "/g.jpg", "A")],
        ),
        ([{**GROUP, "hasVariant": [{"url": "/red"}, {"url": "/blue"}]}], [(None, "Shirt", "/g.jpg", "A")]),
    ],
)
def test_variants_have_what_their_group_says(scripts: list[Any], found: list[Any]) -> None:
    rows = described(*scripts)
    assert [(row.get("sku"), row["title"], row["image_link"], row["brand"]) for row in rows] == found


@pytest.mark.parametrize(
    ("others", "count"),
    [
        ([{"@type": "Product", "name": "thing", "image": "/1.jpg?width=800", "sku": "S"}], 1),
        ([{"@type": "Product", "name": "Thing", "@id": "#review", "aggregateRating": {"ratingValue": 4}}], 1),
        ([{"@type": "Product", "name": "Thing", "image": ["https://cdn.e.org/1_800x.jpg"]}], 1),
        ([{"@type": "Product", "name": "Thing", "image": "/2.jpg"}], 2),
        ([{"@type": "Product", "name": "Other", "image": "/1.jpg"}], 2),
        ([{**THING, "sku": "A"}, {**THING, "sku": "B"}], 2),
    ],
)
def test_a_product_that_is_described_twice_is_one(others: list[Any], count: int) -> None:
    rows = described(THING, *others)
    assert len(rows) == count
    assert rows[0]["price"] == "9.50"
    assert len(described(*others[::-1], THING)) == count


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("/1.jpg", "/1.jpg"),
        (["", "data:image/png;base64,AA", "/1.jpg", "/2.jpg"], "/1.jpg"),
        ({"@type": "ImageObject", "url": "/1.jpg"}, "/1.jpg"),
        ([{"@type": "ImageObject", "contentUrl": "/1.jpg", "url": "/page"}], "/1.jpg"),
        ({"@type": "ImageObject", "url": {"@id": "/1.jpg"}}, "/1.jpg"),
        ({"@id": "https://e.org/1.jpg"}, "https://e.org/1.jpg"),
        ({"@value": "/1.jpg"}, "/1.jpg"),
        ({"@list": ["/1.jpg", "/2.jpg"]}, "/1.jpg"),
        ([["/1.jpg"], ["/2.jpg"]], "/1.jpg"),
        ({"@id": "#primaryimage"}, None),
        (None, None),
        (["undefined", "{{ image }}", "/logo.svg#a", "http://", "/1.jpg"], "/1.jpg"),
        ("/1.jpg?a=1&amp;b=2", "/1.jpg?a=1&b=2"),
    ],
)
def test_the_picture_of_a_product(image: Any, found: str | None) -> None:
    assert [row["image_link"] for row in described({**THING, "image": image})] == ([found] if found else [])


@pytest.mark.parametrize(
    ("offers", "price", "currency"),
    [
        ([{"availability": "x"}, {"price": 2, "priceCurrency": "EUR"}], 2, "EUR"),
        ({"@type": "AggregateOffer", "lowPrice": "3", "highPrice": "4", "priceCurrency": "EUR"}, "3", "EUR"),
        ({"@type": "AggregateOffer", "offers": [{"price": 5, "priceCurrency": "EUR"}]}, 5, "EUR"),
        ([{"price": 0, "priceCurrency": "EUR"}, {"price": "5.50", "priceCurrency": "EUR"}], "5.50", "EUR"),
        ([{"price": 9, "priceCurrency": "EUR"}, {"price": "5.50", "priceCurrency": "EUR"}], "5.50", "EUR"),
        ([{"price": 9, "priceCurrency": "EUR"}, {"price": "5.50", "priceCurrency": "USD"}], 9, "EUR"),
        ([{"price": 9}, {"price": 5, "itemCondition": "https://schema.org/UsedCondition"}], 9, None),
        ([{"price": 9}, {"price": 5, "availability": "https://schema.org/OutOfStock"}], 9, None),
        ([{"price": 5, "businessFunction": "gr:LeaseOut"}, {"price": 9}], 9, None),
        ([{"price": 9}, {"price": 5, "eligibleQuantity": {"minValue": 100}}], 9, None),
        ({"priceCurrency": "EUR", "offers": [{"price": 9}, {"price": "8"}]}, "8", "EUR"),
        ({"priceSpecification": [{"price": 2, "priceComponentType": "Installment"}, {"price": 9}]}, 9, None),
        ([{"price": "19,90 €"}, {"price": 5}], "19,90 €", None),
        (
            {"priceCurrency": "EUR", "priceSpecification": [{"priceType": "ListPrice", "price": 9}, {"price": 7}]},
            7,
            "EUR",
        ),
        (
            {"priceCurrency": "EUR", "priceSpecification": [{"price": 9, "referenceQuantity": {}}, {"price": 7}]},
            7,
            "EUR",
        ),
        ({"price": 9, "priceSpecification": {"priceCurrency": "EUR"}}, 9, "EUR"),
        ([[{"price": 9, "priceCurrency": "EUR"}]], 9, "EUR"),
        ({"price": 1.125, "priceCurrency": "EUR"}, 1.125, "EUR"),
        ({"price": 0, "priceCurrency": "EUR"}, 0, "EUR"),
        ({"price": ""}, None, None),
        ([], None, None),
    ],
)
def test_the_price_of_a_product(offers: Any, price: Any, currency: str | None) -> None:
    (row,) = described({**THING, "offers": offers})
    assert (row.get("price"), row.get("currency")) == (price, currency)


@pytest.mark.parametrize(
    ("offers", "text"),
    [
        ({"lowPrice": "3", "highPrice": "4.50", "priceCurrency": "EUR"}, "3–4.5 EUR"),
        ({"offers": [{"price": 5, "priceCurrency": "EUR"}, {"price": "3", "priceCurrency": "EUR"}]}, "3–5 EUR"),
        ([{"price": 1299.5}, {"price": 1234567.89}], "1299.5–1234567.89"),
        ({"lowPrice": "3,50", "highPrice": "4,50 €"}, "3,50–4,50 €"),
        ({"price": ["29.99", "19.99"], "priceCurrency": "EUR"}, "19.99–29.99 EUR"),
        ({"price": ["3", 3]}, None),
        ({"lowPrice": "3", "highPrice": "3"}, None),
        ({"price": "3"}, None),
    ],
)
def test_the_lowest_of_several_prices_is_told_as_such(offers: Any, text: str | None) -> None:
    (row,) = described({**THING, "offers": offers})
    assert row.get("price_text") == text
    pages, _ = crawl({"/": html(script({**THING, "offers": offers}))})
    assert items_of(pages)[0].extra.get("price_text") == text


@pytest.mark.parametrize(
    ("offers", "price"),
    [
        ([{"price": 3, "validThrough": "2020-01-01"}, {"price": 5}], 5),
        ([{"price": 3, "priceValidUntil": "2020-01-01"}, {"price": 5, "priceValidUntil": "2999-01-01"}], 5),
        ([{"price": 3, "validFrom": "2999-01-01T00:00:00Z"}, {"price": 5, "validFrom": "2020-01-01"}], 5),
        ([{"price": 3, "validThrough": "2026-05-08"}, {"price": 5}], 3),
        ([{"price": 3, "priceValidUntil": "2020-01-01"}], 3),
        ([{"price": 3, "validThrough": "soon"}, {"price": 5}], 3),
        ({"priceSpecification": [{"price": 3, "validThrough": "2020-01-01"}, {"price": 5}]}, 5),
    ],
)
def test_a_price_of_another_time_counts_if_there_is_no_other(offers: Any, price: int) -> None:
    (row,) = product_rows(graph({**THING, "offers": offers}), "2026-05-08T12:00:00+00:00")
    assert row["price"] == price


def test_a_variant_has_the_page_that_its_offer_names() -> None:
    variants = [{"sku": name, "offers": {"price": 1, "url": f"/shirt?v={name}"}} for name in "ab"]
    rows = described({**GROUP, "url": "/shirt", "hasVariant": [*variants, {"sku": "c"}]})
    assert [row["link"] for row in rows] == ["/shirt?v=a", "/shirt?v=b", "/shirt"]


def test_a_product_without_a_picture_has_that_which_its_page_is_shared_with() -> None:
    shared = '<meta property="og:image" content="/1.jpg"><meta property="og:title" content="Shop: Thing">'
    for image in ({}, {"image": ""}, {"image": "data:image/gif;base64,R0"}, {"image": "/logo.svg?v=2"}):
        product = {name: value for name, value in THING.items() if name != "image"} | image
        found = page(script(product), shared)
        assert not found.described
        assert (found.shared or {}) | {"title": "Thing", "price": "9.50", "currency": "EUR"} == found.shared
        assert (found.shared or {})["image_link"] == "/1.jpg"


BARE = {name: value for name, value in THING.items() if name != "offers"}


@pytest.mark.parametrize(
    "document",
    [
        *({**THING, "@type": kind} for kind in ("Car", "SomeProducts", ["Product", "Vehicle"], "Book", " Product ")),
        {**OFFER, "itemOffered": BARE},
        {"@type": "OfferCatalog", "itemListElement": [{**OFFER, "itemOffered": [BARE]}]},
        {"@graph": [{**BARE, "@id": "#p"}, {**OFFER, "itemOffered": {"@id": "#p"}}]},
        json.loads(re.sub(r'"(\w+)":', r'"schema:\1":', WRITTEN)),
        json.loads(re.sub(r'"(\w+)":', r'"https://schema.org/\1":', WRITTEN)),
        {**THING, "name": [{"@value": "Thing", "@language": "en"}, {"@value": "Ding", "@language": "de"}]},
    ],
)
def test_what_is_offered_in_any_form_of_the_vocabulary(document: Any) -> None:
    (row,) = described(document)
    assert (row["title"], row["image_link"], row["price"], row["currency"]) == ("Thing", "/1.jpg", "9.50", "EUR")


@pytest.mark.parametrize(
    "head",
    [
        '<meta name="og:image" content=" /1.jpg ">',
        '<meta property="og:image" content=""><meta property="og:image" content="/1.jpg">',
        '<meta name="twitter:image:src" content="/1.jpg">',
        '<meta itemprop="image" content="/1.jpg">',
        '<link rel="image_src" href="/1.jpg">',
        '<meta property="og:image" content="{{ image }}"><meta name="twitter:image" content="/1.jpg">',
        '<meta property="og:image:secure_url" content="https://"><meta property="og:image" content="/1.jpg">',
        '<meta property="og:image" content="/logo.svg"><link rel="image_src" href="/1.jpg">',
    ],
)
def test_the_picture_that_a_page_is_shared_with(head: str) -> None:
    assert (page("", head).shared or {})["image_link"] == "/1.jpg"


@pytest.mark.parametrize(
    ("said", "price"),
    [
        ({"price:amount": "9.50"}, "9.50"),
        ({"price": "9.50 EUR"}, "9.50 EUR"),
        ({"price:amount": "19", "sale_price:amount": "9.50"}, "9.50"),
        ({"price:amount": "19", "sale_price:amount": "0.00"}, "19"),
        ({"price:amount": "19", "sale_price:amount": "9.50", "sale_price_dates:end": "2020-01-01"}, "19"),
    ],
)
def test_the_price_that_a_page_is_shared_with(said: dict[str, str], price: str) -> None:
    metas = [f'<meta property="product:{name}" content="{value}">' for name, value in said.items()]
    shared = page("", '<meta property="og:image" content="/1.jpg">' + "".join(metas)).shared
    assert (shared or {})["price"] == price


@pytest.mark.parametrize(
    "body",
    [
        '<div vocab="https://schema.org/" typeof="Product"><b property="name">Chair</b>'
        '<img property="image" src="/1.jpg"><p property="offers" typeof="Offer">'
        '<i property="price" content="5.00">5 €</i><i property="priceCurrency" content="EUR"></i></p></div>',
        '<div prefix="schema: http://schema.org/" typeof="schema:Product og:thing"><b property="schema:name">Chair</b>'
        '<link property="schema:image" href="/1.jpg"><p property="schema:offers" typeof="schema:Offer">'
        '<meta property="schema:price" content="5.00"><meta property="schema:priceCurrency" content="EUR"></p></div>',
    ],
)
def test_rdfa_of_schema_org(body: str) -> None:
    (row,) = page(body, '<meta property="og:title" content="x">').described
    assert (row["title"], row["price"], row["currency"]) == ("Chair", "5.00", "EUR")
    assert row["image_link"].endswith("/1.jpg")


def test_rdfa_of_another_vocabulary_is_none() -> None:
    drupal = '<div typeof="sioc:Item foaf:Document"><b property="dc:title">Chair</b><img property="image" src="/1.jpg">'
    assert not page(drupal + "</div>").described


def test_microdata_of_a_lazy_picture() -> None:
    body = f"""<div itemscope itemtype="http://schema.org/Product"><h1 itemprop=name>Chair</h1>
<img itemprop=image src="{GIF}" data-src=/chair.jpg><div itemprop=offers itemscope itemtype="http://schema.org/Offer">
<meta itemprop=priceCurrency content=EUR><span itemprop=price content="1299.00">1.299 €</span></div></div>"""
    (row,) = page(body).described
    assert (row["image_link"], row["price"], row["currency"]) == ("http://e.org/chair.jpg", "1299.00", "EUR")


# Robots


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        (["noindex"], "noindex"),
        (["NOINDEX;NoFollow"], "nofollow noindex"),
        (["none"], "nofollow noindex"),
        (["index, follow, max-image-preview:none"], ""),
        (["max-image-preview: none, noimageindex"], "noimageindex"),
        (["googlebot: noindex", "nofollow"], "nofollow"),
        (["otherbot: noindex, nofollow"], ""),
        (["notranslate, otherbot: noindex, Visor: nofollow"], "nofollow"),
        (["unavailable_after: 2020-01-01"], "noindex"),
        (["unavailable_after: 2020-01-01T00:00:00Z"], "noindex"),
        (["unavailable_after: 2090-01-01"], ""),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, nofollow"], "nofollow noindex"),
        (["unavailable_after: Wednesday, 25-Jun-14 15:00:00 GMT"], "noindex"),
        (["googlebot: unavailable_after: 25 Jun 2010 15:00:00 PST"], ""),
    ],
)
def test_directives_are_read_as_words(values: list[str], asked: str) -> None:
    assert sorted(asked_of_robots(values, "2026-11-26")) == asked.split()


def test_the_header_of_a_page_may_ask_too() -> None:
    fetched = Fetched(body=b"<img src=/a.jpg>", url="http://e.org/", media_type="text/html", robots=("noimageindex",))
    assert not read_page(fetched).pictures
