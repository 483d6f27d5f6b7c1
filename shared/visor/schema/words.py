"""English words: comparing the words of a text with the names of labels, and writing counts."""

from __future__ import annotations

import re

WORDS_MAX = 24
"""Words kept of one text."""
NAME_WORDS_MAX = 4
"""A label's name with more words is an explanation."""
_WORD = re.compile(r"[^\W\d_]{2,}")
_ASIDE = re.compile(r"\(.*?\)")
_STOP = frozenset(
    {"a", "an", "the", "of", "or", "and", "in", "on", "with", "for", "to", "is", "it", "its", "by", "as", "at", "from"}
    | {"that", "this", "having", "used", "one", "very", "small", "large"}
)


def stem(word: str) -> str:
    """A lower-case English word without its plural ending; words of other languages mostly stay as they are."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith(("oes", "sses", "shes", "ches", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def counted(count: int, thing: str) -> str:
    """A number with what it counts: `1 item`, `2,000 items`, `0 batches`, `2 queries`."""
    if count == 1:
        return f"1 {thing}"
    plural = re.sub("(?<![aeiou])y$", "ie", thing) + ("es" if thing.endswith(("ch", "sh", "s", "x")) else "s")
    return f"{count:,} {plural}"


def sureness(probability: float) -> str:
    """A probability in [0, 1] as a whole percentage, never 0% or 100%, as on the page: nothing is that sure."""
    return "<1%" if probability < 0.01 else ">99%" if probability > 0.99 else f"{probability:.0%}"


def stems(text: str) -> tuple[str, ...]:
    """Stems of the different words of a text, in order, without stop words; at most 24."""
    found = dict.fromkeys(stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP)
    return tuple(found)[:WORDS_MAX]


def name_weights(names: tuple[str, ...]) -> dict[str, float]:
    """Weight of each word of a label's names: 1 / number of words in the shortest name that has it."""
    weights: dict[str, float] = {}
    for name in names:
        words = stems(_ASIDE.sub("", name))
        for word in words if len(words) <= NAME_WORDS_MAX else ():
            weights[word] = max(weights.get(word, 0.0), 1 / len(words))
    return weights
