"""Writes tests/golden/private/look.json: what Python sees in pictures made by a formula, to compare the browser with.

`python -m scripts.golden.look`; tests/unit/models/test_golden_look.py and frontend/test/device read it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visor.imaging.colour_signature import colour_signature
from visor.imaging.content import QUERY_INNER_MIN, content_of
from visor.imaging.focus import focus
from visor.imaging.pixels import bands_of, reduced
from visor.index.format.looks import pack_look
from visor.models.builtin import EFFICIENTNET, NSFWJS
from visor.models.description import Preprocessing, WeightedNetwork
from visor.models.embedder import joined_vector, prepare, view_of
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.search.heat import _telling, heat
from visor.search.links import encode_vector

FILE = Path(__file__).parents[2] / "tests" / "golden" / "private" / "look.json"

# Each level is made of column, row and channel in whole numbers, so that both languages make the same pictures.
PICTURES: dict[str, tuple[int, int, Callable[[Any, Any, Any], Any]]] = {
    "waves": (640, 427, lambda x, y, c: (x * x // 150 + y * x // 90 + y * y * (c + 1) // 400) % 256),
    "tall": (90, 331, lambda x, y, c: (x * (c + 2) * 3 + y * 2) % 256),
    "small": (23, 17, lambda x, y, c: (x * 31 * (c + 1) + y * 17 + x * y) % 256),
    "wide": (1500, 999, lambda x, y, c: (x // 30 * 37 + y // 25 * (53 + c * 19)) % 256),
    "disc": (300, 300, lambda x, y, c: np.where((x - 150) ** 2 + (y - 150) ** 2 < 9000, 40 + 60 * c, 255)),
    "flags": (320, 240, lambda x, y, c: ((x // 64) * 91 * (c + 1) + (y // 48) * 57) % 256),
    "noise": (200, 200, lambda x, y, c: ((x * 1103 + y * 7919 + c * 13 + x * y * 31) ** 2 % 65536) * 40503 // 64 % 256),
    "cut": (240, 240, lambda x, y, c: np.where(y < 110, (x * y // 40 + x * (c + 1)) % 256, 128)),
    "paper": (400, 300, lambda x, y, c: 250 - (x + y) // 200 + 0 * c),
}
SIZES: tuple[tuple[int, str, Any], ...] = ((24, "bilinear", "whole"), (24, "bicubic", "centre"), (16, "bicubic", 0.4))
FOCUSES: dict[str, dict[str, Any]] = {
    "box": {"box": (0.125, 0.25, 0.5, 0.5), "exclude": ()},
    "painted": {"box": None, "exclude": ((0.0, 0.0, 0.3, 1.0), (0.5, 0.5, 0.25, 0.25))},
    "both": {"box": (0.1, 0.1, 0.7, 0.7), "exclude": ((0.4, 0.4, 0.2, 0.1), (0.05, 0.0, 0.1, 1.0))},
}


def picture(name: str) -> Image.Image:
    """One of `PICTURES`."""
    width, height, level = PICTURES[name]
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return Image.fromarray(level(x.astype(np.int64), y.astype(np.int64), c.astype(np.int64)).astype(np.uint8))


def values(count: int, seed: int) -> np.ndarray:
    """Numbers from -0.25 to 1 that are the same in both languages."""
    places = np.arange(count, dtype=np.int64)
    return (((places * 7919 + seed * 104729) % 10007) / 8005.6 - 0.25).astype(np.float32)


def seen(name: str) -> dict[str, Any]:
    """What is seen of one picture."""
    pixels = picture(name)
    blank = content_of(pixels).emptiness(QUERY_INNER_MIN)
    inputs = [prepare(pixels, _how(size, resample), view) * 255 for size, resample, view in SIZES]
    small = reduced(bands_of(pixels), pixels.size, 9)
    found: dict[str, Any] = {
        "inputs": [_text(np.rint(one).astype(np.uint8)) for one in inputs],
        "hash": base64.b64encode(perceptual_hash(pixels)).decode(),
        "colours": _text(colour_signature(pixels)),
        "middle": _text(colour_signature(pixels, view_of(pixels, 0.4))),
        "blank": blank and blank.value,
        "ninth": [*small.size, _digest(small)],
    }
    for how, part in FOCUSES.items():
        left = focus(pixels, part["box"], part["exclude"])
        found[how] = [*left.size, _digest(left)]
    return found


def golden() -> dict[str, Any]:
    """The contents of the whole file."""
    parts = (WeightedNetwork(network=NSFWJS, weight=1.0), WeightedNetwork(network=EFFICIENTNET, weight=0.5))
    taps = [[values(768, 1), values(1280, 2)], [values(1280, 3)]]
    head = np.abs(values(1000, 4)) / np.abs(values(1000, 4)).sum()
    maps = [values(17 * 17 * 24, 5).reshape(17, 17, 24), values(8 * 8 * 16, 6).reshape(8, 8, 16)]
    warmth = heat(maps, values(40, 7) ** 2)
    look = pack_look(head, colour_signature(picture("waves")))
    return {
        "sizes": [list(one) for one in SIZES],
        "focuses": FOCUSES,
        "pictures": {name: seen(name) for name in PICTURES},
        "normalised": [
            round(float(v), 6) for v in prepare(picture("small"), EFFICIENTNET.preprocessing)[5, :20].ravel()
        ],
        "vector": encode_vector(joined_vector(parts, taps), look),
        "heat": [round(float(v), 5) for v in warmth.ravel()],
        "regions": [list(box) for box in _telling(warmth)],
    }


def _how(size: int, resample: Any) -> Preprocessing:
    return Preprocessing(size=size, resample=resample, mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0))


def _text(levels: np.ndarray) -> str:
    return base64.b64encode(levels.tobytes()).decode()


def _digest(pixels: Image.Image) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def main() -> int:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(golden(), indent=1, ensure_ascii=False) + "\n")
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
