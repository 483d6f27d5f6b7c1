"""Reads the weights of nsfwjs' Inception v3 from its npm package.

The package wraps a TensorFlow.js layers model in JavaScript modules: `model.min.js` holds the topology and the weights
manifest as an object literal, each `group1-shardNofM.min.js` a piece of the weights as one base64 string. A weight `w`
is stored as uint8 `q` with `w = q * scale + min` (TensorFlow.js `quantization` of a manifest entry).
"""

from __future__ import annotations

import base64
import binascii
import re
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visor.errors import ModelError

FOLDER = "package/dist/models/inception_v3/"
_NUMBER = r"-?\d*\.?\d+(?:e-?\d+)?"
_WEIGHT = re.compile(
    r'\{name:"(?P<name>[^"]+)",shape:\[(?P<shape>[\d,]*)\],dtype:"float32",'
    rf'quantization:\{{min:(?P<min>{_NUMBER}),scale:(?P<scale>{_NUMBER}),dtype:"uint8"\}}\}}'
)
_SHARD = re.compile(r'"(?P<name>group1-shard\d+of\d+)"')
_BASE64 = re.compile(r'exports="(?P<data>[A-Za-z0-9+/=]{1000,})"')


def read_weights(archive: Path) -> dict[str, NDArray[np.float32]]:
    """Every weight by its Keras 2 name, such as `conv2d_1/kernel`, float32, in Keras' own layout.

    Raises:
        ModelError: The archive is not the package, or its manifest and its bytes do not agree.
    """
    with tarfile.open(archive, "r:gz") as package:
        manifest = _text(package, "model")
        shards = list(dict.fromkeys(match["name"] for match in _SHARD.finditer(manifest)))
        data = b"".join(_shard(package, name) for name in shards)
    entries = list(_WEIGHT.finditer(manifest))
    weights: dict[str, NDArray[np.float32]] = {}
    offset = 0
    for entry in entries:
        shape = tuple(int(edge) for edge in entry["shape"].split(",") if edge)
        count = int(np.prod(shape))
        quantised = np.frombuffer(data, np.uint8, count=min(count, len(data) - offset), offset=offset)
        if quantised.size != count:
            break
        values = quantised.astype(np.float32) * np.float32(entry["scale"]) + np.float32(entry["min"])
        weights[entry["name"]] = values.reshape(shape)
        offset += count
    if not entries or offset != len(data) or len(weights) != manifest.count("quantization:{"):
        raise ModelError(
            f"The manifest in {archive.name} lists {len(entries)} weights that end at byte {offset} of {len(data)}",
            valid="Manifest and shards of nsfwjs 4.3.0, which agree to the byte",
            remedy="Delete the file and build the model again",
        )
    return weights


def _text(package: tarfile.TarFile, name: str) -> str:
    path = f"{FOLDER}{name}.min.js"
    try:
        member = package.extractfile(path)
    except KeyError:
        member = None
    if member is None:
        raise ModelError(
            f"The nsfwjs package has no {path}",
            valid="Version 4.3.0, which ships Inception v3 there",
            remedy="Delete the downloaded package and build the model again",
        )
    return member.read().decode()


def _shard(package: tarfile.TarFile, name: str) -> bytes:
    found = _BASE64.search(_text(package, name))
    try:
        return base64.b64decode(found["data"] if found else "?", validate=True)
    except binascii.Error as exc:
        raise ModelError(
            f"Shard {name} of the nsfwjs package holds no base64 text",
            valid="Version 4.3.0, each shard module of which exports one base64 string",
            remedy="Delete the downloaded package and build the model again",
        ) from exc
