"""`GET /metrics` as Prometheus' own parser reads it: by the owner's key, or on a private port."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from visor.app import App
from visor.errors import SettingsError, StoreUnavailable
from visor.ingest.worker import Worker
from visor.models.embedder import Embedder
from visor.settings import Settings
from visor.telemetry.metrics import CONTENT_TYPE, COUNTERS, HISTOGRAMS, Family, Metrics, exposition, gauge
from visor.web.access import KEY_HEADER
from visor.web.site import Server, metrics_site

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]
CONFIG = """
[sources.mine]
kind = "folder"
path = "{folder}"
"""


def parsed(text: str) -> Samples:
    """By name and labels, every sample."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@pytest.fixture
def app(embedder: Embedder, tmp_path: Path) -> Iterator[App]:
    """Five pictures of a source, of which one is damaged, crawled and embedded."""
    folder = tmp_path / 'my "own" pictures'
    folder.mkdir()
    for number in range(4):
        picture = Image.effect_mandelbrot((90, 90), (-2, -1.5, 1, 1.5), 9 + number).convert("RGB")
        picture.rotate(40 * number).save(folder / f"{number}.png")
    (folder / "damaged.png").write_bytes(b"no picture")
    config = tmp_path / "visor.toml"
    config.write_text(CONFIG.format(folder=str(folder).replace('"', '\\"')))
    settings = Settings(
        home=tmp_path / "home", config=config, allow_folders=(str(folder),), owner_key="sesame", freshness_s=0.0
    )
    with App(settings, embedder=embedder) as app:
        app.crawler.crawl(app.named_source("mine"))
        Worker(app.stores.queue, app.batch_embedder).drain()
        app.merge()
        yield app


@pytest.fixture
def server(app: App) -> Iterator[Server]:
    server = Server(app.site({})).start()
    yield server
    server.stop()


def test_an_owner_reads_what_happened(app: App, server: Server) -> None:
    with httpx.Client(base_url=server.address, timeout=60) as client:
        picture = next(Path(app.settings.allow_folders[0]).glob("2.png")).read_bytes()
        assert client.post("/v1/search", files={"image": picture}).status_code == 200
        both = client.post("/v1/searches", json={"searches": [{"text": "mandelbrot"}, {"item": "0" * 32}]})
        assert both.status_code == 200
        assert client.post("/v1/search", json={}).status_code == 400
        assert client.get("/v1/nothing").status_code == 404
        answer = client.get("/metrics", headers={KEY_HEADER: "sesame"})
        again = client.get("/metrics", headers={KEY_HEADER: "sesame", "Accept-Encoding": "identity"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, CONTENT_TYPE)
    assert answer.headers["Content-Encoding"] == "gzip"
    found = parsed(answer.text)
    outcomes = found["visor_searches_total"]
    assert sum(outcomes.values()) == 4
    assert {name for ((_, name),) in outcomes} >= {"confident", "unknown_item", "bad_request"}
    requests = found["visor_http_requests_total"]
    assert requests[("endpoint", "search"), ("status", "400")] == 1
    assert requests[("endpoint", "none"), ("status", "404")] == 1
    assert found["visor_search_duration_seconds_count"] == {(): 2}
    assert 0 < found["visor_search_duration_seconds_sum"][()] < 60
    assert found["visor_search_duration_seconds_bucket"][(("le", "+Inf"),)] == 2
    stages = {dict(labels)["stage"] for labels in found["visor_search_stage_duration_seconds_count"]}
    assert stages >= {"decode", "embed", "scan", "confidence", "items"}
    assert found["visor_index_items"] == {(): 4}
    assert found["visor_index_segments"] == {(): 1}
    assert abs(found["visor_index_generation_timestamp_seconds"][()] - time.time()) < 600
    assert found["visor_merges_total"] == {(("outcome", "done"),): 1, (("outcome", "failed"),): 0}
    assert found["visor_merge_duration_seconds_count"] == {(): 1}
    assert found["visor_embed_items_total"][(("outcome", "embedded"),)] == 4
    assert found["visor_queue_messages"] == {(("state", "waiting"),): 0, (("state", "dead"),): 0}
    assert found["visor_failed_items"] == {(("code", "undecodable_image"), ("source", "mine")): 1}
    assert found["visor_crawl_runs"] == {(("source", "mine"), ("state", "complete")): 1}
    assert found["visor_source_items"] == {(("source", "mine"),): 5}
    used = found["visor_meter_used"]
    assert used.keys() == found["visor_meter_allowed"].keys() == found["visor_meter_free"].keys()
    assert used[("per", "month"), ("resource", "requests"), ("service", "Cloud Run")] > 0
    assert set(found["visor_collector_up"].values()) == {1}
    assert 1e7 < found["process_resident_memory_bytes"][()] < 1e11
    assert abs(found["process_start_time_seconds"][()] - time.time()) < 86_400
    metered = parsed(again.text)["visor_http_requests_total"]
    assert metered[("endpoint", "metrics"), ("status", "200")] == 1, "like any other endpoint"


@pytest.mark.parametrize("headers", [{}, {KEY_HEADER: "other"}])
def test_nobody_else_reads_them(server: Server, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{server.address}/metrics", headers=headers)
    assert answer.status_code == 401
    assert KEY_HEADER in answer.json()["detail"]


def test_a_private_port_tells_them_and_nothing_else(app: App) -> None:
    api = app.site({}).api
    private = Server(metrics_site(api)).start()
    try:
        with httpx.Client(base_url=private.address) as client:
            answer = client.get("/metrics")
            others = [client.get("/"), client.get("/v1/items"), client.post("/metrics")]
            rebound = client.get("/metrics", headers={"Host": "evil.example"})
    finally:
        private.stop()
    assert parsed(answer.text)["visor_index_items"] == {(): 4}
    assert [other.status_code for other in others] == [404, 404, 404]
    assert rebound.status_code == 403


def test_what_cannot_be_read_is_said_and_hides_nothing_else(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    api = app.http_api()
    Path(app.settings.config).write_text("[sources.mine]\nkind = 1\n")
    app._read_anew()

    def away() -> int:
        raise StoreUnavailable("away")

    monkeypatch.setattr(api.service().recall_monitor, "result", away)
    found = parsed(api.metrics_text())
    assert found["visor_collector_up"] == {
        (("collector", "index"),): 0,
        (("collector", "meters"),): 1,
        (("collector", "pipeline"),): 0,
    }
    assert found["process_cpu_seconds_total"][()] > 0


@pytest.mark.parametrize(
    "text", ["", "plain", 'a "quoted" one', "back\\slash", "two\nlines", "Äpfel 苹果 🍏", "a,b={c}"]
)
def test_labels_of_all_kinds_are_read_back(text: str) -> None:
    family = gauge("visor_source_items", f"About {text}", ({"source": text}, 3))
    assert parsed(exposition([family])) == {"visor_source_items": {(("source", text),): 3.0}}


@pytest.mark.parametrize("value", [0, 1, True, 0.25, 1e-9, 2**60, 1.5e300, -4, float("inf"), float("nan")])
def test_values_of_all_sizes_are_read_back(value: float) -> None:
    (found,) = parsed(exposition([gauge("one", "One.", value)]))["one"].values()
    assert found == value or (found != found and value != value)


def test_buckets_count_what_is_at_most_their_bound() -> None:
    metrics = Metrics()
    for seconds in (0.0, 0.005, 0.0051, 7, 1e6):
        metrics.observe("visor_search_duration_seconds", seconds)
    buckets = parsed(exposition(metrics.families()))["visor_search_duration_seconds_bucket"]
    by_bound = {float(bound): count for ((_, bound),), count in buckets.items()}
    assert [by_bound[bound] for bound in (0.005, 0.01, 5, 10, float("inf"))] == [2, 3, 3, 4, 5]


def test_names_follow_the_conventions(app: App) -> None:
    """A counter ends in `_total`, and nothing else does; times are in seconds, sizes in bytes."""
    text = app.http_api().metrics_text()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert {name: kind == "counter" for name, kind in kinds.items()} == {n: n.endswith("_total") for n in kinds}
    assert all(re.fullmatch(r"(visor|process)_[a-z_]+", name) for name in [*kinds, *COUNTERS, *HISTOGRAMS])
    assert not any(re.search(r"_(ms|kb|mb|minutes|percent)(_|$)", name) for name in kinds)
    assert [one for one in kinds if f"# HELP {one} " not in text] == []


def test_a_family_without_samples_is_left_out() -> None:
    assert exposition([Family("visor_failed_items", "gauge", "None.", [])]).strip() == ""


@pytest.mark.slow
def test_serve_tells_them_on_the_port_that_its_owner_chose(app: App, built_settings: Settings) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    app.close()
    environ = os.environ | {
        "VISOR_HOME": str(app.settings.home), "VISOR_MODELS": str(built_settings.home / "models"),
        "VISOR_CONFIG": str(app.settings.config), "VISOR_METRICS_PORT": port,
    }  # fmt: skip
    command = [sys.executable, "-m", "visor", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = next(line for line in process.stderr if "metrics" in line)
        assert f"http://127.0.0.1:{port}/metrics" in said
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60)
    finally:
        # Control-C is ignored by what a shell started in the background.
        process.terminate()
        process.communicate(timeout=30)
    assert parsed(answer.text)["visor_index_items"] == {(): 4}
    assert process.returncode == 0


@pytest.mark.parametrize("port", [70_000, -1])
def test_a_port_that_is_none_is_said(port: int) -> None:
    with pytest.raises(SettingsError, match=str(port)):
        Server(lambda environ, start_response: [], port=port)
