"""Write constraints.txt: one version of everything that any function, the tests and the model build install.

    python scripts/lock.py

Resolves the union of functions/*/requirements*.txt and of this project's extras, those for other platforms too, for
this Python (that of `runtime` in terraform/variables.tf) and installs nothing. The file names versions only, no index
and no host.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = """\
# Versions that are installed here and in the deployed functions, resolved for Python {python} on Linux.
# Made by scripts/lock.py; run it again to upgrade.
"""


def runtime() -> str:
    """The functions' Python, e.g. 3.11, as terraform/variables.tf has it."""
    text = (ROOT / "terraform" / "variables.tf").read_text(encoding="utf-8")
    found = re.search(r'default\s+= "python(3)(\d+)"', text)
    assert found is not None, "terraform/variables.tf has no default runtime"
    return f"{found[1]}.{found[2]}"


def resolve() -> dict[str, str]:
    """Name to version of every distribution that something here needs."""
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    every = [Requirement(line) for lines in optional.values() for line in lines]
    elsewhere = [f"{one.name}{one.specifier}" for one in every if one.marker and not one.marker.evaluate()]
    requirements = sorted((ROOT / "functions").glob("*/requirements*.txt"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    for path in requirements:
        command += ["-r", str(path)]
    done = subprocess.run(
        [*command, *elsewhere, f"{ROOT}[{','.join(optional)}]"], stdout=subprocess.PIPE, text=True, check=True
    )
    installed = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {m["name"].lower().replace("_", "-"): m["version"] for m in installed if m["name"] != "visor-search"}


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
