"""Looks whether a project is ready: programs, account, billing, services, what else uses the free tier there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from visor.deploy.programs import document, find, output
from visor.deploy.steps import DEPLOYER_ROLES, Target
from visor.deploy.terraform import read_terraform
from visor.errors import DeployError, VisorError

TERRAFORM_AT_LEAST = (1, 11, 0)
JOBS_FREE = 3
OWN_JOBS = {"visor-crawl", "visor-compact"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found. `remedy` says what to do where it is not well; `fatal`: deploying cannot succeed."""

    check: str
    well: bool
    found: str
    remedy: str = ""
    fatal: bool = True


def examine(target: Target) -> Iterator[Finding]:
    """Every check in order. What needs gcloud is left out where gcloud or an account is missing."""
    yield _tried("terraform", _terraform)
    gcloud = _tried("gcloud", lambda: _well("gcloud", output(["gcloud", "version"]).splitlines()[0]))
    yield gcloud
    if not gcloud.well:
        return
    account = _tried("account", _account)
    yield account
    if not account.well:
        return
    yield _tried("credentials", _credentials)
    project = _tried("project", lambda: _project(target))
    yield project
    if not project.well:
        return
    checks: dict[str, Callable[[], Finding]] = {
        "billing": lambda: _billing(target),
        "region": lambda: _region(target),
        "services": lambda: _services(target),
        "roles": lambda: _roles(target, account.found),
        "database": lambda: _database(target),
        "schedules": lambda: _schedules(target),
        "repositories": lambda: _repositories(target),
    }
    for name, check in checks.items():
        yield _tried(name, check)


def _tried(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except VisorError as exc:
        return Finding(check=name, well=False, found=exc.found, remedy=exc.remedy or "See the message")


def _well(check: str, found: str) -> Finding:
    return Finding(check=check, well=True, found=found)


def _terraform() -> Finding:
    find("terraform")
    version = str(document(["terraform", "version", "-json"])["terraform_version"])
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
    if numbers < TERRAFORM_AT_LEAST:
        wanted = ".".join(map(str, TERRAFORM_AT_LEAST))
        return Finding(check="terraform", well=False, found=f"Terraform {version}", remedy=f"Install {wanted} or newer")
    return _well("terraform", f"Terraform {version}")


def _account() -> Finding:
    account = output(["gcloud", "auth", "list", "--filter=status:ACTIVE", "--format=value(account)"])
    if not account:
        return Finding(check="account", well=False, found="Nobody is logged in", remedy="Run `gcloud auth login`")
    return _well("account", account)


def _credentials() -> Finding:
    """Terraform uses the application's own credentials, not gcloud's."""
    try:
        output(["gcloud", "auth", "application-default", "print-access-token", "--quiet"])
    except DeployError:
        return Finding(
            check="credentials",
            well=False,
            found="Terraform has no credentials",
            remedy="Run `gcloud auth application-default login`",
        )
    return _well("credentials", "Terraform has credentials")


def _project(target: Target) -> Finding:
    try:
        found = document(["gcloud", "projects", "describe", target.project, "--format=json"])
    except DeployError as exc:
        return Finding(
            check="project",
            well=False,
            found=f"Project {target.project} cannot be seen: {exc.found}",
            remedy=f"Run `gcloud projects create {target.project}`, or name another with --project",
        )
    if found.get("lifecycleState") != "ACTIVE":
        state = found.get("lifecycleState")
        return Finding(
            check="project", well=False, found=f"{target.project} is {state}", remedy="Use an active project"
        )
    return _well("project", target.project)


def _billing(target: Target) -> Finding:
    found = document(["gcloud", "billing", "projects", "describe", target.project, "--format=json"])
    if not found.get("billingEnabled"):
        return Finding(
            check="billing",
            well=False,
            found="Billing is off, and without it Google makes no functions and no buckets",
            remedy=f"Run `gcloud billing projects link {target.project} --billing-account=ID`; the plan stays free",
        )
    return _well("billing", found.get("billingAccountName", "on"))


def _region(target: Target) -> Finding:
    free = ("us-central1", "us-east1", "us-west1")
    if target.region not in free:
        return Finding(
            check="region",
            well=False,
            found=f"Cloud Storage is not free in {target.region}",
            remedy=f"Choose one of {', '.join(free)}",
        )
    return _well("region", target.region)


def _services(target: Target) -> Finding:
    """Terraform enables them; all that has to be there is the one through which it does."""
    listed = document(["gcloud", "services", "list", "--enabled", f"--project={target.project}", "--format=json"])
    enabled = {service["config"]["name"] for service in listed or []}
    needed = {"cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com"}
    if missing := sorted(needed - enabled):
        return Finding(
            check="services",
            well=False,
            found=f"{', '.join(missing)} off",
            remedy=f"Run `gcloud services enable {' '.join(missing)} --project={target.project}`",
        )
    text = str(read_terraform(target.terraform).local_values["services"])
    wanted = set(re.findall(r'"([a-z]+\.googleapis\.com)"', text))
    return _well("services", f"{len(wanted & enabled)} of {len(wanted)} on; Terraform enables the rest")


def _roles(target: Target, account: str) -> Finding:
    policy: dict[str, Any] = document(["gcloud", "projects", "get-iam-policy", target.project, "--format=json"])
    own = {b["role"] for b in policy.get("bindings", []) if any(m.endswith(f":{account}") for m in b["members"])}
    missing = [role for role in DEPLOYER_ROLES if role not in own]
    if "roles/owner" in own or not missing:
        return _well("roles", "owner" if "roles/owner" in own else "all that is needed")
    return Finding(
        check="roles",
        well=False,
        fatal=False,
        found=f"{account} is not seen to have {', '.join(missing)} (it may, through a group or folder)",
        remedy="Ask an owner of the project for them, or for roles/owner",
    )


def _database(target: Target) -> Finding:
    try:
        listed = document(["gcloud", "firestore", "databases", "list", f"--project={target.project}", "--format=json"])
    except DeployError:
        return _well("database", "none yet")
    for database in listed or []:
        if not database["name"].endswith("/(default)"):
            continue
        kind, place = database.get("type"), database.get("locationId")
        if kind != "FIRESTORE_NATIVE" or place != target.region:
            return Finding(
                check="database",
                well=False,
                found=f"The free database (default) is there already: {kind} in {place}",
                remedy="Use another project, or delete that database if nobody needs it: only (default) is free",
            )
        return _well("database", f"(default) is there, in {place}; import it if Visor's Terraform did not make it")
    return _well("database", "none yet")


def _schedules(target: Target) -> Finding:
    try:
        where = [f"--project={target.project}", f"--location={target.region}", "--format=json"]
        listed = document(["gcloud", "scheduler", "jobs", "list", *where])
    except DeployError:
        return _well("schedules", "none yet")
    others = [job["name"].rpartition("/")[2] for job in listed or [] if job["name"].rpartition("/")[2] not in OWN_JOBS]
    if len(others) + len(OWN_JOBS) > JOBS_FREE:
        return Finding(
            check="schedules",
            well=False,
            fatal=False,
            found=f"{len(others)} other jobs ({', '.join(others)}) and Visor's two: three are free",
            remedy="Pause or delete some, or accept some cents a month",
        )
    return _well("schedules", f"{len(others)} others; three are free for the billing account")


def _repositories(target: Target) -> Finding:
    try:
        listed = document(
            ["gcloud", "artifacts", "repositories", "list", f"--project={target.project}", "--format=json"]
        )
    except DeployError:
        return _well("repositories", "none yet")
    others = [r for r in listed or [] if not r["name"].endswith("/visor-functions")]
    size = sum(int(r.get("sizeBytes", 0)) for r in others)
    if size > 100_000_000:
        return Finding(
            check="repositories",
            well=False,
            fatal=False,
            found=f"Other repositories hold {size / 1e6:,.0f} MB of the 0.5 GB that are free",
            remedy="Delete images that nobody uses, e.g. those of gcf-artifacts",
        )
    return _well("repositories", f"others hold {size / 1e6:,.0f} MB")
