"""The calibration error, what of it is chance, and the diagrams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visor_bench.answers.reliability import Said, draw


@pytest.mark.parametrize(
    ("power", "even", "error"),
    [(1.0, False, 0.0), (1.0, True, 0.0), (0.5, False, 1 / 6), (2.0, False, 1 / 6)],
    ids=["right", "right-even", "over-sure", "under-sure"],
)
def test_the_error_is_how_far_what_is_said_is_off(power: float, even: bool, error: float) -> None:
    rng = np.random.default_rng(0)
    real = rng.random(20_000)
    true = rng.random(20_000) < real
    said = Said(real**power, true, by=true if even else None)
    assert said.error() == pytest.approx(error, abs=0.02)


def test_few_answers_are_off_by_chance() -> None:
    rng = np.random.default_rng(1)
    few, many = (Said(p := rng.random(n), rng.random(n) < p) for n in (60, 6_000))
    assert few.error_by_chance() == pytest.approx(few.error(), abs=0.06)
    assert many.error_by_chance() < 0.02 < few.error_by_chance()


@pytest.mark.slow
def test_the_diagram_has_the_same_bytes_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="benches draw with it (pip install .[bench])")
    rng = np.random.default_rng(2)
    said = {"Is it in here?": Said(p := rng.random(500), rng.random(500) < p)}
    draw({"photos": said}, tmp_path / "a.svg")
    draw({"photos": said}, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "Is it in here?" in text
    assert "by chance" in text
