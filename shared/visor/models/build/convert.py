"""Turns one network into a .tflite file and checks it against the original. Runs as a separate process,

    python -m visor.models.build.convert < job.json

so that TensorFlow's gigabyte and its output never reach the process that embeds. The answer is one JSON document on
standard output; a failure is a `Failed` document.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from visor.errors import ModelError, VisorError
from visor.models.build.quantize import known_ranges, quantized
from visor.models.description import Network, Preprocessing, Variant
from visor.schema.items import Record

COSINE_MIN = 0.99
"""Smallest cosine between a converted network's vector of the test picture and the original's; below it, it fails."""


NOT_NEEDED = ("matplotlib", "pandas", "sklearn")
"""Keras imports these if they are installed, for parts that nothing here uses: a third of TensorFlow's start."""


class Job(Record, frozen=True, kw_only=True):
    network: Network
    weights: str
    """Path of the checked file that holds the weights."""
    variant: Variant
    target: str


class Converted(Record, frozen=True, kw_only=True, tag="converted"):
    network: Network
    """With the taps that were found."""
    cosine: float
    """Smallest cosine between a tap of the .tflite file and of its original, on the test picture."""
    converter: str


class Failed(Record, frozen=True, kw_only=True, tag="failed"):
    found: str
    valid: str = ""
    remedy: str = ""


def sample_picture(size: int) -> NDArray[np.float32]:
    """A picture made of smooth waves and edges, (size, size, 3) float32 in [0, 1]; the same everywhere."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size)
    red = 0.5 + 0.5 * np.sin(9 * x + 4 * y * y)
    green = (np.hypot(x - 0.4, y - 0.55) < 0.3).astype(np.float32) * 0.8 + 0.1 * x
    blue = 0.5 + 0.5 * np.cos(23 * x * y)
    return np.stack([red, green, blue], axis=-1).astype(np.float32)


def prepared_sample(how: Preprocessing) -> NDArray[np.float32]:
    """The test picture as a network's input, (size, size, 3) float32."""
    prepared: NDArray[np.float32] = ((sample_picture(how.size) - how.mean) / how.deviation).astype(np.float32)
    return prepared if how.order == "rgb" else np.ascontiguousarray(prepared[..., ::-1])


def convert(job: Job) -> Converted:
    """Build the network, freeze its variables to constants, write the .tflite file and compare it with the original.

    Raises:
        ModelError: The weights do not fit, or the file outputs other vectors than the original.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if job.network.weights == "file":
        from visor.models.build.graphs import graph_network

        run, network = graph_network(job.network, Path(job.weights))
    else:
        from visor.models.build.networks import keras_network

        model, network = keras_network(job.network, Path(job.weights))

        def run(image: Any) -> Any:
            return model(image, training=False)

    size = network.preprocessing.size
    picture = prepared_sample(network.preprocessing)[None]
    expected = [np.asarray(output) for output in run(picture)]
    is_float = job.variant == "float32" or (network.given is not None and network.given.float32)
    after = None if is_float else network.int8_after
    if after is not None:
        from visor.models.build.means import keep_means

        keep_means(model, after=after)
    traced = tf.function(run).get_concrete_function(tf.TensorSpec((1, size, size, 3), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(traced)])
    if not is_float and after is None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        content = converter.convert()
    except Exception as exc:
        first = next((line for line in str(exc).splitlines() if "error" in line.lower()), str(exc).splitlines()[0])
        raise ModelError(
            f"{network.name} cannot be converted to a .tflite file: {first}",
            valid="Operations that LiteRT has",
            remedy="Export it as ONNX, and name that file in visor.toml",
        ) from exc
    if after is not None:
        content = quantized(content, known_ranges(network.name), after=after)
    Path(job.target).write_bytes(content)
    cosine = _compare(job, picture, expected, len(network.taps))
    if cosine < COSINE_MIN:
        raise ModelError(
            f"The converted {network.name} gives a vector with cosine {cosine:.4f} to the original's",
            valid=f"At least {COSINE_MIN}",
            remedy="Build with another version of TensorFlow" + ("" if is_float else ", or keep its weights float32"),
        )
    return Converted(network=network, cosine=cosine, converter=f"tensorflow {tf.__version__}")


def _compare(job: Job, picture: NDArray[np.float32], expected: list[NDArray[np.float32]], count: int) -> float:
    from visor.models.runtime import LiteRt

    runtime = LiteRt(Path(job.target), threads=2)
    if [one.shape for one in runtime.outputs] != [e.shape for e in expected]:
        raise ModelError(f"The converted {job.network.name} gives its outputs in another order than the original")
    taps = runtime.run([picture], range(count))
    return min(cosine_of(a, b) for a, b in zip(taps, expected, strict=False))


def cosine_of(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The cosine of two arrays as vectors; 1 if both are 0."""
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float(np.array_equal(a, b))


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.modules.update(dict.fromkeys(NOT_NEEDED))  # type: ignore[arg-type]
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    answer: Converted | Failed
    try:
        answer = convert(job)
    except VisorError as exc:
        answer = Failed(found=exc.found, valid=exc.valid, remedy=exc.remedy)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
