"""Two shops of different shape, both read by configuration alone, and what goes wrong with shops."""

from __future__ import annotations

import html
import json
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import pytest
from tests.unit.sources.catalogue_server import Reply, Request, Server, context_for, serving

from visor.errors import SettingsError, SourceError, SourceUnavailable
from visor.http.fetch import Fetched
from visor.schema.items import Item, item_id
from visor.sources.contract import Page, Source, SourceContext
from visor.sources.parse.mapping import Expressions
from visor.sources.registry import open_source
from visor.sources.secrets import Secrets
from visor.sources.shop_api.paging import Pager, Paging

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
    assert "collection '2' cannot be read" in failure.reason
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


@pytest.mark.parametrize(("status", "is_partial"), [(404, True), (410, True), (400, True), (204, False)])
def test_a_page_that_the_api_names_behind_a_full_one_and_does_not_have_is_no_end(status: int, is_partial: bool) -> None:
    shop = CursorShop()
    answer = lambda request: Reply(status=status) if request.query.get("cursor") == "c10" else shop(request)  # noqa: E731
    with serving(answer) as server, context_for(server.host) as context:
        pages = list(open_source("s", {**CURSOR, "url": f"{server.url}/all"}, context).read(None))
    assert len(items_of(pages)) == 10
    assert pages[-1].partial is is_partial


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


def test_what_another_host_calls_gone_is_no_end_of_the_pages() -> None:
    pages = {"1": things(1, 2), "3": things(5)}

    def answer(request: Request) -> Reply:
        at = request.query.get("page", "")
        away = Reply(status=302, headers={"Location": server.url.replace("127.0.0.1", "localhost") + "/nowhere"})
        return Reply.json(pages[at]) if at in pages else away if at == "2" else Reply(status=404)

    with serving(answer) as server, context_for(server.host, server.host.replace("127.0.0.1", "localhost")) as context:
        config = {**API, "url": f"{server.url}/all", "paging": {"style": "page", "count": 2}}
        pages_read = list(open_source("s", config, context).read(None))
    assert [item.key for item in items_of(pages_read)] == ["1", "2", "5"]
    (failure,) = [failure for page in pages_read for failure in page.failed]
    assert failure.unread
    assert "another host" in failure.reason


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
        ({"feilds": {}}, r"sources\.boutique\.feilds is not a key.*The keys url \(required\), items"),
        ({"fields": {"key": "id"}}, r"sources\.boutique\.fields\.image_url is missing"),
        ({"fields": {"key": "id", "image_url": "a["}}, r"sources\.boutique\.fields\.image_url = 'a\['.*JMESPath"),
        ({"paging": {"style": "offset"}}, r"paging\.style.*one of 'start', 'page', 'cursor', 'next', 'none'"),
        ({"paging": {"count": "many"}}, r"paging\.count.*a whole number"),
        ({"paging": {"style": "cursor"}}, r"paging.*needs `next`"),
        ({"headers": {"k": "${NOT_SET}"}}, r"sources\.boutique\.headers\.k.*NOT_SET, which is not set"),
        ({"url": "https://x/{collection}"}, r"does not name them"),
        ({"kind": "shopapi"}, r"'shopapi' is not a kind.*folder.*shop_api"),
    ],
)
def test_a_wrong_configuration_says_what_is_right(changed: dict[str, Any], told: str) -> None:
    with context_for() as context, pytest.raises(SettingsError, match=f"(?s){told}"):
        open_source("boutique", {**BOUTIQUE, "url": "https://shop.example/api", **changed}, context)


API = {"kind": "shop_api", "fields": {"key": "id", "image_url": "img"}, "patience": {"attempts": 1}}


def things(*ids: Any) -> list[dict[str, Any]]:
    return [{"id": id_, "img": f"/{id_}.png"} for id_ in ids]


def paged(*pages: Any) -> Any:
    """A server of numbered pages, each a list of ids or a reply; behind the last, an empty one."""

    def answer(request: Request) -> Reply:
        number = int(request.query.get("page", 1))
        page = pages[number - 1] if number <= len(pages) else []
        return page if isinstance(page, Reply) else Reply.json(things(*page))

    return answer


def read_paged(answer: Any, **paging: Any) -> tuple[list[Page], list[str]]:
    """The pages that a source makes of those, and the numbers that were asked for."""
    config = {**API, "paging": {"style": "page", "count_param": "n", "count": 3, **paging}}
    with serving(answer) as server, context_for(server.host) as context:
        pages = list(open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None))
        return pages, [request.query["page"] for request in server.requests if "page" in request.query]


def keys_of(pages: list[Page]) -> list[str]:
    return [item.key for item in items_of(pages)]


REFUSED = Reply.json({"code": "rest_post_invalid_page_number", "message": "No such page"}, 400)


@pytest.mark.parametrize(
    ("server", "keys", "asked", "is_partial"),
    [
        (paged([1, 2, 3], [4]), "1234", "123", False),
        (paged([1, 2], [3, 4], [5]), "12345", "1234", False),
        (paged([1, 2, 3], [5], [7, 8, 9]), "1235789", "123445", False),
        (paged([1, 2, 3], [4, 5, 6]), "123456", "12334", False),
        (paged([1, 2, 3], [], [7, 8, 9]), "123789", "1223445", True),
        (paged([1, 2, 3], [3, 4, 5], [6]), "1233456", "1234", True),
        (paged([1, 2, 3], [1, 4, 5]), "123145", "12334", False),
        (paged([1, 2, 3], [4], REFUSED), "1234", "123", False),
        (paged([1, 2, 3], [4, 5, 6], REFUSED), "123456", "123", True),
        (paged([1, 2, 3], [4, 5, 6], Reply(status=404)), "123456", "123", False),
        (paged([1, 2, 3], [4, 5, 6], Reply(status=204)), "123456", "123", False),
        (lambda request: Reply.json(things(1, 2)), "12", "12", False),
    ],
    ids=[
        "short", "clamped", "sold out in the middle", "full", "hole", "shifted", "pinned", "refused after a short one",
        "refused after a full one", "no such page", "no content", "takes no page",
    ],
)  # fmt: skip
def test_pages_end_where_there_is_evidence_of_it(server: Any, keys: str, asked: str, is_partial: bool) -> None:
    pages, numbers = read_paged(server)
    assert ("".join(keys_of(pages)), "".join(numbers)) == (keys, asked)
    assert any(page.partial or any(failure.unread for failure in page.failed) for page in pages) == is_partial


@pytest.mark.parametrize(
    ("pages", "keys", "is_partial"),
    [
        (([1, 2, 3], [4, 5, 6], [1, 2, 3], [7]), "123456", True),
        (([1, 2, 3], [4, 5], [1, 2, 3]), "12345", False),
        (([1, 2, 3], [4, 5, 6], [4, 5, 6]), "123456", False),
    ],
)
def test_a_first_page_again_behind_a_full_one_is_no_end(pages: Any, keys: str, is_partial: bool) -> None:
    read, _ = read_paged(paged(*pages))
    assert ("".join(keys_of(read)), read[-1].partial) == (keys, is_partial)
    assert any("first one again" in reason for reason in read[-1].passed_over) is is_partial


def test_next_pages_that_lead_back_are_no_end() -> None:
    def answer(request: Request) -> Reply:
        page = int(request.query.get("p", 1))
        return Reply.json({"rows": [{"id": 2 * page, "img": "/1.png"}, {"id": 2 * page + 1, "img": "/2.png"}],
                           "next": f"?p={2 if page == 3 else page + 1}"})  # fmt: skip

    with serving(answer) as server, context_for(server.host) as context:
        config = {"kind": "shop_api", "items": "rows", "fields": {"key": "id", "image_url": "img"}}
        paging = {"style": "next", "next": "next"}
        read = list(open_source("s", {**config, "url": f"{server.url}/all", "paging": paging}, context).read(None))
    assert (keys_of(read), read[-1].partial) == (["2", "3", "4", "5", "6", "7"], True)
    assert any("an earlier one again" in reason for reason in read[-1].passed_over)


@pytest.mark.parametrize("count", [1, 3])
def test_pages_in_a_circle_are_known_by_their_keys(count: int) -> None:
    """Each answer has another time, number of views or price."""

    def answer(request: Request) -> Reply:
        page = int(request.query["page"]) % count
        rows = [{"id": 2 * page + at, "img": "/1.png", "views": len(server.requests)} for at in range(2)]
        return Reply.json({"rows": rows})

    with serving(answer) as server, context_for(server.host) as context:
        config = {"kind": "shop_api", "items": "rows", "fields": {"key": "id", "image_url": "img"}, "pages_max": 9}
        source = open_source(
            "s", {**config, "url": f"{server.url}/all", "paging": {"style": "page", "count": 2}}, context
        )
        if count == 1:
            with pytest.raises(SourceError, match="is its first one again"):
                list(source.read(None))
        else:
            assert len(keys_of(list(source.read(None)))) == 2 * count
        assert len(server.requests) == count + 1


BROKEN = Reply(b'[{"id": "27" screen"}]')


@pytest.mark.parametrize("broken", [BROKEN, Reply(status=500), Reply(status=403), Reply(b'[{"id"')])
def test_a_page_that_cannot_be_read_fails_for_itself(broken: Reply) -> None:
    pages, numbers = read_paged(paged([1, 2, 3], broken, [7, 8, 9], [10]))
    assert ("".join(keys_of(pages)), "".join(numbers)) == ("12378910", "12345")
    assert [failure.unread for page in pages for failure in page.failed] == [True]


@pytest.mark.parametrize("broken", [BROKEN, Reply(status=500)])
def test_more_pages_in_a_row_fail_the_source(broken: Reply) -> None:
    config = {**API, "paging": {"style": "page", "count_param": "n", "count": 3}}
    with serving(paged([1, 2, 3], *[broken] * 4, [7])) as server, context_for(server.host) as context:
        reading = open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None)
        assert keys_of([next(reading)]) == ["1", "2", "3"]
        with pytest.raises(SourceError):
            next(reading)


@pytest.mark.parametrize("broken", [BROKEN, Reply(status=500), Reply(status=403)])
def test_a_collection_that_cannot_be_read_does_not_hide_the_next(broken: Reply) -> None:
    def answer(request: Request) -> Reply:
        return broken if "/2/" in request.path else market({"1": 3, "2": 3, "3": 3})(request)

    with serving(answer) as server, context_for(server.host) as context:
        pages = list(market_source(server, context, patience={"attempts": 1}).read(None))
    assert {item.collection for item in items_of(pages)} == {"Section 1", "Section 3"}
    assert [failure.unread for page in pages for failure in page.failed] == [True]


def test_a_page_may_be_a_part_of_all_rows_by_its_status_and_range() -> None:
    def answer(request: Request) -> Reply:
        start = 3 * (int(request.query["page"]) - 1)
        numbers = range(start, min(start + 3, 5))
        return Reply.json(things(*numbers), 206, **{"Content-Range": f"{start}-{start + len(numbers) - 1}/5"})

    pages, numbers = read_paged(answer, total='headers."content-range"')
    assert (keys_of(pages), numbers) == (["0", "1", "2", "3", "4"], ["1", "2"])


def test_rows_that_are_counted_and_not_given_are_told() -> None:
    headers = {"X-WP-Total": "5"}
    answer = lambda request: Reply.json(things(1, 2, 3) if request.query["page"] == "1" else [], **headers)  # noqa: E731
    pages, numbers = read_paged(answer, total='headers."x-wp-total"')
    (failure,) = [failure for page in pages for failure in page.failed]
    assert (failure.unread, numbers) == (True, ["1", "2", "2", "3"])
    assert "counts 5 rows of collection '' and gave 3" in failure.reason


@pytest.mark.parametrize("total", [0, 1, 2])
def test_a_total_below_what_was_read_counts_something_else(total: int) -> None:
    pages = [Reply.json({"rows": things(*some), "total": total}) for some in ([1, 2, 3], [4, 5, 6], [7], [])]
    config = {**API, "items": "rows"}
    paging = {"style": "page", "count_param": "n", "count": 3, "total": "total"}
    with serving(lambda request: pages[int(request.query["page"]) - 1]) as server, context_for(server.host) as context:
        read = list(open_source("s", {**config, "url": f"{server.url}/all", "paging": paging}, context).read(None))
    assert "".join(keys_of(read)) == "1234567"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"success": False}, "success = false"),
        ({"ok": 0}, "ok = 0"),
        ({"status": "ERROR"}, 'status = "ERROR"'),
        ({"statusCode": 429}, "statusCode = 429"),
        ({"code": "503"}, 'code = "503"'),
        ({"timed_out": True}, "timed_out = true"),
        ({"incomplete_results": True}, "incomplete_results = true"),
        ({"errors": [{"message": "Shard 3 is down"}]}, "Shard 3 is down"),
        ({"success": True, "status": "ok", "code": 200, "errors": [], "partial": False, "state": "sale"}, ""),
    ],
)
@pytest.mark.parametrize("rows", [(), (1, 2)])
def test_an_answer_that_says_that_it_is_not_whole_hides_what_it_lacks(said: Any, told: str, rows: Any) -> None:
    config = {**API, "items": "rows", "paging": {"style": "none"}}
    with serving(lambda request: Reply.json({"rows": things(*rows), **said})) as server, context_for(server.host) as at:
        pages = list(open_source("s", {**config, "url": f"{server.url}/all"}, at).read(None))
    assert len(items_of(pages)) == len(rows)
    reasons = [failure.reason for page in pages for failure in page.failed if failure.unread]
    assert len(reasons) == bool(told)
    assert told in "".join(reasons)


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl", "text/jsonlines"])
def test_an_api_may_answer_in_json_lines(kind: str) -> None:
    body = b"\n".join(json.dumps(row).encode() for row in things(1, 2)) + b"\n\n"
    config = {**API, "paging": {"style": "none"}}
    with serving(lambda request: Reply(body, headers={"Content-Type": kind})) as server, context_for(server.host) as at:
        pages = list(open_source("s", {**config, "url": f"{server.url}/all"}, at).read(None))
    assert keys_of(pages) == ["1", "2"]


@pytest.mark.parametrize("where", ["links.next", "headers.link"])
def test_the_next_page_stands_in_a_header(where: str) -> None:
    def answer(request: Request) -> Reply:
        rels = {None: '</all?p=2>; rel="next", </all?p=9>; rel="last"', "2": '</all>; rel="first"'}
        return Reply.json(things(request.query.get("p", "1")), Link=rels[request.query.get("p")])

    pages, _ = read_paged(answer, style="next", next=where, count_param=None)
    assert keys_of(pages) == ["1", "2"]


@pytest.mark.parametrize(
    "header",
    [
        "</all?p=2>; rel=next",
        '</all?p=2>; REL="NEXT"',
        '</all?p=2>; rel="last next"',
        '</all?p=2&f=a,b;c>; title="a, <b>; c"; rel="next"',
        '</all?p=0>; rel="prev", </all?p=2>;rel="next"',
    ],
)
def test_a_link_header_in_any_form_of_its_standard(header: str) -> None:
    answer = lambda r: Reply.json(things(r.query.get("p", "1")), Link="" if "p" in r.query else header)  # noqa: E731
    assert keys_of(read_paged(answer, style="next", next="links.next", count_param=None)[0]) == ["1", "2"]


@pytest.mark.parametrize(
    ("url", "following"),
    [
        ("https://shop.example/all", "http://shop.example/all?page=2"),
        ("https://shop.example/all", "http://shop.example:80/all?page=2"),
        ("https://shop.example/all", "?page=2"),
        ("https://shop.example/all", "//shop.example/all?page=2"),
        ("http://shop.example/all", "http://shop.example/all?page=2"),
    ],
)
def test_no_next_page_is_asked_for_without_tls_behind_one_with_it(url: str, following: str) -> None:
    paging = Paging(style="next", next="next")
    pager = Pager(paging, Expressions({"next": "next"}, "s"), Secrets())
    after = pager.following(pager.first(), [1], {"next": following}, Fetched(url=url, body=b""))
    assert after is not None
    assert pager.url(after, url) == f"{url}?page=2"


def test_a_port_that_goes_without_saying_is_no_other_host() -> None:
    following = "https://Shop.example:443/all?page=2"
    pager = Pager(Paging(style="next", next="next"), Expressions({"next": "next"}, "s"), Secrets())
    fetched = Fetched(url="https://shop.example/all", body=b"")
    after = pager.following(pager.first(), [1], {"next": following}, fetched)
    assert after is not None
    assert after.cursor == following


def test_a_cursor_that_the_last_page_repeats_is_the_end() -> None:
    def answer(request: Request) -> Reply:
        at = int(request.query.get("cursor", 0))
        return Reply.json({"rows": things(at) if at < 3 else [], "cursor": str(min(at + 1, 3))})

    with serving(answer) as server, context_for(server.host) as context:
        pages = list(open_source("s", {**CURSOR, "url": f"{server.url}/all"}, context).read(None))
    assert keys_of(pages) == ["0", "1", "2"]


def test_variants_have_what_they_lack_from_their_product() -> None:
    product = {
        "id": 5,
        "title": "Canvas shoe",
        "img": "/all.png",
        "variants": [{"id": 51, "title": "Red", "img": "/red.png"}, {"id": 52, "title": "Blue", "img": None}],
    }
    fields = {"key": "id", "image_url": "img", "title": "join(', ', [parent.title || title, title])"}
    config = {**API, "fields": fields, "variants": "variants", "paging": {"style": "none"}}
    rows = [product, {"id": 6, "title": "Hat", "img": "/hat.png", "variants": []}]
    with serving(lambda request: Reply.json(rows)) as server, context_for(server.host) as context:
        (page,) = open_source("s", {**config, "url": f"{server.url}/"}, context).read(None)
    assert [(item.key, item.title, item.image_url.rpartition("/")[2]) for item in page.items] == [
        ("51", "Canvas shoe, Red", "red.png"),
        ("52", "Canvas shoe, Blue", "all.png"),
        ("6", "Hat, Hat", "hat.png"),
    ]


def test_an_api_says_itself_how_many_decimals_its_prices_have() -> None:
    rows = [{"id": 1, "img": "/1.png", "p": "25", "d": 0}, {"id": 2, "img": "/2.png", "p": "12500", "d": 3}]
    rows.append({"id": 3, "img": "/3.png", "p": "1999"})
    config = {**API, "fields": {**API["fields"], "price": "p"}, "price_in_minor_units": "d"}  # type: ignore[dict-item]
    with serving(lambda request: Reply.json(rows)) as server, context_for(server.host) as context:
        (page,) = open_source("s", {**config, "url": f"{server.url}/", "paging": {"style": "none"}}, context).read(None)
    assert [item.price for item in page.items] == [25, 12.5, 19.99]


def test_a_number_is_the_same_key_however_it_is_written() -> None:
    body = b'[{"id": 7, "img": "/a"}, {"id": 7.0, "img": "/a"}, {"id": "7", "img": "/a"}, {"id": 1e21, "img": "/b"}]'
    pages, _ = read_paged(lambda request: Reply(body), style="none")
    assert keys_of(pages) == ["7", "7", "7", "1000000000000000000000"]


@pytest.mark.parametrize(
    ("style", "url", "query", "asked"),
    [
        ("start", "/all", {"limit": "{start},{count}"}, ["/all?limit=0,2", "/all?limit=2,2", "/all?limit=4,2"]),
        (
            "page",
            "/{count}/{page}.json",
            {"lang": "de"},
            ["/2/1.json?lang=de", "/2/2.json?lang=de", "/2/3.json?lang=de"],
        ),
        ("page", "/all?p={page}-{page}", {}, ["/all?p=1-1&n=2", "/all?p=2-2&n=2", "/all?p=3-3&n=2"]),
        ("page", "/all", {"v": '{"page":{page}}'}, [f'/all?v={{"page":{at}}}&n=2' for at in (1, 2, 3)]),
        (
            "cursor",
            "/all",
            {"v": '{"after":"{cursor}"}'},
            [f'/all?v={{"after":"{at}"}}&n=2' for at in ("", "a&b", "c")],
        ),
    ],
    ids=["offset and count in one", "path", "query of the url", "json", "cursor"],
)
def test_an_api_gets_its_place_where_it_wants_it(style: str, url: str, query: dict[str, str], asked: list[str]) -> None:
    left = [{"rows": things(1, 2), "after": "a&b"}, {"rows": things(3, 4), "after": "c"}, {"rows": things(5)}]
    paging = {"style": style, "count": 2, "count_param": "n", "total": "total", "next": "after"}
    config = {**API, "items": "rows", "query": query, "paging": paging}
    with (
        serving(lambda request: Reply.json({**left.pop(0), "total": 5})) as server,
        context_for(server.host) as context,
    ):
        pages = list(open_source("s", {**config, "url": server.url + url}, context).read(None))
        assert server.targets == asked
    assert keys_of(pages) == ["1", "2", "3", "4", "5"]


def test_a_collection_may_stand_in_the_query() -> None:
    config = {
        **API,
        "query": {"filter": "[cat={collection}]"},
        "collections": ["a&b", "c"],
        "paging": {"style": "none"},
    }
    with serving(lambda request: Reply.json(things(request.query["filter"]))) as server, context_for(server.host) as at:
        pages = list(open_source("s", {**config, "url": f"{server.url}/all"}, at).read(None))
    assert keys_of(pages) == ["[cat=a&b]", "[cat=c]"]


@pytest.mark.parametrize("nothing", [[], {}, None, {"rows": {}}, {"rows": None}, {"rows": []}], ids=str)
def test_an_answer_without_rows_is_an_empty_page_however_it_is_written(nothing: Any) -> None:
    def answer(request: Request) -> Reply:
        return Reply.json({"rows": things(1, 2)} if request.query["page"] == "1" else nothing)

    config = {**API, "items": "rows", "paging": {"style": "page", "count": 3}}
    with serving(answer) as server, context_for(server.host) as context:
        pages = list(open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None))
    assert (keys_of(pages), [failure for page in pages for failure in page.failed]) == (["1", "2"], [])


@pytest.mark.parametrize("style", ["next", "cursor"])
def test_an_empty_page_that_names_the_next_one_is_no_hole(style: str) -> None:
    left = [{"rows": things(1, 2), "cursor": "/all?a"}, {"rows": [], "cursor": "/all?b"}, {"rows": things(3)}]
    config = {**CURSOR, "paging": {"style": style, "next": "cursor", "count": 3}}
    with serving(lambda request: Reply.json(left.pop(0))) as server, context_for(server.host) as context:
        pages = list(open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None))
    assert (keys_of(pages), [failure for page in pages for failure in page.failed]) == (["1", "2", "3"], [])
    assert not any(page.partial for page in pages)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(status=404), "404"),
        (Reply(status=410), "410"),
        (Reply.json({"error": {"message": "Key has expired"}}, 401), r"401.*Key has expired"),
        (Reply.json({"success": False, "error": {"message": "Key has expired"}}), "The API says 'Key has expired'"),
        (Reply(b'{"a": "27" wide"}'), r"which is not JSON \(Expecting ',' delimiter in line 1"),
    ],
)
def test_an_address_that_does_not_work_is_an_error_that_says_why(reply: Reply, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        read_paged(lambda request: reply)


def test_an_empty_page_that_says_why_is_told() -> None:
    answer = {"items": [], "message": "quota exceeded"}
    config = {**API, "items": "items", "paging": {"style": "page"}}
    with serving(lambda request: Reply.json(answer)) as server, context_for(server.host) as context:
        (page,) = open_source("s", {**config, "url": f"{server.url}/"}, context).read(None)
    assert [(failure.unread, "quota exceeded" in failure.reason) for failure in page.failed] == [(True, True)]


@pytest.mark.parametrize(
    ("row", "page_url"),
    [
        ({"url": "#/product/1"}, "{base}/all#/product/1"),
        ({"url": "/p/1?key=s3cr3t/k3y&v=1"}, "{base}/p/1"),
        ({"url": "/p/1?key=s3cr3t%2Fk3y"}, "{base}/p/1"),
        ({"url": "/p/1?next=a%253Fkey%253Ds3cr3t%252Fk3y"}, "{base}/p/1"),
        ({"url": "/s3cr3t/k3y/1"}, None),
        ({"url": "/p/1?v=1"}, "{base}/p/1?v=1"),
        ({"img": "/1.png?key=s3cr3t%2Fk3y"}, "lost"),
        ({"id": "s3cr3t/k3y"}, "lost"),
        ({"title": "by s3cr3t&#47;k3y"}, None),
        ({"brand": "s3cr3t/k3y"}, None),
    ],
)
def test_no_item_holds_a_secret_of_the_configuration(row: dict[str, str], page_url: str | None) -> None:
    secret = "s3cr3t/k3y"
    fields = {**API["fields"], "page_url": "url", "title": "title", "extra": {"brand": "brand"}}  # type: ignore[dict-item]
    config = {**API, "fields": fields, "query": {"key": "${KEY}"}, "paging": {"style": "none"}}
    rows = [{"id": 1, "img": "/1.png", **row}, {"id": 2, "img": "/2.png"}]
    with serving(lambda request: Reply.json(rows)) as server, context_for(server.host, KEY=secret) as context:
        (page,) = open_source("s", {**config, "url": f"{server.url}/all"}, context).read(None)
    assert None not in [item.title for item in page.items]
    shown = unquote(unquote(html.unescape(msgspec.json.encode(page).decode())))
    assert secret not in shown
    assert keys_of([page]) == (["2"] if page_url == "lost" else ["1", "2"])
    if page_url != "lost":
        assert page.items[0].page_url == (page_url and page_url.replace("{base}", server.url))
    clean = page_url is not None and page_url.endswith(("#/product/1", "?v=1"))
    assert [failure.dropped for failure in page.failed] == ([] if clean else [page_url == "lost"])


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json({"error": "bad key s3cr3t/k3y"}),
        Reply.json({"s3cr3t/k3y": 1}),
        Reply.json({"error": "bad key s3cr3t/k3y"}, 401),
        Reply.json({"error": "bad key s3cr3t%2Fk3y"}, 500),
        Reply(b"<html>bad key s3cr3t/k3y</html>", headers={"Content-Type": "text/html"}),
        Reply(b"<x>" + b"." * 50 + b"s3cr3t/k3y", headers={"Content-Type": "text/xml"}),
        Reply(b'{"id": 1, "img": "s3cr3t/k3y" "x"}', headers={"Content-Type": "application/json"}),
        Reply(status=302, headers={"Location": "http://127.0.0.1:9/?key=s3cr3t%2Fk3y"}),
    ],
)
@pytest.mark.parametrize("where", ["headers", "query"])
def test_no_error_tells_a_secret_that_an_api_echoes(reply: Reply, where: str) -> None:
    config = {**API, where: {"key": "${KEY}"}, "paging": {"style": "none"}, "patience": {"attempts": 1}}
    with serving(lambda request: reply) as server, context_for(server.host, KEY="s3cr3t/k3y") as context:
        source = open_source("s", {**config, "url": f"{server.url}/all"}, context)
        with pytest.raises(SourceError) as caught:
            list(source.read(None))
    told = f"{caught.value} {caught.value.found} {caught.value.valid} {caught.value.remedy}"
    assert "s3c" not in unquote(told)


def test_no_error_about_an_address_tells_a_part_of_a_password() -> None:
    with context_for(KEY="hun/ter2") as context:
        source = open_source("s", {**API, "url": "https://ann:${KEY}@shop.example/all"}, context)
        with pytest.raises(SourceError, match="is not a URL: Invalid port") as caught:
            list(source.read(None))
    assert "hun" not in str(caught.value)


def test_a_next_page_that_is_no_url_says_so() -> None:
    config = {**CURSOR, "paging": {"style": "next", "next": "cursor"}}
    answer = {"rows": things(1), "cursor": "http://[shop"}
    with serving(lambda request: Reply.json(answer)) as server, context_for(server.host) as context:
        source = open_source("s", {**config, "url": f"{server.url}/all"}, context)
        with pytest.raises(SourceError, match=r"paging.next finds 'http://\[shop', which is not a URL"):
            list(source.read(None))


def test_the_name_of_a_host_is_no_secret() -> None:
    with (
        serving(lambda request: Reply.json(things(1))) as server,
        context_for(server.host, HOST=server.host) as context,
    ):
        config = {**API, "url": "http://${HOST}/all", "paging": {"style": "none"}}
        assert [item.image_url for item in items_of(list(open_source("s", config, context).read(None)))] == [
            f"{server.url}/1.png"
        ]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"paging": {"style": "next", "next": "join('', ['/p/', rows[9].id])"}}, r"paging.next cannot be found.*null"),
        ({"paging": {"style": "page", "total": "length(missing)"}}, r"paging.total cannot be found"),
        ({"items": "sort(missing)"}, r"finds no list.*items: In function sort"),
    ],
)
def test_an_expression_that_a_page_does_not_suit_ends_the_run_with_its_name(changed: Any, named: str) -> None:
    answer = Reply.json({"rows": things("a")})
    with serving(lambda request: answer) as server, context_for(server.host) as context:
        config = {**API, "items": "rows", "url": f"{server.url}/", **changed}
        with pytest.raises(SourceError, match=f"(?s){named}"):
            list(open_source("s", config, context).read(None))


def test_a_listing_of_collections_that_its_expression_does_not_suit_says_so() -> None:
    config = {**API, "collections": {"url": "/all", "items": "@", "id": "join('', [id])"}}
    with serving(lambda request: Reply.json([{"id": 5}])) as server, context_for(server.host) as context:
        config["collections"] = {**config["collections"], "url": f"{server.url}/all"}  # type: ignore[dict-item]
        with pytest.raises(SourceError, match=r"(?s)lists no collections \(id: In function join.*Correct"):
            list(open_source("s", {**config, "url": f"{server.url}/{{collection}}"}, context).read(None))


def test_a_row_whose_variants_cannot_be_found_stops_nothing_and_nothing_of_it_is_missing() -> None:
    rows = [{"id": 1, "v": 5}, {"id": 2, "v": [{"id": 21, "img": "/21.png"}]}]
    config = {**API, "variants": "sort_by(v, &id)", "paging": {"style": "none"}}
    with serving(lambda request: Reply.json(rows)) as server, context_for(server.host) as context:
        (page,) = open_source("s", {**config, "url": f"{server.url}/"}, context).read(None)
    assert [item.key for item in page.items] == ["21"]
    assert [(failure.dropped, failure.unread) for failure in page.failed] == [(True, True)]
    assert "sort_by" in page.failed[0].reason
