"""Print a name for the model that would be built: the name changes only if something that makes the model changes.

    python scripts/models/model_key.py [MODEL]

Under that name cloudbuild.yaml keeps the built model in the state bucket, so that TensorFlow is installed and run only
when the model changes.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILDERS = ("tensorflow", "keras", "numpy", "ai-edge-litert")


def model_key(model: str, root: Path = ROOT) -> str:
    """`MODEL-` and 16 hex digits of the code that builds models and of the versions that it builds with."""
    digest = hashlib.blake2b(model.encode(), digest_size=8)
    for path in sorted((root / "shared" / "visor" / "models").rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(BUILDERS):
            digest.update(line.encode())
    return f"{model}-{digest.hexdigest()}"


if __name__ == "__main__":
    print(model_key(sys.argv[1] if len(sys.argv) > 1 else "auto"))
