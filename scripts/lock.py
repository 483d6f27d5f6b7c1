"""Write constraints.txt: one version of everything that any function installs.

    python scripts/lock.py

Resolves the union of functions/*/requirements.txt for this Python (that of `runtime` in terraform/variables.tf) and
installs nothing. The file names versions only, no index and no host.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = """\
# Versions that the deployed functions install, resolved for Python {python} on Linux.
# Made by scripts/lock.py; run it again to upgrade.
"""


def runtime() -> str:
    """The functions' Python, e.g. 3.11, as terraform/variables.tf has it."""
    text = (ROOT / "terraform" / "variables.tf").read_text(encoding="utf-8")
    found = re.search(r'default\s+= "python(3)(\d+)"', text)
    assert found is not None, "terraform/variables.tf has no default runtime"
    return f"{found[1]}.{found[2]}"


def resolve() -> dict[str, str]:
    """Name to version of every distribution that the functions need."""
    requirements = sorted((ROOT / "functions").glob("*/requirements.txt"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    for path in requirements:
        command += ["-r", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    return {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in report["install"]
    }


def main() -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != runtime():
        sys.exit(f"This is Python {here} and the functions run {runtime()}: run this script with python{runtime()}.")
    versions = resolve()
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    CONSTRAINTS.write_text(HEADER.format(python=here) + "".join(lines), encoding="utf-8")
    print(f"{CONSTRAINTS.name}: {len(versions)} distributions")


if __name__ == "__main__":
    main()
