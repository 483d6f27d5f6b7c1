"""Backups of an index on this machine: one file that holds a consistent state, taken while others write."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

from visor.errors import Conflict, CorruptObject, NotFound
from visor.storage import INDEXES, private_folder
from visor.storage.local.objects import FolderObjects
from visor.storage.local.sqlite import BUSY_TIMEOUT_S

DATABASES = ("queue.sqlite", "documents.sqlite")
"""In the order in which they are copied: a message is gone only after what it led to is written down."""
FORMAT = "visor-index-1"
"""The name of the folder in the file."""


def back_up(home: Path, index: str, target: Path) -> int:
    """Write a backup of an index to the file `target`; returns its size in bytes.

    While objects are linked and the databases are copied, whoever writes an object waits. An object that a copied
    document names was written before, so it is among the linked ones.

    Raises:
        Conflict: `target` exists.
    """
    if target.exists():
        raise Conflict(f"{target} exists already", valid="A new file", remedy="Name another, or delete it")
    folder = home / INDEXES / index
    objects = FolderObjects(folder / "objects")
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder.parent) as name:
        copy = Path(name)
        with objects.frozen():
            shutil.copytree(objects.root, copy / "objects", copy_function=os.link, ignore=shutil.ignore_patterns(".*"))
            for database in DATABASES:
                _copy_database(folder / database, copy / database)
        unfinished = target.with_name(f"{target.name}.unfinished")
        try:
            with unfinished.open("wb") as file:
                with tarfile.open(fileobj=file, mode="w") as tar:
                    tar.add(copy, FORMAT)
                file.flush()
                os.fsync(file.fileno())
            unfinished.chmod(0o600)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    return target.stat().st_size


def restore(home: Path, index: str, source: Path) -> None:
    """Make the index that a backup holds, under the name `index`.

    Raises:
        Conflict: There is such an index.
        NotFound: There is no such file.
        CorruptObject: The file is no backup, or is cut off.
    """
    folder = home / INDEXES / index
    if folder.exists():
        raise Conflict(
            f"There is an index '{index}' in {home}",
            valid="A name that no index has",
            remedy=f"Set VISOR_INDEX to another, or move {folder} away",
        )
    if not source.is_file():
        raise NotFound(f"There is no file {source}", valid="What `visor backup` wrote", remedy="Correct the path")
    private_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=folder.parent) as name:
        try:
            with tarfile.open(source) as tar:
                tar.extractall(name, filter="data")
            missing = [part for part in ("objects", *DATABASES) if not (Path(name) / FORMAT / part).exists()]
        except (tarfile.TarError, EOFError, OSError) as exc:
            raise CorruptObject(
                f"{source} cannot be read as a backup: {exc}",
                valid="A file that `visor backup` wrote, whole",
                remedy="Take another backup, or copy it again",
            ) from exc
        if missing:
            raise CorruptObject(
                f"{source} holds no {', '.join(missing)}",
                valid="A file that `visor backup` wrote",
                remedy="Take another backup",
            )
        (Path(name) / FORMAT).rename(folder)


def _copy_database(source: Path, target: Path) -> None:
    if not source.exists():
        source.touch()
    with closing(sqlite3.connect(source, timeout=BUSY_TIMEOUT_S)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)
