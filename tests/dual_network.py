"""A tiny dual encoder in the file layout of model hubs, trained here to tell colours and patterns apart.

Words are German, so that nothing in a picture's name says them. As in CLIP, texts lie far from pictures: both sides
have an offset of their own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from PIL import Image
from tests.small_networks import save_onnx
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

SIDE, WIDTH, FILTERS = 48, 24, 96
COLOURS = {"red": "rote", "green": "grüne", "blue": "blaue", "yellow": "gelbe"}
PATTERNS = {"dots": "punkte", "bars": "streifen", "rows": "zeilen", "checks": "karos"}
WORDS = [*COLOURS.values(), *PATTERNS.values()]
VOCABULARY = ["[PAD]", "[UNK]", *WORDS]
MEAN, DEVIATION = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
"""Near CLIP's."""
LAYOUT = {"crop_size": 48, "do_center_crop": True, "size": {"shortest_edge": 48}, "resample": 3, "do_normalize": True}
TOML = """
kind = "dual"
folder = "dual"
labels = ["rote", "grüne", "blaue", "gelbe"]
prompt = "{}"
borrow = []
"""


def make_dual(folder: Path, pictures: Path, *, picture_width: int = WIDTH) -> None:
    """onnx/vision_model.onnx, onnx/text_model.onnx, tokenizer.json, preprocessor_config.json and config.json.

    Args:
        pictures: Those of `tests.model_kinds.pictures`, named "red dots.png"; it is trained on pieces of them.
    """
    rng = np.random.default_rng(5)
    axes = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    word_vectors = dict(zip(WORDS, axes, strict=False))
    table = np.stack([np.zeros(WIDTH), np.zeros(WIDTH), *word_vectors.values()]).astype(np.float32)
    save_text(folder / "onnx" / "text_model.onnx", table, offset=axes[-1] * 2)
    filters = rng.normal(0, 0.35, (FILTERS, 3, 5, 5)).astype(np.float32)
    samples, wanted = [], []
    for path in sorted(pictures.glob("*.png")):
        colour, pattern = path.stem.split()
        with Image.open(path) as picture:
            for _ in range(12):
                edge = int(rng.integers(80, 120))
                left, top = (int(rng.integers(0, side - edge + 1)) for side in picture.size)
                piece = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge))
                samples.append((np.asarray(piece, np.float32) / 255 - MEAN) / DEVIATION)
                wanted.append(word_vectors[COLOURS[colour]] + word_vectors[PATTERNS[pattern]] + axes[-2])
    seen = _features(np.stack(samples).astype(np.float32).transpose(0, 3, 1, 2), filters)
    seen = np.hstack([seen, np.ones((len(seen), 1))])
    learned = np.linalg.solve(seen.T @ seen + 1e-3 * np.eye(seen.shape[1]), seen.T @ np.stack(wanted))
    _save_pictures(folder / "onnx" / "vision_model.onnx", filters, learned[:-1, :picture_width], learned[-1])
    read = Tokenizer(models.WordLevel({word: n for n, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    read.normalizer, read.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    read.save(str(folder / "tokenizer.json"))
    about = LAYOUT | {"image_mean": MEAN, "image_std": DEVIATION}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    (folder / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 16}}))


def _features(pictures: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """What the network of pictures pools: (n, 2 × FILTERS)."""
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (5, 5), axis=(2, 3))[:, :, ::2, ::2]
    found = np.maximum(np.einsum("nchwij,fcij->nfhw", windows, filters, optimize=True), 0)
    return np.hstack([found.mean((2, 3)), np.sqrt((found**2).mean((2, 3)))])


def _save_pictures(path: Path, filters: np.ndarray, dense: np.ndarray, bias: np.ndarray) -> None:
    nodes = [
        helper.make_node("Conv", ["pixel_values", "filters"], ["conv"], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("ReduceMean", ["relu"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["relu", "relu"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["power"], axes=[2, 3], keepdims=0),
        helper.make_node("Sqrt", ["power"], ["deviation"]),
        helper.make_node("Concat", ["mean", "deviation"], ["seen"], axis=1),
        helper.make_node("MatMul", ["seen", "dense"], ["raw"]),
        helper.make_node("Add", ["raw", "bias"], ["image_embeds"]),
    ]
    weights = {"filters": filters, "dense": dense, "bias": bias[: dense.shape[1]]}
    taken = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    given = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", dense.shape[1]])
    save_onnx(path, nodes, weights, [taken], [given])


def save_text(path: Path, table: np.ndarray, offset: np.ndarray) -> None:
    """The sum of the vectors of the words, padding left out by its mask."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["looked_up", "column"], ["last_hidden_state"]),
        helper.make_node("ReduceSum", ["last_hidden_state", "tokens"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "offset"], ["text_embeds"]),
    ]
    weights = {"table": table, "offset": offset, "last": np.array([2]), "tokens": np.array([1])}
    taken = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens_"])
        for name in ("input_ids", "attention_mask")
    ]
    given = [
        helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens_", WIDTH]),
        helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", WIDTH]),
    ]
    save_onnx(path, nodes, weights, taken, given)
