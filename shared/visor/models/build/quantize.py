"""Makes a float32 .tflite file compute in int8, with the ranges that its tensors have on real pictures.

The ranges are kept in activation_ranges.json, so that no picture is needed to build a file.
scripts/models/activation_ranges.py measures them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from visor.errors import ModelError

OPERATIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "CONCATENATION", "MAX_POOL_2D")
"""Operations that compute in int8. Averages and heads stay float32: they cost next to nothing."""

KEPT = 0.99
"""Share of pictures whose least and largest numbers are within a range; rarer numbers are clipped."""

Ranges = list[tuple[float, float]]
"""Least and largest number of the input, then of the output of each operation, in the order of the file."""


def known_ranges(network: str) -> Ranges:
    """The network's ranges in activation_ranges.json."""
    table = (files("visor.models.build") / "activation_ranges.json").read_bytes()
    return msgspec.json.decode(table, type=dict[str, Ranges])[network]


def quantized(content: bytes, ranges: Ranges, *, after: int) -> bytes:
    """The .tflite file in int8 from the operation at position `after` on.

    Raises:
        ModelError: The ranges belong to another file, or the library for this is not installed.
    """
    try:
        from ai_edge_quantizer import qtyping, quantizer
    except ImportError as exc:
        raise ModelError(
            f"ai-edge-quantizer cannot be loaded: {exc}", remedy="Run `pip install 'visor-search[build]'`"
        ) from exc
    kinds, names = _tensors(_every_tensor(content))
    if len(names) != len(ranges):
        raise ModelError(
            f"The network has {len(names)} tensors, but {len(ranges)} ranges are known",
            valid="A file that TensorFlow 2.21 made, as constraints.txt pins it",
            remedy="Build with that version, or measure anew: scripts/models/activation_ranges.py",
        )
    ours = quantizer.Quantizer(content)
    for kind in OPERATIONS:
        ours.add_static_config(".*", qtyping.TFLOperationName[kind], activation_num_bits=8, weight_num_bits=8)
    ours.add_dynamic_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
    for kind, name in zip(kinds[:after], names[1:], strict=False):
        ours.update_quantization_recipe(re.escape(name), qtyping.TFLOperationName[kind], algorithm_key="no_quantize")
    about = {
        name: {"min": np.full((1, 1, 1, 1), least, np.float32), "max": np.full((1, 1, 1, 1), most, np.float32)}
        for name, (least, most) in zip(names, ranges, strict=True)
    }
    done = ours.quantize(about, enable_progress_bar=False, enable_progress_report=False)
    return bytes(done.quantized_model)


def measured_ranges(content: bytes, pictures: Iterable[NDArray[np.float32]]) -> Ranges:
    """Ranges of the float32 file's tensors that hold 99 % of prepared pictures (size, size, 3), of any size, to four
    digits."""
    interpreter = _every_tensor(content)
    [given] = interpreter.get_input_details()
    places = [given["index"], *(one["outputs"][0] for one in _operations(interpreter))]
    found = []
    for picture in pictures:
        interpreter.resize_tensor_input(given["index"], (1, *picture.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], picture[None])
        interpreter.invoke()
        values = [interpreter.get_tensor(place) for place in places]
        found.append([(float(one.min()), float(one.max())) for one in values])
    least, most = np.quantile(found, 1 - KEPT, axis=0)[:, 0], np.quantile(found, KEPT, axis=0)[:, 1]
    return [(float(f"{low:.4g}"), float(f"{high:.4g}")) for low, high in zip(least, most, strict=True)]


def _every_tensor(content: bytes) -> Any:
    """An interpreter that keeps all tensors, also those between operations."""
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True, num_threads=2)
    interpreter.allocate_tensors()
    return interpreter


def _operations(interpreter: Any) -> list[dict[str, Any]]:
    return [one for one in interpreter._get_ops_details() if one["op_name"] != "DELEGATE"]


def _tensors(interpreter: Any) -> tuple[list[str], list[str]]:
    """The kind of each operation; the name of the input and of each output."""
    names = {one["index"]: one["name"] for one in interpreter.get_tensor_details()}
    operations = _operations(interpreter)
    [given] = interpreter.get_input_details()
    return [one["op_name"] for one in operations], [given["name"], *(names[one["outputs"][0]] for one in operations)]
