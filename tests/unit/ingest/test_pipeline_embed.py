"""What embed makes of batches, over real stores and with the real model: once, in any order, and past bad pictures."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.unit.imaging.images_hostile import BAD, GOOD

from visor.errors import (
    CorruptObject,
    FetchFailed,
    FetchRefused,
    FetchUnavailable,
    HostDead,
    HostPaused,
    ImageError,
    StoreUnavailable,
    UndecodableImage,
    UndecodableNow,
    UnsafeImage,
)
from visor.index.search.searcher import Searcher
from visor.ingest.embed import BatchEmbedder, BatchIncomplete, unsafe_image
from visor.ingest.schedule import publish_again
from visor.ingest.worker import Worker
from visor.models.embedder import Embedder
from visor.models.moderation import moderate
from visor.schema.items import Batch, Change, FacetRow, Failure, Item, item_id
from visor.schema.search import Filters
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.storage.documents import Write


def drawing(seed: int) -> bytes:
    """A PNG of coloured shapes, another one for every seed. Its ground is of two colours, so that nothing is cut out of
    it: augmented queries take most of the time that an image needs here."""
    random = np.random.default_rng(seed)
    ground = random.integers(0, 255, 3)
    image = Image.new("RGB", (160, 160), tuple(ground.tolist()))
    draw = ImageDraw.Draw(image)
    draw.rectangle((80, 0, 160, 160), fill=tuple(((ground + 128) % 256).tolist()))
    for _ in range(12):
        x, y, size = random.integers(0, 140, 3).tolist()
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((x, y, x + size // 2 + 8, y + size // 3 + 8), fill=tuple(random.integers(0, 255, 3).tolist()))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def change(key: str, *, version: int = 1, action: Any = "embed", price: float = 1.0) -> Change:
    item = Item(id=item_id("s", key), source="s", key=key, image_url=f"https://x.test/{key}.png", price=price)
    return Change(action=action, item=item, version=version)


def body(*changes: Change) -> bytes:
    return msgspec.json.encode(Batch.of("s", "run", changes))


@dataclass
class Origin:
    """Pictures by key; a key may stand for an error instead."""

    errors: dict[str, Exception] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def read(self, item: Item) -> bytes:
        self.asked.append(item.key)
        if item.key in self.errors:
            raise self.errors[item.key]
        return drawing(self.seeds.get(item.key, sum(map(ord, item.key))))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(Settings(home=tmp_path)) as stores:
        yield stores


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def batches(stores: Stores, origin: Origin, embedder: Embedder) -> BatchEmbedder:
    return BatchEmbedder(
        embedder=embedder,
        read_image=origin.read,
        objects=stores.objects,
        documents=stores.documents,
        settings=Settings(),
    )


@pytest.fixture
def searchable(stores: Stores, embedder: Embedder) -> Callable[[], dict[str, FacetRow | float]]:
    """Key numbers of the index as a fresh search sees it: items, and the price of each by filter."""

    def look() -> dict[str, Any]:
        searcher = Searcher(stores.objects, stores.documents, model=embedder.fingerprint, freshness_s=0)
        searcher.refresh()
        facets = searcher.facets(Filters())
        return {"ids": sorted(searcher.sample(1000)), "count": len(searcher), "price_max": facets.price_max}

    return look


def failures(stores: Stores) -> dict[str, dict[str, Any]]:
    return {document.key: document.data for document in stores.documents.query("failures")}


def test_every_item_becomes_searchable_once_however_often_it_is_delivered(
    batches: BatchEmbedder, origin: Origin, searchable: Any, stores: Stores
) -> None:
    message = body(*(change(str(n)) for n in range(6)))
    assert batches.embed(message).embedded == 6
    shards = [info.name for info in stores.objects.list("shards/")]
    again = batches.embed(message, attempt=2)
    assert (again.embedded, again.already_done) == (0, 6)
    assert origin.asked == sorted(origin.asked, key=origin.asked.index)[:6], "nothing was downloaded twice"
    assert [info.name for info in stores.objects.list("shards/")] == shards
    assert searchable()["ids"] == sorted(item_id("s", str(n)) for n in range(6))


def test_a_bad_picture_is_recorded_with_its_reason_and_stops_nothing(
    batches: BatchEmbedder, origin: Origin, searchable: Any, stores: Stores
) -> None:
    origin.errors = {"1": FetchFailed("The origin answers 404"), "3": FetchFailed("It is HTML")}
    report = batches.embed(body(*(change(str(n)) for n in range(5))))
    assert (report.embedded, report.failed) == (3, 2)
    assert {data["code"] for data in failures(stores).values()} == {"fetch_failed"}
    assert "404" in failures(stores)[item_id("s", "1")]["reason"]
    assert searchable()["count"] == 3


def test_a_slow_origin_keeps_only_its_own_items_waiting(
    batches: BatchEmbedder, origin: Origin, searchable: Any, stores: Stores
) -> None:
    origin.errors = {"1": FetchUnavailable("No answer", retry_after_s=7)}
    message = body(*(change(str(n)) for n in range(4)))
    with pytest.raises(BatchIncomplete) as waits:
        batches.embed(message)
    assert waits.value.retry_after_s == 7
    assert searchable()["count"] == 3
    assert failures(stores)[item_id("s", "1")]["retriable"]
    origin.errors.clear()
    origin.asked.clear()
    assert batches.embed(message, attempt=2).embedded == 1
    assert origin.asked == ["1"]
    assert failures(stores) == {}
    assert searchable()["count"] == 4


def test_an_update_changes_what_is_shown_and_filtered_by_without_a_download(
    batches: BatchEmbedder, origin: Origin, searchable: Any, stores: Stores
) -> None:
    batches.embed(body(change("a"), change("b")))
    origin.asked.clear()
    report = batches.embed(body(change("a", version=2, action="update", price=99.0)))
    assert (report.updated, report.embedded, origin.asked) == (1, 0, [])
    assert searchable()["price_max"] == 99.0
    document = stores.documents.get("items", [item_id("s", "a")])[item_id("s", "a")]
    assert document.data["item"]["price"] == 99.0
    assert document.data["labels"]


def test_an_update_of_an_item_that_never_was_embedded_embeds_it(batches: BatchEmbedder, searchable: Any) -> None:
    assert batches.embed(body(change("a", action="update"))).embedded == 1
    assert searchable()["count"] == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
def test_the_newest_version_wins_in_any_order(
    batches: BatchEmbedder, origin: Origin, searchable: Any, order: tuple[int, ...], stores: Stores
) -> None:
    messages = [
        body(change("a", price=1.0), change("b")),
        body(change("a", version=2, price=2.0), change("b", version=2, action="delete")),
        body(change("a", version=3, price=3.0, action="update")),
    ]
    for number in order:
        batches.embed(messages[number])
    found = searchable()
    assert found["ids"] == [item_id("s", "a")]
    assert found["price_max"] == 3.0
    assert stores.documents.get("items", [item_id("s", "b")])[item_id("s", "b")].data["gone"]


def test_a_deleted_item_can_come_back(batches: BatchEmbedder, searchable: Any) -> None:
    for message in (body(change("a")), body(change("a", version=2, action="delete"))):
        batches.embed(message)
    assert searchable()["count"] == 0
    batches.embed(body(change("a", version=3)))
    assert searchable()["count"] == 1


@pytest.mark.parametrize(
    ("error", "is_certain"),
    [
        (FetchFailed("The origin answers 403", status=403), False),
        (FetchFailed("The origin answers 410", status=410), False),
        (UndecodableNow("This is an HTML page, not a picture"), False),
        (UndecodableImage("The JPEG file is broken"), True),
        (FetchRefused("It is outside the folders", remedy="Name it in VISOR_ALLOW_FOLDERS"), False),
    ],
)
def test_an_item_whose_new_picture_fails_is_found_with_its_old_one(
    error: ImageError, is_certain: bool, batches: BatchEmbedder, origin: Origin, searchable: Any, stores: Stores
) -> None:
    batches.embed(body(change("a"), change("b")))
    origin.errors = {"a": error}
    batches.embed(body(change("a", version=2)))
    assert searchable()["count"] == 2
    failure = failures(stores)[item_id("s", "a")]
    assert (failure.get("certain", False), failure.get("next_at") is None) == (is_certain, is_certain)
    origin.errors = {}
    batches.embed(body(change("a", version=3)))
    assert failures(stores) == {}


def test_an_item_whose_new_picture_is_unsafe_is_no_longer_shown(
    batches: BatchEmbedder, origin: Origin, searchable: Any
) -> None:
    batches.embed(body(change("a"), change("b")))
    origin.errors = {"a": UnsafeImage("The safety head says porn")}
    batches.embed(body(change("a", version=2)))
    assert searchable()["ids"] == [item_id("s", "b")]


@pytest.mark.slow
def test_vectors_belong_to_their_items(
    batches: BatchEmbedder, origin: Origin, embedder: Embedder, stores: Stores
) -> None:
    origin.errors = {"2": FetchFailed("404")}
    batches.embed(body(*(change(str(n)) for n in range(7))))
    searcher = Searcher(stores.objects, stores.documents, model=embedder.fingerprint, freshness_s=0)
    searcher.refresh()
    for key in ("0", "1", "3", "6"):
        picture = Image.open(io.BytesIO(origin.read(change(key).item)))
        vector = searcher.vector_of(item_id("s", key))
        assert vector is not None
        assert float(vector @ embedder.embed([picture]).vectors[0]) > 0.999


def test_a_message_that_is_no_batch_says_so(batches: BatchEmbedder) -> None:
    with pytest.raises(CorruptObject, match="not a batch"):
        batches.embed(b"not a batch")


class Faulty:
    """A store that stops answering at its n-th call, before or after doing what was asked."""

    def __init__(self, store: Any, method: str, *, fail_at: int, after: bool) -> None:
        self._store, self._method, self._fail_at, self._after = store, method, fail_at, after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name != self._method:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls != self._fail_at:
                return real(*args, **kwargs)
            if self._after:
                real(*args, **kwargs)
            raise StoreUnavailable(f"{name} does not answer")

        return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("store", "method"), [("documents", "get"), ("objects", "put"), ("documents", "commit")])
def test_a_store_that_fails_at_any_step_leaves_a_batch_that_can_be_repeated(
    store: str, method: str, after: bool, stores: Stores, origin: Origin, embedder: Embedder, searchable: Any
) -> None:
    parts = {"objects": stores.objects, "documents": stores.documents}
    faulty = {**parts, store: Faulty(parts[store], method, fail_at=1, after=after)}
    settings = Settings()
    message = body(*(change(str(n)) for n in range(3)))
    broken = BatchEmbedder(embedder=embedder, read_image=origin.read, settings=settings, **faulty)
    with pytest.raises(StoreUnavailable):
        broken.embed(message)
    whole = BatchEmbedder(embedder=embedder, read_image=origin.read, settings=settings, **parts)
    whole.embed(message, attempt=2)
    assert searchable()["ids"] == sorted(item_id("s", str(n)) for n in range(3))
    assert len(list(stores.objects.list("shards/"))) == 1
    assert failures(stores) == {}


def test_a_worker_retries_records_what_stays_away_and_empties_the_queue(
    batches: BatchEmbedder,
    origin: Origin,
    searchable: Any,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("visor.ingest.worker.BACK_OFF_S", 0.01)
    batches.settings = settings = Settings(home=tmp_path / "queue", embed_attempts_max=3)
    with open_stores(settings) as own:
        origin.errors = {"1": FetchUnavailable("No answer")}
        own.queue.publish([body(change("0"), change("1")), b"not a batch", body(change("2"))])
        Worker(own.queue, batches).drain()
        assert [letter.body for letter in own.queue.dead_letters()] == [b"not a batch"]
        assert searchable()["count"] == 2
        pauses = []
        for _ in range(3):
            away = msgspec.convert(*failures(stores).values(), Failure)
            assert (away.code, away.retriable) == ("fetch_unavailable", False)
            pauses.append((away.next_at or 0) - time.time())
            publish_again(stores.documents, own.queue, [away], batch_size=9, now=datetime.now(UTC))
            Worker(own.queue, batches).drain()
        assert [round(pause_s / 86_400) for pause_s in pauses] == [1, 2, 4], "the pause grows"
        origin.errors.clear()
        publish_again(
            stores.documents, own.queue, [msgspec.convert(away, Failure)], batch_size=9, now=datetime.now(UTC)
        )
        Worker(own.queue, batches).drain()
        assert searchable()["count"] == 3
        assert failures(stores) == {}


@pytest.mark.parametrize(
    ("errors", "counts"),
    [
        ({"1": FetchUnavailable("No answer")}, True),
        ({"1": FetchUnavailable("No answer"), "2": HostPaused("left alone", retry_after_s=9)}, True),
        ({"1": HostPaused("left alone", retry_after_s=9), "2": HostPaused("left alone", retry_after_s=60)}, False),
        ({"1": HostPaused("left alone", retry_after_s=3600)}, True),
        ({"1": HostDead("left alone", retry_after_s=9)}, True),
    ],
)
def test_a_try_counts_that_asked_an_origin_in_vain(
    errors: dict[str, Exception], counts: bool, batches: BatchEmbedder, origin: Origin
) -> None:
    origin.errors = errors
    message = body(*map(change, errors))
    with pytest.raises(BatchIncomplete) as incomplete:
        batches.embed(message)
    assert incomplete.value.counts is counts
    with pytest.raises(BatchIncomplete) as some:
        batches.embed(body(*map(change, [*errors, "9"])))
    assert not some.value.counts, "it embedded something"


def test_a_last_try_waits_for_a_host_that_a_neighbour_had_left_alone(
    stores: Stores, batches: BatchEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item that nobody asked for was recorded as failed, since others of its host had just answered 429."""
    asked: list[str] = []

    def read(item: Item) -> bytes:
        asked.append(item.key)
        if len(asked) == 1:
            raise HostPaused("left alone", retry_after_s=0.01)
        return drawing(1)

    monkeypatch.setattr(batches, "read_image", read)
    assert batches.embed(body(change("1")), attempt=batches.settings.embed_attempts_max).embedded == 1
    assert (asked, failures(stores)) == (["1", "1"], {})


@pytest.mark.slow
def test_writes_stay_below_what_one_commit_takes(stores: Stores, embedder: Embedder, origin: Origin) -> None:
    counts: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(stores.documents, name)

        def commit(self, writes: list[Write]) -> list[bool]:
            counts.append(len(writes))
            return stores.documents.commit(writes)

    batches = BatchEmbedder(
        embedder=embedder,
        read_image=origin.read,
        objects=stores.objects,
        documents=Counting(),  # type: ignore[arg-type]
        settings=Settings(),
    )
    origin.errors = {str(n): FetchFailed("404") for n in range(0, 64, 2)}
    batches.embed(body(*(change(str(n)) for n in range(64))))
    batches.embed(body(*(change(str(n), version=2) for n in range(64))), attempt=2)
    assert len(counts) == 2
    assert max(counts) < 250


# Pillow warns of what it reads past, and only here is a warning an error.
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_no_hostile_file_stops_a_batch(stores: Stores, embedder: Embedder, searchable: Any, tmp_path: Path) -> None:
    files = {
        **{f"good-{n}": data for n, (data, _) in GOOD.items()},
        **{f"bad-{n}": data for n, (data, _) in BAD.items()},
    }
    batches = BatchEmbedder(
        embedder=embedder,
        read_image=lambda item: files[item.key],
        objects=stores.objects,
        documents=stores.documents,
        settings=Settings(unsafe_item=2.0),
    )
    keys = sorted(files)
    for start in range(0, len(keys), 64):
        batches.embed(body(*(change(key) for key in keys[start : start + 64])))
    expected = {item_id("s", key) for key in keys if key.startswith("good-")}
    found = {key: data for key, data in failures(stores).items() if data["code"] != "nothing_to_compare"}
    assert len(files) > 60
    assert found.keys() == {item_id("s", key) for key in keys} - expected, found.values()
    assert set(searchable()["ids"]) == expected
    assert set(found) == {item_id("s", key) for key in keys} - expected
    assert all(len(data["reason"]) > 20 and data["code"] == "undecodable_image" for data in found.values())


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"hentai": 0.70, "porn": 0.23, "sexy": 0.02}, "0.94 (hentai 0.70 + porn 0.23 + half of sexy 0.02)"),
        ({"hentai": 0.0, "porn": 0.851, "sexy": 0.0}, "0.8505 (hentai 0.00 + porn 0.85 + half of sexy 0.00)"),
    ],
)
def test_a_refusal_names_the_number_that_was_judged(seen: dict[str, float], said: str) -> None:
    """Never one that is below what is called valid."""
    threshold = 0.8505
    safety = moderate(seen, threshold)
    assert safety is not None
    assert safety.unsafe
    error = unsafe_image(safety, threshold)
    assert str(error).startswith(f"The safety head gives it the score {said}. Valid: A score below 0.8505. ")
