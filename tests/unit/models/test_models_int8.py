"""Networks that compute in int8: the ranges that are known, and what keeps their numbers where they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.small_networks import NEEDS_TENSORFLOW

from visor.models.build.quantize import known_ranges
from visor.models.builtin import JOINED_MODEL, LITE1_MODEL, LITE2_MODEL

NETWORKS = [part.network for model in (JOINED_MODEL, LITE1_MODEL, LITE2_MODEL) for part in model.parts]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda one: one.name)
def test_ranges_of_each_int8_network_hold_its_prepared_pixels(network: Any) -> None:
    assert network.int8_after is not None
    (least, most), *others = known_ranges(network.name)
    how = network.preprocessing
    darkest, lightest = ((level - np.array(how.mean)) / how.deviation for level in (0, 1))
    assert least == pytest.approx(darkest.min(), abs=0.01)
    assert most == pytest.approx(lightest.max(), abs=0.01)
    assert all(low < high for low, high in others)


def small_network(keras: Any) -> Any:
    """Convolutions of both kinds, each normalised, the last one without a ReLU."""
    layers = keras.layers
    image = layers.Input((24, 24, 3))
    x = image
    for n, kind in enumerate((layers.Conv2D(16, 3, use_bias=False), layers.DepthwiseConv2D(3, use_bias=False), None)):
        x = (kind or layers.Conv2D(16, 1, use_bias=False))(x)
        x = layers.BatchNormalization(epsilon=1e-3)(x)
        x = layers.ReLU(6.0)(x) if n < 2 else x
    return keras.Model(image, x)


def settled(keras: Any, model: Any, pictures: Any) -> None:
    """Give each normalisation the moments of the pictures."""
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            given = np.asarray(keras.Model(model.input, layer.input)(pictures))
            size = given.shape[-1]
            gamma, beta = rng.uniform(0.5, 1.5, size), rng.uniform(-0.5, 1, size)
            layer.set_weights([gamma, beta, given.mean((0, 1, 2)), given.var((0, 1, 2))])


def rounded(keras: Any, model: Any) -> Any:
    """A copy with the weights as int8 has them."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            [kernel] = layer.get_weights()
            axes = (0, 1, 3) if isinstance(layer, keras.layers.DepthwiseConv2D) else (0, 1, 2)
            step = np.abs(kernel).max(axis=axes, keepdims=True) / 127
            layer.set_weights([np.rint(kernel / np.where(step > 0, step, 1)) * step])
    return copy


@pytest.mark.build
@NEEDS_TENSORFLOW
def test_means_stay_where_they_were_when_weights_are_rounded() -> None:
    """Also where a channel has no weights at all, as some of EfficientNet's have none."""
    import keras

    from visor.models.build.means import keep_means

    keras.utils.set_random_seed(7)
    pictures = np.random.default_rng(1).normal(0, 1, (32, 24, 24, 3)).astype(np.float32)
    model = small_network(keras)
    depthwise = model.layers[4]
    [kernel] = depthwise.get_weights()
    kernel[:, :, 3] = 0
    depthwise.set_weights([kernel])
    settled(keras, model, pictures)
    as_it_was = np.asarray(model(pictures)).mean((0, 1, 2))
    before = np.abs(np.asarray(rounded(keras, model)(pictures)).mean((0, 1, 2)) - as_it_was)
    keep_means(model, after=0)
    after = np.abs(np.asarray(rounded(keras, model)(pictures)).mean((0, 1, 2)) - as_it_was)
    assert np.isfinite(after).all()
    assert after.mean() < before.mean() / 2


@pytest.mark.build
@NEEDS_TENSORFLOW
def test_averaging_after_a_convolution_gives_the_same_numbers() -> None:
    import keras

    from visor.models.build.networks import _averages_later

    keras.utils.set_random_seed(7)
    layers = keras.layers
    image = layers.Input((16, 16, 8))
    pooled = layers.AveragePooling2D(3, 1, "same")(image)
    branch = layers.Activation("linear")(layers.BatchNormalization()(layers.Conv2D(4, 1, use_bias=False)(pooled)))
    model = keras.Model(image, layers.Concatenate()([image, branch]))
    later = _averages_later(model)
    order = [type(layer).__name__ for layer in later.layers]
    assert order.index("AveragePooling2D") > order.index("Conv2D")
    pictures = np.random.default_rng(1).normal(0, 1, (2, 16, 16, 8)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(later(pictures)), np.asarray(model(pictures)), atol=1e-5)
