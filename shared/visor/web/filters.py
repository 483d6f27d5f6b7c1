"""Filters from a query string: `?collection=socks&collection=hats&price_max=20`."""

from __future__ import annotations

from typing import Any

import msgspec
from werkzeug.datastructures import MultiDict

from visor.errors import BadRequest
from visor.schema.search import Filters


def filters_of(arguments: MultiDict[str, str]) -> Filters:
    """The filters that the query string names; a list's values are repeated.

    Raises:
        BadRequest: A parameter is no filter, or its value none.
    """
    known = {*Filters.__struct_fields__, "price_min", "price_max"} - {"price"}
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise BadRequest(
            f"Query parameter {unknown[0]!r} is no filter", valid=f"Filters are {', '.join(sorted(known))}"
        )
    values: dict[str, Any] = {name: arguments.getlist(name) for name in set(arguments) if not _is_bound(name)}
    price: dict[str, float] = {}
    try:
        for name in filter(_is_bound, set(arguments)):
            (text,) = arguments.getlist(name)
            if name.startswith("price_"):
                price[name.removeprefix("price_")] = float(text)
            else:
                values[name] = text
    except ValueError as exc:
        raise BadRequest(
            f"{name} is {arguments.getlist(name)}", valid="One number for a price, one ISO 8601 date for a date"
        ) from exc
    if price:
        values["price"] = price
    try:
        return msgspec.convert(values, Filters)
    except msgspec.ValidationError as exc:
        raise BadRequest(f"The filters cannot be read: {exc}", valid="/openapi.json describes them") from exc


def _is_bound(name: str) -> bool:
    """Whether a filter is one end of a range, and so has one value."""
    return name.startswith(("price_", "date_"))
