"""Search of an index whose rows are in a vector engine.

The engine returns the rows nearest to the query, with everything stored about them. Together with what commits changed
since, they become a small snapshot, from which the same code as for segments makes the answer: exact order,
near-duplicates, products, verdicts, and the facts that confidence is computed from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

import msgspec
import numpy as np

from visor.errors import BadRequest
from visor.index.engine.rows import EngineBlock, clauses, words_clause
from visor.index.format.container import Array
from visor.index.format.ids import id_text
from visor.index.format.manifest import EngineEntry, check_engine
from visor.index.format.projection import query_vector, unit
from visor.index.search.ask import NEAREST
from visor.index.search.candidates import RERANK
from visor.index.search.facet_counts import FacetCounts
from visor.index.search.hits import Hits
from visor.index.search.searcher import Question, Searcher
from visor.index.search.snapshot import LiveBlock, Snapshot, apply_deletes
from visor.schema.search import FacetsAnswer, Filters, Notice
from visor.storage.engine import Clause, Row, VectorEngine, Vectors, Where, id_parts, token

LISTED = 2_000
"""Nearest rows that pages by likeness cover."""
SORTED_MAX = 20_000
"""Most items that may pass if all are put in another order, …"""
COUNTED_MAX = 100_000
"""… or counted by facets."""
WIDENED = 4
"""Factor by which a query asks for more rows if too many of the nearest are the same picture."""
SPARE = 16
"""Extra rows of a query: an engine's similarities differ a little in the last digit."""


@dataclass(frozen=True)
class EngineSnapshot(Snapshot):
    """The snapshot that the searcher keeps: `blocks` hold what commits changed, and the engine the rest.

    touched: The engine's rows of the changed items, as they were before; `touched_block`: the same as a block.
    """

    touched: Sequence[Row] = ()
    touched_block: EngineBlock | None = None

    @property
    def entry(self) -> EngineEntry | None:
        """None before the first merge: everything is in memory then."""
        return self.manifest.engine if self.manifest else None


class EngineSearcher(Searcher):
    """As `Searcher`; in memory it holds only what no merge has taken up, and a sample.

    Args:
        engine: Where the manifest's collection is.
    """

    def __init__(self, *arguments: Any, engine: VectorEngine, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.engine = engine
        self._counts: dict[bytes, FacetsAnswer] = {}
        self._counts_of: Snapshot | None = None
        self._sample: tuple[int, EngineBlock] | None = None

    def _opened(self, snapshot: Snapshot) -> Snapshot:
        check_engine(snapshot.manifest, self.engine.name)
        base = EngineSnapshot(**{field.name: getattr(snapshot, field.name) for field in fields(snapshot)})
        if base.entry is None:
            return base
        if self._sample is None or self._sample[0] != base.generation:
            some = self.engine.get(base.entry.collection, base.entry.sampled)
            self._sample = base.generation, self._block(base, some)
        step = max(1, -(-base.entry.images // max(1, len(base.entry.sampled))))
        catalogue = replace(snapshot, blocks=_thinned(_with(base, self._sample[1]).blocks, step), images=1)
        touched = self.engine.get(base.entry.collection, {id_text(row) for row in snapshot.changed})
        block = self._block(base, touched)
        whole = _with(base, block)
        stored = Counter(base.entry.declared)
        stored.subtract(LiveBlock(block, None, len(block), np.empty(0, np.int64), None).declared)
        for live in whole.blocks:
            stored.update(live.declared)
        images = self.engine.count(base.entry.collection) - len(block) + whole.images
        return replace(whole, images=images, stored=stored, catalogue=catalogue, touched=touched, touched_block=block)

    def _block(self, base: EngineSnapshot, rows: Sequence[Row]) -> EngineBlock:
        assert base.entry is not None
        return EngineBlock.of(self.engine, base.entry.collection, rows, base.space.dimensions)

    def _answer(self, question: Question) -> Hits:
        base = self._snapshot
        if not isinstance(base, EngineSnapshot) or base.entry is None:
            return self._answer_from(base, question)
        if question.metric is not None:
            self._refuse("Metrics go through all full vectors", "The modes fast and exact", "Leave the metric out")
        if question.vector is None and question.text is not None:
            self._refuse_words()
        where = clauses(question.filters, base.types)
        total = self._count(base, where, question.filters)
        order = question.order
        also = {*question.leave_out, *(order.among or ()), *(order.copies or ())}
        known = [*base.touched, *(self.engine.get(base.entry.collection, also) if also else ())]
        want = max(question.k + min(question.k, 20), RERANK if question.fusion else NEAREST)
        want += len(question.leave_out) + min(len(base.touched), want) + SPARE
        while True:
            rows, notices = self._rows(base, question, where, want, total)
            seen = _with(base, self._block(base, [*rows, *known]))
            masks = [(live, live.allowed(question.filters, base.types)) for live in seen.blocks]
            held = sum(len(live) if mask is None else int(np.count_nonzero(mask)) for live, mask in masks)
            seen = replace(seen, images=base.images, rest=max(0, total - held))
            seen = replace(seen, notices=base.notices + notices)
            hits = self._answer_from(seen, question)
            have = {row.id for row in (*rows, *known)}
            grouped = self._siblings(base, seen, hits, where) if order.by_product and seen.rest else []
            if siblings := [row for row in grouped if row.id not in have]:
                known += siblings
                continue
            if len(hits.hits) >= question.k or not seen.rest or not order.is_plain or want >= self.engine.nearest_max:
                return hits
            want = min(WIDENED * want, self.engine.nearest_max)

    def _siblings(self, base: EngineSnapshot, seen: Snapshot, hits: Hits, where: Where) -> list[Row]:
        """The engine's rows of the products in the answer; the nearest rows may hold only a few of them."""
        assert base.entry is not None
        places = filter(None, (seen.find(hit.id) for hit in hits.hits))
        tokens = {token("\0product", f"{product:016x}") for live, row in places if (product := int(live.products[row]))}
        return self.engine.scan(base.entry.collection, [*where, Clause(tuple(tokens))]) if tokens else []

    def _rows(
        self, base: EngineSnapshot, question: Question, where: Where, want: int, total: int
    ) -> tuple[list[Row], tuple[Notice, ...]]:
        """The rows that the answer is made of, and a notice about them, if they need one."""
        assert base.entry is not None
        collection, order = base.entry.collection, question.order
        rows: list[Row] = []
        notices: tuple[Notice, ...] = ()
        if question.vector is not None:
            aims = [question.vector if question.judged is None else question.judged]
            near = [unit(base.space.project_unnormalised(query_vector(v, base.space.dimension))[None])[0] for v in aims]
            first = near[0]
            if question.fusion is not None:
                first = near[0] = question.fusion.projected
            elif question.judged is not None:
                first = base.space.project(query_vector(question.vector, base.space.dimension)[None])[0]
            deep = question.mode == "exact"
            limit = want if order.is_plain else max(want, LISTED)
            rows += self.engine.nearest(collection, first, limit, where, deep=deep)
            if where or question.judged is not None:
                rows += self.engine.nearest(collection, near[0], want, deep=deep)
            if question.fusion is not None and (worded := words_clause(question.fusion.words)):
                rows += self.engine.nearest(collection, first, RERANK, [*where, worded])
        is_sorted = question.vector is None or order.sort not in ("likeness", "most_changed")
        if is_sorted and order.among is None:
            if total <= SORTED_MAX:
                return rows + self.engine.scan(collection, where), ()
            if order.sort != "likeness":
                self._refuse(f"{total:,} items pass", f"At most {SORTED_MAX:,} are put in order", "Filter for less")
            rows += self.engine.scan(collection, where, stop=id_parts(total, LISTED)[0][1])
        if not order.is_plain and order.among is None and total > LISTED:
            text = f"{self.engine.name} lists the first {LISTED:,} of {total:,}: filter for the others."
            notices = (Notice(code="listed_first", text=text, values={"listed": LISTED, "total": total}),)
        return rows, notices

    def _refuse_words(self) -> NoReturn:
        self._refuse("Words alone are not searched", "Words together with a picture, and filters", "Add a picture")

    def _refuse(self, found: str, valid: str, remedy: str) -> NoReturn:
        raise BadRequest(f"{found}, and this index is in {self.engine.name}", valid=valid, remedy=remedy)

    def _count(self, base: EngineSnapshot, where: Where, filters: Filters) -> int:
        """How many items pass."""
        if not where or base.entry is None or base.touched_block is None:
            return base.images
        before = np.count_nonzero(base.touched_block.columns.mask(filters, base.types))
        changed = [(live, live.allowed(filters, base.types)) for live in base.blocks]
        now = sum(len(live) if mask is None else int(np.count_nonzero(mask)) for live, mask in changed)
        return max(0, self.engine.count(base.entry.collection, where) - int(before) + now)

    def facets(self, filters: Filters, text: str | None = None) -> FacetsAnswer:
        base = self._snapshot
        if not isinstance(base, EngineSnapshot) or base.entry is None:
            return super().facets(filters, text)
        if text is not None:
            self._refuse_words()
        if self._counts_of is not base:
            self._counts_of, self._counts = base, {}
        key, counts = msgspec.json.encode(filters), self._counts
        if key not in counts:
            counts[key] = self._counted(base, filters)
        return counts[key]

    def _counted(self, base: EngineSnapshot, filters: Filters) -> FacetsAnswer:
        where = clauses(filters, base.types)
        total = self._count(base, where, filters)
        if total > COUNTED_MAX:
            self._refuse(f"{total:,} items pass", f"At most {COUNTED_MAX:,} are counted by facets", "Filter for less")
        parts = [part for live in base.blocks for part in live.counts(live.allowed(filters, base.types), base.types)]
        for rows in self._parts(base, where):
            columns = self._block(base, rows).columns
            parts.append(FacetCounts.of(columns, columns.mask(filters, base.types), base.types))
        return FacetCounts.answer(parts)

    def _parts(self, base: EngineSnapshot, where: Where = (), *, full: bool = False) -> Iterator[list[Row]]:
        """The engine's rows of items that no commit changed, some at a time."""
        assert base.entry is not None
        changed = {row.id for row in base.touched}
        for start, stop in id_parts(self.engine.count(base.entry.collection, where), 1_000):
            rows = self.engine.scan(base.entry.collection, where, "all" if full else "none", start=start, stop=stop)
            yield [row for row in rows if row.id not in changed]

    def sample(self, limit: int) -> list[str]:
        base = self._snapshot
        here = super().sample(limit)
        if not isinstance(base, EngineSnapshot) or base.entry is None:
            return here
        stop = id_parts(base.images, 2 * limit)[0][1]
        rows = self.engine.scan(base.entry.collection, (), "none", stop=stop)
        ids = {row.id for row in rows} - {row.id for row in base.touched} | set(here)
        return sorted(ids)[:limit]

    def full_vectors(self) -> Iterator[tuple[Array, Array]]:
        yield from super().full_vectors()
        base = self._snapshot
        if isinstance(base, EngineSnapshot) and base.entry is not None:
            for rows in self._parts(base, full=True):
                if rows:
                    ids = np.frombuffer(bytes.fromhex("".join(row.id for row in rows)), np.uint8).reshape(-1, 16)
                    yield np.stack([row.full for row in rows]), ids

    def vector_of(self, item_id: str) -> Array | None:
        row = self._stored(item_id, "all")
        return super().vector_of(item_id) if row is None else row.full.astype(np.float32)

    def hashes_of(self, item_id: str) -> Array | None:
        row = self._stored(item_id, "none")
        base = self._snapshot
        if row is None or not isinstance(base, EngineSnapshot):
            return super().hashes_of(item_id)
        hashes: Array = EngineBlock.of(self.engine, "", [row], 0).hashes[0]
        return hashes

    def _stored(self, item_id: str, vectors: Vectors) -> Row | None:
        """The engine's row of an item; None if that is not the item as it is now."""
        base = self._snapshot
        if not isinstance(base, EngineSnapshot) or base.entry is None or item_id in {row.id for row in base.touched}:
            return None
        return next(iter(self.engine.get(base.entry.collection, [item_id], vectors)), None)


def _with(base: EngineSnapshot, block: EngineBlock) -> EngineSnapshot:
    """The snapshot with these rows of the engine, some of which are dead or changed."""
    assert base.pending is not None
    segments = [block] if len(block) else []
    blocks = apply_deletes(segments, [None] * len(segments), base.fresh, base.pending)
    # A listing needs a block, even an empty one.
    blocks = blocks or apply_deletes([block], [None], None, base.pending)
    return replace(base, blocks=blocks, images=sum(live.count for live in blocks))


def _thinned(blocks: Sequence[LiveBlock], step: int) -> tuple[LiveBlock, ...]:
    """The blocks, with one in `step` of the rows that no merge has taken up: the others were sampled at that rate."""
    thinned = []
    for live in blocks:
        alive = np.zeros(len(live), bool)
        alive[slice(None) if isinstance(live.block, EngineBlock) else slice(step // 2, None, step)] = True
        thinned.append(replace(live, alive=alive if live.alive is None else alive & live.alive))
    return tuple(thinned)
