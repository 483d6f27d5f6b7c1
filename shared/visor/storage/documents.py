"""Documents: small JSON-like records in collections (items, commits, failures, checkpoints, runs, meters).

Contract, the same on every backend:
- `commit` applies all its writes or none, and is durable when it returns.
- A `Put` with `newer_than` is left out, without failing the commit, if the stored document's field of that name is
  greater than the new one's: out-of-order deliveries cannot bring an old version back. Equal values overwrite.
  A `Delete` with `field`/`value` works the same: it is left out if the stored field is greater than `value`.
- A `Put` with `if_revision` raises `Conflict`, and nothing of the commit is applied, unless the stored document has
  exactly that revision (`0`: there is none).
- One commit writes a document at most once.
- Values are None, bool, int (64 bits), float, str, bytes, lists and string-keyed dicts of these; tuples become lists.
  Keys and collection names have no `/`. `check_writes` has the exact rules.
- `SERVER_TIME` as a top-level value becomes the store's clock, in seconds since 1970 as a float, the same for all of
  a commit. Its field's name ends in `_at`. Top-level numbers under such a name are such times: they come back as
  floats, to the microsecond. The local clock strictly increases from commit to commit; Firestore's may give two
  commits the same time, and the later of two times may become visible first, so readers look back a little.
- `query` orders by the named field (documents without it are left out), then by key. A condition holds only for
  values of its own kind: number, string or bool. At most one field has inequalities, and the query is ordered by it,
  also if `order_by` is not given. Only the order by a field can be descending.
- A temporary failure raises `StoreUnavailable`; whether the commit was applied is then unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from visor.errors import Conflict


class ServerTime:
    """Type of the placeholder `SERVER_TIME`."""


SERVER_TIME: Final = ServerTime()
WRITES_MAX: Final = 500
"""Writes in one commit (Firestore's limit); more raise `ValueError`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A stored document. `revision` is a positive integer that changes whenever the document does."""

    key: str
    data: dict[str, Any]
    revision: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Put:
    """Write a whole document."""

    collection: str
    key: str
    data: Mapping[str, Any]
    newer_than: str | None = None
    if_revision: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Add:
    """Add numbers to fields of a document, atomically; missing document or fields count as 0 (meters)."""

    collection: str
    key: str
    amounts: Mapping[str, int | float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Delete:
    """Remove a document; missing ones are fine."""

    collection: str
    key: str
    field: str | None = None
    value: int | float | None = None


Write = Put | Add | Delete


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """A condition on one top-level field."""

    field: str
    op: Literal["==", "<", "<=", ">", ">="]
    value: str | int | float | bool


class DocumentStore(Protocol):
    """Collections of documents. See the module for the contract."""

    def get(self, collection: str, keys: Sequence[str]) -> dict[str, Document]:
        """The existing documents with these keys, by key. One read each on Firestore, in one round trip."""
        ...

    def query(
        self,
        collection: str,
        *,
        where: Sequence[Where] = (),
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Document]: ...

    def commit(self, writes: Sequence[Write]) -> list[bool]:
        """Apply all writes atomically. Returns, in the order of `writes`, whether each was applied or left out."""
        ...

    def close(self) -> None:
        """Release connections; the store must not be used afterwards. May be called twice."""
        ...


def check_writes(writes: Sequence[Write]) -> None:
    """Check that every backend accepts the writes of one commit.

    Raises:
        ValueError: There are too many, two write one document, or a name, number or `newer_than` is not valid.
        TypeError: A value is of a type that documents cannot hold.
    """
    if len(writes) > WRITES_MAX:
        raise ValueError(f"{len(writes)} writes in one commit; valid are at most {WRITES_MAX}: split them")
    seen: set[tuple[str, str]] = set()
    for write in writes:
        check_key(write.collection, write.key)
        name = (write.collection, write.key)
        if name in seen:
            raise ValueError(f"Two writes of {write.collection}/{write.key} in one commit; valid is one: join them")
        seen.add(name)
        if isinstance(write, Put):
            if write.if_revision and not write.data:
                raise ValueError(f"{write.collection}/{write.key} has no field; guarded documents have at least one")
            if write.newer_than is not None and write.newer_than not in write.data:
                raise ValueError(f"{write.collection}/{write.key} has no field {write.newer_than} to compare by")
            for field, value in write.data.items():
                if isinstance(value, ServerTime):
                    if not field.endswith("_at"):
                        raise ValueError(f"SERVER_TIME in field {field}; valid are fields whose name ends in _at")
                else:
                    _check_value(value, field)
                _check_field(field)
        elif isinstance(write, Add):
            for field, amount in write.amounts.items():
                _check_field(field)
                if isinstance(amount, bool) or not isinstance(amount, int | float):
                    raise TypeError(f"{field} cannot grow by {amount!r}; valid are int and float")


def revision_conflict(write: Put, revision: int) -> Conflict:
    """The error for a `Put` with `if_revision` whose document has another revision (0: there is none)."""
    return Conflict(
        f"Document {write.collection}/{write.key} has revision {revision}, not {write.if_revision}",
        valid=f"if_revision={revision}",
        remedy="Read it again and decide anew",
    )


def check_key(collection: str, key: str) -> None:
    """Raises ValueError unless both names are valid on every backend."""
    for text in (collection, key):
        reserved = text.startswith((".", "__"))
        if not text or reserved or "/" in text or not text.isprintable() or len(text.encode()) > 500:
            raise ValueError(
                f"{text!r} is not a name of a collection or document; valid are 1 to 500 bytes of printable text "
                "without '/' that start neither with '.' nor with '__'"
            )


def check_query(where: Sequence[Where], order_by: str | None, descending: bool, limit: int | None) -> str | None:
    """The field that a query orders by, if any. Raises ValueError unless every backend can answer the query."""
    for field in [condition.field for condition in where] + ([order_by] if order_by else []):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", field):
            raise ValueError(f"{field!r} cannot be queried by; valid are names of letters, digits and _")
    ranged = {condition.field for condition in where if condition.op != "=="}
    if len(ranged) > 1 or (ranged and order_by is not None and ranged != {order_by}):
        raise ValueError(f"Inequalities on {sorted(ranged)} ordered by {order_by}; valid is one and the same field")
    if descending and order_by is None and not ranged:
        raise ValueError("Descending by key; valid is descending by a field")
    if limit is not None and limit < 1:
        raise ValueError(f"A limit of {limit}; valid are 1 and more")
    return order_by or next(iter(ranged), None)


def is_time(field: str, value: object) -> bool:
    """Whether a top-level value is a time: a number under a name that ends in `_at`."""
    return field.endswith("_at") and isinstance(value, int | float) and not isinstance(value, bool)


def is_greater(stored: object, new: object) -> bool:
    """Whether a stored value is greater than a new one. Values of different kinds do not compare: false."""
    if isinstance(stored, str) and isinstance(new, str):
        return stored > new
    if isinstance(stored, int | float) and isinstance(new, int | float):
        return stored > new
    return False


def is_left_out(write: Write, stored: Mapping[str, Any] | None) -> bool:
    """Whether the guard of a write (`newer_than`, or `field` and `value`) leaves it out, given the stored document."""
    if stored is None:
        return False
    if isinstance(write, Put) and write.newer_than is not None:
        return is_greater(stored.get(write.newer_than), write.data[write.newer_than])
    if isinstance(write, Delete) and write.field is not None:
        return is_greater(stored.get(write.field), write.value)
    return False


def _check_field(field: str) -> None:
    if not isinstance(field, str) or not field or field.startswith("__") or len(field.encode()) > 500:
        raise ValueError(f"{field!r} is not a field name; valid are 1 to 500 bytes that do not start with '__'")


def _check_value(value: object, path: str) -> None:
    if isinstance(value, Mapping):
        for field, inner in value.items():
            _check_field(field)
            _check_value(inner, f"{path}.{field}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_value(inner, f"{path}[{number}]")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{path} is {value}; valid are integers of 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value}; valid are finite numbers, or None")
    elif value is not None and not isinstance(value, str | bytes):
        raise TypeError(f"{path} is a {type(value).__name__}; valid are None, bool, int, float, str, bytes, list, dict")
