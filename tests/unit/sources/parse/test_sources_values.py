"""Texts, keys, dates and secrets as catalogues and owners write them."""

from __future__ import annotations

import pytest

from visor.errors import SettingsError
from visor.schema.attributes import number_of
from visor.sources.parse.text import country_code, iso_date, plain_text, scalar_text
from visor.sources.secrets import Secrets


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
        (20240501, "2024-05-01"),
        ("20240501", "2024-05-01"),
        (20241345, None),
        ("2024-05-01 10:00:00 UTC", "2024-05-01T10:00:00Z"),
        ("2024-05-01 10:00:00 +0200", "2024-05-01T10:00:00+02:00"),
        ("/Date(1714557600000)/", "2024-05-01T10:00:00Z"),
        ("/Date(1714557600000+0200)/", "2024-05-01T10:00:00Z"),
        ("0001-01-01T00:00:00Z", None),
        ("0000-00-00 00:00:00", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (True, None),
        (1e300, None),
        ("2024-13-45", None),
        ("1 Jan 99999999999999999999 00:00:00", None),
        ("Wed, 01 May 2024 10:00:00 +99999999999999", None),
        (10**400, None),
        (2024, None),
        (0, None),
        (-1, None),
        (45413, None),
        (20240501.0, "2024-05-01"),
        (20240501100000, "2024-05-01T10:00:00"),
        ("202405011000", "2024-05-01T10:00:00"),
        (-62135596800, None),
        (-1_000_000_000, "1938-04-24T22:13:20Z"),
        ("2024/5/1", "2024-05-01"),
        ("2024-5-1 10:00", "2024-05-01T10:00:00"),
        ("1.5.2024", "2024-05-01"),
        ("01.05.2024 10:00", "2024-05-01T10:00:00"),
        ("05/01/2024", None),
    ],
)
def test_dates(value: object, date: str | None) -> None:
    assert iso_date(value) == date


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12.5 kg", 12.5),
        ("1.234,50", 1234.5),
        ("1,250 g", 1250),
        ("0,750 kg", 0.75),
        ("-0,125", -0.125),
        ("٠,١٢٥", 0.125),
        ("½", None),
    ],
)
def test_numbers_of_attributes(text: str, number: float | None) -> None:
    assert number_of(text) == number


@pytest.mark.slow
def test_texts_lose_markup_and_length() -> None:
    assert plain_text("<p>Soft &amp; <b>warm</b><br>\n wool</p><script>x()</script>") == "Soft & warm wool"
    assert plain_text('Red <span class="x" style="display: none">SKU 17</span>shoe <i hidden>sale</i>') == "Red shoe"
    assert plain_text('<a title="hidden figures">Shown</a>') == "Shown"
    assert plain_text("a < b and c > d") == "a < b and c > d"
    assert plain_text("Red\x1b[31m\x07 sh\x9boe\x7f &#27;[2J") == "Red[31m shoe [2J", "no commands for a terminal"
    assert plain_text("one two three four", 12) == "one two…"
    assert plain_text("x" * 50, 12) == "x" * 11 + "…"
    # Found at once, however long the text is.
    assert len(plain_text("<!--" * 10**7 + "<script" * 10**6 + "<b hidden>" * 10**6)) <= 2000
    assert plain_text(None) == ""
    assert plain_text(12) == "12"
    assert (country_code("de"), country_code("Germany"), country_code("")) == ("DE", "Germany", None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (7.0, "7"),
        (" 7 ", "7"),
        (1.5, "1.5"),
        (1e21, "1" + "0" * 21),
        (1e-7, "0.0000001"),
        (9007199254740993, "9007199254740993"),
        (10**400, "1" + "0" * 400),
        (float("nan"), ""),
        (True, ""),
        ([7], ""),
    ],
)
def test_keys_have_all_their_digits_and_no_others(value: object, text: str) -> None:
    assert scalar_text(value) == text


def test_secrets_are_filled_in_everywhere_and_hidden_however_they_are_spelled() -> None:
    secrets = Secrets({"KEY": "p@ss w/rd+é", "ENV": "eu"})
    assert secrets.expand({"a": ["x-${KEY}", 5], "b": {"c": "${ENV}"}}) == {"a": ["x-p@ss w/rd+é", 5], "b": {"c": "eu"}}
    for spelled in ("p@ss w/rd+é", "p%40ss+w%2Frd%2B%C3%A9", "p%40ss%20w/rd%2b%c3%a9"):
        assert secrets.hide(f"https://eu/?k={spelled}&n=1") == "https://eu/?k=${KEY}&n=1"
    for spelled in (r"p@ss w\/rd+\u00e9", r"b'p@ss w/rd+\xc3\xa9'", r"p@ss w/rd+\xe9"):
        assert "ss w" not in secrets.hide(spelled)
    assert secrets.reveal("https://eu/?k=${KEY}&n=1") == "https://eu/?k=p%40ss%20w%2Frd%2B%C3%A9&n=1"
    with pytest.raises(SettingsError, match=r"b\.c names the environment variable OTHER"):
        secrets.expand({"b": {"c": "${OTHER}"}})


def test_a_line_end_behind_a_secret_is_none_of_it() -> None:
    secrets = Secrets({"KEY": "s3cr3t\r\n", "TWO": "first\nsecond"})
    assert secrets.expand("Bearer ${KEY} ${TWO}") == "Bearer s3cr3t first\nsecond"
    assert secrets.hide("key s3cr3t") == "key ${KEY}"
    assert secrets.hide(repr(b"x first\nsecond")) == "b'x ${TWO}'"
