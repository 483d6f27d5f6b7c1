"""The sources through the crawl, as production runs them: nothing twice, nothing lost, and tombstones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.sources.catalogue_server import Server, context_for, serving
from tests.unit.sources.site.test_sources_site import Site, html, links, product
from tests.unit.sources.test_sources_feed import FeedServer, table
from tests.unit.sources.test_sources_wikidata import museum

from visor.ingest.crawl import Crawl
from visor.schema.items import Batch, CrawlRun
from visor.settings import Settings
from visor.sources.registry import open_source
from visor.storage import Stores, open_stores

COUNT = 30


class Catalogue:
    """A catalogue of `COUNT` items on a server, one of which can be taken out."""

    def __init__(self, answer: Any, config: Callable[[Server], dict[str, Any]], remove: Callable[[Any], None]) -> None:
        self.answer, self.config, self.remove = answer, config, remove


def a_feed() -> Catalogue:
    def remove(feed: FeedServer) -> None:
        feed.body = table(COUNT - 1)

    return Catalogue(FeedServer(table(COUNT)), lambda s: {"kind": "feed", "url": f"{s.url}/feed"}, remove)


def a_site() -> Catalogue:
    pages: Any = {f"/p/{at}": html(product(f"P{at}", f"/{at}.jpg")) for at in range(COUNT)}
    pages["/"] = html(links(*pages))

    def remove(site: Site) -> None:
        del site.pages[f"/p/{COUNT - 1}"]

    return Catalogue(Site(pages, tags=True), lambda s: {"kind": "site", "url": f"{s.url}/", "delay_s": 0}, remove)


def wikimedia() -> Catalogue:
    def config(server: Server) -> dict[str, Any]:
        return {
            "kind": "wikidata",
            "instances_of": ["Q3305213"],
            "query_url": f"{server.url}/sparql",
            "wikidata_url": f"{server.url}/wikidata/w/api.php",
            "commons_url": f"{server.url}/commons/w/api.php",
            "wikipedia_url": f"{server.url}/{{language}}/w/api.php",
        }

    def remove(wiki: Any) -> None:
        del wiki.entities[10_000]

    return Catalogue(museum(COUNT), config, remove)


@pytest.mark.parametrize("make", [a_feed, a_site, wikimedia])
def test_crawls_publish_what_changed_and_nothing_else(make: Callable[[], Catalogue], tmp_path: Path) -> None:
    catalogue = make()
    settings = Settings(home=tmp_path)
    with serving(catalogue.answer) as server, context_for(server.host) as context, open_stores(settings) as stores:

        def crawl(**keys: Any) -> CrawlRun:
            source = open_source("s", catalogue.config(server), context)
            return Crawl(
                source,
                objects=stores.objects,
                documents=stores.documents,
                queue=stores.queue,
                settings=settings,
                **keys,
            ).run()

        runs = [crawl(budget_s=0)]
        while runs[-1].state == "postponed":
            runs.append(crawl(budget_s=0))
        assert sum(run.published for run in runs) == COUNT
        assert len(changes(stores)) == COUNT
        for again in (crawl(), crawl()):
            assert (again.published, again.updated, again.deleted) == (0, 0, 0)
        catalogue.remove(catalogue.answer)
        after = [crawl(), crawl()]
        assert [run.published + run.updated for run in after] == [0, 0]
        assert sum(run.deleted for run in after) == 1
        assert [action for action in changes(stores) if action == "delete"] == ["delete"]


def changes(stores: Stores) -> list[str]:
    """The actions of all changes that wait in the queue."""
    found: list[str] = []
    for message in stores.queue.receive(1000, lease_s=0.0):
        found += [change.action for change in msgspec.json.decode(message.body, type=Batch).changes]
    return found
