"""Our PDQ gives the bits of Facebook's, whose package has no wheel for Linux and is therefore no dependency."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from visor.near_duplicates.perceptual_hash import PDQ_EDGE as EDGE
from visor.near_duplicates.perceptual_hash import pdq_bits

Y, X = np.mgrid[:EDGE, :EDGE].astype(np.int64)

# BLAKE2 of the packed hashes that pdqhash 0.2.8 (x86-64) gives of `squares(kind)`, made once by its `compute`.
CANONICAL = {
    "noise": "c6ca249ff630e117ee661528",
    "blocks": "5e65b5fb42aa496999de408c",
    "grey": "68c29eda8a757fd8d1ce9687",
    "waves": "8ed4ea053bb28ef89e1b1134",
    "edges": "59e208de267e36348836e1ab",
    "sparse": "891c33a1f6b6fc46deb652c9",
    "steep": "d81f3f845940c2660735a589",
}


def squares(kind: str) -> Iterator[NDArray[np.uint8]]:
    """Forty RGB squares of a kind, from whole numbers only, so that they are the same with every NumPy."""
    for number in range(40):
        random = np.random.RandomState(number)
        noise = random.randint(0, 256, (EDGE, EDGE, 3))
        a, b, c = (int(n) for n in random.randint(1, 40, 3))
        made = {
            "noise": noise,
            "blocks": noise[X.T >> number % 8, X >> number % 8],
            "grey": np.full((EDGE, EDGE, 3), number * 6 + number % 3),
            "waves": np.stack([(a * X + b * Y) % 256, X * Y // c % 256, (X * X + b * Y * Y) // a % 256], axis=-1),
            "edges": np.repeat(((X // a + Y // b) % 2 * 255)[..., None], 3, axis=-1),
            "sparse": noise * (noise[..., :1] > 250),
            "steep": np.stack([X, Y, (X + Y) // 2], axis=-1) * c // 40,
        }
        yield made[kind].astype(np.uint8)


@pytest.mark.parametrize("kind", CANONICAL)
def test_the_bits_are_those_that_indexes_hold(kind: str) -> None:
    packed = b"".join(np.packbits(pdq_bits(square)).tobytes() for square in squares(kind))
    assert hashlib.blake2b(packed, digest_size=12).hexdigest() == CANONICAL[kind]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere the package's compiler may fuse its sums")
@pytest.mark.parametrize("kind", CANONICAL)
def test_the_bits_are_those_of_the_package(kind: str) -> None:
    package = pytest.importorskip("pdqhash", reason="pip install pdqhash==0.2.8, which takes a C++ compiler")
    for square in squares(kind):
        assert pdq_bits(square).tolist() == package.compute(square)[0].astype(bool).tolist()
