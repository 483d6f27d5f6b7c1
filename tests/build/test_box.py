"""What box/ starts is there: its commands, options and settings are those of this Visor."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import msgspec
import pytest
import yaml

from visor.cli.main import cli
from visor.settings import PREFIX, Settings

BOX = Path(__file__).parents[2] / "box"
NAMES = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}


def lines(name: str) -> list[str]:
    return [line for line in (BOX / name).read_text().splitlines() if not line.startswith("#")]


def commands() -> list[list[str]]:
    container = [line for line in lines("Containerfile") if "visor" in line]
    found = [json.loads(line.removeprefix("CMD ")) for line in container if line.startswith("CMD ")]
    texts = [line.partition("=")[2] for line in lines("visor.service") if line.startswith("Exec")]
    texts += [text for line in container for text in re.findall(r"/visor/bin/visor .*", line)]
    return found + [shlex.split(text) for text in texts]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_one(command: list[str]) -> None:
    assert Path(command[0]).name == "visor"
    name, found, rest = cli.resolve_command(cli.make_context("visor", [], resilient_parsing=True), command[1:])
    while hasattr(found, "resolve_command"):
        context = found.make_context(name, [], resilient_parsing=True)
        name, found, rest = found.resolve_command(context, rest)
    assert found is not None
    found.make_context(name, rest)


def test_all_start_something() -> None:
    assert sorted(command[1] for command in commands()) == ["model", "model", "serve", "serve"]


@pytest.mark.parametrize("file", ["Containerfile", "visor.service"])
def test_every_variable_is_a_setting(file: str) -> None:
    named = set(re.findall(r"VISOR_\w+(?==)", "\n".join(lines(file))))
    assert named
    assert named <= NAMES


def test_the_compose_file_builds_the_container_with_one_volume() -> None:
    compose = yaml.safe_load((BOX / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    build = (BOX / service["build"]["context"] / service["build"]["dockerfile"]).resolve()
    assert build == BOX / "Containerfile"
    (volume,) = service["volumes"]
    name, _, place = volume.partition(":")
    assert name in compose["volumes"]
    assert f"VOLUME {place}" in lines("Containerfile")
    assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "nobody else is let in by itself"
