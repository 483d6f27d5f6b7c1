"""Runs the programs that deploy drives: terraform, gcloud, npm. Each is looked for on PATH and named when missing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visor.errors import DeployError

HOW_TO_INSTALL = {
    "gcloud": "Install the Google Cloud CLI (cloud.google.com/sdk/docs/install), then `gcloud auth login`",
    "terraform": "Install Terraform 1.11 or newer (developer.hashicorp.com/terraform/install)",
    "npm": "Install Node.js 20 or newer, which brings npm",
}
READ_TIMEOUT_S = 60.0


def find(program: str) -> str:
    """The program's path.

    Raises:
        DeployError: It is not installed.
    """
    path = shutil.which(program)
    if path is None:
        raise DeployError(
            f"{program} is not on this machine's PATH",
            valid="visor deploy drives gcloud, terraform and npm",
            remedy=HOW_TO_INSTALL.get(program, f"Install {program}"),
        )
    return path


def run(argv: Sequence[str], *, cwd: Path, environ: Mapping[str, str]) -> None:
    """Run a program with its output shown.

    Raises:
        DeployError: It is missing or failed.
    """
    done = subprocess.run([find(argv[0]), *argv[1:]], cwd=cwd, env=dict(environ), check=False)  # noqa: S603 (argv is ours)
    if done.returncode:
        raise DeployError(
            f"`{' '.join(argv)}` ended with status {done.returncode}",
            valid="Its own message stands above",
            remedy="Mend what it names and run `visor deploy` again: it goes on where it stopped",
        )


def output(argv: Sequence[str], *, cwd: Path | None = None) -> str:
    """What a program prints, without its last newline.

    Raises:
        DeployError: It is missing, failed, or took too long.
    """
    command = [find(argv[0]), *argv[1:]]
    try:
        done = subprocess.run(  # noqa: S603 (argv is ours)
            command, cwd=cwd, capture_output=True, text=True, timeout=READ_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise DeployError(
            f"`{' '.join(argv)}` did not end within {READ_TIMEOUT_S:.0f} s", remedy="Look at your network and try again"
        ) from exc
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise DeployError(f"`{' '.join(argv)}` ended with status {done.returncode}: {said[-1]}")
    return done.stdout.rstrip("\n")


def document(argv: Sequence[str]) -> Any:
    """The JSON document that a program prints.

    Raises:
        DeployError: As `output`, or it printed something else.
    """
    text = output(argv)
    try:
        return json.loads(text or "null")
    except ValueError as exc:
        raise DeployError(f"`{' '.join(argv)}` printed no JSON: {text[:80]!r}") from exc
