"""The table of endpoints. Routes, access, metering, OpenAPI and the table in docs/http.md are made from it.

A new endpoint is a row here and a method of `HttpApi` with the row's name.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import msgspec
from werkzeug.datastructures import MultiDict
from werkzeug.routing import Map, Rule

from visor.config_errors import misfit
from visor.errors import BadRequest
from visor.models.device import DeviceModel
from visor.schema.items import Record
from visor.schema.push import PushAnswer, PushItem
from visor.schema.search import (
    FACETS,
    TEXT_MAX,
    CompareAnswer,
    CompareRequest,
    ExplainAnswer,
    ExplainRequest,
    FacetsAnswer,
    FeedbackRequest,
    Filters,
    SearchAnswer,
    SearchesRequest,
    SearchRequest,
)
from visor.web.schema import (
    FeedbackAnswer,
    HealthAnswer,
    ItemAnswer,
    ItemsAnswer,
    SearchesAnswer,
    StatsAnswer,
    SuggestAnswer,
)

JSON, FORM, LINES, JPEG = "application/json", "multipart/form-data", "application/x-ndjson", "image/jpeg"
BYTES, TEXT = "application/octet-stream", "text/plain"
Access = Literal["search", "reading", "owner", "free"]
"""`search`: counted and limited as a search. `reading`: limited by the read rate. `owner`: needs the owner's key.
`free`: no limit, no key."""
Parameter = dict[str, Any]
"""A parameter as OpenAPI describes it."""


@dataclass(frozen=True, eq=False, slots=True)
class Endpoint:
    """One method of one path."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    """As OpenAPI writes it: `/v1/items/{id}`."""
    name: str
    """The operation's id; `HttpApi` answers it with the method of this name and a leading underscore."""
    access: Access
    summary: str
    _: KW_ONLY
    request: type[Record] | None = None
    """The JSON document in the body."""
    also: str = ""
    """Another media type that the body may have."""
    answer: type[Record] | None = None
    """The JSON document of a successful answer; None: bytes of `media`, which never change unless they are text."""
    media: str = JPEG
    status: int = 200
    """Status of a successful answer."""
    parameters: tuple[Parameter, ...] = ()
    fails: tuple[int, ...] = ()
    """Statuses of failures besides those that follow from `access` and `request`."""
    is_described: bool = True
    """Whether the OpenAPI document lists it."""

    @property
    def problems(self) -> list[int]:
        """Statuses of all failures, in order."""
        from_body = {400, 408, 413, 415} if self.request else set()
        needs_key = {401} if self.request or self.access == "owner" else set()
        return sorted({*self.fails, *from_body, *needs_key, 403, 429, 503})


def _query(name: str, schema: dict[str, Any]) -> Parameter:
    return {"name": name, "in": "query", "schema": schema}


def _path(name: str) -> Parameter:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


ITEMS_MAX, ITEMS_DEFAULT = 48, 8
_FILTERS = (
    *(_query(name, {"type": "array", "items": {"type": "string"}}) for name in FACETS),
    *(_query(name, {"type": "number"}) for name in ("price_min", "price_max")),
    *(_query(name, {"type": "string", "format": "date"}) for name in ("date_from", "date_to")),
    _query("attributes", {"type": "string"}),
)
_TEXT = _query("text", {"type": "string", "maxLength": TEXT_MAX})
_LIMIT = _query("limit", {"type": "integer", "minimum": 1, "maximum": ITEMS_MAX, "default": ITEMS_DEFAULT})
_KEY = "; needs the owner's key in the header X-Visor-Key"

ENDPOINTS = (
    Endpoint("POST", "/v1/search", "search", "search", "Find the items nearest to a picture, each with its confidence",
             request=SearchRequest, also=FORM, answer=SearchAnswer, fails=(404, 422)),
    Endpoint("POST", "/v1/searches", "searches", "search", "Up to 16 searches at once",
             request=SearchesRequest, answer=SearchesAnswer),
    Endpoint("POST", "/v1/compare", "compare", "search", "What two pictures have in common",
             request=CompareRequest, answer=CompareAnswer, fails=(404, 422)),
    Endpoint("GET", "/v1/suggest", "suggest", "reading", "Complete the last word from the catalogue's words",
             answer=SuggestAnswer, parameters=(_TEXT,), fails=(400,)),
    Endpoint("POST", "/v1/explain", "explain", "search", "Show where two pictures are alike",
             request=ExplainRequest, also=FORM, answer=ExplainAnswer, fails=(404, 422)),
    Endpoint("POST", "/v1/feedback", "feedback", "search",
             "Report a wrong match: the owner's report hides it for this query, others wait for the owner. "
             "Or report that a held-back query is harmless",
             request=FeedbackRequest, answer=FeedbackAnswer, fails=(404,)),
    Endpoint("GET", "/v1/facets", "facets", "reading",
             "Count the values that items can be filtered by, over all items or those that a text finds",
             answer=FacetsAnswer, parameters=(*_FILTERS, _TEXT), fails=(400,)),
    Endpoint("GET", "/v1/items", "items", "reading", "Some items to start from",
             answer=ItemsAnswer, parameters=(_LIMIT,), fails=(400,)),
    Endpoint("POST", "/v1/items", "push", "owner", f"Send items to be indexed{_KEY}",
             request=PushItem, also=LINES, answer=PushAnswer, status=202),
    Endpoint("GET", "/v1/items/{id}", "item", "reading", "One item",
             answer=ItemAnswer, parameters=(_path("id"),), fails=(404,)),
    Endpoint("DELETE", "/v1/items/{id}", "delete", "owner", f"Delete an item that was pushed{_KEY}",
             answer=PushAnswer, status=202, parameters=(_path("id"),), fails=(404,)),
    Endpoint("GET", "/v1/thumbnails/{name}", "thumbnail", "reading", "A frame of a video",
             parameters=(_path("name"),), fails=(404,)),
    Endpoint("GET", "/v1/model", "model", "reading", "What a device needs to run the model itself",
             answer=DeviceModel),
    Endpoint("GET", "/v1/model/{sha256}", "model_file", "reading", "One of the model's files, or a range of it",
             media=BYTES, parameters=(_path("sha256"),), fails=(404,)),
    Endpoint("GET", "/v1/stats", "stats", "reading", "What the index holds and how this process is doing",
             answer=StatsAnswer),
    Endpoint("GET", "/v1/health", "health", "free", "Is this process up?", answer=HealthAnswer),
    Endpoint("GET", "/metrics", "metrics", "owner", f"Metrics of this process, as Prometheus reads them{_KEY}",
             media=TEXT),
    Endpoint("GET", "/openapi.json", "openapi", "free", "This description", is_described=False),
)  # fmt: skip

ROUTES = Map(
    [Rule(one.path.replace("{", "<").replace("}", ">"), endpoint=one, methods=[one.method]) for one in ENDPOINTS],
    strict_slashes=False,
)
ALL_PATHS = ", ".join(sorted(f"{one.method} {one.path}" for one in ENDPOINTS))
"""For an error message."""


def check_parameters(endpoint: Endpoint, arguments: MultiDict[str, str]) -> None:
    """Raise `BadRequest` if a query string has a parameter that the endpoint does not accept: ignoring a filter would
    answer another question."""
    known = sorted(str(parameter["name"]) for parameter in endpoint.parameters if parameter["in"] == "query")
    unknown = sorted(set(arguments) - set(known))
    if unknown and (known or endpoint.request is not None):
        found = f"Query parameter {unknown[0]!r:.80} is not one of {endpoint.method} {endpoint.path}"
        valid = ", ".join(known) or "None: what is asked for is in the body"
        raise BadRequest(found, valid=valid, remedy="Correct it or leave it out")


def parse_filters(arguments: MultiDict[str, str]) -> Filters:
    """The filters of a query string, e.g. `?collection=socks&collection=hats&price_max=20`. `attributes` is JSON, as in
    a search; `text` is ignored.

    Raises:
        BadRequest: A value is not valid.
    """
    values: dict[str, Any] = {}
    for name, texts in arguments.lists():
        if name == _TEXT["name"]:
            continue
        if name in FACETS:
            values[name] = texts
            continue
        try:
            (text,) = texts
            if name.startswith("price_"):
                values.setdefault("price", {})[name.removeprefix("price_")] = price = float(text)
                if not math.isfinite(price):
                    raise ValueError(text)
            elif name == "attributes":
                values[name] = msgspec.json.decode(text)
            else:
                values[name] = text
        except (ValueError, RecursionError) as exc:  # msgspec's own are ValueErrors
            valid = (
                "One date"
                if name.startswith("date_")
                else "Conditions, as one JSON object"
                if name == "attributes"
                else "One number"
            )
            raise BadRequest(f"{name} is {' and '.join(texts)!r:.80}", valid=valid, remedy="Correct it") from exc
    try:
        return msgspec.convert(values, Filters)
    except msgspec.ValidationError as exc:
        found, valid, remedy = misfit(exc, Filters, values)
        raise BadRequest(found, valid=valid, remedy=remedy) from exc
