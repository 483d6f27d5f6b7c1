"""The seen-set: what the last crawls of one source saw, as one compact object with the crawl's checkpoint inside.

Both live in one object because they must agree: a checkpoint ahead of its seen-set would publish items again, one
behind it would skip them. One read starts a crawl and one compare-and-swap ends it, whatever the catalogue's size.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from visor.errors import CorruptObject, NewerFormat, NotFound
from visor.schema.items import Item, Record
from visor.storage.objects import ObjectStore

FORMAT = 1
ROW = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("image", "V8"), ("metadata", "V8"), ("seen", "<u4"), ("missing", "u1")]
)
"""37 bytes per item: its 128-bit id in two halves, the signatures, the pass that saw it last, passes missed since."""

SAID_GONE = 3
"""Missed passes of an item that the catalogue itself reports as gone."""
UNREAD_MAX = 2_000
"""Places that could not be read, beyond which absence means nothing in a pass."""

Difference = Literal["new", "picture", "metadata", "none", "other picture", "other metadata"]
"""What differs from the previous pass; `other`: from what this pass itself listed under the same key."""


class Progress(Record, frozen=True, kw_only=True):
    """Where a source's crawl stands."""

    format: int = FORMAT
    number: int = 0
    """Number of the pass through the catalogue that is under way, or was last completed."""
    version: int = 0
    """Version of everything that this pass publishes."""
    open: bool = False
    """The pass is under way and continues from `checkpoint`."""
    checkpoint: dict[str, Any] | None = None
    partial: bool = False
    """A page of this pass covered only changes, so absence means nothing."""
    unread: Mapping[str, int] = {}
    """Places that the last pass could not read (hashed), each with the number of the first of the successive passes
    that could not: what was seen in that pass or later was seen elsewhere."""
    unread_now: Mapping[str, int] = {}
    """The same for the pass that is under way."""
    failed_at: str = ""
    """Hash of the checkpoint at which the last run failed."""


class Ending(NamedTuple):
    """What a pass saw, in numbers of items."""

    seen: int
    lost: int
    """Missing for the first or second time in a row."""
    missing: int
    """Seen before, not seen by this pass, and not where it could not read."""
    gone: list[str]
    """Ids to delete: missing for the second time in a row, or the third, or gone as the catalogue itself says."""


class SeenSet:
    """Item id → signatures, for one source. Not thread-safe; one crawl of a source runs at a time."""

    def __init__(self, progress: Progress, rows: np.ndarray, generation: int) -> None:
        self.progress = progress
        self.generation = generation
        self._rows = rows
        self._new: dict[bytes, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._rows) + len(self._new)

    @classmethod
    def load(cls, objects: ObjectStore, source: str) -> SeenSet:
        """The seen-set of a source, empty if it was never crawled.

        Raises:
            CorruptObject, NewerFormat: The object cannot be read; the message names it.
        """
        try:
            view, info = objects.get_with_info(object_name(source))
        except NotFound:
            return cls(Progress(), np.empty(0, ROW), 0)
        try:
            with np.load(io.BytesIO(view), allow_pickle=False) as arrays:
                progress = msgspec.json.decode(arrays["progress"].tobytes())
                rows = arrays["rows"]
            if progress.get("format", FORMAT) <= FORMAT:
                return cls(msgspec.convert(progress, Progress), rows.astype(ROW), info.generation)
        except Exception as exc:  # zipfile, zlib, tokenize, msgspec and NumPy each have their own
            raise CorruptObject(
                f"Seen-set {object_name(source)} cannot be read: {exc}",
                remedy="Run `visor check --repair`: it is rebuilt from the documents of its items",
            ) from exc
        raise NewerFormat(
            f"Seen-set {object_name(source)} has format {progress['format']}",
            valid=f"Formats up to {FORMAT}",
            remedy="Update Visor",
        )

    def save(self, objects: ObjectStore, source: str) -> None:
        """Write rows and progress as one object.

        Raises:
            Conflict: Another crawl of this source has written since `load`.
        """
        self.fold()
        buffer = io.BytesIO()
        progress = np.frombuffer(msgspec.json.encode(self.progress), np.uint8)
        np.savez(buffer, progress=progress, rows=self._rows)
        info = objects.put(object_name(source), buffer.getbuffer(), if_generation=self.generation)
        self.generation = info.generation

    def advance(self, **changes: Any) -> None:
        """Change fields of the progress; saved with the next `save`."""
        self.progress = msgspec.structs.replace(self.progress, **changes)

    def see(self, items: Sequence[Item]) -> list[Difference]:
        """Note that this pass saw `items`, and return for each what differs from before.

        If a catalogue lists an item twice in one pass, the first one counts.
        """
        return [self._see(item) for item in items]

    def has_seen(self, item: Item) -> bool:
        """Whether this pass saw the item."""
        row = self._find(bytes.fromhex(item.id))
        return row is not None and bool(row["seen"] == self.progress.number)

    def see_unreadable(self, ids: Sequence[str]) -> None:
        """Note that these items are still listed, though they could not be read: they are not missing."""
        for item in ids:
            row = self._find(bytes.fromhex(item))
            if row is not None:
                row["seen"], row["missing"] = self.progress.number, 0

    def see_gone(self, ids: Iterable[str]) -> None:
        """Note that the catalogue itself says that these items are gone."""
        for item in ids:
            row = self._find(bytes.fromhex(item))
            if row is not None and row["seen"] != self.progress.number:
                row["missing"] = SAID_GONE

    def note_unread(self, places: Iterable[str]) -> None:
        """Note that these places could not be read: what was seen there before is not missing."""
        before, now = self.progress.unread, dict(self.progress.unread_now)
        for place in places:
            hashed = hashlib.blake2b(place.encode(), digest_size=6).hexdigest()
            now[hashed] = before.get(hashed, self.progress.number)
        self.advance(unread_now=now, partial=self.progress.partial or len(now) > UNREAD_MAX)

    def end_pass(self, *, loss_share: float, confirmed: bool) -> Ending:
        """End a pass: count what it did not see. `partial` passes count only what the catalogue says is gone.

        A pass that misses more than `loss_share` of the items is not evidence that they are gone, unless somebody has
        `confirmed` it: then they are gone at once.

        A row that is removed while pages are read moves another row to a page that was read already: that row is
        missed though it is there. In the next pass, the removed row is missing for the first time. So if others have
        just gone, items missing for the second time wait for a third.
        """
        self.fold()
        number, missed = self.progress.number, self._rows["missing"]
        absent = self._rows["seen"] != number
        seen = int(np.count_nonzero(~absent))
        since = max(self.progress.unread_now.values(), default=0)
        missing = absent & (self._rows["seen"] >= since) & (not self.progress.partial)
        are_others_fresh, again = bool((missed[missing] == 0).any()), missing & (missed == 2)
        lost = int(np.count_nonzero(missing & ~again))
        is_loss = lost > loss_share * len(self._rows)
        if not is_loss:
            # Without this limit the uint8 count would overflow after 255 passes.
            missed[missing] = np.where(missed[missing] == SAID_GONE, SAID_GONE, np.minimum(missed[missing], 1) + 1)
        elif confirmed:
            missed[missing] = SAID_GONE
        gone = (again if are_others_fresh else missing & (missed >= 2)) | (missed == SAID_GONE)
        self.advance(unread=self.progress.unread_now, unread_now={})
        return Ending(seen, lost, int(np.count_nonzero(missing)), [_id(row) for row in self._rows[gone]])

    def drop(self, ids: Sequence[str]) -> None:
        """Drop many items, once their tombstones are published."""
        self.fold()
        high = np.array([int(item[:16], 16) for item in ids], "<u8")
        self._rows = self._rows[~np.isin(self._rows["high"], high)]

    def ids(self) -> Iterator[str]:
        self.fold()
        return (_id(row) for row in self._rows)

    def _see(self, item: Item) -> Difference:
        key = bytes.fromhex(item.id)
        row = self._find(key)
        image, metadata = np.void(item.image_signature()), np.void(item.metadata_signature())
        difference: Difference = "none"
        if row is None:
            row = np.zeros((), ROW)
            row["high"], row["low"] = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
            self._new[key] = row
            difference = "new"
        elif row["seen"] == self.progress.number:
            if row["image"] != image:
                return "other picture"
            return "none" if row["metadata"] == metadata else "other metadata"
        elif row["image"] != image:
            difference = "picture"
        elif row["metadata"] != metadata:
            difference = "metadata"
        row["image"], row["metadata"] = image, metadata
        row["seen"], row["missing"] = self.progress.number, 0
        return difference

    def _find(self, key: bytes) -> Any:
        """A writable view of the row of an id, or None."""
        if key in self._new:
            return self._new[key]
        position = self._position(key)
        return None if position is None else self._rows[position : position + 1][0]

    def _position(self, key: bytes) -> int | None:
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        position = int(np.searchsorted(self._rows["high"], np.uint64(high)))
        while position < len(self._rows) and int(self._rows["high"][position]) == high:
            if int(self._rows["low"][position]) == low:
                return position
            position += 1
        return None

    def fold(self) -> None:
        """Merge the new rows into the sorted ones, where each takes 37 bytes."""
        if self._new:
            rows = np.concatenate([self._rows, np.array(list(self._new.values()), ROW)])
            self._rows = rows[np.argsort(rows["high"], kind="stable")]
            self._new = {}


def object_name(source: str) -> str:
    """Name of a source's seen-set object."""
    return f"seen/{source}.npz"


def _id(row: Any) -> str:
    return f"{int(row['high']):016x}{int(row['low']):016x}"
