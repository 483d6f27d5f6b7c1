"""Documents: small JSON-like records in collections (items, commits, failures, checkpoints, runs, meters).

Contract, the same on every backend:
- `commit` applies all its writes or none, and is durable when it returns.
- A `Put` with `newer_than` is left out, without failing the commit, where the stored document's field of that name is
  greater than the new one's: out-of-order deliveries cannot bring an old version back. Equal values overwrite.
  A `Delete` with `field`/`value` works the same: it is left out where the stored field is greater than `value`.
- A `Put` with `if_revision` raises `Conflict`, and nothing of the commit is applied, unless the stored document has
  exactly that revision (`0`: there is none).
- Values are None, bool, int, float, str, bytes, lists and string-keyed dicts of these. Keys and collection names have
  no `/`. `SERVER_TIME` as a top-level value becomes the store's clock, in seconds since 1970 as a float.
- `query` orders by the named field (documents without it are left out), then by key.
- A failure that may pass raises `StoreUnavailable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol


class ServerTime:
    """Type of the placeholder `SERVER_TIME`."""


SERVER_TIME: Final = ServerTime()
WRITES_MAX: Final = 500
"""Writes in one commit (Firestore's limit); more raise `ValueError`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A stored document. `revision` is a positive integer that changes with every write of it."""

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
    value: int | None = None


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
        """The documents of those keys that exist, by key. One read each on Firestore, in one round trip."""
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
