"""Every kind of source from its catalogue to a search's answer: crawl, queue, embed, search, with the real model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import httpx
import msgspec
import pytest
from PIL import Image
from tests.unit.ingest.test_pipeline_push import picture
from tests.unit.sources.catalogue_server import Reply, Request, serving
from tests.unit.sources.test_sources_video import scene, video
from tests.unit.sources.test_sources_wikidata import museum

from visor.app import App
from visor.errors import FetchFailed
from visor.ingest.crawl import Crawl
from visor.ingest.worker import Worker
from visor.models.embedder import Embedder
from visor.schema.items import Batch
from visor.schema.search import SearchAnswer, SearchRequest
from visor.settings import Settings
from visor.web.site import Server as SiteServer
from visor_bench.load.counting import CountingDocuments, CountingObjects, Tally

COUNT = 4
Answer = Callable[[Request], Reply]


def with_pictures(pages: Answer) -> Answer:
    """A catalogue whose pictures are at `/N.png`."""

    def answer(request: Request) -> Reply:
        name = request.path.strip("/").removesuffix(".png")
        if name.isdigit() and request.path.endswith(".png"):
            return Reply(picture(int(name)), headers={"Content-Type": "image/png"})
        return pages(request)

    return answer


def html(body: str) -> Reply:
    return Reply(f"<!doctype html><html><body>{body}</body></html>".encode(), headers={"Content-Type": "text/html"})


def feed(request: Request) -> Reply:
    host = request.headers["host"]
    rows = [f"{n}\tNumber {n}\thttp://{host}/{n}.png\thttp://{host}/p/{n}\t5 USD" for n in range(COUNT)]
    return Reply("\n".join(["id\ttitle\timage_link\tlink\tprice", *rows]).encode())


def site(request: Request) -> Reply:
    if request.path == "/":
        return html("".join(f'<a href="/p/{n}">{n}</a>' for n in range(COUNT)))
    if not request.path.startswith("/p/"):
        return Reply(status=404)
    n = request.path.removeprefix("/p/")
    about = {"@context": "https://schema.org", "@type": "Product", "name": f"Number {n}", "image": f"/{n}.png"}
    return html(f'<script type="application/ld+json">{json.dumps(about)}</script>')


def shop(request: Request) -> Reply:
    rows = [{"id": n, "name": f"Number {n}", "image": f"/{n}.png"} for n in range(COUNT)]
    return Reply.json({"rows": rows if request.query.get("page", "1") == "1" else []})


KINDS: dict[str, tuple[Answer, dict[str, Any]]] = {
    "feed": (feed, {"kind": "feed", "url": "{url}/feed"}),
    "site": (site, {"kind": "site", "url": "{url}/", "delay_s": 0}),
    "shop_api": (
        shop,
        {
            "kind": "shop_api",
            "url": "{url}/api",
            "items": "rows",
            "paging": {"style": "none"},
            "fields": {"key": "to_string(id)", "image_url": "image", "title": "name"},
        },
    ),
}


@pytest.fixture
def app(embedder: Embedder, tmp_path: Path) -> Iterator[App]:
    with made(embedder, tmp_path) as app:
        yield app


def made(embedder: Embedder, home: Path, **settings: Any) -> App:
    return App(Settings(home=home, freshness_s=0.0, **settings), embedder=embedder)


def indexed(app: App, config: dict[str, Any]) -> None:
    """Crawl a source to its end and embed what it published; a second crawl then publishes nothing."""
    source = app.open_source("mine", config)
    run = app.crawler.crawl(source)
    assert (run.state, run.failed) == ("complete", 0)
    Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
    assert app.stores.documents.query("failures") == []
    again = app.crawler.crawl(source)
    assert (again.published, again.updated, again.deleted) == (0, 0, 0)


def found(app: App, data: bytes) -> SearchAnswer:
    return app.search_service().search(SearchRequest(k=3), data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_web_catalogue(kind: str, embedder: Embedder, tmp_path: Path) -> None:
    answer, config = KINDS[kind]
    with serving(with_pictures(answer)) as server, made(embedder, tmp_path, allow_hosts=(server.host,)) as app:
        indexed(app, {**config, "url": config["url"].format(url=server.url)})
        for n in range(COUNT):
            best = found(app, picture(n)).matches[0]
            assert (best.verdict, best.item.title, best.item.source) == ("exact", f"Number {n}", "mine")


@pytest.mark.slow
def test_a_folder(app: App, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "kind").mkdir(parents=True)
    for n in range(COUNT):
        (tmp_path / "pictures" / "kind" / f"Number_{n}.png").write_bytes(picture(n))
    (tmp_path / "visor.toml").write_text(f'[sources.mine]\nkind = "folder"\npath = "{tmp_path / "pictures"}"\n')
    app.settings = msgspec.structs.replace(app.settings, config=tmp_path / "visor.toml")
    indexed(app, {"kind": "folder", "path": str(tmp_path / "pictures")})
    best = found(app, picture(2)).matches[0].item
    assert (best.title, best.collection) == ("Number 2", "kind")


@pytest.mark.slow
def test_a_private_bucket(embedder: Embedder, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    for n in range(COUNT):
        fsspec.filesystem("memory").pipe_file(f"/{name}/Number {n}.png", picture(n))
    with made(embedder, tmp_path, allow_buckets=(f"memory://{name}/",)) as app:
        indexed(app, {"kind": "bucket", "url": f"memory://{name}/"})
        best = found(app, picture(1)).matches[0].item
        assert (best.title, best.image_url) == ("Number 1", ""), "a browser could not open it"


ODD_NAMES = (
    "a b.png", " c.png", "it's \"d\".png", "e~f.png", "g\\h.png", "i#j?k.png", "%41.png", "😀.png",
    "\u00e9.png", "e\u0301.png", "l&m=n+o;p.png", "q.PNG.png",
)  # fmt: skip
"""Two of them are the same word, composed and decomposed."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_names_of_all_kinds_are_indexed_and_shown(kind: str, embedder: Embedder, tmp_path: Path) -> None:
    root, bucket = tmp_path / "pictures", uuid.uuid4().hex
    root.mkdir()
    for n, name in enumerate(ODD_NAMES):
        if kind == "folder":
            (root / name).write_bytes(picture(n))
        else:
            fsspec.filesystem("memory").pipe_file(f"/{bucket}/{name}", picture(n))
    own = {"path": str(root)} if kind == "folder" else {"url": f"memory://{bucket}/"}
    key, value = next(iter(own.items()))
    config = tmp_path / "visor.toml"
    config.write_text(f"[sources.mine]\nkind = '{kind}'\n{key} = '{value}'\n")
    with made(embedder, tmp_path, config=config, allow_buckets=(f"memory://{bucket}/",)) as app:
        indexed(app, {"kind": kind, **own})
        server = SiteServer(app.site({})).start()
        try:
            with httpx.Client(base_url=server.address + "/", timeout=60) as client:
                for n, name in enumerate(ODD_NAMES):
                    best = client.post("/v1/search", files={"image": picture(n)}).json()["matches"][0]
                    assert (best["verdict"], best["item"]["key"]) == ("exact", name)
                    if kind == "folder":
                        shown = client.get(best["item"]["image_url"])
                        assert (shown.status_code, shown.headers["content-type"][:6]) == (200, "image/")
        finally:
            server.stop()


@pytest.mark.slow
def test_a_video_whose_frames_the_page_can_show(app: App, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(video([scene(n) for n in range(COUNT)]))
    indexed(app, {"kind": "video", "url": str(tmp_path / "film.mp4"), "interval_s": 1})
    buffer = io.BytesIO()
    scene(2).save(buffer, "PNG")
    server = SiteServer(app.site({})).start()
    try:
        with httpx.Client(base_url=server.address + "/", timeout=60) as client:
            best = client.post("/v1/search", files={"image": buffer.getvalue()}).json()["matches"][0]["item"]
            assert best["extra"]["seconds"] == "2"
            thumbnail = client.get(best["image_url"])
            assert thumbnail.headers["content-type"] == "image/jpeg"
            assert "immutable" in thumbnail.headers["cache-control"]
            assert Image.open(io.BytesIO(thumbnail.content)).size == (256, 256)
            for wrong in ("0" * 48 + ".jpg", "..%2f..%2fmanifest", "x"):
                assert client.get(f"/v1/thumbnails/{wrong}").status_code == 404
    finally:
        server.stop()


@pytest.mark.slow
def test_wikidata(embedder: Embedder, tmp_path: Path) -> None:
    wiki = museum(COUNT)
    with serving(wiki) as server, made(embedder, tmp_path) as app:
        settings = msgspec.structs.replace(app.settings, allow_hosts=(server.host,))
        config = {
            "kind": "wikidata",
            "instances_of": ["Q3305213"],
            "query_url": f"{server.url}/sparql",
            "wikidata_url": f"{server.url}/wikidata/w/api.php",
            "commons_url": f"{server.url}/commons/w/api.php",
            "wikipedia_url": f"{server.url}/{{language}}/w/api.php",
        }
        app.settings = settings
        order: list[str] = []

        def commons(item: Any) -> bytes:
            # The museum tells addresses at Commons, which no test asks.
            if "://" not in item.image_url:
                raise FetchFailed("no address")
            order.append(item.image_url)
            return picture(sum(map(ord, item.key)))

        app.batch_embedder.read_image = commons
        indexed(app, config)
        assert len(order) == COUNT
        items = app.search_service().sample(COUNT)
        for one in items:
            assert found(app, picture(sum(map(ord, one.item.key)))).matches[0].item.id == one.item.id


def a_big_feed(rows: int) -> Answer:
    """A feed without validators, so that every crawl reads all of it."""
    lines = [f"{n}\tNumber {n}\thttp://x.test/{n}.png\thttp://x.test/p/{n}\t5 USD" for n in range(rows)]
    body = "\n".join(["id\ttitle\timage_link\tlink\tprice", *lines]).encode()
    return lambda request: Reply(body)


@pytest.mark.slow
def test_a_recrawl_of_an_unchanged_feed_costs_few_requests_and_no_read_an_item(
    embedder: Embedder, tmp_path: Path
) -> None:
    rows = int(os.environ.get("FEED_ROWS", "20000"))  # docs/benchmarks-sources.md has 100,000
    with serving(a_big_feed(rows)) as server, made(embedder, tmp_path, allow_hosts=(server.host,)) as app:
        source = app.open_source("big", {"kind": "feed", "url": f"{server.url}/feed"})
        tally = Tally()
        stores = app.stores

        def crawl() -> Any:
            return Crawl(
                source,
                objects=CountingObjects(stores.objects, tally),
                documents=CountingDocuments(stores.documents, tally),
                queue=stores.queue,
                settings=app.settings,
            ).run()

        assert crawl().published == rows
        before, asked = tally.usage, len(server.requests)
        run = crawl()
        used = tally.usage - before
        assert (run.unchanged, run.published) == (rows, 0)
        assert len(server.requests) - asked < 50
        assert used.document_reads == 0
        assert used.document_writes <= 2, "the record of the run, at its start and its end"
        assert used.class_a + used.class_b < 20
        print(f"{rows} rows: {len(server.requests) - asked} requests, {used}")


@pytest.mark.slow
def test_a_feeds_crawl_that_is_killed_loses_and_repeats_nothing(embedder: Embedder, tmp_path: Path) -> None:
    rows = 6_000
    killed = 0
    with serving(a_big_feed(rows)) as server, made(embedder, tmp_path) as app:
        (tmp_path / "visor.toml").write_text(f'[sources.big]\nkind = "feed"\nurl = "{server.url}/feed"\n')
        environ = {**os.environ, "VISOR_HOME": str(tmp_path), "VISOR_CONFIG": str(tmp_path / "visor.toml")}
        environ |= {"VISOR_ALLOW_HOSTS": server.host, "VISOR_INDEX": "default"}
        crawl = [sys.executable, "-m", "visor", "crawl", "big"]
        for more in (1, 5, 20, 40):
            until = app.stores.queue.waiting() + more
            process = subprocess.Popen(crawl, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and app.stores.queue.waiting() < until:
                time.sleep(0.001)
            process.kill()
            process.wait()
            killed += process.returncode == -signal.SIGKILL
        assert killed
        subprocess.run(crawl, env=environ, check=True, capture_output=True, timeout=300)
        changes: dict[str, set[int]] = {}
        while messages := app.stores.queue.receive(100, lease_s=600):
            for message in messages:
                for change in msgspec.json.decode(message.body, type=Batch).changes:
                    changes.setdefault(change.item.id, set()).add(change.version)
        assert len(changes) == rows, "nothing is lost"
        assert {len(versions) for versions in changes.values()} == {1}, "what is published again is the same"
