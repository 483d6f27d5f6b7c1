"""The examples of docs/python.md run, one after another, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.unit.imaging.empty_pictures import scene

import visor
from visor.app import App
from visor.web.site import Server

PAGE = (Path(__file__).parents[3] / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SERVER = "http://127.0.0.1:8080"


def test_examples_run(
    built_settings: visor.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".visor").mkdir()
    (tmp_path / ".visor" / "models").symlink_to(built_settings.home / "models")
    (tmp_path / "Pictures" / "cats").mkdir(parents=True)
    photo = scene()
    photo.save(tmp_path / "photo.jpg")
    photo.save(tmp_path / "Pictures" / "cats" / "tom.jpg")
    photo.rotate(90).save(tmp_path / "Pictures" / "other.jpg")
    with App(visor.Settings(home=tmp_path / ".visor", index="holiday")) as app:
        server = Server(app.site({})).start()
        names: dict[str, object] = {}
        for number, example in enumerate(EXAMPLES):
            code = example.replace(SERVER, server.address)
            exec(compile(code, f"docs/python.md, example {number + 1}", "exec"), names)
        server.stop()
    out = capsys.readouterr().out
    assert "2 new, 0 gone, 0 failed" in out
    assert "tom accepted" in out
    assert "lost refused" in out
    assert "complete 2 {}" in out
    assert "A server crawls on its own, not over HTTP" in out


def test_conditions_are_written_as_a_type_checker_takes_them() -> None:
    """Their fields are tuples; a list works, and `mypy --strict` refuses it."""
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"visor\.(?:Filters|Condition)\(", PAGE + readme)) >= 5
    assert re.findall(r"(?:Filters|Condition)\(.*=\[", PAGE + readme) == []


def test_every_public_name_that_is_no_error_is_told() -> None:
    errors = {
        name
        for name in visor.__all__
        if isinstance(getattr(visor, name), type) and issubclass(getattr(visor, name), Exception)
    }
    missing = [name for name in set(visor.__all__) - errors if name != "Index" and f"{name}" not in PAGE]
    assert missing == []


def test_every_method_is_told() -> None:
    methods = {name for name, method in vars(visor.Index).items() if callable(method) and not name.startswith("_")}
    assert {name for name in methods if not re.search(rf"\b(?:index|run)\.{name}\(|`{name}`", PAGE)} == set()
