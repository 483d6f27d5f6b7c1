"""After all else fails: nothing in terraform/ bills by existing, and the switch closes the doors."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from cloudevents.http import CloudEvent

from visor.deploy.terraform import Terraform, read_terraform, text_of

ROOT = Path(__file__).resolve().parents[3]
PREFIXES_THAT_BILL = (
    "google_alloydb", "google_bigtable", "google_compute_", "google_container_", "google_dns_", "google_filestore",
    "google_kms_", "google_memcache", "google_redis", "google_spanner", "google_sql_", "google_vpc_access_",
)  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Terraform:
    return read_terraform(ROOT / "terraform")


def test_nothing_bills_by_existing(config: Terraform) -> None:
    types = {block.labels[0] for block in config.of("resource").values()}
    assert not {t for t in types if t.startswith(PREFIXES_THAT_BILL)}
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "terraform").glob("*.tf"))
    assert "vpc_connector" not in text


def test_every_function_scales_to_zero_and_no_further_than_it_is_told(config: Terraform) -> None:
    service = config.of("resource")["google_cloudfunctions2_function.function"].inner("service_config")[0].attributes
    assert service["min_instance_count"] == 0
    assert service["max_instance_count"] == "${each.value.instances}"
    for needed in ("available_cpu", "available_memory", "timeout_seconds", "max_instance_request_concurrency"):
        assert needed in service, f"{needed} would be left to a default"


def test_one_region_and_a_free_one(config: Terraform) -> None:
    region = config.of("variable")["var.region"]
    assert text_of(region.attributes["default"]) in {"us-central1", "us-east1", "us-west1"}
    for block in config.of("resource").values():
        for name in ("location", "location_id", "region"):
            if name in block.attributes and block.labels[0] != "google_logging_project_bucket_config":
                assert block.attributes[name] == "${var.region}", block.address


def test_one_database_and_it_is_the_free_one(config: Terraform) -> None:
    databases = [b for b in config.of("resource").values() if b.labels[0] == "google_firestore_database"]
    assert [text_of(b.attributes["name"]) for b in databases] == ["(default)"]
    assert "for_each" not in databases[0].attributes
    assert text_of(databases[0].attributes["point_in_time_recovery_enablement"]) == "POINT_IN_TIME_RECOVERY_DISABLED"
    assert not [b for b in config.of("resource").values() if b.inner("ttl_config")], (
        "deletes by time-to-live are billed"
    )


def test_overwritten_objects_are_not_kept(config: Terraform) -> None:
    buckets = [b for b in config.of("resource").values() if b.labels[0] == "google_storage_bucket"]
    for bucket in buckets:
        assert bucket.inner("soft_delete_policy")[0].attributes["retention_duration_seconds"] == 0
        assert not bucket.inner("versioning")
        assert text_of(bucket.attributes["storage_class"]) == "STANDARD"


def test_two_schedules_and_one_registry_that_cleans_up(config: Terraform) -> None:
    schedules = config.local_values["schedules"]
    assert {name for name in schedules if not name.startswith("__")} == {"crawl", "compact"}
    registry = config.of("resource")["google_artifact_registry_repository.functions"]
    assert {text_of(p.attributes["action"]) for p in registry.inner("cleanup_policies")} == {"DELETE", "KEEP"}
    assert registry.attributes["cleanup_policy_dry_run"] is False


def test_only_search_is_public_and_the_rest_takes_inside_calls_only(config: Terraform) -> None:
    text = (ROOT / "terraform" / "functions.tf").read_text(encoding="utf-8")
    assert text.count('"ALLOW_ALL"') == 1
    assert text.index("search = {") < text.index('"ALLOW_ALL"') < text.index("var.billing_account == null ? {} : {")
    members = (ROOT / "terraform" / "iam.tf").read_text(encoding="utf-8")
    assert members.count('= "allUsers"') == 1
    assert "allAuthenticatedUsers" not in members


def test_no_account_has_a_basic_role(config: Terraform) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "terraform").glob("*.tf"))
    for role in ("roles/owner", "roles/editor", "roles/viewer", "roles/storage.admin", "roles/datastore.owner"):
        assert role not in text


# The switch


class Doors(BaseHTTPRequestHandler):
    """Cloud Run's and Cloud Storage's policy endpoints, with their etags."""

    def do_GET(self) -> None:
        self._send(200, self.server.policies[self._door()])  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        self._write(lambda body: body["policy"])

    def do_PUT(self) -> None:
        self._write(lambda body: body)

    def _write(self, policy_of: Any) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        door, policy = self._door(), policy_of(body)
        if server.refusing == door:
            self._send(403, {"error": "denied"})
            return
        if server.racing:
            server.racing -= 1
            server.policies[door] = {**server.policies[door], "etag": f"raced{server.racing}"}
        if policy.get("etag") != server.policies[door]["etag"]:
            self._send(412 if door == "page" else 409, {"error": "etag"})
            return
        server.policies[door] = {**policy, "etag": policy["etag"] + "+"}
        self._send(200, server.policies[door])

    def _door(self) -> str:
        return "page" if "/b/" in self.path else "endpoint" if "IamPolicy" in self.path else "service"

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.policies["service"] |= body  # type: ignore[attr-defined]
        self._send(200, body)

    def _send(self, status: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def doors() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Doors)
    server.refusing, server.racing = None, 0
    server.policies = {
        "endpoint": {
            "etag": "a",
            "bindings": [
                {"role": "roles/run.invoker", "members": ["allUsers", "serviceAccount:own@x"]},
                {"role": "projects/p/roles/visorSwitch", "members": ["serviceAccount:switch@x"]},
            ],
        },
        "service": {"name": "projects/p/locations/r/services/s", "invokerIamDisabled": True},
        "page": {"etag": "b", "bindings": [{"role": "roles/storage.legacyObjectReader", "members": ["allUsers"]}]},
    }
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def switch() -> ModuleType:
    spec = spec_from_file_location("switch_main", ROOT / "functions" / "switch" / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def close(switch: ModuleType, doors: Any, bucket: str = "bucket") -> list[str]:
    base = f"http://127.0.0.1:{doors.server_port}"
    with requests.Session() as session:
        closed: list[str] = switch.close(session, "projects/p/locations/r/services/s", bucket, run=base, storage=base)
    return closed


def test_switch_shuts_the_public_out_and_nobody_else(switch: ModuleType, doors: Any) -> None:
    assert close(switch, doors) == ["endpoint", "page"]
    members = [m for door in ("endpoint", "page") for b in doors.policies[door]["bindings"] for m in b["members"]]
    assert members == ["serviceAccount:own@x", "serviceAccount:switch@x"]
    assert close(switch, doors) == [], "a second notification finds nothing to do"


def test_switch_checks_invokers_again_where_the_function_serves_the_page(switch: ModuleType, doors: Any) -> None:
    doors.policies["endpoint"]["bindings"] = []
    assert close(switch, doors, bucket="") == ["page"]
    assert doors.policies["service"]["invokerIamDisabled"] is False
    assert close(switch, doors, bucket="") == []


def test_switch_reads_again_when_somebody_else_wrote(switch: ModuleType, doors: Any) -> None:
    doors.racing = 2
    assert close(switch, doors) == ["endpoint", "page"]


def test_switch_closes_the_other_door_when_one_sticks(switch: ModuleType, doors: Any) -> None:
    doors.refusing = "endpoint"
    with pytest.raises(requests.HTTPError):
        close(switch, doors)
    assert doors.policies["page"]["bindings"] == []


@pytest.mark.parametrize(
    ("cost", "budget", "used"), [(0, 1, False), (0.49, 1, False), (0.5, 1, True), (3, 1, True), (0.9, 2, False)]
)
def test_switch_knows_when_the_budget_is_used(switch: ModuleType, cost: float, budget: float, used: bool) -> None:
    assert switch.is_used({"costAmount": cost, "budgetAmount": budget}, 0.5) is used


def test_switch_leaves_everything_open_while_nothing_is_spent(
    switch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCH_CLOSE_AT", "0.5")
    monkeypatch.setattr(switch, "close", lambda *_: pytest.fail("closed although nothing was spent"))
    data = base64.b64encode(json.dumps({"costAmount": 0.0, "budgetAmount": 1.0}).encode()).decode()
    attributes = {"type": "google.cloud.pubsub.topic.v1.messagePublished", "source": "//pubsub/topics/visor-budget"}
    switch.switch(CloudEvent(attributes, {"message": {"data": data}}))


def test_switch_closes_both_doors_when_google_says_that_the_budget_is_used(
    switch: ModuleType, doors: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the notification to the closed doors; only the credentials and Google's addresses are replaced."""
    base = f"http://127.0.0.1:{doors.server_port}"
    to_google = switch.close
    monkeypatch.setenv("SWITCH_CLOSE_AT", "0.5")
    monkeypatch.setenv("SWITCH_SERVICE", "projects/p/locations/r/services/s")
    monkeypatch.setenv("SWITCH_BUCKET", "bucket")
    monkeypatch.setattr("google.auth.default", lambda scopes: (None, "p"))
    monkeypatch.setattr("google.auth.transport.requests.AuthorizedSession", lambda credentials: requests.Session())
    monkeypatch.setattr(switch, "close", lambda *names: to_google(*names, run=base, storage=base))
    data = base64.b64encode(json.dumps({"costAmount": 0.6, "budgetAmount": 1.0}).encode()).decode()
    attributes = {"type": "google.cloud.pubsub.topic.v1.messagePublished", "source": "//pubsub/topics/visor-budget"}
    switch.switch(CloudEvent(attributes, {"message": {"data": data}}))
    assert not [
        m
        for door in ("endpoint", "page")
        for b in doors.policies[door]["bindings"]
        for m in b["members"]
        if m == "allUsers"
    ]
    told = json.loads(capsys.readouterr().out)
    assert (told["severity"], told["cost"]) == ("ALERT", 0.6)
