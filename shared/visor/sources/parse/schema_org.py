"""Products and pictures in Schema.org's vocabulary (JSON-LD, microdata), as rows with Google's attribute names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from visor.sources.parse.text import scalar_text

_DEPTH_MAX = 12


def things(document: Any, *types: str, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The objects of those types in a document, nested ones and `@graph`s included, in their order."""
    if isinstance(document, Mapping) and type_names(document) & frozenset(types):
        yield document
    elif isinstance(document, list | Mapping) and depth <= _DEPTH_MAX:
        for part in document if isinstance(document, list) else document.values():
            yield from things(part, *types, depth=depth + 1)


def type_names(thing: Mapping[str, Any]) -> frozenset[str]:
    """`Product` of `"Product"`, `["Product"]`, `"schema:Product"` and `"https://schema.org/Product"`."""
    named = thing.get("@type", thing.get("type"))
    names = named if isinstance(named, list) else [named]
    return frozenset(str(name).replace("schema:", "").rpartition("/")[2] for name in names)


def product_row(thing: Mapping[str, Any]) -> dict[str, Any]:
    """A Product, ProductGroup or ImageObject with Google's attribute names; what it does not say is left out."""
    offer = _first_offer(thing)
    specification = _mapping(offer.get("priceSpecification"))
    price = _text(offer.get("price")) or _text(specification.get("price")) or _text(offer.get("lowPrice"))
    currency = _text(offer.get("priceCurrency")) or _text(specification.get("priceCurrency"))
    pictures = [*addresses(thing.get("image")), *addresses(thing.get("contentUrl"))]
    row = {
        "id": _text(thing.get("sku")) or _text(thing.get("productID")) or _text(thing.get("@id")),
        "title": _text(thing.get("name")) or _text(thing.get("caption")),
        "description": _text(thing.get("description")),
        "link": _address(thing.get("url")) or _address(offer.get("url")),
        "image_link": pictures[0] if pictures else "",
        "additional_image_link": pictures[1:],
        "price": f"{price} {currency}".strip() if price else "",
        "availability": _text(offer.get("availability")).rpartition("/")[2],
        "condition": _text(offer.get("itemCondition")).rpartition("/")[2],
        "brand": _text(thing.get("brand")),
        "product_type": _text(thing.get("category")),
        "gtin": next((_text(thing.get(key)) for key in ("gtin", "gtin13", "gtin14", "gtin12") if thing.get(key)), ""),
        "licence": _text(thing.get("license")),
        "author": _text(thing.get("creator")) or _text(thing.get("author")) or _text(thing.get("creditText")),
        "date": _text(thing.get("dateModified")) or _text(thing.get("datePublished")) or _text(thing.get("uploadDate")),
    }
    return {name: value for name, value in row.items() if value}


def addresses(value: Any) -> list[str]:
    """Addresses of pictures: texts, ImageObjects, or lists of these."""
    found = [_address(part) for part in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(address for address in found if address))


def _first_offer(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    offers = _mapping(thing.get("offers"))
    has_price = "price" in offers or "lowPrice" in offers
    return offers if has_price else {**offers, **_mapping(offers.get("offers"))}


def _mapping(value: Any) -> Mapping[str, Any]:
    value = _first(value)
    return value if isinstance(value, Mapping) else {}


def _first(value: Any) -> Any:
    return (value[0] if value else None) if isinstance(value, list) else value


def _address(value: Any) -> str:
    value = _first(value)
    if isinstance(value, Mapping):
        value = _first(next((value[key] for key in ("contentUrl", "url", "@id") if value.get(key)), None))
    return value.strip() if isinstance(value, str) else ""


def _text(value: Any) -> str:
    value = _first(value)
    if isinstance(value, Mapping):
        value = _first(value.get("name", value.get("@value", value.get("@id"))))
    return scalar_text(value)
