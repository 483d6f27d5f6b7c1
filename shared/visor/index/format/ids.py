"""Item ids as 16 bytes, and finding them among sorted rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def ids_to_bytes(ids: Sequence[str] | Array) -> Array:
    """Ids of 32 hex digits as (n, 16) uint8; an array of that shape passes through.

    Raises:
        ValueError: An id is not 32 hex digits.
    """
    if isinstance(ids, np.ndarray):
        if ids.dtype != np.uint8 or ids.ndim != 2 or ids.shape[1] != 16:
            raise ValueError(f"ids are {ids.dtype} of shape {ids.shape}; expected uint8 of shape (n, 16)")
        return ids
    try:
        raw = b"".join(bytes.fromhex(i) for i in ids)
    except ValueError as exc:
        raise ValueError(f"an id is not made of hex digits: {exc}") from exc
    if len(raw) != 16 * len(ids) or any(len(i) != 32 for i in ids):
        raise ValueError("an id is not 32 hex digits, as `visor.schema.items.item_id` makes them")
    return np.frombuffer(raw, np.uint8).reshape(-1, 16)


def id_text(row: Array) -> str:
    """The 32 hex digits of one (16,) uint8 row."""
    return row.tobytes().hex()


def halves(ids: Array) -> tuple[Array, Array]:
    """(n, 16) uint8 as two uint64 arrays whose order, taken together, is the order of the bytes."""
    both = np.ascontiguousarray(ids).view(">u8").astype(np.uint64)
    return both[:, 0], both[:, 1]


def sort_order(ids: Array, *also: Array) -> Array:
    """The stable order by id, then by the further keys, as int64 row numbers."""
    high, low = halves(ids)
    return np.lexsort((*reversed(also), low, high))


@dataclass(frozen=True, slots=True)
class IdIndex:
    """Finds the row of an id among rows that are sorted by id and have each id once."""

    high: Array
    low: Array

    @classmethod
    def of(cls, ids: Array) -> IdIndex:
        return cls(*halves(ids))

    def find(self, ids: Array) -> Array:
        """Rows (m,) int64 of the ids (m, 16), −1 where there is none."""
        if not len(self.high) or not len(ids):
            return np.full(len(ids), -1, np.int64)
        high, low = halves(ids)
        inside = np.minimum(np.searchsorted(self.high, high, side="left"), len(self.high) - 1)
        found = (self.high[inside] == high) & (self.low[inside] == low)
        # Two ids almost never share 64 bits, so a loop over them is fine.
        for i in np.flatnonzero(~found & (self.high[inside] == high)):
            j = inside[i]
            while j < len(self.high) and self.high[j] == high[i]:
                if self.low[j] == low[i]:
                    inside[i], found[i] = j, True
                    break
                j += 1
        rows: Array = np.where(found, inside, -1).astype(np.int64)
        return rows


def newest(ids: Array, versions: Array) -> Array:
    """Row numbers, sorted by id, of the newest version of each id; the last row wins a tie."""
    if not len(ids):
        return np.empty(0, np.int64)
    order = sort_order(ids, versions)
    high, low = halves(ids[order])
    last = np.append((high[1:] != high[:-1]) | (low[1:] != low[:-1]), True)
    rows: Array = order[last]
    return rows
