"""Bundles: deterministic, complete, pinned, and with nothing in them that a function does not need."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts import bundle, lock

from visor.errors import SettingsError
from visor.free_tier.allowances import image_sizes
from visor.settings import Settings
from visor.sources.registry import kinds

pytestmark = pytest.mark.build

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "made-0123456789ab"
    directory.mkdir(parents=True)
    (directory / "model.json").write_text('{"fingerprint": "0123456789ab"}', encoding="utf-8")
    (directory / "network.tflite").write_bytes(bytes(range(256)) * 64)
    return directory


def test_the_same_input_makes_the_same_bytes(tmp_path: Path, model: Path) -> None:
    for out in ("one", "two"):
        bundle.write(bundle.contents("search", model), tmp_path / out / "search.zip")
        for path in model.iterdir():
            os.utime(path)
    assert (tmp_path / "one" / "search.zip").read_bytes() == (tmp_path / "two" / "search.zip").read_bytes()


def test_zip_and_folder_hold_the_same(tmp_path: Path, model: Path) -> None:
    files = bundle.contents("embed", model)
    bundle.write(files, tmp_path / "embed.zip")
    with zipfile.ZipFile(tmp_path / "embed.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    folder = tmp_path / "embed"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == set(files)


@pytest.mark.parametrize("name", bundle.function_names())
def test_every_requirement_is_pinned(name: str) -> None:
    digest, constraints, *rest = bundle.pinned(name, bundle.source_kinds()).splitlines()
    assert digest.startswith("# constraints.txt ")
    assert constraints == "-c constraints.txt"
    assert rest
    assert all("==" in line for line in rest)


def test_what_is_installed_anew_changes_with_the_constraints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's buildpack keeps what it installed for a requirements.txt for a day."""
    before = bundle.pinned("embed")
    (tmp_path / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes().replace(b"idna==3", b"idna==4"))
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    after = bundle.pinned("embed")
    assert after != before
    assert after.splitlines()[1:] == before.splitlines()[1:]


def test_nothing_names_an_index_or_a_host() -> None:
    for text in ((ROOT / "constraints.txt").read_text(encoding="utf-8"), *map(bundle.pinned, bundle.function_names())):
        assert "://" not in text
        assert "--index" not in text
        assert "--find-links" not in text


def closure(names: list[str]) -> set[str]:
    """The distributions that these bring along, by the metadata of what is installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(name), "") for name in names]
    while waiting:
        name, extra = one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        try:
            requirements = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        except importlib.metadata.PackageNotFoundError:
            continue
        for needed in requirements:
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), extra) for extra in ("", *needed.extras)]
    return {name for name, _ in found}


@pytest.mark.parametrize("name", bundle.function_names())
def test_tensorflow_is_in_none_and_everything_is_pinned(name: str) -> None:
    brought = closure(bundle.required(name, bundle.source_kinds()))
    assert not [one for one in brought if bundle.FORBIDDEN.match(one)]
    pins = {canonicalize_name(line.split("==")[0]) for line in bundle._lines(ROOT / "constraints.txt")}
    assert brought <= pins


def pins() -> dict[str, str]:
    lines = bundle._lines(ROOT / "constraints.txt")
    return {str(canonicalize_name(name)): version for name, _, version in (line.partition("==") for line in lines)}


@pytest.mark.parametrize("name", bundle.function_names())
def test_image_sizes_are_of_what_is_installed_today(name: str) -> None:
    """`visor cost` reckons with images.json, which a change of requirements or versions makes stale."""
    today = {one: pins()[one] for one in closure(bundle.required(name))}
    recorded = {str(canonicalize_name(one)): version for one, version in image_sizes().functions[name].packages.items()}
    assert recorded == today, "run scripts/bundle.py build/bundles --measure --record"


@pytest.mark.parametrize("kind", bundle.source_kinds())
def test_sizes_of_sources_are_of_what_is_installed_today(kind: str) -> None:
    names = closure(bundle.required("crawl", [kind])) - closure(bundle.required("crawl"))
    recorded = {str(canonicalize_name(one)): version for one, version in image_sizes().sources[kind].packages.items()}
    assert recorded == {one: pins()[one] for one in names}, "run scripts/bundle.py build/bundles --measure --record"


def test_scipy_is_in_search_where_metrics_are_wanted() -> None:
    def names(**options: bool) -> set[str]:
        text = bundle.contents("search", None, **options)["requirements.txt"].decode()
        return {line.partition("==")[0] for line in text.splitlines()}

    assert names(metrics=True) - names() == {"scipy"}
    recorded = image_sizes().metrics
    assert recorded is not None
    assert recorded.packages == {"scipy": pins()["scipy"]}, "run scripts/bundle.py build/bundles --measure --record"


def test_what_sends_traces_is_in_each_function_where_it_is_wanted() -> None:
    def names(name: str, **options: bool) -> set[str]:
        text = bundle.contents(name, None, **options)["requirements.txt"].decode()
        return {line.partition("==")[0] for line in text.splitlines()}

    extra = {"opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk"}
    added = {name: names(name, telemetry=True) - names(name) for name in bundle.function_names()}
    assert added == {name: set() if name == "switch" else extra for name in added}


def test_libraries_of_a_kind_are_in_the_bundle_where_a_source_of_it_is_named(tmp_path: Path) -> None:
    config = tmp_path / "visor.toml"
    config.write_text('[sources.film]\nkind = "video"\nurl = "https://x.test/a.mp4"\n', encoding="utf-8")

    def lines(name: str, config: Path | None) -> set[str]:
        text = bundle.contents(name, None, config)["requirements.txt"].decode()
        return {line.partition("==")[0] for line in text.splitlines()}

    assert {"av", "pillow"} <= lines("crawl", config)
    assert not lines("crawl", config) & {"extruct", "fsspec"}
    assert not lines("crawl", None) & {"av", "extruct", "fsspec", "pillow"}
    assert lines("embed", config) == lines("embed", None)
    assert set(bundle.source_kinds()) <= set(kinds())


def test_a_requirement_without_a_pin_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "requirements.txt").write_text("left-pad\n", encoding="utf-8")
    monkeypatch.setattr(bundle, "FUNCTIONS", tmp_path)
    with pytest.raises(SystemExit, match="left-pad"):
        bundle.pinned("search")


@pytest.mark.parametrize("name", sorted(set(bundle.function_names()) - bundle.WITHOUT_PACKAGE))
def test_package_imports_from_the_bundle_alone(name: str, tmp_path: Path) -> None:
    """In a process that sees the bundle and third parties, but not the checkout."""
    bundle.write(bundle.contents(name, None), tmp_path / f"{name}.zip")
    folder = tmp_path / name
    program = (
        "import importlib.metadata, json, visor, visor.app, visor.settings;"
        "print(json.dumps([visor.__file__, [e.name for e in importlib.metadata.entry_points(group='visor.sources')]]))"
    )
    paths = [p for p in sys.path if p and not Path(p).resolve().is_relative_to(ROOT / "shared")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *paths])}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, sources = json.loads(done.stdout)
    assert Path(where).is_relative_to(folder)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(sources) >= set(project["entry-points"]["visor.sources"])


def test_only_what_runs_pictures_carries_the_weights(model: Path) -> None:
    weights = f"models/{model.name}/network.tflite"
    carrying = {name for name in bundle.function_names() if weights in bundle.contents(name, model)}
    assert carrying == bundle.WHOLE_MODEL
    manifest = f"models/{model.name}/model.json"
    assert {name for name in bundle.function_names() if manifest in bundle.contents(name, model)} == (
        bundle.WHOLE_MODEL | bundle.MODEL_MANIFEST
    )


def test_what_only_a_laptop_runs_stays_behind() -> None:
    inside = {path.split("/")[1] for path in bundle.contents("search", None) if path.startswith("visor/")}
    assert not inside & bundle.LAPTOP_ONLY
    assert {"app.py", "settings.py", "ingest", "storage"} <= inside


def test_switch_is_small_and_alone() -> None:
    assert set(bundle.contents("switch", None)) == {"main.py", "requirements.txt", "constraints.txt"}


def test_runtime_is_the_python_that_the_tests_run_on() -> None:
    """What is pinned was resolved, and is tested, on the Python that the functions run."""
    header = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[0]
    assert f"Python {lock.runtime()} " in header


def test_the_model_is_the_one_that_terraform_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[str] = []

    def directory(settings: Settings, name: str) -> Path:
        wanted.append(name)
        raise SettingsError(f"There is no model {name}")

    monkeypatch.setattr(bundle, "model_directory", directory)
    monkeypatch.setenv("VISOR_MODEL", "imagenet")
    for given in (["--terraform", str(tmp_path), "--var", "model=efficientnet_lite0"], []):
        monkeypatch.setattr(sys, "argv", ["bundle.py", str(tmp_path / "out"), *given])
        with pytest.raises(SystemExit, match="There is no model"):
            bundle.main()
    assert wanted == ["efficientnet_lite0", "imagenet"]


def test_a_model_that_is_not_whole_is_not_bundled(model: Path) -> None:
    (model / "network.tflite").unlink()
    with pytest.raises(SystemExit, match="no whole model"):
        bundle.contents("search", model)
    assert bundle.contents("compact", model), "compact runs none"
