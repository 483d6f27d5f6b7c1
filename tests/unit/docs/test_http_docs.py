"""docs/http.md has every field of a request, every code of a notice and every status of an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest
from scripts.docs_tables import endpoints_table

from visor.index.search.metrics import BOOLEAN, BOUNDED, METRICS
from visor.schema.search import (
    CompareRequest,
    ExplainRequest,
    FeedbackRequest,
    Filters,
    Notice,
    SearchAnswer,
    SearchRequest,
    Seen,
)
from visor.web.endpoints import ENDPOINTS

PAGE = (Path(__file__).parents[3] / "docs" / "http.md").read_text(encoding="utf-8")
CODES = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
MISDIRECTED = {405, 416, 500}
"""What a method, a range or a bug is answered with, whatever the endpoint."""


def test_table_has_every_endpoint() -> None:
    assert endpoints_table() in PAGE, "run scripts/docs_tables.py"


@pytest.mark.parametrize(
    "record", [SearchRequest, Filters, Seen, CompareRequest, ExplainRequest, FeedbackRequest, SearchAnswer]
)
def test_every_field_is_told(record: type[msgspec.Struct]) -> None:
    named = set(re.findall(r"`\w+(?:\.\w+)*`|\"\w+\"", PAGE))
    words = {word for name in named for word in re.findall(r"\w+", name)}
    assert {field.name for field in msgspec.structs.fields(record)} - words == set()


def test_every_notice_is_told() -> None:
    table = PAGE.partition("| code | what the notice says |")[2].partition("\n\n")[0]
    assert set(CODES.findall(table)) == set(get_args(get_type_hints(Notice)["code"]))


def test_every_status_of_an_error_is_told() -> None:
    table = PAGE.partition("\n## Errors\n")[2]
    told = {int(status) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for status in row.split(",")}
    assert told == MISDIRECTED.union(*(endpoint.problems for endpoint in ENDPOINTS))


def test_every_metric_is_told_with_its_similarity() -> None:
    bounded, others = (
        set(re.findall(r"`(\w+)`", text)) for text in re.findall(r"1 − distance for (.+?) It is (.+?)\.", PAGE, re.S)[0]
    )
    assert bounded == {*BOUNDED, *BOOLEAN}
    assert others == set(METRICS) - bounded
