"""Prints in one sentence what this machine lacks to build Visor. Runs on any Python 3, before anything is installed."""

import importlib.util
import platform
import shutil
import subprocess
import sys


def missing() -> "list[str]":
    """What is missing, as sentences that say what to do."""
    lacks = []
    if sys.platform == "win32":
        lacks.append("Visor runs on Linux and macOS: on Windows, use it in WSL (`wsl --install`)")
    if (sys.platform, platform.machine()) == ("darwin", "x86_64"):
        lacks.append(
            "LiteRT, which runs the models, has no wheels for Intel Macs: use Visor in a Linux container or virtual "
            "machine, or let Cloud Build deploy it: visor deploy --cloud"
        )
    if sys.version_info < (3, 11):
        found = ".".join(map(str, sys.version_info[:3]))
        lacks.append(
            f"Python 3.11 or newer is needed and `python3` is {found}: install one, or name it: make PYTHON=python3.12"
        )
    if importlib.util.find_spec("ensurepip") is None:
        lacks.append("Python's venv module is needed: on Debian and Ubuntu, apt install python3-venv")
    node = shutil.which("node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip() if node else ""
    if not version or int(version.lstrip("v").split(".")[0]) < 20:
        lacks.append(
            "Node 20 or newer is needed to build the page and {}: install it (nodejs.org)".format(
                f"`node` is {version}" if version else "there is no `node`"
            )
        )
    elif not shutil.which("npm"):
        lacks.append("npm is needed to build the page: install it along with Node")
    return lacks


if __name__ == "__main__":
    problems = missing()
    for problem in problems:
        sys.stderr.write("visor: " + problem + "\n")
    sys.exit(1 if problems else 0)
