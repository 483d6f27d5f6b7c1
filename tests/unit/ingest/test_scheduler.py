"""`visor serve --crawl`: one process that crawls, embeds, merges and serves, whenever it is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import numpy as np
import pytest
from PIL import Image

from visor.app import App
from visor.errors import StoreUnavailable
from visor.ingest.batch_plan import EmbedReport
from visor.ingest.worker import Scheduler, Worker
from visor.models.embedder import Embedder
from visor.schema.items import item_id
from visor.schema.search import SearchRequest
from visor.settings import Settings

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1800)]
PICTURES = 40
KILLS = int(os.environ.get("TEST_BOX_KILLS", "3"))


class Waiting:
    """A queue in which nothing, or something, waits."""

    def __init__(self, batches: int = 0) -> None:
        self.batches = batches

    def waiting(self) -> int:
        return self.batches


@pytest.mark.parametrize(
    ("report", "batches", "merges"),
    [
        (EmbedReport(embedded=1), 0, True),
        (EmbedReport(updated=1), 0, True),
        (EmbedReport(deleted=1), 0, True),
        (EmbedReport(already_done=9, failed=2), 0, False),
        (EmbedReport(embedded=1), 3, False),
        (EmbedReport(embedded=5_000), 3, True),
    ],
)
def test_merges_whatever_changed_and_again_after_a_failure(report: EmbedReport, batches: int, merges: bool) -> None:
    ends: list[Exception | None] = [None, OSError("No space left"), StoreUnavailable("It is away"), None]
    merged = []

    def merge() -> str:
        merged.append(len(merged))
        if error := ends[len(merged) - 1]:
            raise error
        return "merged"

    queue: Any = Waiting()
    scheduler = Scheduler(queue, cast(Any, None), crawl_due=list, merge=merge)
    scheduler._merge_if_due()
    assert len(merged) == 1, "what an earlier process left"
    scheduler._count(report)
    queue.batches = batches
    for _ in range(5):
        with suppress(OSError, StoreUnavailable):
            scheduler._merge_if_due()
    assert len(merged) == (4 if merges else 1)


def test_a_worker_goes_on_after_an_error() -> None:
    """A database that was locked for half a minute ended the embedding of `visor serve --crawl` for good."""
    asked: list[str] = []

    class Away(Waiting):
        def receive(self, limit: int, *, lease_s: float) -> list[Any]:
            asked.append("receive")
            raise StoreUnavailable("It is locked")

    worker = Worker(cast(Any, Away()), cast(Any, None), threads=1, check=lambda: asked.append("check"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="locked"):
            worker.work()
    assert asked == ["check", "receive"] * 2
    worker.stop()
    worker.work()


class Box:
    """`visor serve --crawl` over a folder of pictures that are no two alike."""

    def __init__(self, place: Path, models: Path) -> None:
        self.home, self.pictures = place / "home", place / "pictures"
        self.home.mkdir()
        (self.home / "models").symlink_to(models)
        self.pictures.mkdir()
        numbers = np.random.default_rng(5)
        for number in range(PICTURES):
            blocks = numbers.integers(0, 255, (6, 6, 3)).astype(np.uint8)
            picture = Image.fromarray(blocks).resize((240, 240), Image.Resampling.NEAREST)
            picture.save(self.pictures / f"{number:02}.png")
        config = place / "visor.toml"
        config.write_text(f'[sources.mine]\nkind = "folder"\npath = {json.dumps(str(self.pictures))}\n')
        limits = {"VISOR_BATCH_SIZE": "4", "VISOR_EMBED_ATTEMPTS_MAX": "50"}
        where = {"VISOR_HOME": str(self.home), "VISOR_INDEX": "box", "VISOR_CONFIG": str(config)}
        self.environ = {**os.environ, **limits, **where}
        self.log = place / "log"

    def start(self) -> tuple[subprocess.Popen[bytes], str]:
        """The process and its address."""
        command = [sys.executable, "-m", "visor", "serve", "--crawl", "--port", "0", "--log", str(self.log)]
        said = self.log.with_name("said")
        with said.open("wb") as file:
            process = subprocess.Popen(command, env=self.environ, stderr=file)
        while " is at http" not in said.read_text():
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        return process, said.read_text().split(" is at ")[1].split()[0]

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "visor", *command]
        environ = self.environ | environ
        return subprocess.run(whole, env=environ, capture_output=True, text=True, timeout=120, check=False)

    def images(self, address: str) -> int:
        return int(httpx.get(f"{address}/v1/stats", timeout=30).json()["images"])


@pytest.fixture
def box(tmp_path: Path, built_settings: Settings) -> Box:
    return Box(tmp_path, built_settings.home / "models")


def test_killed_at_random_moments_nothing_is_lost_or_twice(box: Box, embedder: Embedder) -> None:
    moments = random.Random(11)
    for _ in range(KILLS):
        process, _address = box.start()
        time.sleep(moments.uniform(0, 4))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    process, address = box.start()
    try:
        # What was in hand when three processes ended is suspected of having ended them, until its owner says otherwise.
        retried = box.run("failures", "--retry")
        assert retried.returncode == 0, retried.stderr
        ends_at = time.monotonic() + 300
        while box.images(address) < PICTURES:
            assert time.monotonic() < ends_at, box.log.read_text()
            time.sleep(0.5)
        other = box.run("serve", "--crawl", "--port", "0")
        assert other.returncode == 1
        assert "visor serve --crawl of index 'box' runs already" in other.stderr
        backup = box.run("backup", str(box.home / "b.tar"))
        assert backup.returncode == 0, backup.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=90) == 0
    restored = box.run("restore", str(box.home / "b.tar"), VISOR_INDEX="again")
    assert restored.returncode == 0, restored.stderr
    answers = []
    for index in ("box", "again"):
        settings = msgspec.structs.replace(Settings(), home=box.home, index=index, freshness_s=0.0)
        with App(settings, embedder=embedder) as app:
            assert app.stores.queue.waiting() == 0
            assert app.stores.queue.dead_letters() == []
            assert app.stores.documents.query("failures") == []
            service = app.search_service()
            expected = {item_id("mine", path.name): path for path in box.pictures.iterdir()}
            app.searcher.refresh()
            assert sorted(app.searcher.sample(1000)) == sorted(expected)
            for item, path in expected.items():
                matches = service.search(SearchRequest(k=3), path.read_bytes()).matches
                assert matches[0].item.id == item
                answers.append([(match.item.id, match.similarity, match.verdict) for match in matches])
    assert answers[:PICTURES] == answers[PICTURES:], "a restored index answers the same"
