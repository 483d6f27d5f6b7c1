"""The OpenAPI document, made from the table of endpoints and the contract's records, so that it agrees with them."""

from __future__ import annotations

from typing import Any

import msgspec

from visor import __version__
from visor.schema.items import Record
from visor.schema.search import PICTURES
from visor.web.endpoints import ENDPOINTS, FORM, JPEG, JSON, TEXT, Endpoint
from visor.web.schema import Problem

PROBLEM = "application/problem+json"
PROBLEMS: dict[int, str] = {
    400: "The request cannot be answered as it stands",
    401: "Only the owner may do this, and the request has no valid key",
    403: "On a laptop: the page that asks, or the name that it asks by, is not one of ours. Or the owner does not give "
    "the model out",
    404: "No such item",
    408: "The request's body did not arrive in time",
    413: "The request is too large",
    415: "The body is of a type that is not read here",
    422: "The picture cannot be fetched, decoded or shown",
    429: "The quota is reached; `Retry-After` says when to come back",
    503: "A store did not answer; try again",
}

_ITEM, _OTHER = {"item": "0123456789abcdef0123456789abcdef"}, {"item": "fedcba9876543210fedcba9876543210"}
_URL, _HANDLE = {"url": "https://shop.example/photo.jpg"}, {"handle": "0123456789abcdef"}
_SEEN = {
    "model": "fingerprint of GET /v1/model",
    "vector": "base64 of the numbers and the look",
    "hash": "base64 of the perceptual hash and sketch",
    "labels": [{"name": "lemon", "probability": 0.93}],
    "safety": {"drawing": 0.02, "hentai": 0.0, "neutral": 0.97, "porn": 0.0, "sexy": 0.01},
    "width": 1024,
    "height": 768,
}
_WITHIN = {"collection": {"none": ["Shoes", "Hats"]}, "price": {"min": 5, "max": 20}, "date": {"missing": True}}
EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "search": {
        "Words": {"text": "juicy green apple"},
        "A picture and words": {**_URL, "text": "apple"},
        "Like these, and not like that": {
            "examples": [_ITEM, {**_URL, "box": [0, 0, 0.5, 1]}, {**_OTHER, "weight": -0.5}]
        },
        "Conditions on attributes": {**_ITEM, "filters": {"attributes": _WITHIN}, "facets": True},
        "All that passes, the cheapest first": {"filters": {"currency": ["EUR", "USD"]}, "sort": "price_up", "k": 50},
        "The cheapest of the 24 most alike": {**_URL, "sort": "price_up", "nearest": 24},
        "The next page": {**_ITEM, "sort": "newest", "k": 20, "after": "the `next` of the answer before"},
        "Different from each other": {**_ITEM, "variety": 0.5},
        "Only what is sure": {**_URL, "min_confidence": 0.5, "min_similarity": 0.6},
        "Every picture of a product": {**_ITEM, "group": False},
        "What in it to look for": {**_URL, "regions": True, "remember": True},
        "A picture that your own device looked at": {"seen": _SEEN, "filters": {"currency": ["EUR"]}, "k": 3},
        "A picture that was sent minutes ago": {**_HANDLE, "sort": "price_down", "min_similarity": 0.5},
    },
    "searches": {"A picture and words, each by itself": {"searches": [{**_ITEM, "k": 3}, {"text": "lemon"}]}},
    "compare": {
        "A picture of the web and an item": {"first": {**_URL, "box": [0.25, 0.25, 0.5, 0.5]}, "second": _ITEM}
    },
    "suggest": {"The beginning of a word": {"text": "green app"}},
}
"""Examples of requests by the endpoint's name and by what they show. Readers fill in their own items, URLs, handles and
cursors."""


def document() -> dict[str, Any]:
    """OpenAPI 3.1 of every endpoint."""
    described = [endpoint for endpoint in ENDPOINTS if endpoint.is_described]
    # Keys keep the order that docs/openapi.json has always had, so that it stays the same byte for byte.
    in_order = sorted(described, key=lambda one: one.name != "search" and one.method != "GET")
    records = [record for one in in_order for record in (one.request, one.answer) if record]
    _, components = msgspec.json.schema_components([*records, Problem], ref_template="#/components/schemas/{name}")
    one = [_only(name) for name in PICTURES]
    none = {
        "not": {"anyOf": one},
        "anyOf": [
            _only("text"),
            {"required": ["examples"], "properties": {"examples": {"minItems": 1}}},
            {"required": ["filters"], "properties": {"filters": {"minProperties": 1}}},
        ],
    }
    components["SearchRequest"]["oneOf"] = [*one, none]
    components["Example"]["oneOf"] = one
    components["Picture"]["oneOf"] = [_only(name) for name in ("image", "url", "item")]
    components["FeedbackRequest"]["oneOf"] = [_only(name) for name in ("query_item", "query_vector")]
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in described:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Visor",
            "version": __version__,
            "summary": "Reverse image search",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _only(name: str) -> dict[str, Any]:
    """The schema that requires this field of a request."""
    return {"required": [name], "properties": {name: {"type": "object" if name == "seen" else "string"}}}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": endpoint.name, "summary": endpoint.summary}
    if endpoint.request:
        operation["requestBody"] = {"required": True, "content": _bodies(endpoint.request, endpoint.also)}
        if shown := EXAMPLES.get(endpoint.name):
            operation["requestBody"]["content"][JSON]["examples"] = {name: {"value": shown[name]} for name in shown}
    operation["responses"] = {str(endpoint.status): _success(endpoint)} | {
        str(status): _json(PROBLEMS[status], Problem, PROBLEM) for status in endpoint.problems
    }
    if endpoint.parameters:
        operation["parameters"] = [parameter | _shown(endpoint, parameter["name"]) for parameter in endpoint.parameters]
    if endpoint.name in ("delete", "thumbnail"):
        operation["responses"] = operation.pop("responses")  # the order of keys, as above
    return operation


def _shown(endpoint: Endpoint, parameter: str) -> dict[str, Any]:
    shown = EXAMPLES.get(endpoint.name, {})
    return {"examples": {name: {"value": shown[name][parameter]} for name in shown}} if shown else {}


def _bodies(request: type[Record], also: str) -> dict[str, Any]:
    """By media type, the body that a request may send: the document alone, with a picture, or one per line."""
    bodies: dict[str, Any] = {JSON: {"schema": _reference(request)}}
    if also == FORM:
        name = request.__name__
        parts = {
            "image": {"type": "string", "contentMediaType": "image/*", "format": "binary"},
            "request": {"type": "object", "description": f"A {name} without {', '.join(PICTURES)}"},
        }
        schema = {"type": "object", "required": ["image"], "properties": parts}
        bodies[FORM] = {"schema": schema, "encoding": {"request": {"contentType": JSON}}}
    elif also:
        bodies[also] = {"schema": {"type": "string", "description": f"A {request.__name__} a line, at most 1,000"}}
    return bodies


def _success(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.answer:
        return _json("The answer", endpoint.answer, JSON)
    if endpoint.media == TEXT:
        return {"description": "One metric a line", "content": {TEXT: {"schema": {"type": "string"}}}}
    sent = {"schema": {"type": "string", "format": "binary"}}
    what = "A JPEG" if endpoint.media == JPEG else "A file"
    return {"description": f"{what} that never changes", "content": {endpoint.media: sent}}


def _json(description: str, record: type[Record], media_type: str) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": _reference(record)}}}


def _reference(record: type[Record]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{record.__name__}"}


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(document()), indent=2).decode())
