"""Content labels as people read them: short names, and which of an item's labels it can be filtered by."""

from __future__ import annotations

import re

FACET_MIN = 0.6
"""Probability from which an item can be filtered by a label: of 82 such labels of the demo's 534 drawings, 61 % occur
in the title or description; below it, labels like 'hair clip' and 'swim trunks' prevail."""
FACET_AGREEING_MIN = 0.2
"""The same for a label that a word of the title or the collection confirms."""

_NAMES = {
    "a cat having a striped coat": "tiger cat",
    "fruiting spike of a cereal plant": "ear of grain",
    "tights for gymnastics, a one-piece leotard, or a sport jersey": "leotard",
}
"""Names for labels for which the list of names has an explanation instead."""
_GLOSS = re.compile(r" \(| / |, ")


def short_name(label: str) -> str:
    """The first synonym, without an explanation: 'handrail / baluster' becomes 'handrail'."""
    return _NAMES.get(label) or _GLOSS.split(label, maxsplit=1)[0]


def is_facet(label: str, probability: float, *texts: str | None) -> bool:
    """Whether an item can be filtered by one of its labels.

    Args:
        texts: The item's title and collection.
    """
    if probability >= FACET_MIN:
        return True
    said = _words(" ".join(text for text in texts if text))
    return probability >= FACET_AGREEING_MIN and not said.isdisjoint(_words(label))


def _words(text: str) -> set[str]:
    """The words in lower case, plurals as singulars."""
    return {_singular(word) for word in re.findall(r"[^\W\d_]{3,}", text.lower())}


def _singular(word: str) -> str:
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("oes", "o")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
