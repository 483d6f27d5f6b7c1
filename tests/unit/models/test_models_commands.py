"""`visor model` and `visor eval` as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from visor.cli.model import eval_command, model_command
from visor.errors import BadRequest, SettingsError
from visor.evaluation.folder import labelled_files
from visor.models.registry import installed
from visor.models.store import model_directory
from visor.settings import Settings


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Three pictures each of two kinds, red dots and blue stripes, and a file that is not a picture."""
    rng = np.random.default_rng(5)
    for n in range(3):
        dots = np.zeros((200, 260, 3), np.uint8)
        for y, x in rng.integers(20, 180, (12, 2)):
            dots[y - 9 : y + 9, x - 9 : x + 9, 0] = 255
        stripes = np.zeros((240, 180, 3), np.uint8)
        stripes[:: 6 + 2 * n, :, 2] = stripes[1 :: 6 + 2 * n, :, 2] = 255
        for kind, pixels in (("dots", dots), ("stripes", stripes)):
            path = tmp_path / "pictures" / kind / "deeper" / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "pictures" / "dots" / "page.jpg").write_text("<html>")
    (tmp_path / "pictures" / "stray.png").write_bytes(b"in no sub-folder")
    return tmp_path / "pictures"


def run(*arguments: str) -> tuple[dict[str, Any], str]:
    result = CliRunner().invoke(eval_command, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return msgspec.json.decode(result.stdout), result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("built_settings")
def test_eval_leave_one_out(labelled: Path) -> None:
    document, told = run(str(labelled))
    assert (document["images"], document["queries"], document["labels"]) == (6, 6, 2)
    assert (document["p_at_1"], document["map"]) == (1.0, 1.0)
    assert document["p_at_12"] == pytest.approx(2 / 12, abs=1e-4)
    assert "page.jpg" in told


@pytest.mark.slow
@pytest.mark.usefixtures("built_settings")
def test_eval_against_an_index_folder_with_a_metric(labelled: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "queries" / "dots"
    elsewhere.mkdir(parents=True)
    (labelled / "dots" / "deeper" / "0.png").rename(elsewhere / "0.png")
    document, _ = run(str(tmp_path / "queries"), "--index-folder", str(labelled), "--metric", "euclidean")
    assert (document["images"], document["queries"], document["metric"]) == (5, 1, "euclidean")
    assert document["p_at_1"] == 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("built_settings")
def test_eval_for_people(labelled: Path) -> None:
    result = CliRunner().invoke(eval_command, [str(labelled)], catch_exceptions=False)
    assert "P@1   1.000" in result.stdout


@pytest.mark.usefixtures("built_settings")
def test_eval_of_a_folder_without_labels(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no labelled picture"):
        CliRunner().invoke(eval_command, [str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metric", "nope"], "There is no metric 'nope'"),
        (["--index-folder", "."], "no labelled picture in "),
        (["--index-folder", "one"], "All labelled pictures in .*one have the label 'dots'"),
    ],
)
@pytest.mark.usefixtures("built_settings")
def test_eval_says_before_it_embeds_what_would_say_nothing(
    options: list[str], said: str, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty" / "one" / "dots").mkdir(parents=True)
    (labelled / "dots" / "deeper" / "0.png").rename(tmp_path / "empty" / "one" / "dots" / "0.png")
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path / ("empty" if "one" in options else "nothing"))
    with pytest.raises(BadRequest, match=said):
        CliRunner().invoke(eval_command, [str(labelled), *options], catch_exceptions=False)


def test_eval_of_an_unknown_model(labelled: Path) -> None:
    with pytest.raises(SettingsError, match="no model named 'alexnet'"):
        CliRunner().invoke(eval_command, [str(labelled), "--model", "alexnet"], catch_exceptions=False)


def test_label_is_the_first_folder(labelled: Path) -> None:
    found = [(path.name, label) for path, label in labelled_files(labelled)]
    assert found.count(("0.png", "dots")) == found.count(("0.png", "stripes")) == 1
    assert all(path != "stray.png" for path, _ in found)


@pytest.mark.slow
def test_model_list_and_show(built_settings: Settings) -> None:
    listed = CliRunner().invoke(model_command, ["list", "--json"], catch_exceptions=False)
    document = msgspec.json.decode(listed.stdout)
    assert [row["name"] for row in document["models"]] == list(installed())
    assert any(row["directory"] for row in document["models"])
    assert "numbers" in CliRunner().invoke(model_command, ["list"], catch_exceptions=False).stdout
    shown = msgspec.json.decode(CliRunner().invoke(model_command, ["show", "--json"], catch_exceptions=False).stdout)
    assert shown["directory"] == str(model_directory(built_settings, built_settings.model))
    assert "checksum" in str(shown["manifest"])
    for_people = CliRunner().invoke(model_command, ["show"], catch_exceptions=False).stdout
    assert shown["manifest"]["fingerprint"] in for_people
    assert "cosine to the original" in for_people


def test_model_build_finds_what_is_there(built_settings: Settings) -> None:
    built = CliRunner().invoke(model_command, ["build", "--json"], catch_exceptions=False)
    document = msgspec.json.decode(built.stdout)
    assert document["directory"] == str(model_directory(built_settings, built_settings.model))
