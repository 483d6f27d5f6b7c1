"""Runs one network: a .tflite file with LiteRT, an ONNX file with ONNX Runtime, each imported when it is needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from visor.errors import ModelError

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """An input or output: name, shape with 0 for an axis of any length, element type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.name} {'×'.join(str(edge or '?') for edge in self.shape)} {self.dtype}"


class Runtime(Protocol):
    """One network, loaded. One thread at a time may use it."""

    inputs: list[Tensor]
    outputs: list[Tensor]

    def run(self, given: Sequence[NDArray[Any]], wanted: Sequence[int]) -> list[NDArray[Any]]:
        """The outputs at the positions `wanted`; `given` has one array for each input."""


class LiteRt:
    """A .tflite file. Callers see float32; inputs and outputs of an integer network are scaled."""

    def __init__(self, path: Path, threads: int, edge: int | None = None) -> None:
        self._interpreter = open_interpreter(path, threads=threads, edge=edge)
        self._in = self._interpreter.get_input_details()
        self._out = self._interpreter.get_output_details()
        names = _signature(self._interpreter)
        self.inputs, self.outputs = ([_tensor(one, names) for one in some] for some in (self._in, self._out))

    def run(self, given: Sequence[NDArray[Any]], wanted: Sequence[int]) -> list[NDArray[Any]]:
        for about, values in zip(self._in, given, strict=True):
            scale, zero = about["quantization"]
            if scale:
                limits = np.iinfo(about["dtype"])
                values = np.clip(np.rint(values / scale + zero), limits.min, limits.max)
            self._interpreter.set_tensor(about["index"], values.astype(about["dtype"], copy=False))
        self._interpreter.invoke()
        return [self._float(self._out[place]) for place in wanted]

    def _float(self, about: dict[str, Any]) -> NDArray[Any]:
        # get_tensor copies, so that the next picture cannot change a returned array.
        values: NDArray[Any] = self._interpreter.get_tensor(about["index"])
        scale, zero = about["quantization"]
        return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale) if scale else values


class OnnxRuntime:
    """An ONNX file, on the processor."""

    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = _onnxruntime(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        # Waiting threads would occupy cores that other pictures need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as exc:
            raise _not_taken("ONNX Runtime", path, exc, "An ONNX file of one of its versions") from exc
        self.inputs = [_value(one) for one in self._session.get_inputs()]
        self.outputs = [_value(one) for one in self._session.get_outputs()]

    def run(self, given: Sequence[NDArray[Any]], wanted: Sequence[int]) -> list[NDArray[Any]]:
        feed = {one.name: values.astype(one.dtype, copy=False) for one, values in zip(self.inputs, given, strict=True)}
        answer: list[NDArray[Any]] = self._session.run([self.outputs[place].name for place in wanted], feed)
        return answer


def open_runtime(path: Path, *, threads: int, edge: int | None = None) -> Runtime:
    """The network of a file, by its extension; a .tflite file is set to squares of `edge` pixels.

    Raises:
        ModelError: It cannot be loaded, or the library that runs it is not installed.
    """
    return OnnxRuntime(path, threads) if path.suffix == ".onnx" else LiteRt(path, threads, edge)


def open_interpreter(path: Path, *, threads: int, edge: int | None = None) -> Interpreter:
    """A LiteRT interpreter for the file, tensors allocated; for squares of `edge` pixels, whatever it was made for.

    Raises:
        ModelError: LiteRT cannot load the file.
    """
    from ai_edge_litert.interpreter import Interpreter  # late, for cold starts

    try:
        with _NATIVE_STDERR_DROPPED:
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            if edge is not None:
                interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (1, edge, edge, 3))
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as exc:
        raise _not_taken("LiteRT", path, exc, "A .tflite file") from exc
    return interpreter


def _not_taken(runtime: str, path: Path, exc: Exception, valid: str) -> ModelError:
    remedy = f"Delete {path.parent} and build the model again; if the file is your own, check how it was made"
    return ModelError(f"{runtime} cannot load {path.name}: {exc}", valid=valid, remedy=remedy)


def _onnxruntime(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as exc:
        raise ModelError(
            f"{path.name} runs on ONNX Runtime, which cannot be loaded: {exc}",
            valid="The library that runs networks that are not .tflite files",
            remedy="Run `pip install 'visor-search[onnx]'`",
        ) from exc
    return onnxruntime


def _tensor(about: dict[str, Any], names: dict[int, str]) -> Tensor:
    shape = about.get("shape_signature", about["shape"])
    dtype = np.float32 if about["quantization"][0] else about["dtype"]
    name = names.get(about["index"], str(about["name"]))
    return Tensor(name, tuple(max(int(edge), 0) for edge in shape), np.dtype(dtype))


def _signature(interpreter: Interpreter) -> dict[int, str]:
    """Names of inputs and outputs in the file's signature, by tensor index; empty without a signature."""
    if not interpreter.get_signature_list():
        return {}
    runner = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
    tensors = runner.get_input_details() | runner.get_output_details()
    return {about["index"]: name for name, about in tensors.items()}


_ONNX_TYPES = {"float": "float32", "double": "float64"}


def _value(about: Any) -> Tensor:
    kind = about.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(edge if isinstance(edge, int) and edge > 0 else 0 for edge in about.shape)
    try:
        dtype = np.dtype(_ONNX_TYPES.get(kind, kind))
    except TypeError:
        dtype = np.dtype(object)
    return Tensor(about.name, shape, dtype)


class _NativeStderrDropped:
    """While at least one thread is in it, output to file descriptor 2 is dropped: LiteRT announces its delegate there,
    and no setting prevents it. The descriptor belongs to the process, so threads that load networks at the same time
    share one replacement; if each made its own, the last could restore another's /dev/null."""

    def __init__(self) -> None:
        self._lock, self._inside, self._kept = threading.Lock(), 0, -1

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                os.dup2(self._kept, 2)
                os.close(self._kept)


_NATIVE_STDERR_DROPPED = _NativeStderrDropped()
