"""Write constraints.txt: one version of everything that any function, the tests and the model build install; and
constraints-beam.txt: the same for Apache Beam, which has its own environment because its pins conflict with the others.

    python scripts/lock.py

Resolves the union of functions/*/requirements*.txt and of this project's extras, those for other platforms too, for
this Python (that of `runtime` in terraform/variables.tf) and installs nothing. Beam's environment has those versions
wherever Beam allows. The files name versions only, no index and no host.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
BEAM_CONSTRAINTS = ROOT / "constraints-beam.txt"
BEAM = "beam"
HEADER = """\
# Versions that are installed {where}, resolved for Python {python} on Linux.
# Made by scripts/lock.py; run it again to upgrade.
"""


def runtime() -> str:
    """The functions' Python, e.g. 3.11, as terraform/variables.tf has it."""
    text = (ROOT / "terraform" / "variables.tf").read_text(encoding="utf-8")
    found = re.search(r'default\s+= "python(3)(\d+)"', text)
    assert found is not None, "terraform/variables.tf has no default runtime"
    return f"{found[1]}.{found[2]}"


def resolve() -> dict[str, str]:
    """Name to version of every distribution that something here needs, except Beam's."""
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    del optional[BEAM]
    every = [Requirement(line) for lines in optional.values() for line in lines]
    elsewhere = [f"{one.name}{one.specifier}" for one in every if one.marker and not one.marker.evaluate()]
    requirements = sorted((ROOT / "functions").glob("*/requirements*.txt"))
    return versions_of(
        *(part for path in requirements for part in ("-r", str(path))), *elsewhere, f"{ROOT}[{','.join(optional)}]"
    )


def resolve_beam(kept: dict[str, str]) -> dict[str, str]:
    """The same for Beam's environment: as `kept`, except where Beam or its requirements refuse a version."""
    wanted = (f"{ROOT}[{BEAM},bucket,formats,gcp]", "apache-beam[gcp]")  # as dataflow/Dockerfile has them
    found = report_of(*wanted)
    needs = [Requirement(line) for one in found for line in one.get("requires_dist", ())]
    pins: list[str] = []
    for name in {canonicalize_name(one["name"]) for one in found} & kept.keys():
        limits = [need.specifier for need in needs if canonicalize_name(need.name) == name]
        if all(limit.contains(kept[name]) for limit in limits):
            pins.append(f"{name}=={kept[name]}")
    return versions_of(*wanted, *_that_resolve(pins, [], wanted))


def _that_resolve(pins: list[str], good: list[str], wanted: Sequence[str]) -> list[str]:
    """`good`, and as many of `pins` as are compatible with it: what a pinned version needs may be refused, too."""
    try:
        report_of(*wanted, *good, *pins)
    except subprocess.CalledProcessError:
        half = len(pins) // 2
        if not half:
            return good
        good = _that_resolve(pins[:half], good, wanted)
        return _that_resolve(pins[half:], good, wanted)
    return [*good, *pins]


def versions_of(*arguments: str) -> dict[str, str]:
    """Name to version of what pip would install into an empty environment."""
    return {canonicalize_name(m["name"]): m["version"] for m in report_of(*arguments) if m["name"] != "visor-search"}


def report_of(*arguments: str) -> list[dict[str, Any]]:
    """The metadata of what pip would install into an empty environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return [item["metadata"] for item in json.loads(done.stdout)["install"]]


def main() -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != runtime():
        sys.exit(f"This is Python {here} and the functions run {runtime()}: run this script with python{runtime()}.")
    versions = resolve()
    write(CONSTRAINTS, "here and in the deployed functions", here, versions)
    write(BEAM_CONSTRAINTS, "with Apache Beam, in an environment of its own", here, resolve_beam(versions))


def write(path: Path, where: str, python: str, versions: dict[str, str]) -> None:
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    path.write_text(HEADER.format(where=where, python=python) + "".join(lines), encoding="utf-8")
    print(f"{path.name}: {len(versions)} distributions")


if __name__ == "__main__":
    main()
