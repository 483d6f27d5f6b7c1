"""Links: a query's vector as an answer returns it and a link or a later request carries it, and its look after it."""

from __future__ import annotations

import base64

import numpy as np

from visor.errors import BadRequest
from visor.index.format.container import Array
from visor.index.format.looks import LOOK_BYTES
from visor.index.format.projection import query_vector


def as_linked(vector: Array) -> Array:
    """The query (d,) as links and pages carry it, in float16: they get the same answer as the picture."""
    full = query_vector(vector, len(vector))
    return query_vector(full.astype("<f2"), len(full))


def encode_vector(vector: Array, look: Array | None) -> str:
    """The text that `decode_vector` reads."""
    return base64.b64encode(vector.astype("<f2").tobytes() + (b"" if look is None else look.tobytes())).decode()


def decode_vector(text: str, dimension: int, name: str = "vector") -> tuple[Array, Array | None]:
    """The unit vector, float32 of shape `(dimension,)`, in base64 (also URL-safe) of little-endian float16, and the
    look (258,) uint8 that may follow it.

    Args:
        name: The field's name, for the error.

    Raises:
        BadRequest: It is not base64, has another length, or is not finite.
    """
    data = decode_base64(name, text)
    if len(data) not in (2 * dimension, 2 * dimension + LOOK_BYTES):
        raise BadRequest(
            f"{name} has {len(data)} bytes",
            valid=f"{2 * dimension}: {dimension} numbers of 2 bytes",
            remedy="Take query.vector from an answer of this index; after a change of model search the picture again",
        )
    look = np.frombuffer(data, np.uint8, offset=2 * dimension)
    return query_vector(np.frombuffer(data, "<f2", dimension), dimension), look if len(look) else None


def decode_base64(name: str, text: str) -> bytes:
    """Decode base64, also URL-safe and without its padding. Raises `BadRequest`."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except ValueError as exc:
        raise BadRequest(f"{name} is not base64: {exc}", valid="Base64 of bytes", remedy="Encode them") from exc
