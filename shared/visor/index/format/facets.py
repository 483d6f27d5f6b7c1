"""Facet columns: the values by which items are filtered, counted and ordered, coded as small integers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from visor.errors import BadRequest
from visor.index.format.attributes import (
    NO_DATE,
    AttributeColumn,
    attribute_tensors,
    code,
    day_of,
    iso_day,
    read_attributes,
    small,
    union,
    used,
)
from visor.index.format.container import Array, Container, json_tensor
from visor.schema.attributes import AttributeType
from visor.schema.items import FacetRow
from visor.schema.search import FACETS, Condition, Filters

CODED = tuple(facet for facet in FACETS if facet != "label")
"""Facets with at most one value per item. Code 0 is 'none', code i the i-th name."""
STORED = (*CODED, "declared")
"""`declared`: as JSON, the attributes that were declared when the item was written, and their types."""
AttributeKey = tuple[str, AttributeType]


@dataclass(frozen=True, slots=True)
class FacetColumns:
    """The facets of n items.

    `codes[c]` (n,) uint16 or uint32 into `names[c]`; `price` (n,) float32, NaN for none; `date` (n,) int32, days since
    1970, `NO_DATE` for none; `labels` and `words` are numbers into `names["label"]` and `names["word"]`, from 0.
    `products` (n,) uint64, the same for items of one product, 0 for none; `pixels` (n,) uint32 of the picture, 0 where
    unknown; `attributes` by name and type, each of n items.
    """

    codes: Mapping[str, Array]
    names: Mapping[str, tuple[str, ...]]
    price: Array
    date: Array
    labels: ListColumn
    words: ListColumn
    """Stems of the item's title, collection and category; empty in older objects."""
    texts: Array
    """(n,) objects: `FacetRow.texts` as JSON in bytes; empty if it was not kept, and in a segment, whose texts are
    stored separately."""
    products: Array
    pixels: Array
    attributes: Mapping[AttributeKey, AttributeColumn]

    def __len__(self) -> int:
        return len(self.price)

    @classmethod
    def of(cls, rows: Sequence[FacetRow]) -> FacetColumns:
        codes, names = {}, {}
        for column in CODED:
            codes[column], names[column] = code([getattr(row, column) for row in rows])
        declared = [json.dumps(row.declared, sort_keys=True) if row.declared else None for row in rows]
        codes["declared"], names["declared"] = code(declared)
        sure = [row.facet_labels is None or label in row.facet_labels for row in rows for label in row.labels]
        labels, names["label"] = ListColumn.of([row.labels for row in rows], np.array(sure, np.uint8))
        words, names["word"] = ListColumn.of([row.words for row in rows])
        return cls(
            codes=codes,
            names=names,
            price=np.array([np.nan if row.price is None else row.price for row in rows], np.float32),
            date=np.array([NO_DATE if row.date is None else day_of(row.date) for row in rows], np.int32),
            labels=labels,
            words=words,
            texts=_objects([b"" if row.texts is None else msgspec.json.encode(row.texts) for row in rows]),
            products=np.array([int(row.product or "0", 16) for row in rows], np.uint64),
            pixels=np.array([min(row.pixels, 0xFFFFFFFF) for row in rows], np.uint32),
            attributes={
                (name, type_): AttributeColumn.of(
                    type_, [row.values.get(name) if row.declared.get(name) == type_ else None for row in rows]
                )
                for name, type_ in sorted({pair for row in rows for pair in row.declared.items()})
            },
        )

    def rows(self) -> list[FacetRow]:
        """The rows as `of` accepts them; from these it makes the same columns again."""
        named = {column: ("", *self.names[column]) for column in STORED}
        label, word = self.names["label"], self.names["word"]
        values = {key: column.texts() for key, column in self.attributes.items()}
        rows = []
        for row in range(len(self)):
            facets = {column: named[column][self.codes[column][row]] or None for column in STORED}
            declared = json.loads(facets.pop("declared") or "{}")
            said = {name: values[name, type_][row] for name, type_ in declared.items() if (name, type_) in values}
            rows.append(
                FacetRow(
                    **facets,
                    price=None if np.isnan(self.price[row]) else float(self.price[row]),
                    date=None if self.date[row] == NO_DATE else iso_day(int(self.date[row])),
                    labels=tuple(label[code] for code in self.labels.row(row)),
                    facet_labels=tuple(label[code] for code in self.labels.counted(row)),
                    words=tuple(word[code] for code in self.words.row(row)),
                    texts=msgspec.json.decode(self.texts[row]) if self.texts[row] else None,
                    product=f"{int(self.products[row]):016x}" if self.products[row] else None,
                    pixels=int(self.pixels[row]),
                    declared=declared,
                    values={name: text for name, text in said.items() if text is not None},
                )
            )
        return rows

    @classmethod
    def concat(cls, parts: Sequence[FacetColumns]) -> FacetColumns:
        """All rows of all parts, in order, with one list of names."""
        if not parts:
            return cls.of([])
        if len(parts) == 1:
            return parts[0]
        codes, names = {}, {}
        for column in STORED:
            names[column], maps = union([part.names[column] for part in parts])
            moved = [np.append(0, m + 1)[p.codes[column]] for m, p in zip(maps, parts, strict=True)]
            codes[column] = small(np.concatenate(moved), len(names[column]) + 1)
        names["label"], maps = union([part.names["label"] for part in parts])
        labels = ListColumn.concat([p.labels for p in parts], maps, len(names["label"]))
        names["word"], maps = union([part.names["word"] for part in parts])
        words = ListColumn.concat([p.words for p in parts], maps, len(names["word"]))
        keys = sorted({key for part in parts for key in part.attributes})
        return cls(
            codes=codes,
            names=names,
            price=np.concatenate([part.price for part in parts]),
            date=np.concatenate([part.date for part in parts]),
            labels=labels,
            words=words,
            texts=np.concatenate([part.texts for part in parts]),
            products=np.concatenate([part.products for part in parts]),
            pixels=np.concatenate([part.pixels for part in parts]),
            attributes={key: AttributeColumn.concat([part.attribute(key) for part in parts]) for key in keys},
        )

    def take(self, rows: Array) -> FacetColumns:
        """The given rows, in that order; names stay."""
        return FacetColumns(
            codes={column: self.codes[column][rows] for column in STORED},
            names=self.names,
            price=self.price[rows],
            date=self.date[rows],
            labels=self.labels.take(rows),
            words=self.words.take(rows),
            texts=self.texts[rows],
            products=self.products[rows],
            pixels=self.pixels[rows],
            attributes={key: column.take(rows) for key, column in self.attributes.items()},
        )

    def pruned(self) -> FacetColumns:
        """The same rows, without unused names."""
        codes, names = {}, {}
        for column in STORED:
            codes[column], names[column] = used(self.codes[column], self.names[column])
        labels, names["label"] = self.labels.pruned(self.names["label"])
        words, names["word"] = self.words.pruned(self.names["word"])
        attributes = {key: column.pruned() for key, column in self.attributes.items()}
        return replace(self, codes=codes, names=names, labels=labels, words=words, attributes=attributes)

    def attribute(self, key: AttributeKey) -> AttributeColumn:
        """The column of that name and type, or one without values."""
        return self.attributes.get(key) or AttributeColumn.none(key[1], len(self))

    def mask(self, filters: Filters, types: Mapping[str, AttributeType]) -> Array:
        """(n,) bool: which rows pass.

        Args:
            types: The types of all attributes that the index knows.

        Raises:
            BadRequest: A filter cannot be read, or names an attribute that the index does not know.
        """
        keep = np.ones(len(self), bool)
        for column in CODED:
            wanted = getattr(filters, column)
            if wanted:
                keep &= self._conditioned(column, Condition(any=wanted), types)
        if filters.label:
            keep &= self._conditioned("label", Condition(any=filters.label), types)
        if filters.price is not None:
            keep &= self._conditioned("price", Condition(min=filters.price.min, max=filters.price.max), types)
            keep &= ~np.isnan(self.price)
        if filters.date_from is not None or filters.date_to is not None:
            keep &= self._conditioned("date", Condition(min=filters.date_from, max=filters.date_to), types)
        for name, condition in filters.attributes.items():
            keep &= self._conditioned(name, condition, types)
        return keep

    def _conditioned(self, name: str, condition: Condition, types: Mapping[str, AttributeType]) -> Array:
        if name == "label":
            return self._labelled(condition)
        if name in CODED:
            return AttributeColumn("keyword", self.codes[name], self.names[name]).mask(name, condition)
        if name in ("price", "date"):
            column = AttributeColumn("number", self.price) if name == "price" else AttributeColumn("date", self.date)
            return column.mask(name, condition)
        if name not in types:
            known = ", ".join(sorted(types)) or "none"
            raise BadRequest(
                f"{name!r:.80} is not an attribute of this index",
                valid=f"{', '.join(FACETS)}, price, date, and declared attributes: {known}",
                remedy="Correct the name, or declare it under [attributes] in visor.toml and crawl again",
            )
        return self.attribute((name, types[name])).mask(name, condition)

    def _labelled(self, condition: Condition) -> Array:
        """As a condition on a keyword; an item meets it with any of its labels."""

        def has(wanted: tuple[str, ...] | None) -> Array:
            some = set(wanted or ())
            passes = [wanted is None or name in some for name in self.names["label"]]
            return self.labels.sums(np.array(passes, bool), counted=True) > 0

        keep = AttributeColumn.none("keyword", len(self)).mask("label", Condition(min=condition.min, max=condition.max))
        if condition.any:
            keep &= has(condition.any)
        if condition.none:
            keep &= ~has(condition.none)
        return keep if condition.missing is None else keep & (has(None) != condition.missing)

    def word_sums(self, weights: Mapping[str, float]) -> Array:
        """(n,) float64: the sum of the weights of each item's words."""
        return self.words.sums(np.array([weights.get(word, 0.0) for word in self.names["word"]]))

    def named(self, rows: Array, roots: Array, names: Sequence[Mapping[str, float]]) -> Array:
        """(r,) float64: how far the words of rows (r,) name what the rows' own pictures show.

        Args:
            roots: (r, 1000) of `label_roots`.
            names: For each label, what `visor.schema.words.name_weights` makes of its names.
        """
        known = {word: code for code, word in enumerate(self.names["word"])}
        said = sorted((known[w], at, s) for at, name in enumerate(names) for w, s in name.items() if w in known)
        if not said:
            return np.zeros(len(rows))
        words, labels, shares = (np.array(column) for column in zip(*said, strict=True))
        own = self.words.take(rows)
        starts, stops = (np.searchsorted(words, own.codes, side) for side in ("left", "right"))
        counts = stops - starts
        owners = np.repeat(np.repeat(np.arange(len(rows)), np.diff(own.starts)), counts)
        places = np.arange(len(owners)) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        return np.bincount(owners, roots[owners, labels[places]] * shares[places], len(rows))

    def tensors(self, prefix: str = "") -> dict[str, Array]:
        """Tensors for a container; `from_container` reads them back."""
        arrays = {prefix + "names": json_tensor(dict(sorted(self.names.items())))}
        arrays |= {prefix + column: self.codes[column] for column in CODED}
        arrays |= {prefix + "price": self.price, prefix + "date": self.date}
        for name, column in (("label", self.labels), ("word", self.words)):
            arrays |= {f"{prefix}{name}_starts": column.starts, f"{prefix}{name}_codes": column.codes}
        arrays |= {prefix + "label_counts": self.labels.counts}
        also = {"declared": self.codes["declared"], "products": self.products, "pixels": self.pixels}
        arrays |= {prefix + name: values for name, values in also.items() if values.any()}
        return arrays | attribute_tensors(self.attributes, prefix)

    def text_tensors(self, prefix: str = "") -> dict[str, Array]:
        """The texts, for a container; `with_texts` reads them back. None if no row has any."""
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

        def later(name: str, dtype: type) -> Array:
            """A column that older objects, and those of items without a value, do not have."""
            there = prefix + name in container
            return container.array(prefix + name) if there else np.zeros(len(price), dtype)

        return cls(
            codes={**{c: container.array(prefix + c) for c in CODED}, "declared": later("declared", np.uint16)},
            names={"word": (), "declared": (), **names},
            price=price,
            date=container.array(prefix + "date"),
            labels=ListColumn.read(container, prefix + "label"),
            words=words,
            texts=no_texts(len(price)),
            products=later("products", np.uint64),
            pixels=later("pixels", np.uint32),
            attributes=read_attributes(container, prefix),
        )

    def with_texts(self, packed: Array | None) -> FacetColumns:
        """These columns with the texts of `text_tensors`; None: without texts."""
        return (
            self
            if packed is None
            else replace(self, texts=_objects(msgspec.msgpack.decode(zlib.decompress(packed.data))))
        )


@dataclass(frozen=True, slots=True)
class ListColumn:
    """Several values per row: those of row i are codes[starts[i]:starts[i + 1]], numbers of names.

    counts: (same length) uint8, 1 for the values that the row is filtered by.
    """

    starts: Array
    codes: Array
    counts: Array

    @classmethod
    def of(cls, rows: Sequence[tuple[str, ...]], counts: Array | None = None) -> tuple[ListColumn, tuple[str, ...]]:
        """The column of these rows, and the sorted names."""
        codes, names = code([value for row in rows for value in row])
        starts = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.uint32)
        counts = np.ones(len(codes), np.uint8) if counts is None else counts
        return cls(starts, small(codes.astype(np.int64) - 1, len(names)), counts), names

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
        """All rows in order. maps: for each part the new numbers of its names; names: how many names result."""
        codes = [new[part.codes] for new, part in zip(maps, parts, strict=True)]
        lengths = np.concatenate([np.diff(part.starts) for part in parts])
        starts = np.append(0, np.cumsum(lengths)).astype(np.uint32)
        return cls(starts, small(np.concatenate(codes), names), np.concatenate([part.counts for part in parts]))

    def take(self, rows: Array) -> ListColumn:
        lengths = np.diff(self.starts)[rows]
        starts = np.append(0, np.cumsum(lengths)).astype(np.uint32)
        inside = np.arange(int(starts[-1])) - np.repeat(starts[:-1], lengths)
        values = np.repeat(self.starts[:-1][rows], lengths) + inside
        return ListColumn(starts, self.codes[values], self.counts[values])

    def pruned(self, names: tuple[str, ...]) -> tuple[ListColumn, tuple[str, ...]]:
        """The column with only those of these names that some row has, and these."""
        codes, names = used(self.codes.astype(np.int64) + 1, names)
        return replace(self, codes=small(codes.astype(np.int64) - 1, len(names))), names

    def row(self, row: int) -> Array:
        codes: Array = self.codes[self.starts[row] : self.starts[row + 1]]
        return codes

    def counted(self, row: int) -> Array:
        """The values of a row that it is filtered by."""
        codes: Array = self.row(row)[self.counts[self.starts[row] : self.starts[row + 1]] > 0]
        return codes

    def sums(self, weights: Array, *, counted: bool = False) -> Array:
        """(n,) float64: the sum over each row's values, or those that count, of weights (names,)."""
        owners = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        if not len(self.codes):
            return np.zeros(len(self.starts) - 1)
        values = weights[self.codes] * self.counts if counted else weights[self.codes]
        return np.bincount(owners, values, len(self.starts) - 1)


def no_texts(count: int) -> Array:
    """(count,) empty texts, which take no memory."""
    return np.broadcast_to(np.array(b"", object), count)


def _objects(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array
