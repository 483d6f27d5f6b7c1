"""The page's types are those of the kept OpenAPI document, which a test of its own holds to the server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "openapi.json"
GENERATOR = ROOT / "frontend" / "node_modules" / ".bin" / "openapi-typescript"


@pytest.mark.slow
def test_the_pages_types_are_the_documents(tmp_path: Path) -> None:
    if not GENERATOR.exists():
        pytest.skip("The front end's packages are not installed: run npm ci in frontend/ (make setup does)")
    made = tmp_path / "openapi.ts"
    _, _, *options, _, _ = json.loads((ROOT / "frontend" / "package.json").read_text())["scripts"]["contract"].split()
    command = [str(GENERATOR), str(DOCUMENT), *options, "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    committed = ROOT / "frontend" / "src" / "openapi.ts"
    assert made.read_text() == committed.read_text(), "run: npm run contract in frontend/"
