"""How sure an answer to words is, alone and with a picture.

Fitted on half of the queries to two catalogues (titles, categories, parts of descriptions, typos, and the same of
items that are not there) and on half of the photos of one (docs/decisions/words.md).
"""

from __future__ import annotations

import numpy as np

from visor.confidence.features import sigmoid
from visor.index.format.container import Array
from visor.index.words.query import Met

ALL, MISSING, TOLD, GUESSED = 3.75, 5.75, 12.0, 2.0
"""Log-odds of an item whose name is exactly the query; and what they lose if a word is missing, if one only describes
the item (divided by the number of words in the query), and if all are guessed. If one word names it, the others may
describe it: `green apple`. If two do, they are part of a name that continues differently: `green bell pepper`."""
PART = 0.2
"""Share of the query that counts like a whole word."""
CHOSEN, AS_MUCH = 2.3, 0.77
"""How much the odds of a picture's match rise if only items that say as much are left, and the power of their number
by which they fall again."""


def words_confidence(met: Met, pictured: Array | float | None = None, as_much: int = 1) -> Array:
    """Probability (r,) that an item is what was searched for, from what it says of it.

    Args:
        pictured: (r,) The same from the picture that was also searched for; None: from words alone.
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
