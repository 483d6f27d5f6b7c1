"""What a search of the index returns: the hits, and the raw facts that their confidence is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from visor.index.format.container import Array
from visor.index.format.segment import RowBlock
from visor.index.search.snapshot import Snapshot
from visor.index.words.query import TextQuery

DUPLICATES_MAX = 20


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a listing has already returned: the rows up to `last`, or else the ids whose first bytes are in `shown`.

    last: value, likeness and id (16 bytes) of a row. shown: 4 bytes of each id.
    """

    generation: int
    last: tuple[float, float, bytes] | None = None
    shown: bytes = b""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result: the nearest of a group of rows that show the same image."""

    id: str
    similarity: float
    """Not a number (NaN) if only words were searched for."""
    rank: int
    """Its position among all rows that no filter leaves out, from 0: near-duplicates count one by one."""
    duplicates: tuple[str, ...] = ()
    """Other ids of the same image, nearest first, at most 20."""
    product: tuple[str, ...] = ()
    """Ids of the other items of its product, best first, at most 20."""
    hash: bytes = b""
    """Its whole stored hash."""
    text_score: float | None = None
    """BM25 of the query's words; None if none of them matched."""


@dataclass(frozen=True, slots=True)
class NearestRows:
    """The query and at most 64 rows nearest to it, nearest first, near-duplicates counted one by one.

    snapshot: what was searched. query: (d,) full vector of length 1. unnormalised: (m,) its part in the similarity
    space, not of unit length. rows: block and row of each. vectors: (len(rows), m) float32 of unit length.
    similarities: (c,) of all candidates, falling. No filter leaves any of them out.
    """

    snapshot: Snapshot
    query: Array
    unnormalised: Array
    rows: Sequence[tuple[RowBlock, int]]
    vectors: Array
    similarities: Array


@dataclass(frozen=True, slots=True)
class Hits:
    """An answer."""

    hits: tuple[Hit, ...]
    mode: Literal["fast", "exact", "metric"]
    metric: str | None = None
    notice: str | None = None
    nearest: NearestRows | None = field(default=None, repr=False)
    """What confidence is computed from; None if no picture was searched for."""
    text: TextQuery | None = field(default=None, repr=False)
    """The words that were searched for."""
    next: Cursor | None = None
    """Where the next hits begin; None at the end."""
    is_listed: bool = False
    """The hits are those of a later page or another order, so that the first of them need not be the nearest."""
    total: int | None = None
    """Items that pass, near-duplicates counted one by one and each product once; None if that is not known."""
    say_as_much: int = 1
    """Rows that match the words as well as the best one, if a picture was searched for with them; 0: none matches."""
