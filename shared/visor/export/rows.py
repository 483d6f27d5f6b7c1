"""Rows: the live rows of a snapshot in parts, and the chunks of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from visor.confidence.features import CoverageProjection
from visor.export.files import ExportFiles, File
from visor.free_tier.cost_model import PART_ROWS
from visor.index.format.container import Array, json_tensor, rows_in_blocks
from visor.index.format.facets import FacetColumns, ListColumn
from visor.index.format.projection import CodedVectors, Projection
from visor.index.search.snapshot import LiveBlock, Snapshot
from visor.near_duplicates.fingerprint import PDQ_BYTES
from visor.schema.items import Record

READ_ROWS = 1024
"""Full vectors that are processed at once."""


class Part(Record, frozen=True, kw_only=True):
    """Some rows of one segment, and where their chunks are."""

    rows: int
    segment: int
    columns: File
    hashes: File
    codes_high: File | None = None
    codes_low: File | None = None
    vectors: File | None = None
    looks: File | None = None
    pages: tuple[str, ...] = ()
    pages_bytes: int = 0


@dataclass(frozen=True)
class PartRows:
    """The live rows (n,) int64 of a part of one block, ascending."""

    segment: int
    live: LiveBlock
    rows: Array
    columns: FacetColumns
    """The chunks of these rows, as they are now."""

    @property
    def ids(self) -> Array:
        """(n, 16) uint8."""
        ids: Array = self.live.block.ids[self.rows]
        return ids


def parts_of(snapshot: Snapshot) -> Iterator[PartRows]:
    """All live rows. A part holds the same rows as long as its segment lives, except those that were deleted."""
    for number, live in enumerate(snapshot.blocks):
        alive = np.ones(len(live), bool) if live.alive is None else live.alive
        columns, order = live.block.columns, np.arange(len(live))
        if live.overlay is not None:
            order[live.overlay_rows] = len(live) + np.arange(len(live.overlay_rows))
            columns = FacetColumns.concat([columns, live.overlay])
        for start, stop in rows_in_blocks(len(live), PART_ROWS):
            rows = start + np.flatnonzero(alive[start:stop])
            if len(rows):
                yield PartRows(number, live, rows, columns.take(order[rows]))


@dataclass(frozen=True)
class PartWriter:
    """Writes the chunks of parts.

    has_vectors: Write full vectors, too. is_across: Write what is compared across the gap to visitors' photos, too.
    """

    files: ExportFiles
    snapshot: Snapshot
    has_vectors: bool
    is_across: bool

    def write(self, part: PartRows, pages: list[File]) -> Part:
        block, rows, projection = part.live.block, part.rows, self.snapshot.space
        hashes = block.hashes[rows]
        made_of = [str(projection.name).encode(), part.ids.tobytes(), block.versions[rows].tobytes(), hashes.tobytes()]
        high = low = vectors = looks = None
        if isinstance(projection, Projection) and isinstance(block.vectors, CodedVectors):
            codes = block.vectors.codes[rows]
            made_of.append(codes.tobytes())
            high = self.files.chunk(
                "codes_high", made_of, lambda: {"codes": nibbles(codes)[0], "covered": self._covered(part, projection)}
            )
            low = self.files.chunk("codes_low", made_of, lambda: {"codes": nibbles(codes)[1]})
        if self.has_vectors:
            vectors = self.files.chunk("vectors", made_of, lambda: {"vectors": np.concatenate(list(_full(part)))})
        if self.is_across:
            looks = self.files.content("looks", {"looks": block.looks[rows]})
        return Part(
            rows=len(rows),
            segment=part.segment,
            columns=self.files.content("columns", self._columns(part)),
            hashes=self.files.content("hashes", {"hashes": hashes[:, :PDQ_BYTES]}),
            codes_high=high,
            codes_low=low,
            vectors=vectors,
            looks=looks,
            pages=tuple(page.name for page in pages),
            pages_bytes=sum(page.bytes for page in pages),
        )

    def _columns(self, part: PartRows) -> dict[str, Array]:
        columns, n = part.columns, len(part.rows)
        columns = replace(
            columns,
            codes={**columns.codes, "declared": np.zeros(n, np.uint16)},
            words=columns.words if self.is_across else ListColumn.none(n),
            attributes={key: columns.attribute(key) for key in sorted(self.snapshot.types.items())},
        ).pruned()
        tensors = {"ids": part.ids, **_groups(part), **columns.tensors()}
        names = dict(columns.names)
        del names["declared"]
        if not self.is_across:
            del names["word"], tensors["word_starts"], tensors["word_codes"]
        return {**tensors, "names": json_tensor(names)}

    def _covered(self, part: PartRows, projection: Projection) -> Array:
        """(n,) float32: the share of each full vector that is in the projected space."""
        frame = CoverageProjection(projection)
        return np.concatenate([np.linalg.norm(frame.project(full), axis=1) for full in _full(part)])


def nibbles(codes: Array) -> tuple[Array, Array]:
    """Codes (n, m) uint8 as their upper and lower halves of four bits, (n, ceil(m / 2)) each: coordinate j in the upper
    half of a byte, coordinate j + ceil(m / 2) in its lower half."""
    codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    first, second = np.split(codes, 2, axis=1)
    return (first & 0xF0) | (second >> 4), (first << 4) | (second & 0x0F)


def _full(part: PartRows) -> Iterator[Array]:
    """The full vectors (b, d) float16 of a part, in blocks."""
    for start, stop in rows_in_blocks(len(part.rows), READ_ROWS):
        rows = part.rows[start:stop]
        first = int(rows[0])
        yield part.live.block.read_full(first, int(rows[-1]) + 1)[rows - first]


def _groups(part: PartRows) -> dict[str, Array]:
    """Which rows of the part may show the same image as others of their segment, and the key of each one's group."""
    block = part.live.block
    mine = np.isin(block.group_rows, part.rows)
    return {
        "group_rows": np.searchsorted(part.rows, block.group_rows[mine]).astype(np.uint32),
        "group_keys": np.ascontiguousarray(block.ids[block.group_leaders[mine], :8]).view("<u8").ravel(),
    }
