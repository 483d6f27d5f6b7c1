"""The day's requests: counted over runs, restarts and processes; a run that has used them up goes on tomorrow."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.unit.sources.catalogue_server import Reply, Request, Server, serving
from tests.unit.sources.site.test_sources_site import html, links, product

from visor.app import App
from visor.cli.main import cli
from visor.errors import QuotaReached, StoreUnavailable
from visor.http.url_policy import host_of
from visor.ingest.request_budget import FLUSH_REQUESTS, RequestBudget
from visor.schema.items import Batch, CrawlRun
from visor.settings import Settings
from visor.sources.feed import source as feed
from visor.storage import open_stores
from visor.storage.documents import DocumentStore

PAGES = 45
DAY = 86_400.0
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


def a_site(request: Request) -> Reply:
    if request.path == "/":
        return Reply(html(links(*(f"/p/{n}" for n in range(PAGES)))).encode(), headers={"Content-Type": "text/html"})
    if not request.path.startswith("/p/"):
        return Reply(status=404)
    n = request.path.rpartition("/")[2]
    return Reply(html(product(f"P{n}", f"/{n}.jpg")).encode(), headers={"Content-Type": "text/html"})


class Owner:
    """Runs a source of a visor.toml, each run in a process of its own as far as it knows."""

    def __init__(self, server: Server, home: Path, toml: str, **settings: int) -> None:
        (home / "visor.toml").write_text(toml)
        self.settings = Settings(home=home, config=home / "visor.toml", allow_hosts=(server.host,), **settings)
        self.now = NOON

    def run(self) -> CrawlRun:
        with open_stores(self.settings) as stores:
            budget = RequestBudget(
                stores.documents, host_a_day=self.settings.host_requests_a_day, clock=lambda: self.now
            )
            app = App(self.settings, stores=stores, request_budget=budget)
            return app.crawler.crawl(app.named_source("web"))

    def published(self) -> Counter[str]:
        with open_stores(self.settings) as stores:
            messages = stores.queue.receive(1000, lease_s=0.0)
        return Counter(c.item.key for m in messages for c in msgspec.json.decode(m.body, type=Batch).changes)


def test_a_source_stops_at_its_requests_of_a_day_and_goes_on_tomorrow(tmp_path: Path) -> None:
    with serving(a_site) as server:
        owner = Owner(
            server,
            tmp_path,
            f'[sources.web]\nkind = "site"\nurl = "{server.url}/"\ndelay_s = 0\nrequests_a_day = 20\n',
        )
        asked = []
        for _ in range(4):
            before = len(server.requests)
            runs = [owner.run()]
            if runs[0].state == "postponed":
                runs.append(owner.run())
            asked.append(len(server.requests) - before)
            if runs[0].state == "complete":
                break
            assert [run.state for run in runs] == ["postponed", "postponed"]
            assert "20 requests of its requests_a_day today" in runs[0].why
            assert "after 2026-11-2" in runs[0].why
            owner.now += DAY
        assert runs[0].state == "complete"
        assert max(asked) <= 20
        pages = Counter(target for target in server.targets if target.startswith("/p/"))
        assert len(pages) == PAGES
        assert set(pages.values()) == {1}, "each page is visited once, over all days"
        assert len(owner.published()) == PAGES


def test_a_host_gets_no_more_downloads_a_day_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE_SIZE", 5)
    rows = "\n".join(f"{n}\tNumber {n}\thttp://pictures.test/{n}.png" for n in range(40))
    with serving(lambda _: Reply(f"id\ttitle\timage_link\n{rows}".encode())) as server:
        owner = Owner(
            server, tmp_path, f'[sources.web]\nkind = "feed"\nurl = "{server.url}/"\n', host_requests_a_day=12
        )
        first, again = owner.run(), owner.run()
        # A page of 5 at a time: a run ends with the page that reaches the limit, or finds it reached.
        assert [(run.state, run.published) for run in (first, again)] == [("postponed", 15), ("postponed", 5)]
        assert "pictures.test gets no more than" in first.why
        owner.now += DAY
        tomorrow, rest = owner.run(), owner.run()
        assert [(run.state, run.published) for run in (tomorrow, rest)] == [("postponed", 15), ("complete", 5)]
        assert len(owner.published()) == 40


@pytest.fixture
def documents(tmp_path: Path) -> DocumentStore:
    return open_stores(Settings(home=tmp_path)).documents


def test_processes_add_up_and_a_new_day_begins_with_none(documents: DocumentStore) -> None:
    now = [NOON]
    one, other = (RequestBudget(documents, host_a_day=6, clock=lambda: now[0]) for _ in range(2))
    for _ in range(3):
        one.take("shop", "https://shop.test/a")
        other.take("links", "https://shop.test:443/b")
    one.flush()
    other.flush()
    one.flush()
    again = RequestBudget(documents, host_a_day=6, clock=lambda: now[0])
    assert again.today() == ({"links": 3, "shop": 3}, {"shop.test": 6})
    with pytest.raises(QuotaReached, match=r"shop\.test has had the 6 requests") as reached:
        again.take("shop", "https://shop.test/c")
    assert reached.value.retry_after_s == 12 * 3600
    again.take("shop", "https://other.test/")
    now[0] += DAY
    again.take("shop", "https://shop.test/d")
    again.flush()
    assert again.today() == ({"shop": 1}, {"shop.test": 1})


def test_what_a_killed_process_forgets_is_bounded(documents: DocumentStore) -> None:
    killed = RequestBudget(documents, host_a_day=0, clock=lambda: NOON)
    for _ in range(3 * FLUSH_REQUESTS + 10):
        killed.take("shop", "https://shop.test/")
    after = RequestBudget(documents, host_a_day=0, clock=lambda: NOON)
    assert after.today()[0]["shop"] >= 3 * FLUSH_REQUESTS + 10 - FLUSH_REQUESTS


def test_a_store_that_is_away_stops_nobody_and_forgets_nothing(
    documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = RequestBudget(documents, host_a_day=5, clock=lambda: NOON)

    def away(*_: object) -> list[bool]:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(documents, "commit", away)
        budget.take("shop", "https://shop.test/")
        budget.flush()
    budget.flush()
    assert RequestBudget(documents, host_a_day=5, clock=lambda: NOON).today() == ({"shop": 1}, {"shop.test": 1})


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Shop.test/x", "shop.test"),
        ("https://shop.test:443/x", "shop.test"),
        ("http://shop.test:8080/x", "shop.test:8080"),
        ("nothing", "nowhere"),
    ],
)
def test_hosts(url: str, host: str) -> None:
    assert host_of(url) == host


def test_the_command_shows_what_was_asked_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(a_site) as server:
        owner = Owner(
            server,
            tmp_path,
            f'[sources.web]\nkind = "site"\nurl = "{server.url}/"\ndelay_s = 0\nrequests_a_day = 20\n',
        )
        for name in ("home", "config"):
            monkeypatch.setenv(f"VISOR_{name.upper()}", str(getattr(owner.settings, name)))
        monkeypatch.setenv("VISOR_ALLOW_HOSTS", server.host)
        assert CliRunner().invoke(cli, ["crawl", "web"], catch_exceptions=False).exit_code == 0
        shown = CliRunner().invoke(cli, ["sources"], catch_exceptions=False).output
        assert "20 of 20 requests today" in shown
        assert "postponed" in shown
        assert f"{server.host}: " in shown
        told = json.loads(CliRunner().invoke(cli, ["sources", "--json"], catch_exceptions=False).output)
        assert told["sources"][0]["requests_today"] == 20
