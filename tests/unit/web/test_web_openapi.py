"""The OpenAPI document is true: schemathesis asks the real server all that it describes, and much that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from visor.web import openapi
from visor.web.site import Server

ROOT = Path(__file__).parents[3]
UNDECIDABLE = "positive_data_acceptance,negative_data_rejection"


def test_the_document_is_served_and_kept(demo_server: Server) -> None:
    served = httpx.get(demo_server.address + "/openapi.json").json()
    assert served == json.loads(json.dumps(openapi.document()))
    kept = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert kept == served, "run: python -m visor.web.openapi > docs/openapi.json, then npm run contract in frontend/"


@pytest.mark.parametrize(
    "part",
    [
        ["--exclude-path-regex", "/v1/(search|explain|feedback|compare|facets)"],
        # No generator makes a picture that decodes or a vector of the right length, so valid requests are refused;
        # and of a form with parts taken out it sends one that is whole.
        ["--include-path-regex", "/v1/(search|explain|feedback|compare|facets)", "--exclude-checks", UNDECIDABLE],
    ],
    ids=["reading", "searching"],
)
def test_every_answer_is_as_described(demo_server: Server, tmp_path: Path, part: list[str]) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", demo_server.address + "/openapi.json", *part]
    command += ["--seed", "1", "--max-examples", "60", "--phases", "coverage,fuzzing", "--no-color"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert run.returncode == 0, run.stdout[-6000:]
