"""Segments: one immutable, compacted set of vectors with its search codes, sorted by item id.

The hot part (everything but the full vectors) lies in front, so that a function reads `[0, hot_bytes)` of an object on
Cloud Storage and never downloads the full vectors unless a metric asks for them. Full vectors are checksummed by blocks
of `BLOCK_ROWS` rows, so that a merge can check what it streams.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from visor.index.format.codes import FastScan
from visor.index.format.container import (
    Array,
    Container,
    Layout,
    TensorSpec,
    checksum,
    corrupt,
    flat_bytes,
    rows_in_blocks,
)
from visor.index.format.facets import FacetColumns
from visor.index.format.ids import IdIndex
from visor.index.format.manifest import SegmentEntry
from visor.index.format.projection import Space, encode, unit
from visor.storage.objects import ObjectStore

FOLDER = "segments/"
BLOCK_ROWS = 1024
"""Rows of full vectors that are read, checked and projected at once."""


@dataclass(frozen=True, slots=True)
class LateRecords:
    """Tombstones and facet updates that a segment carries because their item may still arrive or lie elsewhere.

    ids (t, 16) uint8, versions (t,) int64, since (t,) float64 (seconds since 1970, when a merge took them up).
    """

    ids: Array
    versions: Array
    since: Array

    @classmethod
    def none(cls) -> LateRecords:
        return cls(np.empty((0, 16), np.uint8), np.empty(0, np.int64), np.empty(0, np.float64))

    def __len__(self) -> int:
        return len(self.versions)


@dataclass(frozen=True, slots=True)
class Segment:
    """An opened segment of n rows.

    ids (n, 16) uint8 sorted; versions (n,) int64; hashes (n, h) uint8; `codes` (n, m) uint8, or None in an index
    without a projection, where `full` (n, d) float32 takes their place; `group_rows` and `group_leaders` (g,) int64:
    rows that may show the same picture as another row, and the row that stands for them.
    """

    entry: SegmentEntry
    dimension: int
    ids: Array
    versions: Array
    hashes: Array
    columns: FacetColumns
    codes: Array | None
    full: Array | None
    fast: FastScan | None
    group_rows: Array
    group_leaders: Array
    tombstones: LateRecords
    updates: LateRecords
    update_columns: FacetColumns
    index: IdIndex = field(repr=False)
    container: Container = field(repr=False)

    def __len__(self) -> int:
        return len(self.versions)

    def vectors(self, objects: ObjectStore, start: int, stop: int) -> Array:
        """Full vectors [start, stop) as (stop − start, d) float16, read from the object now."""
        row_bytes = 2 * self.dimension
        offset = self.container.tensors["vectors"].start
        view = objects.get(self.entry.name, start=offset + start * row_bytes, end=offset + stop * row_bytes)
        if len(view) != (stop - start) * row_bytes:
            raise corrupt(self.entry.name, f"its full vectors end before row {stop}")
        return np.frombuffer(view, "<f2").reshape(-1, self.dimension)

    def checked_blocks(self, objects: ObjectStore) -> Iterator[tuple[int, Array]]:
        """All full vectors in blocks of `BLOCK_ROWS`, with the row each starts at.

        Raises:
            CorruptObject: A block does not match its checksum.
        """
        sums = self.container.array("vector_checksums")
        for number, (start, stop) in enumerate(rows_in_blocks(len(self), BLOCK_ROWS)):
            block = self.vectors(objects, start, stop)
            if checksum(flat_bytes(block)) != sums[number].tobytes().hex():
                raise corrupt(self.entry.name, f"full vectors {start} to {stop} do not match their checksum")
            yield start, block


def open_segment(objects: ObjectStore, entry: SegmentEntry, space: Space) -> Segment:
    """Read the hot part of a live segment.

    Raises:
        NotFound: It is gone (the manifest was replaced).
        CorruptObject, NewerFormat: It cannot be read.
    """
    view = objects.get(entry.name, start=0, end=entry.hot_bytes)
    container = Container.open(entry.name, view, kind="segment")
    if container.array("header_digest", verify=False).tobytes().hex() != entry.digest:
        raise corrupt(entry.name, "it is not the object that the manifest means")
    count, dimension = container.tensors["vectors"].shape
    codes = full = fast = None
    if space.matrix is not None:
        codes = container.array("codes")
        if codes.shape != (count, space.dimensions) or entry.projection != space.name:
            raise corrupt(entry.name, f"its codes {codes.shape} were not made by {space.name}")
        fast = FastScan.read(container.array("fast")) if "fast" in container else None
    ids = container.array("ids")
    segment = Segment(
        entry=entry,
        dimension=dimension,
        ids=ids,
        versions=container.array("versions"),
        hashes=container.array("hashes"),
        columns=FacetColumns.from_container(container),
        codes=codes,
        full=full,
        fast=fast,
        group_rows=container.array("group_rows").astype(np.int64),
        group_leaders=container.array("group_leaders").astype(np.int64),
        tombstones=_late(container, "tombstone_"),
        updates=_late(container, "update_"),
        update_columns=FacetColumns.from_container(container, "update_"),
        index=IdIndex.of(ids),
        container=container,
    )
    if codes is not None or count == 0:
        return segment
    return _with_full(segment, unit(np.asarray(segment.vectors(objects, 0, count), np.float32)))


@dataclass
class SegmentWriter:
    """Writes a segment to a local file: full vectors as they stream by, everything else at the end.

    Args:
        path: The file; it is created.
        hot: All tensors but `vectors`, `vector_checksums`, `codes` and `fast`.
        count, dimension: Shape of the full vectors.
        space: What the codes are made with.
        fast: A trained, empty fast scan, or None.
    """

    path: Path
    about: Mapping[str, Any]
    hot: Mapping[str, Array]
    count: int
    dimension: int
    space: Space
    fast: FastScan | None

    def write(self, blocks: Iterator[Array]) -> SegmentEntry:
        """Consume all full vectors, (b, d) float16 in row order with b = `BLOCK_ROWS` but for the last.

        Returns:
            The entry for the manifest, its `name` still the file's path.
        """
        layout = self._layout()
        tensors = dict(self.hot)
        coded = self.space.matrix is not None
        codes = np.empty((self.count if coded else 0, self.space.dimensions), np.uint8)
        sums = np.empty((layout.tensors["vector_checksums"].shape[0], 8), np.uint8)
        with self.path.open("wb") as file:
            file.truncate(layout.size_bytes)
            file.seek(layout.tensors["vectors"].start)
            done = 0
            for number, block in enumerate(blocks):
                data = np.ascontiguousarray(block, "<f2")
                sums[number] = np.frombuffer(bytes.fromhex(checksum(flat_bytes(data))), np.uint8)
                file.write(flat_bytes(data))
                self._code(data, codes[done : done + len(data)])
                done += len(data)
            if done != self.count:
                raise ValueError(f"{done} vectors were given for {self.count} rows")
            tensors["vector_checksums"] = sums
            if coded:
                tensors["codes"] = codes
            if self.fast is not None:
                tensors["fast"] = self.fast.write()
            head = self._write_hot(file, layout, tensors)
            file.flush()
            os.fsync(file.fileno())
        return SegmentEntry(
            name=str(self.path),
            count=self.count,
            size_bytes=layout.size_bytes,
            hot_bytes=layout.tensors["vectors"].start,
            digest=head[-16:].hex(),
            projection=self.space.name,
            tombstones=len(self.hot["tombstone_ids"]),
            updates=len(self.hot["update_ids"]),
        )

    def _code(self, block: Array, codes: Array) -> None:
        if self.space.matrix is None:
            return
        projected = self.space.project(block)
        codes[:] = encode(projected, self.space.scale)
        if self.fast is not None:
            self.fast.add(projected)

    def _layout(self) -> Layout:
        specs = [TensorSpec(name, array.dtype, array.shape) for name, array in self.hot.items()]
        if self.space.matrix is not None:
            specs.append(TensorSpec("codes", np.dtype("u1"), (self.count, self.space.dimensions)))
        if self.fast is not None:
            specs.append(TensorSpec("fast", np.dtype("u1"), (self.fast.size_bytes(self.count),)))
        specs.append(TensorSpec("vector_checksums", np.dtype("u1"), (-(-self.count // BLOCK_ROWS), 8)))
        specs.append(TensorSpec("vectors", np.dtype("<f2"), (self.count, self.dimension)))
        return Layout.of("segment", self.about, specs)

    def _write_hot(self, file: BinaryIO, layout: Layout, tensors: Mapping[str, Array]) -> bytes:
        checksums = {}
        for name, array in tensors.items():
            data = np.ascontiguousarray(array).tobytes()
            spec = layout.tensors[name]
            if len(data) != spec.size_bytes:
                raise ValueError(f"tensor {name} has {len(data)} bytes where {spec.size_bytes} were laid out")
            checksums[name] = checksum(data)
            file.seek(spec.start)
            file.write(data)
        head = layout.header(checksums)
        file.seek(0)
        file.write(head)
        return head


def late_tensors(prefix: str, late: LateRecords) -> dict[str, Array]:
    return {prefix + "ids": late.ids, prefix + "versions": late.versions, prefix + "since": late.since}


def _late(container: Container, prefix: str) -> LateRecords:
    return LateRecords(*(container.array(prefix + part) for part in ("ids", "versions", "since")))


def _with_full(segment: Segment, full: Array) -> Segment:
    return replace(segment, full=full)
