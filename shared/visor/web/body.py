"""The body of a request: how much of it is taken, how long it may take to arrive, and what it says.

Neither gunicorn nor functions-framework bounds either. So the body is read here, whole, before anything else is done
with it. What is not wanted is let by in small pieces, because functions-framework reads all of a body, into memory,
before it answers.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from flask import Request

from visor.errors import BadRequest, RequestTooLarge, RequestTooSlow, UnsupportedMediaType
from visor.schema.items import Record
from visor.schema.search import SearchRequest

PIECE_BYTES = 65_536
LET_BY_BYTES_MAX = 32_000_000
"""More than this no request has that Cloud Run passes on."""
LET_BY_S = 2.0
JSON, FORM = "application/json", "multipart/form-data"
T = TypeVar("T", bound=Record)
S = TypeVar("S", bound=SearchRequest)


def receive(request: Request, *, bytes_max: int, within_s: float) -> bytes:
    """The whole body; the request's own ways to read it (`get_data`, `files`, `form`) read the same bytes afterwards.

    Raises:
        RequestTooLarge: It has more than `bytes_max`.
        RequestTooSlow: It was not there after `within_s`.
        BadRequest: The client ended before its body did, or its chunks are none.
    """
    announced = request.content_length
    if announced is not None and announced > bytes_max:
        raise _too_large(f"{announced:,}", bytes_max)
    body, broken = io.BytesIO(), None
    with _ended_after(request, within_s) as late:
        try:
            for piece in _pieces(request, most=bytes_max + 1):
                body.write(piece)
        except Exception as exc:  # noqa: BLE001 — gunicorn's errors have no base of their own
            broken = exc
    size = body.tell()
    if size > bytes_max:
        raise _too_large("too many", bytes_max)
    if late.is_set():
        raise RequestTooSlow(
            f"Of the body {size:,} bytes arrived in {within_s:g} s",
            valid=f"All of it within {within_s:g} s",
            remedy="Send a smaller picture: 1,024 pixels a side are plenty",
        )
    if broken is not None or size < (announced or 0):
        raise BadRequest(
            f"The body broke off after {size:,} bytes", valid="As many as Content-Length says, or whole chunks"
        ) from broken
    _replace(request, body.getvalue())
    request.max_form_memory_size = bytes_max
    return body.getvalue()


def let_by(request: Request) -> None:
    """Let what nobody read of the body pass, for a moment. If there is more, gunicorn ends the connection."""
    with _ended_after(request, LET_BY_S), contextlib.suppress(Exception):
        for _ in _pieces(request, most=LET_BY_BYTES_MAX):
            pass
    _replace(request, b"")


def read_search(request: Request, body: bytes, kind: type[S]) -> tuple[S, bytes | None]:
    """The request document, and the picture beside it.

    Raises:
        BadRequest, UnsupportedMediaType: It cannot be read.
    """
    if request.mimetype == JSON:
        return read_document(body, kind), None
    if request.mimetype == FORM:
        picture = request.files.get("image")
        if picture is None:
            raise BadRequest(
                f"The form has the parts {sorted({*request.files, *request.form})}",
                valid="A file part named image, and perhaps a part named request",
                remedy="Name the picture's part image",
            )
        return read_document((request.form.get("request") or "{}").encode(), kind), picture.read()
    if request.mimetype.startswith("image/"):
        return read_document(b"{}", kind), body
    raise not_read_here(request, f"{JSON}, {FORM} or image/*")


def read_document(body: bytes, kind: type[T]) -> T:
    """The record that a JSON document is.

    Raises:
        BadRequest: It is none; says where.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(
            f"The request document cannot be read: {exc}",
            valid=f"A JSON object as {kind.__name__} in /openapi.json",
            remedy="Correct what the path in the message names",
        ) from exc


def not_read_here(request: Request, valid: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"The body is of type {request.mimetype or '(none)'}", valid=valid, remedy="Set Content-Type"
    )


def _pieces(request: Request, *, most: int) -> Iterator[bytes]:
    """The body as it arrives, until it ends or `most` bytes were read."""
    stream = request.environ.get("wsgi.input")
    # Without a length only a server that ends the stream itself can be read from (PEP 3333).
    left = most if request.environ.get("wsgi.input_terminated") else min(most, request.content_length or 0)
    while stream is not None and left > 0:
        piece = stream.read(min(PIECE_BYTES, left))
        if not piece:
            return
        left -= len(piece)
        yield piece


@contextlib.contextmanager
def _ended_after(request: Request, seconds: float) -> Iterator[threading.Event]:
    """Ends a body that is still arriving after so long: a reader then meets its end, and the event is set.

    A time-out of the socket would not do, because each byte that trickles in would start it anew. A server that hands
    over whole bodies (waitress, of the embedded setting) has nothing to end.
    """
    late = threading.Event()
    connection = request.environ.get("gunicorn.socket")
    has_body = request.content_length or "chunked" in request.headers.get("Transfer-Encoding", "").lower()
    if connection is None or not has_body:
        yield late
        return

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RD)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _replace(request: Request, body: bytes) -> None:
    request.environ["wsgi.input"] = io.BytesIO(body)
    request.environ["CONTENT_LENGTH"] = str(len(body))


def _too_large(found: str, bytes_max: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The request has {found} bytes",
        valid=f"At most {bytes_max:,}",
        remedy="Send less: of a picture, 1,024 pixels a side are plenty",
    )
