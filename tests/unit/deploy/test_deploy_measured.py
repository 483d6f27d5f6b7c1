"""`visor cost --measured`: what Cloud Monitoring and Artifact Registry tell stands beside the plan."""

from __future__ import annotations

import json
import stat
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from visor.cli.cost import cost_command
from visor.deploy import measured as module
from visor.deploy.measured import METRICS, measured
from visor.errors import DeployError
from visor.free_tier.allowances import allowances

GCLOUD = """#!{python}
import json, sys
print("token" if sys.argv[1] == "auth" else json.dumps({repositories}))
"""
REPOSITORIES = [{"name": "p/repositories/visor-functions", "sizeBytes": str(2**29)}, {"name": "p/repositories/other"}]


class Monitoring(BaseHTTPRequestHandler):
    """Cloud Monitoring's time series, three days of each metric, newest first; by the documented parameters."""

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        server: Any = self.server
        server.asked.append(asked)
        assert urlsplit(self.path).path == "/v3/projects/p/timeSeries"
        assert self.headers["Authorization"] == "Bearer token"
        points = [{"value": {"int64Value": "10"}}, {"value": {"doubleValue": 40.0}}, {"value": {"int64Value": "20"}}]
        series = [] if "Pub/Sub" in server.silent and "pubsub" in asked["filter"] else [{"points": points}]
        body = json.dumps({"timeSeries": series} if series else {}).encode()
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output free of requests."""


@pytest.fixture
def monitoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    program = tmp_path / "gcloud"
    program.write_text(GCLOUD.format(python=sys.executable, repositories=REPOSITORIES))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Monitoring)
    server.asked, server.silent, server.status = [], (), 200
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_sums_are_scaled_to_a_month_days_are_the_worst_and_sizes_the_newest(monitoring: Any) -> None:
    found = {
        (one.service, one.metric): one.used for one in measured("p", days=3, address=monitoring.address, say=print)
    }
    assert found["Cloud Run", "requests"] == pytest.approx(70 * 30.4375 / 3)
    assert found["Cloud Run", "data out"] == pytest.approx(70 * 30.4375 / 3 / 2**30)
    assert found["Firestore", "reads"] == 40
    assert found["Firestore", "stored"] == 10 / 2**30
    assert found["Artifact Registry", "stored"] == 0.5
    first = monitoring.asked[0]
    begun, ended = (datetime.fromisoformat(first[f"interval.{name}Time"]) for name in ("start", "end"))
    assert (ended - begun).days == 3


def test_every_metric_is_of_an_allowance_and_operations_are_told_apart(monitoring: Any) -> None:
    assert METRICS.keys() <= {(one.service, one.metric) for one in allowances().allowances}
    measured("p", days=7, address=monitoring.address, say=print)
    storage = [asked["filter"] for asked in monitoring.asked if "api/request_count" in asked["filter"]]
    class_a, class_b = storage
    assert 'method="ReadObject"' in class_b
    assert "NOT" not in class_b
    assert " AND NOT (" in class_a


def test_what_was_not_measured_is_said(monitoring: Any) -> None:
    monitoring.silent = ("Pub/Sub",)
    said: list[str] = []
    found = measured("p", days=7, address=monitoring.address, say=said.append)
    assert said == ["Pub/Sub throughput: nothing was measured"]
    assert "Pub/Sub" not in {one.service for one in found}


def test_a_project_that_cannot_be_read_is_explained(monitoring: Any) -> None:
    monitoring.status = 403
    with pytest.raises(DeployError, match="Cloud Monitoring") as refused:
        measured("p", days=7, address=monitoring.address, say=print)
    assert "roles/monitoring.viewer" in refused.value.valid


def test_the_command_prints_it_beside_the_plan(monitoring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MONITORING", monitoring.address)
    monkeypatch.setattr(module.measured, "__kwdefaults__", {"address": monitoring.address})
    done = CliRunner().invoke(cost_command, ["--measured", "p"])
    assert done.exit_code == 0, (done.output, done.exception)
    [registry] = [line for line in done.stdout.splitlines() if line.startswith("Artifact Registry")]
    assert registry.split()[-2:] == ["100.0%", "close"] or "100.0%" in registry
    document = json.loads(CliRunner().invoke(cost_command, ["--measured", "p", "--json"]).stdout)
    assert {"service": "Artifact Registry", "metric": "stored", "used": 0.5} in document["measured"]
