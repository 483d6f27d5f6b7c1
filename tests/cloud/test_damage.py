"""Each damage to what is in Cloud Storage and Firestore: seen, named and mended, as docs/operations.md says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.check.damages import DAMAGES
from tests.unit.check.test_damage import MERGED, ROWS
from tests.unit.ingest.test_pipeline_embed import drawing
from tests.unit.ingest.test_pipeline_reindex import OLD as MODEL

from visor.app import App
from visor.errors import VisorError
from visor.ingest.worker import Worker
from visor.schema.search import SearchRequest

pytestmark = pytest.mark.usefixtures("looked_at_once")

HERE = (
    *("manifest-missing", "segment-truncated", "segment-missing", "projection-damaged", "shard-missing"),
    *("commit-missing", "commit-damaged", "item-unreadable", "items-missing", "current-model-missing"),
    *("tries-damaged", "seen-set-missing"),
)
"""Something missing or damaged of each kind. The others are tested on the embedded stores: the contract is the same."""

Opened = Callable[[], App]


@pytest.fixture(scope="module")
def opened(emulators: object, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Opens an index on the emulators: segments, a projection, a seen-set. One for all damages: each test mends what it
    does."""
    from tests.emulated import cloud_settings

    folder = tmp_path_factory.mktemp("pictures")
    made = cloud_settings.__wrapped__(emulators)  # type: ignore[attr-defined]
    settings = msgspec.structs.replace(made, allow_folders=(str(folder),), batch_size=16, freshness_s=0.0)

    def app() -> App:
        return App(settings, embedder=MODEL)  # type: ignore[arg-type]

    for number in range(MERGED):
        (folder / f"{number}.png").write_bytes(drawing(number))
    with app() as first:
        crawl(first, folder)
        first.merge()
    return app


def crawl(app: App, folder: Path) -> None:
    source = app.open_source("pictures", {"kind": "folder", "path": str(folder)})
    app.crawler.crawl(source)
    Worker(app.stores.queue, app.batch_embedder, threads=1).drain()


@pytest.mark.parametrize("damage", HERE)
def test_a_damage_is_seen_named_and_mended(damage: str, opened: Opened) -> None:
    seen, _, then, _ = ROWS[damage]
    with opened() as app:
        folder = Path(app.settings.allow_folders[0])
        count = len(list(folder.iterdir()))
        (folder / f"{count}.png").write_bytes(drawing(count))
        crawl(app, folder)
        DAMAGES[damage](app.stores)
    with opened() as app:
        service = app.search_service()
        if "an error" in seen and "notice" not in seen:
            with pytest.raises(VisorError, match="visor check"):
                service.search(SearchRequest(k=1), drawing(3))
        elif "error" not in seen:
            asked = SearchRequest(k=1, text="3" if "words" in damage else None)
            answer = service.search(asked, None if asked.text else drawing(3))
            assert "notice" not in seen or "visor check" in str(answer.notice)
        assert app.check().found
    with opened() as app:
        report = app.check(repair=True)
        assert report.found
        Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
        if "visor index" in then:
            crawl(app, folder)
        app.merge()
    with opened() as app:
        assert app.check().found == ()
        service = app.search_service()
        service.refresh()
        assert len(app.searcher) == count + 1
        assert app.searcher.notice is None
        for number in (0, 77, MERGED, count):
            answer = service.search(SearchRequest(k=1), drawing(number))
            assert answer.matches[0].item.key == f"{number}.png"
