"""How sure an answer to words is, alone and beside a picture.

Fitted on half of the questions to two catalogues (titles, categories, parts of descriptions, typos, and the same of
what is not there) and on half of the photos of one (docs/decisions/words.md).
"""

from __future__ import annotations

import numpy as np

from visor.index.format.container import Array
from visor.index.words.query import Met

ALL, MISSING, TOLD, GUESSED = 3.75, 5.75, 12.0, 2.0
"""Log-odds of an item whose name is all that was asked for; and what they lose where a word is missing, where one is
only told of the item, divided by how many words were asked for, and where all are guessed. Where one word names it, the
others may be told: `green apple`. Where two do, they are part of a name that goes on otherwise: `green bell pepper`."""
PART = 0.2
"""Share of what was asked for that counts like a whole word."""
CHOSEN, AS_MUCH = 2.3, 0.77
"""How much the odds of a picture's match rise when only those are left that say as much, and the power of their number
by which they fall again."""


def words_confidence(met: Met, pictured: Array | float | None = None, as_much: int = 1) -> Array:
    """Probability (r,) that an item is what was asked for, from what it says of it.

    Args:
        pictured: (r,) The same from the picture that was asked for as well; None: from words alone.
        as_much: How many items say as much.
    """
    missing, told = (np.minimum(1.0, share / PART) for share in (1.0 - met.said, met.said - met.named))
    said = sigmoid(
        ALL - MISSING * missing - TOLD * told * (met.names != 1) / max(met.words, 1) - GUESSED * met.guessed
    ) * (met.said > 0)
    if pictured is None:
        return said
    picture = np.clip(pictured, 1e-6, 1 - 1e-6)
    chosen = sigmoid(np.log(picture / (1 - picture)) + CHOSEN - AS_MUCH * np.log(as_much)) if as_much > 1 else 1.0
    return np.maximum(pictured, said * chosen)


def sigmoid(odds: Array) -> Array:
    return 1 / (1 + np.exp(-odds))
