"""Money: numbers, machine notation and human text are read as what they are, or told as unreadable."""

from __future__ import annotations

from typing import Any

import pytest
from babel.numbers import format_currency

from visor.sources.contract import RowErrors
from visor.sources.parse.price import Money, PriceReader, UnreadablePrice, currency_code, parse_price


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
        ("19,99 € TTC", 19.99, "EUR"),
        ("MRP ₹1,299", 1299, "INR"),
        ("RRP £12.00", 12, "GBP"),
        ("UVP 24,95 EUR", 24.95, "EUR"),
        ("PVP 12,00 €", 12, "EUR"),
        ("NOW £9.99", 9.99, "GBP"),
        ("ALL FOR £5.00", 5, "GBP"),
        ("SFr. 49.90", 49.9, None),
        ("$5 CAD", 5, "CAD"),
        ("19,99 euros", 19.99, "EUR"),
        ("Rs.1299", 1299, None),
        ("Rs. 500/-", 500, None),
        ("1’299.– CHF", 1299, "CHF"),
        ("1,299.– CHF", 1299, "CHF"),
        ("1.299,- €", 1299, "EUR"),
        ("2 999:-", 2999, None),
        ("0,018 €", 0.018, "EUR"),
        ("',89 €'", 0.89, "EUR"),
        ("19€99", 19.99, "EUR"),
        ("12,500 TND", 12.5, "TND"),
        ("1,234,567.890 KWD", 1234567.89, "KWD"),
        ("د.ك 12.500", 12.5, "KWD"),
        ("12.990 CLP", 12990, "CLP"),
        ("Rp 150.000", 150000, "IDR"),
        ("1.000.000 ₫", 1000000, "VND"),
        ("49.900 COP", 49900, "COP"),
        ("1.299 €", 1299, "EUR"),
        ("$1,299", 1299, None),
        ("1 299,00 kr", 1299, None),
        ("12\u2009345,50 Kč", 12345.5, "CZK"),
        ("١٬٢٩٩٫٥٠ د.إ", 1299.5, "AED"),
        ("१,२९,९००", 129900, None),
        ("１２，８００円", 12800, "JPY"),
        ("2 options from $439.34", 439.34, None),
        ("2 pairs from $349", 349, None),
        ("$1,299-$1,599", 1299, None),
        ("19,99 € inkl. 19 % MwSt.", 19.99, "EUR"),
        ("19,99 € / 100 g", 19.99, "EUR"),
        ("$10 ($0.50/oz)", 10, None),
        ("Sale – 15 €", 15, "EUR"),
        ("9,99 €¹", 9.99, "EUR"),
        ("12.50 p.P.", 12.5, None),
        ("12.99 XYZ", 12.99, None),
        ("US $25.00", 25, "USD"),
        ("12.99 usd", 12.99, "USD"),
        ("Fr. 1'299.00", 1299, None),
        ("R 1 299.00", 1299, "ZAR"),
        ("129,90 lei", 129.9, "RON"),
        ("KSh 1,299", 1299, "KES"),
        ("1.299.000đ", 1_299_000, "VND"),
        ("$12.99 (approx. €11.50)", 12.99, None),
        ("12.99 (EUR)", 12.99, "EUR"),
        ("12.99 bis 24.99 EUR", 12.99, "EUR"),
        ("1&nbsp;299,00&nbsp;&euro;", 1299, "EUR"),
        ('<span class="amount"><bdi>12,99&#8364;</bdi></span>', 12.99, "EUR"),
        ("￥1,980（税込）", 1980, None),
        ("–,95 €", 0.95, "EUR"),
        ("-,95 €", 0.95, "EUR"),
        ("CHF –.95", 0.95, "CHF"),
        ("od 199 do 299 Kč", 199, "CZK"),
        ("199,- až 299,- Kč", 199, "CZK"),
    ],
)
def test_prices_are_read_as_people_write_them(value: object, amount: float, currency: str | None) -> None:
    assert parse_price(value) == (pytest.approx(amount), currency)


@pytest.mark.parametrize(
    "value",
    [
        "free",
        "",
        "call us",
        "was $20 now $15",
        "19⁹⁹ €",
        "19 € 99",
        "€19 99",
        "1'50 €",
        "1.2.3",
        "12.05.2026",
        "99¢",
        "99p",
        "(5.00)",
        "($5.00)",
        "(5.00) USD",
        "5.00-",
        "5,00 - €",
        "$1.2M",
        "2 Mio. €",
        "10x de R$ 49,90",
        "3 for $10",
        "up to $50",
        "bis 50 €",
        "€-5",
        "1·299 €",
        "-.95",
        "12,⁹⁹ €",
        "1万2800円",
        "12.8만원",
        "1만 2,800원",
        "12 Tsd. €",
        "TEUR 12",
        "k€ 12",
        "₹1.5L",
        "Rp 150rb",
        "12 tys. zł",
        "under $20",
        "unter 20 €",
        "less than £20",
        "moins de 20 €",
        "menos de 20 €",
        "až 299 Kč",
        "4 payments of $9.99",
        "or 4 interest-free installments of $9.99",
        "Pay in 4 of $9.99",
        "24 Raten à 19,99 €",
        "6 mois x 19,99 €",
        "12 cuotas sin interés de $ 1.299,00",
        "in 3 rate da 13,33 €",
        "19,99 € x 24",
        "2-for-$5",
        "2 voor €5",
        "2 per 5 €",
        "2 za 199 Kč",
        "3 para 10 €",
        "9" * 300,
        "-5",
        "-5.00 EUR",
        "− 5 €",
        -1,
        float("nan"),
        float("inf"),
        "1e400",
        10**400,
        -(10**400),
        True,
        [5],
        None,
    ],
)
def test_what_is_no_price_is_told(value: object) -> None:
    with pytest.raises(UnreadablePrice, match="price"):
        parse_price(value)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        ("between 10 and 20 €", 10),
        ("5 oder 6 €", 5),
        ("5 € ou 6 €", 5),
        ("5 y 6 €", 5),
        ("From 10 To 20 EUR", 10),
        ("10, 20 and 30 €", None),
        ("10 and 20 and 30 €", 10),
        ("6 or 5 €", None),
        ("10–20 € 30–40 €", None),
        ("500, 600 or 700 €", None),
        ("5 / 6 €", None),
        ("10-12 Tage 59 €", 59),
        ("5 , 99 €", None),
        ("€ 5 . 99", None),
        ("€ 5.99. 30 days", 5.99),
        ("1..5 €", None),
        ("1e5 €", None),
        ("€1e+5", None),
        ("50 p", None),
        ("50 p.", None),
        ("50 pence", None),
        ("99 öre", None),
        ("12.50 € p. P.", 12.5),
        ("5 EUR USD", None),
        ("EUR USD 5", None),
        ("EUR 5 USD", None),
        ("5 EUR/USD", None),
        ("$10-€20", None),
        ("$5 CAD", 5),
        ("￥1,980円", 1980),
        ("£5 ALL IN", 5),
        ("EUR 5 EUR", 5),
    ],
)
def test_of_several_numbers_and_currencies_one_is_read_with_certainty_or_none(value: str, amount: float | None) -> None:
    prices, errors = PriceReader(), RowErrors()
    assert prices.read("k", value, None, errors).amount == amount
    assert len(errors.sample) == (amount is None)


def test_the_text_knows_its_currency_better_than_the_catalogue() -> None:
    assert parse_price("5 USD", "EUR") == (5, "USD")
    assert parse_price("5", "€") == (5, "EUR")
    assert parse_price("$5", "cad") == (5, "CAD")


@pytest.mark.parametrize(
    ("value", "named", "currency"),
    [
        ("$5", "EUR", None),
        ("from $5", "EUR", None),
        ("kr 5", "USD", None),
        ("¥500", "CNY", "CNY"),
        ("¥500", "EUR", None),
        ("Rs. 5", "PKR", "PKR"),
        ("Rs. 5", "GBP", None),
        ("﷼ 129", "SAR", "SAR"),
        ("﷼ 129", "USD", None),
        ("₿ 0.5", "USD", None),
        ("৳ 129", "USD", "BDT"),
        ("GH₵ 120", "USD", "GHS"),
        ("RD$1,299.00", "USD", "DOP"),
        ("AR$ 1.290,00", "USD", "ARS"),
        ("U$S 129", "ARS", "USD"),
        ("$5 per piece", "MXN", "MXN"),
    ],
)
def test_a_sign_is_not_of_a_currency_that_others_have(value: str, named: str, currency: str | None) -> None:
    assert parse_price(value, named)[1] == currency
    errors = RowErrors()
    assert PriceReader().read("k", value, named, errors).currency == currency
    said = (
        [f"price {value!r} has another sign than {named}: its currency is left out; write its code beside the amount"]
        if currency is None
        else []
    )
    assert [failure.reason for failure in errors.sample] == said


@pytest.mark.parametrize(("currency", "amount"), [("EUR", 12.99), ("JPY", 1299), ("KWD", 1.299), (None, 12.99)])
def test_minor_units_are_those_of_the_currency(currency: str | None, amount: float) -> None:
    assert parse_price(1299, currency, minor_units=True) == (pytest.approx(amount), currency)


def test_a_count_of_minor_units_is_whole() -> None:
    for value in ("12.99", 12.99, "$12.99"):
        with pytest.raises(UnreadablePrice, match="not a whole number"):
            parse_price(value, "EUR", minor_units=True)
    assert parse_price("12.99", "EUR", minor_units=0) == (12.99, "EUR")


def test_currency_codes() -> None:
    assert [currency_code(text) for text in ("eur", " USD ", "€", "$", "", None, "euro")] == [
        "EUR", "USD", "EUR", None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "currency"),
    [("1.125 USD", None), ("€1,299", None), ("1.299", None), ("1,299", None), ("5.000", "EUR"), ("12,500 KWD", None)],
)
def test_what_may_be_two_prices_is_neither(value: str, currency: str | None) -> None:
    with pytest.raises(UnreadablePrice, match=r"may be .* or .*decimal"):
        parse_price(value, currency)


@pytest.mark.parametrize(
    ("value", "currency", "amount"),
    [
        (1.125, None, 1.125),
        ("140.000", "EUR", 140),
        ("19.990 EUR", None, 19.99),
        ("3.350", "GBP", 3.35),
        ("49.900", "COP", 49.9),
        ("49.900", "CLP", 49900),
        ("12.000", "JPY", 12),
        ("1.299,00", "EUR", 1299),
        ("1,299", "USD", 1299),
        ("1e3", None, 1000),
    ],
)
def test_structured_data_has_a_decimal_point(value: Any, currency: str | None, amount: float) -> None:
    assert parse_price(value, currency, machine=True)[0] == amount


@pytest.mark.parametrize(("currency", "amount"), [("KWD", 5), ("USD", None)])
def test_a_currency_in_a_column_of_its_own_says_how_many_decimals_there_are(currency: str, amount: Any) -> None:
    assert PriceReader().read("k", "5.000", currency, RowErrors()).amount == amount


@pytest.mark.parametrize(
    ("others", "machine", "value", "amount"),
    [
        (["12,50 €", "899 €"], False, "1.299", 1299),
        (["12.50", "899"], False, "1.299", 1.299),
        (["0,018 €", "1,5 €"], False, "1,299 €", 1.299),
        (["12.50", "12,50"], False, "1.299", None),
        (["1.290.000", "129.900"], True, "49.900", 49900),
        (["19.99", "129.900"], True, "49.900", 49.9),
        (["1.290.000"], False, 1.125, 1.125),
    ],
)
def test_other_prices_of_the_source_decide(others: list[str], machine: bool, value: Any, amount: Any) -> None:
    prices, errors = PriceReader(), RowErrors()
    prices.learn(others, machine=machine)
    assert prices.read("k", value, "COP" if machine else None, errors, machine=machine).amount == amount
    assert len(errors.sample) == (amount is None)
    assert PriceReader(seen=sorted(prices.seen)).read("k", value, None, errors, machine=machine).amount == amount


def test_the_setting_decides() -> None:
    def read(decimal: Any, value: Any, **keys: Any) -> Money:
        return PriceReader(decimal).read("k", value, None, RowErrors(), **keys)

    assert [read(sign, "1.299").amount for sign in (".", ",", None)] == [1.299, 1299, None]
    assert [read(sign, "49.900 COP", machine=True).amount for sign in (".", ",", None)] == [49.9, 49900, 49.9]
    assert read(",", "19.99").amount == 19.99, "no thousands have two digits"


def test_the_lowest_of_several_prices_is_told_as_such() -> None:
    def written(value: str) -> str:
        return PriceReader().read("k", value, None, RowErrors()).written

    for value in ("from $5", "ab 19,99 €", "10–20 €", "à partir de 12,50 €", "2 options from $439.34"):
        assert written(value) == value
    for value in (
        "as low as $19.99",
        "$19+",
        "$20 and up",
        "fr.o.m. 199 kr",
        "1 299 Ft-tól",
        "¥1,280～",
        "최저 12,800원",
    ):
        assert written(value) == value
    assert written("19,99 €") == ""


LOCALES = ("de", "de_CH", "de_AT", "en_US", "en_IN", "en_IE", "fr_FR", "fr_CA", "es_ES", "es_CO", "es_CL", "pt_BR",
           "sv_SE", "nb_NO", "pl_PL", "cs_CZ", "hu_HU", "ru_RU", "tr_TR", "ar_EG", "ar_TN", "fa_IR", "hi_IN", "ja_JP",
           "id_ID", "vi_VN", "et_EE", "bg_BG", "ko_KR", "nl_NL")  # fmt: skip
CURRENCIES = ("EUR", "USD", "CHF", "INR", "COP", "CLP", "KWD", "TND", "JPY", "SEK", "BRL", "VND", "CAD", "ZAR")
AMOUNTS = (0.99, 5, 19.9, 1299, 12990, 1299.5, 49900, 999999, 1234567.89)


@pytest.mark.parametrize("locale", LOCALES)
def test_no_price_of_any_country_is_wrong_by_a_factor(locale: str) -> None:
    """Formatted by the rules of CLDR, with and without decimals: read right to the unit, or unreadable."""
    read = 0
    for currency in CURRENCIES:
        for form in (None, "¤#,##0", "#,##0 ¤", "¤¤ #,##0.00"):
            if currency in ("KWD", "TND") and form in ("¤#,##0", "#,##0 ¤"):
                continue  # Thousandths are always written: 1.299 is one dinar and a bit.
            for amount in AMOUNTS:
                text = format_currency(amount, currency, form, locale, currency_digits=form is None)
                try:
                    found = parse_price(text)
                except UnreadablePrice:
                    continue
                read += 1
                assert found[0] == pytest.approx(amount, abs=0.6), text
                assert found[1] in (None, currency), text
    assert read > len(CURRENCIES) * 4 * len(AMOUNTS) / 2
