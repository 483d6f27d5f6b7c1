"""Reading TensorFlow.js weights out of JavaScript modules."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from visor.errors import ModelError
from visor.models.build.nsfwjs import FOLDER, read_weights

MANIFEST = (
    '!function(a){n.exports={weightsManifest:[{paths:["group1-shard1of2","group1-shard2of2"],weights:['
    '{name:"conv2d_1/kernel",shape:[1,1,25,40],dtype:"float32",quantization:{min:-.5,scale:.01,dtype:"uint8"}},'
    '{name:"dense_1/bias",shape:[1000],dtype:"float32",quantization:{min:1,scale:2e-3,dtype:"uint8"}}'
    "]}]}}"
)
BYTES = np.random.default_rng(7).integers(0, 256, 2000, dtype=np.uint8)


def package(path: Path, manifest: str, *shards: bytes) -> Path:
    files = {"model": manifest}
    for n, shard in enumerate(shards, start=1):
        text = base64.b64encode(shard).decode()
        files[f"group1-shard{n}of{len(shards)}"] = f'!function(d){{f.exports="{text}"}}'
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{FOLDER}{name}.min.js")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_dequantises_across_shards(tmp_path: Path) -> None:
    data = BYTES.tobytes()
    weights = read_weights(package(tmp_path / "p.tgz", MANIFEST, data[:1100], data[1100:]))
    assert list(weights) == ["conv2d_1/kernel", "dense_1/bias"]
    assert weights["conv2d_1/kernel"].shape == (1, 1, 25, 40)
    np.testing.assert_allclose(weights["conv2d_1/kernel"].ravel(), BYTES[:1000] * 0.01 - 0.5, atol=1e-6)
    np.testing.assert_allclose(weights["dense_1/bias"], BYTES[1000:] * 0.002 + 1, atol=1e-6)


@pytest.mark.parametrize("size", [1700, 1999, 2001])
def test_refuses_bytes_that_do_not_add_up(tmp_path: Path, size: int) -> None:
    data = BYTES.tobytes() + b"\0"
    with pytest.raises(ModelError, match="lists 2 weights that end at byte"):
        read_weights(package(tmp_path / "p.tgz", MANIFEST, data[:800], data[800:size]))


def test_refuses_a_manifest_with_a_weight_that_it_does_not_understand(tmp_path: Path) -> None:
    manifest = MANIFEST.replace('shape:[1000],dtype:"float32"', 'shape:[1000],dtype:"int32"')
    with pytest.raises(ModelError, match="lists 1 weights"):
        read_weights(package(tmp_path / "p.tgz", manifest, BYTES.tobytes()[:1100], BYTES.tobytes()[1100:]))


def test_refuses_another_package(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no package/dist/models/inception_v3/group1-shard1of2"):
        read_weights(package(tmp_path / "p.tgz", MANIFEST, BYTES.tobytes()))
