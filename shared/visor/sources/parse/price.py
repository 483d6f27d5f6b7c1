"""Prices as catalogues write them, as an amount and an ISO 4217 currency."""

from __future__ import annotations

import re
from typing import Any

from price_parser import Price

from visor.errors import DropItem
from visor.sources.contract import RowErrors

_PLAIN = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\Z")
_CODE = re.compile(r"(?<![A-Za-z])([A-Z]{3})(?![A-Za-z])")
_GROUPED = re.compile(r"\d{1,3}\.\d{3}\Z")

# Only signs of a single currency: `$`, `¥` and `kr` have several.
_SIGNS = {
    "€": "EUR", "£": "GBP", "₹": "INR", "₽": "RUB", "₩": "KRW", "₺": "TRY", "₪": "ILS", "zł": "PLN", "₫": "VND",
    "฿": "THB", "₴": "UAH", "₦": "NGN", "₱": "PHP", "Kč": "CZK", "Ft": "HUF", "US$": "USD", "R$": "BRL", "A$": "AUD",
    "C$": "CAD", "CA$": "CAD", "AU$": "AUD", "NZ$": "NZD", "HK$": "HKD", "S$": "SGD", "CN¥": "CNY", "JP¥": "JPY",
}  # fmt: skip

# ISO 4217 minor units that are not 2 (list one of the standard's maintenance agency).
_MINOR_DIGITS = {
    "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0,
    "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
    "BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
}  # fmt: skip


class UnreadablePrice(DropItem):
    """A price that cannot be understood."""


def parse_price(
    value: Any, currency: str | None = None, *, minor_units: bool | int = False
) -> tuple[float, str | None]:
    """Amount (in major units, never negative) and currency of a price.

    Args:
        value: A number, or text such as `19.99 USD`, `$1,299.00`, `1.299,00 €`, `CHF 1'299.-`.
        currency: What the catalogue says elsewhere; a currency in the text itself takes precedence.
        minor_units: The amount counts cents, or the smallest unit of the currency; a number says how many decimals.

    Raises:
        UnreadablePrice: It is not a price, negative, or not finite.
    """
    named = currency_code(currency)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UnreadablePrice(f"price {value!r:.60} is neither a number nor a text")
    if isinstance(value, str):
        amount, said = _parse_text(value)
        named = said or named
    else:
        amount = float(value)
    if minor_units is not False:
        amount /= 10 ** (_MINOR_DIGITS.get(named or "", 2) if minor_units is True else minor_units)
    if not 0 <= amount < 1e15:
        raise UnreadablePrice(f"price {value!r:.60} is not an amount of money")
    return round(amount, 4), named


def price_of(
    key: str, value: Any, currency: str | None, errors: RowErrors, *, minor_units: bool | int = False
) -> tuple[float | None, str | None]:
    """`parse_price` of an item's price. One that cannot be read is reported, and the item stays without it."""
    if value in (None, ""):
        return None, None
    try:
        return parse_price(value, currency, minor_units=minor_units)
    except UnreadablePrice as exc:
        errors.add(key, exc.reason, dropped=False)
        return None, None


def currency_code(text: str | None) -> str | None:
    """The ISO 4217 code that a text is or names; None if it does not name a single currency."""
    if not text:
        return None
    text = text.strip()
    if re.fullmatch(r"[A-Za-z]{3}", text):
        return text.upper()
    return _SIGNS.get(text)


def _parse_text(text: str) -> tuple[float, str | None]:
    code = _CODE.search(text)
    said = code[1] if code else None
    bare = (text.replace(said, " ") if said else text).strip().strip("$€£¥").strip()
    # `1.250` is one and a quarter only if the currency has three decimals, or if nothing but 0 comes before.
    has_three_decimals = _MINOR_DIGITS.get(said or "") == 3 or bare.startswith("0.")
    if _PLAIN.match(bare) and (has_three_decimals or not _GROUPED.match(bare)):
        sign = text.replace(bare, "").strip()
        return float(bare), said or _SIGNS.get(sign)
    parsed = Price.fromstring(text)
    if parsed.amount is None or not re.search(r"\d", text) or re.match(r"\W*[-−]\s*\W?\d", text):
        raise UnreadablePrice(f"price {text!r:.60} is not an amount of money")
    return float(parsed.amount), said or _SIGNS.get(parsed.currency or "")
