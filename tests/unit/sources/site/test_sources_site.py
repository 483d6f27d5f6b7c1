"""Websites as they are: with robots.txt, sitemaps, traps, broken HTML, wrong encodings, and hosts that give up."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.sources.catalogue_server import Reply, Request, Server, context_for, serving

from visor.errors import SettingsError, SourceUnavailable
from visor.http.fetch import Fetched
from visor.schema.items import Item
from visor.sources.contract import Page, SourceContext
from visor.sources.registry import open_source
from visor.sources.site import source as site
from visor.sources.site.page import read_page
from visor.sources.site.urls import absolute, canonical, is_file, is_trap, pattern, same_site, shown


def html(body: str, head: str = "") -> str:
    return f"<!doctype html><html><head><title>Page</title>{head}</head><body>{body}</body></html>"


def product(name: str, picture: str, **more: Any) -> str:
    offer = {"@type": "Offer", "price": "12.50", "priceCurrency": "EUR"}
    thing = {
        "@context": "https://schema.org",
        "@type": "Product",
        "name": name,
        "image": picture,
        "offers": offer,
        **more,
    }
    return f'<script type="application/ld+json">{json.dumps(thing)}</script>'


def links(*targets: str) -> str:
    return "".join(f'<a href="{target}">x</a>' for target in targets)


class Site:
    """Pages by path and query; a body may be a function of the request. Every page has an ETag if `tags`."""

    def __init__(self, pages: dict[str, str | bytes | Reply | Callable[[Request], Reply]], tags: bool = False) -> None:
        self.pages = pages
        self.tags = tags

    def __call__(self, request: Request) -> Reply:
        page = self.pages.get(request.target, self.pages.get(request.path + "?*", Reply(status=404)))
        if callable(page):
            return page(request)
        if isinstance(page, Reply):
            return page
        body = page.encode() if isinstance(page, str) else page
        is_text = request.path.endswith((".txt", ".xml", ".gz"))
        headers = {"Content-Type": "text/plain" if is_text else "text/html; charset=utf-8"}
        if self.tags and not is_text:
            headers["ETag"] = f'"{hash(body) & 0xFFFFFF:x}"'
            if request.headers.get("if-none-match") == headers["ETag"]:
                return Reply(status=304, headers={"ETag": headers["ETag"]})
        return Reply(body, headers=headers)


def source(server: Server, context: SourceContext, **keys: Any) -> Any:
    return open_source("s", {"kind": "site", "url": f"{server.url}/", "delay_s": 0, **keys}, context)


def crawl(pages: Any, checkpoint: Any = None, **keys: Any) -> tuple[list[Page], list[str]]:
    with serving(pages if callable(pages) else Site(pages)) as server, context_for(server.host) as context:
        found = list(source(server, context, **keys).read(checkpoint))
        return found, [target for target in server.targets if target not in ("/robots.txt", "/sitemap.xml")]


def items_of(pages: list[Page]) -> list[Item]:
    return [item for page in pages for item in page.items]


def paths(pages: list[Page]) -> set[str]:
    return {"/" + item.image_url.split("/", 3)[3] for item in items_of(pages)}


@pytest.mark.parametrize(
    "lost", ["", " \n", Reply(status=500), Reply(status=302, headers={"Location": "http://o.test/"})]
)
def test_a_page_that_is_empty_or_leads_away_hides_what_was_on_it(lost: Any) -> None:
    pages, _ = crawl({"/": html('<img src="/a.jpg">' + links("/b")), "/b": lost})
    assert paths(pages) == {"/a.jpg"}
    assert [failure.unread for page in pages for failure in page.failed] == [True]


# What a page says


def test_products_before_open_graph_before_plain_pictures() -> None:
    og = '<meta property="og:image" content="/og.jpg"><meta property="og:title" content="Shared">'
    plain = '<img src="/plain.jpg" alt="Plain">'
    pages, _ = crawl(
        {
            "/": html(links("/product", "/shared", "/plain", "/both")),
            "/product": html(product("Shoe", "/shoe.jpg", category="Shoes", brand={"name": "Ann"}) + plain, og),
            "/shared": html("", og),
            "/plain": html('<figure><img src="/p.jpg" alt="Alt"><figcaption>A caption</figcaption></figure>'),
        }
    )
    shoe, shared, plain_item = items_of(pages)
    assert (shoe.title, shoe.price, shoe.currency, shoe.collection) == ("Shoe", 12.5, "EUR", "Shoes")
    assert shoe.extra == {"brand": "Ann"}
    assert (shoe.page_url or "").endswith("/product")
    assert (shared.title, shared.image_url.rpartition("/")[2]) == ("Shared", "og.jpg")
    assert (plain_item.title, plain_item.image_url.rpartition("/")[2]) == ("A caption", "p.jpg")


def test_microdata_is_read_like_json_ld() -> None:
    body = """<div itemscope itemtype="http://schema.org/Product"><h1 itemprop="name">Chair</h1>
<img itemprop="image" src="/chair.jpg"><div itemprop="offers" itemscope itemtype="http://schema.org/Offer">
<meta itemprop="priceCurrency" content="EUR"><span itemprop="price" content="1299.00">1.299 €</span></div></div>"""
    (item,) = items_of(crawl({"/": html(body)})[0])
    assert (item.title, item.price, item.currency) == ("Chair", 1299, "EUR")


def test_a_list_of_products_has_an_item_each() -> None:
    body = product("A", "/a.jpg", url="/a") + product("B", "/b.jpg", url="/b")
    assert {
        (item.title, (item.page_url or "").rpartition("/")[2]) for item in items_of(crawl({"/": html(body)})[0])
    } == {
        ("A", "a"),
        ("B", "b"),
    }


def listing(count: int, **more: str | Reply) -> dict[str, Any]:
    """A shop whose list shows small pictures of what its own pages show large."""
    rows = [product(f"P{at}", f"/small/{at}.jpg", url=f"/p/{at}") for at in range(count)]
    pages: dict[str, Any] = {"/": html("".join(rows) + links(*(f"/p/{at}" for at in range(count))))}
    pages |= {f"/p/{at}": html(product(f"P{at}", f"/large/{at}.jpg") + links("/")) for at in range(count)}
    return pages | more


@pytest.mark.parametrize("size", [1, 2, 20])
def test_a_product_is_shown_as_its_own_page_shows_it(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "PAGE_SIZE", size)
    related = html(product("P3", "/large/3.jpg") + product("P1", "/tiny/1.jpg", url="/p/1") + links("/p/1"))
    with serving(Site(listing(4, **{"/p/3": related}))) as server, context_for(server.host) as context:
        whole = list(source(server, context).read(None))
        assert [item.image_url.rpartition(server.url)[2] for item in items_of(whole)] == [
            f"/large/{at}.jpg" for at in range(4)
        ]
        for at, page in enumerate(whole[:-1]):
            rest = source(server, context).read(json.loads(json.dumps(page.checkpoint)))
            assert items_of(list(rest)) == items_of(whole[at + 1 :])


@pytest.mark.parametrize(
    ("more", "pictures"),
    [
        ({"/robots.txt": "User-agent: *\nDisallow: /p/"}, {"/small/0.jpg", "/small/1.jpg"}),
        ({"/p/1": html("Only with scripts")}, {"/large/0.jpg", "/small/1.jpg"}),
        ({"/p/1": html("<img src=/plain.jpg>")}, {"/large/0.jpg", "/small/1.jpg", "/plain.jpg"}),
        ({"/p/1": html("", '<meta property="og:image" content="/og.jpg">')}, {"/large/0.jpg", "/og.jpg"}),
        ({"/p/1": html("", "<meta name=robots content=noindex>")}, {"/large/0.jpg"}),
        ({"/p/1": Reply(status=500)}, {"/large/0.jpg", "/small/1.jpg"}),
    ],
)
def test_what_only_a_list_shows_is_taken_of_it(more: dict[str, Any], pictures: set[str]) -> None:
    pages, _ = crawl(listing(2, **more))
    assert paths(pages) == pictures
    for item in items_of(pages):
        is_product = not item.image_url.endswith("plain.jpg")
        assert (item.price, item.page_url is not None) == (12.5 if is_product else None, True)


def test_a_page_that_fails_for_once_does_not_change_its_picture_to_that_of_a_list() -> None:
    pages = Site(listing(2))
    with serving(pages) as server, context_for(server.host) as context:
        (first,) = source(server, context).read(None)
        pages.pages["/p/1"] = Reply(status=500)
        (second,) = source(server, context).read(first.next_pass)
    assert (paths([second]), [failure.unread for failure in second.failed]) == ({"/large/0.jpg"}, [True])


def test_decoration_is_left_out_and_the_largest_of_a_set_is_taken() -> None:
    body = """<header><img src="/head.jpg"></header><nav><img src="/nav.jpg"></nav>
<img src="/logo.png"><img src="/i/spacer.gif"><img src="/small.jpg" width="40" height="40"><img src="/drawing.svg">
<img src="data:image/png;base64,AAAA">
<img src="/a-small.jpg" srcset="/a-400.jpg 400w, /a-1200.jpg 1200w, /a-800.jpg 800w">
<picture><source type="image/jxl" srcset="/b.jxl 3000w">
<source type="image/webp" srcset="/b.webp 2x"><img src="/b.jpg"></picture>
<img src="data:image/gif;base64,R0" data-src="/lazy.jpg"><img src="/a-small.jpg" srcset="/a-1200.jpg 1200w">"""
    assert paths(crawl({"/": html(body)})[0]) == {"/a-1200.jpg", "/b.webp", "/lazy.jpg"}


def test_a_picture_that_every_page_shows_belongs_to_the_first() -> None:
    og = '<meta property="og:image" content="/default.jpg">'
    pages, _ = crawl({"/": html(links("/a", "/b")), "/a": html("", og), "/b": html('<img src="/own.jpg">', og)})
    assert [(item.page_url or "").rpartition("/")[2] for item in items_of(pages)] == ["a", "b"]
    assert paths(pages) == {"/default.jpg", "/own.jpg"}


@pytest.mark.parametrize(
    ("body", "header", "title"),
    [
        ("<title>Café</title>".encode("latin-1"), "text/html", "Café"),
        ("<title>Café</title>".encode(), "text/html", "Café"),
        ("<title>Café</title>".encode("latin-1"), "text/html; charset=iso-8859-1", "Café"),
        ("<title>Café</title>".encode("latin-1"), "text/html; charset=utf-8", "Café"),
        ("<title>Café</title>".encode(), "text/html; charset=iso-8859-1", "Café"),
        ("<meta charset=windows-1251><title>Café</title>".encode(), "text/html", "Café"),
        ("\ufeff<title>Café</title>".encode(), "text/html; charset=iso-8859-1", "Café"),
        ("<title>Café</title>".encode() + b"<p>\xfc", "text/html; charset=utf-8", "Café"),
        ("<meta charset=shift_jis><title>日本</title>".encode("shift_jis"), "text/html", "日本"),
        (b"<title>Never closed <b>&nbsp;x", "text/html", "Never closed <b> x"),
        (b"\x00<html><title>Nul</title>", "text/html", "Nul"),
        (b"", "text/html", ""),
        (b"\xff\xfe\x00", "text/html", ""),
    ],
)
def test_any_bytes_are_a_page(body: bytes, header: str, title: str) -> None:
    media_type, _, charset = header.partition("; charset=")
    page = read_page(Fetched(body=body, url="http://e.org/", media_type=media_type, charset=charset or None))
    assert page.title.replace("<b>", "").split() == title.replace("<b>", "").split()


def test_broken_json_ld_costs_only_itself() -> None:
    body = '<script type="application/ld+json">{"@type": "Product", "name": </script>' + product("Fine", "/fine.jpg")
    assert [item.title for item in items_of(crawl({"/": html(body)})[0])] == ["Fine"]


# Robots


def test_robots_txt_is_obeyed() -> None:
    pages, visited = crawl(
        {
            "/robots.txt": "User-agent: *\nDisallow: /private\nUser-agent: Visor\nDisallow: /not-for-visor\nAllow: /\n",
            "/": html(links("/private", "/not-for-visor/a", "/fine")),
            "/private": html('<img src="/private.jpg">'),
            "/fine": html('<img src="/fine.jpg">'),
        }
    )
    assert paths(pages) == {"/private.jpg", "/fine.jpg"}
    assert "/not-for-visor/a" not in visited


def test_robots_txt_holds_for_the_page_to_which_another_leads() -> None:
    hidden = html('<img src="/hidden.jpg">' + links("/deep"))
    site = {"/robots.txt": "User-agent: *\nDisallow: /private/", "/": html('<img src="/a.jpg">' + links("/in"))}
    to = Reply(status=302, headers={"Location": "/private/"})
    pages, asked = crawl({**site, "/in": to, "/private/": hidden, "/deep": html("")})
    assert (paths(pages), asked) == ({"/a.jpg"}, ["/", "/in", "/private/"])
    assert pages[-1].passed_over["pages that robots.txt disallows"] == 1


def test_crawl_delay_is_kept() -> None:
    slept: list[float] = []
    pages = Site({"/robots.txt": "User-agent: *\nCrawl-delay: 7\n", "/": html(links("/a", "/b")), "/a": "a", "/b": "b"})
    with serving(pages) as server, context_for(server.host, slept=slept) as context:
        list(source(server, context, delay_s=1).read(None))
    assert slept == [7, 7]


def test_robots_txt_that_does_not_answer_stops_the_crawl() -> None:
    with pytest.raises(SourceUnavailable):
        crawl({"/robots.txt": Reply(status=500), "/": html('<img src="/a.jpg">')})


def test_pages_may_ask_for_no_index_and_no_following() -> None:
    robots = '<meta name="ROBOTS" content="{}">'
    pages, visited = crawl(
        {
            "/": html(links("/noindex", "/nofollow", "/noimage") + '<a href="/tagged" rel="ugc nofollow">x</a>'),
            "/noindex": html('<img src="/1.jpg">' + links("/from-noindex"), robots.format("noindex")),
            "/nofollow": html('<img src="/2.jpg">' + links("/from-nofollow"), robots.format("index,nofollow")),
            "/noimage": html('<img src="/3.jpg">', robots.format("noimageindex")),
        }
    )
    assert paths(pages) == {"/2.jpg"}
    assert "/from-noindex" in visited
    assert not {"/from-nofollow", "/tagged"} & set(visited)


# Where pages are found


def sitemap(*urls: str, lastmod: str = "") -> str:
    dated = f"<lastmod>{lastmod}</lastmod>" if lastmod else ""
    listed = "".join(f"<url><loc>{url}</loc>{dated}</url>" for url in urls)
    return f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{listed}</urlset>'


def test_sitemaps_of_sitemaps_packed_and_broken() -> None:
    with serving(lambda request: Reply(status=404)) as server, context_for(server.host) as context:
        index = "".join(
            f"<sitemap><loc>{server.url}/{name}</loc></sitemap>" for name in ("a.xml", "b.xml.gz", "no.xml", "i.xml")
        )
        broken = sitemap(f"{server.url}/c", f"{server.url}/d&e").removesuffix("</urlset>")
        server.answer = Site(
            {
                "/robots.txt": f"Sitemap: {server.url}/i.xml\n",
                "/i.xml": f'<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{index}</sitemapindex>',
                "/a.xml": sitemap(f"{server.url}/a", "https://elsewhere.example/x"),
                "/b.xml.gz": gzip.compress(broken.encode()),
                "/a": html('<img src="/a.jpg">'),
                "/c": html('<img src="/c.jpg">'),
            }
        )
        assert paths(list(source(server, context, follow=False).read(None))) == {"/a.jpg", "/c.jpg"}


def test_only_this_host_and_what_is_allowed() -> None:
    body = links("/shop/a", "/blog/b", "https://elsewhere.example/c", "//cdn.example/d", "mailto:x@y", "javascript:x()")
    _, visited = crawl({"/": html(body)}, allow=["^/shop/"])
    assert visited == ["/", "/shop/a"]
    _, visited = crawl({"/": html(body)}, deny=["^/shop/"])
    assert visited == ["/", "/blog/b"]


def test_depth_and_number_of_pages_are_limited() -> None:
    chain = {f"/{at}": html(links(f"/{at + 1}") + f'<img src="/{at}.jpg">') for at in range(30)}
    assert len(crawl({"/": html(links("/0")), **chain}, depth=3)[1]) == 4
    pages, visited = crawl({"/": html(links("/0")), **chain}, depth=100, pages_max=12)
    assert len(visited) == 12
    assert pages[-1].partial, "what was not reached is not missing"


def test_what_a_list_beyond_the_depth_may_lead_to_is_not_missing() -> None:
    def shop(order: str) -> dict[str, Any]:
        """Lists of one product each, newest first, each with a link to the next alone."""
        lists = {f"/l?page={at}": html(links(f"/p/{name}", f"/l?page={at + 1}")) for at, name in enumerate(order)}
        return {
            "/": html(links("/l?page=0")),
            **lists,
            **{f"/p/{name}": product(name, f"/{name}.jpg") for name in order},
        }

    pages, _ = crawl(shop("abc"), depth=3)
    assert (paths(pages), pages[-1].partial) == ({"/a.jpg", "/b.jpg"}, True)
    pages, _ = crawl(shop("abc"), depth=9)
    assert (len(paths(pages)), pages[-1].partial) == (3, False)
    days = {f"/cal?day={at}": html(links(f"/cal?day={at + 1}&view=list", f"/cal?day={at + 1}")) for at in range(9)}
    pages, _ = crawl({"/": html(links("/cal?day=0") + "<img src=/a.jpg>"), **days}, depth=3)
    assert not pages[-1].partial, "a calendar leads to nothing but itself"


@pytest.mark.parametrize(("items_max", "asked"), [(2, 4), (7, 7), (1000, 20), (None, 20)])
def test_a_run_that_takes_few_items_asks_for_few_pages(items_max: int | None, asked: int) -> None:
    chain = {f"/{at}": html(links(f"/{at + 1}") + f'<img src="/{at}.jpg">') for at in range(30)}
    with serving(Site({"/": html(links("/0")), **chain})) as server, context_for(server.host) as context:
        shop = source(server, replace(context, items_max=items_max), depth=100)
        page = next(shop.read(None))
        assert len([target for target in server.targets if "." not in target]) == asked
        assert (len(page.items), page.checkpoint is None) == (asked - 1, False)


def test_one_page_under_many_addresses_is_one_page() -> None:
    pages, visited = crawl(
        {
            "/": html(
                links(
                    "/a?utm_source=x", "/a#top", "/a;jsessionid=77", "/a?PHPSESSID=1", "/b?y=1&x=2", "/b?x=2&y=1", "/c"
                )
            ),
            "/a?utm_source=x": html('<img src="/a.jpg">'),
            "/b?y=1&x=2": html('<img src="/b.jpg">'),
            "/c": html('<img src="/a.jpg">', '<link rel="canonical" href="/a">'),
        }
    )
    assert visited == ["/", "/a?utm_source=x", "/b?y=1&x=2", "/c"], "each as it was written first"
    assert [(item.page_url or "").rpartition("/")[2] for item in items_of(pages)] == ["a", "b?y=1&x=2"]
    assert paths(pages) == {"/a.jpg", "/b.jpg"}


@pytest.mark.parametrize(
    "link",
    [
        "<a href=/a>a</a>",
        "<a href=' /a\n'>a</a>",
        "<map><area href=/a></map>",
        "<frameset><frame src=/a></frameset>",
        "<iframe src=/a></iframe>",
        "<link rel=next href=/a>",
        "<meta http-equiv=Refresh content=\"0; URL='/a'\">",
    ],
)
def test_a_page_leads_to_others_in_several_ways(link: str) -> None:
    assert paths(crawl({"/": link, "/a": product("A", "/a.jpg")})[0]) == {"/a.jpg"}


def test_redirects_are_followed_and_counted_once() -> None:
    pages, _ = crawl(
        {
            "/": html(links("/old", "/new")),
            "/old": Reply(status=301, headers={"Location": "/new"}),
            "/new": html(product("New", "/new.jpg")),
        }
    )
    assert [(item.title, (item.page_url or "").rpartition("/")[2]) for item in items_of(pages)] == [("New", "new")]


def test_urls() -> None:
    assert canonical("HTTP://Shop.Example:80/a/./b/../c?b=2&a=1&gclid=9#x") == "http://shop.example/a/c?a=1&b=2"
    assert canonical("ftp://e.org/") is None
    assert canonical("http://[bad/") is None
    assert is_trap("http://e.org/a/b/a/b/a/b/")
    assert not is_trap("http://e.org/?a=1&b=2&c=3&d=4&e=5")
    assert is_file("http://e.org/file.PDF")
    assert not is_file("http://e.org/wiki/File:Red.jpg")
    assert not is_trap("http://e.org/shop/shoes/red/12")
    assert pattern("http://e.org/calendar/2031/05") == pattern("http://e.org/calendar/1999/12")
    assert pattern("http://e.org/list?page=1&color=red") == pattern("http://e.org/list?color=blue&page=7")
    assert pattern("http://e.org/list?page=1") != pattern("http://e.org/shop?page=1")


@pytest.mark.parametrize(
    ("written", "asked", "others_see"),
    [
        ("/?kat=M%F6bel", "/?kat=M%F6bel", "/?kat=M%F6bel"),
        ("/?q=caf\xe9", "/?q=caf%E9", "/?q=caf%E9"),
        ("/caf\xe9", "/caf%C3%A9", "/caf%C3%A9"),
        ("/index.php?products/oak-table.17/", "/index.php?products/oak-table.17/", "/index.php?products/oak-table.17/"),
        ("/v?z=1&a=2&sig=abc#top", "/v?z=1&a=2&sig=abc", "/v?z=1&a=2&sig=abc"),
        ("/fiche.php?ref=AB1&sid=12&spm=3&pk_id=4", "/fiche.php?ref=AB1&sid=12&spm=3&pk_id=4", None),
        ("/a;jsessionid=7?x=1&utm_source=y&gclid=9", "/a;jsessionid=7?x=1&utm_source=y&gclid=9", "/a?x=1"),
        (
            "/a?pr_prod_strat=e5&pr_rec_id=7f&pr_ref_pid=1&pr_seq=uniform&v=2",
            "/a?pr_prod_strat=e5&pr_rec_id=7f&pr_ref_pid=1&pr_seq=uniform&v=2",
            "/a?v=2",
        ),
        ("/a?pr_id=1&srsltid=AfmBOo", "/a?pr_id=1&srsltid=AfmBOo", "/a?pr_id=1"),
        ("/a?sid=0a1b2c3d4e5f60718293", "/a?sid=0a1b2c3d4e5f60718293", "/a"),
        ("/a?spm=a2g0o.home.0.0&PHPSESSID=1", "/a?spm=a2g0o.home.0.0&PHPSESSID=1", "/a"),
    ],
)
def test_addresses_are_asked_for_as_they_are_written(written: str, asked: str, others_see: str | None) -> None:
    found = absolute(written, "http://e.org", "latin-1")
    assert found == f"http://e.org{asked}"
    assert shown(found) == f"http://e.org{others_see or asked}"


def test_addresses_are_told_apart_by_all_that_is_not_tracking() -> None:
    found = [
        "?kat=M%F6bel",
        "?kat=M%E4bel",
        "?ref=AB1",
        "?ref=AB2",
        "?sid=12",
        "?products/17/",
        "?products/18/",
        "?a=1",
    ]
    assert len({canonical(f"http://e.org/{query}") for query in found}) == len(found)
    same = ["?a=1&b=%C3%A9", "?b=\xe9&a=1", "?a=1&utm_source=x&b=%c3%a9#top"]
    assert len({canonical(f"http://e.org/{query}") for query in same}) == 1


def test_a_calendar_and_facets_without_end_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "BARREN_AFTER", 10)

    def calendar(request: Request) -> Reply:
        month = int(request.query["month"])
        return Reply(html(links(f"/calendar?month={month + 1}", f"/calendar?month={month + 2}")).encode(), headers=HTML)

    pages: dict[str, Any] = {"/": html(links("/calendar?month=1", *(f"/list/{at}" for at in range(60))))}
    # Lists without pictures of their own are no traps, however many there are.
    pages |= {f"/list/{at}": html(links(f"/p/{at}")) for at in range(60)}
    pages |= {f"/p/{at}": html(product(f"P{at}", f"/p{at}.jpg")) for at in range(60)}
    pages["/calendar?*"] = calendar
    found, visited = crawl(pages, depth=1000)
    assert len(items_of(found)) == 60
    assert sum(target.startswith("/calendar") for target in visited) == 11
    assert found[-1].passed_over["pages like 10 others in a row that had nothing new"] > 0


HTML = {"Content-Type": "text/html"}


# Resuming and re-crawling


def shop(count: int) -> dict[str, Any]:
    pages: dict[str, Any] = {"/": html(links(*(f"/c/{at}" for at in range(0, count, 10))))}
    for at in range(0, count, 10):
        pages[f"/c/{at}"] = html(links(*(f"/p/{n}" for n in range(at, min(count, at + 10))), "/"))
    for at in range(count):
        pages[f"/p/{at}"] = html(product(f"P{at}", f"/{at}.jpg") + links("/"))
    return pages


def test_goes_on_from_every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "PAGE_SIZE", 7)
    with serving(Site(shop(40))) as server, context_for(server.host) as context:
        whole = list(source(server, context).read(None))
        assert len(items_of(whole)) == 40
        for at, page in enumerate(whole[:-1]):
            checkpoint = json.loads(json.dumps(page.checkpoint))
            assert items_of(list(source(server, context).read(checkpoint))) == items_of(whole[at + 1 :])


def test_pages_that_have_not_changed_are_only_asked_about() -> None:
    pages = Site(shop(30), tags=True)
    with serving(pages) as server, context_for(server.host) as context:
        whole = list(source(server, context).read(None))
        assert len(items_of(whole)) == 30
        state = json.loads(json.dumps(whole[-1].next_pass))
        pages.pages["/p/7"] = html(product("Changed", "/7.jpg"))
        pages.pages["/c/10"] = html(links(*(f"/p/{n}" for n in range(10, 20)), "/p/new"))
        pages.pages["/p/new"] = html(product("New", "/new.jpg"))
        del pages.pages["/p/8"]
        full = replace(context, clock=lambda: datetime.now(UTC).timestamp() + 86_400)
        again = list(source(server, full).read(state))
    assert {item.title for item in items_of(again)} == {"Changed", "New"}
    assert [key.rpartition("/")[2] for page in again for key in page.gone] == ["8"]
    assert len([key for page in again for key in page.unchanged]) == 28
    assert not any(page.partial for page in again)


@pytest.mark.slow
def test_a_sitemap_saves_visiting_what_has_not_changed() -> None:
    count = 200
    with serving(lambda request: Reply(status=404)) as server, context_for(server.host) as context:
        listed = [f"{server.url}/p/{at}" for at in range(count)]
        pages: dict[str, Any] = {f"/p/{at}": html(product(f"P{at}", f"/{at}.jpg")) for at in range(count)}
        pages |= {"/": html(""), "/sitemap.xml": sitemap(*listed, lastmod="2020-01-01")}
        server.answer = Site(pages)
        whole = list(source(server, context).read(None))
        assert len(items_of(whole)) == count
        before = len(server.requests)
        later = replace(context, clock=lambda: datetime.now(UTC).timestamp() + 2 * 86_400)
        (again,) = source(server, later).read(whole[-1].next_pass)
        assert len(server.requests) - before == 3, "robots.txt, the sitemap, the start page"
        assert again.partial
        much_later = replace(context, clock=lambda: datetime.now(UTC).timestamp() + 40 * 86_400)
        full = list(source(server, much_later).read(again.next_pass))
        assert len(items_of(full)) == count
        assert not any(page.partial for page in full)


def test_a_page_that_fails_is_told_and_a_host_that_dies_is_left_alone() -> None:
    pages = shop(30)
    pages["/p/3"] = Reply(status=403)
    pages["/p/4"] = Reply(status=500)
    pages["/p/5"] = Reply(status=404)
    found, _ = crawl(pages)
    assert {failure.key.rpartition("/")[2] for page in found for failure in page.failed} == {"3", "4"}
    assert [key.rpartition("/")[2] for page in found for key in page.gone] == ["5"]
    assert len(items_of(found)) == 27
    for at in range(10, 30):
        pages[f"/p/{at}"] = Reply(status=503)
    with serving(Site(pages)) as server, context_for(server.host) as context:
        with pytest.raises(SourceUnavailable):
            list(source(server, context).read(None))
        assert len([target for target in server.targets if target.startswith("/p/1")]) <= 2 * 5 + 1


def test_wrong_keys_are_told() -> None:
    with context_for() as context:
        for keys, told in (({"url": "not an address"}, "is not a URL"), ({"allow": ["("]}, "not a regular expression")):
            with pytest.raises(SettingsError, match=told):
                open_source("s", {"kind": "site", "url": "https://e.org", **keys}, context)


@pytest.mark.parametrize(
    ("url", "host", "same"),
    [
        ("https://shop.example/a", "shop.example:443", True),
        ("https://www.shop.example:443/a", "Shop.example", True),
        ("https://shop.example:8443/a", "shop.example", False),
        ("https://ashop.example/a", "shop.example", False),
    ],
)
def test_a_host_is_the_same_with_a_port_that_goes_without_saying(url: str, host: str, same: bool) -> None:
    assert same_site(url, host) is same
