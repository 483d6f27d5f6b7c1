"""`kill -9` at any moment of crawling, embedding and compacting loses nothing and duplicates nothing.

The command line runs in a process of its own, which is killed at seeded moments until one run gets to its end.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from visor.app import Assembly
from visor.models.embedder import Embedder
from visor.schema.items import item_id
from visor.schema.search import SearchRequest
from visor.settings import Settings

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1200)]
"""Some twenty processes start, one after the other: minutes on a busy machine."""
PICTURES = 80
ROUNDS = 8


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


def visor(*arguments: str, home: Path, model_home: Path) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "VISOR_HOME": str(home), "VISOR_BATCH_SIZE": "4", "VISOR_INDEX": "killed"}
    # Every kill in the middle of a batch counts as an attempt, and here there are many.
    environ["VISOR_EMBED_ATTEMPTS_MAX"] = "50"
    (home / "models").parent.mkdir(parents=True, exist_ok=True)
    if not (home / "models").exists():
        (home / "models").symlink_to(model_home / "models")
    command = [sys.executable, "-m", "visor", *arguments]
    return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_moment_every_picture_is_searchable_once(
    seed: int, folder: Path, tmp_path: Path, built_settings: Settings, embedder: Embedder
) -> None:
    home = tmp_path / "home"
    moments = random.Random(seed)
    killed = 0
    for _ in range(ROUNDS):
        for arguments, longest_s in ((["index", str(folder)], 1.3), (["compact"], 0.5)):
            process = visor(*arguments, home=home, model_home=built_settings.home)
            try:
                process.communicate(timeout=moments.uniform(0.3, 1.0) * longest_s)
            except subprocess.TimeoutExpired:
                killed += 1
                process.kill()
                process.communicate()
    assert killed >= ROUNDS // 2, "the moments must fall into the work"

    for arguments in (["index", str(folder)], ["compact"]):
        process = visor(*arguments, home=home, model_home=built_settings.home)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()

    settings = msgspec.structs.replace(Settings(), home=home, index="killed", freshness_s=0.0)
    with Assembly(settings, embedder=embedder) as assembly:
        assert assembly.stores.queue.waiting() == 0
        assert assembly.stores.queue.dead_letters() == []
        assert assembly.stores.documents.query("failures") == []
        assert (
            assembly.crawl(assembly.open_source("pictures", {"kind": "folder", "path": str(folder)})).unchanged
            == PICTURES
        )
        service = assembly.search_service()
        expected = {item_id("pictures", path.relative_to(folder).as_posix()): path for path in folder.rglob("*.png")}
        assembly.searcher.refresh()
        assert sorted(assembly.searcher.sample(1000)) == sorted(expected)
        for item, path in expected.items():
            (best,) = service.search(SearchRequest(k=1), path.read_bytes()).matches
            assert best.item.id == item, "no vector belongs to another item"
            vector = assembly.searcher.vector_of(item)
            assert vector is not None
            picture = Image.open(io.BytesIO(path.read_bytes()))
            assert float(vector @ embedder.embed([picture]).vectors[0]) > 0.999
