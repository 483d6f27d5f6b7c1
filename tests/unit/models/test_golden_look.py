"""What the browser's look is held to is what Python sees."""

from __future__ import annotations

import json

import pytest
from scripts.golden.look import FILE, golden


@pytest.mark.slow
def test_the_golden_file_is_what_python_sees() -> None:
    # Written out first: JSON has no tuples.
    assert json.loads(json.dumps(golden())) == json.loads(FILE.read_text()), "run python -m scripts.golden.look"
