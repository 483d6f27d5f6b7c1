"""Real Terraform evaluates ours: variables and their validations, locals, conditions, each argument of each instance.

The provider cannot be had here, so each resource is handed to Terraform as one of its own built-in `terraform_data`,
with the same for_each and all arguments as its input, and with references to other resources as plain text. What comes
out is what would be sent to Google.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import deployed_environ

from visor.deploy.terraform import TerraformBlock, read_terraform
from visor.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
TERRAFORM = ROOT / "terraform"
REFERENCE = re.compile(r"(?<![\w.])(?:data\.)?google_\w+\.\w+(?:\.\w+|\[(?:[^\[\]]|\[[^\]]*\])*\])*")
OWNER = ("owner_key=abcdefghijklmnopqrstuvwxyz", "owner_key_version=1")
BUDGET = ("billing_account=0A1B2C-3D4E5F-6A7B8C",)
Planned = dict[str, dict[str, Any]]

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")


def as_json(value: Any) -> Any:
    """A parsed value in Terraform's JSON syntax, with references to resources as text."""
    if isinstance(value, dict):
        return {str(k).strip('"'): as_json(v) for k, v in value.items() if not str(k).startswith("__")}
    if isinstance(value, list):
        return [as_json(v) for v in value]
    if not isinstance(value, str):
        return value
    if value.startswith('"'):
        value = json.loads(value) if "${" not in value else value[1:-1].replace('\\"', '"')
    return REFERENCE.sub(lambda m: json.dumps("ref:" + m[0].replace('"', "'").replace("each.key", "")), value)


def arguments(block: TerraformBlock) -> dict[str, Any]:
    found = {k: as_json(v) for k, v in block.attributes.items() if k not in ("for_each", "count", "depends_on")}
    for inner in block.blocks:
        # What a dynamic block reads of its own iterator is known inside it only.
        if "value.version" not in json.dumps(as_json(dict(inner.attributes))):
            found.setdefault(inner.type, []).append(arguments(inner))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = read_terraform(TERRAFORM)
    resources = {}
    for block in config.of("resource").values():
        many = {k: as_json(block.attributes[k]) for k in ("for_each", "count") if k in block.attributes}
        # Values that Terraform must not keep cannot stand in a built-in resource either.
        input_ = {k: v for k, v in arguments(block).items() if k != "secret_data_wo"}
        resources["__".join(block.labels)] = {**many, "input": input_}
    local = {k: as_json(v) for k, v in config.local_values.items()}
    made = tmp_path_factory.mktemp("terraform")
    bundles = made / "bundles"
    bundles.mkdir()
    for name in ("crawl", "embed", "compact", "search", "switch"):
        (bundles / f"{name}.zip").write_bytes(name.encode())
    shutil.copy(TERRAFORM / "variables.tf", made)
    document = {"locals": local, "resource": {"terraform_data": resources}}
    (made / "main.tf.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    terraform(made, "init", "-input=false")
    return made


def terraform(folder: Path, *arguments: str) -> str:
    environ = {**os.environ, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        ["terraform", *arguments, "-no-color"], cwd=folder, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def planned(folder: Path, *variables: str) -> Planned:
    """Address (as in terraform/) to the arguments of every instance that would be made."""
    given = [f"-var={v}" for v in ("project=my-project", "bundles=bundles", *variables)]
    terraform(folder, "plan", "-input=false", "-out=plan", *given)
    shown = json.loads(terraform(folder, "show", "-json", "plan"))
    return {
        change["address"].removeprefix("terraform_data.").replace("__", ".", 1): change["change"]["after"]["input"]
        for change in shown["resource_changes"]
    }


def of(found: Planned, type_: str) -> Planned:
    return {address: values for address, values in found.items() if address.startswith(type_ + ".")}


@pytest.fixture(scope="module")
def default(folder: Path) -> Planned:
    return planned(folder)


@pytest.fixture(scope="module")
def everything(folder: Path) -> Planned:
    return planned(folder, *BUDGET, *OWNER, "key_required=true", "protect_data=true", "index=shop")


def test_default_makes_four_functions_that_scale_to_zero(default: Planned) -> None:
    functions = {v["name"]: v["service_config"][0] for v in of(default, "google_cloudfunctions2_function").values()}
    assert set(functions) == {"visor-crawl", "visor-embed", "visor-compact", "visor-search"}
    for service in functions.values():
        assert service["min_instance_count"] == 0
        assert 1 <= service["max_instance_count"] <= 2
    assert {n: s["available_memory"] for n, s in functions.items()} == {
        "visor-crawl": "512Mi", "visor-embed": "1024Mi", "visor-compact": "2048Mi", "visor-search": "1024Mi",
    }  # fmt: skip
    public = [name for name, service in functions.items() if service["ingress_settings"] == "ALLOW_ALL"]
    assert public == ["visor-search"]


def test_a_function_with_less_than_one_cpu_takes_one_request_at_once(everything: Planned) -> None:
    """Cloud Run refuses anything else."""
    for values in of(everything, "google_cloudfunctions2_function").values():
        service = values["service_config"][0]
        if float(service["available_cpu"]) < 1:
            assert service["max_instance_request_concurrency"] == 1, values["name"]


def test_environment_makes_valid_settings(everything: Planned) -> None:
    for values in of(everything, "google_cloudfunctions2_function").values():
        environ = values["service_config"][0]["environment_variables"]
        if values["name"] == "visor-switch":
            assert set(environ) == {"SWITCH_SERVICE", "SWITCH_BUCKET", "SWITCH_CLOSE_AT"}
            continue
        settings = Settings.read(environ)
        assert settings.backend == "gcp"
        assert settings.index == "shop"
        assert settings.key_required
        assert settings.cors_origins == ("https://storage.googleapis.com",)


def test_tests_start_functions_in_the_environment_that_is_deployed(default: Planned) -> None:
    """Without Terraform its variables are put together by hand, and that is what the abuse suite runs with."""
    for name in ("crawl", "embed", "compact", "search"):
        [values] = [v for v in of(default, "google_cloudfunctions2_function").values() if v["name"] == f"visor-{name}"]
        real = values["service_config"][0]["environment_variables"]
        made = {key for key, value in real.items() if value.startswith("ref:")}
        ours = deployed_environ(name)
        assert ours.keys() == real.keys()
        assert {k: ours[k] for k in ours.keys() - made} == {k: real[k] for k in real.keys() - made}


def test_threads_and_time_limits_of_search(default: Planned) -> None:
    [values] = [v for v in of(default, "google_cloudfunctions2_function").values() if v["name"] == "visor-search"]
    service = values["service_config"][0]
    assert int(service["environment_variables"]["THREADS"]) > service["max_instance_request_concurrency"]
    settings = Settings.read(service["environment_variables"])
    assert settings.request_timeout_s + settings.fetch_timeout_s < service["timeout_seconds"]


def test_time_limits_fit_each_other(default: Planned) -> None:
    functions = {v["name"]: v["service_config"][0] for v in of(default, "google_cloudfunctions2_function").values()}
    crawl = functions["visor-crawl"]
    assert float(crawl["environment_variables"]["VISOR_CRAWL_BUDGET_S"]) + 60 <= crawl["timeout_seconds"]
    for job in of(default, "google_cloud_scheduler_job").values():
        service = functions[job["name"]]
        assert int(job["attempt_deadline"].rstrip("s")) >= service["timeout_seconds"]
    batches = default["google_pubsub_subscription.batches"]
    assert functions["visor-embed"]["timeout_seconds"] < batches["ack_deadline_seconds"] <= 600
    retry = batches["retry_policy"][0]
    assert int(retry["minimum_backoff"].rstrip("s")) < int(retry["maximum_backoff"].rstrip("s")) <= 600
    assert batches["dead_letter_policy"][0]["max_delivery_attempts"] == 5


def test_only_search_is_everybody_s(everything: Planned) -> None:
    public = {a for a, v in everything.items() if v.get("member") in ("allUsers", "allAuthenticatedUsers")}
    assert public == {
        'google_cloud_run_v2_service_iam_member.invoker["search"]',
        "google_storage_bucket_iam_member.public",
    }
    buckets = of(everything, "google_storage_bucket")
    open_ = {a for a, v in buckets.items() if v["public_access_prevention"] != "enforced"}
    assert open_ == {'google_storage_bucket.bucket["site"]'}


def test_protecting_data_refuses_to_delete_it(default: Planned, everything: Planned) -> None:
    for found, forced in ((default, True), (everything, False)):
        assert {v["force_destroy"] for v in of(found, "google_storage_bucket").values()} == {forced}
        [database] = of(found, "google_firestore_database").values()
        assert (database["deletion_policy"] == "DELETE") is forced


def test_without_a_billing_account_there_is_no_switch_and_with_one_there_is(
    default: Planned, everything: Planned
) -> None:
    assert not of(default, "google_billing_budget")
    assert not [a for a in default if "switch" in a]
    [budget] = of(everything, "google_billing_budget").values()
    assert budget["amount"][0]["specified_amount"][0]["units"] == "1"
    assert 'google_cloudfunctions2_function.function["switch"]' in everything
    assert 'google_cloud_run_v2_service_iam_member.invoker["switch"]' in everything


def test_collections_carry_the_index_s_name(everything: Planned) -> None:
    fields = of(everything, "google_firestore_field").values()
    assert {f["collection"] for f in fields} >= {"shop-items", "shop-commits", "shop-runs"}
    assert {(f["collection"], f["field"]) for f in fields if f["field"] != "*"} >= {("shop-commits", "committed_at")}


def test_bundles_are_named_by_what_is_in_them(default: Planned) -> None:
    names = {v["name"] for v in of(default, "google_storage_bucket_object").values()}
    assert len(names) == 4
    assert all(re.fullmatch(r"functions/\w+-[0-9a-f]{64}\.zip", name) for name in names)


REFUSED = {
    "project=My_Project": "A project id",
    "region=europe-west1": "Cloud Storage is free in",
    "index=Über": "An index name",
    "crawl_budget_s=1790": "at most 1740",
    "freshness_s=1": "Below 5 s",
    "sizes={search={instances=50}}": "highest number of instances",
    "sizes={crawl={instances=2}}": "Two crawls",
    'cors_origins=["*"]': "Each origin",
    "owner_key=short": "at least 20",
    "key_required=true": "only if there is one",
    "billing_account=mine": "A billing account's id",
    "budget={amount=0}": "The amount is a whole number",
    "log_retention_days=365": "longer retention is billed",
    "embed_attempts_max=2": "5 to 100",
    "quota_share=1.5": "at most 1",
    "unsafe_query=2.5": "at most 2",
    "unsafe_item=0": "More than 0",
}


@pytest.mark.parametrize("variable", REFUSED)
def test_a_variable_that_would_cost_or_break_is_refused(variable: str, folder: Path) -> None:
    given = [f"-var={v}" for v in ("project=my-project", "bundles=bundles", variable)]
    environ = {**os.environ, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull}
    command = ["terraform", "plan", "-input=false", "-no-color", *given]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert REFUSED[variable] in " ".join(re.sub(r"[│╷╵]", " ", done.stderr).split())
