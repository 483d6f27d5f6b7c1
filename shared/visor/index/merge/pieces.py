"""Pieces: the independent parts of a merge, one new segment each, built here or by workers elsewhere.

A piece that waits for a worker is an object with the name of the segment that is made from it. The name is made from
the piece's content and its manifest's generation: every worker that builds it writes the same segment, and once that
manifest is replaced nobody commits the name any more, so that its garbage can be deleted at any later time.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np

from visor.errors import Conflict, NotFound
from visor.index.format import segment
from visor.index.format.container import Array, Container, pack
from visor.index.format.looks import Augmented
from visor.index.format.manifest import SegmentEntry, read_manifest
from visor.index.format.pending_deletes import PendingDeletes
from visor.index.format.projection import FullSpace, Space, read_projection
from visor.index.format.segment import Segment, entry_of, open_segment
from visor.index.format.shard import Shard
from visor.index.merge.inputs import Inputs, read_shards
from visor.index.merge.segment_builder import SegmentBuilder, kept_rows, segment_reader, shard_reader
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore

FOLDER = "pieces/"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one new segment is made of: from each source the rows at `places`, ascending, with updated facets.

    pending: what the segment carries for items that arrive late. augmented: tensors of augmented queries.
    """

    sources: Sequence[Segment | Shard]
    places: Sequence[Array]
    updates: PendingDeletes
    pending: PendingDeletes
    augmented: Mapping[str, Array]

    def __len__(self) -> int:
        return sum(map(len, self.places))

    def build(self, builder: SegmentBuilder, name: str = "") -> SegmentEntry:
        """Write the segment, as `SegmentBuilder.write`."""
        rows = kept_rows(self.sources, self.places, self.updates, builder.documents)
        readers = [
            segment_reader(source, int(places[0])) if isinstance(source, Segment) else shard_reader(source)
            for source, places in zip(self.sources, self.places, strict=True)
        ]
        return builder.write(rows, self.sources, readers, self.augmented, self.pending, name)


def cut(
    sources: Sequence[Segment | Shard],
    places: Sequence[Array],
    known: PendingDeletes,
    pending: PendingDeletes,
    *,
    dimension: int,
    most: int,
) -> list[Piece]:
    """Pieces of equal size, at most `most` rows. Each has a contiguous range of the rows, source after source,
    so that each vector is read once. The first carries `pending` and all augmented queries."""
    total = sum(map(len, places))
    count = max(-(-total // most), bool(len(pending)))
    starts = np.cumsum([0, *map(len, places)])
    updates = known.take(np.empty(0, np.int64), known.updates.newest())
    pieces: list[Piece] = []
    for start, stop in pairwise(total * number // max(count, 1) for number in range(count + 1)):
        taken = [p[max(start - at, 0) : max(stop - at, 0)] for p, at in zip(places, starts, strict=False)]
        piece = Piece(
            sources=[source for source, some in zip(sources, taken, strict=True) if len(some)],
            places=[some for some in taken if len(some)],
            updates=updates,
            pending=PendingDeletes.none() if pieces else pending,
            augmented={} if pieces else Augmented.join([source.augmented for source in sources], dimension).tensors(),
        )
        pieces.append(piece)
    return pieces


def put_piece(piece: Piece, builder: SegmentBuilder, index: Inputs) -> str:
    """Store a piece for a worker, unless its segment exists. Returns the name of both in their folders."""
    about = {
        "model": builder.model,
        "generation": index.generation,
        "dimension": builder.space.dimension,
        "projection": builder.space.name,
        "languages": list(builder.languages),
        "fill": builder.documents is not None,
        "segments": [msgspec.to_builtins(source.entry) for source in piece.sources if isinstance(source, Segment)],
        "shards": [source.name for source in piece.sources if isinstance(source, Shard)],
        "counts": list(map(len, piece.places)),
    }
    updates, pending = (
        np.frombuffer(pack("pending", {}, part.tensors()), np.uint8) for part in (piece.updates, piece.pending)
    )
    places = np.concatenate([np.empty(0, np.int64), *piece.places])
    data = pack("piece", about, {"places": places, "updates": updates, "pending": pending, **piece.augmented})
    # Sorts after all that the manifest names: of two segments, the later name is the newer one.
    stems = [PurePosixPath(entry.name).stem for entry in (index.manifest.segments if index.manifest else ())]
    newest = max((int(stem.partition("-")[0], 16) for stem in stems), default=0)
    name = f"{newest + 1:08x}-{hashlib.blake2b(data, digest_size=8).hexdigest()}.seg"
    try:
        builder.objects.stat(segment.FOLDER + name)
    except NotFound:
        builder.objects.put(FOLDER + name, data)
    return name


def build_waiting(objects: ObjectStore, documents: DocumentStore, name: str) -> None:
    """Build a piece that waits, if it still does and its manifest was not replaced. Any worker may repeat it.

    Raises:
        NotFound, CorruptObject: One of its sources is missing or damaged; it goes on waiting.
    """
    try:
        container = Container.open(FOLDER + name, objects.get(FOLDER + name), kind="piece")
    except NotFound:
        return
    about = container.about
    if read_manifest(objects, about["model"])[1] != about["generation"]:
        return
    updates, pending = (
        PendingDeletes.from_container(Container.open(FOLDER + name, container.array(part).data, kind="pending"))
        for part in ("updates", "pending")
    )
    # Only full vectors are read from the old segments, whatever they are coded with.
    space: Space = FullSpace(about["dimension"])
    entries = msgspec.convert(about["segments"], list[SegmentEntry])
    sources: list[Segment | Shard] = [open_segment(objects, entry, space) for entry in entries]
    for shard in read_shards(objects, about["shards"]):
        if not isinstance(shard, Shard):
            raise shard
        sources.append(shard)
    if about["projection"] is not None:
        space = read_projection(about["projection"], objects.get(about["projection"]))
    ends = np.cumsum(about["counts"], dtype=np.int64)
    places = np.split(container.array("places"), ends[:-1])[: len(sources)]
    augmented = {each: container.array(each) for each in container.tensors if each.startswith("augmented_")}
    piece = Piece(sources=sources, places=places, updates=updates, pending=pending, augmented=augmented)
    with tempfile.TemporaryDirectory(prefix="visor-merge-") as folder, suppress(Conflict):  # another was faster
        builder = SegmentBuilder(
            objects=objects,
            model=about["model"],
            space=space,
            folder=Path(folder),
            languages=about["languages"],
            documents=documents if about["fill"] else None,
        )
        piece.build(builder, segment.FOLDER + name)
    objects.delete(FOLDER + name)


def built(objects: ObjectStore, name: str) -> SegmentEntry:
    """The manifest's entry for the segment of a piece. Raises NotFound if it was not built."""
    where = segment.FOLDER + name
    length = int.from_bytes(objects.get(where, start=0, end=8), "little")
    head = objects.get(where, start=0, end=length + 24)
    return entry_of(Container.open(where, head, kind="segment"), objects.stat(where).size_bytes)
