"""Text indexes: one Tantivy index per segment and one of the fresh shards, searched as if they were one.

Each counts words for itself, so a word's weight is corrected by its counts in all of them. Tantivy reads files: those
of a segment are in its object as one tensor, and are unpacked when they are first used.
"""

from __future__ import annotations

import io
import math
import re
import shutil
import tempfile
import weakref
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from tantivy import Document, Index, Occur, Query, Schema, SchemaBuilder, TextAnalyzerBuilder, Tokenizer

from visor.index.format.container import Array
from visor.index.format.facets import FacetColumns
from visor.index.words.analysis import FILLERS, STEM, fold, query_terms, terms_of, words_of
from visor.index.words.query import TOLD, TYPO_FROM, TYPO_TO, Found, QueryWord, TextQuery
from visor.schema.search import Notice

FIELDS = {"title": 1.0, "about": 1.0, "description": 0.7, "labels": 0.4}
"""A word's weight by field; `about` has collection, brand and other attributes."""
SPELLED = "spelled"
"""A field of words as the catalogue writes them, each after its folded form; without `description`, which is full of
words that nobody searches for."""
VERSION = 1
"""The version of what is written here. Words that a later Visor wrote are left out."""
STEM_WEIGHT, COMPLETION_WEIGHT, TYPO_WEIGHT = 0.9, 0.7, 0.5
"""The weights of another form of a word, of a word that begins with it, and of one that differs by a letter."""
FILLER_WEIGHT = 0.1
"""The weight of a word that only joins others, relative to another word that is as rare."""
COMPLETIONS_MAX = 20
SPELLINGS = 4
"""Spellings of a suggested word that are considered."""
_BEFORE_SPELLING = "~"
COMPLETION_FROM = 3
"""Letters from which a whole word may also be the beginning of another."""
REST = 0.1
"""Share of BM25 that a word's other forms and fields add to the best one."""
HEAP_BYTES = 30_000_000
Score = Literal["bm25", "shares", "said", "named", "names", "own"]
"""How rows are scored: by BM25; by the share of the words that they contain, weighted by rarity and field, whatever the
number of occurrences and the length of the text; or by that share in total, outside of `TOLD`, by the number of words
there, and for words as they were typed (`query.Met`)."""
Texts = Mapping[str, Sequence[str]]
"""Texts by the field of `FIELDS` to which they belong."""


def texts_of(columns: FacetColumns) -> Iterator[Texts | None]:
    """The texts of each item; None if an older Visor wrote the row and did not keep them."""
    collections, labels = columns.names["collection"], columns.names["label"]
    for row, packed in enumerate(columns.texts):
        if not packed:
            yield None
            continue
        own = msgspec.json.decode(packed, type=dict[str, str])
        code = int(columns.codes["collection"][row])
        about = [text for name, text in own.items() if name not in ("title", "description")]
        yield {
            "title": [own.get("title", "")],
            "description": [own.get("description", "")],
            "about": about + ([collections[code - 1]] if code else []),
            "labels": [labels[label] for label in columns.labels.counted(row)],
        }


class TextIndex:
    """One Tantivy index of rows from 0."""

    def __init__(self, index: Index) -> None:
        index.reload()
        self.searcher = index.searcher()

    @classmethod
    def of(cls, texts: Iterable[Texts | None], languages: Sequence[str]) -> TextIndex:
        """In memory."""
        index = Index(_schema())
        _fill(index, texts, languages)
        return cls(index)

    @classmethod
    def unpack(cls, data: Array) -> TextIndex:
        """Opens what `_pack` returned.

        Raises:
            ValueError: Another version of Tantivy wrote it.
        """
        folder = tempfile.mkdtemp(prefix="visor-words-")
        try:
            with zipfile.ZipFile(io.BytesIO(data.data)) as files:
                files.extractall(folder)
            opened = cls(Index.open(folder))
        finally:
            # It stays readable while it is open, and is gone however the process ends. Windows keeps it until then.
            shutil.rmtree(folder, ignore_errors=True)
        weakref.finalize(opened, shutil.rmtree, folder, ignore_errors=True)
        return opened

    def count(self, query: Query) -> int:
        return int(self.searcher.search(query, 1).count)  # type: ignore[attr-defined]

    def search(self, query: Query, limit: int | None) -> tuple[Array, Array]:
        """Rows (r,) int64 and scores (r,) float32, the best first."""
        hits = self.searcher.search(query, limit or max(1, self.searcher.num_docs), count=False).hits
        rows = self.searcher.fast_field_values("row", [address for _, address in hits])
        return np.array(rows, np.int64), np.array([score for score, _ in hits], np.float32)


@dataclass(frozen=True, slots=True)
class SegmentWords:
    """The words of a segment. index: None if they cannot be read."""

    index: TextIndex | None
    languages: tuple[str, ...]

    @classmethod
    def open(cls, files: Array, about: Mapping[str, Any]) -> SegmentWords:
        """Opens what `pack_words` of this Visor or another returned."""
        languages = tuple(about["languages"])
        try:
            terms_of("", languages)
            index = TextIndex.unpack(files) if about["version"] <= VERSION else None
        except ValueError:
            # A language, or a file format of Tantivy, that this Visor does not know.
            index = None
        return cls(index, languages)


def pack_words(columns: FacetColumns, languages: Sequence[str]) -> tuple[Array, dict[str, Any]]:
    """The files of an index of these rows, as (b,) uint8, and their description in a segment."""
    unknown = sum(not packed for packed in columns.texts)
    about = {"version": VERSION, "languages": list(languages), "unknown": unknown}
    return _pack(texts_of(columns), languages), about


def _pack(texts: Iterable[Texts | None], languages: Sequence[str]) -> Array:
    with tempfile.TemporaryDirectory(prefix="visor-words-", ignore_cleanup_errors=True) as folder:
        _fill(Index(_schema(), folder), texts, languages)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as files:
            for path in sorted(Path(folder).iterdir()):
                if path.suffix != ".lock":
                    files.write(path, path.name)
    return np.frombuffer(buffer.getbuffer(), np.uint8)


@dataclass(frozen=True, slots=True)
class Part:
    """One of the indexes, and where its rows are: owners (n,) and rows (n,) int64 by its own row, rising by id; hidden
    (n,) bool marks rows that another part has newer. languages: those in which it was stemmed."""

    index: TextIndex
    languages: tuple[str, ...]
    owners: Array
    rows: Array
    hidden: Array | None = None

    def allows(self, found: Array, allowed: Sequence[Array | None] | None) -> Array:
        """(r,) bool: which of its rows (r,) are not hidden, and allowed in their blocks."""
        keep = np.ones(len(found), bool) if self.hidden is None else ~self.hidden[found]
        for number, mask in enumerate(allowed or ()):
            if mask is not None:
                mine = np.flatnonzero(self.owners[found] == number)
                keep[mine] &= mask[self.rows[found[mine]]]
        return keep


@dataclass(frozen=True)
class Words:
    """The words of one snapshot.

    unknown: items whose texts were not kept.
    """

    parts: Sequence[Part]
    unknown: int = 0

    @property
    def notices(self) -> tuple[Notice, ...]:
        """The notice that some items are not found by words, if there are such items."""
        if not self.unknown:
            return ()
        pictures = "1 picture is" if self.unknown == 1 else f"{self.unknown:,} pictures are"
        text = (
            f"{pictures} not found by words: another Visor indexed them, without their texts or for other languages, "
            "or their words are damaged. `visor compact --texts` reads them from the items; `visor check` finds damage."
        )
        return (Notice(code="words_unknown", text=text, values={"count": self.unknown}),)

    @cached_property
    def total(self) -> int:
        return sum(part.index.searcher.num_docs for part in self.parts)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        return tuple(sorted({language for part in self.parts for language in part.languages}))

    def query(self, text: str) -> TextQuery:
        """A text as a query."""
        words = [
            self._expanded(word.text, word.end == len(text), word.is_pair, word.is_extra) for word in words_of(text)
        ]
        return TextQuery(tuple(words), self.languages)

    def find(
        self,
        query: TextQuery,
        limit: int | None,
        score: Score = "bm25",
        allowed: Sequence[Array | None] | None = None,
    ) -> Found:
        """The rows that contain words of the query, the best first.

        Args:
            limit: The best so many are among them; None: all are.
            allowed: For each block the rows to find, (n,) bool, or None for all.
        """
        owners, rows, scores = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for part in self.parts:
            asked = [(Occur.Should, one) for word in query.words if (one := self._query(part, word, score)) is not None]
            if not asked:
                continue
            wanted = Query.boolean_query(asked)
            found, given = part.index.search(wanted, limit and 2 * limit)
            keep = part.allows(found, allowed)
            if limit is not None and len(found) == 2 * limit and np.count_nonzero(keep) < limit:
                found, given = part.index.search(wanted, None)
                keep = part.allows(found, allowed)
            given = given if score in ("bm25", "names") else (given / (query.weight or 1)).astype(np.float32)
            owners.append(part.owners[found[keep]])
            rows.append(part.rows[found[keep]])
            scores.append(given[keep])
        every = np.concatenate(scores)
        order = np.argsort(-every, kind="stable")
        return Found(np.concatenate(owners)[order], np.concatenate(rows)[order], every[order])

    def completions(self, text: str, limit: int) -> list[str]:
        """Words that begin with the last word of a text, as the catalogue writes them, the most frequent first."""
        last = next((word.text for word in words_of(text) if word.end == len(text)), None)
        if last is None:
            return []
        counts: Counter[str] = Counter()
        spelled: dict[str, str] = {}
        for term, count in self._with_prefix(fold(last), SPELLINGS * limit, (SPELLED,)):
            folded, _, spelling = term.partition(_BEFORE_SPELLING)
            counts[folded] += count
            spelled.setdefault(folded, spelling)
        return [spelled[folded] for folded, _ in counts.most_common(limit)]

    def _with_prefix(self, prefix: str, limit: int, fields: Iterable[str] = FIELDS) -> list[tuple[str, int]]:
        """Words with the number of items that contain them, the most frequent first."""
        counts: Counter[str] = Counter()
        for part in self.parts:
            here: dict[str, int] = {}
            for name in fields:
                for term, count in part.index.searcher.terms_with_prefix(name, prefix, limit=2 * limit):
                    here[term] = max(here.get(term, 0), count)
            counts.update(here)
        return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:limit]

    def _expanded(self, text: str, is_last: bool, is_pair: bool, is_extra: bool) -> QueryWord:
        """A word with its possible matches in this catalogue."""
        terms = query_terms(text, self.languages)
        worth = dict.fromkeys(terms, STEM_WEIGHT) | {terms[0]: 1.0}
        counts = {term: self._frequency(term) for term in worth}
        typos: tuple[str, ...] = ()
        if is_last and (is_pair or len(terms[0]) >= COMPLETION_FROM or not any(counts.values())):
            completions = dict(self._with_prefix(terms[0], COMPLETIONS_MAX))
            worth = dict.fromkeys(completions, COMPLETION_WEIGHT) | worth
            counts = completions | counts
        frequency = max(max(counts[term] for term in terms), sum(counts.values()) - sum(counts[term] for term in terms))
        if not frequency and TYPO_FROM - 1 <= len(terms[0]) <= TYPO_TO and not is_pair:
            typos = tuple(term for term in terms if term == terms[0] or len(term.removeprefix(STEM)) >= TYPO_FROM)
            queries = [(part, _typo(name, typos, is_last)) for part in self.parts for name in FIELDS]
            frequency = sum(part.index.count(query) for part, query in queries)
        weight = self._rarity(frequency, self.total) * (FILLER_WEIGHT if text.casefold() in FILLERS else 1.0)
        ways = {(name, term): part * worth[term] for name, part in FIELDS.items() for term, n in counts.items() if n}
        return QueryWord(is_extra, frozenset(terms), ways, typos, is_last, weight)

    def _frequency(self, term: str) -> int:
        """Number of items with a term, counted in the field that has it most often."""
        return sum(max(part.index.searcher.doc_freq(name, term) for name in FIELDS) for part in self.parts)

    def _rarity(self, count: int, total: int) -> float:
        """The inverse document frequency, as in BM25."""
        return math.log(1 + (total - min(count, total) + 0.5) / (min(count, total) + 0.5))

    def _query(self, part: Part, word: QueryWord, score: Score) -> Query | None:
        """The Tantivy query for a word in one part; None if the part does not have it, or it does not count."""
        ways, searcher, is_met = [], part.index.searcher, score not in ("bm25", "shares")
        if is_met and word.is_extra:
            return None
        whole, is_named = 1.0 if score == "names" else word.weight, score in ("named", "names")
        for (name, term), worth in word.ways.items():
            if (is_named and name in TOLD) or (score == "own" and term not in word.own):
                continue
            if count := searcher.doc_freq(name, term):
                query = Query.term_query(_schema(), name, term, "freq")
                if score == "bm25":
                    # Each part weighs a word by its own counts, which are replaced by those of all parts.
                    weight = worth * word.weight / self._rarity(count, searcher.num_docs)
                    ways.append(Query.boost_query(query, weight))
                else:
                    ways.append(Query.const_score_query(query, whole * (1 if is_met else worth)))
        for name, worth in FIELDS.items() if word.typos and score != "own" else ():
            if not is_named or name not in TOLD:
                weight = whole * (1 if is_met else worth * TYPO_WEIGHT)
                ways.append(Query.const_score_query(_typo(name, word.typos, word.is_prefix), weight))
        return Query.disjunction_max_query(ways, REST if score == "bm25" else 0.0) if ways else None


@cache
def _schema() -> Schema:
    builder = SchemaBuilder().add_unsigned_field("row", fast=True)
    for name in FIELDS:
        builder.add_text_field(name, tokenizer_name="terms", index_option="freq")
    builder.add_text_field(SPELLED, tokenizer_name="terms", index_option="basic")
    return builder.build()


def _typo(name: str, terms: Sequence[str], is_prefix: bool) -> Query:
    """Items with a term that differs from one of these by a letter. The first is the word itself, which may be the
    beginning of a word."""
    if len(terms[0]) < TYPO_FROM:
        # One letter of a word of five letters is missing.
        signs = [re.escape(sign) for sign in terms[0]]
        some = "|".join("".join([*signs[:place], ".", *signs[place:]]) for place in range(TYPO_FROM))
        return Query.regex_query(_schema(), name, some)
    near = [
        Query.fuzzy_term_query(_schema(), name, term, 1, True, is_prefix and not number)
        for number, term in enumerate(terms)
    ]
    return Query.disjunction_max_query(near)


def _fill(index: Index, texts: Iterable[Texts | None], languages: Sequence[str]) -> None:
    index.register_tokenizer("terms", TextAnalyzerBuilder(Tokenizer.whitespace()).build())
    # One thread, so that rows keep their order.
    writer = index.writer(HEAP_BYTES, 1)
    languages = tuple(languages)
    for row, fields in enumerate(texts):
        if fields is None:
            continue
        document = Document()
        document.add_unsigned("row", row)
        spelled: set[str] = set()
        for name, values in fields.items():
            words = [(word.text, text[word.start : word.end]) for text in values for word in words_of(text)]
            if words:
                document.add_text(name, " ".join(term for word, _ in words for term in terms_of(word, languages)))
            if name != "description":
                spelled.update(fold(word) + _BEFORE_SPELLING + spelling for word, spelling in words)
        document.add_text(SPELLED, " ".join(spelled))
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
