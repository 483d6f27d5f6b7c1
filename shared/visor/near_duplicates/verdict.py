"""Whether a match is the same picture, an edited copy, or merely similar. Evidence: docs/decisions/images-hash.md."""

from __future__ import annotations

from typing import Literal

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
