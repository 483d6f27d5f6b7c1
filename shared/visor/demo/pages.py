"""The shop's pages for people."""

from __future__ import annotations

from html import escape
from typing import Final

from visor.demo.catalogue import DemoCatalogue, DemoCollection, Notice, Product
from visor.demo.prices import Price

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; font: 16px/1.5 system-ui, sans-serif }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem }
a { color: inherit } h1 { line-height: 1.15; margin: 0 0 .5rem }
header { margin-bottom: 1.5rem } footer { margin-top: 3rem; font-size: .875rem; opacity: .75 }
.product { display: grid; gap: 2rem; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr) }
@media (max-width: 40rem) { .product { grid-template-columns: 1fr } }
.photo { background: #fff; border: 1px solid var(--line); border-radius: .75rem; display: grid; padding: 1.5rem }
.photo img { margin: auto; max-height: 60vh; max-width: 100% }
.price { font-size: 1.75rem; font-weight: 650 } .note { font-size: .875rem; opacity: .75 }
.tag { background: var(--soft); border-radius: 1rem; padding: .15rem .75rem }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); list-style: none; padding: 0 }
.grid a { display: block; text-decoration: none } .grid .photo { aspect-ratio: 1; padding: .5rem }
.grid img { height: 7rem; object-fit: contain; width: 100% }
"""  # noqa: E501 -- a line a rule


def _document(title: str, body: str, notice: Notice) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
{body}
<footer>{escape(notice.text)} <a href="{escape(notice.url)}">{escape(notice.link_text)}</a>,
<a href="{escape(notice.licence_url)}">{escape(notice.licence)}</a> (from {escape(notice.package)}
{escape(notice.version)}).</footer></body></html>
"""


def product_page(product: Product, price: Price, collection: DemoCollection, notice: Notice) -> str:
    """One product with its picture, price and origin."""
    body = f"""<header><a href="/">Visor's demo shop</a></header>
<main class="product"><div class="photo"><img src="/pictures/{product.id}" alt="{escape(product.title)}"
width="{product.width}" height="{product.height}" style="height:auto"></div>
<div><h1>{escape(product.title)}</h1><p>{escape(product.description)}</p>
<p class="price">{escape(price.amount)} {escape(price.currency)}</p>
<p class="note">This price is made up, and nothing here is for sale.</p>
<p><span class="tag">{escape(collection.name)}</span> <span class="tag">sold from {escape(price.country)}</span></p>
<p class="note">Picture: {escape(notice.title)}, © {escape(notice.copyright)}, {escape(notice.licence)}.</p>
</div></main>"""
    return _document(f"{product.title} · Visor's demo shop", body, notice)


def shop_page(catalogue: DemoCatalogue) -> str:
    """All products, collection by collection."""
    note = "A shop to crawl. Its prices are made up, and nothing is for sale."
    parts = [f"<header><h1>Visor's demo shop</h1><p>{note}</p></header>"]
    for collection in catalogue.collections:
        parts.append(f'<h2>{escape(collection.name)}</h2><ul class="grid">')
        parts.extend(
            f'<li><a href="/products/{product.id}"><div class="photo"><img loading="lazy" alt="" '
            f'src="/pictures/{product.id}"></div>{escape(product.title)}</a></li>'
            for product in catalogue.products
            if product.collection == collection.id
        )
        parts.append("</ul>")
    return _document("Visor's demo shop", "\n".join(parts), catalogue.notice)
