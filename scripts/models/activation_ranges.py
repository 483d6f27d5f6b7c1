"""Measures the ranges of activations that Visor's int8 networks are built with.

    .venv/bin/python scripts/models/activation_ranges.py

It uses the demo's emoji, a pinned npm package. It writes shared/visor/models/build/activation_ranges.json; the model
then has to be built and packaged again (`int8_after` of a network, or `RECIPE`, changes its fingerprint).
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from visor.demo.emoji import PICTURES, PICTURES_INTEGRITY, PICTURES_VERSION
from visor.demo.packages import download_npm
from visor.models.build.builder import build_model
from visor.models.build.quantize import Ranges, measured_ranges
from visor.models.builtin import JOINED_MODEL, LITE1_MODEL, LITE2_MODEL
from visor.models.description import Network
from visor.models.embedder import prepare
from visor.models.runtime import Vector
from visor.settings import Settings

COUNT = 128
"""Number of pictures, spread over the whole package."""
TARGET = Path(__file__).resolve().parents[2] / "shared" / "visor" / "models" / "build" / "activation_ranges.json"


def prepared(paths: Sequence[Path], network: Network) -> Iterator[Vector]:
    """Each view of each picture, on white; in the larger size, if a network uses two."""
    how = network.preprocessing
    if network.second_look is not None:
        how = msgspec.structs.replace(how, size=network.second_look)
    for path in paths:
        with Image.open(path) as picture:
            front = picture.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front).convert("RGB")
        for view in how.views:
            yield prepare(image, how, view)


def main() -> None:
    settings = Settings.read()
    found: dict[str, Ranges] = {}
    with tempfile.TemporaryDirectory() as scratch:
        tarball = download_npm(PICTURES, PICTURES_VERSION, PICTURES_INTEGRITY, Path(scratch))
        with tarfile.open(tarball) as archive:
            archive.extractall(scratch, filter="data")
        paths = sorted(Path(scratch).rglob("*.webp"))
        chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, COUNT).astype(int)]
        for model in (JOINED_MODEL, LITE1_MODEL, LITE2_MODEL):
            directory = build_model(settings, model.name, say=print, variant="float32")
            for part in model.parts:
                content = (directory / f"{part.network.name}.tflite").read_bytes()
                found[part.network.name] = measured_ranges(content, prepared(chosen, part.network))
    TARGET.write_bytes(msgspec.json.encode(found) + b"\n")


if __name__ == "__main__":
    main()
