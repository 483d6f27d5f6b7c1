"""Garbage collection of thumbnails: video frames that no item shows any more.

They are left by deleted items, changed videos and killed runs. A frame's name begins with its item's id, so the item's
document shows whether it is in use. If it is not, its item may still wait in the queue: the frame is deleted only if
the previous sweep found it unused, too. A sweep costs a listing and a read per frame; its progress is one object,
`frames.json`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import islice

import msgspec

from visor.image_readers.thumbnails import FOLDER, ID_LENGTH, THUMBNAIL_SCHEME
from visor.schema.collections import ITEMS
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
    """
    state, generation = load_state(objects, OBJECT, SweepState(), newest_format=1)
    today = datetime.fromtimestamp(now, UTC).date()
    if state.swept and 0 <= (today - date.fromisoformat(state.swept)).days < EVERY_DAYS:
        return 0
    names = (info.name.removeprefix(FOLDER) for info in objects.list(FOLDER))
    looked_at = list(islice((name for name in names if name > state.after), FRAMES_MAX))
    shown = _shown(documents, looked_at)
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


def _shown(documents: DocumentStore, names: list[str]) -> set[str]:
    """Those of the frames that are their item's picture."""
    shown = set()
    for start in range(0, len(names), READ_AT_ONCE):
        some = names[start : start + READ_AT_ONCE]
        found = documents.get(ITEMS, sorted({name[:ID_LENGTH] for name in some}))
        pictures = {document.data.get("item", {}).get("image_url") for document in found.values()}
        shown |= {name for name in some if THUMBNAIL_SCHEME + name in pictures}
    return shown
