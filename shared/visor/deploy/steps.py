"""The steps of a deployment as data, so that --plan prints exactly what is run."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visor.deploy.owner import given_variables
from visor.deploy.process import ProgramFailed, output, run
from visor.deploy.terraform import read_terraform
from visor.errors import DeployError

STATE_FILE = "state.tfbackend"
OVERRIDE = "backend_override.tf"
CLOUD_VARIABLES = "terraform/cloud.auto.tfvars.json"
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
"""Roles that terraform/ needs to make everything. An owner of the project has all of them."""
ENABLING = ("cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com")
"""Services through which Terraform enables others; they have to be on first."""
APPLY_TRIES = 3
APPLY_AGAIN_S = 30.0
PASSING = {
    r"has not been used in project \S+ before or it is disabled": "a service was just enabled",
    r"[Ss]ervice account \S+ does not exist|[Ss]ervice agent": "a service's own account was just created",
    r"missing permission on the build service account|Unable to retrieve the repository metadata"
    r"|does not have \S+ access to|Permission \S+ denied|Permission denied on secret": "a permission that was just "
    "granted has not taken effect everywhere",
}
"""Errors of Terraform in the first minutes of a project, and why each one is temporary."""
DONE_BEFORE = r"(?i)already (exists|own)|not[ _]found|does not exist|matched no|unknown service account|\b40[49]\b"
"""Errors of gcloud when it should create something that exists, or delete something that does not."""
REFUSED = {
    r"do not belong to a permitted customer|allowedPolicyMember": "The organisation lets only its own members in "
    "(iam.allowedPolicyMemberDomains)",
    r"public access prevention is enforced": "The organisation forbids public buckets (storage.publicAccessPrevention)",
}
"""Errors of Terraform or gcloud when a policy of the organisation is in the way."""
PUBLIC_BY_FUNCTION = (
    'Set public = "function" in terraform/terraform.tfvars: page and endpoint then come from the search function, '
    "without allUsers and without a public bucket (docs/deploy.md, In an organisation)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What is deployed, and where."""

    root: Path
    """A checkout of Visor."""
    project: str
    region: str = "us-central1"
    variables: tuple[str, ...] = ()
    """Further Terraform variables, as `name=value`."""
    cloud: bool = False
    """Whether Cloud Build deploys, and the state is in `state_bucket`."""
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
    """True: it fails if what it creates exists already, or what it deletes does not, and the steps go on."""
    tries: int = 1
    """How often it is run at most, while its error is one of `PASSING`."""
    runs: tuple[str, ...] = ()
    """Further programs that it starts."""

    @property
    def needs(self) -> set[str]:
        """Programs that have to be on PATH."""
        return {*self.runs, *self.argv[:1]} - {sys.executable}

    @property
    def command(self) -> str:
        """The command as a person would type it."""
        return " ".join("python" if part == sys.executable else part for part in self.argv)


def _step(
    cwd: Path,
    name: str,
    why: str,
    command: str,
    *more: str,
    changes: bool = True,
    fails: bool = False,
    tries: int = 1,
    runs: tuple[str, ...] = (),
) -> Step:
    """A step whose command is split at spaces; `more` are arguments that may contain some. `python` is this one."""
    argv = [sys.executable if part == "python" else part for part in command.split()]
    return Step(
        name=name, why=why, argv=(*argv, *more), cwd=cwd, changes=changes, may_fail=fails, tries=tries, runs=runs
    )


def local_steps(target: Target) -> list[Step]:
    """Deploy from this machine."""
    root, terraform, page = target.root, target.terraform, target.root / "frontend"
    sources = () if target.sources is None else ("--config", str(target.sources))
    given = [part for variable in target.variables for part in ("--var", variable)]
    model = given_variables(terraform, target.variables).get("model")
    crawl = f"gcloud scheduler jobs run visor-crawl --location={target.region} --project={target.project}"
    return [
        *service_steps(target),
        _step(root, "model", "build the model, once", "python -m visor model build", *([model] if model else []),
              changes=False),
        _step(page, "page", "install what the page is built with", "npm ci --no-audit --no-fund", changes=False),
        _step(page, "page", "build the page", "npm run build", changes=False),
        _step(root, "bundles", "pack each function with the package, the model and the page; check visor.toml",
              "python scripts/bundle.py build/bundles --page frontend/dist --terraform terraform", *sources, *given,
              changes=False),
        init_step(target),
        _step(terraform, "terraform", "create or change what is listed below",
              "terraform apply -input=false -auto-approve", *terraform_variables(target), tries=APPLY_TRIES),
        _step(root, "publish", "put the page where it is public",
              "python scripts/publish.py frontend/dist {site} --endpoint {endpoint} --config {page_config}",
              runs=("gcloud",)),
        _step(root, "smoke", "ask it the first questions",
              "python scripts/smoke.py {endpoint} --page {page}", changes=False),
        *([_step(root, "crawl", "start the first crawl, which fills the page", crawl)] if target.sources else []),
    ]  # fmt: skip


def service_steps(target: Target) -> list[Step]:
    """Enable every service, and create the accounts of Google's own services, before Terraform needs them."""
    root, project = target.root, target.project
    services = " ".join(sorted({*needed_services(target), *ENABLING}))
    return [
        _step(root, "services", "enable what Visor uses", f"gcloud services enable {services} --project={project}"),
        *(
            _step(root, "services", f"create the account that {name} uses", "gcloud beta services identity create"
                  f" --service={name}.googleapis.com --project={project} --quiet", fails=True)
            for name in ("pubsub", "cloudfunctions", "artifactregistry")
        ),
    ]  # fmt: skip


def needed_services(target: Target) -> set[str]:
    """The services that Terraform enables, those for a variable only if it is set: enabling Compute Engine, say, also
    makes a network and an account, and an organisation may forbid it."""
    always, *more = re.split(r"(?<=\]), (?=var\.)", str(read_terraform(target.terraform).local_values["services"]))
    given = given_variables(target.terraform, target.variables)
    asked = [text for text in more if any(given.get(name) for name in re.findall(r"var\.(\w+)", text))]
    return set(re.findall(r'"([a-z]+\.googleapis\.com)"', " ".join([always, *asked])))


def init_step(target: Target) -> Step:
    """Fetch the provider, and open the state where it is kept."""
    backend = [f"-backend-config=bucket={target.state_bucket}"] if target.cloud else []
    if not backend and (target.terraform / STATE_FILE).is_file():
        backend = [f"-backend-config={STATE_FILE}"]
    init = "terraform init -input=false -reconfigure"
    return _step(target.terraform, "terraform", "fetch the provider", init, *backend, changes=False)


def terraform_variables(target: Target) -> list[str]:
    """Variables from our own command line, as arguments for Terraform's. The last of one name counts."""
    return [f"-var={v}" for v in (*target.variables, f"project={target.project}", f"region={target.region}")]


def destroy_steps(target: Target) -> list[Step]:
    """Remove what a deployment made, by either path."""
    root, project, region = target.root, target.project, target.region
    number = output(["gcloud", "projects", "describe", project, "--format=value(projectNumber)"])
    functions = f"gcloud functions list --v2 --regions={region} --project={project} --format=value(name.basename())"
    others = [name for name in output(functions.split()).split() if not name.startswith("visor-")]
    copies = f"gcloud storage rm --recursive gs://gcf-v2-sources-{number}-{region} --project={project}"
    return [
        _step(target.terraform, "terraform", "destroy all that the state names",
              "terraform destroy -input=false -auto-approve", *terraform_variables(target), tries=APPLY_TRIES),
        *([] if others else [_step(root, "sources", "delete Google's copies of the bundles", copies, fails=True)]),
        _step(root, "state", "delete the state and the model that are kept there",
              f"gcloud storage rm --recursive gs://{target.state_bucket} --project={project}", fails=True),
        _step(root, "account", "delete the account with which builds deployed",
              f"gcloud iam service-accounts delete {deployer(project)} --project={project} --quiet", fails=True),
    ]  # fmt: skip


def cloud_steps(target: Target) -> list[Step]:
    """Deploy by Cloud Build: create what it needs to start, then submit cloudbuild.yaml."""
    project, region, root = target.project, target.region, target.root
    bucket = f"gs://{target.state_bucket}"
    config = target.sources.relative_to(root) if target.sources else Path("visor.toml")
    given = given_variables(target.terraform, target.variables)
    billing = given.get("billing_account")
    model = f",_MODEL={given['model']}" if "model" in given else ""
    return [
        *service_steps(target),
        _step(root, "state", "bucket for Terraform's state, a model, the upload and the log",
              f"gcloud storage buckets create {bucket} --project={project} --location={region}"
              " --uniform-bucket-level-access --public-access-prevention --soft-delete-duration=0", fails=True),
        _step(root, "state", "delete uploads and logs after a day",
              f"gcloud storage buckets update {bucket} --lifecycle-file=terraform/state_bucket_lifecycle.json"),
        _step(root, "account", "account that the build uses",
              f"gcloud iam service-accounts create visor-deploy --project={project}", fails=True),
        _step(root, "account", "grant it its roles, and wait until they take effect",
              f"python -m visor.deploy.grants {project}", *([str(billing)] if billing else []), runs=("gcloud",)),
        _step(root, "build", f"upload the checkout with {CLOUD_VARIABLES}; build, apply and publish (cloudbuild.yaml)",
              f"gcloud builds submit . --config=cloudbuild.yaml --project={project} --region=global"
              f" --service-account=projects/{project}/serviceAccounts/{deployer(project)}"
              f" --gcs-source-staging-dir={bucket}/cloudbuild --gcs-log-dir={bucket}/logs",
              f"--substitutions=_REGION={region},_STATE_BUCKET={target.state_bucket},_CONFIG={config.as_posix()}{model}"),
    ]  # fmt: skip


def in_state(state: Mapping[str, Any], attribute: str, type_: str = "") -> set[str]:
    """What Terraform's state has as an attribute of its resources, of one type or of all."""
    found = {
        instance.get("attributes", {}).get(attribute)
        for resource in state.get("resources", [])
        if resource.get("mode") == "managed" and resource.get("type", "").startswith(type_ or "google_")
        for instance in resource.get("instances", [])
    }
    return {value for value in found if isinstance(value, str)}


def check_project(state: Mapping[str, Any], target: Target) -> None:
    """Refuse a state of another project: Terraform would move all that is in it to this one, which deletes its data.

    Raises:
        DeployError: The state names resources, and none in the target's project.
    """
    others = in_state(state, "project")
    if others and target.project not in others:
        other = ", ".join(sorted(others))
        raise DeployError(
            f"Terraform's state is that of {other}, not of {target.project}",
            valid="One checkout, or one state bucket, for each project",
            remedy=f"Name it with --project {other}, or use another checkout for {target.project}",
        )


def steps_of(target: Target) -> list[Step]:
    """The steps of the target's path."""
    return cloud_steps(target) if target.cloud else local_steps(target)


def deployer(project: str) -> str:
    """The account that Cloud Build uses to deploy."""
    return f"visor-deploy@{project}.iam.gserviceaccount.com"


@contextmanager
def uploaded_variables(target: Target) -> Iterator[None]:
    """Variables from our own command line, in a file that is uploaded with terraform.tfvars and overrides it."""
    set_here = given_variables(target.root / "no variables", target.variables)
    path = target.root / CLOUD_VARIABLES
    path.write_text(json.dumps({**set_here, "project": target.project, "region": target.region}), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def use_state_file(target: Target) -> None:
    """Keep the state in a bucket if --cloud or the owner's state.tfbackend asks for it, else in a local file."""
    override = target.terraform / OVERRIDE
    if target.cloud or (target.terraform / STATE_FILE).is_file():
        override.write_text((target.terraform / "backend_gcs.tf.example").read_text(encoding="utf-8"), encoding="utf-8")
    else:
        override.unlink(missing_ok=True)


def run_steps(steps: list[Step], target: Target, *, say: Callable[[str], None]) -> list[Step]:
    """Run the steps in order, each announced before it runs. Returns those that may fail and did, except those that
    failed because they were done before.

    Raises:
        DeployError: A program is missing, or a step failed.
    """
    left: list[Step] = []
    values: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        say(f"[{number}/{len(steps)}] {step.name}: {step.why}")
        wanted = [part[1:-1] for part in step.argv if part.startswith("{") and part.endswith("}")]
        for name in wanted:
            values[name] = values.get(name) or output(["terraform", "output", "-raw", name], cwd=target.terraform)
        argv = [values.get(part[1:-1], part) for part in step.argv]
        try:
            _patiently(step, argv, say)
        except ProgramFailed as exc:
            if not step.may_fail:
                raise
            is_done = re.search(DONE_BEFORE, exc.errors)
            say(f"[{number}/{len(steps)}] {'done before' if is_done else 'failed; its own message is above'}")
            left += [] if is_done else [step]
    return left


def _patiently(step: Step, argv: list[str], say: Callable[[str], None]) -> None:
    """Run a step, and run it again while its error is temporary."""
    for left in reversed(range(step.tries)):
        try:
            return run(argv, cwd=step.cwd)
        except ProgramFailed as exc:
            for pattern, refused in REFUSED.items():
                if re.search(pattern, exc.errors):
                    raise DeployError(f"{refused}; its own message is above", remedy=PUBLIC_BY_FUNCTION) from exc
            reason = next((why for pattern, why in PASSING.items() if re.search(pattern, exc.errors)), None)
            if not left or reason is None:
                raise
            say(f"This is temporary: {reason}. Trying again in {APPLY_AGAIN_S:.0f} s, at most {left} more times")
            time.sleep(APPLY_AGAIN_S)
    return None
