"""The words of a query, and where texts of items contain them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from visor.index.format.container import Array
from visor.index.words.analysis import terms_of, words_of
from visor.schema.search import Highlight

TOLD = ("description", "labels")
"""Fields that describe an item without naming it."""
TYPO_FROM = 5
"""Letters of a word in the catalogue from which on one may be wrong, or missing."""
TYPO_TO = 80
"""Letters of a word in a query up to which one may be wrong: words near to one of 7,200 letters take seconds."""
AROUND = 80
"""Characters of a long text that are shown before and after the first word that matched."""


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A word of a query, as this catalogue has it.

    own: terms that are it, or another form of it. ways: the weight of each term of a field by which it is found,
    including words that begin with it. typos: terms by which it is found with one letter wrong, if no item has it as
    typed; first the word itself, then its stems. is_prefix: the word is the beginning of a word. weight: its rarity,
    the natural logarithm of how much rarer it is than a word that is everywhere.
    """

    is_extra: bool
    own: frozenset[str]
    ways: Mapping[tuple[str, str], float]
    typos: tuple[str, ...]
    is_prefix: bool
    weight: float

    @property
    def guesses(self) -> frozenset[str]:
        """Terms of the words that begin with it."""
        return frozenset(term for _, term in self.ways) - self.own

    def meets(self, terms: Sequence[str], *, guessed: bool) -> bool:
        """Whether a word of a text, by its terms, is this one; if `guessed`, whether it begins with this one, or
        differs by one letter."""
        if not guessed:
            return bool(self.ways) and not self.own.isdisjoint(terms)
        return not self.guesses.isdisjoint(terms) or any(
            _is_near(typo, term, self.is_prefix and not number and len(typo) >= TYPO_FROM)
            for number, typo in enumerate(self.typos)
            for term in terms
            if len(typo) >= TYPO_FROM or len(term) == TYPO_FROM
        )


@dataclass(frozen=True, slots=True)
class Found:
    """The rows that contain words of the query, the best first.

    owners (r,), rows (r,) int64: block and row. scores (r,) float32: BM25.
    """

    owners: Array
    rows: Array
    scores: Array


@dataclass(frozen=True, slots=True)
class Met:
    """How much of a query's text an item contains, or each of (r,) items: shares of its words from 0 to 1, each
    weighted by its rarity.

    said: in any field. named: outside of `TOLD`; names: by how many words. guessed: found only because a word was not
    typed to its end, or with one letter wrong. words: how many the query has.
    """

    said: Array | float
    named: Array | float
    names: Array | int
    guessed: Array | float
    words: int


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A query's words, as this catalogue has them. languages: those in which its words are stemmed."""

    words: tuple[QueryWord, ...]
    languages: tuple[str, ...]

    @property
    def weight(self) -> float:
        """The weight of all words together."""
        return sum(word.weight for word in self.words if not word.is_extra)

    @property
    def count(self) -> int:
        """Number of the words."""
        return sum(not word.is_extra for word in self.words)

    def where(self, texts: Mapping[str, str]) -> tuple[tuple[Highlight, ...], Met]:
        """Where the words are in these texts by field, and how much of the query that is."""
        met: set[int] = set()
        named: set[int] = set()
        sure: set[int] = set()
        shown = []
        for name, text in texts.items():
            spans = []
            for word in words_of(text):
                terms = terms_of(word.text, self.languages)
                own = {number for number, wanted in enumerate(self.words) if wanted.meets(terms, guessed=False)}
                here = own | {number for number, wanted in enumerate(self.words) if wanted.meets(terms, guessed=True)}
                if here:
                    met |= here
                    sure |= own
                    named |= here if name not in TOLD else set()
                    spans.append((word.start, word.end))
            if spans:
                shown.append(_cut(name, text, _joined(spans)))
        names = sum(not self.words[number].is_extra for number in named)
        return tuple(shown), Met(self._share(met), self._share(named), names, self._share(met - sure), self.count)

    def _share(self, numbers: Collection[int]) -> float:
        words = (self.words[number] for number in numbers)
        return sum(word.weight for word in words if not word.is_extra) / (self.weight or 1)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, with overlapping ones merged."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            start, end = joined[-1][0], max(end, joined.pop()[1])
        joined.append((start, end))
    return joined


def _cut(name: str, text: str, spans: list[tuple[int, int]]) -> Highlight:
    """The part of a text around the first of these spans, in whole words."""
    first, last = max(0, spans[0][0] - AROUND), min(len(text), spans[0][1] + 2 * AROUND)
    if first:
        first = text.find(" ", first, spans[0][0]) + 1 or first
    if last < len(text):
        last = max(text.rfind(" ", spans[0][1], last), spans[0][1])
    inside = tuple((start - first, end - first) for start, end in spans if end <= last)
    return Highlight(field=name, text=text[first:last], spans=inside)


def _is_near(word: str, other: str, is_prefix: bool) -> bool:
    """Whether one edit (a letter added, removed or replaced, or two exchanged) turns one word into the other, or into
    its beginning."""
    if is_prefix:
        return any(_is_near(word, other[:length], False) for length in range(len(word) - 1, len(word) + 2))
    if word[:1] == other[:1] and word:
        return _is_near(word[1:], other[1:], False)
    if word[-1:] == other[-1:] and word:
        return _is_near(word[:-1], other[:-1], False)
    return max(len(word), len(other)) <= 1 or (len(word) == 2 and word == other[::-1])
