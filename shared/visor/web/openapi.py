"""The OpenAPI document, made from the contract's records so that it cannot disagree with them."""

from __future__ import annotations

from typing import Any

import msgspec

from visor import __version__
from visor.errors import RequestError
from visor.schema.push import PushAnswer, PushItem
from visor.schema.search import (
    ExplainAnswer,
    ExplainRequest,
    FacetsAnswer,
    FeedbackRequest,
    SearchAnswer,
    SearchRequest,
)
from visor.web.schema import FeedbackAnswer, HealthAnswer, ItemAnswer, ItemsAnswer, Problem, StatsAnswer

JSON = "application/json"
PROBLEM = "application/problem+json"
ANSWERS: dict[int, str] = {
    400: "The request cannot be answered as it stands",
    401: "Only the owner may do this, and the request has no valid key",
    404: "No such item",
    408: "The request's body did not arrive in time",
    413: "The request is too large",
    415: "The body is of a type that is not read here",
    422: "The picture cannot be fetched, decoded or shown",
    429: "The quota is reached; `Retry-After` says when to come back",
    503: "A store did not answer; try again",
}


def document() -> dict[str, Any]:
    """OpenAPI 3.1 of every endpoint."""
    names = [
        SearchRequest,
        SearchAnswer,
        FacetsAnswer,
        ItemsAnswer,
        ItemAnswer,
        StatsAnswer,
        HealthAnswer,
        ExplainRequest,
        ExplainAnswer,
        FeedbackRequest,
        FeedbackAnswer,
        PushItem,
        PushAnswer,
        Problem,
    ]
    _, components = msgspec.json.schema_components(names, ref_template="#/components/schemas/{name}")
    components["SearchRequest"]["oneOf"] = [_only(name) for name in ("image", "url", "vector", "item")]
    components["FeedbackRequest"]["oneOf"] = [_only(name) for name in ("query_item", "query_vector")]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Visor",
            "version": __version__,
            "summary": "Reverse image search",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],
        "paths": {
            "/v1/search": {"post": _search()},
            "/v1/explain": {"post": _asked("explain", "Where in two pictures their likeness sits", "Explain")},
            "/v1/feedback": {"post": _feedback()},
            "/v1/facets": {
                "get": _get("Count the values that items can be filtered by", "FacetsAnswer", [400], _FACETS)
            },
            "/v1/items": {
                "get": _get("Some items to start from", "ItemsAnswer", [400], [_query("limit", _integer(1, 48, 8))]),
                "post": _push(),
            },
            "/v1/items/{id}": {"get": _get("One item", "ItemAnswer", [404], [_ID]), "delete": _delete()},
            "/v1/thumbnails/{name}": {"get": _thumbnail()},
            "/v1/stats": {"get": _get("What the index holds and how this process is doing", "StatsAnswer", [])},
            "/v1/health": {"get": _get("Is this process up?", "HealthAnswer", [])},
        },
        "components": {"schemas": components},
    }


def _only(name: str) -> dict[str, Any]:
    """That this field of a search request is the one that is there."""
    return {"required": [name], "properties": {name: {"type": "string"}}}


def _search() -> dict[str, Any]:
    return _asked("search", "The nearest items to a picture, and how sure that is", "Search")


def _asked(operation: str, summary: str, name: str) -> dict[str, Any]:
    """An operation that takes a search as JSON, or as a form beside a picture."""
    request = {"$ref": f"#/components/schemas/{name}Request"}
    beside = {"type": "object", "description": f"A {name}Request without image, url, vector and item"}
    multipart = {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "string", "contentMediaType": "image/*", "format": "binary"},
            "request": beside,
        },
    }
    return {
        "operationId": operation,
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": request},
                "multipart/form-data": {"schema": multipart, "encoding": {"request": {"contentType": JSON}}},
            },
        },
        "responses": _responses(f"{name}Answer", [400, 401, 404, 408, 413, 415, 422, 429, 503]),
    }


def _feedback() -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/FeedbackRequest"}}}
    return {
        "operationId": "feedback",
        "summary": "Say that an item is no match: it is hidden for this query, and confidence learns from it",
        "requestBody": {"required": True, "content": content},
        "responses": _responses("FeedbackAnswer", [400, 401, 404, 408, 413, 415, 429, 503]),
    }


def _push() -> dict[str, Any]:
    item = {"$ref": "#/components/schemas/PushItem"}
    lines = {"type": "string", "description": "A PushItem a line, at most 1,000"}
    return {
        "operationId": "push",
        "summary": "Send items to be indexed; needs the owner's key in the header X-Visor-Key",
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": item}, "application/x-ndjson": {"schema": lines}},
        },
        "responses": _responses("PushAnswer", [400, 401, 408, 413, 415, 429, 503], status=202),
    }


def _delete() -> dict[str, Any]:
    return {
        "operationId": "delete",
        "summary": "Delete an item that was pushed; needs the owner's key in the header X-Visor-Key",
        "parameters": [_ID],
        "responses": _responses("PushAnswer", [401, 404, 429, 503], status=202),
    }


def _thumbnail() -> dict[str, Any]:
    name = {**_ID, "name": "name"}
    responses = _responses("HealthAnswer", [404, 429, 503])
    picture = {"schema": {"type": "string", "format": "binary"}}
    responses["200"] = {"description": "A JPEG that never changes", "content": {"image/jpeg": picture}}
    return {
        "operationId": "thumbnail",
        "summary": "A frame of a video",
        "parameters": [name],
        "responses": responses,
    }


def _get(summary: str, answer: str, problems: list[int], parameters: list[Any] | None = None) -> dict[str, Any]:
    operation = {
        "operationId": answer.removesuffix("Answer").lower(),
        "summary": summary,
        "responses": _responses(answer, [*problems, 429, 503]),
    }
    if parameters:
        operation["parameters"] = parameters
    return operation


def _responses(answer: str, problems: list[int], status: int = 200) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): {
            "description": "The answer",
            "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{answer}"}}},
        }
    }
    for problem in problems:
        responses[str(problem)] = {
            "description": ANSWERS[problem],
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return responses


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _integer(least: int, most: int, default: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_FACETS = [_query(name, _TEXTS) for name in ("collection", "source", "country", "currency", "label")]
_FACETS += [_query(name, {"type": "number"}) for name in ("price_min", "price_max")]
_FACETS += [_query(name, {"type": "string", "format": "date"}) for name in ("date_from", "date_to")]

STATUS_OF_IMAGE_ERRORS = 422


def statuses() -> dict[str, int]:
    """HTTP status of every kind of `RequestError`, by code."""
    return {cls.code: cls.status for cls in RequestError.__subclasses__()}


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(document()), indent=2).decode())
