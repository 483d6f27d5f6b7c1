"""Rows of an index as a vector engine holds them: filterable values as numbers, all else as Visor's own bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from visor.index.format.attributes import FLAG_NAMES, AttributeColumn
from visor.index.format.container import Array
from visor.index.format.facets import CODED, FacetColumns
from visor.index.format.ids import IdIndex, id_text, ids_to_bytes
from visor.index.format.looks import LOOK_BYTES
from visor.index.format.projection import FullVectors, Projection, Space, decode, dot
from visor.index.format.segment import RowBlock
from visor.near_duplicates.fingerprint import PDQ_BYTES, same_hash_groups
from visor.schema.attributes import AttributeType, flag_of
from visor.schema.items import FacetRow, Record
from visor.schema.search import Condition, Filters
from visor.storage.engine import Clause, Row, VectorEngine, number_name, token


class _Facts(Record, frozen=True, kw_only=True):
    facets: FacetRow
    hash: bytes
    look: bytes = b""


class NearVectors(FullVectors):
    """Vectors as decoded from a segment's codes, with the same similarities to the last digit."""

    def scan(self, query: Array, want: int, allowed: Array | None, *, exact: bool) -> tuple[Array, Array]:
        rows = np.arange(len(self.vectors)) if allowed is None else np.flatnonzero(allowed)
        return rows, dot(self.vectors[rows], query)


@dataclass(frozen=True, kw_only=True)
class EngineBlock(RowBlock):
    """Some rows of a collection."""

    engine: VectorEngine = field(repr=False)
    collection: str
    stored_looks: Array = field(repr=False)

    @classmethod
    def of(cls, engine: VectorEngine, collection: str, rows: Sequence[Row], dimensions: int) -> EngineBlock:
        """From rows in any order; of several with one id, the newest is kept."""
        once = {row.id: row for row in sorted(rows, key=lambda row: row.version)}
        kept = [once[name] for name in sorted(once)]
        facts = [msgspec.msgpack.decode(row.facts, type=_Facts) for row in kept]
        ids = ids_to_bytes([row.id for row in kept])
        width = min((len(one.hash) for one in facts), default=PDQ_BYTES)
        hashes: Array = np.frombuffer(b"".join(one.hash[:width] for one in facts), np.uint8).reshape(len(kept), width)
        looks = b"".join(one.look or bytes(LOOK_BYTES) for one in facts)
        near = np.stack([row.near for row in kept]) if kept else np.empty((0, dimensions), np.float32)
        groups = same_hash_groups(hashes)
        return cls(
            ids=ids,
            versions=np.array([row.version for row in kept], np.int64),
            hashes=hashes,
            columns=FacetColumns.of([one.facets for one in facts]),
            vectors=NearVectors(near),
            index=IdIndex.of(ids),
            group_rows=groups[0],
            group_leaders=groups[1],
            engine=engine,
            collection=collection,
            stored_looks=np.frombuffer(looks, np.uint8).reshape(len(kept), LOOK_BYTES),
        )

    @property
    def looks(self) -> Array:
        return self.stored_looks

    def read_full(self, start: int, stop: int) -> Array:
        ids = [id_text(row) for row in self.ids[start:stop]]
        found = {row.id: row.full for row in self.engine.get(self.collection, ids, "all")}
        # A row deleted a moment ago is still in this answer: its zero vector is near nothing.
        some = next(iter(found.values()), None)
        nothing = np.zeros(self.vectors.unit(np.arange(0)).shape[1] if some is None else len(some), np.float16)
        full: Array = np.stack([found.get(name, nothing) for name in ids]) if ids else nothing[None][:0]
        return full


def engine_rows(
    ids: Array, versions: Array, hashes: Array, columns: FacetColumns, looks: Array, full: Array, near: Array
) -> list[Row]:
    """Rows for an engine. Arrays as those of `RowBlock`; full (n, d) float16, near (n, m) float32."""
    facets = columns.rows()
    numbers = {key: column for key, column in columns.attributes.items() if key[1] in ("number", "date")}
    numbers[("price", "number")] = AttributeColumn("number", columns.price)
    numbers[("date", "date")] = AttributeColumn("date", columns.date)
    held = [(_key(*key), column.values.tolist(), column.has().tolist()) for key, column in numbers.items()]
    rows = []
    for number, row in enumerate(facets):
        facts = _Facts(facets=row, hash=hashes[number].tobytes(), look=looks[number].tobytes())
        values = {name: float(there[number]) for name, there, has in held if has[number]}
        rows.append(
            Row(
                id_text(ids[number]),
                int(versions[number]),
                row.source or "",
                _tokens(row, values),
                {number_name(name): value for name, value in values.items()},
                msgspec.msgpack.encode(facts),
                near[number],
                full[number],
            )
        )
    return rows


def near_vectors(space: Space, full: Array) -> Array:
    """The searched form of full vectors (n, d): exactly what their codes in a segment decode to."""
    return decode(space.code(full)) if isinstance(space, Projection) else space.project(full)


_BUILT_IN = {**dict.fromkeys((*CODED, "label"), "keyword"), "price": "number", "date": "date"}


def _key(name: str, type_: str) -> str:
    """A field's name in tokens: an attribute that was declared anew with another type is another field."""
    return name if name in _BUILT_IN else f"{type_}\0{name}"


def _tokens(row: FacetRow, numbers: Mapping[str, float]) -> tuple[int, ...]:
    pairs: list[tuple[str, str]] = [(name, value) for name in CODED if (value := getattr(row, name)) is not None]
    pairs += [("label", name) for name in (row.labels if row.facet_labels is None else row.facet_labels)]
    for name, type_ in row.declared.items():
        text = row.values.get(name)
        if text is not None and type_ in ("keyword", "flag") and name not in _BUILT_IN:
            pairs.append((_key(name, type_), FLAG_NAMES[bool(flag_of(text))] if type_ == "flag" else text))
    found = {token(name, value) for name, value in pairs} | {token(name) for name, _ in pairs}
    found |= {token(name) for name in numbers} | {token("\0word", word) for word in row.words}
    if row.declared:
        found.add(declared_token(row.declared))
    if row.product:
        found.add(token("\0product", row.product))
    return tuple(sorted(found))


def declared_token(declared: Mapping[str, AttributeType]) -> int:
    return token("\0declared", msgspec.json.encode(declared, order="sorted").decode())


def clauses(filters: Filters, types: Mapping[str, AttributeType]) -> list[Clause]:
    """The filters for an engine. Raises as `FacetColumns.mask`, whose answer on all rows is the same."""
    FacetColumns.of([]).mask(filters, types)
    asked = [(name, Condition(any=getattr(filters, name))) for name in (*CODED, "label") if getattr(filters, name)]
    if filters.price is not None:
        asked.append(("price", Condition(min=filters.price.min, max=filters.price.max, missing=False)))
    if filters.date_from is not None or filters.date_to is not None:
        asked.append(("date", Condition(min=filters.date_from, max=filters.date_to)))
    asked += filters.attributes.items()
    known: dict[str, Any] = {**types, **_BUILT_IN}
    return [clause for name, condition in asked for clause in _conditions(name, condition, known[name])]


WORD_WEIGHT_MIN, WORDS_MAX = 0.02, 50
"""Least weight and greatest number of the words of a query across the gap that alone make an item a candidate."""


def words_clause(weights: Mapping[str, float]) -> Clause | None:
    """Matches items that contain one of the heaviest words; None if there is no such word."""
    heavy = sorted((-weight, word) for word, weight in weights.items() if weight >= WORD_WEIGHT_MIN)[:WORDS_MAX]
    return Clause(tuple(token("\0word", word) for _, word in heavy)) if heavy else None


def _conditions(name: str, condition: Condition, type_: AttributeType) -> list[Clause]:
    key, found = _key(name, type_), []
    has = token(key)
    dtype = np.float32 if name == "price" else np.float64
    column = AttributeColumn(type_, np.empty(0, np.int32 if type_ == "date" else dtype))

    def one_of(values: Sequence[str]) -> Clause:
        if type_ in ("number", "date"):
            spans = [column.span(name, value) for value in values]
            return Clause(ranges=tuple((number_name(key), float(low), float(high)) for low, high in spans), has=has)
        if type_ == "flag":
            values = [FLAG_NAMES[bool(flag_of(value))] for value in values]
        return Clause(tuple(token(key, value) for value in values))

    if condition.any:
        found.append(one_of(condition.any))
    if condition.none:
        none = one_of(condition.none)
        found.append(Clause(none.tokens, none.ranges, none.has, negated=True))
    low = -math.inf if condition.min is None else float(column.span(name, condition.min)[0])
    high = math.inf if condition.max is None else float(column.span(name, condition.max)[1])
    if condition.min is not None or condition.max is not None:
        found.append(Clause(ranges=((number_name(key), low, high),), has=has))
    if condition.missing is not None:
        found.append(Clause((has,), negated=condition.missing))
    return found
