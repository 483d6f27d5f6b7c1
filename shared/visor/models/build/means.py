"""Keeps the means of a network's activations when its weights are rounded to int8.

The rounding error of a weight meets inputs that are never negative, so an output is off by a constant for all pictures.
In a depthwise convolution, or one without a ReLU after it, that is most of the error (Nagel et al., arXiv:1906.04721,
section 4.2). The mean of the inputs follows from the normalisation before them, so no picture is needed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

Means = NDArray[np.float64]
"""(channels,) over positions and pictures."""

_LARGEST = 127
"""Largest int8 weight; the largest of an output's weights is scaled to it."""


def keep_means(model: Any, *, after: int) -> None:
    """Make normalisations subtract the bias that rounding the weights adds, in a network with depthwise convolutions.

    Args:
        after: Number of first convolutions that keep float32 weights.
    """
    if not any(isinstance(layer, layers.DepthwiseConv2D) for layer in model.layers):
        return
    means: dict[str, Means] = {}
    convolutions = 0
    for layer in model.layers:
        before = [node.operation for node in layer._inbound_nodes[0].parent_nodes]
        given = [means[one.name] for one in before]
        if isinstance(layer, layers.InputLayer):
            means[layer.name] = np.zeros(layer.output.shape[-1])
        elif isinstance(layer, layers.BatchNormalization):
            [convolution] = before
            gamma, beta, *moments = layer.get_weights()
            means[layer.name] = beta.astype(np.float64)
            if convolutions >= after:
                added = _added(convolution, layer)
                # Sums of products in this order are the same on every processor.
                more = added * given[0] if added.ndim == 1 else (added * given[0][:, None]).sum(0)
                layer.set_weights([gamma, beta - more.astype(np.float32), *moments])
            convolutions += 1
        elif isinstance(layer, layers.ReLU):
            [normalise] = before
            means[layer.name] = _clipped(given[0], np.abs(normalise.get_weights()[0]), float(layer.max_value))
        elif isinstance(layer, layers.Add):
            means[layer.name] = np.sum(given, axis=0)
        else:
            means[layer.name] = given[0]


def _added(convolution: Any, normalise: Any) -> Means:
    """The rounding error of the weights of a convolution with its normalisation, summed over their positions: (inputs,
    outputs), or (channels,) of a depthwise one."""
    gamma, _, _, variance = normalise.get_weights()
    gain = gamma / np.sqrt(variance + normalise.epsilon)
    [kernel] = convolution.get_weights()
    is_depthwise = isinstance(convolution, layers.DepthwiseConv2D)
    weights = (kernel[..., 0] if is_depthwise else kernel) * gain
    largest = np.abs(weights).max(axis=tuple(range(weights.ndim - 1)), keepdims=True)
    step = np.where(largest > 0, largest, 1) / _LARGEST
    added: Means = (np.rint(weights / step) * step - weights).sum((0, 1), dtype=np.float64)
    return added


def _clipped(mean: Means, deviation: Means, most: float) -> Means:
    """Mean of a normal distribution clipped to [0, most]."""

    def above(limit: float) -> Means:
        """Mean of the part above the limit."""
        z = (mean - limit) / deviation
        below: Means = np.array([math.erfc(-one / math.sqrt(2)) / 2 for one in z])
        density: Means = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return (mean - limit) * below + deviation * density

    deviation = np.maximum(deviation, 1e-9)
    return above(0) - above(most)
