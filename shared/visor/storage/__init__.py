"""Stores: where do objects, documents and messages live, and what do they promise?

The three protocols are in `objects`, `documents` and `queue`, their two implementations in `local` and `gcp`.
`open_stores` opens those that the settings name, and imports only those.
"""

from __future__ import annotations

import fcntl
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from visor.errors import NotFound, SettingsError
from visor.settings import PREFIX, Settings
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore
from visor.storage.queue import Queue

INDEXES = "indexes"
"""Folder in the home with a folder for each index."""


def private_folder(folder: Path) -> Path:
    """Make a folder and its missing parents, readable only by this user: it holds titles and paths of pictures.

    A folder that exists stays as it is.
    """
    for one in (*reversed(folder.parents), folder):
        one.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def folder_lock(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a folder that is to be made: other processes wait here. The kernel releases it when one dies.

    Args:
        say: Called with a line if there is something to wait for.
    """
    private_folder(folder.parent)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another process, which makes {folder} …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def scratch_folder(parent: Path, prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder in `parent`. Those of that prefix that killed processes left over two days ago are removed."""
    for left in parent.glob(f"{prefix}*"):
        if is_left(left):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=prefix, dir=parent)


def is_left(path: Path) -> bool:
    """Whether a temporary file or folder is so old that its process must have ended."""
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > 2 * 86_400
    return False


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The three stores of one index. As a context manager it closes them."""

    objects: ObjectStore
    documents: DocumentStore
    queue: Queue

    def close(self) -> None:
        for store in (self.objects, self.documents, self.queue):
            store.close()

    def __enter__(self) -> Stores:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_stores(settings: Settings) -> Stores:
    """The stores of the index that the settings name.

    Raises:
        SettingsError: The backend needs a setting that is empty, or a library that is not installed.
    """
    return Stores(objects=open_objects(settings), documents=open_documents(settings), queue=open_queue(settings))


class LazyStores(Stores):
    """The stores of the index that the settings name, each opened when it is first used.

    So a function imports, and lists in its requirements, only the libraries of the stores that it uses.
    """

    def __init__(self, settings: Settings) -> None:
        self.__dict__["_settings"] = settings

    @cached_property
    def objects(self) -> ObjectStore:
        return open_objects(self.__dict__["_settings"])

    @cached_property
    def documents(self) -> DocumentStore:
        return open_documents(self.__dict__["_settings"])

    @cached_property
    def queue(self) -> Queue:
        return open_queue(self.__dict__["_settings"])

    def close(self) -> None:
        for name in {"objects", "documents", "queue"} & self.__dict__.keys():
            self.__dict__[name].close()


def is_there(settings: Settings) -> bool:
    """Whether the index exists. On Google Cloud always, because opening it creates nothing there."""
    return settings.backend != "local" or (settings.home / INDEXES / settings.index).is_dir()


def has_any(settings: Settings) -> bool:
    """Whether there is any index here; on Google Cloud always."""
    return settings.backend != "local" or bool(_indexes(settings))


def _indexes(settings: Settings) -> list[str]:
    folder = settings.home / INDEXES
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in found if path.is_dir() and not path.name.startswith("."))


def existing(settings: Settings) -> Settings:
    """The settings, if their index exists: for callers that read, change or delete, and do not begin an index.

    Raises:
        NotFound: There is no such index; the message names the existing ones.
    """
    if not is_there(settings):
        names = _indexes(settings)
        raise NotFound(
            f"There is no index '{settings.index}' in {settings.home}, " + ("but others" if names else "and no other"),
            valid=", ".join(names),
            remedy=f"Correct {'VISOR_INDEX' if names else 'VISOR_HOME'}, or begin it: visor index PATH",
        )
    return settings


def open_objects(settings: Settings) -> ObjectStore:
    """The object store alone."""
    if settings.backend == "local":
        from visor.storage.local.objects import FolderObjects

        return FolderObjects(settings.home / INDEXES / settings.index / "objects")
    _need(settings, "bucket")
    from visor.storage.gcp.objects import CloudObjects

    return CloudObjects(
        settings.bucket, f"{settings.index}/", project=settings.project, deadline_s=settings.store_deadline_s
    )


def open_site(settings: Settings) -> ObjectStore:
    """The bucket of the page, whose objects browsers read. Raises as `open_stores`."""
    _need(settings, "site")
    from visor.storage.gcp.objects import CloudObjects

    return CloudObjects(
        settings.site, "", project=settings.project, deadline_s=settings.store_deadline_s, is_public=True
    )


def open_documents(settings: Settings) -> DocumentStore:
    """The document store alone."""
    if settings.backend == "local":
        from visor.storage.local.documents import SqliteDocuments

        return SqliteDocuments(settings.home / INDEXES / settings.index / "documents.sqlite")
    _need(settings)
    from visor.storage.gcp.documents import CloudDocuments

    return CloudDocuments(
        settings.project, settings.database, f"{settings.index}-", deadline_s=settings.store_deadline_s
    )


def open_queue(settings: Settings) -> Queue:
    """The queue alone."""
    if settings.backend == "local":
        from visor.storage.local.queue import SqliteQueue

        return SqliteQueue(settings.home / INDEXES / settings.index / "queue.sqlite", settings.embed_attempts_max)
    _need(settings, "project", "topic")
    from visor.storage.gcp.queue import CloudQueue

    return CloudQueue(
        settings.project,
        settings.topic,
        settings.subscription,
        settings.dead_letter_subscription,
        dead_letter_topic=settings.dead_letter_topic,
        deadline_s=settings.store_deadline_s,
    )


def _need(settings: Settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name):
            variable = PREFIX + name.upper()
            raise SettingsError(
                f"{variable} is empty", valid="The " + name + ", on Google Cloud", remedy=f"Set {variable}"
            )
    if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.cloud.storage") is None:
        raise SettingsError(
            "Google's client libraries are not installed",
            valid="VISOR_BACKEND=local, or the libraries of visor-search[gcp]",
            remedy="pip install 'visor-search[gcp]'",
        )
