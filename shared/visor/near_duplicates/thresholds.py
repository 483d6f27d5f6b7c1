"""When two images are the same: every threshold that decides it. Evidence: docs/decisions/images-hash.md.

Bits are of PDQ, 0 to 256; two unrelated images differ in about 128. Similarities are cosines of the model's vectors.
Luma and chroma run from 0 to 255.

| question | asked by | answered with |
| --- | --- | --- |
| Are two items near-duplicates, shown as one match? | search, merge, link check | `SAME_BITS` and `SAME_SIMILARITY` |
| Is a frame of a video a repetition? | video | `SAME_BITS` |
| Is it the same image as the query (`exact`)? | verdict | `EXACT_LUMA_MAX` and `EXACT_CHROMA_MAX` |
| Is it an edited copy of the query (`edited`)? | verdict | `EDITED_CORRELATION_MIN` and `EDITED_SIMILARITY_MIN` |
| Is a vector without an image the match's own? | verdict | `SAME_VECTOR_MIN` |
| Is a neighbour a copy, which says nothing about its kind? | confidence | `copy_from` |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAME_BITS = 24
"""Most bits in which near-duplicates differ (with Facebook's own 31, flat drawings match each other)."""
SAME_SIMILARITY = 0.9
"""Least similarity of near-duplicates."""
EXACT_LUMA_MAX = 9.0
"""Largest difference of any cell's luma (4 of it is quantisation) between an image and its re-encoding."""
EXACT_CHROMA_MAX = 3.5
"""The same for Cb and Cr of the coarse cells."""
EDITED_CORRELATION_MIN = 0.96
"""Least correlation of sketches, and nearly of their edges, from which the query is an edited copy."""
EDITED_SIMILARITY_MIN = 0.5
"""Similarity below which sketches fit by chance: two plain shirts on a floor. Of 1,280 edited images the least similar
to its original had 0.52; of chance fits among clothing, half have less."""
SAME_VECTOR_MIN = 0.999
"""Similarity from which a vector is that of the match's own image, which has 0.9999 with itself: of 786 photos in two
labelled folders, the two most similar have 0.986, by Inception alone 0.996, by a network without training 0.9989."""
COPY_CONFIDENCE: dict[str, float] = {"exact": 0.99, "edited": 0.95, "similar": 0.0}
"""Confidence that a verdict alone gives: `visor bench copies` measures how often verdicts are right."""
COPY_DISTANCE = 0.03
"""Cosine distance, as a share of the mean distance between any two pictures, up to which a row shows the same image
again."""

COPY_MOST = 0.9999
"""Similarity that equal vectors reach, however they were rounded."""

# How a sketch and an image are aligned.
COVERED_MIN = 0.3
"""Least share of a candidate's cells that a hypothesis must cover."""
CONTRAST_FLOOR = 4.0
"""Standard deviation of luma below which cells count as flat: noise and quantisation, not likeness."""
CONTRAST_LARGE = 20.0
"""Standard deviation of luma from which on the unexplained luma is evidence enough."""
EDGES_SLACK = 0.04
"""How much less the edges between cells may correlate than the cells themselves (docs/decisions/images-hash.md)."""
REST_SCALE, SMALL_REST_SCALE = 300.0, 175.0
"""Unexplained luma, as a standard deviation over cells (0…255), at which a fit has fallen from 1 to 0: 12 cost .04. The
small one, by which 7 cost as much, is for candidates whose edges correlate less."""
GAIN_MAX = 2.0
"""Greatest factor by which an edit makes contrast larger or smaller."""
REFINED_WITHIN = 0.1
"""A fit at most this far below what would be enough is worth refining the candidate's place."""
SMALL = 160
"""Pixels on the longer side of an image that is rotated."""
ANGLES = (-10.0, -7.5, -5.0, -2.5, 2.5, 5.0, 7.5, 10.0)


def copy_from(mean: NDArray[np.floating]) -> float:
    """Similarity from which a row shows the same image again.

    Args:
        mean: (m,) of the catalogue's unit vectors.
    """
    return min(1 - COPY_DISTANCE * (1 - float(mean @ mean)), COPY_MOST)
