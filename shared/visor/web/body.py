"""The body of a request, read within limits of size and time, and decoded.

Neither gunicorn nor functions-framework limits size or time. So the whole body is read here before anything else is
done with it. An unread body is drained in chunks, because functions-framework otherwise reads all of it into memory
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
from werkzeug.datastructures import FileStorage

from visor.config_errors import misfit
from visor.errors import BadRequest, RequestTooLarge, RequestTooSlow, UnsupportedMediaType
from visor.schema.items import Record
from visor.schema.search import SearchRequest
from visor.web.endpoints import FORM, JSON

CHUNK_BYTES = 65_536
DRAIN_BYTES_MAX = 32_000_000
"""Cloud Run rejects larger requests."""
DRAIN_S = 2.0
SEND_LESS = "Send less at once; of an image, 1,024 pixels a side are enough"
T = TypeVar("T", bound=Record)
S = TypeVar("S", bound=SearchRequest)


def read_request_body(request: Request, *, bytes_max: int, within_s: float) -> bytes:
    """Read the whole body. `get_data`, `files` and `form` of the request then return the same bytes.

    Raises:
        RequestTooLarge: It has more than `bytes_max`.
        RequestTooSlow: It had not arrived after `within_s`.
        BadRequest: It was truncated or badly chunked.
    """
    announced = request.content_length
    if announced is not None and announced > bytes_max:
        raise _too_large(f"{announced:,}", bytes_max)
    body, broken = io.BytesIO(), None
    with _closed_after(request, within_s) as late:
        try:
            for chunk in _chunks(request, most=bytes_max + 1):
                body.write(chunk)
        except Exception as exc:  # noqa: BLE001 — gunicorn's errors have no common base
            broken = exc
    size = body.tell()
    if size > bytes_max:
        raise _too_large("too many", bytes_max)
    if late.is_set():
        raise RequestTooSlow(
            f"Only {size:,} bytes of the body arrived in {within_s:g} s",
            valid=f"The whole body within {within_s:g} s",
            remedy=SEND_LESS,
        )
    if broken is not None or size < (announced or 0):
        raise BadRequest(
            f"The body ended after {size:,} bytes",
            valid="As many bytes as Content-Length says, or complete chunks",
            remedy="Send it again, whole",
        ) from broken
    _replace(request, body.getvalue())
    request.max_form_memory_size = bytes_max
    return body.getvalue()


def drain(request: Request) -> None:
    """Read and drop the rest of the body, for a moment. If there is still more, gunicorn closes the connection."""
    with _closed_after(request, DRAIN_S), contextlib.suppress(Exception):
        for _ in _chunks(request, most=DRAIN_BYTES_MAX):
            pass
    _replace(request, b"")


def read_search(request: Request, body: bytes, kind: type[S]) -> tuple[S, bytes | None]:
    """The request document, and the image sent with it.

    Raises:
        BadRequest, UnsupportedMediaType: It cannot be read.
    """
    if request.mimetype == JSON:
        return read_document(body, kind), None
    if request.mimetype == FORM:
        # A part counts the same whether it was sent as a file or as a field.
        sent: list[tuple[str, FileStorage | str]] = [*request.files.items(multi=True), *request.form.items(multi=True)]
        parts = dict(sent)
        if "image" not in parts or len(sent) > len(parts) or not parts.keys() <= {"image", "request"}:
            raise BadRequest(
                f"The form has the parts {sorted(name for name, _ in sent)!r:.200}",
                valid="One part named image, and perhaps one named request",
                remedy="Name the image's part `image`, and put everything else into `request` as JSON",
            )
        image, document = (_part_bytes(parts.get(name)) for name in ("image", "request"))
        return read_document(document or b"{}", kind), image
    if request.mimetype.startswith("image/"):
        return read_document(b"{}", kind), body
    raise unsupported_type(request, f"{JSON}, {FORM} or image/*")


def _part_bytes(part: FileStorage | str | None) -> bytes:
    return part.read() if isinstance(part, FileStorage) else (part or "").encode()


def read_document(body: bytes, kind: type[T]) -> T:
    """The record in a JSON document.

    Raises:
        BadRequest: It is not valid; the message names the place.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        found, valid, remedy = misfit(exc, kind, body, what="the request")
        raise BadRequest(found, valid=valid, remedy=remedy) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        why = "a text in it is not UTF-8" if isinstance(exc, UnicodeDecodeError) else exc
        raise BadRequest(
            f"The request is not JSON: {why}",
            valid=f"A JSON object as {kind.__name__} in /openapi.json",
            remedy="Correct it",
        ) from exc


def unsupported_type(request: Request, valid: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"The body is of type {request.mimetype or '(none)'}", valid=valid, remedy="Set Content-Type"
    )


def _chunks(request: Request, *, most: int) -> Iterator[bytes]:
    """The body as it arrives, until it ends or `most` bytes have been read."""
    stream = request.environ.get("wsgi.input")
    # Without a length only a server that ends the stream itself can be read from (PEP 3333).
    left = most if request.environ.get("wsgi.input_terminated") else min(most, request.content_length or 0)
    while stream is not None and left > 0:
        chunk = stream.read(min(CHUNK_BYTES, left))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk


@contextlib.contextmanager
def _closed_after(request: Request, seconds: float) -> Iterator[threading.Event]:
    """Stop receiving after `seconds`: a reader then sees the end of the body, and the event is set.

    A socket timeout would not do, because every byte that trickles in restarts it. A server that hands over complete
    bodies (waitress, on a laptop) has nothing to stop.
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
        remedy=SEND_LESS,
    )
