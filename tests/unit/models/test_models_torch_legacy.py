"""The restricted reader takes plain tensors and nothing else."""

from __future__ import annotations

import collections
import io
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from visor.errors import ModelError
from visor.models.build.torch_legacy import MAGIC, PROTOCOL, read_state_dict


@pytest.fixture
def torch_names(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Just enough of the names of PyTorch for a pickle to mention them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    storages = {}
    for name in ("FloatStorage", "LongStorage", "DoubleStorage"):
        storages[name] = type(name, (), {"__module__": "torch"})
        setattr(torch, name, storages[name])

    def _rebuild_tensor_v2(*args: object) -> object:
        return args

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    torch._utils = utils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return types.SimpleNamespace(rebuild=_rebuild_tensor_v2, **storages)


class Storage:
    def __init__(self, kind: type, key: str, values: np.ndarray) -> None:
        self.kind, self.key, self.values = kind, key, values


class Tensor:
    def __init__(
        self, rebuild: Any, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
    ) -> None:
        self.rebuild, self.storage, self.shape, self.strides, self.offset = rebuild, storage, shape, strides, offset

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        hooks: collections.OrderedDict[str, object] = collections.OrderedDict()
        return self.rebuild, (self.storage, self.offset, self.shape, self.strides, False, hooks)


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return ("storage", obj.kind, obj.key, "cpu", obj.values.size, None)
        return None


def write(path: Path, state: object, storages: list[Storage], magic: int = MAGIC) -> Path:
    out = io.BytesIO()
    for part in (magic, PROTOCOL, {"little_endian": True}, state, [storage.key for storage in storages]):
        Pickler(out, protocol=2).dump(part)
    for storage in storages:
        out.write(storage.values.size.to_bytes(8, "little") + storage.values.tobytes())
    path.write_bytes(out.getvalue())
    return path


def test_reads_tensors_with_their_strides_and_offsets(tmp_path: Path, torch_names: Any) -> None:
    floats = Storage(torch_names.FloatStorage, "a", np.arange(10, dtype="<f4"))
    longs = Storage(torch_names.LongStorage, "b", np.array([7], dtype="<i8"))
    state = collections.OrderedDict(
        transposed=Tensor(torch_names.rebuild, floats, (2, 3), (1, 2)),
        later=Tensor(torch_names.rebuild, floats, (2, 2), (2, 1), offset=6),
        count=Tensor(torch_names.rebuild, longs, (), ()),
    )
    tensors = read_state_dict(write(tmp_path / "x.pth", state, [floats, longs]))
    np.testing.assert_array_equal(tensors["transposed"], np.array([[0, 2, 4], [1, 3, 5]], np.float32))
    np.testing.assert_array_equal(tensors["later"], np.array([[6, 7], [8, 9]], np.float32))
    assert tensors["count"] == 7
    assert list(tensors) == ["transposed", "later", "count"]


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_runs_nothing_that_a_pickle_names(tmp_path: Path) -> None:
    victim = tmp_path / "made"
    with pytest.raises(ModelError, match=r"names (posix|os|nt)\.mkdir"):
        read_state_dict(write(tmp_path / "x.pth", {"weight": Evil(victim)}, []))
    assert not victim.exists()


def test_refuses_other_storages(tmp_path: Path, torch_names: Any) -> None:
    doubles = Storage(torch_names.DoubleStorage, "a", np.zeros(2))
    state = {"weight": Tensor(torch_names.rebuild, doubles, (2,), (1,))}
    with pytest.raises(ModelError, match=r"names torch\.DoubleStorage"):
        read_state_dict(write(tmp_path / "x.pth", state, [doubles]))


@pytest.mark.parametrize(("shape", "strides", "offset"), [((4,), (1,), 7), ((2, 2), (9, 1), 0), ((2,), (-1,), 1)])
def test_refuses_a_view_outside_of_its_storage(
    tmp_path: Path, torch_names: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    floats = Storage(torch_names.FloatStorage, "a", np.arange(10, dtype="<f4"))
    state = {"weight": Tensor(torch_names.rebuild, floats, shape, strides, offset)}
    with pytest.raises(ModelError, match="reaches element"):
        read_state_dict(write(tmp_path / "x.pth", state, [floats]))


def test_refuses_other_formats_and_cut_files(tmp_path: Path, torch_names: Any) -> None:
    floats = Storage(torch_names.FloatStorage, "a", np.arange(10, dtype="<f4"))
    whole = write(
        tmp_path / "x.pth",
        {"weight": Tensor(torch_names.rebuild, floats, (10,), (1,))},
        [floats],
    )
    content = whole.read_bytes()
    for cut in (0, 5, 60, len(content) - 41, len(content) - 1):
        whole.write_bytes(content[:cut])
        with pytest.raises(ModelError, match="PyTorch file"):
            read_state_dict(whole)
    with pytest.raises(ModelError, match="starts with 1"):
        read_state_dict(write(tmp_path / "y.pth", {}, [], magic=1))
