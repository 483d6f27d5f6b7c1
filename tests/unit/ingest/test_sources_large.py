"""Large catalogues: in little memory, with few requests, and past every trap. Full sizes by environment variable.

docs/benchmarks-sources.md has the commands, and what they printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.sources.catalogue_server import Reply, Request, serving
from tests.unit.sources.site.test_sources_site import html, links, product

from visor.app import App
from visor.ingest.crawl import Crawl
from visor.ingest.seen_set import SeenSet
from visor.schema.items import CrawlRun, Item, item_id
from visor.settings import Settings
from visor.sources.contract import Page, Source
from visor.sources.site.frontier import Frontier, Had
from visor_bench.load.counting import CountingDocuments, CountingObjects, Tally

pytestmark = pytest.mark.slow

FEED_ROWS = int(os.environ.get("LARGE_FEED_ROWS", "20000"))
"""In full: 1,000,000."""
SITEMAP_PAGES = int(os.environ.get("SITEMAP_PAGES", "150"))
"""In full: 100,000."""
TRAP_PAGES = int(os.environ.get("TRAP_PAGES", "300"))
"""In full: 10,000."""
VISITED_MAX = 1000
"""A first pass over more pages is not made here, because it takes as many requests."""
PEAK_BYTES_MAX = 300_000_000


def rss(rows: int) -> bytes:
    """A merchant's feed."""
    item = (
        "<item><g:id>{n}</g:id><g:title>Number {n}, as merchants describe it</g:title><g:price>{n}.99 USD</g:price>"
        "<g:image_link>https://x.test/{n}.jpg</g:image_link><g:link>https://x.test/p/{n}</g:link>"
        "<g:brand>Brand</g:brand><g:availability>in stock</g:availability></item>\n"
    )
    head = '<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel><title>Shop</title>\n'
    return "".join([head, *(item.format(n=n) for n in range(rows)), "</channel></rss>"]).encode()


def test_a_large_feed_is_crawled_in_little_memory(tmp_path: Path) -> None:
    body = rss(FEED_ROWS)
    with serving(lambda request: Reply(body, headers={"Content-Type": "application/xml"})) as server:
        (tmp_path / "visor.toml").write_text(f'[sources.mine]\nkind = "feed"\nurl = "{server.url}/feed.xml"\n')
        environ = {**os.environ, "VISOR_HOME": str(tmp_path), "VISOR_CONFIG": str(tmp_path / "visor.toml")}
        environ |= {"VISOR_ALLOW_HOSTS": server.host, "VISOR_HOST_REQUESTS_A_DAY": "0", "VISOR_CRAWL_BUDGET_S": "7200"}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("large_crawl.py"))],
            env=environ,
            capture_output=True,
            check=True,
        )
    told = json.loads(done.stdout)
    assert (told["state"], told["published"], told["failed"]) == ("complete", FEED_ROWS, 0)
    assert told["peak_bytes"] < PEAK_BYTES_MAX
    print(
        f"{FEED_ROWS:,} rows, {len(body) / 1e6:.0f} MB: {told['peak_bytes'] / 1e6:.0f} MB at most, "
        f"{time.monotonic() - began:.0f} s"
    )


class FirstPass:
    """Leaves what a first pass over the site leaves, without its visits. The small size proves that it is the same."""

    name = "web"

    def __init__(self, url: str, checkpoint: Mapping[str, Any]) -> None:
        self.url, self.checkpoint = url, checkpoint

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        keys = [f"{self.url}/p/{n}" for n in range(SITEMAP_PAGES)]
        items = [Item(id=item_id(self.name, key), source=self.name, key=key, image_url=f"{key}.jpg") for key in keys]
        yield Page(items=tuple(items), next_pass=self.left(self.checkpoint))

    @staticmethod
    def left(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        began_at, full_at = checkpoint.get("began_at", now), checkpoint.get("full_at", now)
        had = msgspec.convert(checkpoint.get("had", {}), dict[str, Had])
        return Frontier(began_at=began_at, full_at=full_at, had=had, partial=True).closed()


def test_a_recrawl_of_a_sitemapped_site_costs_few_requests(tmp_path: Path) -> None:
    """As many pages as there are files of 50,000 addresses for, all of which say when they changed last."""
    per_file = min(50_000, -(-SITEMAP_PAGES // 2))

    def answer(request: Request) -> Reply:
        host = request.headers["host"]
        if request.path == "/robots.txt":
            return Reply(f"User-agent: *\nSitemap: http://{host}/sitemaps.xml\n".encode())
        if request.path == "/sitemaps.xml":
            files = "".join(
                f"<sitemap><loc>http://{host}/sitemap{at}.xml</loc></sitemap>"
                for at in range(-(-SITEMAP_PAGES // per_file))
            )
            return Reply(f"<sitemapindex>{files}</sitemapindex>".encode())
        if request.path.startswith("/sitemap"):
            at = int(request.path.removeprefix("/sitemap").removesuffix(".xml"))
            pages = "".join(
                f"<url><loc>http://{host}/p/{n}</loc><lastmod>2020-01-0{n % 9 + 1}</lastmod></url>"
                for n in range(at * per_file, min(SITEMAP_PAGES, (at + 1) * per_file))
            )
            return Reply(f"<urlset>{pages}</urlset>".encode())
        n = request.path.rpartition("/")[2]
        body = html(product(f"P{n}", f"/{n}.jpg")) if request.path.startswith("/p/") else html("Welcome")
        return Reply(body.encode(), headers={"Content-Type": "text/html"})

    with (
        serving(answer) as server,
        App(Settings(home=tmp_path, allow_hosts=(server.host,), host_requests_a_day=0)) as app,
    ):
        config = {"kind": "site", "url": f"{server.url}/", "delay_s": 0, "pages_max": SITEMAP_PAGES + 10}
        source = app.open_source("web", config)
        tally, stores = Tally(), app.stores

        def crawl(source: Source) -> CrawlRun:
            run = Crawl(
                source,
                objects=CountingObjects(stores.objects, tally),
                documents=CountingDocuments(stores.documents, tally),
                queue=stores.queue,
                settings=app.settings,
                budget_s=7200,
            ).run()
            assert run.state == "complete"
            return run

        if SITEMAP_PAGES <= VISITED_MAX:
            assert crawl(source).published == SITEMAP_PAGES
            visited = SeenSet.load(stores.objects, "web")
            told = next(iter(FirstPass(server.url, visited.progress.checkpoint or {}).read(None)))
            assert sorted(visited.ids()) == sorted(item.id for item in told.items)
            assert visited.progress.checkpoint == FirstPass.left(visited.progress.checkpoint or {})
        else:
            assert crawl(FirstPass(server.url, {})).published == SITEMAP_PAGES
        before, asked = tally.usage, len(server.requests)
        assert crawl(source).published == 0
        used, requests = tally.usage - before, len(server.requests) - asked
    assert requests < 50
    assert used.document_reads == 0
    assert used.document_writes <= 2, "the record of the run, at its start and its end"
    assert used.class_a + used.class_b < 20
    print(f"{SITEMAP_PAGES:,} pages: {requests} requests, {used}")


def a_site_with_traps(products: int) -> dict[str, int]:
    """Names of the sections of a shop with so many products, and how many each has."""
    return {f"section{at}": len(range(at, products, 10)) for at in range(10)}


def test_a_site_with_traps_is_crawled_completely_and_once(tmp_path: Path) -> None:
    """Lists in pages, and a calendar without end, facets upon facets, session ids, circles, and a search."""
    sections = a_site_with_traps(TRAP_PAGES)
    traps = ("/calendar", "/search", "/loop", "/filter")

    def answer(request: Request) -> Reply:
        path, query = request.path, request.query
        shared = links(
            "/",
            f"/calendar?month={int(query.get('month', 0)) + 1}",
            f"/search?q={len(query.get('q', '')) * 'x'}y",
            "/filter?color=red&size=" + str(int(query.get("size", 0)) + 1),
            f"{path}?sid={len(path):032x}",
        )
        if path == "/":
            body = links(*(f"/list/{name}?page=0" for name in sections)) + shared
        elif path.startswith("/list/"):
            name, page = path.rpartition("/")[2], int(query.get("page", 0))
            mine = range(page * 25, min((page + 1) * 25, sections[name]))
            more = links(f"{path}?page={page + 1}") if (page + 1) * 25 < sections[name] else ""
            body = links(*(f"/{name}/product-{n}?utm_source=list{page}" for n in mine)) + more + shared
        elif path.startswith("/section") and "/more" not in path:
            body = product(path, f"/pictures{path}.jpg") + links("more/more") + shared
        elif path.startswith(traps) or "/more" in path:
            body = links("more/more") + shared
        else:
            return Reply(status=404)
        return Reply(html(body).encode(), headers={"Content-Type": "text/html"})

    with (
        serving(answer) as server,
        App(Settings(home=tmp_path, allow_hosts=(server.host,), host_requests_a_day=0)) as app,
    ):
        pages_max = 2 * TRAP_PAGES + 1000
        config = {"kind": "site", "url": f"{server.url}/", "delay_s": 0, "depth": 10_000, "pages_max": pages_max}
        began = time.monotonic()
        run = app.crawler.crawl(app.open_source("web", config), budget_s=7200)
        took_s = time.monotonic() - began
        asked = Counter(server.targets)
    assert (run.state, run.published) == ("complete", TRAP_PAGES)
    products = [target for target in asked if target.startswith("/section") and "more" not in target]
    assert len(products) == TRAP_PAGES, "completely"
    assert set(asked.values()) == {1}, "once"
    lists = sum(-(-count // 25) for count in sections.values())
    wasted = len(asked) - TRAP_PAGES - lists
    assert wasted < 300, "within its limits, which do not grow with the site"
    print(f"{TRAP_PAGES:,} products: {len(asked):,} requests, {wasted} of them in traps, {took_s:.0f} s")
