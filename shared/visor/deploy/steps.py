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


def local_steps(target: Target) -> list[Step]:
    """Deploy from this machine."""
    root, terraform = target.root, target.terraform
    python = sys.executable
    bundle = [python, "scripts/bundle.py", "build/bundles"]
    if target.sources is not None:
        bundle += ["--config", str(target.sources)]
    variables = [
        f"-var=project={target.project}",
        f"-var=region={target.region}",
        *(f"-var={v}" for v in target.variables),
    ]
    state = terraform / STATE_FILE
    init = ["terraform", "init", "-input=false", *([f"-backend-config={STATE_FILE}"] if state.is_file() else [])]

    def step(name: str, why: str, *argv: str, cwd: Path = root, changes: bool = False) -> Step:
        return Step(name=name, why=why, argv=argv, cwd=cwd, changes=changes)

    return [
        step("model", "build the model, once", python, "-m", "visor", "model", "build"),
        step("bundles", "pack each function with the package and the model", *bundle),
        step(
            "page", "install what the page is built with", "npm", "ci", "--no-audit", "--no-fund", cwd=root / "frontend"
        ),
        step("page", "build the page", "npm", "run", "build", cwd=root / "frontend"),
        step("terraform", "fetch the provider", *init, cwd=terraform),
        step(
            "terraform",
            "make or change what is listed below",
            *("terraform", "apply", "-input=false", "-auto-approve", *variables),
            cwd=terraform,
            changes=True,
        ),
        step(
            "publish",
            "upload the page",
            *(python, "scripts/publish.py", "frontend/dist", f"gs://{target.project}-visor-site"),
            *("--endpoint", "{endpoint}"),
            changes=True,
        ),
        step("smoke", "ask it the first questions", python, "scripts/smoke.py", "{endpoint}", "--page", "{page}"),
    ]


def cloud_steps(target: Target) -> list[Step]:
    """Deploy by Cloud Build: make what it needs to start, then submit cloudbuild.yaml."""
    project, region, root = target.project, target.region, target.root
    account = f"visor-deploy@{project}.iam.gserviceaccount.com"
    bucket = f"gs://{target.state_bucket}"

    def step(name: str, why: str, *argv: str, may_fail: bool = False) -> Step:
        return Step(name=name, why=why, argv=argv, cwd=root, may_fail=may_fail)

    services = ("cloudbuild.googleapis.com", "cloudresourcemanager.googleapis.com", "iam.googleapis.com")
    variables = " ".join(f"-var={v}" for v in target.variables)
    substitutions = f"_REGION={region},_STATE_BUCKET={target.state_bucket},_VARIABLES={variables}"
    return [
        step("services", "let builds run", "gcloud", "services", "enable", *services, f"--project={project}"),
        step(
            "state",
            "bucket for Terraform's state, the model and the upload",
            *("gcloud", "storage", "buckets", "create", bucket, f"--project={project}", f"--location={region}"),
            *("--uniform-bucket-level-access", "--public-access-prevention", "--soft-delete-duration=0"),
            may_fail=True,
        ),
        step(
            "state",
            "forget uploads after a day",
            *("gcloud", "storage", "buckets", "update", bucket),
            "--lifecycle-file=terraform/state_bucket_lifecycle.json",
        ),
        step(
            "account",
            "account as which the build runs",
            *("gcloud", "iam", "service-accounts", "create", "visor-deploy", f"--project={project}"),
            may_fail=True,
        ),
        *(
            step(
                "account",
                f"may {role.removeprefix('roles/')}",
                *("gcloud", "projects", "add-iam-policy-binding", project, f"--member=serviceAccount:{account}"),
                *(f"--role={role}", "--condition=None", "--quiet"),
            )
            for role in DEPLOYER_ROLES
        ),
        step(
            "build",
            "test, build, apply and publish in the cloud (cloudbuild.yaml)",
            *("gcloud", "builds", "submit", ".", "--config=cloudbuild.yaml", f"--project={project}", "--region=global"),
            f"--service-account=projects/{project}/serviceAccounts/{account}",
            f"--gcs-source-staging-dir={bucket}/cloudbuild",
            f"--substitutions={substitutions}",
        ),
    ]


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
