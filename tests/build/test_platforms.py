"""Everything that Visor installs is a wheel on every platform and Python, but for what docs/platforms.md says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scripts import wheels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def _index() -> None:
    """Skips where pip reaches no index."""
    asked = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed", "idna"]
    if subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("pip reaches no package index, which alone knows what wheels there are")


@pytest.mark.usefixtures("_index")
@pytest.mark.parametrize("python", wheels.PYTHONS)
@pytest.mark.parametrize("platform", wheels.PLATFORMS)
def test_pip_finds_a_wheel_of_everything(platform: str, python: str) -> None:
    assert set(wheels.without_wheel(platform, python)) == wheels.documented(platform, python)


def test_tensorflow_is_what_the_platform_has() -> None:
    """`tensorflow-cpu` has wheels for Linux on x86-64 only, and neither knows Python 3.14."""
    twins = {"tensorflow", "tensorflow-cpu"}
    found = {(p, v): twins & set(wheels.needed(p, v)) for p in wheels.PLATFORMS for v in wheels.PYTHONS}
    assert found == {
        (p, v): set() if v == "3.14" else {"tensorflow-cpu"} if p == "Linux x86-64" else {"tensorflow"}
        for p, v in found
    }


def test_a_missing_wheel_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """pdqhash had none for Linux, and was noticed on machines without a compiler only."""
    monkeypatch.setattr(wheels, "needed", lambda *_: ["tensorflow-cpu"])
    assert list(wheels.without_wheel("macOS ARM", "3.13")) == ["tensorflow-cpu"]
