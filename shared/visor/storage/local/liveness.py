"""Liveness of processes that leased messages: each holds a lock, which the kernel releases when the process ends."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visor.errors import Conflict
from visor.storage import private_folder


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` within the block.

    Raises:
        Conflict: Another process holds it.
    """
    private_folder(path.parent)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise Conflict(
                f"{what} runs already", valid="One a machine and index", remedy="End the other one, or set VISOR_INDEX"
            ) from exc
        yield


class ProcessLock:
    """The lock that shows that this process, a holder of leases, is alive.

    Args:
        folder: Folder of the lock files of one queue's processes; made if missing. Files of processes that have ended
            are removed.
    """

    def __init__(self, folder: Path) -> None:
        private_folder(folder)
        self._folder = folder
        self.name = f"{os.getpid()}-{secrets.token_hex(4)}"
        # While the folder is locked, no file in it is one that its process has made and not locked yet.
        whole = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(whole, fcntl.LOCK_EX)
            # A bare descriptor: the lock should last as long as the process, unless it is closed before.
            self._descriptor = os.open(folder / self.name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            for path in folder.iterdir():
                self.is_dead(path.name)
        finally:
            os.close(whole)

    def is_dead(self, name: str) -> bool:
        """Whether the process of that name has ended; if so, its lock file is removed."""
        if name == self.name:
            return False
        path = self._folder / name
        try:
            with path.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Release the lock: messages that this process leased may go to others at once."""
        (self._folder / self.name).unlink(missing_ok=True)
        os.close(self._descriptor)
