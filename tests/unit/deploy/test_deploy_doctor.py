"""`visor deploy --doctor`: is the project ready, and what does it say to do?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.deploy.deploying import World, deploy, findings

from visor.deploy.readiness import CHECKS
from visor.deploy.steps import STATE_FILE, Target
from visor.errors import DeployError


def test_doctor_finds_a_ready_project_ready(world: World, checkout: Path) -> None:
    found = findings(checkout)
    assert {name: f.found for name, f in found.items() if not f.ok} == {}
    assert set(found) >= {
        "terraform",
        "account",
        "credentials",
        "billing",
        "services",
        "roles",
        "database",
        "schedules",
    }
    assert deploy(checkout, "--doctor", "--project", "my-project").exit_code == 0


DOES_NOT_FIT = {
    "terraform": ("terraform version -json", {"stdout": {"terraform_version": "1.5.7"}}, "1.11.0"),
    "account": ("gcloud auth list", {"stdout": ""}, "gcloud auth login"),
    "credentials": (
        "gcloud auth application-default print-access-token",
        {"status": 1, "stderr": "none"},
        "application-default login",
    ),
    "project": ("gcloud projects describe my-project", {"status": 1, "stderr": "not found"}, "gcloud projects create"),
    "billing": ("gcloud billing projects describe", {"stdout": {"billingEnabled": False}}, "--billing-account"),
    "services": ("gcloud services list", {"stdout": []}, "gcloud services enable"),
    "roles": ("gcloud projects get-iam-policy", {"stdout": {"bindings": []}}, "roles/owner"),
    "database": (
        "gcloud firestore databases list",
        {"stdout": [{"name": "p/databases/(default)", "type": "DATASTORE_MODE", "locationId": "nam5"}]},
        "another project",
    ),
    "schedules": (
        "gcloud scheduler jobs list",
        {"stdout": [{"name": "p/jobs/backup"}, {"name": "p/jobs/report"}, {"name": "p/jobs/visor-crawl"}]},
        "Pause or delete",
    ),
    "repositories": (
        "gcloud artifacts repositories list",
        {"stdout": [{"name": "p/repositories/gcf-artifacts", "sizeBytes": "400000000"}]},
        "Delete images",
    ),
}


CLOSED = {"listPolicy": {"allowedValues": ["C01abc"]}}
POLICY = "gcloud resource-manager org-policies describe"
BY_ORGANISATION: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "no organisation": ({}, (), ""),
    "domains": ({"iam.allowedPolicyMemberDomains": CLOSED}, (), 'public = "function"'),
    "nobody at all": ({"iam.allowedPolicyMemberDomains": {"listPolicy": {"allValues": "DENY"}}}, (), "function"),
    "everybody": ({"iam.allowedPolicyMemberDomains": {"listPolicy": {"allValues": "ALLOW"}}}, (), ""),
    "buckets": ({"storage.publicAccessPrevention": {"booleanPolicy": {"enforced": True}}}, (), "function"),
    "buckets are free": ({"storage.publicAccessPrevention": {"booleanPolicy": {}}}, (), ""),
    "domains, by function": ({"iam.allowedPolicyMemberDomains": CLOSED}, ("public=function",), ""),
    "invoker check, by function": (
        {"run.managed.requireInvokerIam": {"spec": {"rules": [{"enforce": True}]}}},
        ("public=function",),
        "administrator",
    ),
    "domains and a budget": (
        {"iam.allowedPolicyMemberDomains": CLOSED},
        ("public=function", "billing_account=0A1B2C-3D4E5F-6A7B8C"),
        "Leave billing_account out",
    ),
    "Europe only": ({"gcp.resourceLocations": {"listPolicy": {"allowedValues": ["in:eu-locations"]}}}, (), "exception"),
    "the United States": ({"gcp.resourceLocations": {"listPolicy": {"allowedValues": ["in:us-locations"]}}}, (), ""),
    "our region": (
        {"gcp.resourceLocations": {"listPolicy": {"allowedValues": ["in:us-central1-locations"]}}},
        (),
        "",
    ),
}


@pytest.mark.parametrize("case", BY_ORGANISATION)
def test_doctor_reads_the_organisation_s_policies(case: str, world: World, checkout: Path) -> None:
    policies, variables, remedy = BY_ORGANISATION[case]
    for constraint, policy in policies.items():
        describe = "gcloud org-policies describe" if ".managed." in constraint else POLICY
        world.says(f"{describe} {constraint}", stdout=policy)
    target = Target(root=checkout, project="my-project", variables=variables)
    if not remedy:
        assert CHECKS["policies"](target)
        return
    with pytest.raises(DeployError) as refused:
        CHECKS["policies"](target)
    assert remedy in refused.value.remedy


def test_two_states_of_one_project_are_refused(world: World, checkout: Path) -> None:
    state = checkout / "terraform" / "terraform.tfstate"
    here, cloud = Target(root=checkout, project="my-project"), Target(root=checkout, project="my-project", cloud=True)
    assert CHECKS["state"](here) == "on this machine"
    state.write_text('{"resources": [{"type": "google_pubsub_topic"}]}')
    with pytest.raises(DeployError, match="deployed from here"):
        CHECKS["state"](cloud)
    state.write_text('{"resources": []}')
    assert CHECKS["state"](cloud) == "in a bucket"
    world.says("gcloud storage ls", stdout="gs://my-project-visor-state/visor/terraform/default.tfstate")
    with pytest.raises(DeployError, match="deployed with its state in"):
        CHECKS["state"](here)


@pytest.mark.parametrize("kept", ["here", "in a bucket"])
def test_a_state_of_another_project_is_refused(kept: str, world: World, checkout: Path) -> None:
    """Terraform would move all of that project to this one, without asking."""
    state = {
        "resources": [
            {"mode": "data", "type": "google_project", "instances": [{"attributes": {"project": "of nobody"}}]},
            {"mode": "managed", "type": "google_pubsub_topic", "instances": [{"attributes": {"project": "other-1"}}]},
        ]
    }
    if kept == "here":
        (checkout / "terraform" / "terraform.tfstate").write_text(json.dumps(state))
    else:
        (checkout / "terraform" / STATE_FILE).write_text('bucket = "kept"\n')
        url = "gs://kept/visor/terraform/default.tfstate"
        world.says("gcloud storage ls gs://kept", stdout=url)
        world.says(f"gcloud storage cat {url}", stdout=state)
    with pytest.raises(DeployError, match="is that of other-1, not of my-project"):
        CHECKS["state"](Target(root=checkout, project="my-project"))
    CHECKS["state"](Target(root=checkout, project="other-1"))
    done = deploy(checkout, "--project", "my-project")
    assert isinstance(done.exception, DeployError)
    assert "--project other-1" in done.exception.remedy
    assert not world.asked("gcloud", "services", "enable")


def test_a_damaged_state_is_an_error_that_says_so(world: World, checkout: Path) -> None:
    (checkout / "terraform" / "terraform.tfstate").write_text('{"resources": [')
    with pytest.raises(DeployError, match="is not a state of Terraform"):
        CHECKS["state"](Target(root=checkout, project="my-project"))


@pytest.mark.slow
@pytest.mark.parametrize("check", DOES_NOT_FIT)
def test_doctor_says_what_to_do(check: str, world: World, checkout: Path) -> None:
    prefix, answer, remedy = DOES_NOT_FIT[check]
    world.says(prefix, **answer)
    found = findings(checkout)[check]
    assert not found.ok
    assert remedy in found.remedy
    done = deploy(checkout, "--doctor", "--project", "my-project", "--json")
    assert done.exit_code == (1 if found.fatal else 0)
    assert [f["check"] for f in json.loads(done.stdout)["findings"] if not f["well"]] == [check]


REFUSED = {"status": 1, "stderr": "ERROR: (gcloud) PERMISSION_DENIED: you do not have permission to list"}


@pytest.mark.parametrize(
    ("check", "prefix", "if_off"),
    [
        ("database", "gcloud firestore databases list", "none yet"),
        ("schedules", "gcloud scheduler jobs list", "0 others"),
        ("repositories", "gcloud artifacts repositories list", "others 0 MB"),
        ("state", "gcloud storage ls", ""),
    ],
)
def test_what_cannot_be_seen_is_not_called_empty(
    check: str, prefix: str, if_off: str, world: World, checkout: Path
) -> None:
    world.says(prefix, **REFUSED)
    found = findings(checkout)[check]
    assert not found.ok
    assert not found.fatal
    assert "PERMISSION_DENIED" in found.found
    if if_off:
        world.says("gcloud services list", stdout=[])
        assert if_off in findings(checkout)[check].found


def test_policies_that_cannot_be_read_are_named(world: World, checkout: Path) -> None:
    world.says(f"{POLICY} iam.allowedPolicyMemberDomains", **REFUSED)
    assert findings(checkout)["policies"].found.endswith("cannot be read: iam.allowedPolicyMemberDomains")
    world.says(f"{POLICY} iam.allowedPolicyMemberDomains", stdout={})
    assert "cannot" not in CHECKS["policies"](
        Target(root=checkout, project="my-project", variables=("public=function",))
    )


@pytest.mark.slow
def test_doctor_knows_the_free_regions(world: World, checkout: Path) -> None:
    assert not findings(checkout, "europe-west1")["region"].ok
    assert findings(checkout, "us-west1")["region"].ok


@pytest.mark.slow
def test_an_unreadable_answer_is_no_crash(world: World, checkout: Path) -> None:
    world.says("gcloud services list", stdout="<html>")
    assert "did not print JSON" in findings(checkout)["services"].found
