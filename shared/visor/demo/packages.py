"""Gets packages out of registries with the registries' own tools, without installing them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from visor.errors import SourceError, SourceUnavailable

COMMAND_TIMEOUT_S = 900.0
_AR_MAGIC = b"!<arch>\n"


def download_deb(package: str, folder: Path) -> Path:
    """The .deb of a package of this system's Debian archive, checked by apt, as any user.

    Raises:
        SourceUnavailable: apt is missing or cannot get it.
    """
    apt = _tool("apt-get")
    # A container's apt often has no package lists yet, and only root may fetch those of the system.
    own = _own_apt_state(folder)
    attempts: tuple[tuple[str, ...], ...] = ((), own)
    why = ""
    for options in attempts:
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
    raise SourceUnavailable(f"The package {package} cannot be had from apt: {why}")


def download_npm(package: str, version: str, integrity: str, folder: Path) -> Path:
    """The tarball of an npm package, of exactly the content that `integrity` (`sha512-<base64>`) names.

    Raises:
        SourceUnavailable: npm is missing or cannot get it.
        SourceError: It is something else than it was.
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
            valid=f"It was {expected} when Visor was made",
            remedy="Find out who changed it before using it",
        )
    return tarball


@contextmanager
def deb_contents(deb: Path) -> Iterator[tarfile.TarFile]:
    """The files of a .deb, as a stream to iterate over once. Nothing of the package is run."""
    if shutil.which("dpkg-deb"):
        command = [_tool("dpkg-deb"), "--fsys-tarfile", str(deb)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 -- a fixed command
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as files:
                    yield files
            finally:
                process.kill()
        return
    with deb.open("rb") as archive, tarfile.open(fileobj=_data_member(archive), mode="r|*") as files:
        yield files


def _data_member(archive: IO[bytes]) -> IO[bytes]:
    """`archive` at the start of its data.tar: a .deb is an ar archive of three members (deb(5), ar(5))."""
    if archive.read(8) != _AR_MAGIC:
        raise SourceError(f"{archive.name} is no Debian package", remedy="Remove it and try again")
    while header := archive.read(60):
        name, size_bytes = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return cast(IO[bytes], _Member(archive, size_bytes))
        archive.seek(size_bytes + size_bytes % 2, 1)
    raise SourceError(f"{archive.name} holds no data", remedy="Remove it and try again")


class _Member:
    """Reads the next bytes of a file as if it ended after them."""

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        self._file = file
        self._left = size_bytes

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


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
