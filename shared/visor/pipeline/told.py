"""What a match is to the query: by the pixels' sketches and by the vectors together."""

from __future__ import annotations

import numpy as np

from visor.images.align import Probe
from visor.images.verdict import Verdict, verdicts
from visor.index.hits import Hits

EDITED_SIMILARITY_MIN = 0.5
"""Similarity below which sketches that fit do so by chance: two plain shirts on a floor. Of 1,280 edited pictures the
least similar to its original had 0.52; of chance fits among clothing, half have less."""


def told_apart(probe: Probe | None, hits: Hits) -> list[Verdict]:
    """A verdict for each hit; merely similar where the query was no picture.

    Similarities of a named metric are on another scale, so there the sketches decide alone.
    """
    if probe is None or not hits.hits:
        return ["similar"] * len(hits.hits)
    seen = verdicts(probe, np.stack([np.frombuffer(hit.hash, np.uint8) for hit in hits.hits]))
    told: list[Verdict] = []
    for verdict, hit in zip(seen, hits.hits, strict=True):
        by_chance = verdict == "edited" and hits.metric is None and hit.similarity < EDITED_SIMILARITY_MIN
        told.append("similar" if by_chance else verdict)
    return told
