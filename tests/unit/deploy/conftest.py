"""What tests of `visor deploy` start from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.unit.deploy.deploying import ROOT, World


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
