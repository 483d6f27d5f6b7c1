"""A model of a package outside of the project: found by its name, listed, built, and checked by the contract."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import msgspec
import pytest
from tests.small_networks import CHANNELS, SIZE, checksum, make_onnx

from visor.errors import SettingsError
from visor.models.description import Given, LocalFile, ModelDescription, Network, Preprocessing, Tap, WeightedNetwork
from visor.models.registry import installed, load
from visor.testing import BrokenContract, check_model

PLUGIN = f"""
from pathlib import Path
from visor.models.description import (
    Given, LocalFile, ModelDescription, Network, Preprocessing, Tap, WeightedNetwork
)

MODEL = ModelDescription(
    name="tiny",
    summary="A tiny network of somebody else's.",
    dimension={CHANNELS},
    parts=(
        WeightedNetwork(
            network=Network(
                name="tiny_network",
                architecture="tiny",
                weights="file",
                source=LocalFile(path=str(Path(__file__).with_name("network.onnx")), checksum="CHECKSUM"),
                licence="MIT",
                preprocessing=Preprocessing(size={SIZE}, resample="bilinear", mean=(0, 0, 0), deviation=(1, 1, 1)),
                taps=(Tap(layer="pooled", channels={CHANNELS}, edge=0),),
                power=1.0,
                signed=True,
                head=None,
                given=Given(taps=("pooled",)),
            ),
            weight=1.0,
        ),
    ),
)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages with that package in it, as pip would leave it."""
    package = tmp_path / "site" / "tiny_model"
    package.mkdir(parents=True)
    make_onnx(package / "network.onnx")
    (package / "__init__.py").write_text(PLUGIN.replace("CHECKSUM", checksum(package / "network.onnx")))
    about = package.with_name("tiny_model-1.0.dist-info")
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[visor.models]\ntiny = tiny_model:MODEL\n")
    return tmp_path / "site"


def visor(site: Path, home: Path, *arguments: str, **more: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site), "VISOR_HOME": str(home)} | more
    done = subprocess.run(
        [sys.executable, "-m", "visor", *arguments], capture_output=True, text=True, env=environment, cwd=home
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_is_found_by_its_name(site: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    rows = msgspec.json.decode(visor(site, home, "model", "list", "--json"))["models"]
    row = next(row for row in rows if row["name"] == "tiny")
    assert (row["package"], row["directory"], row["extras"], row["missing"]) == ("tiny-model", None, ["onnx"], [])
    assert row["abilities"] == ["picture"]
    assert "tiny" in visor(site, home, "model", "build", VISOR_MODEL="tiny")
    rows = msgspec.json.decode(visor(site, home, "model", "list", "--json"))["models"]
    row = next(row for row in rows if row["name"] == "tiny")
    assert row["dimension"] == CHANNELS
    assert row["size_bytes"] > 1000
    assert f"tiny                           {CHANNELS} numbers  0 MB" in visor(site, home, "model", "list")


def test_what_joins_the_path_later_is_found_too(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "tiny" not in installed()
    monkeypatch.syspath_prepend(site)
    assert "tiny" in installed()


def plugin_model(folder: Path, **changes: object) -> ModelDescription:
    make_onnx(folder / "network.onnx")
    network = Network(
        name="tiny",
        architecture="tiny",
        weights="file",
        source=LocalFile(path=str(folder / "network.onnx"), checksum=checksum(folder / "network.onnx")),
        licence="MIT",
        preprocessing=Preprocessing(size=SIZE, resample="bilinear", mean=(0, 0, 0), deviation=(1, 1, 1)),
        taps=(Tap(layer="features", channels=CHANNELS, edge=16),),
        power=1.0,
        signed=True,
        head=None,
        given=Given(taps=("features",)),
    )
    network = msgspec.structs.replace(network, **changes)
    parts = (WeightedNetwork(network=network, weight=1.0),)
    return ModelDescription(name="tiny", summary="Tiny.", dimension=network.dimension, parts=parts)


def test_the_contract_holds_for_a_plugin(tmp_path: Path) -> None:
    embedder = check_model(plugin_model(tmp_path))
    assert (embedder.dimension, embedder.description.has_maps) == (CHANNELS, True)


@pytest.mark.slow
def test_the_contract_holds_for_the_default_model(built_settings: object) -> None:
    from visor.models.registry import describe

    check_model(describe("auto"), home=built_settings.home)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"licence": ""}, "tiny names no licence"),
        ({"taps": (Tap(layer="features", channels=8, edge=16),)}, "it gives 16 numbers, not 8"),
    ],
)
def test_the_contract_tells_what_does_not_hold(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenContract, match=told):
        check_model(plugin_model(tmp_path, **changes))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("nowhere.at.all:MODEL", r"The model 'tiny' of an unknown package cannot be loaded: ModuleNotFoundError"),
        ("visor.models.registry:DEFAULT", r"The entry point 'tiny' of an unknown package gives a str"),
        ("visor.models.builtin:NSFWJS_MODEL", r"gives one named 'nsfwjs'"),
    ],
)
def test_a_broken_plugin_is_told(value: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load(EntryPoint("tiny", value, "visor.models"))
