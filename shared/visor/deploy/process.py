"""Runs the programs that deploying needs: terraform, gcloud, npm. Errors name a program that is not on PATH."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visor.errors import DeployError

HOW_TO_INSTALL = {
    "gcloud": "Install the Google Cloud CLI (cloud.google.com/sdk/docs/install), then `gcloud auth login`",
    "terraform": "Install Terraform 1.11 or newer (developer.hashicorp.com/terraform/install)",
    "npm": "Install Node.js 20 or newer, which brings npm",
}
READ_TIMEOUT_S = 60.0


def _path_of(program: str) -> str:
    """The program's path.

    Raises:
        DeployError: It is not installed.
    """
    path = shutil.which(program)
    if path is None:
        raise DeployError(
            f"{program} is not installed, or not on PATH",
            valid="gcloud, terraform and npm, on the PATH",
            remedy=HOW_TO_INSTALL.get(program, f"Install {program}"),
        )
    return path


class ProgramFailed(DeployError):
    """A program failed. `errors` is what it printed to standard error, as one line."""

    errors = ""


def run(argv: Sequence[str], *, cwd: Path) -> None:
    """Run a program and show all its output on standard error: standard output is for `visor deploy` itself.

    Raises:
        DeployError: It is missing.
        ProgramFailed: It failed.
    """
    printed = []
    command = [_path_of(argv[0]), *argv[1:]]
    with subprocess.Popen(  # noqa: S603
        command, cwd=cwd, stdout=2, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stderr or ():
            sys.stderr.write(line)
            printed.append(re.sub(r"\x1b\[[\d;]*m|[│╷╵]", " ", line))
    if process.returncode:
        failed = ProgramFailed(
            f"`{' '.join(argv)}` failed with status {process.returncode}; its own message is above",
            remedy="Correct what it names and run the same command again: it continues where it stopped",
        )
        failed.errors = " ".join(" ".join(printed).split())
        raise failed


def output(argv: Sequence[str], *, cwd: Path | None = None) -> str:
    """What a program prints, without its last newline.

    Raises:
        DeployError: It is missing, failed, or took too long.
    """
    command, shown = [_path_of(argv[0]), *argv[1:]], f"`{' '.join(argv)}`"
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=cwd,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=READ_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired as exc:
        raise DeployError(f"{shown} took more than {READ_TIMEOUT_S:.0f} s", remedy="Check the network") from exc
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise DeployError(f"{shown} failed with status {exc.returncode}: {last}") from exc
    return done.stdout.rstrip("\n")


def parsed_output(argv: Sequence[str], *, cwd: Path | None = None) -> Any:
    """The JSON document that a program prints.

    Raises:
        DeployError: As `output`, or it printed something else.
    """
    text = output(argv, cwd=cwd)
    try:
        return json.loads(text or "null")
    except ValueError as exc:
        raise DeployError(f"`{' '.join(argv)}` did not print JSON: {text[:80]!r}") from exc
