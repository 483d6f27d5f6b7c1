"""The steps of a deployment as data, so that what is printed by --plan is what is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visor.deploy.process import output, run
from visor.errors import DeployError

STATE_FILE = "state.tfbackend"
OVERRIDE = "backend_override.tf"
DEPLOYER_ROLES = (
    "roles/artifactregistry.admin",
    "roles/cloudfunctions.admin",
    "roles/cloudscheduler.admin",
    "roles/datastore.owner",
    "roles/iam.roleAdmin",
    "roles/iam.serviceAccountAdmin",
    "roles/iam.serviceAccountUser",
    "roles/logging.admin",
    "roles/pubsub.admin",
    "roles/resourcemanager.projectIamAdmin",
    "roles/run.admin",
    "roles/secretmanager.admin",
    "roles/serviceusage.serviceUsageAdmin",
    "roles/storage.admin",
)
"""What terraform/ needs to make everything. An owner of the project has all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What is deployed where."""

    root: Path
    """A checkout of Visor."""
    project: str
    region: str = "us-central1"
    variables: tuple[str, ...] = ()
    """Further Terraform variables, as `name=value`."""
    config: Path | None = None
    """visor.toml with the sources; that of the checkout if there is one."""

    @property
    def terraform(self) -> Path:
        return self.root / "terraform"

    @property
    def state_bucket(self) -> str:
        return f"{self.project}-visor-state"

    @property
    def sources(self) -> Path | None:
        own = self.root / "visor.toml"
        return self.config or (own if own.is_file() else None)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command. `argv` may name `{output}` values of Terraform, which are known once it has run."""

    name: str
    why: str
    argv: tuple[str, ...]
    cwd: Path
    changes: bool = True
    """False: it only reads, or makes local files."""
    may_fail: bool = False
    """True: it fails if what it makes exists already."""

    @property
    def command(self) -> str:
        """The command as a person would type it."""
        return " ".join("python" if part == sys.executable else part for part in self.argv)


def _step(cwd: Path, name: str, why: str, command: str, *more: str, changes: bool = True, fails: bool = False) -> Step:
    """A step whose command is split at spaces; `more` are arguments that may contain some. `python` is this one."""
    argv = [sys.executable if part == "python" else part for part in command.split()]
    return Step(name=name, why=why, argv=(*argv, *more), cwd=cwd, changes=changes, may_fail=fails)


def local_steps(target: Target) -> list[Step]:
    """Deploy from this machine."""
    root, terraform, page = target.root, target.terraform, target.root / "frontend"
    sources = () if target.sources is None else ("--config", str(target.sources))
    variables = (f"project={target.project}", f"region={target.region}", *target.variables)
    backend = f"-backend-config={STATE_FILE}" if (terraform / STATE_FILE).is_file() else ""
    site = f"gs://{target.project}-visor-site"
    return [
        _step(root, "model", "build the model, once", "python -m visor model build", changes=False),
        _step(root, "bundles", "pack each function with the package and the model",
              "python scripts/bundle.py build/bundles", *sources, changes=False),
        _step(page, "page", "install what the page is built with", "npm ci --no-audit --no-fund", changes=False),
        _step(page, "page", "build the page", "npm run build", changes=False),
        _step(terraform, "terraform", "fetch the provider", f"terraform init -input=false {backend}", changes=False),
        _step(terraform, "terraform", "make or change what is listed below",
              "terraform apply -input=false -auto-approve", *(f"-var={v}" for v in variables)),
        _step(root, "publish", "upload the page",
              f"python scripts/publish.py frontend/dist {site} --endpoint {{endpoint}}"),
        _step(root, "smoke", "ask it the first questions",
              "python scripts/smoke.py {endpoint} --page {page}", changes=False),
    ]  # fmt: skip


def cloud_steps(target: Target) -> list[Step]:
    """Deploy by Cloud Build: make what it needs to start, then submit cloudbuild.yaml."""
    project, region, root = target.project, target.region, target.root
    account = f"visor-deploy@{project}.iam.gserviceaccount.com"
    bucket = f"gs://{target.state_bucket}"
    services = "cloudbuild.googleapis.com cloudresourcemanager.googleapis.com iam.googleapis.com"
    variables = " ".join(f"-var={v}" for v in target.variables)
    return [
        _step(root, "services", "let builds run", f"gcloud services enable {services} --project={project}"),
        _step(root, "state", "bucket for Terraform's state, the model and the upload",
              f"gcloud storage buckets create {bucket} --project={project} --location={region}"
              " --uniform-bucket-level-access --public-access-prevention --soft-delete-duration=0", fails=True),
        _step(root, "state", "forget uploads after a day",
              f"gcloud storage buckets update {bucket} --lifecycle-file=terraform/state_bucket_lifecycle.json"),
        _step(root, "account", "account as which the build runs",
              f"gcloud iam service-accounts create visor-deploy --project={project}", fails=True),
        *(
            _step(root, "account", f"may {role.removeprefix('roles/')}",
                  f"gcloud projects add-iam-policy-binding {project} --member=serviceAccount:{account}"
                  f" --role={role} --condition=None --quiet")
            for role in DEPLOYER_ROLES
        ),
        _step(root, "build", "test, build, apply and publish in the cloud (cloudbuild.yaml)",
              f"gcloud builds submit . --config=cloudbuild.yaml --project={project} --region=global"
              f" --service-account=projects/{project}/serviceAccounts/{account}"
              f" --gcs-source-staging-dir={bucket}/cloudbuild",
              f"--substitutions=_REGION={region},_STATE_BUCKET={target.state_bucket},_VARIABLES={variables}"),
    ]  # fmt: skip


def use_state_file(target: Target) -> None:
    """Keep the state in a bucket where the owner's state.tfbackend says so, else in a local file."""
    override = target.terraform / OVERRIDE
    if (target.terraform / STATE_FILE).is_file():
        override.write_text((target.terraform / "backend_gcs.tf.example").read_text(encoding="utf-8"), encoding="utf-8")
    else:
        override.unlink(missing_ok=True)


def run_steps(steps: list[Step], target: Target, *, say: Callable[[str], None]) -> None:
    """Run the steps in order, each announced before it runs.

    Raises:
        DeployError: A program is missing, or a step failed.
    """
    values: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        say(f"[{number}/{len(steps)}] {step.name}: {step.why}")
        wanted = [part[1:-1] for part in step.argv if part.startswith("{") and part.endswith("}")]
        for name in wanted:
            values[name] = values.get(name) or output(["terraform", "output", "-raw", name], cwd=target.terraform)
        argv = [values.get(part[1:-1], part) for part in step.argv]
        try:
            run(argv, cwd=step.cwd)
        except DeployError:
            if not step.may_fail:
                raise
            say(f"[{number}/{len(steps)}] it exists already")
