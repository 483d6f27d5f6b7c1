"""Checks whether a project is ready: programs, account, billing, services, what else there uses the free tier."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from visor.deploy.process import output, parsed_output
from visor.deploy.steps import DEPLOYER_ROLES, Target
from visor.deploy.terraform import read_terraform
from visor.errors import DeployError, VisorError
from visor.schema.items import Record

TERRAFORM_AT_LEAST = (1, 11, 0)
FREE_REGIONS = ("us-central1", "us-east1", "us-west1")
JOBS_FREE = 3
OWN_JOBS = {"visor-crawl", "visor-compact"}


class ProjectCheck(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What one check found. `remedy` says what to do if it failed; `fatal`: deploying cannot succeed."""

    check: str
    ok: bool = msgspec.field(name="well")
    found: str
    remedy: str = ""
    fatal: bool = True


class _Advice(DeployError):
    """A check that failed, but does not keep a deployment from succeeding."""


def examine(target: Target) -> Iterator[ProjectCheck]:
    """Every check in order. Those after one of `NEEDED` that failed are left out."""
    for name, check in CHECKS.items():
        try:
            yield ProjectCheck(check=name, ok=True, found=check(target))
        except VisorError as exc:
            remedy, fatal = exc.remedy or "See the message", not isinstance(exc, _Advice)
            yield ProjectCheck(check=name, ok=False, found=exc.found, remedy=remedy, fatal=fatal)
            if name in NEEDED:
                return


def _terraform(target: Target) -> str:
    version = str(parsed_output(["terraform", "version", "-json"])["terraform_version"])
    if tuple(int(n) for n in re.findall(r"\d+", version)[:3]) < TERRAFORM_AT_LEAST:
        raise DeployError(f"Terraform {version}", remedy=f"Install {'.'.join(map(str, TERRAFORM_AT_LEAST))} or newer")
    return f"Terraform {version}"


def _gcloud(target: Target) -> str:
    return output(["gcloud", "version"]).splitlines()[0]


def _account(target: Target) -> str:
    account = output(["gcloud", "auth", "list", "--filter=status:ACTIVE", "--format=value(account)"])
    if not account:
        raise DeployError("Nobody is logged in", remedy="Run `gcloud auth login`")
    return account


def _credentials(target: Target) -> str:
    """Terraform uses the application's own credentials, not gcloud's."""
    try:
        output(["gcloud", "auth", "application-default", "print-access-token", "--quiet"])
    except DeployError as exc:
        remedy = "Run `gcloud auth application-default login`"
        raise DeployError("Terraform has no credentials", remedy=remedy) from exc
    return "Terraform has credentials"


def _project(target: Target) -> str:
    try:
        found = parsed_output(["gcloud", "projects", "describe", target.project, "--format=json"])
    except DeployError as exc:
        raise DeployError(
            f"Project {target.project} cannot be seen: {exc.found}",
            remedy=f"Run `gcloud projects create {target.project}`, or name another with --project",
        ) from exc
    if (state := found.get("lifecycleState")) != "ACTIVE":
        raise DeployError(f"{target.project} is {state}", remedy="Use an active project")
    return target.project


def _billing(target: Target) -> str:
    found = parsed_output(["gcloud", "billing", "projects", "describe", target.project, "--format=json"])
    if not found.get("billingEnabled"):
        raise DeployError(
            "Billing is off, and without it Google makes no functions and no buckets",
            remedy=f"Run `gcloud billing projects link {target.project} --billing-account=ID`; the plan stays free",
        )
    return str(found.get("billingAccountName", "on"))


def _region(target: Target) -> str:
    if target.region not in FREE_REGIONS:
        remedy = f"Choose one of {', '.join(FREE_REGIONS)}"
        raise DeployError(f"Cloud Storage is not free in {target.region}", remedy=remedy)
    return target.region


def _services(target: Target) -> str:
    """Terraform enables services; only those through which it does so must be on already."""
    enabled = {service["config"]["name"] for service in _listed(target, "services", "list", "--enabled")}
    needed = {"cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com"}
    if missing := sorted(needed - enabled):
        raise DeployError(
            f"{', '.join(missing)} off",
            remedy=f"Run `gcloud services enable {' '.join(missing)} --project={target.project}`",
        )
    text = str(read_terraform(target.terraform).local_values["services"])
    wanted = set(re.findall(r'"([a-z]+\.googleapis\.com)"', text))
    return f"{len(wanted & enabled)} of {len(wanted)} on; Terraform enables the rest"


def _roles(target: Target) -> str:
    account = _account(target)
    policy: dict[str, Any] = parsed_output(["gcloud", "projects", "get-iam-policy", target.project, "--format=json"])
    own = {b["role"] for b in policy.get("bindings", []) if any(m.endswith(f":{account}") for m in b["members"])}
    if "roles/owner" in own:
        return "owner"
    if missing := [role for role in DEPLOYER_ROLES if role not in own]:
        raise _Advice(
            f"{account} does not seem to have {', '.join(missing)} (it may, through a group or folder)",
            remedy="Ask an owner of the project for them, or for roles/owner",
        )
    return "all that is needed"


def _database(target: Target) -> str:
    for database in _listed_or_none(target, "firestore", "databases", "list"):
        if not database["name"].endswith("/(default)"):
            continue
        kind, region = database.get("type"), database.get("locationId")
        if kind != "FIRESTORE_NATIVE" or region != target.region:
            raise DeployError(
                f"The free database (default) exists already: {kind} in {region}",
                remedy="Use another project, or delete that database if nobody needs it: only (default) is free",
            )
        return f"(default) exists, in {region}; import it if Visor's Terraform did not make it"
    return "none yet"


def _schedules(target: Target) -> str:
    jobs = _listed_or_none(target, "scheduler", "jobs", "list", f"--location={target.region}")
    others = sorted({job["name"].rpartition("/")[2] for job in jobs} - OWN_JOBS)
    if len(others) + len(OWN_JOBS) > JOBS_FREE:
        raise _Advice(
            f"{len(others)} other jobs ({', '.join(others)}) and Visor's two: {JOBS_FREE} are free",
            remedy="Pause or delete some, or accept some cents a month",
        )
    return f"{len(others)} others; {JOBS_FREE} are free for the billing account"


def _repositories(target: Target) -> str:
    listed = _listed_or_none(target, "artifacts", "repositories", "list")
    size = sum(int(r.get("sizeBytes", 0)) for r in listed if not r["name"].endswith("/visor-functions"))
    if size > 100_000_000:
        raise _Advice(
            f"Other repositories hold {size / 1e6:,.0f} MB of the 0.5 GB that are free",
            remedy="Delete images that nobody uses, e.g. those of gcf-artifacts",
        )
    return f"others hold {size / 1e6:,.0f} MB"


def _listed(target: Target, *command: str) -> list[dict[str, Any]]:
    """What a `gcloud … list` lists."""
    return parsed_output(["gcloud", *command, f"--project={target.project}", "--format=json"]) or []


def _listed_or_none(target: Target, *command: str) -> list[dict[str, Any]]:
    """As `_listed`; nothing if it fails, since the service may not be enabled yet."""
    try:
        return _listed(target, *command)
    except DeployError:
        return []


CHECKS: dict[str, Callable[[Target], str]] = {
    "terraform": _terraform,
    "gcloud": _gcloud,
    "account": _account,
    "credentials": _credentials,
    "project": _project,
    "billing": _billing,
    "region": _region,
    "services": _services,
    "roles": _roles,
    "database": _database,
    "schedules": _schedules,
    "repositories": _repositories,
}
"""Each returns what it found, or raises if that is not enough."""
NEEDED = {"gcloud", "account", "project"}
"""Without these nothing further can be checked."""
