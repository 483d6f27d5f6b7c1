"""Words, attributes, orders, pages and products through Firestore and Cloud Storage: what is merged, fresh, changed and
deleted is asked alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.ingest.test_pipeline_embed import drawing
from tests.unit.ingest.test_pipeline_reindex import OLD as MODEL

from visor.app import App
from visor.ingest.worker import Worker
from visor.schema.push import PushItem
from visor.schema.search import Condition, Filters, SearchAnswer, SearchRequest
from visor.settings import Settings

COLOURS = ("red", "green", "blue")
ITEMS, MERGED = 30, 20


def item(number: int) -> PushItem:
    """Three colours in turn, one maker in five known, prices falling, two items a product."""
    colour = COLOURS[number % 3]
    return PushItem(
        key=str(number),
        title=f"{colour.title()} lamp {number}",
        description="It lights the kitchen." if number % 2 else "It lights the garden.",
        image_url=f"https://shop.example/{number}.png",
        price=100.0 - number,
        currency="EUR",
        group=f"g{number // 2}",
        extra={"colour": colour, "watts": f"{number} W", **({"maker": "Acme"} if number % 5 == 0 else {})},
    )


@pytest.fixture
def app(cloud_settings: Settings, tmp_path: Path) -> Iterator[App]:
    """20 merged items and 10 fresh ones; of the merged, one has another title since, and one is deleted."""
    (tmp_path / "visor.toml").write_text('[attributes]\ncolour = "keyword"\nmaker = "keyword"\nwatts = "number"\n')
    settings = msgspec.structs.replace(
        cloud_settings, home=tmp_path, config=tmp_path / "visor.toml", freshness_s=0.0, batch_size=8
    )
    with open_app(settings) as app:
        push(app, *map(item, range(MERGED)))
        app.merge()
        push(app, *map(item, range(MERGED, ITEMS)))
        push(app, msgspec.structs.replace(item(3), title="Lantern, brass"), PushItem(key="4", deleted=True))
        yield app


def open_app(settings: Settings) -> App:
    return App(settings, embedder=MODEL, read_image=lambda item: drawing(int(item.key)))  # type: ignore[arg-type]


def push(app: App, *items: PushItem) -> None:
    assert app.pusher.push_lines(msgspec.json.Encoder().encode_lines(items)).refused == 0
    Worker(app.stores.queue, app.batch_embedder, threads=1).drain()


def keys(answer: SearchAnswer) -> list[int]:
    return [int(match.item.key) for match in answer.matches]


def ask(app: App, **request: Any) -> SearchAnswer:
    return app.search_service().search(SearchRequest(**request))


def test_words_are_found_in_segments_and_in_what_is_newer(app: App) -> None:
    assert keys(ask(app, text="red lamp 27", k=1)) == [27]
    assert keys(ask(app, text="red lamp 9", k=1)) == [9]
    assert keys(ask(app, text="lantren")) == [3]
    assert not ask(app, text="lamp 4", min_confidence=0.5, group=False).matches
    both = app.search_service().search(SearchRequest(text="blue", group=False, k=1), drawing(8))
    assert keys(both) == [8]
    assert both.matches[0].verdict == "exact"
    assert both.matches[0].highlights


def test_conditions_orders_pages_and_products_hold_together(app: App) -> None:
    lamps = Filters(attributes={"colour": Condition(none=("green",)), "watts": Condition(min=2.0)})
    wanted = [n for n in range(2, ITEMS) if n % 3 != 1 and n not in (3, 4)]
    asked: dict[str, Any] = {"text": "lamp", "filters": lamps, "sort": "price_up", "group": False, "k": 4}
    first = ask(app, **asked, facets=True)
    assert first.total == len(wanted)
    assert first.facets is not None
    colours = {one.value: one.count for one in first.facets.attributes["colour"].values}
    assert colours.keys() == {"red", "blue"}
    assert first.facets.attributes["maker"].missing == first.facets.images - sum(n % 5 == 0 for n in wanted)
    found, after = keys(first), first.next
    # What is deleted between two pages is gone, and nothing comes twice; another instance goes on with the cursor.
    push(app, PushItem(key="23", deleted=True))
    with open_app(app.settings) as other:
        while after:
            page = ask(other, **asked, after=after)
            found, after = found + keys(page), page.next
    assert found == sorted(set(wanted) - {23}, reverse=True)
    unknown = Filters(attributes={"maker": Condition(missing=True)})
    assert all(n % 5 for n in keys(ask(app, text="lamp", filters=unknown, k=50, group=False)))
    grouped = ask(app, text="lamp", sort="price_down", k=50)
    groups = [n // 2 for n in keys(grouped)]
    assert sorted(groups) == sorted({n // 2 for n in range(ITEMS) if n not in (3, 4, 23)})
    assert {match.item.key: [one.item for one in match.product] for match in grouped.matches}["0"]
