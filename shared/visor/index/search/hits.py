"""Hits: what a search of the index returns, how rows that show one image or product become one hit, and the raw facts
that their confidence is computed from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

import numpy as np

from visor.index.format.container import Array, rows_in_blocks
from visor.index.format.projection import dot
from visor.index.format.segment import RowBlock
from visor.index.search.candidates import Candidates
from visor.index.search.snapshot import Snapshot, text_of
from visor.index.words.query import Met, TextQuery
from visor.near_duplicates.fingerprint import PDQ_BYTES, first_duplicate
from visor.near_duplicates.thresholds import SAME_BITS, SAME_SIMILARITY
from visor.schema.search import Notice, Sort

DUPLICATES_MAX = 20
COMPARED_ROWS = 20_000
"""Rows whose hashes are compared with those of a page at once."""
ID_HEAD = 4
"""Bytes by which a cursor knows an id; ids are digests."""
Sureness = Callable[[Array, Met, int], Array]
"""Maps ids (r, 16) uint8, what these items say, and how many say as much as the best to (r,) bool: is each given?"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a listing has already returned: the rows up to `last`, or else the ids whose first bytes are in `shown`.

    last: value, likeness and id (16 bytes) of a row. shown: 4 bytes of each id.
    """

    generation: int
    last: tuple[float, float, bytes] | None = None
    shown: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Which of the items that pass its filters a search returns, and in which order."""

    sort: Sort = "likeness"
    nearest: int = 0
    """With another order: how many of the nearest matches are ordered; 0: all that pass."""
    after: Cursor | None = None
    variety: float = 0.0
    by_product: bool = False
    similarity_min: float | None = None
    among: Collection[str] | None = None
    """Ids of the only items that may be returned."""
    sure: Sureness | None = None
    """Which of the items with words of the text are sure enough; with a picture `among` names others."""
    copies: Mapping[str, float] | None = None
    """Ids of the query's copies with their similarity, for `most_changed`."""

    @property
    def is_plain(self) -> bool:
        """The first page of what is nearest: no listing is needed."""
        return self.sort == "likeness" and self.after is None and not self.variety and self.among is None


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
    notices: tuple[Notice, ...] = ()
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

    @property
    def notice(self) -> str | None:
        return text_of(self.notices)


def heads_of(hits: Sequence[Hit]) -> bytes:
    """The ids of hits as a cursor keeps them."""
    return b"".join(bytes.fromhex(hit.id)[:ID_HEAD] for hit in hits)


def first_of_product(products: Array) -> Array:
    """Positions, rising, of the rows (n,) whose product no earlier row has; 0 is not a product."""
    _, first = np.unique(products, return_index=True)
    is_first = products == 0
    is_first[first] = True
    return np.flatnonzero(is_first)


def group_hits(
    found: Candidates, vectors: Array, k: int, leave_out: Collection[str], *, by_product: bool
) -> tuple[tuple[Hit, ...], bool]:
    """The first k different images, or products, and whether `found` has more of them.

    Args:
        found: The best first.
        vectors: (len(found), m) float32, as `found.unit_vectors` returns them.
        leave_out: Ids that are not named as duplicates either.
        by_product: Return one hit per product; the product's other items are not named here.
    """
    if not len(found):
        return (), False
    products = found.products() if by_product else np.zeros(len(found), np.uint64)
    kept = first_of_product(products) if by_product else np.arange(len(found))
    hashes = found.hashes()
    members: dict[int, list[int]] = {}
    for place, first in zip(kept.tolist(), kept[first_duplicate(hashes[kept], vectors[kept], k)].tolist(), strict=True):
        members.setdefault(first, []).append(place)
    hits = []
    for first, places in islice(members.items(), k):
        own, *copies = [found.id(place) for place in places]
        others = dict.fromkeys(copies)
        stored = _stored_copies(found, first, vectors[first], int(products[first]))
        others |= dict.fromkeys(i for i in stored if i not in leave_out)
        others.pop(own, None)
        hits.append(
            Hit(
                id=own,
                similarity=float(found.similarities[first]),
                rank=first,
                duplicates=tuple(islice(others, DUPLICATES_MAX)),
                hash=hashes[first].tobytes(),
            )
        )
    return tuple(hits), len(members) > k


def with_products(hits: tuple[Hit, ...], products: Array, others: Candidates) -> tuple[Hit, ...]:
    """The hits with the other items of their products.

    Args:
        products: (len(hits),) of the hits; 0 for none.
        others: All rows of these products that may be given, the best first.
    """
    members: dict[int, list[str]] = {}
    for place, product in enumerate(others.products().tolist()):
        members.setdefault(product, []).append(others.id(place))
    return tuple(
        replace(hit, product=tuple(islice((i for i in members.get(product, ()) if i != hit.id), DUPLICATES_MAX)))
        if product
        else hit
        for hit, product in zip(hits, products.tolist(), strict=True)
    )


def repeats(found: Candidates, vectors: Array, earlier: Candidates, is_shown: Callable[[Array], Array]) -> Array:
    """(len(found),) bool: which of the candidates are near-duplicates of earlier ones.

    Args:
        vectors: (len(found), m) float32, as `found.unit_vectors` returns them.
        is_shown: For places (p,) int64 in `earlier`, which of them, (p,) bool, represent their product.
    """
    again = np.zeros(len(found), bool)
    if not len(found):
        return again
    words = np.ascontiguousarray(found.hashes()[:, :PDQ_BYTES]).view(np.uint64)
    for start, stop in rows_in_blocks(len(earlier), COMPARED_ROWS):
        part = earlier.take(slice(start, stop))
        others = np.ascontiguousarray(part.hashes()[:, :PDQ_BYTES]).view(np.uint64)
        for place in np.flatnonzero(~again).tolist():
            near = np.flatnonzero(np.bitwise_count(others ^ words[place]).sum(1, dtype=np.int16) <= SAME_BITS)
            if len(near):
                near = near[part.take(near).unit_vectors() @ vectors[place] >= SAME_SIMILARITY]
                again[place] = is_shown(start + near).any()
    return again


def varied(similarities: Array, vectors: Array, is_chosen: Array, k: int, variety: float) -> list[int]:
    """The next k of n rows by maximal marginal relevance: like the query and unlike what is chosen already.

    Args:
        similarities: (n,) to the query.
        vectors: (n, m) float32, unit length.
        is_chosen: (n,) bool.
        variety: 0: by similarity alone; 1: by difference alone.
    """
    picked: list[int] = []
    free = ~is_chosen
    nearest = np.full(len(vectors), -1.0, np.float32)
    for chosen in vectors[is_chosen]:
        nearest = np.maximum(nearest, dot(vectors, chosen))
    for _ in range(min(k, int(free.sum()))):
        worth = (1 - variety) * similarities - variety * nearest
        best = int(np.argmax(np.where(free, worth, -np.inf)))
        picked.append(best)
        free[best] = False
        nearest = np.maximum(nearest, dot(vectors, vectors[best]))
    return picked


def _stored_copies(found: Candidates, place: int, vector: Array, product: int) -> list[str]:
    """Ids of rows that a merge grouped with this one, if they may be shown, their vectors agree and they are not of its
    product (0: it has none)."""
    owner = int(found.owners[place])
    live, allowed = found.blocks[owner], found.allowed[owner]
    rows = _group_of(live.block, int(found.rows[place]))
    rows = rows if allowed is None else rows[allowed[rows]]
    if product:
        rows = rows[live.products[rows] != product]
    if not len(rows):
        return []
    same = live.block.vectors.unit(rows) @ vector >= SAME_SIMILARITY
    return [live.block.ids[row].tobytes().hex() for row in rows[same]]


def _group_of(block: RowBlock, row: int) -> Array:
    """Other rows (g,) int64 that a merge found to have nearly the hash of this one."""
    at = int(np.searchsorted(block.group_rows, row))
    if at == len(block.group_rows) or block.group_rows[at] != row:
        return np.empty(0, np.int64)
    members = block.group_rows[block.group_leaders == block.group_leaders[at]]
    others: Array = members[members != row]
    return others
