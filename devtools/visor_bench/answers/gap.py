"""Searches for visitors' photos in a catalogue of other images, through the real embed, merge and search."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from PIL import Image

from visor.confidence.fit_index import Calibrator
from visor.console import progress
from visor.free_tier.quota import Meter
from visor.http.client import Fetcher
from visor.index.format.container import Array
from visor.index.merge.merge import merge
from visor.index.search.searcher import Searcher
from visor.ingest.embed import BatchEmbedder
from visor.models.embedder import Embedded, Embedder, load_embedder
from visor.schema.items import BATCH_SIZE_MAX, Batch, Change, Item, item_id
from visor.schema.search import SearchRequest
from visor.search.query import Stopwatch
from visor.search.service import SearchService
from visor.search.visitors import VisitorSums, forget_visitors
from visor.settings import Settings
from visor.storage import Stores, open_stores

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PAGE = 12
ASKED = 50
"""How many matches are requested, to find the right one among them."""
VERY_LIKELY = 0.8
DRAWS = 3
"""Several draws, as the choice of the half that is learned from moves a figure by one to three photos."""


class RememberingEmbedder(Embedder):
    """Embeds no image twice: each photo is searched for several times."""

    _seen: dict[bytes, Any]

    def embed(self, images: Sequence[Image.Image]) -> Embedded:
        embed = super().embed
        return embed(images) if len(images) != 1 else self._once(b"", images[0], lambda: embed(images))

    def embed_closer(self, image: Image.Image) -> tuple[Embedded, Embedded]:
        embed = super().embed_closer
        found: tuple[Embedded, Embedded] = self._once(b"closer", image, lambda: embed(image))
        return found

    def _once(self, kind: bytes, image: Image.Image, make: Callable[[], Any]) -> Any:
        self.__dict__.setdefault("_seen", {})
        key = hashlib.blake2b(kind + image.tobytes(), digest_size=16).digest()
        if key not in self._seen:
            self._seen[key] = make()
        return self._seen[key]


@dataclass(frozen=True)
class Article:
    """One entry of the catalogue; `key` is what a map file may name."""

    key: str
    path: Path
    title: str
    collection: str = ""
    category: str = ""
    description: str = ""

    @property
    def id(self) -> str:
        return item_id("bench", self.key)


@dataclass(frozen=True)
class Photo:
    """A query, and which articles are right for it."""

    path: Path
    kind: str
    right: frozenset[str]


@dataclass(frozen=True)
class Asked:
    """The result of one query. Ranks from 0; `ASKED` if the right one is not among that many."""

    rank: int
    plain_rank: int
    confidence: float
    first: float
    shown: bool
    is_across: bool
    stranger: float
    """Confidence when the right articles are removed."""
    stranger_shown: bool


@contextmanager
def index_of(articles: Sequence[Article], settings: Settings) -> Iterator[Bench]:
    """A merged index of the articles in its own folder."""
    own = load_embedder(settings)
    embedder = RememberingEmbedder(own.directory, threads=settings.threads)
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as home:
        settings = msgspec.structs.replace(settings, home=Path(home), backend="local", freshness_s=0.0, audit_rate=0.0)
        with open_stores(settings) as stores:
            bench = Bench(stores, embedder, settings)
            bench.add(articles)
            bench.merge()
            yield bench


class Bench:
    """An index and its search service."""

    def __init__(self, stores: Stores, embedder: Embedder, settings: Settings) -> None:
        self.stores, self.embedder, self.settings = stores, embedder, settings
        self.service = self.new_service()

    def new_service(self) -> SearchService:
        return SearchService(
            searcher=Searcher(
                self.stores.objects, self.stores.documents, model=self.embedder.fingerprint, freshness_s=0.0
            ),
            embedder=self.embedder,
            fetcher=Fetcher(self.settings),
            documents=self.stores.documents,
            settings=self.settings,
            meter=Meter(self.stores.documents, self.settings),
        )

    def add(self, articles: Sequence[Article]) -> None:
        paths = {article.id: article.path for article in articles}
        embed = BatchEmbedder(
            embedder=self.embedder,
            read_image=lambda item: paths[item.id].read_bytes(),
            objects=self.stores.objects,
            documents=self.stores.documents,
            settings=self.settings,
        )
        changes = [
            Change(
                action="embed",
                version=1,
                item=Item(
                    id=a.id,
                    source="bench",
                    key=a.key,
                    image_url=a.path.as_uri(),
                    title=a.title,
                    description=a.description or None,
                    collection=a.collection or None,
                    extra={"category": a.category} if a.category else {},
                ),
            )
            for a in articles
        ]
        with progress("Embedding the catalogue", len(changes)) as done:
            for start in range(0, len(changes), BATCH_SIZE_MAX):
                some = tuple(changes[start : start + BATCH_SIZE_MAX])
                embed.embed(msgspec.json.encode(Batch.of("bench", "bench", some)))
                done(len(some))

    def merge(self) -> None:
        """Merge, and use what was learned from visitors."""
        documents = self.stores.documents
        sums = VisitorSums(documents, self.embedder.fingerprint)
        calibrator = Calibrator(self.stores.objects, learn=sums.fold, label_words=self.embedder.label_words)
        merge(self.stores.objects, documents, model=self.embedder.fingerprint, calibrate=calibrator)
        self.service = self.new_service()
        self.service.refresh()

    def forget(self) -> None:
        forget_visitors(self.stores.documents)
        self.merge()

    def ask(self, photo: Photo) -> Asked:
        """Search for a photo, also by plain vectors, and once more without the articles that are right for it."""
        service, data = self.service, photo.path.read_bytes()
        request = SearchRequest(k=ASKED)
        answer = service.search(request, data)
        found = [{match.item.id, *(place.item for place in match.places)} for match in answer.matches]
        across = service.confidence.across(service.searcher.manifest)
        query = service._query(request, data, Stopwatch(), across)
        plain = service.queries.query(request, data, Stopwatch())
        hits = service.searcher.search(plain.vector, k=ASKED).hits
        across = across if query.is_across else None
        without = service._scan(request, query, photo.right, across)
        stranger = service.confidence.judge(without, [label.name for label in query.labels], across)
        return Asked(
            rank=_rank(found, photo.right),
            plain_rank=_rank([{hit.id, *hit.duplicates} for hit in hits], photo.right),
            confidence=answer.confidence,
            first=answer.matches[0].confidence if answer.matches else 0.0,
            shown=not answer.no_confident_match,
            is_across=query.is_across,
            stranger=max(stranger.held, *stranger.matches[:1], 0.0),
            stranger_shown=stranger.held >= stranger.confident,
        )


def both_halves(bench: Bench, photos: Sequence[Photo]) -> tuple[list[list[Asked]], list[Asked], float]:
    """Search for each photo after the other half, in each of `DRAWS` draws of the halves, and before any other search;
    and how many photos were learned from.

    Photos of things that the catalogue does not have are only learned from.
    """
    before: dict[int, Asked] = {}
    draws, learned = list[list[Asked]](), []
    known = [number for number in range(len(photos)) if photos[number].right]
    with progress("Asking", 2 * DRAWS * len(photos)) as done:
        for seed in range(DRAWS):
            order = np.random.default_rng(seed).permutation(len(photos))
            halves, after = (order[: len(order) // 2], order[len(order) // 2 :]), dict[int, Asked]()
            for visitors, asked in (halves, halves[::-1]):
                for number in visitors:
                    before[number] = bench.ask(photos[number])
                    done(1)
                bench.merge()
                calibration = bench.service.confidence.across(bench.service.searcher.manifest)
                learned.append(calibration.photos if calibration else 0.0)
                for number in asked:
                    if photos[number].right:
                        after[number] = bench.ask(photos[number])
                    done(1)
                bench.forget()
            draws.append([after[i] for i in known])
    return draws, [before[i] for i in known], float(np.mean(learned))


def figures(*draws: Sequence[Asked]) -> dict[str, float]:
    """Shares of the queries, and means over them."""
    asked = [one for draw in draws for one in draw]
    ranks, plain = np.array([a.rank for a in asked]), np.array([a.plain_rank for a in asked])
    shown, first = np.array([a.shown for a in asked]), np.array([a.first for a in asked])
    values = {
        "p_at_1": ranks == 0,
        "p_at_12": ranks < PAGE,
        "mrr": _reciprocal(ranks),
        "plain_p_at_1": plain == 0,
        "plain_p_at_12": plain < PAGE,
        "plain_mrr": _reciprocal(plain),
        "hidden_though_found": ~shown & (ranks < PAGE),
        "shown_wrong": shown & (ranks >= PAGE),
        "very_likely": first >= VERY_LIKELY,
        "very_likely_and_wrong": (first >= VERY_LIKELY) & (ranks > 0),
        "strangers_shown": np.array([a.stranger_shown for a in asked]),
        "across": np.array([a.is_across for a in asked]),
    }
    return {name: round(float(np.mean(value)), 4) for name, value in values.items()}


def _reciprocal(ranks: Array) -> Array:
    return np.where(ranks < ASKED, 1 / (ranks + 1.0), 0.0)


def _rank(found: Sequence[set[str]], right: frozenset[str]) -> int:
    return next((rank for rank, ids in enumerate(found) if ids & right), ASKED)
