"""The container of box/ is built and run: it crawls, embeds, merges, answers, tells its metrics and ends when asked to.

For machines with buildah and a base image (docs/operations.md says how one is made without a registry of images):

    TEST_BOX_BASE=localhost/python pytest -n 0 tests/build/test_box_runs.py
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from scripts import dist

ROOT = Path(__file__).parents[2]
BASE = os.environ.get("TEST_BOX_BASE", "")
IMAGE = "visor-test-box"
PICTURES = 6
CHROOT = os.environ | {"BUILDAH_ISOLATION": "chroot"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (BASE and shutil.which("buildah")), reason="needs buildah, and a base in TEST_BOX_BASE"),
]


def buildah(*arguments: str | Path) -> str:
    done = subprocess.run(["buildah", *arguments], env=CHROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container of the image that the steps of the Containerfile make of this checkout's wheels."""
    context = tmp_path_factory.mktemp("context")
    (context / "dist").mkdir()
    dist.build(context / "dist", isolation=False)
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "models" / "model_package.py", context / "dist"], cwd=ROOT, check=True
    )
    arguments = ("--build-arg", f"BASE={BASE}", "-f", ROOT / "box" / "Containerfile", "-t", IMAGE, context)
    buildah("build", *arguments)
    name = buildah("from", IMAGE)
    yield name
    buildah("rm", name)
    buildah("rmi", IMAGE)


def innermost(process: int) -> int:
    """The last of a process's only children: what buildah started."""
    threads = Path(f"/proc/{process}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    return innermost(int(children[0])) if children else process


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_container_does_all_that_a_box_does(container: str, tmp_path: Path) -> None:
    pictures, data = tmp_path / "pictures", tmp_path / "data"
    pictures.mkdir()
    data.mkdir()
    for number in range(PICTURES):
        picture = Image.effect_mandelbrot((120, 120), (-2, -1.5, 1, 1.5), 9 + number).convert("RGB")
        picture.rotate(30 * number).save(pictures / f"{number}.png")
    (data / "visor.toml").write_text('[sources.mine]\nkind = "folder"\npath = "/pictures"\n')
    os.chown(data, 1000, 1000)
    port, private = free_port(), free_port()
    command = ["buildah", "run", "--env", f"VISOR_METRICS_PORT={private}", "--env", "VISOR_ALLOW_FOLDERS=/pictures"]
    command += ["-v", f"{data}:/data", "-v", f"{pictures}:/pictures:ro", container, "--"]
    command += ["visor", "serve", "--crawl", "--port", str(port)]
    with subprocess.Popen(command, env=CHROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            ends = time.monotonic() + 180
            told: dict[str, float] = {}
            while (told.get("visor_merges_total"), told.get("visor_index_items")) != (1, PICTURES):
                assert process.poll() is None
                assert time.monotonic() < ends, told
                time.sleep(1)
                try:
                    text = httpx.get(f"http://127.0.0.1:{private}/metrics").text
                except httpx.TransportError:
                    continue
                found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
                told = {one.name: one.value for one in found if one.labels.get("outcome") != "failed"}
            address = f"http://127.0.0.1:{port}"
            assert httpx.get(f"{address}/v1/stats").json()["images"] == PICTURES
            assert "<html" in httpx.get(f"{address}/").text
            picture = {"image": (pictures / "2.png").read_bytes()}
            found = httpx.post(f"{address}/v1/search", files=picture, timeout=60).json()
            assert found["matches"][0]["verdict"] == "exact"
        finally:
            os.kill(innermost(process.pid), signal.SIGTERM)
            said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert (data / "owner_key").stat().st_mode & 0o777 == 0o600
