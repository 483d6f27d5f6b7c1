"""docs/deploy.md says what terraform/ and cloudbuild.yaml have, and its links and picture are there."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import yaml
from scripts.docs_tables import variables_table

from visor.deploy.terraform import read_terraform

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_table_has_every_variable() -> None:
    assert variables_table() in TEXT, "run scripts/docs_tables.py"
    variables = {address.removeprefix("var.") for address in read_terraform(ROOT / "terraform").of("variable")}
    assert set(re.findall(r"^\| `(\w+)` \| ", variables_table(), re.MULTILINE)) == variables


def test_substitutions_are_those_of_the_build() -> None:
    build = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text(encoding="utf-8"))
    assert set(re.findall(r"^\| `(_\w+)` \|", TEXT, re.MULTILINE)) == set(build["substitutions"])


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link


def test_picture_is_drawn_for_light_and_dark() -> None:
    picture = (ROOT / "docs" / "img" / "architecture.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(picture)
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "prefers-color-scheme: dark" in picture
    for name in ("crawl", "embed", "compact", "search", "switch"):
        assert f">{name}<" in picture
