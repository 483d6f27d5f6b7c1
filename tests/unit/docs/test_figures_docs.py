"""Figures of the free tier that pages quote are those that `visor cost` uses and shows."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from visor.free_tier.cost_model import UsagePlan
from visor.free_tier.growth import cost, growth_limits, roomy

DOCS = Path(__file__).parents[3] / "docs"
CLOUD = (DOCS / "benchmarks-cloud.md").read_text(encoding="utf-8")
SCALE = (DOCS / "scale.md").read_text(encoding="utf-8")
COLUMNS = ("class_a", "class_b", "firestore_reads", "firestore_writes", "firestore_deletes", "pubsub_bytes")
OPERATIONS = {
    "1,000 images": "embed",
    "1,000 crawl runs in which nothing changed": "crawl_run",
    "1,000 compact runs that merge, besides what they merge": "compact_run",
    "1,000 images merged": "merge",
    "1,000 searches, worst case": "search",
    "1,000 other requests for items": "reading",
    "1,000 items whose links are checked": "link",
    "1,000 polls for commits that find none": "look",
    "1,000 starts of a search instance": "cold_start",
    "1,000 fresh shards seen by a running instance": "fresh_shard",
}
"""Rows of the page's table: operations of counted.json that `visor bench operations` measures."""


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("visor.free_tier") / name).read_text(encoding="utf-8"))
    return found


def row(page: str, first: str) -> list[str]:
    return re.findall(rf"^\| {re.escape(first)} \| (.+) \|$", page, re.MULTILINE)[0].split(" | ")


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_that_were_counted(name: str) -> None:
    counts = recorded("counted.json")["operations"][OPERATIONS[name]]["counts"]
    measured = {column: count["value"] for column, count in counts.items() if "bench operations" in count["why"]}
    cells = row(CLOUD, name)
    told = {column: float(cell.replace(",", "")) for column, cell in zip(COLUMNS, cells, strict=True) if cell != "–"}
    assert told == measured


def test_images_are_as_measured() -> None:
    images = recorded("images.json")
    functions = {name: one["bytes"] / 1e6 for name, one in images["functions"].items()}
    names = ("crawl", "embed", "compact", "search")
    together = sum(functions[name] for name in names)
    told = [f"{functions[name]:.0f} MB" for name in names] + [f"{together:.0f} MB ({together / 5.37:.0f} %)"]
    more = [functions["switch"], *(images["sources"][name]["bytes"] / 1e6 for name in ("site", "bucket", "video"))]
    assert f"| {' | '.join([*told, *(f'+ {size:.0f} MB' for size in more)])} |\n" in CLOUD


def test_what_is_free_and_what_more_costs() -> None:
    limits = {limit.what: limit.largest for limit in growth_limits(UsagePlan())}
    images, searches = limits["images"] // 1000 * 1000, limits["searches a day, visits in proportion"]
    assert f"| up to {images:,} pictures, or {searches:,} searches a day of 100,000 and visits in proportion |" in SCALE
    million, ten, hundred = (cost(roomy(msgspec.structs.replace(UsagePlan(), images=10**n))) for n in (6, 7, 8))
    assert f"`visor cost` shows {million:.2f}, {ten:.0f} and {hundred:.0f} a month" in SCALE
