"""Segments: one immutable, compacted set of vectors with its search codes, sorted by item id.

The hot part (everything but the full vectors) comes first, so that a function reads `[0, hot_bytes)` of an object on
Cloud Storage and never downloads the full vectors unless a metric needs them. Full vectors are checksummed by blocks
of `BLOCK_ROWS` rows, so that a merge can check what it streams.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from visor.errors import CorruptObject
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
from visor.index.format.fast_scan import FastScan, nearest_cells
from visor.index.format.ids import IdIndex
from visor.index.format.looks import Augmented, no_looks
from visor.index.format.manifest import SegmentEntry
from visor.index.format.pending_deletes import PendingDeletes
from visor.index.format.projection import CodedVectors, FullVectors, Projection, Space, encode
from visor.index.words.text_index import SegmentWords
from visor.storage.objects import ObjectStore

FOLDER = "segments/"
BLOCK_ROWS = 1024
"""Rows of full vectors that are read, checked and projected at once."""


@dataclass(frozen=True, kw_only=True)
class RowBlock(ABC):
    """n rows sorted by id, each id once: a segment, or all fresh shards together.

    ids (n, 16) uint8; versions (n,) int64; hashes (n, h) uint8; `vectors`: the rows in the similarity space;
    `group_rows` and `group_leaders` (g,) int64: rows that may show the same image as another row, and the row that
    stands for them.
    """

    ids: Array
    versions: Array
    hashes: Array
    columns: FacetColumns
    vectors: CodedVectors | FullVectors
    index: IdIndex = field(repr=False)
    group_rows: Array
    group_leaders: Array

    def __len__(self) -> int:
        return len(self.versions)

    @abstractmethod
    def read_full(self, start: int, stop: int) -> Array:
        """Full vectors [start, stop) as (stop − start, d) float16."""

    @property
    @abstractmethod
    def looks(self) -> Array:
        """(n, 258) uint8, read on first use; zeros if none were written."""


@dataclass(frozen=True, kw_only=True)
class Segment(RowBlock):
    """An opened segment."""

    entry: SegmentEntry
    dimension: int
    pending: PendingDeletes
    container: Container = field(repr=False)
    objects: ObjectStore = field(repr=False)

    def read_full(self, start: int, stop: int) -> Array:
        """Full vectors [start, stop) as (stop − start, d) float16, read from the object now."""
        return _read_full(self.objects, self.container, start, stop)

    @cached_property
    def looks(self) -> Array:
        return self._cold("looks") if "looks" in self.container else no_looks(len(self))

    @property
    def augmented(self) -> Augmented:
        return Augmented.read(self.container, self.dimension, self._cold)

    @property
    def worded_columns(self) -> FacetColumns:
        """`columns` with their texts, which only a merge needs."""
        return self.columns.with_texts(self._cold("texts") if "texts" in self.container else None)

    @property
    def unknown_texts(self) -> int:
        """Rows whose texts were not kept."""
        about = self.container.about.get("words")
        return len(self) if about is None else int(about["unknown"])

    def has_words_in(self, languages: Sequence[str]) -> bool:
        """Whether all texts were kept, and are stemmed in these languages."""
        about = self.container.about.get("words", {"languages": []})
        return not len(self) or (not self.unknown_texts and about["languages"] == list(languages))

    @property
    def words_files(self) -> Array | None:
        """The bytes that `words` is opened from; None if they were not kept. Raises `CorruptObject`."""
        return self.container.array("words") if "words" in self.container.about else None

    @cached_property
    def words(self) -> SegmentWords | None:
        """The segment's words, opened on first use; None if they cannot be."""
        try:
            files = self.words_files
        except CorruptObject:
            return SegmentWords(None, ())
        return None if files is None else SegmentWords.open(files, self.container.about["words"])

    def _cold(self, name: str) -> Array:
        """A tensor behind the full vectors. Looks are read from the object now; all others together, and only once."""
        spec = self.container.tensors[name]
        if name == "looks":
            view = self.objects.get(self.container.name, start=spec.start, end=spec.end)
        else:
            start, tail = self._tail
            view = tail[spec.start - start : spec.end - start]
        if checksum(view) != self.container.checksums[name]:
            raise corrupt(self.container.name, f"tensor {name} does not match its checksum")
        return np.frombuffer(view, spec.dtype).reshape(spec.shape)

    @cached_property
    def _tail(self) -> tuple[int, memoryview]:
        """The bytes behind vectors and looks, after the offset at which they start."""
        vectors = self.container.tensors["vectors"].end
        looks = self.container.tensors.get("looks")
        start = max(vectors, looks.end if looks else 0)
        return start, self.objects.get(self.container.name, start=start, end=self.entry.size_bytes)

    def checked_blocks(self, first: int = 0) -> Iterator[tuple[int, Array]]:
        """The full vectors in blocks of `BLOCK_ROWS`, from the one with row `first` on, each after its first row.

        Raises:
            CorruptObject: A block does not match its checksum.
        """
        sums = self.container.array("vector_checksums")
        for number, (start, stop) in enumerate(rows_in_blocks(len(self), BLOCK_ROWS)):
            if stop <= first:
                continue
            block = self.read_full(start, stop)
            if checksum(flat_bytes(block)) != sums[number].tobytes().hex():
                raise corrupt(self.entry.name, f"full vectors {start} to {stop} do not match their checksum")
            yield start, block


def open_segment(objects: ObjectStore, entry: SegmentEntry, space: Space) -> Segment:
    """Read the hot part of a live segment.

    Args:
        space: Of the manifest. If it is of full vectors although the segment has codes, the projection is lost, and the
            codes mean nothing until one is learned anew.

    Raises:
        NotFound: It is gone (the manifest was replaced).
        CorruptObject, NewerFormat: It cannot be read.
    """
    view = objects.get(entry.name, start=0, end=entry.hot_bytes)
    container = Container.open(entry.name, view, kind="segment")
    if container.array("header_digest", verify=False).tobytes().hex() != entry.digest:
        raise corrupt(entry.name, "it is not the object that the manifest describes")
    count, dimension = container.tensors["vectors"].shape
    vectors: CodedVectors | FullVectors
    if entry.projection is not None or isinstance(space, Projection):
        codes = container.array("codes")
        if isinstance(space, Projection) and (codes.shape[1] != space.dimensions or entry.projection != space.name):
            raise corrupt(entry.name, f"its codes {codes.shape} were not made by {space.name}")
        scans = {tensor: container.array(tensor) for tensor in ("fast", "cells") if tensor in container}
        vectors = CodedVectors(codes, **scans)
        rows = len(codes), len(scans.get("cells", codes))
        if rows != (count, count):
            raise corrupt(entry.name, f"of its {count} rows {rows[0]} have codes and {rows[1]} lie in cells")
        if isinstance(space, Projection) and vectors.cells is not None:
            known = 0 if space.centres is None else len(space.centres)
            if int(vectors.cells.max(initial=0)) >= known:
                raise corrupt(entry.name, f"its rows lie in cells that {space.name} does not have ({known})")
    else:
        vectors = FullVectors(space.project(_read_full(objects, container, 0, count)))
    ids = container.array("ids")
    return Segment(
        entry=entry,
        dimension=dimension,
        ids=ids,
        versions=container.array("versions"),
        hashes=container.array("hashes"),
        columns=FacetColumns.from_container(container),
        vectors=vectors,
        group_rows=container.array("group_rows").astype(np.int64),
        group_leaders=container.array("group_leaders").astype(np.int64),
        pending=PendingDeletes.from_container(container),
        index=IdIndex.of(ids),
        container=container,
        objects=objects,
    )


@dataclass
class SegmentWriter:
    """Writes a segment to a local file: full vectors as they stream by, everything else at the end.

    Args:
        path: The file; it is created.
        hot: All tensors but `vectors`, `vector_checksums`, `codes`, `fast`, `cells` and those of `cold`.
        cold: Tensors behind the full vectors, which a search reads only where it needs them.
        count, dimension: Shape of the full vectors.
        space: What makes the codes.
        fast: A trained, empty fast scan, or None.
    """

    path: Path
    about: Mapping[str, Any]
    hot: Mapping[str, Array]
    cold: Mapping[str, Array]
    count: int
    dimension: int
    space: Space
    fast: FastScan | None

    def write(self, blocks: Iterator[Array]) -> SegmentEntry:
        """Consume all full vectors, (b, d) float16 in row order with b = `BLOCK_ROWS` except in the last.

        Returns:
            The entry for the manifest, its `name` still the file's path.
        """
        layout = self._layout()
        tensors = {**self.hot, **self.cold}
        coder = self.space if isinstance(self.space, Projection) else None
        codes = np.empty((self.count if coder else 0, self.space.dimensions), np.uint8)
        cells = np.empty(self.count if "cells" in layout.tensors else 0, np.uint16)
        sums = np.empty((layout.tensors["vector_checksums"].shape[0], 8), np.uint8)
        with self.path.open("wb") as file:
            file.truncate(layout.size_bytes)
            file.seek(layout.tensors["vectors"].start)
            done = 0
            for number, block in enumerate(blocks):
                data = np.ascontiguousarray(block, "<f2")
                sums[number] = np.frombuffer(bytes.fromhex(checksum(flat_bytes(data))), np.uint8)
                file.write(flat_bytes(data))
                if coder:
                    rows = slice(done, done + len(data))
                    self._code(coder, data, codes[rows], cells[rows])
                done += len(data)
            if done != self.count:
                raise ValueError(f"{done} vectors were given for {self.count} rows")
            tensors["vector_checksums"] = sums
            if coder:
                tensors["codes"] = codes
            if self.fast is not None:
                tensors["fast"] = self.fast.write()
            if len(cells):
                tensors["cells"] = cells
            head = self._write_hot(file, layout, tensors)
            file.flush()
            os.fsync(file.fileno())
        return entry_of(Container.open(str(self.path), memoryview(head), kind="segment"), layout.size_bytes)

    def _code(self, space: Projection, block: Array, codes: Array, cells: Array) -> None:
        projected = space.project(block)
        codes[:] = encode(projected, space.scale)
        if self.fast is not None:
            self.fast.add(projected)
        if space.centres is not None and len(cells):
            cells[:] = nearest_cells(space.centres, projected)

    def _layout(self) -> Layout:
        specs = [TensorSpec(name, array.dtype, array.shape) for name, array in self.hot.items()]
        if isinstance(self.space, Projection):
            specs.append(TensorSpec("codes", np.dtype("u1"), (self.count, self.space.dimensions)))
        if self.fast is not None:
            specs.append(TensorSpec("fast", np.dtype("u1"), (self.fast.size_bytes(self.count),)))
            if isinstance(self.space, Projection) and self.space.centres is not None:
                specs.append(TensorSpec("cells", np.dtype("<u2"), (self.count,)))
        specs.append(TensorSpec("vector_checksums", np.dtype("u1"), (-(-self.count // BLOCK_ROWS), 8)))
        specs.append(TensorSpec("vectors", np.dtype("<f2"), (self.count, self.dimension)))
        specs += [TensorSpec(name, array.dtype, array.shape) for name, array in self.cold.items()]
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


def entry_of(container: Container, size_bytes: int) -> SegmentEntry:
    """The manifest's entry for a stored segment, of which only the header is needed."""
    return SegmentEntry(
        name=container.name,
        count=container.tensors["vectors"].shape[0],
        size_bytes=size_bytes,
        hot_bytes=container.tensors["vectors"].start,
        digest=container.array("header_digest", verify=False).tobytes().hex(),
        projection=container.about["projection"],
        tombstones=container.tensors["tombstone_ids"].shape[0],
        updates=container.tensors["update_ids"].shape[0],
    )


def common_hashes(parts: Sequence[Array]) -> Array:
    """Hashes (n, h) uint8 of all parts, cut to the shortest h among them."""
    width = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :width] for part in parts])


def _read_full(objects: ObjectStore, container: Container, start: int, stop: int) -> Array:
    """Rows of the full vectors; they come after the hot part, which is all that the container has read."""
    spec = container.tensors["vectors"]
    dimension = spec.shape[1]
    if start == stop:
        return np.empty((0, dimension), np.float16)
    view = objects.get(container.name, start=spec.start + start * 2 * dimension, end=spec.start + stop * 2 * dimension)
    if len(view) != (stop - start) * 2 * dimension:
        raise corrupt(container.name, f"its full vectors end before row {stop}")
    return np.frombuffer(view, "<f2").reshape(-1, dimension)
