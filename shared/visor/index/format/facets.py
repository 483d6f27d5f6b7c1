"""Facet columns: the values by which items are filtered and counted, coded as small integers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from visor.errors import BadRequest
from visor.index.format.container import Array, Container, json_tensor
from visor.schema.items import FacetRow
from visor.schema.search import FACETS, FacetsAnswer, FacetValue, Filters

CODED = tuple(facet for facet in FACETS if facet != "label")
"""Facets with at most one value an item. Code 0 is 'none', code i the i-th name."""

NO_DATE = np.iinfo(np.int32).min
VALUES_MAX = 100
"""Values of one facet in an answer, the most frequent first."""


@dataclass(frozen=True, slots=True)
class FacetColumns:
    """The facets of n items.

    `codes[c]` (n,) uint16 or uint32 into `names[c]`; `price` (n,) float32, NaN for none; `date` (n,) int32, days since
    1970, `NO_DATE` for none; `labels` and `words` are numbers into `names["label"]` and `names["word"]`, from 0.
    """

    codes: Mapping[str, Array]
    names: Mapping[str, tuple[str, ...]]
    price: Array
    date: Array
    labels: ListColumn
    words: ListColumn
    """Stems of the item's title, collection and category; empty in objects of before."""
    texts: Array
    """(n,) objects: `FacetRow.texts` as JSON in bytes; empty where it was not kept, and in a segment, whose texts lie
    apart."""

    def __len__(self) -> int:
        return len(self.price)

    @classmethod
    def of(cls, rows: Sequence[FacetRow]) -> FacetColumns:
        codes, names = {}, {}
        for column in CODED:
            codes[column], names[column] = _code([getattr(row, column) for row in rows])
        sure = [row.facet_labels is None or label in row.facet_labels for row in rows for label in row.labels]
        labels, names["label"] = ListColumn.of([row.labels for row in rows], np.array(sure, np.uint8))
        words, names["word"] = ListColumn.of([row.words for row in rows])
        return cls(
            codes=codes,
            names=names,
            price=np.array([np.nan if row.price is None else row.price for row in rows], np.float32),
            date=np.array([NO_DATE if row.date is None else _day(row.date) for row in rows], np.int32),
            labels=labels,
            words=words,
            texts=_objects([b"" if row.texts is None else msgspec.json.encode(row.texts) for row in rows]),
        )

    @classmethod
    def concat(cls, parts: Sequence[FacetColumns]) -> FacetColumns:
        """All rows of all parts, in order, with one list of names."""
        if not parts:
            return cls.of([])
        if len(parts) == 1:
            return parts[0]
        codes, names = {}, {}
        for column in CODED:
            names[column], maps = _union([part.names[column] for part in parts])
            moved = [np.append(0, m + 1)[p.codes[column]] for m, p in zip(maps, parts, strict=True)]
            codes[column] = _small(np.concatenate(moved), len(names[column]) + 1)
        names["label"], maps = _union([part.names["label"] for part in parts])
        labels = ListColumn.concat([p.labels for p in parts], maps, len(names["label"]))
        names["word"], maps = _union([part.names["word"] for part in parts])
        words = ListColumn.concat([p.words for p in parts], maps, len(names["word"]))
        return cls(
            codes=codes,
            names=names,
            price=np.concatenate([part.price for part in parts]),
            date=np.concatenate([part.date for part in parts]),
            labels=labels,
            words=words,
            texts=np.concatenate([part.texts for part in parts]),
        )

    def take(self, rows: Array) -> FacetColumns:
        """The given rows, in that order; names stay."""
        return FacetColumns(
            codes={column: self.codes[column][rows] for column in CODED},
            names=self.names,
            price=self.price[rows],
            date=self.date[rows],
            labels=self.labels.take(rows),
            words=self.words.take(rows),
            texts=self.texts[rows],
        )

    def mask(self, filters: Filters) -> Array:
        """(n,) bool: which rows pass."""
        keep = np.ones(len(self), bool)
        for column in CODED:
            wanted = getattr(filters, column)
            if wanted:
                passes = np.zeros(len(self.names[column]) + 1, bool)
                passes[[i + 1 for i, name in enumerate(self.names[column]) if name in wanted]] = True
                keep &= passes[self.codes[column]]
        if filters.label:
            passes = np.array([name in filters.label for name in self.names["label"]], bool)
            keep &= self.labels.sums(passes, counted=True) > 0
        if filters.price is not None:
            # Bounds are rounded as the column is, so that 19.99 is within 19.99 to 19.99.
            if filters.price.min is not None:
                keep &= self.price >= _bound(filters.price.min)
            if filters.price.max is not None:
                keep &= self.price <= _bound(filters.price.max)
            keep &= ~np.isnan(self.price)
        if filters.date_from is not None or filters.date_to is not None:
            keep &= self.date != NO_DATE
            if filters.date_from is not None:
                keep &= self.date >= bound(filters.date_from, last=False)
            if filters.date_to is not None:
                keep &= self.date <= bound(filters.date_to, last=True)
        return keep

    def count(self, keep: Array) -> FacetCounts:
        """How often each value occurs among the rows of a (n,) bool mask."""
        counts: dict[str, dict[str, int]] = {}
        for column in CODED:
            sums = np.bincount(self.codes[column][keep], minlength=len(self.names[column]) + 1)[1:]
            counts[column] = {n: int(s) for n, s in zip(self.names[column], sums, strict=True) if s}
        labelled = np.repeat(keep, np.diff(self.labels.starts)) & self.labels.counts.astype(bool)
        labelled = self.labels.codes[labelled]
        sums = np.bincount(labelled, minlength=len(self.names["label"]))
        counts["label"] = {n: int(s) for n, s in zip(self.names["label"], sums, strict=True) if s}
        prices = self.price[keep]
        prices = prices[~np.isnan(prices)]
        low, high = (float(prices.min()), float(prices.max())) if len(prices) else (None, None)
        return FacetCounts(int(np.count_nonzero(keep)), counts, low, high)

    def word_sums(self, weights: Mapping[str, float]) -> Array:
        """(n,) float64: the sum of the weights of each item's words."""
        return self.words.sums(np.array([weights.get(word, 0.0) for word in self.names["word"]]))

    def tensors(self, prefix: str = "") -> dict[str, Array]:
        """For a container; `from_container` reads them back."""
        arrays = {prefix + "names": json_tensor(dict(self.names))}
        arrays |= {prefix + column: self.codes[column] for column in CODED}
        arrays |= {prefix + "price": self.price, prefix + "date": self.date}
        for name, column in (("label", self.labels), ("word", self.words)):
            arrays |= {f"{prefix}{name}_starts": column.starts, f"{prefix}{name}_codes": column.codes}
        return arrays | {prefix + "label_counts": self.labels.counts}

    def text_tensors(self, prefix: str = "") -> dict[str, Array]:
        """The texts, for a container; `with_texts` reads them back. None where no row has any."""
        if not any(self.texts):
            return {}
        return {prefix + "texts": np.frombuffer(zlib.compress(msgspec.msgpack.encode(self.texts.tolist())), np.uint8)}

    @classmethod
    def from_container(cls, container: Container, prefix: str = "") -> FacetColumns:
        names = container.json(prefix + "names", dict[str, tuple[str, ...]])
        price = container.array(prefix + "price")
        words = ListColumn.none(len(price))
        if prefix + "word_starts" in container:
            words = ListColumn.read(container, prefix + "word")
        return cls(
            codes={column: container.array(prefix + column) for column in CODED},
            names={"word": (), **names},
            price=price,
            date=container.array(prefix + "date"),
            labels=ListColumn.read(container, prefix + "label"),
            words=words,
            texts=no_texts(len(price)),
        )

    def with_texts(self, packed: Array | None) -> FacetColumns:
        """With the texts of `text_tensors`; None: with none."""
        return (
            self
            if packed is None
            else replace(self, texts=_objects(msgspec.msgpack.decode(zlib.decompress(packed.data))))
        )


@dataclass(frozen=True, slots=True)
class ListColumn:
    """Several values a row: those of row i are codes[starts[i]:starts[i + 1]], numbers of names.

    counts: (same length) uint8, 1 for those that the row is filtered by.
    """

    starts: Array
    codes: Array
    counts: Array

    @classmethod
    def of(cls, rows: Sequence[tuple[str, ...]], counts: Array | None = None) -> tuple[ListColumn, tuple[str, ...]]:
        """The column of these rows, and the sorted names."""
        codes, names = _code([value for row in rows for value in row])
        starts = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.uint32)
        counts = np.ones(len(codes), np.uint8) if counts is None else counts
        return cls(starts, _small(codes.astype(np.int64) - 1, len(names)), counts), names

    @classmethod
    def none(cls, count: int) -> ListColumn:
        return cls(np.zeros(count + 1, np.uint32), np.empty(0, np.uint16), np.empty(0, np.uint8))

    @classmethod
    def read(cls, container: Container, name: str) -> ListColumn:
        codes = container.array(name + "_codes")
        # An older Visor filtered by all labels.
        has_counts = name + "_counts" in container
        counts = container.array(name + "_counts") if has_counts else np.ones(len(codes), np.uint8)
        return cls(container.array(name + "_starts"), codes, counts)

    @classmethod
    def concat(cls, parts: Sequence[ListColumn], maps: Sequence[Array], names: int) -> ListColumn:
        """All rows in order. maps: for each part the new numbers of its names; names: how many there are then."""
        codes = [new[part.codes] for new, part in zip(maps, parts, strict=True)]
        lengths = np.concatenate([np.diff(part.starts) for part in parts])
        starts = np.append(0, np.cumsum(lengths)).astype(np.uint32)
        return cls(starts, _small(np.concatenate(codes), names), np.concatenate([part.counts for part in parts]))

    def take(self, rows: Array) -> ListColumn:
        lengths = np.diff(self.starts)[rows]
        starts = np.append(0, np.cumsum(lengths)).astype(np.uint32)
        inside = np.arange(int(starts[-1])) - np.repeat(starts[:-1], lengths)
        values = np.repeat(self.starts[:-1][rows], lengths) + inside
        return ListColumn(starts, self.codes[values], self.counts[values])

    def row(self, row: int) -> Array:
        codes: Array = self.codes[self.starts[row] : self.starts[row + 1]]
        return codes

    def counted(self, row: int) -> Array:
        """Those of a row that it is filtered by."""
        codes: Array = self.row(row)[self.counts[self.starts[row] : self.starts[row + 1]] > 0]
        return codes

    def sums(self, weights: Array, *, counted: bool = False) -> Array:
        """(n,) float64: the sum over each row's values, or those that count, of weights (names,)."""
        owners = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        if not len(self.codes):
            return np.zeros(len(self.starts) - 1)
        values = weights[self.codes] * self.counts if counted else weights[self.codes]
        return np.bincount(owners, values, len(self.starts) - 1)


@dataclass(frozen=True, slots=True)
class FacetCounts:
    """Counts over some rows; they add up over blocks."""

    images: int
    counts: Mapping[str, Mapping[str, int]]
    price_min: float | None
    price_max: float | None

    @staticmethod
    def answer(parts: Sequence[FacetCounts]) -> FacetsAnswer:
        """The sum of all parts, each facet's most frequent values first."""
        sums: dict[str, dict[str, int]] = {column: {} for column in FACETS}
        for part in parts:
            for column, counts in part.counts.items():
                for name, count in counts.items():
                    sums[column][name] = sums[column].get(name, 0) + count
        lows = [part.price_min for part in parts if part.price_min is not None]
        highs = [part.price_max for part in parts if part.price_max is not None]
        listed: dict[str, Any] = {
            column: tuple(
                FacetValue(value=name, count=count)
                for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:VALUES_MAX]
            )
            for column, counts in sums.items()
        }
        return FacetsAnswer(
            images=sum(part.images for part in parts),
            price_min=min(lows, default=None),
            price_max=max(highs, default=None),
            **listed,
        )


def bound(text: str, *, last: bool) -> int:
    """The first or last day (since 1970) of an ISO 8601 year, month, date or date-time.

    Raises:
        BadRequest: It is none of these.
    """
    try:
        date = np.datetime64(text[:10])
        period = np.datetime_data(date.dtype)[0]
        if np.isnat(date) or period not in ("Y", "M", "D") or not text[:4].isdecimal() or len(text) < 4:
            raise ValueError(text)
        day = (date + 1).astype("datetime64[D]") - 1 if last else date.astype("datetime64[D]")
    except ValueError as exc:
        raise BadRequest(
            f"Date {text!r} cannot be read",
            valid="ISO 8601: 2024, 2024-05, 2024-05-31 or 2024-05-31T12:00:00Z",
            remedy="Correct date_from or date_to",
        ) from exc
    return int(day.astype(np.int64))


def no_texts(count: int) -> Array:
    """(count,) empty texts, which take no memory."""
    return np.broadcast_to(np.array(b"", object), count)


def _objects(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _day(text: str) -> int:
    try:
        return bound(text, last=False)
    except BadRequest:
        return int(NO_DATE)


def _code(values: Sequence[str | None]) -> tuple[Array, tuple[str, ...]]:
    """Values as codes from 1 (0 for None) and the sorted names."""
    names = tuple(sorted({value for value in values if value is not None}))
    number = {name: i + 1 for i, name in enumerate(names)}
    raw = np.array([0 if value is None else number[value] for value in values], np.int64)
    return _small(raw, len(names) + 1), names


def _union(lists: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], list[Array]]:
    """The sorted union of lists of names, and for each list the new number of each of its names."""
    names = tuple(sorted(set().union(*lists)))
    number = {name: i for i, name in enumerate(names)}
    return names, [np.array([number[name] for name in old], np.int64) for old in lists]


def _small(values: Array, count: int) -> Array:
    """Codes below `count` in the smaller dtype that holds them."""
    return values.astype(np.uint16 if count <= 0xFFFF else np.uint32)


def _bound(price: float) -> np.float32:
    """A price as the column holds prices, so that the ends of a range are in it; beyond all prices stays beyond."""
    limit = float(np.finfo(np.float32).max)
    return np.float32(min(max(price, -limit), limit))
