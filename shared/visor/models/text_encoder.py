"""The text side of a dual encoder: a tokenizer and a network. Both are loaded for the first text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.errors import ModelError
from visor.models.runtime import Runtime, Vector, open_runtime

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""What model hubs call the inputs of a network of texts."""


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a tokenizer.json.

    Raises:
        ModelError: It cannot be read, or the library is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise ModelError(
            f"{path.name} is read with the library tokenizers, which cannot be loaded: {exc}",
            valid="The library that models that read words need",
            remedy="Run `pip install 'visor-search[words]'`",
        ) from exc
    try:
        return Tokenizer.from_file(str(path))
    except Exception as exc:  # the library raises this very class
        raise ModelError(
            f"The tokenizer {path} cannot be read: {str(exc).strip().splitlines()[0]}",
            valid="A tokenizer.json of the library tokenizers",
            remedy="Get the file from where the networks are published",
        ) from exc


class TextEncoder:
    """Texts to unit vectors in the space of the pictures. Any number of threads may call it."""

    def __init__(self, network: Callable[[], Path], tokenizer: Callable[[], Path], output: int) -> None:
        """network, tokenizer: return the files' paths. output: position of the vector among the network's outputs."""
        self._paths, self._output = (network, tokenizer), output
        self._loaded: tuple[Runtime, Any] | None = None
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> Vector:
        """(n, d) float32 of n > 0 texts, rows of unit length."""
        with self._lock:
            if self._loaded is None:
                network, tokenizer = self._paths
                self._loaded = open_runtime(network(), threads=2), load_tokenizer(tokenizer())
            runtime, read = self._loaded
            rows = [runtime.run(tokens_of(runtime, read, text), [self._output])[0] for text in texts]
        vectors = np.stack([np.asarray(row, np.float32).ravel() for row in rows])
        unit: Vector = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return unit


def tokens_of(runtime: Runtime, tokenizer: Any, text: str) -> list[NDArray[np.int64]]:
    """The inputs of a network of texts, (1, tokens) each."""
    read = tokenizer.encode(text)
    named = {"attention_mask": read.attention_mask, "token_type_ids": read.type_ids}
    named["position_ids"] = list(range(len(read.ids)))
    return [np.array([named.get(one.name, read.ids)], np.int64) for one in runtime.inputs]
