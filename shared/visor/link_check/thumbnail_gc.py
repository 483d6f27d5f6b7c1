"""Garbage collection of thumbnails: video frames that no item shows any more.

They are left by deleted items, changed videos and killed runs. A frame's name begins with its item's id, so the item's
document shows whether it is in use. If it is not, its item may still wait in the queue: the frame is deleted only if
the previous sweep found it unused, too. Frames of items that may come back stay: those whose page is gone, and those
that are to be embedded on another try. A sweep costs a listing, a read per frame and another for each that no item
shows; its progress is one object, `frames.json`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import islice

import msgspec

from visor.image_readers.thumbnails import FOLDER, ID_LENGTH, THUMBNAIL_SCHEME
from visor.link_check.state import LinkState
from visor.schema.collections import FAILURES, ITEMS
from visor.storage.documents import DocumentStore
from visor.storage.objects import ObjectStore
from visor.storage.state_object import load_state

OBJECT = "frames.json"
EVERY_DAYS = 7
FRAMES_MAX = 5_000
"""Frames checked in one sweep; the next sweep continues after them."""
READ_AT_ONCE = 300


class SweepState(msgspec.Struct, kw_only=True, omit_defaults=True):
    swept: str = ""
    """ISO 8601 date of the last sweep."""
    after: str = ""
    """Name of the frame that was checked last; empty: the next sweep starts from the beginning."""
    unshown: dict[str, str] = {}
    """Frames that no item showed, and since which date."""


def sweep_frames(objects: ObjectStore, documents: DocumentStore, *, now: float) -> int:
    """Delete frames that no item has shown for `EVERY_DAYS`; returns how many. Does nothing more often than that.

    Raises:
        Conflict: Another sweep ran meanwhile; what was deleted was free to go anyway.
        CorruptObject: The state of the link check, which names items that may come back, cannot be read.
    """
    state, generation = load_state(objects, OBJECT, SweepState(), newest_format=1)
    today = datetime.fromtimestamp(now, UTC).date()
    if state.swept and 0 <= (today - date.fromisoformat(state.swept)).days < EVERY_DAYS:
        return 0
    names = (info.name.removeprefix(FOLDER) for info in objects.list(FOLDER))
    looked_at = list(islice((name for name in names if name > state.after), FRAMES_MAX))
    gone = (one.item.image_url for one in LinkState.load(objects)[0].problems.values() if one.item is not None)
    shown = _pictures(documents, ITEMS, "item", looked_at) | {url.removeprefix(THUMBNAIL_SCHEME) for url in gone}
    shown |= _pictures(documents, FAILURES, "wanted", [name for name in looked_at if name not in shown])
    deleted = 0
    for name in looked_at:
        since = state.unshown.pop(name, None)
        if name in shown:
            continue
        if since is not None and (today - date.fromisoformat(since)).days >= EVERY_DAYS:
            objects.delete(FOLDER + name)
            deleted += 1
        else:
            state.unshown[name] = min(since or "9", today.isoformat())
    state.swept = today.isoformat()
    state.after = looked_at[-1] if len(looked_at) == FRAMES_MAX else ""
    objects.put(OBJECT, msgspec.json.encode(state), if_generation=generation)
    return deleted


def _pictures(documents: DocumentStore, collection: str, part: str, names: list[str]) -> set[str]:
    """Those of the frames that are the picture of the item in that part of their document."""
    pictures = set()
    for start in range(0, len(names), READ_AT_ONCE):
        ids = sorted({name[:ID_LENGTH] for name in names[start : start + READ_AT_ONCE]})
        pictures |= {(one.data.get(part) or {}).get("image_url") for one in documents.get(collection, ids).values()}
    return {name for name in names if THUMBNAIL_SCHEME + name in pictures}
