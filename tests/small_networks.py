"""Small networks in every format that visor.toml takes, made by the tests: random weights, real file layouts."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

NEEDS_TENSORFLOW = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="building models takes TensorFlow (pip install '.[build]')"
)
"""Without importing it, which takes every process of the tests four seconds."""

Run = Callable[..., "subprocess.CompletedProcess[Any]"]

SIZE, CHANNELS, LABELS = 32, 16, ("warm", "cold", "grey", "odd")

TENSORFLOW = """
import sys
import numpy as np, tensorflow as tf
from pathlib import Path
folder, size, channels = Path(sys.argv[1]), 32, 16
rng = np.random.default_rng(0)
kernel = rng.normal(0, 0.4, (3, 3, 3, channels)).astype(np.float32)
dense = rng.normal(0, 1, (channels, 4)).astype(np.float32)
flat = lambda value: tf.constant(np.full(channels, value, np.float32))

# The prototype's: JPEG bytes in, scaling inside, the batch normalisation of 2015, pool_3 and softmax out.
with tf.Graph().as_default() as graph:
    data = tf.compat.v1.placeholder(tf.string, (), name="DecodeJpeg/contents")
    x = tf.cast(tf.raw_ops.DecodeJpeg(contents=data, channels=3, name="DecodeJpeg"), tf.float32, name="Cast")
    x = tf.expand_dims(x, 0, name="ExpandDims")
    x = tf.raw_ops.ResizeBilinear(images=x, size=[size, size], name="ResizeBilinear")
    x = tf.multiply(tf.subtract(x, 128.0, name="Sub"), 0.0078125, name="Mul")
    x = tf.raw_ops.Conv2D(input=x, filter=tf.constant(kernel), strides=[1, 2, 2, 1], padding="SAME", name="conv")
    x = tf.raw_ops.FusedBatchNorm(x=x, scale=flat(1), offset=flat(0.2), mean=flat(0.1), variance=flat(1.0),
                                  epsilon=0.001, is_training=False, name="conv/batchnorm")[0]
    x = tf.nn.relu(x, name="mixed_10/join")
    x = tf.nn.avg_pool2d(x, size // 2, 1, "VALID", name="pool_3")
    x = tf.nn.softmax(tf.matmul(tf.reshape(x, [-1, channels], name="pool_3/_reshape"), tf.constant(dense)),
                      name="softmax")
definition = graph.as_graph_def()
for node in definition.node:
    if node.op == "FusedBatchNorm":
        values, scale, offset, mean, variance = node.input
        node.op = "BatchNormWithGlobalNormalization"
        node.ClearField("input"); node.input.extend([values, mean, variance, offset, scale]); node.ClearField("attr")
        node.attr["T"].type, node.attr["variance_epsilon"].f = 1, 0.001
        node.attr["scale_after_normalization"].b = False
definition.versions.producer, definition.versions.min_consumer = 8, 0
(folder / "network.pb").write_bytes(definition.SerializeToString())

class Net(tf.Module):
    def __init__(self):
        self.kernel, self.dense = tf.Variable(kernel), tf.Variable(dense)
    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3), tf.float32, name="image")])
    def __call__(self, image):
        features = tf.nn.relu(tf.nn.conv2d(image, self.kernel, 2, "SAME"), name="features")
        pooled = tf.reduce_mean(features, [1, 2])
        return {"features": features, "pooled": pooled, "logits": tf.matmul(pooled, self.dense)}
net = Net()
tf.saved_model.save(net, str(folder / "saved"), signatures=net.__call__)

def small(image):
    features = tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME"))
    pooled = tf.reduce_mean(features, [1, 2])
    return {"pooled": pooled, "probabilities": tf.nn.softmax(tf.matmul(pooled, dense))}
traced = tf.function(small).get_concrete_function(tf.TensorSpec((1, size, size, 3), tf.float32, name="image"))
converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
(folder / "network.tflite").write_bytes(converter.convert())
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([rng.random((1, size, size, 3), np.float32)] for _ in range(20))
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.uint8
(folder / "whole_numbers.tflite").write_bytes(converter.convert())
"""

KERAS = """
import sys
import h5py, keras
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
keras.utils.set_random_seed(3)
model = getattr(keras.applications, sys.argv[1])(weights=None)
with h5py.File(sys.argv[2], "w") as file:
    save_weights_to_hdf5_group(file, model)
"""


def run_code(run: Run, code: str, *arguments: str) -> str:
    """Run code in a process of its own, so that TensorFlow stays out of the tests'; what it printed."""
    done = run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return str(done.stdout)


def make_networks(folder: Path, run: Run) -> None:
    """network.pb, saved/, network.tflite, whole_numbers.tflite and network.onnx.

    Args:
        run: As `subprocess.run`; where TensorFlow is, that of the fixture `tensorflow`.
    """
    run_code(run, TENSORFLOW, str(folder))
    make_onnx(folder / "network.onnx")


def make_onnx(path: Path) -> None:
    """A network as PyTorch exports one: planar, logits, its feature map inside."""
    rng = np.random.default_rng(1)
    weights = {
        "kernel": rng.normal(0, 0.4, (CHANNELS, 3, 3, 3)),
        "dense": rng.normal(0, 1, (CHANNELS, len(LABELS))),
    }
    nodes = [
        helper.make_node("Conv", ["pixel_values", "kernel"], ["conv"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["conv"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["gap"]),
        helper.make_node("Flatten", ["gap"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "dense"], ["logits"]),
    ]
    save_onnx(
        path,
        nodes,
        weights,
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", CHANNELS]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)]),
        ],
    )


def save_onnx(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> None:
    """Write an ONNX file; float weights become float32."""
    tensors = [
        numpy_helper.from_array(np.asarray(value, np.int64 if value.dtype.kind == "i" else np.float32), name)
        for name, value in weights.items()
    ]
    graph = helper.make_graph(nodes, "network", inputs, outputs, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


class Origin:
    """A web server of this machine that serves a folder. `with Origin(folder) as url:`"""

    def __init__(self, folder: Path) -> None:
        handler = partial(_Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass
