"""Listings: all rows that pass, in one order, returned page by page to the end.

The order is by a rising value (a price, an age; the same for all if likeness alone orders), then by falling likeness,
then by id. A page continues after a row of that order, not after a number of rows: a deletion between two pages moves
nothing. Near-duplicates and other items of the product of an earlier row are not returned again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from visor.index.format.attributes import NO_DATE
from visor.index.format.container import Array
from visor.index.search.candidates import Candidates
from visor.index.search.hits import (
    ID_HEAD,
    Cursor,
    Hit,
    Order,
    first_of_product,
    group_hits,
    heads_of,
    repeats,
    varied,
)
from visor.index.search.snapshot import LiveBlock

Page = tuple[tuple[Hit, ...], Cursor | None]
"""Hits, and where the next ones begin; None at the end."""
Likeness = Callable[[LiveBlock, Array], Array]
"""Maps some rows (r,) int64 of a block, rising, to their similarities (r,) float32."""
VARIED = 300
"""Nearest different images among which variety chooses; the others follow by likeness."""


def sort_values(live: LiveBlock, order: Order) -> Array:
    """The value that rises along the listing, (n,) float64 for each row; infinite if there is none."""
    if order.sort == "most_changed":
        values = np.full(len(live), np.inf)
        ids = np.frombuffer(b"".join(map(bytes.fromhex, order.copies or ())), np.uint8).reshape(-1, 16)
        rows = live.block.index.find(ids)
        values[rows[rows >= 0]] = np.array([*(order.copies or {}).values()])[rows >= 0]
        return values
    read, nothing, sign = _SORTS[order.sort]
    values = live.column(read).astype(np.float64)
    return np.where((values == nothing) | np.isnan(values), np.inf, sign * values)


_SORTS: dict[str, tuple[Any, float, int]] = {
    "price_up": (lambda columns: columns.price, np.nan, 1),
    "price_down": (lambda columns: columns.price, np.nan, -1),
    "newest": (lambda columns: columns.date, NO_DATE, -1),
    "oldest": (lambda columns: columns.date, NO_DATE, 1),
    "largest": (lambda columns: columns.pixels, 0, -1),
    "smallest": (lambda columns: columns.pixels, 0, 1),
}
"""By sort: the column, the number that means no value, and whether it rises (1) or falls (-1)."""


@dataclass(frozen=True, slots=True)
class Listing:
    """c rows that may be given, in no order. values (c,) float64, rising along the listing; products (c,) uint64, 0 for
    those that are given one by one. Similarities of `rows` are NaN until `_likeness_of` computes them, because
    they order only rows with the same value."""

    rows: Candidates
    values: Array
    products: Array
    leave_out: Collection[str]
    likeness: Likeness
    cosine: Likeness | None

    @classmethod
    def of(
        cls,
        blocks: Sequence[LiveBlock],
        *,
        allowed: Sequence[Array | None],
        order: Order,
        likeness: Likeness,
        cosine: Likeness | None,
        leave_out: Collection[str],
        only: Callable[[LiveBlock], Array] | None = None,
    ) -> Listing:
        """The rows that may be given.

        Args:
            allowed: For each block the rows that are alive and pass the filters, (n,) bool, or None for all.
            likeness: What they are ordered by.
            cosine: What is shown, and compared with `order.similarity_min`, if that differs from `likeness`.
            only: Returns (n,) bool: the rows of a block to include.
        """
        parts: list[tuple[Array, ...]] = []
        for number, (live, mask) in enumerate(zip(blocks, allowed, strict=True)):
            keep = np.ones(len(live), bool) if mask is None else mask.copy()
            if only is not None:
                keep &= only(live)
            if order.among is not None:
                keep &= rows_of(live, order.among)
            keep &= ~rows_of(live, leave_out)
            rows = np.flatnonzero(keep)
            is_needed = order.sort == "likeness" or order.similarity_min is not None
            near = likeness(live, rows) if is_needed else np.full(len(rows), np.nan, np.float32)
            if order.similarity_min is not None:
                like = near if cosine is None else cosine(live, rows)
                passes = like >= np.float32(order.similarity_min)
                rows, near = rows[passes], near[passes]
            values = np.zeros(len(rows)) if order.sort == "likeness" else sort_values(live, order)[rows]
            products = live.products[rows] if order.by_product else np.zeros(len(rows), np.uint64)
            owners = np.full(len(rows), number, np.int64)
            parts.append((near, owners, rows, live.block.ids[rows], values, products))
        similarities, owners, rows, ids, values, products = (np.concatenate(part) for part in zip(*parts, strict=True))
        listed = Candidates(blocks, allowed, similarities, owners, rows, ids)
        return cls(listed, values, products, leave_out, likeness, cosine)

    @property
    def total(self) -> int:
        return len(first_of_product(self.products)) if self.products.any() else len(self.products)

    @property
    def in_order(self) -> Candidates:
        """All rows, in order."""
        return self.rows.take(self.ordered(np.arange(len(self.values))))

    def ordered(self, among: Array, want: int | None = None) -> Array:
        """The first of these places (p,) int64, rising, in order."""
        first = self.values if self.values.any() else -self._likeness_of(np.arange(len(self.rows))).astype(np.float64)
        if want is not None and len(among) > want:
            limit = np.partition(first[among], want - 1)[want - 1]
            among = among[first[among] <= limit]
        high, low = np.ascontiguousarray(self.rows.ids[among]).view(">u8").T
        return among[np.lexsort((low, high, -self._likeness_of(among), self.values[among]))][:want]

    def _likeness_of(self, places: Array) -> Array:
        """Similarities (p,) float32 of places (p,) int64, rising; each is computed once."""
        new = places[np.isnan(self.rows.similarities[places])]
        for number, live in enumerate(self.rows.blocks):
            mine = new[self.rows.owners[new] == number]
            if len(mine):
                self.rows.similarities[mine] = self.likeness(live, self.rows.rows[mine])
        near: Array = self.rows.similarities[places]
        return near

    def before(self, cursor: Cursor) -> Array:
        """(c,) bool: the rows returned up to there."""
        if cursor.last is None:
            return self._is_shown(cursor.shown)
        value, likeness, own = cursor.last
        given: Array = self.values < value
        same = np.flatnonzero(self.values == value)
        mine, ids = self._likeness_of(same).astype(np.float64), np.ascontiguousarray(self.rows.ids[same]).view(">u8")
        high, low = np.frombuffer(own, ">u8")
        not_later = (ids[:, 0] < high) | ((ids[:, 0] == high) & (ids[:, 1] <= low))
        given[same] = (mine > likeness) | ((mine == likeness) & not_later)
        return given

    def page(self, k: int, cursor: Cursor, variety: float) -> Page:
        """The next k hits after a cursor."""
        if not variety or cursor.last is not None:
            return self._page(k, cursor)
        pool, places, _ = self._hits(np.zeros(len(self.rows), bool), VARIED)
        if not pool:
            return (), None
        vectors = self.rows.take(places).unit_vectors()
        is_chosen = self._is_shown(cursor.shown)[places]
        picked = varied(self.rows.similarities[places], vectors, is_chosen, k, variety)
        hits = tuple(pool[place] for place in picked)
        is_chosen[picked] = True
        if not is_chosen.all():
            return hits, replace(cursor, shown=cursor.shown + heads_of(hits))
        more, behind = self._page(k - len(hits), self._behind(cursor, int(places[-1])))
        return hits + more, behind

    def _page(self, k: int, cursor: Cursor) -> Page:
        before = self.before(cursor)
        hits, places, is_more = self._hits(before, k)
        if k and not hits:
            return (), None
        behind = self._behind(cursor, int(places[-1])) if k else cursor
        if not is_more:
            return hits, None
        return hits, behind

    def _hits(self, before: Array, k: int) -> tuple[tuple[Hit, ...], Array, bool]:
        """The first k hits that do not repeat rows before, their places (k,), and whether there are more."""
        free = ~before
        if self.products.any():
            free &= ~np.isin(self.products, self.products[before & (self.products > 0)])
        left, want = np.flatnonzero(free), k + min(k, 20) + 1
        given = np.flatnonzero(before)
        earlier = self.rows.take(given)
        while True:
            places = self.ordered(left, want)
            # A near-duplicate of an item that is not its product's first does not hide a row, whichever page it is on.
            places = places[first_of_product(self.products[places])]
            found = self.rows.take(places)
            vectors = found.unit_vectors() if len(found) else np.empty((0, 0), np.float32)
            new = ~repeats(found, vectors, earlier, lambda rows: self._are_first(given[rows], given))
            places = places[new]
            by_product = bool(self.products.any())
            hits, is_more = group_hits(self.rows.take(places), vectors[new], k, self.leave_out, by_product=by_product)
            if is_more or want >= len(left):
                own = places[[hit.rank for hit in hits]]
                return tuple(self._shown_as(*one) for one in zip(hits, own.tolist(), strict=True)), own, is_more
            want *= 4

    def _are_first(self, places: Array, among: Array) -> Array:
        """(p,) bool: which of these places come first of their product `among` these places, (a,) int64 rising."""
        own = self.products[places]
        first = {p: self.ordered(among[self.products[among] == p], 1)[0] for p in np.unique(own[own > 0])}
        return np.array([first.get(p, place) == place for p, place in zip(own, places, strict=True)], bool)

    def _behind(self, cursor: Cursor, place: int) -> Cursor:
        key = float(self.values[place]), float(self.rows.similarities[place]), self.rows.ids[place].tobytes()
        return Cursor(cursor.generation, key)

    def _is_shown(self, heads: bytes) -> Array:
        return np.isin(_heads(self.rows.ids), np.frombuffer(heads, np.uint32))

    def _shown_as(self, hit: Hit, place: int) -> Hit:
        if self.cosine is None:
            return hit
        live, rows = self.rows.blocks[self.rows.owners[place]], self.rows.rows[place : place + 1]
        return replace(hit, similarity=float(self.cosine(live, rows)[0]))


def _heads(ids: Array) -> Array:
    return np.ascontiguousarray(ids[:, :ID_HEAD]).view(np.uint32)[:, 0] if len(ids) else np.empty(0, np.uint32)


def rows_of(live: LiveBlock, ids: Collection[str]) -> Array:
    """(n,) bool: the rows of a block that have one of these ids."""
    rows = live.block.index.find(np.frombuffer(b"".join(map(bytes.fromhex, ids)), np.uint8).reshape(-1, 16))
    mask = np.zeros(len(live), bool)
    mask[rows[rows >= 0]] = True
    return mask
