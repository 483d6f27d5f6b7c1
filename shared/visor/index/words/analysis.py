"""Text into words: where each stands, and the terms by which it is found, folded and stemmed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
"""Scripts of which words are found by their pairs of characters."""
_LETTERS = rf"[\p{{L}}\p{{M}}\p{{N}}&&[^{_UNSPACED}]]+"
_SPLIT = TextAnalyzerBuilder(Tokenizer.regex(rf"[{_UNSPACED}]+|{_LETTERS}(?:[-'’]{_LETTERS})*")).build()
_UNSPACED_ONLY = TextAnalyzerBuilder(Tokenizer.regex(rf"^[{_UNSPACED}]+")).build()
_ASCII = TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.ascii_fold()).build()
_MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")
"""Accents of Latin, Greek and Cyrillic, and the vowel points of Hebrew and Arabic."""
_PART = re.compile("[^-'’]+")
_FILLERS = (
    "a an the of or and in on with for to from by at "
    "der die das den dem des ein eine einer eines einem einen und oder mit für von vom im am aus zu zum zur bei auf "
    "le la les un une du de et ou avec pour en sur dans à au aux "
    "el los las una del y o con para por al"
)
FILLERS = frozenset(_FILLERS.split())
"""Words of English, German, French and Spanish that join others and name nothing. Longer lists hold `hat`, a German
verb."""
STEM = "~~"
"""Before a term that is no word but a stem: so far from every word that no typo leads there."""
CACHED = 20_000
"""Words whose terms are remembered."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text. start, end: its place in characters."""

    text: str
    start: int
    end: int
    is_extra: bool = False
    """Another way to read what other words cover: `tshirt` in T-Shirt, the last character of a Chinese word."""
    is_pair: bool = False
    """Characters of a script without spaces."""


def words_of(text: str) -> Iterator[Word]:
    """The words of a text, in order."""
    for token in _SPLIT.pre_tokenize(text).tokens:
        run, start = token.text, token.char_offset_from
        if _UNSPACED_ONLY.analyze(run[:1]):
            for place in range(max(1, len(run) - 1)):
                pair = run[place : place + 2]
                yield Word(pair, start + place, start + place + len(pair), is_pair=True)
            if len(run) > 1:
                yield Word(run[-1], start + len(run) - 1, start + len(run), is_extra=True, is_pair=True)
            continue
        parts = list(_PART.finditer(run))
        for part in parts:
            yield Word(part[0], start + part.start(), start + part.end())
        if len(parts) > 1:
            yield Word("".join(part[0] for part in parts), start, start + len(run), is_extra=True)


@lru_cache(CACHED)
def fold(word: str) -> str:
    """A word without case, accents and the shapes that only typesetters tell apart."""
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", word.casefold()))
    return "".join(_ASCII.analyze(unicodedata.normalize("NFC", bare)))


@lru_cache(CACHED)
def terms_of(word: str, languages: Sequence[str]) -> tuple[str, ...]:
    """What a word is indexed by: itself, folded, and its stems where they differ.

    The stem of the folded word is one of them, since who searches seldom types accents.
    """
    folded = fold(word)
    plain = unicodedata.normalize("NFC", word.casefold())
    stems = {fold(stem) for form in (plain, folded) for name in languages for stem in _stemmer(name).analyze(form)}
    return (folded, *(STEM + stem for stem in sorted(stems - {folded, ""})))


def query_terms(word: str, languages: Sequence[str]) -> tuple[str, ...]:
    """What a word that is searched for may be indexed by; first itself."""
    folded, *stems = terms_of(word, languages)
    same = STEM + folded
    return (folded, same, *stems, *(stem.removeprefix(STEM) for stem in stems))


@cache
def _stemmer(language: str) -> TextAnalyzer:
    return TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.stemmer(language)).build()
