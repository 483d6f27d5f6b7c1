"""The constants of a sketch, and of the alignment of two. Nothing here needs a picture."""

from __future__ import annotations

from visor.near_duplicates.hamming import PDQ_BYTES

CELLS = 12
"""Luma cells along each side."""
CHROMA_CELLS = 3
LUMA_BITS = 5
PLANE = 96
"""Pixels along each side of the square that cells are averaged in; a multiple of both numbers of cells."""
HASH_BYTES = PDQ_BYTES + CELLS * CELLS * LUMA_BITS // 8 + 2 * CHROMA_CELLS * CHROMA_CELLS

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
