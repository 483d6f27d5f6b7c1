"""The page's types and the committed OpenAPI document are those of the server's contract."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import msgspec
import pytest

from visor.web import openapi

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "openapi.json"
GENERATOR = ROOT / "frontend" / "node_modules" / ".bin" / "openapi-typescript"


def test_the_committed_document_is_the_servers() -> None:
    served = json.loads(msgspec.json.encode(openapi.document()))
    assert json.loads(DOCUMENT.read_text()) == served, "run: make contract"


def test_the_pages_types_are_the_documents(tmp_path: Path) -> None:
    if not GENERATOR.exists():
        pytest.skip("The front end's packages are not installed: run npm ci in frontend/ (make setup does)")
    made = tmp_path / "openapi.ts"
    command = [str(GENERATOR), str(DOCUMENT), "--default-non-nullable=false", "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    committed = ROOT / "frontend" / "src" / "openapi.ts"
    assert made.read_text() == committed.read_text(), "run: make contract"
