"""The schema check of terraform/: finds nothing in ours, and finds each mistake that is planted."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scripts.check_terraform import check
from scripts.terraform_schema import used_types

ROOT = Path(__file__).resolve().parents[3]
TERRAFORM = ROOT / "terraform"
SCHEMA: dict[str, Any] = json.loads(
    (ROOT / "tests" / "unit" / "deploy" / "terraform_schema.json").read_text(encoding="utf-8")
)

# file, text that stands there, what is planted instead, what the finding says
MISTAKES = {
    "unknown resource type": (
        "scheduler.tf",
        'resource "google_cloud_scheduler_job" "job"',
        'resource "google_cloud_schedule_job" "job"',
        "no such resource type",
    ),
    "unknown argument": ("functions.tf", "min_instance_count ", "min_instances ", "unknown argument min_instances"),
    "unknown nested argument": ("pubsub.tf", "minimum_backoff", "min_backoff", "unknown argument min_backoff"),
    "unknown block": ("storage.tf", "soft_delete_policy {", "soft_delete {", "unknown block soft_delete"),
    "missing argument": ("main.tf", "  account_id   = ", "  description_2 = ", "missing argument account_id"),
    "missing nested argument": (
        "pubsub.tf",
        "    service_account_email = ",
        "    # ",
        "missing argument service_account_email",
    ),
    "missing block": ("functions.tf", "  replication {", "  lifecycle {", "missing block replication"),
    "string for a number": ("storage.tf", "age = 1\n", 'age = "1"\n', "age is a string, valid is number"),
    "string for a boolean": (
        "storage.tf",
        "uniform_bucket_level_access = true",
        'uniform_bucket_level_access = "yes"',
        "is a string, valid is boolean",
    ),
    "number for a string": (
        "firestore.tf",
        'type                              = "FIRESTORE_NATIVE"',
        "type = 7",
        "is a number, valid is string",
    ),
    "list for a string": (
        "functions.tf",
        'format                 = "DOCKER"',
        'format = ["DOCKER"]',
        "is a list, valid is string",
    ),
    "string for a list": ("budget.tf", 'projects               = ["projects/', 'projects = "x" # ', "valid is list"),
    "string for a map": (
        "functions.tf",
        "description = local.accounts[each.value.account]",
        'labels = "a=b"',
        "is a string, valid is map(string)",
    ),
    "block as argument": ("firestore.tf", "  index_config {}", "  index_config = {}", "index_config is a block"),
    "single block twice": (
        "pubsub.tf",
        "  retry_policy {\n",
        "  retry_policy {}\n  retry_policy {\n",
        "stands 2 times",
    ),
    "unknown variable": ("main.tf", "var.project\n}", "var.projekt\n}", "var.projekt: no such variable"),
    "unknown local": ("iam.tf", "= local.invokers", "= local.invoker", "local.invoker: no such local value"),
    "unknown resource": (
        "iam.tf",
        'google_pubsub_topic.topic["batches"]',
        "google_pubsub_topic.batches",
        "no such resource",
    ),
    "unknown instance": (
        "iam.tf",
        'google_pubsub_topic.topic["batches"]',
        'google_pubsub_topic.topic["batch"]',
        "no such instance; there are batches, dead-letters",
    ),
    "instance left out": (
        "iam.tf",
        'google_pubsub_topic.topic["batches"]',
        "google_pubsub_topic.topic",
        "name one in brackets",
    ),
    "unknown attribute": ("scheduler.tf", "[0].uri\n", "[0].url\n", "no attribute url"),
    "unknown attribute of a data source": (
        "pubsub.tf",
        "this.number",
        "this.project_number",
        "no attribute project_number",
    ),
    "depends on nothing": (
        "pubsub.tf",
        "depends_on = [google_cloud_run_v2_service_iam_member.invoker]",
        "depends_on = [google_cloud_run_service_iam_member.invoker]",
        "depends_on",
    ),
    "each without for_each": ("logging.tf", '"_Default"', "each.key", "each stands in a block without for_each"),
    "variable that nothing reads": ("variables.tf", 'variable "time_zone"', 'variable "timezone"', "nothing reads it"),
    "variable without type": ("variables.tf", "  type        = bool\n", "", "has no type"),
    "output without description": ("outputs.tf", '  description = "Address of the page."\n', "", "has no description"),
}


def test_our_terraform_has_no_findings() -> None:
    assert check(TERRAFORM, SCHEMA) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_finds_planted(mistake: str, tmp_path: Path) -> None:
    file, right, wrong, finding = MISTAKES[mistake]
    folder = shutil.copytree(
        TERRAFORM, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*")
    )
    text = (folder / file).read_text(encoding="utf-8")
    assert right in text, "the text to replace has changed"
    (folder / file).write_text(text.replace(right, wrong, 1), encoding="utf-8")
    findings = check(folder, SCHEMA)
    assert any(finding in f and f.startswith((file, "var.", "local.", "output")) for f in findings), findings


def test_schema_holds_exactly_the_types_in_use() -> None:
    resources, data = used_types(TERRAFORM)
    assert set(SCHEMA["resources"]) == resources, "run scripts/terraform_schema.py again"
    assert set(SCHEMA["data"]) == data


def test_provider_bounds_hold_the_schema_version() -> None:
    versions = (TERRAFORM / "versions.tf").read_text(encoding="utf-8")
    assert f'version = ">= {SCHEMA["version"]}, < 7.0.0"' in versions
    assert SCHEMA["version"].startswith("6.")


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_formatted() -> None:
    done = subprocess.run(["terraform", "fmt", "-check", "-diff", str(TERRAFORM)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
