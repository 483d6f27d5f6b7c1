"""Reads a PyTorch state dict of the legacy format without PyTorch, and without running code that a pickle may name.

The file is five pickles in a row (magic number, protocol, sizes, the state dict, the storage keys), then each storage
in the order of the keys: its element count as little-endian int64, then its elements. Only four names may occur in the
pickles, and none of them is called with anything but numbers.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visor.errors import ModelError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


class _Storage(NamedTuple):
    key: str
    elements: NDArray[Any]
    """Filled once the pickles are read."""


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> NDArray[Any]:
    """A view into the storage."""
    elements = storage.elements
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if min((offset, *strides)) < 0 or last >= elements.size:
        raise _invalid(f"has a tensor that reaches element {last} of {elements.size}")
    steps = tuple(step * elements.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, steps, writeable=False)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _invalid(f"names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(), int(size), None):
                return self.storages.setdefault(key, _Storage(key, np.empty(size, dtype)))
        raise _invalid(f"refers to {pid!r}")


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor by its name, in PyTorch's layout (float32 or int64).

    Raises:
        ModelError: The file is of another format, is cut off, or names anything but plain tensors.
    """
    with path.open("rb") as file:
        try:
            magic, protocol, _sizes = (_RestrictedUnpickler(file).load() for _ in range(3))
            if (magic, protocol) != (MAGIC, PROTOCOL):
                raise _invalid(f"starts with {magic!r}, {protocol!r}")
            unpickler = _RestrictedUnpickler(file)
            state = unpickler.load()
            for key in _RestrictedUnpickler(file).load():
                elements = unpickler.storages[key].elements
                count, read = int.from_bytes(file.read(8), "little"), file.readinto(elements.data)
                if (count, read) != (elements.size, elements.nbytes):
                    raise _invalid(f"has {count} elements in storage {key} instead of {elements.size}")
            return {name: np.ascontiguousarray(t) for name, t in state.items() if isinstance(t, np.ndarray)}
        except (pickle.UnpicklingError, EOFError, AttributeError, KeyError, TypeError, ValueError, IndexError) as exc:
            raise _invalid(f"cannot be read: {exc}") from exc


def _invalid(what: str) -> ModelError:
    return ModelError(
        f"The PyTorch file {what}",
        valid="A legacy file (before PyTorch 1.6) with float32 and int64 tensors only",
        remedy="Delete the downloaded package and build the model again",
    )
