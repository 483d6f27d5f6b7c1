"""Crawls of catalogues that change while every answer may be a fault: nothing is deleted that is still there.

`VISOR_TEST_CRAWLS=1050 VISOR_TEST_CRAWLS_SEED=NAME pytest -s` of this file is the long run
(docs/benchmarks-sources.md); each name draws other shops and other faults.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any
from xml.sax.saxutils import escape

import pytest
from tests.unit.sources.catalogue_server import Reply, Request, context_for, serving

from visor.errors import SourceError
from visor.ingest.crawl import Crawl
from visor.ingest.seen_set import SeenSet
from visor.schema.items import Change, CrawlRun, item_id
from visor.settings import Settings
from visor.sources.contract import Page, Source, SourceContext
from visor.sources.registry import open_source
from visor.storage import Stores, open_stores

CRAWLS = int(os.environ.get("VISOR_TEST_CRAWLS", "100"))
SEED = os.environ.get("VISOR_TEST_CRAWLS_SEED", "")
CRAWLS_OF_A_SHOP = 15
PAGE = 5
FIELDS = {"key": "id", "image_url": "image", "title": "title"}
API = {"kind": "shop_api", "items": "items", "fields": FIELDS, "patience": {"attempts": 2}}
SOURCES: dict[str, dict[str, Any]] = {
    "pages": {**API, "paging": {"style": "page", "count_param": "n", "count": PAGE}},
    "clamped": {**API, "paging": {"style": "page", "count_param": None}},
    "offsets": {**API, "paging": {"style": "start", "count_param": "n", "count": PAGE, "total": "total"}},
    "filtered": {**API, "paging": {"style": "page", "count_param": "n", "count": PAGE}},
    "next": {**API, "paging": {"style": "next", "next": "links.next", "count_param": None}},
    "feed": {"kind": "feed", "patience": {"attempts": 2}},
    "site": {"kind": "site", "delay_s": 0, "patience": {"attempts": 1}},
}
FAULTS = ("500", "truncated", "cut", "empty", "away", "inserted", "removed")

RATES = ((0.0, 0.05, 0.2, 0.4), (0.0, 0.3, 0.6, 0.9))
"""Of requests that meet a fault in one crawl; the second for sources that make only one."""


class Shop:
    """A catalogue of some thirty numbered products, behind a server that may break."""

    def __init__(self, kind: str, random: Random) -> None:
        self.kind, self.random = kind, random
        self.fault_rate = 0.0
        self.next_number = 0
        self.products: list[int] = []
        self.faults: Counter[str] = Counter()
        for _ in range(random.randint(8, 40)):
            self.insert(len(self.products))

    def insert(self, at: int) -> None:
        self.products.insert(at, self.next_number)
        self.next_number += 1

    def remove(self) -> None:
        if len(self.products) > 4:
            self.products.pop(self.random.randrange(len(self.products)))

    @property
    def moves(self) -> int:
        """How often rows have moved while they were read."""
        return self.faults["removed"] + self.faults["inserted"]

    def change(self) -> None:
        """What happens between two crawls."""
        for _ in range(self.random.choice((0, 0, 1, 2))):
            self.random.choice((self.remove, lambda: self.insert(0)))()

    def answer(self, request: Request) -> Reply:
        fault = self.random.choice(FAULTS) if self.random.random() < self.fault_rate else ""
        self.faults[fault] += bool(fault)
        if fault == "inserted":
            self.insert(0)
        elif fault == "removed":
            self.remove()
        elif fault == "500":
            return Reply(status=500)
        elif fault == "away":
            return Reply(status=302, headers={"Location": f"http://localhost:{request.headers['host'][10:]}/closed"})
        if request.path == "/closed":
            return Reply(b"<html><body>We are closed today.</body></html>", headers={"Content-Type": "text/html"})
        reply = self.page(request)
        if fault == "empty":
            return self.empty(reply)
        if fault == "truncated" or (fault == "cut" and self.kind != "site"):
            body = reply.body[: self.random.randrange(max(1, len(reply.body)))]
            told = {"Content-Length": str(len(reply.body)), "Connection": "close"} if fault == "truncated" else {}
            return Reply(body, reply.status, reply.headers | told)
        return reply

    def empty(self, reply: Reply) -> Reply:
        is_api = self.kind not in ("feed", "site")
        return Reply(b'{"items": []}' if is_api and self.random.random() < 0.7 else b"", 200, reply.headers)

    def page(self, request: Request) -> Reply:
        if self.kind == "feed":
            rows = "".join(
                f"<item><g:id>{n}</g:id><title>{escape(f'Thing & {n}')}</title>"
                f"<g:image_link>http://shop.test/{n}.jpg</g:image_link></item>\n"
                for n in self.products
            )
            text = f'<rss xmlns:g="http://base.google.com/ns/1.0"><channel>{rows}</channel></rss>'
            return Reply(text.encode(), headers={"Content-Type": "application/xml"})
        if self.kind == "site":
            return self.html(request.path)
        number = int(request.query.get("page", 1)) - 1
        start = int(request.query.get("start", request.query.get("after", number * PAGE)))
        some = self.products[start : start + PAGE]
        if self.kind == "filtered":
            # Sold ones are taken out of the page, which so is short in the middle.
            some = [n for n in some if n % 7]
        after = start + PAGE
        return Reply.json(
            {
                "items": [{"id": n, "title": f"Thing {n}", "image": f"http://shop.test/{n}.jpg"} for n in some],
                "total": len(self.products),
                "links": {"next": f"?after={after}" if after < len(self.products) else None},
            }
        )

    def html(self, path: str) -> Reply:
        """The start page lists galleries, each of which shows some pictures."""
        head = {"Content-Type": "text/html"}
        galleries: dict[int, list[int]] = {}
        for n in self.products:
            galleries.setdefault(n // PAGE, []).append(n)
        if path == "/":
            links = "".join(f'<li><a href="/gallery/{g}">Gallery {g}</a>' for g in galleries)
            return Reply(f"<html><body><h1>Shop</h1><ul>{links}</ul></body></html>".encode(), headers=head)
        if path.startswith("/gallery/") and (shown := galleries.get(int(path[9:]))):
            pictures = "".join(f'<p>Thing {n}<img src="/{n}.jpg" width=600 height=500 alt="{n}">' for n in shown)
            return Reply(f"<html><body><h1>Gallery</h1>{pictures}</body></html>".encode(), headers=head)
        return Reply(status=404)

    def keys(self, url: str) -> set[str]:
        """The keys of the items that a crawl would find now."""
        listed = [n for n in self.products if self.kind != "filtered" or n % 7]
        return {f"{url}/{n}.jpg" if self.kind == "site" else str(n) for n in listed}


class Spied:
    """The shop's source, of which the keys are noted that one pass lists, over all its runs."""

    name = "shop"

    def __init__(self, shop: Shop, url: str, context: SourceContext) -> None:
        self.shop, self.url = shop, url
        self.config = {**SOURCES[shop.kind], "url": f"{url}/"}
        self.context = context
        self.has_ended = True
        self.there: set[str] = set()
        """What was there when the pass began."""
        self.seen: set[str] = set()

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        if self.has_ended or checkpoint is None:
            self.there, self.seen, self.has_ended = self.shop.keys(self.url), set(), False
            self.moves = self.shop.moves
        for page in open_source(self.name, self.config, self.context).read(checkpoint):
            self.seen |= {item.key for item in page.items}
            self.has_ended = page.checkpoint is None
            yield page

    def unseen(self) -> set[str]:
        """What was there all the time, and was not listed."""
        return (self.there & self.shop.keys(self.url)) - self.seen


def crawl(stores: Stores, source: Source) -> tuple[CrawlRun, list[Change]]:
    changes: list[Change] = []
    told = Crawl(
        source,
        objects=stores.objects,
        documents=stores.documents,
        queue=stores.queue,
        settings=Settings(batch_size=64),
        on_change=changes.append,
    )
    with suppress(SourceError):
        told.run()
    return told.record.run, changes


def check_shop(shop: Shop, url: str, context: SourceContext, stores: Stores) -> Counter[str]:
    """Crawl a shop many times. Returns how the runs ended."""
    states: Counter[str] = Counter()
    source = Spied(shop, url, context)
    for number in range(CRAWLS_OF_A_SHOP):
        # Every shop is read well at first, and now and then later on.
        shop.fault_rate = 0.0 if number == 0 else shop.random.choice(RATES[shop.kind == "feed"])
        run, changes = crawl(stores, source)
        states[run.state] += 1
        there = {item_id("shop", key): key for key in shop.keys(url)}
        deleted = {change.item.id for change in changes if change.action == "delete"}
        assert not deleted & there.keys(), f"crawl {number} deleted {[there.get(id_) for id_ in deleted]}: {run}"
        if run.state == "complete" and source.moves == shop.moves:
            assert not source.unseen() or run.account() or run.why, f"crawl {number} is silent on {source.unseen()}"
        shop.change()
    shop.fault_rate = 0.0
    for number in range(4):
        run, _ = crawl(stores, source)
        assert run.state == "complete", run
        # The first may be the end of a pass that began before.
        assert number == 0 or not source.unseen()
    known = set(SeenSet.load(stores.objects, "shop").ids())
    assert known == {item_id("shop", key) for key in shop.keys(url)}, "what is gone stays"
    return states


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_nothing_is_deleted_that_is_there_and_what_was_not_read_is_told(kind: str, tmp_path: Path) -> None:
    faults: Counter[str] = Counter()
    states: Counter[str] = Counter()
    for seed in range(max(1, round(CRAWLS / CRAWLS_OF_A_SHOP / len(SOURCES)))):
        shop = Shop(kind, Random(f"{SEED}{kind} {seed}"))
        with serving(shop.answer) as server, open_stores(Settings(home=tmp_path / f"{seed}")) as stores:
            other = server.host.replace("127.0.0.1", "localhost")
            with context_for(server.host, other) as context:
                states += check_shop(shop, server.url, context, stores)
        faults += shop.faults
    print(f"{kind}: {states.total()} crawls {json.dumps(states)}, faults {json.dumps(faults)}")
