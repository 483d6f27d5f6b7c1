"""`visor cost --measured`: what Cloud Monitoring and Artifact Registry tell stands beside the plan."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.sources.catalogue_server import Reply, Request, serving

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


class Monitoring:
    """Cloud Monitoring's time series, three days of each metric, newest first; by the documented parameters."""

    def __init__(self) -> None:
        self.silent, self.status, self.most = "", 200, 40.0
        self.address = ""
        self.asked: list[dict[str, str]] = []

    def answer(self, request: Request) -> Reply:
        self.asked.append(request.query)
        assert request.path == "/v3/projects/p/timeSeries"
        assert request.headers["authorization"] == "Bearer token"
        points = [
            {"value": {"int64Value": "10"}},
            {"value": {"doubleValue": self.most}},
            {"value": {"int64Value": "20"}},
        ]
        is_silent = self.silent and self.silent in request.query["filter"]
        return Reply.json({} if is_silent else {"timeSeries": [{"points": points}]}, self.status)


@pytest.fixture
def monitoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitoring]:
    program = tmp_path / "gcloud"
    program.write_text(GCLOUD.format(python=sys.executable, repositories=REPOSITORIES))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monitoring = Monitoring()
    with serving(monitoring.answer) as server:
        monitoring.address = server.url
        yield monitoring


def test_sums_are_scaled_to_a_month_days_are_the_worst_and_sizes_the_newest(monitoring: Monitoring) -> None:
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


def test_a_project_younger_than_the_days_that_are_read_is_not_taken_for_idle(monitoring: Monitoring) -> None:
    found = {
        (one.service, one.metric): one.used for one in measured("p", days=30, address=monitoring.address, say=print)
    }
    assert found["Cloud Run", "requests"] == pytest.approx(70 * 30.4375 / 3)


def test_an_answer_that_is_none_is_explained(monitoring: Monitoring, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (
        b"<html>Sign in</html>",
        b'{"timeSeries": [{}]}',
        b'{"timeSeries": [{"points": [{"value": {"x": "y"}}]}]}',
    ):
        monkeypatch.setattr(monitoring, "answer", lambda request, body=body: Reply(body=body))
        with serving(monitoring.answer) as server, pytest.raises(DeployError, match="does not return Cloud Run"):
            measured("p", days=7, address=server.url, say=print)


def test_every_metric_is_of_an_allowance_and_operations_are_told_apart(monitoring: Monitoring) -> None:
    assert METRICS.keys() <= {(one.service, one.metric) for one in allowances().allowances}
    measured("p", days=7, address=monitoring.address, say=print)
    storage = [asked["filter"] for asked in monitoring.asked if "api/request_count" in asked["filter"]]
    class_a, class_b = storage
    assert 'method="ReadObject"' in class_b
    assert "NOT" not in class_b
    assert " AND NOT (" in class_a


def test_what_was_not_measured_is_said(monitoring: Monitoring) -> None:
    monitoring.silent = "pubsub"
    said: list[str] = []
    found = measured("p", days=7, address=monitoring.address, say=said.append)
    assert said == ["Pub/Sub throughput: nothing was measured"]
    assert "Pub/Sub" not in {one.service for one in found}


def test_a_project_that_cannot_be_read_is_explained(monitoring: Monitoring) -> None:
    monitoring.status = 403
    with pytest.raises(DeployError, match="Cloud Monitoring") as refused:
        measured("p", days=7, address=monitoring.address, say=print)
    assert "roles/monitoring.viewer" in refused.value.valid


@pytest.mark.slow
def test_the_command_prints_it_beside_the_plan(monitoring: Monitoring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MONITORING", monitoring.address)
    monkeypatch.setattr(module.measured, "__kwdefaults__", {"address": monitoring.address})
    done = CliRunner().invoke(cost_command, ["--measured", "p"])
    assert done.exit_code == 0, (done.output, done.exception)
    [registry] = [line for line in done.stdout.splitlines() if line.startswith("Artifact Registry")]
    assert "But measured use exceeds what is free: " not in done.stdout
    assert registry.split()[-2:] == ["100.0%", "close"] or "100.0%" in registry
    document = json.loads(CliRunner().invoke(cost_command, ["--measured", "p", "--json"]).stdout)
    assert {"service": "Artifact Registry", "metric": "stored", "used": 0.5} in document["measured"]
    monitoring.most = 1e12
    assert (
        "But measured use exceeds what is free: Cloud Run vCPU time"
        in CliRunner().invoke(cost_command, ["--measured", "p"]).stdout
    )
