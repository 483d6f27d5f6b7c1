"""Problem documents (RFC 9457): what was found, what is valid and what to do, with the status that fits."""

from __future__ import annotations

import math

import msgspec
from flask import Request, Response

from visor.errors import ImageError, RequestError, VisorError
from visor.web.openapi import PROBLEM
from visor.web.schema import Problem

_REMEDIES = {
    404: "Correct the URL",
    405: "Use a method that the URL has",
    416: "Request a range within the file, or all of it",
    422: "Send another picture",
    429: "Try again later",
    503: "Try again in a moment",
    500: "Tell whoever runs this server; its log says more",
}
"""Remedies by status, for errors that have none themselves."""
_LATER = "Try again later, or send another picture"
"""Remedy for a picture that cannot be had now, which may be an item's own."""


def status_of(exc: VisorError) -> int:
    """The HTTP status of an error: the caller's fault (4xx), or ours for now (503) or for good (500)."""
    if isinstance(exc, RequestError):
        return exc.status
    if isinstance(exc, ImageError):
        return 422
    return 503 if exc.retriable else 500


def problem(exc: VisorError) -> Response:
    """The response for an error that Visor raised."""
    document = problem_of(exc)
    response = _response(document)
    retry_after_s = getattr(exc, "retry_after_s", None)
    if document.status in (429, 503):
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s or 30)))
    return response


def problem_of(exc: VisorError) -> Problem:
    """The document for an error that Visor raised."""
    status = status_of(exc)
    remedy = exc.remedy or (_LATER if status == 422 and exc.retriable else _remedy(status))
    return Problem(
        type=f"urn:visor:{exc.code}",
        title=exc.code.replace("_", " ").capitalize(),
        status=status,
        detail=str(VisorError(exc.found, valid=exc.valid, remedy=remedy)),
        found=exc.found,
        valid=exc.valid,
        remedy=remedy,
    )


def http_problem(request: Request, status: int, found: str, *, valid: str = "", remedy: str = "") -> Response:
    """The response for a request that no endpoint answered: a wrong path or method, or a bug of ours."""
    title = {404: "Not found", 405: "Method not allowed", 500: "Internal error"}.get(status, "Bad request")
    remedy = remedy or _remedy(status)
    # All valid paths would make it a long sentence.
    detail = f"{request.method} {request.path}: {VisorError(found, remedy=remedy)}"
    said = Problem(
        type="about:blank", title=title, status=status, detail=detail, found=found, valid=valid, remedy=remedy
    )
    return _response(said)


def _remedy(status: int) -> str:
    return _REMEDIES.get(status, "Correct the request")


def _response(document: Problem) -> Response:
    return Response(msgspec.json.encode(document), status=document.status, mimetype=PROBLEM)
