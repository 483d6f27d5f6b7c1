"""Current model: the document that names the model whose index is searched."""

from __future__ import annotations

from visor.errors import Conflict
from visor.schema.collections import CURRENT_MODEL
from visor.schema.items import Record, as_document, as_record
from visor.storage.documents import DocumentStore, Put

KEY = "model"
_EMPTY = {
    "building": None,
    "until": "",
    "cursor": "",
    "published": 0,
    "loses": False,
    "previous": None,
    "switched": 0.0,
}


class CurrentModel(Record, frozen=True, kw_only=True):
    """Which model's index is searched, and how far a reindex is (document `index/model`)."""

    current: str
    """Fingerprint."""
    building: str | None = None
    """Fingerprint of the model with which items are being embedded anew."""
    until: str = ""
    """Items indexed before this time (ISO 8601) have to be checked."""
    cursor: str = ""
    """… and those indexed before this one are published."""
    published: int = 0
    loses: bool = False
    """The owner accepts the loss of items that cannot be embedded with the new model."""
    previous: str | None = None
    """Fingerprint of the model whose index is still kept, `KEPT_S` from `switched` on."""
    switched: float = 0.0
    """Seconds since 1970."""


def read_current(documents: DocumentStore) -> tuple[CurrentModel | None, int]:
    """Which model's index is searched, and the document's revision; `(None, 0)` before the first merge."""
    found = documents.get(CURRENT_MODEL, [KEY])
    if KEY not in found:
        return None, 0
    return as_record(found[KEY].data, CurrentModel), found[KEY].revision


def is_searched(documents: DocumentStore, model: str) -> bool:
    """Whether searches use the index of `model`, not one that a reindex replaces by it. True before the first merge."""
    state, _ = read_current(documents)
    return state is None or state.current == model


def write_current(documents: DocumentStore, state: CurrentModel, revision: int) -> bool:
    """Replace exactly that revision (0: create). False if another process was faster."""
    try:
        documents.commit(
            [Put(collection=CURRENT_MODEL, key=KEY, data={**_EMPTY, **as_document(state)}, if_revision=revision)]
        )
    except Conflict:
        return False
    return True
