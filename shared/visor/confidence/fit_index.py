"""Calibrates an index at the end of a merge: takes a sample and lets the segments pass by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from visor.confidence.across import Across, Learned
from visor.confidence.features import CoverageProjection
from visor.confidence.fit import NONE_REJECTED, SAMPLE_MAX, CatalogueRows, Sample, fit
from visor.confidence.fit_across import fit_across
from visor.confidence.model import FULL_MAX, NO_SEARCHES, Calibration
from visor.index.format.container import Array, rows_in_blocks, unit
from visor.index.format.facets import FacetColumns
from visor.index.format.manifest import Manifest
from visor.index.format.projection import FullSpace, Space
from visor.index.format.segment import Segment
from visor.schema.items import as_document
from visor.storage.objects import ObjectStore

REFIT_AT = 1.1
"""Growth (or its inverse) of an index from which its calibration is fitted anew."""
ROWS_AT_ONCE = 4_096


class Calibrator:
    """What `merge` calls when its segments stand.

    Args:
        rejected: Gives the features of answers that somebody called no match, (r, f); see `visor.search.feedback`.
        learn: Gives the visitors' mean, where it is another one than the one known (`visor.search.visitors`).
        label_words: For each label of the model the weights of its words, where the model is at hand.
    """

    def __init__(
        self,
        objects: ObjectStore,
        rejected: Callable[[], Array] = lambda: NONE_REJECTED,
        learn: Callable[[Across | None], Learned | None] = lambda before: None,
        label_words: Sequence[dict[str, float]] = (),
    ) -> None:
        self.objects, self._rejected, self._learn, self._label_words = objects, rejected, learn, label_words

    def __call__(self, manifest: Manifest, segments: Sequence[Segment], space: Space) -> Mapping[str, Any] | None:
        """The new content of the manifest's `calibration`, or None if the old one still fits."""
        old, rejected = Calibration.of(manifest.calibration), self._rejected()
        images = sum(map(len, segments))
        measured_in = None if images <= FULL_MAX else space.name
        grown = max(images, 1) / max(old.images, 1)
        fits = 1 / REFIT_AT < grown < REFIT_AT and old.space == measured_in and old.rejected == len(rejected)
        if not images:
            return None
        learned = self._learn(old.across)
        if fits and learned is None and old.across is not None:
            return None
        across = fit_across(segments, space, old.across, learned, self._label_words)
        if fits and across is None:
            return None
        fitted = old if fits else self.fit(segments, space, rejected, full=measured_in is None)
        scores = np.array(across.scores) if across and across.scores and fitted.is_fitted else NO_SEARCHES
        new = {"images": old.images if fits else images, "across": across}
        return as_document(msgspec.structs.replace(fitted.learned_shares(scores), **new))

    def fit(self, segments: Sequence[Segment], space: Space, rejected: Array, *, full: bool) -> Calibration:
        """See `visor.confidence.fit.fit`."""
        frame = CoverageProjection(FullSpace(space.dimension) if full else space)

        def catalogue() -> Iterator[CatalogueRows]:
            for segment in segments:
                for start, stop in rows_in_blocks(len(segment), ROWS_AT_ONCE):
                    yield CatalogueRows(self._rows(segment, start, stop, full), _Labels(segment.columns, start))

        sums, count = np.zeros(frame.space.dimensions, np.float64), 0
        for part in catalogue():
            sums += part.vectors.sum(0, dtype=np.float64)
            count += len(part.vectors)
        return fit(
            self._sample(segments, frame),
            catalogue,
            mean=(sums / count).astype(np.float32),
            space=None if full else space.name,
            rejected=rejected,
        )

    def _rows(self, segment: Segment, start: int, stop: int, full: bool) -> Array:
        if not full:
            return segment.vectors.unit(np.arange(start, stop))
        return unit(segment.read_full(start, stop).astype(np.float32))

    def _sample(self, segments: Sequence[Segment], frame: CoverageProjection) -> Sample:
        """The first rows of each segment, in proportion: rows are sorted by id, and ids are digests."""
        share = min(1.0, SAMPLE_MAX / sum(map(len, segments)))
        vectors, rows, labels, before = [], [], [], 0
        for segment in segments:
            count = int(np.ceil(len(segment) * share))
            vectors.append(frame.project(unit(segment.read_full(0, count).astype(np.float32))))
            rows.append(before + np.arange(count))
            names = _Labels(segment.columns, 0)
            labels += [names[row] for row in range(count)]
            before += len(segment)
        return Sample(np.concatenate(vectors), np.concatenate(rows), labels)


class _Labels(Sequence[Sequence[str]]):
    """Content labels of a segment's rows from `first` on, looked up one by one."""

    def __init__(self, columns: FacetColumns, first: int) -> None:
        self._columns, self._first = columns, first

    def __len__(self) -> int:
        return len(self._columns) - self._first

    def __getitem__(self, row: Any) -> Any:
        return tuple(self._columns.names["label"][code] for code in self._columns.labels.row(self._first + row))
