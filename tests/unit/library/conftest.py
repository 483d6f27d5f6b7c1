"""A small catalogue made here, and an index of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tests.unit.imaging.empty_pictures import scene

import visor

COLOURS = {"red": (200, 30, 30), "amber": (220, 120, 20), "blue": (30, 60, 200)}


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images in two sub-folders."""
    root = tmp_path_factory.mktemp("pictures")
    for number, (name, colour) in enumerate(COLOURS.items()):
        image = Image.blend(Image.new("RGB", (320, 240), colour), scene(number).resize((320, 240)), 0.5)
        path = root / ("cold" if name == "blue" else "warm") / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    return root


@pytest.fixture(scope="package")
def home(built_settings: visor.Settings, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the default model and the index `small` of those images."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(built_settings.home / "models")
    with visor.open(home, name="small") as index:
        done: list[tuple[int, int]] = []
        run = index.add_folder(folder, name="pictures", progress=lambda count, total: done.append((count, total)))
    assert (run.published, run.failed, done) == (3, 0, [(3, 3)])
    return home
