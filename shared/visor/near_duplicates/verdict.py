"""The verdict: whether a match is the same image, an edited copy, or merely similar.

Sketches of the pixels and the vectors decide together. Evidence: docs/decisions/images-hash.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from visor.near_duplicates.alignment import Probe
from visor.near_duplicates.fingerprint import (
    CELLS,
    CHROMA_CELLS,
    PLANE,
    Bytes,
    cell_means,
    sketch_chroma,
    sketch_luma,
)

Verdict = Literal["exact", "edited", "similar"]

EXACT_LUMA_MAX = 9.0
"""Largest difference of any cell's luma (0…255; 4 of them are quantisation) between a picture and its re-encoding."""
EXACT_CHROMA_MAX = 3.5
"""The same for Cb and Cr of the coarse cells."""
EDITED_CORRELATION_MIN = 0.96
"""Correlation from which the query is an edited copy."""
EDITED_SIMILARITY_MIN = 0.5
"""Similarity below which sketches that fit do so by chance: two plain shirts on a floor. Of 1,280 edited images the
least similar to its original had 0.52; of chance fits among clothing, half have less."""
SAME_VECTOR_MIN = 0.995
"""Similarity from which a vector is that of the match's own image: of 786 photos in two labelled folders, the two most
similar have 0.989."""


class Found(Protocol):
    """What is looked at of a search's hit: its similarity, and its whole stored hash."""

    @property
    def similarity(self) -> float: ...

    @property
    def hash(self) -> bytes: ...


def classify_matches(
    probe: Probe | None, hits: Sequence[Found], stored: np.ndarray | None = None, *, by_metric: bool = False
) -> list[Verdict]:
    """A verdict for each hit; merely similar where there is nothing to compare with.

    Args:
        probe: The image that was searched for, if it was one. Otherwise an indexed image's sketch stands in.
        hits: Nearest first.
        stored: Hash of the item that was searched for, if it was one. A vector (a link to an answer) has none: the
            first match's stands in where the vectors are the same.
        by_metric: The similarities are those of a named metric, on another scale, so the sketches decide alone.
    """
    if probe is None and stored is None and hits and not by_metric and hits[0].similarity >= SAME_VECTOR_MIN:
        stored = np.frombuffer(hits[0].hash, np.uint8)
    if probe is None and stored is not None:
        probe = Probe(sketch_picture(stored))
    if probe is None or not hits:
        return ["similar"] * len(hits)
    found: list[Verdict] = []
    hashes = np.stack([np.frombuffer(hit.hash, np.uint8) for hit in hits])
    for verdict, hit in zip(verdicts(probe, hashes), hits, strict=True):
        by_chance = verdict == "edited" and not by_metric and hit.similarity < EDITED_SIMILARITY_MIN
        # A sketch shown as an image loses its brightest colours, and would no longer be its own.
        is_itself = stored is not None and hit.hash == stored.tobytes()
        found.append("exact" if is_itself else "similar" if by_chance else verdict)
    return found


def verdicts(probe: Probe, hashes: Bytes) -> list[Verdict]:
    """What each candidate is to the query.

    Args:
        probe: The query. Without its pixels, `Probe(sketch_picture(hash))` stands in.
        hashes: (k, HASH_BYTES) uint8 of `perceptual_hash`.
    """
    if len(hashes) == 0:
        return []
    same = _same(probe, hashes)
    copied = probe.lay_over(sketch_luma(hashes), enough=EDITED_CORRELATION_MIN) >= EDITED_CORRELATION_MIN
    return ["exact" if s else "edited" if c else "similar" for s, c in zip(same, copied, strict=True)]


def sketch_picture(one: Bytes) -> Image.Image:
    """A (PLANE, PLANE) RGB picture of a hash (HASH_BYTES,) whose own hash has the same sketch, but for rounding."""
    luma = sketch_luma(one[None]).reshape(CELLS, CELLS)
    cb, cr = sketch_chroma(one[None]).reshape(2, CHROMA_CELLS, CHROMA_CELLS)
    planes = [np.kron(p, np.ones((PLANE // len(p), PLANE // len(p)))) for p in (luma, cb, cr)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8), mode="YCbCr").convert("RGB")


def _same(probe: Probe, hashes: Bytes) -> np.ndarray:
    """(k,) bool: the sketches differ by no more than re-encoding and resizing make them."""
    luma = cell_means(probe.planes[..., 0], CELLS).ravel()
    chroma = np.stack([cell_means(probe.planes[..., channel], CHROMA_CELLS).ravel() for channel in (1, 2)])
    luma_off = np.abs(sketch_luma(hashes) - luma).max(axis=1)
    chroma_off = np.abs(sketch_chroma(hashes) - chroma).max(axis=(1, 2))
    same: np.ndarray = (luma_off <= EXACT_LUMA_MAX) & (chroma_off <= EXACT_CHROMA_MAX)
    return same
