"""What a model is, as data: networks with their weights, preprocessing, taps and head, and shares in one vector.

A *network* is one set of weights; it becomes one .tflite file, or stays the file that it is. A *model* joins the taps
of one or more networks into one vector and is named by a fingerprint over what determines its numbers.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import msgspec

from visor.schema.items import Record

RECIPE = 1
"""Raised whenever code outside of the descriptions changes the numbers of a vector, so that fingerprints change too."""

SAFETY_CLASSES = ("drawing", "hentai", "neutral", "porn", "sexy")
"""Order of the nsfwjs head (`nsfw_classes.js` of the package)."""

Variant = Literal["int8", "float32"]

View = Literal["whole", "centre"] | float
"""`whole`: the picture squeezed to a square. `centre`: its central square, edge `CENTRE_SHARE` of the shorter side. A
number: the central square with that share of the shorter side."""

CENTRE_SHARE = 0.875
"""ImageNet networks are measured on such crops (224 of 256 pixels), and their features fit them best."""
CLOSER_VIEWS = (0.6, 0.4)
"""Centres, as shares of the shorter side, that are looked at besides the two views of a network."""


DOWNLOAD_BYTES_MAX = 4_000_000_000
"""Of a file whose size nobody told."""


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
    """`md5:HEX`, which is what Keras pins its weights with, or `sha256:HEX`."""
    size_bytes: int = DOWNLOAD_BYTES_MAX
    """More is not read."""

    @property
    def path(self) -> str:
        """That of the address, without what is asked of it: `…/model.onnx?download=true` is called `model.onnx`."""
        return self.url.partition("#")[0].partition("?")[0]


class LocalFile(Record, frozen=True, kw_only=True, tag="file"):
    """A file of this machine, or a folder: a SavedModel."""

    path: str
    checksum: str
    """`sha256:HEX` of the file; of a folder as `visor.models.owner.checksum_of` makes it."""


Source = Package | Download | LocalFile


class Preprocessing(Record, frozen=True, kw_only=True):
    """How a picture becomes the network's input: RGB resized to a square, then `(pixel / 255 - mean) / deviation`."""

    size: int
    """Edge of the square, in pixels."""
    resample: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    views: tuple[View, ...] = ("whole",)
    """What of the picture is looked at; taps and head are averaged over the views."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Of the channels of the input; mean and deviation are always red, green, blue."""


class Tap(Record, frozen=True, kw_only=True):
    """One layer whose feature map, averaged over its places, is taken into the vector."""

    layer: str
    channels: int
    edge: int
    """Height and width of the feature map; 0 where there is none: the layer gives a vector, or is no square."""


class Given(Record, frozen=True, kw_only=True):
    """What an owner or a plug-in says of a network that Visor does not know; the rest is learned when it is built."""

    taps: tuple[str, ...] = ()
    """Layers or tensors; none: the last pooled layer, or the file's only vector."""
    input: str = ""
    """Tensor that takes the picture; empty: the only one."""
    head: str = ""
    """Tensor that gives a number for each label."""
    preprocessing: Preprocessing | None = None
    """None: as the preprocessor_config.json beside the network says."""
    application: str = ""
    """Name in `keras.applications`."""
    float32: bool = False
    """Whether the weights stay float32 where it is converted."""
    logit_scale: float = 100.0
    """Of a dual encoder: what its cosines are multiplied with before labels become probabilities."""
    prompts: tuple[str, ...] = ()
    """Of a dual encoder: the sentence of each label."""
    text_output: str = ""
    """Of a dual encoder: tensor that gives the vector of a text; empty: the one that is."""


class Network(Record, frozen=True, kw_only=True):
    """One network with one set of weights."""

    name: str
    architecture: str
    weights: Literal[
        "imagenet", "nsfwjs", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "keras", "file", "dual"
    ]
    """Which builder reads them."""
    source: Source
    files: dict[str, Source] = msgspec.field(default_factory=dict)
    """Further files of a dual encoder by their role: text, tokenizer, preprocessor, config, tokenizer_config."""
    licence: str
    preprocessing: Preprocessing
    taps: tuple[Tap, ...]
    power: float
    """Exponent that each (non-negative) tap is raised to: 0.5 is the Hellinger kernel, 1 leaves it."""
    head: Literal["labels", "safety"] | None
    """What its own classifier tells: labels (by default the 1,000 of ImageNet), or `SAFETY_CLASSES`."""
    signed: bool = False
    """Whether numbers below 0 count, and are raised to the power with their sign; otherwise they are taken as 0."""
    classes: int = 1000
    """Labels of a head of labels."""
    logits: bool = False
    """Whether the head gives log-odds, not probabilities."""
    int8_after: int | None = None
    """Its file computes in int8, except for so many first operations. None: it has int8 weights and computes in
    float32 where that is more exact."""
    second_look: int | None = None
    """Edge, in pixels, of the square in which its safety head looks again at what may be unsafe. The file takes any."""
    given: Given | None = None
    """Of a network that Visor does not know. Its taps and preprocessing are known once it is built."""

    @property
    def dimension(self) -> int:
        """Numbers of the vector; 0 where the taps are not known yet."""
        return sum(tap.channels for tap in self.taps)

    @property
    def gives_head(self) -> bool:
        """Whether its file gives the head. Pictures of a dual encoder are compared with the labels' texts instead."""
        return self.head is not None and self.weights != "dual"

    @property
    def source_name(self) -> str:
        """The last part of where its weights come from."""
        source = self.source
        return "" if isinstance(source, Package) else source.path.rpartition("/")[2]

    @property
    def stays_as_it_is(self) -> bool:
        """Whether its file is run as it comes; others are converted with TensorFlow."""
        return self.weights == "dual" or (self.weights == "file" and self.source_name.endswith((".tflite", ".onnx")))

    @property
    def identity(self) -> tuple[object, ...]:
        """What determines the numbers of its taps and of a head that an owner brings; known before it is built."""
        if self.given is None:
            how = self.preprocessing
            int8 = () if self.int8_after is None else ("int8", self.int8_after)
            return (self.architecture, self.source.checksum, how, how.views, self.taps, self.power, *int8)
        files = {role: file.checksum for role, file in self.files.items()}
        return (self.architecture, self.source.checksum, files, self.given, self.power, self.signed)

    def is_built_from(self, other: Network) -> bool:
        """Whether this network, which was built, is the `other`, whose taps may not be known yet."""
        learned = {name: getattr(other, name) for name in ("taps", "preprocessing", "classes", "logits")}
        return (self if self.given is None else msgspec.structs.replace(self, **learned)) == other


class WeightedNetwork(Record, frozen=True, kw_only=True):
    """One network's share in a model's vector. A share of 0 is asked for its head only."""

    network: Network
    weight: float


class ModelDescription(Record, frozen=True, kw_only=True):
    """One way to turn a picture into a vector of `dimension` float32 numbers of unit length."""

    name: str
    summary: str
    dimension: int
    """0 where it is known only once the model is built."""
    parts: tuple[WeightedNetwork, ...]
    label_names: tuple[str, ...] = ()
    """An owner's own, for a head that he brings; none: those of ImageNet, if it has a head of labels."""

    def __post_init__(self) -> None:
        joined = sum(part.network.dimension for part in self.parts if part.weight > 0)
        if joined != self.dimension:
            raise ValueError(f"model {self.name} says {self.dimension} numbers, its parts make {joined}")

    def fingerprint(self, variant: Variant = "int8") -> str:
        """64 hex digits over what determines the vectors: weights, preprocessing, taps, shares, variant, recipe."""
        parts = [(*part.network.identity, part.weight) for part in self.parts if part.weight > 0]
        # An owner's own labels are kept beside the vectors: with others, everything has to be embedded anew.
        labels = [self.label_names] if self.label_names else []
        content = msgspec.json.encode([RECIPE, CENTRE_SHARE, variant, parts, *labels], order="deterministic")
        return hashlib.sha256(content).hexdigest()

    @property
    def input_side(self) -> int:
        """Pixels that the shorter side of a picture needs so that no view of any network is enlarged."""
        return max(
            math.ceil(part.network.preprocessing.size / share_of(view))
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

    @property
    def reads_words(self) -> bool:
        return any("text" in part.network.files for part in self.parts if part.weight > 0)

    @property
    def has_maps(self) -> bool:
        """Whether every tap is the mean of a feature map, so that a heat-map can be drawn."""
        taps = [tap for part in self.parts if part.weight > 0 for tap in part.network.taps]
        return bool(taps) and all(tap.edge > 0 for tap in taps)

    @property
    def abilities(self) -> tuple[str, ...]:
        """What it can do, in words; whether there is a heat-map is known once it is built."""
        able = {
            "picture": True,
            "words": self.reads_words,
            "labels": self.sees_labels,
            "safety": self.sees_safety,
            "heat-map": self.has_maps,
        }
        return tuple(name for name, can in able.items() if can)

    @property
    def extras(self) -> tuple[str, ...]:
        """Extras of visor-search that it takes: `build` to be built (unless its files come built), others to run."""
        networks = [part.network for part in self.parts]
        wanted = {
            "build": not all(one.stays_as_it_is for one in networks),
            "onnx": any(one.stays_as_it_is and not one.source_name.endswith(".tflite") for one in networks),
            "words": self.reads_words,
        }
        return tuple(name for name, needs in wanted.items() if needs)

    def is_built_from(self, other: ModelDescription) -> bool:
        """Whether this model, which was built, is the `other`; words about it do not count."""
        return (self.label_names, len(self.parts)) == (other.label_names, len(other.parts)) and all(
            one.weight == two.weight and one.network.is_built_from(two.network)
            for one, two in zip(self.parts, other.parts, strict=True)
        )


def share_of(view: View) -> float:
    """Edge of the view as a share of the shorter side; 1 for the whole picture."""
    return 1.0 if view == "whole" else CENTRE_SHARE if view == "centre" else view
