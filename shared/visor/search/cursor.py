"""Cursors: where a listing continues, as an opaque text that an answer contains and the next request sends back."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from visor.errors import BadRequest
from visor.index.search.hits import ID_HEAD, Cursor
from visor.schema.items import Record
from visor.schema.search import SearchRequest

_BOUND_TO = ("filters", "metric", "text", "sort", "min_confidence", "min_similarity", "variety", "group")
"""Fields that two pages of one listing share, besides the picture, which may come as `query.vector` of the first."""
SAME_PICTURE = 0.999
"""Least cosine of the sketches of one query, whose last digit another processor may have computed differently."""


class _Written(Record, frozen=True, kw_only=True, array_like=True):
    generation: int
    request: bytes
    shown: bytes
    last: tuple[float, float, Annotated[bytes, Meta(min_length=16, max_length=16)]] | None = None
    picture: bytes = b""


def write_cursor(cursor: Cursor | None, request: SearchRequest, vector: np.ndarray) -> str | None:
    """The cursor as `SearchRequest.after` expects it. `vector` (d,) is the query's, or (0,) without a picture."""
    if cursor is None:
        return None
    written = _Written(
        generation=cursor.generation,
        request=_digest(request),
        shown=cursor.shown,
        last=cursor.last,
        picture=_sketch(vector).tobytes(),
    )
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(written)).decode().rstrip("=")


def read_cursor(request: SearchRequest, vector: np.ndarray, generation: int) -> Cursor | None:
    """Where a request continues; None at the beginning.

    Args:
        vector: As for `write_cursor`.
        generation: Of the searched index: in another one, the same picture may have another vector.

    Raises:
        BadRequest: `after` is not a cursor, or that of another search.
    """
    if request.after is None:
        return None
    try:
        data = base64.b64decode(request.after + "=" * (-len(request.after) % 4), altchars=b"-_", validate=True)
        written = msgspec.msgpack.decode(data, type=_Written)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise _refused(f"after is not a cursor: {request.after!r:.60}") from exc
    if len(written.shown) % ID_HEAD:
        raise _refused("after is not a cursor: it was cut")
    if written.request != _digest(request):
        raise _refused("after is the cursor of another search")
    if written.generation == generation and not _is_same(written.picture, _sketch(vector)):
        raise _refused("after is the cursor of a search for another picture")
    return Cursor(written.generation, written.last, written.shown)


def _digest(request: SearchRequest) -> bytes:
    same = [getattr(request, name) for name in _BOUND_TO]
    same += [request.nearest] * (request.nearest > 0)  # left out otherwise, as in cursors of an older Visor
    return hashlib.blake2b(msgspec.json.encode(same, order="deterministic"), digest_size=6).digest()


def _sketch(vector: np.ndarray) -> np.ndarray:
    """(8,) float16 of a vector (d,), or (0,) of none, whose cosine is about that of two vectors."""
    if not len(vector):
        return np.empty(0, np.float16)
    first, second = np.pad(vector, (0, -len(vector) % 16)).reshape(2, -1, 8).sum(1)
    return np.asarray(first - second, np.float16)


def _is_same(written: bytes, own: np.ndarray) -> bool:
    if len(written) != own.nbytes or not len(own):
        return len(written) == own.nbytes
    one, other = np.frombuffer(written, np.float16).astype(np.float32), own.astype(np.float32)
    return bool(one @ other >= SAME_PICTURE * np.linalg.norm(one) * np.linalg.norm(other))


def _refused(found: str) -> BadRequest:
    return BadRequest(
        found,
        valid=f"`next` of an answer to a request for the same picture, with the same {', '.join(_BOUND_TO)}, nearest",
        remedy="Send it unchanged, or begin without `after`",
    )
