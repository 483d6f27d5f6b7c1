"""State in one small JSON object, read whole and replaced by compare-and-swap."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from visor.errors import CorruptObject, NewerFormat, NotFound
from visor.storage.objects import ObjectStore

State = TypeVar("State", bound=msgspec.Struct)


class _Format(msgspec.Struct):
    """Tells an object of a later Visor, which may fit no type here, from a damaged one."""

    format: int = 1


def load_state(objects: ObjectStore, name: str, empty: State, *, newest_format: int) -> tuple[State, int]:
    """The state and its generation; `(empty, 0)` if there is no object.

    Args:
        empty: A state of the type to read.
        newest_format: The greatest `format` that fits this type; an object without `format` has the first.

    Raises:
        CorruptObject, NewerFormat: It cannot be read; the message names it.
    """
    try:
        view, info = objects.get_with_info(name)
    except NotFound:
        return empty, 0
    try:
        found = msgspec.json.decode(view, type=_Format).format
        if found <= newest_format:
            return msgspec.json.decode(view, type=type(empty)), info.generation
    except msgspec.DecodeError as exc:
        raise CorruptObject(f"{name} cannot be read: {exc}", remedy="Run `visor check --repair`") from exc
    raise NewerFormat(f"{name} has format {found}", valid=f"Formats up to {newest_format}", remedy="Update Visor")
