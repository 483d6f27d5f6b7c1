"""Splits text into words: where each one is, and the terms by which it is found, folded and stemmed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ーｰ&&[^\p{Nd}]]"
"""Scripts whose words are found by their pairs of characters."""
_JOINING = "-'’‘ʼʻ‐‑－\u200c"
"""Characters between the parts of one word: hyphens, apostrophes, the zero-width non-joiner of Persian."""
_UNSEEN = "\u00ad\u200d\u2060"
"""Characters inside words that are not part of them: the soft hyphen, joiners."""
_BARE = "\u0640\ufc5e-\ufc63\ufcf2-\ufcf4\ufe70-\ufe7f"
"""The character that lengthens Arabic letters, and Arabic vowel points without a letter."""
# A mark without a letter is not a word: the one after ❤ makes it an emoji.
_FIRST = rf"[\p{{L}}\p{{N}}&&[^{_UNSPACED}{_JOINING}{_BARE}]]"
_LETTERS = rf"{_FIRST}[\p{{L}}\p{{M}}\p{{N}}{_UNSEEN}&&[^{_UNSPACED}{_JOINING}]]*"
_SPLIT = TextAnalyzerBuilder(Tokenizer.regex(rf"{_UNSPACED}+|{_LETTERS}(?:[{_JOINING}]{_LETTERS})*")).build()
_UNSPACED_ONLY = TextAnalyzerBuilder(Tokenizer.regex(rf"^{_UNSPACED}+")).build()
_ASCII = TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.ascii_fold()).build()
_MARKS = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u20d0-\u20f0\ufe00-\ufe0f"
    rf"\u0640{_UNSEEN}\s]"
)
"""Accents of Latin, Greek and Cyrillic, vowel points of Hebrew and Arabic, and marks that only typesetters see."""
_DIGIT = re.compile(r"\d")
_PIECES = re.compile("(?s:.)[\u0300-\u036f\u102e\u1160-\u11ff\u3099\u309a\uff9e\uff9f]+")
"""Letters of several characters that may also be one character: accents, Korean syllables, voiced kana. macOS writes
names of files so."""
_PART = re.compile(f"[^{_JOINING}]+")
_FILLERS = (
    "a an the of or and in on with for to from by at "
    "der die das den dem des ein eine einer eines einem einen und oder mit für von vom im am aus zu zum zur bei auf "
    "le la les un une du de et ou avec pour en sur dans à au aux "
    "el los las una del y o con para por al"
)
FILLERS = frozenset(_FILLERS.split())
"""Words of English, German, French and Spanish that join others and name nothing. Longer lists contain `hat`, which is
a German verb, too."""
STEM = "~~"
"""Prefix of a term that is a stem and not a word: so different from every word that no typo leads to it."""
CACHED = 20_000
"""Number of words whose terms are cached."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text. start, end: its position in characters."""

    text: str
    start: int
    end: int
    is_extra: bool = False
    """Another reading of what other words cover: `tshirt` in T-Shirt, the last character of a Chinese word."""
    is_pair: bool = False
    """Characters of a script without spaces."""


def words_of(text: str) -> Iterator[Word]:
    """The words of a text, in order."""
    text, places = _composed(text)
    for token in _SPLIT.pre_tokenize(text).tokens:
        run, at = token.text, places[token.char_offset_from : token.char_offset_to + 1]
        if _UNSPACED_ONLY.analyze(run[:1]):
            for place in range(max(1, len(run) - 1)):
                pair = run[place : place + 2]
                yield Word(pair, at[place], at[place + len(pair)], is_pair=True)
            if len(run) > 1:
                yield Word(run[-1], at[-2], at[-1], is_extra=True, is_pair=True)
            continue
        parts = list(_PART.finditer(run))
        for part in parts:
            yield Word(part[0], at[part.start()], at[part.end()])
        if len(parts) > 1:
            yield Word("".join(part[0] for part in parts), at[0], at[-1], is_extra=True)


def _composed(text: str) -> tuple[str, Sequence[int]]:
    """A text with each letter in one character, and the positions of these characters, and of the end, in `text`."""
    if not _PIECES.search(text):
        return text, range(len(text) + 1)
    whole, end = "", 0
    places: list[int] = []
    for pieces in _PIECES.finditer(text):
        one = min(pieces[0], unicodedata.normalize("NFKC", pieces[0]), key=len)
        whole += text[end : pieces.start()] + one
        places += range(end, pieces.start() + len(one))
        end = pieces.end()
    return whole + text[end:], [*places, *range(end, len(text) + 1)]


@lru_cache(CACHED)
def fold(word: str) -> str:
    """A word without case, accents and the shapes that only typesetters tell apart, with ASCII digits."""
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", word).casefold()))
    plain = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), bare)
    return "".join(_ASCII.analyze(unicodedata.normalize("NFC", plain))).lower()


@lru_cache(CACHED)
def terms_of(word: str, languages: Sequence[str]) -> tuple[str, ...]:
    """The terms that a word is indexed by: itself, folded, and its stems if they differ.

    The stem of the folded word is one of them, since people who search seldom type accents.
    """
    folded = fold(word)
    plain = unicodedata.normalize("NFC", word.casefold())
    stems = {fold(stem) for form in (plain, folded) for name in languages for stem in _stemmer(name).analyze(form)}
    return (folded, *(STEM + stem for stem in sorted(stems - {folded, ""})))


def query_terms(word: str, languages: Sequence[str]) -> tuple[str, ...]:
    """The terms that a word in a query may be indexed by; first the word itself."""
    folded, *stems = terms_of(word, languages)
    same = STEM + folded
    return (folded, same, *stems, *(stem.removeprefix(STEM) for stem in stems))


@cache
def _stemmer(language: str) -> TextAnalyzer:
    return TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.stemmer(language)).build()
