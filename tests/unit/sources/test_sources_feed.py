"""Product feeds as shops really publish them: each format, its usual mistakes, and what a re-crawl costs."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.unit.sources.catalogue_server import Reply, Request, Server, context_for, serving

from visor.errors import SourceError, SourceUnavailable
from visor.schema.items import Item
from visor.sources.contract import Page, RowFailure, SourceContext
from visor.sources.feed import source as feed
from visor.sources.registry import open_source

GOOGLE = "http://base.google.com/ns/1.0"
RSS = """<?xml version="1.0"?>
<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0">
<channel>
<title>Ann's shop</title><link>https://shop.example</link><description>All of it</description>
<item>
  <g:id>A1</g:id>
  <title>Plain title</title>
  <g:title>Red shoe &amp; lace</g:title>
  <description><![CDATA[<p>Soft </item> leather</p>]]></description>
  <link>https://shop.example/a1</link>
  <g:image_link>https://shop.example/a1.jpg</g:image_link>
  <g:additional_image_link>https://shop.example/a1-2.jpg</g:additional_image_link>
  <g:additional_image_link>https://shop.example/a1-3.jpg</g:additional_image_link>
  <g:price>1,299.00 USD</g:price>
  <g:sale_price>999.00 USD</g:sale_price>
  <g:sale_price_effective_date>2026-05-01T00:00+00:00/2026-05-08T00:00+00:00</g:sale_price_effective_date>
  <g:availability>in stock</g:availability>
  <g:brand>Ann</g:brand>
  <g:product_type>Home &gt; Shoes</g:product_type>
  <g:google_product_category>187</g:google_product_category>
  <g:shipping><g:country>US</g:country><g:price>5 USD</g:price></g:shipping>
</item>
<!-- <item><g:id>gone</g:id></item> -->
<item>
  <g:id>A2</g:id><title>Blue</title><g:image_link>/a2.jpg</g:image_link><g:price>5.00 EUR</g:price>
  <g:availability>out_of_stock</g:availability>
</item>
</channel>
</rss>
"""

ATOM = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:goog="http://base.google.com/ns/1.0">
<title>Shop</title>
<entry>
<goog:id>T1</goog:id><title>Tent</title><summary>For two</summary>
<link href="https://shop.example/t1"/><link rel="self" href="https://shop.example/t1.xml"/>
<goog:image_link>https://shop.example/t1.jpg</goog:image_link><goog:price>80 GBP</goog:price>
<updated>2026-01-02T03:04:05Z</updated>
</entry>
</feed>
"""


def read(
    body: bytes | str, *, context: SourceContext | None = None, headers: dict[str, str] | None = None, **keys: Any
) -> list[Page]:
    data = body.encode() if isinstance(body, str) else body
    with serving(lambda request: Reply(data, headers=headers or {})) as server, context_for(server.host) as ours:
        config = {"kind": "feed", "url": f"{server.url}/feed", **keys}
        return list(open_source("f", config, context or ours).read(None))


def items_of(pages: list[Page]) -> list[Item]:
    return [item for page in pages for item in page.items]


def failures_of(pages: list[Page]) -> dict[str, str]:
    return {failure.key: failure.reason for page in pages for failure in page.failed}


TABLE = "id\ttitle\timage_link\tprice\n1\tOne\t/1.jpg\t1 EUR\n2\tTwo\t/2.jpg\t2 EUR\n"
LINES = '{"id": "1", "image_link": "/1.jpg"}\n{"id": "2", "image_link": "/2.jpg"}\n'


@pytest.mark.parametrize(
    ("body", "keys", "where"),
    [
        (TABLE + "3\tThree\t/3", ["1", "2"], "line 4"),
        (TABLE + "3", ["1", "2"], "line 4"),
        (TABLE.replace("\t", ",") + '3,"Thr', ["1", "2"], "line 4"),
        (TABLE.partition("2 EUR")[0][:-9], ["1"], "line 3"),
        (RSS.rpartition("</channel>")[0], ["A1", "A2"], "line 28"),
        (RSS.rpartition("<item>")[0], ["A1"], "line 23"),
        (ATOM.partition("</feed>")[0], ["T1"], "line 10"),
        (LINES[:-5], ["1"], "line 2"),
    ],
)
def test_a_feed_that_is_cut_off_hides_what_is_behind(body: str, keys: list[str], where: str) -> None:
    pages = read(body)
    assert [item.key for item in items_of(pages)] == keys
    assert [failure.key for page in pages for failure in page.failed if failure.unread] == [where]


@pytest.mark.parametrize(
    "body",
    [
        TABLE,
        TABLE.rstrip("\n"),
        TABLE + "3\tThree\t/3.jpg\n",
        TABLE.replace("\t1 EUR", "") + "3\tThree\t/3.jpg",
        "<!-- <x> -->" + RSS.partition("?>")[2] + "<!-- made in 3 s -->",
        "<br />\n<b>Notice</b>: x in <b>/x.php</b><br />\n" + RSS.partition("?>")[2],
        LINES.rstrip("\n"),
    ],
)
def test_a_feed_with_an_end_of_its_own_is_whole(body: str) -> None:
    pages = read(body)
    assert not failures_of(pages)
    assert len(items_of(pages)) >= 2


def test_packed_and_whole_documents_that_are_cut_off_fail() -> None:
    for body in (gzip.compress(TABLE.encode())[:-9], b'[{"id": "1", "image_link": "/1.jpg"}, {"id"'):
        with pytest.raises(SourceError):
            read(body)


def context_at(moment: str, host: str) -> Any:
    from dataclasses import replace

    class At:
        def __enter__(self) -> SourceContext:
            self.inner = context_for(host)
            seconds = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
            return replace(self.inner.__enter__(), clock=lambda: seconds)

        def __exit__(self, *exc: object) -> None:
            self.inner.__exit__(None, None, None)

    return At()


@pytest.mark.parametrize(
    ("moment", "price", "regular"), [("2026-05-04", 999, "1,299.00 USD"), ("2026-06-01", 1299, None)]
)
def test_rss_with_sale_and_several_pictures(moment: str, price: float, regular: str | None) -> None:
    with serving(lambda request: Reply(RSS.encode())) as server, context_at(moment, server.host) as context:
        items = items_of(list(open_source("f", {"kind": "feed", "url": f"{server.url}/feed"}, context).read(None)))
    a1, a2 = items
    assert (a1.key, a1.title, a1.description) == ("A1", "Red shoe & lace", "Soft leather")
    assert (a1.page_url, a1.image_url) == ("https://shop.example/a1", "https://shop.example/a1.jpg")
    assert (a1.price, a1.currency, a1.extra.get("regular_price")) == (price, "USD", regular)
    assert a1.collection == "Home > Shoes"
    assert (a1.extra["availability"], a1.extra["brand"]) == ("in stock", "Ann")
    assert (a2.image_url, a2.price, a2.currency, a2.page_url) == (f"{server.url}/a2.jpg", 5, "EUR", None)


@pytest.mark.parametrize(
    ("sale", "period", "price"),
    [
        ("8 EUR", "2020-01-01T00:00+0000/9999-12-31T23:59-0800", 8),
        ("8 EUR", "2999-01-01T00:00+0000/9999-12-31T23:59-0800", 10),
        ("8 EUR", "0001-01-01T00:00+0100/9999-12-31T23:59+0000", 8),
        ("8 EUR", "always", 8),
        ("0.00 EUR", "", 10),
        ("0", "", 10),
    ],
)
def test_a_sale_that_never_ends_and_one_that_is_none(sale: str, period: str, price: float) -> None:
    row = {"id": "1", "image_link": "/1.jpg", "price": "10 EUR", "sale_price": sale}
    body = json.dumps({**row, "sale_price_effective_date": period}).encode()
    (item,) = items_of(read(body, format="json_lines"))
    assert (item.price, item.extra.get("regular_price")) == (price, "10 EUR" if price == 8 else None)


@pytest.mark.parametrize(
    ("period", "price"),
    [
        ("2020-01-01 - 2020-02-01", 10),
        ("2020-01-01,2020-02-01", 10),
        ("1.1.2020 bis 1.2.2020", 10),
        ("01.01.2020/01.02.2020", 10),
        ("2020-01-01 to 2999-01-01", 8),
        ("2020-01-01/2026-05-08", 8),
        ("2020-01-01/2026-05-07", 10),
    ],
)
def test_the_periods_of_sales_as_they_are_written(period: str, price: float) -> None:
    body = f"id\timage_link\tprice\tsale_price\tsale_price_effective_date\n1\t/1.jpg\t10 EUR\t8 EUR\t{period}\n"
    with (
        serving(lambda request: Reply(body.encode())) as server,
        context_at("2026-05-08T12:00", server.host) as context,
    ):
        (page,) = source(server, context).read(None)
    assert ([item.price for item in page.items], page.failed) == ([price], ())


def test_a_sale_whose_period_cannot_be_read_may_be_over() -> None:
    period = "01/05/2020 - 02/05/2020"
    rows = f"id\timage_link\tprice\tsale_price\tsale_price_effective_date\n1\t/1.jpg\t10 EUR\t8 EUR\t{period}\n"
    (page,) = read(rows)
    (failed,) = page.failed
    assert (page.items[0].price, page.items[0].extra, failed.dropped) == (10, {}, False)
    assert period in failed.reason


def test_a_feed_is_read_again_once_one_of_its_sales_begins_or_ends() -> None:
    columns = "id\timage_link\tprice\tsale_price\tsale_price_effective_date"
    until = "2026-05-01T00:00Z/2026-05-08T12:00Z"
    rows = [f"{n}\t/{n}.jpg\t10 EUR\t{'8 EUR' if n == 3 else ''}\t{until}" for n in range(25)]
    shop = FeedServer("\n".join([columns, *rows]).encode())
    with serving(shop) as server, context_at("2026-05-08T11:00", server.host) as context:
        passes = [list(source(server, context).read(None))]
        passes += [list(source(server, context).read(passes[0][0].checkpoint))]
        passes += [list(source(server, context).read(passes[1][-1].next_pass)) for _ in range(2)]
        passes += [list(source(server, context).read(passes[-1][-1].next_pass))]
    assert [len(items_of(pages)) for pages in passes] == [25, 15, 25, 25, 0]
    with serving(shop) as server, context_at("2026-05-08T13:00", server.host) as context:
        after = list(source(server, context).read(passes[-1][-1].next_pass))
        assert [item.price for item in items_of(after)] == [10] * 25
        assert items_of(list(source(server, context).read(after[-1].next_pass))) == []


@pytest.mark.parametrize(
    ("columns", "values", "price", "regular"),
    [
        ("price\tsale_price", "9 EUR\tN/A", 9, None),
        ("price\tsale_price", "9 EUR\t5", 5, "9 EUR"),
        ("price\tsale_price", "\t5 EUR", 5, None),
        ("price\tsale_price", "9 EUR\t9.00", 9, None),
        ("price\tsale_price", "9 EUR\t12 EUR", 9, None),
        ("price\tsale_price", "0\t5 EUR", 5, None),
        ("price\tsale_price", "n/a\t5 EUR", 5, None),
        ("price\tsale_price\tsale_price_effective_date", "9 EUR\t5 EUR\t/2020-02-01T00:00Z", 9, None),
        ("price\tsale_price\tsale_price_effective_date", "9 EUR\t5 EUR\t2020-02-01T00:00Z/", 5, "9 EUR"),
    ],
)
def test_a_sale_that_cannot_be_read_or_has_one_end(
    columns: str, values: str, price: float, regular: str | None
) -> None:
    (item,) = items_of(read(f"id\timage_link\t{columns}\n1\t/1.jpg\t{values}\n"))
    assert (item.price, item.currency, item.extra.get("regular_price")) == (price, "EUR", regular)


@pytest.mark.parametrize(
    "body",
    [
        '[{"id": 1, "imageLink": "/1.jpg", "price": {"value": "9", "currency": "EUR"}, '
        '"salePrice": {"value": "5", "currency": "EUR"}}]',
        '[{"id": 1, "imageLink": "/1.jpg", "salePrice": {"amountMicros": "5000000", "currencyCode": "EUR"}}]',
        "<rss><item><id>1</id><image_link>/1.jpg</image_link><price><value>5</value><currency>EUR</currency></price>"
        "</item></rss>",
        '<rss><item><id>1</id><image_link>/1.jpg</image_link><price currency="EUR">5.00</price></item></rss>',
    ],
)
def test_a_currency_that_stands_beside_a_price(body: str) -> None:
    (item,) = items_of(read(body))
    assert (item.price, item.currency) == (5, "EUR")


@pytest.mark.parametrize("none", ["N/A", "null", "no_selection", "http://", "-", "#", "undefined"])
def test_what_stands_for_no_address_is_none(none: str) -> None:
    table = f"id\tlink\timage_link\tadditional_image_link\n1\t{none}\t{none}\t\n2\t{none}\t{none}\t/2.jpg\n"
    pages = read(table)
    (item,) = items_of(pages)
    assert (item.key, item.page_url, urlsplit(item.image_url).path) == ("2", None, "/2.jpg")
    assert [failure.reason for page in pages for failure in page.failed] == ["it has no image_link"]


def test_an_address_that_was_escaped_twice_is_what_was_meant() -> None:
    row = "<id>1</id><link><![CDATA[/p?a=1&amp;b=2]]></link><image_link>/1.jpg?w=9&amp;amp;h=9</image_link>"
    (item,) = items_of(read(f"<rss><item>{row}</item></rss>"))
    assert (urlsplit(item.page_url or "").query, urlsplit(item.image_url).query) == ("a=1&b=2", "w=9&h=9")


@pytest.mark.parametrize("sign", [",", ", ", ";", "|", " | ", " "])
def test_several_pictures_in_one_value(sign: str) -> None:
    row = '1\t"' + sign.join(f"https://s.example/{at}.jpg" for at in "ab") + '"\n'
    (first,) = items_of(read("id\timage_link\n" + row))
    assert first.image_url == "https://s.example/a.jpg"
    found = items_of(read(f"id\timage_link\tadditional_image_link\n1\t/1.jpg\t{row[2:]}", pictures="all"))
    assert [urlsplit(item.image_url).path for item in found] == ["/1.jpg", "/a.jpg", "/b.jpg"]


FAILURES = (
    "<br />\n<b>Fatal error</b>:  Allowed memory size of 134217728 bytes exhausted in <b>/var/www/feed.php</b>",
    "ERROR: canceling statement due to statement timeout",
    "SQLSTATE[HY000]: General error: 2006 MySQL server has gone away",
    "Traceback (most recent call last):",
    "<error>quota</error>",
)


@pytest.mark.parametrize("said", FAILURES)
def test_a_program_that_fails_behind_a_row_hides_what_would_follow(said: str) -> None:
    table = f"id\ttitle\timage_link\n1\tA\t/1.jpg\n{said}\n"
    item = "<item><id>1</id><title>Fatal error: the shirt</title><image_link>/1.jpg</image_link></item>"
    for body in (table, f"<rss><channel>{item}{said}</channel></rss>", f"<rss>{item}<!-- {said} -->{item}</rss>"):
        pages = read(body)
        assert {item.key for item in items_of(pages)} == {"1"}
        assert [failure.unread for page in pages for failure in page.failed if "program failed" in failure.reason]


def test_what_only_sounds_like_a_failure_is_none() -> None:
    head = "<title>Database Error Records</title>"
    row = "<item><id>1</id><description>Fatal error &amp; co</description><image_link>/1.jpg</image_link></item>"
    for body in (
        f"<b>Fatal error</b>: in x.php<rss><channel>{head}{row}</channel></rss>",
        "id\ttitle\timage_link\n1\tFatal error: the shirt\t/1.jpg\n",
    ):
        assert not [failure for page in read(body) for failure in page.failed]


def test_numbers_that_no_computer_holds_cost_their_value_only() -> None:
    rows = [{"id": "1", "price": 10**400}, {"id": "2", "price": {"amountMicros": "9" * 5000, "currencyCode": "EUR"}}]
    body = "\n".join(json.dumps({**row, "image_link": "/1.jpg", "date": 10**400}) for row in rows)
    pages = read(body.encode(), format="json_lines")
    assert [(item.key, item.price, item.date) for item in items_of(pages)] == [("1", None, None), ("2", None, None)]
    assert [failure.dropped for page in pages for failure in page.failed] == [False] * 4


def test_every_picture_can_be_an_item_of_its_own() -> None:
    assert [(item.key, item.image_url.rpartition("/")[2]) for item in items_of(read(RSS, pictures="all"))] == [
        ("A1", "a1.jpg"),
        ("A1#1", "a1-2.jpg"),
        ("A1#2", "a1-3.jpg"),
        ("A2", "a2.jpg"),
    ]


def test_any_of_the_pictures_of_a_row_may_be_missing_or_there_several_times() -> None:
    rows = [
        {"id": "1", "image_link": "", "additional_image_link": ["/1.jpg", "/2.jpg"]},
        {"id": "2", "image_link": ["/3.jpg", "/4.jpg"], "additional_image_link": "/5.jpg"},
        {"id": "3"},
    ]
    pages = read("\n".join(map(json.dumps, rows)), format="json_lines", pictures="all")
    found = [(item.key, item.image_url.rpartition("/")[2]) for item in items_of(pages)]
    assert found == [("1", "1.jpg"), ("1#1", "2.jpg"), ("2", "3.jpg"), ("2#1", "4.jpg"), ("2#2", "5.jpg")]
    assert failures_of(pages) == {"3": "it has no image_link"}


def test_a_row_whose_picture_has_another_name_says_which() -> None:
    body = "id;image_link;Bild-URL;note\n1;;https://shop.example/1.jpg?w=9;/x\n2;;;a.jpg is missing\n"
    reason = "it has no image_link, but a picture under 'bildurl': set attributes = { image_link = 'bildurl' }"
    assert failures_of(read(body)) == {"1": reason, "2": "it has no image_link"}
    assert [item.key for item in items_of(read(body, attributes={"image_link": "bildurl"}))] == ["1"]


def test_what_is_out_of_stock_can_be_left_out() -> None:
    pages = read(RSS, in_stock_only=True)
    assert [item.key for item in items_of(pages)] == ["A1"]
    assert (failures_of(pages), pages[0].passed_over) == ({}, {"out of stock": 1})
    for said in ("Out of stock", "sold out", "https://schema.org/OutOfStock", "SoldOut", "not in stock"):
        assert not items_of(read(f"id\timage_link\tavailability\n1\t/1.jpg\t{said}\n", in_stock_only=True))


def test_atom_with_a_prefix_of_its_own() -> None:
    (item,) = items_of(read(ATOM))
    assert (item.key, item.title, item.page_url) == ("T1", "Tent", "https://shop.example/t1")
    assert (item.price, item.currency, item.date) == (80, "GBP", "2026-01-02T03:04:05Z")


def test_broken_xml_costs_only_the_broken_rows() -> None:
    body = """<rss xmlns:g="http://base.google.com/ns/1.0"><channel>
<item><g:id>1</g:id><g:title>Salt & pepper &nbsp;&copy; AT&T</g:title><g:image_link>/1.jpg?a=1&b=2</g:image_link></item>
<item><g:id>2</g:id><g:title>Unclosed <b>bold</g:title><g:image_link>/2.jpg</g:image_link></item>
<item><g:id>3</g:id><g:title>a < b</g:title><g:image_link>/3.jpg</g:image_link></item>
<item><g:id>4</g:id><x:unknown>?</x:unknown><g:title>Bell\x07&#x1F;</g:title><g:image_link>/4.jpg</g:image_link></item>
<item><g:id>5</g:id><g:title>Never closed</g:title>
<item><g:id>6</g:id><g:title>Last</g:title><g:image_link>/6.jpg</g:image_link></item>
<item><g:id>7</g:id><g:title>Cut off"""
    pages = read(body)
    items = {item.key: item for item in items_of(pages)}
    assert set(items) == {"1", "4", "6"}
    assert items["1"].title == "Salt & pepper © AT&T"
    assert items["1"].image_url.endswith("/1.jpg?a=1&b=2")
    assert items["4"].title == "Bell\x07".strip("\x07")
    assert failures_of(pages) == {
        "line 3": "it is not well-formed XML: mismatched tag",
        "line 4": "it is not well-formed XML: not well-formed (invalid token)",
        "line 6": "<item> begins before the one above ended",
        "line 8": "the feed ends within it",
    }


def test_entities_of_a_document_type_are_not_expanded() -> None:
    bomb = """<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY x SYSTEM "file:///etc/passwd">]>
<rss xmlns:g="http://base.google.com/ns/1.0"><item><g:id>1</g:id><g:title>&b;&x;</g:title>
<g:image_link>/1.jpg</g:image_link></item></rss>"""
    (item,) = items_of(read(bomb))
    assert item.title == "&b;&x;"


@pytest.mark.parametrize(
    ("body", "headers", "title"),
    [
        (b'<?xml version="1.0" encoding="iso-8859-1"?>' + b"%s", {}, "Café"),
        (b'<?xml version="1.0" encoding="utf-8"?>%s', {}, "Café"),
        (b"%s", {"Content-Type": "text/xml; charset=iso-8859-1"}, "Café"),
        (b'<?xml version="1.0" encoding="utf-16"?>%s', {}, "Café"),
        (b'<?xml version="1.0" encoding="no-such"?>%s', {}, "Café"),
    ],
)
def test_wrong_and_missing_encodings_are_survived(body: bytes, headers: dict[str, str], title: str) -> None:
    """The bytes are Latin-1, whatever is said about them."""
    row = "<rss><item><id>1</id><title>Café</title><image_link>/1.jpg</image_link></item></rss>".encode("latin-1")
    (item,) = items_of(read(body % row, headers=headers))
    assert item.title == title


def test_utf_16_with_its_mark() -> None:
    (item,) = items_of(read("﻿id\timage_link\ttitle\n1\t/1.jpg\tCafé\n".encode("utf-16-le")))
    assert item.title == "Café"


TABLE = (
    "\ufeffID\tTitle\tg:Image Link\tPrice\tadditional image link\tlink\r\n"
    "1\tTelly 27\" wide\t/1.jpg\t5 USD\thttps://e.org/1,2.jpg,https://e.org/1b.jpg\t/p/1\r\n"
    "\r\n"
    "2\t\"Two\r\nlines, \"\"quoted\"\"\"\t/2.jpg\t6 USD\t\t\r\n"
    "3\tAnother 32\" one\t/3.jpg\t\t\t\r\n"
    "4\t\"never closed\t/4.jpg\t7 USD\t\t\r\n"
    "5\tToo\tmany\tcolumns\there\tand\tthere\r\n"
    "6\tFew\t/6.jpg\r\n"
    "\tNo id\t/7.jpg\t\t\t\r\n"
    "8\tNo picture\t\t5 USD\t\t\r\n"
    "9\tBad price\t/9.jpg\task\t\t\r\n"
)  # fmt: skip


def test_tables_with_quotes_gaps_and_wrong_columns() -> None:
    pages = read(TABLE)
    assert [(item.key, item.title, item.price) for item in items_of(pages)] == [
        ("1", 'Telly 27" wide', 5),
        ("2", 'Two lines, "quoted"', 6),
        ("3", 'Another 32" one', None),
        ("6", "Few", None),
        ("9", "Bad price", None),
    ]
    assert failures_of(pages) == {
        "line 7": "a quote is not closed",
        "line 8": "it has 7 columns, the first line names 6",
        "line 10": "it has no id",
        "8": "it has no image_link",
        "9": "price 'ask' is not an amount of money",
    }
    assert [item.image_url for item in items_of(read(TABLE, pictures="all"))][1:3] == [
        "https://e.org/1,2.jpg",
        "https://e.org/1b.jpg",
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    text = "id,title,image_link\n1,One,/1.jpg\n".replace(",", delimiter)
    assert [item.title for item in items_of(read(text))] == ["One"]


def test_columns_of_another_language_are_named_by_configuration() -> None:
    text = "Artikel;Bild;Bezeichnung;Preis\n1;/1.jpg;Schuh;12,50 €\n"
    attributes = {"id": "artikel", "image_link": "bild", "title": "bezeichnung", "price": "preis"}
    (item,) = items_of(read(text, attributes=attributes))
    assert (item.title, item.price, item.currency) == ("Schuh", 12.5, "EUR")


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        ("Artikel-Nr.;Bild-URL\n1;/1.jpg\n", {"id": "Artikel-Nr.", "image_link": "Bild-URL"}),
        ("<rss><item><SKU>1</SKU><ImageURL>/1.jpg</ImageURL></item></rss>", {"id": "SKU", "image_link": "ImageURL"}),
        ('{"productId": 1, "imageUrl": "/1.jpg", "id": "x"}\n', {"id": "productId", "image_link": "imageUrl"}),
        ('[{"id": 1, "imageLink": "/1.jpg"}]', {}),
        ('[{"g:id": 1.0, "g:image_link": "/1.jpg"}]', {}),
        ("<atom:feed xmlns:atom='http://www.w3.org/2005/Atom'><atom:entry><atom:id>1</atom:id>"
         "<atom:image_link>/1.jpg</atom:image_link></atom:entry></atom:feed>", {}),
        ('<ns0:rss xmlns:ns0="" xmlns:ns1="http://base.google.com/ns/1.0"><ns0:channel><ns0:item><ns1:id>1</ns1:id>'
         "<ns1:image_link>/1.jpg</ns1:image_link></ns0:item></ns0:channel></ns0:rss>", {}),
        ("sep=;\nid;image_link;title\n1;/1.jpg;a,b,c,d\n", {}),
        ('"sep=|"\nid|image_link\n1|/1.jpg\n', {}),
        ("# made on 2026-11-27\nid,image_link\n1,/1.jpg\n", {}),
        ('id, title, image_link\n1, "a, b", /1.jpg\n', {}),
        ("id,image_link\n1,\\1.jpg\n", {}),
    ],
)  # fmt: skip
def test_names_are_those_of_the_file(body: str, attributes: dict[str, str]) -> None:
    assert [(item.key, item.image_url[-6:]) for item in items_of(read(body, attributes=attributes))] == [
        ("1", "/1.jpg")
    ]


def test_empty_rows_of_spreadsheets_are_none_and_hide_nothing() -> None:
    pages = read('id,title,image_link\n1,a,/1.jpg\n,,\n,\t,\n"",,\n\x1a')
    assert [item.key for item in items_of(pages)] == ["1"]
    assert not failures_of(pages)


def test_tables_that_were_joined_have_their_first_line_again() -> None:
    one = 'id,"Title",image_link\n{0},A,/{0}.jpg\n'
    pages = read(one.format(1) + one.format(2).replace("Title", "title"))
    assert [item.key for item in items_of(pages)] == ["1", "2"]
    assert not [failure for page in pages for failure in page.failed]


def test_a_value_may_be_as_long_as_a_row() -> None:
    long = "x" * 500_000
    assert [item.key for item in items_of(read(f'id,description,image_link\n1,"{long}",/1.jpg\n'))] == ["1"]


def test_formulas_that_keep_texts_from_being_numbers_are_these_texts() -> None:
    (item,) = items_of(read('id,title,image_link\n"=""007""","Chair ""Klassik""",="/1.jpg"\n'))
    assert (item.key, item.title, urlsplit(item.image_url).path) == ("007", 'Chair "Klassik"', "/1.jpg")


def test_quotes_may_be_escaped_by_backslashes() -> None:
    assert [i.title for i in items_of(read('id,title,image_link\n1,"a \\"b\\", c",/1.jpg\n'))] == ['a "b", c']


def test_a_text_may_have_elements_of_html_within_it() -> None:
    row = "<g:id>1</g:id><title>A <b>red</b> shoe</title><description><p>Made</p> <p>well</p></description>"
    rest = "<g:image_link>/1.jpg</g:image_link><g:shipping><g:price>4 EUR</g:price></g:shipping>"
    (item,) = items_of(read(f"<rss><channel><item>{row}{rest}</item></channel></rss>"))
    assert (item.title, item.description, item.price) == ("A red shoe", "Made well", None)


def test_a_column_that_is_there_twice_has_all_its_values() -> None:
    head = "id,image_link,additional_image_link,additional_image_link\n"
    items = items_of(read(head + "1,/1.jpg,/1b.jpg,/1c.jpg\n2,/2.jpg,,/2c.jpg\n", pictures="all"))
    assert [item.key for item in items] == ["1", "1#1", "1#2", "2", "2#1"]


@pytest.mark.parametrize(
    ("mark", "bad"),
    [
        (",", '"Screen 27\\" wide"'),
        (",", '"Screen 27" wide"'),
        (",", '"Never closed'),
        ("\t", '"Classic'),
    ],
)
def test_quotes_cost_their_own_row_and_no_neighbour(mark: str, bad: str) -> None:
    rows = [["id", "title", "link", "image_link", "price"]]
    rows += [[str(n), bad if n in (2, 6) else f'"Thing {n}"', f"/p/{n}", f"/{n}.jpg", "10 EUR"] for n in range(1, 9)]
    pages = read("\n".join(mark.join(row) for row in rows))
    assert {item.key: item.title for item in items_of(pages)} == {str(n): f"Thing {n}" for n in (1, 3, 4, 5, 7, 8)}
    assert [(failure.key, failure.unread) for page in pages for failure in page.failed] == [
        ("line 3", True),
        ("line 7", True),
    ]


def test_a_row_of_several_lines_is_one_row_and_what_follows_a_broken_one_is_none() -> None:
    body = (
        "id,image_link,title,description,price\n"
        '1,/1.jpg,Good,"one, two\nthree, four, five\nsix ""seven""",5 EUR\n'
        '2,/2.jpg,Bad,"27" wide\nsecond line, of it",5 EUR\n'
        "3,/3.jpg,Next,x,5 EUR\n"
    )
    pages = read(body)
    assert [item.key for item in items_of(pages)] == ["1", "3"]
    assert set(failures_of(pages)) == {"line 5", "line 6"}


def test_prices_are_read_as_the_rest_of_the_feed_writes_them() -> None:
    def prices(*values: str) -> list[float | None]:
        rows = "".join(f"{n};/{n}.jpg;{value}\n" for n, value in enumerate(values))
        return [item.price for item in items_of(read("id;image_link;price\n" + rows))]

    assert prices("1.299", "12,50") == [1299, 12.5]
    assert prices("1.299", "12.50") == [1.299, 12.5]
    assert prices("1.299") == [None]
    assert [item.price for item in items_of(read('{"id": 1, "image_link": "/1.jpg", "price": 1.125}'))] == [1.125]
    assert [item.price for item in items_of(read("id;image_link;price\n1;/1.jpg;1.299\n", decimal=","))] == [1299]
    (item,) = items_of(read('[{"id": 1, "imageLink": "/1.jpg", "price": {"value": "19.990", "currency": "EUR"}}]'))
    assert (item.price, item.currency) == (19.99, "EUR")


def test_what_a_resumed_run_learned_about_prices_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE_SIZE", 1)
    body = b"id;image_link;price\n1;/1.jpg;12,50\n2;/2.jpg;1.299\n"
    with serving(lambda request: Reply(body)) as server, context_for(server.host) as context:
        source = open_source("f", {"kind": "feed", "url": f"{server.url}/feed"}, context)
        whole = list(source.read(None))
        resumed = list(source.read(whole[0].checkpoint))
    assert [item.price for item in items_of(whole)] == [12.5, 1299]
    assert items_of(resumed) == items_of(whole[1:])


MEDIA = "xmlns:media='http://search.yahoo.com/mrss/'"


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        ("<enclosure url='/a.jpg' type='image/jpeg' length='1'/>", "/a.jpg"),
        ("<enclosure url='/a.mp3' type='audio/mpeg'/><media:thumbnail url='/a.jpg'/>", "/a.jpg"),
        (
            "<media:group><media:content url='/a.jpg' medium='image'/><media:content url='/b.jpg'/></media:group>",
            "/a.jpg",
        ),
        ("<media:content url='/a.mp4' medium='video'><media:thumbnail url='/a.jpg'/></media:content>", "/a.jpg"),
        ("<link rel='enclosure' type='image/png' href='/a.jpg'/>", "/a.jpg"),
        ("<enclosure url='/b.jpg' type='image/jpeg'/><g:image_link>/a.jpg</g:image_link>", "/a.jpg"),
    ],
)
def test_pictures_as_blogs_and_photo_sites_write_them(picture: str, found: str) -> None:
    item_ = f"<item><guid>7</guid><title>Red</title>{picture}</item>"
    (item,) = items_of(read(f"<rss xmlns:g='{GOOGLE}' {MEDIA}><channel>{item_}</channel></rss>"))
    assert (item.key, item.title, urlsplit(item.image_url).path) == ("7", "Red", found)


PRODUCT = {
    "@type": "Product",
    "sku": "1",
    "name": "Red",
    "image": "/1.jpg",
    "offers": {"price": 9, "priceCurrency": "EUR"},
}


@pytest.mark.parametrize(
    "document",
    [
        {"@type": "ItemList", "itemListElement": [{"@type": "ListItem", "item": PRODUCT}]},
        {"@type": "DataFeed", "dataFeedElement": [PRODUCT]},
        {"@graph": [PRODUCT]},
        PRODUCT,
        {"schema:itemListElement": [{"@type": "schema:Product", **{f"schema:{k}": v for k, v in PRODUCT.items()}}]},
        [{"id": 1, "title": "Red", "imageLink": "/1.jpg", "price": {"amountMicros": "9000000", "currencyCode": "EUR"}}],
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_json_documents_on_one_line_and_on_many(document: Any, indent: int | None) -> None:
    (item,) = items_of(read(json.dumps(document, indent=indent)))
    assert (item.key, item.title, item.price, item.currency) == ("1", "Red", 9, "EUR")


def test_a_document_without_products_says_what_it_holds() -> None:
    with pytest.raises(SourceError, match=r"holds no product, but products, total(?s:.*)shop_api"):
        read('{\n"products": [{"id": 1}],\n"total": 1}')
    with pytest.raises(SourceError, match=r"holds no product, but version, items"):
        read('{"version": "https://jsonfeed.org/version/1.1", "items": [{"id": "1", "image": "/1.jpg"}]}')


def test_json_lines_and_their_mistakes() -> None:
    rows = [
        json.dumps({"id": 1, "title": "One", "image_link": "/1.jpg", "shipping": [{"country": "DE"}]}),
        "{broken",
        "[1]",
        "",
        json.dumps({"@type": "Product", "sku": "2", "name": "Two", "image": ["/2.jpg", {"contentUrl": "/2b.jpg"}]}),
    ]
    pages = read("\n".join(rows))
    assert [(item.key, item.title) for item in items_of(pages)] == [("1", "One"), ("2", "Two")]
    assert set(failures_of(pages)) == {"line 2", "line 3"}


def test_a_json_ld_document() -> None:
    document = {
        "@context": "https://schema.org",
        "@graph": [
            {"@type": "WebSite", "name": "Shop"},
            {
                "@type": ["Product", "Thing"],
                "@id": "https://shop.example/#7",
                "sku": 7,
                "name": "Chair",
                "image": {"@type": "ImageObject", "url": "https://shop.example/7.jpg"},
                "brand": {"@type": "Brand", "name": "Ann"},
                "offers": {
                    "@type": "AggregateOffer",
                    "lowPrice": "19.90",
                    "priceCurrency": "EUR",
                    "availability": "https://schema.org/InStock",
                    "url": "https://shop.example/7",
                },
                "category": "Furniture",
            },
        ],
    }
    (item,) = items_of(read(json.dumps(document, indent=1)))
    assert (item.key, item.title, item.price, item.currency) == ("7", "Chair", 19.9, "EUR")
    assert (item.page_url, item.collection) == ("https://shop.example/7", "Furniture")
    assert item.extra == {"availability": "InStock", "brand": "Ann"}


@pytest.mark.parametrize("body", [b"", b"\n\n", b"<html><body>Not here</body></html>", b"just some words", b"[{]"])
def test_what_is_no_feed_is_an_error(body: bytes) -> None:
    with pytest.raises(SourceError):
        read(body)


def test_an_empty_feed_is_an_empty_catalogue() -> None:
    (page,) = read("<rss><channel><title>Shop</title></channel></rss>")
    assert (page.items, page.failed, page.checkpoint) == ((), (), None)


def test_gzip_however_it_is_named() -> None:
    packed = gzip.compress(RSS.encode())
    assert len(items_of(read(packed))) == 2
    assert len(items_of(read(packed, headers={"Content-Encoding": "gzip"}))) == 2
    assert len(items_of(read(gzip.compress(RSS[:300].encode()) + gzip.compress(RSS[300:].encode())))) == 2
    with pytest.raises(SourceError, match="ends before its end"):
        read(packed[: len(packed) // 2])
    with pytest.raises(SourceError, match="larger than 1,000,000 bytes once unpacked"):
        read(gzip.compress(b"<rss>" + b" " * 2_000_000), bytes_max=1_000_000)


# Passes


def table(count: int) -> bytes:
    return b"id\timage_link\ttitle\n" + b"".join(b"%d\t/%d.jpg\tItem %d\n" % (at, at, at) for at in range(count))


class FeedServer:
    """A feed with an ETag, which answers 304 as servers do."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.break_after: int | None = None

    def __call__(self, request: Request) -> Reply:
        etag = f'"{len(self.body)}"'
        if request.headers.get("if-none-match") == etag:
            return Reply(status=304, headers={"ETag": etag})
        if self.break_after is not None:
            headers = {"ETag": etag, "Content-Length": str(len(self.body)), "Connection": "close"}
            return Reply(self.body[: self.break_after], headers=headers)
        return Reply(self.body, headers={"ETag": etag})


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE_SIZE", 10)


def source(server: Server, context: SourceContext) -> Any:
    return open_source("f", {"kind": "feed", "url": f"{server.url}/feed", "patience": {"attempts": 1}}, context)


def test_goes_on_from_every_checkpoint() -> None:
    with serving(FeedServer(table(45))) as server, context_for(server.host) as context:
        whole = list(source(server, context).read(None))
        assert [len(page.items) for page in whole] == [10, 10, 10, 10, 5]
        for at, page in enumerate(whole[:-1]):
            checkpoint = json.loads(json.dumps(page.checkpoint))
            assert list(source(server, context).read(checkpoint)) == whole[at + 1 :]


def test_an_unchanged_feed_costs_one_request_once_it_was_read_twice() -> None:
    """Twice, because only what two passes in a row have missed is gone."""
    with serving(FeedServer(table(25))) as server, context_for(server.host) as context:
        first = list(source(server, context).read(None))
        second = list(source(server, context).read(first[-1].next_pass))
        assert items_of(second) == items_of(first)
        assert not any(page.partial for page in second)
        (third,) = source(server, context).read(second[-1].next_pass)
        assert third == Page(partial=True, next_pass=second[-1].next_pass)
        assert len(server.requests) == 3


def test_a_feed_that_changed_in_the_middle_of_a_pass_calls_nothing_missing() -> None:
    shop = FeedServer(table(45))
    with serving(shop) as server, context_for(server.host) as context:
        first = next(source(server, context).read(None))
        shop.body = table(44)
        rest = list(source(server, context).read(first.checkpoint))
    assert sum(len(page.items) for page in rest) == 34
    assert all(page.partial for page in rest)
    assert rest[-1].next_pass is None, "the next pass reads all of it"


def test_a_connection_that_breaks_goes_on_from_the_checkpoint() -> None:
    shop = FeedServer(table(45))
    shop.break_after = len(table(33))
    with serving(shop) as server, context_for(server.host) as context:
        pages: list[Page] = []
        with pytest.raises(SourceUnavailable, match="goes on from the checkpoint"):
            pages.extend(source(server, context).read(None))
        shop.break_after = None
        pages += list(source(server, context).read(pages[-1].checkpoint))
    assert [item.key for item in items_of(pages)] == [str(at) for at in range(45)]
    assert not any(page.partial for page in pages)


def test_more_failures_than_the_sample_are_counted() -> None:
    feed.PAGE_SIZE = 1000
    (page,) = read("id\timage_link\n" + "x\t\n" * 500)
    assert (len(page.failed), page.failed_more) == (100, 400)
    assert page.failed[0] == RowFailure(key="x", reason="it has no image_link")


@pytest.mark.parametrize(
    "wrapped",
    [
        RSS.encode().join([b"\xef\xbb\xbf\xef\xbb\xbf", b""]),
        b"\nNotice: Undefined index: x in /var/www/feed.php on line 3\n" + RSS.encode(),
        gzip.compress(gzip.compress(RSS.encode())),
    ],
    ids=["two marks", "a warning", "packed twice"],
)
def test_what_servers_put_around_a_feed(wrapped: bytes) -> None:
    assert [item.key for item in items_of(read(wrapped))] == ["A1", "A2"]


def test_what_is_in_a_packed_file_is_named() -> None:
    with pytest.raises(SourceError, match="a ZIP archive"):
        read(gzip.compress(b"PK\x03\x04" + bytes(100)))


def test_notes_of_details_do_not_crowd_out_the_rows_that_failed() -> None:
    feed.PAGE_SIZE = 1000
    rows = [f"{n}\t/{n}.jpg\t05/01/2026\tsoon" for n in range(200)] + ["x\t\t\t"]
    (page,) = read("\n".join(["id\timage_link\tdate\tprice", *rows]))
    assert (len(page.items), page.failed_more) == (200, 0)
    assert [failure.key for failure in page.failed if failure.dropped] == ["x"]
    said = {failure.reason for failure in page.failed if failure.key == "0"}
    assert said == {"price 'soon' is not an amount of money", "date '05/01/2026' is not a date such as 2026-05-01"}


@pytest.mark.parametrize("date", ["0000-00-00", "0001-01-01T00:00:00", "n/a", "-", "", 0])
def test_a_date_that_stands_for_none_is_no_mistake(date: Any) -> None:
    (page,) = read(json.dumps({"id": "1", "image_link": "/1.jpg", "date": date}), format="json_lines")
    assert (page.items[0].date, page.failed) == (None, ())


MEMORY = r"""
    import re, sys
    from tests.unit.sources.catalogue_server import context_for
    from visor.sources.registry import open_source
    with context_for(sys.argv[1]) as context:
        count = 0
        for page in open_source("f", {"kind": "feed", "url": f"http://{sys.argv[1]}/feed"}, context).read(None):
            count += len(page.items)
    # `ru_maxrss` would begin with what the process that started this one had.
    print(count, int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "xml"])
def test_memory_does_not_grow_with_the_feed(form: str) -> None:
    if form == "xml":
        row = "<item><g:id>{0}</g:id><title>Item {0}</title><g:image_link>/{0}.jpg</g:image_link></item>\n"
        head, tail = "<rss>", "</rss>"
    else:
        head, row, tail = "id\ttitle\timage_link\tprice\n", "{0}\tItem {0}\t/{0}.jpg\t5 USD\n", ""
    sizes = {}
    for count in (2_000, 30_000):
        body = (head + "".join(row.format(at) for at in range(count)) + tail).encode()
        with serving(lambda request, body=body: Reply(body)) as server:  # type: ignore[misc]
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(MEMORY), server.host],
                capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
            )  # fmt: skip
        read_count, sizes[count] = map(int, done.stdout.split())
        assert read_count == count
    assert sizes[30_000] < sizes[2_000] + 12, "megabytes"
