"""PostgreSQL with the extension pgvector: one table for each collection, in the database that the address names.

All values are parameters. Vectors of at most 2,000 numbers get an HNSW index. Of the rows that it finds, few may pass a
filter: a search that has too few compares all rows that pass, as `deep` does.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb

from visor.errors import StoreUnavailable
from visor.storage.engine import Array, Clause, Row, Vectors, Where, in_batches, without_collection, without_secrets

INDEXED_MAX = 2_000
"""Most numbers in a vector that pgvector indexes."""
ROWS_AT_ONCE = 256
EXACT_ROWS = 10_000
"""If at most this many rows pass, all are compared: HNSW finds rare values badly, and this takes milliseconds."""
_PLAIN = Composed([SQL("id, version, source, tokens, numbers, facts")])
FIELDS: dict[Vectors, Composed] = {
    "none": _PLAIN,
    "near": _PLAIN + SQL(", near"),
    "all": _PLAIN + SQL(', near, "full"'),
}


class PgvectorEngine:
    """See `visor.storage.engine.VectorEngine`."""

    name = "pgvector"
    nearest_max = 16_384

    def __init__(self, url: str, password: str, prefix: str) -> None:
        self._url, self._password, self._prefix = url, password, prefix
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.RLock()

    def collections(self) -> list[str]:
        text = SQL("select tablename from pg_tables where schemaname = current_schema() and starts_with(tablename, %s)")
        return [name.removeprefix(self._prefix) for (name,) in self._ask(text, [self._prefix])]

    def create(self, collection: str, dimensions: int) -> None:
        table = self._table(collection)
        size = SQL(str(int(dimensions)))
        self._ask(
            SQL(
                'create table if not exists {} (id text collate "C" primary key, version bigint not null, '
                "source text not null, tokens bigint[] not null, numbers jsonb not null, facts bytea not null, "
                'near vector({}) not null, "full" bytea not null)'
            ).format(table, size)
        )
        self._ask(
            SQL("create index if not exists {} on {} using gin (tokens)").format(self._named(collection, "t"), table)
        )
        if dimensions <= INDEXED_MAX:
            text = SQL("create index if not exists {} on {} using hnsw (near vector_ip_ops)")
            self._ask(text.format(self._named(collection, "n"), table))

    def drop(self, collection: str) -> None:
        self._ask(SQL("drop table if exists {}").format(self._table(collection)))

    def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        text = SQL(
            'insert into {} as t (id, version, source, tokens, numbers, facts, near, "full") '
            "values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (id) do update set version = excluded.version, "
            "source = excluded.source, tokens = excluded.tokens, numbers = excluded.numbers, facts = excluded.facts, "
            'near = excluded.near, "full" = excluded."full" where t.version <= excluded.version'
        ).format(self._table(collection))
        with self._connected() as connection, connection.transaction(), connection.cursor() as cursor:
            in_batches(rows, ROWS_AT_ONCE, lambda some: cursor.executemany(text, [_values(row) for row in some]))

    def delete(self, collection: str, ids: Collection[str]) -> None:
        if ids:
            self._ask(SQL("delete from {} where id = any(%s)").format(self._table(collection)), [list(ids)])

    def nearest(self, collection: str, near: Array, limit: int, where: Where = (), *, deep: bool = False) -> list[Row]:
        text, values = _condition(where)
        query = SQL("select {} from {} where {} order by near <#> %s limit %s").format(
            FIELDS["near"], self._table(collection), text
        )
        all_rows = deep or limit > 1_000 or self.count(collection, where) <= EXACT_ROWS
        with self._connected() as connection, connection.transaction():
            found = []
            if not all_rows:
                connection.execute(f"set local hnsw.ef_search = {min(1_000, max(200, 2 * limit))}")
                found = connection.execute(query, [*values, near, limit]).fetchall()
            if len(found) < limit:
                connection.execute("set local enable_indexscan = off")
                found = connection.execute(query, [*values, near, limit]).fetchall()
        return [_row(one) for one in found]

    def get(self, collection: str, ids: Collection[str], vectors: Vectors = "near") -> list[Row]:
        text = SQL("select {} from {} where id = any(%s)").format(FIELDS[vectors], self._table(collection))
        return [_row(one) for one in (self._ask(text, [list(ids)]) if ids else ())]

    def scan(
        self, collection: str, where: Where = (), vectors: Vectors = "near", *, start: str = "", stop: str = "g"
    ) -> list[Row]:
        text, values = _condition(where)
        query = SQL("select {} from {} where {} and id >= %s and id < %s").format(
            FIELDS[vectors], self._table(collection), text
        )
        return [_row(one) for one in self._ask(query, [*values, start, stop])]

    def ids(self, collection: str, *, start: str = "", stop: str = "g") -> list[str]:
        text = SQL("select id from {} where id >= %s and id < %s").format(self._table(collection))
        return [name for (name,) in self._ask(text, [start, stop])]

    def count(self, collection: str, where: Where = (), *, start: str = "", stop: str = "g") -> int:
        text, values = _condition(where)
        query = SQL("select count(*) from {} where {} and id >= %s and id < %s").format(self._table(collection), text)
        return int(self._ask(query, [*values, start, stop])[0][0])

    def flush(self, collection: str) -> None:
        """Every call commits."""

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _table(self, collection: str) -> Identifier:
        return Identifier(self._prefix + collection)

    def _named(self, collection: str, what: str) -> Identifier:
        return Identifier(f"{self._prefix}{collection}_{what}")

    def _ask(self, text: SQL | Composed, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            cursor = connection.execute(text, values)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """The connection, for one thread at a time; a broken one is replaced."""
        with self._lock:
            try:
                if self._connection is None or self._connection.broken:
                    self._connection = self._connect()
                yield self._connection
            except psycopg.Error as exc:
                why = without_secrets(exc, self._url, self._password)
                if isinstance(exc, psycopg.errors.UndefinedTable):
                    raise without_collection("PostgreSQL", why) from exc
                raise StoreUnavailable(
                    f"PostgreSQL does not answer: {why}",
                    valid="A server with the extension pgvector, and a user who may create tables",
                    remedy="Correct VISOR_ENGINE_URL or VISOR_ENGINE_TOKEN; the server's log says more",
                ) from exc

    def _connect(self) -> psycopg.Connection[Any]:
        """A connection that accepts and returns vectors."""
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            row_factory=tuple_row,
            connect_timeout=10,
            password=self._password or None,
        )
        try:
            connection.execute("create extension if not exists vector")
            register_vector(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _values(row: Row) -> list[Any]:
    return [
        row.id,
        row.version,
        row.source.replace("\0", ""),
        list(row.tokens),
        Jsonb(dict(row.numbers)),
        row.facts,
        row.near,
        np.ascontiguousarray(row.full, "<f2").tobytes(),
    ]


def _row(found: Sequence[Any]) -> Row:
    item_id, version, source, tokens, numbers, facts, *some = found
    near, full = some[0] if some else (), some[1] if len(some) > 1 else b""
    near = near.to_numpy() if hasattr(near, "to_numpy") else near
    vectors = np.asarray(near, np.float32), np.frombuffer(full, "<f2")
    return Row(item_id, version, source, tuple(tokens), numbers, facts, *vectors)


def _condition(where: Where) -> tuple[Composed, list[Any]]:
    texts, values = [SQL("true")], []
    for clause in where:
        text, own = _clause(clause)
        texts.append(text)
        values += own
    return SQL(" and ").join(texts), values


def _clause(clause: Clause) -> tuple[Any, list[Any]]:
    some: list[SQL] = [SQL("false")]
    values: list[Any] = []
    if clause.tokens:
        some.append(SQL("tokens && %s::bigint[]"))
        values.append(list(clause.tokens))
    for name, low, high in clause.ranges:
        some.append(SQL("(tokens @> %s::bigint[] and (numbers ->> %s)::float8 between %s and %s)"))
        values += [[clause.has], name, low, high]
    text = SQL("(") + SQL(" or ").join(some) + SQL(")")
    return (SQL("not coalesce(") + text + SQL(", false)") if clause.negated else text), values
