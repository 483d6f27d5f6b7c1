"""Calibrates an index at the end of a merge: takes a sample and streams the segments past it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from visor.confidence.across import Across, Learned
from visor.confidence.features import CoverageProjection
from visor.confidence.fit import NONE_REJECTED, SAMPLE_MAX, CatalogueRows, Sample, fit
from visor.confidence.fit_across import fit_across
from visor.confidence.model import FULL_MAX, NO_SEARCHES, Calibration
from visor.index.format.container import Array, rows_in_blocks
from visor.index.format.facets import FacetColumns
from visor.index.format.manifest import Manifest
from visor.index.format.projection import FullSpace, Space, unit
from visor.index.format.segment import Segment
from visor.schema.items import as_document
from visor.storage.objects import ObjectStore

REFIT_AT = 1.1
"""Growth (or its inverse) of an index from which its calibration is fitted anew."""
ROWS_AT_ONCE = 4_096


class Calibrator:
    """What `merge` calls when its segments are written.

    Args:
        rejected: Returns the features of answers that somebody called no match, (r, f); see `visor.search.feedback`.
        learn: Returns the visitors' mean, if it differs from the known one (`visor.search.visitors`).
        label_words: For each label of the model the weights of its words, if the model is at hand.
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
        if not images:
            return None
        measured_in = None if images <= FULL_MAX else space.name
        grown = images / max(old.images, 1)
        fits = 1 / REFIT_AT < grown < REFIT_AT and old.space == measured_in and old.rejected == len(rejected)
        learned = self._learn(old.across)
        if fits and learned is None and old.across is not None:
            return None
        distinct = distinct_rows(segment.hashes for segment in segments)
        across = fit_across(segments, space, old.across, learned, self._label_words, distinct)
        if fits and across is None:
            return None
        fitted = old if fits else self.fit(segments, distinct, space, rejected, full=measured_in is None)
        scores = np.array(across.scores) if across and across.scores and fitted.is_fitted else NO_SEARCHES
        new = {"images": old.images if fits else images, "across": across}
        return as_document(msgspec.structs.replace(fitted.learned_shares(scores), **new))

    def fit(
        self, segments: Sequence[Segment], distinct: Sequence[Array], space: Space, rejected: Array, *, full: bool
    ) -> Calibration:
        """See `visor.confidence.fit.fit`. A picture that many items show, such as 'no image', counts once."""
        frame = CoverageProjection(FullSpace(space.dimension) if full else space)

        def catalogue() -> Iterator[CatalogueRows]:
            for segment, keep in zip(segments, distinct, strict=True):
                for start, stop in rows_in_blocks(len(segment), ROWS_AT_ONCE):
                    rows = np.flatnonzero(keep[start:stop])
                    vectors = self._rows(segment, start, stop, full)[rows]
                    yield CatalogueRows(vectors, _Labels(segment.columns, start + rows))

        sums, count = np.zeros(frame.space.dimensions, np.float64), 0
        for part in catalogue():
            sums += part.vectors.sum(0, dtype=np.float64)
            count += len(part.vectors)
        return fit(
            self._sample(segments, distinct, frame),
            catalogue,
            mean=(sums / count).astype(np.float32),
            space=None if full else space.name,
            rejected=rejected,
            images=sum(map(len, segments)),
        )

    def _rows(self, segment: Segment, start: int, stop: int, full: bool) -> Array:
        if not full:
            return segment.vectors.unit(np.arange(start, stop))
        return unit(segment.read_full(start, stop).astype(np.float32))

    def _sample(self, segments: Sequence[Segment], distinct: Sequence[Array], frame: CoverageProjection) -> Sample:
        """The first distinct rows of each segment, in proportion: rows are sorted by id, and ids are digests."""
        share = min(1.0, SAMPLE_MAX / sum(int(keep.sum()) for keep in distinct))
        vectors, rows, before = [], [], 0
        labels: list[Sequence[str]] = []
        for segment, keep in zip(segments, distinct, strict=True):
            kept = np.flatnonzero(keep)
            some = kept[: int(np.ceil(len(kept) * share))]
            read = segment.read_full(0, int(some.max(initial=-1)) + 1)[some]
            vectors.append(frame.project(unit(read.astype(np.float32))))
            rows.append(before + np.arange(len(some)))
            labels += _Labels(segment.columns, some)
            before += len(kept)
        return Sample(np.concatenate(vectors), np.concatenate(rows), labels)


def distinct_rows(hashes: Iterable[Array]) -> list[Array]:
    """For each segment's hashes (n, h) uint8 which rows, (n,) bool, have another hash than all before. Rows without
    a hash, all zeros, count as distinct."""
    ends, keys = [0], []
    for one in hashes:
        ends.append(ends[-1] + len(one))
        odd = np.random.default_rng(0).integers(1 << 63, size=one.shape[1], dtype=np.uint64) | np.uint64(1)
        keys += [
            (one[start:stop] * odd).sum(1, dtype=np.uint64) for start, stop in rows_in_blocks(len(one), ROWS_AT_ONCE)
        ]
    every = np.concatenate([np.empty(0, np.uint64), *keys])
    keep = every == 0
    keep[np.unique(every, return_index=True)[1]] = True
    return np.split(keep, ends[1:-1])


class _Labels(Sequence[Sequence[str]]):
    """Content labels of some rows (r,) of a segment, looked up one by one."""

    def __init__(self, columns: FacetColumns, rows: Array) -> None:
        self._columns, self._rows = columns, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        return tuple(self._columns.names["label"][code] for code in self._columns.labels.row(self._rows[row]))
