"""Record what Keras knows about each network of `keras.applications`: where its ImageNet weights are, and its input.

    python scripts/models/keras_networks.py
    python scripts/models/keras_networks.py --cost MobileNetV2 ResNet50 …    # what they cost here, with random weights

Builds every network once without weights (minutes, 3 GB) and writes shared/visor/models/keras_applications.json. So a
model of kind `keras` has a fingerprint where TensorFlow is not installed. A test compares the file with Keras.
"""

from __future__ import annotations

import inspect
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

TABLE = Path(__file__).resolve().parents[2] / "shared" / "visor" / "models" / "keras_applications.json"


class _Asked(Exception):
    """Carries what Keras would download."""


def network_names() -> list[str]:
    """The networks, by the names of the functions that make them."""
    import keras

    return [name for name in dir(keras.applications) if name[0].isupper()]


def weights_of(name: str) -> tuple[str, str | None]:
    """URL and hash of the ImageNet weights (with the classifier) of a network, as Keras would download them."""
    import keras
    from keras.src.utils import file_utils

    def told(fname: str = "", origin: str = "", *_: Any, file_hash: str | None = None, **more: Any) -> None:
        raise _Asked(origin, file_hash or more.get("md5_hash"))

    real, file_utils.get_file = file_utils.get_file, told
    try:
        getattr(keras.applications, name)(weights="imagenet")
    except _Asked as asked:
        return asked.args[0], asked.args[1]
    finally:
        file_utils.get_file = real
    raise SystemExit(f"{name} asks for no weights")


def preprocessing_of(name: str) -> dict[str, Any]:
    """Mean, deviation (of pixels in [0, 1]) and channel order of a network's own `preprocess_input`."""
    import keras

    module = inspect.getmodule(inspect.unwrap(getattr(keras.applications, name)))
    prepare = sys.modules[module.__name__].preprocess_input
    black = np.asarray(prepare(np.zeros((1, 1, 1, 3), np.float32)))[0, 0, 0]
    colours = np.eye(3, dtype=np.float32)[:, None, None] * 255  # red, green, blue
    slopes = np.asarray(prepare(colours.copy()))[:, 0, 0] - black
    is_bgr = abs(slopes[0, 2]) > abs(slopes[0, 0])
    slope = (slopes[:, ::-1] if is_bgr else slopes).diagonal().astype(float)
    offset = (black[::-1] if is_bgr else black).astype(float)
    about: dict[str, Any] = {
        "mean": [round(float(value), 6) + 0.0 for value in -offset / slope],
        "deviation": [round(float(value), 9) for value in 1 / slope],
    }
    return about | ({"order": "bgr"} if is_bgr else {})


def described(name: str) -> dict[str, Any]:
    """One row of the table."""
    import keras

    url, digest = weights_of(name)
    model = getattr(keras.applications, name)(weights=None)
    size, parameters = int(model.input_shape[1] or 224), int(model.count_params())
    keras.backend.clear_session()
    kind = {32: "md5", 64: "sha256"}[len(digest)] if digest else None
    return {
        "url": url,
        "checksum": f"{kind}:{digest}" if kind else "",
        "parameters": parameters,
        "size": size,
        **preprocessing_of(name),
    }


def cost(name: str) -> str:
    """A row of the table of docs/models.md: the network with random weights, built and run as a model.

    Milliseconds are of the processor, on one thread, so that other work on the machine does not count.
    """
    import h5py
    import keras
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
    from PIL import Image

    from visor.models.build.builder import build
    from visor.models.description import LocalFile
    from visor.models.embedder import Embedder
    from visor.models.owner import KerasKeys, checksum_of

    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "weights.h5"
        with h5py.File(weights, "w") as file:
            save_weights_to_hdf5_group(file, getattr(keras.applications, name)(weights=None))
        source = LocalFile(path=str(weights), checksum=checksum_of(weights))
        keys = KerasKeys(kind="keras", network=name, checksum=source.checksum, borrow=())
        model = keys.model("mine", Path(scratch))
        network = msgspec.structs.replace(model.parts[0].network, source=source)
        model = msgspec.structs.replace(model, parts=(msgspec.structs.replace(model.parts[0], network=network),))
        directory = build(model, Path(scratch) / "models" / name, Path(scratch), "int8", lambda line: None)
        picture, times = Image.effect_noise((640, 480), 60).convert("RGB"), []
        embedder = Embedder(directory, threads=1)
        for _ in range(12):
            start = time.process_time()
            embedder.embed([picture])
            times.append((time.process_time() - start) * 1000)
        [size] = [path.stat().st_size for path in directory.glob("*.tflite")]
        dimension, edge = embedder.dimension, embedder.description.input_side
    return f"| {name} | {dimension} | {edge} | {size / 1e6:.1f} | {statistics.median(times[2:]):.0f} |"


def main() -> None:
    if sys.argv[1:2] == ["--cost"]:
        for name in sys.argv[2:]:
            print(cost(name), flush=True)
        return
    rows = {}
    for name in network_names():
        rows[name] = described(name)
        print(name, rows[name], file=sys.stderr)
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
