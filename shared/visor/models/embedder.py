"""Images to vectors, labels and safety with LiteRT. Never imports TensorFlow: functions start fast."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from visor.errors import ModelError
from visor.models.registry import (
    CENTRE_SHARE,
    SAFETY_CLASSES,
    ModelDescription,
    Network,
    Preprocessing,
    View,
    WeightedNetwork,
)
from visor.models.store import check_file, label_words, model_directory, read_manifest
from visor.schema.items import Label
from visor.schema.labels import short_name
from visor.settings import Settings

LABELS_KEPT = 5
CLOSER_VIEWS = (0.6, 0.4)
"""Centres, as shares of the shorter side, that are looked at besides the two views of a network."""

Vector = NDArray[np.float32]

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Embedded:
    """What a model sees in n pictures."""

    vectors: Vector
    """(n, dimension) float32, rows of unit length."""
    labels: list[tuple[Label, ...]]
    """The 5 most probable content labels of each picture, most probable first; empty without such a head."""
    safety: list[dict[str, float] | None]
    """Probability of each of `SAFETY_CLASSES` (sum 1), or None without such a head."""
    probabilities: list[Vector | None]
    """(1000,) of the content labels of each image, or None without such a head."""


@dataclass(frozen=True)
class _Seen:
    """One network's outputs for one picture."""

    taps: list[Vector]
    head: Vector
    maps: list[Vector]

    def mean(self, other: _Seen) -> _Seen:
        """Of two looks at one image, without maps."""
        taps = [(a + b) / np.float32(2) for a, b in zip(self.taps, other.taps, strict=True)]
        return _Seen(taps, (self.head + other.head) / np.float32(2), [])


class Embedder:
    """Runs the model of one directory. Any number of threads may call it."""

    def __init__(self, directory: Path, *, threads: int = 2) -> None:
        """Load the model.

        Args:
            directory: What `visor model build` made.
            threads: Cores to use. A single picture is computed on all of them; of many pictures, one on each.

        Raises:
            ModelNotBuilt: The directory is missing or incomplete.
            ModelError: A file in it is not what `model.json` says.
        """
        manifest = read_manifest(directory)
        paths = {file.network: check_file(directory, file) for file in manifest.files}
        self.directory = directory
        self.description: ModelDescription = manifest.description
        self.fingerprint: str = manifest.fingerprint
        self.dimension: int = manifest.description.dimension
        self._label_names = tuple(short_name(label) for label in manifest.label_names)
        self.label_words = label_words(manifest)
        self._networks = [(part.network, paths[part.network.name]) for part in self.description.parts]
        self._threads = threads
        self._wide = InterpreterPool(self._networks, count=1, threads=threads)
        self._narrow = InterpreterPool(self._networks, count=threads, threads=1) if threads > 1 else self._wide

    def embed(self, images: Sequence[Image.Image]) -> Embedded:
        """Vectors, labels and safety of RGB pictures of any size, in their order."""
        if not images:
            return Embedded(vectors=np.zeros((0, self.dimension), np.float32), labels=[], safety=[], probabilities=[])
        return self._embedded([self._wide.see(images[0])] if len(images) == 1 else self._narrow.see_all(images))

    def embed_closer(self, image: Image.Image) -> tuple[Embedded, Embedded]:
        """What `embed` gives for one image, and the same with a closer look at its middle, which photos need."""
        seen, closer = self._wide.see(image), self._wide.see_closer(image)
        both = [one if more is None else one.mean(more) for one, more in zip(seen, closer, strict=True)]
        return self._embedded([seen]), self._embedded([both])

    def _embedded(self, seen: Sequence[list[_Seen]]) -> Embedded:
        return Embedded(
            vectors=np.stack([joined_vector(self.description.parts, [s.taps for s in one]) for one in seen]),
            labels=[self._labels(one) for one in seen],
            safety=[self._safety(one) for one in seen],
            probabilities=[self._head(one, "labels") for one in seen],
        )

    def features(self, image: Image.Image) -> list[Vector]:
        """The feature maps behind the vector, (edge, edge, channels) float32, in the order of parts and taps.

        Each is of the whole picture squeezed to a square, so that place (row, column) of a map lies over the same
        fraction of the picture's height and width.
        """
        seen = self._wide.see(image, maps=True)
        shares = zip(self.description.parts, seen, strict=True)
        return [feature_map for part, one in shares if part.weight > 0 for feature_map in one.maps]

    def _head(self, seen: list[_Seen], kind: str) -> Vector | None:
        parts = zip(self.description.parts, seen, strict=True)
        return next((one.head for part, one in parts if part.network.head == kind), None)

    def _labels(self, seen: list[_Seen]) -> tuple[Label, ...]:
        head = self._head(seen, "labels")
        if head is None:
            return ()
        best = np.argsort(-head, kind="stable")[:LABELS_KEPT]
        return tuple(Label(name=self._label_names[i], probability=round(float(head[i]), 4)) for i in best)

    def _safety(self, seen: list[_Seen]) -> dict[str, float] | None:
        head = self._head(seen, "safety")
        return None if head is None else dict(zip(SAFETY_CLASSES, (float(p) for p in head), strict=True))


def load_embedder(settings: Settings) -> Embedder:
    """The embedder of `settings.model`.

    Raises:
        ModelNotBuilt: It is not there; the message says how to build it.
        ModelError: It is there and damaged.
    """
    return Embedder(model_directory(settings, settings.model), threads=settings.threads)


def view_of(image: Image.Image, view: View | float) -> tuple[float, float, float, float]:
    """The box of the view within the picture, in pixels: left, upper, right, lower. A number is a centre's share."""
    width, height = image.size
    if view == "whole":
        return 0.0, 0.0, float(width), float(height)
    edge = min(width, height) * (CENTRE_SHARE if view == "centre" else view)
    left, upper = (width - edge) / 2, (height - edge) / 2
    return left, upper, left + edge, upper + edge


def prepare(image: Image.Image, how: Preprocessing, view: View | float = "whole") -> Vector:
    """A picture of any size as network input: (size, size, 3) float32, `(pixel / 255 - mean) / deviation`."""
    if image.mode != "RGB":
        image = image.convert("RGB")
    box = view_of(image, view)
    square = image.resize((how.size, how.size), _RESAMPLE[how.resample], box=box, reducing_gap=3.0)
    scaled: Vector = np.asarray(square, np.float32) / np.float32(255)
    centred: Vector = scaled - np.array(how.mean, np.float32)
    np.divide(centred, np.array(how.deviation, np.float32), out=centred)
    return centred


def joined_vector(parts: Sequence[WeightedNetwork], taps: Sequence[Sequence[Vector]]) -> Vector:
    """One vector of unit length, (dimension,) float32, out of the pooled taps of each part.

    Each tap is made non-negative, raised to its network's power and made unit length; a network's taps are joined and
    made unit length; the parts are joined with their weights, and the whole is made unit length. Power 0.5 makes the
    dot product of two vectors the Hellinger kernel (Arandjelović & Zisserman, CVPR 2012).
    """
    shares = [
        np.float32(part.weight) * _unit(np.concatenate([_unit(_powered(tap, part.network.power)) for tap in part_taps]))
        for part, part_taps in zip(parts, taps, strict=True)
        if part.weight > 0
    ]
    return _unit(np.concatenate(shares))


def open_interpreter(path: Path, *, threads: int) -> Interpreter:
    """A LiteRT interpreter for the file, tensors allocated.

    Raises:
        ModelError: LiteRT does not take the file.
    """
    try:
        with _native_stderr_dropped():
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as exc:
        raise ModelError(
            f"LiteRT does not take {path.name}: {exc}",
            valid="A .tflite file that `visor model build` made",
            remedy=f"Delete {path.parent} and build the model again",
        ) from exc
    return interpreter


@contextmanager
def _native_stderr_dropped() -> Iterator[None]:
    """Drop what is written to file descriptor 2: LiteRT announces its delegate there and has no setting against it."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _powered(tap: Vector, power: float) -> Vector:
    clipped: Vector = np.maximum(tap, np.float32(0))
    return np.power(clipped, np.float32(power), dtype=np.float32)


def _unit(vector: Vector) -> Vector:
    """The vector at unit length; one without length becomes the one that is equally near to every direction."""
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else np.full_like(vector, vector.size**-0.5)


class _Runner:
    """One network in one interpreter. One thread at a time may use it."""

    def __init__(self, network: Network, path: Path, threads: int) -> None:
        self._how = network.preprocessing
        self._taps = len(network.taps)
        self._interpreter = open_interpreter(path, threads=threads)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]
        if len(self._outputs) != 2 * self._taps + 1:
            raise ModelError(
                f"{path.name} has {len(self._outputs)} outputs",
                valid=f"{network.name} has {self._taps} taps, a head and {self._taps} feature maps",
                remedy=f"Delete {path.parent} and build the model again",
            )

    @property
    def looks_closer(self) -> bool:
        return len(self._how.views) == len(CLOSER_VIEWS)

    def see(self, image: Image.Image, *, maps: bool = False, closer: bool = False) -> _Seen:
        """The outputs averaged over the network's views, without maps; or of the whole picture alone, with maps."""
        views: Sequence[View | float] = ("whole",) if maps else CLOSER_VIEWS if closer else self._how.views
        wanted = self._outputs if maps else self._outputs[: self._taps + 1]
        sums: list[Vector] = []
        for view in views:
            self._interpreter.set_tensor(self._input, prepare(image, self._how, view)[None])
            self._interpreter.invoke()
            # get_tensor copies, so that the next picture cannot change what was given out.
            values = [self._interpreter.get_tensor(index)[0] for index in wanted]
            sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
        means = [total / np.float32(len(views)) for total in sums]
        return _Seen(taps=means[: self._taps], head=means[self._taps], maps=means[self._taps + 1 :])


class InterpreterPool:
    """Up to `count` copies of a model's interpreters, made when they are first needed and lent to one thread each."""

    def __init__(self, networks: Sequence[tuple[Network, Path]], *, count: int, threads: int) -> None:
        self._networks, self._threads = networks, threads
        self._to_make = count
        self._free: SimpleQueue[list[_Runner]] = SimpleQueue()
        self._making = threading.Lock()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="visor-embed")

    def see(self, image: Image.Image, *, maps: bool = False) -> list[_Seen]:
        """What each network sees in one image."""
        runners = self._lend()
        try:
            return [runner.see(image, maps=maps) for runner in runners]
        finally:
            self._free.put(runners)

    def see_closer(self, image: Image.Image) -> list[_Seen | None]:
        """What each network sees in the middle; None for those that only look at the whole."""
        runners = self._lend()
        try:
            return [runner.see(image, closer=True) if runner.looks_closer else None for runner in runners]
        finally:
            self._free.put(runners)

    def see_all(self, images: Sequence[Image.Image]) -> list[list[_Seen]]:
        """What each network sees in each image, in their order, on all copies at once."""
        return list(self._pool.map(self.see, images))

    def _lend(self) -> list[_Runner]:
        with self._making:
            if self._free.empty() and self._to_make:
                runners = [_Runner(network, path, self._threads) for network, path in self._networks]
                self._to_make -= 1
                return runners
        return self._free.get()
