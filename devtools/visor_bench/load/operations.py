"""`visor bench operations`: what crawl, embed, compact and search cost in operations of the free tier.

The real use cases run over real stores with a counter around them. Only the pictures and the model are made up: they
cost no operations, and the stores treat vectors of random directions like any others.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
from PIL import Image

from visor.app import App
from visor.console import as_json, print_json, say
from visor.http.fetch import Probed
from visor.index.search.searcher import Searcher
from visor.ingest.worker import Worker
from visor.link_check import probe as looking
from visor.schema.items import Item, item_id
from visor.schema.search import SearchRequest
from visor.search import item_cache as items
from visor.search.feedback import FeedbackLog
from visor.settings import Settings
from visor.sources.contract import Page
from visor.storage import Stores, open_stores
from visor_bench.load.counting import Tally, Usage, counting
from visor_bench.load.counting import record as write_counted

COMMAND = "visor bench operations --record"
IMAGES = 640
SEARCHES = 1000
LOOKS = 20
READINGS = 100
DIMENSION = 64
PAGE = 100
K = 12
APART_S = 43.0
"""Interval of a thousand searches in twelve hours; longer than an instance goes without polling for news."""

RESOURCES = {
    "class_a": "class_a",
    "class_b": "class_b",
    "firestore_reads": "document_reads",
    "firestore_writes": "document_writes",
    "firestore_deletes": "document_deletes",
    "pubsub_bytes": "message_bytes",
}
"""A resource of counted.json, and the count that measures it."""


@dataclass
class Catalogue:
    """A source of made-up items. `prices` changes metadata, `left` how many are listed."""

    name: str = "bench"
    left: int = IMAGES
    price: float = 1.0

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        start = int(checkpoint["start"]) if checkpoint else 0
        for first in range(start, self.left, PAGE):
            numbers = range(first, min(first + PAGE, self.left))
            last = first + PAGE >= self.left
            yield Page(
                items=tuple(self._item(number) for number in numbers),
                checkpoint=None if last else {"start": first + PAGE},
            )

    def _item(self, number: int) -> Item:
        key = f"product-{number}"
        return Item(
            id=item_id(self.name, key),
            source=self.name,
            key=key,
            image_url=f"https://pictures.example/of/products/{key}.jpg",
            page_url=f"https://shop.example/products/{key}",
            title=f"A product with a name of usual length, number {number}",
            description="What a catalogue says about a product, in a sentence or two of about this length. " * 2,
            price=self.price,
            currency="EUR",
            collection=f"collection {number % 20}",
            country="FR",
        )


@dataclass
class MadeUpModel:
    """Replaces the embedder: unit vectors of random directions, seeded."""

    fingerprint: str = "made-up"
    dimension: int = DIMENSION
    description: Any = field(default_factory=lambda: SimpleNamespace(input_side=32, parts=()))
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))
    label_words: tuple[dict[str, float], ...] = ()

    def check_files(self) -> None:
        """There are none."""

    def embed(self, images: list[Image.Image]) -> Any:
        vectors = self.random.standard_normal((len(images), DIMENSION)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        none = [None] * len(images)
        return SimpleNamespace(vectors=vectors, labels=[()] * len(images), safety=none, probabilities=none)

    def embed_closer(self, image: Image.Image) -> Any:
        return self.embed([image]), self.embed([image])


def picture(item: Item) -> bytes:
    """A small picture of random squares, another one for every item."""
    pixels = np.random.default_rng(int(item.id[:8], 16)).integers(0, 255, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class AllWell:
    """Replaces the fetcher: every URL is still there."""

    def probe(self, url: str, *, is_image: bool) -> Probed:
        return Probed(url=url, permanent_url=url)


def measure(stores: Stores, settings: Settings, *, images: int = IMAGES, searches: int = SEARCHES) -> dict[str, Usage]:
    """What each step used, from an empty index on.

    Args:
        stores: Of an empty index.

    Returns:
        By step: `crawl` (the first), `recrawl` (nothing changed), `embed` (deliveries included), `fresh_shard` (one
        more batch, seen by a running search), `merge`, `merge_one` (of a single batch more), `cold_start` (the first
        search included), `look` (polling for news when there is none: `LOOKS` times), `search` (every item new to the
        instance: the worst), `warm_search` (later ones, polling included), `reading` (of `READINGS` items that are new
        to the instance), `link` (a check of a day's links), and `all` together, with what happens in between.
    """
    tally = Tally()
    counted = counting(stores, tally)
    model: Any = MadeUpModel()
    used: dict[str, Usage] = {}
    fetcher: Any = AllWell()
    app = App(settings, stores=counted, embedder=model, read_image=picture, fetcher=fetcher)
    source = Catalogue(left=images)
    clock = Clock()

    def step(name: str, work: Callable[[], Any]) -> None:
        before = tally.usage
        work()
        used[name] = tally.usage - before

    step("crawl", lambda: app.crawler.crawl(source))
    step("recrawl", lambda: app.crawler.crawl(source))
    step("embed", Worker(counted.queue, app.batch_embedder, threads=1).drain)
    searcher = Searcher(counted.objects, counted.documents, model=model.fingerprint, freshness_s=30.0, clock=clock)
    searcher.refresh()

    def one_batch_more() -> None:
        source.left += settings.batch_size
        app.crawler.crawl(source)
        Worker(counted.queue, app.batch_embedder, threads=1).drain()

    one_batch_more()
    step("fresh_shard", lambda: searcher.refresh(force=True))
    step("merge", app.merge)
    one_batch_more()
    step("merge_one", app.merge)
    searcher = Searcher(counted.objects, counted.documents, model=model.fingerprint, freshness_s=30.0, clock=clock)
    searching = App(settings, stores=counted, embedder=model, fetcher=fetcher, meter=app.meter, searcher=searcher)
    service = searching.search_service()
    service.feedback = FeedbackLog(counted.documents, freshness_s=30.0, clock=clock)

    def go(count: int, remember: int, apart_s: float = 0.0) -> None:
        before, items.ITEMS_REMEMBERED = items.ITEMS_REMEMBERED, remember
        try:
            for _ in range(count):
                clock.seconds += apart_s
                vector = model.embed([picture]).vectors[0]
                service.search(SearchRequest(vector=_text(vector), k=K))
        finally:
            items.ITEMS_REMEMBERED = before

    def look(times: int) -> None:
        for _ in range(times):
            clock.seconds += APART_S
            service.refresh()
            service.feedback.hidden("nothing")

    step("cold_start", lambda: go(1, 0))
    look(1)
    step("look", lambda: look(LOOKS))
    step("search", lambda: go(searches, 0))
    step("warm_search", lambda: go(searches, items.ITEMS_REMEMBERED, APART_S))
    fresh = searching.search_service()
    fresh.refresh()
    step("reading", lambda: [fresh.item(item_id(source.name, f"product-{n}")) for n in range(READINGS)])
    # Politeness costs time, which is not counted here.
    delay_s, looking.DELAY_S = looking.DELAY_S, 0.0
    try:
        step("link", app.crawler.check_links)
    finally:
        looking.DELAY_S = delay_s
    used["all"] = tally.usage
    return used


@dataclass
class Clock:
    """A clock that advances when told to."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


def _text(vector: np.ndarray) -> str:
    import base64

    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def in_thousands(used: Mapping[str, Usage], settings: Settings, images: int, searches: int) -> dict[str, Any]:
    """The steps under the names of counted.json: what a thousand of each operation use."""
    batches = -(-images // settings.batch_size)
    merged = images + settings.batch_size
    delivered = used["crawl"].message_bytes

    def each(usage: Usage, count: float, *resources: str) -> dict[str, float]:
        return {r: round(getattr(usage, RESOURCES[r]) * 1000 / count, 3) for r in resources}

    embed = each(used["embed"], images, "class_a", "class_b", "firestore_reads", "firestore_writes")
    embed["firestore_deletes"] = each(used["embed"], images, "firestore_deletes")["firestore_deletes"]
    embed["pubsub_bytes"] = round((used["embed"].message_bytes + delivered) * 1000 / images, 3)
    # What a merge costs for each batch, and its fixed cost.
    merge, one = used["merge"], used["merge_one"]
    reads = (merge.document_reads - one.document_reads) / batches
    shards = Usage(
        class_b=batches + 1, document_reads=round(reads * (batches + 1)), document_deletes=merge.document_deletes
    )
    return {
        "embed": embed,
        "crawl_run": each(used["recrawl"], 1, "class_a", "class_b", "firestore_reads", "firestore_writes"),
        "compact_run": each(merge - shards, 1, "class_a", "class_b", "firestore_reads", "firestore_writes"),
        "merge": each(shards, merged, "class_b", "firestore_reads", "firestore_deletes"),
        "search": each(used["search"], searches, "class_b", "firestore_reads"),
        "look": each(used["look"], LOOKS, "class_b", "firestore_reads"),
        "reading": each(used["reading"], READINGS, "class_b", "firestore_reads"),
        "link": each(used["link"], settings.links_a_day, "class_a", "class_b", "firestore_reads"),
        "cold_start": {"class_b": each(used["cold_start"], 1, "class_b")["class_b"]},
        "fresh_shard": {"class_b": each(used["fresh_shard"], 1, "class_b")["class_b"]},
    }


@click.command("operations")
@click.option("--record", is_flag=True, help="Write the figures into counted.json, which `visor cost` uses.")
@as_json
def operations_command(record: bool, as_json: bool) -> None:
    """Count the operations of a crawl, of embedding, of a merge and of searches, on embedded stores."""
    import tempfile
    from importlib.resources import files

    with tempfile.TemporaryDirectory(prefix="visor-bench-") as folder:
        settings = Settings(home=Path(folder))
        with open_stores(settings) as stores:
            used = measure(stores, settings)
    thousands = in_thousands(used, settings, IMAGES, SEARCHES)
    if record:
        write_counted(thousands, command=COMMAND, path=Path(str(files("visor.free_tier") / "counted.json")))
    if as_json:
        print_json({"images": IMAGES, "searches": SEARCHES, "used": used, "per_thousand": thousands})
        return
    for name, usage in used.items():
        counts = ", ".join(f"{value:,} {what}" for what, value in usage.as_dict().items() if value)
        say(f"{name:12} {counts}")
