"""Programs on PATH that behave like gcloud, terraform and npm at the interface that `visor deploy` uses."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from visor.cli.deploy import deploy_command
from visor.deploy.readiness import ProjectCheck, examine
from visor.deploy.steps import (
    CLOUD_VARIABLES,
    Target,
)

ROOT = Path(__file__).resolve().parents[3]

SERVICES = ["cloudresourcemanager", "serviceusage", "firestore", "cloudscheduler", "artifactregistry", "cloudfunctions"]
FAKE = """#!{python} -IS
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
            "gcloud services list": {"stdout": [{"config": {"name": f"{name}.googleapis.com"}} for name in SERVICES]},
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
            "gcloud storage ls": {"status": 1, "stderr": "One or more URLs matched no objects."},
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


def deploy(checkout: Path, *arguments: str) -> Result:
    return CliRunner().invoke(deploy_command, ["--root", str(checkout), *arguments])


def findings(checkout: Path, region: str = "us-central1") -> dict[str, ProjectCheck]:
    return {f.check: f for f in examine(Target(root=checkout, project="my-project", region=region))}
