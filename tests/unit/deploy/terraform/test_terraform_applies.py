"""Real Terraform plans, applies and destroys ours against a project that refuses as Google does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.terraformed import TERRAFORM, Workspace, need_terraform, prepared, workspace

from visor.deploy import steps
from visor.deploy.steps import PASSING, REFUSED, run_steps
from visor.errors import DeployError
from visor_emulators.terraform_provider import Project, Refused, _check_size

pytestmark = [pytest.mark.usefixtures("terraform"), pytest.mark.slow]

OWNER = ("owner_key=abcdefghijklmnopqrstuvwxyz", "owner_key_version=1", "key_required=true")
EVERYTHING = (
    *OWNER,
    "billing_account=0A1B2C-3D4E5F-6A7B8C",
    "metrics=true",
    "index=shop",
    'settings={links_a_day="5"}',
    'source_secrets={MARKET_KEY="market"}',
    'read_buckets=["gs://pictures/a/", "gs://pictures/b/", "gs://more"]',
    'page={title="Shop", language="de", notes=[{text="Hand-made"}]}',
)
VARIANTS = {"default": (), "everything": EVERYTHING, "by function": (*EVERYTHING, "public=function")}
POLICIES = {"iam.allowedPolicyMemberDomains", "storage.publicAccessPrevention"}


@pytest.fixture(scope="module")
def terraform() -> None:
    need_terraform()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Workspace]:
    with workspace(tmp_path) as made:
        yield made


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_apply_second_plan_and_destroy_after_make_clean(variant: str, empty: Workspace) -> None:
    given = empty.variables(*VARIANTS[variant])
    empty.terraform("validate")
    assert " added, 0 changed, 0 destroyed" in empty.terraform("apply", *given)
    assert empty.project.now == 120, "waited once until the permissions held"
    names = re.findall(r'^variable "(\w+)"', (empty.folder / "variables.tf").read_text(encoding="utf-8"), re.MULTILINE)
    absent = "".join(f"{name} = null\n" for name in names if name not in ("project", "owner_key"))
    (empty.folder / "absent.auto.tfvars").write_text(absent, encoding="utf-8")
    assert "No changes." in empty.terraform("plan", "-detailed-exitcode", *given)
    shutil.rmtree(empty.bundles)
    assert "Destroy complete!" in empty.terraform("destroy", *given)
    assert empty.project.there == []
    assert empty.project.now == 120


def test_a_change_of_a_function_waits_for_nothing(empty: Workspace) -> None:
    empty.terraform("apply")
    (empty.bundles / "crawl.zip").write_bytes(b"new")
    changed = empty.terraform("apply", *empty.variables("crawl_budget_s=900"))
    assert re.search(r"[1-9]\d* changed, ", changed)
    assert empty.project.now == 120


def test_without_bundles_nothing_is_deployed_and_it_says_what_makes_them(empty: Workspace) -> None:
    shutil.rmtree(empty.bundles)
    assert "run `visor deploy`, which makes it" in empty.terraform("plan", status=1)


def apply(place: Workspace, monkeypatch: pytest.MonkeyPatch, *variables: str) -> list[str]:
    """As the step of `visor deploy` does it; what it says. Waiting lets time pass in the project."""

    def wait(seconds: float) -> None:
        with place.project.slept.open("a") as slept:
            slept.write(f"{seconds}\n")

    monkeypatch.setattr(steps.time, "sleep", wait)
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    target = steps.Target(root=place.folder.parent, project="my-project", variables=variables)
    made = [step for step in steps.local_steps(target) if step.argv[:2] == ("terraform", "apply")]
    said: list[str] = []
    run_steps(made, target, say=said.append)
    return said


LATE: dict[str, tuple[Any, str]] = {
    "permissions hold late": (lambda: prepared(grants_hold_after_s=150), "a permission"),
    "permissions hold very late": (lambda: prepared(grants_hold_after_s=175), "a permission"),
}


@pytest.mark.parametrize("case", LATE)
def test_deploy_tries_again_what_passes_and_says_so(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, said = LATE[case]
    with workspace(tmp_path, project()) as place:
        assert any(said in line and "Trying again" in line for line in apply(place, monkeypatch))
        assert len(place.project.of("google_cloudfunctions2_function")) == 4
        assert "No changes." in place.terraform("plan", "-detailed-exitcode", "-var=region=us-central1")


def test_deploy_gives_up_after_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with workspace(tmp_path, prepared(grants_hold_after_s=10_000)) as place:
        with pytest.raises(DeployError, match="failed with status 1"):
            apply(place, monkeypatch)
        assert place.project.now == 120 + 2 * 30


@pytest.mark.parametrize(
    ("project", "why"),
    [
        (prepared, "a permission"),
        (lambda: Project(services=prepared().services), "own account"),
        (lambda: Project(services_on_after_s=60), "was just enabled"),
    ],
)
def test_what_a_fresh_project_says_is_known_to_pass(project: Any, why: str, tmp_path: Path) -> None:
    with workspace(tmp_path, project()) as place:
        printed = place.terraform("apply", *place.variables("permissions_wait_s=0"), status=1)
        assert why in " ".join(reason for pattern, reason in PASSING.items() if re.search(pattern, printed))


@pytest.mark.parametrize("constraint", sorted(POLICIES))
def test_a_policy_of_the_organisation_is_explained_and_not_tried_again(
    constraint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workspace(tmp_path, prepared(constraints={constraint})) as place:
        with pytest.raises(DeployError) as refused:
            apply(place, monkeypatch)
        assert refused.value.found.removesuffix("; its own message is above") in REFUSED.values()
        assert 'public = "function"' in refused.value.remedy


def test_by_function_nothing_is_open_to_all_and_no_bucket_is_public(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workspace(tmp_path, prepared(constraints=POLICIES)) as place:
        apply(place, monkeypatch, "public=function", *OWNER)
        made = place.made()
        assert not [a for a, values in made.items() if "allUsers" in str(values.get("member"))]
        assert {v["public_access_prevention"] for a, v in made.items() if a.startswith("google_storage_bucket.")} == {
            "enforced"
        }
        environ = made['google_cloudfunctions2_function.function["search"]']["service_config"][0]
        assert '"title":"Visor"' in environ["environment_variables"]["VISOR_PAGE_CONFIG"]
        assert environ["environment_variables"]["VISOR_CORS_ORIGINS"] == "", "one origin needs none"
        assert place.terraform("output", "-raw", "site") == "run://my-project/us-central1/visor-search"


def test_protected_data_is_not_destroyed(empty: Workspace) -> None:
    given = empty.variables("protect_data=true")
    empty.terraform("apply", *given)
    assert "Delete protection is enabled" in empty.terraform("destroy", *given, status=1)
    left = {kind for kind, _ in empty.project.there}
    assert {"google_firestore_database", "google_storage_bucket"} <= left


def test_no_source_is_a_warning_and_stands_on_the_page(tmp_path: Path) -> None:
    with workspace(tmp_path, sources=()) as place:
        assert "Warning: Check block assertion failed" in place.terraform("plan")
        place.terraform("apply")
        assert "No source is named yet" in place.terraform("output", "-raw", "page_config")


SIZES = (
    "0.5, 0.5", "0.5, 1", "0.49, 0.5", "0.49, 1", "0.167, 0.25", "0.1667, 0.25", "0.05, 0.25", "0.9, 1", "0.9, 2",
    "1, 4", "1, 8", "2, 8", "2, 16", "3, 4", "4, 2", "4, 1", "8, 32", "1, 0.1", "1, 0.3333",
)  # fmt: skip


def test_sizes_that_cloud_run_has_not_are_refused_before(empty: Workspace) -> None:
    """The variables' validations and the API's rules, which the stand-in has by itself, agree."""
    for pair in SIZES:
        cpu, memory = pair.split(", ")
        service = {
            "available_cpu": cpu,
            "available_memory": f"{float(memory) * 1024:g}Mi",
            "max_instance_request_concurrency": 1,
        }
        try:
            _check_size(service)
            status, said = 0, ""
        except Refused:
            status, said = 1, "Cloud Run"
        given = f"sizes={{embed={{cpu={cpu}, memory_gib={memory}}}}}"
        assert said in empty.terraform("plan", *empty.variables(given), status=status), pair


VALUES_REFUSED = {
    "project=My_Project": "A project id",
    "region=europe-west1": "Cloud Storage is free in",
    "runtime=python39": "Visor runs on",
    "index=Über": "An index name",
    "crawl_budget_s=1790": "at most 1740",
    "freshness_s=1": "Below 5 s",
    "sizes={search={instances=50}}": "highest number of instances",
    "sizes={crawl={instances=2}}": "Two crawls",
    "sizes={search={cpu=0.5}}": "search_concurrency = 1",
    "search_concurrency=100": "1 to 80",
    "time_zone=Berlin time": "A time zone reads like",
    "crawl_schedule=daily": "five fields",
    'cors_origins=["*"]': "Each origin",
    "owner_key=short": "at least 20",
    "key_required=true": "only if there is one",
    "billing_account=mine": "A billing account's id",
    "budget={amount=0}": "The amount is a whole number",
    'budget={currency="Euro"}': "three capital letters",
    "log_retention_days=365": "longer retention is billed",
    "embed_attempts_max=0": "1 to 50",
    "quota_share=1.5": "at most 1",
    "unsafe_query=2.5": "at most 2",
    "unsafe_item=0": "More than 0",
    "public=yes": "bucket or function",
    'settings={VISOR_BUCKET="x"}': "Terraform sets one of these itself",
    'source_secrets={VISOR_KEY="x"}': "MARKET_KEY",
    'read_buckets=["s3://x"]': "gs://pictures",
    'page={language="German"}': "A language reads like",
}


JUDGED_BY_OTHERS = {"sizes", "key_required"}
"""What other variables say counts for them."""


def test_a_variable_that_would_cost_or_break_is_refused(empty: Workspace) -> None:
    left = list(VALUES_REFUSED)
    while left:
        # Terraform tells all that it refuses at once, of each variable one value.
        names = {variable.partition("=")[0]: variable for variable in reversed(left)}
        own = {name: variable for name, variable in names.items() if name not in JUDGED_BY_OTHERS}
        some = own or dict([names.popitem()])
        left = [variable for variable in left if variable not in some.values()]
        printed = empty.terraform("plan", *empty.variables(*some.values()), status=1)
        assert printed.count("Error: Invalid value for variable") == len(some), printed
        for variable in some.values():
            assert VALUES_REFUSED[variable] in printed, variable


MISTAKES = {
    "unknown resource type": (
        "scheduler.tf",
        '"google_cloud_scheduler_job" "job"',
        '"google_cloud_schedule_job" "job"',
    ),
    "unknown argument": ("functions.tf", "min_instance_count ", "min_instances "),
    "missing argument": ("main.tf", "  account_id   = ", "  display_name2 = "),
    "wrong type": ("storage.tf", "age = 1\n", 'age = "one"\n'),
    "single block twice": ("pubsub.tf", "  retry_policy {\n", "  retry_policy {}\n  retry_policy {\n"),
    "unknown attribute": ("pubsub.tf", "this.number", "this.project_number"),
    "unknown variable": ("scheduler.tf", "var.region", "var.regions"),
    "unknown instance": ("functions.tf", 'google_service_account.account["build"]', "google_service_account.account"),
}


def test_validate_finds_what_is_planted(empty: Workspace) -> None:
    """So that a stand-in that lets everything pass is noticed."""
    for mistake, (file, right, wrong) in MISTAKES.items():
        path = empty.folder / file
        text = path.read_text(encoding="utf-8")
        assert right in text, "the text to replace has changed"
        path.write_text(text.replace(right, wrong, 1), encoding="utf-8")
        said = empty.terraform("validate", status=None)
        assert "Error: " in said, mistake
        path.write_text(text, encoding="utf-8")


def test_formatted() -> None:
    done = subprocess.run(["terraform", "fmt", "-check", "-diff", str(TERRAFORM)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_variable_and_local_is_read_typed_and_described() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(TERRAFORM.glob("*.tf")))
    variables = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', text, re.DOTALL | re.MULTILINE)
    outside = re.sub(r'^variable "\w+" \{\n.*?^\}', "", text, flags=re.DOTALL | re.MULTILINE)
    assert len(variables) > 25
    for name, body in variables:
        assert re.search(r"^  type +=", body, re.MULTILINE), name
        assert re.search(r"^  description +=", body, re.MULTILINE), name
        assert re.search(rf"var\.{name}\b", outside), f"nothing reads {name}"
    for name in re.findall(
        r"^  (\w+) += ", "".join(re.findall(r"^locals \{\n.*?^\}", text, re.DOTALL | re.MULTILINE)), re.MULTILINE
    ):
        assert re.search(rf"local\.{name}\b", text), f"nothing reads local.{name}"
