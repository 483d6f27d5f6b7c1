"""Copies a .tflite or ONNX file unchanged into a model's directory, after checking its input and outputs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from visor.errors import ModelError
from visor.models.build.convert import prepared_sample
from visor.models.build.tensors import check_input, find_name, is_logits, no_tensor, tap_of
from visor.models.description import Given, Network
from visor.models.embedder import channels_last, is_planar
from visor.models.runtime import Runtime, Tensor, Vector, open_runtime
from visor.models.store import NetworkFile

EMBEDDINGS = ("image_embeds", "text_embeds", "sentence_embedding", "pooler_output")
"""Names that model hubs' files give to the output with the vector, the best first."""


def adopt(network: Network, path: Path, scratch: Path) -> tuple[Network, list[NetworkFile]]:
    """Copy the file and find its taps and head.

    Raises:
        ModelError: It cannot be loaded, an output is missing, or the input or outputs have other shapes.
    """
    given = network.given or Given()
    key = "picture_output" if network.weights == "dual" else "taps"
    asked = [(key, tap) for tap in given.taps] + [("head", given.head)] * bool(given.head)
    target = copy_network(network.name, path, scratch / network.name, asked)
    runtime = open_runtime(target, threads=2)
    names = [one.name for one in runtime.outputs]
    head = [output_of(network.name, "head", runtime, given.head)] if given.head else []
    taps = [output_of(network.name, key, runtime, tap, head) for tap in given.taps or ("",)]
    places = [*taps, *head]
    source = the_input(network, runtime)
    planar = is_planar(source.shape)
    check_input(network, source.name, source.shape, whole_numbers=source.dtype.kind in "iu")
    values = _run(network, runtime, source, prepared_sample(network.preprocessing), places)
    found = [
        tap_of(network, names[place], channels_last(one, planar)) for place, one in zip(taps, values, strict=False)
    ]
    logits = bool(head) and is_logits(network, given.head, values[-1].ravel())
    built = msgspec.structs.replace(network, taps=tuple(found), logits=logits)
    file = file_record(target, network.name, cosine=1.0, converter="none: the file as it is")
    return built, [msgspec.structs.replace(file, outputs=tuple(places))]


def file_record(path: Path, name: str, *, cosine: float, converter: str) -> NetworkFile:
    """The record of a file for model.json."""
    content = path.read_bytes()
    return NetworkFile(
        network=name,
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        cosine=round(cosine, 6),
        converter=converter,
    )


def network_files(files: Iterable[NetworkFile], name: str) -> list[NetworkFile]:
    """The files of one network, including those that belong to it."""
    return [file for file in files if file.network.partition("/")[0] == name]


def the_input(network: Network, runtime: Runtime) -> Tensor:
    """The one input of a network of pictures."""
    if len(runtime.inputs) != 1:
        raise ModelError(
            f"{network.name} has {len(runtime.inputs)} inputs: {', '.join(map(str, runtime.inputs))}",
            valid="One, which takes the picture",
            remedy="Export the network of pictures alone",
        )
    wanted = network.given.input if network.given else ""
    if wanted and find_name(wanted, [runtime.inputs[0].name]) is None:
        raise no_tensor(network.name, "input", wanted, [runtime.inputs[0].name])
    return runtime.inputs[0]


def output_of(name: str, key: str, runtime: Runtime, wanted: str, without: Sequence[int] = ()) -> int:
    """The position of the output `wanted`, which `key` of visor.toml names. If it is empty, that of the vector: the
    only output, one with a name that hubs use, or the only one with a single row."""
    names = [one.name for one in runtime.outputs]
    if wanted:
        found = find_name(wanted, names)
        if found is None:
            raise no_tensor(name, key, wanted, names)
        return names.index(found)
    places = [n for n, one in enumerate(runtime.outputs) if n not in without and one.dtype.kind == "f"]
    usual = [n for wanted in EMBEDDINGS for n in places if runtime.outputs[n].name == wanted]
    rows = [n for n in places if len(runtime.outputs[n].shape) == 2]
    for some in (places, usual[:1], rows):
        if len(some) == 1:
            return some[0]
    shown = ", ".join(str(runtime.outputs[n]) for n in places or range(len(runtime.outputs)))
    raise ModelError(
        f"{name} has {len(places)} outputs that could be the vector: {shown}"
        if places
        else f"None of the outputs of {name} could be the vector: {shown}",
        valid=f"One, or the one that `{key}` names",
        remedy=f"Add `{key}` in visor.toml",
    )


def _run(network: Network, runtime: Runtime, source: Tensor, picture: Vector, places: list[int]) -> list[Vector]:
    given = picture.transpose(2, 0, 1) if is_planar(source.shape) else picture
    try:
        values = runtime.run([given if len(source.shape) == 3 else given[None]], places)
    except Exception as exc:
        raise ModelError(
            f"{network.name} does not run on a picture: {str(exc).strip().splitlines()[0]}",
            valid=f"A picture for its input {source}",
            remedy="Correct `size` in visor.toml",
        ) from exc
    return [np.asarray(one, np.float32) for one in values]


def copy_network(name: str, path: Path, target: Path, asked: Sequence[tuple[str, str]]) -> Path:
    """Copy a network to `target` with its extension. In an ONNX file, the inner tensors in `asked` become outputs, and
    external weights are stored in the file.

    Args:
        asked: Keys of visor.toml, and the tensor that each names.

    Raises:
        ModelError: It cannot be read, or such a tensor does not exist.
    """
    target = target.with_name(target.name + path.suffix)
    if path.suffix != ".onnx":
        shutil.copyfile(path, target)
        return target
    try:
        import onnx
    except ImportError as exc:
        raise ModelError(
            f"{path.name} is read with the library onnx, which cannot be loaded: {exc}",
            remedy="Run `pip install 'visor-search[onnx]'`",
        ) from exc
    try:
        model = onnx.load(str(path))
    except Exception as exc:
        raise ModelError(
            f"{path.name} of {name} cannot be read: {str(exc).strip().splitlines()[0]}",
            valid="An ONNX file, next to the file of its weights if it has one",
            remedy="Put the weights there, or export the network again",
        ) from exc
    outputs = [one.name for one in model.graph.output]
    inner = [tensor for node in model.graph.node for tensor in node.output if tensor]
    for key, wanted in asked:
        if find_name(wanted, outputs) is None:
            found = find_name(wanted, inner)
            if found is None:
                raise no_tensor(name, key, wanted, [*inner, *outputs])
            model.graph.output.append(onnx.ValueInfoProto(name=found))
            outputs.append(found)
    onnx.save(model, str(target))
    return target
