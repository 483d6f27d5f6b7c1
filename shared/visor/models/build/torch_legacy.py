"""Reads a PyTorch state dict of the legacy format without PyTorch, and without running what a pickle may name.

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
    dtype: np.dtype[Any]
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _invalid(f"names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(), int(size), None):
                return _Storage(key, dtype, size)
        raise _invalid(f"refers to {pid!r}")


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor by its name, in PyTorch's layout (float32 or int64).

    Raises:
        ModelError: The file is of another format, is cut off, or names anything but plain tensors.
    """
    with path.open("rb") as file:
        try:
            magic, protocol, _sizes, state, keys = (_RestrictedUnpickler(file).load() for _ in range(5))
            if (magic, protocol) != (MAGIC, PROTOCOL):
                raise _invalid(f"starts with {magic!r}, {protocol!r}")
            tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, _Tensor)}
            storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
            elements = {key: _read_storage(file, storages[key]) for key in keys}
            return {name: _view(tensor, elements[tensor.storage.key]) for name, tensor in tensors.items()}
        except (pickle.UnpicklingError, EOFError, AttributeError, KeyError, TypeError, ValueError, IndexError) as exc:
            raise _invalid(f"cannot be read: {exc}") from exc


def _read_storage(file: IO[bytes], storage: _Storage) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    if count != storage.size:
        raise _invalid(f"has {count} elements in storage {storage.key} instead of {storage.size}")
    data = file.read(count * storage.dtype.itemsize)
    return np.frombuffer(data, storage.dtype, count=count)


def _view(tensor: _Tensor, elements: NDArray[Any]) -> NDArray[Any]:
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if min((tensor.offset, *tensor.strides)) < 0 or last >= elements.size:
        raise _invalid(f"has a tensor that reaches element {last} of {elements.size}")
    steps = tuple(step * elements.itemsize for step in tensor.strides)
    strided = np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, steps, writeable=False)
    return np.ascontiguousarray(strided)


def _invalid(what: str) -> ModelError:
    return ModelError(
        f"The PyTorch file {what}",
        valid="A legacy file (before PyTorch 1.6) with float32 and int64 tensors only",
        remedy="Delete the downloaded package and build the model again",
    )
