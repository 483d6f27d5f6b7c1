"""State that is one small JSON object, read whole and replaced by compare-and-swap."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from visor.errors import CorruptObject, NewerFormat, NotFound
from visor.storage.objects import ObjectStore

State = TypeVar("State", bound=msgspec.Struct)


def load_state(objects: ObjectStore, name: str, empty: State, *, newest_format: int) -> tuple[State, int]:
    """The state and its generation; `(empty, 0)` if there is no object.

    Args:
        empty: Of the type to read. Its field `format`, if it has one, is at most `newest_format`.

    Raises:
        CorruptObject, NewerFormat: It cannot be read; the message names it.
    """
    try:
        view, info = objects.get_with_info(name)
    except NotFound:
        return empty, 0
    try:
        state = msgspec.json.decode(view, type=type(empty))
    except msgspec.DecodeError as exc:
        raise CorruptObject(f"{name} cannot be read: {exc}", remedy="Run `visor check --repair`") from exc
    found = getattr(state, "format", newest_format)
    if found > newest_format:
        raise NewerFormat(f"{name} has format {found}", valid=f"Formats up to {newest_format}", remedy="Update Visor")
    return state, info.generation
