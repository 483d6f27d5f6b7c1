"""`visor deploy`: from a project with billing to a public page, a scheduled crawl and a search endpoint."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from visor.console import GivenPath, as_json, print_json, say
from visor.deploy.owner import given_variables
from visor.deploy.process import output, parsed_output
from visor.deploy.readiness import FREE_REGIONS, examine
from visor.deploy.steps import (
    CLOUD_VARIABLES,
    Step,
    Target,
    check_project,
    destroy_steps,
    in_state,
    init_step,
    run_steps,
    steps_of,
    uploaded_variables,
    use_state_file,
)
from visor.deploy.terraform import Terraform, read_terraform
from visor.errors import DeployError
from visor.models.registry import AUTO
from visor.settings import Settings

NEEDED = ("cloudbuild.yaml", "terraform", "functions", "frontend", "scripts")
_VARIABLE = re.compile(r'^variable "(\w+)"', re.MULTILINE)

TARGET_OPTIONS = (
    click.option(
        "--project", envvar="VISOR_PROJECT", help="Google Cloud project (default: terraform.tfvars, gcloud's)."
    ),
    click.option("--region", type=click.Choice(FREE_REGIONS), help="Default: terraform.tfvars, us-central1."),
    click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A further Terraform variable."),
    click.option("--root", type=GivenPath(file_okay=False), default=Path(), help="A checkout of Visor."),
    click.option("--cloud", is_flag=True, help="Use Cloud Build, with the state in a bucket."),
)


def target_options(command: Any) -> Any:
    """The options that set what is deployed, and where."""
    for option in reversed(TARGET_OPTIONS):
        command = option(command)
    return command


@click.command("deploy")
@target_options
@click.option("--config", type=GivenPath(exists=True, dir_okay=False), help="visor.toml with sources.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would happen; needs no credentials.")
@click.option("--doctor", is_flag=True, help="Check whether the project is ready, and say what to do.")
@as_json
def deploy_command(
    project: str | None,
    region: str | None,
    variables: tuple[str, ...],
    config: Path | None,
    root: Path,
    cloud: bool,
    only_plan: bool,
    doctor: bool,
    as_json: bool,
) -> None:
    """Put Visor on Google Cloud, within the free tier."""
    unnamed = "PROJECT" if only_plan else None
    target = _with_model(_target(root, project, region, variables, cloud=cloud, config=config, unnamed=unnamed))
    steps = steps_of(target)
    if doctor:
        _doctor(target, as_json=as_json)
    elif only_plan:
        _plan(steps, read_terraform(target.terraform), as_json=as_json)
    else:
        _run(steps, target, as_json=as_json)


@click.command("destroy")
@target_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def destroy_command(
    project: str | None, region: str | None, variables: tuple[str, ...], root: Path, cloud: bool, yes: bool
) -> None:
    """Remove what `visor deploy` made from Google Cloud, with all data. Needs no bundles."""
    target = _target(root, project, region, variables, cloud=cloud)
    use_state_file(target)
    run_steps([init_step(target)], target, say=say)
    state = parsed_output(["terraform", "state", "pull"], cwd=target.terraform) or {}
    counts: Counter[str] = Counter()
    for resource in state.get("resources", []):
        counts[resource["type"].removeprefix("google_")] += (resource["mode"] == "managed") * len(resource["instances"])
    if not counts.total():
        other = "without --cloud" if cloud else "with --cloud, if that is how it was deployed"
        raise DeployError("Terraform's state names nothing that could be destroyed", remedy=f"Try it {other}")
    check_project(state, target)
    if places := in_state(state, "location", "google_cloudfunctions2_function"):
        target = replace(target, region=places.pop())
    outputs = {name: one["value"] for name, one in state.get("outputs", {}).items()}
    if outputs.get("protected") == "true" or given_variables(target.terraform, variables).get("protect_data"):
        raise DeployError(
            "The data is protected (protect_data)",
            remedy="Set protect_data = false, run `visor deploy`, and then `visor destroy` again",
        )
    click.echo(f"{counts.total()} resources will be removed from {target.project}:")
    for kind, count in sorted((+counts).items()):
        click.echo(f"{count:5}  {kind}")
    buckets = ", ".join([*outputs.get("buckets", {}).values(), target.state_bucket])
    click.echo(f"So will all objects of {buckets}, the database (default), the images of the functions, and the")
    click.echo("account visor-deploy. Enabled services, your own secrets and your own buckets stay, free of charge.")
    if not yes:
        click.confirm("Remove all of it?", abort=True)
    steps = destroy_steps(target)
    if left := run_steps(steps, target, say=say):
        raise DeployError(
            f"Destroyed, but these steps failed; what is left may cost something: {'; '.join(s.why for s in left)}",
            valid="A project in which nothing of Visor's is left",
            remedy="Correct what the messages above name, then run " + " and ".join(f"`{s.command}`" for s in left),
        )
    if any(step.name == "sources" for step in steps):
        say("Destroyed. Nothing of Visor's is left that could cost anything.")
    else:
        say(
            "Destroyed, except for Google's copies of the functions' sources: they are among those of your other "
            f"functions in gs://gcf-v2-sources-…-{target.region} and count as stored there."
        )


def _target(
    root: Path,
    project: str | None,
    region: str | None,
    variables: tuple[str, ...],
    *,
    cloud: bool,
    config: Path | None = None,
    unnamed: str | None = None,
) -> Target:
    """What is named on the command line, else by Terraform's variables, else by gcloud.

    Args:
        unnamed: The project if only gcloud could name one.
    """
    if wrong := [v for v in variables if "=" not in v]:
        raise click.UsageError(f"--var {wrong[0]} is not NAME=VALUE")
    root, config = _checkout(root), config.resolve() if config else None
    known = {name for path in (root / "terraform").glob("*.tf") for name in _VARIABLE.findall(path.read_text("utf-8"))}
    if unknown := [v for v in variables if v.partition("=")[0] not in known]:
        raise click.UsageError(f"--var {unknown[0]} names no variable. Valid: {', '.join(sorted(known))}")
    if cloud and config and not config.is_relative_to(root):
        raise DeployError(
            f"{config} is not in the checkout, so it would not be uploaded",
            remedy=f"Copy it to {root / 'visor.toml'}, which needs no --config",
        )
    given = given_variables(root / "terraform", variables)
    project = project or given.get("project") or unnamed or _default_project()
    region = region or given.get("region") or FREE_REGIONS[0]
    return Target(root=root, project=project, region=region, variables=variables, cloud=cloud, config=config)


def _with_model(target: Target) -> Target:
    """With the model of VISOR_MODEL, unless Terraform's variables name one: bundles and functions need the same."""
    model = Settings.read().model
    if model == AUTO or "model" in given_variables(target.terraform, target.variables):
        return target
    return replace(target, variables=(*target.variables, f"model={model}"))


def _checkout(root: Path) -> Path:
    root = root.resolve()
    if missing := [name for name in NEEDED if not (root / name).exists()]:
        raise DeployError(
            f"{root} is not a checkout of Visor: {', '.join(missing)} missing",
            valid="The functions, terraform/ and the page of the repository",
            remedy="Run it in a checkout, or name one with --root",
        )
    # A run with --cloud that was killed left its variables, which Terraform would read.
    (root / CLOUD_VARIABLES).unlink(missing_ok=True)
    return root


def _default_project() -> str:
    project = output(["gcloud", "config", "get-value", "project", "--quiet"])
    if not project or project == "(unset)":
        raise DeployError(
            "No project is named and gcloud has none",
            remedy="Name one with --project, or run `gcloud config set project ID`",
        )
    return project


def _plan(steps: list[Step], config: Terraform, *, as_json: bool) -> None:
    resources = [
        {
            "address": address,
            "file": block.file,
            "several": "for_each" in block.attributes or "count" in block.attributes,
        }
        for address, block in config.of("resource").items()
    ]
    if as_json:
        rows: list[dict[str, Any]] = [
            {"name": s.name, "why": s.why, "command": s.command, "changes": s.changes} for s in steps
        ]
        print_json({"steps": rows, "resources": resources})
        return
    for number, step in enumerate(steps, 1):
        click.echo(f"{number:3}. {step.name}: {step.why}{'' if step.changes else ' (changes nothing in the cloud)'}")
        click.echo(f"       {step.command}")
    kinds = Counter(str(r["file"]) for r in resources)
    click.echo(f"\nTerraform then owns {len(resources)} kinds of resources, declared in:")
    for file, count in sorted(kinds.items()):
        names = [str(r["address"]) + ("[…]" if r["several"] else "") for r in resources if r["file"] == file]
        click.echo(f"  terraform/{file} ({count}): " + ", ".join(names))
    click.echo("\n`visor cost` shows its use of the free tier, `visor deploy --doctor` whether your project is ready.")


def _doctor(target: Target, *, as_json: bool) -> None:
    findings = []
    for check in examine(target):
        findings.append(check)
        if not as_json:
            mark = "ok  " if check.ok else "STOP" if check.fatal else "note"
            click.echo(f"{mark}  {check.check}: {check.found}")
            if not check.ok:
                click.echo(f"      {check.remedy}")
    if as_json:
        print_json({"findings": findings})
    if any(not f.ok and f.fatal for f in findings):
        sys.exit(1)


def _run(steps: list[Step], target: Target, *, as_json: bool) -> None:
    for check in examine(target):
        if not check.ok and check.fatal:
            raise DeployError(check.found, remedy=check.remedy)
    if target.cloud:
        with uploaded_variables(target):
            run_steps(steps, target, say=say)
        say("Deployed. The log above ends with the page's address.")
        return
    use_state_file(target)
    run_steps(steps, target, say=say)
    outputs = {name: output(["terraform", "output", "-raw", name], cwd=target.terraform) for name in OUTPUTS}
    if as_json:
        print_json(outputs)
    else:
        for name, value in outputs.items():
            click.echo(f"{name:10} {value}")


OUTPUTS = ("page", "endpoint", "crawl_now")
