"""Builds the source distribution and the wheel, with the built page inside.

    python scripts/dist.py [--no-isolation] [OUT]

The package is copied to a temporary folder first and the page put into it, so that nothing is left in the checkout and
nothing of an earlier build gets in. `--no-isolation` builds with the setuptools that is installed here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "frontend" / "dist"
FILES = ("pyproject.toml", "README.md", "LICENSE")


def build(out: Path, *, isolation: bool = True) -> list[Path]:
    """Both distributions in `out`. If the page is not built, exits with a message that says what to do."""
    if not (PAGE / "index.html").is_file():
        sys.exit("frontend/dist has no page: run `make page` first")
    with tempfile.TemporaryDirectory(prefix="visor-dist-") as folder:
        stage = Path(folder)
        for name in FILES:
            shutil.copy(ROOT / name, stage / name)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "page")
        shutil.copytree(ROOT / "shared" / "visor", stage / "shared" / "visor", ignore=ignored)
        shutil.copytree(PAGE, stage / "shared" / "visor" / "web" / "page")
        command = [sys.executable, "-m", "build", "--outdir", str(out), str(stage)]
        subprocess.run(command if isolation else [*command, "--no-isolation"], check=True, stdout=subprocess.DEVNULL)
    return sorted(out.glob("visor_search-*"))


def main(arguments: list[str]) -> None:
    names = [argument for argument in arguments if not argument.startswith("--")]
    for path in build(Path(names[0] if names else ROOT / "dist"), isolation="--no-isolation" not in arguments):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
