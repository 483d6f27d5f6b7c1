"""Problem documents (RFC 9457): what was found, what is valid and what to do, with the status that fits."""

from __future__ import annotations

import math

import msgspec
from flask import Request, Response

from visor.errors import ImageError, RequestError, VisorError
from visor.web.openapi import PROBLEM
from visor.web.schema import Problem


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
    return Problem(
        type=f"urn:visor:{exc.code}",
        title=exc.code.replace("_", " ").capitalize(),
        status=status_of(exc),
        detail=str(exc),
        found=exc.found,
        valid=exc.valid,
        remedy=exc.remedy,
    )


def http_problem(request: Request, status: int, found: str, *, valid: str = "") -> Response:
    """The response for a request that no endpoint answered: a wrong path or method, or a bug of ours."""
    title = {404: "Not found", 405: "Method not allowed", 500: "Internal error"}.get(status, "Bad request")
    detail = f"{request.method} {request.path}: {found}"
    return _response(Problem(type="about:blank", title=title, status=status, detail=detail, found=found, valid=valid))


def _response(document: Problem) -> Response:
    return Response(msgspec.json.encode(document), status=document.status, mimetype=PROBLEM)
