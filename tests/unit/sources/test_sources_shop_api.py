"""Two shops of different shape, both read by configuration alone, and what goes wrong with shops."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.sources.catalogue_server import Reply, Request, Server, context_for, serving

from visor.errors import SettingsError, SourceError, SourceUnavailable
from visor.schema.items import Item, item_id
from visor.sources.contract import Page, Source, SourceContext
from visor.sources.registry import open_source

MARKET = {
    "kind": "shop_api",
    "items": "results",
    "fields": {
        "key": "listing_id",
        "title": "title",
        "image_url": "images[0].url_fullxfull",
        "page_url": "url",
        "price": "price.amount",
        "currency": "price.currency_code",
        "country": "shop.country_iso",
        "date": "updated_timestamp",
        "extra": {"brand": "shop.name"},
    },
    "price_in_minor_units": True,
    "paging": {"style": "start", "param": "offset", "count_param": "limit", "count": 7, "total": "count"},
}
"""A marketplace: collections, offsets, cents, seconds since 1970."""

BOUTIQUE = {
    "kind": "shop_api",
    "items": "data[].attributes",
    "only": "visible",
    "fields": {
        "key": "sku",
        "title": "name.en",
        "description": "body_html",
        "image_url": "join('', ['/media/', picture, '.jpg'])",
        "page_url": "join('', ['../../p/', sku])",
        "price": "display_price",
        "collection": "category",
    },
    "defaults": {"country": "DE", "currency": "EUR", "licence": "shop's own"},
    "paging": {"style": "next", "next": "links.next", "count_param": None},
}
"""A boutique: one list, addresses of the next page, relative links, prices as people read them."""


def market(collections: dict[str, int], per_page_max: int = 100) -> Any:
    """The server of a marketplace with so many listings in each collection."""

    def answer(request: Request) -> Reply:
        if request.path == "/v3/sections":
            return Reply.json(
                {"sections": [{"section_id": int(id_), "title": f"Section {id_}"} for id_ in collections]}
            )
        id_ = request.path.split("/")[3]
        if id_ not in collections:
            return Reply.json({"error": "no such section"}, 404)
        offset, limit = int(request.query["offset"]), min(int(request.query["limit"]), per_page_max)
        listings = [listing(id_, at) for at in range(collections[id_])][offset : offset + limit]
        return Reply.json({"count": collections[id_], "results": listings})

    return answer


def listing(section: str, at: int) -> dict[str, Any]:
    return {
        "listing_id": int(section) * 1000 + at,
        "title": f"Thing &amp; thing {at}",
        "images": [{"url_fullxfull": f"https://i.example.com/{section}/{at}.jpg"}],
        "url": f"https://market.example.com/listing/{section}-{at}",
        "price": {"amount": 1999 + at, "currency_code": "USD"},
        "shop": {"country_iso": "us", "name": "Ann's"},
        "updated_timestamp": 1_700_000_000 + at,
    }


def boutique(count: int, per_page: int = 4) -> Any:
    def answer(request: Request) -> Reply:
        start = int(request.query.get("after", 0))
        rows = [
            {
                "attributes": {
                    "sku": f"B{at:03}",
                    "name": {"en": f"Dress {at}"},
                    "body_html": f"<p>Soft &lt; warm<br>no {at}</p>",
                    "picture": f"pic {at}",
                    "display_price": f"1.{at:03},50 €",
                    "category": "Dresses" if at % 2 else "Coats",
                    "visible": at % 5 != 0,
                }
            }
            for at in range(start, min(count, start + per_page))
        ]
        after = start + per_page
        return Reply.json({"data": rows, "links": {"next": f"/api/x/list?after={after}" if after < count else None}})

    return answer


def market_source(server: Server, context: SourceContext, **changed: Any) -> Source:
    sections = {"url": f"{server.url}/v3/sections", "items": "sections", "id": "section_id", "name": "title"}
    url = f"{server.url}/v3/sections/{{collection}}/listings"
    return open_source("market", {**MARKET, "url": url, "collections": sections, **changed}, context)


def boutique_source(server: Server, context: SourceContext, **changed: Any) -> Source:
    return open_source("boutique", {**BOUTIQUE, "url": f"{server.url}/api/x/list", **changed}, context)


def items_of(pages: list[Page]) -> list[Item]:
    return [item for page in pages for item in page.items]


def test_reads_a_marketplace_by_configuration() -> None:
    sections = {"31": 20, "4": 7, "52": 0, "6": 15}
    with serving(market(sections)) as server, context_for(server.host) as context:
        pages = list(market_source(server, context).read(None))
    items = items_of(pages)
    assert sorted(item.key for item in items) == sorted(
        str(listing(id_, at)["listing_id"]) for id_, count in sections.items() for at in range(count)
    )
    assert items[0] == Item(
        id=item_id("market", "31000"),
        source="market",
        key="31000",
        image_url="https://i.example.com/31/0.jpg",
        page_url="https://market.example.com/listing/31-0",
        title="Thing & thing 0",
        price=19.99,
        currency="USD",
        collection="Section 31",
        country="US",
        date="2023-11-14T22:13:20Z",
        extra={"brand": "Ann's"},
    )
    assert [page.checkpoint is None for page in pages] == [False] * (len(pages) - 1) + [True]


def test_a_total_saves_the_request_for_an_empty_page() -> None:
    with serving(market({"1": 14})) as server, context_for(server.host) as context:
        list(market_source(server, context).read(None))
        assert [request.query["offset"] for request in server.requests[1:]] == ["0", "7"]


def test_reads_a_boutique_of_another_shape_by_configuration() -> None:
    with serving(boutique(11)) as server, context_for(server.host) as context:
        items = items_of(list(boutique_source(server, context).read(None)))
    assert [item.key for item in items] == [f"B{at:03}" for at in range(11) if at % 5]
    assert items[0] == Item(
        id=item_id("boutique", "B001"),
        source="boutique",
        key="B001",
        image_url=f"{server.url}/media/pic%201.jpg",
        page_url=f"{server.url}/p/B001",
        title="Dress 1",
        description="Soft < warm no 1",
        price=1001.5,
        currency="EUR",
        collection="Dresses",
        country="DE",
        licence="shop's own",
    )


@pytest.mark.parametrize("shop", ["market", "boutique"])
def test_goes_on_from_every_checkpoint(shop: str) -> None:
    answer = market({"1": 20, "2": 3, "3": 14}) if shop == "market" else boutique(11)
    make = market_source if shop == "market" else boutique_source
    with serving(answer) as server, context_for(server.host) as context:
        whole = list(make(server, context).read(None))
        for at, page in enumerate(whole[:-1]):
            checkpoint = json.loads(json.dumps(page.checkpoint))
            assert list(make(server, context).read(checkpoint)) == whole[at + 1 :]


def test_reading_twice_is_the_same() -> None:
    with serving(market({"1": 20, "2": 3})) as server, context_for(server.host) as context:
        source = market_source(server, context)
        assert list(source.read(None)) == list(source.read(None))


def test_a_collection_that_disappears_while_waiting_is_passed_over() -> None:
    sections = {"1": 20, "2": 3, "3": 14}
    with serving(market(sections)) as server, context_for(server.host) as context:
        whole = list(market_source(server, context).read(None))
        del sections["1"]
        rest = list(market_source(server, context).read(whole[0].checkpoint))
    assert {item.collection for item in items_of(rest)} == {"Section 2", "Section 3"}


def test_a_collection_that_is_listed_but_gone_is_a_failure_of_its_own() -> None:
    def answer(request: Request) -> Reply:
        if request.path.startswith("/v3/sections/2"):
            return Reply(status=404)
        return market({"1": 3, "2": 3, "3": 3})(request)

    with serving(answer) as server, context_for(server.host) as context:
        pages = list(market_source(server, context).read(None))
    (failure,) = [failure for page in pages for failure in page.failed]
    assert failure.unread
    assert "collection '2' is not there" in failure.reason
    assert len(items_of(pages)) == 6


def test_page_numbers_start_at_one_and_end_with_an_empty_page() -> None:
    def answer(request: Request) -> Reply:
        page, size = int(request.query["page"]), int(request.query["per_page"])
        return Reply.json([{"id": at, "img": f"/i/{at}.png"} for at in range(25)][(page - 1) * size : page * size])

    config = {
        "kind": "shop_api",
        "fields": {"key": "id", "image_url": "img"},
        "paging": {"style": "page", "count_param": "per_page", "count": 10},
    }
    with serving(answer) as server, context_for(server.host) as context:
        pages = list(open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None))
        assert [request.query["page"] for request in server.requests] == ["1", "2", "3", "4"]
    assert [item.key for item in items_of(pages)] == [str(at) for at in range(25)]


class CursorShop:
    """Cursors that live for one life of the server's memory."""

    def __init__(self) -> None:
        self.alive = True

    def __call__(self, request: Request) -> Reply:
        cursor = request.query.get("cursor")
        if cursor and not self.alive:
            return Reply.json({"error": "cursor expired"}, 400)
        start = int(cursor[1:]) if cursor else 0
        rows = [{"id": at, "img": f"/i/{at}.png"} for at in range(start, min(start + 5, 17))]
        return Reply.json({"rows": rows, "cursor": f"c{start + 5}" if start + 5 < 17 else ""})


CURSOR = {
    "kind": "shop_api",
    "items": "rows",
    "fields": {"key": "id", "image_url": "img"},
    "paging": {"style": "cursor", "next": "cursor", "count_param": None},
}


def test_an_expired_cursor_reads_the_collection_from_its_start() -> None:
    shop = CursorShop()
    with serving(shop) as server, context_for(server.host) as context:
        source = open_source("s", {**CURSOR, "url": f"{server.url}/all"}, context)
        whole = list(source.read(None))
        assert len(items_of(whole)) == 17
        shop.alive = False
        reading = source.read(whole[1].checkpoint)
        assert next(reading) == whole[0]


def test_a_cursor_that_does_not_move_is_an_error_not_an_endless_loop() -> None:
    def answer(request: Request) -> Reply:
        return Reply.json({"rows": [{"id": 1, "img": "/1.png"}], "cursor": "same"})

    with serving(answer) as server, context_for(server.host) as context:
        source = open_source("s", {**CURSOR, "url": f"{server.url}/all"}, context)
        with pytest.raises(SourceError, match=r"(?s)first one again.*paging"):
            list(source.read(None))
        assert len(server.requests) == 2


def test_an_api_that_ignores_its_paging_parameters_is_an_error() -> None:
    rows = [{"id": at, "img": f"/{at}.png"} for at in range(10)]
    config = {"kind": "shop_api", "fields": {"key": "id", "image_url": "img"}, "paging": {"count": 10}}
    with serving(lambda request: Reply.json(rows)) as server, context_for(server.host) as context:
        with pytest.raises(SourceError, match="is its first one again"):
            list(open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None))
        config["paging"] = {"style": "none"}
        assert len(items_of(list(open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None)))) == 10


def test_an_api_that_repeats_its_last_page_ends() -> None:
    def answer(request: Request) -> Reply:
        start = min(int(request.query["start"]), 20)
        return Reply.json([{"id": at, "img": f"/{at}.png"} for at in range(start, start + 10)])

    config = {"kind": "shop_api", "fields": {"key": "id", "image_url": "img"}, "paging": {"count": 10}}
    with serving(answer) as server, context_for(server.host) as context:
        items = items_of(list(open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None)))
    assert [item.key for item in items] == [str(at) for at in range(30)]


def test_an_api_that_pages_for_ever_is_stopped() -> None:
    def answer(request: Request) -> Reply:
        start = int(request.query["start"])
        return Reply.json([{"id": at, "img": f"/{at}.png"} for at in range(start, start + 10)])

    config = {
        "kind": "shop_api",
        "fields": {"key": "id", "image_url": "img"},
        "paging": {"count": 10},
        "pages_max": 12,
    }
    with serving(answer) as server, context_for(server.host) as context:
        with pytest.raises(SourceError, match="more than 12 pages"):
            list(open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None))
        assert len(server.requests) == 12


def test_a_next_page_on_another_host_gets_no_request_and_no_key() -> None:
    with serving(lambda request: Reply.json({"rows": []})) as other:

        def answer(request: Request) -> Reply:
            return Reply.json({"rows": [{"id": 1, "img": "/1.png"}], "cursor": f"{other.url}/steal"})

        paging = {"style": "next", "next": "cursor"}
        with serving(answer) as server, context_for(server.host, other.host) as context:
            source = open_source("s", {**CURSOR, "paging": paging, "url": f"{server.url}/all"}, context)
            with pytest.raises(SourceError, match="on another host"):
                list(source.read(None))
        assert other.requests == []


def test_waits_as_asked_and_tries_again() -> None:
    replies = [Reply(status=503, headers={"Retry-After": "0"}), Reply(b"<html>Oops", headers={}), Reply(status=500)]
    slept: list[float] = []

    def answer(request: Request) -> Reply:
        return replies.pop(0) if replies else boutique(3)(request)

    with serving(answer) as server, context_for(server.host, slept=slept) as context:
        pages = list(boutique_source(server, context).read(None))
    assert len(items_of(pages)) == 2
    assert slept == [1, 2, 4]


def test_gives_up_after_its_attempts_and_keeps_what_it_has() -> None:
    slept: list[float] = []

    def answer(request: Request) -> Reply:
        return Reply(status=500) if request.query.get("after") == "8" else boutique(20)(request)

    with serving(answer) as server, context_for(server.host, slept=slept) as context:
        reading = boutique_source(server, context, patience={"attempts": 4, "delay_s": 1}).read(None)
        assert [len(next(reading).items), len(next(reading).items)] == [3, 3]
        with pytest.raises(SourceUnavailable, match=r"(?s)500.*4 attempts.*goes on from the checkpoint"):
            next(reading)
    assert slept == [1, 2, 4]


def test_a_long_retry_after_ends_the_run_at_once() -> None:
    slept: list[float] = []
    reply = Reply(status=429, headers={"Retry-After": "3000"})
    with serving(lambda request: reply) as server, context_for(server.host, slept=slept) as context:
        with pytest.raises(SourceUnavailable, match="asks to wait 3000 s"):
            list(boutique_source(server, context).read(None))
        assert len(server.requests) == 1
    assert slept == []


def test_rows_that_cannot_become_items_are_told_and_stop_nothing() -> None:
    rows: list[Any] = [
        {"id": "a", "img": "https://e.com/a.jpg", "p": "oh"},
        {"id": "", "img": "https://e.com/b.jpg"},
        {"id": "c"},
        {"id": "d", "img": "javascript:alert(1)"},
        {"id": "e", "img": ["https://e.com/e.jpg"]},
        "not an object",
        {"id": "f", "img": "https://[bad/f.jpg"},
        {"id": "g", "img": "https://e.com/g.jpg", "p": -4},
        {"id": "h", "img": "https://e.com/h.jpg", "p": 4, "n": {"x": 1}},
    ]
    fields = {"key": "id", "image_url": "img", "price": "p", "title": "length(n)"}
    with serving(lambda request: Reply.json(rows)) as server, context_for(server.host) as context:
        config = {"kind": "shop_api", "url": f"{server.url}/", "fields": fields, "paging": {"style": "none"}}
        (page,) = open_source("s", config, context).read(None)
    assert [item.key for item in page.items] == ["h"]
    assert [failure.dropped for failure in page.failed].count(True) == 8
    config["fields"] = {**fields, "title": "id"}
    with serving(lambda request: Reply.json(rows)) as server, context_for(server.host) as context:
        (page,) = open_source("s", {**config, "url": f"{server.url}/"}, context).read(None)
    assert [(item.key, item.price) for item in page.items] == [("a", None), ("g", None), ("h", 4)]
    told = {failure.key: (failure.reason, failure.dropped) for failure in page.failed}
    assert told["a"] == ("price 'oh' is not an amount of money", False)
    assert told["c"] == ("it has no address of a picture", True)
    assert "javascript" in told["d"][0]
    assert any(key.startswith("row 5 of") and "not a JSON object" in reason for key, (reason, _) in told.items())


def test_items_that_are_no_list_say_what_the_answer_has() -> None:
    with (
        serving(lambda request: Reply.json({"products": [], "page": 1})) as server,
        context_for(server.host) as context,
    ):
        source = boutique_source(server, context, items="results")
        with pytest.raises(SourceError, match=r"(?s)items = 'results' finds no list.*products, page.*Correct"):
            list(source.read(None))


def test_keys_come_from_the_environment_and_show_nowhere() -> None:
    key = "k/3y+secret value"

    def answer(request: Request) -> Reply:
        if request.headers.get("x-api-key") != key or request.query.get("token") != key:
            return Reply.json({"error": "who are you?"}, 401)
        if request.query.get("after"):
            return Reply(status=500)
        return Reply.json({"data": [], "links": {"next": f"/api/x/list?after=4&token={quote(key)}"}})

    secret = {"headers": {"x-api-key": "${SHOP_KEY}"}, "query": {"token": "${SHOP_KEY}"}, "patience": {"attempts": 1}}
    with serving(answer) as server, context_for(server.host, SHOP_KEY=key) as context:
        reading = boutique_source(server, context, **secret).read(None)
        page = next(reading)
        with pytest.raises(SourceUnavailable) as failed:
            next(reading)
        again = boutique_source(server, context, **secret).read(page.checkpoint)
        with pytest.raises(SourceUnavailable):
            next(again)
        assert server.requests[-1].query["token"] == key
    for shown in (json.dumps(dict(page.checkpoint or {})), str(failed.value), repr(context)):
        assert "secret" not in shown


def test_a_key_is_not_sent_on_to_another_host() -> None:
    with serving(lambda request: Reply.json({"data": [], "links": {}})) as other:
        moved = Reply(status=302, headers={"Location": f"{other.url}/elsewhere"})
        with (
            serving(lambda request: moved) as server,
            context_for(server.host, other.host, SHOP_KEY="key1234") as context,
        ):
            list(boutique_source(server, context, headers={"x-api-key": "${SHOP_KEY}"}).read(None))
            assert server.requests[0].headers["x-api-key"] == "key1234"
    assert "x-api-key" not in other.requests[0].headers


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"feilds": {}}, r"sources\.boutique\.feilds is not a key.*Keys are url \(required\), items"),
        ({"fields": {"key": "id"}}, r"sources\.boutique\.fields\.image_url is missing"),
        ({"fields": {"key": "id", "image_url": "a["}}, r"sources\.boutique\.fields\.image_url = 'a\['.*JMESPath"),
        ({"paging": {"style": "offset"}}, r"paging\.style.*one of 'start', 'page', 'cursor', 'next', 'none'"),
        ({"paging": {"count": "many"}}, r"paging\.count.*a whole number"),
        ({"paging": {"style": "cursor"}}, r"paging.*needs `next`"),
        ({"headers": {"k": "${NOT_SET}"}}, r"sources\.boutique\.headers\.k.*NOT_SET, which is not set"),
        ({"url": "https://x/{collection}"}, r"does not say which there are"),
        ({"kind": "shopapi"}, r"'shopapi' is not a kind.*folder.*shop_api"),
    ],
)
def test_a_wrong_configuration_says_what_is_right(changed: dict[str, Any], told: str) -> None:
    with context_for() as context, pytest.raises(SettingsError, match=f"(?s){told}"):
        open_source("boutique", {**BOUTIQUE, "url": "https://shop.example/api", **changed}, context)
