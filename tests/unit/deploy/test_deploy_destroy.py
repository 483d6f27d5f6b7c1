"""`visor destroy`: real Terraform with the stand-in provider, a gcloud that writes down what it was asked."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.terraformed import Workspace, need_terraform, workspace

from visor.cli.deploy import destroy_command
from visor.errors import DeployError

pytestmark = pytest.mark.slow
GCLOUD = """#!{python}
import pathlib, sys
line = " ".join(sys.argv[1:])
folder = pathlib.Path({folder!r})
with (folder / "log").open("a") as log:
    log.write(line + "\\n")
if line.startswith("projects describe"):
    print("123456789012")
if line.startswith("functions list"):
    print((folder / "functions").read_text())
if line.startswith("storage rm") and (folder / "refused").exists():
    sys.exit("HTTPError 403: no storage.objects.delete access")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A checkout that was deployed from here, and then cleaned."""
    need_terraform()
    with workspace(tmp_path / "checkout") as made:
        root = made.folder.parent
        for name in ("functions", "frontend", "scripts"):
            (root / name).mkdir()
        (root / "cloudbuild.yaml").touch()
        programs = tmp_path / "programs"
        programs.mkdir()
        (programs / "gcloud").write_text(GCLOUD.format(python=sys.executable, folder=str(tmp_path)))
        (programs / "gcloud").chmod(0o755)
        (tmp_path / "functions").write_text("visor-search\nvisor-crawl\n")
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{made.environ['PATH']}")
        yield made


def destroy(place: Workspace, *arguments: str, answer: str = "") -> Result:
    command = ["--root", str(place.folder.parent), "--project", "my-project", *arguments]
    return CliRunner().invoke(destroy_command, command, input=answer)


def asked(place: Workspace) -> list[str]:
    log = place.folder.parent.parent / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_all_is_removed_after_make_clean_and_it_says_what(place: Workspace) -> None:
    place.terraform("apply", "-var=region=us-central1")
    shutil.rmtree(place.bundles)
    done = destroy(place, answer="y\n")
    assert done.exit_code == 0, (done.output, done.exception)
    assert place.project.there == []
    assert "4  cloudfunctions2_function" in done.output
    assert "my-project-visor-index" in done.output
    assert [line.split()[:3] for line in asked(place) if "delete" in line or " rm " in line] == [
        ["storage", "rm", "--recursive"],
        ["storage", "rm", "--recursive"],
        ["iam", "service-accounts", "delete"],
    ]
    assert any("gcf-v2-sources-123456789012-us-central1" in line for line in asked(place))


def test_the_state_of_another_project_is_not_touched(place: Workspace) -> None:
    place.terraform("apply", "-var=region=us-central1")
    done = destroy(place, "--yes", "--project", "another-project")
    assert isinstance(done.exception, DeployError)
    assert "that of my-project, not of another-project" in done.exception.found
    assert len(place.project.there) > 70
    assert asked(place) == []


def test_copies_are_removed_in_the_region_of_the_functions(place: Workspace) -> None:
    place.terraform("apply", "-var=region=us-east1")
    done = destroy(place, "--yes")
    assert done.exit_code == 0, (done.output, done.exception)
    assert any("gcf-v2-sources-123456789012-us-east1" in line for line in asked(place))
    assert any("functions list --v2 --regions=us-east1" in line for line in asked(place))


def test_what_is_left_is_named_and_nothing_is_said_to_be_gone(place: Workspace, tmp_path: Path) -> None:
    place.terraform("apply", "-var=region=us-central1")
    (tmp_path / "refused").touch()
    done = destroy(place, "--yes")
    assert isinstance(done.exception, DeployError)
    assert "may cost something" in done.exception.found
    assert "gcloud storage rm --recursive gs://my-project-visor-state" in done.exception.remedy
    assert "Nothing of Visor's is left" not in done.output
    assert [line for line in asked(place) if "service-accounts delete" in line]


def test_nothing_is_removed_without_a_yes(place: Workspace) -> None:
    place.terraform("apply", "-var=region=us-central1")
    assert destroy(place, answer="n\n").exit_code == 1
    assert len(place.project.there) > 70


def test_copies_of_other_functions_are_left_alone(place: Workspace, tmp_path: Path) -> None:
    (tmp_path / "functions").write_text("visor-search\nmy-own\n")
    place.terraform("apply", "-var=region=us-central1")
    done = destroy(place, "--yes")
    assert done.exit_code == 0
    assert not [line for line in asked(place) if "gcf-v2-sources" in line]
    assert "gs://gcf-v2-sources-…-us-central1" in done.output
    assert "Nothing of Visor's is left" not in done.output


@pytest.mark.parametrize("by", ["state", "variables"])
def test_protected_data_is_refused(place: Workspace, by: str) -> None:
    place.terraform("apply", "-var=region=us-central1", *(["-var=protect_data=true"] if by == "state" else []))
    done = destroy(place, "--yes", *(["--var", "protect_data=true"] if by == "variables" else []))
    assert isinstance(done.exception, DeployError)
    assert "protect_data = false" in done.exception.remedy
    assert len(place.project.there) > 70


def test_an_empty_state_is_not_taken_for_done(place: Workspace) -> None:
    done = destroy(place, "--yes")
    assert isinstance(done.exception, DeployError)
    assert "--cloud" in done.exception.remedy
    assert asked(place) == []


def test_what_was_deployed_by_cloud_is_looked_for_in_its_bucket(place: Workspace, monkeypatch: Any) -> None:
    """As far as Terraform's own backend goes without Google: it is told the bucket."""
    calls: list[list[str]] = []

    def run(argv: list[str], *, cwd: Path) -> None:
        calls.append(argv)
        raise DeployError("stop here")

    monkeypatch.setattr("visor.deploy.steps.run", run)
    assert destroy(place, "--cloud", "--yes").exit_code == 1
    assert "-backend-config=bucket=my-project-visor-state" in calls[0]
    assert 'backend "gcs"' in (place.folder / "backend_override.tf").read_text()
    assert json.dumps(calls[0]).count("terraform") == 1
