"""The queue of batches in SQLite."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from visor.storage.local.liveness import ProcessLock
from visor.storage.local.sqlite import Database
from visor.storage.queue import LETTERS_MAX, DeadLetter, Message, check_bodies
from visor.telemetry.traces import carrier

MIGRATIONS = (
    """
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        body BLOB NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at REAL NOT NULL,
        receipt TEXT,
        why TEXT NOT NULL DEFAULT '',
        dead_at REAL
    );
    CREATE INDEX by_due_at ON messages (due_at, id) WHERE dead_at IS NULL;
    CREATE INDEX by_dead_at ON messages (dead_at, id) WHERE dead_at IS NOT NULL
    """,
    "ALTER TABLE messages ADD COLUMN worker TEXT",
    "ALTER TABLE messages ADD COLUMN attributes TEXT NOT NULL DEFAULT '{}'",
)
"""Never edited, only extended: the version of a file is the number of migrations it has had."""


DELAY_S_MAX = 3600
"""Longest lease and longest delay: a later due time comes from a clock that was ahead."""
_DUE = f"dead_at IS NULL AND (due_at <= ?1 OR due_at > ?1 + {DELAY_S_MAX})"


class SqliteQueue:
    """The local queue. Several threads and processes may use one file at once.

    A lease also ends with the process that holds it: after a crash its messages go to the next receiver.

    Args:
        path: The SQLite file; made if missing.
        attempts_max: Deliveries without acknowledgement after which a message is dead.
        clock: Seconds since 1970.
    """

    def __init__(self, path: Path, attempts_max: int, *, clock: Callable[[], float] = time.time) -> None:
        if attempts_max < 1:
            raise ValueError(f"{attempts_max} attempts; valid are 1 and more")
        self._database = Database(path, MIGRATIONS)
        self._attempts_max = attempts_max
        self._clock = clock
        self._locks = path.with_suffix(".workers")
        self._process: ProcessLock | None = None
        self._lock = threading.Lock()

    def publish(self, bodies: Sequence[bytes]) -> list[str]:
        check_bodies(bodies)
        if not bodies:
            return []
        with self._database.write() as connection:
            # Due at once, whatever the clock is now and later.
            insert, said = "INSERT INTO messages (body, due_at, attributes) VALUES (?, 0, ?)", json.dumps(carrier())
            return [str(connection.execute(insert, (body, said)).lastrowid) for body in bodies]

    def receive(self, limit: int, *, lease_s: float) -> list[Message]:
        now = self._clock()
        with self._database.read() as connection:
            # Waiting workers poll often: an empty queue should not cost a write lock and an fsync.
            nothing = connection.execute(f"SELECT 1 FROM messages WHERE {_DUE} LIMIT 1", (now,)).fetchone() is None  # noqa: S608
        if nothing and not self._take_from_the_dead(now):
            return []
        with self._database.write() as connection:
            self._bury_worn_out(connection, now)
            rows = connection.execute(
                f"SELECT id, body, attempts, attributes FROM messages WHERE {_DUE} ORDER BY due_at, id LIMIT ?2",  # noqa: S608
                (now, limit),
            ).fetchall()
            messages = [
                Message(
                    id=str(id_),
                    body=body,
                    receipt=secrets.token_hex(8),
                    attempt=attempts + 1,
                    attributes=json.loads(attributes),
                )
                for id_, body, attempts, attributes in rows
            ]
            connection.executemany(
                "UPDATE messages SET attempts = ?, receipt = ?, due_at = ?, worker = ? WHERE id = ?",
                [(m.attempt, m.receipt, now + lease_s, self._own().name, int(m.id)) for m in messages],
            )
            return messages

    def acknowledge(self, message: Message) -> None:
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM messages WHERE id = ? AND receipt = ? AND dead_at IS NULL",
                (int(message.id), message.receipt),
            )

    def release(self, message: Message, *, delay_s: float, why: str = "", counts: bool = True) -> None:
        now = self._clock()
        with self._database.write() as connection:
            connection.execute(
                "UPDATE messages SET due_at = ?, receipt = NULL, why = ?, attempts = attempts - ?,"
                " dead_at = CASE WHEN attempts - ? >= ? THEN ? END"
                " WHERE id = ? AND receipt = ? AND dead_at IS NULL",
                (now + delay_s, why, not counts, not counts, self._attempts_max, now, int(message.id), message.receipt),
            )

    def bury(self, body: bytes, *, attempts: int, why: str) -> None:
        check_bodies([body])
        now = self._clock()
        with self._database.write() as connection:
            insert = "INSERT INTO messages (body, attempts, due_at, why, dead_at, attributes) VALUES (?, ?, ?, ?, ?, ?)"
            connection.execute(insert, (body, attempts, now, why, now, json.dumps(carrier())))

    def waiting(self) -> int:
        with self._database.read() as connection:
            (count,) = connection.execute("SELECT count(*) FROM messages WHERE dead_at IS NULL").fetchone()
            return int(count)

    def dead(self) -> int:
        with self._database.read() as connection:
            # Either by its last release, or because its last lease ran out.
            is_dead = f"dead_at IS NOT NULL OR ({_DUE} AND attempts >= ?2)"
            found = connection.execute(
                f"SELECT count(*) FROM messages WHERE {is_dead}",  # noqa: S608
                (self._clock(), self._attempts_max),
            )
            return int(found.fetchone()[0])

    def dead_letters(self, limit: int = LETTERS_MAX) -> list[DeadLetter]:
        now = self._clock()
        with self._database.write() as connection:
            self._bury_worn_out(connection, now)
            rows = connection.execute(
                "SELECT id, body, attempts, why, dead_at, attributes FROM messages"
                " WHERE dead_at IS NOT NULL ORDER BY dead_at, id LIMIT ?",
                (limit,),
            )
            return [
                DeadLetter(
                    id=str(id_),
                    body=body,
                    receipt=str(id_),
                    attempts=attempts,
                    why=why,
                    dead_at=dead_at,
                    attributes=json.loads(attributes),
                )
                for id_, body, attempts, why, dead_at, attributes in rows
            ]

    def retry(self, letter: DeadLetter) -> None:
        with self._database.write() as connection:
            connection.execute(
                "UPDATE messages SET attempts = 0, due_at = 0, receipt = NULL, why = '', dead_at = NULL"
                " WHERE id = ? AND dead_at IS NOT NULL",
                (int(letter.receipt),),
            )

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
        self._database.close()

    def _own(self) -> ProcessLock:
        with self._lock:
            if self._process is None:
                self._process = ProcessLock(self._locks)
            return self._process

    def _take_from_the_dead(self, now: float) -> bool:
        """Make messages due that are leased by processes that have ended; true if there were any."""
        with self._database.read() as connection:
            leased = "SELECT DISTINCT worker FROM messages WHERE receipt IS NOT NULL AND worker IS NOT NULL"
            holders = [name for (name,) in connection.execute(leased + " AND dead_at IS NULL AND due_at > ?", (now,))]
        dead = [name for name in holders if self._own().is_dead(name)]
        if dead:
            with self._database.write() as connection:
                connection.executemany(
                    "UPDATE messages SET due_at = ? WHERE worker = ? AND receipt IS NOT NULL AND dead_at IS NULL",
                    [(now, name) for name in dead],
                )
        return bool(dead)

    def _bury_worn_out(self, connection: sqlite3.Connection, now: float) -> None:
        """Make dead letters of messages whose last lease ran out: their worker died or hung each time."""
        connection.execute(
            f"UPDATE messages SET dead_at = ?1, receipt = NULL,"  # noqa: S608
            " why = CASE WHEN receipt IS NULL AND why != '' THEN why"
            " ELSE 'Its worker neither finished nor failed within the lease' END"
            f" WHERE {_DUE} AND attempts >= ?2",
            (now, self._attempts_max),
        )
