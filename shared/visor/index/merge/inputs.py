"""What there is to merge: commits that are in no segment yet with their shards, and the live segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from visor.errors import Conflict, CorruptObject, FormatError, NotFound
from visor.index.format.container import Array
from visor.index.format.ids import sort_order
from visor.index.format.manifest import Commit, Manifest, read_commits, read_manifest, swap_manifest
from visor.index.format.projection import EMPTY_SPACE, FullSpace, Space, read_projection
from visor.index.format.segment import Segment, open_segment
from visor.index.format.shard import Shard, read_shard
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore

READ_AT_ONCE = 16
"""Shards."""


@dataclass
class Inputs:
    """The manifest of one model, what it names, and what was committed since.

    `unreadable` maps a segment's name or a commit's key to the reason why it is left where it is.
    """

    objects: ObjectStore
    documents: DocumentStore
    model: str
    manifest: Manifest | None = None
    generation: int = 0
    space: Space = EMPTY_SPACE
    is_projection_lost: bool = False
    """The projection cannot be read: the next step learns one anew."""
    unreadable: dict[str, str] = field(default_factory=dict)
    _opened: dict[str, Segment] = field(default_factory=dict)
    _commits: list[Commit] = field(default_factory=list)

    def load(self) -> None:
        """Read the manifest, its space and the commits.

        Raises:
            FormatError: The manifest cannot be read.
        """
        self.manifest, self.generation = read_manifest(self.objects, self.model)
        self.space = FullSpace(self.manifest.dimension if self.manifest else 0)
        self.is_projection_lost = False
        if self.projection_name:
            try:
                self.space = read_projection(self.projection_name, self.objects.get(self.projection_name))
            except (CorruptObject, NotFound):
                self.refuse_if_replaced()
                self.is_projection_lost = True
        entries = self.manifest.segments if self.manifest else ()
        if any(entry.projection != self.space.name for entry in entries):
            self.is_projection_lost, self.space = True, FullSpace(self.space.dimension)
        self._opened = {}
        self._commits = read_commits(self.documents)

    def swap(self, manifest: Manifest, space: Space) -> None:
        """Replace the manifest.

        Raises:
            Conflict: Another merge did.
        """
        self.generation = swap_manifest(self.objects, manifest, self.generation)
        self.manifest, self.space, self.is_projection_lost = manifest, space, False
        live = {entry.name for entry in manifest.segments}
        self._opened = {name: segment for name, segment in self._opened.items() if name in live}

    @property
    def projection_name(self) -> str:
        """Empty if there is none."""
        return self.manifest.projection.name if self.manifest and self.manifest.projection else ""

    def refuse_if_replaced(self) -> None:
        """Raises Conflict if objects are missing because another merge replaced the manifest."""
        if read_manifest(self.objects, self.model)[1] != self.generation:
            raise Conflict("Another merge replaced the manifest", remedy="Read it again")

    def damaged(self, names: Sequence[str], why: str) -> None:
        """Note that segments turned out to be unreadable."""
        self.unreadable |= dict.fromkeys(names, why)
        for name in names:
            self._opened.pop(name, None)

    def pending(self) -> list[Commit]:
        """Commits in no segment, oldest first, except those whose shard cannot be read."""
        merged = self.manifest.contains if self.manifest else lambda commit: False
        return [commit for commit in self._commits if commit.key not in self.unreadable and not merged(commit)]

    def group(self, step_rows: int) -> list[Commit]:
        """The oldest pending commits that together have `step_rows` rows."""
        group: list[Commit] = []
        rows = 0
        for commit in self.pending():
            count = commit.rows(self.model)
            if group and rows + count > step_rows:
                break
            group.append(commit)
            rows += count
        return group

    def shards(self, group: Sequence[Commit], take: Callable[[Shard], Shard] = lambda shard: shard) -> list[Shard]:
        """The shards of commits, except those that cannot be read; `take` returns what is kept of each."""
        commits = [commit for commit in group if commit.rows(self.model)]
        names, shards = [str(commit.record.shard) for commit in commits], []
        for commit, found in zip(commits, read_shards(self.objects, names, take), strict=True):
            if isinstance(found, Shard):
                shards.append(found)
            elif isinstance(found, FormatError):
                self.unreadable[commit.key] = found.found
            elif self.manifest is None or commit.key not in self.manifest.merged:
                self.unreadable[commit.key] = f"{commit.record.shard} is missing"
        return shards

    def segments(self) -> dict[str, Segment | None]:
        """The live segments by name, None for those that cannot be read."""
        segments: dict[str, Segment | None] = {}
        for entry in self.manifest.segments if self.manifest else ():
            if entry.name not in self._opened and entry.name not in self.unreadable:
                try:
                    self._opened[entry.name] = open_segment(self.objects, entry, self.space)
                except NotFound:
                    self.refuse_if_replaced()
                    self.unreadable[entry.name] = f"{entry.name} is missing"
                except FormatError as exc:
                    self.unreadable[entry.name] = exc.found
            segments[entry.name] = self._opened.get(entry.name)
        return segments


def read_shards(
    objects: ObjectStore, names: Sequence[str], take: Callable[[Shard], Shard] = lambda shard: shard
) -> list[Shard | FormatError | NotFound]:
    """Shards, several read at once because a bucket is slow for each; for an unreadable shard, the error."""

    def read(name: str) -> Shard | FormatError | NotFound:
        try:
            return take(read_shard(objects.get(name), name=name))
        except (FormatError, NotFound) as exc:
            return exc

    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        return list(pool.map(read, names))


def live_rows(segment: Segment, others: Sequence[Segment]) -> int:
    """Rows of a segment that no tombstone of any live segment hides."""
    hidden = np.zeros(len(segment), bool)
    for other in others:
        hidden[other.pending.tombstones.concerned(segment.index, segment.versions)[0]] = True
    return len(segment) - int(hidden.sum())


def sampled(count: int, total: int, most: int) -> int:
    """How many rows of a part go into a sample of `most` of all rows."""
    return int(np.ceil(count * min(1.0, most / max(total, 1))))


def sample(inputs: Sequence[Segment], shards: Sequence[Shard], most: int) -> Array:
    """Full vectors to learn on, the same share of each input. Ids are digests, so first rows by id are random rows.

    They are in the order of their ids: the same items make the same space, in whatever order they were committed.
    """
    every: list[Segment | Shard] = [*inputs, *shards]
    total = sum(map(len, every))
    taken = [sampled(len(segment), total, most) for segment in inputs]
    taken += [min(sampled(len(shard), total, most), len(shard.vectors)) for shard in shards]
    parts = [segment.read_full(0, count) for segment, count in zip(inputs, taken, strict=False)]
    parts += [shard.vectors[:count] for shard, count in zip(shards, taken[len(inputs) :], strict=True)]
    ids = np.concatenate([one.ids[:count] for one, count in zip(every, taken, strict=True)])
    return np.concatenate(parts)[sort_order(ids)]
