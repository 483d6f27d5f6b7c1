"""`kill -9` at every step of crawling, embedding and merging loses nothing and duplicates nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from visor.app import App
from visor.models.embedder import Embedder
from visor.schema.items import item_id
from visor.schema.search import SearchRequest
from visor.settings import Settings

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1200)]
"""Some forty processes, one after the other: minutes on a busy machine."""
PICTURES = 20
PROGRAM = Path(__file__).with_name("killed_index.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree of small pictures, no two alike."""
    random_numbers = np.random.default_rng(5)
    for number in range(PICTURES):
        path = tmp_path / "pictures" / f"kind-{number % 4}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = random_numbers.integers(0, 255, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(blocks).resize((240, 240), Image.Resampling.NEAREST).save(path)
    return tmp_path / "pictures"


def test_killed_at_every_step_every_picture_is_searchable_once(
    folder: Path, tmp_path: Path, built_settings: Settings, embedder: Embedder
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(built_settings.home / "models")
    # Every kill in the middle of a batch counts as an attempt, and here there are many.
    limits = {"VISOR_BATCH_SIZE": "4", "VISOR_EMBED_ATTEMPTS_MAX": "50"}
    where = {"VISOR_HOME": str(home), "VISOR_INDEX": "killed", "VISOR_ALLOW_FOLDERS": str(folder)}
    environ = {**os.environ, **limits, **where}

    def run(*command: str) -> str:
        done = subprocess.run([sys.executable, *command], env=environ, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    indexing, merging = json.loads(run(str(PROGRAM), str(folder)))
    assert indexing > 15, "there are many steps"
    assert merging > 5
    run("-m", "visor", "index", str(folder))
    run("-m", "visor", "compact")

    settings = msgspec.structs.replace(Settings(), home=home, index="killed", freshness_s=0.0)
    with App(settings, embedder=embedder) as app:
        assert app.stores.queue.waiting() == 0
        assert app.stores.queue.dead_letters() == []
        assert app.stores.documents.query("failures") == []
        source = app.open_source("pictures", {"kind": "folder", "path": str(folder)})
        assert app.crawler.crawl(source).unchanged == PICTURES
        service = app.search_service()
        expected = {item_id("pictures", path.relative_to(folder).as_posix()): path for path in folder.rglob("*.png")}
        app.searcher.refresh()
        assert sorted(app.searcher.sample(1000)) == sorted(expected)
        for item, path in expected.items():
            (best,) = service.search(SearchRequest(k=1), path.read_bytes()).matches
            assert best.item.id == item, "no vector belongs to another item"
            vector = app.searcher.vector_of(item)
            assert vector is not None
            picture = Image.open(io.BytesIO(path.read_bytes()))
            assert float(vector @ embedder.embed([picture]).vectors[0]) > 0.999
