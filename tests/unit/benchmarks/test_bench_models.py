"""`visor bench models` on two small networks of visor.toml: what it measures, its table and its plot."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from tests.model_kinds import COLOURS, MODELS, pictures, write_toml
from tests.small_networks import CHANNELS, make_onnx

from visor_bench.answers.models import COLUMNS, models_command, table

PLAIN = MODELS["onnx"] + "borrow = []\n"
NAMES = ["curved", "plain"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """visor.toml with the two, and pictures/COLOUR/PATTERN.png."""
    folder = tmp_path_factory.mktemp("models")
    make_onnx(folder / "network.onnx")
    write_toml(folder, {"plain": PLAIN, "curved": PLAIN.replace("power = 1.0", "power = 0.5")})
    for path in pictures(folder / "pictures").glob("*.png"):
        kind, pattern = path.stem.split()
        (path.parent / kind).mkdir(exist_ok=True)
        path.rename(path.parent / kind / f"{pattern}.png")
    return folder


@pytest.mark.slow
def test_models_are_measured_beside_each_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISOR_HOME", str(home))
    monkeypatch.setenv("VISOR_CONFIG", str(home / "visor.toml"))
    folder, plot = home / "pictures", home / "plots" / "models.svg"
    options = ["--folder", str(folder), "--splits", "2", "--copies", "4", "--json"]
    draws = find_spec("matplotlib") is not None  # pip install .[bench]
    options += ["--plot", str(plot)] if draws else []
    done = CliRunner().invoke(models_command, [*NAMES, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    models = json.loads(done.stdout)["models"]
    assert list(models) == NAMES
    for found in models.values():
        assert found["dimension"] == CHANNELS
        assert found["file_mb"] == round((home / "network.onnx").stat().st_size / 1e6, 1)
        # ONNX Runtime comes with both functions that look at pictures.
        assert 20 < found["registry_mb"] < 200
        assert all(found[name] > 0 for name in ("ms_1", "ms_2", "resident_mb"))
        shares = found[folder.name]
        assert {"p_at_1", "space_p_at_1", "map", "space_map"} <= set(shares)
        assert {"auroc", "calibration_error", "copies_first", "copies_verdict_accuracy"} <= set(shares)
        assert all(0 <= share <= 1 for share in shares.values())
        # By chance it were one in five: three of the 15 other pictures have the colour.
        assert shares["p_at_1"] > 1 / len(COLOURS)
        assert shares["space_p_at_1"] >= shares["p_at_1"] - 0.01
    assert models["plain"][folder.name] != models["curved"][folder.name]
    if draws:
        drawn = "".join(ElementTree.parse(plot).getroot().itertext())
        assert all(name in drawn for name in (*NAMES, folder.name))
    head, rule, *rows = table(models)
    assert all(column in head for column in COLUMNS.values())
    assert [row.split("|")[1].strip() for row in rows] == NAMES
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
