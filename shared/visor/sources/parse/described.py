"""An owner's description of a picture: in a file next to it, or in the metadata of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visor.schema.items import NAME_BYTES_MAX, SEARCHED, is_attribute_name
from visor.sources.contract import RowErrors
from visor.sources.parse.item import date_of, page_url_of
from visor.sources.parse.price import PriceReader, currency_code
from visor.sources.parse.text import (
    DESCRIPTION_LENGTH_MAX,
    TITLE_LENGTH_MAX,
    country_code,
    plain_text,
    scalar_text,
)


def described(key: str, values: Mapping[str, Any], prices: PriceReader, errors: RowErrors) -> dict[str, Any]:
    """The fields of an item. A value that cannot be used is reported, and the others are kept. Unknown names are
    ignored.
    """

    def report(name: str, valid: str) -> None:
        errors.add(key, f"{name} {values[name]!r:.60} is not {valid}", dropped=False)

    def text(name: str, length_max: int = DESCRIPTION_LENGTH_MAX) -> str | None:
        value = values.get(name)
        if isinstance(value, list | Mapping):
            report(name, "a text")
        return plain_text(scalar_text(value), length_max) or None

    named = text("currency")
    if named and currency_code(named) is None:
        report("currency", "an ISO 4217 code such as EUR")
    extra = values.get("extra") or {}
    if not isinstance(extra, Mapping):
        report("extra", "an object of texts")
        extra = {}
    if wrong := [name for name in extra if not is_attribute_name(str(name))]:
        valid = f"1 to {NAME_BYTES_MAX} bytes that do not begin with '__'"
        errors.add(key, f"extra has a name that cannot be kept: {wrong[0]!r:.60}; valid: {valid}", dropped=False)
        extra = {name: value for name, value in extra.items() if name not in wrong}
    texts = {str(name): plain_text(scalar_text(value)) for name, value in extra.items()}
    if lost := [name for name, value in extra.items() if value not in (None, "") and not texts[str(name)]]:
        errors.add(key, f"extra has values that are not texts: {', '.join(map(str, lost)):.60}", dropped=False)
    texts = {name: said for name in SEARCHED if (said := text(name))} | texts
    money = prices.read(key, values.get("price"), named, errors)
    return {
        "title": text("title", TITLE_LENGTH_MAX),
        "page_url": page_url_of(key, values.get("page_url"), "", errors),
        "price": money.amount,
        "currency": money.currency,
        "country": country_code(text("country")),
        "date": date_of(key, values.get("date"), errors),
        "extra": texts | money.extra,
        **{name: text(name) for name in ("description", "collection", "licence", "author", "group")},
    }
