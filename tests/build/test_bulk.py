"""`visor bulk` on Apache Beam, in the environment that has it: what it makes, whatever happens to its workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from visor.app import App
from visor.index.format.current_model import read_current
from visor.ingest.schedule import live_failures
from visor.ingest.worker import Worker
from visor.models.build.builder import ensure_model
from visor.settings import Settings
from visor.storage import open_stores
from visor_bench.load.bulk import (
    answers,
    bulk,
    merged,
    searchable,
    segments,
    stored,
    worker_processes,
    write_index,
    write_pictures,
)

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv-beam" / "bin" / "visor"
PICTURES = 100

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def program() -> Path:
    if not PROGRAM.exists():
        if os.environ.get("TEST_REQUIRE_EMULATORS") == "1":
            pytest.fail("TEST_REQUIRE_EMULATORS=1, and .venv-beam is missing: make beam")
        pytest.skip(".venv-beam is missing: make beam")
    return PROGRAM


@pytest.fixture
def settings(built_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of this process and of those that it starts, whose environment these are."""
    models = str(built_settings.home / "models")
    for name, value in {"MODELS": models, "HOME": str(tmp_path / "many"), "BATCH_SIZE": "16"}.items():
        monkeypatch.setenv(f"VISOR_{name}", value)
    return Settings.read()


def test_makes_what_crawl_and_embed_make_though_workers_are_killed(
    program: Path, settings: Settings, tmp_path: Path
) -> None:
    folder, one, many = tmp_path / "pictures", tmp_path / "one", tmp_path / "many"
    write_pictures(folder, PICTURES)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with App(msgspec.structs.replace(settings, home=one, allow_folders=(str(folder),), threads=1)) as app:
        app.crawler.crawl(app.open_folder(folder))
        Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
        app.merge()
        (expected,) = live_failures(app.stores.documents)
    killed, report = bulk(folder, many, workers=2, kills=2, program=program)
    assert killed
    assert report["passes"] > 1
    assert searchable(many) == searchable(one) == dict.fromkeys(searchable(one), 1)
    assert len(searchable(one)) == PICTURES
    assert answers(many, folder) == answers(one, folder)
    before = stored(many)
    _, again = bulk(folder, many, workers=2, program=program)
    assert not again.get("counts")
    assert stored(many) == before
    with App(msgspec.structs.replace(settings, home=many, allow_folders=(str(folder),))) as app:
        (failure,) = live_failures(app.stores.documents)
        assert (failure.item, failure.code, failure.reason) == (expected.item, expected.code, expected.reason)
        run = app.crawler.crawl(app.open_folder(folder))
        assert (run.unchanged, run.published, run.updated, run.deleted) == (PICTURES + 1, 0, 0, 0)


def test_a_merge_by_workers_makes_what_one_process_makes_though_they_are_killed(
    program: Path, settings: Settings, tmp_path: Path
) -> None:
    one, many, python = tmp_path / "one", tmp_path / "many", str(program.with_name("python"))
    write_index(one, 9_000, dimension=64)
    shutil.copytree(one, many)
    for relearn, kills in ((False, 3), (True, 0)):
        ours = merged(one, relearn=relearn, segment_rows=2_000, python=python)
        theirs = merged(many, 2, relearn=relearn, segment_rows=2_000, python=python, kills=kills)
        assert (bool(theirs["killed"]), theirs["images"], theirs["steps"]) == (bool(kills), 9_000, 1)
        assert theirs["segments"] == ours["segments"] > 2
        assert segments(many) == segments(one)
    before = stored(many)
    assert merged(many, 2, segment_rows=2_000, python=python).get("steps", 0) == 0
    assert stored(many) == before
    assert not [*(many / "indexes").rglob("pieces/*")]


def test_a_reindex_by_workers_makes_what_a_reindex_makes(
    program: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, one, many = tmp_path / "pictures", tmp_path / "one", tmp_path / "many"
    write_pictures(folder, 40)
    fingerprints = []
    for model in ("efficientnet_lite0", "auto"):
        monkeypatch.setenv("VISOR_MODEL", model)
        here = msgspec.structs.replace(Settings.read(), home=one, allow_folders=(str(folder),), threads=1)
        ensure_model(here, say=str)
        with App(here) as app:
            if fingerprints:
                app.reindex()
            else:
                app.crawler.crawl(app.open_folder(folder))
            Worker(app.stores.queue, app.batch_embedder, threads=1).drain()
            app.merge()
            fingerprints.append(app.fingerprint)
        what = "--reindex" if fingerprints[1:] else str(folder)
        done = asked(program, settings, what, "--workers=2", "--json")
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert (report["counts"]["embedded"], report.get("left", 0)) == (40, 0)
    with open_stores(msgspec.structs.replace(settings, home=many)) as stores:
        state, _ = read_current(stores.documents)
        assert state is not None
        assert (state.current, state.previous, state.building) == (fingerprints[1], fingerprints[0], None)
    assert searchable(many) == searchable(one)
    assert answers(many, folder) == answers(one, folder)
    done = asked(program, settings, "--reindex", "--json")
    assert (done.returncode, json.loads(done.stdout).get("counts")) == (0, None), done.stderr
    done = asked(program, settings, "--merge", "--relearn", "--workers=2", "--json")
    assert (done.returncode, json.loads(done.stdout)["images"]) == (0, 40), done.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (("--merge", "--reindex"), {}, "give --reindex or --merge"),
        (("pictures", "--merge"), {}, "give --reindex or --merge"),
        (("--merge", "--dry-run"), {}, "have no --dry-run"),
        (("pictures", "--relearn"), {}, "--relearn belongs to --merge"),
        (("--merge",), {"VISOR_ENGINE": "milvus"}, "VISOR_ENGINE is milvus, which has no segments to build"),
        (("--merge",), {}, "There is no index 'default'"),
        (("--reindex",), {}, "There is no index 'default'"),
        (("--merge", "--no_such_option=1"), {}, "--no_such_option is not an option of Beam"),
    ],
)
def test_what_cannot_be_is_refused(
    program: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    said: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = asked(program, settings, *arguments)
    assert done.returncode != 0
    assert said in done.stderr.replace("\n", " ")
    assert not settings.home.exists()


def asked(program: Path, settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, "bulk", *arguments], capture_output=True, text=True, timeout=120)


def test_a_dry_run_says_what_it_would_take_and_keeps_nothing(program: Path, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("".join(f'{{"key": "{n}", "image_url": "https://shop.example/{n}.jpg"}}\n' for n in range(3600)))
    done = asked(
        program, settings, str(file), "--dry-run", "--json", "--host-rate=2", "--workers=4", "--worker-price=1"
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["estimate"]
    assert found == {"pictures": 3600, "hosts": 1, "workers": 4, "hours": 0.5, "limit": "host", "cost": 2.0}
    assert "about 30.0 min, for the rate of one host" in done.stderr
    assert not [*(settings.home / "indexes").rglob("bulk/*")]


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_command(
    program: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    """Two commands at once would ask a host twice as fast as `--host-rate` says."""
    monkeypatch.setenv("VISOR_BATCH_SIZE", "1")
    write_pictures(tmp_path / "pictures", 300)
    with subprocess.Popen([program, "bulk", tmp_path / "pictures", "--workers=2"], stderr=subprocess.PIPE) as command:
        workers = _soon(lambda: worker_processes(command.pid))
        command.send_signal(by)
    assert workers
    assert _soon(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def _soon(found: Callable[[], Any]) -> Any:
    """What is found at last."""
    until = time.monotonic() + 60
    while not (what := found()) and time.monotonic() < until:
        time.sleep(0.1)
    return what


def test_without_a_model_nothing_is_listed(
    program: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "pictures", 3)
    monkeypatch.setenv("VISOR_MODELS", str(tmp_path / "none"))
    done = asked(program, settings, str(tmp_path / "pictures"))
    assert done.returncode == 1
    assert "Run `visor model build`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*(settings.home / "indexes").rglob("bulk/*")]


def test_an_error_of_workers_ends_in_a_sentence(
    program: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "pictures", 3)
    models = tmp_path / "models"
    shutil.copytree(settings.models, models)
    monkeypatch.setenv("VISOR_MODELS", str(models))
    for path in models.rglob("*.tflite"):
        path.write_bytes(b"damaged")
    done = asked(program, settings, str(tmp_path / "pictures"), "--workers=1")
    assert done.returncode == 1
    *_, said = done.stderr.splitlines()
    assert said.startswith("visor: ")
    assert "has 7 bytes" in said
    assert said.endswith("run `visor model build`.")


DELIVER = """
import sys
from types import SimpleNamespace
from visor.bulk.pipeline import EmbedBatches
from visor.bulk.waiting import WaitingBatches
from visor.errors import StoreUnavailable
from visor.ingest.batch_plan import EmbedReport
from visor.settings import Settings
from visor.storage import open_stores
from visor.storage.publish import publish
from visor.schema.items import Change, Item, item_id

settings, attempts = Settings.read(), []
with open_stores(settings) as stores:
    waiting = WaitingBatches(stores)
    item = Item(id=item_id("shop", "1"), source="shop", key="1", image_url="https://shop.example/1.jpg")
    publish(waiting, [Change(action="embed", item=item, version=1)], run="r")

    def embed(body, *, attempt):
        attempts.append(attempt)
        if attempt < 3:
            raise ZeroDivisionError
        return EmbedReport(failed=1)

    def message(self, name, tries=[]):
        tries.append(name)
        if len(tries) == 1:
            raise StoreUnavailable("away")
        return own(self, name)

    meter = SimpleNamespace(flush=lambda: None)
    model = SimpleNamespace(batch_embedder=SimpleNamespace(embed=embed), settings=settings, stores=stores, meter=meter)
    WaitingBatches.message, own = message, WaitingBatches.message
    (one,) = waiting.all()
    for _ in range(2):
        lanes = [("a", [one.name])]
        print([counts["failed"] for counts in EmbedBatches(settings, None, 1).run_inference(lanes, model)])
print(attempts)
"""


def test_a_batch_that_fails_as_nobody_foresaw_ends_no_run(program: Path, settings: Settings) -> None:
    """From the third try on, embed finds the item: as with a queue, which delivers again."""
    python = program.with_name("python")
    done = subprocess.run([python, "-c", DELIVER], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n") == ["[1]", "[]", "[1, 2, 3]", ""], done.stderr


GOOGLE = ("--runner=DataflowRunner", "--region=us-central1", "--sdk_container_image=image")
CLOUD = {"VISOR_BACKEND": "gcp", "VISOR_PROJECT": "my-project", "VISOR_BUCKET": "my-bucket"}


OPTIONS = [
    (CLOUD, GOOGLE, ""),
    (CLOUD, (*GOOGLE, "--temp_location=gs://my-beam/tmp", "--machine_type=e2-standard-4"), ""),
    (
        CLOUD,
        (*GOOGLE, "--temp_location=/tmp/here"),
        "Invalid GCS path (/tmp/here)",
    ),
    (CLOUD, (*GOOGLE, "--job_name=Visor_Bulk"), "Invalid job_name (Visor_Bulk)"),
    (CLOUD, (*GOOGLE, "--max_num_worker=3"), "--max_num_worker is not an option of Beam"),
    (CLOUD, GOOGLE[:1], "Missing required option: region"),
    (CLOUD | {"VISOR_PROJECT": "My Project"}, GOOGLE, "Invalid Project ID (My Project)"),
    ({}, GOOGLE, "set VISOR_BACKEND=gcp"),
    ({}, ("--runner=DirectRunner",), ""),
    ({}, ("--runner=DirectRunner", "--direct_num_workers=3"), ""),
    ({}, ("--runner=FlinkRunner", "--flink_master=[local]"), ""),
    ({}, ("--runner=SparkRunner", "--spark_master_url=local[2]"), ""),
]
CHECK = """
import json, sys
from visor.bulk.pipeline import checked_options
from visor.errors import SettingsError
from visor.settings import Settings

said = []
for environ, (runner, *arguments), _ in json.load(sys.stdin):
    try:
        checked_options(runner.partition("=")[2], arguments, Settings.read(environ), 2)
        said.append("")
    except SettingsError as exc:
        said.append(exc.found)
json.dump(said, sys.stdout)
"""


def test_options_are_checked_by_beams_validator_before_anything_is_read(program: Path) -> None:
    python = program.with_name("python")
    done = subprocess.run([python, "-c", CHECK], input=json.dumps(OPTIONS), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for (_, arguments, wanted), said in zip(OPTIONS, json.loads(done.stdout), strict=True):
        assert wanted in said, arguments
        assert bool(wanted) == bool(said), arguments
