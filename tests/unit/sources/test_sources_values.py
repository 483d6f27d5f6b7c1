"""Prices, texts, dates and secrets as catalogues and owners write them."""

from __future__ import annotations

import pytest

from visor.errors import SettingsError
from visor.sources.parse.price import UnreadablePrice, currency_code, parse_price
from visor.sources.parse.text import country_code, iso_date, plain_text
from visor.sources.secrets import Secrets


@pytest.mark.parametrize(
    ("value", "amount", "currency"),
    [
        (5, 5, None),
        (0, 0, None),
        (19.99, 19.99, None),
        ("19.99 USD", 19.99, "USD"),
        ("USD19.99", 19.99, "USD"),
        ("19.99", 19.99, None),
        ("$1,299.00", 1299, None),
        ("US$ 12", 12, "USD"),
        ("1.299,00 €", 1299, "EUR"),
        ("1\u202f299,00\xa0€", 1299, "EUR"),
        ("EUR 5", 5, "EUR"),
        ("€5", 5, "EUR"),
        ("£5.50", 5.5, "GBP"),
        ("CHF 1'299.50", 1299.5, "CHF"),
        ("Rs. 1,29,900.00", 129900, None),
        ("₹1,29,900", 129900, "INR"),
        ("kr 99,-", 99, None),
        ("99,– €", 99, "EUR"),
        ("¥1,299", 1299, None),
        ("R$ 1.234,5", 1234.5, "BRL"),
        ("zł 12,50", 12.5, "PLN"),
        ("1,5", 1.5, None),
        ("1.299 EUR", 1299, "EUR"),
        ("0.125", 0.125, None),
        ("1299.000", 1299, None),
        ("KWD 1.250", 1.25, "KWD"),
        ("1e3", 1000, None),
        ("$.99", 0.99, None),
        ("10.00 - 20.00", 10, None),
    ],
)
def test_prices_are_read_as_people_write_them(value: object, amount: float, currency: str | None) -> None:
    assert parse_price(value) == (pytest.approx(amount), currency)


@pytest.mark.parametrize(
    "value",
    ["free", "", "call us", "-5", "-5.00 EUR", "− 5 €", -1, float("nan"), float("inf"), "1e400", True, [5], None],
)
def test_what_is_no_price_is_told(value: object) -> None:
    with pytest.raises(UnreadablePrice, match="price"):
        parse_price(value)


def test_the_text_knows_its_currency_better_than_the_catalogue() -> None:
    assert parse_price("5 USD", "EUR") == (5, "USD")
    assert parse_price("5", "€") == (5, "EUR")
    assert parse_price("$5", "cad") == (5, "CAD")


@pytest.mark.parametrize(("currency", "amount"), [("EUR", 12.99), ("JPY", 1299), ("KWD", 1.299), (None, 12.99)])
def test_minor_units_are_those_of_the_currency(currency: str | None, amount: float) -> None:
    assert parse_price(1299, currency, minor_units=True) == (pytest.approx(amount), currency)


def test_currency_codes() -> None:
    assert [currency_code(text) for text in ("eur", " USD ", "€", "$", "", None, "euro")] == [
        "EUR", "USD", "EUR", None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "date"),
    [
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"),
        ("2024-05-01T10:00:00+02:00", "2024-05-01T10:00:00+02:00"),
        ("2024-05-01 10:00", "2024-05-01T10:00:00"),
        ("Wed, 01 May 2024 10:00:00 GMT", "2024-05-01T10:00:00Z"),
        (1_714_557_600, "2024-05-01T10:00:00Z"),
        ("1714557600", "2024-05-01T10:00:00Z"),
        (1_714_557_600_000, "2024-05-01T10:00:00Z"),
        ("yesterday", None),
        ("", None),
        (None, None),
        (True, None),
        (1e300, None),
        ("2024-13-45", None),
    ],
)
def test_dates(value: object, date: str | None) -> None:
    assert iso_date(value) == date


def test_texts_lose_markup_and_length() -> None:
    assert plain_text("<p>Soft &amp; <b>warm</b><br>\n wool</p><script>x()</script>") == "Soft & warm wool"
    assert plain_text("a < b and c > d") == "a < b and c > d"
    assert plain_text("one two three four", 12) == "one two…"
    assert plain_text("x" * 50, 12) == "x" * 11 + "…"
    assert plain_text(None) == ""
    assert plain_text(12) == "12"
    assert (country_code("de"), country_code("Germany"), country_code("")) == ("DE", "Germany", None)


def test_secrets_are_filled_in_everywhere_and_hidden_however_they_are_spelled() -> None:
    secrets = Secrets({"KEY": "p@ss w/rd+é", "ENV": "eu"})
    assert secrets.expand({"a": ["x-${KEY}", 5], "b": {"c": "${ENV}"}}) == {"a": ["x-p@ss w/rd+é", 5], "b": {"c": "eu"}}
    for spelled in ("p@ss w/rd+é", "p%40ss+w%2Frd%2B%C3%A9", "p%40ss%20w/rd%2b%c3%a9"):
        assert secrets.hide(f"https://eu/?k={spelled}&n=1") == "https://eu/?k=${KEY}&n=1"
    assert secrets.reveal("https://eu/?k=${KEY}&n=1") == "https://eu/?k=p%40ss%20w%2Frd%2B%C3%A9&n=1"
    with pytest.raises(SettingsError, match=r"b\.c names the environment variable OTHER"):
        secrets.expand({"b": {"c": "${OTHER}"}})
