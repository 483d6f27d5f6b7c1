"""Milvus, Zilliz Cloud, and Milvus Lite in this process.

A collection has a partition key, the source. Filters consist of numbers, of names from `number_name`, and of ids that
are checked to be hexadecimal: text of a catalogue or a visitor is never part of an expression. Milvus Lite accepts no
templates, and only float32 vectors, so full vectors and facts are stored as texts, in parts that fit a VARCHAR.
"""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.exceptions import ErrorCode

from visor.errors import StoreUnavailable
from visor.schema.items import ITEM_ID
from visor.storage.engine import (
    Array,
    Clause,
    Row,
    Vectors,
    Where,
    id_parts,
    in_batches,
    without_collection,
    without_secrets,
)

PART = 60_000
PARTS_MAX = 64
"""Characters of a VARCHAR (Milvus accepts 65,535), and the most parts for a row's facts or its full vector."""
TOKENS_MAX = 4096
"""Milvus' own limit for an array; later tokens than these are not stored."""
ROWS_AT_ONCE = 256
"""Rows of some 20 KB each in one request: a message to Milvus has 64 MB at most."""
WINDOW = 16_384
"""Most rows that Milvus returns."""
SCANNED = 2_000
"""About how many rows one request of a scan returns."""
_PLAIN = ["id", "version", "source", "tokens", "numbers", "facts"]
FIELDS: dict[Vectors, list[str]] = {"none": _PLAIN, "near": [*_PLAIN, "near"], "all": [*_PLAIN, "near", "full"]}
T = TypeVar("T")


class MilvusEngine:
    """See `visor.storage.engine.VectorEngine`. Milvus Lite keeps its file locked: one process at a time."""

    name = "milvus"
    nearest_max = WINDOW

    def __init__(self, url: str, password: str, prefix: str) -> None:
        self._url, self._password, self._prefix = url, password, prefix
        self._is_lite = "://" not in url
        self._client: MilvusClient | None = None
        self._known: set[str] = set()
        self._lock = threading.Lock()
        if self._is_lite:
            self._url = str(Path(url).expanduser())
        # They log every refusal with its stack, though the caller reports it, and everything that Lite does not know.
        for name in ("pymilvus", "milvus_lite", "grpc._server"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def collections(self) -> list[str]:
        names = self._ask(lambda client: client.list_collections())
        return [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]

    def create(self, collection: str, dimensions: int) -> None:
        def create(client: MilvusClient) -> None:
            if client.has_collection(self._prefix + collection):
                return
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            parts = {"datatype": DataType.ARRAY, "element_type": DataType.VARCHAR, "max_length": PART}
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=32)
            schema.add_field("source", DataType.VARCHAR, max_length=65_535, is_partition_key=True)
            schema.add_field("version", DataType.INT64)
            schema.add_field("tokens", DataType.ARRAY, element_type=DataType.INT64, max_capacity=TOKENS_MAX)
            schema.add_field("numbers", DataType.JSON)
            schema.add_field("facts", **parts, max_capacity=PARTS_MAX)
            schema.add_field("full", **parts, max_capacity=PARTS_MAX)
            schema.add_field("near", DataType.FLOAT_VECTOR, dim=dimensions)
            index = client.prepare_index_params()
            index.add_index("near", index_type="FLAT" if self._is_lite else "AUTOINDEX", metric_type="IP")
            client.create_collection(
                self._prefix + collection, schema=schema, index_params=index, consistency_level="Strong"
            )

        self._ask(create)

    def drop(self, collection: str) -> None:
        self._known.discard(collection)
        self._ask(lambda c: c.drop_collection(self._prefix + collection))

    def upsert(self, collection: str, rows: Sequence[Row]) -> None:
        in_batches(rows, ROWS_AT_ONCE, lambda some: self._on(collection, "upsert", data=[_entity(row) for row in some]))

    def delete(self, collection: str, ids: Collection[str]) -> None:
        in_batches(ids, WINDOW, lambda some: self._on(collection, "delete", ids=[_checked(i) for i in some]))

    def nearest(self, collection: str, near: Array, limit: int, where: Where = (), *, deep: bool = False) -> list[Row]:
        level = {} if self._is_lite else {"level": 10 if deep else 3}
        found = self._on(
            collection,
            "search",
            data=[near.tolist()],
            anns_field="near",
            filter=_expression(where),
            limit=min(limit, WINDOW),
            output_fields=FIELDS["near"],
            search_params={"metric_type": "IP", "params": level},
        )
        return [_row(hit["entity"]) for hit in found[0]]

    def get(self, collection: str, ids: Collection[str], vectors: Vectors = "near") -> list[Row]:
        fields = FIELDS[vectors]
        parts = in_batches(
            ids, 2_000, lambda some: self._on(collection, "get", ids=[_checked(i) for i in some], output_fields=fields)
        )
        return [_row(one) for part in parts for one in part]

    def scan(
        self, collection: str, where: Where = (), vectors: Vectors = "near", *, start: str = "", stop: str = "g"
    ) -> list[Row]:
        return list(map(_row, self._query(collection, where, FIELDS[vectors], start, stop)))

    def ids(self, collection: str, *, start: str = "", stop: str = "g") -> list[str]:
        return [found["id"] for found in self._query(collection, (), ["id"], start, stop)]

    def _query(self, collection: str, where: Where, names: list[str], start: str, stop: str) -> Iterator[Any]:
        for low, high in id_parts(self.count(collection, where, start=start, stop=stop), SCANNED, start, stop):
            text = _expression(where, low, high)
            yield from self._on(collection, "query", filter=text, output_fields=names, limit=WINDOW)

    def count(self, collection: str, where: Where = (), *, start: str = "", stop: str = "g") -> int:
        text = _expression(where, start, stop)
        return int(self._on(collection, "query", filter=text, output_fields=["count(*)"])[0]["count(*)"])

    def flush(self, collection: str) -> None:
        self._on(collection, "flush")

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            if client is not None:
                client.close()
                if self._is_lite:
                    from milvus_lite.server_manager import server_manager_instance

                    server_manager_instance.release_server(self._url)

    def _on(self, collection: str, method: str, **arguments: Any) -> Any:
        def call(client: MilvusClient) -> Any:
            if collection not in self._known:
                client.load_collection(self._prefix + collection)
                self._known.add(collection)
            return getattr(client, method)(self._prefix + collection, **arguments)

        return self._ask(call)

    def _ask(self, call: Callable[[MilvusClient], T]) -> T:
        try:
            return call(self._connected())
        except (MilvusException, OSError, ValueError) as exc:
            # Without the class's name, which contains a word of a new Milvus' default password.
            said = getattr(exc, "message", exc)
            at, why = (without_secrets(text, self._url, self._password) for text in (self._url, said))
            if getattr(exc, "code", None) == ErrorCode.COLLECTION_NOT_FOUND:
                raise without_collection(f"Milvus at {at}", why) from exc
            found = f"Milvus at {at} does not answer: {why}"
            raise StoreUnavailable(
                found,
                valid="Milvus Lite: a file that no other process has open. A server: its address, and its token",
                remedy="Stop the other process, or correct VISOR_ENGINE_URL or VISOR_ENGINE_TOKEN",
            ) from exc

    def _connected(self) -> MilvusClient:
        with self._lock:
            if self._client is None:
                if self._is_lite:
                    Path(self._url).parent.mkdir(parents=True, exist_ok=True)
                self._client = MilvusClient(self._url, token=self._password)
            return self._client


def _entity(row: Row) -> dict[str, Any]:
    return {
        "id": _checked(row.id),
        "version": row.version,
        "source": row.source.encode()[:65_000].decode(errors="ignore"),
        "tokens": list(row.tokens[:TOKENS_MAX]),
        "numbers": dict(row.numbers),
        "facts": _texts(row.facts),
        "full": _texts(np.ascontiguousarray(row.full, "<f2").tobytes()),
        "near": row.near.tolist(),
    }


def _row(found: Any) -> Row:
    return Row(
        found["id"],
        int(found["version"]),
        found["source"],
        tuple(found["tokens"]),
        found["numbers"],
        _bytes(found["facts"]),
        np.array(found.get("near", ()), np.float32),
        np.frombuffer(_bytes(found.get("full", ())), "<f2"),
    )


def _texts(data: bytes) -> list[str]:
    text = base64.b64encode(data).decode()
    return [text[at : at + PART] for at in range(0, len(text), PART)]


def _bytes(parts: Any) -> bytes:
    return base64.b64decode("".join(parts))


def _checked(item_id: str) -> str:
    if not ITEM_ID.match(item_id):
        raise ValueError(f"{item_id!r} is not an item id")
    return item_id


def _expression(where: Where, start: str = "", stop: str = "g") -> str:
    parts = [_clause(clause) for clause in where]
    if start:
        parts.append(f'id >= "{_checked(start)}"')
    if stop != "g":
        parts.append(f'id < "{_checked(stop)}"')
    return " and ".join(parts)


def _clause(clause: Clause) -> str:
    some = [f"ARRAY_CONTAINS_ANY(tokens, {list(map(int, clause.tokens))})"] if clause.tokens else []
    for name, low, high in clause.ranges:
        bounds = [f'numbers["{name}"] >= {float(low)!r}'] if np.isfinite(low) else []
        bounds += [f'numbers["{name}"] <= {float(high)!r}'] if np.isfinite(high) else []
        some.append("(" + " and ".join([f"ARRAY_CONTAINS_ANY(tokens, [{int(clause.has)}])", *bounds]) + ")")
    text = "(" + " or ".join(some) + ")" if some else "version < -1"
    return f"(not {text})" if clause.negated else text
