"""Attribute columns: one value per item to filter and count by, and the conditions that a filter puts on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from visor.errors import BadRequest
from visor.index.format.container import Array, Container, json_tensor
from visor.schema.attributes import AttributeType, flag_of, number_of
from visor.schema.search import AttributeFacet, Condition, FacetValue

NO_DATE = np.iinfo(np.int32).min
VALUES_MAX = 100
"""Values of one facet in an answer, the most frequent first."""
FLAG_NAMES = ("false", "true")
_DAY = re.compile(r"[0-9]{4}(-[0-9]{2}){0,2}")


@dataclass(frozen=True, slots=True)
class AttributeColumn:
    """The values (n,) of one attribute.

    keyword and flag: uint16 or uint32, 0 for none and i for the i-th of `names`; number: float, NaN for none; date:
    int32, days since 1970, `NO_DATE` for none.
    """

    type: AttributeType
    values: Array
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, type_: AttributeType, texts: Sequence[str | None]) -> AttributeColumn:
        """The values that these texts stand for; a text that does not fit the type counts as none."""
        if type_ == "number":
            numbers = [None if text is None else number_of(text) for text in texts]
            return cls(type_, np.array([np.nan if number is None else number for number in numbers], np.float64))
        if type_ == "date":
            return cls(type_, np.array([NO_DATE if text is None else day_of(text) for text in texts], np.int32))
        if type_ == "flag":
            flags = [None if text is None else flag_of(text) for text in texts]
            return cls(type_, np.array([0 if flag is None else 1 + flag for flag in flags], np.uint16), FLAG_NAMES)
        return cls(type_, *code([text or None for text in texts]))

    @classmethod
    def none(cls, type_: AttributeType, count: int) -> AttributeColumn:
        """The column of `count` items without a value."""
        fill = {"number": np.float64(np.nan), "date": np.int32(NO_DATE)}.get(type_, np.uint16(0))
        return cls(type_, np.full(count, fill), FLAG_NAMES if type_ == "flag" else ())

    @classmethod
    def concat(cls, parts: Sequence[AttributeColumn]) -> AttributeColumn:
        """All rows of all parts of one type, in order, with one list of names."""
        first = parts[0]
        if first.type in ("number", "date"):
            return replace(first, values=np.concatenate([part.values for part in parts]))
        names, maps = union([part.names for part in parts])
        moved = [np.append(0, m + 1)[part.values] for m, part in zip(maps, parts, strict=True)]
        return cls(first.type, small(np.concatenate(moved), len(names) + 1), names)

    def take(self, rows: Array) -> AttributeColumn:
        return replace(self, values=self.values[rows])

    def pruned(self) -> AttributeColumn:
        """The same values, without unused names."""
        if self.type != "keyword":
            return self
        values, names = used(self.values, self.names)
        return replace(self, values=values, names=names)

    def texts(self) -> list[str | None]:
        """The texts from which `of` makes these values; None for none."""
        if self.type in ("keyword", "flag"):
            return [None if value == 0 else self.names[value - 1] for value in self.values.tolist()]
        say = iso_day if self.type == "date" else repr
        pairs = zip(self.values.tolist(), self.has().tolist(), strict=True)
        return [say(value) if there else None for value, there in pairs]

    def has(self) -> Array:
        """(n,) bool: which items have a value."""
        if self.type == "number":
            return ~np.isnan(self.values)
        there: Array = self.values != (NO_DATE if self.type == "date" else 0)
        return there

    def mask(self, name: str, condition: Condition) -> Array:
        """(n,) bool: which items meet the condition.

        Args:
            name: The attribute's name, for errors.

        Raises:
            BadRequest: The condition does not fit the type.
        """
        keep = np.ones(len(self.values), bool)
        if condition.any:
            keep &= self._is_one(name, condition.any)
        if condition.none:
            keep &= ~self._is_one(name, condition.none)
        for end, limit in (("min", condition.min), ("max", condition.max)):
            if limit is None:
                continue
            low, high = self.span(name, limit)
            keep &= self.has() & (self.values >= low if end == "min" else self.values <= high)
        if condition.missing is not None:
            keep &= self.has() != condition.missing
        return keep

    def _is_one(self, name: str, wanted: Sequence[str]) -> Array:
        if self.type in ("number", "date"):
            spans = [self.span(name, text) for text in wanted]
            is_one = np.zeros(len(self.values), bool)
            for low, high in spans:
                is_one |= (self.values >= low) & (self.values <= high)
            return is_one & self.has()
        if self.type == "flag":
            flags = [flag_of(text) for text in wanted]
            if None in flags:
                raise _unfit(name, wanted[flags.index(None)], "a flag: true or false")
            wanted = [FLAG_NAMES[bool(flag)] for flag in flags]
        passes, some = np.zeros(len(self.names) + 1, bool), set(wanted)
        passes[[i + 1 for i, known in enumerate(self.names) if known in some]] = True
        return passes[self.values]

    def span(self, name: str, text: float | str) -> tuple[Any, Any]:
        """The least and the greatest value that a number or date covers, in the column's own form."""
        if self.type == "date":
            if not isinstance(text, str):
                raise _unfit(name, text, "a date: '2024', '2024-05' or '2024-05-31'")
            return bound(text, last=False), bound(text, last=True)
        if self.type != "number":
            raise _unfit(name, text, f"a {self.type}, which has no range: use any, none or missing")
        number = number_of(text) if isinstance(text, str) else float(text)
        if number is None or np.isnan(number):
            raise _unfit(name, text, "a number")
        # Rounded as the column is, so that 19.99 is within 19.99 to 19.99; beyond all values stays beyond.
        limit = float(np.finfo(self.values.dtype).max)
        value = self.values.dtype.type(min(max(number, -limit), limit))
        return value, value

    def count(self, keep: Array) -> AttributeFacet:
        """How the items of an (n,) bool mask spread over all values."""
        values = self.values[keep & self.has()]
        missing = int(np.count_nonzero(keep)) - len(values)
        if self.type in ("keyword", "flag"):
            sums = np.bincount(values, minlength=len(self.names) + 1)[1:]
            counted = zip(self.names, sums.tolist(), strict=True)
            listed = tuple(FacetValue(value=name, count=count) for name, count in counted if count)
            return AttributeFacet(type=self.type, values=listed, missing=missing)
        ends = (values.min(), values.max()) if len(values) else (None, None)
        low, high = (None if end is None else iso_day(int(end)) if self.type == "date" else float(end) for end in ends)
        return AttributeFacet(type=self.type, min=low, max=high, missing=missing)


def facet_sum(parts: Sequence[AttributeFacet]) -> AttributeFacet:
    """The sum of parts of one type, the most frequent values first."""
    counts: dict[str, int] = {}
    for part in parts:
        for one in part.values:
            counts[one.value] = counts.get(one.value, 0) + one.count
    ends: list[Any] = [end for part in parts for end in (part.min, part.max) if end is not None]
    return AttributeFacet(
        type=parts[0].type,
        values=top_values(counts),
        min=min(ends, default=None),
        max=max(ends, default=None),
        missing=sum(part.missing for part in parts),
    )


def top_values(counts: Mapping[str, int]) -> tuple[FacetValue, ...]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:VALUES_MAX]
    return tuple(FacetValue(value=name, count=count) for name, count in ordered)


def attribute_tensors(columns: Mapping[tuple[str, AttributeType], AttributeColumn], prefix: str) -> dict[str, Array]:
    """Tensors for a container; `read_attributes` reads them back."""
    if not columns:
        return {}
    about = [(name, type_, column.names) for (name, type_), column in columns.items()]
    arrays = {f"{prefix}attribute_{number}": column.values for number, column in enumerate(columns.values())}
    return {prefix + "attributes": json_tensor(about)} | arrays


def read_attributes(container: Container, prefix: str) -> dict[tuple[str, AttributeType], AttributeColumn]:
    """Columns by name and type; none in older objects."""
    if prefix + "attributes" not in container:
        return {}
    about = container.json(prefix + "attributes", list[tuple[str, AttributeType, tuple[str, ...]]])
    return {
        (name, type_): AttributeColumn(type_, container.array(f"{prefix}attribute_{number}"), names)
        for number, (name, type_, names) in enumerate(about)
    }


def bound(text: str, *, last: bool) -> int:
    """The first or last day (since 1970) of an ISO 8601 year, month, date or date-time.

    Raises:
        BadRequest: It is none of these.
    """
    try:
        # numpy reads 20240531 as a year, which no column holds.
        if not _DAY.fullmatch(text[:10]):
            raise ValueError(text)
        date = np.datetime64(text[:10])
        day = (date + 1).astype("datetime64[D]") - 1 if last else date.astype("datetime64[D]")
    except ValueError as exc:
        raise BadRequest(
            f"Date {text!r} cannot be read",
            valid="ISO 8601: 2024, 2024-05, 2024-05-31 or 2024-05-31T12:00:00Z",
            remedy="Correct the date",
        ) from exc
    return int(day.astype(np.int64))


def day_of(text: str) -> int:
    """The first day of what `bound` reads; `NO_DATE` for anything else."""
    try:
        return bound(text, last=False)
    except BadRequest:
        return int(NO_DATE)


def iso_day(day: int) -> str:
    return str(np.datetime64(day, "D"))


def code(values: Sequence[str | None]) -> tuple[Array, tuple[str, ...]]:
    """Values as codes from 1 (0 for None) and the sorted names."""
    names = tuple(sorted({value for value in values if value is not None}))
    number = {name: i + 1 for i, name in enumerate(names)}
    raw = np.array([0 if value is None else number[value] for value in values], np.int64)
    return small(raw, len(names) + 1), names


def union(lists: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], list[Array]]:
    """The sorted union of lists of names, and for each list the new number of each of its names."""
    names = tuple(sorted(set().union(*lists)))
    number = {name: i for i, name in enumerate(names)}
    return names, [np.array([number[name] for name in old], np.int64) for old in lists]


def used(codes: Array, names: tuple[str, ...]) -> tuple[Array, tuple[str, ...]]:
    """Codes from 1 (0 for none), renumbered for the names that occur; and these names."""
    found = np.unique(codes[codes > 0])
    renumbered = np.zeros(len(names) + 1, np.int64)
    renumbered[found] = 1 + np.arange(len(found))
    return small(renumbered[codes], len(found) + 1), tuple(names[i - 1] for i in found.tolist())


def small(values: Array, count: int) -> Array:
    """Codes below `count` in the smaller dtype that holds them."""
    return values.astype(np.uint16 if count <= 0xFFFF else np.uint32)


def _unfit(name: str, found: object, valid: str) -> BadRequest:
    return BadRequest(
        f"The condition on {name} names {found!r:.80}", valid=f"{name}: {valid}", remedy="Correct the condition"
    )
