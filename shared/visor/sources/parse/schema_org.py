"""Products and pictures in Schema.org's vocabulary (JSON-LD, microdata), as rows with Google's attribute names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from visor.sources.parse.item import is_no_url, unescaped
from visor.sources.parse.text import iso_date, scalar_text

PRODUCTS = ("Product", "ProductGroup", "ProductModel", "IndividualProduct", "SomeProducts", "Vehicle", "Car")
_DEPTH_MAX = 12
_OF_A_GROUP = ("name", "description", "image", "brand", "category", "material", "offers", "url")
"""Attributes that a variant takes from its group if it has none itself."""
_SIZED = re.compile(r"[-_](?:\d+x\d*|x\d+|pico|thumb|small|compact|medium|large|grande)(?=\.\w+\Z)")
_ADDRESSES = ("contentUrl", "url", "thumbnailUrl", "@id")
_NO_PRICES = frozenset({"", 0, "0", "0.0", "0.00"})
"""Availabilities of an offer that does not count while another has a price."""
_LIST_PRICE = re.compile(r"ListPrice|StrikethroughPrice|SRP|MSRP")
_PART_OF_A_PRICE = re.compile(r"Installment|Down[Pp]ayment|Subscription|Fee\Z")
_NOT_FOR_EVERYBODY = frozenset({"validForMemberTier", "eligibleQuantity"})
_OUT_OF_STOCK = re.compile(r"OutOfStock|SoldOut|Discontinued")
_NOT_READ = re.compile(r"data:|[^?#]*\.svgz?(?:[?#]|\Z)|.*(?:\{\{|%7B%7B|\{%|<%|\[\[)", re.I)
"""URLs of pictures that are not fetched: embedded data, drawings, and unfilled templates."""


def things(document: Any, *types: str, outside: tuple[str, ...] = ()) -> Iterator[Mapping[str, Any]]:
    """The objects of those types in a `graph`, each once, in their order, those in other objects included.

    Args:
        outside: Types of objects that are not searched: the logo of an Organization is not a picture of its page.
    """
    return _walk(document, lambda thing: not type_names(thing).isdisjoint(types), frozenset(outside), set(), 0)


def _walk(
    part: Any, is_wanted: Callable[[Mapping[str, Any]], bool], outside: frozenset[str], seen: set[int], depth: int
) -> Iterator[Mapping[str, Any]]:
    if not isinstance(part, list | Mapping) or depth > _DEPTH_MAX or id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, Mapping) and is_wanted(part):
        yield part
    elif isinstance(part, list) or not type_names(part) & outside:
        for inner in part if isinstance(part, list) else part.values():
            yield from _walk(inner, is_wanted, outside, seen, depth + 1)


def type_names(thing: Mapping[str, Any]) -> frozenset[str]:
    """`Product` of `"Product"`, `["Product"]`, `"schema:Product"` and `"https://schema.org/Product"`."""
    return frozenset(_bare(str(name)) for name in _list(thing.get("@type", thing.get("type"))))


def _bare(name: str) -> str:
    """A name without the vocabulary's URL or prefix before it."""
    return name if name.startswith("@") else re.split(r"[:/#]", name.strip())[-1]


def graph(document: Any) -> Any:
    """A document (JSON-LD, or microdata in its form) with plain names, values and lists, and with each object in the
    place of each `{"@id": …}` that names it. An offer of a product becomes part of that product."""
    nodes: dict[str, dict[str, Any]] = {}
    document = _plain(document)
    for node in list(_nodes(document)):
        name = node.get("@id")
        if isinstance(name, str) and not node.keys() <= {"@id", "@type"}:
            known = nodes.setdefault(name, node)
            if known is not node and type_names(known) & type_names(node):
                known.update({key: value for key, value in node.items() if not known.get(key)})

    def referred(value: Any) -> Any:
        is_reference = isinstance(value, dict) and value.keys() <= {"@id", "@type"}
        return nodes.get(str(value.get("@id")), value) if is_reference else value

    for node in list(_nodes(document)):
        for key, value in node.items():
            node[key] = [referred(part) for part in value] if isinstance(value, list) else referred(value)
        offered = _first(node.pop("itemOffered", None))
        if isinstance(offered, dict):
            offered.setdefault("offers", node.copy())
            node["itemOffered"] = offered
    return document


def _plain(part: Any, depth: int = 0) -> Any:
    if depth > 2 * _DEPTH_MAX:
        return None
    if isinstance(part, list):
        values = [_plain(inner, depth + 1) for inner in part]
        return [inner for value in values for inner in (value if isinstance(value, list) else [value])]
    if not isinstance(part, dict):
        return part
    for wrapper in ("@value", "@list", "@set"):
        if wrapper in part:
            return _plain(part[wrapper], depth + 1)
    return {_bare(key): _plain(value, depth + 1) for key, value in part.items()}


def _nodes(part: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
    if isinstance(part, list | dict) and depth <= _DEPTH_MAX:
        for inner in part if isinstance(part, list) else part.values():
            yield from _nodes(inner, depth + 1)


def products(document: Any, types: tuple[str, ...] = PRODUCTS) -> Iterator[Mapping[str, Any]]:
    """The products of a `graph`, and anything else that it offers; for a group its variants, with the attributes that
    the group has for all of them."""

    def is_product(thing: Mapping[str, Any]) -> bool:
        return not type_names(thing).isdisjoint(types) or ("offers" in thing and "name" in thing)

    found = list(_walk(document, is_product, frozenset(), set(), 0))
    groups = {name: thing for thing in found if (name := _text(thing.get("productGroupID")))}
    members: dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for thing in found:
        variants = [part for part in _list(thing.get("hasVariant")) if isinstance(part, Mapping)]
        variants = [variant for variant in variants if not variant.keys() <= {"@id", "@type", "url"}]
        group = _mapping(thing.get("isVariantOf")) or groups.get(_text(thing.get("inProductGroupWithID")), {})
        members.update({id(variant): (variant, thing) for variant in variants})
        if not variants:
            members.setdefault(id(thing), (thing, group))
    in_use = {id(group) for _, group in members.values()}
    for thing, group in members.values():
        if id(thing) not in in_use:
            said = {key: value for key, value in thing.items() if value not in ("", None, [])}
            named = {"inProductGroupWithID": _group_id(group)} if group else {}
            inherited = {key: group[key] for key in _OF_A_GROUP if key in group}
            if _address(_offer(said).get("url")):
                # The page of this variant.
                inherited.pop("url", None)
            yield {"@type": "Product", **inherited, **named, **said}


def _group_id(group: Mapping[str, Any]) -> str:
    """A key that identifies a group within its shop."""
    return next(filter(None, (_text(group.get(key)) for key in ("productGroupID", "sku", "@id", "url", "name"))), "")


def product_rows(document: Any, now: str = "") -> list[dict[str, Any]]:
    """`product_row` of each of the `products` of a page; descriptions of one product in several places are one row."""
    rows: list[dict[str, Any]] = []
    by_title: dict[str, list[dict[str, Any]]] = {}
    for row in (product_row(thing, now) for thing in products(document)):
        alike = by_title.setdefault(row.get("title", "").casefold(), [])
        same = next((other for other in alike if _is_same(other, row)), None)
        if same is None:
            alike.append(row)
            rows.append(row)
        else:
            same.update({**row, **same})
    return rows


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows with the same title describe one product: by their pictures, and if no value of both differs."""
    if not one.get("title") or any(
        one[name] != other[name] for name in ("sku", "gtin", "link") if one.get(name) and other.get(name)
    ):
        return False
    names = [{_file_name(url) for url in _pictures(row)} for row in (one, other)]
    return not (names[0] and names[1]) or bool(names[0] & names[1])


def _pictures(row: Mapping[str, Any]) -> list[str]:
    return [url for url in (row.get("image_link"), *row.get("additional_image_link", ())) if url]


def _file_name(url: str) -> str:
    """What the sizes of one picture have in common."""
    return _SIZED.sub("", re.split(r"[?#]", url)[0].rpartition("/")[2])


def product_row(thing: Mapping[str, Any], now: str = "") -> dict[str, Any]:
    """A Product or ImageObject with Google's attribute names; missing values are left out.

    `price` is in machine notation, or a number, without its `currency`; if it is the lowest of several, there is
    `price_text`.

    Args:
        now: Time in ISO 8601: offers of other times count only if there is no other.
    """
    offer = _offer(thing, now)
    price = next((amount for amount in (_value(offer.get("price")), _value(offer.get("lowPrice"))) if amount != ""), "")
    picture, page = (_address(thing) if "ImageObject" in type_names(thing) else ""), _address(thing.get("url"))
    pictures = [picture] if picture else addresses(thing.get("image")) or addresses(thing.get("thumbnailUrl"))
    row = {
        "id": _text(thing.get("sku")) or _text(thing.get("productID")) or _text(thing.get("@id")),
        "sku": _text(thing.get("sku")) or _text(thing.get("productID")),
        "title": _text(thing.get("name")) or _text(thing.get("caption")),
        "description": _text(thing.get("description")),
        "link": (page if page != picture else "") or _address(offer.get("url")),
        "image_link": pictures[0] if pictures else "",
        "additional_image_link": pictures[1:],
        "price": price,
        "currency": _text(offer.get("priceCurrency")) if price != "" else "",
        "price_text": _text(offer.get("price_text")),
        "availability": _text(offer.get("availability")).rpartition("/")[2],
        "condition": _text(offer.get("itemCondition")).rpartition("/")[2],
        "brand": _text(thing.get("brand")),
        "item_group_id": _text(thing.get("inProductGroupWithID")),
        "product_type": _text(thing.get("category")),
        "gtin": next((_text(thing.get(key)) for key in ("gtin", "gtin13", "gtin14", "gtin12") if thing.get(key)), ""),
        "licence": _text(thing.get("license")) or _address(thing.get("license")),
        "author": _text(thing.get("creator")) or _text(thing.get("author")) or _text(thing.get("creditText")),
        "date": _text(thing.get("dateModified")) or _text(thing.get("datePublished")) or _text(thing.get("uploadDate")),
    }
    return {name: value for name, value in row.items() if value not in ("", [])}


def addresses(value: Any) -> list[str]:
    """URLs of pictures, from texts, ImageObjects, or lists of these."""
    found = [url for part in _list(value) for url in re.split(r",\s+(?=https?:|/)", _address(part))]
    return list(dict.fromkeys(url for url in found if not is_no_url(url) and not _NOT_READ.match(url)))


def _offer(thing: Mapping[str, Any], now: str = "") -> Mapping[str, Any]:
    """The values of the best offer with a price, and `price_text` if there are several prices: of the offers in the
    currency and condition of the first that holds now, the cheapest that is in stock."""
    offers = [offer for offer in _list(thing.get("offers")) if isinstance(offer, Mapping)]
    priced = [found for offer in offers for found in _priced(offer, now)]
    priced = [one for one in priced if not _is_other_offer(one)] or priced[:1]
    priced = [one for one in priced if not _is_of_another_time(one, now)] or priced
    if not priced or _amounts(priced[0]) == []:
        first = next(iter(priced or offers), {})
        texts = [text for name in ("lowPrice", "highPrice") if (text := _text(first.get(name)))]
        return {**first, "price_text": "–".join(texts) if len(set(texts)) > 1 else ""}
    same = ("priceCurrency", "itemCondition")
    alike = [one for one in priced if all(_text(one.get(name)) == _text(priced[0].get(name)) for name in same)]
    alike = [one for one in alike if _amounts(one)]
    best = min(alike, key=lambda one: (bool(_OUT_OF_STOCK.search(_text(one.get("availability")))), _amounts(one)[0]))
    lowest, highest = _amounts(best)[0], max(_amounts(one)[-1] for one in alike)
    text = f"{lowest:.12g}–{highest:.12g} {_text(best.get('priceCurrency'))}".strip()
    return {**best, "price_text": text if lowest < highest else ""}


def _priced(offer: Mapping[str, Any], now: str) -> list[Mapping[str, Any]]:
    """The parts of an offer with a price: itself or the first of its specifications, once for each price, else each of
    its own offers."""
    specifications = [part for part in _list(offer.get("priceSpecification")) if isinstance(part, Mapping)]
    inner = [part for part in _list(offer.get("offers")) if isinstance(part, Mapping)]
    currencies = [part["priceCurrency"] for part in (*specifications, *inner) if part.get("priceCurrency")]
    named = {"priceCurrency": currencies[0]} if currencies else {}
    specifications.sort(key=lambda part: (_is_other_price(part), _is_of_another_time(part, now)))
    for part in (offer, *specifications):
        if any(_value(part.get(name)) not in _NO_PRICES for name in ("price", "lowPrice")):
            # Microdata has a price before and one after a discount: which is which is not said.
            prices = {str(_value(price)): price for price in _list(part.get("price"))}
            return [{**named, **offer, **part, "price": price} for price in prices.values()]
    return [{**named, **offer, **one} for part in inner for one in _priced(part, now)]


def _amounts(offer: Mapping[str, Any]) -> list[float]:
    """The lowest and the highest amount that an offer names as a number; empty if it names none."""
    found = []
    for name in ("price", "lowPrice", "highPrice"):
        with suppress(ValueError):
            found += [float(_value(offer.get(name)))] if _value(offer.get(name)) not in _NO_PRICES else []
    return sorted(amount for amount in found if math.isfinite(amount))


def _is_other_offer(offer: Mapping[str, Any]) -> bool:
    """Whether the offer is a lease, or not for everybody."""
    return "Lease" in _text(offer.get("businessFunction")) or not _NOT_FOR_EVERYBODY.isdisjoint(offer.keys())


def _is_of_another_time(offer: Mapping[str, Any], now: str) -> bool:
    """Whether the price will hold or has held, but does not now. Its last day belongs to it."""
    begins, *ends = (iso_date(_text(offer.get(name))) for name in ("validFrom", "validThrough", "priceValidUntil"))
    is_over = any(end[:10] < now[:10] for end in ends if end)
    return now != "" and (is_over or (begins is not None and begins[:10] > now[:10]))


def _is_other_price(specification: Mapping[str, Any]) -> bool:
    """Whether a price is not what everybody pays for one piece now: a list price, or one per litre, part or member."""
    is_list_price = _LIST_PRICE.search(_text(specification.get("priceType")))
    is_part = _PART_OF_A_PRICE.search(_text(specification.get("priceComponentType")))
    others = _NOT_FOR_EVERYBODY | {"referenceQuantity", "billingDuration", "billingIncrement"}
    return bool(is_list_price or is_part) or not specification.keys().isdisjoint(others)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _mapping(value: Any) -> Mapping[str, Any]:
    value = _first(value)
    return value if isinstance(value, Mapping) else {}


def _first(value: Any) -> Any:
    return (value[0] if value else None) if isinstance(value, list) else value


def _address(value: Any, depth: int = 3) -> str:
    value = _first(value)
    if isinstance(value, Mapping) and depth:
        named = [(key, _address(value.get(key), depth - 1)) for key in _ADDRESSES]
        # An `@id` may be the URL itself, or a name such as `#primaryimage`.
        return next((url for key, url in named if url and not (key == "@id" and "#" in url)), "")
    return unescaped(value) if isinstance(value, str) else ""


def _value(value: Any) -> Any:
    """A number as a number, anything else as `_text`."""
    value = _first(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)


def _text(value: Any) -> str:
    value = _first(value)
    if isinstance(value, Mapping):
        value = _first(value.get("name"))
    return scalar_text(value)
