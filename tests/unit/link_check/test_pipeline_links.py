"""Links that rot: pictures that die with and without a copy, move, come back, and what that costs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from tests.unit.ingest.test_pipeline_push import picture
from tests.unit.sources.catalogue_server import Reply, Request, Server, serving

from visor.app import App
from visor.cli.main import cli
from visor.errors import BadRequest, Conflict, CorruptObject, FetchUnavailable, HostDead
from visor.free_tier.allowances import counted
from visor.http.client import Fetcher
from visor.http.fetch import Probed
from visor.ingest.worker import Worker
from visor.link_check.check import LinkCheck, LinksReport
from visor.link_check.probe import UrlStatus, probe_url
from visor.link_check.rotation import GIVEN_UP_DAYS
from visor.link_check.state import PICTURE_GONE, SILENT_DAYS, LinkState
from visor.models.embedder import Embedder
from visor.schema.items import Item, item_id
from visor.schema.search import Match, SearchRequest
from visor.settings import Settings
from visor_bench.load.counting import CountingDocuments, CountingObjects, Tally

DAY = 86_400.0
PNG = {"Content-Type": "image/png"}


@dataclass
class Shop:
    """A feed of six products; 0 and 1 show one picture. Pictures are at `/N.png`, pages at `/p/N` or at `page`."""

    settings: Settings
    embedder: Embedder
    answers: dict[str, Reply] = field(default_factory=dict)
    price: int = 5
    page: str = "/p/{}"
    now: float = 1_800_000_000.0
    keys: tuple[str, ...] = ("0", "1", "2", "3", "4", "5")

    def answer(self, request: Request) -> Reply:
        if request.path in self.answers:
            return self.answers[request.path]
        name = request.path.rpartition("/")[2].removesuffix(".png")
        if request.path == "/feed":
            rows = [f"{n}\tNumber {n}\t/{n}.png\t{self.page.format(n)}\t{self.price} USD" for n in self.keys]
            return Reply("\n".join(["id\ttitle\timage_link\tlink\tprice", *rows]).encode())
        if request.path.startswith(("/p/", "/q/")):
            return Reply(b"<html>A page</html>", headers={"Content-Type": "text/html"})
        return Reply(picture({"1": 0, "new": 4}.get(name) if name in ("1", "new") else int(name)), headers=PNG)

    def dies(self, *paths: str, status: int = 404) -> None:
        self.answers |= {path: Reply(status=status) for path in paths}

    def moves(self, path: str, to: str, status: int = 301) -> None:
        self.answers[path] = Reply(status=status, headers={"Location": to})

    def index(self, server: Server) -> None:
        self.server = server
        self.app = App(msgspec.structs.replace(self.settings, allow_hosts=(server.host,)), embedder=self.embedder)
        self.source = self.app.open_source("shop", {"kind": "feed", "url": f"{server.url}/feed"})
        self.crawl()

    def crawl(self) -> None:
        assert self.app.crawler.crawl(self.source).state == "complete"
        self.embed()

    def embed(self) -> None:
        Worker(self.app.stores.queue, self.app.batch_embedder, threads=1).drain()

    def check(self, a_day: int = 100, **options: Any) -> LinksReport:
        """One run of the check, and what it published embedded."""
        stores = self.app.stores
        parts: dict[str, Any] = {"objects": stores.objects, "documents": stores.documents, **options}
        report = LinkCheck(
            queue=stores.queue,
            fetcher=parts.pop("fetcher", self.app.fetcher),
            a_day=a_day,
            batch_size=64,
            clock=lambda: self.now,
            sleep=lambda seconds: None,
            **parts,
        ).run()
        self.embed()
        return report

    def days(self, count: int) -> list[LinksReport]:
        reports = []
        for _ in range(count):
            reports.append(self.check())
            self.now += DAY
        return reports

    def best(self, seed: int) -> Match:
        match: Match = self.app.search_service().search(SearchRequest(k=3), picture(seed)).matches[0]
        return match

    def item(self, key: str) -> Item | None:
        document = self.app.stores.documents.get("items", [item_id("shop", key)]).get(item_id("shop", key))
        return None if document is None or document.data.get("gone") else msgspec.convert(document.data["item"], Item)

    def path(self, key: str) -> str:
        item = self.item(key)
        assert item is not None
        return item.image_url.removeprefix(self.server.url)


@pytest.fixture
def shop(embedder: Embedder, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(Settings(home=tmp_path, freshness_s=0.0, audit_rate=0.0), embedder)
    with serving(shop.answer) as server:
        shop.index(server)
        yield shop
        shop.app.close()


@pytest.fixture(params=["fresh", "merged"])
def anywhere(shop: Shop, request: pytest.FixtureRequest) -> Shop:
    """The shop's items in shards, or in a segment."""
    if request.param == "merged":
        assert shop.app.merge().segments == 1
    return shop


@pytest.mark.slow
def test_a_dead_picture_is_replaced_by_a_living_copy_and_stays_so(anywhere: Shop) -> None:
    shop = anywhere
    shop.dies("/0.png")
    first = shop.check()
    assert (first.suspect, first.replaced, shop.path("0")) == (1, 0, "/0.png"), "one failure is none"
    assert shop.check().checked == 0, "nothing is looked at twice a day"
    shop.now += DAY
    second = shop.check()
    assert (second.replaced, second.marked, second.suspect) == (1, 0, 0)
    assert shop.path("0") == "/1.png"
    best = shop.best(0)
    assert best.verdict == "exact"
    assert {place.image_url.removeprefix(shop.server.url) for place in best.places} == {"/1.png"}
    shop.price = 7
    shop.crawl()
    item = shop.item("0")
    assert item is not None
    assert (item.price, shop.path("0")) == (7.0, "/1.png"), "the catalogue still lists the dead address"
    assert shop.app.stores.documents.query("failures") == []


@pytest.mark.slow
def test_a_dead_picture_without_a_copy_is_marked_and_comes_back(anywhere: Shop) -> None:
    shop = anywhere
    shop.dies("/2.png", status=410)
    assert [report.marked for report in shop.days(2)] == [0, 1]
    best = shop.best(2)
    assert (best.item.title, best.item.image_url) == ("Number 2", ""), "found, and shown without its picture"
    assert best.item.page_url == f"{shop.server.url}/p/2"
    assert PICTURE_GONE in best.item.extra
    shop.price = 7
    shop.crawl()
    assert PICTURE_GONE in shop.best(2).item.extra, "the catalogue does not know"
    del shop.answers["/2.png"]
    assert sum(report.back for report in shop.days(3)) == 1
    best = shop.best(2)
    assert (best.item.image_url, best.item.price) == (f"{shop.server.url}/2.png", 7.0)
    assert PICTURE_GONE not in best.item.extra


@pytest.mark.slow
def test_an_item_whose_page_is_gone_is_not_shown_until_it_is_back(anywhere: Shop) -> None:
    shop = anywhere
    shop.dies("/p/3")
    assert [report.gone for report in shop.days(2)] == [0, 1]
    assert shop.item("3") is None
    assert shop.best(3).item.title != "Number 3"
    assert [report.gone for report in shop.days(2)] == [0, 0]
    del shop.answers["/p/3"]
    assert sum(report.back for report in shop.days(4)) == 1
    assert shop.best(3).item.title == "Number 3"


def test_what_another_host_calls_gone_is_no_more_than_silence(shop: Shop) -> None:
    other = shop.server.host.replace("127.0.0.1", "localhost")
    shop.moves("/p/3", f"http://{other}/nowhere", status=302)
    shop.dies("/nowhere")
    with Fetcher(msgspec.structs.replace(shop.app.settings, allow_hosts=(shop.server.host, other))) as fetcher:
        status = probe_url(fetcher, f"{shop.server.url}/p/3", is_picture=False)
    assert status == UrlStatus("failed", code="fetch_unavailable")


@pytest.mark.slow
def test_a_gone_item_that_its_catalogue_deletes_stays_gone(shop: Shop) -> None:
    shop.dies("/p/3", "/3.png")
    shop.days(2)
    shop.keys = ("0", "1", "2", "4", "5")
    shop.crawl()
    shop.crawl()
    shop.answers.clear()
    shop.days(5)
    assert shop.item("3") is None
    assert item_id("shop", "3") not in LinkState.load(shop.app.stores.objects)[0].problems


def test_what_moved_for_good_is_followed_and_what_moved_for_now_is_not(anywhere: Shop) -> None:
    shop = anywhere
    shop.moves("/4.png", "/new.png")
    shop.moves("/p/4", "/q/4", status=308)
    shop.moves("/5.png", "/3.png", status=302)
    shop.moves("/p/5", "/")
    report = shop.check()
    assert (report.moved, report.suspect) == (2, 1), "a page that leads to the front page is suspect"
    moved, item = shop.path("4"), shop.item("4")
    assert item is not None
    assert (moved, item.page_url) == ("/new.png", f"{shop.server.url}/q/4")
    assert shop.path("5") == "/5.png"
    shop.price = 7
    shop.crawl()
    item = shop.item("4")
    assert item is not None
    assert (shop.path("4"), item.page_url, item.price) == ("/new.png", f"{shop.server.url}/q/4", 7.0)
    assert shop.best(4).item.image_url == f"{shop.server.url}/new.png"


def test_parts_of_one_page_are_one_link(shop: Shop) -> None:
    """Six moments of a film counted as six pages that answer alike, and a single one lost its moment in a move."""
    shop.page = "/film#t={}"
    shop.crawl()
    shop.moves("/film", "/q/film")
    before = len(shop.server.requests)
    report = shop.check()
    assert (report.moved, report.hosts) == (6, {})
    assert [request.path for request in shop.server.requests[before:]].count("/film") == 1
    items = [shop.item(key) for key in shop.keys]
    assert [one.page_url for one in items if one] == [f"{shop.server.url}/q/film#t={key}" for key in shop.keys]
    shop.now += DAY
    shop.dies("/q/film")
    assert [report.gone for report in shop.days(2)] == [0, 6]


REFUSALS = [Reply(status=403), Reply(status=429, headers={"Retry-After": "1"}), Reply(b"<html>", status=429)]
REFUSALS.append(Reply(b"Use thumbnail steps, see https://w.wiki/GHai", status=429))


@pytest.mark.slow
@pytest.mark.parametrize("reply", REFUSALS)
def test_a_refusal_says_nothing_about_the_picture(shop: Shop, reply: Reply) -> None:
    shop.answers["/2.png"] = reply
    reports = shop.days(4)
    assert sum(report.marked + report.gone + report.suspect for report in reports) == 0


@pytest.mark.slow
def test_a_page_in_place_of_a_picture_is_a_dead_picture(shop: Shop) -> None:
    shop.answers["/2.png"] = Reply(b"<!doctype html><title>Not here</title>", headers={"Content-Type": "text/html"})
    assert [report.marked for report in shop.days(2)] == [0, 1]


class Silent:
    """Every address is silent."""

    def __init__(self, error: Callable[[], Exception]) -> None:
        self.error = error

    def probe(self, url: str, *, is_image: bool) -> Probed:
        raise self.error()


@pytest.mark.slow
@pytest.mark.parametrize("error", [FetchUnavailable, HostDead])
def test_a_silent_host_is_told_and_dead_only_if_its_owner_says_so(shop: Shop, error: type[FetchUnavailable]) -> None:
    fetcher = Silent(lambda: error("no answer", retry_after_s=60 if error is HostDead else None))
    for trusted, last in [((), 0), ((shop.server.host,), 6)]:
        gone = []
        for _ in range(SILENT_DAYS):
            report = shop.check(fetcher=fetcher, trusted=trusted)
            gone.append(report.gone)
            shop.now += DAY
        assert gone == [0] * (SILENT_DAYS - 1) + [last]
        assert bool(report.hosts) == (not trusted)
    shop.now += SILENT_DAYS * DAY
    assert shop.check().back == 6
    assert shop.best(2).item.title == "Number 2"


HOST_WIDE: dict[str, Callable[[Shop, str], Reply]] = {
    "redirected_home": lambda shop, key: Reply(status=302, headers={"Location": "/"}),
    "moved to localhost": lambda shop, key: Reply(
        status=301, headers={"Location": shop.server.url.replace("127.0.0.1", "localhost") + f"/welcome?{key}"}
    ),
    "moved to 127.0.0.1": lambda shop, key: Reply(status=301, headers={"Location": "/welcome"}),
    "http_403": lambda shop, key: Reply(status=403),
    "http_404": lambda shop, key: Reply(status=404),
    "fetch_unavailable": lambda shop, key: Reply(status=500),
}


# An image that leads home is not an image, and not a host that sends its pages home.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "path"),
    [
        (name, path)
        for path in ("/p/{}", "/{}.png")
        for name in HOST_WIDE
        if (name, path) != ("redirected_home", "/{}.png")
    ],
)
def test_a_condition_of_the_whole_host_changes_nothing_and_is_told(shop: Shop, condition: str, path: str) -> None:
    shop.answers = {
        **{path.format(key): HOST_WIDE[condition](shop, key) for key in shop.keys},
        "/welcome": Reply(picture(9), headers=PNG),
        "/": Reply(b"<html>Home</html>"),
    }
    before = [shop.item(key) for key in shop.keys]
    fetcher = Fetcher(
        msgspec.structs.replace(
            shop.app.settings, allow_hosts=(shop.server.host, shop.server.host.replace("127.0.0.1", "localhost"))
        )
    )
    reports = []
    for _ in range(SILENT_DAYS + 1):
        reports.append(shop.check(fetcher=fetcher))
        shop.now += DAY
    assert sum(r.gone + r.marked + r.moved + r.replaced + r.suspect for r in reports) == 0
    assert [shop.item(key) for key in shop.keys] == before
    ((part, how),) = reports[-1].hosts.items()
    assert part == f"{'pages' if path.startswith('/p') else 'images'} of {shop.server.host}"
    assert how.startswith(condition)
    assert how.endswith("since 2027-01-15")
    shop.answers.clear()
    assert shop.check().hosts == {}


@pytest.mark.slow
def test_most_pages_of_a_host_are_dead_only_if_its_owner_says_so(shop: Shop) -> None:
    shop.keys = tuple(str(n) for n in range(20))
    shop.crawl()
    shop.check()
    for _ in range(2):
        shop.now += DAY
        shop.dies(*(f"/p/{n}" for n in range(3, 20)))
        report = shop.check()
    assert (report.gone, report.hosts) == (0, {f"pages of {shop.server.host}": "http_404 since 2027-01-16"})
    for strange in ("shop.example", f"http://{shop.server.host}/", shop.server.host.partition(":")[0], ""):
        with pytest.raises(BadRequest, match=f"has probed '{re.escape(strange)}'. Valid: {shop.server.host}"):
            shop.check(trusted=(shop.server.host, strange))
    shop.check(trusted=(shop.server.host.upper(),))
    shop.now += DAY
    assert [report.gone for report in shop.days(2)] == [0, 17]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_saving_and_publishing_forgets_nothing(shop: Shop, when: str) -> None:
    class Killed(BaseException):
        """Like a signal: nothing in the product catches it."""

    class Queue:
        def publish(self, bodies: list[bytes]) -> None:
            if when == "after":
                shop.app.stores.queue.publish(bodies)
            raise Killed

    shop.dies("/p/3", "/2.png")
    shop.check()
    shop.now += DAY
    stores = shop.app.stores
    with pytest.raises(Killed):
        LinkCheck(
            objects=stores.objects,
            documents=stores.documents,
            queue=Queue(),  # type: ignore[arg-type]
            fetcher=shop.app.fetcher,
            a_day=100,
            batch_size=64,
            clock=lambda: shop.now,
            sleep=lambda seconds: None,
        ).run()
    shop.embed()
    shop.check()
    item = shop.item("2")
    assert shop.item("3") is None
    assert item is not None
    assert PICTURE_GONE in item.extra
    shop.answers.clear()
    assert sum(report.back for report in shop.days(4)) == 2
    assert shop.best(3).item.title == "Number 3"


def test_the_days_limit_holds_over_runs_and_every_item_has_its_turn(shop: Shop) -> None:
    asked: list[str] = []
    for _ in range(3):
        before = len(shop.server.requests)
        assert [shop.check(a_day=2).checked for _ in range(3)] == [2, 0, 0]
        asked += [target for target in shop.server.targets[before:] if target.endswith(".png")]
        shop.now += DAY
    assert sorted(asked) == [f"/{n}.png" for n in range(6)]
    assert shop.check(a_day=2).checked == 2, "and then the next round begins"


@pytest.mark.slow
def test_no_more_is_looked_at_than_the_free_tier_has_room_for(shop: Shop) -> None:
    report = shop.check(room=2)
    assert (report.checked, report.finished) == (2, False)
    assert shop.check(room=0).checked == 0
    rest = shop.check(room=100)
    assert rest.checked > 0
    assert rest.finished


@pytest.mark.slow
def test_a_look_costs_a_read_an_item_and_two_small_requests(shop: Shop) -> None:
    shop.app.merge()
    tally, stores = Tally(), shop.app.stores
    before = len(shop.server.requests)
    shop.check(
        objects=CountingObjects(stores.objects, tally),
        documents=CountingDocuments(stores.documents, tally),
    )
    requests = shop.server.requests[before:]
    assert len(requests) == 12
    assert all(r.headers["range"] == "bytes=0-4095" for r in requests if r.path.endswith(".png"))
    used = tally.usage
    assert (used.document_reads, used.document_writes, used.class_a, used.class_b) == (6, 0, 1, 1)


@pytest.mark.slow
def test_two_checks_at_once_do_not_both_stand(shop: Shop) -> None:
    class Other:
        """Another check ends while this one asks."""

        def probe(self, url: str, *, is_image: bool) -> Probed:
            if not shop.app.stores.objects.list("links") or LinkState.load(shop.app.stores.objects)[1] == 0:
                LinkState(day="2026-01-01").save(shop.app.stores.objects, 0)
            return Probed(url=url, permanent_url=url)

    with pytest.raises(Conflict):
        shop.check(fetcher=Other())


@pytest.mark.slow
def test_a_damaged_state_is_named_and_stops_no_crawl(shop: Shop) -> None:
    shop.app.stores.objects.put("links.json", b"{")
    with pytest.raises(CorruptObject, match=r"links\.json cannot be read: .*visor check --repair"):
        shop.check()
    shop.price = 7
    shop.crawl()
    item = shop.item("2")
    assert item is not None
    assert item.price == 7.0


@pytest.mark.slow
def test_what_never_comes_back_is_forgotten(shop: Shop) -> None:
    shop.dies("/p/3", "/3.png")
    shop.days(2)
    assert item_id("shop", "3") in LinkState.load(shop.app.stores.objects)[0].problems
    shop.now += GIVEN_UP_DAYS * DAY
    shop.check()
    assert item_id("shop", "3") not in LinkState.load(shop.app.stores.objects)[0].problems


@pytest.mark.slow
def test_a_probe_reads_no_more_than_it_needs(shop: Shop) -> None:
    shop.answers["/big.png"] = Reply(picture(1) + bytes(5_000_000), headers=PNG)
    assert probe_url(shop.app.fetcher, f"{shop.server.url}/big.png", is_picture=True).state == "there"
    assert probe_url(shop.app.fetcher, f"{shop.server.url}/p/1", is_picture=False).state == "there"


@pytest.mark.slow
def test_the_command_prints_what_it_did(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISOR_HOME", str(shop.settings.home))
    monkeypatch.setenv("VISOR_ALLOW_HOSTS", shop.server.host)
    result = CliRunner().invoke(cli, ["links", "--limit", "3", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout) == {"checked": 3}
    again = CliRunner().invoke(cli, ["links"], catch_exceptions=False)
    assert "3 items checked: 0 moved" in again.stderr
    late = CliRunner().invoke(cli, ["links", "--budget-s", "0"], catch_exceptions=False)
    assert "The time, or what the free tier has left today, is used up: run it again later" in late.stderr


def reads(app: App) -> float:
    """Firestore reads that the meter counted this day."""
    return next(reading.used for reading in app.meter.readings() if reading.resource == "firestore_reads")


@pytest.mark.slow
def test_a_scheduled_crawl_looks_at_links_afterwards(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    home = shop.settings.home
    (home / "visor.toml").write_text(f'[sources.other]\nkind = "feed"\nurl = "{shop.server.url}/feed"\n')
    shop.dies("/2.png", "/p/4")
    settings = msgspec.structs.replace(shop.app.settings, config=home / "visor.toml", links_a_day=0)
    with App(settings) as without:
        assert [run.state for run in without.crawl_due()] == ["complete"]
        assert LinkState.load(without.stores.objects)[1] == 0, "none are wanted"
    with App(msgspec.structs.replace(settings, links_a_day=300)) as app:
        before = reads(app)
        assert app.crawl_due() == [], "nothing is due, and links are looked at all the same"
        state, _ = LinkState.load(app.stores.objects)
        assert (state.checked, len(state.problems)) == (6, 2)
        assert state.of_source("shop") == {"checked": 6, "http_404": 2, "suspect": 2}
        assert app.request_budget.today()[0]["links"] == 12
        used = reads(app) - before
        assert used == pytest.approx(6 * counted().each("link", "firestore_reads"))
    monkeypatch.setenv("VISOR_HOME", str(home))
    monkeypatch.setenv("VISOR_CONFIG", str(home / "visor.toml"))
    shown = CliRunner().invoke(cli, ["sources"], catch_exceptions=False).output
    assert "other (feed)" in shown
    assert "yield: 6 items listed" in shown
