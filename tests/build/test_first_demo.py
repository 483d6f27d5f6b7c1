"""A stranger's first `make demo`: an empty home, no C++ compiler, no TensorFlow, and no model on npm."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image

from visor.models.builtin import NSFWJS
from visor.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = re.compile(r"(.*-)?(cc|gcc|g\+\+|c\+\+|clang|clang\+\+|c\d\d)(-[\d.]+)?")


@pytest.fixture
def machine(tmp_path: Path, built_settings: Settings) -> dict[str, str]:
    """An environment without compilers, whose npm has no model, and whose pip finds the package of the built one."""
    programs, published = tmp_path / "bin", tmp_path / "published"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep)[::-1]:
        for path in Path(folder).glob("*"):
            if not COMPILERS.fullmatch(path.name):
                (programs / path.name).unlink(missing_ok=True)
                (programs / path.name).symlink_to(path)
    npm = programs / "npm"
    npm.unlink()
    npm.write_text(
        f'#!/bin/sh\ncase "$*" in *{NSFWJS.source.name}*) echo "no registry" >&2; exit 1;; esac\n'
        f'exec {shutil.which("npm")} "$@"\n'
    )
    npm.chmod(0o755)
    environment = os.environ | {"VISOR_HOME": str(built_settings.home)}
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "models" / "model_package.py", published], check=True, env=environment
    )
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {published}".strip()
    return environment | {"PATH": str(programs), "VISOR_HOME": str(tmp_path / "home"), "PIP_FIND_LINKS": links}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "checkout" / name)
    return tmp_path / "checkout"


@pytest.fixture
def demo(machine: dict[str, str], checkout: Path, tmp_path: Path) -> Iterator[str]:
    """What `make demo` says of a folder of pictures, up to the page's address."""
    (tmp_path / "pictures").mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.linear_gradient("L").convert("RGB").rotate(number * 40, fillcolor=colour).save(
            tmp_path / "pictures" / f"{colour}.png"
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "log"
    command = ["make", "demo", f"PYTHON={sys.executable}", f"PORT={port}", f"SOURCE={tmp_path / 'pictures'}"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=checkout, env=machine, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    while "Visor is at" not in log.read_text() and process.poll() is None:
        time.sleep(0.5)
    yield log.read_text()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)


def test_it_gets_to_the_page(demo: str) -> None:
    found = re.search(r"Visor is at (http://\S+)", demo)
    assert found, demo
    assert "TensorFlow" not in demo
    assert "'build'" not in demo
    with urlopen(found[1], timeout=10) as page:
        assert b"<script" in page.read()
