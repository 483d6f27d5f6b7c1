"""Checks whether a project is ready: programs, account, billing, services, and what else in it uses the free tier."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from visor.deploy.owner import check_owner, given_variables
from visor.deploy.process import output, parsed_output
from visor.deploy.steps import (
    DEPLOYER_ROLES,
    DONE_BEFORE,
    ENABLING,
    PUBLIC_BY_FUNCTION,
    STATE_FILE,
    Target,
    check_project,
    needed_services,
    steps_of,
)
from visor.errors import DeployError, VisorError
from visor.schema.items import Record

TERRAFORM_AT_LEAST = (1, 11, 0)
FREE_REGIONS = ("us-central1", "us-east1", "us-west1")
JOBS_FREE = 3
OWN_JOBS = {"visor-crawl", "visor-compact"}
_PLACES = {"in:us-locations", "us", "in:america-locations", "global"}
"""Values of gcp.resourceLocations that include every free region."""


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
    """Run every check that the target's path needs, in order. If one of `NEEDED` fails, those after it are left out."""
    programs = {program for step in steps_of(target) for program in step.needs}
    _enabled.cache_clear()
    for name, check in CHECKS.items():
        if OF_PROGRAM.get(name, "gcloud") not in programs:
            continue
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


def _npm(target: Target) -> str:
    return f"npm {output(['npm', '--version'])}"


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
            "Billing is off, and without it Google creates no functions and no buckets",
            remedy=f"Run `gcloud billing projects link {target.project} --billing-account=ID`; the plan stays free",
        )
    return str(found.get("billingAccountName", "on"))


def _region(target: Target) -> str:
    if target.region not in FREE_REGIONS:
        remedy = f"Choose one of {', '.join(FREE_REGIONS)}"
        raise DeployError(f"Cloud Storage is not free in {target.region}", remedy=remedy)
    return target.region


def _services(target: Target) -> str:
    """Terraform enables services; only those that it needs for this must be on already."""
    enabled = _enabled(target.project)
    if missing := sorted(set(ENABLING) - enabled):
        raise DeployError(
            f"{', '.join(missing)} off",
            remedy=f"Run `gcloud services enable {' '.join(missing)} --project={target.project}`",
        )
    wanted = needed_services(target)
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
    for database in _listed_if_enabled(target, "firestore", "firestore", "databases", "list"):
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
    jobs = _listed_if_enabled(target, "cloudscheduler", "scheduler", "jobs", "list", f"--location={target.region}")
    others = sorted({job["name"].rpartition("/")[2] for job in jobs} - OWN_JOBS)
    if len(others) + len(OWN_JOBS) > JOBS_FREE:
        raise _Advice(
            f"{len(others)} other jobs ({', '.join(others)}) and Visor's two: {JOBS_FREE} are free",
            remedy="Pause or delete some, or accept some cents a month",
        )
    return f"{len(others)} others; {JOBS_FREE} are free for the billing account"


def _repositories(target: Target) -> str:
    listed = _listed_if_enabled(target, "artifactregistry", "artifacts", "repositories", "list")
    sizes = {r["name"].rpartition("/")[2]: int(r.get("sizeBytes", 0)) for r in listed}
    own = sizes.pop("visor-functions", 0)
    size = sum(sizes.values())
    if size > 100_000_000:
        raise _Advice(
            f"Other repositories hold {size / 1e6:,.0f} MB of the 0.5 GB that are free",
            remedy="Delete images that nobody uses, e.g. those of gcf-artifacts",
        )
    return f"visor-functions holds {own / 1e6:,.0f} MB, others {size / 1e6:,.0f} MB, of the 500 MB that are free"


def _policies(target: Target) -> str:
    """What the organisation forbids. A project without an organisation has no policies to read."""
    given = given_variables(target.terraform, target.variables)
    by_function, budget = given.get("public") == "function", given.get("billing_account")
    unread: list[str] = []
    allowed = _policy(target, "gcp.resourceLocations", unread).get("listPolicy", {}).get("allowedValues", [])
    if allowed and not any(target.region in place or place in _PLACES for place in allowed):
        raise DeployError(
            f"The organisation allows {', '.join(allowed)} (gcp.resourceLocations), but not {target.region}",
            remedy=f"Ask its administrator for an exception; free regions are {', '.join(FREE_REGIONS)}",
        )
    strangers, buckets = (
        _forbids(target, name, unread) for name in ("iam.allowedPolicyMemberDomains", "storage.publicAccessPrevention")
    )
    if not by_function and (strangers or buckets):
        closed = ["members of other domains, allUsers among them (iam.allowedPolicyMemberDomains)"] * strangers
        closed += ["public buckets (storage.publicAccessPrevention)"] * buckets
        raise DeployError(f"The organisation forbids {' and '.join(closed)}", remedy=PUBLIC_BY_FUNCTION)
    if by_function and _forbids(target, "run.managed.requireInvokerIam", unread):
        raise DeployError(
            "The organisation forbids switching off Cloud Run's invoker check (run.managed.requireInvokerIam)",
            remedy="Ask its administrator for an exception, or serve the page behind your own sign-in",
        )
    if strangers and budget:
        raise DeployError(
            "Budgets report costs through an account of Google's, which iam.allowedPolicyMemberDomains forbids",
            remedy="Leave billing_account out, or ask for an exception for that account (terraform/budget.tf names it)",
        )
    return (
        f"nothing in the way, except that these cannot be read: {', '.join(unread)}" if unread else "nothing in the way"
    )


def _forbids(target: Target, constraint: str, unread: list[str]) -> bool:
    policy = _policy(target, constraint, unread)
    members, rules = policy.get("listPolicy", {}), policy.get("spec", {}).get("rules", [])
    return (
        "allowedValues" in members
        or members.get("allValues") == "DENY"
        or bool(policy.get("booleanPolicy", {}).get("enforced"))
        or any(rule.get("enforce") for rule in rules)
    )


def _policy(target: Target, constraint: str, unread: list[str]) -> dict[str, Any]:
    """The effective policy of a constraint; empty if there is none. If it cannot be read, it is also empty, and the
    constraint is added to `unread`."""
    # Managed constraints are known to the newer API only, which few projects have enabled.
    group = ["org-policies"] if ".managed." in constraint else ["resource-manager", "org-policies"]
    command = ["gcloud", *group, "describe", constraint, "--effective", f"--project={target.project}", "--format=json"]
    try:
        return parsed_output(command) or {}
    except DeployError as exc:
        unread += [] if re.search(DONE_BEFORE, exc.found) else [constraint]
        return {}


def _builds(target: Target) -> str:
    if target.region != "us-central1" and not _listed_if_enabled(
        target, "cloudfunctions", "functions", "list", f"--regions={target.region}"
    ):
        raise _Advice(
            f"Google lets some new projects build in a few regions only, and {target.region} is not one of them",
            remedy="If the build fails because of a quota of the region, use us-central1, or ask Google to raise it",
        )
    return f"{target.region} builds"


def _sources(target: Target) -> str:
    """Whether the owner's settings, secrets and sources work there."""
    names = check_owner(given_variables(target.terraform, target.variables), target.sources)
    if not names:
        raise _Advice("There is no source: nothing will be crawled", remedy="Write a visor.toml (docs/sources.md)")
    return f"{len(names)}: {', '.join(names)}"


def _state(target: Target) -> str:
    """A project with two states would get every resource twice, and a state of another project delete that one's."""
    state = target.terraform / "terraform.tfstate"
    local = state.is_file() and '"type": "google_' in state.read_text(encoding="utf-8")
    in_bucket = bool(_ls(f"gs://{target.state_bucket}/visor/terraform/default.tfstate"))
    keeps = target.cloud or (target.terraform / STATE_FILE).is_file()
    if local and keeps:
        raise DeployError(
            "This project was deployed from here, and its state is terraform/terraform.tfstate",
            remedy="Move it: in terraform/, with state.tfbackend and backend_override.tf (docs/deploy.md, State), "
            "`terraform init -migrate-state -backend-config=state.tfbackend`",
        )
    if in_bucket and not keeps and not local:
        raise DeployError(
            f"This project was deployed with its state in gs://{target.state_bucket}",
            remedy="Use --cloud, or copy terraform/state.tfbackend.example to state.tfbackend and name the bucket",
        )
    if not target.cloud:
        check_project(_kept_state(target) if keeps else _parsed_state(state), target)
    return "in a bucket" if keeps else "on this machine"


def _parsed_state(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes() or b"{}")) if path.is_file() else {}
    except ValueError as exc:
        remedy = "Restore it from terraform.tfstate.backup next to it"
        raise DeployError(f"{path} is not a state of Terraform: {exc}", remedy=remedy) from exc


def _kept_state(target: Target) -> dict[str, Any]:
    """The state in the bucket that the owner's state.tfbackend names; empty if nothing is there."""
    text = (target.terraform / STATE_FILE).read_text(encoding="utf-8")
    bucket = re.search(r'^\s*bucket\s*=\s*"([^"]+)"', text, re.MULTILINE)
    url = f"gs://{bucket[1] if bucket else ''}/visor/terraform/default.tfstate"
    return parsed_output(["gcloud", "storage", "cat", url]) or {} if bucket and _ls(url) else {}


def _ls(url: str) -> str:
    """What `gcloud storage ls` prints; empty if nothing is there, or there is no bucket yet."""
    try:
        return output(["gcloud", "storage", "ls", url])
    except DeployError as exc:
        if re.search(DONE_BEFORE, exc.found):
            return ""
        raise _Advice(f"{url} cannot be looked for: {exc.found}", remedy="Ask an owner of the project to look") from exc


def _listed(project: str, *command: str) -> list[dict[str, Any]]:
    """What a `gcloud … list` lists."""
    return parsed_output(["gcloud", *command, f"--project={project}", "--format=json"]) or []


@cache
def _enabled(project: str) -> frozenset[str]:
    """The names of the services that are enabled."""
    return frozenset(service["config"]["name"] for service in _listed(project, "services", "list", "--enabled"))


def _listed_if_enabled(target: Target, service: str, *command: str) -> list[dict[str, Any]]:
    """As `_listed`; empty while the service is off, as it has nothing then. Raises `_Advice` if it cannot be listed."""
    if f"{service}.googleapis.com" not in _enabled(target.project):
        return []
    try:
        return _listed(target.project, *command)
    except DeployError as exc:
        raise _Advice(f"It cannot be listed: {exc.found}", remedy="Ask an owner of the project to look") from exc


CHECKS: dict[str, Callable[[Target], str]] = {
    "terraform": _terraform,
    "npm": _npm,
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
    "policies": _policies,
    "builds": _builds,
    "sources": _sources,
    "state": _state,
}
"""Each returns what it found, or raises if that is not enough."""
OF_PROGRAM = {"terraform": "terraform", "credentials": "terraform", "npm": "npm"}
"""Checks that only a path which runs this program needs; both paths need the others."""
NEEDED = {"gcloud", "account", "project"}
"""If one of these fails, nothing further can be checked."""
