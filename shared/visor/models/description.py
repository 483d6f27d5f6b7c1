"""Models as data: networks with their weights, preprocessing, taps and head, and their shares in one vector.

A *network* is one set of weights; it becomes one .tflite file, or its own file is used unchanged. A *model* joins the
taps of one or more networks into one vector; its name is a fingerprint of everything that determines its numbers.
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
"""Centres, as shares of the shorter side, that are embedded besides the two views of a network."""


DOWNLOAD_BYTES_MAX = 4_000_000_000
"""Limit of a file of unknown size."""


class Package(Record, frozen=True, kw_only=True, tag="package"):
    """A file of a package registry, pinned to a version and a checksum."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    checksum: str
    """`sha512:BASE64` as npm states integrity, or `sha256:HEX` as pip does."""


class Download(Record, frozen=True, kw_only=True, tag="download"):
    """A file at a URL."""

    url: str
    checksum: str
    """`md5:HEX`, with which Keras pins its weights, or `sha256:HEX`."""
    size_bytes: int = DOWNLOAD_BYTES_MAX
    """More is not read."""

    @property
    def path(self) -> str:
        """The URL without query and fragment: `…/model.onnx?download=true` is called `model.onnx`."""
        return self.url.partition("#")[0].partition("?")[0]


class LocalFile(Record, frozen=True, kw_only=True, tag="file"):
    """A file on this machine, or a folder: a SavedModel."""

    path: str
    checksum: str
    """`sha256:HEX` of the file; for a folder as `visor.models.owner.checksum_of` makes it."""


Source = Package | Download | LocalFile


class Preprocessing(Record, frozen=True, kw_only=True):
    """How a picture becomes the network's input: RGB resized to a square, then `(pixel / 255 - mean) / deviation`."""

    size: int
    """Edge of the square, in pixels."""
    resample: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    views: tuple[View, ...] = ("whole",)
    """The parts of the picture that the network gets; taps and head are averaged over the views."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Order of the input's channels; mean and deviation are always red, green, blue."""


class Tap(Record, frozen=True, kw_only=True):
    """One layer whose feature map, averaged over its positions, becomes part of the vector."""

    layer: str
    channels: int
    edge: int
    """Height and width of the feature map; 0 if there is none: the layer outputs a vector, or is not square."""


class Given(Record, frozen=True, kw_only=True):
    """What an owner or a plug-in states about a network that Visor does not know; the build finds out the rest."""

    taps: tuple[str, ...] = ()
    """Layers or tensors; none: the last pooled layer, or the file's only vector."""
    input: str = ""
    """Tensor that takes the picture; empty: the only one."""
    head: str = ""
    """Tensor with a number for each label."""
    preprocessing: Preprocessing | None = None
    """None: as in the preprocessor_config.json next to the network."""
    application: str = ""
    """Name in `keras.applications`."""
    float32: bool = False
    """Whether the weights stay float32 if it is converted."""
    logit_scale: float = 100.0
    """Of a dual encoder: factor of its cosines before labels become probabilities."""
    prompts: tuple[str, ...] = ()
    """Of a dual encoder: the sentence of each label."""
    text_output: str = ""
    """Of a dual encoder: tensor with the vector of a text; empty: it is found by name or shape."""


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
    """Exponent to which each (non-negative) tap is raised: 0.5 is the Hellinger kernel, 1 leaves the tap unchanged."""
    head: Literal["labels", "safety"] | None
    """What its own classifier predicts: labels (by default the 1,000 of ImageNet), or `SAFETY_CLASSES`."""
    signed: bool = False
    """Whether numbers below 0 are raised to the power with their sign; otherwise they count as 0."""
    classes: int = 1000
    """Number of labels of a head of labels."""
    logits: bool = False
    """Whether the head outputs log-odds, not probabilities."""
    int8_after: int | None = None
    """Its file computes in int8 after this many first operations. None: it has int8 weights and computes in float32
    where that is more exact."""
    second_look: int | None = None
    """Edge, in pixels, of the square on which its safety head runs again if a picture may be unsafe. The file accepts
    any size."""
    given: Given | None = None
    """Set for a network that Visor does not know. Its taps and preprocessing are known once it is built."""

    @property
    def dimension(self) -> int:
        """Length of the vector; 0 if the taps are not known yet."""
        return sum(tap.channels for tap in self.taps)

    @property
    def gives_head(self) -> bool:
        """Whether its file outputs the head. A dual encoder compares pictures with the labels' texts instead."""
        return self.head is not None and self.weights != "dual"

    @property
    def source_name(self) -> str:
        """File name of its weights; empty for a package."""
        source = self.source
        return "" if isinstance(source, Package) else source.path.rpartition("/")[2]

    @property
    def stays_as_it_is(self) -> bool:
        """Whether its file is run unchanged; others are converted with TensorFlow."""
        return self.weights == "dual" or (self.weights == "file" and self.source_name.endswith((".tflite", ".onnx")))

    @property
    def identity(self) -> tuple[object, ...]:
        """Everything that determines the numbers of its taps and of an owner's own head; known before it is built."""
        if self.given is None:
            how = self.preprocessing
            int8 = () if self.int8_after is None else ("int8", self.int8_after)
            return (self.architecture, self.source.checksum, how, how.views, self.taps, self.power, *int8)
        files = {role: file.checksum for role, file in self.files.items()}
        return (self.architecture, self.source.checksum, files, self.given, self.power, self.signed)

    def is_built_from(self, other: Network) -> bool:
        """Whether this built network is the `other`, whose taps may not be known yet."""
        learned = {name: getattr(other, name) for name in ("taps", "preprocessing", "classes", "logits")}
        return (self if self.given is None else msgspec.structs.replace(self, **learned)) == other


class WeightedNetwork(Record, frozen=True, kw_only=True):
    """One network's share in a model's vector. A network with share 0 is run only for its head."""

    network: Network
    weight: float


class ModelDescription(Record, frozen=True, kw_only=True):
    """One way to turn a picture into a vector of `dimension` float32 numbers of unit length."""

    name: str
    summary: str
    dimension: int
    """0 if it is known only once the model is built."""
    parts: tuple[WeightedNetwork, ...]
    label_names: tuple[str, ...] = ()
    """An owner's own, for the owner's own head; none: those of ImageNet, if it has a head of labels."""

    def __post_init__(self) -> None:
        joined = sum(part.network.dimension for part in self.parts if part.weight > 0)
        if joined != self.dimension:
            raise ValueError(f"model {self.name} says {self.dimension} numbers, its parts make {joined}")

    def fingerprint(self, variant: Variant = "int8") -> str:
        """64 hex digits from all that determines the vectors: weights, preprocessing, taps, shares, variant, recipe."""
        parts = [(*part.network.identity, part.weight) for part in self.parts if part.weight > 0]
        # An owner's own labels are stored with the vectors: if they change, everything has to be embedded anew.
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
        """Names of what it can do; whether there is a heat-map is known once it is built."""
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
        """Extras of visor-search that it needs: `build` to be built (unless its files come built), others to run."""
        networks = [part.network for part in self.parts]
        wanted = {
            "build": not all(one.stays_as_it_is for one in networks),
            "onnx": any(one.stays_as_it_is and not one.source_name.endswith(".tflite") for one in networks),
            "words": self.reads_words,
        }
        return tuple(name for name, needs in wanted.items() if needs)

    def is_built_from(self, other: ModelDescription) -> bool:
        """Whether this built model is the `other`; name and summary do not count."""
        return (self.label_names, len(self.parts)) == (other.label_names, len(other.parts)) and all(
            one.weight == two.weight and one.network.is_built_from(two.network)
            for one, two in zip(self.parts, other.parts, strict=True)
        )


def share_of(view: View) -> float:
    """Edge of the view as a share of the shorter side; 1 for the whole picture."""
    return 1.0 if view == "whole" else CENTRE_SHARE if view == "centre" else view
