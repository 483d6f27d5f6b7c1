"""Grouping: candidates that show the same picture become one result with its list of places."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from visor.index.format.container import Array
from visor.index.format.ids import id_text
from visor.index.search.candidates import Candidates
from visor.index.search.hits import DUPLICATES_MAX, Hit
from visor.near_duplicates.hamming import first_duplicate, hash_distances
from visor.near_duplicates.thresholds import SAME_SIMILARITY


def group(
    found: Candidates, vectors: Array, k: int, query_hash: Array | None, leave_out: Collection[str]
) -> tuple[Hit, ...]:
    """The first k different pictures.

    Args:
        found: Nearest first.
        vectors: (len(found), m) float32, what `found.unit_vectors` gives.
        query_hash: (≥ 32,) uint8, or None.
        leave_out: Ids that are no places either.
    """
    if not len(found):
        return ()
    hashes = found.hashes()
    distances = hash_distances(hashes, query_hash) if query_hash is not None else None
    members: dict[int, list[int]] = {}
    for place, first in enumerate(first_duplicate(hashes, vectors).tolist()):
        members.setdefault(first, []).append(place)
    hits = []
    for first, places in islice(members.items(), k):
        own, *copies = [id_text(found.ids[place]) for place in places]
        others = dict.fromkeys(copies)
        others |= dict.fromkeys(i for i in _stored_copies(found, first, vectors[first]) if i not in leave_out)
        others.pop(own, None)
        hits.append(
            Hit(
                id=own,
                similarity=float(found.similarities[first]),
                hash_distance=None if distances is None else int(distances[first]),
                duplicates=tuple(islice(others, DUPLICATES_MAX)),
                hash=hashes[first].tobytes(),
            )
        )
    return tuple(hits)


def _stored_copies(found: Candidates, place: int, vector: Array) -> list[str]:
    """Ids of rows that a merge grouped with this one, if they may be shown and their vectors agree."""
    owner = int(found.owners[place])
    block, allowed = found.lives[owner].block, found.allowed[owner]
    rows = block.group_of(int(found.rows[place]))
    rows = rows if allowed is None else rows[allowed[rows]]
    if not len(rows):
        return []
    same = block.unit_vectors(rows) @ vector >= SAME_SIMILARITY
    return [id_text(block.ids[row]) for row in rows[same]]
