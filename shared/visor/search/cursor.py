"""Cursors: where a listing goes on, as an opaque text that an answer gives and the next request sends back."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta

from visor.errors import BadRequest
from visor.index.search.hits import Cursor
from visor.index.search.listing import ID_HEAD
from visor.schema.items import Record
from visor.schema.search import SearchRequest

_BOUND_TO = ("filters", "metric", "text", "sort", "min_confidence", "min_similarity", "variety", "group")
"""What two pages of one listing have in common. The picture may be sent as `query.vector` of the first answer."""


class _Written(Record, frozen=True, kw_only=True, array_like=True):
    generation: int
    request: bytes
    shown: bytes
    last: tuple[float, float, Annotated[bytes, Meta(min_length=16, max_length=16)]] | None = None


def write_cursor(cursor: Cursor | None, request: SearchRequest) -> str | None:
    """The cursor as `SearchRequest.after` takes it."""
    if cursor is None:
        return None
    written = _Written(generation=cursor.generation, request=_digest(request), shown=cursor.shown, last=cursor.last)
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(written)).decode().rstrip("=")


def read_cursor(request: SearchRequest) -> Cursor | None:
    """Where a request goes on; None at the beginning.

    Raises:
        BadRequest: `after` is no cursor, or that of another search.
    """
    if request.after is None:
        return None
    try:
        data = base64.b64decode(request.after + "=" * (-len(request.after) % 4), altchars=b"-_", validate=True)
        written = msgspec.msgpack.decode(data, type=_Written)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise _refused(f"after is no cursor: {request.after!r:.60}") from exc
    if len(written.shown) % ID_HEAD:
        raise _refused("after is no cursor: it was cut")
    if written.request != _digest(request):
        raise _refused("after is the cursor of another search")
    return Cursor(written.generation, written.last, written.shown)


def _digest(request: SearchRequest) -> bytes:
    same = [getattr(request, name) for name in _BOUND_TO]
    return hashlib.blake2b(msgspec.json.encode(same, order="deterministic"), digest_size=6).digest()


def _refused(found: str) -> BadRequest:
    return BadRequest(
        found,
        valid=f"`next` of an answer to a request with the same {', '.join(_BOUND_TO)}",
        remedy="Send it unchanged, or begin without `after`",
    )
