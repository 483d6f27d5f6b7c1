"""Made-up prices, the same on every machine."""

from __future__ import annotations

import random
from typing import NamedTuple

SEED = "visor demo 1"


class Price(NamedTuple):
    """`amount` as the API writes it: a decimal number with as many places as the currency has."""

    amount: str
    currency: str
    country: str


_COUNTRIES = (
    ("DE", "EUR", 1), ("FR", "EUR", 1), ("IT", "EUR", 1), ("US", "USD", 1.1),
    ("CA", "CAD", 1.5), ("GB", "GBP", 0.85), ("JP", "JPY", 160), ("IN", "INR", 90),
)  # fmt: skip
"""Country, currency, and a made-up rate: units for one euro."""


def made_up_price(product: int) -> Price:
    """The price of a product: about 25 euros, half of them between 12 and 50, in its seller's currency."""
    # String seeds are hashed by `random` itself, so this does not depend on PYTHONHASHSEED.
    chance = random.Random(f"{SEED}:{product}")  # noqa: S311 -- a demo's prices
    country, currency, rate = chance.choice(_COUNTRIES)
    euros = max(1.0, chance.lognormvariate(3.2, 1.05))
    if currency == "JPY":
        return Price(str(round(euros * rate, -1)).split(".")[0], currency, country)
    return Price(f"{int(euros * rate) + 0.99:.2f}", currency, country)
