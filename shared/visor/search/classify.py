"""What a match is to the query: by the pixels' sketches and by the vectors together."""

from __future__ import annotations

import numpy as np

from visor.index.search.hits import Hits
from visor.near_duplicates.alignment import Probe
from visor.near_duplicates.verdict import Verdict, sketch_picture, verdicts

EDITED_SIMILARITY_MIN = 0.5
"""Similarity below which sketches that fit do so by chance: two plain shirts on a floor. Of 1,280 edited pictures the
least similar to its original had 0.52; of chance fits among clothing, half have less."""
SAME_VECTOR_MIN = 0.995
"""Similarity from which a vector is that of the match's own picture: of 786 photos in two labelled folders, the two
likest have 0.989."""


def told_apart(probe: Probe | None, hits: Hits, stored: np.ndarray | None = None) -> list[Verdict]:
    """A verdict for each hit; merely similar where there is nothing to lay over them.

    Similarities of a named metric are on another scale, so there the sketches decide alone.

    Args:
        probe: The picture that was searched for, if it was one. Otherwise an indexed picture's sketch stands in.
        stored: Hash of the item that was searched for, if it was one. A vector (a link to an answer) has none: the
            first match's stands in where the vectors are the same.
    """
    if probe is None and stored is None and hits.hits and hits.metric is None:
        first = hits.hits[0]
        stored = np.frombuffer(first.hash, np.uint8) if first.similarity >= SAME_VECTOR_MIN else None
    if probe is None and stored is not None:
        probe = Probe(sketch_picture(stored))
    if probe is None or not hits.hits:
        return ["similar"] * len(hits.hits)
    seen = verdicts(probe, np.stack([np.frombuffer(hit.hash, np.uint8) for hit in hits.hits]))
    told: list[Verdict] = []
    for verdict, hit in zip(seen, hits.hits, strict=True):
        by_chance = verdict == "edited" and hits.metric is None and hit.similarity < EDITED_SIMILARITY_MIN
        # A sketch shown as a picture loses its brightest colours, and would no longer be its own.
        is_itself = stored is not None and hit.hash == stored.tobytes()
        told.append("exact" if is_itself else "similar" if by_chance else verdict)
    return told
