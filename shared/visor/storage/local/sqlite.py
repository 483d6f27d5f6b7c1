"""One SQLite file: connections, transactions, migrations, and its errors as ours."""

from __future__ import annotations

import json
import os
import queue
import shutil
import sqlite3
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from visor.errors import CorruptObject, NewerFormat, StoreError, StoreUnavailable, VisorError
from visor.storage import private_folder
from visor.storage.documents import check_key

BUSY_TIMEOUT_S = 30.0

_RETRIABLE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_NOT_LOOKED_AT = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM),
}
_UNREAD = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
"""What of `SQLITE_IOERR` is damage: the rest is a full disk, or one that fails elsewhere."""
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CORRUPT_WORDS = ("malformed", "not decode", "not JSON", "no such table")
"""SQLite's words for damage within a row, which has no code of its own."""


class Database:
    """A SQLite file in WAL mode that several threads and processes use at once.

    Once another file is in its place, or none, every call raises StoreError: writes to the open file would be lost.

    Args:
        path: The file; it and its folder are made if missing.
        migrations: SQL scripts. A file of version n (`PRAGMA user_version`) has had the first n applied.

    Raises:
        NewerFormat: The file has had more migrations than there are.
        CorruptObject: The file is not a SQLite database.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self.path = path
        self._start_pool()
        with self._translated():
            private_folder(path.parent)
            connection = self._connect()
            try:
                _migrate(connection, path, migrations)
            except BaseException:
                connection.close()
                raise
            self._idle.put(connection)
            self._opened = path.stat()

    def close(self) -> None:
        """Close idle connections. The database can be used again afterwards."""
        _close_all(self._idle)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for queries."""
        if self._pid != os.getpid():
            # After a fork, the child must neither use nor close a connection of its parent.
            self._finalizer.detach()
            self._start_pool()
        with self._translated():
            self._check_place()
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._connect()
            try:
                yield connection
            except sqlite3.Error:
                connection.close()
                raise
            except BaseException:
                self._idle.put(connection)
                raise
            self._idle.put(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed, and on the disk, at the end of the block; rolled back if it raises."""
        with self.read() as connection, _transaction(connection):
            yield connection

    def _check_place(self) -> None:
        with suppress(FileNotFoundError):
            if os.path.samestat(self._opened, self.path.stat()):
                return
        raise StoreError(
            f"{self.path} was moved, deleted or replaced while this process used it",
            valid="An index that stays in its place while it is in use",
            remedy="End this process and start it again",
        )

    def _start_pool(self) -> None:
        self._pid = os.getpid()
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._finalizer = weakref.finalize(self, _close_all, self._idle)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            _use_wal(connection)
            # FULL, because a commit has to survive a power cut, not only a killed process.
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except VisorError:
            raise
        except (sqlite3.Error, OSError) as exc:
            raise translate(exc, self.path) from exc


def translate(exc: sqlite3.Error | OSError, path: Path) -> VisorError:
    """Our error for one of SQLite or the file system."""
    code = _primary(exc)
    if code in _CORRUPT or (isinstance(exc, sqlite3.Error) and any(word in str(exc) for word in _CORRUPT_WORDS)):
        return CorruptObject(
            f"{path} is not a readable SQLite database: {exc}",
            valid="A database that Visor wrote",
            remedy="Restore it from a backup, or run `visor check --repair`",
        )
    if code in _RETRIABLE:
        return StoreUnavailable(
            f"{path} could not be used: {exc}",
            valid="A disk with free space and no other program that keeps the database locked",
            remedy="Free space or end the other program; the call may be repeated",
        )
    return StoreError(
        f"{path} could not be used: {exc}",
        valid="A file that this user may read and write, on a local disk",
        remedy="Correct VISOR_HOME, or the permissions of the file, its folder and the -wal and -shm files beside it",
    )


def _primary(exc: Exception) -> int:
    """SQLite's primary result code, which is the low byte of an extended one; 0 if there is none."""
    return (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF


def _is_not_looked_at(exc: sqlite3.Error) -> bool:
    """Whether an error says nothing about what is in the file."""
    code = _primary(exc)
    return code in _NOT_LOOKED_AT or (code == sqlite3.SQLITE_IOERR and exc.sqlite_errorcode not in _UNREAD)


def damage(path: Path, migrations: Sequence[str]) -> str:
    """What is wrong with a database, in SQLite's words; empty if every row can be read, or there is no file.

    Raises:
        StoreError, StoreUnavailable: It could not be checked, so its state is unknown.
    """
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            said = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            with closing(sqlite3.connect(":memory:")) as example:
                example.executescript(";".join(migrations[:version]))
                if missing := set(_tables(example)) - set(_tables(connection)):
                    return f"no such table: {', '.join(sorted(missing))}"
            for table in _tables(connection):
                for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608
                    _check_row(table, row)
    except (sqlite3.Error, ValueError, TypeError) as exc:
        if isinstance(exc, sqlite3.Error) and _is_not_looked_at(exc):
            raise translate(exc, path) from exc
        return str(exc)
    return "" if said == ["ok"] else said[0]


def salvage(path: Path, migrations: Sequence[str]) -> Path:
    """Make the database anew from the rows that can still be read. Nobody else may use it meanwhile.

    It is made next to the damaged one and takes its place once it is complete, so that an end in between, or a full
    disk, costs nothing.

    Returns:
        The path under which the damaged file is kept.
    """
    old = path.with_name(f"{path.name}.damaged-{time.time():.0f}")
    unfinished = path.with_name(f"{path.name}.unfinished")
    for ending in ("", "-wal", "-shm"):
        Path(f"{unfinished}{ending}").unlink(missing_ok=True)
    new = Database(unfinished, migrations)
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as source, new.write() as target:
        for table in _tables(target):
            columns = [column[1] for column in target.execute(f"PRAGMA table_info({table})")]
            marks = ", ".join("?" * len(columns))
            for row in _readable_rows(source, table, ", ".join(columns)):
                with suppress(sqlite3.IntegrityError, ValueError, TypeError):
                    _check_row(table, row)
                    target.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({marks})", row)  # noqa: S608
    new.close()
    for ending in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{old}{ending}")
    try:
        os.link(path, old)
    except OSError:  # a disk without links
        shutil.copy2(path, old)
    unfinished.replace(path)
    return old


def _check_row(table: str, row: Sequence[Any]) -> None:
    """Raises ValueError or TypeError unless a document has a name and is JSON."""
    if table == "documents":
        check_key(str(row[0] or ""), str(row[1] or ""))
        json.loads(row[3])


def _tables(connection: sqlite3.Connection) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [row[0] for row in connection.execute(sql)]


def _readable_rows(source: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """The readable rows of a damaged table. At a damaged row the read jumps ahead, twice as far each time."""
    after, jump = -1, 1
    while jump < 1 << 40:
        try:
            for row in source.execute(f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? ORDER BY rowid", (after,)):  # noqa: S608
                after, jump = row[0], 1
                yield row[1:]
            return
        except sqlite3.Error as exc:
            if _is_not_looked_at(exc):
                raise
            after, jump = after + jump, jump * 2


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait for a lock if two processes do this to a new file at the same time."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    def version() -> int:
        (value,) = connection.execute("PRAGMA user_version").fetchone()
        return int(value)

    if version() == len(migrations):
        return
    with _transaction(connection):
        # Read again: another process may have migrated while this one waited for the lock.
        found = version()
        if found > len(migrations):
            raise NewerFormat(
                f"{path} has format {found}",
                valid=f"Formats up to {len(migrations)}",
                remedy="Install a newer Visor; if none has written it, run `visor check`",
            )
        for script in migrations[found:]:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


def _close_all(idle: queue.SimpleQueue[sqlite3.Connection]) -> None:
    while True:
        try:
            idle.get_nowait().close()
        except queue.Empty:
            return
