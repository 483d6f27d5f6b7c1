"""`visor deploy` with gcloud, terraform and npm on PATH that behave like the real ones at the interface used."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pathspec
import pytest
from tests.unit.deploy.deploying import ROOT, World, deploy, findings

from visor.cli.doctor import _tool
from visor.deploy import grants
from visor.deploy.process import ProgramFailed, output, run
from visor.deploy.steps import (
    CLOUD_VARIABLES,
    DEPLOYER_ROLES,
    OVERRIDE,
    STATE_FILE,
    Step,
    Target,
    cloud_steps,
    deployer,
    local_steps,
    needed_services,
    run_steps,
    service_steps,
    steps_of,
)
from visor.errors import DeployError


@pytest.mark.slow
def test_plan_needs_no_program_and_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = deploy(ROOT, "--plan")
    assert done.exit_code == 0, done.output
    assert "terraform apply" in done.stdout
    assert "google_cloudfunctions2_function.function[…]" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--region", "mars"], "'mars' is not one of 'us-central1'"),
        (["--region", "europe-west1"], "'europe-west1' is not one of"),
        (["--var", "quatsch=1"], "--var quatsch=1 names no variable. Valid: "),
        (["--var", "time_zone"], "--var time_zone is not NAME=VALUE"),
    ],
)
def test_what_terraform_would_refuse_makes_no_plan(options: list[str], said: str) -> None:
    done = deploy(ROOT, "--plan", *options)
    assert (done.exit_code, said in done.output) == (2, True), done.output


def test_plan_as_json_names_every_step_and_resource() -> None:
    document = json.loads(deploy(ROOT, "--plan", "--json", "--project", "my-project").stdout)
    assert [step["name"] for step in document["steps"]][-3:] == ["terraform", "publish", "smoke"]
    assert document["steps"][0]["name"] == "services"
    addresses = {resource["address"] for resource in document["resources"]}
    declared = sum(path.read_text().count('\nresource "') for path in (ROOT / "terraform").glob("*.tf"))
    assert len(addresses) == declared


def test_run_does_every_step_in_order(world: World, checkout: Path) -> None:
    done = deploy(checkout, "--var", "time_zone=Europe/Berlin", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout)["endpoint"] == "https://visor-search-x.a.run.app"
    [apply] = world.asked("terraform", "apply")
    assert "-var=project=my-project" in apply
    assert "-var=time_zone=Europe/Berlin" in apply
    assert (checkout / "visor" / "__main__.ran").read_text() == "model build"
    assert (checkout / "scripts" / "bundle.ran").read_text() == (
        f"build/bundles --page frontend/dist --terraform terraform --config {checkout / 'visor.toml'}"
        " --var time_zone=Europe/Berlin"
    )
    published = (checkout / "scripts" / "publish.ran").read_text()
    assert published == (
        "frontend/dist gs://my-project-visor-site --endpoint https://visor-search-x.a.run.app"
        ' --config {"title": "Mine"}'
    )
    assert "--page https://storage.googleapis.com/" in (checkout / "scripts" / "smoke.ran").read_text()
    programs = [call[:3] for call in map(json.loads, world.log.read_text().splitlines())]
    order = [
        ["gcloud", "services", "enable"],
        ["gcloud", "beta", "services"],
        ["npm", "run", "build"],
        ["terraform", "init", "-input=false"],
        ["terraform", "apply", "-input=false"],
        ["gcloud", "scheduler", "jobs"],
    ]
    last = [max(at for at, call in enumerate(programs) if call == one) for one in order]
    assert last == sorted(last)


def test_only_the_result_is_on_standard_output(world: World, checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    world.says("terraform apply", stdout="Apply complete!")
    done = deploy(checkout, "--json")
    assert json.loads(done.stdout)["endpoint"]
    told = capfd.readouterr()
    assert (told.out, "Apply complete!" in told.err) == ("", True)


@pytest.mark.parametrize(
    ("stderr", "left"),
    [
        ("ERROR: (gcloud.storage.rm) The following URLs matched no objects or files:", 0),
        ("ERROR: (gcloud.storage.rm) gs://b not found: 404.", 0),
        ("ERROR: (gcloud.iam.service-accounts.delete) NOT_FOUND: Unknown service account", 0),
        ("ERROR: HTTPError 409: Your previous request succeeded and you already own it.", 0),
        ("ERROR: (gcloud.storage.rm) HTTPError 403: me@example.org does not have storage.objects.delete access", 1),
    ],
)
def test_what_could_not_be_removed_is_not_taken_for_gone(
    world: World, checkout: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, left: int
) -> None:
    world.says("gcloud storage rm", status=1, stderr=stderr)
    argv = ("gcloud", "storage", "rm", "--recursive", "gs://b")
    step = Step(name="state", why="delete the state", argv=argv, cwd=checkout, may_fail=True)
    said: list[str] = []
    assert len(run_steps([step], Target(root=checkout, project="my-project"), say=said.append)) == left
    assert ("failed" in said[-1]) == bool(left)


def test_project_and_region_are_those_of_the_variables_unless_named(world: World, checkout: Path) -> None:
    tfvars = checkout / "terraform" / "terraform.tfvars"
    tfvars.write_text('project = "shop-1234"\nregion = "us-east1"\n')
    assert deploy(checkout, "--plan").stdout.count("--project=shop-1234") > 3
    assert "-var=project=shop-1234 -var=region=us-east1" in deploy(checkout, "--plan").stdout
    assert "--location=us-east1" in deploy(checkout, "--plan").stdout
    named = deploy(
        checkout, "--plan", "--project", "other-1", "--region", "us-west1", "--var", "region=us-east1"
    ).stdout
    assert "-var=region=us-east1 -var=project=other-1 -var=region=us-west1" in named, "the last one counts"
    assert "--project=shop-1234" not in named
    varied = deploy(checkout, "--plan", "--var", "project=other-2", "--var", "region=us-west1").stdout
    assert "--project=other-2" in varied
    assert "--location=us-west1" in varied
    tfvars.unlink()
    assert "-var=project=PROJECT -var=region=us-central1" in deploy(checkout, "--plan").stdout
    assert not world.asked("gcloud")


@pytest.mark.parametrize("by", ["variables", "option", "environment"])
def test_model_bundles_and_functions_agree(
    by: str, world: World, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundles held `auto`, and the functions that Terraform told otherwise found no model."""
    options = ["--var", "model=efficientnet_lite0"] if by == "option" else []
    if by == "environment":
        monkeypatch.setenv("VISOR_MODEL", "efficientnet_lite0")
    else:
        monkeypatch.setenv("VISOR_MODEL", "imagenet")
    if by == "variables":
        (checkout / "terraform" / "terraform.tfvars").write_text('model = "efficientnet_lite0"\n')
    assert deploy(checkout, *options).exit_code == 0
    assert (checkout / "visor" / "__main__.ran").read_text() == "model build efficientnet_lite0"
    varied = "--var model=efficientnet_lite0" in (checkout / "scripts" / "bundle.ran").read_text()
    assert varied == ("-var=model=efficientnet_lite0" in world.asked("terraform", "apply")[0]) == (by != "variables")
    assert ",_MODEL=efficientnet_lite0" in deploy(checkout, "--cloud", "--plan", *options).stdout


@pytest.mark.parametrize(
    ("variables", "more"),
    [
        ((), set()),
        (("bulk=false", "owner_key_version=0", "billing_account=null", "source_secrets={}"), set()),
        (("bulk=true",), {"compute", "dataflow"}),
        (("owner_key_version=1",), {"secretmanager"}),
        (('source_secrets={ KEY = "key" }',), {"secretmanager"}),
        (("billing_account=0A1B2C-3D4E5F-6A7B8C",), {"billingbudgets"}),
    ],
)
def test_only_services_that_are_used_are_enabled(checkout: Path, variables: tuple[str, ...], more: set[str]) -> None:
    found = needed_services(Target(root=checkout, project="my-project", variables=variables))
    optional = {f"{name}.googleapis.com" for name in ("billingbudgets", "compute", "dataflow", "secretmanager")}
    assert found & optional == {f"{name}.googleapis.com" for name in more}
    assert {"run.googleapis.com", "artifactregistry.googleapis.com", "storage.googleapis.com"} < found
    enable = service_steps(Target(root=checkout, project="my-project", variables=variables))[0].command
    assert all(name in enable for name in found)
    assert not [name for name in optional - found if name in enable]


@pytest.mark.parametrize("how", [(), ("--cloud",)])
def test_variables_of_a_killed_run_do_not_act_on_the_next(world: World, checkout: Path, how: tuple[str, ...]) -> None:
    (checkout / CLOUD_VARIABLES).write_text('{"project": "other-1", "owner_key_version": 3, "bulk": true}')
    planned = deploy(checkout, "--plan", *how).stdout
    assert "other-1" not in planned
    assert "compute.googleapis.com" not in planned
    assert not (checkout / CLOUD_VARIABLES).exists()


def test_what_a_program_writes_is_read_whatever_its_encoding(world: World, tmp_path: Path) -> None:
    program = world.programs / "odd"
    program.write_text("#!/bin/sh\nprintf 'Stra\\337e' >&2\nprintf 'M\\374ll'\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(ProgramFailed) as failed:
        run(["odd"], cwd=tmp_path)
    assert failed.value.errors == "Stra\ufffde"
    assert "the same command" in failed.value.remedy, "which may be `visor destroy`"
    with pytest.raises(DeployError, match="status 3: Stra"):
        output(["odd"])
    program.rename(world.programs / "java")
    assert _tool("java", "Install it", "-version").found.endswith("ends with status 3: M\ufffdll")


@pytest.mark.slow
def test_without_sources_it_is_said_and_nothing_is_crawled(world: World, checkout: Path) -> None:
    (checkout / "visor.toml").unlink()
    assert deploy(checkout).exit_code == 0
    assert "--config" not in (checkout / "scripts" / "bundle.ran").read_text()
    assert not world.asked("gcloud", "scheduler", "jobs", "run")
    assert not findings(checkout)["sources"].ok


@pytest.mark.slow
def test_state_goes_into_a_bucket_where_the_file_says_so(world: World, checkout: Path) -> None:
    (checkout / "terraform" / STATE_FILE).write_text('bucket = "b"\n')
    assert deploy(checkout).exit_code == 0
    assert f"-backend-config={STATE_FILE}" in world.asked("terraform", "init")[0]
    assert 'backend "gcs"' in (checkout / "terraform" / OVERRIDE).read_text()
    (checkout / "terraform" / STATE_FILE).unlink()
    assert deploy(checkout).exit_code == 0
    assert not (checkout / "terraform" / OVERRIDE).exists()


@pytest.mark.slow
def test_a_failing_step_stops_and_is_named(world: World, checkout: Path) -> None:
    world.says("terraform apply", status=1, stderr="Error: quota")
    done = deploy(checkout)
    assert isinstance(done.exception, DeployError)
    assert "terraform apply" in done.exception.found
    assert not (checkout / "scripts" / "publish.ran").exists()


def test_nothing_starts_when_the_project_is_not_ready(world: World, checkout: Path) -> None:
    world.says("gcloud billing projects describe", stdout={"billingEnabled": False})
    done = deploy(checkout)
    assert isinstance(done.exception, DeployError)
    assert "Billing is off" in done.exception.found
    assert not world.asked("terraform", "apply")
    assert not world.asked("npm", "ci")


@pytest.mark.parametrize("missing", ["gcloud", "terraform", "npm"])
def test_a_missing_program_is_named_with_what_to_do(world: World, checkout: Path, missing: str) -> None:
    (world.programs / missing).unlink()
    done = deploy(checkout, "--project", "my-project")
    assert isinstance(done.exception, DeployError)
    assert missing in done.exception.found
    assert "Install" in done.exception.remedy


def test_what_is_no_checkout_is_said_so(tmp_path: Path) -> None:
    done = deploy(tmp_path, "--plan")
    assert isinstance(done.exception, DeployError)
    assert "--root" in done.exception.remedy


def test_no_project_anywhere(world: World, checkout: Path) -> None:
    world.says("gcloud config get-value project", stdout="(unset)")
    done = deploy(checkout)
    assert isinstance(done.exception, DeployError)
    assert "--project" in done.exception.remedy


@pytest.mark.slow
def test_cloud_needs_gcloud_and_nothing_else(world: World, checkout: Path) -> None:
    for program in ("terraform", "npm"):
        (world.programs / program).unlink()
    world.says("gcloud auth application-default print-access-token", status=1)
    world.says("gcloud iam service-accounts create", status=1, stderr="already exists")
    done = deploy(checkout, "--cloud", "--region", "us-east1")
    assert done.exit_code == 0, (done.output, done.exception)
    [submit] = world.asked("gcloud", "builds", "submit")
    assert "--substitutions=_REGION=us-east1,_STATE_BUCKET=my-project-visor-state,_CONFIG=visor.toml" in submit
    assert "--gcs-log-dir=gs://my-project-visor-state/logs" in submit, "or gcloud shows no log"
    assert (checkout / "visor" / "deploy" / "grants.ran").read_text() == "my-project"
    [bucket] = world.asked("gcloud", "storage", "buckets", "create")
    assert {"--location=us-east1", "--soft-delete-duration=0", "--public-access-prevention"} <= set(bucket)


def test_each_path_says_which_programs_it_needs(checkout: Path) -> None:
    """The doctor's checks and the page come from the steps, as does the PATH of the test above."""
    for cloud, programs in ((False, {"gcloud", "terraform", "npm"}), (True, {"gcloud"})):
        target = Target(root=checkout, project="my-project", cloud=cloud)
        assert {program for step in steps_of(target) for program in step.needs} == programs
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert "gcloud, Terraform 1.11 or newer and Node.js 20 or newer (npm)" in page
    assert "needs gcloud and nothing else" in page


VARIABLES = {
    'cors_origins=["https://a.test","https://b.test"]': ["https://a.test", "https://b.test"],
    'page={title = "Mine, and yours"}': {"title": "Mine, and yours"},
    "time_zone=Europe/Berlin": "Europe/Berlin",
    "owner_key=a key; with $signs, and 'quotes'": "a key; with $signs, and 'quotes'",
    "metrics=true": True,
    "owner_key_version=2": 2,
}


@pytest.mark.slow
def test_what_an_owner_sets_is_uploaded_as_a_file(world: World, checkout: Path) -> None:
    (checkout / "terraform" / "terraform.tfvars").write_text('billing_account = "0-1-2"\n')
    given = [part for variable in VARIABLES for part in ("--var", variable)]
    assert deploy(checkout, "--cloud", *given).exit_code == 0
    wanted = {variable.partition("=")[0]: value for variable, value in VARIABLES.items()}
    uploaded = json.loads((world.path.with_name("read")).read_text())
    assert uploaded == {**wanted, "project": "my-project", "region": "us-central1"}
    assert not (checkout / CLOUD_VARIABLES).exists(), "it would act on the next deployment from here"
    assert (checkout / "visor" / "deploy" / "grants.ran").read_text() == "my-project 0-1-2"


@pytest.mark.slow
def test_upload_holds_the_owner_s_files_and_not_the_state(tmp_path: Path) -> None:
    """Judged by gcloud itself where it is here, else by the rules of .gitignore, which its file has."""
    for name in (".gitignore", ".gcloudignore"):
        shutil.copy(ROOT / name, tmp_path)
    kept = {"visor.toml", "terraform/terraform.tfvars", CLOUD_VARIABLES, "terraform/own.auto.tfvars", "scripts/x.py"}
    left = {"terraform/terraform.tfstate", "terraform/.terraform/x", ".venv/x", "build/x", ".git/config"}
    for name in kept | left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    if gcloud := shutil.which("gcloud"):
        listed = [gcloud, "meta", "list-files-for-upload", str(tmp_path)]
        found = set(subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split())
    else:
        rules = (ROOT / ".gcloudignore").read_text().replace("#!include:.gitignore", (ROOT / ".gitignore").read_text())
        ignored = pathspec.GitIgnoreSpec.from_lines(rules.splitlines())
        found = {name for name in kept | left if not ignored.match_file(name)}
    assert found & (kept | left) == kept


def test_cloud_refuses_sources_that_are_not_uploaded(world: World, checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text("[sources]\n")
    done = deploy(checkout, "--cloud", "--config", str(elsewhere))
    assert isinstance(done.exception, DeployError)
    assert "Copy it to" in done.exception.remedy


def roles(*given: str) -> dict[str, Any]:
    return {"bindings": [{"role": role, "members": [f"serviceAccount:{deployer('my-project')}"]} for role in given]}


@pytest.mark.slow
def test_grants_are_given_once_and_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            world.says("gcloud projects get-iam-policy", stdout=roles(*DEPLOYER_ROLES))

    monkeypatch.setattr(grants, "time", SimpleNamespace(sleep=sleep))
    world.says("gcloud projects get-iam-policy", stdout=roles(*DEPLOYER_ROLES[:4]))
    world.says("gcloud billing accounts add-iam-policy-binding")
    grants.grant("my-project", "0-1-2")
    given = [call[-4] for call in world.asked("gcloud", "projects", "add-iam-policy-binding")]
    assert given == [f"--role={role}" for role in DEPLOYER_ROLES[4:]]
    assert waited == [grants.POLL_S] * 3 + [grants.HOLD_S]
    [billing] = world.asked("gcloud", "billing", "accounts")
    assert billing[4] == "0-1-2"
    grants.grant("my-project", None)
    assert len(waited) == 4, "what holds is not waited for"


@pytest.mark.slow
def test_roles_that_cannot_be_given_or_do_not_show_are_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "time", SimpleNamespace(sleep=lambda _: None))
    with pytest.raises(DeployError, match=r"lacks .*roles/storage\.admin"):
        grants.grant("my-project", None)
    world.says("gcloud projects add-iam-policy-binding", status=1, stderr="denied")
    with pytest.raises(DeployError, match="failed with status 1"):
        grants.grant("my-project", None)


def test_every_command_that_is_planned_names_files_that_are_there() -> None:
    target = Target(root=ROOT, project="my-project")
    for step in (*local_steps(target), *cloud_steps(target)):
        assert step.cwd.is_dir()
        for part in step.argv:
            if part.startswith("scripts/"):
                assert (ROOT / part).is_file()
            if "=terraform/" in part:
                assert (ROOT / part.partition("=")[2]).is_file()
