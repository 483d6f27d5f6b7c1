"""Documents as JSON in SQLite."""

from __future__ import annotations

import base64
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from visor.storage.documents import (
    Add,
    Delete,
    Document,
    Put,
    ServerTime,
    Where,
    Write,
    check_key,
    check_query,
    check_writes,
    is_left_out,
    is_time,
    revision_conflict,
)
from visor.storage.local.sqlite import Database

MIGRATIONS = (
    """
    CREATE TABLE documents (
        collection TEXT NOT NULL,
        key TEXT NOT NULL,
        revision INTEGER NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (collection, key)
    );
    CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), last_us INTEGER NOT NULL);
    INSERT INTO clock VALUES (1, 0)
    """,
    # Partial indexes, so that the many items, which lack these fields, need no entries.
    """
    ALTER TABLE documents ADD COLUMN committed_at GENERATED ALWAYS AS (json_extract(data, '$.committed_at')) VIRTUAL;
    ALTER TABLE documents ADD COLUMN started_at GENERATED ALWAYS AS (json_extract(data, '$.started_at')) VIRTUAL;
    CREATE INDEX by_committed_at ON documents (collection, committed_at, key) WHERE committed_at IS NOT NULL;
    CREATE INDEX by_started_at ON documents (collection, started_at, key) WHERE started_at IS NOT NULL
    """,
)
"""Never edited, only extended: the version of a file is the number of migrations it has had."""

_INDEXED = {"committed_at", "started_at"}
_KEYS_PER_QUERY = 500
_BYTES = "__bytes__"
"""Marks bytes within JSON. No document can have it as a field: names of fields do not start with `__`."""


class SqliteDocuments:
    """The local document store. Several threads and processes may use one file at once.

    Args:
        path: The SQLite file; made if missing.
        clock: Seconds since 1970.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(path, MIGRATIONS)
        self._clock = clock

    def get(self, collection: str, keys: Sequence[str]) -> dict[str, Document]:
        for key in keys:
            check_key(collection, key)
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Document] = {}
        with self._database.read() as connection:
            for start in range(0, len(wanted), _KEYS_PER_QUERY):
                some = wanted[start : start + _KEYS_PER_QUERY]
                marks = ", ".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT key, revision, data FROM documents WHERE collection = ? AND key IN ({marks})",  # noqa: S608
                    (collection, *some),
                )
                found.update((row[0], _document(*row)) for row in rows)
        return {key: found[key] for key in wanted if key in found}

    def query(
        self,
        collection: str,
        *,
        where: Sequence[Where] = (),
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        order_by = check_query(where, order_by, descending, limit)
        check_key(collection, collection)
        conditions, values = ["collection = ?"], [collection]
        for condition in where:
            text, value = _condition(condition)
            conditions.append(text)
            values.append(value)
        direction = "DESC" if descending else "ASC"
        order = f"key {direction}"
        if order_by is not None:
            conditions.append(_present(order_by))
            order = f"{_column(order_by)} {direction}, {order}"
        sql = f"SELECT key, revision, data FROM documents WHERE {' AND '.join(conditions)} ORDER BY {order}"  # noqa: S608
        if limit is not None:
            sql += f" LIMIT {int(limit)}"
        with self._database.read() as connection:
            return [_document(*row) for row in connection.execute(sql, values)]

    def commit(self, writes: Sequence[Write]) -> list[bool]:
        check_writes(writes)
        if not writes:
            return []
        with self._database.write() as connection:
            now_us = self._tick(connection)
            return [self._apply(connection, write, now_us) for write in writes]

    def close(self) -> None:
        self._database.close()

    def _tick(self, connection: sqlite3.Connection) -> int:
        """The time of this commit in microseconds: later than any earlier commit's, even if the clock goes back."""
        now_us = round(self._clock() * 1e6)
        (last_us,) = connection.execute("SELECT last_us FROM clock").fetchone()
        now_us = max(now_us, int(last_us) + 1)
        connection.execute("UPDATE clock SET last_us = ?", (now_us,))
        return now_us

    def _apply(self, connection: sqlite3.Connection, write: Write, now_us: int) -> bool:
        name = (write.collection, write.key)
        row = connection.execute(
            "SELECT key, revision, data FROM documents WHERE collection = ? AND key = ?", name
        ).fetchone()
        stored = _document(*row) if row else None
        if isinstance(write, Put) and write.if_revision is not None:
            revision = stored.revision if stored else 0
            if revision != write.if_revision:
                raise revision_conflict(write, revision)
        if is_left_out(write, stored.data if stored else None):
            return False
        if isinstance(write, Delete):
            connection.execute("DELETE FROM documents WHERE collection = ? AND key = ?", name)
            return True
        data = added(stored.data if stored else {}, write) if isinstance(write, Add) else write.data
        connection.execute(
            "INSERT OR REPLACE INTO documents (collection, key, revision, data) VALUES (?, ?, ?, ?)",
            (*name, now_us, _to_json(data, now_us)),
        )
        return True


def added(data: Mapping[str, Any], write: Add) -> dict[str, Any]:
    """The fields of a document after an `Add`; values that are not numbers count as 0, as in Firestore."""
    total = dict(data)
    for field, amount in write.amounts.items():
        old = total.get(field, 0)
        total[field] = amount + (old if isinstance(old, int | float) and not isinstance(old, bool) else 0)
    return total


def _column(field: str) -> str:
    return field if field in _INDEXED else f"json_extract(data, '$.{field}')"


def _present(field: str) -> str:
    # For an indexed field, the condition of its partial index, which SQLite uses only if the query repeats it.
    return f"{field} IS NOT NULL" if field in _INDEXED else f"json_type(data, '$.{field}') IS NOT NULL"


def _condition(condition: Where) -> tuple[str, Any]:
    value = condition.value
    if isinstance(value, bool):
        kinds = "'true', 'false'"
    elif isinstance(value, str):
        kinds = "'text'"
    else:
        kinds = "'integer', 'real'"
    op = "=" if condition.op == "==" else condition.op
    field = condition.field
    return f"{_column(field)} {op} ? AND {_present(field)} AND json_type(data, '$.{field}') IN ({kinds})", value


def _document(key: str, revision: int, text: str) -> Document:
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise sqlite3.DatabaseError(f"the document {key} is not JSON: {exc}") from exc
    return Document(key=key, data=_with_bytes(data) if _BYTES in text else data, revision=revision)


def _to_json(data: Mapping[str, Any], now_us: int) -> str:
    plain = {}
    for field, value in data.items():
        if isinstance(value, ServerTime):
            plain[field] = now_us / 1e6
        elif is_time(field, value):
            plain[field] = round(value * 1e6) / 1e6
        else:
            plain[field] = _without_bytes(value)
    return msgspec.json.encode(plain).decode()


def _without_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {field: _without_bytes(inner) for field, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_bytes(inner) for inner in value]
    return value


def _with_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_BYTES}:
            return base64.b64decode(value[_BYTES])
        return {field: _with_bytes(inner) for field, inner in value.items()}
    if isinstance(value, list):
        return [_with_bytes(inner) for inner in value]
    return value
