"""What terraform/ makes, as real Terraform evaluates it: sizes, environments, time limits, who may do what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deployed import deployed_environ
from tests.terraformed import Values, Workspace, workspace

from visor.settings import Settings

BUDGET = ("billing_account=0A1B2C-3D4E5F-6A7B8C",)
OWNER = ("owner_key=abcdefghijklmnopqrstuvwxyz", "owner_key_version=1")
SET = (
    'settings={links_a_day="5", VISOR_USER_AGENT="Shop"}',
    'source_secrets={MARKET_KEY="market"}',
    'read_buckets=["gs://pictures/a/", "gs://pictures/b/", "gs://more"]',
    'page={title="Shop", language="de", notes=[{text="Hand-made"}]}',
    "bulk=true",
)
Made = dict[str, Values]

pytestmark = pytest.mark.slow


def made(place: Workspace, *variables: str) -> Made:
    place.terraform("apply", *place.variables(*variables))
    return place.made()


def of(found: Made, type_: str) -> Made:
    return {address: values for address, values in found.items() if address.startswith(type_ + ".")}


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with workspace(tmp_path_factory.mktemp("default")) as place:
        yield made(place)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with workspace(tmp_path_factory.mktemp("everything")) as place:
        yield made(place, *BUDGET, *OWNER, *SET, "key_required=true", "protect_data=true", "index=shop")


def test_default_makes_four_functions_that_scale_to_zero(default: Made) -> None:
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


def test_a_function_with_less_than_one_cpu_takes_one_request_at_once(everything: Made) -> None:
    """Cloud Run refuses anything else."""
    for values in of(everything, "google_cloudfunctions2_function").values():
        service = values["service_config"][0]
        if float(service["available_cpu"]) < 1:
            assert service["max_instance_request_concurrency"] == 1, values["name"]


@pytest.mark.parametrize(("spend", "units", "share"), [("0.5", "1", 1 / 2), ("5", "5", 1), ("2.5", "3", 853 / 1024)])
def test_alert_and_switch_follow_the_sum(tmp_path: Path, spend: str, units: str, share: float) -> None:
    with workspace(tmp_path / "paid") as place:
        found = made(place, *BUDGET, f'budget={{spend={spend}, currency="EUR"}}')
    [budget] = of(found, "google_billing_budget").values()
    assert budget["amount"][0]["specified_amount"][0]["units"] == units
    assert min(rule["threshold_percent"] for rule in budget["threshold_rules"]) == share
    [switch] = [v for v in of(found, "google_cloudfunctions2_function").values() if v["name"] == "visor-switch"]
    closes = float(switch["service_config"][0]["environment_variables"]["SWITCH_CLOSE_AT"])
    assert 0.998 * float(spend) < closes * float(units) <= float(spend)


def test_environment_makes_valid_settings(everything: Made) -> None:
    for values in of(everything, "google_cloudfunctions2_function").values():
        environ = values["service_config"][0]["environment_variables"]
        if values["name"] == "visor-switch":
            assert set(environ) == {"SWITCH_SERVICE", "SWITCH_BUCKET", "SWITCH_CLOSE_AT"}
            continue
        settings = Settings.read(environ)
        assert settings.backend == "gcp"
        assert settings.index == "shop"
        assert settings.key_required
        assert (settings.links_a_day, settings.user_agent) == (5, "Shop")
        assert settings.allow_buckets == ("gs://more", "gs://pictures/a/", "gs://pictures/b/")
        assert settings.cors_origins == ("https://storage.googleapis.com",)


def test_tests_start_functions_in_the_environment_that_is_deployed(default: Made) -> None:
    """Without Terraform its variables are put together by hand, and that is what the abuse suite runs with."""
    for name in ("crawl", "embed", "compact", "search"):
        [values] = [v for v in of(default, "google_cloudfunctions2_function").values() if v["name"] == f"visor-{name}"]
        real = values["service_config"][0]["environment_variables"]
        assert deployed_environ(name) == real


def test_threads_and_time_limits_of_search(default: Made) -> None:
    [values] = [v for v in of(default, "google_cloudfunctions2_function").values() if v["name"] == "visor-search"]
    service = values["service_config"][0]
    assert int(service["environment_variables"]["THREADS"]) > service["max_instance_request_concurrency"]
    settings = Settings.read(service["environment_variables"])
    assert settings.request_timeout_s + settings.fetch_timeout_s < service["timeout_seconds"]


def test_time_limits_fit_each_other(default: Made) -> None:
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
    assert batches["dead_letter_policy"][0]["max_delivery_attempts"] == 100


def test_only_search_is_everybody_s(everything: Made) -> None:
    public = {a for a, v in everything.items() if v.get("member") in ("allUsers", "allAuthenticatedUsers")}
    assert public == {
        'google_cloud_run_v2_service_iam_member.invoker["search"]',
        "google_storage_bucket_iam_member.public[0]",
    }
    buckets = of(everything, "google_storage_bucket")
    open_ = {a for a, v in buckets.items() if v["public_access_prevention"] != "enforced"}
    assert open_ == {'google_storage_bucket.bucket["site"]'}


def test_protecting_data_refuses_to_delete_it(default: Made, everything: Made) -> None:
    for found, forced in ((default, True), (everything, False)):
        assert {v["force_destroy"] for v in of(found, "google_storage_bucket").values()} == {forced}
        [database] = of(found, "google_firestore_database").values()
        assert database["deletion_policy"] == "DELETE", "ABANDON would forget it, and the next apply meet it"


def test_without_a_billing_account_there_is_no_switch_and_with_one_there_is(default: Made, everything: Made) -> None:
    assert not of(default, "google_billing_budget")
    assert not [a for a in default if "switch" in a]
    [budget] = of(everything, "google_billing_budget").values()
    assert budget["amount"][0]["specified_amount"][0]["units"] == "1"
    assert 'google_cloudfunctions2_function.function["switch"]' in everything
    assert 'google_cloud_run_v2_service_iam_member.invoker["switch"]' in everything


def test_collections_carry_the_index_s_name(everything: Made) -> None:
    fields = of(everything, "google_firestore_field").values()
    assert {f["collection"] for f in fields} >= {"shop-items", "shop-commits", "shop-runs"}
    assert {(f["collection"], f["field"]) for f in fields if f["field"] != "*"} >= {("shop-commits", "committed_at")}


def test_bundles_are_named_by_what_is_in_them(default: Made) -> None:
    names = {v["name"] for v in of(default, "google_storage_bucket_object").values()}
    assert len(names) == 4
    assert all(re.fullmatch(r"functions/\w+-[0-9a-f]{64}\.zip", name) for name in names)


def test_secrets_and_buckets_are_read_by_whoever_needs_them(everything: Made) -> None:
    functions = {v["name"]: v["service_config"][0] for v in of(everything, "google_cloudfunctions2_function").values()}
    secrets = {
        name: {s["key"]: s["secret"] for s in service["secret_environment_variables"]}
        for name, service in functions.items()
    }
    assert {name: found for name, found in secrets.items() if found} == {
        "visor-crawl": {"MARKET_KEY": "market"},
        "visor-search": {"VISOR_OWNER_KEY": "visor-owner-key"},
    }
    granted = {
        (v["bucket"], v["member"].partition("@")[0])
        for v in of(everything, "google_storage_bucket_iam_member").values()
    }
    assert {(b, f"serviceAccount:visor-{a}") for b in ("pictures", "more") for a in ("crawl", "embed")} <= granted


def test_every_account_is_used(everything: Made) -> None:
    emails = {v["email"] for v in of(everything, "google_service_account").values()}
    used = str([v for a, v in everything.items() if not a.startswith("google_service_account.")])
    assert len(emails) == 9
    assert [email for email in emails if email not in used] == []


def test_a_bulk_has_an_account_and_a_bucket_that_forgets_and_none_unless_wanted(
    default: Made, everything: Made
) -> None:
    assert not [address for address, values in default.items() if "visor-bulk" in str(values) or "beam" in str(values)]
    member = everything['google_service_account.account["bulk"]']["member"]
    roles = {v["role"] for v in of(everything, "google_project_iam_member").values() if v["member"] == member}
    assert roles == {"roles/dataflow.worker", "roles/datastore.user"}
    given = {v["bucket"] for v in of(everything, "google_storage_bucket_iam_member").values() if v["member"] == member}
    assert given == {"my-project-visor-index", "my-project-visor-beam"}
    buckets = {v["name"]: v["lifecycle_rule"] for v in of(everything, "google_storage_bucket").values()}
    deleting = {
        name: rule["condition"][0]["age"]
        for name, rules in buckets.items()
        for rule in rules
        if rule["action"][0]["type"] == "Delete"
    }
    assert deleting == {"my-project-visor-beam": 7}
