"""Prices as catalogues write them, as an amount and an ISO 4217 currency.

A number is exact. Structured data ('machine': JSON-LD, Open Graph, numbers as text in JSON) has a decimal point by its
specification. Everything else is a text for people, in which `1.299` may be one or thousands: that is decided by the
source's other prices or its setting `decimal`, by the currency's minor units, and by the custom where it is used; if
none of these decides, the price is unreadable and not guessed (docs/decisions/sources-prices.md).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from iso4217 import Currency

from visor.errors import DropItem
from visor.sources.contract import RowErrors
from visor.sources.parse.text import plain_text

DecimalSign = Literal[".", ","]

MINOR_DIGITS: Mapping[str, int] = {c.code: c.exponent for c in Currency if c.exponent is not None}
"""ISO 4217's currencies that things are sold in, and how many decimals each has."""

# What is written before decimals where the currency is used (CLDR); those that are missing have both customs.
_POINT = (
    "AED AUD BBD BDT BHD BMD BSD BTN BWP BZD CAD CHF CNY CUP DOP EGP ERN ETB FJD FKP GBP GHS GIP GMD GTQ GYD HKD HNL "
    "ILS INR IQD IRR JMD JOD JPY KES KHR KRW KWD KYD LKR LRD LSL MMK MNT MVR MWK MXN MYR NAD NGN NIO NPR NZD OMR PAB "
    "PEN PGK PHP PKR QAR SAR SBD SDG SGD SHP SLE SOS SSP SYP THB TOP TTD TWD TZS UGX USD WST XCD YER ZMW"
)
_COMMA = (
    "ALL AMD AOA ARS BAM BOB BRL BYN CLP COP CRC CVE CZK DKK DZD EUR GEL HUF IDR ISK KGS KZT LYD MAD MDL MKD MRU MZN "
    "NOK PLN RON RSD RUB SEK SRD TJS TMT TND TRY UAH UYU UZS VES VND XAF XOF XPF"
)

_SIGNS = {
    "€": "EUR", "£": "GBP", "₹": "INR", "₽": "RUB", "₩": "KRW", "₺": "TRY", "₪": "ILS", "zł": "PLN", "₫": "VND",
    "฿": "THB", "₴": "UAH", "₦": "NGN", "₱": "PHP", "Kč": "CZK", "Ft": "HUF", "₸": "KZT", "₾": "GEL", "₡": "CRC",
    "US$": "USD", "R$": "BRL", "A$": "AUD", "AU$": "AUD", "C$": "CAD", "CA$": "CAD", "NZ$": "NZD", "HK$": "HKD",
    "S$": "SGD", "NT$": "TWD", "MX$": "MXN", "CN¥": "CNY", "JP¥": "JPY", "RMB": "CNY", "TL": "TRY", "S/": "PEN",
    "R": "ZAR", "lei": "RON", "Lei": "RON", "zl": "PLN", "đ": "VND", "KSh": "KES",
    "руб": "RUB", "грн": "UAH", "円": "JPY", "元": "CNY", "원": "KRW", "RM": "MYR", "B/.": "PAB", "Rp": "IDR",
    "RD$": "DOP", "AR$": "ARS", "U$S": "USD", "U$D": "USD", "TT$": "TTD", "COL$": "COP", "Mex$": "MXN", "৳": "BDT",
    "₮": "MNT", "₲": "PYG", "₵": "GHS", "₭": "LAK", "៛": "KHR", "֏": "AMD", "₼": "AZN", "؋": "AFN",
    "د.إ": "AED", "ر.س": "SAR", "ر.ق": "QAR", "د.ك": "KWD", "د.ب": "BHD", "ر.ع": "OMR", "ج.م": "EGP", "د.ت": "TND",
}  # fmt: skip
_WORDS = dict.fromkeys(["eur", "Eur", "euro", "Euro", "EURO", "euros"], "EUR")
_SHARED_SIGNS = {"$": ".", "¥": ".", "Rs": ".", "₨": ".", "﷼": ".", "kr": ","}
"""Signs that several currencies share, and the sign before decimals in most of these currencies."""
_DOLLARS_AND_PESOS = (
    "ARS AUD BBD BMD BND BRL BSD BZD CAD CLP COP CUP CVE DOP FJD GYD HKD JMD KYD LRD MXN NAD NIO NZD SBD SGD SRD TOP "
    "TTD TWD USD UYU WST XCD"
)
_SHARED_BY = {
    "$": _DOLLARS_AND_PESOS, "¥": "CNY JPY", "Rs": "INR LKR MUR NPR PKR SCR", "₨": "INR LKR MUR NPR PKR SCR",
    "﷼": "IRR OMR QAR SAR YER", "kr": "DKK ISK NOK SEK",
}  # fmt: skip
"""The currencies of each: a currency that is named elsewhere does not make `$5` euros."""

_LETTER = r"[^\W\d_]"
_ALL_SIGNS = sorted([*_SIGNS, *_WORDS, *_SHARED_SIGNS, *MINOR_DIGITS], key=len, reverse=True)
_MARK = "|".join(
    f"(?<!{_LETTER})" * sign[0].isalpha() + re.escape(sign) + f"(?!{_LETTER})" * sign[-1].isalpha()
    for sign in _ALL_SIGNS
)
_MARKS = re.compile(_MARK)
_MARK_BEFORE = re.compile(rf"({_MARK})[\s.:]*\Z")
_MARK_AFTER = re.compile(rf"[\s/]*({_MARK})")
_ALSO_WORDS = frozenset({"ALL", "CUP", "PEN", "TOP", "TRY"})
"""Codes that may be words next to a price: `ALL FOR £5.00`."""
_DOLLARS = re.compile(r"\b(AU?|CA?|HK|MX|N[TZ]|S|US)\s+\$")
"""`US $25.00`, as marketplaces write it."""
_BLANKS = " \xa0\u2009\u202f"
_NUMBER = re.compile(
    rf"(?:(?<![^\s'$€£¥(])[.,](?=\d{{1,2}}(?!\d)))?\d+(?:(?:[.,'’`´٫٬]|[{_BLANKS}](?=\d{{3}}(?!\d)))\d+)*"
)
_MACHINE = re.compile(r"(?:([A-Z]{3})\s?)?([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:E[+-]?\d+)?)(?:\s?([A-Z]{3}))?\Z")
_AMBIGUOUS = re.compile(r"(?!0)\d{1,3}[.,]\d{3}\Z")
_GROUPED = re.compile(r"\d*|\d{1,3}(\D)\d{3}(?:\1\d{3})*|\d{1,2}(?:([,٬])\d\d)(?:\2\d\d)*\2\d{3}")
_NO_DECIMALS = re.compile(r"(?<=\d)\s?([.,])\s?[-–—−=]{1,2}(?!\s?\d)")
_BETWEEN = (
    "to|through|bis|à|a|hasta|até|до|tot|till?|do|až|ile|and|und|et|y|e|en|och|og|и|or|oder|ou|o|of|eller|lub|или"
)
_RANGE = re.compile(rf"\s*(?:{_MARK})?\s*(?:[-–—~〜～…]|\.{{3}}|\b(?i:{_BETWEEN})\b)\s*(?:{_MARK})?\s*\Z")
_FROM = re.compile(
    r"\b(?:from|starting|as low as|at least|and up|or more|ab|mindestens|desde|dès|partir|a partire|da|de la|od|vanaf"
    r"|fra|från|fr\.\s?o\.\s?m|alkaen|από|от|начиная)\b|-t[óő]l\b|起|から|부터|최저|[+~〜]\Z",
    re.I,
)
_AT_MOST = re.compile(
    r"\b(?:up to|at most|under|below|less than|not? more than|max(?:imal|imum|\.)?|unter|höchstens|bis(?: zu)?|jusqu'à"
    rf"|moins de|hasta|menos de|até|fino a|meno di|až|do|до)\s*(?:{_MARK})?\s*\Z",
    re.I,
)
_NOT_SO_MANY = re.compile(
    r"[pl]\b|\sp\b(?!\.\s?p)|\s?(?:[¢万萬億亿만억천]|(?:c|ct|cts|cents?|centimes?|c[eé]ntimos?|cêntimos?|centavos?|pence"
    r"|penny|öre|øre|groszy|paise|fils|коп|k|m|t(?=€)|teur|tsd|mio|mrd|bn|mil|mln|thousand|hundred|million|lakhs?|lac|crores?"
    r"|cr|тыс|млн|tys|tis|ezer|rb|ribu|jt|juta|nghìn|ngàn|triệu)\b)",
    re.I,
)
"""After a number that counts cents or thousands."""
_THOUSANDS_OF = re.compile(r"\b[kt](?:[€£$]|EUR\b)\s*\Z", re.I)
_JOINED_BEFORE = re.compile(r"\d(?:[^\w/–—~-]|\s*[.,;/|&+]+\s*|[a-z]+|e[+-]|[万萬億亿만억천]\s*)\Z", re.I)
_JOINED_AFTER = re.compile(r"[^\w/–—~-]\d|[a-z]+\d|e[+-]\d", re.I)
_SPREAD = re.compile(r"\s*[.,]+\s*\d{1,2}(?!\d)")
"""After a number without decimals: they may be these."""
_CLOSED = re.compile(rf"\s*(?:{_MARK})?\s*\)")
_MINUS_AFTER = re.compile(rf"\s*[-−]\s*(?:{_MARK})?\s*\Z")
_PIECES = re.compile(rf"[\s-]?(?:[x×](?!\w)|(?:for|für|pour|por)\b)|\s*(?:{_MARK})\s*[x×]\s*\d", re.I)
"""After a number of instalments or pieces, which means that the amount next to it is not the price."""
_PIECES_UNMARKED = re.compile(
    rf"\s*(?:per|voor|para|za|för|of\s*(?:{_MARK}))\s*(?:{_MARK})?\s*\d"
    r"|\s*(?:[^\W\d]+[\s-]+){0,2}(?:inst?all?ments?|payments|raten|rate|fois|mensualités|cuotas|pagos|parcelas|prestações"
    r"|vezes|termijnen|raty?|splátek|taksit|платеж\w*|взнос\w*)\b|\s*mois\s*[x×]",
    re.I,
)
"""The same, for a number without a currency."""
_DASH_FOR_ZERO = re.compile(r"(?<![\w.,])(?:[–—](?=[.,])|-(?=,))(?=.\d\d(?!\d))")
"""`–.95` and `-,95 €` are 95 cents."""
TEXT_LENGTH_MAX = 200
"""Characters of a text that may be a price."""


class UnreadablePrice(DropItem):
    """A price that cannot be understood."""


class Money(NamedTuple):
    amount: float | None = None
    """In major units, never negative."""
    currency: str | None = None
    written: str = ""
    """The whole text, if the amount is the lowest of a range or a starting price."""

    @property
    def extra(self) -> dict[str, str]:
        """The entry in an item's `extra` about a price that is only the lowest one."""
        return {"price_text": self.written} if self.written else {}


class _Number(NamedTuple):
    digits: str
    before: str
    after: str

    @property
    def marks(self) -> list[str]:
        """The marks after it, then those before it, each from the nearest on."""
        found, after, before = list[str](), self.after, self.before
        while match := _MARK_AFTER.match(after):
            found, after = [*found, match[1]], after[match.end() :]
        while match := _MARK_BEFORE.search(before):
            found, before = [*found, match[1]], before[: match.start()]
        return found


class PriceReader:
    """Reads the prices of one source.

    Args:
        decimal: The sign before decimals in this source's texts, if its owner sets it.
        seen: What another reader of this source has learned (`seen`).
    """

    def __init__(self, decimal: DecimalSign | None = None, seen: Iterable[str] = ()) -> None:
        self._decimal = decimal
        self.seen = set(seen)
        """JSON-able texts: a sign before decimals, and whether it was in text or machine notation."""

    def learn(self, values: Iterable[Any], *, machine: bool = False) -> None:
        """Learn how this source writes its prices; call it before the first of them is read."""
        for value in values:
            if isinstance(value, str):
                self.seen |= {("machine" if machine else "text") + sign for sign in _decimal_signs(value)}

    def read(
        self,
        key: str,
        value: Any,
        currency: str | None,
        errors: RowErrors,
        *,
        machine: bool = False,
        minor_units: bool | int = False,
    ) -> Money:
        """`parse_price` of an item's price. One that cannot be read is reported, and the item stays without it; so is
        a currency that the price's sign contradicts."""
        if value in (None, ""):
            return Money()
        seen = [sign for sign in (".", ",") if ("machine" if machine else "text") + sign in self.seen]
        decimal = self._decimal or (seen[0] if len(seen) == 1 else None)
        try:
            money = _money(value, currency, machine, minor_units, decimal)
        except UnreadablePrice as exc:
            errors.add(key, exc.reason, dropped=False)
            return Money()
        if money.currency is None and (named := currency_code(currency)):
            reason = f"price {value!r:.60} has another sign than {named}: its currency is left out"
            errors.add(key, f"{reason}; write its code beside the amount", dropped=False)
        return money


def parse_price(
    value: Any,
    currency: str | None = None,
    *,
    machine: bool = False,
    minor_units: bool | int = False,
    decimal: str | None = None,
) -> tuple[float | None, str | None]:
    """Amount (in major units, never negative) and currency of a price; the lowest amount of a range.

    Args:
        value: A number, or text such as `19.99 USD`, `$1,299.00`, `1.299,00 €`, `CHF 1'299.-`.
        currency: The currency given elsewhere in the catalogue; one in the text itself takes precedence.
        machine: The text is a value of structured data, whose decimal sign is a point.
        minor_units: The amount counts cents, or the smallest unit of the currency; a number says how many decimals.
        decimal: The sign before decimals in this source, if it is known.

    Raises:
        UnreadablePrice: It is not a price, negative, not finite, or could be two different ones.
    """
    return _money(value, currency, machine, minor_units, decimal)[:2]


def _money(value: Any, currency: str | None, machine: bool, minor_units: bool | int, decimal: str | None) -> Money:
    named = currency_code(currency)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UnreadablePrice(f"price {value!r:.60} is neither a number nor a text")
    try:
        money = _parse_text(value, named, machine, decimal) if isinstance(value, str) else Money(float(value), named)
    except OverflowError:
        raise _no_amount(value) from None
    amount = money.amount or 0.0
    if minor_units is not False:
        places = MINOR_DIGITS.get(money.currency or "", 2) if minor_units is True else minor_units
        if places and not amount.is_integer():
            raise UnreadablePrice(f"price {value!r:.60} counts minor units, and is not a whole number")
        amount /= 10**places
    if not 0 <= amount < 1e15:
        raise _no_amount(value)
    return money._replace(amount=round(amount, 4))


def currency_code(text: str | None) -> str | None:
    """The ISO 4217 code that a text is or names; None if it does not name a single currency."""
    text = (text or "").strip()
    return text.upper() if text.upper() in MINOR_DIGITS else _SIGNS.get(text)


def currency_in(text: str) -> str | None:
    """The only currency that a price's text names."""
    codes = {currency_code(mark) for mark in _MARKS.findall(text)} - {None}
    return codes.pop() if len(codes) == 1 else None


def is_zero(text: str) -> bool:
    """Whether all digits of a price are 0: programs write such a sale price if there is no sale."""
    return set(re.findall(r"\d", text)) == {"0"}


def _no_amount(value: Any) -> UnreadablePrice:
    return UnreadablePrice(f"price {value!r:.60} is not an amount of money")


def _parse_text(value: str, named: str | None, machine: bool, decimal: str | None) -> Money:
    exact = _MACHINE.match(value.strip().upper())
    if exact and {exact[1], exact[3]} <= {None, *MINOR_DIGITS} and not (exact[1] and exact[3]):
        code, amount = exact[1] or exact[3] or named, float(exact[2])
        is_whole = MINOR_DIGITS.get(code or "") != 0 or amount.is_integer()
        if not _AMBIGUOUS.match(exact[2]) or (machine and decimal != "," and is_whole):
            return Money(amount, code)
    text = _outside(_plain(value))
    numbers = _numbers(text)
    ranges = [[number] for number in numbers[:1]]
    for low, high in pairwise(numbers):
        is_joined = _RANGE.match(high.before[len(low.before) + len(low.digits) :])
        ranges = [*ranges[:-1], [*ranges[-1], high]] if is_joined else [*ranges, [high]]
    ranges = [some for some in ranges if any(number.marks for number in some)] or ranges
    written = plain_text(value) if len(ranges) == 1 and len(ranges[0]) > 1 else ""
    others = [number for some in ranges for number in some]
    marks = [mark for number in others for mark in number.marks]
    if _are_several(marks):
        raise UnreadablePrice(f"price {value!r:.60} names several currencies")
    code = next((code for mark in marks if (code := _SIGNS.get(mark, _WORDS.get(mark)))), None)
    code = code or next((mark for mark in marks if mark in MINOR_DIGITS), None) or currency_in(text)
    code = code or (None if marks else currency_in(value)) or (named if _may_be(named, marks, others) else None)
    custom = "." if (code or "-") in _POINT else "," if (code or "-") in _COMMA else None
    custom = custom or next((_SHARED_SIGNS[mark] for mark in marks if mark in _SHARED_SIGNS), None)
    try:
        is_bare = exact is not None and not (exact[1] or exact[3])
        found = [_amount(number.digits, code, custom, decimal, is_bare=is_bare) for number in others]
    except ValueError as exc:
        raise UnreadablePrice(f"price {value!r:.60} {exc}") from None
    is_other = any(map(_is_number_of_pieces, numbers)) or any(map(_is_no_price, others))
    if not found or is_other or _AT_MOST.search(others[0].before):
        raise _no_amount(value)
    if len(set(found)) > 1 and not (written and found == sorted(found)):
        raise UnreadablePrice(f"price {value!r:.60} names several amounts")
    return Money(found[0], code, written or (plain_text(value) if _FROM.search(text) else ""))


def _plain(text: str) -> str:
    """The text with ASCII digits and one form of each sign, without HTML and marks of direction."""
    if len(text := _DOLLARS.sub(r"\1$", plain_text(text))) > TEXT_LENGTH_MAX:
        raise _no_amount(text)
    kept = (unicodedata.normalize("NFKC", c) if "\uff00" <= c <= "\uffef" else c for c in text)
    digits = (str(unicodedata.decimal(c)) if c.isdecimal() else c for c in "".join(kept))
    text = "".join(digits).translate({0x60C: ",", 0x2E41: ","})
    text = re.sub("[\u061c\u200b-\u200f\u2066-\u2069\ufeff]", "", text).strip()
    # `99,-` and `1'299.–` have no cents; `99:-` is Swedish for the same, and 19€99 French for 19,99 €.
    text = _DASH_FOR_ZERO.sub("0", _NO_DECIMALS.sub(r"\g<1>00", re.sub(r"(?<=\d):[-–]", "", text)))
    return re.sub(r"(\d)([€£])(\d\d)(?![\d.,€£])", r"\1.\3 \2", text)


def _outside(text: str) -> str:
    """The text without remarks in brackets next to an amount."""
    outside = re.sub(r"\([^()]*\)", " ", text)
    return outside if re.search(r"\d", outside) else text


def _numbers(text: str) -> list[_Number]:
    """The numbers of a text that may be amounts, without percentages."""
    found = [_Number(match[0], text[: match.start()], text[match.end() :]) for match in _NUMBER.finditer(text)]
    return [n for n in found if not n.after.lstrip().startswith("%") and not n.before.endswith("%")]


def _is_number_of_pieces(number: _Number) -> bool:
    return bool(_PIECES.match(number.after) or (not number.marks and _PIECES_UNMARKED.match(number.after)))


def _is_no_price(number: _Number) -> bool:
    before = re.sub(rf"\s*(?:{_MARK})?\s*\Z", "", number.before)
    is_negative = before[-1:] in ("-", "−", "–") and not re.sub(_MARKS, "", before[:-1]).strip()
    # Bookkeepers write `(5.00)` and `5.00-`.
    is_negative |= bool(before[-1:] == "(" and _CLOSED.match(number.after))
    is_negative |= bool(_decimal_sign(number.digits) and _MINUS_AFTER.match(number.after))
    beside = number.before[-1:] + number.after.lstrip(".,")[:1]
    is_raised = any(unicodedata.category(character) == "No" for character in beside)
    is_part = _JOINED_AFTER.match(number.after) or _JOINED_BEFORE.search(number.before)
    is_spread = number.digits.isdigit() and _SPREAD.match(number.after)
    are_thousands = _NOT_SO_MANY.match(number.after) or _THOUSANDS_OF.search(number.before)
    return bool(is_negative or is_raised or is_part or is_spread or are_thousands)


def _are_several(marks: Iterable[str]) -> bool:
    """Whether the marks of a price belong to more than one currency."""
    codes = {currency_code(mark) or _WORDS.get(mark) for mark in marks} - {None, *_ALSO_WORDS}
    signs = {character for mark in marks for character in mark if unicodedata.category(character) == "Sc"}
    return len(codes) > 1 or len(signs) > 1


def _may_be(code: str | None, marks: Iterable[str], numbers: Iterable[_Number]) -> bool:
    """Whether a price that names no currency may be in one that is named elsewhere: its signs are not of others."""
    beside = {sign for number in numbers for sign in (number.before.rstrip()[-1:], number.after.lstrip()[:1])}
    signs = {sign for sign in beside if sign and unicodedata.category(sign) == "Sc"} | {*marks}
    return all((code or "") in _SHARED_BY.get(sign, "") for sign in signs)


def _amount(digits: str, code: str | None, custom: str | None, decimal: str | None, *, is_bare: bool) -> float:
    """The amount of a number. Raises `ValueError`, whose text ends the sentence, if it has none or could be two."""
    signs, point = re.sub(r"\d", "", digits), _decimal_sign(digits)
    if point is None:
        point, places = decimal, MINOR_DIGITS.get(code or "")
        if places == 0 and (decimal is None or (decimal == signs and not digits.endswith("000"))):
            point = ""
        elif decimal is None and places == 3:
            point = signs if signs == custom else None
        elif decimal is None and custom != signs and not (is_bare and signs == "."):
            point = custom
        if point is None:
            whole, _, rest = digits.partition(signs)
            raise ValueError(f"may be {whole}.{rest} or {whole}{rest}: set the source's decimal to '.' or ','")
    whole, _, rest = digits.rpartition(point) if point and point in digits else (digits, "", "")
    if not _GROUPED.fullmatch(whole) or not (rest or "0").isdigit():
        raise ValueError("is not an amount of money")
    return float(f"{re.sub(r'[^0-9]', '', whole) or 0}.{rest or 0}")


def _decimal_sign(digits: str) -> str | None:
    """The sign before a number's decimals, as far as it shows that itself; empty if it has none, None if unknown."""
    signs = re.sub(r"\d", "", digits)
    last = "٫" if "٫" in signs else signs[-1:]
    if last in (".", ",") and signs.count(last) > 1:
        return "," if last == "." else "."
    if _AMBIGUOUS.match(digits):
        return None
    return last if last in (".", ",", "٫") else ""


def _decimal_signs(text: str) -> set[str]:
    """What the amounts of a text show about the sign before decimals."""
    if exact := _MACHINE.match(text.upper()):
        numbers = [_Number(exact[2], "", "")]
    else:
        numbers = _numbers(_outside(_plain(text))) if len(text) <= TEXT_LENGTH_MAX else []
    return {
        sign
        for number in [number for number in numbers if number.marks] or numbers
        if (sign := _decimal_sign(number.digits)) in (".", ",")
    }
