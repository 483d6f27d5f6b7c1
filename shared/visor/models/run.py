"""Pictures to vectors, labels and safety with LiteRT. Never imports TensorFlow, so that a function starts in a blink."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from visor.errors import ModelError, ModelNotBuilt
from visor.models.description import SAFETY_CLASSES, ModelDescription, Network, Part, Preprocessing, Variant
from visor.records import Label, Record

FORMAT = 1
MANIFEST = "model.json"
LABELS_KEPT = 5

Vector = NDArray[np.float32]

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class NetworkFile(Record, frozen=True, kw_only=True):
    """One .tflite file of a model directory."""

    network: str
    file: str
    sha256: str
    size_bytes: int
    cosine: float
    """Smallest cosine between a tap of the file and of Keras, measured when it was built."""
    converter: str


class ModelManifest(Record, frozen=True, kw_only=True):
    """`model.json` of a model directory: everything that is needed to run it and to say where it is from."""

    format: int = FORMAT
    fingerprint: str
    variant: Variant
    description: ModelDescription
    files: tuple[NetworkFile, ...]
    label_names: tuple[str, ...] = ()
    built_at: str


@dataclass(frozen=True)
class Embedded:
    """What a model sees in n pictures."""

    vectors: Vector
    """(n, dimension) float32, rows of unit length."""
    labels: list[tuple[Label, ...]]
    """The 5 most probable content labels of each picture, most probable first; empty without such a head."""
    safety: list[dict[str, float] | None]
    """Probability of each of `SAFETY_CLASSES` (sum 1), or None without such a head."""


@dataclass(frozen=True)
class _Seen:
    taps: list[Vector]
    head: Vector
    maps: list[Vector]


def open_interpreter(path: Path, *, threads: int) -> Interpreter:
    """A LiteRT interpreter for the file, tensors allocated.

    Raises:
        ModelError: LiteRT does not take the file.
    """
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as exc:
        raise ModelError(
            f"LiteRT does not take {path.name}: {exc}",
            valid="A .tflite file that `visor model build` made",
            remedy=f"Delete {path.parent} and build the model again",
        ) from exc
    return interpreter


def prepare(image: Image.Image, how: Preprocessing) -> Vector:
    """An RGB picture of any size as network input: (size, size, 3) float32. The whole picture, squeezed to a square."""
    edge = (how.size, how.size)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != edge:
        image = image.resize(edge, _RESAMPLE[how.resample], reducing_gap=3.0)
    scale = np.float32(1) / (np.float32(255) * np.array(how.deviation, np.float32))
    shift = np.array(how.mean, np.float32) / np.array(how.deviation, np.float32)
    return np.asarray(image, np.float32) * scale - shift


def joined_vector(parts: Sequence[Part], taps: Sequence[Sequence[Vector]]) -> Vector:
    """One vector of unit length, (dimension,) float32, out of the pooled taps of each part.

    Each tap is made non-negative, raised to its network's power and made unit length; a network's taps are joined and
    made unit length; the parts are joined with their weights, and the whole is made unit length. Power 0.5 makes the
    dot product of two vectors the Hellinger kernel (Arandjelović & Zisserman, CVPR 2012).
    """
    shares = [
        part.weight * _unit(np.concatenate([_unit(np.maximum(tap, 0) ** part.network.power) for tap in part_taps]))
        for part, part_taps in zip(parts, taps, strict=True)
        if part.weight > 0
    ]
    return _unit(np.concatenate(shares)).astype(np.float32)


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0 else np.full_like(vector, vector.size**-0.5)


class _Runner:
    """One network, in one interpreter that one thread at a time may use."""

    def __init__(self, network: Network, path: Path, threads: int) -> None:
        self._network = network
        self._lock = threading.Lock()
        self._interpreter = open_interpreter(path, threads=threads)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]
        if len(self._outputs) != 2 * len(network.taps) + 1:
            raise ModelError(f"{path.name} has {len(self._outputs)} outputs, not the taps, head and maps described")

    def run(self, image: Image.Image, *, maps: bool = False) -> _Seen:
        prepared = prepare(image, self._network.preprocessing)
        count = len(self._network.taps)
        with self._lock:
            self._interpreter.set_tensor(self._input, prepared[None])
            self._interpreter.invoke()
            # get_tensor copies, so that the next picture cannot change what was given out.
            values = [self._interpreter.get_tensor(i)[0] for i in self._outputs[: None if maps else count + 1]]
        return _Seen(taps=values[:count], head=values[count], maps=values[count + 1 :])


class Embedder:
    """Runs the model of one directory. Any number of threads may call it."""

    def __init__(self, directory: Path, *, threads: int = 2) -> None:
        """Load the model.

        Args:
            directory: What `visor model build` made.
            threads: Cores to use: a single picture is computed on all of them, of many pictures one on each.

        Raises:
            ModelNotBuilt: The directory is missing or incomplete.
            ModelError: A file in it is not what `model.json` says.
        """
        self._manifest = read_manifest(directory)
        self.directory = directory
        self.description: ModelDescription = self._manifest.description
        self.fingerprint: str = self._manifest.fingerprint
        self.dimension: int = self.description.dimension
        self._threads = threads
        files = {file.network: check_file(directory, file) for file in self._manifest.files}
        self._paths = [files[part.network.name] for part in self.description.parts]
        self._lanes: list[list[_Runner]] = []
        self._single = self._lane(threads)

    def _lane(self, threads: int) -> list[_Runner]:
        parts = zip(self.description.parts, self._paths, strict=True)
        return [_Runner(part.network, path, threads) for part, path in parts]

    def embed(self, images: Sequence[Image.Image]) -> Embedded:
        """Vectors, labels and safety of RGB pictures of any size, in their order."""
        if not images:
            return Embedded(vectors=np.zeros((0, self.dimension), np.float32), labels=[], safety=[])
        seen = [[runner.run(image) for runner in self._single] for image in images]
        return Embedded(
            vectors=np.stack([joined_vector(self.description.parts, [s.taps for s in one]) for one in seen]),
            labels=[self._labels(one) for one in seen],
            safety=[self._safety(one) for one in seen],
        )

    def features(self, image: Image.Image) -> list[Vector]:
        """The feature maps behind the vector, (edge, edge, channels) float32, in the order of parts and taps."""
        return [
            feature_map
            for part, runner in zip(self.description.parts, self._single, strict=True)
            if part.weight > 0
            for feature_map in runner.run(image, maps=True).maps
        ]

    def _head(self, seen: list[_Seen], kind: str) -> Vector | None:
        for part, one in zip(self.description.parts, seen, strict=True):
            if part.network.head == kind:
                return one.head
        return None

    def _labels(self, seen: list[_Seen]) -> tuple[Label, ...]:
        head = self._head(seen, "labels")
        if head is None:
            return ()
        best = np.argsort(-head, kind="stable")[:LABELS_KEPT]
        return tuple(Label(name=self._manifest.label_names[i], probability=round(float(head[i]), 4)) for i in best)

    def _safety(self, seen: list[_Seen]) -> dict[str, float] | None:
        head = self._head(seen, "safety")
        return None if head is None else dict(zip(SAFETY_CLASSES, (float(p) for p in head), strict=True))


def read_manifest(directory: Path) -> ModelManifest:
    """`model.json` of a model directory.

    Raises:
        ModelNotBuilt: There is none.
        ModelError: It is not one that this Visor reads.
    """
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=ModelManifest)
    except FileNotFoundError as exc:
        raise ModelNotBuilt(
            f"There is no model in {directory}",
            valid=f"A model directory holds {MANIFEST} and a .tflite file for each network",
            remedy="Run `visor model build`",
        ) from exc
    except msgspec.DecodeError as exc:
        raise _damaged(path, f"is not valid: {exc}") from exc
    if manifest.format != FORMAT:
        raise _damaged(path, f"has format {manifest.format}, this Visor reads {FORMAT}")
    if manifest.description.sees_labels and len(manifest.label_names) != 1000:
        raise _damaged(path, f"names {len(manifest.label_names)} of 1000 labels")
    return manifest


def check_file(directory: Path, file: NetworkFile) -> Path:
    """The path of the file, after comparing its checksum (20 ms for 22 MB).

    Raises:
        ModelNotBuilt: It is missing.
        ModelError: It is another file.
    """
    path = directory / file.file
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError as exc:
        raise ModelNotBuilt(
            f"{path.name} is missing in {directory}",
            valid=f"{MANIFEST} names it",
            remedy="Delete the folder and run `visor model build`",
        ) from exc
    if digest != file.sha256:
        raise _damaged(path, f"has the checksum {digest[:12]}…, not {file.sha256[:12]}…")
    return path


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} {what}",
        valid="The files as `visor model build` wrote them",
        remedy=f"Delete {path.parent} and run `visor model build`",
    )
