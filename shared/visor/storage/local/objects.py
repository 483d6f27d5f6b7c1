"""Objects as plain files in a folder.

The generation of an object is its file's modification time in microseconds: it is set on the new file before the
rename that makes it visible, so content and generation change in one step. The modification time of the lock file is
the highest generation so far, so that generations keep growing after deletions and after clocks are set back.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from visor.errors import Conflict, NotFound, StoreError, StoreUnavailable, VisorError
from visor.storage import private_folder
from visor.storage.objects import ObjectInfo, check_name

_RETRIABLE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOLCK}


class FolderObjects:
    """The local object store. Several threads and processes may use one folder at once.

    Args:
        root: The folder; made if missing. Names starting with a dot in it are the store's own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._unfinished = root / ".unfinished"
        self._lock_path = root / ".lock"
        with _translated(str(root)):
            try:
                private_folder(self._unfinished)
            except (FileNotFoundError, NotADirectoryError, FileExistsError) as exc:
                found = f"The folder {root} cannot be made: {exc.strerror}"
                valid = "A path below a folder that this user may write"
                raise StoreError(found, valid=valid, remedy="Correct VISOR_HOME") from exc
            self._lock_path.touch(exist_ok=True)
            with self._locked():
                self._sweep()

    def put(self, name: str, data: bytes | memoryview, *, if_generation: int | None = None) -> ObjectInfo:
        path = self._path(name)
        with _translated(name), self._new_file() as file:
            file.write(data)
            file.flush()
            return self._publish(name, Path(file.name), path, file.fileno(), if_generation)

    def put_file(self, name: str, path: str, *, if_generation: int | None = None) -> ObjectInfo:
        """See the protocol. The file is moved if a rename can do it, else copied."""
        target = self._path(name)
        with Path(path).open("rb") as source, _translated(name):
            status = os.lstat(path)
            alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if alone and status.st_dev == self._unfinished.stat().st_dev:
                return self._publish(name, Path(path), target, source.fileno(), if_generation)
            with self._new_file() as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                return self._publish(name, Path(copy.name), target, copy.fileno(), if_generation)

    def get(self, name: str, *, start: int = 0, end: int | None = None) -> memoryview:
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"No range of bytes: [{start}, {end})")
        return self.get_with_info(name)[0][start:end]

    def get_with_info(self, name: str) -> tuple[memoryview, ObjectInfo]:
        path = self._path(name)
        with _translated(name), path.open("rb") as file:
            # All from one open file, so they belong together even if another file is renamed over it meanwhile.
            info = _info(name, os.fstat(file.fileno()))
            if info.size_bytes == 0:
                return memoryview(b""), info
            return memoryview(mmap.mmap(file.fileno(), info.size_bytes, access=mmap.ACCESS_READ)), info

    def stat(self, name: str) -> ObjectInfo:
        path = self._path(name)
        with _translated(name):
            if path.is_dir():
                raise FileNotFoundError(name)
            return _info(name, path.stat())

    def delete(self, name: str) -> None:
        path = self._path(name)
        with _translated(name), self._locked(), suppress(FileNotFoundError, NotADirectoryError):
            if not path.is_dir():
                path.unlink()
                _fsync_folder(path.parent)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder, _, _ = prefix.rpartition("/")
        if folder:
            check_name(folder)
        with _translated(prefix or "/"):
            yield from self._walk(self.root / folder, f"{folder}/" if folder else "", prefix)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No object is written or deleted within the block: writers wait."""
        with self._locked():
            yield

    def close(self) -> None:
        """Nothing is held open."""

    def _walk(self, folder: Path, name: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(folder) as entries:
                found = [(e.name + "/" if e.is_dir() else e.name) for e in entries if not e.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return
        # With its slash, a folder sorts among files as the names of its objects do.
        for child in sorted(found):
            whole = name + child
            if child.endswith("/"):
                if whole.startswith(prefix) or prefix.startswith(whole):
                    yield from self._walk(folder / child, whole, prefix)
            elif whole.startswith(prefix):
                with suppress(FileNotFoundError):
                    yield _info(whole, (folder / child).stat())

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the folder's lock, between threads and processes; the kernel releases it when a process dies."""
        descriptor = os.open(self._lock_path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _new_file(self) -> Iterator[BinaryIO]:
        """A file to fill. It stays locked until it is closed, so that `_sweep` removes only files left behind."""
        path = self._unfinished / uuid.uuid4().hex
        with self._locked():
            file = path.open("xb")
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
        finally:
            file.close()
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for path in self._unfinished.iterdir():
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _publish(self, name: str, file: Path, target: Path, descriptor: int, if_generation: int | None) -> ObjectInfo:
        """Make a complete file the object; it is on the disk when this returns."""
        # The long wait, for the content, is outside of the lock; mostly the generation set before it is still valid.
        generation = _set_generation(descriptor, after=0)
        os.fsync(descriptor)
        with self._locked() as lock:
            current = _generation(target)
            if if_generation is not None and if_generation != current:
                found = f"has generation {current}, not {if_generation}" if current else "does not exist"
                raise Conflict(
                    f"Object {name} {found}", valid=f"if_generation={current}", remedy="Read it again and decide anew"
                )
            _make_folders(target.parent, self.root)
            last = max(current, os.fstat(lock).st_mtime_ns // 1000)
            if generation <= last:
                generation = _set_generation(descriptor, after=last)
                os.fsync(descriptor)
            info = _info(name, os.fstat(descriptor))
            os.utime(lock, ns=(generation * 1000, generation * 1000))
            try:
                file.replace(target)
            except IsADirectoryError as exc:
                raise _not_a_name(name, f"{name}/ is a folder of objects") from exc
        _fsync_folder(target.parent)
        return info


def _info(name: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(name=name, size_bytes=status.st_size, generation=status.st_mtime_ns // 1000)


def _generation(path: Path) -> int:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns // 1000


def _set_generation(descriptor: int, *, after: int) -> int:
    """Set a file's time to now, later than `after` (microseconds), and return the time that the file system stored."""
    wanted, step = max(time.time_ns() // 1000, after + 1), 1
    while True:
        os.utime(descriptor, ns=(wanted * 1000, wanted * 1000))
        kept = os.fstat(descriptor).st_mtime_ns // 1000
        if kept > after:
            return kept
        # Some file systems store times only to 10 ms or 2 s.
        wanted, step = wanted + step, step * 2


def _make_folders(folder: Path, root: Path) -> None:
    """Make the folders of a name; they are on the disk when this returns."""
    if folder.is_dir():
        return
    _make_folders(folder.parent, root)
    try:
        folder.mkdir()
    except FileExistsError as exc:
        name = folder.relative_to(root).as_posix()
        raise _not_a_name(name + "/…", f"{name} is an object") from exc
    _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_a_name(name: str, why: str) -> StoreError:
    return StoreError(f"No object can be named {name}: {why}", valid="A name that is not a folder of another name")


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except VisorError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
        raise NotFound(f"There is no object {name}", remedy="Check the name, or write it first") from exc
    except OSError as exc:
        kind = StoreUnavailable if exc.errno in _RETRIABLE else StoreError
        raise kind(
            f"Object {name} could not be used: {exc.strerror or exc}",
            valid="A folder that this user may write, with free space",
            remedy="Correct VISOR_HOME, the permissions or the space",
        ) from exc
