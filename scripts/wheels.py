"""Ask pip for a wheel of everything that Visor installs, for every platform and Python, without installing anything.

    python scripts/wheels.py [PLATFORM]…

What is needed follows from pyproject.toml and from what is installed here, with each marker evaluated for the platform;
versions are those of constraints.txt. Prints what has no wheel, and exits with 1 unless docs/platforms.md lists it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("gcp", "bucket", "video", "site", "build", "deploy")
"""What people who run Visor install; the other extras are for those who develop it."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PATCH = 5
"""pip takes `3.11` for 3.11.0, which some wheels exclude."""
ONE_OF = {"tensorflow": "tensorflow-cpu", "tensorflow-cpu": "tensorflow"}
"""The same code under two names: the metadata of the one that is installed is used for the other."""

MANYLINUX = (35, 34, 31, 28, 27, 26, 24, 17, 12, 5)
PLATFORMS = {
    "Linux x86-64": ("linux", "x86_64", [f"manylinux_2_{n}_x86_64" for n in MANYLINUX] + ["manylinux2014_x86_64"]),
    "Linux ARM": ("linux", "aarch64", [f"manylinux_2_{n}_aarch64" for n in MANYLINUX] + ["manylinux2014_aarch64"]),
    "macOS ARM": ("darwin", "arm64", [f"macosx_{n}_0_{a}" for n in range(14, 10, -1) for a in ("arm64", "universal2")]),
    "macOS Intel": (
        "darwin",
        "x86_64",
        [f"macosx_{n}_{a}" for n in ("15_0", "14_0", "13_0", "12_0", "11_0") for a in ("x86_64", "universal2")]
        + [f"macosx_10_{n}_{a}" for n in range(16, 8, -1) for a in ("x86_64", "universal2")],
    ),
}
"""By name: sys.platform, machine, and the tags of wheels that run there (glibc 2.35, macOS 14, macOS 15 on Intel)."""


def needed(platform: str, python: str) -> list[str]:
    """Names of all distributions that Visor with `EXTRAS` installs there, sorted."""
    system, machine, _ = PLATFORMS[platform]
    environment = {
        "sys_platform": system,
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system],
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.{PATCH}",
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    waiting = [(Requirement(line), "") for line in lines]
    found: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = normal(requirement.name)
        for wanted in {"", *requirement.extras} - {extra for known, extra in found if known == name}:
            found.add((name, wanted))
            waiting += [(Requirement(line), wanted) for line in installed(name).requires or ()]
    return sorted({name for name, _ in found})


def installed(name: str):  # type: ignore[no-untyped-def]
    """The metadata of a distribution, or of its twin."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return distribution(ONE_OF[name])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def without_wheel(platform: str, python: str) -> Iterator[str]:
    """Names of the distributions that have no wheel there, in the pinned versions.

    A wheel for every platform is known from what is installed here; pip is asked for the others.
    """
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    asked = []
    for name in needed(platform, python):
        about = installed(name)
        if f"{python}.{PATCH}" not in SpecifierSet(about.metadata["Requires-Python"] or ""):
            yield name
        elif "-none-any" not in (about.read_text("WHEEL") or ""):
            asked.append(f"{name}=={pins[name]}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--only-binary=:all:"]
    pip += ["--ignore-installed", "--disable-pip-version-check", f"--python-version={python}.{PATCH}"]
    pip += [f"--platform={tag}" for tag in PLATFORMS[platform][2]]
    with tempfile.TemporaryDirectory() as nowhere:
        while asked:
            done = subprocess.run([*pip, "--target", nowhere, *asked], capture_output=True, text=True)
            if done.returncode == 0:
                return
            if not (none := re.search(r"No matching distribution found for (\S+)", done.stderr)):
                sys.exit(done.stderr)
            asked.remove(none[1])
            yield none[1].partition("==")[0]


def documented(platform: str, python: str) -> set[str]:
    """Distributions that have no wheel there according to docs/platforms.md."""
    rows = re.findall(r"^\| `(\S+)` \| ([^|]+) \| ([^|]+) \|", (ROOT / "docs/platforms.md").read_text(), re.MULTILINE)
    return {name for name, where, pythons in rows if platform in where and (python in pythons or "all" in pythons)}


def main() -> None:
    wrong = 0
    for platform, python in product(sys.argv[1:] or PLATFORMS, PYTHONS):
        missing = set(without_wheel(platform, python))
        wrong |= missing != documented(platform, python)
        print(f"{platform}, Python {python}: no wheel of {', '.join(sorted(missing)) or 'nothing'}", flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
