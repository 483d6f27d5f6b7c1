"""Facet counts: how the items that pass spread over facets, attributes, prices and dates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from visor.index.format.attributes import NO_DATE, facet_sum, iso_day, top_values
from visor.index.format.container import Array
from visor.index.format.facets import CODED, FacetColumns
from visor.schema.attributes import AttributeType
from visor.schema.search import FACETS, AttributeFacet, FacetsAnswer, RangeCount

PRICE_RANGES = 6
DATE_RANGES = 12
"""Ranges in an answer, at most."""
_PERIODS = (("D", 1), ("D", 7), *(("M", n) for n in (1, 3, 6)), *(("Y", n) for n in (1, 2, 5, 10, 20, 50, 100, 1000)))
"""Lengths of a range of dates, by numpy's units."""


@dataclass(frozen=True, slots=True)
class FacetCounts:
    """Counts over some rows; they add up over blocks. prices (p,) float32 and days (d,) int32 of rows with any."""

    images: int
    counts: Mapping[str, Mapping[str, int]]
    prices: Array
    days: Array
    attributes: Mapping[str, AttributeFacet]

    @classmethod
    def of(cls, columns: FacetColumns, keep: Array, types: Mapping[str, AttributeType]) -> FacetCounts:
        """The counts over the rows of an (n,) bool mask."""
        counts: dict[str, dict[str, int]] = {}
        for column in CODED:
            sums = np.bincount(columns.codes[column][keep], minlength=len(columns.names[column]) + 1)[1:]
            counts[column] = {n: int(s) for n, s in zip(columns.names[column], sums, strict=True) if s}
        labelled = np.repeat(keep, np.diff(columns.labels.starts)) & columns.labels.counts.astype(bool)
        labelled = columns.labels.codes[labelled]
        sums = np.bincount(labelled, minlength=len(columns.names["label"]))
        counts["label"] = {n: int(s) for n, s in zip(columns.names["label"], sums, strict=True) if s}
        prices, days = columns.price[keep], columns.date[keep]
        return cls(
            images=int(np.count_nonzero(keep)),
            counts=counts,
            prices=prices[~np.isnan(prices)],
            days=days[days != NO_DATE],
            attributes={name: columns.attribute((name, type_)).count(keep) for name, type_ in types.items()},
        )

    @staticmethod
    def answer(parts: Sequence[FacetCounts]) -> FacetsAnswer:
        """The sum of all parts, each facet's most frequent values first."""
        sums: dict[str, dict[str, int]] = {column: {} for column in FACETS}
        for part in parts:
            for column, counts in part.counts.items():
                for name, count in counts.items():
                    sums[column][name] = sums[column].get(name, 0) + count
        listed: dict[str, Any] = {column: top_values(counts) for column, counts in sums.items()}
        prices = np.concatenate([part.prices for part in parts]) if parts else np.empty(0, np.float32)
        days = np.concatenate([part.days for part in parts]) if parts else np.empty(0, np.int32)
        names = parts[0].attributes if parts else {}
        return FacetsAnswer(
            images=sum(part.images for part in parts),
            price_min=float(prices.min()) if len(prices) else None,
            price_max=float(prices.max()) if len(prices) else None,
            price_ranges=price_ranges(prices),
            date_ranges=date_ranges(days),
            attributes={name: facet_sum([part.attributes[name] for part in parts]) for name in names},
            **listed,
        )


def price_ranges(prices: Array) -> tuple[RangeCount, ...]:
    """At most `PRICE_RANGES` ranges with round ends that hold about as many prices each.

    Args:
        prices: (p,) float, finite.
    """
    if not len(prices):
        return ()
    ends = np.quantile(prices, np.linspace(0, 1, PRICE_RANGES + 1)).tolist()
    gaps = [b - a for a, b in pairwise(ends)]
    edges = [_rounded(ends[0], gaps[0], math.floor)]
    for end, before, behind in zip(ends[1:], gaps, [*gaps[1:], None], strict=True):
        is_last = behind is None
        edge = _rounded(end, before if behind is None else (before + behind) / 2, math.ceil if is_last else round)
        if edge > edges[-1]:
            edges.append(edge)
    if len(edges) == 1:
        return (RangeCount(min=edges[0], max=edges[0], count=len(prices)),)
    edges[-1] = max(edges[-1], _rounded(ends[-1], gaps[-1], math.ceil))
    # As a filter compares them: in float32, 0.1 is a little more and 19.99 a little less.
    counts = np.histogram(prices, np.array(edges, prices.dtype))[0].tolist()
    return tuple(RangeCount(min=a, max=b, count=n) for a, b, n in zip(edges, edges[1:], counts, strict=False))


def _rounded(value: float, gap: float, how: Any) -> float:
    """A value, rounded to a multiple of 1, 2 or 5 times a power of ten that is no more than half of a gap."""
    if gap <= 0:
        gap = abs(value) / 100 or 1.0
    power = math.floor(math.log10(gap / 2))
    step = next(n * 10.0**power for n in (5, 2, 1) if n * 10.0**power <= gap / 2 or n == 1)
    return float(round(how(round(value / step, 6)) * step, max(0, -power)))


def date_ranges(days: Array) -> tuple[RangeCount, ...]:
    """At most `DATE_RANGES` ranges of days, weeks, months or years, aligned with the calendar.

    Args:
        days: (d,) int32 since 1970.
    """
    if not len(days):
        return ()
    dates = np.asarray(days, "datetime64[D]")
    for unit, length in _PERIODS:
        # Weeks begin on Monday, and decades with a year that ends in 0.
        shift = {"D": 3 if length == 7 else 0, "M": 0, "Y": 1970}[unit]
        periods = (dates.astype(f"datetime64[{unit}]").astype(np.int64) + shift) // length
        first, last = int(periods.min()), int(periods.max())
        if last - first < DATE_RANGES:
            break
    starts = np.arange(first, last + 2) * length - shift
    edges = starts.astype(f"datetime64[{unit}]").astype("datetime64[D]").astype(np.int64)
    counts = np.bincount(periods - first, minlength=last - first + 1).tolist()
    edges[-1] -= 1
    texts = [iso_day(int(edge)) for edge in edges]
    return tuple(RangeCount(min=a, max=b, count=n) for a, b, n in zip(texts, texts[1:], counts, strict=False))
