"""The wheel alone, in an empty environment and an empty folder, gives the library, the command and the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from urllib.request import urlopen

import pytest
from scripts import dist
from tests.unit.imaging.empty_pictures import scene

import visor

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not dist.PAGE.is_dir():
        subprocess.run(["make", "page"], cwd=ROOT, check=True)
    source, built = sorted(dist.build(tmp_path_factory.mktemp("dist"), isolation=False))[::-1]
    assert source.name == f"visor_search-{visor.__version__}.tar.gz"
    return built


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel; its dependencies are those that are installed here."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False)
    binaries = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "zz_dependencies.pth").write_text("\n".join(shared) + "\n")
    return binaries


@pytest.fixture
def home(built_settings: visor.Settings, tmp_path: Path) -> Path:
    """A person's folder with the model that the command would have built, and one picture of a cat."""
    (tmp_path / ".visor").mkdir()
    (tmp_path / ".visor" / "models").symlink_to(built_settings.home / "models")
    (tmp_path / "Pictures" / "cats").mkdir(parents=True)
    photo = scene()
    photo.save(tmp_path / "Pictures" / "cats" / "tom.jpg")
    (tmp_path / "empty").mkdir()
    photo.save(tmp_path / "empty" / "photo.jpg")
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VISOR_", "PYTHON"))}
    return kept | {"HOME": str(home)}


def test_readme_example_runs(binaries: Path, home: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = next(block for block in blocks if block.startswith("import visor\n"))
    assert len(example.splitlines()) <= 10
    done = subprocess.run(
        [binaries / "python", "-c", example + "\nprint(visor.__file__)"],
        cwd=home / "empty",
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    match, place = done.stdout.splitlines()
    assert match == "tom 99% exact"
    assert place.startswith(str(binaries.parent))
    assert not done.stderr


def test_command_tells_its_version(binaries: Path, home: Path) -> None:
    command = [binaries / "visor", "--version"]
    told = subprocess.run(
        command, cwd=home / "empty", env=environment(home), capture_output=True, text=True, check=True
    )
    assert told.stdout == f"visor, version {visor.__version__}\n"


def test_serve_shows_the_page(binaries: Path, home: Path) -> None:
    (home / ".visor" / "indexes" / "default").mkdir(parents=True)
    command = [binaries / "visor", "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=home / "empty", env=environment(home), stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stderr)
            address = next((one for one in found if one), None)
            assert address is not None
            with urlopen(address[0] + "/") as answer:  # a server of this test
                assert (answer.status, answer.headers.get_content_type()) == (200, "text/html")
                page = answer.read().decode()
            script = re.search(r'src="\.?/?(assets/[^"]+\.js)"', page)
            assert script is not None
            with urlopen(f"{address[0]}/{script[1]}") as answer:
                assert answer.status == 200
        finally:
            server.terminate()


def test_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"visor", f"visor_search-{visor.__version__}.dist-info"}
    assert {"visor/py.typed", "visor/__init__.pyi", "visor/web/page/index.html"} <= set(names)
