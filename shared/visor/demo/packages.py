"""Downloads packages with the registries' own tools, without installing them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from visor.errors import SourceError, SourceUnavailable

COMMAND_TIMEOUT_S = 900.0


def download_deb(package: str, folder: Path) -> Path:
    """The .deb of a package of this system's Debian archive, checked by apt, as any user.

    Raises:
        SourceUnavailable: apt is missing or cannot download it.
    """
    apt = _tool("apt-get")
    why = ""
    # A container's apt often has no package lists yet, and only root may fetch those of the system.
    for options in ((), _own_apt_state(folder)):
        try:
            if options:
                _run([apt, *options, "-qq", "update"], folder)
            _run([apt, *options, "-qq", "download", package], folder)
        except SourceUnavailable as exc:
            why = exc.found
            continue
        found = sorted(folder.glob(f"{package}_*.deb"))
        if found:
            return found[0]
        why = f"apt-get download {package} left no .deb"
    raise SourceUnavailable(f"The package {package} cannot be downloaded with apt: {why}")


def download_npm(package: str, version: str, integrity: str, folder: Path) -> Path:
    """The tarball of an npm package, with exactly the content that `integrity` (`sha512-<base64>`) names.

    Raises:
        SourceUnavailable: npm is missing or cannot download it.
        SourceError: Its content has changed.
    """
    _run([_tool("npm"), "pack", "--silent", "--pack-destination", str(folder), f"{package}@{version}"], folder)
    tarball = folder / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not tarball.is_file():
        raise SourceUnavailable(f"npm pack {package}@{version} left no {tarball.name}")
    algorithm, _, expected = integrity.partition("-")
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).digest()
    if base64.b64encode(digest).decode() != expected:
        raise SourceError(
            f"{package}@{version} from npm has the {algorithm} {base64.b64encode(digest).decode()}",
            valid=f"{expected}, as when Visor was made",
            remedy="Find out who changed it before using it",
        )
    return tarball


@contextmanager
def deb_contents(deb: Path) -> Iterator[tarfile.TarFile]:
    """The files of a .deb, as a stream to iterate over once. Nothing in the package is run.

    Raises:
        SourceUnavailable: dpkg-deb, which comes with apt, is not installed.
        SourceError: `deb` is not a Debian package.
    """
    command = [_tool("dpkg-deb"), "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603 -- a fixed command
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as files:
                yield files
        except tarfile.ReadError as exc:
            raise SourceError(f"{deb.name} is not a Debian package", remedy="Remove it and try again") from exc
        finally:
            process.kill()


def _own_apt_state(folder: Path) -> tuple[str, ...]:
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    return "-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}"


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SourceUnavailable(f"{name} is not installed")
    return path


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(  # noqa: S603 -- no shell, and the names are this package's own
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as exc:
        said = " ".join((getattr(exc, "stderr", None) or str(exc)).split())
        raise SourceUnavailable(f"{Path(command[0]).name} failed: {said:.300}") from exc
