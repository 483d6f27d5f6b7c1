"""Backups of an index on this machine: one file with a consistent state, made while others write."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import secrets
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

from visor.errors import Conflict, CorruptObject, NewerFormat, NotFound, StoreUnavailable
from visor.storage import INDEXES, is_left, private_folder, scratch_folder
from visor.storage.local.objects import FolderObjects
from visor.storage.local.sqlite import BUSY_TIMEOUT_S, translate

DATABASES = ("queue.sqlite", "documents.sqlite")
"""In the order of copying: a message is deleted only after its results are stored, so the queue comes first."""
FORMAT = "visor-index-1"
"""The name of the folder in the file."""
SUMS = "SHA256SUMS"
"""A file in it with the checksums of all others; backups of the first versions have none."""


def back_up(home: Path, index: str, target: Path) -> int:
    """Write a backup of an index to the file `target`; returns its size in bytes.

    While objects are linked and the databases are copied, writers of objects wait. An object that a copied document
    names was written before, so it is among the linked ones.

    Raises:
        Conflict: `target` exists.
        CorruptObject, StoreUnavailable: A database cannot be copied: it is damaged, or the disk is full.
    """
    _check_new(target)
    folder = home / INDEXES / index
    objects = FolderObjects(folder / "objects")
    with scratch_folder(folder.parent, ".backup-") as name:
        copy = Path(name)
        with objects.frozen():
            shutil.copytree(objects.root, copy / "objects", copy_function=_link, ignore=shutil.ignore_patterns(".*"))
            for database in DATABASES:
                _copy_database(folder / database, copy / database)
        (copy / SUMS).write_bytes(_sums(copy))
        for left in target.parent.glob(f"{glob.escape(target.name)}.*.unfinished"):
            if is_left(left):
                left.unlink(missing_ok=True)
        unfinished = target.with_name(f"{target.name}.{secrets.token_hex(4)}.unfinished")  # another may run beside it
        try:
            with unfinished.open("xb") as file:
                with tarfile.open(fileobj=file, mode="w") as tar:
                    tar.add(copy, FORMAT)
                file.flush()
                os.fsync(file.fileno())
            unfinished.chmod(0o600)
            _check_new(target)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    return target.stat().st_size


def restore(home: Path, index: str, source: Path) -> None:
    """Restore the index in a backup under the name `index`.

    Raises:
        Conflict: There is already an index of that name.
        NotFound: There is no such file.
        CorruptObject: The file is not a backup, or is cut off or damaged.
        NewerFormat: A newer Visor wrote it.
        StoreUnavailable: The disk is full.
    """
    folder = home / INDEXES / index
    taken = Conflict(
        f"There is an index '{index}' in {home}",
        valid="A name that no index has yet",
        remedy=f"Set VISOR_INDEX to another, or move {folder} away",
    )
    if folder.exists():
        raise taken
    if not source.is_file():
        raise NotFound(f"There is no file {source}", valid="A file of `visor backup`", remedy="Correct the path")
    private_folder(folder.parent)
    with scratch_folder(folder.parent, ".restore-") as place:
        try:
            with tarfile.open(source) as tar:
                tar.extractall(place, filter="data")
        except Exception as exc:  # a compressed file's reader has errors of its own
            if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreUnavailable(
                    f"{source} could not be unpacked in {folder.parent}: {exc.strerror}",
                    valid="A disk with room for all that is in it",
                    remedy="Make room, or set VISOR_HOME to a folder on another disk",
                ) from exc
            raise CorruptObject(
                f"{source} cannot be read as a backup: {getattr(exc, 'strerror', None) or exc}",
                valid="A file that `visor backup` wrote, whole",
                remedy="Take another backup, or copy it again",
            ) from exc
        copy = Path(place) / FORMAT
        if not copy.exists() and (newer := sorted(Path(place).glob(FORMAT.replace("1", "*")))):
            raise NewerFormat(f"{source} is a {newer[0].name}", valid=f"A {FORMAT}", remedy="Install a newer Visor")
        wrong = [part for part in ("objects", *DATABASES) if not (copy / part).exists()]
        if not wrong and (copy / SUMS).exists():
            changed = set(_sums(copy).splitlines()) ^ set((copy / SUMS).read_bytes().splitlines())
            wrong = sorted({line[66:].decode(errors="replace") for line in changed})
        if wrong:
            raise CorruptObject(
                f"{source} has missing or damaged parts: {', '.join(wrong[:3])}",
                valid="A file that `visor backup` wrote, whole",
                remedy="Take another backup, or copy it again",
            )
        (copy / SUMS).unlink(missing_ok=True)
        try:
            copy.rename(folder)
        except OSError as exc:
            if folder.exists():  # another was faster
                raise taken from exc
            raise


def _check_new(target: Path) -> None:
    if target.exists():
        raise Conflict(f"{target} exists already", valid="A new file", remedy="Name another, or delete it")


def _link(source: str, target: str) -> None:
    """Make a hard link to a file, or a copy on a disk without links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _sums(copy: Path) -> bytes:
    """SHA-256 and path of each file, in the format of `sha256sum`."""
    lines = []
    for path in sorted(copy.rglob("*")):
        if path.is_file() and path.name != SUMS:
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(copy)}\n")
    return "".join(lines).encode()


def _copy_database(source: Path, target: Path) -> None:
    if not source.exists():
        source.touch()
    try:
        with closing(sqlite3.connect(source, timeout=BUSY_TIMEOUT_S)) as one, closing(sqlite3.connect(target)) as other:
            one.backup(other)
    except sqlite3.Error as exc:
        raise translate(exc, source) from exc
