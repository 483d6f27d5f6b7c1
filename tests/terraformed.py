"""Real Terraform on a copy of terraform/, with the stand-in provider of devtools/visor_emulators in Google's place."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from visor.deploy.steps import Target, service_steps
from visor_emulators.terraform_provider import Project, StandIn

ROOT = Path(__file__).resolve().parents[1]
TERRAFORM = ROOT / "terraform"
SCHEMA: dict[str, Any] = json.loads(
    (ROOT / "tests" / "unit" / "deploy" / "terraform_schema.json").read_text(encoding="utf-8")
)
FUNCTIONS = ("crawl", "embed", "compact", "search", "switch", "metrics/search")
NOT_COPIED = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars", "backend_override.tf")
Values = dict[str, Any]


def need_terraform() -> None:
    """Skip, or fail where CI has to have it."""
    if shutil.which("terraform") is None:
        if os.environ.get("TEST_REQUIRE_TERRAFORM") == "1":
            pytest.fail("TEST_REQUIRE_TERRAFORM=1, and terraform is not installed")
        pytest.skip("terraform is not installed, and nothing else can judge its files")


def prepared(**more: Any) -> Project:
    """A project after the steps that `visor deploy` takes before Terraform."""
    commands = [step.argv for step in service_steps(Target(root=ROOT, project="my-project"))]
    services = {part.partition(".")[0] for part in commands[0] if part.endswith(".googleapis.com")}
    named = [part.partition("=")[2].partition(".")[0] for argv in commands[1:] for part in argv if "--service=" in part]
    return Project(services=services, identities=set(named), **more)


class Workspace:
    """A folder with terraform/ and bundles in it, and what Terraform says there."""

    def __init__(self, folder: Path, provider: StandIn, *, sources: tuple[str, ...] = ("shop",)) -> None:
        self.folder, self.project = folder / "terraform", provider.project
        self.environ = provider.environ(os.environ)
        self.bundles = folder / "build" / "bundles"
        shutil.copytree(TERRAFORM, self.folder, ignore=NOT_COPIED)
        for name in FUNCTIONS:
            path = self.bundles / f"{name}.zip"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        (self.bundles / "sources.json").write_text(json.dumps(sources))
        self.terraform("init", "-input=false")

    def terraform(self, command: str, *arguments: str, status: int | None = 0) -> str:
        """What it prints to both, in one line without its boxes."""
        given = ["-var=project=my-project"] if command in ("plan", "apply", "destroy") else []
        flags = ["-auto-approve"] if command in ("apply", "destroy") else []
        argv = ["terraform", command, *flags, *given, *arguments]
        done = subprocess.run(argv, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=300)
        printed = done.stdout + done.stderr
        assert status in (None, done.returncode), printed
        return " ".join(re.sub(r"\x1b\[[\d;]*m|[│╷╵]", " ", printed).split())

    def variables(self, *variables: str) -> list[str]:
        return [f"-var={variable}" for variable in variables]

    def made(self) -> dict[str, Values]:
        """Address to the values of every resource in the state."""
        shown = subprocess.run(
            ["terraform", "show", "-json"],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        resources = json.loads(shown.stdout)["values"]["root_module"]["resources"]
        return {r["address"]: r["values"] for r in resources if r["mode"] == "managed"}


@contextmanager
def workspace(folder: Path, project: Project | None = None, **more: Any) -> Iterator[Workspace]:
    """A workspace whose provider runs."""
    need_terraform()
    with StandIn(project or prepared(), SCHEMA) as provider:
        yield Workspace(folder, provider, **more)
