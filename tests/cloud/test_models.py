"""Models of visor.toml on Google's emulators: indexed, found, served, and reindexed from one kind to another."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from tests.dual_network import TOML, make_dual
from tests.forked_tensorflow import ForkedTensorFlow
from tests.model_kinds import MODELS, check_end_to_end, pictures, write_toml
from tests.small_networks import NEEDS_TENSORFLOW, make_networks

from visor.models.store import model_directory
from visor.settings import Settings

pytestmark = [pytest.mark.slow, NEEDS_TENSORFLOW, pytest.mark.usefixtures("built_in_forks")]

KINDS = ["prototype", "lite", "onnx", "dual"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, built_settings: Settings, tensorflow: ForkedTensorFlow) -> Path:
    """A home with the default model, beside visor.toml and the networks that it names."""
    folder = tmp_path_factory.mktemp("networks")
    make_networks(folder, tensorflow.run)
    make_dual(folder / "dual", pictures(folder / "pictures"))
    write_toml(folder, MODELS | {"dual": TOML})
    default = model_directory(built_settings, "auto")
    shutil.copytree(default, folder / "home" / "models" / default.name)
    return folder / "home"


@pytest.mark.parametrize("name", KINDS)
def test_end_to_end(name: str, home: Path, cloud_settings: Settings, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(cloud_settings, home=home, config=home.parent / "visor.toml")
    check_end_to_end(settings, pictures(tmp_path / "pictures"), name, KINDS[KINDS.index(name) - 1])
