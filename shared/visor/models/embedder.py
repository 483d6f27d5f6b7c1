"""Images to vectors, labels and safety. Never imports TensorFlow, so that functions start fast."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import msgspec
import numpy as np
from PIL import Image

from visor.errors import EmbedCrashed, ModelError
from visor.models.description import (
    CENTRE_SHARE,
    CLOSER_VIEWS,
    ModelDescription,
    Network,
    Preprocessing,
    View,
    WeightedNetwork,
)
from visor.models.moderation import SUSPECTED, safety_of, unsafe_score
from visor.models.runtime import Vector, open_runtime
from visor.models.store import ModelFile, label_words, model_directory, read_manifest
from visor.models.text_encoder import TextEncoder
from visor.schema.items import Label
from visor.schema.labels import short_name
from visor.settings import Settings

LABELS_KEPT = 5
THREADS_EACH = 2
"""Most threads that a network has for a single picture. More than two were not measured."""

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Embedded:
    """A model's results for n pictures."""

    vectors: Vector
    """(n, dimension) float32, rows of unit length."""
    labels: list[tuple[Label, ...]]
    """The 5 most probable content labels of each picture, most probable first; empty without such a head."""
    safety: list[dict[str, float] | None]
    """Probability of each of `SAFETY_CLASSES` (sum 1), or None without such a head."""
    probabilities: list[Vector | None]
    """Probabilities of all content labels of each image (ImageNet has 1,000), or None without such a head."""


@dataclass(frozen=True)
class _Seen:
    """One network's outputs for one picture."""

    taps: list[Vector]
    head: Vector | None
    maps: list[Vector]
    views: int
    """Number of views that these outputs are averaged over."""

    def mean(self, other: _Seen) -> _Seen:
        """The mean over the views of both results for one image, without maps."""
        views = self.views + other.views
        share, rest = np.float32(self.views / views), np.float32(other.views / views)
        taps = [share * a + rest * b for a, b in zip(self.taps, other.taps, strict=True)]
        head = None if self.head is None or other.head is None else share * self.head + rest * other.head
        return _Seen(taps, head, [], views)


class Embedder:
    """Runs the model of one directory. Any number of threads may call it."""

    def __init__(self, directory: Path, *, threads: int = 2) -> None:
        """Open the model. A network is loaded, and its file compared with its checksum, when it is first used.

        Args:
            directory: The directory that `visor model build` made.
            threads: Cores to use. A single picture uses two of them; of many pictures, each uses one.

        Raises:
            ModelNotBuilt: The directory is missing or incomplete.
            ModelError: A file in it has another size than in `model.json`.
        """
        self.manifest = manifest = read_manifest(directory)
        self._files = {file.network: ModelFile(directory, file) for file in manifest.files}
        self.directory = directory
        self.description: ModelDescription = manifest.description
        self.fingerprint: str = manifest.fingerprint
        self.dimension: int = manifest.description.dimension
        self.label_names = tuple(short_name(label) for label in manifest.label_names)
        self.label_words = label_words(manifest)
        self._networks = [(part.network, self._files[part.network.name]) for part in self.description.parts]
        each = min(threads, THREADS_EACH)
        self._single = RunnerPool(self._networks, count=threads // each, threads=each)
        self._many = self._single if each == 1 else RunnerPool(self._networks, count=threads, threads=1)
        self._words = {
            name.rpartition("/")[0]: np.load(file.path) for name, file in self._files.items() if name.endswith("/words")
        }
        self._texts = {name: self._text_encoder(name) for name in self._words}

    def path_of(self, sha256: str) -> Path:
        """Path of the model's file with that checksum. Raises as `check_files`, and `KeyError` if there is none."""
        return {file.record.sha256: file for file in self._files.values()}[sha256].path

    def check_files(self) -> None:
        """Compare every file with its checksum (20 ms for 22 MB). Raises `ModelError` if one differs."""
        for file in self._files.values():
            _ = file.path

    def embed(self, images: Sequence[Image.Image]) -> Embedded:
        """Vectors, labels and safety of RGB pictures of any size, in their order.

        Raises:
            EmbedCrashed: For one of them a network outputs numbers that are not finite.
        """
        if not images:
            return Embedded(vectors=np.zeros((0, self.dimension), np.float32), labels=[], safety=[], probabilities=[])
        return self._embedded([self._single.see(images[0])] if len(images) == 1 else self._many.see_all(images))

    def embed_closer(self, image: Image.Image) -> tuple[Embedded, Embedded]:
        """What `embed` returns for one image, and the same with closer views of its middle, which photos need."""
        seen, closer = self._single.see_closer(image)
        both = [one if more is None else one.mean(more) for one, more in zip(seen, closer, strict=True)]
        return self._embedded([seen]), self._embedded([both])

    def embed_text(self, texts: Sequence[str]) -> Vector:
        """Texts as (n, dimension) float32, rows of unit length: the dot product with a picture's vector measures how
        well they fit. It is smaller than that of two pictures.

        Raises:
            ModelError: The model reads no words.
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return self._of_texts(lambda name: self._texts[name](texts))

    def embed_wish(self, text: str) -> Vector:
        """The difference of a text's vector from the mean of texts, (dimension,) float32: to be added to the mean of
        pictures."""
        wish: Vector = self._of_texts(lambda name: self._texts[name]([text]) - self._words[name][:1])[0]
        return wish

    def _of_texts(self, vectors_of: Callable[[str], Vector]) -> Vector:
        """Vectors of texts; the parts of networks that do not read words are 0."""
        if not self.description.reads_words:
            raise ModelError(
                f"The model {self.description.name} reads no words",
                valid='A model of kind = "dual"',
                remedy="Describe one in visor.toml (docs/models.md), and reindex with it",
            )
        named = [(part.network, part.weight) for part in self.description.parts if part.weight > 0]
        given = {one.name: vectors_of(one.name) * np.float32(w) for one, w in named if one.name in self._texts}
        count = len(next(iter(given.values())))
        nothing = ((one.name, np.zeros((count, one.dimension), np.float32)) for one, _ in named)
        joined = np.hstack([given.get(name, zeros) for name, zeros in nothing])
        unit: Vector = joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), np.float32(1e-12))
        return unit

    def _text_encoder(self, name: str) -> TextEncoder:
        text, tokenizer = self._files[f"{name}/text"], self._files[f"{name}/tokenizer"]
        return TextEncoder(lambda: text.path, lambda: tokenizer.path, text.record.outputs[0])

    def _embedded(self, seen: Sequence[list[_Seen]]) -> Embedded:
        return Embedded(
            vectors=np.stack([joined_vector(self.description.parts, [s.taps for s in one]) for one in seen]),
            labels=[self._labels(one) for one in seen],
            safety=[self._safety(one) for one in seen],
            probabilities=[self._head(one, "labels") for one in seen],
        )

    def features(self, image: Image.Image) -> list[Vector]:
        """The feature maps behind the vector, (edge, edge, channels) float32, in the order of parts and taps.

        Each covers the whole picture squeezed to a square, so that position (row, column) of a map is at the same
        fraction of the picture's height and width.
        """
        seen = self._single.see(image, maps=True)
        shares = zip(self.description.parts, seen, strict=True)
        return [feature_map for part, one in shares if part.weight > 0 for feature_map in one.maps]

    def _head(self, seen: list[_Seen], kind: str) -> Vector | None:
        parts = zip(self.description.parts, seen, strict=True)
        for part, one in parts:
            if part.network.head == kind:
                return one.head if part.network.weights != "dual" else self._compared(part.network, one.taps[0])
        return None

    def _compared(self, network: Network, picture: Vector) -> Vector:
        """Probabilities of the labels whose texts a picture is compared with."""
        scale = network.given.logit_scale if network.given else 1.0
        return probabilities(self._words[network.name][1:] @ _unit(picture) * np.float32(scale), logits=True)

    def _labels(self, seen: list[_Seen]) -> tuple[Label, ...]:
        head = self._head(seen, "labels")
        if head is None:
            return ()
        best = np.argsort(-head, kind="stable")[:LABELS_KEPT]
        return tuple(Label(name=self.label_names[i], probability=round(float(head[i]), 4)) for i in best)

    def _safety(self, seen: list[_Seen]) -> dict[str, float] | None:
        head = self._head(seen, "safety")
        return None if head is None else safety_of(head)


def load_embedder(settings: Settings) -> Embedder:
    """The embedder of `settings.model`.

    Raises:
        ModelNotBuilt: It is missing; the message explains how to build it.
        ModelError: One of its files was cut off.
    """
    return Embedder(model_directory(settings, settings.model), threads=settings.threads)


def view_of(image: Image.Image, view: View) -> tuple[float, float, float, float]:
    """The box of the view within the picture, in pixels: left, upper, right, lower."""
    width, height = image.size
    if view == "whole":
        return 0.0, 0.0, float(width), float(height)
    edge = min(width, height) * (CENTRE_SHARE if view == "centre" else view)
    left, upper = (width - edge) / 2, (height - edge) / 2
    return left, upper, left + edge, upper + edge


def prepare(image: Image.Image, how: Preprocessing, view: View = "whole") -> Vector:
    """A picture of any size as network input: (size, size, 3) float32, `(pixel / 255 - mean) / deviation`."""
    if image.mode != "RGB":
        image = image.convert("RGB")
    box = view_of(image, view)
    square = image.resize((how.size, how.size), _RESAMPLE[how.resample], box=box, reducing_gap=3.0)
    # As rows of numbers, because NumPy is slow if the last axis has a length of three.
    scale = 1 / (255 * np.array(how.deviation))
    rows = np.multiply(np.asarray(square).reshape(how.size, -1), np.tile(scale.astype(np.float32), how.size))
    if any(how.mean):
        rows -= np.tile(np.divide(how.mean, how.deviation).astype(np.float32), how.size)
    given: Vector = rows.reshape(how.size, how.size, 3)
    return given if how.order == "rgb" else np.ascontiguousarray(given[..., ::-1])


def joined_vector(parts: Sequence[WeightedNetwork], taps: Sequence[Sequence[Vector]]) -> Vector:
    """One vector of unit length, (dimension,) float32, from the pooled taps of each part.

    Each tap is made non-negative (unless its network is signed), raised to its network's power and scaled to unit
    length; a network's taps are joined and scaled to unit length; so are the parts, joined with their weights. With
    power 0.5 of non-negative taps, the dot product of two vectors is the Hellinger kernel (Arandjelović & Zisserman,
    CVPR 2012).
    """
    shares = [
        np.float32(part.weight) * _unit(np.concatenate([_unit(_powered(tap, part.network)) for tap in part_taps]))
        for part, part_taps in zip(parts, taps, strict=True)
        if part.weight > 0
    ]
    return _unit(np.concatenate(shares))


def is_made_by(parts: Sequence[WeightedNetwork], vector: Vector) -> bool:
    """Whether a vector (d,) of unit length has the form that `joined_vector` makes: each tap has its share of the
    length, within 0.01, and no number below 0 if its network is not signed."""
    shares = [(part.network, part.weight) for part in parts if part.weight > 0]
    whole = sum(weight**2 for _, weight in shares) ** 0.5
    start = 0
    for network, weight in shares:
        for tap in network.taps:
            numbers = vector[start : start + tap.channels]
            share = weight / whole / len(network.taps) ** 0.5
            if abs(float(np.linalg.norm(numbers)) - share) > 0.01 or (not network.signed and (numbers < 0).any()):
                return False
            start += tap.channels
    return True


def _powered(tap: Vector, network: Network) -> Vector:
    if network.signed:
        return np.copysign(np.power(np.abs(tap), np.float32(network.power), dtype=np.float32), tap)
    clipped: Vector = np.maximum(tap, np.float32(0))
    return np.power(clipped, np.float32(network.power), dtype=np.float32)


def _unit(vector: Vector) -> Vector:
    """The vector scaled to unit length; a zero vector becomes one of equal numbers."""
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else np.full_like(vector, vector.size**-0.5)


class _Runner:
    """One network in one runtime. One thread at a time may use it."""

    def __init__(self, network: Network, file: ModelFile, threads: int) -> None:
        self._network = network
        path, outputs = file.path, file.record.outputs
        self._is_ours = not outputs
        self._runtime = open_runtime(path, threads=threads, edge=network.preprocessing.size if self._is_ours else None)
        count, has_head = len(network.taps), network.gives_head
        maps = sum(tap.edge > 0 for tap in network.taps)
        if self._is_ours and len(self._runtime.outputs) != count + has_head + maps:
            raise ModelError(
                f"{path.name} has {len(self._runtime.outputs)} outputs",
                valid=f"{count} taps{', a head' * has_head} and {maps} feature maps of {network.name}",
                remedy=f"Delete {path.parent} and build the model again",
            )
        self._outputs = list(outputs or range(count + has_head + maps))
        [self._input] = self._runtime.inputs
        self._is_planar = is_planar(self._input.shape)

    def see(self, views: Sequence[Vector], maps: bool) -> _Seen:
        """The outputs averaged over prepared views of one image."""
        means: list[Vector] = []
        for view in views:
            values = self._outputs_of(view, maps)
            means = [a + b for a, b in zip(means, values, strict=True)] if means else values
        means = [total / np.float32(len(views)) for total in means]
        count, has_head = len(self._network.taps), self._network.gives_head
        if not all(np.isfinite(one).all() for one in means[: count + has_head]):
            raise EmbedCrashed(
                f"The network {self._network.name} gives numbers that are not finite for this picture",
                valid="A network that gives finite numbers for every picture",
                remedy="Export the network with float32 numbers, or take another one (docs/models.md)",
            )
        head = means[count] if has_head else None
        return _Seen(taps=means[:count], head=head, maps=means[count + has_head :], views=len(views))

    def _outputs_of(self, picture: Vector, maps: bool) -> list[Vector]:
        """Pooled taps, the head, and the feature maps if they are wanted, of one prepared picture."""
        given = picture.transpose(2, 0, 1) if self._is_planar else picture
        taps, has_head = self._network.taps, self._network.gives_head
        if self._is_ours:
            wanted = self._outputs if maps else self._outputs[: len(taps) + has_head]
            return [values[0] for values in self._runtime.run([given[None]], wanted)]
        values = self._runtime.run([given.reshape(self._shape(given))], self._outputs)
        raw = [channels_last(one, self._is_planar) for one in values[: len(taps)]]
        pooled = [one.reshape(-1, one.shape[-1]).mean(0, dtype=np.float32) for one in raw]
        if has_head:
            pooled.append(probabilities(values[-1].ravel().astype(np.float32), self._network.logits))
        return pooled + [one for one, tap in zip(raw, taps, strict=True) if maps and tap.edge]

    def _shape(self, given: Vector) -> tuple[int, ...]:
        """The picture's shape as the network needs it: with or without a batch axis."""
        return (1, *given.shape) if len(self._input.shape) == 4 else given.shape


def is_planar(shape: Sequence[int]) -> bool:
    """Whether the input for a picture has its channels before its rows, as in PyTorch."""
    return len(shape) >= 3 and shape[-3] == 3 and shape[-1] != 3


def channels_last(values: Vector, is_planar: bool) -> Vector:
    """An output for one picture as (…, channels): a feature map, a row of tokens, or a vector."""
    one = values[0] if values.ndim > 1 and values.shape[0] == 1 else values
    return one.transpose(1, 2, 0) if is_planar and one.ndim == 3 else one


def probabilities(head: Vector, logits: bool) -> Vector:
    """A head's output as probabilities that sum to 1."""
    if logits:
        head = np.exp(head - head.max())
    return head / max(float(head.sum()), 1e-12)


class _Copies:
    """Up to `count` runners of one network, made when they are first needed and lent to one thread each."""

    def __init__(self, network: Network, file: ModelFile, *, count: int, threads: int) -> None:
        self.how = network.preprocessing
        self._make = partial(_Runner, network, file, threads)
        self._to_make = count
        self._free: SimpleQueue[_Runner] = SimpleQueue()
        self._making = threading.Lock()
        self._second = None
        if network.second_look is not None:
            how = msgspec.structs.replace(self.how, size=network.second_look)
            again = msgspec.structs.replace(network, preprocessing=how, second_look=None)
            self._second = _Copies(again, file, count=1, threads=threads)

    def see(self, image: Image.Image, views: Sequence[Vector], maps: bool) -> _Seen:
        """What the network sees in the prepared views of the image."""
        runner = self._lend()
        try:
            seen = runner.see(views, maps)
        finally:
            self._free.put(runner)
        if self._second is None or seen.head is None or unsafe_score(safety_of(seen.head)) < SUSPECTED:
            return seen
        return replace(seen, head=self._second.see(image, [prepare(image, self._second.how)], maps=False).head)

    def _lend(self) -> _Runner:
        with self._making:
            if self._free.empty() and self._to_make:
                self._to_make -= 1
                return self._make()
        return self._free.get()


_Plan = Sequence[tuple[_Copies, Sequence[View]]]
"""Which networks get which views."""


class RunnerPool:
    """A model's networks, `count` copies of each at most. Any number of threads may use it."""

    def __init__(self, networks: Sequence[tuple[Network, ModelFile]], *, count: int, threads: int) -> None:
        self._networks = [_Copies(*network, count=count, threads=threads) for network in networks]
        self._threads = threads
        workers = max(count, threads)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="visor-embed") if workers > 1 else None

    def see(self, image: Image.Image, *, maps: bool = False) -> list[_Seen]:
        """What each network sees in one image; with `maps`, only in the whole view."""
        return self._seen(image, [(one, ("whole",) if maps else one.how.views) for one in self._networks], maps)

    def see_closer(self, image: Image.Image) -> tuple[list[_Seen], list[_Seen | None]]:
        """What each network sees in one image, and in its middle; None for those whose only view is the whole."""
        nearer = [one for one in self._networks if one.how.views != ("whole",)]
        plan: _Plan = [*((one, one.how.views) for one in self._networks), *((one, CLOSER_VIEWS) for one in nearer)]
        seen = self._seen(image, plan)
        closer = iter(seen[len(self._networks) :])
        return seen[: len(self._networks)], [next(closer) if one in nearer else None for one in self._networks]

    def see_all(self, images: Sequence[Image.Image]) -> list[list[_Seen]]:
        """What each network sees in each image, in their order, one image on each copy."""
        return list(self._pool.map(self.see, images) if self._pool else map(self.see, images))

    def _seen(self, image: Image.Image, plan: _Plan, maps: bool = False) -> list[_Seen]:
        """What the networks see; they run one after the other, after the views were prepared in parallel."""
        image.load()  # only one thread may do this
        side_by_side = self._pool.map if self._pool and self._threads > 1 else map
        wanted = [(one.how, view) for one, views in plan for view in views]
        prepared = iter(list(side_by_side(lambda view: prepare(image, *view), wanted)))
        return [one.see(image, [next(prepared) for _ in views], maps) for one, views in plan]
