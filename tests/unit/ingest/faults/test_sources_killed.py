"""`kill -9` at every step of a crawl, for every kind of source: nothing is lost, and nothing repeated that shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.ingest.test_pipeline_push import picture
from tests.unit.sources.catalogue_server import Reply, Request, Server, serving
from tests.unit.sources.site.test_sources_site import Site, html, links, product
from tests.unit.sources.test_sources_video import scene, video
from tests.unit.sources.test_sources_wikidata import museum

from visor.schema.items import Batch
from visor.settings import Settings
from visor.storage import open_stores

pytestmark = pytest.mark.fault

COUNT = 14
PROGRAM = Path(__file__).with_name("killed_crawl.py")


@dataclass
class Catalogue:
    """A catalogue of `COUNT` items: what serves it, how it is configured, and how it loses one item."""

    config: Callable[[str], dict[str, Any]]
    """From the server's address."""
    lose_one: Callable[[], None]
    answer: Callable[[Request], Reply] | None = None

    @contextmanager
    def served(self) -> Iterator[Server | None]:
        with serving(self.answer) if self.answer is not None else nullcontext() as server:
            yield server


def a_feed(home: Path) -> Catalogue:
    keys = list(range(COUNT))

    def answer(request: Request) -> Reply:
        rows = [f"{n}\tNumber {n}\thttp://x.test/{n}.png" for n in keys]
        return Reply("\n".join(["id\ttitle\timage_link", *rows]).encode())

    return Catalogue(lambda url: {"kind": "feed", "url": f"{url}/feed"}, lambda: keys.remove(3), answer)


def a_site(home: Path) -> Catalogue:
    pages: Any = {f"/p/{n}": html(product(f"P{n}", f"/{n}.jpg")) for n in range(COUNT)}
    pages["/"] = html(links(*pages))
    return Catalogue(
        lambda url: {"kind": "site", "url": f"{url}/", "delay_s": 0}, lambda: pages.pop("/p/3"), Site(pages, tags=True)
    )


def a_shop(home: Path) -> Catalogue:
    rows = [{"id": str(n), "image": f"/{n}.png", "title": f"Number {n}"} for n in range(COUNT)]

    def answer(request: Request) -> Reply:
        start = int(request.query["offset"])
        return Reply.json({"rows": rows[start : start + 7]})

    def config(url: str) -> dict[str, Any]:
        return {
            "kind": "shop_api",
            "url": f"{url}/api",
            "items": "rows",
            "paging": {"style": "start", "param": "offset", "count_param": "limit", "count": 7},
            "fields": {"key": "id", "image_url": "image", "title": "title"},
        }

    return Catalogue(config, lambda: rows.pop(3) and None, answer)


def wikimedia(home: Path) -> Catalogue:
    wiki = museum(COUNT)

    def config(url: str) -> dict[str, Any]:
        return {
            "kind": "wikidata",
            "instances_of": ["Q3305213"],
            "query_url": f"{url}/sparql",
            "wikidata_url": f"{url}/wikidata/w/api.php",
            "commons_url": f"{url}/commons/w/api.php",
            "wikipedia_url": f"{url}/{{language}}/w/api.php",
        }

    return Catalogue(config, lambda: wiki.entities.pop(10_021) and None, wiki)


def some_pictures(folder: Path) -> None:
    for n in range(COUNT):
        path = folder / f"kind {n % 3}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(n))


def a_folder(home: Path) -> Catalogue:
    some_pictures(home / "pictures")
    return Catalogue(
        lambda url: {"kind": "folder", "path": str(home / "pictures")},
        lambda: (home / "pictures" / "kind 0" / "3.png").unlink(),
    )


def a_bucket(home: Path) -> Catalogue:
    some_pictures(home / "buckets" / "mine" / "shop")
    options = {"path": str(home / "buckets"), "target_protocol": "file"}
    return Catalogue(
        lambda url: {"kind": "bucket", "url": "dir://mine/shop/", "options": options},
        lambda: (home / "buckets" / "mine" / "shop" / "kind 0" / "3.png").unlink(),
    )


def a_video(home: Path) -> Catalogue:
    scenes = [scene(n) for n in range(COUNT)]
    film = home / "film.mkv"
    film.write_bytes(video(scenes, container="matroska"))
    return Catalogue(
        lambda url: {"kind": "video", "url": str(film), "interval_s": 1},
        lambda: film.write_bytes(video(scenes[:-1], container="matroska")) and None,
    )


@dataclass
class Killed:
    """Runs the program over one catalogue, and knows what is in the queue."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def crawl(self, times: int) -> int:
        """Crawl until so many runs came to their end; how many were killed."""
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(times)],
            env={**os.environ, **self.environ},
            capture_output=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return int(done.stdout)

    def changes(self) -> dict[str, dict[str, set[int]]]:
        """Everything that was published since the last call: ids with versions, by action."""
        found: dict[str, dict[str, set[int]]] = {}
        with open_stores(Settings(home=self.home)) as stores:
            while messages := stores.queue.receive(100, lease_s=600):
                for message in messages:
                    for change in msgspec.json.decode(message.body, type=Batch).changes:
                        found.setdefault(change.action, {}).setdefault(change.item.id, set()).add(change.version)
                    stores.queue.acknowledge(message)
        return found


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize("make", [a_feed, a_site, a_shop, wikimedia, a_folder, a_bucket, a_video])
def test_a_crawl_killed_at_every_step_loses_and_repeats_nothing(
    make: Callable[[Path], Catalogue], tmp_path: Path
) -> None:
    catalogue = make(tmp_path)
    with catalogue.served() as server:
        config = catalogue.config(server.url if server else "")
        lines = [f"{key} = {toml(value)}" for key, value in config.items()]
        (tmp_path / "visor.toml").write_text("\n".join(["[sources.mine]", *lines]), "utf-8")
        killed = Killed(
            tmp_path,
            {
                "VISOR_HOME": str(tmp_path),
                "VISOR_CONFIG": str(tmp_path / "visor.toml"),
                "VISOR_ALLOW_HOSTS": server.host if server else "",
                "VISOR_BATCH_SIZE": "4",
            },
        )
        # The second of the crawls would publish under another version.
        assert killed.crawl(2) > 5, "a crawl has many steps"
        first = killed.changes()
        assert set(first) == {"update" if config["kind"] == "bucket" else "embed"}
        (embedded,) = first.values()
        assert len(embedded) == COUNT, "nothing is lost"
        assert {len(versions) for versions in embedded.values()} == {1}, "what is published again is the same"
        catalogue.lose_one()
        killed.crawl(2)
        after = killed.changes()
        # A frame of the shorter film may be compressed otherwise, and is then another picture.
        assert set(after) - {"delete"} <= ({"embed"} if config["kind"] == "video" else set())
        assert len(after["delete"]) == 1
        assert {len(versions) for of_action in after.values() for versions in of_action.values()} == {1}
