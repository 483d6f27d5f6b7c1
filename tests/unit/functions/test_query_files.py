"""How many files a reader of one query has to open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from visor.models.embedder import Embedder

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_warm_query_crosses_few_files(embedder: Embedder) -> None:
    """In a process of its own, which finds the model that the fixture built."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "query_files.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
