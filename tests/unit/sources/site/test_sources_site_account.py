"""What a crawl of a site does with pages that it cannot or should not read, and that it tells of each of them."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.sources.catalogue_server import Reply, Request, Server, context_for, serving
from tests.unit.sources.site.test_sources_site import (
    Site,
    crawl,
    html,
    items_of,
    links,
    paths,
    product,
    sitemap,
    source,
)

from visor.errors import SourceError, SourceUnavailable
from visor.sources.contract import Page


def served(make: Callable[[Server], dict[str, Any]], **keys: Any) -> list[Page]:
    """The pages of a site whose own addresses, and those of the same server as another host, stand in its pages."""
    with serving(lambda request: Reply(status=404)) as server, context_for(server.host, other(server)[7:]) as context:
        server.answer = Site(make(server))
        return list(source(server, context, **keys).read(None))


def other(server: Server) -> str:
    return server.url.replace("127.0.0.1", "localhost")


def passed_over(pages: list[Page]) -> Counter[str]:
    found: Counter[str] = Counter()
    for page in pages:
        found.update(page.passed_over)
    return found


def to(location: str, status: int = 302, **headers: str) -> Reply:
    return Reply(status=status, headers={"Location": location, **headers})


# What cannot be read


def image(at: Any) -> str:
    return html(f'<img src="/{at}.jpg">')


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (to("/bad"), "redirects"),
        (to("intent://shop/#Intent;scheme=shop;end"), "'intent'"),
        (to("http://10.0.0.5:8080/admin"), "private"),
        (to("https://e.org:22/"), "port 22"),
        (to("http://[bad/"), "names no host"),
        (to("http://user:secret@e.org/"), "user name"),
        (Reply(status=302), "without saying where"),
        (Reply(status=403), "403"),
        (Reply(status=500), "500"),
    ],
)
def test_a_page_that_cannot_be_read_fails_for_itself(reply: Reply, reason: str) -> None:
    pages, _ = crawl(
        {
            "/": html(links("/a", "/bad", "/b")),
            "/bad": reply,
            "/a": product("A", "/a.jpg"),
            "/b": product("B", "/b.jpg"),
        }
    )
    assert paths(pages) == {"/a.jpg", "/b.jpg"}
    ((failure,),) = (page.failed for page in pages)
    assert reason in failure.reason
    assert failure.unread, "what was on it before is not missing"


def again(before: dict[str, Any], after: dict[str, Any]) -> list[Page]:
    """The second pass of a site whose pages change after the first."""
    site = Site(before)
    with serving(site) as server, context_for(server.host) as context:
        (first,) = source(server, context).read(None)
        site.pages = before | after
        return list(source(server, context).read(first.next_pass))


def typed(body: bytes, media_type: str) -> Reply:
    return Reply(body, headers={"Content-Type": media_type})


CUT = product("A", "/a.jpg").partition('"name"')[0]


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (to("/login"), "another page now"),
        (to("/"), "another page now"),
        (to("/all", 301), "another page now"),
        (typed(b"{}", "application/json"), "not HTML now (application/json)"),
        (typed(b"{}", "text/html"), "not HTML now (JSON)"),
        (typed(b"%PDF-1.7", "text/html"), "not HTML now (a PDF document)"),
        ("<h1>A</h1>" + CUT, "cut off or broken"),
        (html("<img src=/plain.jpg>" + CUT), "cut off or broken"),
        ("<title>Just a moment...</title><script src=/challenge.js></script>", "only scripts"),
        (Reply(status=304), "empty page"),
        (Reply(status=403), "403"),
        (Reply(CUT.encode(), 206, {"Content-Type": "text/html", "Content-Range": "bytes 0-99/400"}), "206"),
        (html("<h1>Sign in</h1><form><input type=Password></form>" + links("/register")), "asks for a password"),
        (html("<noscript>Enable JavaScript and cookies to continue</noscript>" + links("/help")), "Enable JavaScript"),
        (
            html("<h1>Wait</h1><script src=https://x.test/captcha.js></script>" + links("/")),
            "checks its reader",
        ),
        (html("<h1>Just a moment...</h1>" + links("/"), "<meta name=robots content=noindex>"), "Just a moment"),
        (html("<h1>Wartungsarbeiten</h1><img src=/works.jpg>" + links("/")), "Wartung"),
        (html("<h1>Error establishing a database connection</h1>"), "Error establishing"),
        ("<br />\n<b>Fatal error</b>:  Uncaught Error: Class not found in x.php", "Fatal error"),
        (html("Rate limit exceeded" + links("/")), "Rate limit"),
        (html("<h1>Are you over 18?</h1>" + links("/yes", "/no")), "over 18"),
    ],
)
def test_what_answers_instead_of_a_page_is_no_evidence_against_its_items(after: Any, reason: str) -> None:
    two = product("C", "/c.jpg") + product("D", "/d.jpg")
    before = {"/": html(links("/a", "/b")), "/login": html("Log in"), "/all": html(two), "/a": product("A", "/a.jpg")}
    pages = again(before | {"/b": product("B", "/b.jpg")}, {"/a": after})
    assert not {"/plain.jpg", "/works.jpg"} & paths(pages)
    (failure,) = [failure for page in pages for failure in page.failed]
    assert failure.unread
    assert reason in failure.reason


@pytest.mark.parametrize(
    "after",
    [
        html("Sold out"),
        to("/new"),
        to("/a/"),
        html("Sold out" + "<script></script>" + links("/")),
        html("<form><input type=password></form><h1>Page not found</h1>" + links("/")),
        html("Accept all cookies? This product is no longer there." + links("/")),
        html("<form><input type=password></form><img src=/a.jpg>" + links("/")),
        html("Enable cookies", "<meta name=robots content=noindex>"),
    ],
)
def test_a_page_that_is_read_whole_or_moves_is_evidence(after: Any) -> None:
    moved = product("A", "/a.jpg")
    pages = again({"/": html(links("/a")), "/a": moved, "/new": moved, "/a/": moved}, {"/a": after})
    assert not [failure for page in pages for failure in page.failed]


def test_pages_that_all_show_the_same_instead_of_their_items_are_no_evidence() -> None:
    shell = html("<h1>Shop</h1><img src=/shop.jpg>" + links("/"))
    before = {"/": html(links("/a", "/b", "/c")), **{f"/{one}": product(one, f"/{one}.jpg") for one in "abc"}}
    failed = [failure for page in again(before, {"/a": shell, "/b": shell}) for failure in page.failed]
    assert [(failure.unread, failure.key[-2:]) for failure in failed] == [(True, "/b")]
    assert "what another page shows" in failed[0].reason
    gone = html("<h1>Page not found</h1>" + links("/"))
    assert not [failure for page in again(before, {"/a": gone, "/b": gone}) for failure in page.failed]


def test_a_list_that_something_stands_in_for_hides_what_it_led_to() -> None:
    site = Site({"/": html(links("/list")), "/list": html(links("/a", "/b", "/c"))})
    site.pages |= {f"/{one}": product(one, f"/{one}.jpg") for one in "abc"}
    with serving(site) as server, context_for(server.host) as context:
        (first,) = source(server, context).read(None)
        told = []
        for after in (html("<h1>Just a moment...</h1>"), html("<h1>Just a moment...</h1>"), html("No products")):
            site.pages["/list"] = after
            (first,) = source(server, context, full_every_days=1).read(first.next_pass)
            told.append([failure.key.rpartition("/")[2] for failure in first.failed])
    assert told == [["list"], ["list"], []]


def test_what_was_never_a_page_with_items_is_no_failure() -> None:
    site = {"/": html(links("/a", "/b", "/c")), "/a": to("/"), "/b": typed(b"{}", "application/json"), "/c": CUT}
    assert not [failure for page in again(site, {}) for failure in page.failed]


def test_a_page_is_doubted_for_as_long_as_it_is_not_itself() -> None:
    site = Site({"/": html(links("/a", "/b")), "/a": product("A", "/a.jpg"), "/b": to("/a")})
    checkpoint, told = None, []
    with serving(site) as server, context_for(server.host) as context:
        for at in range(4):
            (page,) = source(server, context, full_every_days=1).read(checkpoint)
            told.append([failure.key.rpartition("/")[2] for failure in page.failed])
            checkpoint = page.next_pass
            site.pages["/a"] = to("/") if at < 2 else html("Sold out")
    assert told == [[], ["a"], ["a"], []]


def test_a_sitemap_that_was_there_is_missed() -> None:
    site = Site({"/": html("")})
    with serving(site) as server, context_for(server.host) as context:
        site.pages |= {"/sitemap.xml": sitemap(f"{server.url}/a"), "/a": image("a")}
        (page,) = source(server, context).read(None)
        for lost in (html("Checking your browser"), Reply(status=404)):
            site.pages["/sitemap.xml"] = lost
            (page,) = source(server, context).read(page.next_pass)
            assert [failure.key.rpartition("/")[2] for failure in page.failed if failure.unread] == ["sitemap.xml"]


def test_a_page_that_redirects_to_itself_until_its_cookie_comes_back_is_read() -> None:
    def wall(request: Request) -> Reply:
        if request.headers.get("cookie") == "consent=1":
            return Reply(html(product("Behind", "/a.jpg")).encode(), headers={"Content-Type": "text/html"})
        return to("/wall", **{"Set-Cookie": "consent=1; Path=/"})

    def page(request: Request) -> Reply:
        assert "cookie" not in request.headers, "a cookie is kept for the one fetch"
        return Reply(html("").encode(), headers={"Content-Type": "text/html"})

    assert paths(crawl({"/": html(links("/wall", "/page")), "/wall": wall, "/page": page})[0]) == {"/a.jpg"}


@pytest.mark.parametrize("reply", [to("/robots.txt"), to("http://10.0.0.5/robots.txt"), Reply(status=404)])
def test_a_robots_txt_that_is_not_there_allows_everything(reply: Reply) -> None:
    assert paths(crawl({"/robots.txt": reply, "/": product("A", "/a.jpg")})[0]) == {"/a.jpg"}


@pytest.mark.parametrize(
    "robots",
    [
        b"\xef\xbb\xbfUser-agent: *\nDisallow: /private/\n",
        b"User-agent: *\nDisallow: /private/\n",
        "User-agent: *\nDisallow: /private/\n".encode("utf-16"),
        b"USER-AGENT:*\rDISALLOW:/private/ # not these\r",
        b"Useragent: *\nDissallow: /%70rivate/",
        b"User-agent: x\nUser-agent: Visor/1.0 (+http://visor.example)\nDisallow: /*/a$",
        b"User agent: *\n\nCrawl-delay: 0\nDisallow: */private",
        b"User-agent: *\nAllow: /\n\nUser-agent: VISOR\nDisallow: /private",
    ],
)
def test_rules_are_obeyed_however_they_are_written(robots: bytes) -> None:
    pages, visited = crawl({"/robots.txt": robots, "/": html(links("/private/a"))})
    assert visited == ["/"]
    assert passed_over(pages)["pages that robots.txt disallows"] == 1


def test_a_start_that_is_not_there_fails_the_run() -> None:
    with pytest.raises(SourceError, match="404"):
        crawl({})
    with pytest.raises(SourceUnavailable, match="500"):
        crawl({"/": Reply(status=500)})
    with pytest.raises(SourceError, match="another host: http://localhost"):
        served(lambda server: {"/": to(f"{other(server)}/maintenance"), "/maintenance": "Back soon"})


def test_a_start_that_is_not_there_does_not_hide_what_the_sitemap_lists() -> None:
    pages = served(lambda server: {"/sitemap.xml": sitemap(f"{server.url}/a"), "/a": product("A", "/a.jpg")})
    assert paths(pages) == {"/a.jpg"}
    assert [failure.unread for failure in pages[0].failed] == [True]


def test_a_page_that_leads_to_another_host_is_not_gone() -> None:
    def make(server: Server) -> dict[str, Any]:
        return {"/": html(links("/a")), "/a": to(f"{other(server)}/maintenance"), "/maintenance": "Back soon"}

    ((failure,),) = (page.failed for page in served(make))
    assert failure.unread
    assert "another host" in failure.reason


def test_what_another_host_calls_gone_is_not_gone() -> None:
    def make(server: Server) -> dict[str, Any]:
        away = to(f"{other(server)}/nowhere")
        return {"/": html(links("/a", "/b")), "/a": away, "/b": to("/nowhere"), "/sitemap.xml": away}

    (page,) = served(make)
    assert {failure.key.rpartition("/")[2] for failure in page.failed if failure.unread} == {"a", "sitemap.xml"}
    assert all("leads to another host, http://localhost" in failure.reason for failure in page.failed)
    assert [key.rpartition("/")[2] for key in page.gone] == ["b"]


def test_pages_that_are_dead_in_every_run_stop_only_one() -> None:
    dead = [f"/dead/{at}" for at in range(5)]
    pages = Site({"/": html(links(*dead, "/a")), "/a": product("A", "/a.jpg")} | dict.fromkeys(dead, Reply(status=500)))
    with serving(pages) as server, context_for(server.host) as context:
        first = source(server, context).read(None)
        found = [next(first)]
        with pytest.raises(SourceUnavailable):
            next(first)
        found += source(server, context).read(found[0].checkpoint)
    assert paths(found) == {"/a.jpg"}
    assert len(found[0].failed) == 5


# What is passed over


@pytest.mark.parametrize(
    ("pages", "keys", "reason", "count"),
    [
        ({"/robots.txt": "User-agent: *\nDisallow: /", "/": ""}, {}, "pages that robots.txt disallows", 1),
        ({"/": html("", "<meta name=robots content=noindex>")}, {}, "pages that say noindex", 1),
        ({"/": Reply(image(1).encode(), headers={"X-Robots-Tag": "noindex"})}, {}, "pages that say noindex", 1),
        ({"/": html("", "<meta name=robots content=noimageindex>")}, {}, "pages that say noimageindex", 1),
        ({"/": html(links("https://a.example/1", "https://a.example/2"))}, {}, "other hosts that pages link to", 1),
        ({"/": html(links("/a", "/b", "/c"))}, {"pages_max": 2}, "pages beyond pages_max = 2", 2),
        ({"/": html(links("/a", "/b"))}, {"depth": 0}, "pages more than depth = 0 links away", 2),
        ({"/": html(links("/a", "/b"))}, {"allow": ["^/b"]}, "pages that allow does not name", 1),
        ({"/": html(links("/a", "/b"))}, {"deny": ["^/b"]}, "pages that deny names", 1),
        ({"/": html(links("/a/b/a/b/a/b/"))}, {}, "pages with addresses like those of crawler traps", 1),
        ({"/": html(links("/a"))}, {}, "pages that are gone (404)", 1),
        ({"/": html("<div id=root></div><script src=/a.js></script>")}, {}, "JavaScript", 1),
        ({"/": html(links("/"))}, {}, "pages without a picture", 1),
        ({"/": Reply(b"{}", headers={"Content-Type": "application/json"})}, {}, "not HTML (application/json)", 1),
        ({"/": html("<img src=/a.jpg width=20><img src=/b.jpg width=20>")}, {}, "pictures smaller than", 2),
        ({"/": html("<img src=/logo.png>")}, {}, "file name calls decoration", 1),
        ({"/": html("".join(f"<img src=/{at}.jpg>" for at in range(70)))}, {}, "beyond the 60 of one page", 10),
        ({"/robots.txt": "Sitemap: /s.txt", "/s.txt": "http://a.example/1", "/": html("")}, {}, "hosts in sitemaps", 1),
    ],
)
def test_what_is_passed_over_is_counted_by_its_reason(
    pages: dict[str, Any], keys: dict[str, Any], reason: str, count: int
) -> None:
    found = passed_over(crawl(pages, **keys)[0])
    assert sum(found[told] for told in found if reason in told) == count


def test_no_picture_of_a_page_that_says_noimageindex_is_taken() -> None:
    head = '<meta name="robots" content="noimageindex"><meta property="og:image" content="/og.jpg">'
    assert not items_of(
        crawl({"/": html(links("/a")), "/a": html("<img src=/b.jpg>" + product("A", "/a.jpg"), head)})[0]
    )


def test_pages_of_words_hide_no_later_pictures() -> None:
    texts = {f"/topic-{at}": html(f"<h1>About {chr(97 + at // 26)}{chr(97 + at % 26)}</h1>") for at in range(50)}
    numbered = {f"/node/{at}": text for at, text in enumerate(texts.values())}
    last = {"/picture": image("p"), "/node/99": image("n"), "/node/98?x=1": image("m")}
    pages, _ = crawl({"/": html(links(*texts, *numbered, *last)), **texts, **numbered, **last})
    assert paths(pages) == {"/p.jpg", "/n.jpg", "/m.jpg"}


def test_what_a_sitemap_lists_is_no_trap() -> None:
    listed = [f"/p/{at}?a=1" for at in range(50)]
    pages = served(
        lambda server: (
            dict.fromkeys(listed, html("Nothing"))
            | {"/": "", "/p/99?a=1": image("p")}
            | {"/sitemap.xml": sitemap(*(server.url + target for target in [*listed, "/p/99?a=1"]))}
        )
    )
    assert paths(pages) == {"/p.jpg"}


# One page under several addresses, and one picture on several pages


def canonical_link(url: str) -> str:
    return f'<link rel=canonical href="{url}">'


@pytest.mark.parametrize(
    "canonicals",
    [
        {"/a": "/b", "/b": "/a", "/c": "/c"},
        {"/": "/", "/a": "/", "/b": "/", "/c": "/"},
        {"/a": "/all", "/b": "/all", "/c": "/all"},
        {"/a": "https://e.example/", "/b": "https://e.example/", "/c": "https://e.example/"},
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_a_canonical_address_that_is_wrong_hides_no_picture(canonicals: dict[str, str], described: bool) -> None:
    pages: dict[str, Any] = {"/": html(links("/a", "/b", "/c"), canonical_link(canonicals.get("/", "/")))}
    for url in ("/a", "/b", "/c"):
        body = product(url, f"{url}.jpg") if described else f"<img src={url}.jpg>"
        pages[url] = html(body, canonical_link(canonicals[url]))
    items = items_of(crawl(pages)[0])
    assert sorted(item.image_url.rpartition("/")[2] for item in items) == ["a.jpg", "b.jpg", "c.jpg"]
    assert len({item.key for item in items}) == 3


def test_the_same_product_under_several_paths_is_one() -> None:
    body, head = product("Shoe", "/shoe.jpg"), canonical_link("/products/shoe")
    targets = ["/sale/products/shoe", "/products/shoe?variant=1", "/new/products/shoe", "/products/shoe"]
    pages, _ = crawl({"/": html(links(*targets)), **dict.fromkeys(targets, html(body, head))})
    (item,) = items_of(pages)
    assert (item.page_url or "").endswith("/products/shoe")


def og(url: str) -> str:
    return f'<meta property="og:image" content="{url}">'


@pytest.mark.parametrize("home", ["/share.jpg", "/home.jpg", ""])
def test_the_picture_that_stands_for_the_whole_site_is_that_of_no_page(home: str) -> None:
    pages: dict[str, Any] = {"/": html(links("/a", "/b", "/c", "/d"), og(home) if home else "")}
    pages |= {f"/{at}": html(f"<img src=/{at}.jpg>", og("/share.jpg")) for at in "abc"}
    pages["/d"] = html("<img src=/small.jpg>", og("/d.jpg"))
    assert paths(crawl(pages)[0]) == {"/a.jpg", "/b.jpg", "/c.jpg", "/d.jpg"}


# Sitemaps


def rss(*urls: str) -> str:
    return (
        "<rss version='2.0'><channel>"
        + "".join(f"<item><link>{url}</link></item>" for url in urls)
        + "</channel></rss>"
    )


def atom(*urls: str) -> str:
    entries = "".join(f"<entry><link rel='self' href='/no'/><link href='{url}'/></entry>" for url in urls)
    return f"<feed xmlns='http://www.w3.org/2005/Atom'>{entries}</feed>"


@pytest.mark.parametrize(
    "written",
    [
        sitemap,
        rss,
        atom,
        lambda *urls: "\ufeff" + "\r\n".join(urls),
        lambda *urls: "\n\n" + sitemap(*urls),
        lambda *urls: "<br />\n<b>Notice</b>: Undefined index in <b>/x.php</b><br />\n" + sitemap(*urls),
        lambda *urls: sitemap(*(f"<![CDATA[{url}]]>" for url in urls)),
        lambda *urls: sitemap(*(url.replace("&", "&amp;") for url in urls)),
        lambda *urls: sitemap(*urls).removesuffix("</urlset>"),
        lambda *urls: re.sub(r"(xmlns=.)", r"\1}x", sitemap(*urls)),
        lambda *urls: (
            sitemap(*urls).replace("<url", "<s:url").replace("</url", "</s:url").replace("xmlns=", "xmlns:s=")
        ),
    ],
)
def test_sitemaps_in_all_forms(written: Callable[..., str]) -> None:
    def make(server: Server) -> dict[str, Any]:
        listed = [f"{server.url}/p?id={at}&lang=en&copy=1" for at in (1, 2)]
        found = {f"/p?id={at}&lang=en&copy=1": image(at) for at in (1, 2)}
        return {"/robots.txt": "Sitemap: /map.xml", "/map.xml": written(*listed), "/": html(""), **found}

    assert paths(served(make)) == {"/1.jpg", "/2.jpg"}


@pytest.mark.parametrize("cut", ["a", "index"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_sitemap_that_is_cut_off_hides_what_it_listed(cut: str, packed: bool) -> None:
    def make(server: Server) -> dict[str, Any]:
        index = "".join(f"<sitemap><loc>{server.url}/{at}.xml</loc></sitemap>" for at in "ab")
        pages = {
            "/index.xml": f"<sitemapindex>{index}</sitemapindex>",
            "/a.xml": sitemap(f"{server.url}/a", f"{server.url}/b"),
            "/b.xml": "<urlset/>",
        }
        whole = pages[f"/{cut}.xml"].encode()
        half = gzip.compress(whole)[:-9] if packed else whole[: whole.rindex(b"<loc>")]
        return {"/robots.txt": "Sitemap: /index.xml", "/": html(""), "/a": image("a"), **pages, f"/{cut}.xml": half}

    pages = served(make)
    assert packed or cut == "index" or paths(pages) == {"/a.jpg"}
    told = [failure for page in pages for failure in page.failed if failure.key.endswith(f"/{cut}.xml")]
    assert [failure.unread for failure in told] == [True]
    assert ("ends before" if packed else "cut off") in told[0].reason


@pytest.mark.parametrize("broken", [gzip.compress(sitemap("/a").encode())[:-9], b"<urlset><url>", Reply(status=500)])
def test_a_sitemap_that_nobody_promised_hides_what_it_listed(broken: Any) -> None:
    (page,) = crawl({"/": html(""), "/sitemap.xml": broken})[0]
    assert [failure.key.rpartition("/")[2] for failure in page.failed if failure.unread] == ["sitemap.xml"]


@pytest.mark.parametrize("said", ["Too many requests", "", " \n", '{"error": "quota"}', "/p/1\n/p/2", "<html></html>"])
def test_a_promised_sitemap_that_lists_nothing_in_no_form_is_told(said: str) -> None:
    (page,) = crawl({"/robots.txt": "Sitemap: /map.txt", "/map.txt": said, "/": image("a")})[0]
    assert [(failure.unread, failure.reason) for failure in page.failed] == [(True, "sitemap: this is not a sitemap")]
    assert not [failure for page in crawl({"/sitemap.xml": said, "/": image("a")})[0] for failure in page.failed]
    empty = crawl({"/robots.txt": "Sitemap: /map.xml", "/map.xml": "<urlset/>", "/": image("a")})[0]
    assert not [failure for page in empty for failure in page.failed]


@pytest.mark.parametrize("address", ["http://[::1/map.xml", "http://:x/map.xml", "ftp://shop.example/map.xml"])
def test_an_address_of_a_sitemap_that_is_none_fails_for_itself(address: str) -> None:
    (page,) = crawl({"/robots.txt": f"Sitemap: {address}", "/": image("a")})[0]
    assert paths([page]) == {"/a.jpg"}
    assert [(failure.key, failure.unread) for failure in page.failed] == [(address, True)]


def test_an_index_of_sitemaps_may_be_written_as_if_these_were_pages() -> None:
    def make(server: Server) -> dict[str, Any]:
        one = {"/sitemap.xml": sitemap(f"{server.url}/one.xml", f"{server.url}/missing.xml", f"{server.url}/b")}
        return {"/": html(""), **one, "/one.xml": sitemap(f"{server.url}/a"), "/a": image("a"), "/b": image("b")}

    pages = served(make)
    assert paths(pages) == {"/a.jpg", "/b.jpg"}
    assert [failure.key[-12:] for page in pages for failure in page.failed if failure.unread] == ["/missing.xml"]


def test_sitemaps_on_another_host_and_in_each_other() -> None:
    def make(server: Server) -> dict[str, Any]:
        def index(at: int) -> str:
            return f"<sitemapindex><sitemap><loc>{other(server)}/{at}.xml</loc></sitemap></sitemapindex>"

        chain: dict[str, Any] = {f"/{at}.xml": index(at + 1) for at in range(6)}
        chain["/6.xml"] = sitemap(f"{server.url}/a", f"{other(server)}/b")
        robots = f"Sitemap: {other(server)}/0.xml\nSitemap: /missing.xml"
        return {"/robots.txt": robots, **chain, "/": html(""), "/a": image("a"), "/b": image("b")}

    pages = served(make)
    assert paths(pages) == {"/a.jpg"}
    assert [failure.key.rpartition("/")[2] for failure in pages[0].failed] == ["missing.xml"]
    assert passed_over(pages)["pages on other hosts in sitemaps"] == 1


@pytest.mark.parametrize("declared", [" xmlns:image='x'", ""])
def test_pictures_that_a_sitemap_lists(declared: str) -> None:
    def make(server: Server) -> dict[str, Any]:
        def listed(name: str, pictures: str) -> str:
            tags = "".join(
                f"<image:image><image:loc>/{at}.jpg</image:loc><image:title>No. {at}</image:title></image:image>"
                for at in pictures
            )
            return f"<url><loc>{server.url}/{name}</loc>{tags}</url>"

        written = f"<urlset{declared}>" + listed("script", "ab") + listed("shoe", "c") + "</urlset>"
        script = html("<div id=root></div><script src=/app.js></script>")
        return {"/sitemap.xml": written, "/": "", "/script": script, "/shoe": product("Shoe", "/shoe.jpg")}

    items = items_of(served(make))
    assert [(item.title, item.image_url.rpartition("/")[2]) for item in items] == [
        ("No. a", "a.jpg"),
        ("No. b", "b.jpg"),
        ("Shoe", "shoe.jpg"),
    ]
    assert (items[0].page_url or "").endswith("/script")


def test_what_a_page_is_asked_for_and_shown_as() -> None:
    targets = ["/i.php?products/oak.17/", "/v?z=1&a=2&sig=abc", "/f.php?ref=A1", "/f.php?ref=A2", "/k?kat=M%F6bel"]
    asked: list[str] = []
    pages: dict[str, Any] = {"/": html(links(*targets))}

    with serving(Site(pages)) as server, context_for(server.host) as context:
        fetch = context.fetcher.fetch
        context.fetcher.fetch = lambda url, *more: (asked.append(url), fetch(url, *more))[1]  # type: ignore[method-assign]
        list(source(server, context).read(None))
    assert {url.removeprefix(server.url) for url in asked} >= set(targets)
