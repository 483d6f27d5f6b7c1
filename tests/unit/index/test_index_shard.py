"""Shards: what is written is read; damage and later formats are named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from visor.errors import CorruptObject, NewerFormat
from visor.index.format import container
from visor.index.format.shard import read_shard, write_shard
from visor.schema.items import FacetRow, item_id

FACETS = [FacetRow(collection="a", price=1.5, labels=("x", "y")), FacetRow(), FacetRow(date="2024-05-01")]


def parts(count: int = 3, dimension: int = 8, hash_bytes: int = 32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "model": "m",
        "ids": [item_id("s", str(i)) for i in range(count)],
        "versions": [5, 6, 7][:count],
        "vectors": rng.random((count, dimension)).astype(np.float16),
        "hashes": rng.integers(0, 256, (count, hash_bytes), np.uint8),
        "facets": FACETS[:count],
    }


def test_what_is_written_is_read() -> None:
    given = parts(hash_bytes=160)
    shard = read_shard(memoryview(write_shard(**given)))
    assert shard.model == "m"
    assert [row.tobytes().hex() for row in shard.ids] == given["ids"]
    assert shard.versions.tolist() == given["versions"]
    assert np.array_equal(shard.vectors, given["vectors"])
    assert np.array_equal(shard.hashes, given["hashes"])
    assert shard.facets == FACETS


def test_the_same_content_gives_the_same_bytes() -> None:
    assert write_shard(**parts()) == write_shard(**parts())


def test_an_empty_shard_is_a_shard() -> None:
    given = parts() | {"ids": [], "versions": [], "facets": []}
    given |= {"vectors": np.empty((0, 8), np.float16), "hashes": np.empty((0, 32), np.uint8)}
    assert len(read_shard(memoryview(write_shard(**given)))) == 0


def test_any_safetensors_reader_opens_it() -> None:
    given = parts()
    tensors = safetensors.numpy.load(write_shard(**given))
    assert np.array_equal(tensors["vectors"], given["vectors"])
    assert tensors["versions"].tolist() == given["versions"]


def test_every_flipped_byte_is_found_or_harmless() -> None:
    data = write_shard(**parts())
    whole = read_shard(memoryview(data))
    named = []
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        try:
            shard = read_shard(memoryview(bytes(damaged)), name="shards/x.shard")
        except (CorruptObject, NewerFormat) as exc:
            named.append("shards/x.shard" in str(exc))
            continue
        # Only padding between tensors may change unseen.
        assert shard.facets == whole.facets
        assert all(np.array_equal(getattr(shard, p), getattr(whole, p)) for p in ("ids", "versions", "vectors"))
    assert all(named)
    assert len(named) > len(data) * 0.8


@pytest.mark.parametrize("length", [0, 7, 100, 1000, -1])
def test_a_cut_off_shard_is_corrupt(length: int) -> None:
    with pytest.raises(CorruptObject):
        read_shard(memoryview(write_shard(**parts())[:length]))


def test_a_later_format_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "FORMAT_VERSION", 2)
    data = write_shard(**parts())
    monkeypatch.undo()
    with pytest.raises(NewerFormat, match=r"shards/x\.shard has format version 2.*up to 1"):
        read_shard(memoryview(data), name="shards/x.shard")


def test_another_kind_is_no_shard() -> None:
    data = container.pack("projection", {}, {"a": np.zeros(3, np.float32)})
    with pytest.raises(CorruptObject, match="projection, not a shard"):
        read_shard(memoryview(data))


def test_html_is_no_shard() -> None:
    body = json.dumps({"a": 1}).encode()
    with pytest.raises(CorruptObject):
        read_shard(memoryview(len(body).to_bytes(8, "little") + body + bytes(100)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"versions": [1]}, "1 versions for 3 ids"),
        ({"ids": ["x"] * 3}, "hex"),
        ({"ids": ["ab"] * 3}, "32 hex digits"),
        ({"vectors": np.full((3, 8), np.nan)}, "finite"),
        ({"hashes": np.zeros((3, 31), np.uint8)}, "31 bytes"),
        ({"hashes": np.zeros((3, 32), np.int8)}, "uint8"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_shard(**parts() | change)
