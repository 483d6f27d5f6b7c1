"""Dataflow's launcher: the template's parameters become `visor bulk` and its settings."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LAUNCH = ROOT / "dataflow" / "launch.py"
command = runpy.run_path(str(LAUNCH))["command"]
SETTINGS = '{"VISOR_BACKEND": "gcp", "VISOR_PROJECT": "shop-1"}'


def test_every_parameter_of_the_template_reaches_visor() -> None:
    parameters = json.loads((ROOT / "dataflow" / "metadata.json").read_text("utf-8"))["parameters"]
    values = {"what": "gs://pictures/2026/", "settings": SETTINGS, "limit": "500", "host_rate": "2.5", "workers": "20"}
    assert {one["name"] for one in parameters} == set(values)
    assert {one["name"] for one in parameters if not one.get("isOptional")} == {"what", "settings"}
    argv, environment = command([f"--{name}={value}" for name, value in values.items()])
    assert argv == [
        "bulk", "gs://pictures/2026/", "--runner=DataflowRunner", "--limit=500", "--host-rate=2.5", "--workers=20",
    ]  # fmt: skip
    assert environment == {"VISOR_BACKEND": "gcp", "VISOR_PROJECT": "shop-1"}


def test_what_dataflow_adds_goes_to_beam() -> None:
    beams = ["--project=shop-1", "--region=us-central1", "--temp_location=gs://b/tmp", "--job_name=bulk"]
    argv, _ = command(["--what=shop", f"--settings={SETTINGS}", "--limit=", *beams])
    assert argv == ["bulk", "shop", "--runner=DataflowRunner", *beams]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [(["--what=shop"], "--settings"), (["--settings={}"], "--what"), (["--what=s", "--settings=x"], "--settings")],
)
def test_a_parameter_that_is_missing_or_wrong_is_named(
    arguments: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(arguments)
    assert found in capsys.readouterr().err


def test_the_launcher_starts_visor(tmp_path: Path) -> None:
    """The runner that Dataflow's launcher names is not Beam's, and the settings reach Visor."""
    arguments = ["--runner=TemplateRunner", "--what=nothing-of-this-name", f'--settings={{"VISOR_HOME": "{tmp_path}"}}']
    done = subprocess.run(
        [sys.executable, str(LAUNCH), *arguments], capture_output=True, text=True, cwd=tmp_path, env=_environment()
    )
    assert done.returncode != 0
    assert "TemplateRunner" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "nothing-of-this-name" in done.stderr or "Apache Beam is not installed" in done.stderr


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VISOR_")}
