"""Words in a search: the rows that contain them, alone or together with the rows near a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from visor.index.format.container import Array
from visor.index.format.ids import sort_order
from visor.index.format.segment import Segment
from visor.index.search.snapshot import LiveBlock, Snapshot
from visor.index.words.query import Met, TextQuery
from visor.index.words.text_index import Part, Score, TextIndex, Texts, Words, texts_of

TEXT_WEIGHT, TEXT_WEIGHT_ACROSS = 0.4, 1.5
"""Similarity that saying all the words of a query is worth, in cosines and across the gap (docs/decisions/words.md)."""
TEXT_REST = 0.1
"""… and the part of it that saying them best adds."""
AS_MUCH = 0.02
"""Rows that differ by at most this share of the query's words say as much as each other."""


def open_words(snapshot: Snapshot, languages: tuple[str, ...]) -> Words:
    """The words of a snapshot: those of its segments, and of all newer items, which are read into an index in memory.

    Args:
        languages: Those in which newer items are stemmed; segments know theirs.
    """
    parts: list[Part] = []
    unknown = 0
    texts: list[Texts | None] = []
    owners: list[int] = []
    rows: list[int] = []
    for number, live in enumerate(snapshot.blocks):
        here = dict(zip(live.overlay_rows.tolist(), texts_of(live.overlay), strict=True)) if live.overlay else {}
        here = {row: text for row, text in here.items() if text is not None}
        if isinstance(live.block, Segment):
            words = live.block.words
            is_readable = words is None or words.index is not None
            unknown += max(0, (live.block.unknown_texts if is_readable else len(live)) - len(here))
            if words is not None and words.index is not None:
                hidden = np.zeros(len(live), bool)
                hidden[list(here)] = True
                owner = np.broadcast_to(np.int64(number), len(live))
                parts.append(Part(words.index, words.languages, owner, np.arange(len(live)), hidden))
        else:
            here = dict(enumerate(texts_of(live.block.columns))) | here
            unknown += sum(text is None for text in here.values())
        texts += here.values()
        owners += [number] * len(here)
        rows += here
    if texts:
        ids = np.stack([snapshot.blocks[owner].block.ids[row] for owner, row in zip(owners, rows, strict=True)])
        order = sort_order(ids)
        fresh = TextIndex.of((texts[place] for place in order.tolist()), languages)
        parts.append(Part(fresh, languages, np.array(owners, np.int64)[order], np.array(rows, np.int64)[order]))
    return Words(parts, unknown)


@dataclass(frozen=True)
class Said:
    """What the rows of a snapshot say of a query: rows (r,) int64 of each block in rising order, their BM25 (r,)
    float32, and what each adds to a similarity (r,) float32. most: how many rows say as much as the best."""

    rows: Sequence[Array]
    scores: Sequence[Array]
    added: Sequence[Array]
    most: int

    @classmethod
    def of(cls, words: Words, query: TextQuery, blocks: int, weight: float) -> Said:
        """weight: what saying all words is worth."""
        by_row, rows, scores, added = [], [], [], []
        for found in (words.find(query, None), words.find(query, None, "shares")):
            order = np.lexsort((found.rows, found.owners))
            by_row.append(found.scores[order])
        together = weight * (by_row[1] + TEXT_REST * by_row[0] / by_row[0].max(initial=1e-9))
        bounds = np.searchsorted(found.owners[order], np.arange(blocks + 1))
        for start, stop in pairwise(bounds):
            rows.append(found.rows[order][start:stop])
            scores.append(by_row[0][start:stop])
            added.append(together[start:stop].astype(np.float32))
        most = int(np.count_nonzero(by_row[1] >= by_row[1].max(initial=0.0) - AS_MUCH))
        return cls(rows, scores, added, most)

    def met(self, words: Words, query: TextQuery) -> list[Met]:
        """What each of `rows` says of the query, by block."""
        shares = []
        scores: tuple[Score, ...] = ("said", "named", "names", "own")
        for score in scores:
            found, of_blocks = words.find(query, None, score), []
            for number, rows in enumerate(self.rows):
                mine = found.owners == number
                of_blocks.append(share := np.zeros(len(rows), np.float32))
                share[np.searchsorted(rows, found.rows[mine])] = found.scores[mine]
            shares.append(of_blocks)
        return [
            Met(said, named, names, said - own, query.count) for said, named, names, own in zip(*shares, strict=True)
        ]

    def of_rows(self, values: Sequence[Array], number: int, rows: Array) -> Array:
        """(len(rows),) float32 of rows of one block, 0 for rows that say nothing. values: `scores` or `added`."""
        known = self.rows[number]
        if not len(known):
            return np.zeros(len(rows), np.float32)
        places = np.minimum(np.searchsorted(known, rows), len(known) - 1)
        return np.where(known[places] == rows, values[number][places], np.float32(0))

    def masks(self, blocks: Sequence[LiveBlock], allowed: Sequence[Array | None]) -> list[Array | None]:
        """For each block the rows that say something and are allowed."""
        return [self.mask(number, len(live), allowed[number]) for number, live in enumerate(blocks)]

    def mask(self, number: int, count: int, allowed: Array | None, best: int | None = None) -> Array:
        """(count,) bool: the rows of a block that say something and are allowed, or the best of them."""
        rows, scores = self.rows[number], self.added[number]
        keep = np.ones(len(rows), bool) if allowed is None else allowed[rows]
        rows, scores = rows[keep], scores[keep]
        if best is not None and len(rows) > best:
            rows = rows[np.argsort(-scores, kind="stable")[:best]]
        mask = np.zeros(count, bool)
        mask[rows] = True
        return mask
