"""A small run of `visor bench abuse`: what must hold for 10,000 requests holds for some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from visor.settings import Settings
from visor_bench.load import abuse


@pytest.mark.slow
def test_strangers_leave_nothing_behind(
    built_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("functions_framework", reason="serves the deployed function: in the extra `gcp`")
    for name, value in {"ITEMS_MADE": 200, "ALIKE": 100, "BATCH": 50, "QUERIES": 9}.items():
        monkeypatch.setattr(abuse, name, value)
    said: list[Any] = []
    report = abuse.measure(abuse.deployed(built_settings, tmp_path), 150, said.append)
    assert report["worker_survived"]
    assert report["changed"] == 0
    assert report["moved_after_merge"] < 0.05
    assert set(report["statuses"]) <= {"200", "400", "401", "404", "413", "422", "429"}
    assert report["peak_mb"] < report["limit_mb"]
    for metered in report["meters"].values():
        booked, counted = (float(number) for number in metered.split(" of "))
        assert booked == pytest.approx(counted, rel=0.1, abs=3)
