"""`visor deploy` with gcloud, terraform and npm on PATH that behave like the real ones at the interface used."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pathspec
import pytest
from click.testing import CliRunner, Result

from visor.cli.deploy import deploy_command
from visor.deploy import grants
from visor.deploy.readiness import CHECKS, ProjectCheck, examine
from visor.deploy.steps import (
    CLOUD_VARIABLES,
    DEPLOYER_ROLES,
    OVERRIDE,
    STATE_FILE,
    Target,
    cloud_steps,
    deployer,
    local_steps,
    steps_of,
)
from visor.errors import DeployError

ROOT = Path(__file__).resolve().parents[3]

FAKE = """#!{python}
import json, sys
from pathlib import Path
name, world = Path(sys.argv[0]).name, json.loads(Path({world!r}).read_text())
arguments = sys.argv[1:]
with Path({log!r}).open("a") as log:
    log.write(json.dumps([name, *arguments]) + "\\n")
line = " ".join([name, *arguments])
for prefix, answer in world.items():
    if line.startswith(prefix):
        if "reads" in answer:
            Path({world!r}).with_name("read").write_text(Path(answer["reads"]).read_text())
        if "stdout" in answer:
            print(answer["stdout"] if isinstance(answer["stdout"], str) else json.dumps(answer["stdout"]))
        if answer.get("stderr"):
            print(answer["stderr"], file=sys.stderr)
        sys.exit(answer.get("status", 0))
print(f"{{name}}: unknown command {{line}}", file=sys.stderr)
sys.exit(2)
"""


class World:
    """What the fake programs know, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.path, self.log, self.programs = folder / "world.json", folder / "log", folder / "bin"
        self.programs.mkdir()
        self.answers: dict[str, Any] = {
            "terraform version -json": {"stdout": {"terraform_version": "1.11.4"}},
            "terraform init": {},
            "terraform apply": {},
            "terraform output -raw endpoint": {"stdout": "https://visor-search-x.a.run.app"},
            "terraform output -raw page": {"stdout": "https://storage.googleapis.com/my-project-visor-site/index.html"},
            "terraform output -raw site": {"stdout": "gs://my-project-visor-site"},
            "terraform output -raw page_config": {"stdout": '{"title": "Mine"}'},
            "terraform output -raw crawl_now": {"stdout": "gcloud scheduler jobs run visor-crawl"},
            "gcloud version": {"stdout": "Google Cloud SDK 550.0.0\nbq 2.1"},
            "gcloud config get-value project": {"stdout": "my-project"},
            "gcloud auth list": {"stdout": "me@example.org"},
            "gcloud auth application-default print-access-token": {"stdout": "token"},
            "gcloud projects describe my-project": {"stdout": {"lifecycleState": "ACTIVE"}},
            "gcloud billing projects describe": {"stdout": {"billingEnabled": True, "billingAccountName": "b/1"}},
            "gcloud services list": {
                "stdout": [
                    {"config": {"name": f"{name}.googleapis.com"}} for name in ("cloudresourcemanager", "serviceusage")
                ]
            },
            "gcloud services enable": {},
            "gcloud beta services identity create": {},
            "gcloud resource-manager org-policies describe": {"stdout": {}},
            "gcloud org-policies describe": {"status": 1, "stderr": "NOT_FOUND"},
            "gcloud functions list": {"stdout": []},
            "gcloud scheduler jobs run": {},
            "gcloud projects get-iam-policy": {
                "stdout": {"bindings": [{"role": "roles/owner", "members": ["user:me@example.org"]}]}
            },
            "gcloud projects add-iam-policy-binding": {},
            "gcloud firestore databases list": {"stdout": []},
            "gcloud scheduler jobs list": {"stdout": []},
            "gcloud artifacts repositories list": {"stdout": []},
            "gcloud storage": {},
            "gcloud storage ls": {"status": 1},
            "gcloud iam service-accounts create": {},
            "gcloud builds submit": {"reads": CLOUD_VARIABLES},
            "npm --version": {"stdout": "10.9.0"},
            "npm ci": {},
            "npm run build": {},
        }
        for name in ("gcloud", "terraform", "npm"):
            program = self.programs / name
            program.write_text(FAKE.format(python=sys.executable, world=str(self.path), log=str(self.log)))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.save()

    def save(self) -> None:
        longest_first = sorted(self.answers.items(), key=lambda item: -len(item[0]))
        self.path.write_text(json.dumps(dict(longest_first)))

    def says(self, prefix: str, **answer: Any) -> None:
        self.answers[prefix] = answer
        self.save()

    def asked(self, *prefix: str) -> list[list[str]]:
        if not self.log.exists():
            return []
        calls = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [call for call in calls if call[: len(prefix)] == list(prefix)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setenv("PATH", str(made.programs))
    for name in [name for name in os.environ if name.startswith("VISOR_")]:
        monkeypatch.delenv(name)
    return made


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose own scripts only write down that they ran."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "terraform", root / "terraform", ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    for name in ("functions", "frontend", "scripts"):
        (root / name).mkdir()
    (root / "cloudbuild.yaml").write_text("steps: []\n")
    (root / "visor.toml").write_text('[sources.shop]\nkind = "site"\nurl = "https://shop.example/"\n')
    note = "import sys, pathlib; pathlib.Path(__file__).with_suffix('.ran').write_text(' '.join(sys.argv[1:]))\n"
    for name in ("bundle", "publish", "smoke"):
        (root / "scripts" / f"{name}.py").write_text(note)
    (root / "visor").mkdir()
    (root / "visor" / "__init__.py").touch()
    (root / "visor" / "deploy").mkdir()
    for module in ("__main__.py", "deploy/grants.py"):
        (root / "visor" / module).write_text(note)
    return root


def deploy(checkout: Path, *arguments: str) -> Result:
    return CliRunner().invoke(deploy_command, ["--root", str(checkout), *arguments])


def findings(checkout: Path, region: str = "us-central1") -> dict[str, ProjectCheck]:
    return {f.check: f for f in examine(Target(root=checkout, project="my-project", region=region))}


def test_plan_needs_no_program_and_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = deploy(ROOT, "--plan")
    assert done.exit_code == 0, done.output
    assert "terraform apply" in done.stdout
    assert "google_cloudfunctions2_function.function[…]" in done.stdout


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


def test_without_sources_it_is_said_and_nothing_is_crawled(world: World, checkout: Path) -> None:
    (checkout / "visor.toml").unlink()
    assert deploy(checkout).exit_code == 0
    assert "--config" not in (checkout / "scripts" / "bundle.ran").read_text()
    assert not world.asked("gcloud", "scheduler", "jobs", "run")
    assert not findings(checkout)["sources"].ok


def test_state_goes_into_a_bucket_where_the_file_says_so(world: World, checkout: Path) -> None:
    (checkout / "terraform" / STATE_FILE).write_text('bucket = "b"\n')
    assert deploy(checkout).exit_code == 0
    assert f"-backend-config={STATE_FILE}" in world.asked("terraform", "init")[0]
    assert 'backend "gcs"' in (checkout / "terraform" / OVERRIDE).read_text()
    (checkout / "terraform" / STATE_FILE).unlink()
    assert deploy(checkout).exit_code == 0
    assert not (checkout / "terraform" / OVERRIDE).exists()


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


def test_what_an_owner_sets_is_uploaded_as_a_file(world: World, checkout: Path) -> None:
    (checkout / "terraform" / "terraform.tfvars").write_text('billing_account = "0-1-2"\n')
    given = [part for variable in VARIABLES for part in ("--var", variable)]
    assert deploy(checkout, "--cloud", *given).exit_code == 0
    wanted = {variable.partition("=")[0]: value for variable, value in VARIABLES.items()}
    uploaded = json.loads((world.path.with_name("read")).read_text())
    assert uploaded == {**wanted, "project": "my-project", "region": "us-central1"}
    assert not (checkout / CLOUD_VARIABLES).exists(), "it would act on the next deployment from here"
    assert (checkout / "visor" / "deploy" / "grants.ran").read_text() == "my-project 0-1-2"


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


def test_doctor_knows_the_free_regions(world: World, checkout: Path) -> None:
    assert not findings(checkout, "europe-west1")["region"].ok
    assert findings(checkout, "us-west1")["region"].ok


def test_an_unreadable_answer_is_no_crash(world: World, checkout: Path) -> None:
    world.says("gcloud services list", stdout="<html>")
    assert "no JSON" in findings(checkout)["services"].found
