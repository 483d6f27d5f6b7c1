"""The verdict: whether a match is the same image as the query, an edited copy of it, or merely similar.

Sketches of the pixels and the vectors decide together. Evidence: docs/decisions/images-hash.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from visor.near_duplicates.alignment import Aligner
from visor.near_duplicates.fingerprint import (
    CELLS,
    CHROMA_CELLS,
    HASH_BYTES,
    PLANE,
    Bytes,
    cell_means,
    sketch_chroma,
    sketch_luma,
)
from visor.near_duplicates.thresholds import (
    EDITED_CORRELATION_MIN,
    EDITED_SIMILARITY_MIN,
    EXACT_CHROMA_MAX,
    EXACT_LUMA_MAX,
    SAME_VECTOR_MIN,
)

Verdict = Literal["exact", "edited", "similar"]


def classify_matches(
    similarities: Sequence[float],
    hashes: Sequence[bytes],
    *,
    aligner: Aligner | None,
    query_hash: bytes | None = None,
    metric: str | None = None,
) -> list[Verdict]:
    """A verdict for each of k matches; `similar` if there is nothing to align with them.

    Args:
        similarities: (k,) to the query; NaN if only words were searched for.
        hashes: (k,) of `perceptual_hash`.
        aligner: The image that was searched for, if it was one. Otherwise a stored sketch is used.
        query_hash: Hash of the item that was searched for, if it was one. A vector (a link to an answer) has none: the
            nearest match's is used if the vectors are the same.
        metric: A named metric, whose similarities are on another scale, so that the sketches decide alone.
    """
    if aligner is None and query_hash is None and metric is None and hashes:
        nearest = int(np.argmax(similarities))
        query_hash = hashes[nearest] if similarities[nearest] >= SAME_VECTOR_MIN else None
    if aligner is None and query_hash is not None:
        aligner = Aligner(sketch_picture(np.frombuffer(query_hash, np.uint8)))
    if aligner is None:
        return ["similar"] * len(hashes)
    rows = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), HASH_BYTES)
    # Sketches of less similar images fit by chance, so they are not aligned.
    near = [metric is not None or similarity >= EDITED_SIMILARITY_MIN for similarity in similarities]
    return verdicts(aligner, rows, near)


def verdicts(aligner: Aligner, hashes: Bytes, near: Sequence[bool] | None = None) -> list[Verdict]:
    """The verdict of the sketches on each candidate.

    Args:
        aligner: The query. Without its pixels, use `Aligner(sketch_picture(hash))`.
        hashes: (k, HASH_BYTES) uint8 of `perceptual_hash`.
        near: Which of them may be edited copies; all if None.
    """
    if len(hashes) == 0:
        return []
    same = _same(aligner, hashes)
    copied = ~same if near is None else ~same & np.array(near)
    if copied.any():
        fits = aligner.best_fit(sketch_luma(hashes[copied]), enough=EDITED_CORRELATION_MIN)
        copied[copied] = fits >= EDITED_CORRELATION_MIN
    return ["exact" if s else "edited" if c else "similar" for s, c in zip(same, copied, strict=True)]


def sketch_picture(one: Bytes) -> Image.Image:
    """A (PLANE, PLANE) YCbCr image of a hash (HASH_BYTES,), which is aligned like its picture: as RGB it would lose its
    brightest colours."""
    luma = sketch_luma(one[None]).reshape(CELLS, CELLS)
    cb, cr = sketch_chroma(one[None]).reshape(2, CHROMA_CELLS, CHROMA_CELLS)
    planes = [np.kron(p, np.ones((PLANE // len(p), PLANE // len(p)))) for p in (luma, cb, cr)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8), mode="YCbCr")


def _same(aligner: Aligner, hashes: Bytes) -> np.ndarray:
    """(k,) bool: the sketches differ by no more than re-encoding and resizing cause."""
    luma = cell_means(aligner.planes[..., 0], CELLS).ravel()
    chroma = np.stack([cell_means(aligner.planes[..., channel], CHROMA_CELLS).ravel() for channel in (1, 2)])
    luma_off = np.abs(sketch_luma(hashes) - luma).max(axis=1)
    chroma_off = np.abs(sketch_chroma(hashes) - chroma).max(axis=(1, 2))
    same: np.ndarray = (luma_off <= EXACT_LUMA_MAX) & (chroma_off <= EXACT_CHROMA_MAX)
    return same
