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
    status, title = status_of(exc), exc.code.replace("_", " ").capitalize()
    response = _response(
        status, f"urn:visor:{exc.code}", title, str(exc), found=exc.found, valid=exc.valid, remedy=exc.remedy
    )
    retry_after_s = getattr(exc, "retry_after_s", None)
    if status in (429, 503):
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s or 30)))
    return response


def http_problem(request: Request, status: int, found: str, *, valid: str = "") -> Response:
    """The response for a request that no endpoint answered: a wrong path or method, or a bug of ours."""
    title = {404: "Not found", 405: "Method not allowed", 500: "Internal error"}.get(status, "Bad request")
    return _response(
        status, "about:blank", title, f"{request.method} {request.path}: {found}", found=found, valid=valid
    )


def _response(status: int, kind: str, title: str, detail: str, **parts: str) -> Response:
    document = Problem(type=kind, title=title, status=status, detail=detail, **parts)
    return Response(msgspec.json.encode(document), status=status, mimetype=PROBLEM)
