"""What was asked for in words, and where it is said."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from visor.index.format.container import Array
from visor.index.words.analysis import terms_of, words_of
from visor.schema.search import Highlight

TOLD = ("description", "labels")
"""Fields that tell of a thing what it need not be called."""
TYPO_FROM = 5
"""Letters of a word of the catalogue from which one may be wrong, or missing."""
TYPO_TO = 80
"""Letters of a word that is searched for up to which one may be wrong: what is near to 7,200 takes seconds to find."""
AROUND = 80
"""Characters of a long text that are shown before and behind the first word that met."""


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A word that is searched for, as this catalogue has it.

    own: terms that are it, or another form of it. ways: what each term of a field that it is found by is worth, also of
    words that it begins. typos: terms that it is found by with a letter wrong, where nothing has it as it stands; first
    the word itself, then its stems. is_prefix: the word is a beginning. weight: its rarity, the natural logarithm of
    how much rarer than everywhere it is.
    """

    is_extra: bool
    own: frozenset[str]
    ways: Mapping[tuple[str, str], float]
    typos: tuple[str, ...]
    is_prefix: bool
    weight: float

    @property
    def guesses(self) -> frozenset[str]:
        """Terms of the words that it begins."""
        return frozenset(term for _, term in self.ways) - self.own

    def meets(self, terms: Sequence[str], *, guessed: bool) -> bool:
        """Whether a word of a text, by its terms, is what is searched for; if `guessed`, whether it goes on as that
        begins, or is that but for a letter."""
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
    """The rows that say what was asked for, the best first.

    owners (r,), rows (r,) int64: block and row. scores (r,) float32: BM25. is_cut: there are more.
    """

    owners: Array
    rows: Array
    scores: Array
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Met:
    """What of a text that was asked for an item says, or each of (r,) items, as shares of its words from 0 to 1, each
    counted by its rarity.

    said: anywhere. named: outside of `TOLD`; names: by how many words. guessed: said only if a word was not typed to
    its end, or with a letter wrong. words: how many were asked for.
    """

    said: Array | float
    named: Array | float
    names: Array | int
    guessed: Array | float
    words: int


@dataclass(frozen=True, slots=True)
class TextQuery:
    """What was asked for, as this catalogue has it. languages: what its words are stemmed in."""

    words: tuple[QueryWord, ...]
    languages: tuple[str, ...]

    @property
    def weight(self) -> float:
        """Of all words together."""
        return sum(word.weight for word in self.words if not word.is_extra)

    @property
    def count(self) -> int:
        """Of the words."""
        return sum(not word.is_extra for word in self.words)

    def where(self, texts: Mapping[str, str]) -> tuple[tuple[Highlight, ...], Met]:
        """Where the words stand in these texts by field, and how much of what was asked for that is."""
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
    """Spans in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            start, end = joined[-1][0], max(end, joined.pop()[1])
        joined.append((start, end))
    return joined


def _cut(name: str, text: str, spans: list[tuple[int, int]]) -> Highlight:
    """The part of a text around the first of these spans, whole words."""
    first, last = max(0, spans[0][0] - AROUND), min(len(text), spans[0][1] + 2 * AROUND)
    if first:
        first = text.find(" ", first, spans[0][0]) + 1 or first
    if last < len(text):
        last = max(text.rfind(" ", spans[0][1], last), spans[0][1])
    inside = tuple((start - first, end - first) for start, end in spans if end <= last)
    return Highlight(field=name, text=text[first:last], spans=inside)


def _is_near(word: str, other: str, is_prefix: bool) -> bool:
    """Whether one letter more, less, another or two exchanged make the one of the other, or of its beginning."""
    if is_prefix:
        return any(_is_near(word, other[:length], False) for length in range(len(word) - 1, len(word) + 2))
    if word[:1] == other[:1] and word:
        return _is_near(word[1:], other[1:], False)
    if word[-1:] == other[-1:] and word:
        return _is_near(word[:-1], other[:-1], False)
    return max(len(word), len(other)) <= 1 or (len(word) == 2 and word == other[::-1])
