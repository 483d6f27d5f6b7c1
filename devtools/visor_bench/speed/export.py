"""`visor bench export`: the size of an export, and how a browser searches it over a slow line."""

from __future__ import annotations

import functools
import gzip
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import numpy as np

from visor.console import as_json, say
from visor.errors import SettingsError
from visor.export.export import Exporter, page_folder, site_in
from visor.export.files import DATA, GRACE_S, MANIFEST
from visor.index.format.container import Array, Container
from visor.index.format.ids import id_text
from visor.index.search.reader import IndexReader
from visor.index.search.snapshot import Snapshot
from visor.models.store import model_directory, read_manifest
from visor.schema.collections import ITEMS
from visor.schema.items import IndexedItem, Item, Label, as_document
from visor.search.item_cache import ItemCache
from visor.settings import Settings
from visor.storage.documents import WRITES_MAX, Put
from visor.storage.local.documents import SqliteDocuments
from visor.web.site import PAGE
from visor_bench.base import PHOTOS, base_vectors, print_figures, vector_options
from visor_bench.speed.search import index as search_index
from visor_bench.speed.search.process import MODEL, open_index
from visor_bench.speed.words import titles

LINE_BITS = 20_000_000
LATENCY_S = 0.02
"""Bits a second of the line: as fast as a mobile one on an average day."""
VISIT_MAX_S = 120.0
PAUSE_S = 1.5
"""Pause between two searches: nobody searches faster."""
SEARCHES = 5
MATCH, PICTURE = ".card[data-verdict]", "[data-testid=file]"
LISTEN = """(() => {
  window.timings = [];
  const note = (one, depth = 0) => {
    if (one === null || typeof one !== "object" || ArrayBuffer.isView(one) || depth > 3) return;
    if (one.timing_ms) window.timings.push(one.timing_ms);
    else for (const inner of Object.values(one)) note(inner, depth + 1);
  };
  window.Worker = class extends window.Worker {
    constructor(...how) {
      super(...how);
      this.addEventListener("message", ({ data }) => note(data));
    }
  };
})()"""
"""Notes the times in the workers' answers."""
CHANGED = 0.01
"""Share of the items whose price changes before the second export."""


@click.command("export")
@click.option("--images", default=100_000, show_default=True, type=click.IntRange(min=100))
@vector_options
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Build here and keep it (default: /tmp)."
)
@click.option("--browser/--no-browser", default=True, help="Also visit it with Chromium.")
@as_json
def export_command(
    images: int,
    pictures: Path | None,
    file: Path | None,
    model: str | None,
    keep: Path | None,
    browser: bool,
    as_json: bool,
) -> None:
    """Size of an export of made vectors, and times of first and second visits at 20 Mbit/s."""
    base, origin = base_vectors(pictures, file, model)
    say(f"{len(base)} base vectors of {base.shape[1]} numbers: {origin}")
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as folder:
        home = keep or Path(folder)
        document = measure(images, base, home, say, model)
        if browser:
            document |= visited(home / "site", pictures or PHOTOS, say)
    document["vectors"] = origin
    print_figures(document, as_json)


def measure(
    images: int, base: Array, home: Path, say: Callable[[str], None], model: str | None = None
) -> dict[str, Any]:
    """Build an index of `images` made vectors under `home` and export it into `home/site`, twice.

    Args:
        model: Which one the export holds; it has to be that of `base` if a browser is to search by picture.

    Returns:
        `bytes` of codes, hashes and columns, that is all but items, pictures and model; `first_visit_bytes`,
        `pages_bytes`, `model_bytes`; `export_s`; `again_s`, `again_files` and `again_bytes` of an export after
        `CHANGED` of the items changed.
    """
    if not (home / "objects").is_dir():
        search_index.build(home, base, images, say)
    objects, documents = open_index(home)
    news = IndexReader(objects, documents, MODEL).poll()
    assert news is not None
    snapshot = news.snapshot
    describe(snapshot, documents, titles(images))
    say("exporting")
    shutil.rmtree(home / "site", ignore_errors=True)
    took, report = exported(snapshot, documents, home / "site", model, now=0.0)
    reprice(snapshot, documents)
    again_s, again = exported(snapshot, documents, home / "site", model, now=GRACE_S)
    return {
        "images": report.images,
        "bytes": report.bytes["index"],
        "first_visit_bytes": report.bytes["first_visit"],
        "pages_bytes": report.bytes["pages"],
        "model_bytes": report.bytes["model"],
        "manifest_bytes": report.bytes["manifest"],
        "export_s": round(took, 1),
        "again_s": round(again_s, 1),
        "again_files": again.written,
        "again_bytes": again.written_bytes,
    }


def exported(
    snapshot: Snapshot, documents: SqliteDocuments, folder: Path, name: str | None, *, now: float
) -> tuple[float, Any]:
    settings = Settings.read()
    model = model_directory(settings, name or settings.model)
    exporter = Exporter(
        snapshot=snapshot,
        fingerprint=read_manifest(model).fingerprint,
        items=ItemCache(documents).get,
        feedback=(),
        model=model,
        label_words=[],
        page=page_folder(PAGE),
        config={"title": "Bench"},
        settings=settings,
        read_image=None,
    )
    began = time.perf_counter()
    with site_in(folder) as site:
        report = exporter.write(site, now=now)
    return time.perf_counter() - began, report


def describe(snapshot: Snapshot, documents: SqliteDocuments, said: list[str]) -> None:
    """Write the document of every item, with the fields of a shop's items."""
    ids = [id_text(row) for live in snapshot.blocks for row in live.block.ids]
    for start in range(0, len(ids), WRITES_MAX):
        some = zip(ids[start : start + WRITES_MAX], said[start : start + WRITES_MAX], strict=True)
        puts = [Put(collection=ITEMS, key=key, data=as_document(item_of(key, title))) for key, title in some]
        documents.commit(puts)


def item_of(key: str, title: str, price: float = 19.9) -> IndexedItem:
    item = Item(
        id=key,
        source="bench",
        key=key[:12],
        image_url=f"https://shop.example/pictures/{key[:16]}.jpg",
        page_url=f"https://shop.example/products/{title.lower().replace(' ', '-')}-{key[:8]}",
        title=title,
        price=price + int(key[:2], 16),
        currency="EUR",
        collection=f"collection {int(key[:4], 16) % 200}",
        date="2024-05-11",
        extra={"brand": title.partition(" ")[0], "availability": "in stock"},
    )
    labels = tuple(Label(name=f"label {int(key[n : n + 3], 16) % 1000}", probability=0.3) for n in (4, 7, 10))
    return IndexedItem(
        item=item, version=1, model=MODEL, shard="", indexed_at="2026-11-26", width=800, height=600, labels=labels
    )


def reprice(snapshot: Snapshot, documents: SqliteDocuments) -> None:
    ids = [id_text(row) for live in snapshot.blocks for row in live.block.ids]
    chosen = np.random.default_rng(9).choice(len(ids), round(CHANGED * len(ids)), replace=False)
    for start in range(0, len(chosen), WRITES_MAX):
        some = [ids[place] for place in chosen[start : start + WRITES_MAX]]
        documents.commit([Put(collection=ITEMS, key=i, data=as_document(item_of(i, "Repriced", 5.0))) for i in some])


def visited(site: Path, pictures: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Visit an export with Chromium, through a line of `LINE_BITS` and `LATENCY_S`.

    Returns:
        `first_visit_s`: from the address to the matches of a first search, for what is like an item, with nothing kept;
        `first_picture_s`: to those of a picture, in a profile of its own, so with the model; `second_…`: the same in a
        new tab of that profile. `search_ms`: median from a picture on the page to its matches. `scan_ms`: median from
        its vector to what is nearest and how sure that is, as the answers' `timing_ms` says. `tab_mb`: what the tab's
        process holds for itself, afterwards.
    """
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SettingsError("There is no Chromium on this machine", remedy="Install it, or use --no-browser")
    photos = sorted(pictures.rglob("*.jp*g"))[: SEARCHES + 1]
    document: dict[str, Any] = {}
    with served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for what in ("visit", "picture"):
            context = browser.new_context()
            context.add_init_script(LISTEN)
            for number in ("first", "second"):
                page = context.new_page()
                page.set_default_timeout(VISIT_MAX_S * 1000)
                began = time.perf_counter()
                page.goto(f"{address}/#item={an_item(site)}" if what == "visit" else address)
                if what == "picture":
                    page.set_input_files(PICTURE, photos[0])
                page.wait_for_selector(MATCH)
                document[f"{number}_{what}_s"] = round(time.perf_counter() - began, 2)
                say(f"{number} {what}: {document[f'{number}_{what}_s']} s")
                if (what, number) == ("picture", "second"):
                    document |= timed(page, photos[1:]) | {"tab_mb": tab_mb(browser)}
                page.close()
            context.close()
        browser.close()
    return document


def timed(page: Any, photos: list[Path]) -> dict[str, Any]:
    """Search for each photo, `PAUSE_S` after the one before was answered: the device looks for its parts in between."""
    search_ms, scan_ms = [], []
    for photo in photos:
        time.sleep(PAUSE_S)
        known = page.evaluate("window.timings.length")
        began = time.perf_counter()
        page.set_input_files(PICTURE, photo)
        page.wait_for_function("known => window.timings.length > known", arg=known)
        page.wait_for_selector(f".results[aria-busy=false] {MATCH}")
        search_ms.append((time.perf_counter() - began) * 1000)
        timing = page.evaluate("window.timings.at(-1)")
        scan_ms.append(timing["scan"] + timing.get("confidence", 0.0))
    return {"search_ms": round(float(np.median(search_ms)), 1), "scan_ms": round(float(np.median(scan_ms)), 1)}


def tab_mb(browser: Any) -> int:
    """Private memory of the largest renderer in MB (10⁶ bytes)."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    held = [0]
    for process in processes:
        if process["type"] == "renderer":
            lines = Path(f"/proc/{process['id']}/smaps_rollup").read_text().splitlines()
            held.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024)
    return round(max(held) / 1e6)


def an_item(site: Path) -> str:
    """The id of an item in the middle of the export."""
    part = json.loads((site / MANIFEST).read_bytes())["parts"][0]
    data = (site / DATA / part["pages"][len(part["pages"]) // 2]).read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    items: list[dict[str, Any]] = Container.open("page", memoryview(data), kind="export_page").json("items", list)
    return str(items[0]["item"]["id"])


class Line:
    """A line that carries this many bytes a second, whoever sends them.

    The DevTools' own throttle leaves out what workers fetch, which is nearly all here.
    """

    def __init__(self, bytes_a_second: float) -> None:
        self._rate, self._free_at, self._lock = bytes_a_second, 0.0, threading.Lock()

    def carry(self, count: int) -> None:
        with self._lock:
            self._free_at = max(self._free_at, time.perf_counter()) + count / self._rate
            wait = self._free_at - time.perf_counter()
        time.sleep(max(0.0, wait))


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The URL of the folder, served like `python -m http.server`, through one `Line`."""
    line = Line(LINE_BITS / 8)

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def copyfile(self, source: Any, outputfile: Any) -> None:
            time.sleep(LATENCY_S)
            while block := source.read(16_384):
                line.carry(len(block))
                outputfile.write(block)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
