"""Prices that are made up, the same ones on every machine."""

from __future__ import annotations

import random
from typing import NamedTuple

SEED = "visor demo 1"


class Price(NamedTuple):
    """`amount` as the API writes it: a decimal number with as many places as the currency has."""

    amount: str
    currency: str
    country: str


class _Country(NamedTuple):
    code: str
    currency: str
    rate: float
    """Made up, too: units of the currency for one euro."""


_COUNTRIES = (
    _Country("DE", "EUR", 1),
    _Country("FR", "EUR", 1),
    _Country("IT", "EUR", 1),
    _Country("US", "USD", 1.1),
    _Country("CA", "CAD", 1.5),
    _Country("GB", "GBP", 0.85),
    _Country("JP", "JPY", 160),
    _Country("IN", "INR", 90),
)


def made_up_price(product: int) -> Price:
    """The price of a product: about 25 euros, half of them between 12 and 50, in its seller's currency."""
    # String seeds are hashed by `random` itself, so this does not depend on PYTHONHASHSEED.
    chance = random.Random(f"{SEED}:{product}")  # noqa: S311 -- a demo's prices
    country = chance.choice(_COUNTRIES)
    euros = max(1.0, chance.lognormvariate(3.2, 1.05))
    if country.currency == "JPY":
        return Price(str(round(euros * country.rate, -1)).split(".")[0], "JPY", country.code)
    return Price(f"{int(euros * country.rate) + 0.99:.2f}", country.currency, country.code)
