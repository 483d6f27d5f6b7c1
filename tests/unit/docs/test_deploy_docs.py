"""docs/deploy.md says what terraform/ and cloudbuild.yaml have, and its links and picture are there."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import yaml
from click.testing import CliRunner
from scripts.docs_tables import variables_table

from visor.cli.cost import cost_command
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


def test_figures_are_those_of_the_plan(tmp_path: Path) -> None:
    """Without a built model, and with the defaults of terraform/."""

    def cost(*options: str) -> str:
        answer = CliRunner().invoke(
            cost_command, ["--terraform", str(ROOT / "terraform"), *options], env={"VISOR_HOME": str(tmp_path)}
        )
        assert answer.exit_code == 0
        return answer.output

    plan, paragraph = cost(), " ".join(TEXT.split())
    from_bucket, from_function = (
        re.findall(r"downloads (\S+) MB of model.*: ([\d,]+) a month fit", text)[0]
        for text in (plan, cost("--models-from", "function"))
    )
    searches = re.findall(r"([\d,]+) searches a day fit .* against ([\d,]+) if", plan)[0]
    assert f"main cost: {from_bucket[0]} MB" in paragraph
    assert (
        f"room for {from_bucket[1]} downloads a month; Cloud Run's would leave room for {from_function[1]} "
        in paragraph
    )
    assert "room for {} searches a day, against {} where".format(*searches) in paragraph
    shares = {line.split("  ")[0]: line for line in plan.splitlines() if line.endswith(" close")}
    told = {"Cloud Storage": r"Class B operations \((\d+) %", "Artifact Registry": r"Artifact Registry \((\d+) %"}
    assert {name: round(float(re.findall(r"([\d.]+)%", line)[0])) for name, line in shares.items()} == {
        name: int(re.findall(pattern, paragraph)[0]) for name, pattern in told.items()
    }
