"""Run checkov over terraform/, from its own environment (.venv-checkov), since its pins conflict with ours.

    python scripts/security.py [FOLDER]

Every finding is fixed or excused in the file with `#checkov:skip=ID: reason`. Exit status 1 if one is neither. The
first run installs checkov (half a minute, 300 MB); a run takes about 5 seconds.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-checkov"
VERSION = "3.3.30"


def checkov() -> Path:
    """The checkov of the pinned version, installed if it is not there."""
    program = ENVIRONMENT / "bin" / "checkov"
    stamp = ENVIRONMENT / f"checkov-{VERSION}"
    if not stamp.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*pip, "--disable-pip-version-check", f"checkov=={VERSION}"], check=True)
        stamp.touch()
    return program


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """checkov's verdict on a folder: exit status and one JSON document. It looks up nothing on the network."""
    arguments = [
        "--directory",
        str(folder),
        "--framework",
        "terraform",
        "--skip-download",
        "--quiet",
        "--output",
        "json",
    ]
    return subprocess.run([checkov(), *arguments], capture_output=True, text=True, check=False)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "terraform"
    arguments = ["--directory", str(folder), "--framework", "terraform", "--skip-download", "--quiet", "--compact"]
    sys.exit(subprocess.run([checkov(), *arguments], check=False).returncode)


if __name__ == "__main__":
    main()
