"""Objects: immutable blobs (shards, segments, models) and one that is swapped (the manifest).

Contract, the same on every backend:
- `put` is atomic: a reader sees the old object, the new one, or none, never a part, also after a crash.
- Without a condition `put` overwrites. With `if_generation=0` it creates, with `if_generation=g` it replaces exactly
  generation `g`; else it raises `Conflict` and changes nothing.
- A generation is a positive integer that differs for every successful `put` of a name.
- `get` and `stat` of a missing name raise `NotFound`; `delete` of a missing name does nothing.
- Names are `/`-separated and relative; `check_name` has the rules. No name is a folder of another.
- A range of bytes is cut to the object's size, like a slice.
- A temporary failure raises `StoreUnavailable`; whether the call took effect is then unknown. A body that does not
  match its checksum raises `CorruptObject`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from visor.errors import StoreError
from visor.schema.items import Record

NAME_BYTES_MAX = 900
"""Cloud Storage accepts 1,024 bytes; the difference is for the prefix that names the index."""


class ObjectInfo(Record, frozen=True, kw_only=True):
    """Name, size and generation of one object."""

    name: str
    size_bytes: int
    generation: int


class ObjectStore(Protocol):
    """A flat namespace of objects. See the module for the contract."""

    def put(self, name: str, data: bytes | memoryview, *, if_generation: int | None = None) -> ObjectInfo: ...

    def put_file(self, name: str, path: str, *, if_generation: int | None = None) -> ObjectInfo:
        """`put` with the bytes of a local file, for objects too large for memory. The file may be moved away."""
        ...

    def get(self, name: str, *, start: int = 0, end: int | None = None) -> memoryview:
        """The bytes `[start, end)` of an object. Read-only; may be a memory map that lives as long as the view."""
        ...

    def get_with_info(self, name: str) -> tuple[memoryview, ObjectInfo]:
        """A whole object and its generation, for a later compare-and-swap."""
        ...

    def stat(self, name: str) -> ObjectInfo: ...

    def delete(self, name: str) -> None: ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose names start with `prefix`, by name. On Cloud Storage one Class A operation per 1,000."""
        ...

    def close(self) -> None:
        """Release connections; the store must not be used afterwards. May be called twice."""
        ...


def check_name(name: str) -> str:
    """Return the name if it is valid.

    Raises:
        StoreError: It is absolute, empty or too long, or a part of it is empty, starts with a dot or has a
            control character or backslash.
    """
    parts = name.split("/")
    good = all(part and not part.startswith(".") and "\\" not in part and part.isprintable() for part in parts)
    if not good or len(name.encode()) > NAME_BYTES_MAX or any(len(part.encode()) > 255 for part in parts):
        raise StoreError(
            f"{name!r} is not a valid object name",
            valid=f"Parts separated by single '/', each 1 to 255 bytes of printable text that does not start with '.', "
            f"{NAME_BYTES_MAX} bytes in all",
            remedy="Name the object differently",
        )
    return name
