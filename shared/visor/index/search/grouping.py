"""Grouping: near-duplicates and the items of one product become one hit."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import islice

import numpy as np

from visor.index.format.container import Array, rows_in_blocks
from visor.index.format.segment import RowBlock
from visor.index.search.candidates import Candidates
from visor.index.search.hits import DUPLICATES_MAX, Hit
from visor.near_duplicates.hamming import PDQ_BYTES, first_duplicate
from visor.near_duplicates.thresholds import SAME_BITS, SAME_SIMILARITY

COMPARED_ROWS = 20_000
"""Rows whose hashes are compared with those of a page at once."""


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
    nearest = (vectors @ vectors[is_chosen].T).max(axis=1, initial=-1.0)
    for _ in range(min(k, int(free.sum()))):
        worth = (1 - variety) * similarities - variety * nearest
        best = int(np.argmax(np.where(free, worth, -np.inf)))
        picked.append(best)
        free[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
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
