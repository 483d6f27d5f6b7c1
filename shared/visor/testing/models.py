"""The contract of a model as checks that every description has to pass, built and run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from visor.models.build.builder import build
from visor.models.build.convert import sample_picture
from visor.models.description import ModelDescription
from visor.models.embedder import Embedded, Embedder
from visor.testing.sources import BrokenContract


def check_model(model: ModelDescription, *, home: Path | None = None) -> Embedder:
    """Build the model and look at pictures with it, as Visor does.

    Args:
        model: The object of the plug-in's entry point.
        home: Where models are built and downloads kept; by default a folder that is deleted afterwards. Heads that the
            model borrows are taken from the models that are built there.

    Returns:
        The embedder, for further checks: what it finds alike, for example.

    Raises:
        BrokenContract: Names the part of the contract that does not hold.
        VisorError: It cannot be built; says why.
    """
    _check(bool(model.summary), "it has no summary")
    _check(any(part.weight > 0 for part in model.parts), "no network has a weight above 0")
    for part in model.parts:
        network = part.network
        _check(part.weight >= 0, f"{network.name} has the weight {part.weight:g}")
        _check(bool(network.licence), f"{network.name} names no licence")
        _check(":" in network.source.checksum, f"the source of {network.name} has no checksum")
    again = msgspec.json.decode(msgspec.json.encode(model), type=ModelDescription)
    _check(again.fingerprint() == model.fingerprint(), "its fingerprint changes on the way through JSON")
    with tempfile.TemporaryDirectory() as scratch:
        base = home or Path(scratch)
        target = base / "models" / f"{model.name}-{model.fingerprint()[:12]}"
        embedder = Embedder(build(model, target, base / "downloads", "int8", lambda line: None))
        _check_embedder(model, embedder)
        return embedder


def _check_embedder(model: ModelDescription, embedder: Embedder) -> None:
    _check(embedder.fingerprint == model.fingerprint(), "what was built has another fingerprint")
    wanted = model.dimension or embedder.dimension
    _check(embedder.dimension == wanted, f"it gives {embedder.dimension} numbers, not {wanted}")
    square = Image.fromarray((sample_picture(512) * 255).round().astype(np.uint8), "RGB")
    upside_down = square.transpose(Image.Transpose.ROTATE_180).resize((300, 420))
    pictures = [square.resize((400, 300)), upside_down, Image.new("RGB", (3, 900), (200, 30, 30)), square]
    seen = embedder.embed(pictures)
    lengths = np.linalg.norm(seen.vectors, axis=1)
    _check(seen.vectors.shape == (4, wanted), f"it gives vectors of the shape {seen.vectors.shape}")
    _check(bool(np.isfinite(seen.vectors).all()), "it gives numbers that are not finite")
    _check(bool(np.allclose(lengths, 1, atol=1e-3)), f"its vectors have the lengths {lengths.round(3).tolist()}, not 1")
    likeness = seen.vectors @ seen.vectors.T
    _check(float(likeness[0, 3]) > float(likeness[0, 2]), "a picture is less like its copy than like another")
    alone = embedder.embed(pictures[1:2]).vectors[0]
    _check(float(alone @ seen.vectors[1]) > 0.999, "a picture has another vector alone than among others")
    _check_heads(model, embedder, seen)
    if model.reads_words:
        texts = embedder.embed_text(["a tree", "a blue ball on sand"])
        _check(texts.shape == (2, wanted), f"it gives vectors of the shape {texts.shape} for texts")
        lengths = np.linalg.norm(texts, axis=1)
        _check(bool(np.allclose(lengths, 1, atol=1e-3)), f"texts have vectors of the lengths {lengths.tolist()}, not 1")
    if embedder.description.has_maps:
        maps = embedder.features(square)
        _check(sum(one.shape[2] for one in maps) == wanted, "its feature maps have other channels than its vector")


def _check_heads(model: ModelDescription, embedder: Embedder, seen: Embedded) -> None:
    for labels, safety, probabilities in zip(seen.labels, seen.safety, seen.probabilities, strict=True):
        _check(bool(labels) == model.sees_labels, f"it gives {len(labels)} labels")
        _check((safety is not None) == model.sees_safety, f"it gives {'a' if safety else 'no'} verdict of safety")
        if probabilities is not None:
            total = float(probabilities.sum())
            _check(abs(total - 1) < 0.02, f"the probabilities of its labels add up to {total:.3f}")
            _check(len(probabilities) == len(embedder.label_words), "it has another number of labels than of names")


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenContract(otherwise)
