"""Every configuration that docs/sources.md shows is one that Visor takes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from scripts.docs_tables import keys_tables
from tests.unit.sources.catalogue_server import context_for

from visor.settings import Settings
from visor.sources.config import SourcesFile
from visor.sources.registry import kinds
from visor.storage import open_stores

TEXT = (Path(__file__).parents[3] / "docs" / "sources.md").read_text("utf-8")
KEYS = dict.fromkeys(re.findall(r"\$\{(\w+)\}", TEXT), "12345")
SHOWN = re.findall(r"```toml\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("text", SHOWN, ids=lambda text: text.split("]")[0].removeprefix("["))
def test_a_shown_configuration_can_be_opened(text: str, tmp_path: Path) -> None:
    configuration = SourcesFile(text)
    with context_for(**KEYS) as context, open_stores(Settings(home=tmp_path)) as stores:
        context = replace(context, objects=stores.objects)
        for name in configuration.entries:
            assert configuration.open(name, context).name == name


def test_every_kind_is_shown() -> None:
    built_in = {name for name, entry in kinds().items() if entry.value.startswith("visor.")}
    assert set(re.findall(r'kind = "(\w+)"', TEXT)) == built_in


def test_every_key_is_listed() -> None:
    assert keys_tables() in TEXT, "run scripts/docs_tables.py"
    for name, entry in kinds().items():
        if entry.value.startswith("visor."):
            table = TEXT.partition(f"\n### Keys of `{name}`\n")[2].partition("\n#")[0]
            fields = msgspec.structs.fields(entry.load().Config)
            assert {field.name for field in fields} <= set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
