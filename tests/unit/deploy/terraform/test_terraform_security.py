"""checkov over terraform/: no finding that is neither mended nor excused, and a planted one is found."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from scripts.security import ENVIRONMENT, run

TERRAFORM = Path(__file__).resolve().parents[4] / "terraform"
pytestmark = pytest.mark.skipif(not ENVIRONMENT.is_dir(), reason="no .venv-checkov: run scripts/security.py once")


def test_nothing_is_left_unexcused() -> None:
    done = run(TERRAFORM)
    report = json.loads(done.stdout)
    assert done.returncode == 0, [f"{c['check_id']} {c['resource']}" for c in report["results"]["failed_checks"]]
    assert report["summary"]["passed"] >= 10, "checkov looked at nothing"


def test_finds_planted(tmp_path: Path) -> None:
    folder = shutil.copytree(TERRAFORM, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    text = (folder / "storage.tf").read_text(encoding="utf-8")
    planted = text.replace("uniform_bucket_level_access = true", "uniform_bucket_level_access = false", 1)
    assert planted != text
    (folder / "storage.tf").write_text(planted, encoding="utf-8")
    done = run(folder)
    assert done.returncode == 1
    failed = {check["check_id"] for check in json.loads(done.stdout)["results"]["failed_checks"]}
    assert "CKV_GCP_29" in failed


def test_every_excuse_has_a_reason() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(TERRAFORM.glob("*.tf")))
    excuses = re.findall(r"#checkov:skip=(\w+):?(.*)", text)
    assert excuses
    assert all(len(reason.split()) >= 5 for _, reason in excuses), excuses
