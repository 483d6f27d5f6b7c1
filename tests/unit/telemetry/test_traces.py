"""One trace from a crawl's batch to its vectors, a span for each part of a search, and nothing where nobody asks."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image
from tests.unit.telemetry.conftest import CONSUMER, SERVER, Collector, Received

from visor.app import App
from visor.errors import BadRequest
from visor.ingest.worker import PushedBatches, Worker
from visor.models.embedder import Embedder
from visor.settings import Settings
from visor.telemetry import traces
from visor.web.site import Server

PROGRAM = """
import json, sys
from pathlib import Path
from visor.app import App
from visor.settings import Settings
from visor.telemetry import traces
folder, home = Path(sys.argv[1]), Path(sys.argv[2])
app = App(Settings(home=home, allow_folders=(str(folder),)))
app.crawler.crawl(app.open_folder(folder))
(message,) = app.stores.queue.receive(1, lease_s=9)
import visor.web.api, visor.web.metrics, visor.search.service, visor.ingest.embed
print(json.dumps([traces.start(), message.attributes, sorted(sys.modules)]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        picture = Image.effect_mandelbrot((90, 90), (-2, -1.5, 1, 1.5), 9 + number).convert("RGB")
        picture.rotate(40 * number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def app(embedder: Embedder, tmp_path: Path, folder: Path) -> App:
    settings = Settings(home=tmp_path / "home", allow_folders=(str(folder),), batch_size=2, freshness_s=0.0)
    return App(settings, embedder=embedder)


def by_id(spans: list[Received]) -> dict[str, Received]:
    return {span.id: span for span in spans}


def path_of(span: Received, spans: list[Received]) -> list[str]:
    """Names from the outermost span to this one."""
    found, known = [span.name], by_id(spans)
    while span.parent in known:
        span = known[span.parent]
        found.insert(0, span.name)
    return found


@pytest.mark.slow
def test_one_trace_spans_a_crawl_its_messages_and_their_embedding(app: App, folder: Path, collector: Collector) -> None:
    with app:
        app.crawler.crawl(app.open_folder(folder))
        Worker(app.stores.queue, app.batch_embedder).drain()
    spans = collector.spans()
    assert {span.service for span in spans} == {"shop-search"}
    (crawl,) = [span for span in spans if span.name == "crawl"]
    assert crawl.attributes["visor.published"] == 5
    embeds = [span for span in spans if span.name == "embed"]
    assert len(embeds) == 3
    assert {span.kind for span in embeds} == {CONSUMER}
    for span in embeds:
        assert (span.trace, path_of(span, spans)) == (crawl.trace, ["crawl", "publish", "embed"])
    assert sum(span.attributes["visor.items.embedded"] for span in embeds) == 5
    below = {tuple(path_of(span, spans)[2:]) for span in spans if "embed" in path_of(span, spans)}
    assert below == {
        ("embed",),
        ("embed", "documents"),
        ("embed", "images"),
        ("embed", "images", "look"),
        ("embed", "commit"),
    }


def test_a_message_that_is_pushed_and_given_up_keeps_its_trace(app: App, folder: Path, collector: Collector) -> None:
    queue = app.stores.queue
    with app:
        with traces.span("deploy") as outer:
            outer.set(nothing=None)
            queue.publish([b"no batch"])
        (message,) = queue.receive(1, lease_s=9)
        queue.acknowledge(message)
        pushed = PushedBatches(app.batch_embedder, app.stores, attempts_max=1)
        with traces.span("embed", kind="consumer", parent=message.attributes):
            assert pushed.embed(message.body, attempt=1) is None
        (letter,) = queue.dead_letters()
        queue.retry(letter)
        (again,) = queue.receive(1, lease_s=9)
        assert letter.attributes == again.attributes
    deploy, embed = sorted(collector.spans(), key=lambda span: span.name)
    assert (embed.trace, embed.parent) == (deploy.trace, deploy.id)
    assert letter.attributes["traceparent"].split("-")[1:3] == [embed.trace, embed.id]
    assert message.attributes["traceparent"].split("-")[1:3] == [deploy.trace, deploy.id]


def test_a_search_has_a_span_for_each_part_below_the_one_of_who_asked(
    app: App, folder: Path, collector: Collector
) -> None:
    with app:
        app.crawler.crawl(app.open_folder(folder))
        Worker(app.stores.queue, app.batch_embedder).drain()
        server = Server(app.site({})).start()
        try:
            picture = (folder / "3.png").read_bytes()
            asked = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
            with httpx.Client(base_url=server.address) as client:
                found = client.post("/v1/search", files={"image": picture}, headers=asked)
                wrong = client.post("/v1/search", json={"item": "no secret"})
        finally:
            server.stop()
    assert (found.status_code, wrong.status_code) == (200, 404)
    spans = collector.spans()
    ours = [span for span in spans if span.trace == "ab" * 16]
    (request,) = [span for span in ours if span.kind == SERVER]
    assert (request.name, request.parent) == ("POST /v1/search", "cd" * 8)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/search",
        "http.response.status_code": 200,
    }
    paths = {tuple(path_of(span, ours)[1:]) for span in ours}
    search = {("search", part) for part in ("look", "refresh", "scan", "confidence", "documents")}
    assert paths == {(), ("search",), *search, ("search", "look", "decode"), ("search", "look", "embed")}
    (crawl,) = [span for span in spans if span.name == "crawl"]
    (refresh,) = [span for span in ours if span.name == "refresh"]
    assert refresh.links == [crawl.trace] * 3, "the batches that it took in"
    (failed,) = [span for span in spans if span.name == "look" and span.failed and span not in ours]
    assert failed.attributes == {"error.type": "unknown_item"}
    assert "no secret" not in str(spans)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"OTEL_SERVICE_NAME": "visor", "OTEL_RESOURCE_ATTRIBUTES": "a=b"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": " TRUE"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "false"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_http", "console"]),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            ["otlp http/json"],
        ),
    ],
)
def test_the_usual_variables_say_whether_and_how(environ: dict[str, str], names: list[str]) -> None:
    assert traces._exporter_names(environ) == names


@pytest.mark.parametrize("exporter", ["zipkin", "otlp_proto_grpc"])
def test_what_cannot_be_followed_is_a_warning(exporter: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "visor.traces"):
        assert not traces.start({"OTEL_TRACES_EXPORTER": exporter})
    (line,) = caplog.messages
    assert exporter in line
    assert "otlp_proto_http" in line
    assert "visor-search[telemetry]" in line
    with pytest.raises(BadRequest), traces.span("search"):
        raise BadRequest("found")


@pytest.mark.slow
@pytest.mark.parametrize("is_wanted", [False, True])
def test_nothing_is_loaded_where_no_variable_asks(
    is_wanted: bool, folder: Path, tmp_path: Path, embedder: Embedder
) -> None:
    """Nor does a message carry anything."""
    environ = {"OTEL_TRACES_EXPORTER": "console"} if is_wanted else {"OTEL_SERVICE_NAME": "visor"}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "h")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    started, attributes, modules = json.loads(done.stdout.splitlines()[0])
    loaded = {module.partition(".")[0] for module in modules} & {"opentelemetry", "prometheus_client"}
    assert (started, set(attributes), loaded) == (
        is_wanted,
        {"traceparent"} if is_wanted else set(),
        {"opentelemetry"} if is_wanted else set(),
    )
