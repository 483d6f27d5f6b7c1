"""A frozen .pb file or a SavedModel as a function from a picture to taps, head and maps. Imports TensorFlow."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from visor.errors import ModelError
from visor.models.build.convert import prepared_sample
from visor.models.build.tensors import check_input, find_name, is_logits, no_tensor, tap_of
from visor.models.description import Given, Network
from visor.models.embedder import channels_last, is_planar

Run = Callable[[Any], list[Any]]


def graph_network(network: Network, path: Path) -> tuple[Run, Network]:
    """A function of a picture (1, size, size, 3) that returns pooled taps, head and feature maps; and the network with
    its taps.

    Raises:
        ModelError: The file is neither, or a tensor is missing or has another shape.
    """
    graph, outputs, named_input = _read(network, path)
    given = network.given or Given()
    names = [node.name for node in graph.node]
    asked = given.input or named_input
    source = find_name(asked, names) if asked else None
    if asked and source is None:
        raise no_tensor(network.name, "input", asked, names)
    source = _after_decoding(graph, source or _only_input(network, graph))
    taps = [_tensor(network, "taps", name, names, outputs) for name in given.taps or _only_output(network, outputs)]
    head = [_tensor(network, "head", given.head, names, outputs)] if given.head else []
    dtype, shape = _about(graph, source)
    check_input(network, source, shape, whole_numbers=dtype.is_integer)

    def raw(image: Any) -> list[Any]:
        fed = tf.transpose(image, [0, 3, 1, 2]) if is_planar(shape) else image
        fed = tf.cast(tf.round(fed) if dtype.is_integer else fed, dtype)
        fed = fed[0] if len(shape) == 3 else fed
        return list(
            tf.graph_util.import_graph_def(
                graph, input_map={f"{source}:0": fed}, return_elements=[*taps, *head], name=""
            )
        )

    try:
        sample = tf.function(raw)(prepared_sample(network.preprocessing)[None])
    except (ValueError, tf.errors.OpError) as exc:
        raise ModelError(
            f"{network.name} does not run on a picture: {str(exc).strip().splitlines()[0]}",
            valid=f"A picture of {network.preprocessing.size} × {network.preprocessing.size} for the input '{source}'",
            remedy="Correct `input` and `size` in visor.toml",
        ) from exc
    planar = is_planar(shape)
    found = [
        tap_of(network, name, channels_last(np.asarray(values, np.float32), planar))
        for name, values in zip(taps, sample, strict=False)
    ]
    logits = bool(head) and is_logits(network, head[0], np.asarray(sample[-1], np.float32).ravel())

    def run(image: Any) -> list[Any]:
        values = [tf.cast(one, tf.float32) for one in raw(image)]
        maps = [_map(one, planar) for one in values[: len(taps)]]
        flat = [tf.reshape(one, (1, -1, tap.channels)) for one, tap in zip(maps, found, strict=True)]
        pooled = [tf.reduce_mean(one, 1) for one in flat]
        if head:
            row = tf.reshape(values[-1], (1, network.classes))
            pooled.append(tf.nn.softmax(row) if logits else row / tf.maximum(tf.reduce_sum(row), 1e-12))
        return pooled + [
            tf.reshape(one, (1, tap.edge, tap.edge, tap.channels))
            for one, tap in zip(maps, found, strict=True)
            if tap.edge
        ]

    return tf.function(run), msgspec.structs.replace(network, taps=tuple(found))


def _map(values: Any, planar: bool) -> Any:
    return tf.transpose(values, [0, 2, 3, 1]) if planar and len(values.shape) == 4 else values


def _read(network: Network, path: Path) -> tuple[Any, dict[str, str], str]:
    """The graph, its outputs by the names that an owner may use, and its input if the file names one."""
    if path.is_file() and (tarfile.is_tarfile(path) or zipfile.is_zipfile(path)):
        with TemporaryDirectory() as scratch:
            _unpack(path, Path(scratch))
            return _saved_model(network, Path(scratch))
    if path.name == "saved_model.pb":
        path = path.parent
    if path.is_dir():
        return _saved_model(network, path)
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError as exc:
        raise _no_graph(network, path, "is not a TensorFlow graph") from exc
    if not graph.node:
        raise _no_graph(network, path, "holds no operations")
    variables = [node.name for node in graph.node if node.op in ("VariableV2", "VarHandleOp", "Variable")]
    if variables:
        raise _no_graph(network, path, f"is not frozen: it has {len(variables)} variables, such as {variables[0]}")
    used = {name.partition(":")[0].lstrip("^") for node in graph.node for name in node.input}
    idle = ("Placeholder", "Const", "NoOp")
    ends = [node.name for node in graph.node if node.name not in used and node.op not in idle]
    _modernise(graph)
    return graph, {name: f"{name}:0" for name in ends}, ""


def _saved_model(network: Network, folder: Path) -> tuple[Any, dict[str, str], str]:
    found = sorted(folder.rglob("saved_model.pb"))
    if len(found) != 1:
        names = ", ".join(sorted(one.name for one in folder.iterdir())[:8])
        raise _no_graph(network, folder, f"holds {len(found)} SavedModels ({names})")
    try:
        loaded = tf.saved_model.load(str(found[0].parent))  # it holds the variables, also of its signatures
    except Exception as exc:
        raise _no_graph(network, folder, f"cannot be read: {str(exc).strip().splitlines()[0]}") from exc
    signatures = loaded.signatures
    name = "serving_default" if "serving_default" in signatures or len(signatures) != 1 else next(iter(signatures))
    if name not in signatures:
        raise _no_graph(network, folder, f"has the signatures {', '.join(signatures) or '(none)'}")
    function = signatures[name]
    frozen = convert_variables_to_constants_v2(function)
    outputs = {key: frozen.outputs[place].name for place, key in enumerate(sorted(function.structured_outputs))}
    graph = frozen.graph.as_graph_def()
    return graph, outputs, frozen.inputs[0].name if len(frozen.inputs) == 1 else ""


def _no_graph(network: Network, path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path.name} of {network.name} {what}",
        valid="A .tflite file, an ONNX file, a frozen .pb, or a SavedModel with the signature serving_default",
        remedy="Export the network as one of these",
    )


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder)  # noqa: S202 - zipfile keeps members within
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")


def _modernise(graph: Any) -> None:
    """Replace an operation that TensorFlow removed in 2015 and that Inception's original file of that year uses."""
    for node in [one for one in graph.node if one.op == "BatchNormWithGlobalNormalization"]:
        values, mean, variance, beta, gamma = node.input
        if not node.attr["scale_after_normalization"].b:
            ones = graph.node.add(name=f"{node.name}/ones", op="OnesLike", input=[gamma])
            ones.attr["T"].type = tf.float32.as_datatype_enum
            gamma = ones.name
        epsilon = node.attr["variance_epsilon"].f
        node.op = "FusedBatchNorm"
        node.ClearField("input")
        node.input.extend([values, gamma, beta, mean, variance])
        node.ClearField("attr")
        node.attr["T"].type = tf.float32.as_datatype_enum
        node.attr["epsilon"].f = epsilon
        node.attr["is_training"].b = False


def _only_input(network: Network, graph: Any) -> str:
    found = [node.name for node in graph.node if node.op == "Placeholder"]
    if len(found) != 1:
        raise ModelError(
            f"{network.name} has {len(found)} inputs{': ' if found else ''}{', '.join(found)}",
            valid="One, or the one that `input` names",
            remedy="Add `input` in visor.toml",
        )
    return str(found[0])


def _after_decoding(graph: Any, source: str) -> str:
    """The tensor with the pixels if `source` is the one with a picture's bytes, else `source`."""
    decoders = [node for node in graph.node if node.op in ("DecodeJpeg", "DecodePng", "DecodeImage")]
    found = (str(one.name) for one in decoders if source in [name.partition(":")[0] for name in one.input])
    return next(found, source)


def _only_output(network: Network, outputs: dict[str, str]) -> list[str]:
    if len(outputs) != 1:
        raise ModelError(
            f"{network.name} has {len(outputs)} outputs: {', '.join(outputs)}",
            valid="One, or those that `taps` names",
            remedy="Add `taps` in visor.toml",
        )
    return list(outputs)


def _tensor(network: Network, key: str, wanted: str, names: list[str], outputs: dict[str, str]) -> str:
    """The full name of a tensor that an owner names in full, by its node, or by its name in the signature."""
    if wanted in outputs:
        return outputs[wanted]
    name = find_name(wanted, names)
    if name is None:
        raise no_tensor(network.name, key, wanted, [*outputs, *names])
    place = wanted.rpartition(":")[2]
    return f"{name}:{place}" if place.isdigit() else f"{name}:0"


def _about(graph: Any, source: str) -> tuple[Any, list[int]]:
    """Element type and shape of a tensor; 0 for an axis of any length, empty if the shape is unknown."""
    with tf.Graph().as_default() as scratch:
        tf.graph_util.import_graph_def(graph, name="")
        tensor = scratch.get_tensor_by_name(f"{source}:0")
        if tensor.shape.rank is None:
            return tensor.dtype, []
        return tensor.dtype, [edge or 0 for edge in tensor.shape.as_list()]
