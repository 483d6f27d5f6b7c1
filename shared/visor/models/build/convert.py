"""Turns one network into a .tflite file and checks it against Keras. Runs as a process of its own.

    python -m visor.models.build.convert < job.json

so that TensorFlow's gigabyte and its chatter never get into the process that embeds. The answer is one JSON document on
standard output; a failure is a `Failed` document.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from visor.errors import ModelError, VisorError
from visor.models.registry import Network, Variant
from visor.schema.items import Record

COSINE_MIN = 0.99
"""A converted network whose vector of the test picture is farther from Keras' than this is not shipped."""


class Job(Record, frozen=True, kw_only=True):
    network: Network
    weights: str
    """Path of the checked file that holds the weights."""
    variant: Variant
    target: str


class Converted(Record, frozen=True, kw_only=True, tag="converted"):
    cosine: float
    """Smallest cosine between a tap of the .tflite and of Keras, on the test picture."""
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


def convert(job: Job) -> Converted:
    """Build the network, freeze its variables to constants, write the .tflite file and compare it with Keras.

    Raises:
        ModelError: The weights do not fit, or the file gives other vectors than Keras.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from visor.models.build.networks import keras_network

    model = keras_network(job.network, Path(job.weights))
    size = job.network.preprocessing.size
    traced = tf.function(lambda image: model(image, training=False)).get_concrete_function(
        tf.TensorSpec((1, size, size, 3), tf.float32)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(traced)])
    if job.variant == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    Path(job.target).write_bytes(converter.convert())
    picture = ((sample_picture(size) - job.network.preprocessing.mean) / job.network.preprocessing.deviation)[None]
    expected = [np.asarray(output) for output in model(picture.astype(np.float32), training=False)]
    cosine = _compare(job, picture.astype(np.float32), expected)
    if cosine < COSINE_MIN:
        raise ModelError(
            f"The converted {job.network.name} gives a vector with cosine {cosine:.4f} to Keras'",
            valid=f"At least {COSINE_MIN}",
            remedy="Build with another version of TensorFlow, or the variant float32",
        )
    return Converted(cosine=cosine, converter=f"tensorflow {tf.__version__}")


def _compare(job: Job, picture: NDArray[np.float32], expected: list[NDArray[np.float32]]) -> float:
    from visor.models.embedder import open_interpreter

    interpreter = open_interpreter(Path(job.target), threads=2)
    outputs = interpreter.get_output_details()
    if [tuple(o["shape"]) for o in outputs] != [e.shape for e in expected]:
        raise ModelError(f"The converted {job.network.name} gives its outputs in another order than Keras")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    taps = [interpreter.get_tensor(o["index"]).ravel() for o in outputs[: len(job.network.taps)]]
    return min(
        float(a @ b.ravel() / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in zip(taps, expected, strict=False)
    )


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    answer: Converted | Failed
    try:
        answer = convert(job)
    except VisorError as exc:
        answer = Failed(found=exc.found, valid=exc.valid, remedy=exc.remedy)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
